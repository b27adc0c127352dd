"""Listening transports: an address that all data threads accept on, the ways in there, and who came through them."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import DeferredList, inlineCallbacks, maybeDeferred
from twisted.python.failure import Failure

from proxy.config import MqttTransport, TransportConfig, UniversalTransport, WebTransport
from proxy.config.redaction import redacted
from proxy.echo import EchoSession
from proxy.entrances import CompressionMemory, Entrance
from proxy.front_params import SERVER_NAME, connection_params, limit_params
from proxy.handshake import HttpError, peek_request
from proxy.lifecycle import State
from proxy.listening import ListeningTransport, utc_now
from proxy.login_limits import LoginLimits
from proxy.peers import Peer, read_intro
from proxy.plane import CLOSED_TLS, EV_CLOSED, EV_HEAD, EV_LISTEN, EV_OPEN, EV_RAW, EV_VIOLATION, pack_networks
from proxy.refusals import Tally
from proxy.sessions import FrontSession, head_error
from proxy.web_connections import WebConnection

if TYPE_CHECKING:
    from proxy.controller import ProxyController
    from proxy.mqtt.bridge import MqttBridge
    from proxy.tls.server import ServerTls
    from proxy.web.site import WebSite

__all__ = ["ProxyTransport"]

log = logging.getLogger(__name__)

# Between two lines about clients whose TLS handshake failed.
_TLS_LINE_SECONDS: Final = 10.0
# What asks for nothing but to be shown something: an entrance for WebSocket answers it itself.
_PLAIN_METHODS: Final = ("GET", "HEAD")


class ProxyTransport(ListeningTransport):
    """One item of ``transports``.

    Parameters as :class:`ListeningTransport`.

    :ivar entrance: the way in, where there is only one; None: which one it is, the first octets of a client tell.
    :ivar rawsocket: the way in for RawSocket beside others; None: there is none.
    :ivar websockets: ways in for WebSocket beside others, by the first component of the path.
    :ivar site: web services; None: there are none.
    :ivar raw: who speaks another protocol (MQTT), which the first octet tells; None: nobody.
    :ivar tls: None: clients connect without.
    :ivar logins: how many may log in; ``compression``: what compression may take: for all ways in that have no limits
        of their own.
    :ivar sessions: the connections that are there, by number, each with a session or without.
    :ivar tunnels: how many of them are not the data plane's, but web services'.
    :ivar accepted: connections accepted ever; ``live``: sessions that are joined; ``joined``: sessions joined ever;
        ``denied``: logins that were refused; ``tls_failed``: TLS handshakes that were not finished.
    :ivar refused: messages of its clients that could not be passed on to their router.
    """

    def __init__(
        self, controller: "ProxyController", transport_id: str, config: TransportConfig | Mapping[str, Any]
    ) -> None:
        super().__init__(controller, transport_id, config)
        model = self.model
        self.logins = LoginLimits(model.limits, controller.reactor)
        self.compression = CompressionMemory(model.limits.compression_memory, f"transport {transport_id}")
        self.sessions: dict[int, FrontSession | EchoSession | WebConnection] = {}
        self.refused = Tally(f"transport {transport_id}", controller.reactor)
        self.accepted = self.live = self.joined = self.denied = self.tunnels = self.tls_failed = 0
        self._next_tls_line = 0.0
        self.created_at = utc_now()
        self.tls: ServerTls | None = None
        self.raw: MqttBridge | None = None
        self.entrance: Entrance | None = None
        self.rawsocket: Entrance | None = None
        self.websockets: dict[str, Entrance] = {}
        self.site: WebSite | None = None
        if isinstance(model, UniversalTransport):
            if model.rawsocket is not None:
                self.rawsocket = Entrance(self, "rawsocket", model.rawsocket, is_service=False)
            for path, item in model.websocket.items():
                self.websockets[path.strip("/")] = Entrance(self, path, item, is_service=False)
            if model.web is not None:
                self.site = self._make_site(model.web.paths, model.web.options)
            if model.mqtt is not None:
                self.raw = self._make_mqtt("mqtt", model.mqtt)
        elif isinstance(model, WebTransport):
            self.site = self._make_site(model.paths, model.options)
        elif isinstance(model, MqttTransport):
            self.raw = self._make_mqtt("", model)
        else:
            self.entrance = Entrance(self, "", model, is_service=False)
        # Waits for those who have connected and not said anything yet (IDelayedCall).
        self._lingering: Any = None
        self._has_lingered = False
        self.is_forgotten = False
        self._is_site_ending = False
        # Until the certificate is not needed any more; until requests under way are cut off.
        self._tls_timer: Any = None
        self._tunnel_timer: Any = None

    def _make_site(self, paths: Any, options: Any) -> "WebSite":
        # Twisted Web takes memory and time that only those should pay who use it.
        from proxy.web.site import WebSite

        return WebSite(self, paths, options)

    def _make_mqtt(self, name: str, config: Any) -> "MqttBridge":
        # It takes an optional package; that this is there has been checked with the configuration.
        from proxy.mqtt.bridge import MqttBridge

        return MqttBridge(self, name, config)

    # --- getting ready ---

    @property
    def entrances(self) -> list[Entrance]:
        """The ways in that are the transport's own; those on paths of its site are services'."""
        first = self.entrance or self.rawsocket
        return [*([first] if first is not None else []), *self.websockets.values()]

    @inlineCallbacks
    def get_ready(self) -> Any:
        """See :class:`ListeningTransport`."""
        for entrance in self.entrances:
            yield entrance.start()
        config = getattr(self.model.endpoint, "tls", None)
        if config is not None:
            self.tls = self.controller.tls_contexts.serve(config, f"transport {self.id}")
        if self.site is not None:
            yield self.site.start()
        if self.raw is not None:
            yield self.raw.start()

    def close_helpers(self) -> None:
        """Let go of what authentication holds, of the site and of the certificates."""
        for entrance in self.entrances:
            entrance.close()
        self.end_site()
        self._close_tls()

    def listener_params(self) -> dict[str, Any]:
        """See :class:`ListeningTransport`."""
        limits, endpoint = self.model.limits, self.model.endpoint
        params = limit_params(limits) if self.entrance is None else connection_params(self.entrance.model, limits)
        if self.rawsocket is not None:
            params["rawsocket"] = self.rawsocket.params
        if self.raw is not None:
            params["raw_first"] = self.raw.FIRST_OCTET
        if self.tls is not None:
            params["tls"] = self.tls.number
        if endpoint.proxy_protocol:
            params["proxy_from"] = pack_networks(endpoint.proxy_protocol)
        return params

    def listen(self) -> None:
        """See :class:`ListeningTransport`."""
        super().listen()
        if self.entrance is not None:
            self.entrance.params = self.params

    # --- what the management API sees ---

    def marshal(self) -> dict[str, Any]:
        """What the management API shows: id, type, config, created_at and listening_since (ISO 8601), state."""
        return {
            "id": self.id,
            "type": self.model.type,
            "config": redacted(self.config),
            "created_at": self.created_at,
            "listening_since": self.listening_since,
            "state": int(self.state),
        }

    @property
    def takes_logins(self) -> bool:
        """Whether clients may log in; if not, a connection whose session is over is closed."""
        if self.successor is not None:
            return self.latest.takes_logins
        is_over = self.state in (State.STOPPING, State.STOPPED, State.FAILED)
        return not is_over and not self.controller.is_stopping

    def turn_away(self, *, even_under_way: bool) -> None:
        """Close the connections on which nobody has logged in.

        :param even_under_way: those, too, whose login waits for a router.
        """
        if self.takes_logins:
            return  # another one has taken its place
        for other in self.controller.retired:
            if other is not self and other.latest is self:
                other.turn_away(even_under_way=even_under_way)
        for session in list(self.sessions.values()):
            if isinstance(session, FrontSession) and (even_under_way or not session.is_joining):
                session.turn_away()

    # --- events ---

    def on_event(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """An event of a client's connection or of the listener, see :class:`proxy.plane.Owner`."""
        if kind == EV_LISTEN:
            self.on_listen(arg & 0xFF, arg >> 8)
        else:
            self.on_client(self.entrance, kind, conn, arg, data)

    def on_client(self, entrance: Entrance | None, kind: int, conn: int, arg: int, data: bytes) -> None:
        """An event of a client's connection.

        :param entrance: the way in where it has connected; None: its first event tells.
        """
        session = self.sessions.get(conn)
        if session is None:
            if kind == EV_CLOSED:
                if arg & 0xFF == CLOSED_TLS:
                    self._tls_failed(data)
                return
            # The data plane may have accepted it long before, and it says something only now.
            if self._is_given_up or not self.takes_logins:
                self.plane.abort(conn)
                return
            self.accepted += 1
            entrance = entrance or self._find_entrance(kind, data)
            if entrance is None:
                self._without_entrance(kind, conn, arg, data)
                return
            session = self.sessions[conn] = entrance.begin(conn)
            entrance.connections += 1
        session.on_front(kind, arg, data)

    def _tls_failed(self, reason: bytes) -> None:
        """Somebody's handshake failed. That may be anybody, any number of times, so only now and then it is logged."""
        self.tls_failed += 1
        now = self.controller.reactor.seconds()
        if now >= self._next_tls_line:
            self._next_tls_line = now + _TLS_LINE_SECONDS
            text = "a client's TLS handshake on transport %s failed: %s (%d of them so far)"
            log.info(text, self.id, reason.decode("utf-8", "replace") or "no reason given", self.tls_failed)

    def _find_entrance(self, kind: int, data: bytes) -> Entrance | None:
        """Where somebody comes in, by the first event of the connection; None: this is no WAMP client."""
        if kind == EV_OPEN:
            return self.rawsocket
        if kind != EV_HEAD:
            return None
        try:
            method, path = peek_request(read_intro(data)[1])
        except HttpError:
            return None  # whoever reads it in full says what is wrong
        entrance = self.websocket_at(path)
        if entrance is None and self.site is not None:
            entrance = self.site.websocket_at(path)
        if entrance is not None and method not in _PLAIN_METHODS and self.site is not None:
            return None
        return entrance

    def websocket_at(self, path: str) -> Entrance | None:
        """The way in for WebSocket beside others that has a path; those of services come after it.

        :param path: of a request, percent-decoded but for encoded slashes.
        """
        return self.websockets.get(_first_component(path))

    def _without_entrance(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """The first event of a connection that is not a WAMP client's."""
        connection = self.sessions[conn] = WebConnection(self, conn)
        target = {EV_HEAD: self.site, EV_RAW: self.raw}.get(kind)
        if target is not None:
            self._tunnel(connection, target, *read_intro(data))
        elif kind == EV_HEAD:
            self._answer(conn, HttpError(404, "there is nothing at this path"))
        elif kind == EV_VIOLATION:
            self._answer(conn, head_error(arg))
        else:
            self.plane.abort(conn)

    def _tunnel(self, connection: WebConnection, target: Any, peer: Peer, head: bytes) -> None:
        try:
            target.tunnel(connection.conn, peer, head)
        except OSError as error:
            log.error("a client of transport %s is refused: %s", self.id, error)
            self._answer(connection.conn, HttpError(503, "the server is busy, try again later"))
        else:
            connection.is_tunnelled = True
            self.tunnels += 1

    def _answer(self, conn: int, error: HttpError) -> None:
        error.headers.insert(0, ("Server", SERVER_NAME))
        self.plane.reply(conn, error.to_bytes())

    def on_crash(self, conn: int) -> None:
        """See :class:`proxy.plane.Owner`."""
        session = self.sessions.get(conn)
        if session is not None:
            session.crashed()

    def gone(self, conn: int) -> None:
        """A connection is closed."""
        session = self.sessions.pop(conn)
        if isinstance(session, WebConnection) and session.is_tunnelled:
            self.tunnels -= 1
        self._forget()

    # --- the end ---

    def turn_all_away(self) -> None:
        """See :class:`ListeningTransport`."""
        for session in list(self.sessions.values()):
            session.shut_down()

    def end_site(self) -> None:
        """No web service any more, and no other protocol: what is under way may come to its end, within
        ``close_timeout``. Idempotent."""
        parts = [part for part in (self.site, self.raw) if part is not None]
        if not parts or self._is_site_ending:
            return
        self._is_site_ending = True
        ends = [maybeDeferred(part.stop).addErrback(self._site_failed) for part in parts]
        DeferredList(ends).addCallback(self._site_ended)

    def _site_failed(self, failure: Failure) -> None:
        log.error("error while a part of transport %s was stopped\n%s", self.id, failure.getTraceback())

    def _site_ended(self, _: Any) -> None:
        if self.tunnels:
            seconds = self.model.limits.close_timeout / 1000
            self._tunnel_timer = self.controller.reactor.callLater(seconds, self._cut_tunnels)

    def _cut_tunnels(self) -> None:
        self._tunnel_timer = None
        for conn, session in self.sessions.items():
            if isinstance(session, WebConnection):
                self.plane.abort(conn)

    def on_unlistened(self) -> None:
        """See :class:`ListeningTransport`."""
        self.end_site()
        if self.tls is not None and self._tls_timer is None and not self.is_forgotten:
            # Some may be in the middle of their handshake.
            seconds = 0 if self.controller.is_stopping else self.model.limits.handshake_timeout / 1000
            self._tls_timer = self.controller.reactor.callLater(seconds, self._close_tls)
        self._forget()

    def _close_tls(self) -> None:
        timer, self._tls_timer = self._tls_timer, None
        if timer is not None and timer.active():
            timer.cancel()
        tls, self.tls = self.tls, None
        if tls is not None:
            tls.close()

    def _forget(self) -> None:
        """Once it neither listens nor has a session, no more event can come, but of who has not said anything yet.

        Those are cut off; where another transport has taken the place of this one, only after their deadline.
        """
        is_over = self.state in (State.STOPPED, State.FAILED) or (self._is_given_up and not self.is_listening)
        if self.sessions or not is_over or self._lingering is not None:
            return
        if self.successor is not None and not self._has_lingered and not self.controller.is_stopping:
            seconds = self.model.limits.handshake_timeout / 1000
            self._lingering = self.controller.reactor.callLater(seconds, self._has_waited)
            return
        self.is_forgotten = True
        self.close_helpers()
        self.plane.drop_owner(self.number)

    def _has_waited(self) -> None:
        self._lingering = None
        self._has_lingered = True
        self._forget()

    def settle(self) -> None:
        """The worker ends: whoever has not said anything yet is not waited for."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._has_waited()


def _first_component(path: str) -> str:
    """Of a percent-decoded path; empty: it is the root."""
    return next((part for part in path.split("/") if part), "")
