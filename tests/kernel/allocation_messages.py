"""What kernel.allocation runs for messages that are not relayed as they are.

Batches, compression, translation, session IDs, refusals, and a message that waits. Whatever fails, the session goes on
as it should or ends; nobody waits for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import cbor2
import msgpack

from kernel.harness import BINARY, RSV1, Plane
from kernel.test_messages import FRONT_SID, OTHER_SID, Deflate, batch, unbatch
from proxy import _relay as R

CALL_LIST = [48, 1, {}, "wamp.session.list"]
SUBSCRIBE = [32, 2, {}, "wamp.session.on_join"]
BIG = "z" * 30_000


class Unchanged(Exception):
    """A message came as it was: there was no memory to rewrite it."""


class Client:
    """A client with batches and compression; reads whole batches."""

    def __init__(self, end: Any, pack: Callable[[Any], bytes], unpack: Callable[[bytes], Any]) -> None:
        self.end, self.encode, self.decode = end, pack, unpack
        self.peer = Deflate()
        self.waiting: list[Any] = []

    def send(self, *messages: Any) -> None:
        """One compressed batch."""
        self.end.send(self.peer.pack(batch(*map(self.encode, messages))), BINARY | RSV1)

    def recv(self) -> Any:
        """One message."""
        if not self.waiting:
            opcode, data = self.end.recv_message()
            self.waiting = unbatch(self.peer.unpack(data) if opcode & RSV1 else data)
        return self.decode(self.waiting.pop(0))


def check(found: Any, expected: Any) -> None:
    """Fails softly where only an ID was not rewritten."""
    if found != expected:
        if str(found).replace("1234", str(FRONT_SID)).replace("4321", str(OTHER_SID)) == str(expected):
            raise Unchanged(found)
        raise AssertionError(f"{found!r:.300}, expected {expected!r:.300}")


def scenario(plane: Plane, small: dict[str, Any], first: int, ended: type[Exception]) -> None:
    """One session that uses everything at once."""
    listener = plane.listen("ws", **small, auto_fragment=2000)
    router, second = plane.router("rs"), plane.router("rs")
    realm = plane.relay.add_realm()
    R.probe_fail_allocation(first)
    try:
        play(plane, listener, router, second, realm)
    except Unchanged as error:
        raise ended(error) from None
    finally:
        with contextlib.suppress(Exception):
            plane.relay.release_sid(realm, FRONT_SID)
            plane.relay.release_sid(realm, OTHER_SID)


def play(plane: Plane, listener: Any, router: Any, second: Any, realm: int) -> None:
    """Login, then one thing after the other."""
    end, front = plane.join(listener, R.SER_MSGPACK, batched=True, inflate_bits=15, deflate_bits=15)
    client = Client(end, msgpack.packb, msgpack.unpackb)
    client.send([1, "realm1", {}], CALL_LIST, SUBSCRIBE)
    plane.wait(R.EV_MESSAGE, conn=front)
    token = plane.dial(front, router, realm=realm, front_sid=FRONT_SID)
    far, back = plane.accept_join(router, token)
    plane.relay.link(front, back, msgpack.packb([2, FRONT_SID, {}]))
    assert client.recv() == [2, FRONT_SID, {}]
    assert cbor2.loads(far.recv()) == CALL_LIST
    assert cbor2.loads(far.recv()) == SUBSCRIBE

    def tell(*messages: Any) -> None:
        far.write(b"".join(far.frame(cbor2.dumps(message)) for message in messages))

    tell([50, 1, {}, [[1234, 5]]], [33, 2, 77], [36, 77, 1, {"publisher": 1234}, [{"session": 1234}], {"x": BIG}])
    check(client.recv(), [50, 1, {}, [[FRONT_SID, 5]]])
    assert client.recv() == [33, 2, 77]
    check(client.recv(), [36, 77, 1, {"publisher": FRONT_SID}, [{"session": FRONT_SID}], {"x": BIG}])
    client.send([16, 3, {"exclude": [FRONT_SID]}, "t", [BIG]], [48, 4, {"progress": True}, "u"])
    check(cbor2.loads(far.recv()), [16, 3, {"exclude": [1234]}, "t", [BIG]])
    assert cbor2.loads(far.recv()) == [48, 4, {"progress": True}, "u"]

    fail_one(plane, client, tell, front, back)
    wait_for_another(plane, listener, second, realm, client, tell)
    plane.relay.unlink(front)
    plane.relay.link(front, back, b"")
    client.send([48, 9, {}, "again"], [6, {}, "wamp.close.normal"])
    assert cbor2.loads(far.recv()) == [48, 9, {}, "again"]
    plane.wait(R.EV_CONTROL, conn=front)
    plane.expected = True  # type: ignore[attr-defined]
    end.close()
    plane.closed(front)
    plane.relay.abort(back)
    far.close()
    plane.closed(back)


def fail_one(plane: Plane, client: Client, tell: Any, front: int, back: int) -> None:
    """A progressive RESULT that MessagePack cannot express; what follows of it is swallowed."""
    plane.refuses = True  # type: ignore[attr-defined]
    tell([50, 4, {"progress": True}, [2**70]], [50, 4, {}, [3]], [50, 6, {}, []])
    plane.wait(R.EV_REFUSED, conn=back)
    plane.refuses = False  # type: ignore[attr-defined]
    plane.relay.swallow(front, R.NOTE_DEAD_CALL, 4)
    plane.relay.send(front, msgpack.packb([8, 48, 4, {}, "wamp.error.invalid_payload"]))
    plane.relay.next(back)
    assert client.recv()[0] == 8
    message = client.recv()
    if message == [50, 4, {}, [3]]:
        raise Unchanged(message)
    assert message == [50, 6, {}, []]


def wait_for_another(plane: Plane, listener: Any, second: Any, realm: int, client: Client, tell: Any) -> None:
    """An on_join event that names a session before its WELCOME is read."""
    _, other = plane.join(listener, R.SER_MSGPACK)
    token = plane.dial(other, second, realm=realm, front_sid=OTHER_SID)
    end = plane.accept(second)
    end.read(4)
    end.write(bytes([0x7F, 0xF3, 0, 0]))
    end.recv()
    tell([36, 77, 2, {}, [{"session": 4321}]], [36, 78, 3, {}, ["after"]])
    while not plane.stats("waits"):
        plane.pump(0.02)
    end.send(cbor2.dumps([2, 4321, {}]))
    plane.wait(R.EV_MESSAGE, owner=token)
    check(client.recv(), [36, 77, 2, {}, [{"session": OTHER_SID}]])
    assert client.recv() == [36, 78, 3, {}, ["after"]]
