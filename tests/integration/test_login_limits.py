"""Many logins at once, and limits on them: a storm is let in evenly, an address that guesses is shut out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from support import raw
from support.census import descriptors
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import Peer, hello
from support.routers import XconnRouter
from support.stub import StubRouter

CLIENTS = 200
TICKETS = {"ticket": {"type": "static", "principals": {"joe": {"ticket": "right", "role": "anonymous"}}}}
FAILED = "wamp.error.authentication_failed"


def ask(front: Endpoint) -> Peer:
    """A client that has been asked for its ticket."""
    client = raw.dial(front)
    client.send(hello(authmethods=["ticket"], authid="joe"))
    assert client.recv() == [raw.CHALLENGE, "ticket", {}]
    return client


def answer(client: Peer, ticket: str) -> list[Any]:
    """What becomes of it."""
    client.send([raw.AUTHENTICATE, ticket, {}])
    return client.recv()


def test_a_storm_of_logins_is_let_in_a_few_at_a_time(
    xconn: XconnRouter, config: Config, make_proxy: Callable[..., ProxyProcess]
) -> None:
    """All come at once, nobody is refused, and those who are in are served all the while."""
    (backend,) = [item for name, item in xconn.backends.items() if name == "xconn"]
    config.backend("router", {**backend, "limits": {"max_joins": 4}})
    front = config.listen("rawsocket", auth=TICKETS, max_connections=1000, limits={"max_logins": 8})
    proxy = make_proxy(config)
    idle = descriptors(proxy.pid)
    early = ask(front)
    assert answer(early, "right")[0] == raw.WELCOME
    clients = [raw.dial(front) for _ in range(CLIENTS)]
    for client in clients:
        client.send(hello(authmethods=["ticket"], authid="joe"))
    for client in clients:
        assert client.recv() == [raw.CHALLENGE, "ticket", {}]
    early.register("com.example.add")
    for client in clients:
        client.send([raw.AUTHENTICATE, "right", {}])
    early.send([raw.CALL, early.request(), {}, "com.example.add"])
    assert early.recv_type(raw.INVOCATION)[0] == raw.INVOCATION
    welcomes = [client.recv() for client in clients]
    assert [message[0] for message in welcomes] == [raw.WELCOME] * CLIENTS
    assert len({message[1] for message in welcomes}) == CLIENTS
    for client in (*clients, early):
        client.leave()
        client.close()
    deadline = time.monotonic() + 10
    while descriptors(proxy.pid) != idle and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors(proxy.pid) == idle


def test_who_waits_for_a_router_that_hangs_is_told_in_time(
    config: Config, make_proxy: Callable[..., ProxyProcess], tmp_path: Any
) -> None:
    """One login has the only turn and its router says nothing; the next one does not wait for ever."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("hanging", stub.endpoint, limits={"max_joins": 1}, timeouts={"turn": 300, "join": 2000})
        front = config.listen("rawsocket")
        make_proxy(config)
        first, second = raw.dial(front), raw.dial(front)
        first.send(hello())
        peer, _ = stub.accept_hello()
        second.send(hello())
        message = second.recv()
        assert (message[0], message[2]) == (raw.ABORT, "wamp.error.network_failure")
        assert "too many logins before this one" in message[1]["message"]
        peer.send([raw.WELCOME, 77, {"roles": {"broker": {}, "dealer": {}}}])
        assert first.recv_type(raw.WELCOME)[1] == 77
        for client in (first, second, peer):
            client.close()


def test_an_address_that_guesses_is_shut_out(
    xconn: XconnRouter, config: Config, make_proxy: Callable[..., ProxyProcess]
) -> None:
    """After so many failures even the right ticket is refused, also on a connection that was asked before."""
    (backend,) = [item for name, item in xconn.backends.items() if name == "xconn"]
    config.backend("router", backend)
    limits = {"max_failures_per_address": 3, "failure_window": 1500}
    front = config.listen("rawsocket", auth=TICKETS, limits=limits)
    other = config.listen("rawsocket", auth=TICKETS)
    make_proxy(config)
    waiting = ask(front)
    for _ in range(3):
        client = ask(front)
        assert answer(client, "wrong")[2] == FAILED
        client.close()
    assert answer(waiting, "right")[2] == "wamp.error.authentication_denied"
    client = raw.dial(front)
    client.send(hello(authmethods=["ticket"], authid="joe"))
    assert client.recv()[2] == "wamp.error.authentication_denied"
    client.close()
    client = ask(other)
    assert answer(client, "right")[0] == raw.WELCOME
    client.leave()
    client.close()
    time.sleep(1.6)
    client = ask(front)
    assert answer(client, "right")[0] == raw.WELCOME
    client.leave()
    for peer in (client, waiting):
        peer.close()


@pytest.mark.parametrize("is_answered", [True, False])
def test_logins_of_one_address_at_a_time(
    xconn: XconnRouter, config: Config, make_proxy: Callable[..., ProxyProcess], is_answered: bool
) -> None:
    """More are refused, until one of them is over, whatever came of it."""
    (backend,) = [item for name, item in xconn.backends.items() if name == "xconn"]
    config.backend("router", backend)
    front = config.listen("rawsocket", auth=TICKETS, limits={"max_logins_per_address": 2})
    make_proxy(config)
    first, second = ask(front), ask(front)
    third = raw.dial(front)
    third.send(hello(authmethods=["ticket"], authid="joe"))
    assert third.recv()[2] == "wamp.error.unavailable"
    if is_answered:
        assert answer(first, "right")[0] == raw.WELCOME
        first.leave()
    else:
        first.wire.reset()
        time.sleep(0.3)
    fourth = ask(front)
    for client in (second, third, fourth) if not is_answered else (first, second, third, fourth):
        client.close()
