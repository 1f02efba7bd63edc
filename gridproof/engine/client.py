"""A query from the user's side: ``Begin``, submit, follow, ``Terminate``; these two run in this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol

from .. import errors
from ..errors import ConfigError, QueryError, SelectorError
from . import runtime
from .bundle import Bundle, collect
from .code import CodeStore
from .result import Result, Summary

FOLLOW_SECONDS = 0.5


class Send(Protocol):
    """One message to the session's master, and its answer."""

    def __call__(self, message: str, **arguments: Any) -> Any: ...


class Queries:
    """Runs selectors on a session's workers. ``cache``: this node's directory of compiled code."""

    def __init__(self, send: Send, cache: Path, upload: Callable[[Path, str], None] | None) -> None:
        self._root = runtime.load()
        self._code = CodeStore(self._root, cache, renames=True)
        self._send = send
        self._upload = upload

    def load(self, spec: str) -> None:
        """Make ``macro.C``, ``lib.so`` or ``header.h`` known here and on every worker."""
        bundle = collect(spec)
        self._send("load", bundle=self._code.load(bundle).to_message())

    def process(
        self,
        parts: Sequence[Mapping[str, Any]],
        selector: str,
        option: str,
        inputs: Mapping[str, Any] | Sequence[Any],
        on_missing: str,
        watch: Callable[[Mapping[str, Any]], None],
    ) -> Result:
        """Run a selector over a dataset (``parts``: it and its friends, as `Master.submit` takes them).

        ``watch`` is called with each state of the query (see `Master.follow`) and may raise.

        Raises:
            QueryError: its subclasses say what went wrong.
            ConfigError: a bad argument.
        """
        if on_missing not in ("fail", "skip"):
            raise ConfigError(f'on_missing is "fail" or "skip", not {on_missing!r}')
        bundle = self._selector(selector)
        class_name = bundle.class_name if bundle else selector
        input_list = self._input_list(inputs)
        instance = self._root.gridproof.Make(class_name, option, input_list)
        _check(str(instance.problem) or str(instance.Begin()))
        query = self._send(
            "submit",
            spec={
                "selector": bundle.to_message() if bundle else None,
                "class_name": class_name,
                "option": option,
                "input": runtime.pack(self._root, input_list),
                "on_missing": on_missing,
                "parts": list(parts),
            },
        )
        try:
            status = self._follow(query, watch)
            outputs = runtime.unpack(self._root, self._send("result", query=query))
        finally:
            self._send("cancel", query=query)
            self._send("forget", query=query)
        return self._terminate(instance, outputs, _summary(status))

    # ------------------------------------------------------------ inside

    def _selector(self, spec: str) -> Bundle | None:
        """The selector's code, made known here; None for a class that `load` has made known."""
        if re.fullmatch(r"[A-Za-z_][\w:]*", spec) and not Path(spec).exists():
            if not self._root.TClass.GetClass(spec, True, True):
                raise ConfigError(f'there is no class {spec}; a source file is given as "{spec}.C+"')
            return None
        bundle = collect(spec)
        if not bundle.is_selector:
            raise ConfigError(f"{bundle.main} is no selector's source")
        return self._code.load(bundle)

    def _input_list(self, inputs: Mapping[str, Any] | Sequence[Any]) -> Any:
        root = self._root
        objects = root.TList()
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
        objects._kept = kept  # Python owns them as long as the list is there
        return objects

    def _follow(self, query: int, watch: Callable[[Mapping[str, Any]], None]) -> Mapping[str, Any]:
        version = 0
        while True:
            status = self._send("follow", query=query, version=version, wait=FOLLOW_SECONDS)
            version = status["version"]
            watch(status)
            if status["error"]:
                kind, message = status["error"]
                raise _error(kind, message, status["missing"])
            if status["over"]:
                return dict(status)

    def _terminate(self, instance: Any, outputs: Any, summary: Summary) -> Result:
        selector_outputs = instance.Selector().GetOutputList()
        outputs.SetOwner(False)
        for item in list(outputs):
            selector_outputs.Add(item)
        _check(str(instance.Terminate()))
        objects = {}
        for item in list(selector_outputs):
            selector_outputs.Remove(item)
            if hasattr(item, "SetDirectory"):
                item.SetDirectory(self._root.nullptr)
            self._root.SetOwnership(item, True)
            objects[str(item.GetName())] = item
        return Result(self._root, objects, summary, self._upload)


def _check(problem: str) -> None:
    if problem:
        raise SelectorError(problem)


def _error(kind: str, message: str, missing: Mapping[str, str]) -> QueryError:
    """The master's error, made anew here."""
    if kind == "MissingFiles":
        return errors.MissingFiles(message, dict(missing))
    made = getattr(errors, kind, QueryError)
    return made(message) if issubclass(made, QueryError) else QueryError(message)


def _summary(status: Mapping[str, Any]) -> Summary:
    return Summary(
        events=status["events"],
        bytes_read=status["bytes_read"],
        local_bytes=status["local_bytes"],
        wall=status["seconds"],
        packets=status["packets"],
        per_worker=dict(status["events_by_worker"]),
        missing_files=dict(status["missing"]),
        warnings=tuple(status["warnings"]),
        merge_seconds=status["merge_seconds"],
        received_bytes=status["received_bytes"],
    )
