"""The embedded Grid's rooms know only those below them, and little of the rest of the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gridproof.localgrid

TOP = Path(gridproof.localgrid.__file__).parent
FLOORS = (
    {"certificates", "database", "discovery", "formats", "quotas", "sites", "throttle"},
    {"limits", "users"},
    {"catalogue", "network", "settings", "vobox"},
    {"storage"},
    {"client", "jobs"},
    {"core", "grid"},
    {"commands", "node", "shell"},
    {"central"},
    {"service"},
    {"__main__"},
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
OUTSIDE = {"accounts", "alien.jdl", "config", "errors", "pilot.probe", "processes", "xrdclient"}


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, without ``gridproof.``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            head, _, rest = node.module.partition(".")
            if head == "gridproof":
                yield from ([".".join(filter(None, (rest, name.name))) for name in node.names])


@pytest.mark.parametrize("room", sorted(HEIGHT))
def test_a_room_knows_only_what_is_below_it(room: str) -> None:
    files = [*(TOP / room).glob("*.py")] or [TOP / f"{room}.py"]
    for path in files:
        for name in imports(path):
            inside, _, known = name.partition("localgrid.")
            if known:
                other = known.partition(".")[0]
                assert other == room or HEIGHT[other] < HEIGHT[room], f"{path.name} imports {name}"
            else:
                assert any(inside == one or inside.startswith(f"{one}.") for one in OUTSIDE), inside


def test_every_room_has_its_floor() -> None:
    names = {path.stem for path in TOP.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names - {"__init__"} == set(HEIGHT)
