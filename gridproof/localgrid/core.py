"""What the central services share: catalogue, task queue, storage, certificates; and the broker."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import logging
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from errno import EISDIR
from pathlib import Path
from typing import Any

from gridproof.alien.jdl import Jdl
from gridproof.errors import JdlError
from gridproof.localgrid.catalogue import kept
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking, CatalogueError, Entry
from gridproof.localgrid.catalogue.permissions import WRITE
from gridproof.localgrid.certificates import Authority
from gridproof.localgrid.jobs.inputs import find_inputs, names_inputs
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.packages import available
from gridproof.localgrid.jobs.splitting import Located, is_split
from gridproof.localgrid.jobs.state import INSERTING, ON_NODE, SPLITTING, ZOMBIE
from gridproof.localgrid.jobs.store import JobStore
from gridproof.localgrid.jobs.taskqueue import IllegalTransition, TaskQueue
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.sites import Site, Slot, by_distance
from gridproof.localgrid.storage.element import StorageElement
from gridproof.localgrid.storage.transfer import CopyFailed, Source, fetch
from gridproof.localgrid.users import Users

SUSPENDED = 60.0  # s without a tick, and so without the agents of this process
READ_LIMIT = 10 << 20  # bytes of a file that the service itself reads
COPIES = 2  # of files that the service makes


def utc_now() -> datetime.datetime:
    """The time that certificates are made with."""
    return datetime.datetime.now(datetime.timezone.utc)


def now_ms() -> int:
    """The catalogue's clock."""
    return int(time.time() * 1000)


VERSION = "1.8.5"  # of JAliEn, whose manners these are


@dataclass
class _Idle:
    site: Site
    node: str
    job: asyncio.Future[Job]


@dataclass
class Core:
    """The state of the Grid; everything about jobs happens in the event loop's thread."""

    root: Path
    sites: tuple[Site, ...]
    storage: dict[str, StorageElement]
    authority: Authority
    catalogue: Catalogue
    store: JobStore
    queue: TaskQueue
    limits: Limits
    users: Users
    address: str = "127.0.0.1"  # of the central service
    port: int = 0
    served: Counter[tuple[str, str]] = field(default_factory=Counter)  # commands by subject and name
    packages: frozenset[str] = field(default_factory=lambda: frozenset(available()))
    _idle: list[_Idle] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None
    _ticked: float = field(default_factory=time.time)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # Jobs

    def submit(self, jdl: Jdl, owner: str) -> Job:
        """Insert a job, which the optimizer has next. Raises JdlError; OSError when it cannot be stored."""
        try:
            self.catalogue.check_quota(owner, 1, 1)  # it could save nothing
        except CatalogueError as error:
            raise JdlError(str(error)) from error
        job = self.queue.submit(jdl, owner, time.time())
        if not self.save():
            self.queue.kill(job.id, time.time())
            raise OSError(f"job {job.id} could not be stored and was killed: is the disk full?")
        self._start(self._optimise(job.id))
        return job

    async def _optimise(self, job_id: int) -> None:
        jdl, files = self.queue.jdl(job_id), list[Located]()
        try:
            if names_inputs(jdl):
                files = await find_inputs(jdl, jdl.text("User"), self.catalogue, self.read)
            plan = self.queue.plan
            made = await asyncio.to_thread(plan, job_id, files) if is_split(jdl) else plan(job_id, files)
        except (JdlError, sqlite3.Error) as error:
            self.queue.reject(job_id, str(error), time.time())
        else:
            self.queue.optimise(job_id, made, time.time())
        self.changed()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def holds(self, job: Job) -> bool:
        """Whether the agent that was given this job still has it: nobody killed it or ran it anew."""
        current = self.queue.get(job.id)
        return current is not None and current.run == job.run and current.status in ON_NODE

    def move(self, job: Job, state: str) -> None:
        """One step in the life of a job that an agent was given. Raises IllegalTransition if it lost it."""
        if not self.holds(job):
            raise IllegalTransition(f"job {job.id} was taken away from its agent")
        self.queue.heartbeat(job.id, time.time())
        self.queue.move(job.id, state, time.time())
        self.changed()

    def trace(self, job_id: int, text: str, tag: str = "trace") -> None:
        """Add to a job's trace."""
        self.queue.trace(job_id, time.time(), tag, text)

    def kill(self, job_id: int) -> None:
        """Kill a job: its state changes at once, its agent hears of it at its next report."""
        self.queue.kill(job_id, time.time())
        self.changed()

    def report(self, job: Job) -> bool:
        """The agent that was given this job is alive; whether it still has it, else it ends the payload."""
        if not self.holds(job):
            return False
        self.queue.heartbeat(job.id, time.time())
        return True

    def set_quota(self, user: str, field: str, value: int) -> None:
        """Change one limit of a user, under its name in JAliEn. Raises KeyError, sqlite3.Error."""
        self.users.quotas.set(user, field, value)
        self.store.save_quota(user, field, value)

    async def resubmit(self, job_id: int) -> str:
        """A job waits again, or is inserted again: the state it is in. What its former run saved goes.

        Raises IllegalTransition, and CatalogueError if a file cannot be removed.
        """
        self.queue.check_resubmit(job_id)
        owner = self.queue.jdl(job_id).text("User")
        for lfn in await asyncio.to_thread(self._remove_outputs, job_id, owner):
            self.trace(job_id, f"Resubmit: removing output file: {lfn}")
        status = self.queue.resubmit(job_id, time.time()).status
        if status == INSERTING:
            self._start(self._optimise(job_id))
        self.changed()
        return status

    def _remove_outputs(self, job_id: int, owner: str) -> list[str]:
        """But for what ``registerOutput`` was asked to keep."""
        kept.drop(self.catalogue, job_id)
        lfns = [lfn for lfn in self.catalogue.saved_by(job_id) if f"/{kept.DIRECTORY}/" not in lfn]
        for lfn in lfns:
            self.catalogue.remove(lfn, owner)
        return lfns

    def tick(self) -> None:
        """Each second: what time alone brings about. A machine that was suspended takes nobody for dead."""
        now = time.time()
        if now - self._ticked > SUSPENDED:
            for job in self.queue.active():
                if job.status != ZOMBIE:
                    self.queue.heartbeat(job.id, now)
        self._ticked = now
        self.queue.tick(now)
        self.changed()

    def recover(self) -> None:
        """Take up the jobs of a service that has died."""
        self.queue.recover(time.time())
        for job in self.queue.jobs():
            if job.status in (INSERTING, SPLITTING):
                self._start(self._optimise(job.id))
        self.changed()

    def changed(self) -> None:
        """Give free slots what they can run now, and store what changed."""
        self._dispatch()
        self.save()

    def save(self) -> bool:
        """Store what changed in the queue; if that fails, keep it for the next time and say so."""
        changes = self.queue.take_changes()
        if not (changes.jobs or changes.trace):
            return True
        try:
            self.store.save(changes)
        except Exception as error:  # whatever it is, what a client was told must not be lost
            self.queue.put_back(changes)
            _log("The task queue could not be stored: %s", error)
            return False
        return True

    # The broker

    async def next_job(self, site: Site, node: str) -> Job:
        """Wait for a job that matches a free slot; it comes ASSIGNED."""
        idle = _Idle(site, node, asyncio.get_running_loop().create_future())
        self._idle.append(idle)
        self.changed()
        try:
            return await idle.job
        finally:
            if idle in self._idle:
                self._idle.remove(idle)

    def _dispatch(self) -> None:
        now = time.time()
        idle = self._emptiest_sites_first()
        while idle:
            free = idle[0]
            job = self.queue.match(self.offer(free.site), now)
            if job is None:  # nothing for its other slots, either
                idle = [other for other in idle if other.site != free.site]
                continue
            self._idle.remove(free)
            free.job.set_result(self.queue.assign(job.id, free.site, free.node, now))
            idle = [other for other in self._emptiest_sites_first() if other in idle]
        if self._timer:
            self._timer.cancel()
        due = self.queue.next_due()
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - now) + 0.01, self.changed)

    def offer(self, site: Site) -> Slot:
        """What a slot of this site offers now."""
        return Slot(site, disk=shutil.disk_usage(self.root).free >> 20, packages=self.packages)

    def _emptiest_sites_first(self) -> list[_Idle]:
        free = {site.name: 0 for site in self.sites}
        for idle in self._idle:
            free[idle.site.name] += 1
        busy = {site.name: site.slots - free[site.name] for site in self.sites}
        return sorted((i for i in self._idle if not i.job.done()), key=lambda i: busy[i.site.name])

    # Files

    def replica_urls(self, entry: Entry, site: str) -> list[tuple[StorageElement, str]]:
        """The replicas of a file (or of the archive it is a member of), nearest to ``site`` first."""
        guid, name = self.catalogue.member(entry.guid) or (entry.guid, "")
        ses = by_distance(site, self.catalogue.replicas(guid))
        member = f"#{name}" if name else ""
        return [(self.storage[se], self.storage[se].url(guid) + member) for se in ses if se in self.storage]

    def source(self, entry: Entry, site: str, target: Path) -> Source:
        """A file as it is fetched to ``target``: nearest to ``site`` first, of the servers that run."""
        guid, member = self.catalogue.member(entry.guid) or (entry.guid, "")
        ses = self.live_first(by_distance(site, self.catalogue.replicas(guid)))
        urls = tuple(self.storage[se].signed_url(guid, "read") for se in ses)
        return Source(entry.lfn, urls, entry.size, entry.md5, target, member)

    def sweep(self) -> None:
        """Delete from the storage elements what belongs to no file. For a thread: it may be much."""
        gone = []
        try:
            for se, guid in self.catalogue.orphans():
                if se in self.storage:
                    self.storage[se].file(guid).unlink(missing_ok=True)
                    gone.append((se, guid))
            self.catalogue.forget(gone)
        except (OSError, sqlite3.Error) as error:  # they are found the next time
            _log("Orphans on storage elements could not be deleted: %s", error)

    async def read(self, entry: Entry, site: str = "") -> bytes:
        """What is in a small file, from the storage element nearest to ``site``. Raises CopyFailed."""
        if entry.size > READ_LIMIT:
            raise CopyFailed(f"{entry.lfn} has {entry.size} bytes, more than {READ_LIMIT} are not read here")
        with tempfile.TemporaryDirectory(dir=self.root / "private") as scratch:
            target = Path(scratch) / "file"
            await fetch([self.source(entry, site, target)], Path(scratch) / "in")
            return await asyncio.to_thread(target.read_bytes)

    def store_file(self, lfn: str, content: bytes, user: str) -> None:
        """Make a file of the catalogue, in place of an older one. Raises CatalogueError, OSError."""
        old = self.catalogue.look_up(lfn, user, WRITE)
        if old is None:
            self.catalogue.check_new(lfn, user, len(content))
        elif old.is_dir:
            raise CatalogueError(EISDIR, lfn)
        now, guid, md5 = now_ms(), str(uuid.uuid1()), hashlib.md5(content).hexdigest()  # noqa: S324
        ses = self.live_first(list(self.storage))[:COPIES]
        bookings = [Booking(f"{guid} {se}", lfn, guid, se, user) for se in ses]
        self.catalogue.book(bookings, now)
        for booking in bookings:
            self.storage[booking.se].store(guid, content)
        with self.catalogue.change():
            if old:
                self.catalogue.remove(lfn, user)
            for booking in bookings:
                self.catalogue.commit(booking, size=len(content), md5=md5, perm="755", now_ms=now)

    def clear_up(self) -> None:
        """Forget bookings that nobody came back for, and :meth:`sweep`. For a thread."""
        with contextlib.suppress(sqlite3.Error):  # a full disk: the next time
            kept.expire(self.catalogue, now_ms())
        self.sweep()

    def live_first(self, ses: Sequence[str]) -> list[str]:
        """Those of these SEs that there are, whose server runs before those whose does not."""
        return sorted((se for se in ses if se in self.storage), key=lambda se: not self.storage[se].pid)

    def close(self) -> None:
        """Close the databases; jobs that are not optimised yet are so by the next service."""
        for task in self._tasks:
            task.cancel()
        if self._timer:
            self._timer.cancel()
        self.catalogue.close()
        self.store.close()


def _log(text: str, error: Exception) -> None:
    """A line in the service's log, if there is room for it: the disk may be full."""
    logging.getLogger(__name__).error(text, error)
