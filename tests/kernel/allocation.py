"""Run in a process of its own, with a debug build: every single allocation of a session's life fails once.

Argument: "front-back" framings, or "messages" for those that are not relayed as they are. Prints a line per failed
allocation, so that a crash shows where it was.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from typing import Any

from kernel import allocation_messages, harness
from kernel.harness import CLOSE, GOODBYE, WELCOME, End, Event, Gone, Plane, Router, call, result
from proxy import _relay as R

harness.TIMEOUT = 8.0
SMALL = {"high_water": 20_000, "low_water": 10_000, "close_ms": 100, "hello_ms": 0, "handshake_ms": 3000}
ENOUGH = 12  # runs without a visible failure in a row: the scenario has no allocation with that number


class Ended(Exception):
    """The session ended early, as it may."""


class ShortPlane(Plane):
    """Notices at once when a connection ends that was not expected to."""

    expected = False
    refuses = False  # messages that cannot be translated are expected
    patience = 0.05

    def pump(self, seconds: float) -> None:
        before = len(self.log)
        super().pump(seconds)
        if self.expected:
            return
        for event in self.log[before:]:
            if event.kind in (R.EV_CLOSED, R.EV_VIOLATION):
                raise Ended(event)
            if event.kind == R.EV_REFUSED and not self.refuses:
                raise Ended(event)
        for end in self.ends:  # connections that end before they have a name
            try:
                if select.select([end.sock], [], [], 0)[0] and not end.sock.recv(1, socket.MSG_PEEK):
                    raise Ended("end of stream")
            except ConnectionResetError:
                raise Ended("reset") from None

    def wait(self, kind: int, **what: Any) -> Event:
        self.pump(0)
        return super().wait(kind, **what)

    def accept(self, router: Router) -> End:
        self.await_readable(router.sock)
        return super().accept(router)

    def await_readable(self, sock: socket.socket) -> None:
        """Wait for one socket and heed all the others."""
        deadline = time.monotonic() + harness.TIMEOUT
        while not select.select([sock], [], [], 0)[0]:
            assert time.monotonic() < deadline, "a peer waits for ever"
            select.select([sock, self.relay.event_fd], [], [], 0.1)
            self.pump(0)


class HeedfulEnd(End):
    """Reads without forgetting the rest of the world."""

    plane: ShortPlane

    def fill(self) -> None:
        self.plane.await_readable(self.sock)
        super().fill()


def scenario(plane: ShortPlane, front: str, back: str, first: int) -> None:
    """Login, link, traffic with back-pressure, goodbye, close."""
    listener, router = plane.listen(front, **SMALL), plane.router(back)
    R.probe_fail_allocation(first)
    session = plane.session(listener=listener, router=router, back={**SMALL, "auto_fragment": 5000})
    for size in (10, 3000, 40_000, 300_000):
        session.client.send(call(size))
        assert session.router.recv() == call(size)
        session.router.send(result(size))
        assert session.client.recv() == result(size)
    for i in range(20):
        session.router.send(result(20_000, i))
    for i in range(20):
        assert session.client.recv() == result(20_000, i)
    session.client.send(GOODBYE)
    assert plane.wait(R.EV_CONTROL, conn=session.front).data == GOODBYE
    plane.relay.unlink(session.front)
    plane.relay.send(session.front, WELCOME)
    assert session.client.recv() == WELCOME
    plane.expected = True
    if front == "ws":
        session.client.write(session.client.frame(b"\x03\xe8with a reason", CLOSE))
    session.client.half_close()
    plane.relay.next(session.front)
    plane.closed(session.front)
    plane.relay.close(session.back, 1000, b"reason")
    session.router.close()
    plane.closed(session.back)


def attempt(n: int, front: str, back: str) -> str:
    """One run in which allocation n fails; how it went."""
    plane = HeedfulEnd.plane = ShortPlane()
    how = "whole"
    try:
        if front == "messages":
            allocation_messages.scenario(plane, SMALL, n, Ended)
        else:
            scenario(plane, front, back, n)
    except (Ended, Gone, MemoryError) as error:
        how = repr(error)
    except BrokenPipeError as error:
        how = repr(error)
    except BaseException:
        R.probe_fail_allocation(-1)
        plane.kill()
        raise
    R.probe_fail_allocation(-1)
    plane.expected = True
    plane.close()
    return how


def constructor() -> None:
    """Making a Relay fails at every step and leaves nothing."""
    before = len(os.listdir("/proc/self/fd"))
    for n in range(60):
        relay = None
        R.probe_fail_allocation(n)
        try:
            relay = R.Relay(3)
            relay.add_params(kind=R.CODEC_RS)
        except MemoryError:
            pass
        R.probe_fail_allocation(-1)
        if relay is not None:
            relay.release()
        assert len(os.listdir("/proc/self/fd")) == before


def main() -> None:
    """All allocations of one pair of framings."""
    harness.End = HeedfulEnd  # type: ignore[misc]
    constructor()
    front, _, back = sys.argv[1].partition("-")
    n, whole, seen = 0, 0, 0
    while whole < ENOUGH:
        print("allocation", n, end=": ", flush=True)
        how = attempt(n, front, back)
        print(how, flush=True)
        whole = whole + 1 if how == "whole" else 0
        seen += how != "whole"
        n += 1
    print("ended early", seen)


main()
