"""``websocket.testee``: a WebSocket connection that gets back what it sends, without WAMP."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxy.handshake import HttpError, parse_request
from proxy.peers import Peer, read_intro
from proxy.plane import EV_CLOSED, EV_HEAD, EV_VIOLATION
from proxy.sessions import head_error

if TYPE_CHECKING:
    from proxy.entrances import Entrance

__all__ = ["EchoSession"]

# No serializer: the data plane looks at no message.
SER_NONE: Final = 0


class EchoSession:
    """One connection; the data plane does all the work after the handshake.

    :param entrance: the way that it came in.
    :param conn: its number in the data plane.
    """

    __slots__ = ("conn", "entrance", "plane", "transport")

    front_sid = 0
    """There is no WAMP in it."""
    is_joined = True
    """As long as it is there, it is in use."""

    def __init__(self, entrance: "Entrance", conn: int) -> None:
        self.entrance = entrance
        self.transport = entrance.transport
        self.plane = entrance.plane
        self.conn = conn

    def on_front(self, kind: int, arg: int, data: bytes) -> None:
        """An event of the connection."""
        if kind == EV_HEAD:
            self._on_head(*read_intro(data))
        elif kind == EV_CLOSED:
            self.entrance.gone(self.conn)
        elif kind == EV_VIOLATION:
            self.plane.reply(self.conn, head_error(arg).to_bytes())
        else:
            self.plane.abort(self.conn)

    def _on_head(self, peer: Peer, head: bytes) -> None:
        try:
            accepted = self.entrance.accept(self.conn, parse_request(head, is_secure=peer.is_secure))
        except HttpError as error:
            self.plane.reply(self.conn, error.to_bytes())
            return
        self.entrance.upgrade(self.conn, replace(accepted, serializer=SER_NONE), accepted.response)
        self.plane.link_self(self.conn)

    def crashed(self) -> None:
        """Something went wrong in here."""
        self.plane.abort(self.conn)

    def dismiss(self, reason: str, message: str | None = None) -> None:
        """Its transport is stopped or drained. Without WAMP nobody can be told the reason."""
        self.shut_down()

    def shut_down(self) -> None:
        """The worker ends."""
        self.plane.close(self.conn, 1001)
