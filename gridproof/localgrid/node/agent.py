"""Job agents: each holds one slot of a site, asks the broker for a job, and walks it through its states."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from gridproof.errors import JdlError
from gridproof.localgrid.catalogue.entries import normal
from gridproof.localgrid.core import VERSION, Core, now_ms
from gridproof.localgrid.formats import human_size
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.inputs import find_inputs
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.packages import PackageMissing
from gridproof.localgrid.jobs.taskqueue import IllegalTransition
from gridproof.localgrid.node.datalist import data_list, list_name
from gridproof.localgrid.node.monitor import RESOURCE_FIELDS, Allowance, Machine, Monitor, Usage
from gridproof.localgrid.node.payload import Payload, Report
from gridproof.localgrid.node.sandbox import Sandbox
from gridproof.localgrid.node.saving import OutputMissing, Saver, SavingFailed, prepare_outputs
from gridproof.localgrid.sites import Site
from gridproof.localgrid.storage.transfer import CopyFailed, fetch

_T = TypeVar("_T")
_RESOURCES_INTERVAL = 600.0  # s between two lines of resources in a long job's trace
_VALIDATION_LIMIT = 900.0  # s
_FAILED_IN = {state.RUNNING: state.ERROR_E, state.SAVING: state.ERROR_SV}  # elsewhere it is tried again


class _Failed(Exception):
    """The job ends in ``state``; the text goes to its trace."""

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state


class SlotAgent:
    """One slot of one site."""

    def __init__(self, core: Core, site: Site, node: str, machine: Machine) -> None:
        self._core = core
        self._site = site
        self._node = node
        self._machine = machine

    async def run(self) -> None:
        """Job after job, until cancelled."""
        while True:
            job = await self._core.next_job(self._site, self._node)
            await _JobRun(self._core, self._site, self._machine, job).run()


class _JobRun:
    """One run of one job; whatever it comes to, nothing of it is left on the node."""

    def __init__(self, core: Core, site: Site, machine: Machine, job: Job) -> None:
        self._core = core
        self._job = job
        self._machine = machine
        self._before = site.network.nodes
        self._jdl = core.queue.jdl(job.id)
        self._allowance = Allowance.of(self._jdl)
        self._sandbox = Sandbox(job, self._jdl, core.root / "wn" / f"alien-job-{job.id}.{job.run}")
        self._monitor = Monitor(core.limits, self._allowance)
        self._local: dict[str, Path] = {}  # where inputs are, by LFN
        self._environment: dict[str, str] = {}
        self._killed = False  # by us, for what it used
        self._taken_away = asyncio.create_task(self._report())

    async def run(self) -> None:
        """To the job's end, or to that of our part in it."""
        try:
            await self._walk()
        except _Failed as failure:
            self._end(failure.state, str(failure))
        except IllegalTransition:
            pass  # killed or run anew: what this agent does is of no interest any more
        except Exception as error:  # the agent goes on with its next job
            current = self._core.queue.get(self._job.id)
            status = _FAILED_IN.get(current.status if current else "", state.ERROR_A)
            self._end(status, f"ERROR: the agent failed: {type(error).__name__}: {error}")
        finally:
            self._taken_away.cancel()
            self._tell("Cleaning up after execution...")
            await self._sandbox.remove()
            self._core.save()

    async def _report(self) -> None:
        """Report again and again that this agent lives; returns when its job was taken away."""
        mine = True
        while mine:
            await asyncio.sleep(self._core.limits.report_interval)
            mine = self._core.report(self._job)

    async def _while_ours(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What comes of ``work``, which is given up when the job is taken away. Raises IllegalTransition."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._taken_away}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            raise IllegalTransition(f"job {self._job.id} was taken away from its agent")
        return task.result()

    def _tell(self, text: str, tag: str = "trace") -> None:
        """Add to the job's trace, which takes nothing from the agent of a job that was taken away."""
        current = self._core.queue.get(self._job.id)
        if current and current.run == self._job.run and current.status not in (state.KILLED, state.WAITING):
            self._core.trace(self._job.id, text, tag)

    def _end(self, status: str, why: str) -> None:
        self._tell(why)
        with contextlib.suppress(IllegalTransition):
            self._core.move(self._job, status)

    async def _walk(self) -> None:
        self._make_sandbox()
        self._core.move(self._job, state.STARTED)
        await self._bring_inputs()
        try:
            self._environment = self._sandbox.environment(self._core)
        except PackageMissing as missing:
            raise _Failed(state.ERROR_IB, f"Error setting the environment for {missing}") from None
        self._tell("Starting execution")
        limit = self._allowance.ttl + self._core.limits.ttl_grace
        async with await self._start("Executable", *self._sandbox.arguments) as payload:
            self._core.move(self._job, state.RUNNING)
            report = await self._watch(payload, limit, self._monitor)
        if report.error:
            self._tell(f"Failed to start execution of payload: {report.error}")
        elif self._killed:
            self._tell(f"Payload killed. Executable exit code was {report.text}")
        elif report.exit_code:
            self._tell(f"Warning: executable exit code was {report.text}")
        failed = state.ERROR_E if self._killed or report.exit_code else await self._validate()
        await self._save(failed or state.DONE)
        self._tell("JobWrapper has finished execution")
        self._tell(self._monitor.resources(self._machine), "proc")
        self._tell("JobWrapper exit code: 0")

    def _make_sandbox(self) -> None:
        limits, allowance = self._core.limits, self._allowance
        self._sandbox.make(self._core, allowance.ttl + limits.ttl_grace)
        for line in (
            f"Created workdir: {self._sandbox.path}",
            f"Running JAliEn JobAgent {VERSION} on {self._job.node}. Builddate: 0",
            f"Job requested {allowance.cores} CPU cores to run",
            f"Local disk space limit: {allowance.disk} MB",
            f"Virtual memory limit (JDL): {allowance.memory}MB",
            "Starting JobWrapper",
            f"Job asks for a TTL of {allowance.ttl:.0f} seconds",
            "JobWrapper started",
        ):
            self._tell(line)
        self._tell(RESOURCE_FIELDS, "procfmt")
        self._tell(self._monitor.resources(self._machine), "proc")
        self._tell(f'The following OS has been detected: "{_system_name()}"')

    async def _bring_inputs(self) -> None:
        core, jdl = self._core, self._jdl
        try:
            data = await find_inputs(jdl, self._job.owner, core.catalogue, core.read)
            sources = self._sandbox.sources(core, data)
            for source in sources:
                size = human_size(source.size)
                self._tell(f"Getting InputFile: {source.lfn} to {source.target} ({size})")
                source.target.parent.mkdir(exist_ok=True)
            await self._while_ours(fetch(sources, self._sandbox.path / ".incoming", self._before))
        except (JdlError, CopyFailed) as failure:
            raise _Failed(state.ERROR_IB, f"ERROR: {failure}") from failure
        self._local = {source.lfn: source.target for source in sources}
        if name := list_name(jdl):
            files = [entry for file in data if (entry := core.catalogue.get(file.lfn))]
            text = data_list(jdl, files, self._local, str(os.getpid()), now_ms())
            (self._sandbox.path / name).write_text(text)

    async def _start(self, key: str, *arguments: str) -> Payload:
        """Run what the JDL names as its ``key``."""
        command = [str(self._local[normal(self._jdl.text(key))]), *arguments]
        interval = self._core.limits.check_interval
        return await Payload.start(command, self._sandbox.path, self._environment, interval, self._before)

    async def _watch(self, payload: Payload, limit: float, monitor: Monitor) -> Report:
        """Until a payload ends, or has to: after ``limit`` s, or for what it uses."""
        core, loop = self._core, asyncio.get_running_loop()

        def end(_: object = None) -> None:
            payload.end(core.limits.kill_grace)

        def kill(why: str) -> None:
            if not self._killed and not self._taken_away.done():
                self._killed = True
                self._tell(why)
                self._tell("JobWrapper: SIGTERM received. Killing payload and proceeding to upload.")
            end()

        overdue = loop.call_later(limit, kill, "Killing the job (it was running for longer than its TTL)")
        self._taken_away.add_done_callback(end)
        told_at = 0.0
        try:
            async for usage in payload.usages():
                if why := monitor.judge(usage):
                    kill(f"[FATAL]: Monitor has detected an error: {why}")
                if usage.seconds > told_at + _RESOURCES_INTERVAL:
                    told_at = usage.seconds
                    self._tell(monitor.resources(self._machine), "proc")
        finally:
            overdue.cancel()
            self._taken_away.remove_done_callback(end)
        if not core.holds(self._job):
            raise IllegalTransition(f"job {self._job.id} was taken away from its agent")
        if (report := payload.report) is None:
            raise _Failed(state.ERROR_E, "ERROR: The JobWrapper was killed before job could complete")
        monitor.note(Usage(report.real, report.user + report.sys, report.memory))
        used = f"real {report.real:.2f}, user {report.user:.2f}, sys {report.sys:.2f}"
        self._tell(f"Execution completed. Time spent: {used}, ", "proc")
        if said := self._sandbox.take_trace():
            self._tell(said)
        return report

    async def _validate(self) -> str:
        """Run the ValidationCommand, if there is one; the state in which the job ends if it fails."""
        if not self._jdl.text("ValidationCommand"):
            return ""
        self._tell("Starting validation")
        async with await self._start("ValidationCommand") as payload:
            monitor = Monitor(self._core.limits, self._allowance)
            report = await self._watch(payload, _VALIDATION_LIMIT, monitor)
        if report.error:
            self._tell(f"Failed to start validation: {report.error}")
        elif report.exit_code or self._killed:
            self._tell(f"Validation failed. Exit code: {report.text}")
        if self._killed:
            return state.ERROR_VT
        return state.ERROR_V if report.exit_code else ""

    async def _save(self, end: str) -> None:
        """Save what the JDL asks for; in the end the job is in ``end``, or in an error of saving."""
        well = end == state.DONE
        home = self._core.users[self._job.owner].home
        directory = self._sandbox.output_directory(home, well)
        self._tell(f"Going to uploadOutputFiles(exitStatus={end}, outputDir={directory})")
        if not well:
            self._tell(
                f"Registering temporary log files in {directory}. You must do 'registerOutput {self._job.id}'"
                " within 24 hours of the job termination to preserve them. After this period, they are"
                " automatically deleted."
            )
        self._core.move(self._job, state.SAVING)
        try:
            outputs = await asyncio.to_thread(prepare_outputs, self._jdl, self._sandbox.path, end)
            for remark in outputs.remarks:
                self._tell(remark)
            saver = Saver(self._core, self._job, directory, self._before, self._tell)
            complete = await self._while_ours(saver.save(outputs.files, register=well))
        except OutputMissing as missing:
            self._tell(f"Error: A required outputfile was NOT found! Aborting: {missing}")
            self._core.move(self._job, state.ERROR_S)
        except SavingFailed as failure:
            self._tell(str(failure))
            self._core.move(self._job, state.ERROR_SV if well else end)
        else:
            self._core.move(self._job, end if complete or not well else state.DONE_WARN)


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
