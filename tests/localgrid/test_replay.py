"""All 124 exchanges recorded from a real JAliEn: the embedded Grid answers the same, character by character.

But for what is chance or the service's own name (`MASKS`), and for the few answers in `EXCEPTIONS`.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.localgrid.recorded import RECORDED, ROWS, Replay, replayed

EXCEPTIONS = {  # what differs in which answers, and why it may
    99: ({"results"}, "alienpy 1.7 reads two of the keys in another spelling, which come, too"),
    100: ({"exitcode", "error", "results"}, "here every account has a quota of files"),
    107: ({"message", "subject"}, "the recorded account had two certificates"),
}

PEM = r"-----BEGIN [^-]+-----[^-]+-----END [^-]+-----\n*"
MASKS = {  # texts that are not determined, by exchange
    27: r"(?<=^\.dir=)\d+|(?<=^\.entryId=)\d+",
    42: r"\d\d/\d{5}/[0-9a-f-]{36}|[0-9a-f-]{36}",
    99: r"(?<=userid: )\d+",
    104: r"4d26e460|unknown|localgrid|gridproof",
    105: r"(?<=time=)[\d.]+|(?<=, time )\d+|(?<= = )[\d./]+",
    108: r'(?<=dir=")\d+|(?<=entryId=")\d+',
    110: r"(?<=Expires: )[^\n]+",
    111: r"(?<=Expires: )[^\n]+",
}


@pytest.fixture(scope="module")
def replay() -> Replay:
    with tempfile.TemporaryDirectory(prefix="gridproof-") as root:  # XRootD's account cannot enter pytest's
        return replayed(Path(root))


def exchange(number: int) -> str:
    return f"{number} {RECORDED[number]['command']} {' '.join(RECORDED[number]['options'])[:30]}"


def masked(number: int, key: str, text: str) -> str:
    """A text without ciphers and what else is not determined."""
    if key == "envelope":
        return "<envelope>"
    text = re.sub(rf"{PEM}|<PEM>\n?", "<PEM>\n", text)
    text = re.sub(r"(?s)(?<=Encrypted envelope:\n).*", "<envelope>", text)
    return re.sub(MASKS.get(number, "(?!)"), "*", f".{key}={text}").rstrip("\n")


def differences(number: int, answer: dict[str, Any], ports: tuple[int, ...]) -> list[str]:
    """What is not as it was recorded; SEs are known by their ports."""
    recorded, text = json.dumps(RECORDED[number]["response"]), json.dumps(answer)
    recorded = re.sub(r"root://127\.0\.0\.1:10940//(first|second)/?", r"root://\1//", recorded)
    for name, port in zip(("first", "second"), ports, strict=True):
        text = re.sub(rf"root://[\d.]+:{port}//", f"root://{name}//", text)
    return list(compare(number, json.loads(recorded), json.loads(text)))


def compare(number: int, want: Any, have: Any, key: str = "") -> Iterator[str]:
    """Walk through both; keys must come in the same order."""
    if isinstance(want, dict) and isinstance(have, dict):
        if list(want) != list(have):
            yield f"{key} has the keys {list(have)}, not {list(want)}"
        for name in want.keys() & have.keys():
            yield from compare(number, want[name], have[name], name)
    elif isinstance(want, list) and isinstance(have, list):
        if len(want) != len(have):
            yield f"{key} has {len(have)} rows, not {len(want)}"
        for one, other in zip(want, have, strict=False):
            yield from compare(number, one, other, key)
    elif isinstance(want, str) and isinstance(have, str):
        if masked(number, key, want) != masked(number, key, have):
            yield f"{key} is {have!r}, not {want!r}"
    elif type(want) is not type(have) or want != have:
        yield f"{key} is {have!r}, not {want!r}"


@pytest.mark.parametrize("number", range(len(RECORDED)), ids=exchange)
def test_an_answer_is_the_recorded_one(replay: Replay, number: int) -> None:
    found = differences(number, replay.answers[number], replay.ports)
    assert {line.split()[0] for line in found} == EXCEPTIONS.get(number, (set(), ""))[0], found


def test_a_submission_makes_the_recorded_jdl(replay: Replay) -> None:
    assert replay.jdl == next(row["jdl"] for row in ROWS if "jdl" in row)


def spoiled(answer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """An answer with one thing wrong: of its rows the first and the last are spoiled."""
    rows = range(len(answer["results"]))
    for key in answer["metadata"]:
        other = copy.deepcopy(answer)
        other["metadata"][key] += "9"
        yield f"another {key}", other
    yield "one row more", {**answer, "results": [*answer["results"], {}]}
    if rows:
        yield "one row less", {**answer, "results": answer["results"][:-1]}
    if len(rows) > 1:
        yield "rows in another order", {**answer, "results": answer["results"][::-1]}
    for row in {*rows[:1], *rows[-1:]}:
        for key in answer["results"][row]:
            other = copy.deepcopy(answer)
            del other["results"][row][key]
            yield f"row {row} without {key}", other
            if key != "envelope":
                other = copy.deepcopy(answer)
                other["results"][row][key] = f"x{other['results'][row][key]}"
                yield f"another {key} in row {row}", other


def test_whatever_is_wrong_with_an_answer_is_found(replay: Replay) -> None:
    for number in set(range(len(RECORDED))) - set(EXCEPTIONS):
        for what, other in spoiled(replay.answers[number]):
            assert differences(number, other, replay.ports), f"{exchange(number)}: {what}"
