"""Asserted identity: the router believes what the proxy says of its clients (``anonymous-proxy``)."""

from typing import Any

from proxy.auth.routers import RouterLogin
from proxy.forwarding import backend_hello, front_welcome
from proxy.messages import Welcome

__all__ = ["AssertedIdentity"]


class AssertedIdentity(RouterLogin):
    """See :class:`RouterLogin`."""

    def hello(self) -> list[Any]:
        """See :class:`RouterLogin`."""
        return backend_hello(self.client, authmethods=["anonymous-proxy"], authid=self.client.identity[0])

    def welcome(self, welcome: Welcome, front_sid: int) -> dict[str, Any]:
        """See :class:`RouterLogin`."""
        return front_welcome(welcome, self.client.accept, True, front_sid)
