"""Pilots without a node: each enrols, registers, becomes ready and heartbeats as real ones do, over real SSH.

Standard input brings one JSON line ``{join, versions, first, count, heartbeat}``: ``join`` is a pilot's
configuration, job ids begin with ``first``. Workers that a pilot is told to start are said to run, and to
have ended when they are to stop. ``ready N`` on standard output tells how many are ready. The process ends
with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

import asyncssh

from gridproof.pilot.config import Job, PilotConfig
from gridproof.pilot.membership import Membership, Refused
from gridproof.proxy.channel import ControlChannel
from gridproof.proxy.client import open_control
from gridproof.proxy.protocol import (
    Heartbeat,
    Message,
    PilotMessage,
    Ready,
    Register,
    Registered,
    StartWorker,
    StopWorker,
    Versions,
    WorkerExited,
    WorkerStarted,
    message,
    pilot_order,
)
from gridproof.proxy.reach import reaches

DIAL = 20.0  # s, as a pilot's
BACKOFF = (0.5, 20.0)


class Control(ControlChannel, asyncssh.SSHClientSession[bytes]):
    """A light pilot's end of the control channel."""

    def __init__(self, pilot: LightPilot) -> None:
        super().__init__()
        self.pilot = pilot
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def received(self, message: Message) -> None:
        """Carry an order out, or say so."""
        order = pilot_order(message)
        if isinstance(order, Registered):
            self.pilot.begin(order)
        elif isinstance(order, StartWorker):
            self.tell(WorkerStarted(order.name, 1))
        elif isinstance(order, StopWorker):
            self.tell(WorkerExited(order.name, 0, 15))

    def tell(self, content: PilotMessage) -> None:
        """Send a pilot's message."""
        self.send(message(content))

    def lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The connection is gone."""
        if not self.closed.done():
            self.closed.set_result(None)


class LightPilot:
    """One pilot; `run` never returns."""

    def __init__(self, settings: dict[str, Any], number: int, count: Counter) -> None:
        self._settings = settings
        self._job = Job(str(number), "1", f"Site{number % 10}", f"node{number}", {})
        self._membership = Membership(PilotConfig(**settings["join"]), self._job)
        self._count = count
        self._begun: asyncio.Task[None] | None = None
        self._control: Control | None = None

    async def run(self) -> None:
        """Dial until it is let in, beat, and dial again when the connection is lost."""
        delay = BACKOFF[0]
        while True:
            try:
                conn = await asyncio.wait_for(self._membership.dial(DIAL), DIAL)
                control: Control = await open_control(conn, lambda: Control(self))
            except Refused:
                raise
            except Exception as error:
                self._count.troubles += 1
                print(f"light pilot {self._job.job_id}: {error!r}", file=sys.stderr)
                await asyncio.sleep(delay * random.uniform(0.5, 1.5))
                delay = min(2 * delay, BACKOFF[1])
                continue
            self._control, delay = control, BACKOFF[0]
            job = self._job
            control.tell(Register(job.job_id, job.master_id, job.site, job.host, 1, 1))
            while not control.closed.done():
                control.tell(Heartbeat(0.5))
                await asyncio.wait([control.closed], timeout=self._settings["heartbeat"])
            self._count.ready -= 1

    def begin(self, order: Registered) -> None:
        """It is registered: look for the direct way, and be ready."""
        self._begun = asyncio.create_task(self._begin(order))

    async def _begin(self, order: Registered) -> None:
        join = self._settings["join"]
        direct = bool(order.probe_port) and await reaches(join["host"], order.probe_port, order.probe_key)
        if self._control is not None:
            self._control.tell(Ready(Versions(**self._settings["versions"]), direct=direct))
            self._count.ready += 1
            print(f"ready {self._count.ready}", flush=True)


class Counter:
    """How many are ready, and how often dialling went wrong."""

    ready = 0
    troubles = 0


async def main() -> None:
    """All of them in one event loop."""
    settings = json.loads(sys.stdin.readline())
    count = Counter()
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, gone.set)
    numbers = range(settings["first"], settings["first"] + settings["count"])
    pilots = [asyncio.create_task(LightPilot(settings, number, count).run()) for number in numbers]
    ending = asyncio.create_task(gone.wait())
    done, _ = await asyncio.wait([ending, *pilots], return_when=asyncio.FIRST_COMPLETED)
    if ending not in done:
        raise SystemExit(f"a light pilot ended: {[task.exception() for task in done]}")
    print(f"troubles {count.troubles}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
