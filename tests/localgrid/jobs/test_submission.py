"""What becomes of a JDL at submission: it is read as JAliEn reads it, completed and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.alien.jdl import Expression, Jdl, parse, render
from gridproof.errors import JdlError
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking
from gridproof.localgrid.jobs.requirements import read_requirements
from gridproof.localgrid.jobs.submission import Submitter, complete, read_jdl
from gridproof.localgrid.users import User, Users

HOME = "/local/user/a/ada"
ROOT = "VO_LOCAL@ROOT::v6-40-00"
Submit = Callable[..., Jdl]


@pytest.fixture(scope="module")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submit]:
    catalogue = Catalogue(tmp_path_factory.mktemp("catalogue") / "catalogue.db", Users([User("ada")]))
    catalogue.make_root(0)
    for lfn in (f"{HOME}/bin/tool.sh", f"{HOME}/jdls/beside.sh", "/local/bin/all.sh", "/local/in.txt"):
        catalogue.commit(
            Booking("", lfn, f"guid{lfn}", "A", "ada" if HOME in lfn else "admin"),
            size=1,
            md5="",
            perm="755",
            now_ms=0,
        )
    catalogue.collect("/local/set", [], "admin", 0)

    def ask(text: str, jdl_path: str = "", *arguments: str) -> Jdl:
        by = Submitter("ada", HOME + "/", jdl_path)
        return complete(read_jdl(text, arguments), by, catalogue, {ROOT})

    yield ask
    catalogue.close()


def test_a_jdl_is_completed_and_ordered_as_jalien_does(submit: Submit) -> None:
    made = submit('ttl = 600; Executable = "tool.sh"; jobtag = {"comment:x"}; CPUCores = "2";')
    assert render(made).splitlines() == [
        'User = "ada";',
        *("JobTag = {", '"comment:x"', "};"),
        f'Executable = "{HOME}/bin/tool.sh";',
        "Requirements = ( other.TTL > 600 ) && ( other.Price <= 1 ) && ( other.LocalDiskSpace > 0 );",
        "TTL = 600;",
        "Price = 1.0;",
        'MemorySize = "16GB";',
        *("JDLVariables = {", '"CPUCores"', "};"),
        'CPUCores = "2";',
        'Type = "Job";',
    ]


def test_a_complete_jdl_may_be_submitted_again_and_stays_as_it_is(submit: Submit) -> None:
    first = submit(
        f'Executable = "tool.sh"; Packages = {{"{ROOT}"}}; Workdirectorysize = {{"2GB"}}; User = "eve";'
        'Requirements = other.CE == "A::B::C" && member(other.CloseSE,"L::S::E");'
        'JDLVariables = {"Seed","None"}; Seed = 5;'
    )
    assert submit(render(first)) == first
    assert first["OrigRequirements"] == Expression('other.CE == "A::B::C" && member(other.CloseSE,"L::S::E")')
    assert first["JDLVariables"] == ("Seed", "CPUCores")
    needs = read_requirements(first)
    assert (needs.packages, needs.ces, needs.close_ses, needs.disk) == (
        {ROOT},
        {"A::B::C"},
        {"L::S::E"},
        2048,
    )


def test_quoted_requirements_are_dropped_without_a_word(submit: Submit) -> None:
    made = submit('Executable = "tool.sh"; Requirements = "other.CE == A::B::C";')
    assert "OrigRequirements" not in made
    assert "A::B::C" not in render(made)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tool.sh", f"{HOME}/bin/tool.sh"),
        ("all.sh", "/local/bin/all.sh"),
        ("beside.sh", f"{HOME}/jdls/beside.sh"),
        (f"{HOME}/jdls/beside.sh", f"{HOME}/jdls/beside.sh"),
    ],
)
def test_an_executable_is_looked_for_where_jalien_does(submit: Submit, name: str, found: str) -> None:
    made = submit(f'Executable = "{name}"; Arguments = "$2 $1";', f"{HOME}/jdls/x.jdl", "one", "two")
    assert (made["Executable"], made["JDLPath"]) == (found, f"{HOME}/jdls/x.jdl")
    assert (made["Arguments"], made["JDLArguments"]) == ("two one", "one two")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("TTL = 600;", "The JDL has to indicate an Executable"),
        (
            'Executable = "no.sh";',
            "The Executable name you indicated (no.sh) cannot be located in any standard PATH",
        ),
        ('Executable = "/local";', "The Executable name you indicated (/local) cannot be"),
        (
            'Executable = "tool.sh"; ValidationCommand = "v.sh";',
            "The ValidationCommand name you indicated (v.sh)",
        ),
        (
            'Executable = "tool.sh"; Packages = {"VO_X@Y::1"};',
            f"Package not defined: VO_X@Y::1 (there are: {ROOT})",
        ),
        ('Executable = "tool.sh"; InputFile = {"/local/in.txt"};', "InputFile doesn't start with 'LF:'"),
        ('Executable = "tool.sh"; InputFile = {"LF:/local/no"};', "InputFile /local/no doesn't exist"),
        (
            'Executable = "tool.sh"; InputData = {"LF:/local/*.root"};',
            "InputData /local/*.root doesn't exist",
        ),
        ('Executable = "tool.sh"; InputData = {"LF:/local/set"};', "InputData /local/set doesn't exist"),
        (
            'Executable = "tool.sh"; InputDataCollection = "LF:/local/no.xml,nodownload";',
            "/local/no.xml doesn't exist",
        ),
    ],
)
def test_what_the_task_queue_refuses_is_said_why(submit: Submit, text: str, why: str) -> None:
    with pytest.raises(JdlError) as caught:
        submit(text)
    assert why in str(caught.value)


def test_a_collection_may_be_one_of_the_catalogue(submit: Submit) -> None:
    assert "InputDataCollection" in submit(
        'Executable = "tool.sh"; InputDataCollection = "/local/set,nodownload";'
    )


def test_an_argument_that_is_missing_is_named() -> None:
    with pytest.raises(JdlError, match=r"indicates argument \$3 but"):
        read_jdl('Arguments = "$1 $3";', ["one", "two"])


def test_comments_are_no_part_of_a_jdl() -> None:
    assert read_jdl('# $9 = "\n  // {\nA = "a";\n// b = ;\n', []) == parse('A = "a";')


@given(st.text(alphabet='Aa=;{}"\\#$1/, \n', max_size=40))
def test_whatever_comes_is_a_jdl_or_an_error(text: str) -> None:
    try:
        jdl = read_jdl(text, ["x"])
    except JdlError:
        return
    assert parse(render(jdl)) == jdl
