"""The principals of the tests of authentication, once for all: what their clients know, and what is known of them.

Nothing but the standard library is needed here: Crossbar.io's workers import it, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROLE = "guest"
"""Role of whoever has logged in by something; the others are ``anonymous``."""


@dataclass(frozen=True)
class Principal:
    """Somebody who can log in.

    :ivar authid: who it is.
    :ivar method: the authmethod.
    :ivar secret: what its client needs: ticket, secret, password, or the private key in hexadecimal digits.
    :ivar wrong: something of that kind which is not it.
    :ivar known: what is to be known of it for a login, under the keys of the configuration.
    """

    authid: str
    method: str
    secret: str
    wrong: str
    known: dict[str, Any]

    @property
    def found(self) -> dict[str, Any]:
        """What an authenticator answers: of cryptosign it is one key, under a name of its own."""
        found = {**self.known, "role": ROLE}
        if self.method == "cryptosign":
            found["pubkey"] = found.pop("authorized_keys")[0]
        return found


SECOND_KEY = "ff" * 32
"""Another private key, for a principal of a test's own."""
_SCRAM_MEMORY = 512

PRINCIPALS = {
    name: Principal(authid, method, secret, wrong, known)
    for name, authid, method, secret, wrong, known in (
        ("ticket", "tina", "ticket", "a ticket of Tina's", "another ticket", {"ticket": "a ticket of Tina's"}),
        ("wampcra", "carl", "wampcra", "the secret of Carl", "no secret", {"secret": "the secret of Carl"}),
        (
            "wampcra-salted",
            "sally",
            "wampcra",
            "the secret of Sally",
            "no secret",
            {"secret": "the secret of Sally", "salt": "salt of Sally", "iterations": 100, "keylen": 32},
        ),
        (
            "scram-argon2id",
            "sam",
            "scram",
            "the password of Sam",
            "no password",
            {
                "kdf": "argon2id-13",
                "iterations": 4,
                "memory": _SCRAM_MEMORY,
                "salt": "ffeeddccbbaa99887766554433221100",
                "stored-key": "67bf05b4f18b983e54de19d10ed2f3938edb2716f052d4e3c827ce03e7f0aff7",
                "server-key": "edb036a62d29159611250e707d078d2fcbe19929e9b608dd1da0f85a4ccb6118",
            },
        ),
        (
            "scram-pbkdf2",
            "paul",
            "scram",
            "the password of Paul",
            "no password",
            {
                "kdf": "pbkdf2",
                "iterations": 4096,
                # It has no meaning here, but Crossbar.io wants it.
                "memory": _SCRAM_MEMORY,
                "salt": "00112233445566778899aabbccddeeff",
                "stored-key": "a9e3ba06088553aa4d705bc60720ce9590e42553d7d90e0bfec8dbe413b57ad2",
                "server-key": "4e1bad6689fe1e81290d58fb64fcda9455d5e7d98516aa8ed763974d6f8fd1f7",
            },
        ),
        (
            "cryptosign",
            "ada",
            "cryptosign",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
            {"authorized_keys": ["03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"]},
        ),
    )
}
"""By what is tested with them: an authmethod, or a way of one."""

METHODS = ("ticket", "wampcra", "scram", "cryptosign")
_LISTS = {"ticket": "principals", "wampcra": "users", "scram": "principals", "cryptosign": "principals"}


def static(method: str) -> dict[str, Any]:
    """The ``auth`` item of a method whose principals stand in the configuration."""
    principals = {item.authid: {**item.known, "role": ROLE} for item in PRINCIPALS.values() if item.method == method}
    return {"type": "static", _LISTS[method]: principals}


def by_authid(authid: object) -> Principal | None:
    """A principal."""
    return next((item for item in PRINCIPALS.values() if item.authid == authid), None)
