"""Sessions that translate, rewrite, batch and compress leave nothing: no window, no map entry, no note, no buffer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from support import extended, raw
from support.census import assert_grown, rss, threads
from support.extended import OFFER, RSV1, Deflate
from support.raw import CALL, ERROR, EVENT, GOODBYE, INVOCATION, RESULT, SUBSCRIBED, YIELD, Peer
from support.stage import Stage

pytestmark = pytest.mark.slow

SERIALIZERS = ["json", "msgpack", "cbor"]
MIB = 1 << 20
BOMB = Deflate().compress(bytes(4 * MIB))
PROGRESS: dict[str, Any] = {"progress": True}
BIG = "x" * 5000
ENDINGS = ("goodbye", "close", "reset", "router-lost", "violation", "bomb", "half-a-message")
MODES: list[dict[str, Any]] = [
    {},
    {"batched": True},
    {"offer": OFFER},
    {"batched": True, "offer": OFFER},
    {"offer": "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
    {"offer": "permessage-deflate; server_max_window_bits=9"},
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("feature-leaks")).add_stub("own", stub={"takes": 4096})
    stage.add_stub("json", serializer="json", serializers=["json"], stub={"takes": 4096})
    names = [*SERIALIZERS, *(f"{name}.batched" for name in SERIALIZERS)]
    options = {"compression": {"deflate": {}}, "max_message_size": MIB}
    for to in ("own", "json"):
        stage.add_front(f"ws/{to}", to=to, serializers=names, options=options, session_ids="proxy")
        stage.add_front(f"rs/{to}", "rawsocket", to=to, session_ids="proxy")
    stage.start(log_level="warn")
    yield stage
    stage.close()


def talk(client: Any, router: Peer) -> None:
    """Everything that is remembered for a while: subscriptions to meta events, calls of the meta API, dead calls."""
    client.send([raw.SUBSCRIBE, 1, {}, "wamp.session.on_join"])
    router.recv()
    router.send([SUBSCRIBED, 1, 77], [EVENT, 77, 5, {}, [{"session": router.session, "authid": "a"}]])
    client.recv_type(SUBSCRIBED)
    assert client.recv()[4][0]["session"] == client.session
    client.send([CALL, 2, {}, "wamp.session.list"], [CALL, 3, {}, "wamp.session.get", [client.session]])
    assert router.recv()[1] == 2
    assert router.recv()[4] == [router.session]
    router.send([RESULT, 2, {}, [[router.session, 4711]]])  # the other call is never answered
    assert client.recv() == [RESULT, 2, {}, [[client.session, 4711]]]
    client.send([CALL, 4, {}, "com.example", [BIG]], [raw.PUBLISH, 5, {}, "com.example", [BIG]])
    assert client.recv_type(ERROR)[2] == 4
    router.send([INVOCATION, 9, 1, {"caller": router.session}])
    assert client.recv()[3]["caller"] == client.session
    client.send([YIELD, 9, PROGRESS, [BIG]], [YIELD, 9, PROGRESS, [1]])  # and never its final word
    assert router.recv_type(ERROR)[2] == 9
    client.send([raw.PUBLISH, 6, {"exclude": [client.session]}, "com.example", ["åß∂ƒ" * 50]])
    assert router.recv()[2] == {"exclude": [router.session]}


def end(client: Any, router: Peer, ending: str) -> None:
    """End both connections."""
    if ending == "goodbye":
        client.send([GOODBYE, {}, "wamp.close.normal"])
        router.recv_type(GOODBYE)
        router.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        client.recv_type(GOODBYE)
    elif ending == "reset":
        client.wire.reset()
    elif ending == "router-lost":
        router.close()
        client.recv_end()
    elif ending == "violation":
        client.send([1, "realm1", {}])
        client.recv_end()
    elif ending == "bomb" and isinstance(client, extended.ExtendedPeer) and client.deflate:
        client.wire.write(client.ws_frame(client.opcode, BOMB, rsv=RSV1))
        client.recv_end()
    elif ending == "half-a-message":
        client.wire.write(client.frame(raw.encode(client.serializer, [CALL, 1, {}, "com.example", [BIG]]))[:50])
    client.close()
    router.close()


def visits(stage: Stage, count: int, chance: random.Random) -> None:
    """Sessions of all kinds, three at a time, so that they overlap."""
    living: list[tuple[Any, Peer]] = []
    for _ in range(count):
        kind, to = chance.choice(["ws", "ws", "ws", "rs"]), chance.choice(["own", "json"])
        keys = chance.choice(MODES) if kind == "ws" else {}
        client, router = stage.session(f"{kind}/{to}", chance.choice(SERIALIZERS), **keys)
        talk(client, router)
        living.append((client, router))
        if len(living) > 3:
            end(*living.pop(chance.randrange(3)), chance.choice(ENDINGS))
    for peers in living:
        end(*peers, "close")


@pytest.mark.timeout(180)
def test_many_sessions(stage: Stage) -> None:
    """Memory after the last hundreds is what it was after the first ones, and no descriptor is left."""
    chance = random.Random(1)
    before = threads(stage.proxy.pid)
    sizes = []
    for _ in range(6):
        visits(stage, 150, chance)
        stage.proxy.check_idle()
        sizes.append(rss(stage.proxy.pid))
    report = " ".join(f"{size / MIB:.1f}" for size in sizes)
    assert_grown(stage.proxy.pid, sizes[2], 2 * MIB, f"resident memory after each 150 sessions, MiB: {report}")
    assert threads(stage.proxy.pid) == before


def test_one_long_session(stage: Stage) -> None:
    """Thousands of requests of which something was remembered, in one session, do not add up."""
    client, router = stage.session("ws/own", "cbor", batched=True, offer=OFFER)
    sizes = []
    for number in range(1, 3001):
        client.send([CALL, number, {}, "wamp.session.list"])
        router.recv()
        router.send([RESULT, number, {}, [[router.session]]])
        assert client.recv()[3] == [[client.session]]
        if number % 3 == 0:
            client.send([raw.SUBSCRIBE, number, {}, "wamp.session.on_leave"])
            router.recv()
            router.send([SUBSCRIBED, number, number])
            client.recv()
            client.send([raw.UNSUBSCRIBE, number, number])
            router.recv()
            router.send([raw.UNSUBSCRIBED, number])
            client.recv()
        if number % 1000 == 0:
            sizes.append(rss(stage.proxy.pid))
    # what is remembered of a link has a bound of 1,024: all of these were forgotten again
    client.send([CALL, 5000, {}, "wamp.session.get", [client.session]])
    assert router.recv()[4] == [router.session]
    assert_grown(stage.proxy.pid, sizes[0], MIB, "2,000 calls of one session")
    client.close()
    router.close()
