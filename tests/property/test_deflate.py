"""Properties of permessage-deflate over random messages, with Python's zlib as the judge."""

from __future__ import annotations

import zlib

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import State
from websockets.server import ServerProtocol

from proxy._relay import FrameCodec, probe_zip, probe_zips
from support.frames import BINARY, CONT

RSV1 = 0x40
TAIL = b"\x00\x00\xff\xff"
COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

bits = st.integers(9, 15)
units = st.binary(min_size=1, max_size=40)
# noise, and repetitions that reach beyond every window
texts = st.one_of(st.binary(max_size=200), st.builds(lambda unit, n: unit * n, units, st.integers(0, 3000)))
conversations = st.lists(st.tuples(st.booleans(), texts), max_size=12)


@COMMON
@given(inflate=bits, deflate=bits, resets=st.tuples(st.booleans(), st.booleans()), mem_level=st.integers(1, 9),
       messages=conversations)  # fmt: skip
def test_both_ways_with_zlib(
    inflate: int, deflate: int, resets: tuple[bool, bool], mem_level: int, messages: list[tuple[bool, bytes]]
) -> None:
    """A conversation, each message to or from the peer: neither way disturbs the other."""
    ways = {"inflate_reset": resets[0], "deflate_bits": deflate, "deflate_reset": resets[1]}
    ours = probe_zip(inflate, mem_level=mem_level, **ways)
    writer, reader = zlib.compressobj(6, zlib.DEFLATED, -inflate), zlib.decompressobj(-deflate)
    for is_ours, message in messages:
        if is_ours:
            reader = zlib.decompressobj(-deflate) if resets[1] else reader
            assert reader.decompress(ours.deflate(message) + TAIL) == message
            continue
        writer = zlib.compressobj(6, zlib.DEFLATED, -inflate) if resets[0] else writer
        data = writer.compress(message) + writer.flush(zlib.Z_SYNC_FLUSH)
        assert ours.inflate(data[:-4] if data else b"\0", len(message)) == message


@COMMON
@given(messages=st.lists(st.tuples(st.integers(0, 2), texts), max_size=12))
def test_connections_of_a_loop_do_not_disturb_each_other(messages: list[tuple[int, bytes]]) -> None:
    """One keeps its context, two share their streams; each speaks with an end of its own."""
    loop = probe_zips()
    ours = [probe_zip(inflate_reset=reset, deflate_reset=reset, loop=loop) for reset in (False, True, True)]
    peers = [probe_zip(inflate_reset=reset, deflate_reset=reset) for reset in (False, True, True)]
    for index, message in messages:
        assert peers[index].inflate(ours[index].deflate(message)) == message
        assert ours[index].inflate(peers[index].deflate(message)) == message


def judge(data: bytes) -> bytes | None:
    """What RFC 7692 7.2.2 makes of a message; None: no DEFLATE, or not whole."""
    found, rest = b"", data + TAIL
    while True:
        reader = zlib.decompressobj(-15, zdict=found[-32768:]) if found else zlib.decompressobj(-15)
        try:
            found += reader.decompress(rest)
        except zlib.error:
            return None
        if not reader.eof:
            # whole if another block may begin right here, at an octet's beginning
            try:
                return found if reader.copy().decompress(b"\x01\0\0\xff\xff") == b"" and ends(reader) else None
            except zlib.error:
                return None
        rest = reader.unused_data


def ends(reader: zlib._Decompress) -> bool:
    """Whether a final empty block ends the stream."""
    last = reader.copy()
    last.decompress(b"\x01\0\0\xff\xff")
    return last.eof and not last.unused_data


mutated = st.builds(
    lambda text, level, at, octet, cut: (lambda d: (d[: at % len(d)] + octet + d[at % len(d) :])[: cut or None])(
        zlib.compress(text, level)[2:-4]
    ),
    texts, st.integers(0, 9), st.integers(0, 500), st.binary(max_size=3), st.integers(0, 500),
)  # fmt: skip


@COMMON
@given(data=st.one_of(st.binary(min_size=1, max_size=40), mutated))
@example(data=bytes.fromhex("f248cdc9c90700"))
@example(data=bytes.fromhex("f348cdc9c9070000"))
@example(data=bytes.fromhex("f348cdc9c907"))
@example(data=b"\0")
@example(data=b"\x03\0\0")
@example(data=b"\1")
@example(data=b"\xff")
def test_any_octets_are_read_as_zlib_reads_them(data: bytes) -> None:
    expected = judge(data)
    for reset in (False, True):
        try:
            found = probe_zip(inflate_reset=reset).inflate(data)
        except ValueError as error:
            assert str(error) == "ST_PROTOCOL"  # noqa: PT017
            assert expected is None
        else:
            assert found == expected


@COMMON
@given(data=st.one_of(st.binary(min_size=1, max_size=40), mutated), limit=st.integers(1, 400))
def test_a_limit_is_kept(data: bytes, limit: int) -> None:
    """With a limit the result is the same as without, or the message is refused: only if it is longer than that."""
    try:
        free = probe_zip().inflate(data)
    except ValueError:
        free = None
    try:
        found = probe_zip().inflate(data, limit)
    except ValueError as error:
        assert str(error) == "ST_TOO_BIG" if free is not None else str(error) in ("ST_TOO_BIG", "ST_PROTOCOL")  # noqa: PT017
        assert free is None or len(free) > limit
    else:
        assert found == free
        assert len(found) <= limit


@COMMON
@given(data=st.data(), messages=st.lists(texts, min_size=1, max_size=4), resets=st.booleans())
def test_another_implementation_reads_whole_conversations(
    data: st.DataObject, messages: list[bytes], resets: bool
) -> None:
    """Frames and compression together, in any fragments: websockets at the other end of the wire."""
    extension = PerMessageDeflate(resets, resets, 15, 15)
    judge_, wire = ServerProtocol(state=State.OPEN), FrameCodec(client=True, serializer="", deflate=True)
    judge_.extensions = [extension]
    ours = probe_zip(inflate_reset=resets, deflate_reset=resets)
    for message in messages:
        packed = ours.deflate(message)
        at = data.draw(st.integers(0, len(packed)))
        judge_.receive_data(wire.put(packed[:at], BINARY | RSV1, fin=False) + wire.put(packed[at:], CONT))
        assert b"".join(frame.data for frame in judge_.events_received()) == message
        judge_.send_binary(message, fin=True)
        for kind, opcode, payload in wire.feed(b"".join(judge_.data_to_send())):
            assert (kind, opcode) == ("message", BINARY | RSV1)
            assert ours.inflate(payload) == message
