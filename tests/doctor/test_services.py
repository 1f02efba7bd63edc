"""What the doctor finds of the Grid's services, against a small embedded Grid."""

import datetime
from contextlib import closing

import pytest

from gridproof.alien import Alien
from gridproof.alien.transfer import Transfers
from gridproof.doctor import services
from gridproof.errors import CredentialError, TransferError, WireError
from gridproof.localgrid.certificates import Authority, user_subject, write_private

HOUR = datetime.timedelta(hours=1)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


@pytest.fixture
def alien(environ):
    with closing(Alien.connect(environ)) as alien:
        yield alien


def names(alien):
    return {entry.lfn for entry in alien.ls(alien.home)}


# ---- the certificate


@pytest.fixture
def certified(tmp_path):
    """An environment with a certificate that begins and ends so long from now."""

    def make(begins=-HOUR, lasts=48 * HOUR):
        authority = Authority(tmp_path / "authority", now() + min(begins, -HOUR))
        authority.publish(tmp_path / "ca")
        issued = authority.issue(user_subject("jdoe"), now() + begins, lasts)
        for name, content in (("cert", issued.cert), ("key", issued.key)):
            write_private(tmp_path / f"{name}.pem", content)
        return {
            "X509_USER_CERT": str(tmp_path / "cert.pem"),
            "X509_USER_KEY": str(tmp_path / "key.pem"),
            "X509_CERT_DIR": str(tmp_path / "ca"),
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
        }

    return make


def test_a_certificate_is_named_with_its_end_and_its_cas(certified, tmp_path):
    found = services.certificate(certified(), now())
    assert found.state == "ok"
    for part in ("cert.pem", "jdoe", "until 20", str(tmp_path / "ca")):
        assert part in found.found


def test_a_certificate_that_ends_soon_is_a_warning(certified):
    found = services.certificate(certified(lasts=2 * HOUR), now())
    assert (found.state, "ends soon" in found.remedy) == ("warning", True)


@pytest.mark.parametrize(
    ("begins", "lasts", "words"), [(-3 * HOUR, HOUR, "expired on"), (HOUR, HOUR, "not valid before")]
)
def test_a_certificate_out_of_its_time_fails_with_the_date(certified, begins, lasts, words):
    found = services.certificate(certified(begins, lasts), now())
    assert (found.state, words in found.found) == ("failed", True)


def test_a_key_that_is_open_to_others_fails(certified, tmp_path):
    environ = certified()
    (tmp_path / "key.pem").chmod(0o644)
    found = services.certificate(environ, now())
    assert (found.state, "chmod 600" in found.found) == ("failed", True)


def test_no_certificate_at_all_fails_with_the_places_looked_at(tmp_path):
    found = services.certificate({"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}, now())
    assert (found.state, f"{tmp_path}/.globus/usercert.pem" in found.found) == ("failed", True)


def test_no_directory_of_cas_is_a_warning(certified, monkeypatch):
    environ = certified()
    monkeypatch.setattr("gridproof.alien.credentials._CA_DIRECTORIES", ())
    del environ["X509_CERT_DIR"]
    found = services.certificate(environ, now())
    assert (found.state, "X509_CERT_DIR" in found.remedy) == ("warning", True)


# ---- the central service


def test_a_central_service_that_answers_is_named_with_the_user(environ):
    found, alien = services.central(environ)
    alien.close()
    assert found.state == "ok"
    assert f":{environ['ALIENPY_JCENTRAL_PORT']} knows gridproof" in found.found


def test_a_central_service_that_is_not_there_is_an_error_with_its_address(environ):
    with pytest.raises(WireError, match="cannot connect to the central service at"):
        services.central({**environ, "ALIENPY_JCENTRAL_PORT": "1"})


def test_a_certificate_of_another_grid_is_an_error(environ, certified):
    own = certified()
    strange = {**environ, **own, "X509_CERT_DIR": environ["X509_CERT_DIR"]}
    with pytest.raises(CredentialError, match="refused the certificate"):
        services.central(strange)


def test_a_service_that_takes_long_is_a_warning(environ, monkeypatch):
    monkeypatch.setattr(services, "_SLOW", 0.0)
    found, alien = services.central(environ)
    alien.close()
    assert (found.state, "wait some minutes" in found.remedy) == ("warning", True)


# ---- the clock


def test_the_clock_is_compared_with_the_services(environ):
    assert services.clock(environ, now()).state == "ok"
    assert services.clock(environ, now() + HOUR).state == "failed"


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [
        (0, "ok", "within 1 s"),
        (-50, "ok", "within 50 s"),
        (100, "warning", "100 s ahead of"),
        (-301, "failed", "301 s behind"),
    ],
)
def test_a_clock_may_differ_by_seconds_and_not_by_minutes(seconds, state, words):
    found = services.judge_clock(now() + datetime.timedelta(seconds=seconds), now())
    assert (found.state, words in found.found) == (state, True)
    assert (found.remedy != "") == (state != "ok")


# ---- catalogue and storage


def test_the_home_directory_is_listed(alien):
    found = services.catalogue(alien)
    assert (found.state, alien.home in found.found) == ("ok", True)


def test_a_home_directory_that_is_not_there_fails(alien):
    alien.home = "/local/nowhere/"
    found = services.catalogue(alien)
    assert (found.state, "is this account registered" in found.remedy) == ("failed", True)


def test_a_file_is_written_read_and_removed(alien):
    before = names(alien)
    found = services.storage(alien)
    assert (found.state, "SITE1::SE" in found.found.upper()) == ("ok", True)
    assert names(alien) == before


def test_a_file_that_comes_back_different_fails_and_is_removed(alien, monkeypatch):
    before = names(alien)
    monkeypatch.setattr(Transfers, "cat", lambda self, lfn: b"something else")
    found = services.storage(alien)
    assert (found.state, "other bytes" in found.found) == ("failed", True)
    assert names(alien) == before


def test_a_file_that_cannot_be_read_fails_and_is_removed(alien, monkeypatch):
    def refuse(self, lfn):
        raise TransferError("permission denied")

    before = names(alien)
    monkeypatch.setattr(Transfers, "cat", refuse)
    found = services.storage(alien)
    assert (found.state, "could not be read: permission denied" in found.found) == ("failed", True)
    assert names(alien) == before


def test_storage_that_cannot_be_written_fails_with_what_to_look_at(alien, monkeypatch):
    def refuse(self, local, lfn):
        raise TransferError("no storage element takes it")

    monkeypatch.setattr(Transfers, "upload", refuse)
    found = services.storage(alien)
    assert (found.state, "port 1094" in found.remedy) == ("failed", True)
