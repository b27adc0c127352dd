"""Who is at the other end of a client's connection, as the data plane found it out before the first message."""

import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from proxy.plane import unpack_sockaddr

__all__ = ["Peer", "TlsInfo", "read_intro"]

_LENGTH: Final = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a TLS handshake with a client came to.

    :ivar protocol: ``TLSv1.2`` or ``TLSv1.3``.
    :ivar cipher: OpenSSL's name of the cipher suite.
    :ivar server_name: the host that the client asked for (SNI); may be empty.
    :ivar alpn: the protocol that was agreed; may be empty.
    :ivar finished: the first Finished message of the handshake, which ``tls-unique`` means (RFC 5929 section 3).
    :ivar exporter: 32 octets, ``tls-exporter`` (RFC 9266).
    :ivar certificate: of the client, DER; empty where it has shown none.
    """

    protocol: str
    cipher: str
    server_name: str
    alpn: str
    finished: bytes
    exporter: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """A client's address, and its TLS.

    :ivar host: IPv4 or IPv6 literal; empty for a Unix socket.
    :ivar port: of TCP, else 0.
    :ivar path: of a Unix socket; mostly empty, as clients seldom bind theirs.
    :ivar tls: None: the connection is plain.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: TlsInfo | None = None

    @property
    def is_secure(self) -> bool:
        """Whether there is TLS between the client and this proxy."""
        return self.tls is not None

    @property
    def text(self) -> str:
        """As Crossbar.io names it: ``tcp4:127.0.0.1:52914``, ``tcp6:::1:52914``, ``unix:/path`` or ``unix``."""
        if not self.host:
            return f"unix:{self.path}" if self.path else "unix"
        return f"tcp{6 if ':' in self.host else 4}:{self.host}:{self.port}"

    def with_address(self, host: str, port: int = 0) -> "Peer":
        """The same connection from another address: that of the client in front of a proxy in front of this one.

        The certificate and the channel stay that proxy's own: they must neither log its clients in nor bind them.
        """
        tls = None if self.tls is None else replace(self.tls, finished=b"", exporter=b"", certificate=b"")
        return replace(self, host=host, port=port, path="", tls=tls)


def read_intro(data: bytes) -> tuple[Peer, bytes]:
    """Take the data of EV_HEAD, EV_OPEN or EV_RAW apart.

    :returns: the peer, and what follows: an HTTP head or nothing.
    """
    start = 1 + data[0]
    address = unpack_sockaddr(data[1:start]) if data[0] else ""
    (length,) = _LENGTH.unpack_from(data, start)
    start += 2
    tls = _read_tls(data[start : start + length]) if length else None
    rest = data[start + length :]
    if isinstance(address, str):
        return Peer(path=address, tls=tls), rest
    # IPv4 that somebody in front has wrapped into IPv6: lists of networks and limits mean the one address.
    host = address[0].removeprefix("::ffff:") if "." in address[0] else address[0]
    return Peer(host=host, port=address[1], tls=tls), rest


def _read_tls(block: bytes) -> TlsInfo:
    fields: list[bytes] = []
    at = 0
    while at < len(block):
        (length,) = _LENGTH.unpack_from(block, at)
        at += 2
        fields.append(block[at : at + length])
        at += length
    protocol, cipher, server_name, alpn = map(_text, fields[:4])
    return TlsInfo(protocol, cipher, server_name, alpn, *fields[4:7])


@lru_cache(maxsize=256)
def _text(field: bytes) -> str:
    """The same text for all connections that have it. Bounded, unlike sys.intern: clients choose the server's name."""
    return field.decode("ascii", "replace")
