"""Web transports: the services on paths, under Crossbar.io's types, keys and defaults, and the options of all of them.

Keys that Crossbar.io does not know are ours; each has a default, so that Crossbar.io's own configurations stay as they
are.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, model_validator

from proxy.config.auth import BUILTIN_AUTH
from proxy.config.connecting import (
    ConnectingEndpoint,
    ConnectingTcp,
    ConnectingTls,
    ConnectingTlsSwitch,
    ConnectingTwisted,
    ConnectingUnix,
    LocalPath,
)
from proxy.config.cookies import CookieConfig
from proxy.config.fields import (
    SERIALIZERS_DEFAULT,
    Identifier,
    Model,
    NoEffect,
    SerializerNames,
    Text,
    checked,
    integer,
    one_of,
    problem,
)
from proxy.config.urls import parse_websocket_url
from proxy.config.web_bridge import SignedOptions, WebhookOptions
from proxy.config.websocket_items import Auth, Limits, SessionIdSource, WebSocketItem, WebSocketOptions

__all__ = [
    "ArchiveConfig",
    "CallerConfig",
    "CgiConfig",
    "ConnectingEndpoint",
    "ConnectingTcp",
    "ConnectingTls",
    "ConnectingTwisted",
    "ConnectingUnix",
    "ConnectingWebSocket",
    "JsonConfig",
    "LongPollConfig",
    "NodeInfoConfig",
    "NoneConfig",
    "PathConfig",
    "PublisherConfig",
    "RedirectConfig",
    "ResourceConfig",
    "ReverseProxyConfig",
    "StaticConfig",
    "WebOptions",
    "WebPaths",
    "WebServiceConfig",
    "WebSocketConfig",
    "WebSocketReverseProxyConfig",
    "WebhookConfig",
    "WsgiConfig",
]

_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * _MIB
_DAY_MS: Final = 86_400_000
_PATH: Final = re.compile(r"[a-z0-9A-Z_\-]+|/")
_MIME: Final = re.compile(r"[\w.+\-]+/[\w.+\-]+(?:\s*;\s*[\w\-]+=[\w.\-]+)*", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")

Milliseconds: TypeAlias = Annotated[int, integer(1, _DAY_MS, "ms")]
_Port: TypeAlias = Annotated[int, integer(1, 65535)]
_Threads: TypeAlias = Annotated[int, integer(0, 1000)]
_LATER: Final = NoEffect("accepted, has no effect")


# --- single values ---


def _check_target(value: str) -> str:
    """What an HTTP header Location may hold."""
    if not value or not value.isascii() or any(character <= " " or character == "\x7f" for character in value):
        raise problem("expected a URL in printable ASCII, everything else percent-encoded")
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise problem("expected a URL like https://host/path")
    return _check_target(value)


def _mime_types(value: Mapping[str, str]) -> Mapping[str, str]:
    for suffix, name in value.items():
        if not suffix.startswith("."):
            raise problem('expected suffixes of files, like ".svg", as keys', suffix.replace(".", ""))
        if not _MIME.fullmatch(name):
            raise problem('expected a media type like "image/svg+xml" for "{suffix}"', suffix=suffix)
    return value


MimeTypes: TypeAlias = Annotated[dict[StrictStr, StrictStr], AfterValidator(_mime_types)]


def _digest(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise problem("expected a SHA-256 hash: 64 hexadecimal digits")
    return value.lower()


def _path_names(value: Any) -> Any:
    """Refuse paths that no request could ask for; Crossbar.io takes the same ones."""
    for name in value if isinstance(value, Mapping) else ():
        if not isinstance(name, str) or not _PATH.fullmatch(name):
            text = 'bad path "{name}": expected letters, digits, _ and -, or "/" for the root'
            raise problem(text, name=str(name)[:80])
    return value


# --- options of a web transport ---


class WebOptions(Model):
    """What goes for all services of a web transport.

    :ivar access_log: one line per request, in the combined log format, in the worker's log.
    :ivar display_tracebacks: of Python errors in services, to the client: for development only.
    :ivar hsts: answers over TLS tell browsers to use nothing else from then on (RFC 6797), for ``hsts_max_age``
        seconds.
    :ivar client_timeout: for what a client has to send, and for its next request; seconds. None: 60.
    :ivar max_body_size: octets of a request's body.
    :ivar max_head_size: octets of a request's head; of a connection's first one, ``limits.max_head_size`` goes as well.
    :ivar max_headers: fields of a request's head.
    :ivar show_server_version: tell product and version in the header Server; else the product only.
    """

    access_log: StrictBool = False
    display_tracebacks: StrictBool = False
    hsts: StrictBool = False
    hsts_max_age: Annotated[int, integer(0, 1 << 31, "seconds")] = 31_536_000
    client_timeout: Annotated[int, integer(1, 86_400, "seconds")] | None = None
    max_body_size: Annotated[int, integer(0, 16 * _GIB, "octets")] = 16 * _MIB
    max_head_size: Annotated[int, integer(256, _MIB, "octets")] = 16_384
    max_headers: Annotated[int, integer(8, 10_000)] = 200
    show_server_version: StrictBool = False


# --- services that answer themselves ---


class Service(Model):
    """Keys of all services."""

    id: Identifier | None = None


class NoneConfig(Service):
    """Nothing is there: 404."""

    type: Literal["none"]


class PathConfig(Service):
    """Services on further paths below this one; the one on ``/`` has everything else."""

    type: Literal["path"]
    paths: "WebPaths"


class RedirectConfig(Service):
    """A redirection to ``url``."""

    type: Literal["redirect"]
    url: Annotated[StrictStr, AfterValidator(_check_target)]


class ResourceConfig(Service):
    """A resource for Twisted Web of your own: ``classname`` is called with ``extra``."""

    type: Literal["resource"]
    classname: Text
    extra: Any = Field(default_factory=dict)


class StaticOptions(Model):
    """How files are served.

    :ivar cache_timeout: how long browsers may keep them, seconds; None: nothing is said about that.
    :ivar default_file: what is sent for a path that does not exist, relative to the directory; None: 404.
    """

    enable_directory_listing: StrictBool = False
    mime_types: MimeTypes = Field(default_factory=dict)
    cache_timeout: Annotated[int, integer(0, 1 << 31, "seconds")] | None = 43_200
    default_file: Text | None = None
    allow_cross_origin: StrictBool = True


class StaticConfig(Service):
    """Files below ``directory``, or below ``resource`` of the Python package ``package``."""

    type: Literal["static"]
    directory: LocalPath | None = None
    package: Text | None = None
    resource: Text | None = None
    options: StaticOptions = StaticOptions()

    @model_validator(mode="after")
    def _one_source(self) -> "StaticConfig":
        if (self.directory is None) == (self.package is None) or (self.package is None) != (self.resource is None):
            raise problem("expected either a directory, or a package and a resource in it", "directory")
        return self


class JsonOptions(Model):
    """How the value is sent.

    :ivar sort_keys: by name, in all mappings.
    """

    prettify: StrictBool = False
    allow_cross_origin: StrictBool = True
    discourage_caching: StrictBool = False
    sort_keys: StrictBool = False


class JsonConfig(Service):
    """A value, as JSON."""

    type: Literal["json"]
    value: Any
    options: JsonOptions = JsonOptions()


class NodeInfoConfig(Service):
    """A page about this worker, for people; as JSON for whoever asks for that."""

    type: Literal["nodeinfo"]


class ArchiveOptions(Model):
    """``default_file``: what is sent for a path that is not in the archive; None: 404."""

    default_file: Text | None = None


class ArchiveConfig(Service):
    """Files out of a ZIP archive.

    :ivar archive: the file.
    :ivar origin: where it comes from if it is not there and ``download`` says so.
    :ivar cache: keep what was asked for in memory.
    :ivar default_object: of a path that ends with a slash; ``object_prefix``: in front of all names.
    :ivar hashes: SHA-256 of the archives that may be served, hexadecimal; None: any.
    :ivar max_download: octets of an archive that is downloaded; ``download_timeout``: for all of it, ms.
    :ivar cache_limit: octets that ``cache`` keeps at most.
    """

    type: Literal["archive"]
    archive: LocalPath
    origin: Annotated[StrictStr, AfterValidator(_http_url)] | None = None
    download: StrictBool = False
    cache: StrictBool = False
    default_object: Text | None = None
    object_prefix: Text | None = None
    mime_types: MimeTypes = Field(default_factory=dict)
    hashes: tuple[Annotated[StrictStr, AfterValidator(_digest)], ...] | None = None
    options: ArchiveOptions = ArchiveOptions()
    max_download: Annotated[int, integer(1, 16 * _GIB, "octets")] = 256 * _MIB
    download_timeout: Milliseconds = 60_000
    cache_limit: Annotated[int, integer(0, 16 * _GIB, "octets")] = 64 * _MIB


class CgiConfig(Service):
    """Programs below ``directory``, run by ``processor``.

    :ivar environment: names of this worker's environment variables that programs get, besides those that say where
        things are (``PATH``, ``HOME``, language and time zone).
    :ivar timeout: how long one may go without output, ms.
    :ivar max_processes: of this service at a time; further requests are refused.
    """

    type: Literal["cgi"]
    directory: LocalPath
    processor: Text
    environment: tuple[Text, ...] = ()
    timeout: Milliseconds = 60_000
    max_processes: Annotated[int, integer(1, 10_000)] = 50


class WsgiConfig(Service):
    """A WSGI application: ``object`` of ``module``, in threads of its own.

    :ivar max_requests: that run or wait for a thread; further requests are refused.
    """

    type: Literal["wsgi"]
    module: Text
    object: Text
    minthreads: _Threads = 0
    maxthreads: Annotated[int, integer(1, 1000)] = 20
    max_requests: Annotated[int, integer(1, 100_000)] = 1000

    @model_validator(mode="after")
    def _least_below_most(self) -> "WsgiConfig":
        if self.minthreads > self.maxthreads:
            raise problem("expected at most maxthreads ({most})", "minthreads", most=self.maxthreads)
        return self


# --- services in front of other servers ---


class ReverseProxyConfig(Service):
    """An HTTP server behind.

    :ivar path: in front of the rest of the request's path.
    :ivar forwarded_port: what the server is told of the port that clients see; None: as it is.
    :ivar forwarded_proto: likewise, of the scheme.
    :ivar tls: HTTPS towards the server.
    :ivar connect_timeout: ms; ``response_timeout``: between two pieces of the answer, ms.
    :ivar max_connections: to the server, at a time; further requests wait.
    """

    type: Literal["reverseproxy"]
    host: Text
    port: _Port = 80
    path: StrictStr = ""
    forwarded_port: _Port | None = None
    forwarded_proto: Annotated[Literal["http", "https"], one_of("http", "https")] | None = None
    tls: ConnectingTlsSwitch = None
    connect_timeout: Milliseconds = 5_000
    response_timeout: Milliseconds = 60_000
    max_connections: Annotated[int, integer(1, 10_000)] = 100


class ConnectingWebSocket(Model):
    """The WebSocket server behind.

    :ivar url: its path, and the host that it is asked for.
    """

    type: Annotated[Literal["websocket"], one_of("websocket")] = "websocket"
    id: Identifier | None = None
    endpoint: ConnectingEndpoint
    url: Annotated[StrictStr, checked(parse_websocket_url)]
    serializers: Annotated[tuple[StrictStr, ...] | None, _LATER] = None
    options: Annotated[dict[StrictStr, Any] | None, _LATER] = None


class RelayedWebSocketOptions(WebSocketOptions):
    """WebSocket options as of a transport. ``allowed_origins`` and ``allow_null_origin`` are heeded; all the others are
    between the client and the server, as what they say to each other is not touched.
    """


class WebSocketReverseProxyConfig(Service):
    """A WebSocket server behind, whatever it speaks.

    :ivar connect_timeout: until the server has answered the opening handshake, ms.
    """

    type: Literal["websocket-reverseproxy"]
    backend: ConnectingWebSocket
    url: Annotated[StrictStr, checked(parse_websocket_url)] | None = None
    options: RelayedWebSocketOptions = RelayedWebSocketOptions()
    connect_timeout: Milliseconds = 10_000


# --- WAMP ---


class WebSocketConfig(WebSocketItem):
    """WAMP over WebSocket."""

    type: Literal["websocket"]


class LongPollOptions(Model):
    """Bounds of WAMP over HTTP long-poll.

    :ivar request_timeout: how long a request for messages waits for one, seconds.
    :ivar session_timeout: how long a client may stay away before its session ends, seconds.
    :ivar queue_limit_bytes: octets, and ``queue_limit_messages`` messages, that wait for the client at most.
    :ivar allowed_origins: which web pages may use it, as for WebSocket; ``allow_null_origin`` likewise.
    """

    allowed_origins: tuple[StrictStr, ...] = ("*",)
    allow_null_origin: StrictBool = True
    debug: Annotated[StrictBool, _LATER] = False
    debug_transport_id: Annotated[StrictStr | None, _LATER] = None
    request_timeout: Annotated[int, integer(1, 3600, "seconds", zero="the default")] = 10
    session_timeout: Annotated[int, integer(1, 86_400, "seconds", zero="the default")] = 30
    queue_limit_bytes: Annotated[int, integer(1, _GIB, "octets", zero="the default")] = 128 * 1024
    queue_limit_messages: Annotated[int, integer(1, 1_000_000, zero="the default")] = 100


class LongPollConfig(Service):
    """WAMP over HTTP long-poll. For Crossbar.io, ``options`` is all there is.

    :ivar limits: None: those of the transport.
    """

    type: Literal["longpoll"]
    options: LongPollOptions = LongPollOptions()
    serializers: SerializerNames = SERIALIZERS_DEFAULT
    auth: Auth = BUILTIN_AUTH
    limits: Limits | None = None
    session_ids: SessionIdSource = "router"
    cookie: CookieConfig | None = None


class PublisherConfig(Service):
    """Events that come as HTTP POST, published in ``realm`` with ``role``."""

    type: Literal["publisher"]
    realm: Text
    role: Text
    options: SignedOptions = SignedOptions()


class CallerConfig(Service):
    """Calls that come as HTTP POST, made in ``realm`` with ``role``."""

    type: Literal["caller"]
    realm: Text
    role: Text
    options: SignedOptions = SignedOptions()


class WebhookConfig(Service):
    """HTTP requests of other services, published as they are in ``realm`` with ``role``."""

    type: Literal["webhook"]
    realm: Text
    role: Text
    options: WebhookOptions


class _Unsupported(Model):
    """A service that Crossbar.io has, and this does not."""

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        raise problem("not supported by this version", "type")


class WapConfig(_Unsupported):
    """Pages that are made of the results of calls."""

    type: Literal["wap"]


class CatalogConfig(_Unsupported):
    """The browser for catalogs of XBR."""

    type: Literal["catalog"]


WebServiceConfig: TypeAlias = Annotated[
    NoneConfig
    | PathConfig
    | RedirectConfig
    | ResourceConfig
    | StaticConfig
    | JsonConfig
    | NodeInfoConfig
    | ReverseProxyConfig
    | CgiConfig
    | WsgiConfig
    | ArchiveConfig
    | WebSocketConfig
    | WebSocketReverseProxyConfig
    | LongPollConfig
    | PublisherConfig
    | CallerConfig
    | WebhookConfig
    | WapConfig
    | CatalogConfig,
    Field(discriminator="type"),
]
"""A service, by its ``type``."""

WebPaths: TypeAlias = Annotated[dict[StrictStr, WebServiceConfig], BeforeValidator(_path_names)]
"""Services by path: one component of a URL's path, or ``/`` for everything that no other one is for."""

PathConfig.model_rebuild()
