"""What an embedded Grid shall be: whoever starts one tells its process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gridproof.localgrid.limits import Limits
from gridproof.localgrid.quotas import Quota
from gridproof.localgrid.sites import GridNetwork, SiteNetwork
from gridproof.localgrid.users import DEFAULT_USERS, User


@dataclass(frozen=True)
class Settings:
    """What a Grid shall be; no ``root``: a temporary directory; ``owner``: the pid it lives for, 0 nobody.

    One that lives for nobody has a VO-box, whose masters keep compiled selectors in ``cache``. With
    ``throttle`` those wait who ask much, with ``open_storage`` files are served without envelopes.
    """

    sites: int = 3
    slots: int = 2
    cores: int = 1
    root: str = ""
    owner: int = 0
    cache: str = ""
    throttle: bool = False
    open_storage: bool = False
    users: tuple[User, ...] = DEFAULT_USERS
    limits: Limits = field(default_factory=Limits)
    network: GridNetwork = field(default_factory=GridNetwork)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Settings:
        """What :meth:`to_json` wrote."""
        settings = json.loads(line)
        settings["users"] = tuple(User(**_with_quota(user)) for user in settings["users"])
        settings["limits"] = Limits(**_with_quota(settings["limits"]))
        network = settings["network"]
        network["sites"] = tuple(
            SiteNetwork(**{**site, "nodes": tuple(site["nodes"]), "se": tuple(site["se"])})
            for site in network["sites"]
        )
        settings["network"] = GridNetwork(**network)
        return cls(**settings)


def _with_quota(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "quota": Quota(**values["quota"])} if values["quota"] else values
