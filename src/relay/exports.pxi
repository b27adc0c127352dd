# exports.pxi - constants and address helpers of the data plane as Python sees them. Part of proxy._relay.
#
# Names and meanings are documented in proxy/_relay.pyi; this part only makes them visible.

import ipaddress as _ipaddress
import socket as _socket
import struct as _struct

_exports = globals()
_exports.update(
    EV_HEAD=EV_HEAD, EV_OPEN=EV_OPEN, EV_MESSAGE=EV_MESSAGE, EV_CONTROL=EV_CONTROL, EV_VIOLATION=EV_VIOLATION,
    EV_CLOSED=EV_CLOSED, EV_LISTEN=EV_LISTEN, EV_REFUSED=EV_REFUSED, EV_RAW=EV_RAW,
)
_exports.update(
    CLOSED_PEER=CLOSED_PEER, CLOSED_LOCAL=CLOSED_LOCAL, CLOSED_RESET=CLOSED_RESET, CLOSED_DEADLINE=CLOSED_DEADLINE,
    CLOSED_STALL=CLOSED_STALL, CLOSED_PING=CLOSED_PING, CLOSED_PROTOCOL=CLOSED_PROTOCOL, CLOSED_TOO_BIG=CLOSED_TOO_BIG,
    CLOSED_REFUSED=CLOSED_REFUSED, CLOSED_NOMEM=CLOSED_NOMEM, CLOSED_FRONT_GONE=CLOSED_FRONT_GONE,
    CLOSED_TLS=CLOSED_TLS,
    HANDSHAKE_DROPPED=HANDSHAKE_DROPPED,
)
_exports.update(
    LISTEN_PAUSED=LISTEN_PAUSED, LISTEN_RESUMED=LISTEN_RESUMED, LISTEN_FULL=LISTEN_FULL, LISTEN_CLOSED=LISTEN_CLOSED,
    CODEC_WS=CODEC_WS, CODEC_RS=CODEC_RS, SER_JSON=SER_JSON, SER_MSGPACK=SER_MSGPACK, SER_CBOR=SER_CBOR,
    ST_PROTOCOL=ST_PROTOCOL, ST_UTF8=ST_UTF8, ST_TOO_BIG=ST_TOO_BIG, ST_DATA_TYPE=ST_DATA_TYPE,
    ST_MALFORMED=ST_MALFORMED, ST_TRUNCATED=ST_TRUNCATED, ST_TRAILING=ST_TRAILING, ST_DEPTH=ST_DEPTH,
    ST_AMBIGUOUS=ST_AMBIGUOUS, ST_FORBIDDEN=ST_FORBIDDEN, ST_DEADLINE=ST_DEADLINE, ST_BUSY=ST_BUSY,
    ST_UNTRANSLATABLE=ST_UNTRANSLATABLE, SER_UBJSON=SER_UBJSON, SER_FLATBUFFERS=SER_FLATBUFFERS,
    NOTE_DEAD_CALL=NOTE_DEAD_CALL, NOTE_DEAD_INVOCATION=NOTE_DEAD_INVOCATION, REALMS_MAX=REALMS_MAX,
)
_exports["build_mode"] = (<bytes>build_mode_name()).decode()


def pack_sockaddr(str address, int port):
    """sockaddr octets of an IPv4 or IPv6 literal (a %scope is allowed) and a port.

    :raise ValueError: not a literal, or port out of range.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port: {port}, expected 0 to 65535")
    host, _, scope = address.partition("%")
    try:
        if ":" not in host:
            return _struct.pack("=H2x4s8x", AF_INET, _socket.inet_pton(AF_INET, host))[:2] + _struct.pack(
                ">H", port
            ) + _socket.inet_pton(AF_INET, host) + bytes(8)
        number = 0
        if scope:
            number = int(scope) if scope.isdecimal() else _socket.if_nametoindex(scope)
        return _struct.pack("=H", AF_INET6) + _struct.pack(">HI", port, 0) + _socket.inet_pton(AF_INET6, host) + (
            _struct.pack("=I", number)
        )
    except OSError as error:
        raise ValueError(f"address: {address!r}, expected an IPv4 or IPv6 literal ({error})") from None


def pack_unix(str path):
    """sockaddr octets of a Unix socket path; a leading NUL makes it abstract.

    :raise ValueError: longer than a sockaddr holds (107 octets).
    """
    raw = path.encode("utf-8", "surrogateescape")
    if not 1 <= len(raw) <= 107:
        raise ValueError(f"path: {path!r} has {len(raw)} octets, expected 1 to 107")
    return _struct.pack("=H", AF_UNIX) + raw + (b"" if raw[0] == 0 else b"\0")


def unpack_sockaddr(bytes data):
    """(address, port) of an IPv4 or IPv6 sockaddr; the path (empty when unnamed) of a Unix one."""
    if len(data) < 2:
        return ""
    family = _struct.unpack_from("=H", data)[0]
    if family == AF_INET and len(data) >= 8:
        return _socket.inet_ntop(AF_INET, data[4:8]), _struct.unpack_from(">H", data, 2)[0]
    if family == AF_INET6 and len(data) >= 24:
        return _socket.inet_ntop(AF_INET6, data[8:24]), _struct.unpack_from(">H", data, 2)[0]
    return data[2:].rstrip(b"\0").decode("utf-8", "surrogateescape")
