"""A session's certificates, used as distributed uses them."""

import asyncio
import ssl
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509

from gridproof.proxy.masters.certificates import LIFETIME, make_identities


def context(purpose, identity, tmp_path, name):
    made = ssl.create_default_context(purpose, cadata=identity.ca)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    cert, key = tmp_path / f"{name}.cert", tmp_path / f"{name}.key"
    cert.write_text(identity.cert)
    key.write_text(identity.key)
    made.load_cert_chain(cert, key)
    return made


async def talk(server_context, client_context):
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context)
        writer.write(b"hello\n")
        answer = await reader.read()
        writer.close()
        return answer


@pytest.mark.parametrize(
    ("server", "client"), [("scheduler", "worker"), ("worker", "client"), ("worker", "worker")]
)
def test_all_roles_of_a_session_trust_each_other(tmp_path, server, client):
    identities = make_identities("s1", datetime.now(timezone.utc))
    serving = context(ssl.Purpose.CLIENT_AUTH, getattr(identities, server), tmp_path, "server")
    dialling = context(ssl.Purpose.SERVER_AUTH, getattr(identities, client), tmp_path, "client")
    assert asyncio.run(talk(serving, dialling)) == b"hello\n"


def test_another_session_is_not_trusted(tmp_path):
    now = datetime.now(timezone.utc)
    mine, other = make_identities("s1", now), make_identities("s1", now)
    serving = context(ssl.Purpose.CLIENT_AUTH, mine.scheduler, tmp_path, "server")
    dialling = context(ssl.Purpose.SERVER_AUTH, other.worker, tmp_path, "client")
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(talk(serving, dialling))


def test_certificates_live_for_a_week_and_each_has_its_role():
    now = datetime(2026, 1, 2, tzinfo=timezone.utc)
    identities = make_identities("s1", now)
    for role in ("scheduler", "client", "worker"):
        cert = x509.load_pem_x509_certificate(getattr(identities, role).cert.encode())
        assert role in cert.subject.rfc4514_string()
        assert cert.not_valid_after_utc == now + LIFETIME
        assert now - cert.not_valid_before_utc < timedelta(hours=1)


def test_keys_do_not_show_when_printed():
    assert "PRIVATE" not in repr(make_identities("s1", datetime.now(timezone.utc)))
