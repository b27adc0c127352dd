"""max_connections and the limit of descriptors: said clearly, recovered from, and never a busy loop."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.census import cpu_seconds, descriptors
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import HandshakeRefused, PeerClosed, Wire, hello
from support.stub import StubRouter


def is_refused(front: Endpoint) -> bool:
    """Whether a new connection is cut off before anything is said."""
    sock = front.connect()
    sock.settimeout(0.3)
    try:
        return sock.recv(4) in (b"", b"\x7f\x40\0\0")
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    finally:
        sock.close()


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
def test_max_connections(kind: str, tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """Over the limit a connection is cut off at once; when one ends there is room again; other transports are open."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        front, other = config.listen(kind, max_connections=3), config.listen(kind)
        proxy = make_proxy(config)
        clients = [raw.dial(front) for _ in range(3)]
        for _ in range(20):
            # RawSocket has an error for it (4), WebSocket gets no answer at all.
            with pytest.raises((PeerClosed, OSError, HandshakeRefused)) as refused:
                raw.dial(front)
            if refused.type is HandshakeRefused:
                assert refused.value.answer == b"\x7f\x40\0\0"
        raw.dial(other).close()
        clients.pop().close()
        wait_until(lambda: not is_refused(front), "there is room again")
        client = clients.pop()
        client.send(hello())
        stub.accept_session(5)
        assert client.recv_type(raw.WELCOME)[1] == 5
        client.close()
        clients.pop().close()
        lines = [line for line in proxy.child.errors if "max_connections" in line or "connections" in line.lower()]
        assert 1 <= sum("transport000" in line for line in lines) <= 3, lines


@pytest.mark.slow
def test_out_of_descriptors(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """Accepting pauses and says so, sessions go on, nothing spins; with descriptors back it goes on by itself."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen("rawsocket", limits={"handshake_timeout": 60_000})
        proxy: ProxyProcess = make_proxy(config, nofile=64)
        client = raw.dial(front)
        client.send(hello())
        router, _ = stub.accept_session()
        client.recv_type(raw.WELCOME)
        waiting = [front.connect() for _ in range(70)]
        proxy.child.wait_line("descriptors", errors=True)
        assert descriptors(proxy.pid).total() <= 64

        used, started = cpu_seconds(proxy.pid), time.monotonic()
        for number in range(10):
            client.send([raw.PUBLISH, number + 1, {}, "com.example"])
            assert router.recv()[1] == number + 1
            time.sleep(0.1)
        share = (cpu_seconds(proxy.pid) - used) / (time.monotonic() - started)
        assert share < 0.5, f"the proxy used {share:.0%} of a core while it could not accept"

        for sock in waiting:
            sock.close()
        late = raw.dial(front)
        late.send(hello())
        stub.accept_session(7)
        assert late.recv_type(raw.WELCOME)[1] == 7
        late.close()
        client.close()
        told = [line for line in proxy.child.errors if "descriptors" in line]
        assert len(told) < 20, "one line per state, not one per attempt"


@pytest.mark.slow
def test_no_descriptor_left_for_the_router(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """When the router cannot be dialled for want of descriptors the client gets an ABORT, not silence."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen("rawsocket", limits={"handshake_timeout": 60_000})
        proxy: ProxyProcess = make_proxy(config, nofile=64)
        client = raw.dial(front)
        waiting: list[socket.socket] = []
        while not any("descriptors" in line for line in proxy.child.errors):
            assert len(waiting) < 200
            waiting.append(front.connect())
            time.sleep(0.005)
        client.send(hello())
        messages, _ = client.recv_end()
        assert [message[0] for message in messages] == [raw.ABORT]
        for sock in waiting:
            sock.close()


def test_idle_proxy_does_nothing(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """Neither an idle proxy nor idle sessions cost CPU time."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen("websocket")
        proxy = make_proxy(config)
        peers = []
        for _ in range(20):
            client = raw.dial(front)
            client.send(hello())
            peers += [client, stub.accept_session()[0]]
            client.recv_type(raw.WELCOME)
        used = cpu_seconds(proxy.pid)
        time.sleep(1.0)
        assert cpu_seconds(proxy.pid) - used < 0.1
        for peer in peers:
            peer.close()


def test_address_in_use(config: Config, make_proxy: Callable[..., Any]) -> None:
    """Said clearly, with a status that is not 0, and no half of it running."""
    taken = config.listen("websocket")
    with socket.create_server(("127.0.0.1", taken.port)), pytest.raises(AssertionError) as failed:
        make_proxy(config)
    assert str(taken.port) in str(failed.value)
    assert (
        "Traceback" not in str(failed.value).split("--- wamp-proxy: stderr")[1].split("AttributeError: _ARRAY_API")[-1]
    )


def test_unix_sockets_left_behind(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """A stale socket file is replaced; a live one and a file that is no socket are not touched."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen("rawsocket", unix=True)
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(front.path)
        stale.close()
        proxy = make_proxy(config)
        raw.dial(front).close()
        again = Config(tmp_path / "again")
        again.connections, again.routes, again.transports = config.connections, config.routes, config.transports
        with pytest.raises(AssertionError, match="did not print"):
            make_proxy(again)
        raw.dial(front).close()
        proxy.check_idle()
        proxy.stop()
        assert not Path(front.path).exists()
        Path(front.path).write_text("precious")
        with pytest.raises(AssertionError, match="did not print"):
            make_proxy(again)
        assert Path(front.path).read_text() == "precious"


def test_connection_that_says_nothing(config: Config, make_proxy: Callable[..., Any]) -> None:
    """The handshake deadline ends it; half a handshake does not stop the clock."""
    fronts = [config.listen(kind, limits={"handshake_timeout": 300}) for kind in ("websocket", "rawsocket")]
    make_proxy(config)
    for front in fronts:
        for first in (b"", b"\x7f", b"GET /"):
            wire = Wire(front.connect())
            with contextlib.suppress(PeerClosed):
                wire.write(first)
            answer = wire.read_all()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
            wire.close()
