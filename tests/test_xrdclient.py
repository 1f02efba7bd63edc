"""Files go to XRootD servers by a program that gets the URL on its standard input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gridproof import xrdclient, xrdput
from gridproof.errors import TransferError
from gridproof.localgrid import LocalGrid
from gridproof.localgrid.client import GridAccess


@pytest.fixture(scope="module")
def grid():
    with LocalGrid(sites=1, slots=1) as grid:
        yield grid


def permit(grid: LocalGrid, kind: str, lfn: str) -> str:
    with GridAccess(grid.environment) as access:
        [row] = access.command("access", kind, lfn, "disk:1")
    return f"{row['url']}?xrd.wantprot=unix&authz={row['envelope']}"


@pytest.mark.parametrize("size", [0, 1, (8 << 20) + 1])
def test_files_of_all_sizes_go_there_and_come_back(grid: LocalGrid, tmp_path: Path, size: int) -> None:
    file, back, lfn = tmp_path / "file", tmp_path / "back", f"/local/{size}"
    file.write_bytes(os.urandom(size))
    grid.put(file, lfn)
    xrdclient.download([permit(grid, "read", lfn)], back, size)
    assert back.read_bytes() == file.read_bytes()


def test_what_the_server_refuses_is_said_without_the_url(grid: LocalGrid, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    grid.put(file, "/local/there")
    with pytest.raises(TransferError, match="it cannot be opened there: Permission denied") as caught:
        xrdclient.upload(file, permit(grid, "read", "/local/there"))
    assert "root:" not in str(caught.value)


def test_a_server_that_is_dead_is_said_so_soon(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="it cannot be opened there: Connection refused"):
        xrdclient.upload(Path(__file__), "root://127.0.0.1:1//x?authz=secret")


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xrdput, "_LIBRARY", "libNobodyHasThis.so")
    assert xrdput.put(__file__, "root://x//y").endswith("install the package xrootd-client")
