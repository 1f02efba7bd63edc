"""Quotas: of files and their bytes, of jobs and what they cost; who changes them, what exceeds them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridproof.localgrid import Limits, LocalGrid, Quota, User
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking, CatalogueError
from gridproof.localgrid.formats import java_float
from gridproof.localgrid.quotas import Quotas, files_refused
from gridproof.localgrid.users import Users

SMALL = Quota(max_files=3, max_bytes=10, max_unfinished_jobs=5, max_running_time=100, max_cpu_cost=200)
FULL = "User ada has exceeded the file quota and is not allowed to write any more files"


@pytest.mark.parametrize(("files", "size", "why"), [(3, 10, ""), (4, 0, FULL), (1, 11, FULL)])
def test_files_are_refused_in_the_words_of_jalien(files, size, why):
    assert files_refused(SMALL, "ada", files, size) == why


def test_a_limit_is_changed_for_one_user():
    quotas = Quotas({"ada": SMALL}, Quota(max_files=7))
    quotas.set("bob", "maxNbFiles", 2)
    quotas.set("ada", "maxTotalCpuCost", 1)
    assert [quotas[user].max_files for user in ("ada", "bob", "eve")] == [3, 2, 7]
    assert quotas["ada"].max_cpu_cost == 1
    with pytest.raises(KeyError):
        quotas.set("ada", "priority", 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (100, "100.0"),
        (1e12, "1.0E12"),
        (0.25, "0.25"),
        (12345678, "1.2345678E7"),
        (1.5e-5, "1.5E-5"),
    ],
)
def test_costs_are_written_as_java_writes_them(value, text):
    assert java_float(value) == text


# The catalogue


@pytest.fixture
def catalogue(tmp_path):
    users = Users([User("ada", quota=SMALL), User("bob")])
    catalogue = Catalogue(tmp_path / "catalogue.db", users)
    catalogue.make_root(0)
    yield catalogue
    catalogue.close()


def commit(catalogue, name, size, user="ada"):
    booking = Booking(name, f"/local/{name}", name, "SE", user)
    catalogue.commit(booking, size=size, md5="", perm="644", now_ms=0)


def refused(action):
    with pytest.raises(CatalogueError, match="has exceeded the file quota") as error:
        action()
    return error.value.code == 122


def test_files_beyond_the_number_or_the_bytes_are_not_made(catalogue):
    commit(catalogue, "a", 7)
    assert refused(lambda: commit(catalogue, "b", 4))
    commit(catalogue, "b", 3)
    assert catalogue.used("ada") == (2, 10)
    catalogue.touch("/local/c", "ada", 0)
    assert refused(lambda: commit(catalogue, "c", 1))
    assert refused(lambda: catalogue.touch("/local/d", "ada", 0))
    assert refused(lambda: catalogue.check_new("/local/d", "ada"))
    commit(catalogue, "d", 100, "bob")
    catalogue.move("/local/c", "/local/e", "ada")  # no new file
    catalogue.mkdir("/local/directory", "ada", 0)
    catalogue.remove("/local/a", "ada")
    commit(catalogue, "a", 7)


def test_nothing_is_given_to_a_group_beyond_its_quota(tmp_path):
    users = Users([User("ada", ("pwg",))])
    users.quotas.set("pwg", "maxTotalSize", 5)
    catalogue = Catalogue(tmp_path / "c.db", users)
    catalogue.make_root(0)
    commit(catalogue, "a", 7)
    assert refused(lambda: catalogue.chown("/local/a", "pwg", "", "ada"))
    assert (catalogue.used("ada"), catalogue.used("pwg")) == ((1, 7), (0, 0))
    catalogue.close()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["make", "remove", "give", "move"]), st.sampled_from("abc"), st.integers(0, 9)
        )
    )
)
def test_the_catalogue_always_knows_what_each_user_has(tmp_path_factory, steps):
    catalogue = Catalogue(tmp_path_factory.mktemp("used") / "c.db", Users([User("ada"), User("bob")]))
    catalogue.make_root(0)
    for what, name, number in steps:
        user = "ada" if number % 2 else "bob"
        try:
            if what == "make":
                commit(catalogue, f"{name}/{number}", number, user)
            elif what == "remove":
                catalogue.remove(f"/local/{name}", "admin", recursive=True)
            elif what == "give":
                catalogue.chown(f"/local/{name}", user, "", "admin", recursive=True)
            else:
                catalogue.move(f"/local/{name}", f"/local/{name}{number}", "admin")
        except CatalogueError:
            continue
    for user in ("ada", "bob"):
        files = [entry for entry in catalogue.find("/", "*", "admin", "f") if entry.owner == user]
        assert catalogue.used(user) == (len(files), sum(file.size for file in files))
    catalogue.close()


# Over the wire


@pytest.fixture(scope="module")
def grid():
    users = [User("ada"), User("bob", quota=Quota(max_files=1, max_bytes=100))]
    with LocalGrid(sites=1, slots=1, users=users, limits=Limits(quota=Quota(max_unfinished_jobs=2))) as grid:
        yield grid


def test_both_lists_have_what_alienpy_puts_together(ada, bob):
    row = ada.rows("jquota", "list", "bob")[0]
    numbers = {key: float(value) for key, value in row.items() if key not in ("username", "message")}
    assert row["username"] == "bob"
    assert (numbers["nominalParallelJobs"], numbers["maxParallelJobs"]) == (100, 10_000)
    assert numbers["maxUnfinishedJobs"] == 100_000
    assert row["maxTotalCpuCost"] == "1.0E12"
    assert row["message"].startswith("Quota of bob (userid: 2)\ncomputed priority\t: 100.0\t\t(effective")
    files = bob.rows("fquota", "list")[0]
    assert {key: files[key] for key in files if key != "message"} == {
        "username": "bob",
        "totalSize": "0",
        "maxTotalSize": "100",
        "nbFiles": "0",
        "maxNbFiles": "1",
    }
    assert [row["username"] for row in bob.rows("fquota", "list", "ada", "bob")] == ["ada", "bob"]


@pytest.mark.parametrize(
    ("command", "code", "why"),
    [
        ("jquota list eve", 22, "No such account name: eve"),
        ("fquota list eve", 61, "File quota information not available for eve"),
        ("jquota set ada maxUnfinishedJobs 9", 22, "Wrong command passed: set"),
        ("fquota set ada maxNbFiles 9", 121, "Failed to set maxNbFiles=9 for user=[ada]"),
        ("fquota set ada priority 9", 22, "Not a field you can set: priority"),
        ("jquota tell", 22, "Wrong command passed: tell"),
        ("fquota", 22, "Command requires an argument"),
    ],
)
def test_who_is_no_administrator_only_looks(bob, command, code, why):
    metadata = bob.ask(*command.split())["metadata"]
    assert int(metadata["exitcode"]) == code
    assert why in metadata["error"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("jquota set ada maxNbFiles 9", "Error in parameter name"),
        ("jquota set ada maxUnfinishedJobs x", "Error in value"),
        ("jquota set eve maxUnfinishedJobs 9", "No such account name: eve"),
        ("fquota set ada maxNbFiles 0", "Value cannot be null"),
    ],
)
def test_an_administrator_is_told_what_cannot_be_set(admin, command, why):
    assert why in admin.ask(*command.split())["metadata"]["error"]


def test_files_beyond_the_quota_are_refused_until_it_is_raised(grid, bob, admin, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 40)
    bob.rows("touch", "one")
    for command in (("touch", "two"), ("access", "write", "/local/user/b/bob/two", "disk:1")):
        metadata = bob.ask(*command)["metadata"]
        assert metadata["exitcode"] != "0"
    assert "User bob has exceeded the file quota" in metadata["error"]
    rejected = bob.ask("submit", 'Executable = "/local/x";')
    assert rejected["metadata"]["exitcode"] == "121"
    said = admin.rows("fquota", "set", "bob", "maxNbFiles", "2")[0]["message"]
    assert said == "Result: ok, maxNbFiles=2 for user=[bob]"
    permit = bob.rows("access", "write", "/local/user/b/bob/two", "disk:1")[0]
    assert permit["url"]
    assert json.loads(bob.rows("fquota", "list")[0]["maxNbFiles"]) == 2
    bob.rows("rm", "one")


def test_jobs_beyond_the_quota_are_refused(grid, ada, admin, tmp_path):
    (tmp_path / "job.sh").write_text("#!/bin/sh\nsleep 60\n")
    grid.put(tmp_path / "job.sh", "/local/user/a/ada/job.sh")
    jdl = 'Executable = "job.sh"; JDLPath = "x"; Requirements = other.CE == "A::B::C";'.replace(
        "job.sh", "/local/user/a/ada/job.sh"
    )
    jobs = [ada.submit(jdl), ada.submit(jdl)]
    answer = ada.ask("submit", jdl)
    assert answer["metadata"]["exitcode"] == "121"
    assert (
        "Task queue rejected your job due to:\n  Denied: You're trying to submit 1 jobs."
        in (answer["metadata"]["error"])
    )
    assert ada.rows("jquota", "list")[0]["waiting"] == "2"
    again = ada.ask("resubmit", jobs[0])["metadata"]
    assert again["exitcode"] == "122"
    assert "Resubmit: job quota problem: Denied" in again["error"]
    admin.rows("jquota", "set", "ada", "maxUnfinishedJobs", "12")
    master = ada.submit(f'{jdl} Split = "production:1-10";')
    assert ada.wait(master, "SPLIT", "ERROR_SPLT") == "SPLIT"
    assert ada.ask("submit", f'{jdl} Split = "production:1-2";')["metadata"]["exitcode"] == "121"
    ada.rows("kill", *jobs, master)
    assert ada.rows("jquota", "list")[0]["waiting"] == "0"


def test_a_changed_quota_outlives_the_service(roots, dial):
    root = roots / "grid"
    for value in ("10000000", "5"):
        with LocalGrid(sites=1, slots=1, root=root) as grid, dial(grid.environment_of("admin")) as admin:
            assert admin.rows("fquota", "list", "guest")[0]["maxNbFiles"] == value
            admin.rows("fquota", "set", "guest", "maxNbFiles", "5")
