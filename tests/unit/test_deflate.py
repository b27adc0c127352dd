"""permessage-deflate of single messages (RFC 7692 section 7.2), with Python's zlib as the peer."""

from __future__ import annotations

import gc
import os
import random
import resource
import zlib
from itertools import product

import pytest
from autobahn.websocket.compress import PerMessageDeflate

from proxy._relay import probe_fail_allocation, probe_zip, probe_zips
from proxy.compression import stream_memory

TAIL = b"\x00\x00\xff\xff"
BITS = range(9, 16)
HELLO = bytes.fromhex("f248cdc9c90700")  # section 7.2.3.1

TEXT = b"".join(b'[36,%d,4429313566,{"topic":"com.example.%d"},["hello"]]' % (i * 7919, i % 9) for i in range(400))
NOISE = random.Random(7).randbytes(70_000)
MESSAGES = [b"Hello", b"Hello", b"", b"\0", TEXT, NOISE, TEXT, b"x" * 100_000, b"", NOISE[:300], TEXT[:50]]


class Peer:
    """A client's or server's end, made of Python's zlib."""

    def __init__(self, bits: int = 15, reset: bool = False, level: int = 6, mem_level: int = 8) -> None:
        self.settings = (level, zlib.DEFLATED, -bits, mem_level)
        self.reset = reset
        self.writer = zlib.compressobj(*self.settings)
        self.reader = zlib.decompressobj(-bits)
        self.bits = bits

    def deflate(self, data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
        """A compressed message."""
        if self.reset:
            self.writer = zlib.compressobj(*self.settings)
        whole = self.writer.compress(data) + self.writer.flush(flush)
        if not whole:  # nothing to flush since the last time
            return b"\0"
        assert whole.endswith(TAIL)
        return whole[:-4]

    def inflate(self, data: bytes) -> bytes:
        """The message that a compressed one holds."""
        if self.reset:
            self.reader = zlib.decompressobj(-self.bits)
        found = self.reader.decompress(data + TAIL)
        assert not self.reader.eof
        assert not self.reader.unconsumed_tail
        return found


def refusal(inflater: probe_zip, data: bytes, limit: int = 0) -> str:
    """The status with which a message is refused."""
    with pytest.raises(ValueError, match="ST_") as caught:
        inflater.inflate(data, limit)
    return str(caught.value)


# --- the examples of the RFC ---------------------------------------------------------------------------------------


def test_one_deflate_block() -> None:
    assert probe_zip().inflate(HELLO) == b"Hello"
    assert probe_zip().deflate(b"Hello") == HELLO


def test_sharing_the_window() -> None:
    """7.2.3.2: the second message refers to the first one, on both ways."""
    zipped = probe_zip()
    assert [zipped.inflate(HELLO), zipped.inflate(bytes.fromhex("f200110000"))] == [b"Hello", b"Hello"]
    assert [zipped.deflate(b"Hello"), zipped.deflate(b"Hello")] == [HELLO, bytes.fromhex("f200110000")]
    assert refusal(probe_zip(), bytes.fromhex("f200110000")) == "ST_PROTOCOL"
    assert refusal(probe_zip(inflate_reset=True), bytes.fromhex("f200110000")) == "ST_PROTOCOL"


def test_a_block_without_compression() -> None:
    """7.2.3.3."""
    assert probe_zip().inflate(bytes.fromhex("000500faff48656c6c6f00")) == b"Hello"


def test_a_final_block() -> None:
    """7.2.3.4: whoever ends the stream begins another one; what it refers to may lie before that."""
    zipped = probe_zip()
    final = bytes.fromhex("f348cdc9c9070000")
    assert zipped.inflate(final) == b"Hello"
    assert zipped.inflate(final) == b"Hello"
    assert zipped.inflate(bytes.fromhex("f200110000")) == b"Hello"
    assert zipped.inflate(final[:-1] + final[:-1] + HELLO) == b"HelloHelloHello"
    assert zipped.inflate(final[:-1] + b"\1") == b"Hello"  # the empty block at the end may be a final one itself
    assert zipped.inflate(HELLO) == b"Hello"


def test_two_deflate_blocks() -> None:
    """7.2.3.5."""
    assert probe_zip().inflate(bytes.fromhex("f248050000 00ffffcac9c90700")) == b"Hello"


def test_an_empty_message() -> None:
    """7.2.3.6: one octet. Python's zlib reads what we write; none at all is read, too."""
    zipped, peer = probe_zip(), Peer()
    assert [zipped.inflate(b"\0"), zipped.inflate(b"\0"), zipped.inflate(b"")] == [b"", b"", b""]
    for data in (b"", b"", b"Hello", b"", b"Hello"):
        assert peer.inflate(zipped.deflate(data)) == data
    assert zipped.deflate(b"") == b"\0"


# --- with a peer, in every way that can be agreed on ---------------------------------------------------------------


WAYS = list(product(BITS, (False, True)))


@pytest.mark.parametrize(("bits", "reset"), WAYS)
def test_what_a_peer_writes_is_read(bits: int, reset: bool) -> None:
    for level in (0, 1, 6, 9):
        zipped, peer = probe_zip(bits, inflate_reset=reset), Peer(bits, reset, level)
        assert [zipped.inflate(peer.deflate(item)) for item in MESSAGES] == MESSAGES


@pytest.mark.parametrize(("bits", "reset"), WAYS)
def test_what_is_written_a_peer_reads(bits: int, reset: bool) -> None:
    for mem_level in range(1, 10):
        zipped = probe_zip(deflate_bits=bits, deflate_reset=reset, mem_level=mem_level)
        peer = Peer(bits, reset)
        assert [peer.inflate(zipped.deflate(item)) for item in MESSAGES] == MESSAGES


@pytest.mark.parametrize(("bits", "reset"), WAYS)
def test_autobahn_reads_and_writes_the_same(bits: int, reset: bool) -> None:
    other = PerMessageDeflate(False, reset, reset, bits, bits, 8)
    zipped = probe_zip(bits, inflate_reset=reset, deflate_bits=bits, deflate_reset=reset)
    for item in MESSAGES:
        other.start_decompress_message()
        assert other.decompress_message_data(zipped.deflate(item)) == item
        other.end_decompress_message()
        if item:  # of an empty message it writes four octets less than it takes off
            other.start_compress_message()
            assert zipped.inflate(other.compress_message_data(item) + other.end_compress_message()) == item


@pytest.mark.parametrize("reset", [False, True])
def test_ten_thousand_messages(reset: bool) -> None:
    """The window goes round many times, and both ends stay together."""
    zipped, peer, chance = probe_zip(inflate_reset=reset, deflate_reset=reset), Peer(reset=reset), random.Random(3)
    for number in range(10_000):
        start = chance.randrange(len(TEXT))
        item = TEXT[start : start + chance.randrange(200)] + b"%d" % number
        assert peer.inflate(zipped.deflate(item)) == item
        assert zipped.inflate(peer.deflate(item)) == item


def test_context_takeover_makes_repeated_messages_small() -> None:
    kept, anew = probe_zip(), probe_zip(deflate_reset=True)
    sizes = [(len(kept.deflate(TEXT[:160])), len(anew.deflate(TEXT[:160]))) for _ in range(2)]
    assert sizes[0][0] == sizes[0][1] == sizes[1][1]
    assert sizes[1][0] < 10


def test_connections_without_context_share_streams_and_no_message() -> None:
    loop = probe_zips()
    one, other = (probe_zip(inflate_reset=True, deflate_reset=True, loop=loop) for _ in range(2))
    first = one.deflate(TEXT[:160])
    assert other.deflate(TEXT[:160]) == first  # not shorter: it refers to nothing of the other's
    assert one.inflate(first) == other.inflate(first) == TEXT[:160]
    with_two = loop.octets
    third = probe_zip(inflate_reset=True, deflate_reset=True, loop=loop)
    third.inflate(third.deflate(NOISE))
    assert loop.octets - with_two < 512


@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
def test_many_blocks_in_one_message(flush: int) -> None:
    zipped, peer = probe_zip(), Peer()
    data = b"".join(
        peer.writer.compress(TEXT[i : i + 97]) + peer.writer.flush(flush) for i in range(0, len(TEXT), 97)
    )
    assert zipped.inflate(data[:-4]) == TEXT
    assert zipped.inflate(peer.deflate(b"Hello")) == b"Hello"


def test_a_peer_that_ends_its_stream_with_every_message() -> None:
    zipped = probe_zip()
    for item in MESSAGES:
        writer = zlib.compressobj(6, zlib.DEFLATED, -15)
        assert zipped.inflate(writer.compress(item) + writer.flush() + b"\0") == item


# --- what is not DEFLATE -------------------------------------------------------------------------------------------


def test_cut_at_every_octet() -> None:
    """A part of a message is refused, or it is a whole one: at the end of a block, where 00 or nothing may stand."""
    data = Peer().deflate(TEXT[:600])
    whole = []
    for size in range(1, len(data)):
        try:
            found = probe_zip().inflate(data[:size])
        except ValueError:
            assert refusal(probe_zip(), data[:size]) == "ST_PROTOCOL"
        else:
            assert TEXT.startswith(found)
            whole.append(size)
    assert len(whole) <= 2


def test_trailing_octets() -> None:
    assert probe_zip().inflate(HELLO + TAIL + b"\0") == b"Hello"  # an empty block is none
    for trailing in (b"\0", b"\xff", TAIL, b"garbage"):
        assert refusal(probe_zip(), HELLO + trailing) == "ST_PROTOCOL"


@pytest.mark.parametrize(
    "data",
    [
        b"\x07",  # no such kind of block
        b"\xff\xff\xff\xff",
        bytes.fromhex("000500fbff48656c6c6f00"),  # the length of a block twice, not the same
        bytes.fromhex("000500faff48656c"),  # a stored block that is cut short
        bytes.fromhex("f348cdc9c907"),  # a final block, and no other after it
        zlib.compress(TEXT),  # with a header
        b"[1,2,3]",
        TEXT,
    ],
)
def test_garbage(data: bytes) -> None:
    for reset in (False, True):
        assert refusal(probe_zip(inflate_reset=reset), data) == "ST_PROTOCOL"


def test_a_shared_stream_survives_garbage() -> None:
    loop = probe_zips()
    zipped = probe_zip(inflate_reset=True, loop=loop)
    for data in (b"\xff\xff", HELLO[:-2], HELLO + b"garbage"):
        assert refusal(zipped, data) == "ST_PROTOCOL"
        assert probe_zip(inflate_reset=True, loop=loop).inflate(HELLO) == b"Hello"


def test_a_distance_beyond_the_agreed_window_is_refused() -> None:
    """Where the window is our own: a peer that keeps to what was agreed never needs more."""
    data = Peer(15).deflate(NOISE[:20_000] + NOISE[:20_000])
    assert probe_zip(15).inflate(data) == NOISE[:20_000] * 2
    assert refusal(probe_zip(9), data) == "ST_PROTOCOL"


# --- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("data", [b"ab", b"x" * 5000, TEXT, NOISE], ids=["two", "run", "text", "noise"])
def test_what_fits_exactly_is_taken_and_one_octet_more_is_not(data: bytes, reset: bool) -> None:
    for level in (0, 6):
        message = Peer(level=level).deflate(data)
        assert probe_zip(inflate_reset=reset).inflate(message, len(data)) == data
        assert refusal(probe_zip(inflate_reset=reset), message, len(data) - 1) == "ST_TOO_BIG"


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """1 GiB of zeros in 1 MiB."""
    writer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    data = b"".join(writer.compress(zeros) for _ in range(1024)) + writer.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


@pytest.mark.parametrize("limit", [1, 4031, 4032, 4033, 65_536, 1_000_000])
def test_a_bomb_is_refused_at_the_limit(bomb: bytes, limit: int) -> None:
    """What was inflated of it is not more than the limit, rounded up to a size of memory."""
    zipped = probe_zip()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(zipped, bomb, limit) == "ST_TOO_BIG"
    assert zipped.held <= max(4096, 2 * (limit + 64))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_a_bomb_of_nothing_is_read_to_its_end() -> None:
    """Blocks that hold no octet cost time by their own length only."""
    assert probe_zip().inflate(b"\0\0\0\xff\xff" * 100_000 + b"\0", 1) == b""
    assert probe_zip().inflate(b"\x03\x00" * 100_000 + b"\0", 1) == b""


def test_a_message_that_cannot_be_written_leaves_the_stream_usable() -> None:
    """Sent as it is, it is not in the peer's window: what follows must not refer to it."""
    zipped, peer = probe_zip(), Peer()
    assert peer.inflate(zipped.deflate(b"Hello")) == b"Hello"
    for size in (1, 100, 69_999):
        with pytest.raises(ValueError, match="ST_TOO_BIG"):
            zipped.deflate(NOISE, size)
    for item in (NOISE, b"Hello", NOISE[-300:]):
        assert peer.inflate(zipped.deflate(item)) == item


def test_output_of_every_size() -> None:
    """No place where the output is cut loses or repeats anything; memory begins with 4 KiB and doubles."""
    for size in (*range(3990, 4050), *range(8080, 8140)):
        item = os.urandom(size)
        zipped, peer = probe_zip(), Peer()
        assert peer.inflate(zipped.deflate(item)) == item
        assert peer.inflate(zipped.deflate(b"Hello")) == b"Hello"
        assert zipped.inflate(peer.deflate(item)) == item


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("mem_level", range(1, 10))
def test_memory_is_what_is_said(bits: int, mem_level: int) -> None:
    """stream_memory() is an upper bound, and not far from the truth."""
    zipped = probe_zip(bits, deflate_bits=bits, mem_level=mem_level)
    idle = zipped.octets
    assert idle < 1024
    zipped.inflate(Peer(bits).deflate(NOISE))
    inflating = zipped.octets
    zipped.deflate(NOISE)
    both = stream_memory(bits) + stream_memory(bits, mem_level)
    assert inflating <= stream_memory(bits)
    assert both - 24 * 1024 < zipped.octets <= both


def test_memory_is_given_back() -> None:
    loop = probe_zips()
    for reset in (False, True):
        zipped = [probe_zip(inflate_reset=reset, deflate_reset=reset, loop=loop) for _ in range(3)]
        for item in zipped:
            item.inflate(item.deflate(TEXT))
        del item, zipped
    shared = loop.octets
    assert 0 < shared <= stream_memory(15) + stream_memory(15, 8)
    refused = probe_zip(loop=loop)
    refusal(refused, b"garbage")
    del refused
    gc.collect()  # the traceback
    assert loop.octets == shared


@pytest.mark.skipif(not probe_fail_allocation(-1), reason="only debug builds can fail allocations: `make test-debug`")
@pytest.mark.parametrize("reset", [False, True])
def test_every_allocation_may_fail(reset: bool) -> None:
    """What could not be compressed may be sent as it is; what could not be inflated ends the connection."""
    packed, failed = Peer().deflate(TEXT), set()
    for number in range(40):
        loop = probe_zips()
        zipped, peer = probe_zip(inflate_reset=reset, deflate_reset=reset, loop=loop), Peer(reset=reset)
        for name in ("deflate", "inflate"):
            probe_fail_allocation(number)
            try:
                data = zipped.deflate(TEXT) if name == "deflate" else zipped.inflate(packed)
            except ValueError as error:
                failed.add((name, number, str(error)))
            else:
                assert (peer.inflate(data) if name == "deflate" else data) == TEXT
            finally:
                probe_fail_allocation(-1)
        assert peer.inflate(zipped.deflate(TEXT)) == TEXT
        del zipped
        gc.collect()
        assert reset or loop.octets == 0
    assert {status for _, _, status in failed} == {"ST_NOMEM"}
    assert {name for name, _, _ in failed} == {"deflate", "inflate"}
    assert len(failed) < 40  # the last ones did not


@pytest.mark.parametrize(
    "values",
    [
        {"inflate_bits": 8},
        {"inflate_bits": 16},
        {"inflate_bits": 0},
        {"deflate_bits": 8},
        {"deflate_bits": -15},
        {"deflate_bits": 300},
        {"mem_level": 0},
        {"mem_level": 10},
    ],
)
def test_values_out_of_range(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="zip_open"):
        probe_zip(**values)
