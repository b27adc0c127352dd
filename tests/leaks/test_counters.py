"""The data plane's own counters after connections that compressed: what they say was used is given back."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cbor2
import pytest

from kernel.harness import BINARY, HELLO, RSV1, Plane
from proxy import _relay as R

OWN = {"inflate_bits": 15, "deflate_bits": 15}
SMALL = {"inflate_bits": 9, "deflate_bits": 9, "mem_level": 1}
SHARED = OWN | {"inflate_reset": True, "deflate_reset": True}
ENDINGS = ("close", "reset", "half-close", "abort", "garbage", "bomb", "control-close")


@pytest.fixture
def plane() -> Iterator[Plane]:
    """A plane of one thread; idle, and ended in order."""
    plane = Plane()
    try:
        yield plane
        plane.close()
    except BaseException:
        plane.kill()
        raise


def packed(payload: bytes) -> bytes:
    """A compressed message."""
    out = zlib.compressobj(wbits=-9)
    return (out.compress(payload) + out.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMB = packed(bytes(2_000_000))


def talk(plane: Plane, client: Any, conn: int) -> None:
    """A compressed message each way."""
    client.send(packed(HELLO), BINARY | RSV1)
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO
    plane.relay.send(conn, cbor2.dumps([3, {"message": "x" * 500}, "wamp.error.x"]))
    opcode, data = client.recv_message()
    assert opcode & RSV1
    assert len(data) < 200
    plane.relay.next(conn)


def finish(plane: Plane, client: Any, conn: int, ending: str) -> None:
    """End a connection in one of many ways."""
    endings: dict[str, Callable[[], Any]] = {
        "close": client.close,
        "reset": client.reset,
        "half-close": client.half_close,
        "abort": lambda: plane.relay.abort(conn),
        "control-close": lambda: plane.relay.close(conn),
        "garbage": lambda: client.send(b"\x07\x07\x07", BINARY | RSV1),
        "bomb": lambda: client.send(BOMB, BINARY | RSV1),
    }
    endings[ending]()


@pytest.mark.parametrize(("agreed", "least", "most"), [(OWN, 250_000, 400_000), (SMALL, 4_000, 40_000)])
def test_windows_are_counted_and_given_back(agreed: dict[str, Any], least: int, most: int, plane: Plane) -> None:
    """zip_octets is what zlib takes for each connection, and nothing when all have ended, however they did."""
    listener = plane.listen("ws", max_message=100_000, close_ms=200)
    for _ in range(3):
        peers = [plane.join(listener, **agreed) for _ in ENDINGS]
        for client, conn in peers:
            talk(plane, client, conn)
        assert least * len(peers) < plane.stats("zip_octets") < most * len(peers)
        for ending, (client, conn) in zip(ENDINGS, peers, strict=True):
            finish(plane, client, conn, ending)
        for client, conn in peers:
            plane.closed(conn)
            client.close()
        plane.settle(zip_octets=0, connections=0)


def test_connections_without_a_window_share_one(plane: Plane) -> None:
    """Without context takeover the memory does not grow with the number of connections."""
    listener = plane.listen("ws", backlog=200)
    sizes = []
    for _ in range(3):
        peers = [plane.join(listener, **SHARED) for _ in range(20)]
        for client, conn in peers:
            talk(plane, client, conn)
        sizes.append(plane.stats("zip_octets"))
        for client, conn in peers:
            client.close()
            plane.closed(conn)
    assert max(sizes) < 20 * 40_000
    assert sizes[0] == sizes[1] == sizes[2]


def test_agreed_and_never_used(plane: Plane) -> None:
    """A connection that never sends or gets a compressed message leaves nothing either."""
    listener = plane.listen("ws")
    peers = [plane.join(listener, **OWN) for _ in range(20)]
    for client, conn in peers:
        client.close()
        plane.closed(conn)
    plane.settle(zip_octets=0, connections=0)


def test_session_ids_are_counted(plane: Plane) -> None:
    """session_ids counts what the map holds; an ID that was never mapped and one that is released twice do no harm."""
    realm = plane.relay.add_realm()
    listener, router = plane.listen("rs"), plane.router("rs")
    before = plane.stats("session_ids")
    sessions = []
    for number in range(10):
        client, front = plane.join(listener)
        token = plane.dial(front, router, realm=realm, front_sid=1000 + number)
        end, back = plane.accept_join(router, token, welcome=cbor2.dumps([2, 2000 + number, {}]))
        plane.relay.link(front, back, b"")
        sessions.append((client, end, front, back))
    assert plane.stats("session_ids") == before + 10
    for number in range(10):
        plane.relay.release_sid(realm, 1000 + number)
        plane.relay.release_sid(realm, 1000 + number)
        plane.relay.release_sid(realm, 5000 + number)
    assert plane.stats("session_ids") <= before + 10
    for client, end, front, back in sessions:
        client.close()
        plane.closed(front)
        plane.relay.abort(back)
        end.close()
        plane.closed(back)
