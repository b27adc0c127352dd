"""UBJSON and FlatBuffers: clients of them reach routers of the same, through the same gate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support import raw
from support.raw import ABORT, CALL, EVENT, GOODBYE, INVOCATION, PUBLISH, Peer, encode, hello
from support.stage import Stage

SERIALIZERS = ["ubjson", "flatbuffers"]
TO_BACK: list[list[Any]] = [
    [8, 68, 1, {}, "com.example.error", [1], {"a": 2}],
    [16, 1, {"acknowledge": True}, "com.example", [1.5, None]],
    [32, 2, {}, "com.example"],
    [34, 3, 2**53],
    [48, 4, {"receive_progress": True}, "com.example", [1], {"text": "åß∂ƒ"}],
    [49, 4, {}],
    [64, 5, {}, "com.example"],
    [66, 6, 77],
    [70, 7, {"progress": True}, ["x" * 70_000]],
]
TO_FRONT: list[list[Any]] = [
    [8, 48, 1, {}, "com.example.error", [1], {"a": 2}],
    [17, 1, 2**53],
    [33, 1, 2],
    [35, 1],
    [36, 1, 2, {"topic": "com.example"}, [1.5, None], {"text": "åß∂ƒ"}],
    [50, 1, {"progress": True}, ["x" * 70_000]],
    [65, 1, 2],
    [67, 1],
    [68, 1, 2, {}, [1]],
    [69, 1, {}],
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("rare")).add_stub().add_stub("ws", "websocket")
    stage.add_stub("plain", stub={"speaks": ["cbor"]})
    stage.add_stub("translated", serializer="cbor", serializers=["cbor"])
    names = ["cbor", *SERIALIZERS]
    for to in ("anonymous", "ws", "plain", "translated"):
        for session_ids in ("router", "proxy"):
            stage.add_front(f"ws/{to}/{session_ids}", to=to, serializers=names, session_ids=session_ids)
            stage.add_front(f"rs/{to}/{session_ids}", "rawsocket", to=to, serializers=names, session_ids=session_ids)
    stage.start()
    yield stage
    stage.close()


@pytest.mark.parametrize("front", ["ws/anonymous/router", "rs/ws/router", "rs/anonymous/proxy", "ws/ws/proxy"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_message_type(serializer: str, front: str, stage: Stage) -> None:
    """All that may pass arrive octet for octet, both ways, and GOODBYE ends the session on both sides."""
    client, router = stage.session(front, serializer)
    assert router.serializer == serializer
    client.send(*TO_BACK)
    for message in TO_BACK:
        assert router.recv_payload() == encode(serializer, message)
    router.send(*TO_FRONT)
    for message in TO_FRONT:
        assert client.recv_payload() == encode(serializer, message)
    client.send([GOODBYE, {}, "wamp.close.normal"])
    router.recv_type(GOODBYE)
    router.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    client.recv_type(GOODBYE)
    client.close()
    router.close()


@pytest.mark.parametrize("kind", ["ws", "rs"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_session_ids(serializer: str, kind: str, stage: Stage) -> None:
    """The proxy's IDs outside, the router's behind; the rest of a message is what it was."""
    client, router = stage.session(f"{kind}/anonymous/proxy", serializer)
    other, other_router = stage.session(f"{kind}/anonymous/proxy", serializer)
    assert client.session != router.session
    unknown = 4711
    ids, back_ids = [client.session, unknown, other.session], [router.session, unknown, other_router.session]
    for key in ("exclude", "eligible"):
        client.send([PUBLISH, 1, {"acknowledge": True, key: ids}, "com.example", [ids]])
        assert router.recv() == [PUBLISH, 1, {"acknowledge": True, key: back_ids}, "com.example", [ids]]
    router.send([EVENT, 1, 2, {"publisher": other_router.session, "topic": "com.example"}, [back_ids]])
    assert client.recv() == [EVENT, 1, 2, {"publisher": other.session, "topic": "com.example"}, [back_ids]]
    router.send([INVOCATION, 1, 2, {"caller": other_router.session}, [back_ids]])
    assert client.recv() == [INVOCATION, 1, 2, {"caller": other.session}, [back_ids]]
    client.send([CALL, 9, {}, "wamp.session.get", [other.session]])
    assert router.recv()[4] == [other_router.session]
    for peer in (client, other):
        peer.close()


def assert_violation(client: Peer, router: Peer) -> None:
    """ABORT for the client, GOODBYE for the router, nothing else on either."""
    messages, _ = client.recv_end()
    assert [message[:1] + message[2:3] for message in messages] == [[ABORT, "wamp.error.protocol_violation"]]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


@pytest.mark.parametrize("kind", ["ws", "rs"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    "message",
    [
        hello(),
        [2, 1, {"roles": {"broker": {}}}],
        [3, {}, "wamp.error.x"],
        [5, "x", {}],
        [17, 1, 2],
        [36, 1, 2, {}],
        [50, 1, {}],
        [68, 1, 2, {}],
    ],
    ids=lambda message: str(message[0]),
)
def test_smuggled_to_the_router(message: list[Any], serializer: str, kind: str, stage: Stage) -> None:
    """A message that no client may send does not reach the router, and ends the session."""
    client, router = stage.session(f"{kind}/anonymous/router", serializer)
    client.send(message)
    assert_violation(client, router)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_cut_and_garbage(serializer: str, stage: Stage) -> None:
    """Half a message, more than one, or none at all: refused, not guessed."""
    good = encode(serializer, [CALL, 1, {}, "com.example", ["text"]])
    for octets in (b"", good[:1], good[: len(good) // 2], b"\xff" * 40, b"\0" * 40, b"[48,1,{}]"):
        client, router = stage.session("rs/anonymous/router", serializer)
        client.send_raw(octets)
        assert_violation(client, router)


@pytest.mark.parametrize("to", ["plain", "translated"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_router_that_speaks_something_else(serializer: str, to: str, stage: Stage) -> None:
    """These two are not translated: where the router does not speak them, the login ends in an ABORT that says so."""
    client = stage.dial(f"rs/{to}/router", serializer)
    client.send(hello())
    if to == "plain":
        with pytest.raises(Exception, match=serializer):
            stage.stubs["plain"].accept()
    messages, _ = client.recv_end()
    assert [message[0] for message in messages] == [ABORT]
    client = raw.dial(stage.fronts[f"rs/{to}/router"][0], "cbor")
    client, router = stage.join(f"rs/{to}/router", client)
    client.close()
    router.close()
