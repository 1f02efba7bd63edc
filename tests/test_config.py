"""Settings that mean more than they say."""

import pytest

from gridproof.config import PilotConfig, load
from gridproof.errors import ConfigError


@pytest.mark.parametrize(
    ("pilots", "expected"),
    [
        (PilotConfig(memory="8GB", cores=4), 2_000_000_000),
        (PilotConfig(memory="8GB", cores=4, worker_memory="2.5 GB"), 2_500_000_000),
        (PilotConfig(worker_memory="900M"), 900_000_000),
    ],
)
def test_a_worker_may_use_its_share_of_the_job_unless_told_otherwise(pilots, expected):
    assert pilots.worker_bytes == expected


@pytest.mark.parametrize("size", ["2", "lots", "-1GB", "2 parsecs"])
def test_a_size_that_is_none_is_named_with_its_setting(size):
    with pytest.raises(ConfigError, match=r"pilots, worker_memory must be a size such as .4GB"):
        _ = PilotConfig(worker_memory=size).worker_bytes


@pytest.mark.parametrize("content", [b"pilots: {cores: 0}", b"pilots: {ttl: -1}", b"pilots: {price: .nan}"])
def test_what_must_be_positive_is_named(tmp_path, content):
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"pilots, (cores|ttl|price) must be more than 0"):
        load(tmp_path / "own.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"own\.yaml cannot be read"):
        load(tmp_path / "own.yaml")
