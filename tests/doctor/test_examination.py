"""``gridproof doctor`` as a whole."""

import json

import pytest
from click.testing import CliRunner

from gridproof.cli import cli
from gridproof.doctor import machine
from gridproof.doctor.examination import examine
from gridproof.doctor.verdict import ok

NAMES = ["ROOT", "compiler", "XRootD", "pilots' bundle", "certificate", "central service", "clock"]
NAMES += ["catalogue", "storage", "ProxyServer"]


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Write the user's configuration."""

    def write(**sections):
        path = tmp_path / "gridproof.yaml"
        path.write_text(json.dumps(sections))
        monkeypatch.setenv("GRIDPROOF_CONFIG", str(path))

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write()
    return write


@pytest.fixture
def on_the_grid(environ, endpoint, configure, monkeypatch, tmp_path):
    """A user whose Grid is a small one."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    key = tmp_path / "id_ed25519"
    key.touch(0o600)
    key.write_text(endpoint.key)
    configure(
        proxy={
            "host": endpoint.host,
            "port": endpoint.port,
            "host_key": endpoint.host_key,
            "key_file": str(key),
        }
    )


def test_all_is_looked_at_in_this_order(on_the_grid):
    verdicts = dict(examine("alien"))
    assert list(verdicts) == NAMES
    warned = {name for name, verdict in verdicts.items() if verdict.state != "ok"}
    assert warned == {"pilots' bundle", "ProxyServer"}  # none is configured; it is on the loopback
    assert not any(verdict.state == "failed" for verdict in verdicts.values()), verdicts


def test_the_command_shows_a_table_and_ends_well(on_the_grid):
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 0, done.output
    for name in NAMES:
        assert name in done.output
    assert "→" in done.output


def test_what_needs_a_certificate_is_not_tried_without_one(configure, monkeypatch):
    monkeypatch.setattr(machine, "root", lambda: ok(""))
    for name in ("X509_USER_CERT", "X509_USER_KEY", "JALIEN_TOKEN_CERT", "JALIEN_TOKEN_KEY"):
        monkeypatch.delenv(name, raising=False)
    verdicts = dict(examine("alien"))
    assert verdicts["certificate"].state == "failed"
    assert {verdicts[name].state for name in ("central service", "clock", "catalogue", "storage")} == {
        "skipped"
    }
    assert verdicts["ProxyServer"].state == "failed"
    assert "proxy.host" in verdicts["ProxyServer"].found


def test_what_needs_the_central_service_is_not_tried_without_it(on_the_grid, monkeypatch):
    monkeypatch.setattr(machine, "root", lambda: ok(""))
    monkeypatch.setenv("ALIENPY_JCENTRAL_PORT", "1")
    verdicts = dict(examine("alien"))
    assert verdicts["central service"].state == "failed"
    assert {verdicts[name].state for name in ("clock", "catalogue", "storage")} == {"skipped"}
    assert verdicts["ProxyServer"].state == "warning"


def test_without_an_embedded_grid_it_says_how_to_start_one(configure, monkeypatch):
    monkeypatch.setattr(machine, "root", lambda: ok(""))
    done = CliRunner().invoke(cli, ["doctor", "--grid", "local"])
    assert done.exit_code == 1
    assert "gridproof grid start" in done.output
