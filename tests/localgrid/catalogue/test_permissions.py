"""What a user may do with the files of another: by owner, group and mode, whatever the command."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.localgrid import Limits, LocalGrid, User
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import CatalogueError
from gridproof.localgrid.catalogue.permissions import PASS, READ, WRITE, allowed, owned_by, refused
from gridproof.localgrid.commands.usage import USAGES
from gridproof.localgrid.users import Users

ACCOUNTS = (User("ada", ("pwg",)), User("bob", ("pwg",)), User("guest"))
HOME = "/local/user/a/ada"
SECRET = "the spectrum before it is approved"


@pytest.mark.parametrize(
    ("user", "perm", "rights"),
    [
        (User("ada"), "740", READ | WRITE | PASS),
        (User("ada"), "077", 0),
        (User("bob", ("ada",)), "700", READ | WRITE | PASS),  # a role: bob may act as ada
        (User("bob", ("pwg",)), "740", READ),
        (User("bob", ("pwg",)), "707", 0),
        (User("guest"), "745", READ | PASS),
        (User("guest"), "770", 0),
        (User("admin"), "000", READ | WRITE | PASS),
        (User("bob", ("admin",)), "000", READ | WRITE | PASS),
    ],
)
def test_the_digit_that_counts_is_the_first_that_applies(user, perm, rights):
    assert rights == sum(right for right in (READ, WRITE, PASS) if allowed(user, "ada", "pwg", perm, right))


names = st.sampled_from(["ada", "bob", "pwg", "admin", "users"])
modes = st.text("01234567", min_size=3, max_size=3)


@given(names, st.lists(names), names, names, modes, st.integers(0, 7))
def test_sql_and_python_agree(name, groups, owner, gowner, perm, right):
    user = User(name, tuple(groups))
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE lfns (owner, gowner, perm)")
    connection.execute("INSERT INTO lfns VALUES (?, ?, ?)", (owner, gowner, perm))

    def holds(condition, values):
        return bool(connection.execute(f"SELECT {condition} FROM lfns", values).fetchone()[0])

    assert holds(*refused(user, right)) != allowed(user, owner, gowner, perm, right)
    assert holds(*owned_by(user)) == user.may_become(owner)
    connection.close()


@pytest.fixture
def catalogue(tmp_path):
    catalogue = Catalogue(tmp_path / "catalogue.db", Users(ACCOUNTS))
    catalogue.make_root(0)
    for directory in ("closed", "closed/deep", "listed", "group"):
        catalogue.mkdir(f"{HOME}/{directory}", "ada", 0)
        catalogue.touch(f"{HOME}/{directory}/file", "ada", 0)
    catalogue.chown(f"{HOME}/group", "ada", "pwg", "ada", recursive=True)
    for directory, perm in ("closed", "700"), ("listed", "744"), ("group", "770"):
        catalogue.chmod(f"{HOME}/{directory}", perm, "ada", 0)
    yield catalogue
    catalogue.close()


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("ada", ["closed/deep/file", "closed/file", "group/file", "listed/file"]),
        ("admin", ["closed/deep/file", "closed/file", "group/file", "listed/file"]),
        ("bob", ["group/file"]),
        ("guest", []),
    ],
)
def test_find_and_wildcards_stay_out_of_closed_directories(catalogue, user, found):
    lfns = [entry.lfn.removeprefix(f"{HOME}/") for entry in catalogue.find(HOME, "file", user)]
    assert lfns == found
    matched = {entry.lfn for entry in catalogue.match(f"{HOME}/*/fil?", user)}
    assert matched == {f"{HOME}/{lfn}" for lfn in found if lfn.count("/") == 1}


def test_closed_directories_are_found_by_an_index(catalogue):
    plans = []
    catalogue._database._writer.set_trace_callback(plans.append)
    with catalogue.change() as connection:
        catalogue._closed(HOME, "guest")
        query = next(plan for plan in plans if plan.startswith("SELECT lfn"))
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "USING INDEX closed" in plan[0][3] or "COVERING INDEX closed" in plan[0][3]


def denied(action):
    with pytest.raises(CatalogueError) as error:
        action()
    return error.value.code == 13


def test_what_is_in_a_closed_directory_is_neither_seen_nor_made_nor_removed(catalogue):
    inside = f"{HOME}/closed/file"
    assert denied(lambda: catalogue.look_up(inside, "guest"))
    assert denied(lambda: catalogue.look_up(f"{HOME}/closed/none", "guest"))
    catalogue.chmod(f"{HOME}/closed/deep", "777", "ada", 0)
    catalogue.chmod(inside, "666", "ada", 0)
    for action in (
        lambda: catalogue.touch(f"{HOME}/closed/deep/new", "guest", 0),
        lambda: catalogue.mkdir(f"{HOME}/closed/deep/new", "guest", 0),
        lambda: catalogue.check_new(f"{HOME}/closed/file", "guest"),
        lambda: catalogue.remove(inside, "guest"),
        lambda: catalogue.move(inside, "/local/stolen", "guest"),
    ):
        assert denied(action)
    assert catalogue.look_up(inside, "ada", READ)


def test_a_tree_goes_only_if_all_of_it_may(catalogue):
    catalogue.mkdir("/local/common", "guest", 0, perm="777")
    catalogue.touch("/local/common/ours", "ada", 0)
    assert denied(lambda: catalogue.remove("/local/common", "guest", recursive=True))
    assert denied(lambda: catalogue.move("/local/common", "/local/elsewhere", "guest"))
    assert catalogue.get("/local/common/ours")
    catalogue.remove("/local/common", "admin", recursive=True)
    assert catalogue.get("/local/common") is None


def test_a_file_moves_only_where_both_directories_may_be_changed(catalogue):
    catalogue.touch(f"{HOME}/public", "ada", 0)
    catalogue.chmod(f"{HOME}/public", "666", "ada", 0)
    assert denied(lambda: catalogue.move(f"{HOME}/public", "/local/mine", "guest"))
    catalogue.chmod(HOME, "777", "ada", 0)
    assert denied(lambda: catalogue.move(f"{HOME}/public", "/local/user/b/bob/x", "guest"))
    catalogue.move(f"{HOME}/public", "/local/mine", "guest")
    assert catalogue.get("/local/mine").owner == "ada"


def test_modes_and_owners_change_for_what_one_owns_only(catalogue):
    catalogue.chmod(f"{HOME}/group", "777", "ada", 0)
    catalogue.touch(f"{HOME}/group/bobs", "bob", 0)
    assert catalogue.chmod(f"{HOME}/group", "750", "ada", 0, recursive=True) == [f"{HOME}/group/bobs"]
    assert catalogue.get(f"{HOME}/group/file").perm == "750"
    assert catalogue.get(f"{HOME}/group/bobs").perm == "755"
    assert catalogue.chmod(f"{HOME}/group/bobs", "600", "ada", 0) == [f"{HOME}/group/bobs"]
    assert catalogue.chown(f"{HOME}/group", "guest", "", "admin", recursive=True) == []
    assert catalogue.get(f"{HOME}/group/bobs").owner == "guest"


@pytest.mark.parametrize(
    ("user", "owner", "gowner"), [("ada", "bob", ""), ("ada", "ada", "guest"), ("admin", "nobody", "")]
)
def test_nothing_is_given_to_whom_one_may_not_act_as(catalogue, user, owner, gowner):
    with pytest.raises(CatalogueError) as error:
        catalogue.chown(f"{HOME}/listed", owner, gowner, user)
    assert error.value.code == 1


# Over the wire


@pytest.fixture(scope="module")
def grid():
    with LocalGrid(sites=1, users=ACCOUNTS, limits=Limits(check_interval=0.2, report_interval=0.2)) as grid:
        yield grid


@pytest.fixture(scope="module")
def files(grid, tmp_path_factory):
    """Files of ada's, by name."""
    scratch = tmp_path_factory.mktemp("files") / "file"
    modes = {"public": "644", "grouped": "640", "private": "600", "closed/inside": "644"}
    for name in modes:
        scratch.write_text(f"{name}: {'nothing' if name == 'public' else SECRET}")
        grid.put(scratch, f"{HOME}/{name}")
    grid.collect(f"{HOME}/collection", [f"{HOME}/private"])
    for name, mode in (*modes.items(), ("closed", "700")):
        grid._command("chmod", mode, f"{HOME}/{name}")
    grid._command("chown", "ada.pwg", f"{HOME}/grouped")
    return {name: f"{HOME}/{name}" for name in modes}


@pytest.fixture(scope="module")
def users(grid, files):
    """A connection of each."""
    from tests.localgrid.conftest import Raw

    connections = {user: Raw(grid.environment_of(user)) for user in ("ada", "bob", "guest", "admin")}
    yield connections
    for connection in connections.values():
        connection.stack.close()


MAY_READ = {
    "public": {"ada", "bob", "guest", "admin"},
    "grouped": {"ada", "bob", "admin"},
    "private": {"ada", "admin"},
    "closed/inside": {"ada", "admin"},
}
READING = [
    ("cat",),
    ("access", "read"),
    ("stat",),
    ("stat", "-v"),
    ("whereis",),
    ("whereis", "-r"),
    ("md5sum",),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
@pytest.mark.parametrize("name", MAY_READ)
def test_content_md5_and_replicas_are_for_those_who_may_read(users, files, command, name):
    for user, connection in users.items():
        answer = connection.ask(*command, files[name])
        may = answer["metadata"]["exitcode"] == "0"
        assert may == (user in MAY_READ[name]), (user, answer)
        assert may == bool(answer["results"])


@pytest.mark.parametrize("name", ["private", "closed/inside", "collection"])
def test_no_command_tells_a_guest_what_is_in_a_private_file(users, files, name):
    hidden = users["ada"].rows("stat", files.get(name, files["private"]))[0]
    secrets = SECRET, hidden["md5"], users["ada"].rows("whereis", hidden["lfn"])[0]["pfn"]
    lfn = f"{HOME}/{name}"
    for command in sorted(set(USAGES) - {"user", "kill", "ping"}):
        for options in [lfn], ["-v", lfn], ["-z", lfn], ["-f", HOME, "*"], ["-x", "all", HOME, "*"]:
            said = json.dumps(users["guest"].ask(command, *options))
            assert not [secret for secret in secrets if secret in said], (command, options)
        assert hidden["md5"] not in json.dumps(users["guest"].ask(command, hidden["guid"]))


CHANGES = {
    "rm": lambda lfn: ("rm", lfn),
    "mv": lambda lfn: ("mv", lfn, "/local/stolen"),
    "touch": lambda lfn: ("touch", lfn),
    "chmod": lambda lfn: ("chmod", "777", lfn),
    "chmod -R": lambda lfn: ("chmod", "-R", "777", lfn),
    "chown": lambda lfn: ("chown", "guest", lfn),
    "rm -r of the directory": lambda lfn: ("rm", "-r", f"{HOME}/closed"),
    "rmdir": lambda lfn: ("rmdir", f"{HOME}/closed"),
    "mkdir beside": lambda lfn: ("mkdir", f"{HOME}/new"),
    "mkdir -p beside": lambda lfn: ("mkdir", "-p", f"{HOME}/new/deep"),
    "touch beside": lambda lfn: ("touch", f"{HOME}/new"),
    "write beside": lambda lfn: ("access", "write", f"{HOME}/new", "disk:1"),
    "collect beside": lambda lfn: ("gridCollect", f"{HOME}/new", lfn),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_user_changes_nothing(users, files, change):
    before = users["ada"].rows("find", "-w", HOME, "*")
    for user in ("guest", "bob"):
        answer = users[user].ask(*CHANGES[change](files["public"]))
        assert answer["metadata"]["exitcode"] != "0", answer
        assert answer["metadata"]["error"]
    assert users["ada"].rows("find", "-w", HOME, "*") == before


def test_a_private_directory_is_not_listed_nor_entered(users, files):
    for command in ("ls", "cd"):
        answer = users["guest"].ask(command, f"{HOME}/closed")
        assert answer["metadata"]["exitcode"] == "13"
        assert not answer["results"]
        assert users["ada"].ask(command, f"{HOME}/closed")["metadata"]["exitcode"] == "0"
    users["ada"].rows("cd")
    assert users["guest"].ask("find", f"{HOME}/closed", "*")["metadata"]["exitcode"] == "13"
    found = {row["lfn"] for row in users["bob"].rows("find", HOME, "*")}
    assert f"{HOME}/private" in found  # its name is no secret
    assert f"{HOME}/closed/inside" not in found


def test_what_lies_in_a_private_directory_is_neither_counted_nor_told_apart_from_what_does_not(users, files):
    hidden = users["ada"].rows("stat", files["closed/inside"])[0]
    guest, closed = users["guest"], f"{HOME}/closed"
    counted = [int(users[name].rows("du", HOME)[-1]["physical_files_count"]) for name in ("ada", "guest")]
    assert counted[0] == counted[1] + 1
    for command in (
        ("rmdir", "{}"),
        ("mv", "{}", "/local/stolen"),
        ("mv", files["public"], "{}"),
        ("mkdir", "{}"),
        ("gridCollect", "{}/new", files["public"]),
        ("toXml", "-x", "{}", files["public"]),
    ):
        there, none = (
            guest.ask(*(part.format(f"{closed}/{name}") for part in command)) for name in ("inside", "insane")
        )
        assert there["metadata"]["exitcode"] != "0", command
        assert json.dumps(there).replace("inside", "insane") == json.dumps(none), command
    for command in READING:
        assert "inside" not in json.dumps(guest.ask(*command, hidden["guid"])), command


def test_where_replicas_are_is_for_those_who_may_read(users, files):
    assert "SITE1" in users["ada"].rows("listSEDistance", "-read", files["private"])[0]["message"]
    assert users["guest"].ask("listSEDistance", "-read", files["private"])["metadata"]["exitcode"] == "13"


def test_what_may_not_be_written_takes_no_space(grid, users, files):
    def stored():
        return sum(1 for path in (grid.root / "se").glob("*/data/*/*/*"))

    before = stored()
    assert users["guest"].ask("find", "-x", f"{HOME}/new.xml", HOME, "*")["metadata"]["exitcode"] == "13"
    assert stored() == before


def test_servers_are_started_anew_by_the_first_user_and_administrators(grid, users):
    for user, code in ("ada", "0"), ("admin", "0"), ("bob", "1"), ("guest", "1"):
        assert users[user].ask("gridRestartSE", grid.se_names[0])["metadata"]["exitcode"] == code


def test_group_members_write_where_the_group_may(users, files):
    users["ada"].rows("mkdir", "shared")
    users["ada"].rows("chown", "ada.pwg", "shared")
    users["ada"].rows("chmod", "770", "shared")
    users["bob"].rows("touch", f"{HOME}/shared/bobs")
    assert users["bob"].rows("stat", f"{HOME}/shared/bobs")[0]["owner"] == "bob"
    assert users["guest"].ask("ls", f"{HOME}/shared")["metadata"]["exitcode"] == "13"
    users["bob"].rows("rm", f"{HOME}/shared/bobs")


def test_chown_fails_with_jaliens_words(users, files):
    answer = users["guest"].ask("chown", "guest", files["public"])
    assert answer["metadata"]["error"] == f"Input/output error : {files['public']}: unable to chown"
    answer = users["guest"].ask("chmod", "777", files["public"])
    assert answer["metadata"]["error"] == f"Input/output error : {files['public']}: unable to chmod"
    assert users["admin"].ask("chown", "nobody", files["public"])["metadata"]["exitcode"] == "1"


@pytest.mark.parametrize(
    ("user", "status"),
    [("guest", "not_allowed"), ("bob", "not_allowed"), ("admin", "killed"), ("ada", "killed")],
)
def test_jobs_are_the_owners_and_the_administrators(users, files, user, status):
    job = users["ada"].submit(f'Executable = "{files["private"]}"; Requirements = other.CE == "A::B::C";')
    assert users[user].rows("kill", job) == [
        {
            "jobid": job,
            "message": f"Killed: {job}" if status == "killed" else f"You are not allowed to kill {job}",
            "status": status,
        }
    ]
    answer = users[user].ask("resubmit", job)["metadata"]
    assert (answer["exitcode"], "not authorized" in answer["error"]) == (
        ("0", False) if status == "killed" else ("1", True)
    )
    assert users["guest"].rows("ps", "-j", job)[0]["owner"] == "ada"  # everybody may look
    users["ada"].rows("kill", job)


def test_a_file_is_made_an_output_of_ones_own_job_only(users, files):
    job = users["ada"].submit(f'Executable = "{files["private"]}"; Requirements = other.CE == "A::B::C";')
    for user, lfns in ("guest", []), ("ada", ["/local/of-ada"]):
        lfn = f"/local/of-{user}"
        permit = users[user].rows("access", "-j", job, "-s", "0", "write", lfn, "disk:1")[0]
        users[user].rows("commit", permit["envelope"], "0", lfn)
        assert [row["lfn"] for row in users["ada"].rows("find", "-j", job, "/local", "*")] == lfns
    users["ada"].rows("resubmit", job)  # what it has saved goes, whatever others have made
    users["ada"].rows("kill", job)


def test_a_job_saves_nothing_where_its_owner_may_not_write(grid, users, files, tmp_path):
    (tmp_path / "job.sh").write_text("#!/bin/sh\necho mine >out.txt\n")
    grid.put(tmp_path / "job.sh", f"{HOME}/job.sh")
    wanted = f'Executable = "{HOME}/job.sh"; OutputFile = "out.txt@disk=1"; OutputDir = "{HOME}/of-others";'
    job = users["guest"].submit(wanted)
    assert users["guest"].wait(job, "DONE", "DONE_WARN", "ERROR_SV", "ERROR_E") == "ERROR_SV"
    assert users["ada"].ask("stat", f"{HOME}/of-others")["metadata"]["exitcode"] == "2"
    users["ada"].rows("mkdir", "for-all")
    users["ada"].rows("chmod", "777", "for-all")
    job = users["guest"].submit(wanted.replace("of-others", "for-all"))
    assert users["guest"].wait(job, "DONE", "DONE_WARN", "ERROR_SV", "ERROR_E") == "DONE"
    assert users["ada"].rows("stat", "for-all/out.txt")[0]["owner"] == "guest"


@pytest.mark.parametrize(
    "jdl",
    [
        'Executable = "{private}";',
        'Executable = "{public}"; ValidationCommand = "{private}";',
        'Executable = "{public}"; InputFile = "LF:{private}";',
        'Executable = "{public}"; InputData = "LF:{private}";',
        'Executable = "{public}"; InputDataCollection = "LF:{private}";',
        'Executable = "{public}"; InputFile = "LF:{closed/inside}";',
    ],
)
def test_a_job_takes_no_private_file_of_another(users, files, jdl):
    for name, lfn in files.items():
        jdl = jdl.replace(f"{{{name}}}", lfn)
    answer = users["guest"].ask("submit", jdl)
    assert answer["metadata"]["exitcode"] == "121", answer
    assert "guest is not allowed to read" in answer["metadata"]["error"]
