"""What is to be simulated: a YAML file becomes frozen dataclasses.

::

    dataset: {files: 2000, entries: 2.0e+8, entry_bytes: 1000, replicas: 2}
    sites:
      - {name: CERN, slots: 100, rate: 5000, storage: 4.0e+9, outgoing: 1.25e+9, incoming: 1.25e+9}
      - {name: TIER2_, copies: 10, slots: 20, rate: 5000, spread: 0.1}
    failures: {death_rate: 0.5}

Times are in seconds, sizes in bytes, bandwidths in bytes per second. What a file leaves out has the
defaults below.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from ..errors import ConfigError

NEVER = float("inf")
BUILT_IN = Path(__file__).with_name("scenarios")


def _number(default: Any = MISSING, *, least: float = 0.0, most: float = NEVER, above: bool = False) -> Any:
    """A setting between ``least`` (exclusively so if ``above``) and ``most``."""
    return field(default=default, metadata={"least": least, "most": most, "above": above})


class _Checked:
    def __post_init__(self) -> None:
        for setting in fields(self):  # type: ignore[arg-type]
            limits, value = setting.metadata, getattr(self, setting.name)
            if not limits:
                continue
            least, most = limits["least"], limits["most"]
            if not least <= value <= most or (limits["above"] and value == least):
                low = f"more than {least:g}" if limits["above"] else f"at least {least:g}"
                high = f" and at most {most:g}" if most < NEVER else ""
                raise ConfigError(f"{setting.name} must be {low}{high}, not {value!r}")


@dataclass(frozen=True)
class Dataset(_Checked):
    """Files and where they lie.

    ``file_spread``: file sizes differ by up to this fraction; ``cost_spread``: so does what an entry costs,
    from file to file. ``cluster``: entries of a cluster. ``placement`` of replicas: ``slots`` draws sites in
    proportion to their slots, ``even`` draws all alike; with 0 ``replicas`` every worker has the files at
    hand. ``known``: an earlier query has learnt the entries.
    """

    files: int = _number(least=1)
    entries: int = _number(least=0)
    entry_bytes: float = _number(1000.0)
    cluster: int = _number(10_000, least=1)
    file_spread: float = _number(0.0, most=1.0)
    cost_spread: float = _number(0.0, most=0.9)
    replicas: int = _number(1)
    placement: str = "slots"
    known: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.placement not in ("slots", "even"):
            raise ConfigError(f"placement must be slots or even, not {self.placement!r}")


@dataclass(frozen=True)
class Site(_Checked):
    """A site, or ``copies`` of it with numbered names.

    Workers process ``rate`` entries per second, with a relative standard deviation ``spread`` between them; a
    fraction ``slow`` runs at ``slow_speed`` of that. ``rates`` names every worker's rate instead. Workers
    arrive evenly between the two times of ``arrive``. ``storage``: bandwidth of its SE, 0 where it has
    none; ``incoming`` and ``outgoing``: of its connection to other sites. ``latency``: one way to the master.
    """

    name: str
    slots: int = _number(0)
    rate: float = _number(1000.0, above=True)
    spread: float = _number(0.0, most=1.0)
    slow: float = _number(0.0, most=1.0)
    slow_speed: float = _number(0.25, above=True, most=1.0)
    rates: tuple[float, ...] = ()
    arrive: tuple[float, ...] = (0.0, 0.0)
    storage: float = _number(NEVER)
    incoming: float = _number(NEVER)
    outgoing: float = _number(NEVER)
    latency: float = _number(0.01)
    copies: int = _number(1, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.arrive) != 2 or not 0 <= self.arrive[0] <= self.arrive[1]:
            raise ConfigError(f"arrive must be [first, last] in seconds, not {list(self.arrive)}")
        if any(rate <= 0 for rate in self.rates):
            raise ConfigError(f"rates must be more than 0, not {list(self.rates)}")

    @property
    def workers(self) -> int:
        """How many it has."""
        return len(self.rates) or self.slots


@dataclass(frozen=True)
class Wire(_Checked):
    """A connection of two sites that carries less than their connections to the outside."""

    between: tuple[str, ...]
    bandwidth: float = _number()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.between)) != 2:
            raise ConfigError(f"between must name two sites, not {list(self.between)}")


@dataclass(frozen=True)
class Worker(_Checked):
    """What costs a worker time apart from entries.

    ``start``: a fresh process; ``open``: opening a file, of another site ``open_remote``; ``instance``:
    beginning and ending a selector instance and serializing its outputs.
    """

    start: float = _number(0.0)
    open: float = _number(0.05)
    open_remote: float = _number(0.3)
    instance: float = _number(0.01)


@dataclass(frozen=True)
class Master(_Checked):
    """``message``: what each message costs the master; ``merge``: each commit, in one merge thread.

    ``feedback``: seconds between a worker's commits, or more where merging would take half of the time.
    """

    message: float = _number(3e-4)
    merge: float = _number(2e-3)
    feedback: float = _number(1.0)


@dataclass(frozen=True)
class Death(_Checked):
    """``workers`` die ``at`` a time, at a ``site`` or anywhere."""

    at: float = _number()
    workers: int = _number(1, least=1)
    site: str = ""


@dataclass(frozen=True)
class Outage(_Checked):
    """The SE or the outside connection of a ``site`` is away from ``at``, for ``lasts`` seconds."""

    site: str
    at: float = _number()
    lasts: float = _number(NEVER, above=True)


@dataclass(frozen=True)
class Failures(_Checked):
    """What goes wrong, and when it is noticed.

    ``death_rate``: deaths per worker and hour, besides ``deaths``; the master learns of one after ``notice``
    seconds, and ``replacement`` seconds after it another worker arrives. ``hang_rate``: the fraction of reads
    that never end by themselves. A read that gets nothing fails after ``read_timeout``, an SE that does not
    answer costs ``connect_timeout``.
    """

    deaths: tuple[Death, ...] = ()
    death_rate: float = _number(0.0)
    notice: float = _number(0.5)
    replacement: float = _number(NEVER)
    storage: tuple[Outage, ...] = ()
    connections: tuple[Outage, ...] = ()
    hang_rate: float = _number(0.0, most=0.5)
    connect_timeout: float = _number(5.0)
    read_timeout: float = _number(20.0, above=True)


@dataclass(frozen=True)
class Scenario(_Checked):
    """All of it. ``seed``: what is drawn by chance is the same for the same seed."""

    dataset: Dataset
    sites: tuple[Site, ...]
    wires: tuple[Wire, ...] = ()
    worker: Worker = Worker()
    master: Master = Master()
    failures: Failures = Failures()
    seed: int = 1

    def __post_init__(self) -> None:
        names = [site.name for site in self.all_sites]
        if len({name.upper() for name in names}) < len(names):
            raise ConfigError(f"sites: two have the same name among {', '.join(names)}")
        if not any(site.workers for site in self.sites):
            raise ConfigError("sites: none has workers: give slots or rates")
        if self.dataset.replicas and not self.holders:
            raise ConfigError("sites: none has storage for the files, and slots as their placement asks for")
        failures = self.failures
        named = [("wires", name) for wire in self.wires for name in wire.between]
        named += [("failures, deaths", death.site) for death in failures.deaths if death.site]
        named += [("failures", outage.site) for outage in (*failures.storage, *failures.connections)]
        for where, name in named:
            if name not in names:
                raise ConfigError(f"{where}: there is no site {name!r}{_nearest(name, names)}")

    @property
    def all_sites(self) -> tuple[Site, ...]:
        """Every site by itself: copies have their numbers in their names."""
        return tuple(
            replace(site, name=f"{site.name}{number:0{len(str(site.copies))}d}", copies=1)
            if site.copies > 1
            else site
            for site in self.sites
            for number in range(1, site.copies + 1)
        )

    @property
    def holders(self) -> list[Site]:
        """The sites where replicas may be placed."""
        anywhere = self.dataset.placement == "even"
        return [site for site in self.all_sites if site.storage and (site.workers or anywhere)]

    @property
    def workers(self) -> int:
        """How many there are, without replacements."""
        return sum(site.workers * site.copies for site in self.sites)

    def with_workers(self, workers: int) -> Scenario:
        """The same with about so many workers, and a dataset and bandwidths in proportion.

        Raises:
            ConfigError: a site would be left without any.
        """
        factor = workers / self.workers
        sites = tuple(
            replace(
                site,
                slots=round(site.slots * factor),
                rates=(),
                storage=site.storage * factor,
                incoming=site.incoming * factor,
                outgoing=site.outgoing * factor,
            )
            for site in self.sites
        )
        for before, site in zip(self.sites, sites, strict=True):
            if before.rates or (before.slots and not site.slots):
                why = "lists its rates one by one" if before.rates else "would have no slots left"
                raise ConfigError(f"{self.workers} workers cannot become {workers}: {before.name} {why}")
        dataset = replace(
            self.dataset,
            files=max(1, round(self.dataset.files * factor)),
            entries=round(self.dataset.entries * factor),
        )
        return replace(self, sites=sites, dataset=dataset)


def names() -> list[str]:
    """The scenarios that come with gridproof."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def load(source: str) -> Scenario:
    """A scenario from a YAML file, or one that comes with gridproof by its name.

    Raises:
        ConfigError: there is none, or it cannot be used as it is; says where and why.
    """
    path = BUILT_IN / f"{source}.yaml" if source in names() else Path(source)
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        known = ", ".join(names())
        raise ConfigError(f"there is no scenario {source!r}: give a YAML file or one of {known}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the scenario {path} cannot be read: {error}") from None
    scenario: Scenario = build(Scenario, values, str(path))
    return scenario


def build(kind: type[Any], values: Any, where: str) -> Any:
    """One of the classes above from what YAML gave.

    Raises:
        ConfigError: as `load`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected settings (name: value), found {values!r}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}: there is no setting {name!r}{_nearest(str(name), known)}")
    lacking = [f.name for f in known.values() if f.default is MISSING and f.name not in values]
    if lacking:
        raise ConfigError(f"{where}: {', '.join(lacking)} must be given")
    arguments = {name: _typed(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _typed(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_typed(get_args(hint)[0], item, f"{where}, {n}") for n, item in enumerate(value, 1))
    if hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML takes 1e9 for a string
            if hint is float and number == number:
                return number
            if hint is int and number.is_integer():
                return int(number)
        except (TypeError, ValueError):
            pass
    elif hint in (str, bool):
        if isinstance(value, hint):
            return value
    elif hint not in (int, float):
        return build(hint, value, where)
    kinds = {int: "a whole number", float: "a number", str: "a name", bool: "true or false"}
    raise ConfigError(f"{where} must be {kinds[hint]}, not {value!r}")


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(known)}"
