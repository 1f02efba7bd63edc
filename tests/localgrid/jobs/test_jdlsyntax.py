"""What JAliEn's reader refuses in a JDL."""

from __future__ import annotations

import pytest

from gridproof.errors import JdlError
from gridproof.localgrid.jobs.jdlsyntax import check


@pytest.mark.parametrize(
    "text",
    [
        'Executable = "a;b"; Split = "se"',
        'A = {"x", "y"};\nRequirements = (other.TTL > 600) && member(other.CloseSE, "A::B::C");',
        '# A = "\n// B = "\n  # C\nExecutable = "a"; # and so on\nTTL = 5; // the end',
        r'Arguments = "a \" b \\";',
        "Executable =; a = \n",
    ],
)
def test_what_it_takes(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Content is empty"),
        ("# nothing\n", "Content is empty"),
        ('Executable = "a', "unfinished quotes in the value of tag Executable"),
        ('Executable = "a"\nTTL 5', "quotes do not close at the end of string for tag Executable"),
        ('A = {"a"; B = "b";', "unclosed brackets in the value of tag A"),
        ("A = b\\", "unfinished escape in the value of tag A"),
        ("A = 1; = 2;", "Key cannot be the empty string"),
        ("A = 1; My Key = 2;", "Illegal character ' ' in key 'My Key'"),
    ],
)
def test_what_it_refuses(text: str, error: str) -> None:
    with pytest.raises(JdlError, match=error):
        check(text)
