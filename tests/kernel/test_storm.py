"""Linked sessions under load that end in every way at once; what must hold is checked by the harness and the census."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kernel.harness import (
    GOODBYE,
    PING,
    End,
    Gone,
    Plane,
    Session,
    call,
    result,
)  # fmt: skip

BOUNDS = {"high_water": 30_000, "low_water": 5000, "close_ms": 100}
LISTENERS: dict[str, dict[str, Any]] = {
    "rs": BOUNDS,
    "ws": {**BOUNDS, "ping_interval_ms": 30, "ping_timeout_ms": 500},
    "ws in fragments": {"auto_fragment": 100, "close_ms": 100},
}
SIZES = [1, 200, 1500, 70_000]


class Peer(threading.Thread):
    """A client or router that talks a lot, never reads, and ends somehow. Nobody else touches its socket."""

    def __init__(self, end: End, seed: int) -> None:
        super().__init__()
        self.end, self.rng = end, random.Random(seed)
        end.sock.settimeout(0.05)  # a blocked one gives up, in the middle of a frame

    def run(self) -> None:
        message = (call if self.end.client else result)(self.rng.choice(SIZES))
        try:
            for _ in range(self.rng.randrange(1, 150)):
                self.say(message)
        except (Gone, OSError):
            pass
        try:
            self.rng.choice([self.end.close, self.end.reset, self.end.half_close, lambda: None])()
        except OSError:  # the other side ended first
            pass

    def say(self, message: bytes) -> None:
        """Mostly the message, at times in fragments with pings between them; seldom a GOODBYE or garbage."""
        end, rng = self.end, self.rng
        choice = rng.random()
        if choice < 0.1:
            end.send(rng.randbytes(rng.randrange(126)), PING)
        elif choice < 0.2 and end.kind == "ws":
            for frame in end.fragments(message, [1, 2, 3]):
                end.write(frame + end.frame(b"p", PING))
        elif choice < 0.21:
            end.send(GOODBYE)
        elif choice > 0.995:
            end.write(rng.randbytes(20))
        else:
            end.send(message)


def command(plane: Plane, session: Session, rng: random.Random) -> None:
    """What the control plane might do with a session, at any moment."""
    relay, conn = plane.relay, rng.choice([session.front, session.back])
    rng.choice(
        [
            lambda: relay.unlink(session.front),
            lambda: relay.link(session.front, session.back, b""),
            lambda: relay.undial(session.front),
            lambda: relay.next(conn),
            lambda: relay.send(conn, GOODBYE),
            lambda: relay.close(conn),
            lambda: relay.abort(conn),
            lambda: plane.pump(0.001),
            lambda: plane.pump(0.01),
        ]
    )()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_sessions_end_in_every_way(make_plane: Callable[..., Plane], threads: int, seed: int) -> None:
    """After all of that nothing is left, and the next client is served as if nothing had been."""
    plane, rng = make_plane(threads), random.Random(seed)
    listeners = [plane.listen(name[:2], **params) for name, params in LISTENERS.items()]
    routers = [plane.router(kind) for kind in ("rs", "ws")]
    for _ in range(6):
        sessions = [
            plane.session(listener=rng.choice(listeners), router=rng.choice(routers), back=BOUNDS)
            for _ in range(rng.randrange(1, 5))
        ]
        peers = [Peer(end, rng.randrange(1 << 30)) for session in sessions for end in (session.client, session.router)]
        for peer in peers:
            peer.start()
        for session in sessions:
            for _ in range(rng.randrange(6)):
                command(plane, session, rng)
        for peer in peers:
            peer.join()
        for session in sessions:
            for conn in (session.front, session.back):
                plane.relay.abort(conn)
        plane.settle(connections=0, links=0)
        for end in plane.ends:
            end.close()
        plane.ends.clear()
    session = plane.session(listener=listeners[0], router=routers[0])
    session.client.send(call())
    assert session.router.recv() == call()
