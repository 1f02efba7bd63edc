"""A worker reads by access envelopes, from storage elements that refuse it without a good one."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridproof.engine import runtime
from gridproof.engine.outputs import OutputDirectory
from gridproof.engine.replicas import Located
from gridproof.engine.runner import PacketFailed, Runner
from gridproof.localgrid import LocalGrid
from gridproof.localgrid.client import GridAccess
from gridproof.localgrid.storage.envelopes import LIFETIME, Envelopes
from gridproof.pilot.resolver import GridResolver

ENTRIES = 1_000


class Aged(GridResolver):
    """A resolver whose envelopes were good a day ago, until it asks anew; ``forever``: even then."""

    def __init__(self, grid: LocalGrid, environ: Mapping[str, str]) -> None:
        super().__init__(environ, "Site1")
        self._key = Envelopes.kept_in(grid.root / "private")
        self.forever = False
        self.asked: list[bool] = []

    def __call__(self, files: Sequence[Mapping[str, Any]], anew: bool = False) -> list[Located]:
        self.asked.append(anew)
        found = super().__call__(files, anew)
        return found if anew and not self.forever else [self._aged(located) for located in found]

    def _aged(self, located: Located) -> Located:
        replicas = []
        for replica in located.replicas:
            url, _, options = replica.url.partition("?")
            se = f"Local::{replica.site.capitalize()}::SE"
            path = "/" + url.removeprefix("root://").partition("//")[2]
            kept = [option for option in options.split("&") if not option.startswith("authz=")]
            envelope = self._key.issue(se, path, "read", time.time() - LIFETIME - 1)
            replicas.append(replace(replica, url=f"{url}?{'&'.join([*kept, f'authz={envelope}'])}"))
        return replace(located, replicas=tuple(replicas))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGrid]:
    directory = tmp_path_factory.mktemp("data")
    root = runtime.load()
    file = root.TFile(f"{directory}/x.root", "RECREATE")
    tree = root.TNtuple("t", "", "x")
    for entry in range(ENTRIES):
        tree.Fill(entry)
    file.Write()
    file.Close()
    with zipfile.ZipFile(directory / "x.zip", "w") as archive:
        archive.write(directory / "x.root", "member.root")
    with LocalGrid(sites=2, slots=1) as grid:
        for name in ("x.root", "x.zip"):
            grid.put(directory / name, f"/local/{name}", ses=grid.se_names)
        grid.enter_members("/local/x.zip")
        yield grid


@pytest.fixture
def resolver(grid: LocalGrid, tmp_path: Path) -> Iterator[Aged]:
    with GridAccess(grid.environment) as access:
        [token] = access.command("token")
    paths = {name: tmp_path / name for name in ("tokencert", "tokenkey")}
    for name, path in paths.items():
        path.touch(0o600)
        path.write_text(token[name])
    environ = {
        **grid.environment,
        "JALIEN_TOKEN_CERT": str(paths["tokencert"]),
        "JALIEN_TOKEN_KEY": str(paths["tokenkey"]),
    }
    aged = Aged(grid, environ)
    yield aged
    if aged._alien:
        aged._alien.close()


@pytest.fixture
def runner(resolver: Aged, tmp_path: Path) -> Iterator[Runner]:
    with closing(OutputDirectory(tmp_path)) as outputs:
        runner = Runner(tmp_path, resolver, "Site1", outputs)
        yield runner
        runner.close()


def described(name: str) -> dict[str, Any]:
    places = [("LOCAL::SITE1::SE", "SITE1"), ("LOCAL::SITE2::SE", "SITE2")]
    return {"name": name, "kind": "lfn", "size": -1, "tree": "t", "replicas": places}


@pytest.mark.parametrize("name", ["/local/x.root", "/local/x.zip#member.root", "/local/member.root"])
def test_an_envelope_that_is_over_is_asked_for_anew_once(runner: Runner, resolver: Aged, name: str) -> None:
    assert runner.count(described(name), ())[0] == ENTRIES
    assert resolver.asked == [False, True]


def test_a_file_that_nobody_may_read_is_named_without_the_envelope(runner: Runner, resolver: Aged) -> None:
    resolver.forever = True
    with pytest.raises(PacketFailed, match=r"(?s)3010.*root://127\.0\.0\.\d") as caught:
        runner.count(described("/local/x.root"), ())
    failure = caught.value.failure
    assert "eyJ" not in str(failure)
    assert set(failure.storage_elements) == {"LOCAL::SITE1::SE", "LOCAL::SITE2::SE"}
    assert resolver.asked == [False, True]
