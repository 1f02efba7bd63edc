"""What an embedded Grid shall be, as its process is told."""

from __future__ import annotations

from gridproof.localgrid import Limits, Quota, User
from gridproof.localgrid.settings import Settings
from gridproof.localgrid.sites import GridNetwork, SiteNetwork


def test_settings_arrive_as_they_were_sent() -> None:
    place = SiteNetwork(("nsenter", "--net=x"), ("nsenter", "--net=y"), "100.64.1.1", 1094)
    settings = Settings(
        sites=1,
        users=(User("ada", ("pwg",), quota=Quota(max_files=1)), User("bob", home="/local/bob")),
        limits=Limits(retries=2, quota=Quota(max_bytes=3)),
        network=GridNetwork("100.64.0.1", 8097, (place,)),
    )
    assert Settings.from_json(settings.to_json()) == settings
    assert Settings.from_json(Settings().to_json()) == Settings()
