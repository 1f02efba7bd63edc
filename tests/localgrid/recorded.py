"""The Grid that exchanges were recorded on, made anew: its users, sites, files and jobs, and what happened.

Everything has its recorded name, number and time, so that answers can be compared as they are. There are no
agents: what a slot did while it was recorded is done here between the same exchanges.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gridproof import accounts
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking
from gridproof.localgrid.central import CentralService
from gridproof.localgrid.certificates import Authority, Identity
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs.job import Changes, Job, TraceLine
from gridproof.localgrid.jobs.store import JobStore
from gridproof.localgrid.jobs.taskqueue import TaskQueue
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.sites import Site
from gridproof.localgrid.storage.element import StorageElement
from gridproof.localgrid.storage.envelopes import Envelopes
from gridproof.localgrid.users import User, Users

CAPTURES = Path(__file__).parents[1] / "alien" / "captures.jsonl"
RECORDED = [json.loads(line) for line in CAPTURES.read_text().splitlines()]
ROWS = [row for exchange in RECORDED for row in exchange["response"]["results"]]
HOME = "/alice/cern.ch/user/j/jalien/"
USERS = Users([User("jalien", ("vobox",), HOME), User("gproof", home="/alice/cern.ch/user/g/gproof/")])
CERTIFICATE_EXPIRES = 2_110_710_127
TIMES = {0: 1795354600.0, 55: 1795354680.0, 108: 1795354712.215}  # of the exchanges that tell theirs


@dataclass(frozen=True)
class RecordedSite(Site):
    """A site with the names it had there: its own, its CE's, its SE's, its host's."""

    names: tuple[str, str, str, str] = ("", "", "", "")

    name = property(lambda self: self.names[0])
    ce = property(lambda self: self.names[1])
    se = property(lambda self: self.names[2])
    host = property(lambda self: self.names[3])
    batch = "HTCONDOR"


def site(number: int, *names: str) -> RecordedSite:
    return RecordedSite(number, slots=3000, cores=1, names=names)


FIRST = site(
    1, "JTestSite", "ALICE::JTESTSITE::FIRSTCE", "ALICE::JTestSite::firstse", "localhost.localdomain"
)
SECOND = site(2, "Other", "ALICE::Other::secondce", "ALICE::Other::secondse", "other.localdomain")
BOTH = (SECOND, FIRST)  # in the order in which replicas were written


@dataclass(frozen=True)
class File:
    """A file of the recorded catalogue; its ``content`` matters only where it is read."""

    name: str
    size: int
    ctime: int  # s
    sites: tuple[Site, ...] = (FIRST,)
    guid: str = ""
    md5: str = ""
    content: bytes = b""


DIRECTORIES = {
    "a": 1795350519,
    "bin": 1795350350,
    "data": 1795351024,
    "jdl": 1795350223,
    "out": 1795351144,
    "out_": 1795350875,
    "recycle": 1795351815,
    "t1": 1795354356,
    "t1/o": 1795354526,
}
BLOB, SPIN = "2e5efc47-e679-11f1-acad-02fc00000001", "30995f1d-e679-11f1-acad-02fc00000001"
JOB = "2ff47df0-e679-11f1-acad-02fc00000001"
SCRIPT = b"#!/bin/bash\necho hello $ALIEN_PROC_ID $1 > out.txt\n"
JDL = f"""\
Executable = "{HOME}t1/job.sh";
Arguments = "world";
OutputDir = "{HOME}t1/o";
OutputFile = {{"out.txt@disk=1"}};
TTL = 600;
""".encode()
OTHERS = (  # their sizes are chosen: together they give what was used in all
    *(f"out/prod/{number}/log.zip" for number in ("001", "002", "003")),
    *(f"out/se/{number}/stdout" for number in ("001", "002", "003")),
    *("out_/stdout", "recycle/alien-job-1888757072/stdout", "jdl/coll.xml", "jdl/prod.jdl"),
)
FILES = (
    File("t1/blob", 3_000_000, 1795354356, BOTH, BLOB, "1c30736df849b03edb353fdee75a0f75"),
    File("t1/job.sh", 51, 1795354359, BOTH, JOB, content=SCRIPT),
    File("t1/spin.sh", 32, 1795354360, BOTH, SPIN),
    File("t1/j.jdl", 169, 1795354361, BOTH, content=JDL),
    File("t1/k.jdl", 67, 1795354363, BOTH),
    File("t1/o/out.txt", 23, 1795354526),
    File("coll", 720, 1795350514, BOTH),
    File("bin/slow.sh", 205, 1795350350, BOTH),
    File("bin/an.sh", 177, 1795350350),
    *(File(f"data/00{number}/d.root", 1300, 1795351024, BOTH) for number in range(1, 6)),
    *(File(name, 700, 1795351815) for name in OTHERS),
)


@dataclass
class Replay:
    """The service, who asks it, its clock, and what it has answered."""

    core: Core
    service: CentralService
    callers: dict[str, Caller]
    now: float = 0.0
    answers: list[dict[str, Any]] = field(default_factory=list)
    ports: tuple[int, ...] = ()
    jdl: str = ""  # of the job that was submitted by the same file as the one whose JDL was recorded

    async def run(self) -> None:
        """Send everything, in the recorded order."""
        for se in self.core.storage.values():
            await se.start()
        self.ports = tuple(se.port for se in self.core.storage.values())
        self.make_catalogue()
        for number, exchange in enumerate(RECORDED):
            self.now = TIMES.get(number, self.now + 0.001)
            await self.meanwhile(number)
            request = json.dumps({"command": exchange["command"], "options": exchange["options"]})
            caller = self.callers["gproof" if "as" in exchange else "jalien"]
            self.answers.append(await self.service.answer(caller, request))
        jdl = json.dumps({"command": "ps", "options": ["-jdl", "1888757085"]})
        self.jdl = (await self.service.answer(self.callers["jalien"], jdl))["results"][0]["jdl"]

    def make_catalogue(self) -> None:
        """The home directory as it was."""
        catalogue = self.core.catalogue
        catalogue.make_root(1795350095000)
        for name, ctime in DIRECTORIES.items():
            catalogue.mkdir(HOME + name, "jalien", ctime * 1000, parents=True)
        for number, file in enumerate(FILES):
            self.put(file, file.guid or f"{number:08x}-e679-11f1-acad-02fc00000001")
        catalogue.touch(f"{HOME}out/prod/001/stdout", "jalien", 1795351144000)  # there: in log.zip

    def put(self, file: File, guid: str) -> None:
        """Store a file and enter it in the catalogue."""
        content = file.content.ljust(file.size)
        md5 = file.md5 or hashlib.md5(content, usedforsecurity=False).hexdigest()
        now_ms = file.ctime * 1000
        for place in file.sites:
            self.core.storage[place.se].store(guid, content)
            booking = Booking(f"{guid} {place.name}", HOME + file.name, guid, place.se, "jalien")
            self.core.catalogue.book([booking], now_ms)
            self.core.catalogue.commit(booking, size=file.size, md5=md5, perm="755", now_ms=now_ms)

    async def meanwhile(self, number: int) -> None:
        """What happened before this exchange: the only slot ran three jobs."""
        first, second, again = 1888757084, 1888757085, 1888757082
        if number == 66:
            await asyncio.sleep(0)  # the optimizer's turn
        elif number == 79:
            self.begin(first)
        elif number == 88:
            self.end(first)
            self.put(File("t1/cap/out.txt", 19, 1795354690), "0000ffff-e679-11f1-acad-02fc00000001")
        elif number == 96:
            self.begin(second)
        elif number == 99:
            self.end(second)
            self.begin(again)
            self.end(again)

    def begin(self, job: int) -> None:
        """A slot gets a job."""
        self.core.queue.assign(job, FIRST, "localhost", self.now)

    def end(self, job: int) -> None:
        """A job comes to a good end."""
        for state in ("STARTED", "RUNNING", "SAVING", "DONE"):
            self.core.queue.move(job, state, self.now)


def replayed(root: Path) -> Replay:
    """The recorded Grid below ``root``, after everything was sent to it."""
    root.chmod(0o711)
    account, now = accounts.for_xrootd(), datetime.datetime.now(datetime.timezone.utc)
    envelopes = Envelopes(ec.generate_private_key(ec.SECP256R1()))  # of the recorded time: expired by now
    storage = {
        place.se: StorageElement(place, root / place.name, account, envelopes, open_to_all=True)
        for place in (FIRST, SECOND)
    }
    store = JobStore(root / "jobs.db")
    store.save(Changes((), tuple(recorded_trace())))
    core = Core(
        root,
        (FIRST, SECOND),
        storage,
        Authority(root / "private", now),
        Catalogue(root / "catalogue.db", USERS),
        store,
        TaskQueue(recorded_jobs()),
        Limits(),
        USERS,
        packages=frozenset(),
    )
    callers = {user.name: caller(user) for user in USERS}
    replay = Replay(core, CentralService(core, root), callers)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.time", lambda: replay.now)
            asyncio.run(replay.run())
    finally:
        for se in storage.values():
            se.stop()
        core.close()
    return replay


def caller(user: User) -> Caller:
    """A connection from the first site."""
    identity = Identity(user.name, user.name, f"/C=CH/O=JAliEn/CN={user.name}")
    return Caller(identity, user, FIRST.name, CERTIFICATE_EXPIRES)


def recorded_jobs() -> list[Job]:
    """The jobs that ``ps`` told of, but for those that are submitted while the exchanges are sent."""
    jobs = {row["id"]: row for row in ROWS if "split" in row and int(row["id"]) < 1888757084}
    places = {row["id"]: row for row in ROWS if "node" in row}
    jdls = {row["id"]: row["jdl"] for row in ROWS if "jdl" in row}
    return [
        Job(
            int(id),
            row["owner"],
            jdls.get(id, 'Executable = "/bin/true";'),
            row["status"],
            row["name"],
            int(row["split"]),
            ce=place["site"] if place["node"] else "",
            node=place["node"],
        )
        for id, row in sorted(jobs.items())
        for place in [places.get(id, {"site": SECOND.ce, "node": "localhost"})]
    ]


def recorded_trace() -> Iterator[TraceLine]:
    """The one trace that was asked for."""
    row = next(row for row in ROWS if "trace" in row)
    for line in row["trace"].splitlines():
        match = re.fullmatch(r"(\d{8} \d\d:\d\d:\d\d) \[(\w+) *\]: (.*)", line)
        assert match
        at = datetime.datetime.strptime(f"{match[1]} +0000", "%Y%m%d %H:%M:%S %z")
        yield TraceLine(int(row["id"]), at.timestamp(), match[2], match[3])
