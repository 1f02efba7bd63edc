"""Whatever a client sends: an answer that a person can read; a catalogue that stays whole; legal jobs.

With ``GRIDPROOF_FUZZ=100`` in the environment they try a hundred times as much.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import posixpath
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gridproof.alien.jdl import parse, render
from gridproof.errors import JdlError
from gridproof.localgrid.commands.usage import USAGES
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.requirements import read_requirements
from gridproof.localgrid.jobs.splitting import is_split
from gridproof.localgrid.jobs.taskqueue import TaskQueue
from gridproof.localgrid.sites import Slot
from tests.localgrid.offline import Offline

FACTOR = int(os.environ.get("GRIDPROOF_FUZZ", "1"))
HOME = "/local/user/g/gproof/"
UNCLEAR = re.compile(  # words of Python and of its libraries
    r"\b\w+(Error|Exception)\b|Traceback|<[\w.]+ object|NoneType|[Ii]nternal error|invalid literal"
    r"|not enough values|has no attribute|not subscriptable|codec can't|unhashable|out of range|'str'"
    r"|database does not"
)


def budget(examples: int) -> settings:
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples * FACTOR, deadline=None, suppress_health_check=quiet)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offline]:
    """With a few files and jobs, and whatever the tests make; nothing goes wrong in its loop unseen."""
    root = tmp_path_factory.mktemp("fuzz")
    went_wrong: list[Any] = []
    with contextlib.closing(Offline(root / "grid")) as grid:
        grid.loop.set_exception_handler(lambda _, context: went_wrong.append(context))
        put_back(grid)
        grid.rows("gridCollect", "/local/c", "/local/d/one", "/local/d/two")
        grid.rows("submit", 'Executable = "/local/job.sh"; Split = "production:1-3";')
        yield grid
        settle(grid)
        assert not went_wrong
        assert TaskQueue(grid.store.load()).jobs() == grid.core.queue.jobs()
        assert [path.name for path in root.iterdir()] == ["grid"]


def put(grid: Offline, lfn: str) -> None:
    for permit in grid.rows("access", "write", lfn, "disk:1"):
        disk = next(disk for disk in grid.disks.values() if disk.name.upper() == permit["se"])
        disk.store(permit["guid"], b"x")
        where = (permit["url"], permit["se"], permit["guid"])
        grid.rows("commit", permit["envelope"], "1", lfn, "755", "0", *where, "")


def put_back(grid: Offline) -> None:
    """The files, which other tests may have removed."""
    for lfn in ("/local/job.sh", "/local/d/one", "/local/d/two"):
        if not grid.catalogue.get(lfn):
            put(grid, lfn)


def settle(grid: Offline) -> None:
    """Let the optimizer do what it has to."""

    async def turn() -> None:
        await asyncio.sleep(0)
        while grid.core._tasks:
            await asyncio.wait(grid.core._tasks)

    grid.loop.run_until_complete(asyncio.wait_for(turn(), 20))


def checked(answer: Any) -> dict[str, Any]:
    """The metadata of an answer, which has the right shape and is clear about what was wrong."""
    answer = json.loads(json.dumps(answer))
    assert all(isinstance(row, dict) for row in answer["results"])
    metadata: dict[str, Any] = answer["metadata"]
    assert int(metadata["exitcode"]) == 0 or metadata["error"].strip()
    assert not UNCLEAR.search(metadata["error"]), metadata["error"]
    return metadata


# ---------------------------------------------------------------- paths and options

parts = st.one_of(
    st.sampled_from(["d", "one", "two", "c", "job.sh", "user", "é", "名", "a b", "x" * 300, "~", "-l"]),
    st.sampled_from(
        ["..", ".", "", "*", "?", "[a", "%", "\n", "\t", "\0", "\ud800", "'", '"', "\\", "$1", "#"]
    ),
    st.text(max_size=8),
)
paths = st.one_of(
    st.sampled_from(["/", "//", "~", "~/", "~root", "..", "../..", "/..", "/local/d/../../..", HOME]),
    st.lists(parts, max_size=6).map("/".join),
    st.lists(parts, max_size=6).map(lambda some: "/local/" + "/".join(some)),
    st.sampled_from(["/local/" + "x" * 65_536, "/local" + "/x" * 20_000, "/local/" + "*a" * 2_000]),
)
flags = "-l -la -a -F -j -m -Fl -f -trace -jdl -nomsg -nokeys -r -R -p -w -x -v -c -d -o -s -u -h -z -y -n"
words = st.one_of(
    paths,
    st.sampled_from(flags.split()),
    st.sampled_from(
        ["0", "1", "-1", "²", "9" * 30, "1e308", "nan", "1,2", "644", "999", "a,b", "1000000002"]
    ),
    st.sampled_from(["read", "write", "disk:1", "disk:99999999999", "Local::Site1::SE", "!*::*", "WAITING"]),
    st.sampled_from(["00000000-0000-11f1-8000-02fc00000001", "gridproof", "guest", "file:/etc/passwd"]),
)
own = ["gridCollect", "gridUnzip", "gridStatus", "gridCommands"]
commands = st.sampled_from([*sorted({*USAGES} - {"ping"}), *own, "nonsense", ""])  # a ping takes seconds


@given(commands, st.lists(words, max_size=5))
@budget(600)
def test_every_command_answers_every_path_and_option(grid: Offline, command: str, options: list[str]) -> None:
    metadata = checked(grid.ask(command, *options))
    settle(grid)
    entries = {entry.lfn: entry for entry in grid.catalogue.find("/", "*", "admin", "fdc")}
    assert metadata["currentdir"].rstrip("/") in {"", *entries} or command in ("rm", "rmdir", "mv", "time")
    for lfn in entries:
        parent, name = posixpath.split(lfn)
        assert parent == "/" or entries[parent].is_dir
        assert name not in ("", ".", "..")
        assert posixpath.normpath(lfn) == lfn


# ---------------------------------------------------------------- messages

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
messages = st.one_of(
    st.text(),
    st.binary(),
    values.map(json.dumps),
    st.fixed_dictionaries({"command": values, "options": values}).map(json.dumps),
    st.fixed_dictionaries({"command": commands, "options": st.lists(values, max_size=4)}).map(json.dumps),
    st.fixed_dictionaries({"command": commands, "more": values}).map(json.dumps),
)


@given(messages)
@budget(300)
@example("[" * 100_000)
@example('{"command":' * 10_000)
@example('{"command": "ls", "options": [' + "1" * 10_000 + "]}")
@example('{"command": "ls", "options": ["\\ud800"]}')
@example('{"command": "ls", "options": ["\\u0000"]}')
@example('{"command": "ps", "options": [' + '"-j",' * 20_000 + '"1"]}')
@example(json.dumps({"command": "stat", "options": ["/local/d/one"] * 5_000}))
def test_every_message_is_answered(grid: Offline, message: str | bytes) -> None:
    checked(grid.send(message))


# ---------------------------------------------------------------- job descriptions

strings = st.one_of(
    st.sampled_from(
        ["/local/job.sh", "job.sh", "LF:/local/d/one", "LF:/local/d/two,nodownload", "LF:/local/none"]
    ),
    st.sampled_from(
        ["se", "file", "directory", "parentdirectory", "production:1-4", "production:1-999999999"]
    ),
    st.sampled_from(
        ["#alien_counter_03i#", "#alien_counter_99999999i#", "#alienfilename/a/b/#", "#alienfulldir#"]
    ),
    st.sampled_from(
        ["out.txt@disk=2", "a.zip:*.root@disk=1", "../../../etc/passwd", "$1", "VO_LOCAL@ROOT::v6-40-00"]
    ),
    st.sampled_from(["8GB", "-1", "1e400", "9" * 40, "9" * 5_000 + "GB", "NaN", "0", "²"]),
    st.text(max_size=12),
)
texts = st.one_of(
    strings.map(json.dumps),
    st.lists(strings, max_size=4).map(lambda some: "{" + ",".join(map(json.dumps, some)) + "}"),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        [
            'member(other.CloseSE,"Local::Site1::SE")',
            'other.CE == "Local::Site2::CE" && !member(other.CloseSE,"Local::Site1::SE")',
            "( other.TTL > 600 ) && ( other.Price <= 1 )",
            "((((" * 500 + "))))" * 500,
            'other.CE == "' + "(a+)+" * 50,
        ]
    ),
    st.text(max_size=20),
)
keys = st.sampled_from(
    [
        "Executable",
        "Arguments",
        "Split",
        "SplitArguments",
        "SplitMaxInputFileNumber",
        "SplitMaxInputFileSize",
        "InputData",
        "InputFile",
        "InputDataCollection",
        "InputDataList",
        "InputDataListFormat",
        "OutputDir",
        "OutputFile",
        "OutputArchive",
        "OutputErrorE",
        "Output",
        "Requirements",
        "TTL",
        "Price",
        "Priority",
        "CPUCores",
        "MemorySize",
        "MaxWaitingTime",
        "Packages",
        "Workdirectorysize",
        "JDLVariables",
        "JobTag",
        "Email",
        "ValidationCommand",
        "User",
        "MasterJobId",
        "Type",
        "JDLPath",
        "x",
        "é",
    ]
)
descriptions = st.one_of(
    st.lists(st.tuples(keys, texts), max_size=5).map(
        lambda some: 'Executable = "/local/job.sh";\n' + "".join(f"{key} = {text};\n" for key, text in some)
    ),
    st.lists(st.tuples(keys, texts), max_size=5).map(
        lambda some: "".join(f"{key} = {text};\n" for key, text in some)
    ),
    st.text(max_size=40).map(lambda text: f"= {text}"),
)


@given(descriptions, st.lists(strings, max_size=2))
@budget(400)
@example('Executable = "/local/job.sh"; Split = "production:1-999999999";', [])
@example('Executable = "/local/job.sh"; Arguments = "' + "#alien_counter_99999i#" * 100 + '";', [])
@example(
    'Executable = "/local/job.sh"; Split = "production:0-2"; OutputDir = "#alien_counter_999999999i#";', []
)
def test_every_job_description_is_refused_clearly_or_becomes_a_job(
    grid: Offline, text: str, arguments: list[str]
) -> None:
    put_back(grid)
    known = len(grid.core.queue.jobs())
    checked(grid.ask("submit", text, *arguments))
    settle(grid)
    for job in grid.core.queue.jobs()[known:]:
        assert job.status not in (state.INSERTING, state.SPLITTING), job
        jdl = parse(job.jdl)
        assert parse(render(jdl)) == jdl
        read_requirements(jdl)
        if job.status == state.SPLIT:
            assert is_split(jdl)
            assert grid.core.queue.subjobs(job.id)
        if job.status == state.WAITING:
            grid.core.queue.match(Slot(grid.core.sites[0]), 0.0)
        checked(grid.ask("ps", "-jdl", str(job.id)))
        checked(grid.ask("ps", "-trace", str(job.id)))


@given(st.one_of(st.text(max_size=60), descriptions, st.text(alphabet='ab={}()[];,"\\#/*$1 \n', max_size=60)))
@budget(400)
@example("{" * 100_000)
@example('a = "' + "\\" * 100_000)
@example("a = " + "(" * 50_000)
def test_every_text_is_a_jdl_or_is_refused_as_such(text: str) -> None:
    try:
        jdl = parse(text)
    except JdlError:
        return
    assert parse(render(jdl)) == jdl
