"""``alien.py`` as a shell sees it: exit codes, streams, several commands, JSON; and another user's files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridproof.localgrid import LocalGrid
from tests.conformance.client import ALIEN, CommandLine

HOME = "/local/user/g/gproof/"
PAGE = Path(__file__).parents[2] / "docs" / "embedded-grid.md"
Typing = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGrid]:
    file = tmp_path_factory.mktemp("files") / "file"
    file.write_text("hello\n")
    with LocalGrid(sites=1) as grid:
        grid.put(file, f"{HOME}t/public")
        grid.put(file, f"{HOME}t/private")
        yield grid


@pytest.fixture(scope="module")
def alien(grid: LocalGrid, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(grid.environment, tmp_path_factory.mktemp("owner"))


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["ls", "t"], 0, "private\npublic\n", ""),
        (["ls", "/nowhere"], 2, "", "No such file or directory : /nowhere\n"),
        (["ls /nowhere; pwd"], 0, f"{HOME}\n", "No such file or directory : /nowhere\n"),
        (["cd t; ls pub*; ls /nowhere"], 2, "public\n", "No such file or directory : /nowhere\n"),
        (["rm", "-y"], 22, "", "Invalid argument : y is not a recognized option\n"),
        (["nonsense"], 1, "", "WARNING! command >>> nonsense <<< not in the list of known commands!\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_process_ends_with_the_exit_code_of_its_last_command(alien, arguments, code, out, err):
    done = alien.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_json_shows_the_keys(alien):
    done = alien.run("-json", "stat", "t/public")
    answer = json.loads(done.stdout)
    assert answer["metadata"]["exitcode"] == "0"
    assert answer["results"][0]["lfn"] == f"{HOME}t/public"


def test_commands_come_from_standard_input_too(grid, tmp_path):
    prompt = CommandLine(grid.environment, tmp_path)
    done = subprocess.run(
        [str(ALIEN)], env=prompt.environment, cwd=tmp_path, input="cd t\nls\n", text=True, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"AliEn[gridproof]:{HOME}t/ >private\npublic\n" in done.stdout


def test_a_site_in_the_environment_is_told_to_the_central_service(grid, tmp_path):
    near = CommandLine({**grid.environment, "ALIEN_SITE": "Site1"}, tmp_path)
    assert near.run("pwd").returncode == 0
    nowhere = CommandLine({**grid.environment, "ALIEN_SITE": "Nowhere"}, tmp_path)
    assert nowhere.run("pwd").stdout == f"{HOME}\n"


def test_a_token_is_made_at_the_first_connection_and_used_afterwards(alien):
    alien.run("pwd")
    token = alien.run("token-info").stdout
    assert "DN >>> C=ch/O=AliEn2/CN=Users/CN=gridproof/OU=gridproof\n" in token
    by_token = CommandLine(
        {**alien.environment, "X509_USER_CERT": "/none", "X509_USER_KEY": "/none"}, alien.directory
    )
    assert by_token.run("whoami").stdout == "gridproof\n"


def test_users_in_one_shell_do_not_take_each_other_s_token(grid, tmp_path):
    for name in ("gridproof", "guest", "gridproof"):
        shell = CommandLine({}, tmp_path)
        shell.environment |= grid.environment_of(name)
        assert shell.run("whoami").stdout == f"{name}\n"
    assert not list(tmp_path.glob("token*"))


def test_another_user_s_private_files_are_refused(grid, alien, tmp_path):
    guest = CommandLine(grid.environment_of("guest"), tmp_path)
    assert alien.run("chmod", "600", "t/private").returncode == 0
    texts = [text for _, text in guest.batch([f"cp {HOME}t/public file:got", f"md5sum {HOME}t/private"])]
    assert (tmp_path / "got").read_text() == "hello\n"
    assert "Permission denied" in texts[1]
    codes = [
        code
        for code, _ in guest.batch(
            [
                f"cp {HOME}t/private file:stolen",
                f"cat {HOME}t/private",
                f"rm {HOME}t/private",
                f"mv {HOME}t/private {HOME}t/mine",
                f"chmod 777 {HOME}t/private",
                f"touch {HOME}t/new",
                f"mkdir {HOME}t/dir",
            ]
        )
    ]
    assert 0 not in codes
    assert not (tmp_path / "stolen").exists()
    assert alien.run("ls", "-l", "t/private").stdout.startswith("-rw------- ")


def test_what_the_page_tells_beginners_to_type_works(tmp_path):
    _, files, job, *_ = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    started = [line for line in files.splitlines(keepends=True) if line.startswith("alien.py")]
    shown = "alien.py cat demo/out/stdout\n"
    wait = "until alien.py ps -f DONE -id | grep -q 1000000001; do :; done\n"
    script = "".join(started) + job.replace(shown, wait + shown)
    (tmp_path / "esd.root").write_bytes(b"12345")
    with LocalGrid(sites=2, slots=1) as grid:
        shell = CommandLine(grid.environment, tmp_path).environment
        shell["PATH"] = f"{ALIEN.parent}:{shell['PATH']}"
        done = subprocess.run(
            ["bash", "-ec", script], env=shell, cwd=tmp_path, capture_output=True, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nhello world, this is job 1000000001\n" in done.stdout
    assert (tmp_path / "copy.root").read_bytes() == b"12345"
    assert (tmp_path / "out" / "size.txt").read_text() == "5 esd.root\n"
