"""How the proxy proves who it is where it logs in itself: its side of WAMP's authentication methods.

The same for all: logins for clients with a service account, sessions of the proxy's own, and the management realm. Some
of it autobahn has, too: its Cryptosign needs a dozen packages for wallets that are not opened here, its SCRAM fails at
what routers send for PBKDF2, and SCRAM as well as WAMP-CRA derive keys anew for each login, in the reactor's thread.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final

from autobahn.wamp.auth import compute_wcs, derive_key
from autobahn.wamp.interfaces import IAuthenticator
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, succeed

from proxy.auth.derived import Derived
from proxy.auth.routers import LoginError

__all__ = ["PROOFS", "Anonymous", "Cryptosign", "Proof", "Scram", "Ticket", "WampCra", "signed_challenge"]

_CHALLENGE_OCTETS: Final = 32
# What a router may have this process compute: seconds, not minutes. Octets of memory, and those times the iterations.
_ITERATIONS_MAX: Final = 2_000_000
_KEYLEN_MAX: Final = 256
_MEMORY_KIB_MAX: Final = 256 * 1024
_ARGON2_WORK_MAX: Final = 16 * 1024 * 1024


class Proof:
    """One login by one method. autobahn's sessions take it for an IAuthenticator.

    :param authid: None: the router's choice.
    :param authrole: likewise.
    :param authextra: what the router wants to know besides.
    :param derived: keys of earlier logins of the same account.

    :ivar authextra: for HELLO.
    """

    name: ClassVar[str]
    IS_MUTUAL: ClassVar[bool] = False
    """Whether the router proves who it is, too."""

    def __init__(
        self,
        authid: str | None = None,
        authrole: str | None = None,
        authextra: Mapping[str, Any] | None = None,
        derived: Derived | None = None,
    ) -> None:
        self.authextra: dict[str, Any] = dict(authextra or {})
        self._derived = Derived() if derived is None else derived
        # Where autobahn's session looks.
        self._args = {"authid": authid, "authrole": authrole}

    def answer(self, extra: Mapping[str, Any]) -> "str | Deferred[str]":
        """The signature for AUTHENTICATE.

        :param extra: of CHALLENGE.
        :returns: the signature, now or later.
        :raises LoginError: the challenge is none, or cannot be met; the Deferred fails with it likewise.
        """
        raise NotImplementedError

    def verify(self, authextra: Mapping[str, Any] | None) -> None:
        """WELCOME came.

        :param authextra: of its details.
        :raises LoginError: the router has not proven who it is.
        """

    # --- IAuthenticator ---

    def on_challenge(self, session: Any, challenge: Any) -> "str | Deferred[str]":
        """CHALLENGE came."""
        return self.answer(challenge.extra or {})

    def on_welcome(self, session: Any, authextra: Mapping[str, Any] | None) -> str | None:
        """WELCOME came.

        :returns: why the router is not to be trusted; None: it is.
        """
        try:
            self.verify(authextra)
        except LoginError as error:
            return str(error)
        return None


class Anonymous(Proof):
    """The method ``anonymous``."""

    name = "anonymous"

    def answer(self, extra: Mapping[str, Any]) -> str:
        """See :class:`Proof`."""
        raise LoginError("anonymous: expected no challenge")


class Ticket(Proof):
    """The method ``ticket``.

    :param ticket: the account's; ``more`` as for :class:`Proof`.
    """

    name = "ticket"

    def __init__(self, ticket: str, **more: Any) -> None:
        super().__init__(**more)
        self._ticket = ticket

    def answer(self, extra: Mapping[str, Any]) -> str:
        """See :class:`Proof`."""
        return self._ticket


class WampCra(Proof):
    """The method ``wampcra``, salted if the router says so ("Challenge Response Authentication").

    :param secret: the account's; ``more`` as for :class:`Proof`.
    """

    name = "wampcra"

    def __init__(self, secret: str, **more: Any) -> None:
        super().__init__(**more)
        self._secret = secret

    def answer(self, extra: Mapping[str, Any]) -> "str | Deferred[str]":
        """See :class:`Proof`."""
        challenge, salt = extra.get("challenge"), extra.get("salt")
        if not isinstance(challenge, str) or not challenge:
            raise LoginError("wampcra: expected a challenge")
        if salt is None:
            return _text(compute_wcs(self._secret, challenge))
        iterations, keylen = extra.get("iterations", 1000), extra.get("keylen", 32)
        for number, limit, name in ((iterations, _ITERATIONS_MAX, "iterations"), (keylen, _KEYLEN_MAX, "keylen")):
            if type(number) is not int or not 1 <= number <= limit:
                raise LoginError(f"wampcra: expected {name} from 1 to {limit}, got {number!r:.20}")
        if not isinstance(salt, str):
            raise LoginError("wampcra: expected a salt that is a string")
        key = self._derived.get(
            (salt, iterations, keylen), lambda: bytes(derive_key(self._secret, salt, iterations, keylen))
        )
        if isinstance(key, bytes):
            return _text(compute_wcs(key, challenge))
        return key.addCallback(lambda key: _text(compute_wcs(key, challenge)))


class Cryptosign(Proof):
    """The method ``cryptosign``, without channel binding.

    :param privkey: the Ed25519 private key in hexadecimal digits; ``more`` as for :class:`Proof`.
    """

    name = "cryptosign"

    def __init__(self, privkey: str, **more: Any) -> None:
        super().__init__(**more)
        self._key, public = _signing_key(privkey)
        self.authextra |= {"pubkey": public, "channel_binding": None}

    def answer(self, extra: Mapping[str, Any]) -> str:
        """See :class:`Proof`."""
        return signed_challenge(self._key.sign, extra)


@lru_cache(maxsize=64)
def _signing_key(privkey: str) -> tuple[Ed25519PrivateKey, str]:
    """A private key, and the hex of its public one: worked out once, not for each login."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(privkey))
    return key, key.public_key().public_bytes_raw().hex()


def signed_challenge(sign: Callable[[bytes], bytes], extra: Mapping[str, Any]) -> str:
    """The answer to a CHALLENGE of cryptosign: signature and challenge ("Cryptosign-based Authentication").

    :param sign: gives the signature of octets.
    :raises LoginError: the challenge is none, or the router wants it bound to a TLS channel, which there is not.
    """
    if extra.get("channel_binding") is not None:
        raise LoginError("cryptosign: expected a challenge without channel binding")
    try:
        octets = bytes.fromhex(extra["challenge"])
    except (KeyError, TypeError, ValueError):
        octets = b""
    # A challenge of another length could be a message that others would take for signed.
    if len(octets) != _CHALLENGE_OCTETS:
        raise LoginError(f"cryptosign: expected a challenge of {_CHALLENGE_OCTETS} octets in hexadecimal digits")
    return (sign(octets) + octets).hex()


class Scram(Proof):
    """The method ``scram``, without channel binding ("Salted Challenge Response Authentication").

    :param password: the account's.
    :param authid: of the account, in printable ASCII; ``more`` as for :class:`Proof`.
    """

    name = "scram"
    IS_MUTUAL = True

    def __init__(self, password: str, authid: str, **more: Any) -> None:
        super().__init__(authid=authid, **more)
        self._password = password.encode()
        # 18 octets take no padding in Base64, so that the router's nonce begins with this one in text form, too.
        self._nonce = base64.b64encode(os.urandom(18)).decode()
        self._authid = authid
        self._server_signature = b""
        self.authextra["nonce"] = self._nonce

    def answer(self, extra: Mapping[str, Any]) -> "Deferred[str]":
        """See :class:`Proof`."""
        nonce, salt, iterations, memory = (extra.get(key) for key in ("nonce", "salt", "iterations", "memory"))
        if not isinstance(nonce, str) or not isinstance(salt, str) or type(iterations) is not int or iterations < 1:
            raise LoginError("scram: expected a challenge with nonce, salt and iterations")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce) or not nonce.isascii():
            raise LoginError("scram: expected a nonce that begins with the one that was sent")
        kdf = str(extra.get("kdf"))
        _check_work(kdf, iterations, memory)
        try:
            octets = base64.b64decode(salt)
        except ValueError:
            raise LoginError("scram: expected a salt in Base64") from None
        # As routers compute it; RFC 5802 would have the channel binding in Base64.
        text = f"n={self._authid},r={self._nonce},r={nonce},s={salt},i={iterations},c=,r={nonce}"
        key = self._derived.get(
            (kdf, salt, iterations, memory), lambda: _salted(self._password, kdf, octets, iterations, memory)
        )
        waiting = succeed(key) if isinstance(key, bytes) else key
        return waiting.addCallback(self._sign, text.encode())

    def _sign(self, salted: bytes, message: bytes) -> str:
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()

    def verify(self, authextra: Mapping[str, Any] | None) -> None:
        """See :class:`Proof`: only a router that knows the account's keys can sign."""
        text = (authextra or {}).get("scram_server_signature")
        try:
            given = base64.b64decode(text or "", validate=True)
        except (TypeError, ValueError):
            given = b""
        if not self._server_signature or not hmac.compare_digest(given, self._server_signature):
            raise LoginError("scram: the router's signature is wrong")


def _check_work(kdf: str, iterations: int, memory: Any) -> None:
    """Refuse a function that is not known, and more work than is to be done for anybody.

    :raises LoginError: it is.
    """
    if kdf not in ("pbkdf2", "argon2id-13"):
        raise LoginError(f"scram: expected pbkdf2 or argon2id-13 as kdf, got {kdf[:40]!r}")
    if kdf == "pbkdf2" and iterations <= _ITERATIONS_MAX:
        return
    is_memory = kdf == "argon2id-13" and type(memory) is int and 8 <= memory <= _MEMORY_KIB_MAX
    if is_memory and iterations * memory <= _ARGON2_WORK_MAX:
        return
    raise LoginError(f"scram: {kdf} with {iterations} iterations and memory {memory!r:.20} is out of range")


def _salted(password: bytes, kdf: str, salt: bytes, iterations: int, memory: Any) -> bytes:
    """The salted password."""
    if kdf == "pbkdf2":
        return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError:
        raise LoginError("scram: argon2id-13 needs cryptography 44 or newer") from None
    try:
        octets = Argon2id(salt=salt, length=32, iterations=iterations, lanes=1, memory_cost=memory).derive(password)
    except ValueError as error:  # a salt that is too short
        raise LoginError(f"scram: argon2id-13: {error}") from None
    # As Crossbar.io and autobahn have it: the hash in the form in which its text form has it.
    return base64.b64encode(octets).rstrip(b"=")


def _text(signature: Any) -> str:
    return signature.decode("ascii") if isinstance(signature, bytes) else str(signature)


PROOFS: Final[Mapping[str, type[Proof]]] = {kind.name: kind for kind in (Anonymous, Ticket, WampCra, Scram, Cryptosign)}
"""By name of the method. Keywords are the keys of the configuration."""

IAuthenticator.register(Proof)
