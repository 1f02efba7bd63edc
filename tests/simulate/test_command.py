"""`gridproof simulate` as it is used."""

import json
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from gridproof.cli import cli
from gridproof.errors import ConfigError
from gridproof.simulate import measured

SMALL = """
dataset: {files: 20, entries: 40000, replicas: 2}
sites: [{name: A, slots: 4}, {name: B, slots: 4}]
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(cli, ["simulate", *map(str, arguments)], catch_exceptions=False)


def test_a_scenario_is_told_in_words(small):
    result = run(small)
    assert result.exit_code == 0
    assert "each entry once   yes" in result.output


def test_json_has_what_the_words_say(small):
    shown = json.loads(run(small, "--json").output)
    assert shown["exact"]
    assert shown["ratio"] == pytest.approx(shown["makespan"] / max(shown["bound"].values()))


def test_a_picture_is_drawn_of_one_and_of_several(small, tmp_path):
    one, several = tmp_path / "one.svg", tmp_path / "several.svg"
    assert run(small, "--plot", one).exit_code == 0
    assert run(small, "--workers", 8, "--workers", 16, "--plot", several).exit_code == 0
    assert ElementTree.parse(one).getroot().tag.endswith("svg")
    assert "Makespan over lower bound" in several.read_text()
    assert len(several.read_text()) < 100_000


def test_a_scenario_that_makes_no_sense_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("dataset: {}\nsites: []")
    with pytest.raises(ConfigError, match=r"files, entries must be given"):
        run(path)


def test_either_a_scenario_or_measurements():
    assert run().exit_code == 2
    assert "give either" in run().output


def test_measurements_are_compared_with_their_simulation(tmp_path):
    runs = [
        {
            "name": "tails",
            "files": 8,
            "entries": 80_000,
            "cluster": 1000,
            "rates": [1000, 1000, 1000, 250],
            "deaths": [],
            "seconds": 25.5,
        },
        {
            "name": "faults 50 %",
            "files": 8,
            "entries": 80_000,
            "cluster": 1000,
            "rates": [1000] * 4,
            "deaths": [10.0],
            "replacement": 1.0,
            "seconds": 60.0,
        },
    ]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"benchmarks": {"tails": {"simulate": runs}}}))
    tails, faults = measured.compare(path)
    assert tails.agrees
    assert tails.bound == pytest.approx(80_000 / 3250)
    assert not faults.agrees
    result = run("--against", path)
    assert result.exit_code == 1
    assert "faults 50 %" in result.output


@pytest.mark.parametrize("content", ["{}", "[", '{"simulate": [{"name": "x"}]}'])
def test_measurements_that_say_nothing_are_refused(tmp_path, content):
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(ConfigError):
        run("--against", path)
