"""The life of everything the controller starts and stops: transports, connections, routes. One table for all."""

from enum import IntEnum
from typing import Final

__all__ = ["InvalidTransition", "Lifecycle", "State"]


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
    # What failed may be tried again, or put away.
    State.FAILED: frozenset({State.STARTING, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
}


class InvalidTransition(RuntimeError):
    """An object was asked for something that its state does not allow.

    :param what: the object, for people, for example ``connection "cnc1"``.
    :param current: the state it is in.
    :param wanted: the state it was to go to.
    """

    def __init__(self, what: str, current: State, wanted: State) -> None:
        allowed = ", ".join(state.name.lower() for state in sorted(NEXT[current])) or "nothing"
        super().__init__(
            f"{what} is {current.name.lower()} and cannot become {wanted.name.lower()} (allowed next: {allowed})"
        )
        self.current = current
        self.wanted = wanted


class Lifecycle:
    """Base of ProxyTransport, ProxyConnection and ProxyRoute: a state that only moves along :data:`NEXT`.

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
    def started(self) -> bool:
        """Whether it is in service."""
        return self.state is State.STARTED
