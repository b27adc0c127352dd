"""Batches of WAMP messages: what is taken apart and put together, with autobahn's serializers as the other end."""

from __future__ import annotations

import json
import struct

import pytest
import txaio

txaio.use_twisted()  # autobahn's serializers take their clock from the framework that was chosen before their import

from autobahn.wamp import message, serializer  # noqa: E402
from autobahn.wamp.interfaces import ISerializer  # noqa: E402

from proxy._relay import SER_CBOR, SER_JSON, SER_MSGPACK, probe_batch  # noqa: E402

RS, CAN = b"\x1e", b"\x18"
BINARY = [SER_MSGPACK, SER_CBOR]
AUTOBAHN = {
    SER_JSON: serializer.JsonSerializer,
    SER_MSGPACK: serializer.MsgPackSerializer,
    SER_CBOR: serializer.CBORSerializer,
}
MESSAGES = [
    message.Publish(7, "com.example.topic", args=[1, "zwölf", {"a": None}]),
    message.Call(8, "com.example.\x18", kwargs={"\x1e": "\x18"}),
    message.Event(1, 2),
]


def prefixed(*messages: bytes) -> bytes:
    """A batch of a binary serializer."""
    return b"".join(struct.pack("!L", len(item)) + item for item in messages)


def refusal(batch: probe_batch, data: bytes) -> tuple[str, list[bytes]]:
    """Why a batch is refused, and the messages before the place where it is."""
    with pytest.raises(ValueError, match="ST_") as caught:
        batch.take(data)
    status, found = caught.value.args
    return status, found


def encoded(made: ISerializer, number: int = 1) -> bytes:
    """A batch as autobahn writes it: its serializer makes batches of one."""
    return b"".join(made.serialize(MESSAGES[i % len(MESSAGES)])[0] for i in range(number))


# --- what is good --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", AUTOBAHN)
@pytest.mark.parametrize("number", [1, 2, 3, 300])
def test_what_autobahn_writes_is_read_and_the_other_way_round(code: int, number: int) -> None:
    made, single = AUTOBAHN[code](batched=True), AUTOBAHN[code](batched=False)
    data, batch = encoded(made, number), probe_batch(code)
    messages = batch.take(data)
    assert messages == [single.serialize(MESSAGES[i % 3])[0] for i in range(number)]
    assert batch.put(messages) == data
    assert [str(item) for item in made.unserialize(batch.put(messages))] == [
        str(MESSAGES[i % 3]) for i in range(number)
    ]


def test_the_separator_that_the_client_used_last_is_the_answers() -> None:
    batch = probe_batch(SER_JSON)
    assert batch.put([b"[1]", b"[2]"]) == b"[1]\x1e[2]\x1e"  # the specification's, before anything came
    for separator in (CAN, CAN, RS, CAN):
        assert batch.take(b"[1]" + separator + b"[2]" + separator) == [b"[1]", b"[2]"]
        assert batch.put([b"[3]"]) == b"[3]" + separator


def test_a_json_batch_has_one_kind_of_separator() -> None:
    """The other one stays in the message, which is no JSON then: the gate's business."""
    batch = probe_batch(SER_JSON)
    assert batch.take(b"[1]\x18[2]\x1e") == [b"[1]\x18[2]"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(b"[1]\x18[2]")


@pytest.mark.parametrize("code", BINARY)
def test_separators_mean_nothing_to_binary_serializers(code: int) -> None:
    messages = [b"\x18", b"\x1e\x18", bytes(70_000)]
    assert probe_batch(code).take(prefixed(*messages)) == messages
    assert probe_batch(code).put(messages) == prefixed(*messages)


# --- what is not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", AUTOBAHN)
def test_an_empty_batch_is_refused(code: int) -> None:
    assert refusal(probe_batch(code), b"") == ("ST_PROTOCOL", [])


@pytest.mark.parametrize(
    ("data", "before"),
    [
        (RS, 0),
        (CAN, 0),
        (b"[1]", 0),
        (b"[1]\x1e[2]", 0),
        (b"[1]\x1e\n", 0),
        (RS + b"[1]" + RS, 0),
        (b"[1]" + RS + RS, 1),
        (b"[1]\x18[2]\x18\x18[3]\x18", 2),
    ],
)
def test_malformed_json_batch(data: bytes, before: int) -> None:
    status, found = refusal(probe_batch(SER_JSON), data)
    assert status == "ST_PROTOCOL"
    assert found == [b"[1]", b"[2]"][:before]


@pytest.mark.parametrize("code", BINARY)
@pytest.mark.parametrize(
    ("data", "before"),
    [
        (b"\0", 0),
        (b"\0\0\0\1", 0),
        (prefixed(b""), 0),
        (prefixed(b"") + b"x", 0),
        (prefixed(b"") + prefixed(b"ab"), 0),
        (prefixed(b"ab") + prefixed(b""), 1),
        (prefixed(b"ab") + b"\0", 1),
        (prefixed(b"ab") + b"\0\0\0", 1),
        (prefixed(b"ab") + b"\0\0\0\1", 1),
        (b"\0\0\0\2a", 0),
        (b"\xff\xff\xff\xffabcdef", 0),
        (b"\x80\0\0\1abcdef", 0),
        (prefixed(b"ab") + b"\xff\xff\xff\xffabcdef", 1),
        (prefixed(b"ab") + prefixed(b"cd")[:-1], 1),
    ],
)
def test_malformed_binary_batch(code: int, data: bytes, before: int) -> None:
    assert refusal(probe_batch(code), data) == ("ST_PROTOCOL", [b"ab"][:before])


@pytest.mark.parametrize("code", AUTOBAHN)
def test_cut_at_every_octet(code: int) -> None:
    """A part of a batch is refused unless it ends where a message does; there is no third way."""
    data = encoded(AUTOBAHN[code](batched=True), 3)
    batch = probe_batch(code)
    messages = batch.take(data)
    ends = {len(batch.put(messages[:i])): messages[:i] for i in range(1, 4)}
    for size in range(len(data) + 1):
        if size in ends:
            assert batch.take(data[:size]) == ends[size]
        else:
            status, found = refusal(batch, data[:size])
            assert (status, found) == ("ST_PROTOCOL", messages[: len(found)])


@pytest.mark.parametrize("code", AUTOBAHN)
def test_trailing_octets_are_refused(code: int) -> None:
    data = encoded(AUTOBAHN[code](batched=True), 2)
    for trailing in (b"\0", b"x", b"\0\0\0\0", b"\0\0\0\1"):
        assert refusal(probe_batch(code), data + trailing)[0] == "ST_PROTOCOL"


def test_a_refused_batch_leaves_nothing_behind() -> None:
    batch = probe_batch(SER_CBOR)
    refusal(batch, prefixed(b"ab") + b"\0")
    assert batch.take(prefixed(b"cd")) == [b"cd"]


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "overhead"), [(SER_JSON, 4), (SER_CBOR, 4)])
def test_a_message_that_does_not_fit_is_not_begun(code: int, overhead: int) -> None:
    batch = probe_batch(code)
    first = batch.put([b"[1, 2, 3]"])
    with pytest.raises(ValueError, match="ST_TOO_BIG") as caught:
        batch.put([b"[1, 2, 3]", b"[4, 5, 6]"], len(first) + 9 + overhead - 1)
    assert caught.value.args == ("ST_TOO_BIG", first)
    assert len(batch.put([b"[1, 2, 3]", b"[4, 5, 6]"], len(first) + 9 + overhead)) > len(first)
