"""What the worker runs, by ID: starting, running, stopping; two calls for the same ID do not race."""

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from proxy.errors import AlreadyRunning, NoSuchObject, NotRunning
from proxy.lifecycle import Managed, State
from proxy.management.procedures import Caller

__all__ = ["Registry"]

T = TypeVar("T", bound=Managed)


class Registry(dict[str, T], Generic[T]):
    """The objects of one kind that are in service, by ID.

    :param kind: what error texts call one.

    :ivar starting: those that are about to be.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.starting: dict[str, T] = {}

    def find(self, object_id: str) -> T:
        """One of them.

        :raises NoSuchObject: there is none with this ID.
        """
        found = self.get(object_id)
        if found is None:
            raise NoSuchObject(f'no {self.kind} "{object_id}"')
        return found

    def find_started(self, object_id: str) -> T:
        """One of them that is in service.

        :raises NoSuchObject: there is none with this ID.
        :raises NotRunning: it is about to start or to stop.
        """
        if object_id in self.starting:
            raise NotRunning(f'{self.kind} "{object_id}" is still starting')
        found = self.find(object_id)
        if not found.is_started:
            raise NotRunning(f'{self.kind} "{object_id}" is {found.state.name.lower()}')
        return found

    def require_free(self, object_id: str) -> None:
        """See that an ID is not taken.

        :raises AlreadyRunning: it is, by something that runs, starts or stops.
        """
        there = self.get(object_id) or self.starting.get(object_id)
        if there is not None:
            state = "running" if there.state is State.STARTED else there.state.name.lower()
            raise AlreadyRunning(f'{self.kind} "{object_id}" is already {state}')

    def require_stoppable(self, object_id: str) -> T:
        """One of them that may be stopped now.

        :raises NoSuchObject: there is none with this ID.
        :raises NotRunning: it is about to start or to stop.
        """
        if object_id in self.starting:
            raise NotRunning(f'{self.kind} "{object_id}" is still starting')
        thing = self.find(object_id)
        if thing.state is State.STOPPING:
            raise NotRunning(f'{self.kind} "{object_id}" is stopping already')
        return thing

    def start(self, object_id: str, thing: T, caller: Caller | None) -> "Deferred[T]":
        """Start something; it is in the registry once it is started.

        :returns: fires with it; fails as :meth:`Managed.start` does.
        """
        self.starting[object_id] = thing

        def has_started(_: None) -> T:
            del self.starting[object_id]
            self[object_id] = thing
            return thing

        def has_failed(failure: Failure) -> Failure:
            del self.starting[object_id]
            return failure

        done: Deferred[None] = maybeDeferred(thing.start, caller)
        return done.addCallbacks(has_started, has_failed)

    def stop(self, object_id: str, caller: Caller | None) -> "Deferred[T]":
        """Stop one of them; it leaves the registry once it is stopped.

        :returns: fires with it.
        :raises NoSuchObject: there is none with this ID.
        :raises NotRunning: it is about to start or to stop.
        """
        thing = self.require_stoppable(object_id)

        def has_stopped(_: None) -> T:
            # Not whatever else may go by this ID by now.
            if self.get(object_id) is thing:
                del self[object_id]
            return thing

        return thing.stop(caller).addCallback(has_stopped)
