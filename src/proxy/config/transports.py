"""Listening transports: endpoints, options, authentication and limits (keys and defaults as in Crossbar.io)."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, model_validator

from proxy.config.auth import BUILTIN_AUTH, AuthConfig
from proxy.config.cookies import CookieConfig
from proxy.config.fields import (
    SERIALIZERS_DEFAULT,
    Identifier,
    Model,
    NoEffect,
    Port,
    SerializerNames,
    StrictModel,
    Text,
    UnixPath,
    WebSocketSerializerNames,
    checked,
    integer,
    one_of,
    problem,
    unsupported,
)
from proxy.config.urls import parse_websocket_url

MIB = 1024 * 1024
HOUR_MS = 3_600_000

Milliseconds = Annotated[int, integer(1, HOUR_MS, "ms")]
# Crossbar.io's 0 is "no deadline"; everything here has one, so it leaves the decision to Limits, as if not given.
HandshakeMilliseconds = Annotated[int, integer(1000, 24 * HOUR_MS, "ms", zero="the one of limits")]
# 512 is the least that a RawSocket peer can announce; every message of our own fits.
MessageOut = Annotated[int, integer(512, 64 * MIB, "octets", zero="any size")]
PingMilliseconds = Annotated[int, integer(1000, 24 * HOUR_MS, "ms", zero="off")]


def _pair(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value
    raise problem("expected [first, last]")


class TcpEndpoint(Model):
    """A TCP address to listen on.

    :ivar port: port number; 0 takes any free one; None when ``portrange`` is given, which goes first.
    :ivar portrange: first and last port to try.
    :ivar shared: SO_REUSEPORT, so that several workers share the address.
    :ivar interface: address to bind to, None for all of them.
    :ivar user_timeout: TCP_USER_TIMEOUT, ms.
    """

    type: Literal["tcp"] = "tcp"
    version: Annotated[Literal[4, 6], one_of(4, 6)] = 4
    port: Port | None = None
    portrange: Annotated[tuple[Port, Port], BeforeValidator(_pair)] | None = None
    shared: StrictBool = False
    interface: Text | None = None
    backlog: Annotated[int, integer(1, 65535)] = 50
    user_timeout: Annotated[int, integer(0, 65535, "ms")] | None = None
    tls: Annotated[None, unsupported("TLS must end in front of the proxy")] = None

    @model_validator(mode="after")
    def _has_port(self) -> "TcpEndpoint":
        if self.portrange is None and self.port is None:
            raise problem("expected an integer from 0 to 65535 (or a portrange): required key is missing", "port")
        if self.portrange is not None and self.portrange[0] > self.portrange[1]:
            raise problem("expected [first, last] with first <= last", "portrange")
        if self.portrange is not None and self.portrange[0] == 0:
            raise problem("expected [first, last] with ports from 1 to 65535", "portrange")
        return self


class UnixEndpoint(Model):
    """A Unix socket to listen on; ``path`` is absolute once loaded from a file."""

    type: Literal["unix"] = "unix"
    path: UnixPath
    backlog: Annotated[int, integer(1, 65535)] = 50


Endpoint: TypeAlias = Annotated[TcpEndpoint | UnixEndpoint, Field(discriminator="type")]


class DeflateOptions(StrictModel):
    """permessage-deflate; for the meaning of each key see :class:`proxy.compression.Settings`."""

    request_no_context_takeover: StrictBool = False
    request_max_window_bits: Annotated[int, integer(9, 15, "bits", zero="no request")] = 0
    no_context_takeover: StrictBool = False
    max_window_bits: Annotated[int, integer(9, 15, "bits")] = 15
    memory_level: Annotated[int, integer(1, 9)] = 8


class CompressionOptions(StrictModel):
    """Extensions that compress; without ``deflate`` there is none."""

    deflate: DeflateOptions | None = None


class WebSocketOptions(Model):
    """WebSocket options. Times in ms, sizes in octets. None: not given (see each key in docs/configuration.md)."""

    allowed_origins: tuple[StrictStr, ...] = ("*",)
    allow_null_origin: StrictBool = True
    external_port: Annotated[int, integer(1, 65535)] | None = None
    enable_hybi10: Annotated[StrictBool, NoEffect("accepted, has no effect: only RFC 6455 is spoken")] = True
    enable_rfc6455: StrictBool = True
    open_handshake_timeout: HandshakeMilliseconds | None = None
    close_handshake_timeout: HandshakeMilliseconds | None = None
    enable_webstatus: StrictBool = True
    validate_utf8: StrictBool = True
    mask_server_frames: StrictBool = False
    require_masked_client_frames: StrictBool = True
    apply_mask: StrictBool = True
    max_frame_size: Annotated[int, integer(0, 64 * MIB, "octets, 0: no limit")] = 0
    max_message_size: Annotated[int, integer(0, 64 * MIB, "octets, 0: no limit")] = 16 * MIB
    auto_fragment_size: Annotated[int, integer(0, 64 * MIB, "octets, 0: off")] = 0
    fail_by_drop: StrictBool = False
    echo_close_codereason: StrictBool = False
    tcp_nodelay: StrictBool = True
    auto_ping_interval: PingMilliseconds | None = None
    auto_ping_timeout: PingMilliseconds | None = None
    auto_ping_size: Annotated[int, integer(12, 125, "octets")] = 12
    auto_ping_restart_on_any_traffic: StrictBool = False
    enable_flash_policy: Annotated[StrictBool | None, NoEffect()] = None
    flash_policy: Annotated[Any, NoEffect()] = None
    compression: CompressionOptions | None = None
    require_websocket_subprotocol: StrictBool = True
    show_server_version: StrictBool = False

    @model_validator(mode="after")
    def _speaks_rfc6455(self) -> "WebSocketOptions":
        if not self.enable_rfc6455:
            raise problem("expected true: no other WebSocket version is supported by this version", "enable_rfc6455")
        return self


class RawSocketOptions(Model):
    """RawSocket options. The size is announced rounded up to a power of two, octets."""

    max_message_size: Annotated[int, integer(512, 16 * MIB, "octets")] = 16 * MIB


class Limits(Model):
    """Deadlines (ms) and bounds (octets) of a listening transport's connections. Not known to Crossbar.io.

    :ivar handshake_timeout: from accept to the end of the WebSocket or RawSocket handshake.
    :ivar hello_timeout: for each message of the login (HELLO, AUTHENTICATE), and for a further HELLO after a GOODBYE.
    :ivar authenticator_timeout: for each decision of an authenticator (dynamic, function).
    :ivar max_logins: logins under way at a time; more of them wait for their turn. 0: no limit.
    :ivar max_logins_per_address: likewise of one address; more of them are refused. 0: no limit.
    :ivar max_failures_per_address: failed logins of one address within ``failure_window``; then it is refused until
        that is over. 0: no limit.
    :ivar close_timeout: to flush what is queued and to finish the close handshake.
    :ivar stall_timeout: how long a peer may leave queued data unread before it is cut off.
    :ivar high_water: queued octets per direction at which reading from the sender stops.
    :ivar low_water: queued octets at which it goes on.
    :ivar max_head_size: largest HTTP request head.
    :ivar max_message_out: largest message that is sent to a WebSocket client; RawSocket clients announce theirs.
    :ivar compression_memory: for the compression of all connections together; more of them get none.
    """

    handshake_timeout: Milliseconds = 10_000
    hello_timeout: Milliseconds = 10_000
    authenticator_timeout: Milliseconds = 10_000
    max_logins: Annotated[int, integer(0, 10_000_000)] = 0
    max_logins_per_address: Annotated[int, integer(0, 10_000_000)] = 0
    max_failures_per_address: Annotated[int, integer(0, 10_000_000)] = 0
    failure_window: Milliseconds = 60_000
    close_timeout: Milliseconds = 2_000
    stall_timeout: Milliseconds = 30_000
    high_water: Annotated[int, integer(1024, 64 * MIB, "octets")] = 262_144
    low_water: Annotated[int, integer(0, 64 * MIB, "octets")] = 65_536
    max_head_size: Annotated[int, integer(256, MIB, "octets")] = 16_384
    max_message_out: MessageOut = 0
    compression_memory: Annotated[int, integer(0, 1 << 40, "octets")] = 256 * MIB

    @model_validator(mode="after")
    def _low_below_high(self) -> "Limits":
        if self.low_water >= self.high_water:
            raise problem("expected less than high_water ({high} octets)", "low_water", high=self.high_water)
        return self


_Auth: TypeAlias = Annotated[AuthConfig, BeforeValidator(lambda value: BUILTIN_AUTH if value is None else value)]
ListenUrl: TypeAlias = Annotated[StrictStr, checked(parse_websocket_url)]
_MaxConnections: TypeAlias = Annotated[int, integer(1, 10_000_000)]
_SessionIds: TypeAlias = Annotated[Literal["router", "proxy"], one_of("router", "proxy")]
"""Who chooses the session IDs that clients are told."""
_LATER = NoEffect("accepted, has no effect")


class WebSocketTransport(Model):
    """WAMP over WebSocket. Clients may ask for any path, as in Crossbar.io, unless ``url`` names one."""

    type: Literal["websocket"] = "websocket"
    id: Identifier = "transport000"
    endpoint: Endpoint
    url: ListenUrl | None = None
    serializers: WebSocketSerializerNames = SERIALIZERS_DEFAULT
    options: WebSocketOptions = WebSocketOptions()
    auth: _Auth = BUILTIN_AUTH
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()
    session_ids: _SessionIds = "router"
    debug: Annotated[StrictBool, _LATER] = False
    cookie: CookieConfig | None = None


class RawSocketTransport(Model):
    """WAMP over RawSocket."""

    type: Literal["rawsocket"] = "rawsocket"
    id: Identifier = "transport000"
    endpoint: Endpoint
    serializers: SerializerNames = SERIALIZERS_DEFAULT
    options: RawSocketOptions = RawSocketOptions()
    auth: _Auth = BUILTIN_AUTH
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()
    session_ids: _SessionIds = "router"
    debug: Annotated[StrictBool, _LATER] = False


class TesteeTransport(Model):
    """Echo over WebSocket, without WAMP: what a WebSocket conformance suite talks to."""

    type: Literal["websocket.testee"] = "websocket.testee"
    id: Identifier = "transport000"
    endpoint: Endpoint
    url: ListenUrl | None = None
    options: WebSocketOptions = WebSocketOptions()
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()
    debug: Annotated[StrictBool, _LATER] = False


TransportConfig: TypeAlias = Annotated[
    WebSocketTransport | RawSocketTransport | TesteeTransport, Field(discriminator="type")
]
