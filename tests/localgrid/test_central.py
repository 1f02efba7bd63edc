"""The central service by itself: when it closes, whom it makes wait, and that no request breaks it."""

from __future__ import annotations

import asyncio
import datetime
import json
import select
import sqlite3
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from gridproof.alien.credentials import Credentials
from gridproof.alien.jdl import parse
from gridproof.alien.wire import Wire
from gridproof.localgrid import central
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.central import CentralService
from gridproof.localgrid.certificates import Authority, Identity, user_subject, write_private
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs.store import JobStore
from gridproof.localgrid.jobs.taskqueue import TaskQueue
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.sites import make_sites
from gridproof.localgrid.throttle import Throttle
from gridproof.localgrid.users import DEFAULT_USERS, Users
from tests.localgrid.offline import Offline

NOW = datetime.datetime.now(datetime.timezone.utc)
ADA, BOB = "/C=ch/O=AliEn2/CN=ada", "/C=ch/O=AliEn2/CN=bob"
HOME = "/local/user/g/gproof/"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """A Grid with a site that runs nothing."""
    root = tmp_path_factory.mktemp("core")
    users = Users(DEFAULT_USERS)
    catalogue, store = Catalogue(root / "c.db", users), JobStore(root / "j.db")
    catalogue.make_root(0)
    core = Core(
        root, make_sites(1, 1, 1), {}, Authority(root, NOW), catalogue, store, TaskQueue(), Limits(), users
    )
    yield core
    core.close()


def credentials(core: Core) -> Credentials:
    issued = core.authority.issue(user_subject("gridproof"), NOW, datetime.timedelta(days=1))
    write_private(core.root / "cert.pem", issued.cert)
    write_private(core.root / "key.pem", issued.key)
    return Credentials(core.root / "cert.pem", core.root / "key.pem", core.authority.cert_path)


def converse(
    core: Core, use: Callable[[ClientConnection], Awaitable[Any]], **arguments: Any
) -> tuple[Any, int | None]:
    """What came of it, and the code with which the connection was closed."""
    root, own = core.root, credentials(core)
    context = ssl.create_default_context(cafile=own.ca)
    context.check_hostname = False
    context.load_cert_chain(own.cert, own.key)

    async def run() -> tuple[Any, int | None]:
        core.port = 0
        service = CentralService(core, root, **arguments)
        url = f"wss://127.0.0.1:{await service.start()}/websocket/json"
        async with connect(url, ssl=context, proxy=None) as connection:
            came = await use(connection)
        await service.stop()
        return came, connection.close_code

    return asyncio.run(run())


def test_an_idle_connection_is_closed_with_1013(core: Core) -> None:
    assert converse(core, ClientConnection.wait_closed, idle_limit=0.1) == (None, 1013)


def test_the_client_outlives_the_closing_of_idle_connections(core: Core) -> None:
    def use(port: int) -> list[str]:
        wire = Wire("127.0.0.1", port, credentials(core))
        answers = []
        for command, *options in (("mkdir", HOME + "a"), ("touch", HOME + "b"), ("ls", HOME)):
            answers = [row["name"] for row in wire.command(command, *options).results]
            assert wire._connection is not None
            assert select.select([wire._connection._socket], [], [], 10)[0]  # the service says goodbye
        wire.close()
        return answers

    async def run() -> list[str]:
        core.port = 0
        service = CentralService(core, core.root, idle_limit=0.1)
        names = await asyncio.to_thread(use, await service.start())
        await service.stop()
        return names

    assert asyncio.run(run()) == ["a", "b"]


def test_a_connection_is_closed_after_two_days_though_it_is_used(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(connection: ClientConnection) -> None:
        await connection.send('{"command": "pwd", "options": []}')
        await connection.recv()
        await connection.wait_closed()

    assert central.SESSION_LIMIT == 2 * 24 * 3600
    monkeypatch.setattr(central, "SESSION_LIMIT", 0.2)
    assert converse(core, use) == (None, 1013)


def test_logins_and_commands_are_counted(core: Core) -> None:
    class Noting(Throttle):
        def delay(self, subject: str, commands: int, now: float) -> float:
            noted.append((subject, commands))
            return 0.0

    async def use(connection: ClientConnection) -> None:
        for _ in range(2):
            await connection.send('{"command": "pwd", "options": []}')
            await connection.recv()

    noted: list[tuple[str, int]] = []
    converse(core, use, throttle=Noting())
    assert noted == [("/C=ch/O=AliEn2/CN=gridproof", count) for count in (10, 1, 1)]


def test_who_asks_much_waits_a_millisecond_for_each_command_above_a_hundred() -> None:
    throttle = Throttle()
    assert throttle.delay(ADA, 10, 0.0) == 0.0
    assert [throttle.delay(ADA, 1, 1.0) for _ in range(92)] == [0.0] * 90 + [0.001, 0.002]
    assert throttle.delay(BOB, 1, 2.0) == 0.0
    assert throttle.delay(ADA, 98, 299.0) == 0.1
    assert throttle.delay(ADA, 1, 300.0) == 0.001  # half of 200, and this one
    assert throttle.delay(ADA, 100, 3000.0) == 0.0


def test_what_is_no_json_is_answered_as_by_jalien(core: Core) -> None:
    async def use(connection: ClientConnection) -> Any:
        await connection.send("{")
        return json.loads(await connection.recv())

    came, _ = converse(core, use)
    assert came == {"metadata": {"exitcode": "-1", "error": "Incoming JSON not ok"}, "results": []}


@pytest.fixture(scope="module")
def ask(core: Core) -> Iterator[Callable[[str | bytes], Any]]:
    """Ask the service directly, as one who is logged in."""
    loop = asyncio.new_event_loop()
    service = CentralService(core, core.root)
    identity = Identity("gridproof", "gridproof", ADA)
    expires = (NOW + datetime.timedelta(hours=1)).timestamp()
    yield lambda message: loop.run_until_complete(
        service.answer(Caller(identity, core.users["gridproof"], "", expires), message)
    )
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_ps_shows_no_subjobs_when_asked_for_masters(core: Core, ask: Callable[[str | bytes], Any]) -> None:
    single = core.queue.submit(parse('Executable = "x";'), "gridproof", 0.0).id
    master = core.queue.submit(parse('Executable = "x"; Split = "production:1-3";'), "gridproof", 0.0).id
    core.queue.optimise(master, core.queue.plan(master, ()), 0.0)
    shown = {
        flag: [
            int(row["id"])
            for row in ask(json.dumps({"command": "ps", "options": [flag, "-l", "2"]}))["results"]
        ]
        for flag in ("-M", "-A")
    }
    assert shown["-M"] == [single, master]
    assert [core.queue.get(id).master for id in shown["-A"]] == [master, master]  # type: ignore[union-attr]


def test_a_job_that_could_not_be_stored_is_refused_and_killed_though_the_log_is_full_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullLog:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

        flush = write

    def full(changes: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    grid = Offline(tmp_path)
    permit = grid.rows("access", "-s", "0", "write", f"{HOME}job.sh", "disk:1")[0]
    grid.rows("commit", permit["envelope"], "0", f"{HOME}job.sh")
    with monkeypatch.context() as disk:
        disk.setattr("sys.stderr", FullLog())
        disk.setattr(grid.store, "save", full)
        answer = grid.ask("submit", f'Executable = "{HOME}job.sh";')
    assert (answer["metadata"]["exitcode"], answer["results"]) == ("5", [])
    assert "could not be stored and was killed" in answer["metadata"]["error"]
    grid.recover()
    assert [row["status"] for row in grid.rows("ps")] == ["KILLED"]
    grid.close()
