"""Routes to several routers: turns, skipping the dead, coming back to the recovered."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint, free_port
from support.process import wait_until
from support.proxies import Config
from support.raw import ABORT, GOODBYE, WELCOME, hello
from support.stub import StubRouter


def unix(tmp_path: Path, name: str) -> Endpoint:
    """A Unix socket for a stub."""
    return Endpoint("rawsocket", path=str(tmp_path / f"{name}.sock"))


def login(front: Endpoint, *stubs: StubRouter) -> int:
    """Log in once; the index of the stub that was asked."""
    client = raw.dial(front)
    client.send(hello())
    chosen: list[tuple[int, raw.Peer]] = []

    def asked() -> bool:
        for index, stub in enumerate(stubs):
            stub.sock.settimeout(0)
            try:
                router, _ = stub.accept_session(index + 1)
            except BlockingIOError:
                continue
            finally:
                stub.sock.settimeout(15.0)
            chosen.append((index, router))
            return True
        return False

    wait_until(asked, "a router is asked")
    index, router = chosen[0]
    assert client.recv_type(WELCOME)[1] == index + 1
    client.close()
    router.recv_end()
    return index


def test_turns(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """Logins go to the routers of a route in its order, one after the other, whatever transport they come through."""
    stubs = [StubRouter(unix(tmp_path, name)) for name in "abc"]
    for name, stub in zip(("one", "two", "three"), stubs, strict=True):
        config.stub(name, stub.endpoint)
    fronts = [config.listen("websocket"), config.listen("rawsocket")]
    make_proxy(config)
    order = [login(fronts[number % 2], *stubs) for number in range(9)]
    assert order == [order[0], (order[0] + 1) % 3, (order[0] + 2) % 3] * 3
    for stub in stubs:
        stub.close()


@pytest.mark.parametrize("how", ["refused", "no-file", "not-a-socket"])
def test_dead_router_is_skipped(how: str, tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """The client notices nothing: the next router of the route is asked at once."""
    dead = Endpoint("rawsocket", free_port()) if how == "refused" else unix(tmp_path, "dead")
    if how == "not-a-socket":
        Path(dead.path).write_text("")
    with StubRouter(unix(tmp_path, "alive")) as alive:
        config.stub("dead", dead).stub("alive", alive.endpoint)
        front = config.listen()
        proxy = make_proxy(config)
        assert [login(front, alive) for _ in range(6)] == [0] * 6
        proxy.check_idle()


def test_all_dead(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """A clear ABORT; and when a router comes up, the next login after its pause gets it."""
    late = unix(tmp_path, "late")
    config.stub("first", unix(tmp_path, "first")).stub("late", late)
    front = config.listen("websocket")
    make_proxy(config)
    client = raw.dial(front)
    client.send(hello())
    messages, closed = client.recv_end()
    assert [message[0] for message in messages] == [ABORT]
    assert messages[0][2] in ("wamp.error.network_failure", "wamp.error.unavailable")
    assert closed.how == "close"
    assert str(tmp_path) not in repr(messages), "paths of the proxy's machine are nobody's business"
    with StubRouter(late) as stub:
        assert login(front, stub) == 0


def test_router_that_died_and_came_back(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """A router that was down gets clients again once it is back."""
    first, second = unix(tmp_path, "first"), unix(tmp_path, "second")
    config.stub("one", first).stub("two", second)
    front = config.listen()
    make_proxy(config)
    with StubRouter(first) as a:
        with StubRouter(second) as b:
            assert {login(front, a, b) for _ in range(4)} == {0, 1}
        os.unlink(second.path)
        assert {login(front, a) for _ in range(4)} == {0}
        with StubRouter(second) as b:
            wait_until(lambda: login(front, a, b) == 1, "the second router is asked again", 30.0, 0.2)


def refuse(stub: StubRouter, fault: str) -> int:
    """Take a connection and refuse its serializer, whose number is returned."""
    wire = stub.accept_wire()
    serializer = wire.read(4)[1] & 15
    if fault == "refuses-the-serializer":
        wire.write(b"\x7f\x10\0\0")
    wire.close()
    return serializer


FAULTS = ["drops-the-handshake", "refuses-the-serializer"]


@pytest.mark.parametrize("fault", FAULTS)
def test_router_that_refuses_the_serializer(
    fault: str, tmp_path: Path, config: Config, make_proxy: Callable[..., Any]
) -> None:
    """It is joined with another one at once, and the next client's login does not cost an attempt more."""
    with StubRouter(unix(tmp_path, "stub")) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen()
        make_proxy(config)
        for number in range(3):
            client = raw.dial(front, "msgpack")
            client.send(hello())
            if number == 0:
                assert refuse(stub, fault) == raw.SERIALIZERS["msgpack"]
            router, _ = stub.accept_session(number + 1)
            assert router.serializer == "cbor"
            assert client.recv_type(WELCOME)[1] == number + 1
            client.send([GOODBYE, {}, "com.example.bye"])
            assert router.recv_type(GOODBYE)[2] == "com.example.bye"
            router.send([GOODBYE, {}, "com.example.answer"])
            assert client.recv_type(GOODBYE)[2] == "com.example.answer"
            client.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_router_that_refuses_every_serializer(
    fault: str, tmp_path: Path, config: Config, make_proxy: Callable[..., Any]
) -> None:
    """A clear ABORT instead of silence."""
    with StubRouter(unix(tmp_path, "stub")) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen()
        make_proxy(config)
        client = raw.dial(front, "msgpack")
        client.send(hello())
        order = [raw.SERIALIZERS[name] for name in ("msgpack", "cbor", "json")]
        assert [refuse(stub, fault) for _ in order] == order
        messages, _ = client.recv_end()
        assert [message[0] for message in messages] == [ABORT]
        assert "takes the client's serializer msgpack" in messages[0][1]["message"]
