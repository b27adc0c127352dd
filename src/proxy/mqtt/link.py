"""The WAMP session of an MQTT client, as a client has one: requests, their answers, and events; without sockets.

Messages are CBOR, whose texts and octets are MQTT's.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred

from proxy.messages import (
    SER_CBOR,
    MessageError,
    MessageType,
    check_abort,
    check_challenge,
    decode,
    encode,
    goodbye,
)
from proxy.session_states import GOODBYE_AND_OUT
from proxy.web.longpoll_end import RawSocketEnd
from proxy.web.longpoll_frames import MESSAGE_MAX, frame

__all__ = ["CLOSE_NORMAL", "REQUEST_SECONDS", "Event", "Refused", "WampLink"]

log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 30.0
"""How long a router may take to answer."""

CLOSE_NORMAL: Final = "wamp.close.normal"
TIMEOUT: Final = "wamp.error.timeout"
LOST: Final = "wamp.close.transport_lost"
NETWORK_FAILURE: Final = "wamp.error.network_failure"

_PUBLISH: Final = 16
_PUBLISHED: Final = 17
_SUBSCRIBE: Final = 32
_SUBSCRIBED: Final = 33
_UNSUBSCRIBE: Final = 34
_UNSUBSCRIBED: Final = 35
_EVENT: Final = 36
_ERROR: Final = 8
# Answer -> type of its request.
_ANSWERS: Final = {_PUBLISHED: _PUBLISH, _SUBSCRIBED: _SUBSCRIBE, _UNSUBSCRIBED: _UNSUBSCRIBE}

_ROLES: Final = {
    "publisher": {
        "features": {
            "payload_transparency": True,
            "publisher_exclusion": True,
            "subscriber_blackwhite_listing": True,
        }
    },
    "subscriber": {"features": {"payload_transparency": True, "pattern_based_subscription": True}},
}


class Refused(Exception):
    """The router, or the proxy, does not do what was asked.

    :ivar uri: of the error.
    :ivar text: for people, may be empty.
    """

    def __init__(self, uri: str, text: str = "") -> None:
        super().__init__(f"{uri}: {text}" if text else uri)
        self.uri = uri
        self.text = text


@dataclass(frozen=True, slots=True)
class Event:
    """An event, as its subscriber gets it ("EVENT").

    :ivar subscription: its ID.
    :ivar details: see there.
    :ivar args: likewise ``kwargs``.
    :ivar payload: in place of them ("Payload Passthru Mode"); None: there are arguments.
    """

    subscription: int
    details: dict[str, Any]
    args: list[Any]
    kwargs: dict[str, Any]
    payload: bytes | None


class LinkOwner(Interface):
    """Whose session it is."""

    def on_event(self, event: Event) -> None: ...
    def on_link_full(self) -> None:
        """Nothing more should be sent for now; on_link_writable() follows."""

    def on_link_writable(self) -> None: ...
    def on_link_over(self, uri: str) -> None:
        """The session is over, or could not be had; called once, and not after :meth:`WampLink.close`."""


class WampLink:
    """One client's.

    :param clock: Twisted's reactor.
    :param owner: see there.

    :ivar is_joined: there is a session.
    :ivar forget: called when the connection is closed.
    """

    def __init__(self, clock: Any, owner: LinkOwner) -> None:
        self._clock = clock
        self._owner = owner
        self._end: RawSocketEnd | None = None
        self._requests: dict[tuple[int, int], tuple[Deferred[list[Any]], float]] = {}
        self._next_request = 1
        self._timer: Any = None
        self._joining: Deferred[dict[str, Any]] | None = None
        self._ticket = ""
        self.is_joined = False
        self.forget: Callable[[], None] = _nothing
        self._is_over = False

    # --- the connection's side, see InnerClient ---

    def attach(self, end: RawSocketEnd) -> None:
        """The connection to the data plane is there."""
        self._end = end

    def on_writable(self) -> None:
        """What was written has left."""
        self._owner.on_link_writable()

    def on_lost(self, reason: str) -> None:
        """The connection is closed."""
        self.forget()
        self._over(LOST)

    def on_messages(self, messages: list[bytes]) -> None:
        """Messages of the router, or of the proxy in its place."""
        for octets in messages:
            if self._is_over:
                return
            try:
                self._take(decode(SER_CBOR, octets, trusted=True))
            except (MessageError, IndexError, TypeError, KeyError) as error:
                log.warning("MQTT: a message from the router cannot be read: %s", error)
                self._end_it("wamp.error.protocol_violation")

    # --- what is sent ---

    @property
    def is_full(self) -> bool:
        """Whether what was sent has to leave before there is more."""
        return self._end is not None and self._end.is_full

    def join(self, realm: str, details: dict[str, Any], ticket: str) -> "Deferred[dict[str, Any]]":
        """Log in.

        :param details: of HELLO, without roles.
        :param ticket: to be shown if it is asked for.
        :returns: fires with WELCOME.Details, fails with Refused.
        """
        joining: Deferred[dict[str, Any]] = Deferred()
        self._joining, self._ticket = joining, ticket
        self._send([int(MessageType.HELLO), realm, {"roles": _ROLES, **details}])
        return joining

    def subscribe(self, uri: str, match: str, *, get_retained: bool) -> "Deferred[list[Any]]":
        """:returns: fires with SUBSCRIBED, fails with Refused."""
        options: dict[str, Any] = {} if match == "exact" else {"match": match}
        if get_retained:
            options["get_retained"] = True
        return self._request(_SUBSCRIBE, options, uri)

    def unsubscribe(self, subscription: int) -> "Deferred[list[Any]]":
        """:returns: fires with UNSUBSCRIBED, fails with Refused."""
        return self._request(_UNSUBSCRIBE, subscription)

    def publish(self, options: dict[str, Any], uri: str, payload: list[Any]) -> "Deferred[list[Any]] | None":
        """:param payload: what follows the topic in PUBLISH.
        :returns: fires with PUBLISHED, fails with Refused; None where ``acknowledge`` is not asked for.
        :raises MessageError: it cannot be expressed.
        """
        if options.get("acknowledge"):
            return self._request(_PUBLISH, options, uri, *payload)
        self._send([_PUBLISH, self._number(), options, uri, *payload])
        return None

    def pause(self) -> None:
        """Take no more from the router for now."""
        if self._end is not None:
            self._end.pause()

    def resume(self) -> None:
        """Go on."""
        if self._end is not None:
            self._end.resume()

    def close(self, reason: str = "") -> None:
        """End the session. Idempotent.

        :param reason: for GOODBYE; empty: the router gets to know that the client's connection is lost.
        """
        if self._is_over:
            return
        self._is_over = True
        if reason and self.is_joined:
            self._send(goodbye(reason))
        self._shut(LOST)

    def _number(self) -> int:
        number = self._next_request
        self._next_request += 1
        return number

    def _request(self, kind: int, *rest: Any) -> "Deferred[list[Any]]":
        answer: Deferred[list[Any]] = Deferred()
        number = self._number()
        self._send([kind, number, *rest])
        self._requests[kind, number] = answer, self._clock.seconds() + REQUEST_SECONDS
        if self._timer is None:
            self._timer = self._clock.callLater(REQUEST_SECONDS, self._check_oldest)
        return answer

    def _send(self, message: list[Any]) -> None:
        octets = encode(SER_CBOR, message)
        if len(octets) > MESSAGE_MAX:
            # What is 8 MiB in JSON may be twice that in CBOR; the rest of it would be read as messages of their own.
            raise MessageError(f"a message of {len(octets)} octets, at most {MESSAGE_MAX} can be sent")
        if self._end is not None:
            self._end.write(frame(octets))
            if self._end.is_full:
                self._owner.on_link_full()

    def _check_oldest(self) -> None:
        self._timer = None
        if not self._requests:
            return
        _, deadline = next(iter(self._requests.values()))
        left = deadline - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check_oldest)
        else:
            self._end_it(TIMEOUT)

    # --- what comes ---

    def _take(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == _EVENT:
            if self.is_joined:
                self._owner.on_event(_event(message))
        elif kind in _ANSWERS:
            self._answered((_ANSWERS[kind], message[1]), message)
        elif kind == _ERROR:
            self._answered((message[1], message[2]), Refused(str(message[4]), _text(message)))
        elif kind == MessageType.GOODBYE:
            self._said_goodbye(str(message[2]))
        elif self._joining is not None:
            self._take_login(kind, message)

    def _take_login(self, kind: int, message: list[Any]) -> None:
        assert self._joining is not None
        if kind == MessageType.CHALLENGE:
            method, ticket, self._ticket = check_challenge(message).authmethod, self._ticket, ""
            if method != "ticket" or not ticket:
                self._refuse_login(Refused("wamp.error.no_auth_method", f"{method} is asked for, not a ticket"))
                return
            self._send([int(MessageType.AUTHENTICATE), ticket, {}])
        elif kind == MessageType.WELCOME:
            joining, self._joining = self._joining, None
            self._ticket = ""
            self.is_joined = True
            joining.callback(message[2])
        elif kind == MessageType.ABORT:
            abort = check_abort(message)
            self._refuse_login(Refused(abort.reason, str(abort.details.get("message") or "")))

    def _refuse_login(self, error: Refused) -> None:
        joining, self._joining = self._joining, None
        self.close()
        if joining is not None:
            joining.errback(error)

    def _said_goodbye(self, uri: str) -> None:
        if not self._is_over:
            self._send(goodbye(GOODBYE_AND_OUT))
        self._end_it(uri)

    def _answered(self, key: tuple[int, int], answer: Any) -> None:
        waiting = self._requests.pop(key, None)
        if waiting is not None:
            _fire(waiting[0], answer)

    # --- the end ---

    def _end_it(self, uri: str) -> None:
        """The session ends from our side, and its owner did not ask for that."""
        self._over(uri)

    def _over(self, uri: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._shut(uri)
        joining, self._joining = self._joining, None
        if joining is not None:
            joining.errback(Refused(NETWORK_FAILURE, "the login was broken off"))
        else:
            self._owner.on_link_over(uri)

    def _shut(self, uri: str) -> None:
        self.is_joined = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._end is not None:
            self._end.close()
        requests, self._requests = self._requests, {}
        for answer, _ in requests.values():
            answer.errback(Refused(uri, "the session is over"))


def _nothing() -> None:
    """It has no connection yet."""


def _fire(answer: "Deferred[list[Any]]", value: Any) -> None:
    fire: Callable[[Any], None] = answer.errback if isinstance(value, Refused) else answer.callback
    fire(value)


def _text(message: list[Any]) -> str:
    """What an ERROR says to people."""
    args = message[5] if len(message) > 5 else None
    return str(args[0]) if isinstance(args, list) and args and isinstance(args[0], str) else ""


def _event(message: list[Any]) -> Event:
    subscription, details, rest = message[1], message[3], message[4:]
    if rest and isinstance(rest[0], bytes):
        return Event(subscription, details, [], {}, rest[0])
    args = rest[0] if rest and isinstance(rest[0], list) else []
    kwargs = rest[1] if len(rest) > 1 and isinstance(rest[1], dict) else {}
    return Event(subscription, details, args, kwargs, None)
