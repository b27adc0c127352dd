"""Batched subprotocols: many WAMP messages in one WebSocket message, each judged on its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from support import raw
from support.extended import JSON_END, JSON_END_AUTOBAHN, ExtendedPeer
from support.raw import ABORT, GOODBYE, WELCOME, Peer, encode, hello
from support.stage import Stage

SERIALIZERS = ["json", "msgpack", "cbor"]
BATCH_MAX = 65_536
"""Octets of a batch towards a client, unless one message alone is longer."""
NAMES = [f"{name}.batched" for name in SERIALIZERS]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("batched")).add_stub()
    stage.add_front("ws", serializers=[*SERIALIZERS, *NAMES])
    stage.add_front("small", serializers=[*SERIALIZERS, *NAMES], options={"max_message_size": 5000})
    stage.start()
    yield stage
    stage.close()


def session(stage: Stage, serializer: str, front: str = "ws") -> tuple[ExtendedPeer, Peer]:
    """A joined session that speaks batches."""
    client, router = stage.session(front, serializer, batched=True)
    return client, router


def call(number: int, text: str = "") -> list[Any]:
    """A CALL."""
    return [raw.CALL, number, {}, "com.example", [text]]


def event(number: int, text: str = "") -> list[Any]:
    """An EVENT."""
    return [raw.EVENT, 1, number, {}, [text]]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_one_message_in_and_many(serializer: str, stage: Stage) -> None:
    """The router sees the messages of a batch one by one with their octets as they were, whatever the batch's size."""
    client, router = session(stage, serializer)
    number = 0
    for count in (1, 2, 3, 100, 5000):
        messages = [call(number + i, "åß∂ƒ\x1e\x18" * (i % 7)) for i in range(count)]
        number += count
        client.send_batch(*messages)
        for message in messages:
            assert router.recv_payload() == encode(serializer, message)
    client.close()


@pytest.mark.parametrize("end", [JSON_END, JSON_END_AUTOBAHN], ids=["1e", "18"])
def test_both_ends_of_json_messages(end: bytes, stage: Stage) -> None:
    """0x1e (the specification) and 0x18 (autobahn-python) end messages; answers come in the form that was asked in."""
    client = stage.dial("ws", "json", batched=True)
    client.json_end = end
    client, router = stage.join("ws", client)
    messages = [call(i, "text \x18\x1e") for i in range(3)]
    client.send_batch(*messages)
    for message in messages:
        assert router.recv() == message
    events = [event(i, "text \x18\x1e") for i in range(20)]
    router.send(*events)
    assert [client.recv() for _ in events] == events
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_answers_come_batched(serializer: str, stage: Stage) -> None:
    """What is ready at once leaves in few WebSocket messages, each within the bound, nothing lost, in order."""
    client, router = session(stage, serializer)
    client.batches.clear()
    events = [event(i, "x" * (i % 300)) for i in range(2000)]
    router.send(*events)
    assert [client.recv() for _ in events] == events
    assert sum(client.batches) == len(events)
    assert max(client.batches) > 1
    assert len(client.batches) < len(events) / 4, f"{len(events)} messages came in {len(client.batches)} batches"
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_bound_of_a_batch(serializer: str, stage: Stage) -> None:
    """A batch is not longer than the bound, unless one message alone is."""
    client, router = session(stage, serializer)
    sizes = [*([20_000] * 30), 300_000, 10, 70_000, *([10] * 50), BATCH_MAX, BATCH_MAX - 100, 10]
    events = [event(i, "x" * size) for i, size in enumerate(sizes)]
    router.send(*events)
    lengths = []
    received: list[Any] = []
    while len(received) < len(events):
        data = client.recv_data()
        messages = [raw.decode(serializer, part) for part in client.unpack(data)]
        lengths.append((len(data), len(messages)))
        received += messages
    assert received == events
    assert all(length <= BATCH_MAX or count == 1 for length, count in lengths), lengths
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_fragmented_batch(serializer: str, stage: Stage) -> None:
    """A batch may come in fragments with control frames in between."""
    client, router = session(stage, serializer)
    messages = [call(i, "text") for i in range(20)]
    data = client.pack(*(encode(serializer, message) for message in messages))
    pieces = [data[i : i + 33] for i in range(0, len(data), 33)]
    for number, piece in enumerate(pieces):
        opcode = raw.OP_CONT if number else client.opcode
        client.wire.write(client.ws_frame(opcode, piece, fin=number == len(pieces) - 1) + client.ping_frame(b"p"))
    for message in messages:
        assert router.recv() == message
    client.close()


# --- the gate ---

SMUGGLED: dict[str, list[Any]] = {
    "hello": [1, "realm1", {"roles": {}, "authextra": {"proxy_authrole": "trusted"}}],
    "welcome": [2, 1, {"roles": {}}],
    "abort": [3, {}, "wamp.error.x"],
    "authenticate": [5, "x", {}],
    "event": [36, 1, 2, {}],
    "unknown": [99, 1],
    "text": ["48", 1, {}, "com.example"],
    "empty": [],
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("name", SMUGGLED)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_smuggled_in_a_batch(position: int, name: str, serializer: str, stage: Stage) -> None:
    """What is before a forbidden message is delivered; it and what follows is not, and the session ends."""
    client, router = session(stage, serializer)
    messages = [call(1), call(2)]
    client.send_batch(*messages[:position], SMUGGLED[name], *messages[position:])
    for message in messages[:position]:
        assert router.recv() == message
    assert_violation(client, router)


def assert_violation(client: Peer, router: Peer) -> None:
    """ABORT for the client, GOODBYE for the router, nothing else on either."""
    messages, _ = client.recv_end()
    assert [message[:1] + message[2:3] for message in messages] == [[ABORT, "wamp.error.protocol_violation"]]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


AMBIGUOUS = [
    ("json", b'[48.0,1,{},"com.example"]'),
    ("json", b'[48,1,{},"com.example"] [1,"realm1",{}]'),
    ("json", b'[48,1,{},"com.example"]\x00'),
    ("json", b'[48,1,{},"a\x1eb"]'),
    ("json", b'{"0":48}'),
    ("cbor", encode("cbor", [48, 1, {}, "com.example"]) + encode("cbor", [1, "realm1", {}])),
    ("cbor", encode("cbor", [48, 1, {}, "com.example"])[:-1]),
    ("msgpack", encode("msgpack", [48, 1, {}, "com.example"]) + encode("msgpack", [1, "r", {}])),
    ("msgpack", b"\x94\xd0\x30\x01\x80\xaacom.exampl"),
]


@pytest.mark.parametrize(("serializer", "octets"), AMBIGUOUS)
def test_ambiguous_in_a_batch(serializer: str, octets: bytes, stage: Stage) -> None:
    """A message that could be read in two ways is refused in a batch, too."""
    client, router = session(stage, serializer)
    good = encode(serializer, call(1))
    client.wire.write(client.message(client.pack(good, octets, encode(serializer, call(2)))))
    assert router.recv() == call(1)
    assert_violation(client, router)


def u32(*numbers: int) -> bytes:
    """Lengths."""
    return b"".join(struct.pack(">I", number) for number in numbers)


GOOD = {name: encode(name, call(7)) for name in SERIALIZERS}
MALFORMED: dict[str, tuple[str, bytes]] = {
    "json-empty": ("json", b""),
    "json-not-ended": ("json", GOOD["json"]),
    "json-second-not-ended": ("json", GOOD["json"] + JSON_END + GOOD["json"]),
    "json-only-end": ("json", JSON_END),
    "json-begins-with-end": ("json", JSON_END + GOOD["json"] + JSON_END),
    "json-newline": ("json", GOOD["json"] + b"\n"),
    "json-nul": ("json", GOOD["json"] + b"\0"),
}
for _name in ("msgpack", "cbor"):
    _good = GOOD[_name]
    MALFORMED |= {
        f"{_name}-empty": (_name, b""),
        f"{_name}-no-length": (_name, _good),
        f"{_name}-cut-length": (_name, u32(len(_good))[:3]),
        f"{_name}-length-only": (_name, u32(len(_good))),
        f"{_name}-cut": (_name, u32(len(_good)) + _good[:-1]),
        f"{_name}-zero": (_name, u32(0)),
        f"{_name}-zero-first": (_name, u32(0, len(_good)) + _good),
        f"{_name}-huge": (_name, u32(0xFFFFFFFF) + _good),
        f"{_name}-over-16-mib": (_name, u32(1 << 24) + _good),
        f"{_name}-top-bit": (_name, u32(1 << 31 | len(_good)) + _good),
    }


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_batch(name: str, stage: Stage) -> None:
    """An empty or malformed batch fails the transport; nothing that it seems to hold reaches the router."""
    serializer, octets = MALFORMED[name]
    client, router = session(stage, serializer)
    client.wire.write(client.message(octets))
    messages, closed = client.recv_end()
    assert [message[0] for message in messages] in ([], [ABORT])
    assert closed.code in (1002, 1007) or (messages and closed.how in ("eof", "close")), (messages, closed)
    sent = [message for message in router.recv_end()[0] if message[0] != GOODBYE]
    assert sent in ([], [call(7)] if name in ("json-second-not-ended",) else []), sent


TRAILING = {
    "json": [JSON_END, JSON_END * 2, b"[", b" "],
    "cbor": [b"\0", u32(0), u32(5), u32(5) + b"\x84\x18\x30", u32(1 << 31)],
    "msgpack": [b"\0", u32(0), u32(5), u32(5) + b"\x94\x30\x01", u32(1 << 31)],
}


@pytest.mark.parametrize(("serializer", "octets"), [(s, octets) for s, items in TRAILING.items() for octets in items])
def test_malformed_behind_good_messages(serializer: str, octets: bytes, stage: Stage) -> None:
    """Whole messages may be delivered before the malformed rest is seen; the transport fails in any case."""
    client, router = session(stage, serializer)
    client.wire.write(client.message(client.pack(GOOD[serializer], GOOD[serializer]) + octets))
    messages, _ = client.recv_end()
    assert [message[0] for message in messages] in ([], [ABORT])
    sent = [message for message in router.recv_end()[0] if message[0] != GOODBYE]
    assert sent in ([], [call(7)] * 2), sent


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_limit_is_for_the_whole_batch(serializer: str, stage: Stage) -> None:
    """max_message_size is for the WebSocket message: a batch over it ends the session with 1009."""
    client, router = session(stage, serializer, "small")
    client.send_batch(*(call(i, "x" * 80) for i in range(35)))
    for number in range(35):
        assert router.recv()[1] == number
    client.send_batch(*(call(i, "x" * 80) for i in range(100)))
    messages, closed = client.recv_end()
    assert closed.code == 1009, (messages, closed)
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


# --- login and logout ---


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_messages_behind_hello(serializer: str, stage: Stage) -> None:
    """What follows HELLO in its batch waits for WELCOME, as it does when it follows in a message of its own."""
    client = stage.dial("ws", serializer, batched=True)
    client.send_batch(hello(), call(1), call(2))
    router, _ = stage.stubs["anonymous"].accept_session(11)
    client.recv_type(WELCOME)
    assert [router.recv(), router.recv()] == [call(1), call(2)]
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_two_hellos_in_one_batch(serializer: str, stage: Stage) -> None:
    """The second one never reaches the router, and ends the session."""
    client = stage.dial("ws", serializer, batched=True)
    client.send_batch(hello(), hello(), call(1))
    router, _ = stage.stubs["anonymous"].accept_hello()
    router.send([WELCOME, 12, {"roles": {"broker": {}}}])
    messages, _ = client.recv_end()
    assert [message[0] for message in messages] in ([WELCOME, ABORT], [ABORT])
    assert messages[-1][2] == "wamp.error.protocol_violation"
    assert [message[0] for message in router.recv_end()[0]] in ([GOODBYE], [])


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_goodbye_and_the_next_session_in_one_batch(serializer: str, stage: Stage) -> None:
    """A batch may end one session and begin the next."""
    client, router = session(stage, serializer)
    client.send_batch(call(1), [GOODBYE, {}, "wamp.close.close_realm"], hello(), call(2))
    assert router.recv() == call(1)
    router.recv_type(GOODBYE)
    router.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    client.recv_type(GOODBYE)
    second, _ = stage.stubs["anonymous"].accept_session(13)
    client.recv_type(WELCOME)
    assert second.recv() == call(2)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_router_ends_behind_events(serializer: str, stage: Stage) -> None:
    """Events and the GOODBYE behind them arrive in order."""
    client, router = session(stage, serializer)
    events = [event(i) for i in range(500)]
    router.send(*events, [GOODBYE, {"message": "bye"}, "wamp.close.killed"])
    assert [client.recv() for _ in events] == events
    assert client.recv_type(GOODBYE)[2] == "wamp.close.killed"
    client.close()
    router.close()


# --- negotiation ---


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_choice_of_the_subprotocol(serializer: str, stage: Stage) -> None:
    """The client's order decides between a serializer and its batches, as autobahn-python's first offer is batched."""
    for offered in (f"wamp.2.{serializer}.batched", f"wamp.2.{serializer}"):
        other = f"wamp.2.{serializer}" + ("" if offered.endswith("batched") else ".batched")
        wire = raw.Wire(stage.fronts["ws"][0].connect())
        spoken, _ = raw.upgrade(wire, stage.fronts["ws"][0], f"wamp.2.nonsense, {offered}, {other}")
        assert spoken == offered
        wire.close()
