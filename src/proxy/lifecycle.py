"""The life of everything the controller starts and stops: transports, connections, routes. One table for all."""

import time
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from proxy.errors import ProxyError

if TYPE_CHECKING:
    from proxy.controller import ProxyController
    from proxy.management.procedures import Caller

__all__ = ["InvalidTransition", "Lifecycle", "Managed", "State"]


class State(IntEnum):
    """Numbers as the management API shows them (``state`` in the marshalled objects)."""

    CREATED = 1
    STARTING = 2
    STARTED = 3
    FAILED = 4
    STOPPING = 5
    STOPPED = 6


NEXT: Final[dict[State, frozenset[State]]] = {
    State.CREATED: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.STARTED, State.FAILED}),
    State.STARTED: frozenset({State.STOPPING, State.FAILED}),
    # What failed may be put away.
    State.FAILED: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
}


class InvalidTransition(ProxyError):
    """An object was asked for something that its state does not allow.

    :param what: the object, for people, for example ``connection "cnc1"``.
    :param current: the state it is in.
    :param wanted: the state it was to go to.
    """

    uri = "crossbar.error.not_running"

    def __init__(self, what: str, current: State, wanted: State) -> None:
        allowed = ", ".join(state.name.lower() for state in sorted(NEXT[current])) or "nothing"
        super().__init__(
            f"{what} is {current.name.lower()} and cannot become {wanted.name.lower()} (allowed next: {allowed})"
        )
        self.current = current
        self.wanted = wanted


class Lifecycle:
    """A state that only moves along :data:`NEXT`.

    :param label: what error texts call the object, for example ``route "route001"``.
    """

    __slots__ = ("label", "state")

    def __init__(self, label: str) -> None:
        self.label = label
        self.state = State.CREATED

    def enter(self, wanted: State) -> None:
        """Go to ``wanted``.

        :raises InvalidTransition: when the table does not allow it; the state stays as it is.
        """
        if wanted not in NEXT[self.state]:
            raise InvalidTransition(self.label, self.state, wanted)
        self.state = wanted

    @property
    def is_started(self) -> bool:
        """Whether it is in service."""
        return self.state is State.STARTED


class Managed(Lifecycle):
    """Base of ProxyTransport, ProxyConnection and ProxyRoute: a life that the management API starts, ends and tells of.

    Each step is published as ``on_proxy_<kind>_<step>``, with the object as it is at that moment. A start that fails
    is told to its end: starting, stopping, stopped.

    :param controller: who publishes.
    :param label: what error texts call the object.

    :ivar started: since when it is in service (Posix time, ns); None: it is not.
    :ivar stopped: when it was taken out of service (Posix time, ns); None: it has not been.
    :ivar successor: what has taken its place; None: nothing has.
    """

    __slots__ = ("controller", "started", "stopped", "successor")

    KIND: ClassVar[str]
    """As in the names of the topics."""
    EXCLUDES_CALLER: ClassVar[bool] = False
    """Who asked for it gets no event of it."""

    def __init__(self, controller: "ProxyController", label: str) -> None:
        super().__init__(label)
        self.controller = controller
        self.started: int | None = None
        self.stopped: int | None = None
        self.successor: Self | None = None

    @property
    def latest(self) -> Self:
        """Itself, or what has taken its place in the end."""
        last = self
        while last.successor is not None:
            last = last.successor
        if last is not self:
            self.successor = last  # what was in between need not be kept
        return last

    def __str__(self) -> str:
        return f"{self.label} ({self.state.name.lower()})"

    def marshal(self) -> dict[str, Any]:
        """What the management API shows of it. Holds no secret."""
        raise NotImplementedError

    def _start(self) -> "Deferred[None]":
        """Do what it takes. Raises, or fails with, a ProxyError where it cannot be done, and leaves nothing behind."""
        return succeed(None)

    def _stop(self) -> "Deferred[None]":
        """Undo it."""
        return succeed(None)

    def start(self, caller: "Caller | None" = None) -> "Deferred[None]":
        """Put it into service.

        :param caller: who asked for it.
        :returns: fires when it is started; fails with a ProxyError when it cannot be, and then it is stopped.
        :raises InvalidTransition: it was started before.
        """
        self.enter(State.STARTING)
        self._announce("starting", caller)
        done: Deferred[None] = maybeDeferred(self._start)
        return done.addCallbacks(self._has_started, self._has_failed, callbackArgs=(caller,), errbackArgs=(caller,))

    def _has_started(self, _: None, caller: "Caller | None") -> None:
        self.enter(State.STARTED)
        self.started = time.time_ns()
        self.stopped = None
        self._announce("started", caller)

    def _has_failed(self, failure: Failure, caller: "Caller | None") -> Failure:
        self.enter(State.FAILED)
        self.enter(State.STOPPING)
        self._announce("stopping", caller)
        self._has_stopped(None, caller)
        return failure

    def stop(self, caller: "Caller | None" = None) -> "Deferred[None]":
        """Take it out of service: at once for new logins. Sessions that are joined stay.

        :param caller: who asked for it.
        :returns: fires when it is stopped; fails when it cannot be, and then it has failed, and may be stopped again.
        :raises InvalidTransition: it is not in service.
        """
        self.enter(State.STOPPING)
        self._announce("stopping", caller)
        done: Deferred[None] = maybeDeferred(self._stop)
        return done.addCallbacks(self._has_stopped, self._cannot_stop, callbackArgs=(caller,))

    def _cannot_stop(self, failure: Failure) -> Failure:
        """It may be tried again."""
        self.enter(State.FAILED)
        return failure

    def _has_stopped(self, _: None, caller: "Caller | None") -> None:
        self.enter(State.STOPPED)
        self.started = None
        self.stopped = time.time_ns()
        self._announce("stopped", caller)

    def _announce(self, step: str, caller: "Caller | None") -> None:
        self.controller.publish_event(
            f"on_proxy_{self.KIND}_{step}",
            self.marshal(),
            exclude=caller if self.EXCLUDES_CALLER else None,
            acknowledge=not self.EXCLUDES_CALLER,
        )
