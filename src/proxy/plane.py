"""The control plane's end of the data plane: commands out, events in. Nothing else imports ``proxy._relay``.

Threads: every method here runs in the reactor thread. The data threads only run ``Relay.run()``.
"""

import fcntl
import itertools
import logging
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy import _relay
from proxy._relay import (
    CLOSED_DEADLINE,
    CLOSED_FRONT_GONE,
    CLOSED_LOCAL,
    CLOSED_NOMEM,
    CLOSED_PEER,
    CLOSED_PING,
    CLOSED_PROTOCOL,
    CLOSED_REFUSED,
    CLOSED_RESET,
    CLOSED_STALL,
    CLOSED_TLS,
    CLOSED_TOO_BIG,
    CODEC_RS,
    CODEC_WS,
    EV_CLOSED,
    EV_CONTROL,
    EV_HEAD,
    EV_LISTEN,
    EV_MESSAGE,
    EV_OPEN,
    EV_RAW,
    EV_REFUSED,
    EV_VIOLATION,
    HANDSHAKE_DROPPED,
    LISTEN_CLOSED,
    LISTEN_FULL,
    LISTEN_PAUSED,
    LISTEN_RESUMED,
    NOTE_DEAD_CALL,
    NOTE_DEAD_INVOCATION,
    ST_AMBIGUOUS,
    ST_DEADLINE,
    ST_DEPTH,
    ST_FORBIDDEN,
    ST_MALFORMED,
    ST_TOO_BIG,
    ST_TRAILING,
    ST_TRUNCATED,
    ST_UNTRANSLATABLE,
    pack_networks,
    unpack_sockaddr,
)
from proxy.addresses import Address

__all__ = [
    "CLOSED_DEADLINE",
    "CLOSED_FRONT_GONE",
    "CLOSED_LOCAL",
    "CLOSED_NOMEM",
    "CLOSED_PEER",
    "CLOSED_PING",
    "CLOSED_PROTOCOL",
    "CLOSED_REFUSED",
    "CLOSED_RESET",
    "CLOSED_STALL",
    "CLOSED_TLS",
    "CLOSED_TOO_BIG",
    "CODEC_RS",
    "CODEC_WS",
    "EV_CLOSED",
    "EV_CONTROL",
    "EV_HEAD",
    "EV_LISTEN",
    "EV_MESSAGE",
    "EV_OPEN",
    "EV_RAW",
    "EV_REFUSED",
    "EV_VIOLATION",
    "HANDSHAKE_DROPPED",
    "LISTEN_CLOSED",
    "LISTEN_FULL",
    "LISTEN_PAUSED",
    "LISTEN_RESUMED",
    "NOTE_DEAD_CALL",
    "NOTE_DEAD_INVOCATION",
    "ST_DEADLINE",
    "ST_TOO_BIG",
    "ST_UNTRANSLATABLE",
    "THREADS_MAX",
    "DataPlane",
    "Owner",
    "Plane",
    "closed_text",
    "pack_address",
    "pack_networks",
    "peer_text",
    "unpack_sockaddr",
    "violation_text",
]

log = logging.getLogger(__name__)

# What a status of EV_VIOLATION means for a WAMP message; for an HTTP head see sessions.head_error().
_VIOLATION_TEXT: Final[dict[int, str]] = {
    ST_TOO_BIG: "the message is larger than the other side takes",
    ST_MALFORMED: "the message is not well-formed",
    ST_TRUNCATED: "the message is cut short",
    ST_TRAILING: "octets follow the message",
    ST_DEPTH: "the message is nested too deeply",
    ST_AMBIGUOUS: "the message type is not encoded in the plain way",
    ST_FORBIDDEN: "this message type is not allowed here",
}

# The most data threads that a Relay has (LOOPS_MAX).
THREADS_MAX: Final = 64

# Events handled per turn of the reactor; more would let a flood of logins starve timers and signals.
EVENT_BATCH: Final = 256
# New connections that are begun with in a turn. A client that is further along goes first, so that a storm of logins is
# worked off one client after the other: at an even rate, with little in memory of any, and not all of them at the end.
NEW_BATCH: Final = 16
# New connections that wait here. When there are more, events stay in the data plane, which then accepts no more.
NEW_MAX: Final = 16_384
# Events looked at per turn, for those to be found that go first.
DRAIN_MAX: Final = 4096

# Events whose commands are gathered, so that the data plane is not woken for each of them.
COMMANDS_OF: Final = 8

# Descriptors that the kernel is to have room for: 1 MiB of its memory. Further ones make it wait, see below.
DESCRIPTORS_MAX: Final = 131_072

# A data thread returns from run() within one turn of its loop; longer means that it hangs.
THREAD_JOIN_TIMEOUT: Final = 5.0

_CLOSED_TEXT: Final[dict[int, str]] = {
    CLOSED_PEER: "closed by the peer",
    CLOSED_LOCAL: "closed by the proxy",
    CLOSED_RESET: "connection reset",
    CLOSED_DEADLINE: "timed out",
    CLOSED_STALL: "the peer stopped reading",
    CLOSED_PING: "the peer did not answer a ping",
    CLOSED_PROTOCOL: "framing or handshake error of the peer",
    CLOSED_TOO_BIG: "message over the size limit",
    CLOSED_REFUSED: "refused",
    CLOSED_NOMEM: "out of memory",
    CLOSED_FRONT_GONE: "the client is gone",
    CLOSED_TLS: "TLS failed",
}


def closed_text(arg: int) -> str:
    """What EV_CLOSED's ``arg`` says, for people."""
    return _CLOSED_TEXT.get(arg & 0xFF, f"reason {arg & 0xFF}")


def violation_text(status: int, data: bytes) -> str:
    """What EV_VIOLATION says, for people: the data plane's own text, or what the status means."""
    return data.decode("utf-8", "replace") or _VIOLATION_TEXT.get(status, f"status {status}")


def pack_address(address: Address) -> bytes:
    """The ``struct sockaddr_*`` octets of an address, as dial() wants them.

    :raises ValueError: not an IP literal, or a path that is too long.
    """
    if address.path is not None:
        return _relay.pack_unix(address.path)
    return _relay.pack_sockaddr(address.host, address.port)


def peer_text(sockaddr: bytes) -> str:
    """The peer as Crossbar.io names it: ``tcp4:127.0.0.1:52914``, ``tcp6:::1:52914`` or ``unix``."""
    peer = unpack_sockaddr(sockaddr)
    if isinstance(peer, str):
        return f"unix:{peer}" if peer else "unix"
    host, port = peer
    return f"tcp6:{host}:{port}" if ":" in host else f"tcp4:{host}:{port}"


@runtime_checkable
class Owner(Protocol):
    """Who gets the events of a listener or of a dialled connection."""

    def on_event(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """One event; see ``_relay.pyi`` for what the arguments mean."""

    def on_crash(self, conn: int) -> None:
        """on_event() raised (it is logged already): give up the session that ``conn`` belongs to."""


# kind, connection, number of the owner, arg, data
_Event: TypeAlias = tuple[int, int, int, int, bytes]


class Plane(Protocol):
    """What sessions need of the data plane; the tests have a second one."""

    def add_owner(self, owner: Owner) -> int: ...
    def drop_owner(self, number: int) -> None: ...
    @property
    def is_idle(self) -> bool: ...

    @property
    def upgrade(self) -> Callable[..., None]: ...
    @property
    def reply(self) -> Callable[[int, bytes], None]: ...
    @property
    def send(self) -> Callable[[int, bytes], None]: ...
    @property
    def next(self) -> Callable[..., None]: ...
    @property
    def dial(self) -> Callable[[int, int, int, int, bytes, bytes, bytes, int, int, int, int], None]: ...
    @property
    def undial(self) -> Callable[[int], None]: ...
    @property
    def link(self) -> Callable[[int, int, bytes], None]: ...
    @property
    def link_self(self) -> Callable[[int], None]: ...
    @property
    def unlink(self) -> Callable[[int], None]: ...
    @property
    def swallow(self) -> Callable[[int, int, int], None]: ...
    @property
    def release_sid(self) -> Callable[[int, int], None]: ...
    @property
    def tunnel(self) -> Callable[[int, int], None]: ...
    @property
    def close(self) -> Callable[..., None]: ...
    @property
    def abort(self) -> Callable[[int], None]: ...
    @property
    def listen(self) -> Callable[[int, int, int, int], None]: ...
    @property
    def unlisten(self) -> Callable[[int], None]: ...
    @property
    def adopt(self) -> Callable[..., None]: ...
    @property
    def replace_tls(self) -> Callable[..., None]: ...

    on_idle: Callable[[], None] | None
    """Called when the last owner has been dropped."""

    def add_params(self, **options: Any) -> int: ...
    def add_realm(self, name: str) -> int: ...
    def add_tls(self, **options: Any) -> int: ...
    def drop_tls(self, number: int) -> None: ...


def _make_room_for_descriptors() -> None:
    """Have the kernel make this process's table of descriptors as large as it may become.

    It doubles the table when that is full, and waits some ten milliseconds for other threads each time: long enough for
    all sessions to feel it whenever many clients come. As long as there is one thread, it does not wait.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    number = DESCRIPTORS_MAX if limit == resource.RLIM_INFINITY else min(limit, DESCRIPTORS_MAX)
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        try:
            os.close(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, number - 1))
        finally:
            os.close(descriptor)
    except OSError as error:
        log.debug("the table of descriptors stays as it is: %s", error)


@implementer(IReadDescriptor)
class DataPlane:
    """Owns the Relay and its threads and hands its events to their owners.

    :param reactor: a running or soon running Twisted reactor (IReactorFDSet and IReactorTime).
    :param threads: number of data threads.

    :ivar is_broken: a data thread died; the reactor has been stopped.
    """

    def __init__(self, reactor: Any, threads: int) -> None:
        self._reactor = reactor
        self._relay = relay = _relay.Relay(threads)
        self._owners: dict[int, Owner] = {}
        self._numbers = itertools.count(1)
        self._params: dict[tuple[tuple[str, Any], ...], int] = {}
        self._realms: dict[str, int] = {}
        self._free_tls: list[int] = []
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._listeners: set[int] = set()
        # What clients' connections have said that nobody has begun with, by connection, in the order they came.
        self._new: OrderedDict[int, list[_Event]] = OrderedDict()
        self._next_turn: Any = None
        self.is_broken = False
        # Called when the last owner has gone: no listener, no client, no router connection is left.
        self.on_idle: Callable[[], None] | None = None
        # The commands as they are: a wrapper around each would cost more than most of them do.
        self.upgrade = relay.upgrade
        self.reply = relay.reply
        self.tunnel = relay.tunnel
        self.adopt = relay.adopt
        self.replace_tls = relay.replace_tls
        self.send = relay.send
        self.next = relay.next
        self.dial = relay.dial
        self.undial = relay.undial
        self.link = relay.link
        self.link_self = relay.link_self
        self.unlink = relay.unlink
        self.swallow = relay.swallow
        self.release_sid = relay.release_sid
        self.close = relay.close
        self.abort = relay.abort
        self.unlisten = relay.unlisten
        self.stats = relay.stats

    @property
    def threads(self) -> int:
        """Number of data threads."""
        return self._relay.threads

    def start(self) -> None:
        """Start the data threads and read their events from now on."""
        _make_room_for_descriptors()
        for index in range(self._relay.threads):
            thread = threading.Thread(target=self._run, args=(index,), name=f"relay-{index}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._reactor.addReader(self)

    def _run(self, index: int) -> None:
        try:
            self._relay.run(index)
        except BaseException:
            failure = Failure()
            self._reactor.callFromThread(self._thread_died, index, failure)

    def _thread_died(self, index: int, failure: Failure) -> None:
        log.critical("data thread %d died\n%s", index, failure.getTraceback())
        self.is_broken = True
        if not self._stopped:
            self._reactor.stop()

    def stop(self) -> None:
        """Close everything at once and end the threads. Idempotent; no event comes after it."""
        if self._stopped:
            return
        self._stopped = True
        self._new.clear()
        timer, self._next_turn = self._next_turn, None
        if timer is not None:
            timer.cancel()
        self._reactor.removeReader(self)
        self._relay.stop()
        for thread in self._threads:
            thread.join(THREAD_JOIN_TIMEOUT)
        if any(thread.is_alive() for thread in self._threads):
            # Its memory is still in use: better to leave it to the end of the process than to free it.
            log.error("a data thread did not end within %s s", THREAD_JOIN_TIMEOUT)
            return
        self._relay.release()
        self._owners.clear()

    # --- who gets what ---

    @property
    def is_idle(self) -> bool:
        """Whether nobody owns anything here."""
        return not self._owners

    def add_owner(self, owner: Owner) -> int:
        """A number for listen() or dial(), whose events go to ``owner``; never used twice."""
        number = next(self._numbers)
        self._owners[number] = owner
        return number

    def listen(self, fd: int, number: int, params: int, max_connections: int) -> None:
        """As ``Relay.listen()``."""
        self._listeners.add(number)
        self._relay.listen(fd, number, params, max_connections)

    def drop_owner(self, number: int) -> None:
        """Forget an owner whose last event has come. No error if it is forgotten already."""
        self._listeners.discard(number)
        if self._owners.pop(number, None) is not None and not self._owners and self.on_idle is not None:
            self.on_idle()

    def add_params(self, **options: Any) -> int:
        """As ``Relay.add_params()``, but equal options share one number, so that restarts do not pile them up."""
        key = tuple(sorted(options.items()))
        number = self._params.get(key)
        if number is None:
            number = self._params[key] = self._relay.add_params(**options)
        return number

    def add_tls(self, **options: Any) -> int:
        """As ``Relay.add_tls()``, but numbers that were dropped are given again, so that restarts do not pile them up.

        :raises ValueError: something cannot be used.
        """
        if not self._free_tls:
            return self._relay.add_tls(**options)
        number = self._free_tls[-1]
        self._relay.replace_tls(number, **options)
        return self._free_tls.pop()

    def drop_tls(self, number: int) -> None:
        """As ``Relay.drop_tls()``. Whoever dropped it has made sure that no connection will ask for it any more."""
        self._relay.drop_tls(number)
        self._free_tls.append(number)

    def add_realm(self, name: str) -> int:
        """The number under which the data plane knows a realm's session IDs: one for each name, for good.

        All connections that the routes of a realm name serve that one realm, and a session may come by any of them, so
        that a number for each connection would part sessions that see each other.

        :raises RuntimeError: there are as many realms as the data plane can have.
        """
        number = self._realms.get(name)
        if number is None:
            number = self._realms[name] = self._relay.add_realm()
        return number

    # --- IReadDescriptor ---

    def fileno(self) -> int:
        """The eventfd."""
        return self._relay.event_fd

    def logPrefix(self) -> str:
        """Name for Twisted's own messages."""
        return "relay"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going down; stop() does the work."""

    def doRead(self) -> None:
        """Hand out a turn's events: those of connections that are known first, then some of the new connections'.

        drain() has us called again when there are more.
        """
        if self._stopped:
            return
        drained = handed = 0
        while handed < EVENT_BATCH and drained < DRAIN_MAX and len(self._new) < NEW_MAX:
            events = self._relay.drain(EVENT_BATCH)
            known = [event for event in events if event[2] not in self._listeners or not self._put_off(event)]
            self._hand_out_all(known)
            handed += len(known)
            drained += len(events)
            if len(events) < EVENT_BATCH:
                break
        if self._new:
            begun = [self._new.popitem(last=False)[1] for _ in range(min(NEW_BATCH, len(self._new)))]
            self._hand_out_all([event for waiting in begun for event in waiting])
        if self._new and self._next_turn is None:
            self._next_turn = self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._next_turn = None
        self.doRead()

    def _put_off(self, event: _Event) -> bool:
        """Whether an event of a client waits until somebody begins with its connection."""
        kind, conn = event[:2]
        waiting = self._new.get(conn)
        if waiting is None:
            if kind not in (EV_HEAD, EV_OPEN, EV_RAW):
                return False
            self._new[conn] = [event]
        elif kind == EV_CLOSED:
            del self._new[conn]  # gone again, before anybody looked
            return False
        else:
            waiting.append(event)
        return True

    def _hand_out_all(self, events: list[_Event]) -> None:
        """Hand events out, a few at a time, and have the data plane woken once for what comes of those."""
        for start in range(0, len(events), COMMANDS_OF):
            self._relay.hold()
            try:
                for event in events[start : start + COMMANDS_OF]:
                    self._hand_out(event)
            finally:
                self._relay.let_go()

    def _hand_out(self, event: _Event) -> None:
        kind, conn, number, arg, data = event
        owner = self._owners.get(number)
        if owner is None:
            if kind != EV_CLOSED and conn:
                self.abort(conn)
            return
        try:
            owner.on_event(kind, conn, arg, data)
        except Exception:
            log.exception("error while handling an event of connection %d; its session is given up", conn)
            self._give_up(owner, conn)

    def _give_up(self, owner: Owner, conn: int) -> None:
        try:
            owner.on_crash(conn)
        except Exception:
            log.exception("error while giving up the session of connection %d", conn)
        if conn:
            self.abort(conn)
