"""The reactor's end of a tunnel: real socketpairs, a reactor that is worked by hand."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from proxy.peers import Peer, TlsInfo
from proxy.web.tunnel import open_pair
from support.web import CLIENT, Web, parse

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LARGE = {"type": "json", "value": "x" * 4_000_000}
TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "", "", b"f" * 12, b"e" * 32, b"")


class Tunnels:
    """A site, and the data plane's ends of its tunnels."""

    def __init__(self, item: dict[str, Any] | None = None, **options: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.web = Web({"/": item or {"type": "json", "value": 1}}, options, clock=self.reactor)
        self.far: list[socket.socket] = []

    def open(self, peer: Peer = CLIENT, head: bytes = REQUEST) -> socket.socket:
        """A client has sent a head; the data plane's end."""
        self.web.site.tunnel(len(self.far) + 1, peer, head)
        _, fd = self.web.plane.tunnels[-1]
        self.far.append(socket.socket(fileno=fd))
        return self.far[-1]

    def turn(self) -> None:
        """One turn of the reactor."""
        for writer in list(self.reactor.getWriters()):
            self._do(writer, writer.doWrite)
        for reader in list(self.reactor.getReaders()):
            self._do(reader, reader.doRead)

    def _do(self, thing: Any, work: Any) -> None:
        why = work()
        if why:
            self.reactor.removeReader(thing)
            self.reactor.removeWriter(thing)
            thing.connectionLost(_failure(why))

    def read(self, end: socket.socket) -> bytes:
        """What there is."""
        self.turn()
        data = b""
        while True:
            try:
                piece = end.recv(1 << 20)
            except BlockingIOError:
                self.turn()
                try:
                    piece = end.recv(1 << 20)
                except BlockingIOError:
                    return data
            if not piece:
                return data
            data += piece

    @property
    def channels(self) -> set[Any]:
        """Connections of the site."""
        return self.web.site.http.channels

    def close(self) -> None:
        """Close all ends."""
        for end in self.far:
            end.close()
        self.turn()
        for transport in [channel.transport for channel in self.channels]:
            transport.abortConnection()


def _failure(why: Exception) -> Any:
    from twisted.python.failure import Failure

    return Failure(why)


@pytest.fixture
def tunnels() -> Any:
    """Tunnels to a small value."""
    made = Tunnels()
    yield made
    made.close()


@pytest.fixture
def large() -> Any:
    """Tunnels to a large value."""
    made = Tunnels(LARGE)
    yield made
    made.close()


def test_both_ends_of_a_pair_are_non_blocking_and_not_inherited() -> None:
    for end in open_pair():
        assert not end.getblocking()
        assert not end.get_inheritable()
        end.close()


def test_the_first_request_is_answered_without_reading_the_tunnel(tunnels: Tunnels) -> None:
    assert parse(tunnels.read(tunnels.open())).body == b"1"


def test_further_requests_come_through_the_tunnel(tunnels: Tunnels) -> None:
    end = tunnels.open()
    tunnels.read(end)
    for _ in range(3):
        end.send(REQUEST)
        tunnels.turn()
        assert parse(tunnels.read(end)).body == b"1"


def test_a_body_comes_through_the_tunnel(tunnels: Tunnels) -> None:
    end = tunnels.open(head=b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n")
    assert tunnels.read(end) == b""
    end.send(b"abc")
    tunnels.turn()
    assert parse(tunnels.read(end)).status == 405


def test_a_client_that_goes_leaves_nothing(tunnels: Tunnels) -> None:
    end = tunnels.open()
    assert len(tunnels.channels) == 1
    end.close()
    tunnels.turn()
    tunnels.turn()
    assert not tunnels.channels
    assert not tunnels.reactor.getReaders()
    assert not [call for call in tunnels.reactor.getDelayedCalls() if call.active()]


def test_a_refused_request_ends_in_half_a_close(tunnels: Tunnels) -> None:
    end = tunnels.open()
    tunnels.read(end)
    end.send(b"nonsense\r\n\r\n" + b"x" * 1000)
    tunnels.turn()
    assert parse(tunnels.read(end)).status == 400
    end.send(b"y" * 1000)
    tunnels.turn()
    tunnels.turn()
    assert end.recv(10) == b""
    end.close()
    tunnels.turn()
    assert not tunnels.channels


def test_what_the_client_does_not_read_is_not_taken_out_of_memory_for_ever(large: Tunnels) -> None:
    end = large.open()
    large.turn()
    for _ in range(3):
        large.reactor.advance(15.1)
        large.turn()
    assert not large.channels, "a client that reads nothing is still there after the stall timeout"
    assert not [call for call in large.reactor.getDelayedCalls() if call.active()]
    received = 0
    while piece := end.recv(1 << 20):
        received += len(piece)
    assert received < 4_000_000


def test_a_client_that_reads_slowly_is_not_cut_off(large: Tunnels) -> None:
    end = large.open()
    large.turn()
    taken = 0
    while taken < 4_000_000:
        piece = end.recv(100_000)
        assert piece, "it was cut off"
        taken += len(piece)
        large.turn()
        large.reactor.advance(7)


def test_a_pipelining_client_that_does_not_read_is_not_read_from_either(large: Tunnels) -> None:
    end = large.open()
    sent = 0
    while True:
        try:
            sent += end.send(REQUEST * 1000)
        except BlockingIOError:
            break
        large.turn()
        assert sent < 2_000_000, "all that was sent was taken"
    (channel,) = large.channels
    assert len(channel.transport.dataBuffer) + channel.transport._tempDataLen < 10_000_000


def test_a_pipelining_client_that_reads_gets_all_answers(tunnels: Tunnels) -> None:
    end = tunnels.open()
    end.send(REQUEST * 3000)
    received = tunnels.read(end)
    while received.count(b"HTTP/1.1 200 OK") < 3001:
        piece = tunnels.read(end)
        assert piece, "an answer is missing"
        received += piece


def test_tls_of_the_client_is_seen_through_the_tunnel() -> None:
    tunnels = Tunnels(hsts=True)
    answer = parse(tunnels.read(tunnels.open(Peer("2001:db8::7", 1, tls=TLS))))
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in parse(tunnels.read(tunnels.open())).headers
    tunnels.close()


def test_nobody_is_served_by_a_site_that_is_stopped(tunnels: Tunnels) -> None:
    tunnels.web.site.stop()
    tunnels.web.site.tunnel(9, CLIENT, REQUEST)
    ((conn, answer),) = tunnels.web.plane.replies
    assert conn == 9
    assert answer.startswith(b"HTTP/1.1 503 ")


def test_a_stop_closes_tunnels(tunnels: Tunnels) -> None:
    done: list[Any] = []
    end = tunnels.open()
    tunnels.read(end)
    tunnels.web.site.stop().addCallback(done.append)
    tunnels.turn()
    tunnels.reactor.advance(0)
    assert end.recv(10) == b""
    tunnels.turn()
    assert done
