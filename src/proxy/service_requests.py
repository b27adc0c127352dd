"""Calls and publications over a service session, for what others have said: arguments go through exactly as they are.

autobahn's own ``call()`` and ``publish()`` take the arguments as Python's, where some keyword arguments have a meaning
of their own (``options``, ``procedure``), and turn what comes back into objects that some keyword arguments break. Many
use one session here: whatever a callee answers must not end it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from autobahn.wamp import message
from autobahn.wamp.exception import TransportLost
from twisted.internet.defer import Deferred

__all__ = ["Reply", "RequestError", "RequestLost", "ServiceRequests"]

log = logging.getLogger(__name__)

GIVEN_UP_MAX: Final = 1000
"""Requests that nobody waits for any more, and that the router has not answered yet. Then its session is given up."""

_ANSWERS: Final = {message.Result: message.Call.MESSAGE_TYPE, message.Published: message.Publish.MESSAGE_TYPE}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call came to."""

    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)


class RequestError(Exception):
    """The router, or the callee, has answered with ERROR.

    :ivar uri: of the error; ``args``, ``kwargs``: what came with it.
    """

    def __init__(self, uri: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        super().__init__(uri)
        self.uri = uri
        self.arguments = args
        self.keywords = kwargs


class RequestLost(Exception):
    """The session ended before there was an answer. Nobody knows whether the request was carried out."""


class ServiceRequests:
    """Those of one session.

    :param session: autobahn's ApplicationSession; shows us each message, see :meth:`take`, and its end.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._waiting: dict[tuple[int, int], Deferred[Any]] = {}
        self._given_up: set[tuple[int, int]] = set()

    def call(self, procedure: str, args: list[Any], kwargs: Mapping[str, Any]) -> "Deferred[Reply]":
        """Call a procedure.

        :returns: fails with RequestError or RequestLost. May be cancelled, the router is told.
        :raises TransportLost: the session is over; nothing was sent.
        :raises SerializationError: the arguments cannot be expressed; nothing was sent.
        :raises PayloadExceededError: they are more than the router takes; nothing was sent.
        """
        number = self._next_number()
        call = message.Call(number, procedure, args=args, kwargs=dict(kwargs) or None)
        return self._send((message.Call.MESSAGE_TYPE, number), call)

    def publish(
        self, topic: str, args: list[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> "Deferred[int]":
        """Publish an event, and have that acknowledged.

        :param options: attributes of autobahn's PublishOptions, without ``acknowledge``.
        :returns: fires with the publication's ID; else as :meth:`call`.
        :raises: as :meth:`call`.
        """
        number = self._next_number()
        publish = message.Publish(number, topic, args=args, kwargs=dict(kwargs) or None, acknowledge=True, **options)
        return self._send((message.Publish.MESSAGE_TYPE, number), publish)

    def _next_number(self) -> int:
        # The session's own requests and these are answered by the same numbers.
        return int(self._session._request_id_gen.next())

    def _send(self, key: tuple[int, int], said: Any) -> "Deferred[Any]":
        transport = self._session._transport
        if transport is None or not self._session.is_attached():
            raise TransportLost
        answer: Deferred[Any] = Deferred(lambda _: self._give_up(key))
        self._waiting[key] = answer
        try:
            transport.send(said)
        except BaseException:
            self._waiting.pop(key, None)
            raise
        return answer

    def _give_up(self, key: tuple[int, int]) -> None:
        if self._waiting.pop(key, None) is None:
            return
        self._given_up.add(key)
        transport = self._session._transport
        if transport is None:
            return
        kind, number = key
        dealer = (self._session._router_roles or {}).get("dealer")
        try:
            if kind == message.Call.MESSAGE_TYPE and dealer is not None and dealer.call_canceling:
                transport.send(message.Cancel(number, mode=message.Cancel.KILLNOWAIT))
        except TransportLost:
            return
        if len(self._given_up) >= GIVEN_UP_MAX:
            log.warning("%d requests are not answered by the router; their session is given up", len(self._given_up))
            transport.abort()

    # --- told by the session ---

    def take(self, said: Any) -> bool:
        """A message from the router.

        :returns: whether it answers a request from here, and the session need not look at it.
        """
        if isinstance(said, message.Error):
            key = said.request_type, said.request
        elif type(said) in _ANSWERS:
            key = _ANSWERS[type(said)], said.request
        else:
            return False
        if key not in self._waiting and key not in self._given_up:
            return False
        if isinstance(said, message.Result) and said.progress:
            return True  # nobody has asked for that
        self._given_up.discard(key)
        answer = self._waiting.pop(key, None)
        if answer is not None:
            _give(answer, said)
        return True

    def lost(self) -> None:
        """The session is over. Idempotent."""
        waiting, self._waiting = self._waiting, {}
        self._given_up.clear()
        for answer in waiting.values():
            answer.errback(RequestLost("the session at the router has ended"))


def _give(answer: "Deferred[Any]", said: Any) -> None:
    if isinstance(said, message.Published):
        answer.callback(said.publication)
    elif said.enc_algo:
        # Only those who have the key could read it.
        answer.errback(RequestError("wamp.error.invalid_argument", ["the answer has an encrypted payload"], {}))
    elif isinstance(said, message.Error):
        answer.errback(RequestError(said.error, list(said.args or ()), dict(said.kwargs or {})))
    else:
        answer.callback(Reply(list(said.args or ()), dict(said.kwargs or {})))
