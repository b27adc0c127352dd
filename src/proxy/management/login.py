"""Cryptosign and SCRAM as a client.

autobahn has both: its Cryptosign needs a dozen packages for wallets that are not opened here, and its SCRAM fails at
what routers send for PBKDF2.
"""

import base64
import hashlib
import hmac
import os
from typing import Any, ClassVar, Final

from autobahn.wamp.interfaces import IAuthenticator
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

__all__ = ["Cryptosign", "Scram"]

_CHALLENGE_OCTETS: Final = 32
# What a router may have this process compute: seconds, not minutes. Octets of memory, and those times the iterations.
_ITERATIONS_MAX: Final = 2_000_000
_MEMORY_KIB_MAX: Final = 256 * 1024
_ARGON2_WORK_MAX: Final = 16 * 1024 * 1024


class _Login:
    """What autobahn's session asks of an IAuthenticator."""

    name: ClassVar[str]

    def __init__(self, authid: str | None, authrole: str | None, authextra: dict[str, Any] | None) -> None:
        self.authextra = dict(authextra or {})
        # Where autobahn's session looks.
        self._args = {"authid": authid, "authrole": authrole}

    def on_welcome(self, session: Any, authextra: dict[str, Any] | None) -> str | None:
        """WELCOME came.

        :returns: why the router is not to be trusted; None: it is.
        """
        return None


class Cryptosign(_Login):
    """The method ``cryptosign``, without channel binding.

    :param privkey: the Ed25519 private key in hexadecimal digits.
    :param authid: None: the router finds it by the public key.
    :param authrole: None: the router's choice.
    :param authextra: more of what the router wants to know.
    """

    name = "cryptosign"

    def __init__(
        self,
        privkey: str,
        authid: str | None = None,
        authrole: str | None = None,
        authextra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(authid, authrole, authextra)
        self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(privkey))
        self.authextra |= {"pubkey": self._key.public_key().public_bytes_raw().hex(), "channel_binding": None}

    def on_challenge(self, session: Any, challenge: Any) -> str:
        """The answer to CHALLENGE: signature and challenge ("Cryptosign-based Authentication").

        :raises RuntimeError: the challenge is none.
        """
        try:
            octets = bytes.fromhex(challenge.extra["challenge"])
        except (KeyError, TypeError, ValueError):
            octets = b""
        # A challenge of another length could be a message that others would take for signed.
        if len(octets) != _CHALLENGE_OCTETS:
            raise RuntimeError(f"cryptosign: expected a challenge of {_CHALLENGE_OCTETS} octets in hexadecimal digits")
        return (self._key.sign(octets) + octets).hex()


class Scram(_Login):
    """The method ``scram``, without channel binding; for one login ("Salted Challenge Response Authentication").

    :param password: of the user.
    :param authid: of the user, in printable ASCII.
    :param authrole: None: the router's choice.
    :param authextra: more of what the router wants to know.
    """

    name = "scram"

    def __init__(
        self, password: str, authid: str, authrole: str | None = None, authextra: dict[str, Any] | None = None
    ) -> None:
        super().__init__(authid, authrole, authextra)
        self._password = password.encode()
        # 18 octets take no padding in Base64, so that the router's nonce begins with this one in text form, too.
        self._nonce = base64.b64encode(os.urandom(18)).decode()
        self._authid = authid
        self._server_signature = b""
        self.authextra["nonce"] = self._nonce

    def on_challenge(self, session: Any, challenge: Any) -> "Deferred[str]":
        """The answer to CHALLENGE, in Base64. It takes a thread: hard work is what the method is about.

        :returns: fires with it; fails with RuntimeError where the challenge cannot be met.
        """
        return deferToThread(self._answer, dict(challenge.extra))

    def _answer(self, extra: dict[str, Any]) -> str:
        nonce, salt, iterations = (extra.get(key) for key in ("nonce", "salt", "iterations"))
        if not isinstance(nonce, str) or not isinstance(salt, str) or type(iterations) is not int or iterations < 1:
            raise RuntimeError("scram: expected a challenge with nonce, salt and iterations")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise RuntimeError("scram: expected a nonce that begins with the one that was sent")
        salted = self._salted(str(extra.get("kdf")), base64.b64decode(salt), iterations, extra.get("memory"))
        # As routers compute it; RFC 5802 would have the channel binding in Base64.
        text = f"n={self._authid},r={self._nonce},r={nonce},s={salt},i={iterations},c=,r={nonce}"
        message = text.encode("ascii")
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()

    def _salted(self, kdf: str, salt: bytes, iterations: int, memory: Any) -> bytes:
        """The salted password.

        :raises RuntimeError: a function that is not known, or more work than is to be done for anybody.
        """
        if kdf == "pbkdf2" and iterations <= _ITERATIONS_MAX:
            return hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        if kdf == "argon2id-13" and type(memory) is int and 8 <= memory <= _MEMORY_KIB_MAX:
            if iterations * memory <= _ARGON2_WORK_MAX:
                return _argon2id(self._password, salt, iterations, memory)
        elif kdf not in ("pbkdf2", "argon2id-13"):
            raise RuntimeError(f"scram: expected pbkdf2 or argon2id-13 as kdf, got {kdf[:40]!r}")
        raise RuntimeError(f"scram: {kdf} with {iterations} iterations and memory {memory!r:.20} is out of range")

    def on_welcome(self, session: Any, authextra: dict[str, Any] | None) -> str | None:
        """See :class:`_Login`: only a router that knows the user's keys can sign."""
        text = (authextra or {}).get("scram_server_signature")
        try:
            given = base64.b64decode(text or "", validate=True)
        except (TypeError, ValueError):
            given = b""
        if self._server_signature and hmac.compare_digest(given, self._server_signature):
            return None
        return "scram: the router's signature is wrong"


def _argon2id(password: bytes, salt: bytes, iterations: int, memory: int) -> bytes:
    """Argon2id as Crossbar.io and autobahn have it: the hash in the form in which its text form has it."""
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError as error:
        raise RuntimeError("scram: argon2id-13 needs cryptography 44 or newer") from error
    kdf = Argon2id(salt=salt, length=32, iterations=iterations, lanes=1, memory_cost=memory)
    return base64.b64encode(kdf.derive(password)).rstrip(b"=")


IAuthenticator.register(_Login)
