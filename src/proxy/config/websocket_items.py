"""What a way in for WAMP clients has of its own, on whatever transport it is: serializers, options, authentication,
cookies and limits (keys and defaults as in Crossbar.io).
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, StrictBool, StrictStr, model_validator

from proxy.config.auth import BUILTIN_AUTH, AuthConfig
from proxy.config.cookies import CookieConfig
from proxy.config.fields import (
    SERIALIZERS_DEFAULT,
    Identifier,
    Model,
    NoEffect,
    SerializerNames,
    StrictModel,
    WebSocketSerializerNames,
    checked,
    integer,
    one_of,
    problem,
)
from proxy.config.urls import parse_websocket_url

__all__ = [
    "MIB",
    "Auth",
    "CompressionOptions",
    "DeflateOptions",
    "Limits",
    "ListenUrl",
    "MessageOut",
    "Milliseconds",
    "RawSocketItem",
    "RawSocketKeys",
    "RawSocketOptions",
    "SessionIdSource",
    "SubItem",
    "WebSocketItem",
    "WebSocketKeys",
    "WebSocketOptions",
]

MIB = 1024 * 1024
HOUR_MS = 3_600_000

Milliseconds = Annotated[int, integer(1, HOUR_MS, "ms")]
# Crossbar.io's 0 is "no deadline"; everything here has one, so it leaves the decision to Limits, as if not given.
HandshakeMilliseconds = Annotated[int, integer(1000, 24 * HOUR_MS, "ms", zero="the one of limits")]
# 512 is the least that a RawSocket peer can announce; every message of our own fits.
MessageOut = Annotated[int, integer(512, 64 * MIB, "octets", zero="any size")]
PingMilliseconds = Annotated[int, integer(1000, 24 * HOUR_MS, "ms", zero="off")]


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


Auth: TypeAlias = Annotated[AuthConfig, BeforeValidator(lambda value: BUILTIN_AUTH if value is None else value)]
ListenUrl: TypeAlias = Annotated[StrictStr, checked(parse_websocket_url)]
SessionIdSource: TypeAlias = Annotated[Literal["router", "proxy"], one_of("router", "proxy")]
"""Who chooses the session IDs that clients are told."""


class WebSocketKeys(Model):
    """What WAMP over WebSocket has, on a transport of its own or on a path."""

    type: Literal["websocket"] = "websocket"
    url: ListenUrl | None = None
    serializers: WebSocketSerializerNames = SERIALIZERS_DEFAULT
    options: WebSocketOptions = WebSocketOptions()
    auth: Auth = BUILTIN_AUTH
    session_ids: SessionIdSource = "router"
    debug: Annotated[StrictBool, NoEffect()] = False
    cookie: CookieConfig | None = None


class RawSocketKeys(Model):
    """What WAMP over RawSocket has, on a transport of its own or as a part of one."""

    type: Literal["rawsocket"] = "rawsocket"
    serializers: SerializerNames = SERIALIZERS_DEFAULT
    options: RawSocketOptions = RawSocketOptions()
    auth: Auth = BUILTIN_AUTH
    session_ids: SessionIdSource = "router"
    debug: Annotated[StrictBool, NoEffect()] = False


class SubItem(Model):
    """A part of a transport: it has no address and no limit on connections of its own.

    :cvar OF_TRANSPORT: keys that are the transport's alone.
    """

    OF_TRANSPORT: ClassVar[tuple[str, ...]] = ("endpoint", "max_connections")

    @model_validator(mode="before")
    @classmethod
    def _leaves_the_transport_its_keys(cls, value: Any) -> Any:
        for key in cls.OF_TRANSPORT if isinstance(value, Mapping) else ():
            if key in value:
                raise problem("expected nothing here: the whole transport has it", key)
        return value


class WebSocketItem(SubItem, WebSocketKeys):
    """WAMP over WebSocket on a path of a transport. ``url`` restricts nothing: the path is known.

    :ivar limits: None: those of the transport, which are then shared by all ways in that have none of their own.
    """

    id: Identifier | None = None
    limits: Limits | None = None


class RawSocketItem(SubItem, RawSocketKeys):
    """WAMP over RawSocket beside other ways in.

    :ivar limits: likewise.
    """

    id: Identifier | None = None
    limits: Limits | None = None
