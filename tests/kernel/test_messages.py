"""Messages that are not relayed as they are: batches, compression, translation, session IDs, and what is refused."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import cbor2
import msgpack
import pytest

from kernel.harness import BINARY, HELLO, RSV1, TEXT, WELCOME, End, Plane, call, result
from proxy import _relay as R

FRONT_SID, OTHER_SID = 777_000_111, 777_000_222
WELCOMES = {R.SER_CBOR: WELCOME, R.SER_MSGPACK: msgpack.packb([2, 1234, {}]), R.SER_JSON: b"[2,1234,{}]"}
CAN, RS = b"\x18", b"\x1e"


def event(publisher: int, request: int = 1) -> bytes:
    """An EVENT with a disclosed publisher."""
    return cbor2.dumps([36, 5, request, {"publisher": publisher}, ["x"]])


def batch(*messages: bytes) -> bytes:
    """A binary batch."""
    return b"".join(struct.pack("!I", len(message)) + message for message in messages)


def unbatch(data: bytes) -> list[bytes]:
    """Its messages."""
    messages = []
    while data:
        (size,) = struct.unpack_from("!I", data)
        messages.append(data[4 : 4 + size])
        data = data[4 + size :]
    return messages


class Deflate:
    """A client's end of permessage-deflate, with context."""

    def __init__(self) -> None:
        self.out = zlib.compressobj(wbits=-15)
        self.into = zlib.decompressobj(wbits=-15)

    def pack(self, data: bytes) -> bytes:
        """What goes into a frame (RFC 7692 7.2.1)."""
        return (self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def unpack(self, data: bytes) -> bytes:
        """What a frame holds (RFC 7692 7.2.2)."""
        return self.into.decompress(data + b"\0\0\xff\xff")


def joined(
    plane: Plane, *, front_serializer: int = R.SER_CBOR, back_serializer: int = R.SER_CBOR, kind: str = "ws",
    size: int = 15, dial: dict[str, Any] | None = None, welcome: bytes | None = None, **upgrade: Any,
) -> tuple[End, End, int, int]:
    """A linked pair: client's end, router's end, their numbers. Nothing was said to the client."""
    client, front = plane.join(plane.listen(kind), front_serializer, size, **upgrade)
    router = plane.router("rs")
    token = plane.dial(front, router, serializer=back_serializer, **(dial or {}))
    end, back = plane.accept_join(router, token, welcome=welcome or WELCOMES[back_serializer])
    plane.relay.link(front, back, b"")
    return client, end, front, back


# --- batches ---


def test_a_batch_is_taken_apart_and_answers_come_as_one(plane: Plane) -> None:
    client, router, _, _ = joined(plane, batched=True)
    client.send(batch(call(1, 1), call(70000, 2), call(3, 3)))
    assert [router.recv() for _ in range(3)] == [call(1, 1), call(70000, 2), call(3, 3)]
    router.write(b"".join(router.frame(result(9, i)) for i in range(1, 4)))
    assert unbatch(client.recv()) == [result(9, i) for i in range(1, 4)]


def test_every_message_of_a_batch_passes_the_gate(plane: Plane) -> None:
    client, router, front, back = joined(plane, batched=True)
    client.send(batch(call(1, 1), HELLO, call(2, 2)))
    assert plane.wait(R.EV_VIOLATION, conn=front).arg == R.ST_FORBIDDEN
    assert router.recv() == call(1, 1)
    plane.relay.close(front)
    plane.relay.abort(back)
    assert router.read_end() in ("eof", "reset")


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\0", b"\0\0\0\x05abc", batch(call()) + b"\0"])
def test_a_malformed_batch_fails_the_transport(plane: Plane, payload: bytes) -> None:
    client, _, front, back = joined(plane, batched=True)
    client.send(payload)
    assert plane.closed(front).reason == "CLOSED_PROTOCOL"
    assert client.recv_control()[1][:2] == struct.pack("!H", 1002)
    plane.relay.abort(back)


@pytest.mark.parametrize("mark", [RS, CAN])
def test_a_json_batch_is_answered_with_the_mark_that_the_client_uses(plane: Plane, mark: bytes) -> None:
    client, router, _, _ = joined(plane, front_serializer=R.SER_JSON, batched=True, back_serializer=R.SER_JSON)
    messages = [json.dumps([48, i, {}, "x"]).encode() for i in range(3)]
    client.send(mark.join([*messages, b""]), TEXT)
    assert [router.recv() for _ in range(3)] == messages
    router.send(b"[50,0,{}]")
    assert client.recv_message() == (TEXT, b"[50,0,{}]" + mark)


def test_a_batch_waits_while_its_messages_go_up_one_by_one(plane: Plane) -> None:
    client, front = plane.join(plane.listen("ws"), batched=True)
    client.send(batch(HELLO, call(5, 5), call(6, 6)))
    assert plane.wait(R.EV_MESSAGE, conn=front).data == HELLO
    end, back, _ = plane.back(front, plane.router("rs"))
    plane.relay.link(front, back, WELCOME)
    assert unbatch(client.recv()) == [WELCOME]
    assert [end.recv(), end.recv()] == [call(5, 5), call(6, 6)]


# --- compression ---


@pytest.mark.parametrize("reset", [False, True])
def test_compressed_messages_pass_both_ways(plane: Plane, reset: bool) -> None:
    client, router, _, _ = joined(
        plane, inflate_bits=15, deflate_bits=15, inflate_reset=reset, deflate_reset=reset
    )
    peer = Deflate()
    for number in range(5):
        if reset:
            peer = Deflate()
        client.send(peer.pack(call(5000, number)), BINARY | RSV1)
        assert router.recv() == call(5000, number)
        router.send(result(5000, number))
        opcode, data = client.recv_message()
        assert opcode == BINARY | RSV1
        assert len(data) < 200
        assert peer.unpack(data) == result(5000, number)
    client.send(call(3, 9))
    assert router.recv() == call(3, 9)


def test_a_compressed_batch_that_stops_in_the_middle_goes_on(plane: Plane) -> None:
    client, front = plane.join(plane.listen("ws"), batched=True, inflate_bits=15, deflate_bits=15)
    peer = Deflate()
    client.send(peer.pack(batch(HELLO, call(500, 5), call(6, 6))), BINARY | RSV1)
    client.send(peer.pack(batch(call(7, 7))), BINARY | RSV1)
    assert plane.wait(R.EV_MESSAGE, conn=front).data == HELLO
    end, back, _ = plane.back(front, plane.router("rs"))
    plane.relay.link(front, back, b"")
    assert [end.recv() for _ in range(3)] == [call(500, 5), call(6, 6), call(7, 7)]


def test_a_bomb_is_refused_at_the_limit(plane: Plane) -> None:
    client, front = plane.join(plane.listen("ws", max_message=65536), inflate_bits=15, deflate_bits=15)
    end, back, _ = plane.back(front, plane.router("rs"))
    plane.relay.link(front, back, b"")
    client.send(Deflate().pack(call(40_000_000)), BINARY | RSV1)
    assert plane.closed(front).reason == "CLOSED_TOO_BIG"
    assert client.recv_control()[1][:2] == struct.pack("!H", 1009)
    plane.relay.abort(back)
    assert end.read_end() in ("eof", "reset")


# --- translation ---


def test_serializers_are_translated_in_both_directions(plane: Plane) -> None:
    client, router, _, _ = joined(plane, front_serializer=R.SER_JSON)
    client.send(b'[48,1,{},"com.x",["a",1,2.5,null,"\\u0000AQI="]]', TEXT)
    assert cbor2.loads(router.recv()) == [48, 1, {}, "com.x", ["a", 1, 2.5, None, b"\x01\x02"]]
    router.send(cbor2.dumps([50, 1, {}, [b"\x03", -5]]))
    opcode, data = client.recv_message()
    assert (opcode, json.loads(data)) == (TEXT, [50, 1, {}, ["\0Aw==", -5]])


def test_what_cannot_be_translated_is_refused_and_the_next_message_passes(plane: Plane) -> None:
    client, router, front, _ = joined(plane, front_serializer=R.SER_MSGPACK, back_serializer=R.SER_JSON, kind="rs")
    client.send(msgpack.packb([48, 7, {}, "com.x", [float("nan")]]))
    refused = plane.wait(R.EV_REFUSED, conn=front)
    assert refused.arg == R.ST_UNTRANSLATABLE
    code, size, text_length = struct.unpack_from("!IQB", refused.data)
    assert (code, size) == (48, len(msgpack.packb([48, 7, {}, "com.x", [float("nan")]])))
    assert text_length
    assert msgpack.unpackb(refused.data[13 + text_length :]) == [48, 7, {}]
    client.send(msgpack.packb([48, 8, {}, "com.x"]))
    plane.relay.next(front)
    assert json.loads(router.recv()) == [48, 8, {}, "com.x"]


def test_an_overlong_head_is_told_by_its_ids(plane: Plane) -> None:
    client, front = plane.join(plane.listen("rs"))
    router = plane.router("rs")
    token = plane.dial(front, router)
    _, back = plane.accept_join(router, token, size=0)
    plane.relay.link(front, back, b"")
    client.send(cbor2.dumps([8, 68, 2**40, {}, "u" * 200_000]))
    refused = plane.wait(R.EV_REFUSED, conn=front)
    assert refused.data[13:][: refused.data[12]] == b"at most 512 octets"
    assert cbor2.loads(refused.data[13 + refused.data[12] :]) == [8, 68, 2**40]


# --- session IDs ---


def test_session_ids_are_rewritten_and_follow_a_new_link(plane: Plane) -> None:
    realm = plane.relay.add_realm()
    ids = {"realm": realm, "front_sid": FRONT_SID}
    client, router, front, back = joined(plane, dial=ids)
    router.send(event(1234))
    assert client.recv() == event(FRONT_SID)
    client.send(cbor2.dumps([16, 1, {"exclude": [FRONT_SID, 5]}, "t"]))
    assert cbor2.loads(router.recv()) == [16, 1, {"exclude": [1234, 5]}, "t"]

    plane.relay.unlink(front)
    plane.relay.close(back)
    assert router.read_end() == "eof"
    second = plane.router("rs")
    token = plane.dial(front, second, **ids)
    end, again = plane.accept_join(second, token, welcome=cbor2.dumps([2, 98765, {}]))
    plane.relay.link(front, again, b"")
    client.send(cbor2.dumps([16, 2, {"eligible": [FRONT_SID]}, "t"]))
    assert cbor2.loads(end.recv()) == [16, 2, {"eligible": [98765]}, "t"]
    end.write(end.frame(event(98765)) + end.frame(event(1234)))
    assert [client.recv(), client.recv()] == [event(FRONT_SID), event(FRONT_SID)]
    plane.relay.release_sid(realm, FRONT_SID)


def test_ids_of_others_are_rewritten_across_threads_and_for_identity_sessions(make_plane: Any) -> None:
    plane = make_plane(2)
    realm, elsewhere = plane.relay.add_realm(), plane.relay.add_realm()
    listener, router = plane.listen("ws", backlog=50), plane.router("rs")
    ends = []
    for number in range(6):
        client, front = plane.join(listener)
        mine = {"realm": realm, "front_sid": FRONT_SID + number} if number < 4 else {"realm": realm}
        token = plane.dial(front, router, **(mine if number < 5 else {"realm": elsewhere}))
        end, back = plane.accept_join(router, token, welcome=cbor2.dumps([2, 1000 + number, {}]))
        plane.relay.link(front, back, b"")
        ends.append((client, end))
    assert all(plane.relay.stats(i)["connections"] for i in range(2))
    for number in range(6):
        for index, (client, end) in enumerate(ends):
            end.send(event(1000 + number))
            told = FRONT_SID + number if number < 4 and index < 5 else 1000 + number
            assert client.recv() == event(told)
    for number in range(4):
        plane.relay.release_sid(realm, FRONT_SID + number)


def on_join(session: int) -> bytes:
    """An EVENT of wamp.session.on_join for a pattern subscription."""
    return cbor2.dumps([36, 5, 9, {"topic": "wamp.session.on_join"}, [{"session": session}]])


def test_on_join_waits_for_the_welcome_of_the_session_it_names(plane: Plane) -> None:
    realm = plane.relay.add_realm()
    client, router, _, _ = joined(plane, dial={"realm": realm, "front_sid": FRONT_SID})
    _, front = plane.join(plane.listen("rs"))
    second = plane.router("rs")
    token = plane.dial(front, second, realm=realm, front_sid=OTHER_SID)
    end = plane.accept(second)
    end.read(4)
    end.write(bytes([0x7F, 0xF3, 0, 0]))
    end.recv()
    router.write(router.frame(on_join(4321)) + router.frame(event(4321)))
    plane.settle(waits=1)
    end.send(cbor2.dumps([2, 4321, {}]))
    assert plane.wait(R.EV_MESSAGE, owner=token).data == cbor2.dumps([2, 4321, {}])
    assert client.recv() == on_join(OTHER_SID)
    assert client.recv() == event(OTHER_SID)


def test_on_join_of_a_stranger_goes_on_after_a_while(plane: Plane) -> None:
    realm = plane.relay.add_realm()
    client, router, _, _ = joined(plane, dial={"realm": realm, "front_sid": FRONT_SID})
    _, front = plane.join(plane.listen("rs"))
    second = plane.router("rs")
    plane.dial(front, second, realm=realm, front_sid=OTHER_SID)
    plane.accept(second)
    router.write(router.frame(on_join(4321)) + router.frame(event(4321)))
    assert client.recv() == on_join(4321)
    assert client.recv() == event(4321)


def test_a_session_that_ends_is_known_a_little_longer(plane: Plane) -> None:
    realm = plane.relay.add_realm()
    client, router, _, _ = joined(plane, dial={"realm": realm, "front_sid": FRONT_SID})
    gone, far, front, back = joined(
        plane, dial={"realm": realm, "front_sid": OTHER_SID}, welcome=cbor2.dumps([2, 4321, {}])
    )
    gone.close()
    plane.closed(front)
    plane.relay.abort(back)
    far.close()
    plane.relay.release_sid(realm, OTHER_SID)
    router.send(event(4321))
    assert client.recv() == event(OTHER_SID)


# --- what is swallowed ---


def test_answers_to_a_call_that_failed_are_dropped_until_the_last(plane: Plane) -> None:
    client, router, front, _ = joined(plane)
    plane.relay.swallow(front, R.NOTE_DEAD_CALL, 7)
    plane.barrier()
    for message in ([50, 7, {"progress": True}, [1]], [50, 8, {}, [2]], [50, 7, {}, [3]], [50, 7, {}, [4]]):
        router.send(cbor2.dumps(message))
    assert [cbor2.loads(client.recv())[3] for _ in range(2)] == [[2], [4]]


def test_answers_to_an_invocation_that_failed_are_dropped_until_the_last(plane: Plane) -> None:
    client, router, front, _ = joined(plane)
    plane.relay.swallow(front, R.NOTE_DEAD_INVOCATION, 7)
    plane.barrier()
    for message in ([70, 7, {"progress": True}, [1]], [70, 8, {}, [2]], [8, 68, 7, {}, "x"], [70, 7, {}, [4]]):
        client.send(cbor2.dumps(message))
    assert [cbor2.loads(router.recv())[3] for _ in range(2)] == [[2], [4]]
