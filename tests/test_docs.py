"""What the documentation names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_tests_and_files_that_a_page_names_exist(page):
    text = page.read_text()
    tests = set(re.findall(r"`(test_\w+)`", text))
    assert tests <= set(re.findall(r"def (test_\w+)", TESTS))
    files = set(re.findall(r"`((?:gridproof|tests|docs|benchmarks|examples|macros)/[\w/.]+)`", text))
    links = set(re.findall(r"\]\((?!https?:|#)([^)#]+)", text))
    missing = [f for f in files if not (ROOT / f).exists()]
    missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing
