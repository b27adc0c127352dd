"""Who may log in: the same users, with the same secrets, as the load generators make up (native/auth.c)."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "secret"
#: Sessions take turns with them.
COUNT = 100
ROLE = "anonymous"


def _public_key(secret: str) -> str:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(secret.encode()).digest())
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


@cache
def methods() -> dict[str, dict[str, Any]]:
    """The `auth` item of a listening transport, as Crossbar.io and wamp-proxy have it: all methods with all users."""
    secrets = {f"user{i}": f"{SECRET}-user{i}" for i in range(COUNT)}
    return {
        "anonymous": {"type": "static", "role": ROLE},
        "ticket": {
            "type": "static",
            "principals": {authid: {"ticket": secret, "role": ROLE} for authid, secret in secrets.items()},
        },
        "wampcra": {
            "type": "static",
            "users": {authid: {"secret": secret, "role": ROLE} for authid, secret in secrets.items()},
        },
        "cryptosign": {
            "type": "static",
            "principals": {
                authid: {"authorized_keys": [_public_key(secret)], "role": ROLE} for authid, secret in secrets.items()
            },
        },
    }
