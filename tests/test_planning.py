"""Pilots are planned from what a Grid has; sites that are left out get none."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from gridproof.alien import ComputingElement, PilotRequest, site_of
from gridproof.alien.jdl import parse, validate
from gridproof.cli import cli
from gridproof.config import PilotConfig
from gridproof.dataset import File
from gridproof.errors import ConfigError, JdlError
from gridproof.pilotjobs import preview
from gridproof.planning import Planner, pilots_for, plan

SES = tuple(f"ALICE::{site}::SE" for site in ("CERN", "FZK", "SARA"))
CES = tuple(f"ALICE::{site}::CE" for site in ("CERN", "FZK", "SARA"))
FILES = tuple(File(f"/d/{n}.root", 10**9, (SES[n % 3],)) for n in range(6))


def planner(strategy: str = "production", files: tuple[File, ...] = FILES, cores: int = 1) -> Planner:
    ces = tuple(ComputingElement(ce, "open", 100, 10, 87_000, site_of(ce)) for ce in CES)
    return Planner(PilotConfig(strategy=strategy, cores=cores), ces, SES, files)


def test_pilots_go_to_the_data() -> None:
    assert planner().requests(6) == [PilotRequest((se,), 2) for se in SES]
    assert planner(cores=4).capacity == 1200
    assert pilots_for(9, PilotConfig(cores=4)) == 3


def test_without_data_they_go_anywhere() -> None:
    assert planner(files=()).requests(6) == [PilotRequest((), 6)]


def test_sites_that_are_left_out_get_none_by_naming_the_others() -> None:
    assert planner().requests(4, {"CERN"}) == [PilotRequest((se,), 2, CES[1:]) for se in SES[1:]]
    assert planner(files=()).requests(4, {"CERN", "SARA"}) == [PilotRequest((), 4, CES[1:2])]


def test_where_every_site_is_left_out_none_is() -> None:
    assert planner(files=()).requests(4, {"CERN", "FZK", "SARA"}) == [PilotRequest((), 4)]


def test_the_split_by_storage_elements_leaves_sites_out_too() -> None:
    (request,) = planner("se").requests(4, {"CERN"})
    assert set(request.lfns) == {f"/d/{n}.root" for n in (1, 2, 4, 5)}
    assert request.ces == CES[1:]
    (request,) = planner("se", (File("/d/a.zip#x.root", 5, SES), File("/x", kind="path"))).requests(1)
    assert request.lfns == ("/d/a.zip",)


def test_a_strategy_must_be_known() -> None:
    with pytest.raises(ConfigError, match="one of production, se, not 'best'"):
        planner("best")


class Sites:
    """A Grid that knows its computing elements."""

    def __init__(self, *ttls: int) -> None:
        self.ttls = ttls

    def list_ces(self) -> list[ComputingElement]:
        numbered = list(zip(CES, self.ttls, strict=False))
        ces = [ComputingElement(ce, "open", 100, 10, ttl, site_of(ce)) for ce, ttl in numbered]
        return [*ces, ComputingElement("UNASSIGNED::SITE", "open", 0, 0, 86_400, "SITE")]

    def list_ses(self) -> list[object]:
        return []


def test_elements_whose_slots_are_too_short_do_not_count() -> None:
    config = PilotConfig(ttl=21_600)
    assert Planner.ask(Sites(3600, 0, 87_000), None, config).capacity == 200  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="more than 21600 s, the longest are of 7200 s"):
        Planner.ask(Sites(3600, 7200), None, config)  # type: ignore[arg-type]


def test_the_command_prints_jdls_that_can_be_read_and_asks_no_grid_for_given_ses(monkeypatch) -> None:
    monkeypatch.setenv("X509_USER_CERT", "/nowhere")
    run = CliRunner().invoke(cli, ["jdl", "--workers", "20", "--se", SES[0], "--se", SES[1]])
    assert run.exit_code == 0
    jdl = parse(run.output)
    validate(jdl)
    assert jdl.text("Split") == "production:1-20"
    assert jdl.text("Requirements").count("member(other.CloseSE") == 2
    assert jdl.text("JobTag") == "comment:gridproof-<session>"


def test_a_dataset_and_ses_are_not_both_given() -> None:
    with pytest.raises(ConfigError, match="not both"):
        plan(["/d/*.root"], 2, PilotConfig(), "alien", SES)


def test_storage_elements_alone_are_nothing_for_a_split_over_files() -> None:
    with pytest.raises(ConfigError, match='strategy "se" goes by a dataset'):
        plan([], 2, PilotConfig(strategy="se"), "alien", SES)


@pytest.mark.parametrize(
    "config",
    [PilotConfig(memory="lots"), PilotConfig(packages=('a"b',))],
)
def test_what_a_submission_would_refuse_is_refused_in_the_preview(config: PilotConfig) -> None:
    with pytest.raises(JdlError):
        preview([PilotRequest(SES, 1)], config)


def test_a_bundle_in_nobodys_home_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="~nobody-of-that-name"):
        preview([PilotRequest(SES, 1)], PilotConfig(bundle="~nobody-of-that-name/bundle.tar.gz"))
