"""What a payload finds in its directory: files, lists of files, its environment."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gridproof.alien.jdl import parse
from gridproof.localgrid.catalogue.entries import Entry
from gridproof.localgrid.node.datalist import data_list, list_name

HOME = "/local/user/g/gproof"
FILES = [
    Entry(f"/local/d/{name}", "f", "u", "g", "644", 5, "md5", f"guid-{name}", 1_000) for name in ("a&b", "c")
]
LOCAL = {"/local/d/a&b": Path("/wn/a&b")}


def written(text):
    return data_list(parse(f'Executable = "/x"; {text}'), FILES, LOCAL, "7", 1_000)


def test_a_list_names_what_is_here_and_what_is_on_the_grid():
    urls = ["file:////wn/a&b", "alien:///local/d/c"]
    assert written('InputDataList = "wn.txt";').splitlines() == urls
    root = ET.fromstring(written('InputDataList = "wn.xml"; InputDataListFormat = "xml-single";'))
    assert [file.get("turl") for file in root.iter("file")] == urls
    assert [file.get("lfn") for file in root.iter("file")] == ["/local/d/a&b", "/local/d/c"]
    assert [event.get("name") for event in root.iter("event")] == ["1", "2"]
    rows = json.loads(written('InputDataList = "anything"; InputDataListFormat = "json";'))
    assert [row["turl"] for row in rows] == urls
    assert rows[0]["size"] == "5"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('InputDataList = "wn.xml";', "wn.xml"),
        ('InputDataList = "../../evil.xml";', "evil.xml"),
        ('InputDataList = "wn.xml"; InputDataListFormat = "xml-group";', ""),
        ('InputDataList = "list";', ""),
        ('InputDataListFormat = "json";', ""),
    ],
)
def test_a_list_is_written_into_the_job_s_directory_in_a_format_that_is_known(text, name):
    assert list_name(parse(f'Executable = "/x"; {text}')) == name


def test_inputs_of_one_name_and_collections_of_inputs_come_in(grid, raw, script, tmp_path):
    top = f"{HOME}/{tmp_path.name}"
    for number in (1, 2, 3):
        file = tmp_path / "data"
        file.write_text(f"content {number}\n")
        grid.put(file, f"{top}/{number}/data")
    grid.collect(f"{top}/both", [f"{top}/2/data", f"{top}/3/data"])
    lfn = script("cat data 1/data >out; cat wn.txt >>out; echo $ALIEN_JDL_TAGS >>out")
    job = raw.submit(
        f'Executable = "{lfn}"; InputFile = {{"LF:{top}/1/data"}};'
        f'InputDataCollection = {{"LF:{top}/both,nodownload"}}; InputData = {{"LF:{top}/2/data"}};'
        'InputDataList = "wn.txt"; JDLVariables = {"Tags", "CPUCores", "Missing"}; Tags = {"a", "b"};'
        f'OutputFile = {{"out@disk=1"}}; OutputDir = "{top}/out";'
    )
    assert raw.wait(job, "DONE", "ERROR_E", "ERROR_I", "ERROR_IB") == "DONE", raw.trace(job)
    lines = raw.rows("cat", f"{top}/out/out")[0]["message"].splitlines()
    assert lines[:2] == ["content 1", "content 2"]
    assert lines[2].startswith("file:////")
    assert lines[2].endswith("/1/data")
    assert lines[3:] == [f"alien://{top}/3/data", "a##b"]


def test_an_input_that_cannot_be_read_is_an_input_error_and_tried_again(grid, raw, script, tmp_path, until):
    file = tmp_path / "data"
    file.write_text("x")
    lfn = f"{HOME}/{tmp_path.name}/data"
    grid.put(file, lfn)
    job = raw.submit(
        f'Executable = "{script("true")}"; InputFile = {{"LF:{lfn}"}}; Requirements = other.CE == "A::B::C";'
    )
    raw.rows("kill", job)
    guid = raw.rows("stat", lfn)[0]["guid"]
    for stored in (grid.root / "se").rglob(guid):
        stored.unlink()
    job = raw.submit(f'Executable = "{script("true")}"; InputFile = {{"LF:{lfn}"}};')
    until(lambda: "Job state transition from STARTED to ERROR_IB" in raw.trace(job))
    assert f"ERROR: {lfn}: " in raw.trace(job)
    raw.rows("kill", job)


def test_a_validation_of_the_executable_s_name_is_another_file(grid, raw, script, tmp_path):
    check = tmp_path / "check"
    check.write_text("#!/bin/sh\nexit 9\n")
    lfn = script("exit 0")
    grid.put(check, f"{lfn.removesuffix('job.sh')}check/job.sh")
    command = f"{lfn.removesuffix('job.sh')}check/job.sh"
    job = raw.submit(f'Executable = "{lfn}"; ValidationCommand = "{command}";')
    assert raw.wait(job, "DONE", "ERROR_V", "ERROR_E") == "ERROR_V"


def test_whatever_a_payload_leaves_in_its_directory_is_removed(grid, raw, script, until):
    body = "d=; for i in $(seq 1500); do d=${d}a/; done; mkdir -p $d"
    job = raw.submit(f'Executable = "{script(body)}";')
    raw.wait(job, "DONE")
    until(lambda: not list((grid.root / "wn").glob(f"alien-job-{job}.*")))
