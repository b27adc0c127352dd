"""Connection items: the routers behind the proxy (keys and defaults as in autobahn's component configuration)."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, AliasChoices, Field, StrictBool, StrictStr, model_validator

from proxy.config.credentials import AuthMode, BackendAuth, Permit
from proxy.config.fields import (
    Model,
    NoEffect,
    SerializerName,
    SerializerNames,
    Text,
    UnixPath,
    integer,
    one_of,
    problem,
    seconds,
    unsupported,
)
from proxy.config.tls import BackendTlsConfig
from proxy.config.transports import MIB, MessageOut, Milliseconds
from proxy.config.urls import Url, certificate_name, is_certificate_name, parse_rawsocket_url, parse_websocket_url

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_OWN_HEADERS = ("host", "upgrade", "connection", "content-length", "transfer-encoding")
_DIAL_SECONDS_MAX = 600


def _headers(headers: dict[str, str]) -> dict[str, str]:
    """Refuse what would break the HTTP request or belongs to the opening handshake itself."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise problem("expected an HTTP header: a name, and a value of printable ASCII, no blanks around it", name)
        if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
            raise problem("expected another header: this one belongs to the WebSocket handshake", name)
    return headers


class BackendTcp(Model):
    """A router's TCP address. ``timeout``: seconds for dialling (``timeouts.dial`` goes first)."""

    type: Literal["tcp"] = "tcp"
    host: Text
    port: Annotated[int, integer(1, 65535)]
    version: Annotated[Literal[4, 6], one_of(4, 6)] | None = None
    timeout: Annotated[float, seconds(_DIAL_SECONDS_MAX)] | None = None
    tls: BackendTlsConfig = None


class BackendUnix(Model):
    """A router's Unix socket; ``path`` is absolute once loaded from a file. ``timeout`` as for TCP."""

    type: Literal["unix"] = "unix"
    path: UnixPath
    timeout: Annotated[float, seconds(_DIAL_SECONDS_MAX)] | None = None
    tls: BackendTlsConfig = None


BackendEndpoint: TypeAlias = Annotated[BackendTcp | BackendUnix, Field(discriminator="type")]


def _names(snake: str, *others: str) -> AliasChoices:
    """autobahn takes its camelCase option names in snake_case as well."""
    head, *tail = snake.split("_")
    return AliasChoices(head + "".join(word.capitalize() for word in tail), snake, *others)


_Seconds: TypeAlias = Annotated[float, seconds(86_400)]


def _tcp(url: Url) -> dict[str, Any]:
    return {"type": "tcp", "host": url.host, "port": url.port}


class BackendOptions(Model):
    """Options towards a router, under autobahn's names (sizes in octets, times in seconds).

    RawSocket knows ``max_message_size`` only, of 512 octets to 16 MiB, announced rounded up to a power of two.
    """

    max_message_size: Annotated[int, integer(0, 64 * MIB, "octets, 0: no limit")] = Field(
        default=16 * MIB, validation_alias=_names("max_message_payload_size", "max_message_size")
    )
    max_frame_size: Annotated[int, integer(0, 64 * MIB, "octets, 0: no limit")] = Field(
        default=0, validation_alias=_names("max_frame_payload_size", "max_frame_size")
    )
    auto_fragment_size: Annotated[int, integer(0, 64 * MIB, "octets, 0: off")] = Field(
        default=0, validation_alias=_names("auto_fragment_size")
    )
    validate_utf8: StrictBool = Field(
        default=True, validation_alias=AliasChoices("utf8validateIncoming", "utf8validate_incoming", "validate_utf8")
    )
    fail_by_drop: StrictBool = Field(default=False, validation_alias=_names("fail_by_drop"))
    echo_close_codereason: StrictBool = Field(
        default=False, validation_alias=_names("echo_close_code_reason", "echo_close_codereason")
    )
    tcp_nodelay: StrictBool = Field(default=True, validation_alias=_names("tcp_no_delay", "tcp_nodelay"))
    auto_ping_interval: _Seconds | None = Field(default=None, validation_alias=_names("auto_ping_interval"))
    auto_ping_timeout: _Seconds | None = Field(default=None, validation_alias=_names("auto_ping_timeout"))
    auto_ping_size: Annotated[int, integer(12, 125, "octets")] = Field(
        default=12, validation_alias=_names("auto_ping_size")
    )
    auto_ping_restart_on_any_traffic: StrictBool = Field(
        default=False, validation_alias=_names("auto_ping_restart_on_any_traffic")
    )


class BackendTransport(Model):
    """How to reach a router. ``endpoint`` is always there once validated: without one it is made from ``url``.

    :ivar url: ``ws://..`` names host and path of the HTTP request, and the address where no endpoint is given;
        ``rs://..`` an address.
    :ivar serializer: what is spoken to a router that refuses a client's own serializer; None: CBOR, JSON, MessagePack
        in this order.
    :ivar serializers: all that the router takes, in order of preference; None: it is not known.
    :ivar headers: HTTP headers for the WebSocket handshake. May hold credentials: never to be logged.
    """

    type: Annotated[Literal["websocket", "rawsocket"], one_of("websocket", "rawsocket")] = "websocket"
    url: StrictStr | None = None
    endpoint: BackendEndpoint
    serializer: SerializerName | None = None
    serializers: SerializerNames | None = None
    options: BackendOptions = BackendOptions()
    headers: Annotated[dict[StrictStr, StrictStr], AfterValidator(_headers)] = Field(default_factory=dict, repr=False)
    proxy: Annotated[None, unsupported("the router is dialled directly")] = None
    max_retries: Annotated[Any, NoEffect()] = None
    max_retry_delay: Annotated[Any, NoEffect()] = None
    initial_retry_delay: Annotated[Any, NoEffect()] = None
    retry_delay_growth: Annotated[Any, NoEffect()] = None
    retry_delay_jitter: Annotated[Any, NoEffect()] = None

    @model_validator(mode="before")
    @classmethod
    def _endpoint_from_url(cls, data: Any) -> Any:
        """Check the URL, and make the endpoint from it where none is given."""
        if not isinstance(data, Mapping):
            return data
        websocket = data.get("type", "websocket") == "websocket"
        text = data.get("url")
        if text is None:
            if websocket:
                raise problem("expected a URL like ws://host:port/path: required key is missing", "url")
            return data
        if not isinstance(text, str):
            return data
        try:
            url = parse_websocket_url(text) if websocket else parse_rawsocket_url(text)
        except ValueError as error:
            raise problem("{text}", "url", text=str(error)) from None
        endpoint = data.get("endpoint")
        if endpoint is None:
            where = {"type": "unix", "path": url.unix_path} if url.unix_path else _tcp(url)
            return {**data, "endpoint": {**where, "tls": url.secure}}
        is_tcp = isinstance(endpoint, Mapping) and endpoint.get("type") == "tcp"
        if url.secure and is_tcp and endpoint.get("tls") is None:
            # To autobahn the endpoint alone says what is done: who writes wss:// is not to get plain text for it, nor
            # who writes "tls:" and nothing after it. To have none is said with false.
            return {**data, "endpoint": {**endpoint, "tls": True}}
        return data

    @model_validator(mode="after")
    def _rawsocket_size(self) -> "BackendTransport":
        if self.type == "rawsocket" and not 512 <= self.options.max_message_size <= 16 * MIB:
            raise problem(f"expected an integer from 512 to {16 * MIB} (octets)", "options.max_message_size")
        return self

    @model_validator(mode="after")
    def _has_server_name(self) -> "BackendTransport":
        tls = self.endpoint.tls
        if tls is not None and tls.verify and not self.server_name:
            raise problem(
                "expected the name in the router's certificate: a Unix socket has none", "endpoint.tls.hostname"
            )
        if tls is not None and self.server_name and not is_certificate_name(self.server_name):
            key = "endpoint.host" if tls.hostname is None else "endpoint.tls.hostname"
            raise problem("expected, for TLS, a host name or an IP address in full", key)
        return self

    @property
    def server_name(self) -> str:
        """Whom the router's certificate must name: a host or an address; empty where that is not known."""
        tls, endpoint = self.endpoint.tls, self.endpoint
        if tls is not None and tls.hostname is not None:
            name = tls.hostname
        elif isinstance(endpoint, BackendTcp):
            name = endpoint.host
        else:
            url = None if self.url is None else parse_rawsocket_url(self.url)
            name = url.host if url is not None and not url.unix_path else ""
        return certificate_name(name)

    @property
    def target(self) -> Url:
        """What the HTTP request names: host, port and path of ``url``. Only for ``type`` websocket."""
        return parse_websocket_url(self.url or "")


class BackendTimeouts(Model):
    """Deadlines towards the router, ms.

    :ivar dial: from connecting to the end of the transport's handshake, per address tried.
    :ivar turn: that a login waits until it may dial, see ``max_joins``.
    :ivar join: from HELLO to the router's WELCOME; anew after each answer to a CHALLENGE.
    :ivar goodbye: from GOODBYE to the router's answer.
    """

    turn: Milliseconds = 120_000
    dial: Milliseconds = 5_000
    join: Milliseconds = 10_000
    goodbye: Milliseconds = 2_000


class BackendLimits(Model):
    """Bounds towards the router.

    :ivar max_joins: logins that are on their way to it at a time; more of them wait for their turn. 0: no limit.
    :ivar max_message_out: octets of the largest message that is sent to it over WebSocket; a RawSocket router announces
        its own.
    """

    max_joins: Annotated[int, integer(0, 1_000_000)] = 128
    max_message_out: MessageOut = 0


class ConnectionConfig(Model):
    """One router behind the proxy.

    :ivar auth: None is ``anonymous-proxy``, as in Crossbar.io.
    :ivar permit: what the proxy may ask for there.
    """

    transport: BackendTransport
    auth: BackendAuth | None = None
    permit: Permit = Permit()
    timeouts: BackendTimeouts = BackendTimeouts()
    limits: BackendLimits = BackendLimits()

    @model_validator(mode="before")
    @classmethod
    def _dial_from_endpoint(cls, data: Any) -> Any:
        """autobahn's ``timeout`` (seconds) of the endpoint is our ``timeouts.dial`` (ms), unless that is given."""
        transport = data.get("transport") if isinstance(data, Mapping) else None
        endpoint = transport.get("endpoint") if isinstance(transport, Mapping) else None
        timeout = endpoint.get("timeout") if isinstance(endpoint, Mapping) else None
        timeouts = data.get("timeouts", {}) if isinstance(data, Mapping) else None
        if not isinstance(timeouts, Mapping) or "dial" in timeouts or isinstance(timeout, bool):
            return data
        if not isinstance(timeout, (int, float)) or not 0 < timeout <= _DIAL_SECONDS_MAX:
            return data
        return {**data, "timeouts": {**timeouts, "dial": max(1, round(timeout * 1000))}}

    @model_validator(mode="after")
    def _unix_for_asserted_identity(self) -> "ConnectionConfig":
        """Whoever can reach the router's anonymous-proxy transport can be anyone there: never over TCP."""
        if self.auth_mode == "anonymous-proxy" and self.transport.endpoint.type != "unix":
            raise problem(
                "anonymous-proxy needs a Unix socket: expected an endpoint of type unix, auth: {cryptosign-proxy: {}} "
                "(Crossbar.io), or auth: {anonymous: {}}",
                "auth",
            )
        return self

    @property
    def auth_mode(self) -> AuthMode:
        """How the proxy joins this router; several may be given, and ``cryptosign-proxy`` goes first."""
        return "anonymous-proxy" if self.auth is None else self.auth.mode
