"""Messages that cannot be passed on, while both sides leave in every way at once: no session gets stuck or crashes."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support.raw import ABORT, CALL, ERROR, EVENT, GOODBYE, INVOCATION, RESULT, YIELD, Peer, PeerClosed, hello
from support.stage import Stage

LIMIT = 4096
BIG = "x" * 5000
ROUNDS = 60


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A proxy whose both sides take little, over one serializer and translated."""
    stage = Stage(tmp_path_factory.mktemp("races")).add_stub(stub={"takes": LIMIT})
    stage.add_stub("json", serializer="json", serializers=["json"], stub={"takes": LIMIT})
    limits = {"max_message_out": LIMIT, "close_timeout": 500}
    for name in ("anonymous", "json"):
        stage.add_front(name, to=name, limits=limits, session_ids="proxy")
        stage.config.connections[f"to_{name}"]["timeouts"] = {"goodbye": 300}
    stage.start()
    yield stage
    stage.close()


def play(peer: Peer, messages: list[list[Any]], closes: bool) -> None:
    """Send everything, then close or answer until the other end closes."""
    try:
        for message in messages:
            peer.send(message)
        if closes:
            peer.close()
            return
        peer.wire.sock.settimeout(5.0)
        while True:
            message = peer.recv()
            if message[0] == GOODBYE and messages[-1][0] != GOODBYE:
                peer.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
                peer.close()
                return
            if message[0] == ABORT or message[0] == GOODBYE:
                peer.close()
                return
    except (PeerClosed, OSError):
        peer.close()


def script(choices: list[list[Any]], ends: list[list[Any]], rng: random.Random) -> list[list[Any]]:
    """Some messages, large and small, and maybe an end."""
    return [*(rng.choice(choices) for _ in range(rng.randrange(1, 12))), *ends]


@pytest.mark.parametrize("front", ["anonymous", "json"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_at_once(front: str, seed: int, stage: Stage) -> None:
    rng = random.Random(seed)
    to_back = [
        [CALL, 1, {}, "com.x", [BIG]],
        [CALL, 2, {"progress": True}, "com.x", [BIG]],
        [CALL, 3, {}, "com.x", [1]],
        [YIELD, 4, {"progress": True}, [BIG]],
        [YIELD, 4, {}, [1]],
        [ERROR, 68, 5, {}, "com.error", [BIG]],
        [CALL, 6, {}, "com.x", [float("nan")]],
    ]
    to_front = [
        [RESULT, 1, {"progress": True}, [BIG]],
        [RESULT, 1, {}, [1]],
        [EVENT, 1, 2, {}, [BIG]],
        [INVOCATION, 4, 2, {"progress": True}, [BIG]],
        [ERROR, 48, 1, {}, "com.error", [BIG]],
        [EVENT, 1, 2, {}, [1]],
    ]
    ends = [[], [], [[GOODBYE, {}, "wamp.close.close_realm"]]]
    router_ends = [*ends, [[GOODBYE, {}, "wamp.close.killed"]], [[ABORT, {}, "com.abort"]]]
    threads = []
    for _ in range(ROUNDS):
        client, router = stage.session(front, "cbor")
        both = (
            (client, script(to_back, rng.choice(ends), rng), rng.random() < 0.6),
            (router, script(to_front, rng.choice(router_ends), rng), rng.random() < 0.6),
        )
        for peer, messages, closes in both:
            closes = closes or (peer is client and messages[-1][0] != GOODBYE)
            threads.append(threading.Thread(target=play, args=(peer, messages, closes)))
            threads[-1].start()
    for thread in threads:
        thread.join(15.0)
        assert not thread.is_alive()
    client, router = stage.session(front, "cbor")
    client.send([CALL, 9, {}, "com.x"])
    assert router.recv()[:2] == [CALL, 9]
    client.close()
    router.close()


def test_a_session_after_one_with_refused_messages(stage: Stage) -> None:
    """GOODBYE behind messages that are refused, and the next HELLO right behind it."""
    for _ in range(20):
        client, router = stage.session("anonymous", "cbor")
        big = [CALL, 1, {}, "com.x", [BIG]]
        client.send(big, big, [GOODBYE, {}, "wamp.close.close_realm"], hello())
        assert router.recv_type(GOODBYE)
        router.send([EVENT, 1, 2, {}, [BIG]], [GOODBYE, {}, "wamp.close.goodbye_and_out"])
        got = []
        while not got or got[-1][0] != GOODBYE:
            got.append(client.recv())
        assert [message[0] for message in got] == [ERROR, ERROR, EVENT, GOODBYE]
        again = stage.accept("anonymous")
        assert client.recv()[0] == 2
        client.send([CALL, 9, {}, "com.x"])
        assert again.recv()[:2] == [CALL, 9]
        for peer in (client, router, again):
            peer.close()
