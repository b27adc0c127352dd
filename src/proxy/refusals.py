"""Messages that the other side cannot take: who is told what.

A message over the limit of its receiver, or with a value that the receiver's serializer cannot express, is not relayed.
The data plane hands it up without its payload (EV_REFUSED), and here is decided how the request that it belongs to
fails, so that nobody waits for ever and the session goes on.
"""

import logging
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from proxy.messages import MessageError, MessageType, decode, encode, type_name
from proxy.plane import NOTE_DEAD_CALL, NOTE_DEAD_INVOCATION, ST_TOO_BIG, ST_UNTRANSLATABLE, Plane

__all__ = [
    "INVALID_PAYLOAD",
    "PAYLOAD_SIZE_EXCEEDED",
    "Answer",
    "Refused",
    "Tally",
    "answer",
    "fail_request",
    "parse_refused",
]

log = logging.getLogger(__name__)

PAYLOAD_SIZE_EXCEEDED: Final = "wamp.error.payload_size_exceeded"
INVALID_PAYLOAD: Final = "wamp.error.invalid_payload"
UNAVAILABLE: Final = "wamp.error.unavailable"

_URIS: Final = {ST_TOO_BIG: PAYLOAD_SIZE_EXCEEDED, ST_UNTRANSLATABLE: INVALID_PAYLOAD}

# At most one line in this many seconds for each transport and each connection.
LOG_INTERVAL: Final = 10.0

# Characters. The ERROR must be something that everybody takes, see SURE_SIZE.
_TEXT_MAX: Final = 200

# Octets of a message that every peer takes: the smallest limit that RawSocket can announce, or that the configuration
# can name, less what surrounds a message in a batch.
SURE_SIZE: Final = 508

_HEAD: Final = struct.Struct(">IQB")


class Refused(NamedTuple):
    """What EV_REFUSED says.

    :ivar status: ST_TOO_BIG, ST_UNTRANSLATABLE or another ST_*.
    :ivar code: message type.
    :ivar size: octets of the message as its sender sent it.
    :ivar why: text of the data plane, may be empty.
    :ivar head: what names the request, in the sender's serializer; of an EVENT all but its payload.
    """

    status: int
    code: int
    size: int
    why: str
    head: bytes

    @property
    def uri(self) -> str:
        """The error URI that the sender of the request gets."""
        return _URIS.get(self.status, UNAVAILABLE)

    def text(self, receiver: str) -> str:
        """What was wrong, for people.

        :param receiver: who cannot take the message, ``router`` or ``client``.
        """
        name = f"{type_name(self.code)} of {self.size} octets"
        if self.status == ST_TOO_BIG:
            text = f"{name} is more than the {receiver} takes"
        elif self.status == ST_UNTRANSLATABLE:
            text = f"{name} holds what the {receiver}'s serializer cannot express"
        else:
            text = f"{name} cannot be passed on to the {receiver}"
        return (f"{text}: {self.why}" if self.why else text)[:_TEXT_MAX]


class Answer(NamedTuple):
    """What becomes of a refused message.

    :ivar to_front: messages for the client.
    :ivar to_back: messages for the router.
    :ivar swallow: kind and request of answers that the data plane must drop from now on, ahead of any message.
    """

    to_front: tuple[list[Any], ...] = ()
    to_back: tuple[list[Any], ...] = ()
    swallow: tuple[tuple[int, int], ...] = ()


UNHEARD: Final = Answer()


def parse_refused(status: int, data: bytes) -> Refused:
    """Take EV_REFUSED apart.

    :param status: its ``arg``.
    :param data: its ``data``.
    """
    code, size, length = _HEAD.unpack_from(data)
    start = _HEAD.size + length
    return Refused(status, code, size, data[_HEAD.size : start].decode("utf-8", "replace"), data[start:])


def answer(is_to_back: bool, refused: Refused, head: list[Any]) -> Answer:
    """Who is told what.

    :param is_to_back: the message came from the client, else from the router.
    :param head: ``refused.head``, decoded: at least the elements that name the request.
    :returns: messages and what to drop; nothing for a message that no error belongs to (an EVENT, a PUBLISH without
        acknowledgement), or that nobody can answer.
    """
    rule = (_TO_BACK if is_to_back else _TO_FRONT).get(refused.code)
    if rule is None:
        return UNHEARD
    request = _id(head, 2 if refused.code == MessageType.ERROR else 1)
    if request is None:
        return UNHEARD
    text = refused.text("router" if is_to_back else "client")
    return rule(head, request, _Failure(refused, text))


class _Failure(NamedTuple):
    refused: Refused
    text: str

    def error(self, code: int, request: int) -> list[Any]:
        """The ERROR for a request (WAMP specification, "Remote Procedure Calls", "Publish and Subscribe")."""
        return [int(MessageType.ERROR), int(code), request, {}, self.refused.uri, [self.text]]


def _id(head: list[Any], index: int) -> int | None:
    """The request ID at ``index``; None if there is none, or one that the data plane has no number for."""
    value = head[index] if len(head) > index else None
    return value if type(value) is int and 0 <= value < 2**64 else None


def _is_set(head: list[Any], index: int, key: str) -> bool:
    """Whether an attribute of Options or Details, at ``index``, is true."""
    value = head[index] if len(head) > index else None
    return type(value) is dict and value.get(key) is True


def _is_progressive(head: list[Any], index: int) -> bool:
    """Whether more may follow for this request. Where that is not known it is better to be ready for it."""
    return len(head) <= index or _is_set(head, index, "progress")


def _cancel(request: int) -> list[Any]:
    """The router's answer to it is dropped with all others, so that it need not be waited for."""
    return [int(MessageType.CANCEL), request, {"mode": "killnowait"}]


# --- from the client ---------------------------------------------------------------------------------------------


def _client_call(head: list[Any], request: int, failure: _Failure) -> Answer:
    """CALL: it fails. Of a progressive one the router may know parts already: these are to end, too."""
    error = failure.error(MessageType.CALL, request)
    if _is_progressive(head, 2):
        return Answer((error,), (_cancel(request),), ((NOTE_DEAD_CALL, request),))
    return Answer((error,))


def _client_publish(head: list[Any], request: int, failure: _Failure) -> Answer:
    """PUBLISH: only who asked for an acknowledgement waits for an answer, and may be sent one."""
    if _is_set(head, 2, "acknowledge"):
        return Answer((failure.error(MessageType.PUBLISH, request),))
    return UNHEARD


def _client_request(head: list[Any], request: int, failure: _Failure) -> Answer:
    """SUBSCRIBE, UNSUBSCRIBE, REGISTER, UNREGISTER: it fails."""
    return Answer((failure.error(head[0], request),))


def _client_yield(head: list[Any], request: int, failure: _Failure) -> Answer:
    """YIELD: the caller is to learn of it, so the router gets an ERROR in its place. That is the last answer."""
    error = failure.error(MessageType.INVOCATION, request)
    return Answer((), (error,), ((NOTE_DEAD_INVOCATION, request),) if _is_progressive(head, 2) else ())


def _client_error(head: list[Any], request: int, failure: _Failure) -> Answer:
    """ERROR of an INVOCATION, the only one that clients send: it stays an ERROR, another one."""
    if head[1] != MessageType.INVOCATION:
        return UNHEARD
    return Answer((), (failure.error(MessageType.INVOCATION, request),))


# --- from the router ---------------------------------------------------------------------------------------------


def _router_result(head: list[Any], request: int, failure: _Failure) -> Answer:
    """RESULT: the call fails. The rest of a progressive one is called off, and dropped as far as it comes."""
    error = failure.error(MessageType.CALL, request)
    if _is_progressive(head, 2):
        return Answer((error,), (_cancel(request),), ((NOTE_DEAD_CALL, request),))
    return Answer((error,))


def _router_error(head: list[Any], request: int, failure: _Failure) -> Answer:
    """ERROR: the request has failed as it has, but for what only the payload told."""
    code = head[1]
    return Answer((failure.error(code, request),)) if type(code) is int else UNHEARD


def _router_invocation(head: list[Any], request: int, failure: _Failure) -> Answer:
    """INVOCATION: fails as if the callee had said so. What it may still say to parts that it got must not follow."""
    error = failure.error(MessageType.INVOCATION, request)
    return Answer((), (error,), ((NOTE_DEAD_INVOCATION, request),) if _is_progressive(head, 3) else ())


def _router_event(head: list[Any], request: int, failure: _Failure) -> Answer:
    """EVENT over the limit: the subscriber gets it without the payload ("RawSocket Transport", on large messages)."""
    if failure.refused.status != ST_TOO_BIG or len(head) < 4 or type(head[3]) is not dict:
        return UNHEARD
    return Answer(([*head[:3], {**head[3], "payload_limit_exceeded": True}],))


_Rule = Callable[[list[Any], int, _Failure], Answer]

_TO_BACK: Final[dict[int, _Rule]] = {
    MessageType.CALL: _client_call,
    MessageType.PUBLISH: _client_publish,
    MessageType.SUBSCRIBE: _client_request,
    MessageType.UNSUBSCRIBE: _client_request,
    MessageType.REGISTER: _client_request,
    MessageType.UNREGISTER: _client_request,
    MessageType.YIELD: _client_yield,
    MessageType.ERROR: _client_error,
}

_TO_FRONT: Final[dict[int, _Rule]] = {
    MessageType.RESULT: _router_result,
    MessageType.ERROR: _router_error,
    MessageType.INVOCATION: _router_invocation,
    MessageType.EVENT: _router_event,
}


# --- counting ----------------------------------------------------------------------------------------------------


class Tally:
    """Refused messages of one transport or connection: counts all, logs a few.

    :param where: the transport or connection, for the log.
    :param clock: the reactor (IReactorTime), for monotonic time.

    :ivar count: all of them.
    :ivar unheard: those of which neither side was told.
    """

    __slots__ = ("_clock", "_logged", "_next", "count", "unheard", "where")

    def __init__(self, where: str, clock: Any) -> None:
        self.where = where
        self.count = 0
        self.unheard = 0
        self._clock = clock
        self._logged = 0
        self._next = 0.0

    def add(self, text: str, *, is_heard: bool, front_sid: int) -> None:
        """Count one message and log it, unless another one was logged lately.

        :param text: what was wrong with it.
        :param is_heard: somebody was told.
        """
        self.count += 1
        if not is_heard:
            self.unheard += 1
        now = self._clock.seconds()
        if now < self._next:
            return
        others = self.count - self._logged - 1
        self._logged = self.count
        self._next = now + LOG_INTERVAL
        log.warning(
            "%s: message not passed on, session %d: %s%s%s",
            self.where,
            front_sid,
            text,
            "" if is_heard else "; nobody could be told",
            f" ({others} others since the last such line)" if others else "",
        )


# --- doing it ----------------------------------------------------------------------------------------------------


class End(Protocol):
    """One side of a session: its number in the data plane, and its serializer."""

    conn: int
    serializer: int


class Front(End, Protocol):
    """The client's side."""

    plane: Plane
    front_sid: int


def fail_request(
    front: Front, back: End, is_to_back: bool, status: int, data: bytes, tally: Tally, *, tells_back: bool
) -> None:
    """Fail the request that a refused message belongs to, and count it.

    :param is_to_back: it came from the client, else from the router.
    :param status: ``arg`` of EV_REFUSED; ``data``: its data.
    :param tally: of where it came from.
    :param tells_back: the router may be sent messages.
    """
    refused = parse_refused(status, data)
    text = refused.text("router" if is_to_back else "client")
    heard = 0
    try:
        # It is the data plane's own writing, or a router's EVENT; FlatBuffers, which are not taken apart, read quickly.
        head = decode(front.serializer if is_to_back else back.serializer, refused.head, trusted=True)
    except MessageError as error:
        text = f"{text} ({error})"
    else:
        told = answer(is_to_back, refused, head)
        for kind, request in told.swallow:
            front.plane.swallow(front.conn, kind, request)
        heard = sum(_send(front.plane, front, message) for message in told.to_front)
        if tells_back:
            heard += sum(_send(front.plane, back, message) for message in told.to_back)
    tally.add(text, is_heard=heard > 0, front_sid=front.front_sid)


def _send(plane: Plane, end: End, message: list[Any]) -> bool:
    """Send a message if it can be sure to arrive. Only an EVENT can be too large, or not to be expressed, still."""
    try:
        octets = encode(end.serializer, message)
    except MessageError:
        return False
    if len(octets) > SURE_SIZE:
        return False
    plane.send(end.conn, octets)
    return True
