"""Access envelopes: who has one may read or write one replica, which the storage element checks by itself.

An envelope is a SciToken (a JWT signed by ES256) whose audience is the SE and whose scopes name the path of
one file there; with ``Bearer%20`` before it, it is what XRootD's clients send as ``authz``.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gridproof.localgrid.certificates import write_private

ISSUER = "https://localgrid"
LIFETIME = 86_400  # s, about as long as JAliEn's are good
_SKEW = 60  # s by which clocks may differ
_NEVER = 4_000_000_000  # s since 1970 when the SEs' libraries would look for newer keys
_KEY_ID = "1"

# ``xrdcp`` looks at its target before it writes, and a look is a part of the right to read.
_SCOPES = {"read": "read:{path}", "write": "read:{path} write:{path}"}
Right = Literal["read", "write"]


class Envelopes:
    """The one who issues them."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def kept_in(cls, directory: Path) -> Envelopes:
        """With the key kept in a private directory, made where it is missing."""
        path = directory / "envelopes.key"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(
                path,
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            )
        kept = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(kept, ec.EllipticCurvePrivateKey)
        return cls(kept)

    def issue(self, se: str, path: str, right: Right, now: float) -> str:
        """Leave to read or write ``path`` at the SE of this name, for `LIFETIME` from ``now`` (s) on."""
        claims = {
            "ver": "scitoken:2.0",
            "iss": ISSUER,
            "sub": "gridproof",
            "aud": se,
            "scope": _SCOPES[right].format(path=path),
            "iat": int(now),
            "nbf": int(now) - _SKEW,
            "exp": int(now) + LIFETIME,
            "jti": str(uuid.uuid4()),
        }
        header = {"alg": "ES256", "typ": "JWT", "kid": _KEY_ID}
        signed = f"{_encoded(header)}.{_encoded(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"Bearer%20{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def publish(self, cache: Path) -> Path:
        """Put the public key where SEs with ``XDG_CACHE_HOME=cache`` look for it first; its file.

        The library that they verify tokens with would otherwise ask the issuer by HTTPS.
        """
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "EC", "crv": "P-256", "kid": _KEY_ID, "alg": "ES256", "use": "sig"}
        key["x"], key["y"] = (_base64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
        known = {"jwks": {"keys": [key]}, "expires": _NEVER, "next_update": _NEVER}
        path = cache / "scitokens" / "scitokens_cpp.sqllite"
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS keycache"
                " (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)"
            )
            database.execute("REPLACE INTO keycache VALUES (?, ?)", (ISSUER, json.dumps(known)))
        return path


def _encoded(part: dict[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
