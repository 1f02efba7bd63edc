"""What a job leaves behind: its files, archives, and logs when it fails."""

from __future__ import annotations

import hashlib
import os
import zipfile

import pytest

from gridproof.alien.jdl import parse
from gridproof.localgrid.node.saving import OutputMissing, SavingFailed, Wanted, prepare_outputs
from gridproof.localgrid.storage.specs import Specs

HOME = "/local/user/g/gproof"


@pytest.mark.parametrize(
    ("element", "wanted"),
    [
        ("out.txt", Wanted("", ("out.txt",), Specs(more=2), asked=False)),
        ("out.txt@no_archive", Wanted("", ("out.txt",), Specs(more=2), asked=False)),
        ("out.txt@disk=3", Wanted("", ("out.txt",), Specs(more=3), asked=True)),
        ("a.txt, b.*@disk:1", Wanted("", ("a.txt", "b.*"), Specs(more=1), asked=True)),
        (
            "all.zip:*.root,stdout@disk=2,A::B::C,!D::E::F,disk=x",
            Wanted(
                "all.zip", ("*.root", "stdout"), Specs(("A::B::C",), frozenset({"D::E::F"}), 2), asked=True
            ),
        ),
        ("x@A::B::C,D::E::F", Wanted("", ("x",), Specs(("A::B::C", "D::E::F")), asked=True)),
    ],
)
def test_elements_of_outputs_are_read(element, wanted):
    assert Wanted.read(element) == wanted


@pytest.fixture
def directory(tmp_path):
    """A job's directory with some files, and a secret outside of it."""
    (tmp_path / "secret").write_text("x")
    directory = tmp_path / "job"
    (directory / "sub").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.root", "sub/d.txt", "stdout"):
        (directory / name).write_text(f"{name} " * 100)
    (directory / "empty").touch()
    (directory / "link").symlink_to(tmp_path / "secret")
    return directory


def prepared(directory, text, end="DONE"):
    return prepare_outputs(parse(f'Executable = "/local/x"; {text}'), directory, end)


def names(outputs):
    return [output.name for output in outputs.files]


def test_patterns_take_what_there_is_and_names_must_be_there(directory):
    assert names(prepared(directory, 'OutputFile = {"*.txt", "sub/*", "none*"};')) == [
        *("a.txt", "b.txt", "sub/d.txt")
    ]
    with pytest.raises(OutputMissing, match=r"File none.txt doesn't exist or cannot be read!$"):
        prepared(directory, 'OutputFile = {"none.txt"};')
    with pytest.raises(OutputMissing, match=r"none.txt .* Required by the following archive: x.zip"):
        prepared(directory, 'OutputArchive = {"x.zip:none.txt"};')


def test_nothing_outside_of_the_job_s_directory_is_saved(directory):
    assert names(prepared(directory, 'OutputFile = {"../*", "link*", "/etc/host*"};')) == []
    for name in ("../secret", "link", "/etc/hostname"):
        with pytest.raises(OutputMissing):
            prepared(directory, f'OutputFile = {{"{name}"}};')
    archive = prepared(directory, 'OutputArchive = {"../../evil.zip:a.txt"};').files[0]
    assert archive.path == directory / "evil.zip"


def test_a_directory_that_is_reached_by_a_link_has_its_files(directory, tmp_path):
    (tmp_path / "elsewhere").symlink_to(directory)
    found = prepared(tmp_path / "elsewhere", 'OutputFile = {"a.txt", "b.*", "lin*"};')
    assert names(found) == ["a.txt", "b.txt"]


def test_names_that_patterns_find_are_plain(directory):
    assert names(prepared(directory, 'OutputFile = {"./*.txt", "sub/../*.root", "sub//d*"};')) == [
        *("a.txt", "b.txt", "c.root", "sub/d.txt")
    ]


def test_a_name_that_the_catalogue_cannot_hold_is_told(directory):
    (directory / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    with pytest.raises(SavingFailed, match=r"UTF-8, that of b'caf\\xe9.txt' is not"):
        prepared(directory, 'OutputArchive = {"all.zip:*.txt"};')


@pytest.mark.parametrize("name", ["..", "sub/", "a.txt"])
def test_an_archive_is_neither_a_directory_nor_its_own_member(directory, name):
    with pytest.raises(SavingFailed, match=f"An archive cannot be named '{name}'"):
        prepared(directory, f'OutputArchive = {{"{name}:a.txt"}};')
    assert (directory / "a.txt").is_file()


def test_an_archive_holds_its_members_which_are_not_saved_beside_it(directory):
    outputs = prepared(directory, 'OutputFile = {"*.txt"}; OutputArchive = {"all.zip:a.txt,c.root,empty"};')
    assert names(outputs) == ["all.zip", "b.txt"]
    archive = outputs.files[0]
    content = (directory / "a.txt").read_bytes()
    assert [m.name for m in archive.members] == ["a.txt", "c.root"]
    assert archive.members[0].size == len(content)
    assert archive.members[0].md5 == hashlib.md5(content).hexdigest()
    with zipfile.ZipFile(archive.path) as file:
        assert file.read("a.txt") == content
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
    with zipfile.ZipFile(prepared(directory, 'Output = {"t.zip:a.txt"};').files[0].path) as file:
        assert file.infolist()[0].compress_type == zipfile.ZIP_DEFLATED


def test_files_older_than_zip_are_packed(directory):
    os.utime(directory / "a.txt", (0, 0))
    assert prepared(directory, 'OutputArchive = {"x.zip:a.txt"};').files[0].members


def test_an_archive_does_not_follow_a_link_that_the_payload_left(directory, tmp_path):
    (directory / "out.zip").symlink_to(tmp_path / "secret")
    prepared(directory, 'OutputArchive = {"out.zip:a.txt"};')
    assert (tmp_path / "secret").read_text() == "x"


def test_empty_files_and_archives_are_left_out_and_told(directory):
    outputs = prepared(directory, 'OutputFile = {"empty", "a.txt"}; OutputArchive = {"e.zip:empty"};')
    assert names(outputs) == ["a.txt"]
    assert outputs.remarks == (
        "Ignoring empty archive: e.zip",
        "The following file has size 0 and will be ignored: empty",
    )


def test_of_a_failed_payload_the_logs_are_saved_or_what_the_jdl_names_for_it(directory):
    outputs = prepared(directory, 'OutputFile = {"none"};', "ERROR_E")
    assert names(outputs) == ["log_archive.zip"]
    assert [m.name for m in outputs.files[0].members] == ["stdout"]
    assert outputs.remarks == ("No output given for ERROR_E in JDL. Defaulting to std*",)
    assert names(prepared(directory, 'OutputErrorE = {"a.txt", "none"};', "ERROR_E")) == ["a.txt"]
    assert names(prepared(directory, 'OutputFile = {"none", "b.txt"};', "ERROR_V")) == ["b.txt"]


def saved(raw, script, tmp_path, body, jdl, *states):
    out = f"{HOME}/{tmp_path.name}/out"
    job = raw.submit(f'Executable = "{script(body)}"; OutputDir = "{out}"; {jdl}')
    final = ("DONE", "DONE_WARN", "ERROR_E", "ERROR_S", "ERROR_SV", "ERROR_V")
    assert raw.wait(job, *final) in states, raw.trace(job)
    return job, out


def test_members_of_an_archive_are_files_in_the_catalogue(raw, script, tmp_path):
    jdl = 'OutputArchive = {"all.zip:*.txt@disk=2"};'
    job, out = saved(raw, script, tmp_path, "echo one >a.txt; echo two >b.txt", jdl, "DONE")
    assert [row["name"] for row in raw.rows("ls", out)] == ["a.txt", "all.zip", "b.txt"]
    (row,) = raw.rows("whereis", f"{out}/a.txt")
    assert row["seName"] == "ArchiveMember"
    assert row["pfn"].startswith("guid:///")
    assert row["pfn"].endswith("?ZIP=a.txt")
    archive = [row["pfn"] for row in raw.rows("whereis", f"{out}/all.zip")]
    assert len(archive) == 2
    inside = [row["pfn"] for row in raw.rows("whereis", "-r", f"{out}/a.txt")]
    assert inside == [f"{pfn}?ZIP=a.txt" for pfn in archive]
    stat = raw.rows("stat", f"{out}/b.txt")[0]
    assert (stat["size"], stat["md5"]) == ("4", hashlib.md5(b"two\n").hexdigest())
    trace = raw.trace(job)
    assert f"{out}/all.zip: uploaded as requested" in trace
    assert "Registering: all.zip. Return status: true" in trace


def test_a_second_run_overwrites_what_the_first_one_saved(raw, script, tmp_path):
    _, out = saved(raw, script, tmp_path, "echo 1 >f", 'OutputFile = {"f@disk=1"};', "DONE")
    saved(raw, script, tmp_path, "echo 22 >f", 'OutputFile = {"f@disk=1"};', "DONE")
    assert raw.rows("stat", f"{out}/f")[0]["size"] == "3"


def test_more_replicas_than_storage_elements_is_a_warning(raw, script, tmp_path):
    job, out = saved(raw, script, tmp_path, "echo 1 >f", 'OutputFile = {"f@disk=4"};', "DONE_WARN")
    assert len(raw.rows("whereis", f"{out}/f")) == 3
    assert "Only 3 out of 4 requested replicas could be uploaded" in raw.trace(job)


def test_storage_elements_are_chosen_and_refused(grid, raw, script, tmp_path):
    one, two, three = grid.se_names
    _, out = saved(raw, script, tmp_path, "echo 1 >f", f'OutputFile = {{"f@disk=2,!{two}"}};', "DONE")
    assert {row["seName"] for row in raw.rows("whereis", f"{out}/f")} == {one.upper(), three.upper()}


def test_a_missing_output_is_an_error_of_saving(raw, script, tmp_path):
    job, _ = saved(raw, script, tmp_path, "true", 'OutputFile = {"none.txt"};', "ERROR_S")
    assert "A required outputfile was NOT found! Aborting: File none.txt doesn't exist" in raw.trace(job)


def test_what_cannot_be_packed_is_an_error_of_saving_and_not_tried_again(raw, script, tmp_path):
    jdl = 'OutputArchive = {"all.zip:a.txt"};'
    job, _ = saved(raw, script, tmp_path, "mkdir all.zip; echo x >a.txt", jdl, "ERROR_SV")
    assert "Is a directory" in raw.trace(job)


def test_an_output_directory_that_is_not_ours_is_an_error_of_saving(raw, script, tmp_path):
    lfn = script("echo x >f")
    job = raw.submit(f'Executable = "{lfn}"; OutputFile = {{"f"}}; OutputDir = "/local/user/g/guest/x";')
    assert raw.wait(job, "DONE", "ERROR_SV") == "ERROR_SV"
    assert "Failed to upload to /local/user/g/guest/x/f" in raw.trace(job)


def test_without_an_output_directory_there_is_one_by_the_job_s_number(raw, script):
    job = raw.submit(f'Executable = "{script("echo x >f")}"; OutputFile = {{"f@disk=1"}};')
    raw.wait(job, "DONE")
    assert raw.rows("ls", f"{HOME}/alien-job-{job}")


def test_a_validation_decides(grid, raw, script, tmp_path):
    check = tmp_path / "check.sh"
    check.write_text(
        '#!/bin/sh\ngrep -q good result || { echo "bad it is" >.alienValidation.trace; exit 5; }\n'
    )
    grid.put(check, f"{HOME}/{tmp_path.name}/check.sh")
    jdl = f'ValidationCommand = "{HOME}/{tmp_path.name}/check.sh"; OutputFile = {{"result@disk=1"}};'
    saved(raw, script, tmp_path, "echo good >result", jdl, "DONE")
    job, _ = saved(raw, script, tmp_path, "echo bad >result", jdl, "ERROR_V")
    trace = raw.trace(job)
    assert "Starting validation" in trace
    assert "bad it is" in trace
    assert "Validation failed. Exit code: 5" in trace
    assert f"{HOME}/recycle/alien-job-{job}/result: uploaded as requested" in trace
    assert raw.ask("ls", f"{HOME}/recycle/alien-job-{job}")["metadata"]["exitcode"] != "0"


def test_a_dead_storage_element_costs_a_replica_only_if_it_was_named(grid, raw, script, tmp_path, until):
    victim = grid.se_names[1]
    os.kill(int(next(row for row in grid.status() if row.get("se") == victim)["pid"]), 9)
    until(lambda: next(r for r in grid.status() if r.get("se") == victim)["pid"] == "0")
    try:
        jdl = 'OutputFile = {"f@disk=2"};'
        _, out = saved(raw, script, tmp_path, "echo 1 >f", jdl, "DONE")
        assert len(raw.rows("whereis", f"{out}/f")) == 2
        three = ",".join(grid.se_names)
        job, _ = saved(raw, script, tmp_path, "echo 1 >f", f'OutputFile = {{"f@{three}"}};', "DONE_WARN")
        assert "Only 2 out of 3 requested replicas could be uploaded" in raw.trace(job)
    finally:
        grid.restart_se(victim)
