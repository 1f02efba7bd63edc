"""Job agents: each holds one slot of a site, asks the broker for a job, and walks it through its states."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import posixpath
import shutil
import signal
import sys
import time
import uuid
from asyncio import FIRST_COMPLETED
from pathlib import Path
from typing import Any

from gridproof.localgrid import jobstates as state
from gridproof.localgrid.catalogue import Booking, CatalogueError
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs import Job
from gridproof.localgrid.packages import PackageMissing
from gridproof.localgrid.sandbox import Output, Sandbox, outputs
from gridproof.localgrid.sites import Site, by_distance
from gridproof.localgrid.taskqueue import IllegalTransition
from gridproof.localgrid.transfer import CopyFailed, fetch, md5_of, upload

_WRAPPER = Path(__file__).with_name("wrapper.py")


class Failed(Exception):
    """The job ends in ``state``; the text goes to its trace."""

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state


class SlotAgent:
    """One slot of one site."""

    def __init__(self, core: Core, site: Site, node: str) -> None:
        self._core = core
        self._site = site
        self._node = node

    async def run(self) -> None:
        """Job after job, until cancelled."""
        while True:
            job = await self._core.next_job(self._site, self._node)
            await self._serve(job)

    async def _serve(self, job: Job) -> None:
        core = self._core
        path = core.root / "wn" / f"alien-job-{job.id}.{job.run}"
        sandbox = Sandbox(job, core.queue.jdl(job.id), path, core.limits)
        taken_away = asyncio.create_task(self._report(job))
        try:
            await self._walk(sandbox, taken_away)
        except Failed as failure:
            self._finish(job, failure.state, str(failure))
        except IllegalTransition:
            pass  # killed or run anew: what this agent does is of no interest any more
        except Exception as error:  # the agent goes on with its next job
            self._finish(job, state.ERROR_A, f"The agent failed: {type(error).__name__}: {error}")
        finally:
            taken_away.cancel()
            await asyncio.to_thread(shutil.rmtree, sandbox.path, True)
            core.save()

    async def _report(self, job: Job) -> None:
        """Report again and again that this agent lives; returns when its job was taken away."""
        mine = True
        while mine:
            await asyncio.sleep(self._core.limits.report_interval)
            mine = self._core.report(job)

    def _finish(self, job: Job, status: str, why: str) -> None:
        self._core.trace(job.id, why, "error")
        with contextlib.suppress(IllegalTransition):
            self._core.move(job, status)

    async def _walk(self, sandbox: Sandbox, taken_away: asyncio.Task[None]) -> None:
        core, job = self._core, sandbox.job
        shutil.rmtree(sandbox.path, ignore_errors=True)
        sandbox.make(core)
        core.trace(job.id, f"Created workdir: {sandbox.path}")
        core.trace(job.id, f"Job asks for a TTL of {sandbox.jdl.text('TTL')} seconds")
        core.move(job, state.STARTED)
        await self._bring_inputs(sandbox)
        report = await self._run_payload(sandbox, taken_away)
        core.trace(
            job.id,
            "Execution completed. Time spent:"
            f" real {report['real']:.2f}, user {report['user']:.2f}, sys {report['sys']:.2f}",
            "proc",
        )
        if said := sandbox.own_trace():
            core.trace(job.id, said)
        self._judge(report)
        core.move(job, state.SAVING)
        await self._save_outputs(sandbox)
        core.move(job, state.DONE)

    async def _bring_inputs(self, sandbox: Sandbox) -> None:
        try:
            sources = sandbox.sources(self._core)
            for source in sources:
                self._core.trace(sandbox.job.id, f"Getting InputFile: {source.lfn} ({source.size} B)")
            await fetch(sources, sandbox.path / ".incoming", self._site.network.nodes)
        except CopyFailed as failure:
            raise Failed(state.ERROR_IB, str(failure)) from failure
        sandbox.executable.chmod(0o700)

    async def _run_payload(self, sandbox: Sandbox, taken_away: asyncio.Task[None]) -> dict[str, Any]:
        core, job = self._core, sandbox.job
        try:
            environment = sandbox.environment(core)
        except PackageMissing as missing:
            raise Failed(state.ERROR_IB, f"Error setting the environment for {missing}") from None
        process = await asyncio.create_subprocess_exec(
            *self._site.network.nodes,
            sys.executable,
            *("-I", "-S", str(_WRAPPER), str(sandbox.executable), *sandbox.arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=sandbox.path,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        orders = process.stdin
        try:
            pid = (await process.stdout.readline()).strip().decode()
            core.trace(job.id, f"Starting execution, pid {pid}")
            core.move(job, state.RUNNING)
            ended = asyncio.ensure_future(process.stdout.readline())
            await asyncio.wait({ended, taken_away}, timeout=sandbox.time_limit, return_when=FIRST_COMPLETED)
            if not ended.done():
                orders.write(f"TERM {core.limits.kill_grace}\n".encode())
                if not taken_away.done():
                    text = "Killing the job (it was running for longer than its TTL)"
                    raise Failed(state.EXPIRED, text)
            said = await ended
        finally:
            orders.close()  # the wrapper kills whatever is left and ends
            await asyncio.shield(process.wait())
        if not said:
            await asyncio.to_thread(kill_strays, sandbox.path)
            raise Failed(state.ERROR_E, "The payload's wrapper was killed")
        report: dict[str, Any] = json.loads(said)
        return report

    def _judge(self, report: dict[str, Any]) -> None:
        if not (report["code"] or report["signal"]):
            return
        if report["error"]:
            how = f"Failed to start execution of payload: {report['error']}"
        elif report["signal"]:
            number = report["signal"]
            how = f"Warning: executable exit code was {128 + number} ({signal.Signals(number).name})"
        else:
            how = f"Warning: executable exit code was {report['code']}"
        raise Failed(state.ERROR_E, how)

    async def _save_outputs(self, sandbox: Sandbox) -> None:
        wanted, missing = outputs(sandbox, self._core.users[sandbox.job.owner].home)
        if missing:
            raise Failed(state.ERROR_SV, f"The OutputFile does not exist: {', '.join(missing)}")
        for output in wanted:
            try:
                await self._save(sandbox.job, output)
            except (CatalogueError, CopyFailed) as failure:
                raise Failed(state.ERROR_SV, f"{output.lfn}: {failure}") from failure

    async def _save(self, job: Job, output: Output) -> None:
        core = self._core
        core.catalogue.check_new(output.lfn, job.owner)
        guid = str(uuid.uuid1())
        size = output.path.stat().st_size
        md5 = await asyncio.to_thread(md5_of, output.path)
        core.trace(job.id, f"Uploading: {output.path.name} to {posixpath.dirname(output.lfn)}")
        named = [site.se for site in core.sites if site.se.casefold() in {s.casefold() for s in output.ses}]
        others = core.live_first(by_distance(job.site, [s for s in core.storage if s not in named]))
        saved, why = 0, "no storage element takes it"
        for se in [*named, *others]:
            if saved == min(output.copies, len(core.storage)):
                break
            url = core.storage[se].signed_url(guid, "write")
            if problem := await upload(output.path, url, self._site.network.nodes):
                why = f"{se}: {problem}"
                core.trace(job.id, why)
                continue
            booking = Booking("", output.lfn, guid, se, job.owner)
            now = int(time.time() * 1000)
            core.catalogue.commit(booking, size=size, md5=md5, perm="644", now_ms=now)
            saved += 1
        if not saved:
            raise CopyFailed(why)
        core.trace(job.id, f"{output.lfn}: uploaded as requested")


def kill_strays(home: Path) -> None:
    """Kill every process whose HOME is this sandbox: for a payload whose wrapper was killed."""
    mark = f"HOME={home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
