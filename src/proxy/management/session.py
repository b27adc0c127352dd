"""Management over a WAMP session: the procedures are registered at a router, the events published through it."""

import logging
from typing import Any, Protocol

from autobahn.exception import Disconnected
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallDetails, PublishOptions, RegisterOptions
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from proxy.management.procedures import Caller, CallError, call, procedures

__all__ = ["Carrier", "SessionCarrier"]

log = logging.getLogger(__name__)


class Carrier(Protocol):
    """A way on which the management API travels."""

    def publish_event(self, topic: str, args: tuple[Any, ...], exclude: int | None, acknowledge: bool) -> None:
        """Publish.

        :param topic: whole URI.
        :param args: positional arguments.
        :param exclude: session ID that does not get it.
        :param acknowledge: ask the router for an acknowledgement; a failure is logged.
        """


class SessionCarrier:
    """A joined autobahn session as carrier.

    :param session: the session (autobahn's ApplicationSession).
    :param worker: whose procedures.
    :param prefix: of their URIs, without a dot at the end.
    """

    def __init__(self, session: Any, worker: object, prefix: str) -> None:
        self._session = session
        self._worker = worker
        self._prefix = prefix

    def register(self) -> "Deferred[list[str]]":
        """Register all procedures.

        :returns: fires with their URIs.
        :raises ApplicationError: crossbar.error.cannot_start, one of them is refused.
        """
        uris = [f"{self._prefix}.{name}" for name in procedures(type(self._worker))]
        options = RegisterOptions(details_arg="details")
        requests = [
            self._session.register(self._endpoint(name), uri, options=options)
            for name, uri in zip(procedures(type(self._worker)), uris, strict=True)
        ]
        done: Deferred[Any] = DeferredList(requests, consumeErrors=True)
        return done.addCallback(self._registered, uris)

    def _registered(self, results: list[tuple[bool, Any]], uris: list[str]) -> list[str]:
        errors = [
            f"{uri}: {result.getErrorMessage()}"
            for uri, (is_done, result) in zip(uris, results, strict=True)
            if not is_done
        ]
        if errors:
            log.error("the management API cannot be registered: %s", "; ".join(errors))
            text = "the management API cannot be registered"
            raise ApplicationError("crossbar.error.cannot_start", text, errors=errors)
        return uris

    def _endpoint(self, name: str) -> Any:
        def endpoint(*args: Any, details: CallDetails, **kwargs: Any) -> "Deferred[Any]":
            caller = Caller(
                details.caller,
                details.caller_authid,
                details.caller_authrole,
                details.procedure or f"{self._prefix}.{name}",
                details.progress,
                self,
            )
            return call(self._worker, name, args, kwargs, caller).addErrback(_raise_application_error)

        return endpoint

    def publish_event(self, topic: str, args: tuple[Any, ...], exclude: int | None, acknowledge: bool) -> None:
        """See :class:`Carrier`."""
        if not self._session.is_attached():
            return
        options = PublishOptions(exclude=exclude, acknowledge=acknowledge or None)
        try:
            done = self._session.publish(topic, *args, options=options)
        except Disconnected:
            # The router has begun to close the connection; the session hears of it once that is done.
            log.debug("event %s is not published: the connection is closing", topic)
            return
        if done is not None:
            done.addErrback(_log_unpublished, topic)


def _raise_application_error(failure: Failure) -> None:
    error = failure.value
    assert isinstance(error, CallError)
    raise ApplicationError(error.uri, error.message, **error.details)


def _log_unpublished(failure: Failure, topic: str) -> None:
    log.warning("event %s is not published: %s", topic, failure.getErrorMessage())
