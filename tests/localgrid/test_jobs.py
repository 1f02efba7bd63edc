"""Jobs on a real embedded Grid: what JAliEn's agents do with them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

HOME = "/local/user/g/gproof"


def test_a_job_on_an_idle_grid_runs_until_it_is_killed(raw, script):
    job = raw.submit(f'Executable = "{script("exec sleep 300")}";')
    raw.wait(job, "RUNNING")
    raw.rows("kill", job)
    raw.wait(job, "KILLED")


def test_inputs_come_in_and_outputs_go_out_over_xrootd(grid, raw, script, tmp_path):
    lfn = script('cat data.txt > out.txt; echo "$1" >> out.txt; echo said; env > env.txt')
    data = tmp_path / "data.txt"
    data.write_text("from the grid\n")
    grid.put(data, f"{HOME}/{tmp_path.name}/data.txt", grid.se_names[:2])
    job = raw.submit(
        f'Executable = "{lfn}"; Arguments = "$1"; InputFile = {{"LF:{HOME}/{tmp_path.name}/data.txt"}};'
        f'OutputFile = {{"out.txt@disk=2","stdout@disk=1","env.txt@{grid.se_names[2]}"}};'
        f'OutputDir = "{HOME}/{tmp_path.name}/out";',
        "word",
    )
    assert raw.wait(job, "DONE", "ERROR_E", "ERROR_IB", "ERROR_SV") == "DONE", raw.trace(job)
    out = f"{HOME}/{tmp_path.name}/out"
    assert raw.rows("cat", f"{out}/out.txt")[0]["message"] == "from the grid\nword"
    assert raw.rows("cat", f"{out}/stdout")[0]["message"] == "said"
    assert len(raw.rows("whereis", f"{out}/out.txt")) == 2
    assert [r["seName"] for r in raw.rows("whereis", f"{out}/env.txt")] == [grid.se_names[2].upper()]


def test_a_payload_has_the_environment_of_jalien_and_no_other(grid, raw, script, tmp_path):
    lfn = script(
        'env > env.txt; ls -ld . token token/* | cut -c1-10 > modes.txt; wc -c < "$JALIEN_TOKEN_KEY" > key'
    )
    out = f"{HOME}/{tmp_path.name}/out"
    job = raw.submit(f'Executable = "{lfn}"; OutputFile = {{"*.txt@disk=1"}}; OutputDir = "{out}";')
    assert raw.wait(job, "DONE", "ERROR_E", "ERROR_SV") == "DONE", raw.trace(job)
    lines = raw.rows("cat", f"{out}/env.txt")[0]["message"].splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert found["ALIEN_PROC_ID"] == found["ALIEN_MASTERJOB_ID"] == job
    assert found["ALIEN_SITE"] in grid.site_names
    assert (found["ALIEN_USER"], found["ALIEN_JDL_CPUCORES"]) == ("gridproof", "1")
    assert found["HOME"] == found["TMPDIR"]
    assert found["JALIEN_WSPORT"] == grid.environment["ALIENPY_JCENTRAL_PORT"]
    assert set(found) - {"PWD", "LC_CTYPE", "SHLVL", "_", "OLDPWD"} == {
        *("ALIEN_PROC_ID", "ALIEN_MASTERJOB_ID", "ALIEN_SITE", "ALIEN_USER", "ALIEN_JDL_CPUCORES"),
        *("JALIEN_TOKEN_CERT", "JALIEN_TOKEN_KEY", "JALIEN_HOST", "JALIEN_WSPORT", "X509_CERT_DIR"),
        *("HOME", "TMPDIR", "PATH"),
    }
    modes = raw.rows("cat", f"{out}/modes.txt")[0]["message"].split()
    assert modes == ["drwx------", "drwx------", "-rw-------", "-rw-------"]


def test_a_job_token_knows_its_user_and_its_site(grid, raw, dial, script, tmp_path):
    wanted = grid.se_names[1]
    data = tmp_path / "data"
    data.write_text("x")
    grid.put(data, f"{HOME}/{tmp_path.name}/near", [grid.se_names[0], wanted])
    lfn = script("exec sleep 30")
    job = raw.submit(f'Executable = "{lfn}"; Requirements = member(other.CloseSE,"{wanted}");')
    raw.wait(job, "RUNNING")
    (token,) = (grid.root / "wn").glob(f"alien-job-{job}.*/token")
    with dial(grid.environment, token / "tokencert.pem", token / "tokenkey.pem") as inside:
        assert inside.rows("whoami")[0]["username"] == "gridproof"
        rows = inside.rows("access", "read", f"{HOME}/{tmp_path.name}/near")
        assert [row["se"] for row in rows] == [wanted.upper(), grid.se_names[0].upper()]
    raw.rows("kill", job)


def test_a_failing_payload_ends_in_error_e_with_the_trace_it_wrote(raw, script):
    body = "echo out; echo alas >&2; echo because >.alienValidation.trace; exit 3"
    job = raw.submit(f'Executable = "{script(body)}";')
    raw.wait(job, "ERROR_E")
    trace = raw.trace(job)
    assert "because" in trace
    assert "executable exit code was 3" in trace
    assert not {"out", "alas"} & {line.split()[-1] for line in trace.splitlines()}


def test_what_a_payload_links_to_does_not_come_into_its_trace(raw, script):
    body = "echo private >elsewhere; ln -s elsewhere .alienValidation.trace"
    job = raw.submit(f'Executable = "{script(body)}";')
    raw.wait(job, "DONE")
    assert "private" not in raw.trace(job)


def test_packages_are_set_up_for_a_payload(raw, script, tmp_path):
    (package,) = raw.rows("packages")
    out = f"{HOME}/{tmp_path.name}/out"
    job = raw.submit(
        f'Executable = "{script("ls $PYTHONPATH >ls.txt")}"; Packages = {{"{package["packages"]}"}}; '
        f'OutputFile = {{"ls.txt"}}; OutputDir = "{out}";'
    )
    raw.wait(job, "DONE")
    found = raw.rows("cat", f"{out}/ls.txt")[0]["message"].split()
    assert "ROOT" in found
    assert "gridproof" not in found


def test_a_package_that_is_not_there_is_refused_at_submission(raw, script):
    answer = raw.ask("submit", f'Executable = "{script("true")}"; Packages = {{"VO_LOCAL@ROOT::v5-34"}};')
    assert answer["metadata"]["exitcode"] == "121"
    assert "Package not defined: VO_LOCAL@ROOT::v5-34" in answer["metadata"]["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [("kill -SEGV $$", "code was 139 (SIGSEGV)"), ("exit 127", "code was 127")],
)
def test_how_a_payload_ended_is_told(raw, script, body, words):
    job = raw.submit(f'Executable = "{script(body)}";')
    raw.wait(job, "ERROR_E")
    assert words in raw.trace(job)


def test_an_executable_that_cannot_be_run_is_told(grid, raw, tmp_path):
    path = tmp_path / "broken"
    path.write_text("#!/no/such/interpreter\n")
    grid.put(path, f"{HOME}/{tmp_path.name}/broken")
    job = raw.submit(f'Executable = "{HOME}/{tmp_path.name}/broken";')
    raw.wait(job, "ERROR_E")
    assert "Failed to start execution of payload" in raw.trace(job)


def test_what_is_not_in_the_catalogue_is_refused_at_submission(raw, script):
    lfn = script("true")
    for jdl in ('Executable = "/local/none.sh";', f'Executable = "{lfn}"; InputFile = {{"LF:/local/none"}};'):
        answer = raw.ask("submit", jdl)
        assert answer["metadata"]["exitcode"] == "121"
        assert "/local/none" in answer["metadata"]["error"]


def test_a_killed_job_leaves_no_process(raw, script, until):
    lfn = script('trap "" TERM; setsid sleep 1000 & sleep 1000')
    job = raw.submit(f'Executable = "{lfn}";')
    raw.wait(job, "RUNNING")
    until(lambda: len(_processes_of(job)) >= 3)
    assert raw.rows("kill", job)[0]["status"] == "killed"
    assert raw.status(job) == "KILLED"
    until(lambda: not _processes_of(job), timeout=8)


def test_a_payload_may_clean_up_when_it_is_killed(raw, script, until, tmp_path):
    mark = tmp_path / "cleaned"
    lfn = script(f'trap "echo done > {mark}; exit 0" TERM; touch {mark}.ready; while :; do sleep 0.05; done')
    job = raw.submit(f'Executable = "{lfn}";')
    until(lambda: mark.with_suffix(".ready").exists())
    raw.rows("kill", job)
    until(mark.exists)
    assert raw.status(job) == "KILLED"


def test_killing_the_wrapper_leaves_nothing_of_the_payload(raw, script, until):
    job = raw.submit(f'Executable = "{script("setsid sleep 1000 & sleep 1000")}";')
    raw.wait(job, "RUNNING")
    until(lambda: sum("sleep" in line for line in _processes_of(job).values()) == 2)
    (wrapper,) = (process for process, line in _processes_of(job).items() if "wrapper.py" in line)
    wrapper.kill()
    raw.wait(job, "ERROR_E")
    until(lambda: not _processes_of(job))


def _processes_of(job):
    """The job's processes with their command lines."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("ALIEN_PROC_ID") == job and process.status() != psutil.STATUS_ZOMBIE:
                found[process] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return found


def test_subjobs_fill_the_slots_of_all_sites_and_their_master_is_done(grid, raw, script, tmp_path, until):
    go_on = tmp_path / "go-on"
    lfn = script(f"until [ -e {go_on} ]; do sleep 0.1; done")
    master = raw.submit(f'Executable = "{lfn}"; Split = "production:1-6";')

    def subjobs():
        return [(row["status"], row["site"]) for row in raw.rows("ps", "-Fl", "-m", master)]

    until(lambda: [status for status, _ in subjobs()] == ["RUNNING"] * 6, timeout=30)
    assert sorted(subjobs()) == [("RUNNING", f"Local::{name}::CE") for name in grid.site_names for _ in "12"]
    assert raw.status(master) == "SPLIT"
    go_on.touch()
    raw.wait(master, "DONE")


def test_a_job_is_split_over_a_collection_written_as_xml(grid, raw, script, tmp_path):
    top = f"{HOME}/{tmp_path.name}"
    for name, se in (("a", 0), ("b", 1), ("c", 1)):
        (tmp_path / name).write_text(name)
        grid.put(tmp_path / name, f"{top}/{name}", [grid.se_names[se]])
    files = "".join(f'<file name="{name}" lfn="{top}/{name}" />' for name in "abc")
    (tmp_path / "set.xml").write_text(f"<alien><collection>{files}</collection></alien>")
    grid.put(tmp_path / "set.xml", f"{top}/set.xml")
    master = raw.submit(
        f'Executable = "{script("true")}"; InputDataCollection = "LF:{top}/set.xml,nodownload";'
        f'Split = "se"; SplitMaxInputFileNumber = 5; OutputDir = "{top}/#alienfilename#";'
    )
    assert raw.wait(master, "DONE", "ERROR_SPLT") == "DONE", raw.trace(master)
    rows = raw.rows("ps", "-Fl", "-m", master)
    assert [row["site"] for row in rows] == [f"Local::{name}::CE" for name in grid.site_names[:2]]
    jdl = raw.rows("ps", "-jdl", rows[1]["id"])[0]["jdl"]
    assert f"{top}/b" in jdl.split("OutputDir")[1]
    assert "InputDataCollection" not in jdl


def test_a_job_that_nobody_takes_in_time_ends_by_itself(raw, script):
    nowhere = 'Requirements = other.CE == "A::B::C"; MaxWaitingTime = 1;'
    job = raw.submit(f'Executable = "{script("true")}"; {nowhere}')
    assert raw.wait(job, "ERROR_EW", timeout=15) == "ERROR_EW"
    assert "from WAITING to ERROR_EW, stayed in the queue longer than MaxWaitingTime" in raw.trace(job)


def test_ps_filters(raw, script):
    lfn = script("true")
    done = raw.submit(f'Executable = "{lfn}"; JobTag = {{"comment:once"}};')
    stuck = raw.submit(f'Executable = "{lfn}"; Requirements = other.CE == "A::B::C";')
    raw.wait(done, "DONE")

    def ids(*options):
        return {row["id"] for row in raw.rows("ps", *options)}

    assert {done, stuck} <= ids()
    assert {done, stuck} <= ids("-a")
    assert ids("-j", f"{done},{stuck}") == {done, stuck}
    assert done in ids("-f", "d")
    assert stuck not in ids("-f", "d")
    assert stuck in ids("-f", "WAITING")
    assert done not in ids("-f", "WAITING")
    assert stuck in ids("-X")
    assert done not in ids("-X")
    assert ids("-l", "1") == {stuck}
    assert "comment:once" in raw.rows("ps", "-jdl", done)[0]["jdl"]
    raw.rows("kill", stuck)


def test_a_job_goes_on_when_one_of_two_replicas_of_its_input_is_gone(grid, raw, script, tmp_path, until):
    path = tmp_path / "two.sh"
    path.write_text("#!/bin/sh\nexit 0\n")
    lfn = f"{HOME}/{tmp_path.name}/two.sh"
    grid.put(path, lfn, grid.se_names[:2])
    first = next(row for row in grid.status() if row.get("se") == grid.se_names[0])
    os.kill(int(first["pid"]), 9)
    until(lambda: next(r for r in grid.status() if r.get("se") == grid.se_names[0])["pid"] == "0")
    job = raw.submit(f'Executable = "{lfn}"; Requirements = member(other.CloseSE,"{grid.se_names[0]}");')
    assert raw.wait(job, "DONE", "ERROR_IB", "ERROR_E") == "DONE"
    grid.restart_se(grid.se_names[0])
    again = next(row for row in grid.status() if row.get("se") == grid.se_names[0])
    assert again["pid"] != "0"
    assert again["url"] == first["url"]
    grid.get(lfn, tmp_path / "back.sh")
    assert (tmp_path / "back.sh").read_text() == path.read_text()


def test_files_on_storage_do_not_exist_outside_of_it(grid, raw, script):
    (row,) = raw.rows("whereis", script("true"))
    path = row["pfn"].split("//")[-1]
    assert not Path(f"/{path}").exists()
    assert row["pfn"].count("//") == 2
