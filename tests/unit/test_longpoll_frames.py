"""Bodies of long-poll requests and RawSocket frames, without sockets."""

from __future__ import annotations

import autobahn.wamp.message as messages
import autobahn.wamp.serializer as serializers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.messages import SER_CBOR, SER_FLATBUFFERS, SER_JSON, SER_MSGPACK, SER_UBJSON
from proxy.web.longpoll_frames import (
    BATCH_MAX,
    MESSAGE_MAX,
    Batches,
    FrameError,
    FrameReader,
    frame,
    handshake,
    protocols,
)

OPEN = bytes([0x7F, 0xF1, 0, 0])
OF_AUTOBAHN = {
    SER_JSON: serializers.JsonSerializer,
    SER_MSGPACK: serializers.MsgPackSerializer,
    SER_CBOR: serializers.CBORSerializer,
    SER_UBJSON: serializers.UBJSONSerializer,
}


def test_protocols_stand_for_a_serializer_and_its_batches():
    assert protocols(("cbor", "json", "flatbuffers")) == {
        "wamp.2.cbor.batched": (SER_CBOR, True),
        "wamp.2.cbor": (SER_CBOR, False),
        "wamp.2.json.batched": (SER_JSON, True),
        "wamp.2.json": (SER_JSON, False),
        "wamp.2.flatbuffers": (SER_FLATBUFFERS, False),
    }


@pytest.mark.parametrize("serializer", OF_AUTOBAHN)
def test_autobahns_batches_are_taken_apart_and_ours_are_read_by_it(serializer):
    autobahn = OF_AUTOBAHN[serializer](batched=True)
    sent = [messages.Subscribe(number, f"com.example.topic{number}") for number in range(1, 4)]
    batch = b"".join(autobahn.serialize(message)[0] for message in sent)
    batches = Batches(serializer, True)
    parts = batches.split(batch)
    plain = OF_AUTOBAHN[serializer]()
    assert [plain.unserialize(part, serializer != SER_JSON)[0].marshal() for part in parts] == [
        m.marshal() for m in sent
    ]
    assert batches.join(parts) == batch
    assert [m.marshal() for m in autobahn.unserialize(batches.join(parts))] == [m.marshal() for m in sent]


def test_the_client_chooses_the_separator():
    batches = Batches(SER_JSON, True)
    assert batches.join([b"[1]"]) == b"[1]\x1e"  # as the specification has it, as long as nothing else is known
    assert batches.split(b"[1]\x18[2]\x18") == [b"[1]", b"[2]"]
    assert batches.join([b"[3]", b"[4]"]) == b"[3]\x18[4]\x18"


@pytest.mark.parametrize(
    ("serializer", "batched", "body", "text"),
    [
        (SER_JSON, False, b"", "empty"),
        (SER_CBOR, False, bytes(MESSAGE_MAX + 1), "16777216"),
        (SER_JSON, True, b"", "empty"),
        (SER_JSON, True, b"[1]", "no end"),
        (SER_JSON, True, b"\x1e", "empty"),
        (SER_JSON, True, b"[1]\x1e\x1e", "empty"),
        (SER_CBOR, True, b"\0\0\0", "cut short"),
        (SER_CBOR, True, b"\0\0\0\0", "empty"),
        (SER_CBOR, True, b"\0\0\0\2\x80", "longer"),
        (SER_CBOR, True, b"\0\0\0\1\x80\0", "cut short"),
        (SER_CBOR, True, b"\xff\xff\xff\xff\x80", "longer"),
    ],
)
def test_bad_bodies(serializer, batched, body, text):
    with pytest.raises(FrameError, match=text):
        Batches(serializer, batched).split(body)


@pytest.mark.parametrize(("serializer", "message"), [(SER_JSON, b"1\x1e"), (SER_CBOR, b"\0\0\0\1\x80")])
def test_a_batch_of_very_many_messages_is_refused_before_it_is_taken_apart(serializer, message):
    batches = Batches(serializer, True)
    assert len(batches.split(message * BATCH_MAX)) == BATCH_MAX
    with pytest.raises(FrameError, match=f"more than {BATCH_MAX} messages"):
        batches.split(message * (BATCH_MAX + 1))


@given(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    st.sampled_from([SER_MSGPACK, SER_CBOR, SER_UBJSON]),
)
def test_what_is_joined_is_split_again(parts, serializer):
    batches = Batches(serializer, True)
    assert batches.split(batches.join(parts)) == parts


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_frames_are_read_however_they_arrive(parts, data):
    stream = OPEN + b"".join(map(frame, parts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = FrameReader(SER_JSON)
    seen = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        messages_now, answers = reader.feed(stream[start:end])
        assert answers == b""
        seen += messages_now
    assert seen == parts
    assert reader.is_open


def test_the_longest_message_takes_the_25th_bit():
    longest = bytes(MESSAGE_MAX)
    assert frame(longest)[:4] == bytes([8, 0, 0, 0])
    reader = FrameReader(SER_JSON)
    assert reader.feed(OPEN + frame(longest)) == ([longest], b"")


def test_pings_are_answered_and_pongs_ignored():
    reader = FrameReader(SER_JSON)
    got = reader.feed(OPEN + b"\x01\0\0\2hi" + frame(b"[1]") + b"\x02\0\0\0" + b"\x01\0\0\0")
    assert got == ([b"[1]"], b"\x02\0\0\2hi\x02\0\0\0")


@pytest.mark.parametrize("answer", ["7f100000", "7ff20000", "7ff10001", "48545450", "7ff00000"])
def test_a_handshake_that_is_refused(answer):
    assert handshake(SER_JSON).hex() == "7ff10000"
    with pytest.raises(FrameError, match=answer):
        FrameReader(SER_JSON).feed(bytes.fromhex(answer))


@pytest.mark.parametrize("header", ["03000000", "10000001", "08000001"])
def test_frames_that_are_none(header):
    with pytest.raises(FrameError, match=header):
        FrameReader(SER_JSON).feed(OPEN + bytes.fromhex(header))
