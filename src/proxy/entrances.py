"""Ways in for WAMP clients: what happens between an accepted connection and a login depends on the one that was taken.

A ``websocket`` or ``rawsocket`` transport is one. A ``universal`` transport has one for RawSocket and one for each of
its WebSocket paths; services on the paths of a web transport may be further ones.
"""

import logging
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from proxy.auth import Authentication
from proxy.config import EntranceConfig, RawSocketKeys, TesteeTransport
from proxy.cookies import CookieTracker
from proxy.echo import EchoSession
from proxy.front_params import connection_params, handshake_policy
from proxy.handshake import Accepted, Request, accept
from proxy.login_limits import LoginLimits
from proxy.plane import CODEC_RS, CODEC_WS
from proxy.sessions import FrontSession

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["CompressionMemory", "Entrance"]

log = logging.getLogger(__name__)


class CompressionMemory:
    """What the compression of connections may take together.

    :param octets: so much.
    :param label: whose it is, for the log.
    """

    __slots__ = ("_is_full", "_label", "_octets", "_taken", "left")

    def __init__(self, octets: int, label: str) -> None:
        self.left = octets
        self._octets = octets
        self._label = label
        self._taken: dict[int, int] = {}
        self._is_full = False

    def take(self, conn: int, octets: int) -> None:
        """A connection has so much of it, until :meth:`free`."""
        self._taken[conn] = octets
        self.left -= octets

    def free(self, conn: int) -> None:
        """A connection is gone. No error if it had none."""
        self.left += self._taken.pop(conn, 0)
        if self._is_full and self.left >= self._octets // 2:
            self._is_full = False

    def is_short(self) -> None:
        """Somebody asked for more than is left. That is said once, and again after half of it was free."""
        if not self._is_full:
            self._is_full = True
            text = "compression_memory (%d octets) is used up: further clients get no compression on %s"
            log.warning(text, self._octets, self._label)


class Entrance:
    """One way in.

    :param transport: the listening transport that it belongs to.
    :param name: which one it is of that transport's, for people: a path, or ``rawsocket``; empty: it has no other.
    :param model: what goes for its clients. Limits that it has not are the transport's, and shared with its other
        entrances.
    :param is_service: it is a web service's; else the transport's own.

    :ivar label: transport and name, for the log.
    :ivar kind: CODEC_WS or CODEC_RS.
    :ivar params: number of its connections' parameters in the data plane, from the start on.
    :ivar cookies: None: it gives its clients none.
    :ivar logins: how many may log in.
    :ivar draws_sids: the proxy chooses the session IDs of its clients, instead of passing on those of the routers.
    :ivar connections: how many are there that came in here.
    :ivar close_ms: how long a client may take to end, ms; ``authenticator_ms``: likewise, an authenticator.
    """

    def __init__(
        self, transport: "ProxyTransport", name: str, model: EntranceConfig, *, is_service: bool = True
    ) -> None:
        controller = transport.controller
        self.transport = transport
        self.plane = transport.plane
        self.name = name
        self.model = model
        self.label = f"{transport.id} ({name})" if name else transport.id
        self.kind = CODEC_RS if isinstance(model, RawSocketKeys) else CODEC_WS
        limits = getattr(model, "limits", None)
        self.limits = transport.model.limits if limits is None else limits
        self.cookies: CookieTracker | None = None
        cookie = getattr(model, "cookie", None)
        if cookie is not None:
            # A service may have the very name of an entrance of the transport's own.
            way = f"service {name}" if is_service else name
            key = f"{transport.id}/{way}" if name else transport.id
            self.cookies = CookieTracker(cookie, controller.cookie_stores, key, controller.reactor)
        auth = None if isinstance(model, TesteeTransport) else model.auth
        self.authentication = Authentication(auth, controller, self.cookies)
        self.authenticator_ms = self.limits.authenticator_timeout
        self.draws_sids = not isinstance(model, TesteeTransport) and model.session_ids == "proxy"
        self.policy = handshake_policy(model, takes_any_path=bool(name))
        self._options = connection_params(model, self.limits)
        self.close_ms: int = self._options["close_ms"]
        self.params = 0
        self.connections = 0
        self._is_closing = False
        if self.limits is transport.model.limits:
            self.logins, self.compression = transport.logins, transport.compression
        else:
            self.logins = LoginLimits(self.limits, controller.reactor)
            self.compression = CompressionMemory(self.limits.compression_memory, f"transport {self.label}")

    # --- life ---

    def start(self) -> "Deferred[None]":
        """Get ready to authenticate. Before that nobody may come in.

        :returns: fails with InvalidConfiguration or CannotStart where an authenticator, or the store of the cookies,
            cannot be had.
        """
        ready: Deferred[None] = self.authentication.start()
        if self.cookies is not None:
            cookies = self.cookies
            ready.addCallback(lambda _: cookies.start())
        return ready.addCallback(self._started)

    def _started(self, _: None) -> None:
        if self.transport.entrance is not self:  # else all that the transport accepts has its parameters
            self.params = self.plane.add_params(**self._options)

    def close(self) -> None:
        """Nobody comes in any more: let go of what authentication holds, once nobody is left. Idempotent."""
        self._is_closing = True
        if not self.connections:
            self._let_go()

    def _let_go(self) -> None:
        self.authentication.close()
        if self.cookies is not None:
            self.cookies.close()

    # --- connections ---

    def begin(self, conn: int) -> "FrontSession | EchoSession":
        """A connection has come in here.

        :returns: what its events go to from now on.
        """
        return EchoSession(self, conn) if isinstance(self.model, TesteeTransport) else FrontSession(self, conn)

    def accept(self, conn: int, request: Request) -> Accepted:
        """Answer an upgrade request, with compression if there is memory for it. ``conn`` holds it until gone().

        :raises HttpError: see :func:`proxy.handshake.accept`.
        """
        assert self.policy is not None, "an HTTP head at an entrance for RawSocket"
        memory = self.compression
        accepted = accept(request, self.policy)
        if accepted.compression is not None and accepted.compression.memory > memory.left:
            memory.is_short()
            accepted = accept(request, self.policy, memory.left)
        if accepted.compression is not None and accepted.compression.memory:
            memory.take(conn, accepted.compression.memory)
        return accepted

    def upgrade(self, conn: int, accepted: Accepted, response: bytes) -> None:
        """Have a connection speak WebSocket from now on.

        :param response: the 101 head.
        """
        keywords: dict[str, Any] = accepted.keywords
        if self.params != self.transport.params:
            keywords = {**keywords, "params": self.params}
        self.plane.upgrade(conn, response, accepted.serializer, **keywords)

    def gone(self, conn: int) -> None:
        """A connection that came in here is closed."""
        self.compression.free(conn)
        self.connections -= 1
        if self._is_closing and not self.connections:
            self._let_go()
        self.transport.gone(conn)
