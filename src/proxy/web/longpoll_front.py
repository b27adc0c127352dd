"""Long-poll clients as the data plane and the control plane see them, see :mod:`proxy.inner_clients`."""

from typing import TYPE_CHECKING, Any

from proxy.config.cookies import CookieConfig
from proxy.config.web import LongPollConfig
from proxy.config.websocket_items import RawSocketItem
from proxy.inner_clients import Caller, InnerEntrance, InnerSession

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["Caller", "LongPollEntrance", "LongPollSession"]


class _Item(RawSocketItem):
    """What :class:`LongPollConfig` is for the data plane."""

    cookie: CookieConfig | None = None


class LongPollSession(InnerSession):
    """A client's connection and its session, as :class:`InnerSession`."""

    __slots__ = ()

    def transport_details(self) -> dict[str, Any]:
        """What the router is told of the client's connection: there is HTTP between the client and the proxy."""
        details = super().transport_details()
        return details | {
            "type": "longpoll",
            # Autobahn has no name for it; messages are whole requests and responses, without frames of their own.
            "channel_framing": "native",
            "websocket_protocol": self.subprotocol,
            "http_headers_sent": {},
        }


class LongPollEntrance(InnerEntrance):
    """The way in for the long-poll clients of one path.

    :param transport: the listening transport that they connect to.
    :param path: of the service.
    :param config: of the service.
    """

    SESSION = LongPollSession

    def __init__(self, transport: "ProxyTransport", path: str, config: LongPollConfig) -> None:
        item = _Item.model_construct(
            serializers=config.serializers,
            auth=config.auth,
            session_ids=config.session_ids,
            limits=config.limits,
            cookie=config.cookie,
        )
        super().__init__(transport, path, item)
