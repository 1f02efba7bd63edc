import pytest

from gridproof.simulate.scenario import Scenario, build


@pytest.fixture
def make():
    """A scenario from what its YAML would say; two sites with four workers each unless told otherwise."""

    def make(**settings) -> Scenario:
        dataset = {
            "files": 20,
            "entries": 40_000,
            "replicas": 2,
            "cluster": 100,
            **settings.pop("dataset", {}),
        }
        sites = settings.pop("sites", [{"name": "A", "slots": 4}, {"name": "B", "slots": 4}])
        return build(Scenario, {"dataset": dataset, "sites": sites, **settings}, "scenario")

    return make
