"""Service credentials: the proxy logs in at the router with an account of its own."""

from typing import Any

from proxy.auth.routers import RouterLogin
from proxy.forwarding import backend_hello, front_welcome
from proxy.messages import Welcome

__all__ = ["ServiceCredential"]


class ServiceCredential(RouterLogin):
    """See :class:`RouterLogin`."""

    def hello(self) -> list[Any]:
        """See :class:`RouterLogin`."""
        return backend_hello(self.client, authmethods=["anonymous"])

    def welcome(self, welcome: Welcome, front_sid: int) -> dict[str, Any]:
        """See :class:`RouterLogin`."""
        return front_welcome(welcome, self.client.accept, False, front_sid)
