"""Workers ask for leave to read with the job's own token, and read from the nearest SE."""

from __future__ import annotations

from typing import Any

import pytest

from gridproof.alien import Access, Alien
from gridproof.errors import CommandError, WireError
from gridproof.pilot import resolver
from gridproof.pilot.resolver import GridResolver

TOKEN = {"JALIEN_TOKEN_CERT": "/job/tokencert.pem", "JALIEN_HOST": "127.0.0.1", "JALIEN_WSPORT": "8097"}


class Service:
    """What a worker asks of the Grid; ``asked`` are the LFNs, ``environ`` what it connected with."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.environ: list[dict[str, str]] = []
        self.failure: Exception | None = None
        self.distances: list[tuple[str, float]] | None = [("V::NEAR::SE", 0.0), ("V::FAR::SE", 0.5)]

    def access_read(self, lfn: str) -> list[Access]:
        self.asked.append(lfn)
        if self.failure is not None:
            raise self.failure
        ticket = f"envelope{len(self.asked)}"
        ses = ("V::Unknown::SE", "V::Far::SE", "V::Near::SE")
        return [Access(se, f"root://{se[3:-4].lower()}{lfn}", ticket, "", 5, "") for se in ses]

    def se_distance(self, site: str) -> list[tuple[str, float]]:
        assert site == "NEAR"
        if self.distances is None:
            raise CommandError("no such site", command="listSEDistance", exitcode=22)
        return self.distances


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()

    def connect(environ: dict[str, str]) -> Any:
        service.environ.append(environ)
        return service

    monkeypatch.setattr(Alien, "connect", connect)
    return service


@pytest.fixture
def resolve(service: Service) -> GridResolver:
    return GridResolver(
        TOKEN | {"X509_USER_CERT": "/user/cert.pem", "X509_USER_KEY": "/user/key.pem"}, "NEAR"
    )


def files(*names: str, kind: str = "lfn") -> list[dict[str, Any]]:
    return [{"name": name, "kind": kind, "replicas": []} for name in names]


def test_the_nearest_se_comes_first_and_those_of_unknown_distance_last(resolve: GridResolver) -> None:
    (located,) = resolve(files("/a"))
    assert [replica.storage_element for replica in located.replicas] == [
        "V::NEAR::SE",
        "V::FAR::SE",
        "V::UNKNOWN::SE",
    ]
    assert located.replicas[0].url == "root://near/a?xrd.wantprot=unix&authz=envelope1"
    assert located.replicas[0].site == "NEAR"


def test_the_services_order_does_where_it_does_not_know_the_site(
    resolve: GridResolver, service: Service
) -> None:
    service.distances = None
    assert resolve(files("/a"))[0].replicas[0].storage_element == "V::UNKNOWN::SE"


def test_one_connection_with_the_jobs_token_and_one_command_per_file(
    resolve: GridResolver, service: Service
) -> None:
    resolve(files(*(f"/{n}" for n in range(30))))
    resolve(files("/3", "/4"))
    assert service.asked == [f"/{n}" for n in range(30)]
    assert service.environ == [TOKEN]  # and nothing of the user's


def test_leave_is_asked_for_anew_when_told_to(resolve: GridResolver) -> None:
    first, again, anew = resolve(files("/a")), resolve(files("/a")), resolve(files("/a"), anew=True)
    assert first == again
    assert anew[0].replicas[0].url.endswith("envelope2")
    assert resolve(files("/a")) == anew


def test_members_share_the_leave_for_their_archive(resolve: GridResolver, service: Service) -> None:
    one, two = resolve(files("/a.zip#x.root", "/a.zip#y.root"))
    assert service.asked == ["/a.zip"]
    assert one.replicas[0].url == "root://near/a.zip?zip=x.root&xrd.wantprot=unix&authz=envelope1"
    assert "?zip=y.root&" in two.replicas[0].url


@pytest.mark.parametrize(
    "failure", [CommandError("no such file", command="access", exitcode=2), WireError("it is gone")]
)
def test_a_file_without_leave_says_why_and_is_asked_for_again(
    resolve: GridResolver, service: Service, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "PATIENCE", 0.0)
    service.failure = failure
    (located,) = resolve(files("/a"))
    assert (located.replicas, located.problem) == ((), f"no leave to read it: {failure}")
    service.failure = None
    assert resolve(files("/a"))[0].replicas


def test_a_service_that_starts_anew_is_waited_for(
    resolve: GridResolver, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            service.failure = None

    monkeypatch.setattr(resolver.time, "sleep", pause)
    service.failure = WireError("connection refused")
    assert resolve(files("/a"))[0].replicas
    assert pauses == [resolver.PAUSE] * 3


def test_urls_and_paths_need_no_leave(resolve: GridResolver, service: Service) -> None:
    located = resolve(files("root://h//x.root", kind="url") + files("/x.root", kind="path"))
    assert [found.replicas[0].url for found in located] == ["root://h//x.root", "/x.root"]
    assert service.environ == []


def test_what_is_kept_is_limited(
    resolve: GridResolver, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "KEPT", 2)
    resolve(files("/a", "/b", "/c", "/b", "/a"))
    assert service.asked == ["/a", "/b", "/c", "/a"]
