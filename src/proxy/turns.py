"""Turns: so many may go on at a time, the others wait in the order they came."""

import logging
from collections import OrderedDict
from typing import Any, Protocol

__all__ = ["Turns", "Waiter"]

log = logging.getLogger(__name__)


class Waiter(Protocol):
    """Somebody who takes a turn."""

    def on_turn(self, turns: "Turns") -> None:
        """The turn has come. To be given back with :meth:`Turns.leave`."""

    def on_turn_late(self, turns: "Turns") -> None:
        """It did not come in time, and will not."""


class Turns:
    """Hands out turns.

    :param limit: turns at a time; 0: any number.
    :param reactor: whose clock counts.
    :param patience: how long anybody waits for one, seconds.
    """

    __slots__ = ("_is_handing", "_patience", "_reactor", "_timer", "_waiting", "limit", "taken")

    def __init__(self, limit: int, reactor: Any, patience: float) -> None:
        self.limit = limit
        self.taken = 0
        self._reactor = reactor
        self._patience = patience
        # All wait equally long, so that the first to come is the first to lose patience.
        self._waiting: OrderedDict[Waiter, float] = OrderedDict()
        self._is_handing = False
        self._timer: Any = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take(self, waiter: Waiter) -> bool:
        """Ask for a turn.

        :returns: whether it can be had at once; else the waiter is told later.
        """
        if not self.limit or (self.taken < self.limit and not self._waiting):
            self.taken += 1
            return True
        self._waiting[waiter] = self._reactor.seconds() + self._patience
        if self._timer is None:
            self._timer = self._reactor.callLater(self._patience, self._expire)
        return False

    def leave(self) -> None:
        """Give a turn back: the next one has it."""
        self.taken -= 1
        if self._is_handing:
            return  # further up the stack
        self._is_handing = True
        try:
            while self._waiting and self.taken < self.limit:
                waiter, _ = self._waiting.popitem(last=False)
                self.taken += 1
                try:
                    waiter.on_turn(self)
                except Exception:
                    log.exception("error at the turn of %s", type(waiter).__name__)
        finally:
            self._is_handing = False
            self._rest()

    def drop(self, waiter: Waiter) -> None:
        """Somebody does not wait any more. No error if it did not."""
        self._waiting.pop(waiter, None)
        self._rest()

    def _rest(self) -> None:
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """Tell those whose time is up."""
        self._timer = None
        now = self._reactor.seconds()
        while self._waiting:
            waiter, deadline = next(iter(self._waiting.items()))
            if deadline > now:
                self._timer = self._reactor.callLater(deadline - now, self._expire)
                return
            del self._waiting[waiter]
            try:
                waiter.on_turn_late(self)
            except Exception:
                log.exception("error at the turn of %s, which was too late", type(waiter).__name__)
