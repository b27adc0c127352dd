"""RawSocket handshake and frames as the WAMP specification's advanced profile has them."""

from __future__ import annotations

from functools import partial

import pytest

from proxy._relay import FrameCodec, FrameError, rs_error_write, rs_hello_read, rs_hello_write, rs_reply_read
from support.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    assert_frames,
    assert_refused,
    feed_octets,
    refusal,
    rs_frame,
)

JSON, MSGPACK, CBOR = 1, 2, 3
ALL = 1 << JSON | 1 << MSGPACK | 1 << CBOR
MAX = 1 << 24

codec = partial(FrameCodec, "rawsocket", serializer="cbor")
json_codec = partial(FrameCodec, "rawsocket", serializer="json")


# --- handshake -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", [JSON, MSGPACK, CBOR])
@pytest.mark.parametrize("exponent", range(16))
def test_handshake_names_serializer_and_size(serializer: int, exponent: int) -> None:
    hello = bytes([0x7F, exponent << 4 | serializer, 0, 0])
    assert rs_hello_read(hello, ALL) == ("ST_OK", serializer, 512 << exponent, 0)
    assert rs_reply_read(hello, serializer) == ("ST_OK", 512 << exponent, 0)
    assert rs_hello_write(serializer, 512 << exponent) == hello


@pytest.mark.parametrize(
    ("max_in", "exponent"),
    [(1, 0), (511, 0), (512, 0), (513, 1), (1024, 1), (1025, 2), (65536, 7), (65537, 8), (MAX - 1, 15), (MAX, 15)],
)
def test_size_is_rounded_up(max_in: int, exponent: int) -> None:
    assert rs_hello_write(CBOR, max_in) == bytes([0x7F, exponent << 4 | CBOR, 0, 0])


@pytest.mark.parametrize("max_in", [0, MAX + 1, (1 << 32) - 1])
def test_no_limit_or_one_beyond_the_format_is_announced_as_the_largest(max_in: int) -> None:
    assert rs_hello_write(JSON, max_in) == b"\x7f\xf1\x00\x00"


@pytest.mark.parametrize("first", [0x00, 0x7E, 0x80, 0xFF, ord("G")])
def test_what_is_not_rawsocket_gets_no_answer(first: int) -> None:
    assert rs_hello_read(bytes([first, 0xF1, 0, 0]), ALL)[::3] == ("ST_PROTOCOL", 0)
    assert rs_reply_read(bytes([first, 0xF1, 0, 0]), JSON) == ("ST_PROTOCOL", 0, 0)


@pytest.mark.parametrize("serializer", [0, 4, 5, 6, 15])
def test_serializer_that_does_not_exist(serializer: int) -> None:
    assert rs_hello_read(bytes([0x7F, 0xF0 | serializer, 0, 0]), ALL)[::3] == ("ST_PROTOCOL", 1)


@pytest.mark.parametrize("serializer", [JSON, MSGPACK, CBOR])
def test_serializer_that_is_not_offered(serializer: int) -> None:
    hello = bytes([0x7F, 0xF0 | serializer, 0, 0])
    assert rs_hello_read(hello, ALL & ~(1 << serializer))[::3] == ("ST_PROTOCOL", 1)
    assert rs_hello_read(hello, 1 << serializer)[0] == "ST_OK"


@pytest.mark.parametrize("reserved", [b"\x00\x01", b"\x01\x00", b"\xff\xff"])
def test_reserved_octets_are_refused(reserved: bytes) -> None:
    assert rs_hello_read(b"\x7f\xf1" + reserved, ALL)[::3] == ("ST_PROTOCOL", 3)
    assert rs_reply_read(b"\x7f\xf1" + reserved, JSON)[::2] == ("ST_PROTOCOL", 3)


@pytest.mark.parametrize("error", range(16))
def test_error_reply_gives_its_reason(error: int) -> None:
    reply = rs_error_write(error)
    assert reply == bytes([0x7F, error << 4, 0, 0])
    assert rs_reply_read(reply, CBOR)[::2] == ("ST_PROTOCOL", error)


def test_reply_for_another_serializer_is_an_error() -> None:
    assert rs_reply_read(b"\x7f\xf2\x00\x00", JSON)[::2] == ("ST_PROTOCOL", 1)


# --- frames --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 255, 256, 65535, 65536])
def test_frames_of_every_size(size: int) -> None:
    payload = b"\xa5" * size
    assert_frames(codec, rs_frame(0, payload), [("message", BINARY, payload)])
    assert_frames(codec, rs_frame(1, payload), [("ping", PING, payload)])
    assert_frames(codec, rs_frame(2, payload), [("pong", PONG, payload)])


def test_opcode_follows_the_serializer() -> None:
    assert json_codec().feed(rs_frame(0, b"[]")) == [("message", TEXT, b"[]")]
    for serializer in ("msgpack", "cbor"):
        assert FrameCodec("rawsocket", serializer=serializer).feed(rs_frame(0, b"\x90")) == [
            ("message", BINARY, b"\x90")
        ]


def test_json_is_text() -> None:
    assert refusal(json_codec(), rs_frame(0, b"\xff")).status == "ST_UTF8"
    assert json_codec().feed(rs_frame(1, b"\xff")) == [("ping", PING, b"\xff")]
    assert json_codec(validate_utf8=False).feed(rs_frame(0, b"\xff")) == [("message", TEXT, b"\xff")]


@pytest.mark.parametrize("kind", [3, 4, 5, 6, 7])
def test_reserved_types_are_refused(kind: int) -> None:
    assert_refused(codec, bytes([kind]), "ST_PROTOCOL")
    assert_refused(codec, bytes([kind | 8]), "ST_PROTOCOL")


@pytest.mark.parametrize("bits", [0x10, 0x20, 0x40, 0x80, 0xF0])
def test_reserved_bits_are_refused(bits: int) -> None:
    for kind in (0, 1, 2, 8):
        assert_refused(codec, bytes([bits | kind]), "ST_PROTOCOL")


@pytest.mark.parametrize("length", [b"\x00\x00\x01", b"\x80\x00\x00", b"\xff\xff\xff"])
def test_25th_bit_is_for_exactly_16m(length: bytes) -> None:
    assert_refused(codec, b"\x08" + length, "ST_PROTOCOL")


def test_messages_of_16m_and_one_less() -> None:
    payload = bytes(MAX)
    written = codec().put(payload, BINARY)
    assert written[:4] == b"\x08\x00\x00\x00"
    frames = codec(max_message=MAX).feed(written)
    assert frames == [("message", BINARY, payload)]
    written = codec().put(payload[1:], BINARY)
    assert written[:4] == b"\x00\xff\xff\xff"
    assert codec(max_message=MAX - 1).feed(written) == [("message", BINARY, payload[1:])]
    with pytest.raises(FrameError) as caught:
        codec().put(payload + b"x", BINARY)
    assert caught.value.status == "ST_TOO_BIG"


def test_16m_is_asked_for_and_refused_by_the_header() -> None:
    reader = codec(max_message=MAX)
    assert reader.feed(b"\x08\x00\x00\x00") == []
    assert reader.need == 4 + MAX
    assert_refused(partial(codec, max_message=MAX - 1), b"\x08\x00\x00\x00", "ST_TOO_BIG")


@pytest.mark.parametrize("name", ["max_frame", "max_message"])
@pytest.mark.parametrize("limit", [1, 512, 65536])
def test_size_is_refused_by_the_header(name: str, limit: int) -> None:
    make = partial(codec, **{name: limit})
    payload = bytes(limit)
    assert make().feed(rs_frame(0, payload)) == [("message", BINARY, payload)]
    for kind in (0, 1, 2):
        assert_refused(make, rs_frame(kind, payload + b"x")[:4], "ST_TOO_BIG")


def test_written_frames() -> None:
    for options in ({}, {"client": True}, {"mask_out": True}):
        writer = codec(**options)
        for size in (0, 1, 125, 126, 65535, 65536):
            payload = b"\x5a" * size
            for opcode, kind in ((TEXT, 0), (BINARY, 0), (PING, 1), (PONG, 2)):
                assert writer.put(payload, opcode, key=b"mask") == rs_frame(kind, payload)


@pytest.mark.parametrize("opcode", [CONT, CLOSE, 3, 7, 11, 15])
def test_what_rawsocket_lacks_is_not_written(opcode: int) -> None:
    with pytest.raises(FrameError) as caught:
        codec().put(b"", opcode)
    assert caught.value.status == "ST_PROTOCOL"


def test_messages_are_not_fragmented() -> None:
    with pytest.raises(FrameError) as caught:
        codec().put(b"abc", BINARY, fin=False)
    assert caught.value.status == "ST_PROTOCOL"


def test_many_frames_in_one_piece() -> None:
    data = b"".join(rs_frame(i % 3, b"x" * i) for i in range(300))
    kinds = [("message", BINARY), ("ping", PING), ("pong", PONG)]
    expected = [(*kinds[i % 3], b"x" * i) for i in range(300)]
    assert codec().feed(data) == expected
    assert feed_octets(codec(), data) == expected
