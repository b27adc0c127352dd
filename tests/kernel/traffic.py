"""Run in a process of its own, with faults.c preloaded: random traffic that must arrive intact, seed after seed.

Arguments: the first seed and the number of seeds. Prints a line per seed and last what faults were made.
"""

from __future__ import annotations

import ctypes
import random
import sys
import tempfile
import threading
from pathlib import Path

from kernel.harness import GOODBYE, End, Plane, Session, call, result
from proxy import _relay as R

KINDS = ("short recv", "short send", "EINTR", "EAGAIN", "accept4", "epoll_wait", "connect")


class Pump(threading.Thread):
    """Writes messages at one end and reads those of the other."""

    def __init__(self, end: End, outgoing: list[bytes], incoming: list[bytes], rng: random.Random) -> None:
        super().__init__()
        self.end, self.outgoing, self.incoming, self.rng = end, outgoing, incoming, rng
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            octets = b"".join(self.cut(message) for message in self.outgoing)
            writer = threading.Thread(target=self.end.write, args=(octets,))
            writer.start()
            for expected in self.incoming:
                assert self.end.recv() == expected, "a message did not arrive as it was sent"
            writer.join()
        except BaseException as error:
            self.error = error

    def cut(self, message: bytes) -> bytes:
        """One message, in WebSocket sometimes in pieces."""
        if self.end.kind == "rs" or self.rng.random() < 0.7:
            return self.end.frame(message)
        cuts = [self.rng.randrange(1 + len(message) // 2) for _ in range(self.rng.randrange(1, 4))]
        return b"".join(self.end.fragments(message, cuts))


def sizes(rng: random.Random) -> list[int]:
    """Many small ones, few large ones."""
    return [rng.choice([0, 20, 200, 3000, rng.randrange(70_000)]) for _ in range(rng.randrange(5, 30))] + [200_000]


def exchange(sessions: list[Session], rng: random.Random) -> None:
    """Messages both ways through all sessions at once."""
    pumps = []
    for session in sessions:
        there = [call(size, i) for i, size in enumerate(sizes(rng))]
        back = [result(size, i) for i, size in enumerate(sizes(rng))]
        pumps.append(Pump(session.client, there, back, random.Random(rng.random())))
        pumps.append(Pump(session.router, back, there, random.Random(rng.random())))
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
        if pump.error is not None:
            raise pump.error


def leave(plane: Plane, session: Session, rng: random.Random) -> None:
    """End a session in one of many ways."""
    how = rng.randrange(5)
    if how == 0:
        session.client.send(GOODBYE)
        assert plane.wait(R.EV_CONTROL, conn=session.front).data == GOODBYE
        plane.relay.send(session.back, GOODBYE)
        assert session.router.recv() == GOODBYE
        plane.relay.close(session.back)
        plane.relay.close(session.front)
    elif how == 1:
        session.router.close()
        plane.closed(session.back)
        plane.relay.close(session.front)
    elif how == 2:
        session.client.reset()
        plane.closed(session.front)
        plane.relay.close(session.back)
    elif how == 3:
        plane.relay.close(session.front)
    session.client.close()
    session.router.close()


def run(seed: int, folder: Path) -> None:
    """One round with its own luck."""
    rng = random.Random(seed)
    plane = Plane(rng.choice([1, 2]))
    options = {"high_water": rng.choice([2000, 20_000, 262_144]), "low_water": 1000, "close_ms": 200}
    options["auto_fragment"] = rng.choice([0, 0, 0, 1000])
    try:
        sessions = []
        for i, (front, back) in enumerate((f, b) for f in ("rs", "ws") for b in ("rs", "ws")):
            listener = plane.listen(front, path=str(folder / f"l{seed}.{i}") if rng.random() < 0.5 else None, **options)
            router = plane.router(back, path=str(folder / f"r{seed}.{i}") if rng.random() < 0.5 else None)
            sessions.append(plane.session(listener=listener, router=router, back=options))
        exchange(sessions, rng)
        for session in sessions:
            leave(plane, session, rng)
        plane.close()
    except BaseException:
        plane.kill()
        raise


def main() -> None:
    """Rounds, then what faults there were."""
    shim = ctypes.CDLL(None)
    shim.faults_count.restype = ctypes.c_uint64
    first, count = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            shim.faults_seed(seed)
            print("seed", seed, flush=True)
            run(seed, Path(folder))
    print("faults", {name: shim.faults_count(kind) for kind, name in enumerate(KINDS)})


main()
