"""URLs of WAMP transports: ``ws://``, ``rs://`` and their TLS twins, for TCP and Unix sockets (autobahn's forms)."""

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"ws": 80, "wss": 443, "rs": 80, "rss": 443}

_NAME_MAX = 253
# Underscores are in the names of some containers.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


class Url(NamedTuple):
    """A transport URL, taken apart.

    :ivar secure: TLS.
    :ivar host: host name or address without brackets; ``unix`` for a Unix socket.
    :ivar port: TCP port; 0 for a Unix socket.
    :ivar unix_path: path of the Unix socket, else empty.
    :ivar resource: path and query for the HTTP request line.
    """

    secure: bool
    host: str
    port: int
    unix_path: str
    resource: str


def parse_websocket_url(url: str) -> Url:
    """Take a ``ws://`` or ``wss://`` URL apart (RFC 6455 3).

    :raises ValueError: with what was expected instead.
    """
    return _parse(url, ("ws", "wss"))


def parse_rawsocket_url(url: str) -> Url:
    """Take an ``rs://`` or ``rss://`` URL apart; the WebSocket ones are taken as well, for their address.

    :raises ValueError: with what was expected instead.
    """
    return _parse(url, ("rs", "rss", "ws", "wss"))


def certificate_name(host: str) -> str:
    """A host as certificates name it: an address without brackets and scope, a name in ASCII without the root's dot
    (RFC 6125).

    :param host: as a URL or an endpoint has it.
    """
    name = host.removeprefix("[").removesuffix("]").removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            pass  # nobody can be asked for it either
    return name.partition("%")[0] if ":" in name else name


def is_certificate_name(name: str) -> bool:
    """Whether a certificate can be checked for this, and for nothing besides: a host name, or an IP address in full.

    To OpenSSL a name that begins with a dot stands for all hosts below it, and ``*`` for itself in a wildcard.

    :param name: of :func:`certificate_name`.
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        is_number = name.replace(".", "").isdecimal()  # an address in another form: 127.1
        return not is_number and len(name) <= _NAME_MAX and _HOST_NAME.fullmatch(name) is not None
    return True


def _parse(url: str, schemes: tuple[str, ...]) -> Url:
    wanted = f"expected a URL like {schemes[0]}://host:port/path or {schemes[0]}://unix:/path/to/socket"
    if any(char <= " " or char == "\x7f" for char in url):
        raise ValueError(wanted)
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in schemes or not host or parts.fragment or parts.username is not None:
            raise ValueError
        if not host.isascii():
            host.encode("idna")  # UnicodeError is a ValueError: nobody could ask for this name
        secure = parts.scheme in ("wss", "rss")
        if parts.netloc == "unix:":
            if len(parts.path) < 2:
                raise ValueError
            return Url(secure, "unix", 0, parts.path, "/")
        port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if port == 0:
        raise ValueError(f"{wanted}, with a port from 1 to 65535")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not resource.isascii():
        raise ValueError(f"{wanted}, with all but ASCII percent-encoded in the path")
    return Url(secure, host, port, "", resource)
