"""permessage-deflate: what is negotiated, what is sent, and what a client may not do with it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from support import raw
from support.census import Peak
from support.extended import OFFER, RSV1, TAIL, Deflate, ExtendedPeer
from support.raw import ABORT, GOODBYE, Peer, encode
from support.stage import Stage

SERIALIZERS = ["json", "msgpack", "cbor"]
MIB = 1 << 20
BOMB = Deflate().compress(bytes(100 * MIB))
WORDS = random.Random(7).randbytes(2400).hex(" ", 6).split()


def options(**deflate: Any) -> dict[str, Any]:
    """WebSocket options with compression."""
    return {"compression": {"deflate": deflate}}


FRONTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "off": {"compression": {}},
    "default": options(),
    "no-context": options(no_context_takeover=True, request_no_context_takeover=True),
    "bits-9": options(max_window_bits=9, request_max_window_bits=9),
    "bits-12": options(max_window_bits=12, request_max_window_bits=11, memory_level=1),
    "own-reset": options(no_context_takeover=True, memory_level=9),
    "small": options() | {"max_message_size": MIB},
    "cut": options() | {"auto_fragment_size": 100},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("compression")).add_stub()
    for name, keys in FRONTS.items():
        stage.add_front(name, serializers=[*SERIALIZERS, *(f"{s}.batched" for s in SERIALIZERS)], options=keys)
    limits = {"compression_memory": MIB, "close_timeout": 500}
    stage.add_front("few", options=options(), limits=limits).start()
    yield stage
    stage.close()


def session(
    stage: Stage, front: str = "default", serializer: str = "cbor", offer: str | None = OFFER, **keys: Any
) -> tuple[ExtendedPeer, Peer]:
    """A joined session that has offered compression."""
    client, router = stage.session(front, serializer, offer=offer, **keys)
    return client, router


def text(chance: random.Random, words: int) -> str:
    """Text that is worth compressing, and not all alike."""
    return " ".join(chance.choices(WORDS, k=words))


def call(number: int, *args: Any) -> list[Any]:
    """A CALL."""
    return [raw.CALL, number, {}, "com.example", list(args)]


def event(number: int, *args: Any) -> list[Any]:
    """An EVENT."""
    return [raw.EVENT, 1, number, {}, list(args)]


# --- negotiation ---

BITS_OFFER = "permessage-deflate; client_max_window_bits"
AGREED: list[tuple[str, str, tuple[int, bool, int, bool] | None]] = [
    # front, offer, (bits and reset of the client, bits and reset of the server) or None: declined
    ("plain", BITS_OFFER, None),
    ("off", BITS_OFFER, None),
    ("default", "permessage-deflate", (15, False, 15, False)),
    ("default", BITS_OFFER, (15, False, 15, False)),
    ("default", "permessage-deflate; server_no_context_takeover", (15, False, 15, True)),
    ("default", "permessage-deflate; server_max_window_bits=10", (15, False, 10, False)),
    ("default", 'permessage-deflate; server_max_window_bits="11"', (15, False, 11, False)),
    ("default", "Permessage-Deflate", None),
    ("default", "permessage-bzip2, permessage-deflate; server_max_window_bits=12", (15, False, 12, False)),
    ("default", "permessage-deflate; nonsense, permessage-deflate", (15, False, 15, False)),
    ("default", "permessage-deflate; nonsense", None),
    ("default", "permessage-deflate; server_max_window_bits=7", None),
    ("default", "permessage-deflate; server_max_window_bits=16", None),
    ("default", "permessage-deflate; server_max_window_bits=010", None),
    ("default", "permessage-deflate; server_max_window_bits", None),
    ("default", "permessage-deflate; client_max_window_bits=99", None),
    ("default", "permessage-deflate; server_no_context_takeover=1", None),
    ("default", "permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
    ("default", "permessage-bzip2", None),
    ("no-context", "permessage-deflate; client_no_context_takeover", (15, True, 15, True)),
    ("bits-9", BITS_OFFER, (9, False, 9, False)),
    ("bits-9", "permessage-deflate", None),
    ("bits-12", BITS_OFFER, (11, False, 12, False)),
    ("bits-12", "permessage-deflate; server_max_window_bits=10; client_max_window_bits", (11, False, 10, False)),
    ("own-reset", "permessage-deflate", (15, False, 15, True)),
]


@pytest.mark.parametrize(("front", "offer", "agreed"), AGREED)
def test_negotiation(front: str, offer: str, agreed: tuple[int, bool, int, bool] | None, stage: Stage) -> None:
    """The answer to an offer, by the transport's options (RFC 7692 7.1); an offer with a mistake is declined."""
    client = stage.dial(front, offer=offer)
    if agreed is None and client.deflate is not None:
        # extension names compare without regard to case for some, and some options only ask
        assert offer.lower().startswith("permessage-deflate"), client.deflate
        assert offer in LENIENT, vars(client.deflate)
    else:
        found = client.deflate and (
            client.deflate.out_bits, client.deflate.out_reset, client.deflate.in_bits, client.deflate.in_reset
        )  # fmt: skip
        assert found == agreed
    client, router = stage.join(front, client)
    client.send(call(1, "x" * 1000))
    assert router.recv() == call(1, "x" * 1000)
    client.close()


LENIENT = {"Permessage-Deflate"}
"""Offers that may be taken or not."""


# --- messages ---


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batched"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("front", ["default", "no-context", "bits-9", "bits-12", "own-reset", "cut"])
def test_messages_of_all_sizes(front: str, serializer: str, batched: bool, stage: Stage) -> None:
    """What one end sends the other end receives, with the window that was agreed on, compressed or not."""
    offer = OFFER + ("; client_no_context_takeover" if front == "no-context" else "")
    client, router = session(stage, front, serializer, offer, batched=batched)
    assert client.deflate is not None
    chance = random.Random(front)
    for number, words in enumerate([0, 1, 2, 10, 100, 1000, 5000, 20_000, 3, 1, 700, 0]):
        message = call(number, text(chance, words))
        payload = encode(serializer, message)
        compress = number % 4 != 3  # each message may be sent as it is
        client.wire.write(client.message(client.pack(payload) if batched else payload, compress))
        assert router.recv_payload() == payload
        message = event(number, text(chance, words))
        router.send(message)
        assert client.recv() == message
        noise = event(number, chance.randbytes(words).hex())
        router.send(noise)
        assert client.recv() == noise
    assert sum(client.compressed) > len(client.compressed) / 2
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_context_is_taken_over(serializer: str, stage: Stage) -> None:
    """Over many messages both windows are used: what was said before costs little."""
    client, router = session(stage, "default", serializer)
    words = text(random.Random(3), 200)
    for number in range(300):
        client.send(call(number, words, number))
        assert router.recv() == call(number, words, number)
        router.send(event(number, words, number))
        assert client.recv() == event(number, words, number)
    assert client.lengths[1] > 800
    assert max(client.lengths[20:]) < 100, "the window is not used"
    client.close()


@pytest.mark.parametrize("front", ["no-context", "own-reset"])
def test_context_is_not_taken_over(front: str, stage: Stage) -> None:
    """Each message stands for itself, and the client can inflate it with an empty window."""
    client, router = session(stage, front, offer=OFFER + "; client_no_context_takeover")
    words = text(random.Random(3), 200)
    for number in range(50):
        router.send(event(number, words))
        assert client.recv() == event(number, words)
    assert min(client.lengths[1:]) > 800
    client.close()


def test_connections_do_not_share_a_window(stage: Stage) -> None:
    """Messages of many connections in turn, with and without a window of their own."""
    chance = random.Random(5)
    sessions = [
        session(stage, front, offer=OFFER + "; client_no_context_takeover")
        for front in ("default", "no-context", "bits-9", "default", "no-context", "own-reset") * 3
    ]
    for number in range(20):
        messages = [text(chance, 50) for _ in sessions]
        for (client, router), words in zip(sessions, messages, strict=True):
            client.send(call(number, words))
            router.send(event(number, words))
        for (client, router), words in zip(sessions, messages, strict=True):
            assert router.recv() == call(number, words)
            assert client.recv() == event(number, words)
    for client, _ in sessions:
        client.close()


@pytest.mark.parametrize("serializer", ["json", "cbor"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_compressed_fragments(size: int, serializer: str, stage: Stage) -> None:
    """A compressed message may come in frames of any size, with pings in between and none of them compressed."""
    client, router = session(stage, "default", serializer)
    chance = random.Random(size)
    for number in range(3):
        message = call(number, text(chance, 150))
        client.send_fragments(encode(serializer, message), size)
        client.wire.write(client.ping_frame(b"x" * 50))
        assert router.recv() == message
    client.close()


def blocks(payload: bytes) -> dict[str, bytes]:
    """Legal ways to write one compressed message (RFC 7692 7.2.3)."""
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    fixed = zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_FIXED)
    final = zlib.compressobj(9, zlib.DEFLATED, -15)
    pieces = zlib.compressobj(9, zlib.DEFLATED, -15)
    flushed = b"".join(
        pieces.compress(payload[i : i + 10]) + pieces.flush(zlib.Z_SYNC_FLUSH) for i in range(0, len(payload), 10)
    )
    return {
        "stored": (stored.compress(payload) + stored.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL),
        "fixed": (fixed.compress(payload) + fixed.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL),
        "final": final.compress(payload) + final.flush(zlib.Z_FINISH) + b"\0",
        "many-blocks": flushed.removesuffix(TAIL),
    }


@pytest.mark.parametrize("form", ["stored", "fixed", "final", "many-blocks"])
def test_every_form_of_a_compressed_message(form: str, stage: Stage) -> None:
    """Stored, fixed, final and many blocks are all one message."""
    client, router = session(stage, "no-context", offer=OFFER + "; client_no_context_takeover")
    for number in range(3):
        message = call(number, text(random.Random(9), 100))
        data = blocks(encode("cbor", message))[form]
        client.wire.write(client.ws_frame(raw.OP_BINARY, data, rsv=RSV1))
        assert router.recv() == message
    client.close()


# --- what a client may not do ---


def assert_failed(client: Peer, router: Peer, *codes: int) -> None:
    """The transport fails with one of ``codes``, the router's session is left, nothing else reaches it."""
    messages, closed = client.recv_end()
    assert [message[0] for message in messages] in ([], [ABORT])
    assert closed.code in codes, closed
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


ILLEGAL_BITS = [(None, rsv) for rsv in (RSV1, 1, 2, 3, 5, 7)] + [(OFFER, rsv) for rsv in (1, 2, 3, 5, 7)]


@pytest.mark.parametrize(("offer", "rsv"), ILLEGAL_BITS, ids={None: "plain", OFFER: "agreed"}.get)
def test_reserved_bits(offer: str | None, rsv: int, stage: Stage) -> None:
    """RSV1 without an agreement, and RSV2 and RSV3 at any time, fail the connection."""
    client, router = session(stage, offer=offer)
    client.wire.write(client.ws_frame(raw.OP_BINARY, encode("cbor", call(1)), rsv=rsv))
    assert_failed(client, router, 1002)


@pytest.mark.parametrize("opcode", [raw.OP_PING, raw.OP_PONG, raw.OP_CLOSE, raw.OP_CONT], ids=str)
def test_compressed_where_it_may_not_be(opcode: int, stage: Stage) -> None:
    """RSV1 in a control frame or a continuation fails the connection."""
    client, router = session(stage)
    if opcode == raw.OP_CONT:
        client.wire.write(client.ws_frame(raw.OP_BINARY, b"", fin=False, rsv=RSV1))
    client.wire.write(client.ws_frame(opcode, b"", rsv=RSV1))
    assert_failed(client, router, 1002)


def far() -> bytes:
    """A block that refers to what was never sent."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_FIXED, zdict=b"what was never sent before " * 9)
    return packer.compress(b"what was never sent before " * 3) + packer.flush(zlib.Z_SYNC_FLUSH)


GARBAGE = {
    "reserved-block-type": b"\x07",
    "bad-stored-length": b"\x00\x05\x00\x05\x00hello",
    "distance-too-far": far(),
    "text": b"this was never compressed",
    "zlib-header": zlib.compress(b"hello" * 100),
    "gzip-header": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
}


@pytest.mark.parametrize("serializer", ["json", "cbor"])
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(name: str, serializer: str, stage: Stage) -> None:
    """What cannot be inflated, or inflates to no WAMP message, fails the transport."""
    client, router = session(stage, "default", serializer)
    client.wire.write(client.ws_frame(client.opcode, GARBAGE[name], rsv=RSV1))
    messages, closed = client.recv_end()
    assert [message[0] for message in messages] in ([], [ABORT])
    assert closed.code in (1002, 1003, 1007) or messages, closed
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


def test_text_that_is_not_utf8(stage: Stage) -> None:
    """The text is checked once it is inflated."""
    client, router = session(stage, "default", "json")
    client.send_raw(b'[48,1,{},"com.example",["\xff\xfe"]]')
    messages, closed = client.recv_end()
    assert closed.code == 1007 or [message[0] for message in messages] == [ABORT]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


@pytest.mark.parametrize("name", ["hello", "welcome", "event", "cut", "two"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_gate_behind_compression(name: str, serializer: str, stage: Stage) -> None:
    """A compressed message passes the same gate."""
    client, router = session(stage, "default", serializer)
    good = encode(serializer, call(1))
    payload = {
        "hello": encode(serializer, [1, "realm1", {"roles": {}}]),
        "welcome": encode(serializer, [2, 1, {"roles": {}}]),
        "event": encode(serializer, event(1)),
        "cut": good[:-1],
        "two": good + good,
    }[name]
    client.send_raw(payload)
    messages, _ = client.recv_end()
    assert [message[:1] + message[2:3] for message in messages] == [[ABORT, "wamp.error.protocol_violation"]]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


# --- size ---


def padded(size: int) -> bytes:
    """A CALL of exactly ``size`` octets in CBOR."""
    empty = encode("cbor", call(1, b"x" * 100_000))
    payload = encode("cbor", call(1, b"x" * (100_000 + size - len(empty))))
    assert len(payload) == size, (len(payload), size)
    return payload


@pytest.mark.parametrize("fragments", [False, True])
def test_limit_is_for_the_inflated_message(fragments: bool, stage: Stage) -> None:
    """max_message_size to the octet: at the limit it passes, one more ends the session with 1009."""
    client, router = session(stage, "small")
    for payload in (padded(MIB), padded(MIB + 1)):
        if fragments:
            client.send_fragments(payload, 400)
        else:
            client.send_raw(payload)
        if len(payload) == MIB:
            assert router.recv_payload() == payload
    assert_failed(client, router, 1009)


def test_noise_of_the_largest_size(stage: Stage) -> None:
    """What compression makes longer than the limit is still within it."""
    client, router = session(stage, "small")
    chance = random.Random(4)
    head = encode("cbor", call(1, b"x" * 100_000))[:-100_000]
    payload = head[:-5] + b"\x5a" + (MIB - len(head)).to_bytes(4, "big") + chance.randbytes(MIB - len(head))
    for level in (0, 1, 9):
        peer = Deflate()
        client.wire.write(client.ws_frame(raw.OP_BINARY, peer.compress(payload, level), rsv=RSV1))
        assert router.recv_payload() == payload
    client.close()


@pytest.mark.parametrize("front", ["small", "default"])
def test_zip_bombs(front: str, stage: Stage) -> None:
    """A message that inflates beyond the limit is refused while it is inflated: memory does not grow with it."""
    limit = FRONTS[front].get("max_message_size", 16 * MIB)
    bomb = BOMB
    sessions = [session(stage, front) for _ in range(4)]
    peak = Peak(stage.proxy.pid)
    for number, (client, _) in enumerate(sessions):
        if number % 2:
            for i in range(0, len(bomb), 60_000):
                last = i + 60_000 >= len(bomb)
                opcode = raw.OP_CONT if i else raw.OP_BINARY
                rsv = 0 if i else RSV1
                try:
                    client.wire.write(client.ws_frame(opcode, bomb[i : i + 60_000], fin=last, rsv=rsv))
                except raw.PeerClosed:
                    break
        else:
            client.wire.write(client.ws_frame(raw.OP_BINARY, bomb, rsv=RSV1))
    for client, router in sessions:
        _, closed = client.recv_end()
        assert closed.code == 1009, closed
        assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]
    peak.check(6 * limit + 8 * MIB, "four zip bombs of 100 MiB")


def test_bomb_before_the_login(stage: Stage) -> None:
    """A stranger's bomb goes the same way."""
    peak = Peak(stage.proxy.pid)
    client = stage.dial("default", offer=OFFER)
    client.wire.write(client.ws_frame(raw.OP_BINARY, BOMB, rsv=RSV1))
    messages, closed = client.recv_end()
    assert closed.code == 1009 or [message[0] for message in messages] == [ABORT], (messages, closed)
    peak.check(56 * MIB, "a bomb before HELLO")


def test_many_quiet_connections(stage: Stage) -> None:
    """A window costs what zlib says it costs, only where it is kept, and is given back at the end."""
    for front, each in (("default", 400 << 10), ("bits-9", 40 << 10), ("no-context", 20 << 10)):
        peak = Peak(stage.proxy.pid)
        sessions = [session(stage, front, offer=OFFER + "; client_no_context_takeover") for _ in range(40)]
        for client, router in sessions:
            client.send(call(1, "x" * 1000))
            router.send(event(1, "x" * 1000))
        for client, router in sessions:
            assert router.recv() == call(1, "x" * 1000)
            assert client.recv() == event(1, "x" * 1000)
        peak.check(len(sessions) * each + 4 * MIB, f"{len(sessions)} connections of {front}")
        for client, router in sessions:
            client.close()
            router.recv_end()


def test_memory_for_windows_is_bounded(stage: Stage) -> None:
    """When compression_memory is used up further connections get none, and work; there is room again when some end."""
    for _ in range(3):
        sessions = [session(stage, "few") for _ in range(12)]
        have = [client.deflate is not None for client, _ in sessions]
        assert have[0]
        assert not have[-1]
        assert have == sorted(have, reverse=True)
        for client, router in sessions:
            client.send(call(1, "x" * 1000))
            router.send(event(1, "x" * 1000))
            assert router.recv() == call(1, "x" * 1000)
            assert client.recv() == event(1, "x" * 1000)
        for client, router in sessions:
            client.close()
            router.recv_end()
