"""A central service without sockets, whose storage elements are directories that nobody serves."""

from __future__ import annotations

import asyncio
import datetime
import json
import secrets
from pathlib import Path
from typing import Any

from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Entry, pfn_path
from gridproof.localgrid.central import CentralService
from gridproof.localgrid.certificates import Authority, Identity
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs.store import JobStore
from gridproof.localgrid.jobs.taskqueue import TaskQueue
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.sites import Site, make_sites
from gridproof.localgrid.storage.transfer import CopyFailed
from gridproof.localgrid.users import DEFAULT_USERS, Users

NOW = datetime.datetime.now(datetime.timezone.utc)


class Disk:
    """A storage element that nobody serves: clients write below its directory by themselves."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site, self.name, self.pid = site, site.se, 1
        self.endpoint = f"root://127.0.0.1:{1094 + site.number}//"
        self.data = directory

    def url(self, guid: str) -> str:
        return self.endpoint + pfn_path(guid).lstrip("/")

    def file(self, guid: str) -> Path:
        return self.data / pfn_path(guid).lstrip("/")

    def envelope(self, guid: str, right: str) -> str:
        return f"{right}-{guid}-{secrets.token_hex(8)}"

    def store(self, guid: str, content: bytes) -> None:
        self.file(guid).parent.mkdir(parents=True, exist_ok=True)
        self.file(guid).write_bytes(content)

    def files(self) -> set[str]:
        """The GUIDs that lie here."""
        return {path.name for path in self.data.rglob("*") if path.is_file()}


class Offline:
    """The services over what ``root`` holds, as after a start; commands are the first user's."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        users = Users(DEFAULT_USERS)
        self.catalogue, self.store = Catalogue(root / "catalogue.db", users), JobStore(root / "jobs.db")
        self.catalogue.make_root(0)
        self.disks = {site.se: Disk(site, root / site.name) for site in make_sites(2, 1, 1)}
        self.core = Core(
            root=root,
            sites=make_sites(2, 1, 1),
            storage=self.disks,  # type: ignore[arg-type]
            authority=Authority(root, NOW),
            catalogue=self.catalogue,
            store=self.store,
            queue=TaskQueue(self.store.load()),
            limits=Limits(),
            users=users,
        )
        self.core.read = self._read  # type: ignore[method-assign]
        self.service = CentralService(self.core, root)
        self.loop = asyncio.new_event_loop()
        self.user = next(iter(users))
        expires = (NOW + datetime.timedelta(hours=1)).timestamp()
        subject = f"/C=ch/O=AliEn2/CN={self.user.name}"
        self.caller = Caller(Identity(self.user.name, self.user.name, subject), self.user, "", expires)

    async def _read(self, entry: Entry, site: str = "") -> bytes:
        held = [self.disks[se].file(entry.guid) for se in self.catalogue.replicas(entry.guid)]
        for path in held:
            if path.exists():
                return path.read_bytes()
        raise CopyFailed(f"{entry.lfn}: no replica")

    def ask(self, command: str, *options: str) -> dict[str, Any]:
        """The answer to one command."""
        return self.send(json.dumps({"command": command, "options": options}))

    def send(self, message: str | bytes) -> dict[str, Any]:
        """The answer to whatever comes; jobs that it inserts are optimised."""
        answer = self.loop.run_until_complete(self.service.answer(self.caller, message))
        self.optimise()
        return answer

    def optimise(self) -> None:
        """Until what was inserted is optimised."""

        async def wait() -> None:
            while self.core._tasks:
                await asyncio.wait(self.core._tasks)

        self.loop.run_until_complete(wait())

    def rows(self, command: str, *options: str) -> list[dict[str, Any]]:
        """The rows of a command that succeeds."""
        answer = self.ask(command, *options)
        assert answer["metadata"]["exitcode"] == "0", answer["metadata"]
        rows: list[dict[str, Any]] = answer["results"]
        return rows

    def recover(self) -> None:
        """What a start of the service does."""

        async def start() -> None:
            self.core.recover()

        self.loop.run_until_complete(start())
        self.optimise()
        self.core.clear_up()

    def close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.core.close()
