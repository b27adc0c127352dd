"""Listening transports: a socket that all data threads accept on, and the sessions that came through it."""

import errno
import logging
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from proxy import __version__
from proxy.addresses import Address, is_literal
from proxy.compression import Settings
from proxy.config import (
    AuthConfig,
    BackendTcp,
    RawSocketTransport,
    TcpEndpoint,
    TesteeTransport,
    TransportConfig,
    UnixEndpoint,
    WebSocketOptions,
    WebSocketTransport,
    checked,
)
from proxy.config.fields import subprotocols
from proxy.config.redaction import redacted
from proxy.config.urls import parse_websocket_url
from proxy.echo import EchoSession
from proxy.errors import CannotListen
from proxy.handshake import Accepted, Policy, Request, accept
from proxy.lifecycle import Managed, State
from proxy.listeners import open_listener, release_unix, unix_identity
from proxy.messages import SERIALIZERS
from proxy.plane import (
    CODEC_RS,
    CODEC_WS,
    EV_CLOSED,
    EV_LISTEN,
    LISTEN_CLOSED,
    LISTEN_FULL,
    LISTEN_PAUSED,
    LISTEN_RESUMED,
    Plane,
)
from proxy.refusals import Tally
from proxy.sessions import FrontSession

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["ProxyTransport"]

log = logging.getLogger(__name__)

_PAUSED_TEXT: Final = {
    0: "out of memory",
    errno.EMFILE: "out of file descriptors (limit of this process)",
    errno.ENFILE: "out of file descriptors (limit of the system)",
}

SERVER_TEXT: Final = f"wamp-proxy/{__version__}"


class ProxyTransport(Managed):
    """One item of ``transports``.

    :param controller: the worker that it belongs to.
    :param transport_id: its id.
    :param config: the item; a mapping is checked here.
    :raises ConfigError: it cannot be used.

    :ivar config: the item as it was given.
    """

    KIND = "transport"
    EXCLUDES_CALLER = True

    def __init__(
        self, controller: "ProxyController", transport_id: str, config: TransportConfig | Mapping[str, Any]
    ) -> None:
        super().__init__(controller, f'transport "{transport_id}"')
        self.plane: Plane = controller.plane
        self.id = transport_id
        self.model, self.config = checked(TransportConfig, config, controller.cbdir)
        model: TransportConfig = self.model
        self.kind = CODEC_RS if isinstance(model, RawSocketTransport) else CODEC_WS
        self.auth: AuthConfig | None = None if isinstance(model, TesteeTransport) else model.auth
        self.policy = _policy(model)
        # The proxy chooses the session IDs of its clients, instead of passing on those of the routers.
        self.draws_sids = not isinstance(model, TesteeTransport) and model.session_ids == "proxy"
        self.close_ms = _params(model)["close_ms"]
        self.sessions: dict[int, FrontSession | EchoSession] = {}
        self.refused = Tally(f"transport {transport_id}", controller.reactor)
        self.created_at = _utc_now()
        self.listening_since: str | None = None
        self.address = ""
        self._session_class = EchoSession if isinstance(model, TesteeTransport) else FrontSession
        self._compression_memory: dict[int, int] = {}
        self._compression_left = model.limits.compression_memory
        self._is_compression_full = False
        self._number = 0
        self._identity: tuple[int, int] | None = None
        self._unlistened: Deferred[None] | None = None

    # --- life ---

    def _start(self) -> "Deferred[None]":
        """Listen, at an address that is looked up first where the interface is given by name.

        :raises CannotListen: the address is in use, not permitted, or there are too many listeners already.
        """
        endpoint = self.model.endpoint
        if isinstance(endpoint, UnixEndpoint) or not endpoint.interface or is_literal(endpoint.interface):
            self._listen(endpoint)
            return succeed(None)
        name = BackendTcp(type="tcp", host=endpoint.interface, port=1, version=endpoint.version)
        found = self.controller.resolver.resolve(name)
        return found.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, addresses: list[Address]) -> None:
        assert isinstance(self.model.endpoint, TcpEndpoint)
        self._listen(self.model.endpoint.model_copy(update={"interface": addresses[0].host}))

    def _unresolved(self, failure: Failure) -> None:
        raise CannotListen(f"transport {self.id}: {failure.getErrorMessage()}")

    def _listen(self, endpoint: TcpEndpoint | UnixEndpoint) -> None:
        nodelay = isinstance(self.model, RawSocketTransport) or self.model.options.tcp_nodelay
        try:
            listener = open_listener(endpoint, nodelay=nodelay)
        except CannotListen as error:
            raise CannotListen(f"transport {self.id}: {error.message}") from error
        if isinstance(endpoint, UnixEndpoint):
            self._identity = unix_identity(endpoint.path)
        self.address = _url(self.kind, listener)
        self._number = self.plane.add_owner(self)
        try:
            params = self.plane.add_params(**_params(self.model))
            self.plane.listen(listener.fileno(), self._number, params, self.model.max_connections)
        except Exception as error:
            self.release()
            listener.close()
            self.plane.drop_owner(self._number)
            raise CannotListen(f"transport {self.id}: {error}") from error
        listener.detach()
        self.listening_since = _utc_now()

    def _stop(self) -> "Deferred[None]":
        """Stop listening; sessions that are there stay. Fires once nothing is accepted any more."""
        self.release()
        if self.listening_since is None:
            return succeed(None)  # it failed before
        self._unlistened = Deferred()
        self.plane.unlisten(self._number)
        return self._unlistened

    def release(self) -> None:
        """Remove the file of a Unix socket, if it is ours."""
        if isinstance(self.model.endpoint, UnixEndpoint):
            release_unix(self.model.endpoint.path, self._identity)
            self._identity = None

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

    # --- events ---

    def on_event(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """An event of a client's connection or of the listener, see :class:`proxy.plane.Owner`."""
        session = self.sessions.get(conn)
        if session is None:
            if kind == EV_LISTEN:
                self._on_listen(arg & 0xFF, arg >> 8)
                return
            if kind == EV_CLOSED:
                return
            if self.controller.is_stopping:
                self.plane.abort(conn)
                return
            session = self.sessions[conn] = self._session_class(self, conn)
        session.on_front(kind, arg, data)

    def on_crash(self, conn: int) -> None:
        """See :class:`proxy.plane.Owner`."""
        session = self.sessions.get(conn)
        if session is not None:
            session.crashed()

    def accept(self, conn: int, request: Request) -> Accepted:
        """Answer an upgrade request, with compression if there is memory for it. ``conn`` holds it until gone().

        :raises HttpError: see :func:`proxy.handshake.accept`.
        """
        assert self.policy is not None, "an HTTP head on a RawSocket transport"
        accepted = accept(request, self.policy)
        if accepted.compression is not None and accepted.compression.memory > self._compression_left:
            self._warn_of_memory()
            accepted = accept(request, self.policy, self._compression_left)
        if accepted.compression is not None and accepted.compression.memory:
            self._compression_memory[conn] = accepted.compression.memory
            self._compression_left -= accepted.compression.memory
        return accepted

    def gone(self, conn: int) -> None:
        """A session's connection is closed."""
        del self.sessions[conn]
        self._compression_left += self._compression_memory.pop(conn, 0)
        if self._is_compression_full and self._compression_left >= self.model.limits.compression_memory // 2:
            self._is_compression_full = False
        self._forget()

    def _warn_of_memory(self) -> None:
        """Say that compression takes all its memory: once, and again after it took half of it."""
        if not self._is_compression_full:
            self._is_compression_full = True
            text = "compression_memory (%d octets) is used up: further clients get no compression on transport %s (%s)"
            log.warning(text, self.model.limits.compression_memory, self.id, self.address)

    def _on_listen(self, what: int, error: int) -> None:
        if what == LISTEN_PAUSED:
            why = _PAUSED_TEXT.get(error) or os.strerror(error)
            log.error("%s: accepting is paused on transport %s (%s)", why, self.id, self.address)
        elif what == LISTEN_RESUMED:
            log.warning("accepting goes on, on transport %s (%s)", self.id, self.address)
        elif what == LISTEN_FULL:
            log.warning(
                "max_connections (%d) reached: connections are refused on transport %s (%s)",
                self.model.max_connections,
                self.id,
                self.address,
            )
        elif what == LISTEN_CLOSED:
            self._on_unlistened()

    def _on_unlistened(self) -> None:
        self.listening_since = None
        unlistened, self._unlistened = self._unlistened, None
        if unlistened is None:
            log.error("transport %s (%s) does not listen any more", self.id, self.address)
            self.enter(State.FAILED)
        else:
            unlistened.callback(None)
        self._forget()

    def _forget(self) -> None:
        """Once it neither listens nor has a session, no more event can come."""
        if not self.sessions and self.state in (State.STOPPED, State.FAILED):
            self.plane.drop_owner(self._number)


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _url(kind: int, listener: socket.socket) -> str:
    """Where the socket listens, for people: ``ws://127.0.0.1:8080`` or ``rs://unix:/run/proxy.sock``."""
    scheme = "rs" if kind == CODEC_RS else "ws"
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{scheme}://unix:{name}"
    host, port = name[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _policy(config: TransportConfig) -> Policy | None:
    """What the opening handshake of a WebSocket transport lets in; None for RawSocket."""
    if isinstance(config, RawSocketTransport):
        return None
    options = config.options
    is_wamp = isinstance(config, WebSocketTransport)
    return Policy(
        path=_path(config.url),
        serializers=subprotocols(config.serializers) if isinstance(config, WebSocketTransport) else tuple(SERIALIZERS),
        allowed_origins=options.allowed_origins,
        allow_null_origin=options.allow_null_origin,
        enable_webstatus=options.enable_webstatus,
        require_subprotocol=is_wamp and options.require_websocket_subprotocol,
        show_server_version=options.show_server_version,
        external_port=options.external_port,
        server_text=SERVER_TEXT,
        compression=_compression(options),
    )


def _compression(options: WebSocketOptions) -> Settings | None:
    """What to negotiate of permessage-deflate; None where it is not configured."""
    if options.compression is None or options.compression.deflate is None:
        return None
    return Settings(**options.compression.deflate.model_dump())


def _path(url: str | None) -> str | None:
    """The only path that clients may ask for, if ``url`` names one; else any will do, as in Crossbar.io."""
    path = unquote(parse_websocket_url(url).resource.partition("?")[0]) if url is not None else "/"
    return path if path != "/" else None


def _params(config: TransportConfig) -> dict[str, Any]:
    """Keywords of add_params() for the connections of a listening transport."""
    limits = config.limits
    params: dict[str, Any] = {
        "kind": CODEC_WS,
        "max_message": config.options.max_message_size,
        "max_out": limits.max_message_out,
        "max_head": limits.max_head_size,
        "high_water": limits.high_water,
        "low_water": limits.low_water,
        "handshake_ms": limits.handshake_timeout,
        "hello_ms": limits.hello_timeout,
        "close_ms": limits.close_timeout,
        "stall_ms": limits.stall_timeout,
    }
    if isinstance(config, RawSocketTransport):
        return params | {
            "kind": CODEC_RS,
            "serializers": sum(1 << SERIALIZERS[name] for name in config.serializers),
        }
    options = config.options
    params |= {
        "max_frame": options.max_frame_size,
        "require_mask": options.require_masked_client_frames,
        "mask_out": options.mask_server_frames,
        "apply_mask": options.apply_mask,
        "validate_utf8": options.validate_utf8,
        "any_opcode": isinstance(config, TesteeTransport),
        "auto_fragment": options.auto_fragment_size,
        "fail_by_drop": options.fail_by_drop,
        "echo_close": options.echo_close_codereason,
        "ping_interval_ms": options.auto_ping_interval or 0,
        "ping_timeout_ms": options.auto_ping_timeout or 0,
        "ping_size": options.auto_ping_size,
        "ping_restart_on_traffic": options.auto_ping_restart_on_any_traffic,
    }
    # Crossbar.io's 0 is "no deadline". Here it is "the one of limits": a connection that waits for ever is a leak.
    if options.open_handshake_timeout:
        params["handshake_ms"] = options.open_handshake_timeout
    if options.close_handshake_timeout:
        params["close_ms"] = options.close_handshake_timeout
    return params
