"""Scenarios say what they want, or are refused with the place and the reason."""

import pytest

from gridproof.errors import ConfigError
from gridproof.simulate import scenario

GOOD = """
dataset: {files: 10, entries: 1e4, replicas: 2}
sites: [
  {name: T, copies: 12, slots: 2, arrive: [0, 5]},
  {name: A, slots: 3, rate: 50, storage: 1e9}]
failures: {deaths: [{at: 3, site: A}]}
"""


def load(tmp_path, text):
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    return scenario.load(str(path))


def test_a_yaml_file_becomes_a_scenario(tmp_path):
    loaded = load(tmp_path, GOOD)
    assert loaded.dataset.entries == 10_000
    assert loaded.sites[1].storage == 1e9
    assert loaded.workers == 3 + 12 * 2
    assert [site.name for site in loaded.all_sites] == [*(f"T{n:02d}" for n in range(1, 13)), "A"]
    assert loaded.failures.deaths[0].site == "A"


@pytest.mark.parametrize("name", scenario.names())
def test_those_that_come_with_gridproof_load(name):
    assert scenario.load(name).workers >= 4


@pytest.mark.parametrize(
    ("bad", "good", "words"),
    [
        ("files: ten", "files: 10", "dataset: files must be a whole number, not 'ten'"),
        ("files: 0", "files: 10", "files must be at least 1, not 0"),
        ("files: 1.5", "files: 10", "files must be a whole number"),
        ("entires: 1e4", "entries: 1e4", "no setting 'entires'; did you mean entries"),
        ("repliacs: 2", "replicas: 2", "did you mean replicas"),
        ("placement: near", "replicas: 2", "placement must be slots or even, not 'near'"),
        ("rate: -1", "rate: 50", "sites, 2: rate must be more than 0, not -1.0"),
        ("rate: .nan", "rate: 50", "rate must be a number"),
        ("slots: true", "slots: 3", "slots must be a whole number, not True"),
        ("name: 3", "name: A", "name must be a name, not 3"),
        ("name: t03", "name: A", "two have the same name"),
        ("arrive: [5, 0]", "arrive: [0, 5]", "arrive must be [first, last]"),
        ("arrive: 5", "arrive: [0, 5]", "arrive must be a list"),
        ("site: T3", "site: A", "there is no site 'T3'; did you mean T03"),
        ("deaths: [3]", "deaths: [{at: 3, site: A}]", "deaths, 1: expected settings (name: value), found 3"),
        ("deaths: [{site: A}]", "deaths: [{at: 3, site: A}]", "deaths, 1: at must be given"),
        ("sites: [{name: A}]\nfailures: {}", GOOD[GOOD.index("sites") :], "none has workers"),
    ],
)
def test_what_makes_no_sense_is_refused_with_place_and_reason(tmp_path, bad, good, words):
    assert good in GOOD
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, GOOD.replace(good, bad))
    assert words in str(refused.value)
    assert "scenario.yaml" in str(refused.value)


@pytest.mark.parametrize("text", ["", "- 1", "dataset: [", "dataset: {files: 1}"])
def test_what_is_no_scenario_is_refused(tmp_path, text):
    with pytest.raises(ConfigError):
        load(tmp_path, text)


def test_a_name_that_is_not_there_names_those_that_are():
    with pytest.raises(ConfigError, match="ten-thousand"):
        scenario.load("thousands")


def test_a_scenario_grows_in_proportion(make):
    before = make(sites=[{"name": "A", "slots": 10, "storage": 100}])
    after = before.with_workers(30)
    assert after.workers == 30
    assert after.dataset.entries == 3 * before.dataset.entries
    assert after.sites[0].storage == 300
    with pytest.raises(ConfigError, match="would have no slots left"):
        make(sites=[{"name": "A", "slots": 1}, {"name": "B", "slots": 99}]).with_workers(10)
