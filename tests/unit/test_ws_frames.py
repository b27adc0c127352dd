"""WebSocket frames as RFC 6455 section 5 has them: what is read, what is refused and when, what is written."""

from __future__ import annotations

import struct
from functools import partial

import pytest

from proxy._relay import FrameCodec, FrameError, ws_close_codes, ws_close_read
from support.frames import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    PONG,
    TEXT,
    assert_frames,
    assert_refused,
    feed_octets,
    refusal,
    ws_frame,
    ws_head,
)

server = partial(FrameCodec, "websocket", serializer="cbor")
json_server = partial(FrameCodec, "websocket", serializer="json")
client = partial(FrameCodec, "websocket", client=True, serializer="cbor")
json_client = partial(FrameCodec, "websocket", client=True, serializer="json")
any_client = partial(FrameCodec, "websocket", client=True, serializer="")
any_server = partial(FrameCodec, "websocket", serializer="")

BORDERS = [0, 1, 125, 126, 127, 255, 256, 65535, 65536, 70000]


def pattern(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


# --- the examples of RFC 6455 5.7 ----------------------------------------------------------------------------------

RFC_EXAMPLES = {
    "unmasked text": (json_client, "8105 48656c6c6f", [("message", TEXT, b"Hello")]),
    "masked text": (json_server, "8185 37fa213d 7f9f4d5158", [("message", TEXT, b"Hello")]),
    "fragmented text": (json_client, "0103 48656c 8002 6c6f", [("message", TEXT, b"Hello")]),
    "unmasked ping": (client, "8905 48656c6c6f", [("ping", PING, b"Hello")]),
    "masked pong": (server, "8a85 37fa213d 7f9f4d5158", [("pong", PONG, b"Hello")]),
    "256 octets": (client, "827e0100" + pattern(256).hex(), [("message", BINARY, pattern(256))]),
    "64 KiB": (client, "827f0000000000010000" + pattern(65536).hex(), [("message", BINARY, pattern(65536))]),
}


@pytest.mark.parametrize("name", RFC_EXAMPLES)
def test_examples_of_the_rfc(name: str) -> None:
    make, data, expected = RFC_EXAMPLES[name]
    assert_frames(make, bytes.fromhex(data), expected)


# --- lengths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", BORDERS)
@pytest.mark.parametrize(("make", "key"), [(server, KEY), (client, None)], ids=["masked", "unmasked"])
def test_every_length_form_at_its_borders(make: partial[FrameCodec], key: bytes | None, size: int) -> None:
    payload = pattern(size)
    assert_frames(make, ws_frame(BINARY, payload, key=key), [("message", BINARY, payload)])


@pytest.mark.parametrize(("size", "width"), [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)])
def test_length_not_in_its_shortest_form_is_refused(size: int, width: int) -> None:
    assert_refused(client, ws_head(BINARY, size, width=width, key=None), "ST_PROTOCOL")
    assert_refused(server, ws_head(BINARY, size, width=width)[:-4], "ST_PROTOCOL")


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, (1 << 63) + 5])
def test_length_with_the_top_bit_is_refused(size: int) -> None:
    assert_refused(client, ws_head(BINARY, size, key=None), "ST_PROTOCOL")
    assert_refused(server, ws_head(BINARY, size)[:-4], "ST_PROTOCOL")


def test_length_that_no_memory_can_hold_is_refused_even_without_a_limit() -> None:
    assert_refused(client, ws_head(BINARY, (1 << 63) - 1, key=None), "ST_TOO_BIG")
    assert_refused(server, ws_head(BINARY, (1 << 63) - 1)[:-4], "ST_TOO_BIG")
    started = ws_frame(BINARY, b"abc", key=None, fin=False)
    assert_refused(client, started + ws_head(CONT, (1 << 63) - 1, key=None), "ST_TOO_BIG")


def test_need_is_the_whole_frame_once_the_header_is_known() -> None:
    codec = server()
    assert codec.feed(b"\x82") == []
    assert codec.need == 2
    assert codec.feed(b"\xfe") == []
    assert codec.need == 4
    assert codec.feed(b"\x01\x00") == []
    assert codec.need == 8 + 256
    codec = server()
    codec.feed(ws_head(BINARY, 1 << 40)[:10])
    assert codec.need == 14 + (1 << 40)


def test_many_frames_in_one_piece() -> None:
    data = b"".join(ws_frame(BINARY, pattern(i)) + ws_frame(PING, b"%d" % i) for i in range(200))
    expected = [f for i in range(200) for f in (("message", BINARY, pattern(i)), ("ping", PING, b"%d" % i))]
    assert server().feed(data) == expected


# --- what is refused by the first two octets -----------------------------------------------------------------------


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bits_are_refused(opcode: int, rsv: int) -> None:
    assert_refused(any_server, ws_head(opcode, 5, rsv=rsv)[:2], "ST_PROTOCOL")
    assert_refused(any_client, ws_head(opcode, 5, rsv=rsv, key=None), "ST_PROTOCOL")


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [True, False])
def test_reserved_opcodes_are_refused(opcode: int, fin: bool) -> None:
    assert_refused(any_server, ws_head(opcode, 0, fin=fin)[:2], "ST_PROTOCOL")


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frames_are_neither_long_nor_fragmented(opcode: int) -> None:
    assert_refused(server, ws_head(opcode, 126)[:2], "ST_PROTOCOL")
    assert_refused(server, ws_head(opcode, 65536)[:2], "ST_PROTOCOL")
    assert_refused(server, ws_head(opcode, 5, width=2)[:2], "ST_PROTOCOL")
    assert_refused(server, ws_head(opcode, 5, fin=False)[:2], "ST_PROTOCOL")
    kind = {CLOSE: "close", PING: "ping", PONG: "pong"}[opcode]
    for size in (0, 1, 125):
        assert_frames(server, ws_frame(opcode, pattern(size)), [(kind, opcode, pattern(size))])


@pytest.mark.parametrize("opcode", [BINARY, PING, CLOSE])
def test_masking_is_required_of_clients_and_forbidden_to_servers(opcode: int) -> None:
    assert_refused(server, ws_head(opcode, 3, key=None), "ST_PROTOCOL")
    assert_refused(client, ws_head(opcode, 3)[:2], "ST_PROTOCOL")


def test_unmasked_clients_can_be_let_in() -> None:
    lax = partial(server, require_mask=False)
    data = ws_frame(BINARY, b"plain", key=None) + ws_frame(BINARY, b"masked")
    assert_frames(lax, data, [("message", BINARY, b"plain"), ("message", BINARY, b"masked")])


def test_mask_can_be_left_unapplied() -> None:
    odd = partial(server, apply_mask=False)
    assert_frames(odd, ws_head(BINARY, 5) + b"plain", [("message", BINARY, b"plain")])
    data = ws_head(BINARY, 3, fin=False) + b"abc" + ws_head(CONT, 2) + b"de"
    assert_frames(odd, data, [("message", BINARY, b"abcde")])


def test_opcode_must_fit_the_serializer() -> None:
    for serializer, right, wrong in (("json", TEXT, BINARY), ("msgpack", BINARY, TEXT), ("cbor", BINARY, TEXT)):
        make = partial(FrameCodec, "websocket", serializer=serializer)
        assert_frames(make, ws_frame(right, b"[]"), [("message", right, b"[]")])
        assert_refused(make, ws_head(wrong, 2)[:2], "ST_DATA_TYPE")
        assert_refused(make, ws_head(wrong, 2, fin=False)[:2], "ST_DATA_TYPE")
    both = ws_frame(TEXT, b"a") + ws_frame(BINARY, b"b")
    assert_frames(any_server, both, [("message", TEXT, b"a"), ("message", BINARY, b"b")])


# --- fragments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize(
    "sizes", [(0, 0), (3, 0, 2), (0, 5), (1, 1, 1, 1), (200, 7, 300), (70000, 1, 66000), (126,) * 40]
)
def test_fragments_become_one_message(sizes: tuple[int, ...], key: bytes | None) -> None:
    make = server if key else client
    payload = pattern(sum(sizes))
    data, at = b"", 0
    for i, size in enumerate(sizes):
        opcode = CONT if i else BINARY
        data += ws_frame(opcode, payload[at : at + size], fin=i == len(sizes) - 1, key=key)
        at += size
    expected = [("message", BINARY, payload)]
    assert make().feed(data) == expected
    codec = make()
    assert codec.feed(data + data[:3]) == expected
    assert codec.feed(data[3:]) == expected
    if len(data) < 10000:
        assert_frames(make, data, expected)


def test_every_fragment_has_its_own_key() -> None:
    data = ws_frame(BINARY, b"one,", fin=False, key=b"\x01\x02\x03\x04")
    data += ws_frame(CONT, b"two,", fin=False, key=b"\xff\xfe\xfd\xfc")
    data += ws_frame(CONT, b"three", key=b"\x00\x00\x00\x00")
    assert_frames(server, data, [("message", BINARY, b"one,two,three")])


def test_control_frames_between_fragments_come_at_once_and_leave_the_message_alone() -> None:
    pieces = [
        ws_frame(BINARY, b"ab", fin=False),
        ws_frame(PING, b"ping"),
        ws_frame(PONG),
        ws_frame(CONT, b"cd", fin=False),
        ws_frame(PING, pattern(125)),
        ws_frame(CONT, b"ef"),
    ]
    expected = [
        ("ping", PING, b"ping"),
        ("pong", PONG, b""),
        ("ping", PING, pattern(125)),
        ("message", BINARY, b"abcdef"),
    ]
    assert_frames(server, b"".join(pieces), expected)
    codec = server()
    assert [codec.feed(piece) for piece in pieces] == [[], expected[:1], expected[1:2], [], expected[2:3], expected[3:]]


def test_close_inside_a_fragmented_message() -> None:
    data = ws_frame(BINARY, b"ab", fin=False) + ws_frame(CLOSE, b"\x03\xe8")
    assert server().feed(data) == [("close", CLOSE, b"\x03\xe8")]


def test_continuation_needs_a_message_that_was_begun() -> None:
    assert_refused(server, ws_head(CONT, 1)[:2], "ST_PROTOCOL")
    assert_refused(server, ws_head(CONT, 1, fin=False)[:2], "ST_PROTOCOL")
    before = ws_frame(BINARY, b"a")
    assert_refused(server, before + ws_head(CONT, 1)[:2], "ST_PROTOCOL", frames=[("message", BINARY, b"a")])
    before = ws_frame(BINARY, b"a", fin=False) + ws_frame(CONT, b"b")
    assert_refused(server, before + ws_head(CONT, 1)[:2], "ST_PROTOCOL", frames=[("message", BINARY, b"ab")])


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_message_inside_a_message_is_refused(opcode: int, fin: bool) -> None:
    before = ws_frame(BINARY, b"a", fin=False) + ws_frame(PING)
    make = any_server
    assert_refused(make, before + ws_head(opcode, 1, fin=fin)[:2], "ST_PROTOCOL", frames=[("ping", PING, b"")])


@pytest.mark.parametrize("filler", [ws_frame(CONT, fin=False), ws_frame(PING), ws_frame(PONG, pattern(125))])
@pytest.mark.parametrize("size", [0, 10, 10000])
def test_endless_empty_fragments_and_pings_do_not_grow_the_input(filler: bytes, size: int) -> None:
    payload = pattern(size)
    codec = server(max_message=20000)
    codec.feed(ws_frame(BINARY, payload, fin=False))
    most = 0
    for _ in range(200):
        codec.feed(filler * 100)
        most = max(most, codec.pending)
    assert most <= size + max(size, 4096) + len(filler)
    assert codec.feed(ws_frame(CONT, b"end")) == [("message", BINARY, payload + b"end")]
    assert codec.pending == 0


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 125, 126, 65535, 65536, 100000])
@pytest.mark.parametrize("name", ["max_frame", "max_message"])
def test_size_is_refused_by_the_header(name: str, limit: int) -> None:
    make = partial(server, **{name: limit})
    payload = pattern(limit)
    assert make().feed(ws_frame(BINARY, payload)) == [("message", BINARY, payload)]
    assert_refused(make, ws_head(BINARY, limit + 1)[:-4], "ST_TOO_BIG")
    assert_refused(make, ws_head(BINARY, limit + 1, fin=False)[:-4], "ST_TOO_BIG")


def test_max_frame_bounds_each_fragment() -> None:
    make = partial(server, max_frame=10)
    begun = ws_frame(BINARY, pattern(10), fin=False) + ws_frame(CONT, pattern(10), fin=False)
    assert make().feed(begun + ws_frame(CONT, b"x")) == [("message", BINARY, pattern(10) * 2 + b"x")]
    assert_refused(make, begun + ws_head(CONT, 11)[:2], "ST_TOO_BIG")


def test_max_message_bounds_the_running_total() -> None:
    make = partial(server, max_message=20)
    begun = (
        ws_frame(BINARY, pattern(10), fin=False) + ws_frame(PING, pattern(125)) + ws_frame(CONT, pattern(9), fin=False)
    )
    ping = [("ping", PING, pattern(125))]
    assert make().feed(begun + ws_frame(CONT, b"x")) == [*ping, ("message", BINARY, pattern(10) + pattern(9) + b"x")]
    assert_refused(make, begun + ws_head(CONT, 2)[:2], "ST_TOO_BIG", frames=ping)
    assert_refused(make, begun + ws_head(CONT, (1 << 63) - 1)[:10], "ST_TOO_BIG", frames=ping)


def test_total_starts_anew_with_every_message() -> None:
    data = ws_frame(BINARY, pattern(15), fin=False) + ws_frame(CONT, pattern(5)) + ws_frame(BINARY, pattern(20))
    message = pattern(15) + pattern(5)
    assert server(max_message=20).feed(data * 2) == [("message", BINARY, message), ("message", BINARY, pattern(20))] * 2


def test_control_frames_have_their_own_limit() -> None:
    make = partial(server, max_frame=1, max_message=1)
    assert_frames(make, ws_frame(PING, pattern(125)), [("ping", PING, pattern(125))])


# --- UTF-8 ---------------------------------------------------------------------------------------------------------


def test_text_is_validated_as_a_whole() -> None:
    text = "Grüße, 世界 🎉".encode()
    for cut in range(len(text) + 1):
        data = ws_frame(TEXT, text[:cut], fin=False) + ws_frame(PING) + ws_frame(CONT, text[cut:])
        assert json_server().feed(data) == [("ping", PING, b""), ("message", TEXT, text)]


@pytest.mark.parametrize("text", [b"\xff", b"abc\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"])
def test_invalid_text_is_refused_when_it_is_whole(text: bytes) -> None:
    assert_refused(json_server, ws_frame(TEXT, text), "ST_UTF8")
    assert_refused(json_server, ws_frame(TEXT, text, fin=False) + ws_frame(CONT), "ST_UTF8")
    assert_refused(json_client, ws_frame(TEXT, text, key=None), "ST_UTF8")
    assert refusal(json_server(), ws_frame(TEXT, text)).close_code == 1007


def test_validation_is_for_text_and_can_be_switched_off() -> None:
    assert any_server().feed(ws_frame(BINARY, b"\xff")) == [("message", BINARY, b"\xff")]
    assert json_server(validate_utf8=False).feed(ws_frame(TEXT, b"\xff")) == [("message", TEXT, b"\xff")]


# --- compression (RFC 7692 section 6) ------------------------------------------------------------------------------

RSV1 = 0x40
deflate_server = partial(any_server, deflate=True)
deflate_client = partial(any_client, deflate=True)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(("make", "key"), [(deflate_server, KEY), (deflate_client, None)], ids=["masked", "unmasked"])
def test_rsv1_marks_a_compressed_message(make: partial[FrameCodec], key: bytes | None, opcode: int) -> None:
    packed = ws_frame(opcode, b"\xff\xfe", rsv=4, key=key)
    plain = ws_frame(opcode, b"ab", key=key)
    expected = [("message", opcode | RSV1, b"\xff\xfe"), ("message", opcode, b"ab")]
    assert_frames(make, packed + plain, expected)
    assert_frames(make, plain + packed, expected[::-1])


@pytest.mark.parametrize("size", BORDERS)
def test_compressed_frames_of_every_length(size: int) -> None:
    data = ws_frame(BINARY, pattern(size), rsv=4)
    assert_frames(deflate_server, data, [("message", BINARY | RSV1, pattern(size))])


def test_rsv1_is_in_the_first_fragment_only() -> None:
    begun = ws_frame(TEXT, b"\xff", fin=False, rsv=4)
    data = begun + ws_frame(PING, b"p") + ws_frame(CONT, b"\xfe", fin=False) + ws_frame(CONT, b"\xfd")
    assert_frames(deflate_server, data, [("ping", PING, b"p"), ("message", TEXT | RSV1, b"\xff\xfe\xfd")])
    for opcode in (CONT, PING):
        assert_refused(deflate_server, begun + ws_head(opcode, 1, rsv=4)[:2], "ST_PROTOCOL")
    plain = ws_frame(TEXT, b"a", fin=False)
    assert_refused(deflate_server, plain + ws_head(CONT, 1, rsv=4)[:2], "ST_PROTOCOL")
    assert deflate_server().feed(plain + ws_frame(CONT, b"b")) == [("message", TEXT, b"ab")]


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bits_that_mean_nothing_are_refused(opcode: int, rsv: int) -> None:
    if rsv != 4 or opcode not in (TEXT, BINARY):
        assert_refused(deflate_server, ws_head(opcode, 5, rsv=rsv)[:2], "ST_PROTOCOL")
        assert_refused(deflate_client, ws_head(opcode, 5, rsv=rsv, key=None), "ST_PROTOCOL")


def test_the_opcode_of_a_compressed_message_must_fit_the_serializer() -> None:
    make = partial(json_server, deflate=True)
    assert_frames(make, ws_frame(TEXT, b"\xff", rsv=4), [("message", TEXT | RSV1, b"\xff")])
    assert_refused(make, ws_head(BINARY, 2, rsv=4)[:2], "ST_DATA_TYPE")


def test_size_of_a_compressed_message() -> None:
    """What cannot be compressed gets longer: by an eighth and a little at worst, as zlib may be set."""
    for limit in (1000, 65_536):
        make, most = partial(deflate_server, max_message=limit), limit + limit // 8 + limit // 64 + 64
        payload = pattern(most)
        assert make().feed(ws_frame(BINARY, payload, rsv=4)) == [("message", BINARY | RSV1, payload)]
        assert_refused(make, ws_head(BINARY, most + 1, rsv=4)[:-4], "ST_TOO_BIG")
        assert_refused(make, ws_head(BINARY, limit + 1)[:-4], "ST_TOO_BIG")
        begun = ws_frame(BINARY, payload[:limit], fin=False, rsv=4)
        assert make().feed(begun + ws_frame(CONT, payload[limit:])) == [("message", BINARY | RSV1, payload)]
        assert_refused(make, begun + ws_head(CONT, most - limit + 1)[:-4], "ST_TOO_BIG")
    assert_refused(partial(deflate_server, max_frame=10), ws_head(BINARY, 11, rsv=4)[:2], "ST_TOO_BIG")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", BORDERS)
def test_written_compressed_frames(opcode: int, size: int) -> None:
    payload = pattern(size)
    assert deflate_server().put(payload, opcode | RSV1) == ws_frame(opcode, payload, rsv=4, key=None)
    assert deflate_client().put(payload, opcode | RSV1, key=KEY) == ws_frame(opcode, payload, rsv=4)
    begun = deflate_server().put(payload, opcode | RSV1, fin=False)
    assert begun == ws_frame(opcode, payload, rsv=4, fin=False, key=None)


@pytest.mark.parametrize("opcode", [CONT, CLOSE, PING, 3])
def test_rsv1_is_not_written_where_it_means_nothing(opcode: int) -> None:
    for make, code in ((deflate_server, opcode), (server, BINARY)):
        with pytest.raises(FrameError) as caught:
            make().put(b"", code | RSV1)
        assert caught.value.status == "ST_PROTOCOL"


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", BORDERS)
def test_written_frames(size: int) -> None:
    payload = pattern(size)
    assert server().put(payload, BINARY) == ws_frame(BINARY, payload, key=None)
    assert client().put(payload, BINARY, key=KEY) == ws_frame(BINARY, payload)
    assert server(mask_out=True).put(payload, TEXT, key=KEY) == ws_frame(TEXT, payload)
    assert client(apply_mask=False).put(payload, BINARY, key=KEY) == ws_head(BINARY, size) + payload


@pytest.mark.parametrize("size", BORDERS)
def test_written_fragments(size: int) -> None:
    payload = pattern(size)
    for opcode in (CONT, TEXT, BINARY):
        assert server().put(payload, opcode, fin=False) == ws_frame(opcode, payload, key=None, fin=False)
        assert client().put(payload, opcode, key=KEY, fin=False) == ws_frame(opcode, payload, fin=False)
    assert server().put(payload, CONT) == ws_frame(CONT, payload, key=None)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_written_control_frames(opcode: int) -> None:
    assert server().put(b"", opcode) == ws_frame(opcode, key=None)
    assert client().put(pattern(125), opcode, key=KEY) == ws_frame(opcode, pattern(125))
    for payload, fin in ((pattern(126), True), (b"", False)):
        with pytest.raises(FrameError) as caught:
            server().put(payload, opcode, fin=fin)
        assert caught.value.status == "ST_PROTOCOL"


@pytest.mark.parametrize("opcode", [3, 7, 11, 15, 16, 0x81])
def test_unknown_opcodes_are_not_written(opcode: int) -> None:
    with pytest.raises(FrameError) as caught:
        server().put(b"", opcode)
    assert caught.value.status == "ST_PROTOCOL"


# --- close ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_close_codes_that_a_peer_may_send(code: int) -> None:
    assert ws_close_read(struct.pack("!H", code)) == (code, b"")
    assert ws_close_read(struct.pack("!H", code) + "Tschüß".encode()) == (code, "Tschüß".encode())


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_codes_that_no_peer_may_send(code: int) -> None:
    with pytest.raises(FrameError) as caught:
        ws_close_read(struct.pack("!H", code))
    assert caught.value.close_code == 1002


def test_close_payload() -> None:
    assert ws_close_read(b"") == (1005, b"")
    assert ws_close_read(b"\x03\xe8" + b"x" * 123) == (1000, b"x" * 123)
    with pytest.raises(FrameError) as caught:
        ws_close_read(b"\x03")
    assert (caught.value.status, caught.value.close_code) == ("ST_PROTOCOL", 1002)
    with pytest.raises(FrameError) as caught:
        ws_close_read(b"\x03\xe8\xce\xba\xe1")
    assert (caught.value.status, caught.value.close_code) == ("ST_UTF8", 1007)


def test_close_code_of_every_failure() -> None:
    codes = ws_close_codes()
    framing = {"ST_PROTOCOL": 1002, "ST_UTF8": 1007, "ST_TOO_BIG": 1009, "ST_DATA_TYPE": 1003}
    gate = ["ST_MALFORMED", "ST_TRUNCATED", "ST_TRAILING", "ST_DEPTH", "ST_AMBIGUOUS", "ST_FORBIDDEN"]
    ours = ["ST_NOMEM", "ST_IO", "ST_EOF"]
    expected = framing | dict.fromkeys(gate, 1002) | dict.fromkeys(ours, 1011)
    assert {name: codes[name] for name in expected} == expected


def test_octet_by_octet_through_a_long_conversation() -> None:
    data = b"".join(
        ws_frame(BINARY, pattern(n), fin=False) + ws_frame(PING, b"p") + ws_frame(CONT, pattern(n)) + ws_frame(BINARY)
        for n in (0, 1, 124, 125, 126, 300)
    )
    assert feed_octets(server(), data) == server().feed(data)
