"""Every command in every phase: what fits is done, what does not fit does nothing, and nothing ever breaks."""

from __future__ import annotations

import errno
import random
import select
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from kernel.harness import GOODBYE, HELLO, REQUEST, UPGRADED, WELCOME, End, Gone, Listener, Plane, Router, call, result
from proxy import _relay as R


@dataclass
class Scene:
    """A connection in some phase, and somebody in JOIN whom it can be linked to."""

    plane: Plane
    conn: int
    end: End
    other: int  # a client in JOIN
    free: int  # a backend connection in JOIN that nobody has
    router: Router
    more: list[End] = field(default_factory=list)


def front_wait(plane: Plane) -> Scene:
    end = plane.connect(plane.listen("ws"))
    end.write(REQUEST)
    return scene(plane, plane.wait(R.EV_HEAD).conn, end)


def front_head_late(plane: Plane) -> Scene:
    end = plane.connect(plane.listen("ws", handshake_ms=20, close_ms=20_000))
    end.write(REQUEST[:10])
    return scene(plane, plane.wait(R.EV_VIOLATION).conn, end)


def front_join(plane: Plane, kind: str = "rs") -> Scene:
    end, conn = plane.join(plane.listen(kind))
    return scene(plane, conn, end)


def front_join_ws(plane: Plane) -> Scene:
    return front_join(plane, "ws")


def front_asked(plane: Plane) -> Scene:
    made = front_join(plane, "ws")
    made.end.send(HELLO)
    plane.wait(R.EV_MESSAGE, conn=made.conn)
    return made


def front_dialling(plane: Plane) -> Scene:
    made = front_asked(plane)
    plane.dial(made.conn, made.router)
    end = plane.accept(made.router)
    end.read(4) if end.kind == "rs" else end.read_head()  # what the handshake begins with has come; now it is quiet
    made.more.append(end)
    return made


def front_refused(plane: Plane) -> Scene:
    made = front_join(plane, "ws")
    made.end.send(b"\xff")
    plane.wait(R.EV_VIOLATION, conn=made.conn)
    return made


def linked(plane: Plane, side: str) -> Scene:
    session = plane.session("ws", "ws")
    made = scene(plane, session.front if side == "front" else session.back, session.client)
    if side == "back":
        made.end = session.router
    made.more += [session.router, session.client]
    return made


def front_linked(plane: Plane) -> Scene:
    return linked(plane, "front")


def back_linked(plane: Plane) -> Scene:
    return linked(plane, "back")


def front_leaving(plane: Plane) -> Scene:
    made = linked(plane, "front")
    made.end.send(GOODBYE)
    plane.wait(R.EV_CONTROL)
    return made


def unlinked(plane: Plane, side: str) -> Scene:
    made = linked(plane, side)
    plane.relay.unlink(made.conn)
    plane.settle(links=0)
    return made


def front_unlinked(plane: Plane) -> Scene:
    return unlinked(plane, "front")


def back_unlinked(plane: Plane) -> Scene:
    return unlinked(plane, "back")


def back_orphan(plane: Plane) -> Scene:
    session = plane.session("ws", "ws")
    session.client.close()
    plane.closed(session.front)
    return scene(plane, session.back, session.router)


def front_orphan(plane: Plane) -> Scene:
    session = plane.session("ws", "ws")
    session.router.reset()
    plane.closed(session.back)
    return scene(plane, session.front, session.client)


def echoing(plane: Plane) -> Scene:
    end, conn = plane.join(plane.listen("ws", any_opcode=True), 0)
    plane.relay.link_self(conn)
    return scene(plane, conn, end)


def back_wait(plane: Plane) -> Scene:
    _, front = plane.join(plane.listen("rs"))
    router = plane.router("ws")
    token = plane.dial(front, router)
    end = plane.accept(router)
    end.read_head()
    end.write(UPGRADED)
    return scene(plane, plane.wait(R.EV_HEAD, owner=token).conn, end)


def back_join(plane: Plane) -> Scene:
    _, front = plane.join(plane.listen("rs"))
    end, conn, _ = plane.back(front, plane.router("ws"))
    return scene(plane, conn, end)


def closing(plane: Plane) -> Scene:
    made = linked(plane, "front")
    plane.relay.close(made.conn, 1001, b"bye")
    return made


def lingering(plane: Plane) -> Scene:
    made = front_join(plane)
    plane.relay.close(made.conn)
    assert made.end.read_end() == "eof"
    return made


def gone(plane: Plane) -> Scene:
    made = linked(plane, "front")
    plane.relay.abort(made.conn)
    plane.closed(made.conn)
    return made


def never(plane: Plane) -> Scene:
    made = front_join(plane)
    made.conn ^= 0x5500000000
    return made


def scene(plane: Plane, conn: int, end: End) -> Scene:
    _, other = plane.join(plane.listen("rs"))
    router = plane.router("rs")
    _, free, _ = plane.back(0, router)
    return Scene(plane, conn, end, other, free, router)


def dial(s: Scene) -> None:
    s.plane.dial(s.conn, s.router)


COMMANDS: dict[str, Callable[[Scene], None]] = {
    "upgrade": lambda s: s.plane.relay.upgrade(s.conn, UPGRADED, R.SER_CBOR),
    "reply": lambda s: s.plane.relay.reply(s.conn, b"HTTP/1.1 400 Bad\r\n\r\n"),
    "send": lambda s: s.plane.relay.send(s.conn, b"\x80"),
    "next": lambda s: s.plane.relay.next(s.conn, 0),
    "dial": dial,
    "undial": lambda s: s.plane.relay.undial(s.conn),
    "link": lambda s: s.plane.relay.link(s.conn, s.free, WELCOME),
    "link-of-clients": lambda s: s.plane.relay.link(s.conn, s.other, WELCOME),
    "link-of-backs": lambda s: s.plane.relay.link(s.free, s.conn, WELCOME),
    "link-as-back": lambda s: s.plane.relay.link(s.other, s.conn, WELCOME),
    "link-with-itself": lambda s: s.plane.relay.link(s.conn, s.conn, b""),
    "link-self": lambda s: s.plane.relay.link_self(s.conn),
    "unlink": lambda s: s.plane.relay.unlink(s.conn),
    "close": lambda s: s.plane.relay.close(s.conn, 1000, b"x"),
    "abort": lambda s: s.plane.relay.abort(s.conn),
}
ENDINGS = {"close", "abort"}
JOIN = {"send", "next", "dial", "link", "link-self"} | ENDINGS
LINKED = {"send", "next", "unlink"} | ENDINGS
# What fits each phase; everything else does nothing.
FITS: dict[Callable[[Plane], Scene], set[str]] = {
    front_wait: {"upgrade", "reply"} | ENDINGS,
    front_head_late: {"reply"} | ENDINGS,
    front_join: JOIN,
    front_join_ws: JOIN,
    front_asked: JOIN,
    front_dialling: {"send", "next", "undial"} | ENDINGS,
    front_refused: JOIN - {"next"},
    front_linked: LINKED,
    back_linked: LINKED,
    front_leaving: LINKED,
    front_unlinked: JOIN,
    back_unlinked: {"send", "next", "link-as-back"} | ENDINGS,
    front_orphan: JOIN,
    back_orphan: {"send", "next", "link-as-back"} | ENDINGS,
    echoing: LINKED,
    back_wait: {"upgrade"} | ENDINGS,
    back_join: {"send", "next"} | ENDINGS,
    closing: {"abort"},
    lingering: {"abort"},
    # WELCOME is sent though the router is lost by now: the session ends in order, by the control plane
    gone: {"link-as-back"},
    never: {"link-as-back"},
}


def waiting(end: End) -> bytes:
    """What lies ready to be read; b"" also when the other side ended."""
    if end.sock.fileno() == -1:
        return b""
    if not select.select([end.sock], [], [], 0)[0]:
        return b"nothing"
    try:
        return end.sock.recv(1 << 16)
    except ConnectionResetError:
        return b""


def all_ends(s: Scene) -> list[End]:
    return [end for end in s.plane.ends if end.sock.fileno() != -1]


@pytest.mark.parametrize("phase", FITS, ids=lambda phase: phase.__name__)
def test_commands_that_do_not_fit_do_nothing(make_plane: Callable[..., Plane], phase: Callable[[Plane], Scene]) -> None:
    plane = make_plane()
    s = phase(plane)
    plane.barrier()
    for end in all_ends(s):
        waiting(end)
    quiet = {end: waiting(end) for end in all_ends(s)}
    events = len([event for event in plane.log if event.conn])
    before = {name: plane.stats(name) for name in ("links", "messages_to_back", "messages_to_front")}
    for name, command in COMMANDS.items():
        if name in FITS[phase]:
            continue
        command(s)
        plane.barrier()
        found = [event for event in plane.log if event.conn][events:]
        assert found == [], f"{name} was not ignored"
        assert {end: waiting(end) for end in all_ends(s)} == quiet, f"{name} was not ignored"
        assert {key: plane.stats(key) for key in before} == before, f"{name} was not ignored"


@pytest.mark.parametrize("phase", FITS, ids=lambda phase: phase.__name__)
def test_commands_that_fit_leave_order(make_plane: Callable[..., Plane], phase: Callable[[Plane], Scene]) -> None:
    """Each fitting command, followed by every other: the census at the end of each plane says the rest."""
    for name in sorted(FITS[phase]):
        plane = make_plane()
        s = phase(plane)
        COMMANDS[name](s)
        plane.barrier()
        for command in COMMANDS.values():
            command(s)
        plane.barrier()
        plane.close()


def test_a_dial_that_does_not_fit_is_told(plane: Plane) -> None:
    session = plane.session()
    router = plane.router()
    for front in (session.front, session.back, 0x7700000001):
        token = plane.dial(front, router)
        event = plane.wait(R.EV_CLOSED, owner=token)
        assert (event.conn, event.reason) == (0, "CLOSED_FRONT_GONE")


def test_a_dial_without_descriptors_is_told(plane: Plane) -> None:
    _, front = plane.join(plane.listen())
    token = plane.dial(front, plane.router(), address=b"\xff\x7f" + bytes(14))
    event = plane.wait(R.EV_CLOSED, owner=token)
    assert (event.reason, event.errno) == ("CLOSED_REFUSED", errno.EAFNOSUPPORT)


def test_link_across_loops_does_nothing(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(2)
    listener = plane.listen()
    joined = [plane.join(listener) for _ in range(6)]
    loops = {conn >> 56: conn for _, conn in joined}
    assert len(loops) == 2
    plane.relay.link(loops[0], loops[1], WELCOME)
    plane.barrier()
    assert plane.stats("links") == 0


def test_arguments_that_make_no_sense_are_refused(plane: Plane) -> None:
    with pytest.raises(ValueError, match="no such loop"):
        plane.relay.send(3 << 56 | 1, b"")
    with pytest.raises(ValueError, match="params"):
        plane.relay.listen(0, 1, 99, 0)
    with pytest.raises(ValueError, match="no listener"):
        plane.relay.unlisten(4242)
    with pytest.raises(ValueError, match="sockaddr"):
        plane.relay.dial(0, 1, plane.probe_params, 1, b"", b"", b"", 1, 1)
    with pytest.raises(ValueError, match="index"):
        plane.relay.run(1)
    with pytest.raises(RuntimeError, match="still run"):
        plane.relay.release()


class Storm:
    """Random commands at random connections while random peers do what they like."""

    def __init__(self, plane: Plane, seed: int) -> None:
        self.plane, self.rng = plane, random.Random(seed)
        short = {"hello_ms": 2000, "handshake_ms": 300, "close_ms": 50, "high_water": 3000, "low_water": 1000}
        self.listeners: list[Listener] = [plane.listen(kind, **short) for kind in ("rs", "ws")]
        self.routers = [plane.router(kind) for kind in ("rs", "ws")]
        for router in self.routers:
            router.sock.settimeout(0)
        self.ends: list[End] = []
        self.fronts: dict[int, int] = {}  # of tokens

    def conn(self) -> int:
        """Mostly somebody who lives, sometimes somebody who is gone."""
        named = sorted(self.plane.named)
        alive = [conn for conn in named if conn not in self.plane.ended]
        if alive and self.rng.random() < 0.9:
            return self.rng.choice(alive)
        return self.rng.choice(named) if named else 1

    def link(self) -> None:
        """Mostly a pair that belongs together, sometimes any two."""
        joined = [
            (self.fronts[event.owner], event.conn)
            for event in self.plane.log
            if event.kind == R.EV_MESSAGE and event.owner in self.fronts and event.conn not in self.plane.ended
        ]
        if joined and self.rng.random() < 0.8:
            front, back = self.rng.choice(joined)
        else:
            front, back = self.conn(), self.conn()
        self.plane.relay.link(front, back, self.rng.choice([b"", WELCOME]))

    def upgrade(self) -> None:
        """Mostly whoever waits for it."""
        waiting = [event.conn for event in self.plane.log if event.kind == R.EV_HEAD]
        conn = self.rng.choice(waiting) if waiting and self.rng.random() < 0.9 else self.conn()
        self.plane.relay.upgrade(conn, self.rng.choice([UPGRADED, b""]), R.SER_CBOR)

    def step(self) -> None:
        rng, relay = self.rng, self.plane.relay
        action = rng.randrange(24)
        if action < 3:
            end = self.plane.connect(rng.choice(self.listeners))
            end.sock.settimeout(0)
            self.ends.append(end)
            self.say(end, b"\x7f\xf3\0\0" if end.kind == "rs" else REQUEST)
            self.say(end, end.frame(HELLO))
        elif action < 6:
            self.accept(rng.choice(self.routers))
        elif action < 10 and self.ends:
            self.talk(rng.choice(self.ends))
        elif action == 10:
            self.upgrade()
        elif action == 11:
            relay.reply(self.conn(), b"HTTP/1.1 400 x\r\n\r\n")
        elif action == 12:
            relay.send(self.conn(), WELCOME * rng.randrange(100))
        elif action == 13:
            relay.next(self.conn(), rng.choice([-1, 0, 5]))
        elif action < 17:
            front = self.conn()
            token = self.plane.dial(
                front, rng.choice(self.routers), timeout_ms=500, join_ms=500, auto_fragment=rng.choice([0, 50])
            )
            self.fronts[token] = front
        elif action == 17:
            relay.undial(self.conn())
        elif action < 21:
            self.link()
        elif action == 21:
            rng.choice([relay.link_self, relay.unlink])(self.conn())
        elif rng.random() < 0.6:
            pass  # ends are made often enough by the peers
        elif action == 22:
            relay.close(self.conn(), 1000, b"r" * rng.randrange(150))
        else:
            relay.abort(self.conn())

    def accept(self, router: Router) -> None:
        try:
            end = router.accept()
        except BlockingIOError:
            return
        self.plane.ends.append(end)
        self.ends.append(end)
        end.sock.settimeout(0)
        self.say(end, UPGRADED if end.kind == "ws" else b"\x7f\xf3\0\0")
        self.say(end, end.frame(WELCOME))

    def say(self, end: End, data: bytes) -> None:
        try:
            end.sock.send(data)
        except OSError:
            pass

    def talk(self, end: End) -> None:
        rng = self.rng
        choice = rng.randrange(30)
        if choice < 20:
            make = call if end.client else result
            self.say(end, b"".join(end.frame(make(rng.randrange(3000), i)) for i in range(rng.randrange(1, 9))))
        elif choice == 20:
            self.say(end, rng.randbytes(rng.randrange(1, 40)))
        elif choice < 26:
            try:
                end.fill()
            except (OSError, Gone):
                pass
        elif choice == 26:
            self.say(end, end.frame(GOODBYE))
        elif choice == 27:
            self.say(end, end.frame(b"ping", 9))
        else:
            self.ends.remove(end)
            rng.choice([end.close, end.reset, end.half_close])()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_storm(make_plane: Callable[..., Plane], threads: int, seed: int) -> None:
    plane = make_plane(threads)
    storm = Storm(plane, seed)
    for _ in range(400):
        try:
            storm.step()
        except OSError:  # of a socket that this side has closed
            pass
        plane.pump(0)
    plane.barrier()
