"""What is not WAMP: tunnels, connections that the control plane brings, PROXY protocol headers, universal listeners."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time

import pytest

from kernel.harness import HELLO, REQUEST, UPGRADED, End, Listener, Plane
from proxy import _relay as R
from proxy.peers import Peer, read_intro


def pair() -> tuple[socket.socket, int]:
    """Our end, and a descriptor to give away."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.setblocking(False)
    return ours, theirs.detach()


def tunnel(plane: Plane, listener: Listener | None = None) -> tuple[End, socket.socket, int]:
    """A client with a tunnel: its end, the control plane's end, its number."""
    listener = listener or plane.listen("ws")
    client = plane.connect(listener)
    client.write(REQUEST)
    conn = plane.wait(R.EV_HEAD, owner=listener.number).conn
    ours, fd = pair()
    plane.relay.tunnel(conn, fd)
    return client, ours, conn


def read_all(sock: socket.socket) -> bytes:
    octets = b""
    while data := sock.recv(65536):
        octets += data
    return octets


def test_octets_both_ways_and_the_ends(plane: Plane) -> None:
    client, ours, conn = tunnel(plane)
    client.write(b"more of the request")
    assert ours.recv(100) == b"more of the request"
    ours.sendall(b"answer")
    assert client.read(6) == b"answer"
    client.half_close()
    assert ours.recv(1) == b""
    ours.sendall(b"last words")
    ours.close()
    assert client.read(10) == b"last words"
    assert client.read_end() == "eof"
    assert plane.closed(conn).reason in ("CLOSED_PEER", "CLOSED_LOCAL")
    plane.barrier()
    assert plane.relay.stats(0)["connections"] == 0


def test_what_came_with_the_head(plane: Plane) -> None:
    listener = plane.listen("ws")
    client = plane.connect(listener)
    client.write(REQUEST + b"the body")
    conn = plane.wait(R.EV_HEAD, owner=listener.number).conn
    ours, fd = pair()
    plane.relay.tunnel(conn, fd)
    assert ours.recv(100) == b"the body"
    ours.close()
    assert client.read_end() == "eof"
    assert plane.closed(conn).reason == "CLOSED_LOCAL"


def test_the_end_of_our_side_closes_the_client(plane: Plane) -> None:
    client, ours, conn = tunnel(plane)
    ours.sendall(b"x" * 500_000)
    ours.close()
    assert client.read(500_000) == b"x" * 500_000
    assert client.read_end() == "eof"
    assert plane.closed(conn).reason == "CLOSED_LOCAL"


def test_a_client_that_resets(plane: Plane) -> None:
    client, ours, conn = tunnel(plane)
    client.reset()
    assert plane.closed(conn).reason == "CLOSED_RESET"
    assert ours.recv(1) == b""
    ours.close()


def test_a_slow_client_slows_our_side(plane: Plane) -> None:
    client, ours, _ = tunnel(plane, plane.listen("ws", high_water=65536, low_water=16384))
    ours.settimeout(0.5)
    sent = 0
    while sent < 1 << 28:
        try:
            sent += ours.send(b"z" * 65536)
        except TimeoutError:
            break
    assert plane.relay.stats(0)["buffered_octets"] < 1 << 20
    ours.settimeout(10)
    writer = threading.Thread(target=ours.sendall, args=(b"end",))
    writer.start()
    assert client.read(sent + 3)[-3:] == b"end"
    writer.join()
    ours.close()


def test_closed_and_stopped_from_above(plane: Plane) -> None:
    client, ours, conn = tunnel(plane)
    plane.relay.close(conn)
    assert client.read_end() == "eof"
    assert ours.recv(1) == b""
    assert plane.closed(conn).reason == "CLOSED_LOCAL"
    client, ours, conn = tunnel(plane)
    plane.relay.abort(conn)
    assert plane.closed(conn).reason == "CLOSED_LOCAL"
    assert ours.recv(1) == b""


def test_a_tunnel_for_nobody_gives_the_descriptor_back(plane: Plane) -> None:
    ours, fd = pair()
    plane.relay.tunnel(1 << 32 | 77, fd)
    assert ours.recv(1) == b""


def test_raw_first(plane: Plane) -> None:
    listener = plane.listen("ws", raw_first=0x10)
    client = plane.connect(listener)
    client.write(b"\x10\x0cMQTT")
    event = plane.wait(R.EV_RAW, owner=listener.number)
    assert read_intro(event.data)[0].port == client.sock.getsockname()[1]
    ours, fd = pair()
    plane.relay.tunnel(event.conn, fd)
    assert ours.recv(100) == b"\x10\x0cMQTT"
    ours.close()
    client.read_end()
    plane.closed(event.conn)


def test_universal(plane: Plane) -> None:
    other = plane.listen("rs")
    listener = plane.listen("ws", rawsocket=other.params)
    end = plane.connect(Listener(listener.number, "rs", listener.address, 0))
    end.write(bytes([0x7F, 0xF0 | R.SER_CBOR, 0, 0]))
    assert end.read(4)[0] == 0x7F
    conn = plane.wait(R.EV_OPEN, owner=listener.number).conn
    end.send(HELLO)
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO
    end, conn = plane.join(listener)
    end.send(HELLO)
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO


def test_upgrade_with_params_of_a_path(plane: Plane) -> None:
    path = plane.relay.add_params(kind=R.CODEC_WS, max_message=64)
    listener = plane.listen("ws")
    end, conn = plane.join(listener, params=path)
    end.send(b"\x83" + b"x" * 100)
    assert plane.closed(conn).reason == "CLOSED_TOO_BIG"


# --- adopted ------------------------------------------------------------------------------------------------------


def test_adopted(plane: Plane) -> None:
    number = plane.token()
    params = plane.relay.add_params(kind=R.CODEC_RS, serializers=0b1110)
    plane.relay.listen(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), number, params, 2)
    ours, fd = pair()
    plane.relay.adopt(fd, number, R.pack_sockaddr("192.0.2.1", 4711))
    end = End(ours, "rs", client=True)
    end.write(bytes([0x7F, 0xF0 | R.SER_CBOR, 0, 0]))
    event = plane.wait(R.EV_OPEN, owner=number)
    assert read_intro(event.data)[0] == Peer("192.0.2.1", 4711)
    assert end.read(4)[0] == 0x7F
    others = [pair() for _ in range(2)]
    plane.relay.adopt(others[0][1], number)
    with pytest.raises(RuntimeError, match="2 connections"):
        plane.relay.adopt(others[1][1], number)
    os.close(others[1][1])
    with pytest.raises(ValueError, match="no listener"):
        plane.relay.adopt(0, 999_999)
    plane.relay.unlisten(number)
    plane.wait(R.EV_LISTEN, owner=number)
    end.close()
    plane.closed(event.conn)
    for ours, _ in others:
        ours.close()


# --- PROXY protocol -----------------------------------------------------------------------------------------------

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, family, len(body)) + body


V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 4242, 443)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack(">HH", 4243, 443)
GOOD = {
    "v1-tcp4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 443\r\n", ("192.0.2.7", 4242)),
    "v1-tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 4243 443\r\n", ("2001:db8::7", 4243)),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1-unknown-with-more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "v2-tcp4": (v2(1, 0x11, V4), ("192.0.2.7", 4242)),
    "v2-tcp4-with-notes": (v2(1, 0x11, V4 + b"\x04\0\x03abc" * 20), ("192.0.2.7", 4242)),
    "v2-tcp6": (v2(1, 0x21, V6), ("2001:db8::7", 4243)),
    "v2-local": (v2(0, 0, b""), None),
    "v2-unix": (v2(1, 0x31, bytes(216)), None),
    "v2-unspec": (v2(1, 0, b"some notes"), None),
}
BAD = {
    "none": REQUEST,
    "v1-name": b"PROXY TCP4 localhost 127.0.0.1 1 2\r\n",
    "v1-family": b"PROXY TCP6 192.0.2.7 198.51.100.1 4242 443\r\n",
    "v1-port": b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 443\r\n",
    "v1-zeros": b"PROXY TCP4 192.0.2.7 198.51.100.1 042 443\r\n",
    "v1-short": b"PROXY TCP4 192.0.2.7 198.51.100.1 4242\r\n",
    "v1-long": b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 443 more\r\n",
    "v1-endless": b"PROXY TCP4 " + b"1" * 200,
    "v1-blank": b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 443 \r\n",
    "v1-udp": b"PROXY UDP4 192.0.2.7 198.51.100.1 4242 443\r\n",
    "v2-version": SIGNATURE + bytes([0x31, 0x11, 0, 12]) + V4,
    "v2-command": v2(2, 0x11, V4),
    "v2-short": v2(1, 0x11, V4[:11]),
    "v2-huge": SIGNATURE + bytes([0x21, 0x11, 0xFF, 0xFF]) + V4,
    "v2-signature": SIGNATURE[:-1] + b"\r" + bytes([0x21, 0x11, 0, 12]) + V4,
}


def balanced(plane: Plane, **options: object) -> Listener:
    return plane.listen("ws", proxy_from=R.pack_networks(["127.0.0.0/8", "::1"]), **options)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("name", GOOD)
def test_header(plane: Plane, name: str, cut: bool) -> None:
    header, expected = GOOD[name]
    listener = balanced(plane)
    client = plane.connect(listener)
    octets = header + REQUEST
    if cut:
        for octet in octets:
            client.write(bytes([octet]))
            time.sleep(0.0005)
    else:
        client.write(octets)
    event = plane.wait(R.EV_HEAD, owner=listener.number)
    peer, head = read_intro(event.data)
    assert head == REQUEST
    assert (peer.host, peer.port) == (expected or client.sock.getsockname())
    plane.relay.upgrade(event.conn, UPGRADED, R.SER_CBOR)
    assert client.read_head() == UPGRADED


@pytest.mark.parametrize("name", BAD)
def test_no_header(plane: Plane, name: str) -> None:
    client = plane.connect(balanced(plane))
    client.write(BAD[name])
    client.read_end()
    assert plane.relay.stats(0)["proxy_refused"] == 1
    end = time.monotonic() + 10
    while plane.relay.stats(0)["connections"] and time.monotonic() < end:  # the slot is given back after the socket
        time.sleep(0.005)
    assert plane.relay.stats(0)["connections"] == 0


def test_half_a_header_ends_at_the_deadline_or_with_the_client(plane: Plane) -> None:
    listener = balanced(plane, handshake_ms=300)
    client = plane.connect(listener)
    client.write(b"PROXY TCP4 ")
    client.read_end()
    client = plane.connect(listener)
    client.write(b"PROXY TCP4 ")
    client.half_close()
    client.read_end()


def test_headers_of_strangers_are_not_believed(plane: Plane) -> None:
    listener = plane.listen("ws", proxy_from=R.pack_networks(["10.0.0.0/8", "127.0.0.2", "unix"]))
    client = plane.connect(listener)
    client.write(REQUEST)
    peer, _ = read_intro(plane.wait(R.EV_HEAD, owner=listener.number).data)
    assert (peer.host, peer.port) == client.sock.getsockname()
    with pytest.raises(ValueError, match=r"'10\.0\.0\.1/8'"):
        R.pack_networks(["10.0.0.1/8"])
