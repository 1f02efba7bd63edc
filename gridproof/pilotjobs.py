"""A session's pilots as jobs of the Grid: submit them, follow them by few calls, end them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .alien import Alien, Jdl, PilotRequest, pilot_jdl
from .alien.jdl import render, validate
from .config import PilotConfig
from .errors import AlienError, CredentialError
from .pilot.bundle import Bundle
from .pilot.start import script as start_script
from .pilotwatch import PilotWatch
from .proxy.pool.records import PilotRecord
from .proxy.protocol import Versions

if TYPE_CHECKING:
    from .planning import Planner

POLL_SECONDS = (1.0, 30.0)  # from, up to


class PilotJobs:
    """The pilots submitted for a session; their sandbox is ``<home>/.gridproof/<tag>/`` in the catalogue."""

    def __init__(
        self, alien: Alien, config: PilotConfig, tag: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._alien = alien
        self._config = config
        self._tag = tag
        self._clock = clock
        self._directory = sandbox_of(alien.home, tag)
        self._has_directory = False
        self._input_files: Sequence[str] = ()
        self._watch = PilotWatch()
        self._next_poll = 0.0
        self._interval = POLL_SECONDS[0]
        self._trouble = ""

    def submit(self, requests: Sequence[PilotRequest], join: Mapping[str, Any], versions: Versions) -> None:
        """Upload the pilots' sandbox and submit one JDL per request.

        ``join`` is the pilot's configuration with its join key; it is stored readable by the owner alone.
        ``versions`` are the session's, which pilots must have too.
        """
        self._input_files = self._upload_sandbox(join, versions)
        self._submit(requests, instead=False)

    def _upload_sandbox(self, join: Mapping[str, Any], versions: Versions) -> Sequence[str]:
        """Put what every pilot starts from into the catalogue; returns the LFNs beside its executable.

        The directory is closed to others before anything is in it.
        """
        inputs = [f"{self._directory}/pilot.json"]
        bundle = bundle_of(self._config)
        if bundle:
            bundle.manifest.check(versions)
            inputs.append(bundle.upload(self._alien))
        self._has_directory = True
        self._alien.mkdir(self._directory)
        self._alien.chmod(self._directory, "700")
        with TemporaryDirectory(prefix="gridproof-") as directory:
            script, settings = Path(directory) / "pilot.sh", Path(directory) / "pilot.json"
            script.write_text(start_script(self._config.python, versions, bundle))
            settings.touch(0o600)
            settings.write_text(json.dumps(dict(join)))
            self._alien.upload(script, f"{self._directory}/pilot.sh")
            self._alien.upload(settings, f"{self._directory}/pilot.json", private=True)
        return inputs

    def _submit(self, requests: Sequence[PilotRequest], *, instead: bool) -> None:
        for request in requests:
            jdl = make_jdl(request, self._config, self._tag, self._directory, self._input_files)
            master = self._alien.submit(jdl, self._tag)
            self._watch.sent(master, request.count, self._clock(), instead=instead)

    def adopt(self, masters: Iterable[int]) -> None:
        """Take over jobs that another process has submitted, by the ids of their masters.

        A session that opened on registered pilots has submitted none, and has no sandbox.
        """
        self._has_directory = bool(self._alien.locate([self._directory]))
        self._watch.adopted(masters)

    def poll(self, records: Iterable[PilotRecord]) -> None:
        """Learn how the pilots are: ``records`` are those at the ProxyServer, the Grid is asked for the rest.

        One call when it is due: every second, and while nothing changes less and less often, up to every
        30 s. Then a trace for each new way to fail at a site. A Grid that does not answer is asked later.

        Raises:
            CredentialError: the certificate cannot be used any more.
        """
        self._watch.registered(records)
        if self._clock() < self._next_poll:
            return
        changed = False
        with self._noting_trouble():
            changed = self._ask()
        self._interval = POLL_SECONDS[0] if changed else min(2 * self._interval, POLL_SECONDS[1])
        self._next_poll = self._clock() + self._interval
        self._fetch_traces()

    def replace_failed(self, planner: Planner) -> None:
        """Submit pilots instead of failed ones, elsewhere if that is due.

        Raises:
            CredentialError: the certificate cannot be used any more.
        """
        now = self._clock()
        if count := self._watch.take_replacements(now):
            with self._noting_trouble():
                self._submit(planner.requests(count, self._watch.left_out(now)), instead=True)
            self._next_poll = 0.0

    @property
    def over(self) -> bool:
        """Whether no pilot is left that serves or may yet come, by what was heard last."""
        return self._watch.over()

    def coming(self, records: Iterable[PilotRecord]) -> bool:
        """Whether a pilot is on its way, or was lost and may come back, by what the Grid says now.

        Raises:
            AlienError: it does not say.
        """
        self._watch.registered(records)
        self._ask()
        return self._watch.coming()

    def summary(self) -> str:
        """How many wait, run, have registered or failed at which sites, in one line."""
        return f"{self._watch.summary()}{f'; {self._trouble}' if self._trouble else ''}"

    def describe(self, records: Iterable[PilotRecord]) -> list[str]:
        """A line for the pilots at each site that are equally far, with why those that failed did."""
        self._watch.registered(records)
        lines = []
        try:
            self._ask()
        except AlienError as error:
            lines = [f"the pilots' states could not be asked: {error}"]
        self._fetch_traces()
        lines += [str(group) for group in self._watch.groups()]
        if others := self._watch.others():
            lines.append(f"registered pilots that other sessions of yours have submitted: {others}")
        return lines or ["no pilot is known to the Grid"]

    def end(self, records: Iterable[PilotRecord] | None = None) -> None:
        """Kill the pilots that have not registered, and remove their sandbox from the catalogue.

        ``records``: those that the ProxyServer knows; they stay, for other sessions. None: all are killed.
        """
        try:
            if self._watch.masters:
                self._kill(records)
        finally:
            if self._has_directory:
                self._alien.rm(self._directory, recursive=True)

    def _kill(self, records: Iterable[PilotRecord] | None) -> None:
        jobs = self._watch.masters
        if records is not None:
            self._watch.registered(records)
            self._watch.saw(self._alien.subjobs(jobs), self._clock())
            jobs = self._watch.unregistered()
        if jobs:
            self._alien.kill(jobs)

    def _ask(self) -> bool:
        """One call; returns whether anything is new."""
        what, ids = self._watch.next_question()
        if not ids:
            return False
        return self._watch.saw(
            self._alien.ps(ids) if what == "masters" else self._alien.subjobs(ids), self._clock()
        )

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """What the Grid refuses now it may do later; only without a certificate there is no later."""
        self._trouble = ""
        try:
            yield
        except CredentialError:
            raise
        except AlienError as error:
            self._trouble = str(error)

    def _fetch_traces(self) -> None:
        for job in self._watch.samples():
            with suppress(AlienError):
                self._watch.told(job, self._alien.trace(job))


def sandbox_of(home: str, tag: str) -> str:
    """The directory in the catalogue from which pilots start; ``home`` ends in ``/``."""
    return f"{home}.gridproof/{tag}"


def bundle_of(config: PilotConfig) -> Bundle | None:
    """What pilots bring along. Raises ConfigError if the file is none."""
    return Bundle.open(Path(config.bundle)) if config.bundle else None


def make_jdl(
    request: PilotRequest, config: PilotConfig, tag: str, sandbox: str, input_files: Sequence[str]
) -> Jdl:
    """The JDL of a request as the configuration wants it.

    Raises:
        JdlError: the broker would not read a name in it.
    """
    return pilot_jdl(
        request,
        executable=f"{sandbox}/pilot.sh",
        input_files=input_files,
        tag=tag,
        cores=config.cores,
        ttl=config.ttl,
        memory=config.memory,
        price=config.price,
        packages=config.packages,
    )


def preview(requests: Sequence[PilotRequest], config: PilotConfig) -> str:
    """The JDLs of requests as one text; what is known only at submission stands in angle brackets.

    Raises:
        ConfigError: the pilots' bundle cannot be read.
        JdlError: a submission would be refused.
    """
    tag, sandbox = "gridproof-<session>", sandbox_of("<home>/", "gridproof-<session>")
    bundle = bundle_of(config)
    input_files = [f"{sandbox}/pilot.json", *([bundle.lfn("<home>/")] if bundle else [])]
    texts = []
    for request in requests:
        jdl = make_jdl(request, config, tag, sandbox, input_files)
        validate(jdl)
        texts.append(f"# {request}\n{render(jdl)}")
    return "\n".join(texts)
