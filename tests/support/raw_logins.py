"""Logins of a raw client: what goes into HELLO and what answers CHALLENGE, by the specification and RFC 5802.

Written without the libraries that the clients and the proxy use, but for Ed25519.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from support.raw import ABORT, AUTHENTICATE, CHALLENGE, WELCOME, Peer, hello


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Prover:
    """Proves who a client is.

    :param method: the authmethod.
    :param authid: who it is.
    :param secret: ticket, secret, password, or private key in hexadecimal digits.

    :ivar challenge: CHALLENGE.Extra that was signed.
    :ivar server_signature: what the other side has to answer to a proof of SCRAM.
    """

    def __init__(self, method: str, authid: str, secret: str) -> None:
        self.method, self.authid, self.secret = method, authid, secret
        self.challenge: dict[str, Any] = {}
        self.server_signature = ""
        self._nonce = _text(os.urandom(16))

    @property
    def authextra(self) -> dict[str, Any]:
        """What HELLO has to say for the method."""
        if self.method == "scram":
            return {"nonce": self._nonce}
        return {"pubkey": self._key.public_key().public_bytes_raw().hex()} if self.method == "cryptosign" else {}

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.secret))

    def sign(self, extra: dict[str, Any]) -> str:
        """The signature for AUTHENTICATE."""
        self.challenge = extra
        signature: str = getattr(self, f"_{self.method}")(extra)
        return signature

    def _ticket(self, _: dict[str, Any]) -> str:
        return self.secret

    def _wampcra(self, extra: dict[str, Any]) -> str:
        key = self.secret.encode()
        if "salt" in extra:
            derived = hashlib.pbkdf2_hmac("sha256", key, extra["salt"].encode(), extra["iterations"], extra["keylen"])
            key = base64.b64encode(derived)
        return _text(hmac.digest(key, extra["challenge"].encode(), "sha256"))

    def _cryptosign(self, extra: dict[str, Any]) -> str:
        challenge = bytes.fromhex(extra["challenge"])
        return self._key.sign(challenge).hex() + challenge.hex()

    def _scram(self, extra: dict[str, Any]) -> str:
        salt, iterations, password = base64.b64decode(extra["salt"]), extra["iterations"], self.secret.encode()
        if extra["kdf"] == "pbkdf2":
            salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations, 32)
        else:
            argon = Argon2id(salt=salt, length=32, iterations=iterations, lanes=1, memory_cost=extra["memory"])
            # As autobahn has it: not the octets, but their text in base64 without padding.
            salted = base64.b64encode(argon.derive(password)).rstrip(b"=")
        message = (
            f"n={self.authid},r={self._nonce},r={extra['nonce']},s={extra['salt']},i={iterations},"
            f"c={extra.get('channel_binding') or ''},r={extra['nonce']}"
        ).encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self.server_signature = _text(hmac.digest(server_key, message, "sha256"))
        return _text(bytes(left ^ right for left, right in zip(client_key, signature, strict=True)))


def log_in(peer: Peer, prover: Prover, realm: str = "realm1", **details: Any) -> list[Any]:
    """HELLO, and AUTHENTICATE where it is asked for; the last message: WELCOME or ABORT.

    :param details: more of HELLO.Details.
    """
    named = {"authmethods": [prover.method], "authid": prover.authid, "authextra": prover.authextra}
    peer.send(hello(realm, **{**named, **details}))
    answer = peer.recv_type(CHALLENGE, WELCOME, ABORT)
    if answer[0] == CHALLENGE:
        assert answer[1] == prover.method
        peer.send([AUTHENTICATE, prover.sign(answer[2]), {}])
        answer = peer.recv_type(WELCOME, ABORT)
    if answer[0] == WELCOME:
        peer.session, peer.welcome = answer[1], answer
    return answer
