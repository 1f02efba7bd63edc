"""What tests of several rooms share."""

import pytest

from gridproof.pilot import collect


@pytest.fixture(scope="session")
def pilot_bundle(tmp_path_factory):
    """The real bundle of this environment, without ROOT."""
    return collect.make(tmp_path_factory.mktemp("bundle") / "gridproof-pilot.tar.gz")
