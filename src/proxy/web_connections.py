"""A client's connection that has no WAMP session: an HTTP client's, or somebody's who is sent away."""

from typing import TYPE_CHECKING

from proxy.plane import EV_CLOSED

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["WebConnection"]


class WebConnection:
    """One connection. After it was tunnelled or answered, nothing comes of it but its end.

    :param transport: the listening transport that it came through.
    :param conn: its number in the data plane.
    :param is_tunnelled: its octets go to the transport's site, or to whoever speaks another protocol.
    """

    __slots__ = ("conn", "is_tunnelled", "transport")

    front_sid = 0
    """There is no WAMP session in it."""
    is_joined = False

    def __init__(self, transport: "ProxyTransport", conn: int, *, is_tunnelled: bool = False) -> None:
        self.transport = transport
        self.conn = conn
        self.is_tunnelled = is_tunnelled

    def on_front(self, kind: int, arg: int, data: bytes) -> None:
        """An event of the connection."""
        if kind == EV_CLOSED:
            self.transport.gone(self.conn)
        else:
            self.transport.plane.abort(self.conn)

    def crashed(self) -> None:
        """Something went wrong in here."""
        self.transport.plane.abort(self.conn)

    def dismiss(self, reason: str, message: str | None = None) -> None:
        """Nobody is joined here."""

    def shut_down(self) -> None:
        """The worker ends: requests under way come to their end first, see :meth:`ProxyTransport.end_site`."""
        if self.is_tunnelled:
            self.transport.end_site()
