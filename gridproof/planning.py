"""Where a session's pilots go: how many to which sites, by what the Grid has and where the data are."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from . import grids
from .alien import Alien, ComputingElement, PilotRequest, plan_by_files, plan_pilots, site_of
from .config import PilotConfig
from .dataset import Dataset, File, resolve
from .errors import ConfigError

STRATEGIES = ("production", "se")


@dataclass(frozen=True)
class Planner:
    """Plans pilots; knows the Grid as it was when it was asked. Site names are in upper case."""

    config: PilotConfig
    ces: tuple[ComputingElement, ...] = ()
    ses: tuple[str, ...] = ()
    files: tuple[File, ...] = ()

    def __post_init__(self) -> None:
        if self.config.strategy not in STRATEGIES:
            raise ConfigError(
                f"pilots, strategy is one of {', '.join(STRATEGIES)}, not {self.config.strategy!r}"
            )

    @classmethod
    def ask(cls, alien: Alien, dataset: Dataset | None, config: PilotConfig) -> Planner:
        """A planner for a dataset (None: no matter where), by two calls.

        Raises:
            ConfigError: there is no such strategy, or no computing element takes jobs that last so long.
            AlienError: the Grid does not answer.
        """
        running = [ce for ce in alien.list_ces() if ce.status == "open" and ce.max_running > 0]
        ces = tuple(ce for ce in running if not ce.ttl or ce.ttl > config.ttl)
        if running and not ces:
            raise ConfigError(
                f"pilots, ttl: no computing element has slots of more than {config.ttl} s, "
                f"the longest are of {max(ce.ttl for ce in running)} s; pilots must ask for less"
            )
        ses = tuple(se.name for se in alien.list_ses())
        return cls(config, ces, ses, tuple(dataset.files) if dataset else ())

    @property
    def capacity(self) -> int:
        """How many workers the Grid's sites can run at all."""
        return sum(ce.max_running for ce in self.ces) * self.config.cores

    def requests(self, pilots: int, left_out: Collection[str] = ()) -> list[PilotRequest]:
        """What to submit for so many pilots; none go to sites that are left out, unless all are.

        Raises:
            JdlError: the strategy needs a dataset of LFNs, and there is none.
        """
        ces = [ce for ce in self.ces if ce.site not in left_out]
        if not ces:
            ces, left_out = list(self.ces), ()
        allowed = tuple(ce.name for ce in ces) if left_out else ()
        return [
            PilotRequest(request.ses, request.count, allowed, request.lfns)
            for request in self._by_data(pilots, left_out, ces)
        ]

    def _by_data(
        self, pilots: int, left_out: Collection[str], ces: list[ComputingElement]
    ) -> list[PilotRequest]:
        if self.config.strategy == "se":
            names = [(file.name.partition("#")[0], file.ses) for file in self.files if file.kind == "lfn"]
            elsewhere = [(lfn, ses) for lfn, ses in names if {site_of(se) for se in ses} - set(left_out)]
            return plan_by_files(pilots, elsewhere or names)
        if not self.files:  # to any site: the broker knows where slots are free
            return [PilotRequest((), pilots)]
        sites = {se: site_of(se) for se in self.ses if site_of(se) not in left_out}
        capacity: dict[str, int] = {}
        for ce in ces:
            capacity[ce.site] = capacity.get(ce.site, 0) + ce.max_running
        return plan_pilots(pilots, [(file.size, file.ses) for file in self.files], sites, capacity)


def pilots_for(workers: int, config: PilotConfig) -> int:
    """How many pilots bring so many workers."""
    return math.ceil(workers / config.cores)


def plan(
    dataset: Sequence[str], workers: int, config: PilotConfig, grid: str, ses: Sequence[str] = ()
) -> list[PilotRequest]:
    """What a session of so many workers over a dataset would submit, by what a Grid that is there has.

    With ``ses`` no Grid is asked: all pilots go close to these.

    Raises:
        ConfigError: there is no such Grid or strategy, or ``ses`` are given where a dataset is or must be.
        LocalGridError, AlienError, DatasetError: what their names say.
    """
    pilots = pilots_for(workers, config)
    if ses:
        if dataset:
            raise ConfigError("give a dataset, whose SEs the Grid knows, or --se, not both")
        if Planner(config).config.strategy == "se":
            raise ConfigError('pilots, strategy "se" goes by a dataset: give one instead of --se')
        return [PilotRequest(tuple(ses), pilots)]
    with Alien.connect(grids.environment(grid)) as alien:
        # No file is opened here, so that any tree's name does.
        known = resolve(list(dataset), "any", alien) if dataset else None
        return Planner.ask(alien, known, config).requests(pilots)
