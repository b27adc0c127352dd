"""Asserted identity: routers believe what the proxy says of its clients (``anonymous-proxy``, ``cryptosign-proxy``)."""

from typing import Any, ClassVar

from proxy.auth.proofs import signed_challenge
from proxy.auth.routers import Answer, Client, LoginError, RouterLogin
from proxy.forwarding import backend_hello, front_welcome
from proxy.messages import Welcome, shorten
from proxy.nodekey import NodeKey

__all__ = ["AssertedIdentity", "SignedIdentity"]


class AssertedIdentity(RouterLogin):
    """By ``anonymous-proxy``: who may reach the router may say anything. See :class:`RouterLogin`."""

    def hello(self) -> list[Any]:
        """See :class:`RouterLogin`."""
        return backend_hello(self.client, authmethods=["anonymous-proxy"], authid=self.client.identity[0])

    def welcome(self, welcome: Welcome, front_sid: int) -> dict[str, Any]:
        """See :class:`RouterLogin`."""
        return front_welcome(welcome, self.client.accept, True, front_sid)


class SignedIdentity(AssertedIdentity):
    """By ``cryptosign-proxy``: the router knows the proxy by its node's key. See :class:`RouterLogin`.

    :param key: the node's.
    """

    PROVES: ClassVar[bool] = True

    def __init__(self, client: Client, key: NodeKey) -> None:
        super().__init__(client)
        self._key = key

    def hello(self) -> list[Any]:
        """See :class:`RouterLogin`."""
        return backend_hello(
            self.client,
            authmethods=["cryptosign-proxy"],
            authid=self.client.identity[0],
            authextra={"pubkey": self._key.public},
        )

    def challenge(self, authmethod: str, extra: dict[str, Any]) -> Answer:
        """See :class:`RouterLogin`. Crossbar.io 26.10 does not ask, though it could."""
        if authmethod not in ("cryptosign-proxy", "cryptosign"):
            raise LoginError(f"the router asks the proxy for {shorten(authmethod)}, expected cryptosign-proxy")
        return signed_challenge(self._key.sign, extra), {}
