"""The PROXY protocol: behind a balancer the client's own address is in details, limits and logs, and cannot be forged.

The balancer is HAProxy where it is installed, and by hand where its headers must be wrong.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import missing
from support import raw
from support.balancers import find_haproxy, haproxy
from support.endpoints import Endpoint, free_port
from support.forwarding import Stage
from support.process import wait_until
from support.raw import Peer, PeerClosed, Wire

AUTH = {
    "anonymous": {"type": "static", "role": "anonymous"},
    "ticket": {"type": "static", "principals": {"joe": {"ticket": "right", "role": "anonymous"}}},
}
LISTED = ["127.0.0.0/24", "unix"]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\n"
V2 = SIGNATURE + b"\x21\x11" + struct.pack(">H4s4sHH", 12, bytes([198, 51, 100, 7]), bytes([127, 0, 0, 1]), 4711, 80)
CLIENT = "tcp4:198.51.100.7:4711"


def v2(command: int, family: int, body: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Listeners of all kinds that take the header from 127.0.0.0/24 and from Unix sockets, and one that takes none."""
    listed: dict[str, Any] = {"proxy_protocol": LISTED}
    stage = Stage(
        tmp_path_factory.mktemp("balanced"),
        {
            "websocket": listed,
            "rawsocket": {"kind": "rawsocket", **listed},
            "wss": {"tls": True, **listed},
            "rss": {"kind": "rawsocket", "tls": True, **listed},
            "unix": {"unix": True, **listed},
            "universal": {"kind": "universal", **listed},
            "plain": {},
        },
        auth=AUTH,
        limits={"handshake_timeout": 1000, "max_failures_per_address": 2},
    )
    yield stage
    stage.close()


def connect(endpoint: Endpoint, header: bytes = b"") -> socket.socket:
    """A connection with a header on it."""
    sock = endpoint.connect()
    sock.sendall(header)
    return sock


def dial(stage: Stage, name: str, header: bytes) -> Peer:
    """A client behind a balancer."""
    endpoint = stage.fronts[name]
    sock = connect(endpoint, header)
    return raw.dial(endpoint, sock=stage.secured(sock) if name in ("wss", "rss") else sock)


def refused(stage: Stage, name: str, octets: bytes) -> bytes:
    """What is answered to somebody who is cut off, if anything."""
    wire = Wire(connect(stage.fronts[name], octets))
    try:
        return wire.read_all()
    finally:
        wire.close()


# --- who the client is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("name", ["websocket", "rawsocket", "wss", "rss", "unix"])
def test_the_header_names_the_client(name: str, header: bytes, stage: Stage) -> None:
    details = stage.seen(dial(stage, name, header))
    assert details["peer"] == CLIENT
    assert details["is_secure"] == (name in ("wss", "rss"))


def test_ipv6(stage: Stage) -> None:
    header = b"PROXY TCP6 2001:db8::7 ::1 65535 443\r\n"
    assert stage.seen(dial(stage, "websocket", header))["peer"] == "tcp6:2001:db8::7:65535"
    addresses = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "::1")
    header = v2(1, 0x21, addresses + struct.pack(">HH", 1, 2))
    assert stage.seen(dial(stage, "rawsocket", header))["peer"] == "tcp6:2001:db8::7:1"


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        v2(0, 0, b""),
        v2(0, 0x11, bytes(12)),
        v2(1, 0, b""),
    ],
    ids=["v1", "v1-with-rest", "v2-local", "v2-local-with-address", "v2-unspecified"],
)
def test_a_balancer_that_does_not_tell(header: bytes, stage: Stage) -> None:
    """Health checks of balancers, mostly: it is the balancer itself."""
    client = dial(stage, "websocket", header)
    own = client.wire.sock.getsockname()
    assert stage.seen(client)["peer"] == f"tcp4:127.0.0.1:{own[1]}"


def test_what_follows_the_addresses_is_skipped(stage: Stage) -> None:
    """Type-length-value fields, as cloud balancers send them."""
    addresses = V2[16:] + b"\xea\x00\x16\x01vpce-08d2bf15fac5001c9" + b"\x04\0\0"
    assert stage.seen(dial(stage, "websocket", v2(1, 0x11, addresses)))["peer"] == CLIENT


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("name", ["websocket", "wss"])
def test_octet_by_octet(name: str, header: bytes, stage: Stage) -> None:
    """However it arrives, and whatever is behind it in the same packet."""
    sock = connect(stage.fronts[name])
    for i in range(len(header)):
        sock.sendall(header[i : i + 1])
        time.sleep(0.001)
    client = raw.dial(stage.fronts[name], sock=stage.secured(sock) if name == "wss" else sock)
    assert stage.seen(client)["peer"] == CLIENT
    sock = connect(stage.fronts["websocket"])
    key = "AAAAAAAAAAAAAAAAAAAAAA=="
    sock.sendall(header + raw.upgrade_request(stage.fronts["websocket"], key, "wamp.2.cbor"))
    wire = Wire(sock)
    assert wire.read_head().startswith(b"HTTP/1.1 101")
    assert stage.seen(raw.WebSocketPeer(wire, "cbor"))["peer"] == CLIENT


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_all_that_one_port_serves(header: bytes, stage: Stage) -> None:
    """WebSocket, RawSocket and the pages of a universal transport."""
    port = stage.fronts["universal"].port
    for kind in ("websocket", "rawsocket"):
        endpoint = Endpoint(kind, port)
        assert stage.seen(raw.dial(endpoint, sock=connect(endpoint, header)))["peer"] == CLIENT
    assert stage.page("universal", header) == 200
    wait_until(
        lambda: re.search(r"198\.51\.100\.7.*GET / ", stage.proxy.child.output), "the access log names the client"
    )


def test_the_log_and_the_limits_go_by_the_client(stage: Stage) -> None:
    """Who is refused for failed logins is the one behind the balancer, not everybody who comes through it."""
    evil = b"PROXY TCP4 198.51.100.66 127.0.0.1 4711 80\r\n"
    for _ in range(2):
        client = dial(stage, "websocket", evil)
        client.send(raw.hello(authmethods=["ticket"], authid="joe"))
        client.recv_type(raw.CHALLENGE)
        client.send([raw.AUTHENTICATE, "wrong", {}])
        client.recv_type(raw.ABORT)
        client.close()
    client = dial(stage, "websocket", evil)
    client.send(raw.hello())
    client.recv_type(raw.ABORT)
    client.close()
    assert "tcp4:198.51.100.66:4711" in stage.proxy.child.output
    assert stage.seen(dial(stage, "websocket", V1))["peer"] == CLIENT


# --- who is not let in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["websocket", "rawsocket", "wss", "unix"])
def test_without_the_header_nobody_gets_in(name: str, stage: Stage) -> None:
    """Else somebody who gets past the balancer would be taken for it."""
    request = raw.upgrade_request(stage.fronts[name], "AAAAAAAAAAAAAAAAAAAAAA==", "wamp.2.cbor")
    first = {"rawsocket": b"\x7f\xf3\0\0", "wss": b"\x16\x03\x01\x02\0\x01"}.get(name, request)
    assert refused(stage, name, first) == b""


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_from_elsewhere_the_header_is_no_use(header: bytes, stage: Stage) -> None:
    """Where it is not taken at all, and where it is taken from others only: it is a malformed request, no more."""
    request = raw.upgrade_request(stage.fronts["plain"], "AAAAAAAAAAAAAAAAAAAAAA==", "wamp.2.cbor")
    assert b" 101 " not in refused(stage, "plain", header + request)
    sock = socket.create_connection(("127.0.0.1", stage.fronts["websocket"].port), 10, ("127.0.1.1", 0))
    sock.sendall(header + request)
    wire = Wire(sock)
    assert b" 101 " not in wire.read_all()
    wire.close()
    sock = socket.create_connection(("127.0.0.1", stage.fronts["websocket"].port), 10, ("127.0.1.1", 0))
    client = raw.dial(stage.fronts["websocket"], sock=sock)
    assert stage.seen(client)["peer"].startswith("tcp4:127.0.1.1:")


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 198.51.100.7 127.0.0.1 4711\r\n",
        b"PROXY TCP4 198.51.100.7 127.0.0.1 65536 80\r\n",
        b"PROXY TCP4 198.51.100.7 127.0.0.1 04711 80\r\n",
        b"PROXY TCP4 198.51.100.256 127.0.0.1 4711 80\r\n",
        b"PROXY TCP6 198.51.100.7 127.0.0.1 4711 80\r\n",
        b"PROXY UDP4 198.51.100.7 127.0.0.1 4711 80\r\n",
        b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80 \r\n",
        b"proxy TCP4 198.51.100.7 127.0.0.1 4711 80\r\n",
        b"PROXY TCP4 " + b"1" * 100 + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * 4096,
        v2(2, 0x11, V2[16:]),
        v2(1, 0x41, V2[16:]),
        v2(1, 0x11, V2[16:20]),
        v2(1, 0x21, V2[16:]),
        SIGNATURE[:-1] + b"\r" + V2[12:],
        SIGNATURE + b"\x11\x11" + V2[14:],
        SIGNATURE + b"\x21\x11\xff\xff" + bytes(65535),
    ],
    ids=range(17),
)
def test_a_malformed_header(header: bytes, stage: Stage) -> None:
    assert refused(stage, "websocket", header) == b""


@pytest.mark.parametrize(
    "header", [V1[:-1], V1[:3], V2[:-1], V2[:5], b""], ids=["v1", "v1-early", "v2", "v2-early", "none"]
)
def test_half_a_header(header: bytes, stage: Stage) -> None:
    """It is waited for as long as for a handshake, and no longer."""
    assert refused(stage, "wss", header) == b""


# --- HAProxy -----------------------------------------------------------------------------------------------------

HAPROXY = """\
listen v1
    bind 127.0.0.1:{v1}
    server proxy 127.0.0.1:{websocket} send-proxy
listen v2
    bind 127.0.0.1:{v2}
    server proxy 127.0.0.1:{wss} send-proxy-v2 check
listen unix
    bind 127.0.0.1:{unix}
    server proxy unix@{path} send-proxy-v2-ssl-cn
"""


@pytest.fixture(scope="module")
def ports(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Ports of HAProxy, by the header that it sends."""
    program = find_haproxy()
    if program is None:
        missing("HAProxy", "apt-get install haproxy")
    assert program is not None
    ports = {name: free_port() for name in ("v1", "v2", "unix")}
    fronts = stage.fronts
    text = HAPROXY.format(**ports, websocket=fronts["websocket"].port, wss=fronts["wss"].port, path=fronts["unix"].path)
    with haproxy(program, tmp_path_factory.mktemp("haproxy"), text, list(ports.values())):
        yield ports


@pytest.mark.peers
@pytest.mark.parametrize("name", ["v1", "v2", "unix"])
def test_behind_haproxy(name: str, ports: dict[str, int], stage: Stage) -> None:
    """The client's address and port, not HAProxy's; TLS goes through it untouched."""
    sock = socket.create_connection(("127.0.0.1", ports[name]), 10, ("127.0.2.9", 0))
    own = sock.getsockname()
    endpoint = Endpoint("websocket", ports[name])
    details = stage.seen(raw.dial(endpoint, sock=stage.secured(sock) if name == "v2" else sock))
    assert details["peer"] == f"tcp4:127.0.2.9:{own[1]}"
    assert details["is_secure"] == (name == "v2")


@pytest.mark.peers
def test_haproxys_health_checks(ports: dict[str, int], stage: Stage) -> None:
    """They come and go without a word; the proxy does not mind."""
    with pytest.raises((PeerClosed, OSError)):
        Wire(socket.create_connection(("127.0.0.1", ports["v1"]), 10), 0.2).read(1)
    stage.proxy.check_log()
