"""Listening transports: where they listen, and what they let in (keys and defaults as in Crossbar.io)."""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, model_validator

from proxy.config.fields import Identifier, Model, NoEffect, Port, Text, UnixPath, integer, one_of, problem
from proxy.config.mqtt import MqttItem, MqttKeys
from proxy.config.networks import NOBODY, Forwarded, NetworkNames
from proxy.config.other_endpoints import OnionEndpoint, TwistedEndpoint
from proxy.config.tls import TlsConfig
from proxy.config.unix_files import FileMode, GroupName, UserName
from proxy.config.web import WebOptions, WebPaths
from proxy.config.websocket_items import (
    MIB,
    Limits,
    ListenUrl,
    MessageOut,
    Milliseconds,
    RawSocketItem,
    RawSocketKeys,
    RawSocketOptions,
    SubItem,
    WebSocketItem,
    WebSocketKeys,
    WebSocketOptions,
)

__all__ = [
    "MIB",
    "Endpoint",
    "EntranceConfig",
    "Limits",
    "MessageOut",
    "Milliseconds",
    "MqttTransport",
    "OnionEndpoint",
    "RawSocketOptions",
    "RawSocketTransport",
    "TcpEndpoint",
    "TesteeTransport",
    "TransportConfig",
    "TwistedEndpoint",
    "UniversalTransport",
    "UnixEndpoint",
    "WebItem",
    "WebSocketOptions",
    "WebSocketTransport",
    "WebTransport",
]

_COMPONENT: Final = re.compile(r"[a-z0-9A-Z_\-]+|/")


def _pair(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value
    raise problem("expected [first, last]")


def _component(value: str) -> str:
    if _COMPONENT.fullmatch(value):
        return value
    raise problem('expected the first component of a path (letters, digits, - and _), or "/"')


class TcpEndpoint(Model):
    """A TCP address to listen on.

    :ivar port: port number; 0 takes any free one; None when ``portrange`` is given, which goes first.
    :ivar portrange: first and last port to try.
    :ivar shared: SO_REUSEPORT, so that several workers share the address.
    :ivar interface: address to bind to, None for all of them.
    :ivar user_timeout: TCP_USER_TIMEOUT, ms.
    :ivar tls: None: plain.
    :ivar proxy_protocol: networks from which a PROXY protocol header is required. Not known to Crossbar.io.
    :ivar forwarded: who is believed about X-Forwarded-For and Forwarded. Likewise.
    """

    type: Literal["tcp"] = "tcp"
    version: Annotated[Literal[4, 6], one_of(4, 6)] = 4
    port: Port | None = None
    portrange: Annotated[tuple[Port, Port], BeforeValidator(_pair)] | None = None
    shared: StrictBool = False
    interface: Text | None = None
    backlog: Annotated[int, integer(1, 65535)] = 50
    user_timeout: Annotated[int, integer(0, 65535, "ms")] | None = None
    tls: TlsConfig | None = None
    proxy_protocol: NetworkNames = ()
    forwarded: Forwarded = NOBODY

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
    """A Unix socket to listen on; ``path`` is absolute once loaded from a file.

    :ivar mode: bits of the file's mode, whatever the umask; None: as the umask has it. Not known to Crossbar.io, like
        the following ones.
    :ivar owner: user that the file is given to, a name or a number; ``group`` likewise.
    :ivar tls: ``proxy_protocol`` and ``forwarded`` likewise: as for TCP.
    """

    type: Literal["unix"] = "unix"
    path: UnixPath
    backlog: Annotated[int, integer(1, 65535)] = 50
    mode: FileMode | None = None
    owner: UserName | None = None
    group: GroupName | None = None
    tls: TlsConfig | None = None
    proxy_protocol: NetworkNames = ()
    forwarded: Forwarded = NOBODY


Endpoint: TypeAlias = Annotated[
    TcpEndpoint | UnixEndpoint | TwistedEndpoint | OnionEndpoint, Field(discriminator="type")
]

_MaxConnections: TypeAlias = Annotated[int, integer(1, 10_000_000)]


class WebSocketTransport(WebSocketKeys):
    """WAMP over WebSocket. Clients may ask for any path, as in Crossbar.io, unless ``url`` names one."""

    id: Identifier = "transport000"
    endpoint: Endpoint
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()


class RawSocketTransport(RawSocketKeys):
    """WAMP over RawSocket."""

    id: Identifier = "transport000"
    endpoint: Endpoint
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()


class TesteeTransport(Model):
    """Echo over WebSocket, without WAMP: what a WebSocket conformance suite talks to."""

    type: Literal["websocket.testee"] = "websocket.testee"
    id: Identifier = "transport000"
    endpoint: Endpoint
    url: ListenUrl | None = None
    options: WebSocketOptions = WebSocketOptions()
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()
    debug: Annotated[StrictBool, NoEffect()] = False


class WebItem(SubItem):
    """Web services on paths, as a part of a universal transport."""

    type: Literal["web"] = "web"
    id: Identifier | None = None
    paths: WebPaths
    options: WebOptions = WebOptions()


class WebTransport(Model):
    """Web services on paths, WAMP over WebSocket among them."""

    type: Literal["web"] = "web"
    id: Identifier = "transport000"
    endpoint: Endpoint
    paths: WebPaths
    options: WebOptions = WebOptions()
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()


class MqttTransport(MqttKeys):
    """MQTT clients, on WAMP topics."""

    id: Identifier = "transport000"
    endpoint: Endpoint
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()


class UniversalTransport(Model):
    """RawSocket, WebSocket, MQTT and web services at one address: the first octets tell them apart.

    :ivar websocket: by the first component of the path; ``/`` stands for none.
    """

    type: Literal["universal"] = "universal"
    id: Identifier = "transport000"
    endpoint: Endpoint
    rawsocket: RawSocketItem | None = None
    websocket: dict[Annotated[StrictStr, AfterValidator(_component)], WebSocketItem] = Field(default_factory=dict)
    web: WebItem | None = None
    mqtt: MqttItem | None = None
    max_connections: _MaxConnections = 50_000
    limits: Limits = Limits()


TransportConfig: TypeAlias = Annotated[
    WebSocketTransport | RawSocketTransport | WebTransport | UniversalTransport | MqttTransport | TesteeTransport,
    Field(discriminator="type"),
]
EntranceConfig: TypeAlias = WebSocketKeys | RawSocketKeys | TesteeTransport
"""What an entrance is made from, see :class:`proxy.entrances.Entrance`."""
