"""Catalogue and jobs against what a real central service answered, and against its faults."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.alien.catalogue import Access, Catalogue, Replica, chunks, site_of
from gridproof.alien.client import Alien
from gridproof.alien.jdl import Jdl, parse
from gridproof.alien.jobs import ComputingElement, Job
from gridproof.alien.wire import Wire
from gridproof.errors import AlienError, AnswerLost, CommandError, JdlError, WireError

HOME = "/alice/cern.ch/user/j/jalien/"
JOB = Jdl({"Executable": HOME + "t1/job.sh"})


@pytest.fixture
def alien(central: Any, wire: Wire) -> Alien:
    alien = Alien(wire)
    central.requests.clear()
    return alien


def reply(*results: dict[str, Any], error: str = "", exitcode: int = 0) -> dict[str, Any]:
    return {"metadata": {"exitcode": str(exitcode), "error": error}, "results": list(results)}


@pytest.mark.parametrize(
    ("lfn", "absolute"),
    [
        ("t1/blob", HOME + "t1/blob"),
        ("~/t1/../t1//blob", HOME + "t1/blob"),
        ("~", HOME.rstrip("/")),
        ("/alice/./sim/", "/alice/sim"),
        ("//alice", "/alice"),
        ("alien:///alice/x", "/alice/x"),
        ("LF:/alice/x", "/alice/x"),
        (".", HOME.rstrip("/")),
    ],
)
def test_names_become_absolute(alien: Alien, lfn: str, absolute: str) -> None:
    assert alien.absolute(lfn) == absolute


def test_stat_of_a_file_and_of_a_directory(alien: Alien) -> None:
    entry = alien.stat("t1/blob")
    assert (entry.lfn, entry.type, entry.size) == (HOME + "t1/blob", "f", 3000000)
    assert (entry.md5, entry.perm, entry.ctime) == ("1c30736df849b03edb353fdee75a0f75", "755", 1795354356.0)
    assert alien.stat("t1").type == "d"


def test_ls_gives_types_sizes_and_permissions(alien: Alien) -> None:
    entries = {entry.lfn: entry for entry in alien.ls(".")}
    assert entries[HOME + "a"].type == "d"
    coll = entries[HOME + "coll"]
    assert (coll.type, coll.size, coll.owner, coll.perm) == ("f", 720, "jalien", "755")


def test_find_whereis_and_access(alien: Alien) -> None:
    assert [e.lfn for e in alien.find("t1", "*.sh")] == [HOME + "t1/job.sh", HOME + "t1/spin.sh"]
    assert alien.whereis("t1/blob")[1] == Replica(
        "ALICE::JTESTSITE::FIRSTSE",
        "root://127.0.0.1:10940//first/10/27446/2e5efc47-e679-11f1-acad-02fc00000001",
    )
    first, second = alien.access_read("t1/blob")
    assert (first.se, first.size, second.se) == (
        "ALICE::JTESTSITE::FIRSTSE",
        3000000,
        "ALICE::OTHER::SECONDSE",
    )
    assert first.signed_url == first.url + "?xrd.wantprot=unix&authz=<envelope>"
    assert first.root_url == first.signed_url
    assert "<envelope>" not in repr(first)


ARCHIVE = "9f0b1c52-e679-11f1-acad-02fc00000001"


def stat_of(names: list[str]) -> dict[str, Any]:
    """As ``stat -v`` answers: what exists has a row, what does not fails the command."""
    rows: list[dict[str, Any]] = []
    missing = [name for name in names if "gone" in name]
    for name in names:
        if name in missing:
            continue
        if name == ARCHIVE:
            rows.append({"guid": name, "replicas": {"A::B::C": "root://b//zip", "A::D::E": "root://d//zip"}})
        elif name.endswith("/dir"):
            rows.append({"lfn": f"{name}/", "type": "d"})
        elif "member" in name:
            pfn = f"guid:///{ARCHIVE}?ZIP=m.root"
            rows.append({"lfn": name, "type": "f", "size": "7", "guid": "m", "replicas": {"ZIP": pfn}})
        else:
            replicas = {"A::B::C": "root://b//x", "1234": "root://of-an-se-that-is-gone//x"}
            rows.append({"lfn": name, "type": "f", "size": "5", "guid": "g", "replicas": replicas})
    error = f"No such file or directory : {missing[-1]}" if missing else ""
    return reply(*rows, error=error, exitcode=2 if missing else 0)


def test_many_names_are_located_by_few_commands(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: stat_of(options[1:])
    lfns = [f"/alice/data/2022/LHC22o/000{n:06}/apass7/0120/o2_ctf_run_tf/AO2D.root" for n in range(10_000)]
    located = alien.locate(lfns)
    assert list(located) == lfns
    assert {(entry.size, entry.ses, entry.hosts) for entry in located.values()} == {(5, ("A::B::C",), ("b",))}
    assert [options[0] for _, options in central.requests] == ["-v"] * 20
    assert max(len(str(options)) for _, options in central.requests) < 130_000
    central.requests.clear()
    alien.locate(reversed(lfns))
    assert central.requests == []  # asked once


def test_names_are_located_in_spite_of_those_that_are_missing(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: stat_of(options[1:])
    located = alien.locate(["/a/gone", "~/x.root", "/a/dir", "/a/gone2"])
    assert {lfn: (entry.lfn, entry.type) for lfn, entry in located.items()} == {
        "~/x.root": (f"{HOME}x.root", "f"),
        "/a/dir": ("/a/dir", "d"),
    }


def test_members_of_archives_are_located_with_their_archives(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: stat_of(options[1:])
    located = alien.locate(["/a/member1", "/a/x", "/a/member2"])
    assert [located[lfn].ses for lfn in ("/a/member1", "/a/x")] == [("A::B::C", "A::D::E"), ("A::B::C",)]
    assert [options for _, options in central.requests] == [
        ["-v", "/a/member1", "/a/x", "/a/member2"],
        ["-v", ARCHIVE],
    ]


def test_what_is_removed_written_or_found_changed_is_located_anew(alien: Alien, central: Any) -> None:
    found = {"lfn": "/a/x", "size": "5", "guid": "another"}
    central.play = lambda command, options: (
        stat_of(options[1:]) if command == "stat" else reply(found) if command == "find" else reply()
    )
    for change in (
        lambda: alien.rm("/a", recursive=True),
        lambda: alien.find("/a", "x"),
        lambda: alien.commit("/a/x", Access("A::B::C", "root://b//x", "e", "g", 5, ""), 5, ""),
    ):
        alien.locate(["/a/x", "/b"])
        change()
        central.requests.clear()
        alien.locate(["/a/x", "/b"])
        assert central.requests == [("stat", ["-v", "/a/x"])]


def test_a_refusal_to_locate_is_an_error(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: reply(error="Permission denied", exitcode=13)
    with pytest.raises(CommandError, match="Permission denied"):
        alien.locate(["/a"])


def test_a_collection_lists_its_files(alien: Alien, central: Any) -> None:
    row = {
        "guid": "g",
        "lfn": "/a/x.root",
        "size": " 123",
        "md5": " abc",
    }  # blanks as the service writes them
    central.play = lambda command, options: reply(row)
    assert [(e.lfn, e.type, e.size, e.md5) for e in alien.collection("/a/coll")] == [
        ("/a/x.root", "f", 123, "abc")
    ]
    assert central.requests == [("listFilesFromCollection", ["-z", "/a/coll"])]


def test_a_member_of_an_archive_is_unzipped() -> None:
    access = Access("A::B::C", "root://host//x.zip#hits.root", "", "", 1, "")
    assert (access.signed_url, access.member) == ("root://host//x.zip", "hits.root")
    assert access.root_url == "root://host//x.zip?zip=hits.root"
    access = Access("A::B::C", "root://host//x.zip#hits.root", "secret", "", 1, "")
    assert access.root_url == "root://host//x.zip?zip=hits.root&xrd.wantprot=unix&authz=secret"
    signed = Access("A::B::C", "root://host//x", "turl=root://host//x&signature=ab", "", 1, "")
    assert signed.root_url == "root://host//x?xrd.wantprot=unix&turl=root://host//x&signature=ab"


def test_storage_and_computing_elements(alien: Alien) -> None:
    first = alien.list_ses()[0]
    assert (first.name, first.site, first.used) == ("ALICE::JTestSite::firstse", "JTESTSITE", 3014963)
    assert alien.list_ces()[1] == ComputingElement(
        "ALICE::OTHER::SECONDCE", "open", 3000, 300, 87000, "OTHER"
    )
    assert alien.se_distance("JTestSite") == [
        ("ALICE::JTESTSITE::FIRSTSE", 0.0),
        ("ALICE::OTHER::SECONDSE", 0.5),
    ]


def test_sites_are_the_middle_of_a_name() -> None:
    assert [site_of(name) for name in ("A::CERN::EOS", "Local::Site1::SE", "UNASSIGNED::x", "y")] == [
        "CERN",
        "SITE1",
        "X",
        "Y",
    ]


def test_ps_is_one_call_for_many_jobs(alien: Alien, central: Any, recorded: Any) -> None:
    central.play = lambda command, options: recorded("ps", ["-Fl"])
    jobs = alien.ps([1888757065, 1888757068])
    assert central.requests == [("ps", ["-Fl", "-j", "1888757065,1888757068"])]
    assert jobs[0] == Job(1888757065, 0, "DONE", "ALICE::JTESTSITE::FIRSTCE", "localhost", "test.sh")
    assert jobs[0].site == "JTESTSITE"
    assert jobs[0].is_final
    assert next(job for job in jobs if job.master).master == 1888757066


def test_the_subjobs_of_many_masters_are_one_call(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: reply(
        {"id ": "11", "split": "1", "status": "RUNNING", "site ": "A::B::C"},
        {"id ": "21", "split": "2", "status": "QUANTUM", "site ": "A::B::C", "node": "wn"},
    )
    assert [(j.id, j.master, j.status, j.site, j.is_final) for j in alien.subjobs([1, 2])] == [
        (11, 1, "RUNNING", "B", False),
        (21, 2, "QUANTUM", "B", False),
    ]
    assert central.requests == [("ps", ["-Fl", "-m", "1,2"])]
    assert alien.ps([]) == alien.subjobs([]) == []
    assert len(central.requests) == 1


def test_trace_and_jdl(alien: Alien) -> None:
    lines = alien.trace(1888757082)
    assert lines[0].endswith("Job inserted by localhost, request came from localhost")
    assert alien.jdl(1888757082).number("TTL", 0) == 600


def test_a_job_without_trace_yet_has_none(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: reply(exitcode=61, error="No data available")
    assert alien.trace(5) == []


@pytest.mark.parametrize("ask", [Alien.trace, Alien.jdl, Alien.masterjob])
def test_an_unknown_job_is_an_error_though_the_service_gives_none(alien: Alien, ask: Any) -> None:
    with pytest.raises(CommandError, match="there is no job 1") as caught:
        ask(alien, 1)
    assert caught.value.exitcode == 2


def test_masterjob_in_words(alien: Alien) -> None:
    assert alien.masterjob(1888757082) == "Job 1888757082 is in status: DONE"


def test_kill_recognises_failures_that_come_as_success(alien: Alien, central: Any) -> None:
    status = {"1": "killed", "2": "not_allowed", "3": "failed_to_kill", "4": "failed_to_kill"}
    states = {"3": "DONE", "4": "RUNNING"}

    def play(command: str, options: list[str]) -> Any:
        if command == "kill":
            return reply(*({"jobid": id, "status": status[id]} for id in options if id in status))
        return reply(*({"id": id, "status": states[id]} for id in options[2].split(",") if id in states))

    central.play = play
    alien.kill([1])
    alien.kill([3])
    with pytest.raises(CommandError, match="kill: 2: not allowed; 4: could not be killed; 5: no such job"):
        alien.kill([1, 2, 3, 4, 5])


def test_a_submission_gives_the_id_and_carries_a_tag_of_its_own(alien: Alien, central: Any) -> None:
    tags = []

    def play(command: str, options: list[str]) -> Any:
        tags.append(parse(options[0]).text("JobTag"))
        return reply({"message": "Submitting"}, {"jobId": "77"})

    central.play = play
    assert alien.submit(JOB, "session-1") == 77
    assert alien.submit(JOB, "session-1") == 77
    assert all(tag.startswith("comment:session-1 ") for tag in tags)
    assert tags[0] != tags[1]
    assert "JobTag" not in JOB


def test_a_jdl_that_is_not_right_is_not_sent(alien: Alien, central: Any) -> None:
    with pytest.raises(JdlError, match="Executable is missing"):
        alien.submit(Jdl({"TTL": 5}), "x")
    assert central.requests == []


def test_a_rejected_submission_says_why(alien: Alien, central: Any, recorded: Any) -> None:
    central.play = lambda command, options: recorded("submit", ['Executable = "nothing.sh";\n'])
    with pytest.raises(CommandError, match=r"nothing.sh\) cannot be located in any standard PATH") as caught:
        alien.submit(JOB, "x")
    assert caught.value.exitcode == 121


class Queue:
    """A task queue that keeps what is submitted, splits it in two, and can be slow to show it."""

    def __init__(self, hidden_looks: int = 0) -> None:
        self.jdls: dict[int, str] = {}
        self.hidden_looks = hidden_looks

    def __call__(self, command: str, options: list[str]) -> Any:
        if command == "submit":
            id = 100 * (len(self.jdls) + 1)
            self.jdls[id] = options[0]
            return reply({"jobId": str(id)})
        if options[0] == "-jdl":
            return reply({"id": options[1], "jdl": self.jdls[int(options[1])]})
        self.hidden_looks -= 1
        if self.hidden_looks >= 0:
            return reply()
        rows = [({"id": str(id), "split": "0"}, {"id": str(id + 1), "split": str(id)}) for id in self.jdls]
        return reply(*(row for pair in rows for row in pair))


@pytest.mark.parametrize("hidden_looks", [0, 1])
def test_a_lost_answer_is_settled_by_the_tag_and_submit_sent_once(
    alien: Alien, central: Any, hidden_looks: int
) -> None:
    central.play = queue = Queue()
    assert alien.submit(JOB, "same") == 100
    queue.hidden_looks = hidden_looks
    central.faults = ["drop done"]
    assert alien.submit(JOB, "same") == 200
    assert central.names().count("submit") == 2


def test_a_submission_that_never_arrived_is_said_to_be_so(alien: Alien, central: Any) -> None:
    central.play = Queue()
    central.faults = ["drop"]
    with pytest.raises(WireError, match="not accepted: submit it again"):
        alien.submit(JOB, "lost")
    assert central.names().count("submit") == 1


def test_a_late_answer_to_a_submission_is_settled_too(central: Any, authority: Any) -> None:
    alien = Alien(Wire("127.0.0.1", central.port, authority.issue("late"), timeout=0.3))
    central.play = Queue()
    central.faults = ["hang"]
    with pytest.raises(
        AnswerLost, match="whether the job was accepted is not known: before you submit it again"
    ):
        alien.submit(JOB, "late")
    assert central.names().count("submit") == 1
    alien.close()


def test_mkdir_and_rm_say_what_they_mean(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: reply()
    alien.mkdir("a/b")
    alien.mkdir("/c", parents=False)
    alien.rm("a", recursive=True)
    assert central.requests == [
        ("mkdir", ["-p", HOME + "a/b"]),
        ("mkdir", ["/c"]),
        ("rm", ["-r", HOME + "a"]),
    ]


def test_the_home_comes_from_the_metadata_when_whoami_does_not_tell(central: Any, wire: Wire) -> None:
    central.play = lambda command, options: {
        "metadata": {"exitcode": "0", "currentdir": "/alice/x/", "user": "x"},
        "results": [],
    }
    catalogue = Catalogue(wire)
    assert (catalogue.user, catalogue.home) == ("x", "/alice/x/")


def test_a_name_that_stat_does_not_answer_is_missing(alien: Alien, central: Any) -> None:
    central.play = lambda command, options: reply()
    with pytest.raises(AlienError, match="/a is not in the catalogue"):
        alien.stat("/a")


@given(st.lists(st.text(max_size=40), max_size=50), st.integers(100, 500), st.integers(1, 60))
def test_chunks_keep_all_in_order_below_the_limits(options: list[str], limit: int, most: int) -> None:
    runs = list(chunks(options, limit, most))
    assert [option for run in runs for option in run] == options
    assert all(len(run) <= most for run in runs)
    assert all(len(run) == 1 or sum(len(option) + 4 for option in run) <= limit for run in runs)
