"""A reader that does not read slows its sender down or is cut off; memory is bounded and others notice nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.census import assert_grown, cpu_seconds, rss
from support.endpoints import Endpoint
from support.flood import Flood
from support.proxies import Config, ProxyProcess
from support.raw import EVENT, GOODBYE, PUBLISH, WELCOME, Peer, PeerClosed, encode, hello
from support.stub import StubRouter

MIB = 1 << 20
HIGH_WATER = 128 * 1024
SOCKET_BUFFERS = 16 * MIB
"""What the kernel may hold on the way: two connections with buffers of up to 6 MiB each."""


class Stage:
    """A proxy in front of a stub router."""

    def __init__(self, config: Config, stub: StubRouter, make_proxy: Callable[..., Any], stall: int) -> None:
        config.stub("stub", stub.endpoint)
        limits = {"stall_timeout": stall, "high_water": HIGH_WATER, "low_water": 32 * 1024, "close_timeout": 300}
        self.stub = stub
        self.fronts = {kind: config.listen(kind, limits=limits) for kind in ("websocket", "rawsocket")}
        self.proxy: ProxyProcess = make_proxy(config)

    def session(self, kind: str) -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(self.fronts[kind])
        client.send(hello())
        router, _ = self.stub.accept_session()
        client.recv_type(WELCOME)
        return client, router


@pytest.fixture
def make_stage(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> Any:
    """A stage with a given stall timeout in ms."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        yield lambda stall: Stage(config, stub, make_proxy, stall)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("to_front", [True, False], ids=["to-front", "to-back"])
def test_slow_reader_slows_its_sender(kind: str, to_front: bool, make_stage: Callable[[int], Stage]) -> None:
    """While one side does not read, little is taken from the other; when it reads again, nothing is lost."""
    stage = make_stage(60_000)
    client, router = stage.session(kind)
    other = stage.session(kind)
    sender, reader = (router, client) if to_front else (client, router)
    message = [EVENT, 1, 2, {}, ["x" * 8000]] if to_front else [PUBLISH, 1, {}, "com.example", ["x" * 8000]]
    before = rss(stage.proxy.pid)
    flood = Flood.of(sender, message)
    taken = flood.settle()
    assert taken < SOCKET_BUFFERS, f"{taken / MIB:.1f} MiB were taken for a peer that does not read"
    assert_grown(stage.proxy.pid, before, 4 * MIB + 2 * HIGH_WATER, "one slow reader")

    used = cpu_seconds(stage.proxy.pid)
    for number in range(20):  # others are not disturbed
        other[0].send([PUBLISH, number + 1, {}, "com.example"])
        assert other[1].recv()[1] == number + 1
        other[1].send([EVENT, 1, number + 1, {}])
        assert other[0].recv()[2] == number + 1
        time.sleep(0.02)
    assert cpu_seconds(stage.proxy.pid) - used < 0.3, "waiting for a slow reader is no work"

    payload, count = encode("cbor", message), 0
    while count * len(payload) < taken + 20 * MIB:  # the flood goes on while we read
        assert reader.recv_payload() == payload
        count += 1
    flood.stop()
    for peer in (client, router, *other):
        peer.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
def test_stalled_client_is_cut_off(kind: str, make_stage: Callable[[int], Stage]) -> None:
    """A client that does not read for stall_timeout is closed, its router session is left, others go on."""
    stage = make_stage(700)
    client, router = stage.session(kind)
    other = stage.session(kind)
    flood = Flood.of(router, [EVENT, 1, 2, {}, ["x" * 8000]])
    assert flood.ended.wait(20.0), "the router's connection of a stalled client is still open"
    flood.stop()
    router.wire.sock.settimeout(raw.TIMEOUT)
    try:
        assert [message[0] for message in router.recv_end()[0]] in ([], [GOODBYE])
    except PeerClosed:
        pass
    other[0].send([PUBLISH, 1, {}, "com.example"])
    assert other[1].recv()[1] == 1
    client.recv_end()
    for peer in (client, *other):
        peer.close()


@pytest.mark.slow
def test_stalled_router(make_stage: Callable[[int], Stage]) -> None:
    """A router that does not read: its client is told that it is lost, or waits; either way memory stays bounded."""
    stage = make_stage(700)
    client, router = stage.session("rawsocket")
    before = rss(stage.proxy.pid)
    flood = Flood.of(client, [PUBLISH, 1, {}, "com.example", ["x" * 8000]])
    assert flood.settle() < SOCKET_BUFFERS
    assert_grown(stage.proxy.pid, before, 4 * MIB + 2 * HIGH_WATER, "one slow reader")
    flood.stop()
    client.close()
    router.close()


@pytest.mark.slow
def test_many_slow_readers(make_stage: Callable[[int], Stage]) -> None:
    """Memory is bounded by high water for each of them, not by what the senders would like to send."""
    stage = make_stage(60_000)
    sessions = [stage.session("websocket") for _ in range(20)]
    before = rss(stage.proxy.pid)
    floods = [Flood.of(router, [EVENT, 1, 2, {}, ["x" * 8000]]) for _, router in sessions]
    while sum(flood.is_moving() for flood in floods):
        time.sleep(0.4)
    assert_grown(stage.proxy.pid, before, len(sessions) * (3 * HIGH_WATER) + 4 * MIB, "many slow readers")
    for flood in floods:
        flood.stop()
    for peers in sessions:
        for peer in peers:
            peer.close()
