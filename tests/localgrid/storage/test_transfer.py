"""What comes of copies that are not what the catalogue says; XRootD's client is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import md5
from pathlib import Path

import pytest

from gridproof.localgrid.storage import transfer
from gridproof.localgrid.storage.transfer import CopyFailed, Source, fetch

CONTENT = b"as it should be"


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Fetch a file whose replicas hold these contents, the first of which comes in the first go."""

    def fetched(*replicas: bytes) -> bytes:
        held = {f"root://host{n}//file": replica for n, replica in enumerate(replicas)}

        def write(link: Path, target: Path) -> None:
            text = link.read_text()
            url = next(url for url in held if url in text)
            (target / link.stem if target.is_dir() else target).write_bytes(held[url])

        async def copy(*arguments: str, where: tuple[str, ...]) -> tuple[int, str]:
            *_, link, target = map(Path, arguments)
            write(link, target)
            return 0, ""

        monkeypatch.setattr(transfer, "_copy", copy)
        target = tmp_path / "file"
        digest = md5(CONTENT, usedforsecurity=False).hexdigest()
        source = Source("/local/file", tuple(held), len(CONTENT), digest, target)
        asyncio.run(fetch([source], tmp_path / "staging"))
        return target.read_bytes()

    return fetched


@pytest.mark.parametrize("wrong", [b"as it should BE", b"short", CONTENT + b" and more"])
def test_a_replica_that_is_not_what_the_catalogue_says_is_not_taken(
    fetched: Callable[..., bytes], wrong: bytes
) -> None:
    assert fetched(wrong, wrong, CONTENT) == CONTENT


@pytest.mark.parametrize(
    ("wrong", "why"),
    [(b"as it should BE", "its MD5 is not the one"), (b"short", "has 5 bytes, the catalogue says 15")],
)
def test_without_a_good_replica_nothing_comes_and_the_last_one_is_named_with_what_is_wrong(
    fetched: Callable[..., bytes], wrong: bytes, why: str, tmp_path: Path
) -> None:
    with pytest.raises(CopyFailed, match=f"/local/file: root://host1//file: {why}"):
        fetched(wrong, wrong)
    assert list(tmp_path.iterdir()) == []
