"""Sending sessions away at a pace that routers and clients can bear: GOODBYE to so many per second."""

import logging
import math
import random
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from proxy.connections import ProxyConnection
from proxy.errors import AlreadyRunning, InvalidArgument, NotRunning
from proxy.management.arguments import check_message, check_reason
from proxy.management.procedures import Caller, procedure
from proxy.registry import Registry
from proxy.session_states import SYSTEM_SHUTDOWN
from proxy.worker import WorkerController

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["Drain", "DrainProcedures", "Drains", "Leaving", "Pace", "send_away"]

log = logging.getLogger(__name__)

RATE_DEFAULT: Final = 50.0
RATE_MAX: Final = 100_000.0
JITTER_DEFAULT: Final = 0.2

# Pauses shorter than this are left out and made up for in the next turn: timers are no finer, and cost something.
TURN_MIN: Final = 0.01
# Sessions that are told per turn of the reactor.
BATCH: Final = 500
# How much of what was missed while the reactor was busy is made up for, seconds.
BACKLOG_MAX: Final = 0.1
# Between events that tell of the progress, seconds.
PROGRESS_INTERVAL: Final = 1.0

Kind = Literal["transport", "connection", "route"]

_random = random.Random()  # noqa: S311 - nobody gains by guessing it


class Leaving(Protocol):
    """A session that can be sent away."""

    @property
    def is_joined(self) -> bool: ...
    @property
    def front_sid(self) -> int: ...
    def dismiss(self, reason: str, message: str | None = None) -> None: ...
    def crashed(self) -> None: ...


def send_away(session: Leaving, reason: str, message: str | None = None) -> None:
    """End a session; if that goes wrong, it is cut off, and the others do not suffer."""
    try:
        session.dismiss(reason, message)
    except Exception:
        log.exception("error while session %d was sent away; it is given up", session.front_sid)
        session.crashed()


class Pace:
    """How sessions are sent away.

    :param rate: sessions per second.
    :param jitter: share of each pause that is drawn at random, 0 to 1, so that they do not come back in step.
    :param reason: URI of the GOODBYE to client and router.
    :param message: text for people in it; None: none.
    :raises InvalidArgument: one of them cannot be used.
    """

    __slots__ = ("jitter", "message", "rate", "reason")

    def __init__(
        self,
        rate: float = RATE_DEFAULT,
        jitter: float = JITTER_DEFAULT,
        reason: str = SYSTEM_SHUTDOWN,
        message: str | None = None,
    ) -> None:
        if not math.isfinite(rate) or not 0 < rate <= RATE_MAX:
            raise InvalidArgument(f"rate: {rate!r}: expected sessions per second, over 0 to {RATE_MAX:.0f}")
        if not math.isfinite(jitter) or not 0 <= jitter <= 1:
            raise InvalidArgument(f"jitter: {jitter!r}: expected a share of the pause, 0 to 1")
        self.rate = float(rate)
        self.jitter = float(jitter)
        self.reason = check_reason(reason)
        self.message = check_message(message)

    def pause(self) -> float:
        """Seconds between one session and the next one."""
        return _random.uniform(1 - self.jitter, 1 + self.jitter) / self.rate


class Drain:
    """One drain under way. It tells of itself: ``on_proxy_<kind>_draining`` and, once, ``on_proxy_<kind>_drained``.

    :param drains: where it is to be forgotten when it is over.
    :param kind: of what it drains.
    :param names: what events call that: its ``id``, of a route its ``realm``, too.
    :param sessions: those that are there now; others that come later are not concerned.
    """

    def __init__(
        self, drains: "Drains", kind: Kind, names: dict[str, str], sessions: Iterable[Leaving], pace: Pace
    ) -> None:
        self.pace = pace
        self._drains = drains
        self._kind: Kind = kind
        self._names = names
        self._reactor = drains.reactor
        # Their IDs, too: on the same connection another session may follow.
        self._waiting = deque((session, session.front_sid) for session in sessions)
        self._total = len(self._waiting)
        self._next = self._reactor.seconds()
        self._told = -math.inf
        self._timer: Any = None  # IDelayedCall

    def marshal(self) -> dict[str, Any]:
        """What the management API shows: id, total, ended, remaining, rate, reason.

        ``ended`` are those that were sent away, and those that left by themselves in the meantime.
        """
        remaining = len(self._waiting)
        return {
            **self._names,
            "total": self._total,
            "ended": self._total - remaining,
            "remaining": remaining,
            "rate": self.pace.rate,
            "reason": self.pace.reason,
        }

    def start(self) -> None:
        """Begin, in the next turn of the reactor."""
        self._skip_gone()
        self._tell()
        self._timer = self._reactor.callLater(0, self._turn)

    def cancel(self) -> None:
        """Leave the sessions that are still there alone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._skip_gone()
            self._end(cancelled=True)

    def _skip_gone(self) -> None:
        """Forget about those that left by themselves. Only at the head: the others are seen when it is their turn."""
        waiting = self._waiting
        while waiting and not _is_there(*waiting[0]):
            waiting.popleft()

    def _turn(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        self._next = max(self._next, now - BACKLOG_MAX)
        waiting = self._waiting
        for _ in range(BATCH):
            self._skip_gone()
            if not waiting or self._next > now + TURN_MIN / 2:
                break
            session, _sid = waiting.popleft()
            send_away(session, self.pace.reason, self.pace.message)
            self._next += self.pace.pause()
        if not waiting:
            self._end(cancelled=False)
            return
        if now - self._told >= PROGRESS_INTERVAL:
            self._tell()
        pause = self._next - now
        if pause > 0:
            pause = max(TURN_MIN, min(pause, self._told + PROGRESS_INTERVAL - now))
        self._timer = self._reactor.callLater(max(0, pause), self._turn)

    def _tell(self) -> None:
        self._told = self._reactor.seconds()
        self._drains.publish(f"on_proxy_{self._kind}_draining", self.marshal())

    def _end(self, *, cancelled: bool) -> None:
        self._drains.forget(self)
        left = len(self._waiting)
        self._waiting.clear()
        event = {
            **self._names,
            "total": self._total,
            "ended": self._total - left,
            "left": left,
            "reason": self.pace.reason,
            "cancelled": cancelled,
        }
        self._drains.publish(f"on_proxy_{self._kind}_drained", event)


def _is_there(session: Leaving, front_sid: int) -> bool:
    return session.is_joined and session.front_sid == front_sid


class Drains:
    """The drains that are under way, by what they drain."""

    def __init__(self, controller: WorkerController) -> None:
        self.reactor = controller.reactor
        self._controller = controller
        self._all: dict[tuple[str, ...], Drain] = {}

    def get(self, *key: str) -> Drain | None:
        return self._all.get(key)

    def start(self, kind: Kind, names: dict[str, str], sessions: Iterable[Leaving], pace: Pace) -> Drain:
        """Begin a drain; one of the same thing that is under way goes over into it."""
        key = (kind, *names.values())
        before = self._all.get(key)
        if before is not None:
            before.cancel()
        drain = self._all[key] = Drain(self, kind, names, sessions, pace)
        drain.start()
        return drain

    def publish(self, topic: str, event: dict[str, Any]) -> None:
        self._controller.publish_event(topic, event)

    def forget(self, drain: Drain) -> None:
        for key, other in list(self._all.items()):
            if other is drain:
                del self._all[key]

    def cancel_all(self) -> None:
        for drain in list(self._all.values()):
            drain.cancel()


class DrainProcedures(WorkerController):
    """The procedures that drain transports and connections."""

    transports: "Registry[ProxyTransport]"
    connections: Registry[ProxyConnection]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.drains = Drains(self)

    def sessions_of(self, kind: Kind, object_id: str) -> list[Leaving]:
        """The joined sessions of a transport or over a connection; of one that it has replaced, too."""
        raise NotImplementedError

    def on_out_of_service(self) -> None:
        """Called when a connection takes no logins from now on."""

    @procedure
    def drain_proxy_transport(
        self,
        transport_id: str,
        rate: float = RATE_DEFAULT,
        jitter: float = JITTER_DEFAULT,
        reason: str = SYSTEM_SHUTDOWN,
        message: str | None = None,
        cancel: bool = False,
        details: Caller | None = None,
    ) -> dict[str, Any]:
        """Send the sessions of a transport away that are there now. It goes on listening, and others may come.

        Publishes on_proxy_transport_draining, about once a second, and on_proxy_transport_drained.

        :param rate: sessions per second, up to 100000.
        :param jitter: share of the pause between two of them that is drawn at random, 0 to 1.
        :param reason: URI of the GOODBYE to client and router.
        :param message: text for people in the GOODBYE to the client.
        :param cancel: end the drain that is under way instead; the other arguments do not matter then.
        :returns: id, total, ended, remaining, rate, reason, as of now.
        :raises NoSuchObject: there is no transport with this id.
        :raises AlreadyRunning: it is being drained already.
        :raises NotRunning: cancel, and it is not being drained; or it is about to start or to stop.
        :raises InvalidArgument: rate, jitter, reason or message.
        """
        if cancel:
            return self._cancel_drain("transport", transport_id, self.transports)
        pace = Pace(rate, jitter, reason, message)
        self.transports.find_started(transport_id)
        return self._drain("transport", transport_id, pace)

    @procedure
    def drain_proxy_connection(
        self,
        connection_id: str,
        rate: float = RATE_DEFAULT,
        jitter: float = JITTER_DEFAULT,
        reason: str = SYSTEM_SHUTDOWN,
        message: str | None = None,
        cancel: bool = False,
        details: Caller | None = None,
    ) -> dict[str, Any]:
        """Send the sessions over a connection away, and let no login use it from now on.

        That lasts until it is taken back with ``cancel``, even after the last session has gone, or the connection is
        stopped. Publishes on_proxy_connection_draining, about once a second, and on_proxy_connection_drained.

        :param rate: sessions per second, up to 100000.
        :param jitter: share of the pause between two of them that is drawn at random, 0 to 1.
        :param reason: URI of the GOODBYE to client and router.
        :param message: text for people in the GOODBYE to the client.
        :param cancel: take logins again, and end the drain if it is still under way; the other arguments do not matter.
        :returns: id, total, ended, remaining, rate, reason, as of now.
        :raises NoSuchObject: there is no connection with this id.
        :raises AlreadyRunning: it is being drained already.
        :raises NotRunning: cancel, and it is not being drained; or it is about to start or to stop.
        :raises InvalidArgument: rate, jitter, reason or message.
        """
        if cancel:
            return self._cancel_drain("connection", connection_id, self.connections)
        pace = Pace(rate, jitter, reason, message)
        connection = self.connections.find_started(connection_id)
        shown = self._drain("connection", connection_id, pace)
        connection.is_draining = True
        self.on_out_of_service()
        return shown

    def _drain(self, kind: Kind, object_id: str, pace: Pace) -> dict[str, Any]:
        if self.drains.get(kind, object_id) is not None:
            raise AlreadyRunning(f'{kind} "{object_id}" is being drained already')
        return self.drains.start(kind, {"id": object_id}, self.sessions_of(kind, object_id), pace).marshal()

    def _cancel_drain(self, kind: Kind, object_id: str, registry: Registry[Any]) -> dict[str, Any]:
        drain = self.drains.get(kind, object_id)
        # One that is stopped may still be drained.
        thing: Any = registry.get(object_id) if drain is not None else registry.find(object_id)
        was_closed = getattr(thing, "is_draining", False)
        if was_closed:
            thing.is_draining = False
        if drain is not None:
            shown = drain.marshal()
            drain.cancel()
            return shown
        if not was_closed:
            raise NotRunning(f'{kind} "{object_id}" is not being drained')
        return {"id": object_id, "total": 0, "ended": 0, "remaining": 0, "rate": 0.0, "reason": SYSTEM_SHUTDOWN}
