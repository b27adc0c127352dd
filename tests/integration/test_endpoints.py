"""Addresses in front and behind: IPv6, names, port ranges, shared ports."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint, free_port
from support.proxies import Config, ProxyProcess
from support.raw import SERIALIZERS, WELCOME, hello
from support.stub import StubRouter


def has_ipv6(host: str) -> bool:
    """Whether this machine has IPv6 and finds ::1 by this name."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return bool(socket.getaddrinfo(host, 0, socket.AF_INET6))
    except OSError:
        return False


class StubRouter6(StubRouter):
    """A stub router on ::1."""

    def __init__(self, port: int) -> None:
        self.endpoint = Endpoint("rawsocket", port, host="::1")
        self.speaks, self.takes = tuple(SERIALIZERS), 1 << 24
        self.sock = socket.create_server(("::1", port), family=socket.AF_INET6)
        self.sock.settimeout(15.0)
        self._open = []


def check_login(front: Endpoint, stub: StubRouter) -> None:
    """One login through ``front`` to ``stub``."""
    client = raw.dial(front)
    client.send(hello())
    router, _ = stub.accept_session(99)
    assert client.recv_type(WELCOME)[1] == 99
    client.close()
    router.recv_end()


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_ipv6(host: str, config: Config, make_proxy: Callable[..., Any]) -> None:
    """IPv6 in front and behind, the router by address or by a name that has both kinds of address."""
    if not has_ipv6(host):
        pytest.skip(f"{host} is no IPv6 address on this machine")
    port = free_port()
    with StubRouter6(port) as stub:
        version = {"version": 6} if host == "localhost" else {}
        transport = {"type": "rawsocket", "endpoint": {"type": "tcp", "host": host, "port": port, **version}}
        config.backend("stub", {"transport": transport, "auth": {"anonymous": {"type": "static"}}})
        front = Endpoint("websocket", free_port(), host="::1")
        endpoint = {"type": "tcp", "version": 6, "interface": "::1", "port": front.port}
        config.transports.append({"type": "websocket", "endpoint": endpoint})
        make_proxy(config)
        check_login(front, stub)


def test_router_by_name(config: Config, make_proxy: Callable[..., Any]) -> None:
    """A name is resolved, and its other addresses are tried when the first one does not answer."""
    listening = Endpoint("websocket", free_port())
    with StubRouter(listening) as stub:
        transport = {"type": "websocket", "url": f"ws://localhost:{listening.port}/ws"}
        config.backend("stub", {"transport": transport, "auth": {"anonymous": {"type": "static"}}})
        front = config.listen()
        make_proxy(config)
        for _ in range(3):
            check_login(front, stub)
        assert f"host: localhost:{listening.port}\r\n".encode() in stub.last_head.lower()


def test_name_that_does_not_exist(config: Config, make_proxy: Callable[..., Any]) -> None:
    """A clear ABORT; other clients of the proxy do not wait for the resolver."""
    listening = Endpoint("rawsocket", free_port())
    with StubRouter(listening) as stub:
        endpoint = {"type": "tcp", "host": "no-such-host.invalid", "port": 1}
        lost = {"transport": {"type": "rawsocket", "endpoint": endpoint}, "auth": {"anonymous": {"type": "static"}}}
        config.backend("lost", lost, role="lost").stub("stub", stub.endpoint)
        nowhere, front = config.listen(role="lost"), config.listen()
        make_proxy(config)
        waiting = raw.dial(nowhere)
        waiting.send(hello())
        check_login(front, stub)
        waiting.wire.sock.settimeout(40.0)  # what the machine's resolver takes is not ours
        messages, _ = waiting.recv_end()
        assert [message[0] for message in messages] == [raw.ABORT]


def test_port_range(config: Config, make_proxy: Callable[..., Any]) -> None:
    """The first free port of the range is taken, and the ready line tells which."""
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        endpoint = {"type": "tcp", "interface": "127.0.0.1", "portrange": [taken, taken + 20]}
        config.transports.append({"type": "rawsocket", "endpoint": endpoint})
        proxy: ProxyProcess = make_proxy(config)
        found = re.search(r"rs://127\.0\.0\.1:(\d+)", proxy.child.lines[0])
        assert found is not None, proxy.child.lines
        assert taken < int(found[1]) <= taken + 20
        raw.dial(Endpoint("rawsocket", int(found[1]))).close()


def test_shared_port(tmp_path: Path, make_proxy: Callable[..., Any]) -> None:
    """Two workers listen on the same port with ``shared``; when one ends the other goes on."""
    front = Endpoint("rawsocket", free_port())
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        proxies: list[ProxyProcess] = []
        for name in ("one", "two"):
            config = Config(tmp_path / name).stub("stub", stub.endpoint)
            config.transports.append({"type": "rawsocket", "endpoint": {**front.as_config(), "shared": True}})
            proxies.append(make_proxy(config))
        for _ in range(10):
            check_login(front, stub)
        proxies[0].check_idle()
        proxies[0].stop()
        for _ in range(10):
            check_login(front, stub)
