"""A query from the user's side: ``Begin``, submit, follow, ``Terminate``; these two run in this process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError, SelectorError, SessionError, StoreError
from ..feedback import Show
from . import runtime
from .bundle import Bundle, collect
from .code import CodeStore
from .handle import Query, is_seconds
from .outputfile import OutputFile
from .result import Result


class Send(Protocol):
    """One message to the session's master, and its answer."""

    def __call__(self, message: str, **arguments: Any) -> Any: ...


def _nowhere(query: int, name: str) -> str:
    raise StoreError(f"output file {name} of query {query} cannot be read in place")


class Queries:
    """The queries of a session, as one process sees them.

    Args:
        cache: this node's directory of compiled code.
        upload: stores a local file as an LFN; None where there is no Grid.
        watch: called with each state of a query (see `Master.follow`); may raise.
        last_words: what is known of the worker that died last, to end a message.
        locate: the URL of an output file of a query; raises `StoreError` where there is none.

    ROOT lives in the process once: ``lock`` is held wherever it works for one of the queries.
    """

    def __init__(
        self,
        send: Send,
        cache: Path,
        upload: Callable[[Path, str], None] | None,
        watch: Callable[[Mapping[str, Any]], None] = lambda _: None,
        last_words: Callable[[], str] = str,
        locate: Callable[[int, str], str] = _nowhere,
    ) -> None:
        self.root = runtime.load()
        self.lock = threading.RLock()
        self.send = send
        self.upload = upload
        self.watch = watch
        self.last_words = last_words
        self.locate = locate
        self._code = CodeStore(self.root, cache, renames=True)
        self._known: dict[int, Query] = {}
        self._warm_up()

    def load(self, spec: str) -> None:
        """Make ``macro.C``, ``lib.so`` or ``header.h`` known here and on every worker."""
        bundle = collect(spec)
        with self.lock:
            bundle = self._code.load(bundle)
        self.send("load", bundle=bundle.to_message())

    def submit(
        self,
        parts: Sequence[Mapping[str, Any]],
        selector: str,
        option: str = "",
        inputs: Mapping[str, Any] | Sequence[Any] = (),
        on_missing: str = "fail",
        feedback: float = 1.0,
        commit: str = "interval",
        title: str = "",
    ) -> Query:
        """Start a query over a dataset (``parts``: it and its friends, as `Master.submit` takes them).

        Its ``Begin`` has run when this returns.

        Raises:
            CompileError, SelectorError: the selector does not compile, or its ``Begin`` failed.
            ConfigError: a bad argument.
        """
        _check_arguments(selector, option, inputs, on_missing, feedback, commit, title)
        with self.lock:
            bundle = self._selector(selector)
            class_name = bundle.class_name if bundle else selector
            input_list = self._input_list(inputs)
            instance = self._instance(class_name, option, input_list)
            _check(str(instance.Begin()))
            packed = runtime.pack(self.root, input_list)
        title = title or (bundle.stem if bundle else selector)
        number = self.send(
            "submit",
            spec={
                "selector": bundle.to_message() if bundle else None,
                "class_name": class_name,
                "option": option,
                "input": packed,
                "on_missing": on_missing,
                "feedback": float(feedback),
                "commit": commit,
                "title": title,
                "parts": list(parts),
            },
        )
        query = Query(self, number, title, time.time(), float(feedback), instance)
        self._known[number] = query
        return query

    def process(
        self,
        *arguments: Any,
        progress: bool | None = None,
        on_feedback: Show | None = None,
        **options: Any,
    ) -> Result:
        """`submit` with these arguments, `Query.result`; nothing is kept but output files."""
        query = self.submit(*arguments, **options)
        result = None
        try:
            result = query.result(progress, on_feedback)
            return result
        finally:
            if result and any(isinstance(item, OutputFile) for item in result.values()):
                self._known.pop(query.id, None)
            else:
                with suppress(SessionError):  # the first one tells more
                    query.forget()

    def handles(self) -> list[Query]:
        """All queries that the master still knows, by their numbers."""
        described = {q["id"]: q for q in self.send("queries")}
        for number in sorted(set(described) - set(self._known)):
            about = described[number]
            self._known[number] = Query(self, number, about["title"], about["submitted"], about["feedback"])
        return [self._known[number] for number in sorted(described)]

    def forget(self, number: int) -> None:
        """Cancel a query and give up what is kept of it."""
        self._known.pop(number, None)
        self.send("forget", query=number)

    # ------------------------------------------------------------ for the handles, who hold the lock

    def fresh_instance(self, number: int) -> Any:
        """An instance of the query's selector, its code from the master: ``Begin`` ran in another process."""
        origin = self.send("origin", query=number)
        class_name = origin["class_name"]
        for message in origin["bundles"]:
            bundle = Bundle.from_message(message)
            loaded = self._code.load(bundle)
            if bundle.class_name == class_name:
                class_name = loaded.class_name
        return self._instance(class_name, origin["option"], self.unpack(origin["input"]))

    def unpack(self, data: bytes) -> Any:
        """The ``TList`` in the master's bytes."""
        return runtime.unpack(self.root, data)

    def taken(self, objects: Any) -> dict[str, Any]:
        """The objects out of a list, by name; they belong to Python from now on."""
        objects.SetOwner(False)
        self._untangle(list(objects))
        taken = {}
        for item in list(objects):
            objects.Remove(item)
            if hasattr(item, "SetDirectory"):
                item.SetDirectory(self.root.nullptr)
            self.root.SetOwnership(item, True)
            taken[str(item.GetName())] = item
        return taken

    def files(self, number: int, sizes: Sequence[tuple[str, int]]) -> list[OutputFile]:
        """The output files of a query; they are at the master still."""

        def fetch_from(name: str) -> Callable[[int, int], bytes]:
            return lambda offset, size: bytes(
                self.send("fetch", query=number, name=name, offset=offset, size=size)
            )

        return [
            OutputFile(self.root, name, size, fetch_from(name), partial(self.locate, number, name))
            for name, size in sizes
        ]

    def terminate(self, instance: Any, outputs: Any, files: Sequence[OutputFile]) -> dict[str, Any]:
        """Run the selector's ``Terminate`` on the merged outputs; what is in its list afterwards."""
        listed = instance.Selector().GetOutputList()
        outputs.SetOwner(False)
        for item in list(outputs):
            listed.Add(item)
        failed: list[BaseException] = []

        def path_of(file: OutputFile) -> Callable[[], str]:
            def path() -> str:  # called from C++, through which no exception can go
                try:
                    return str(file.path)
                except BaseException as error:
                    failed.append(error)
                    return ""

            return path

        paths = [path_of(file) for file in files]  # C++ keeps no hold on them
        for file, path in zip(files, paths, strict=True):
            named = self.root.gridproof.OutputFile(file.name, path)
            self.root.SetOwnership(named, False)
            listed.Add(named)
        problem = str(instance.Terminate())
        for error in failed:
            raise error
        _check(problem)
        return {**self.taken(listed), **{file.name: file for file in files}}

    # ------------------------------------------------------------ inside

    def _warm_up(self) -> None:
        """Have ROOT compile what a first query would wait for, while pilots are still starting."""
        inputs = self._input_list({"number": 1, "text": ""})
        instance = self._instance("TSelector", "", inputs)
        _check(str(instance.Begin()))
        runtime.pack(self.root, inputs)
        self.terminate(instance, self.unpack(runtime.sample(self.root)), ())

    def _untangle(self, outputs: Sequence[Any]) -> None:
        """Make collections safe whose elements are outputs of their own too, and may go before them."""
        root = self.root
        addresses = {root.addressof(item) for item in outputs}
        for collection in outputs:
            if not isinstance(collection, root.TCollection):
                continue
            if any(root.addressof(element) in addresses for element in collection):
                collection.SetOwner(False)
                self._watch_elements(collection)

    def _watch_elements(self, collection: Any) -> None:
        """Have ROOT take an element out when somebody deletes it."""
        for item in (collection, *collection):
            item.SetBit(self.root.TObject.kMustCleanup)
        self.root.gROOT.GetListOfCleanups().Add(collection)

    def _selector(self, spec: str) -> Bundle | None:
        """The selector's code, made known here; None for a class that `load` has made known."""
        if re.fullmatch(r"[A-Za-z_][\w:]*", spec) and not Path(spec).exists():
            if not self.root.TClass.GetClass(spec, True, True):
                raise ConfigError(f'there is no class {spec}; a source file is given as "{spec}.C+"')
            return None
        bundle = collect(spec)
        if not bundle.is_selector:
            raise ConfigError(f"{bundle.main} is no selector's source")
        return self._code.load(bundle)

    def _input_list(self, inputs: Mapping[str, Any] | Sequence[Any]) -> Any:
        root = self.root
        objects = root.gridproof.InputList()
        kept = []
        for name, value in inputs.items() if isinstance(inputs, Mapping) else ((None, v) for v in inputs):
            if name is None and not isinstance(value, root.TObject):
                raise ConfigError("numbers and strings among the inputs need names: give a mapping")
            if isinstance(value, bool):
                item = root.TParameter["bool"](name, value)
            elif isinstance(value, Integral):
                if not -(2**63) <= int(value) < 2**63:
                    raise ConfigError(f"input {name!r} needs more than 64 bits")
                item = root.TParameter["Long64_t"](name, int(value))
            elif isinstance(value, Real):
                item = root.TParameter["double"](name, float(value))
            elif isinstance(value, str):
                item = root.TNamed(name, value)
            elif isinstance(value, root.TObject):
                item = value if name in (None, value.GetName()) else value.Clone(name)
            else:
                raise ConfigError(
                    f"input {name!r} is a {type(value).__name__}, not a TObject, number, bool or string"
                )
            kept.append(item)
            objects.Add(item)
        self._watch_elements(objects)
        objects._kept = kept  # Python owns them, and lets go of them before the list
        return objects

    def _instance(self, class_name: str, option: str, inputs: Any) -> Any:
        instance = self.root.gridproof.Make(class_name, option, inputs)
        _check(str(instance.problem))
        instance._inputs = inputs  # which it does not own
        return instance


def _check(problem: str) -> None:
    if problem:
        raise SelectorError(problem)


def _check_arguments(
    selector: str,
    option: str,
    inputs: Mapping[str, Any] | Sequence[Any],
    on_missing: str,
    feedback: float,
    commit: str,
    title: str,
) -> None:
    if on_missing not in ("fail", "skip"):
        raise ConfigError(f'on_missing is "fail" or "skip", not {on_missing!r}')
    if commit not in ("interval", "end"):
        raise ConfigError(f'commit is "interval" or "end", not {commit!r}')
    if not is_seconds(feedback) or not feedback:
        raise ConfigError(f"feedback is a number of seconds above 0, not {feedback!r}")
    for name, value in (("selector", selector), ("option", option), ("title", title)):
        if not isinstance(value, str):
            raise ConfigError(f"{name} is a string, not {value!r}")
    if not isinstance(inputs, Iterable):
        raise ConfigError(f"inputs are a mapping from names or a list of objects, not {inputs!r}")
    for name in inputs if isinstance(inputs, Mapping) else ():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"the name of an input is a string that is not empty, not {name!r}")
