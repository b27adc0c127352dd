"""A client of the worker's own management realm: its session, and what it asks for."""

import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from twisted.python.failure import Failure

from proxy.management.procedures import Caller, CallError
from proxy.management.rawsocket import CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, ManagementConnection, TooLong
from proxy.management.requests import (
    Call,
    check_call,
    check_cancel,
    check_publish,
    check_register,
    check_subscribe,
    check_undo,
    is_topic,
)
from proxy.messages import (
    MessageError,
    MessageType,
    abort,
    check_abort,
    check_goodbye,
    check_hello,
    goodbye,
    shorten,
    type_name,
)

if TYPE_CHECKING:
    from proxy.management.realm import ManagementRealm

__all__ = ["RealmSession"]

log = logging.getLogger(__name__)

# Of one client at a time. Both are far more than a tool needs, and little memory.
SUBSCRIPTIONS_MAX: Final = 256
CALLS_MAX: Final = 256

# Characters of an error's text that every client has room for: 512 octets are the least that RawSocket can say.
ERROR_TEXT_MIN: Final = 64

AUTHROLE: Final = "trusted"
PROTOCOL_VIOLATION: Final = "wamp.error.protocol_violation"
NOT_AUTHORIZED: Final = "wamp.error.not_authorized"
INVALID_URI: Final = "wamp.error.invalid_uri"
UNAVAILABLE: Final = "wamp.error.unavailable"

ROLES: Final = {
    "broker": {"features": {"pattern_based_subscription": True}},
    "dealer": {"features": {"caller_identification": True, "progressive_call_results": True, "call_canceling": True}},
}


class State(Enum):
    """Of a connection."""

    OPEN = auto()
    """HELLO is awaited."""
    JOINED = auto()
    DISMISSED = auto()
    """We said GOODBYE and await the client's."""
    CLOSED = auto()


class RealmSession:
    """One connection, and the sessions on it: one after the other.

    :param realm: which it may join.
    :param connection: where its messages go.

    :ivar session_id: of the session; 0: none.
    """

    def __init__(self, realm: "ManagementRealm", connection: ManagementConnection) -> None:
        self._realm = realm
        self._connection = connection
        self._state = State.OPEN
        self.session_id = 0
        self._subscriptions: set[int] = set()
        # Request -> what tells its call from a later one with the same number.
        self._calls: dict[int, object] = {}
        self._under_way = 0

    @property
    def name(self) -> str:
        """See :class:`proxy.management.rawsocket.Client`."""
        peer = self._connection.peer
        return f"management session {self.session_id} ({peer})" if self.session_id else str(peer)

    @property
    def authid(self) -> str:
        """The user at the other end, by number: names may be a network's to know, which is not to be waited for."""
        uid = self._connection.peer.uid
        return f"uid{uid}" if uid >= 0 else "unknown"

    # --- events of the connection ---

    def on_message(self, message: list[Any]) -> None:
        """See :class:`proxy.management.rawsocket.Client`."""
        handler = _HANDLERS[self._state].get(message[0])
        if handler is None:
            wanted = "HELLO" if self._state is State.OPEN else "a request"
            raise MessageError(f"{type_name(message[0])} where {wanted} is expected")
        handler(self, message)

    def on_violation(self, text: str) -> None:
        """See :class:`proxy.management.rawsocket.Client`."""
        log.info("management: %s broke the protocol: %s", self.name, text)
        self._end()
        self._state = State.CLOSED
        self._send(abort(PROTOCOL_VIOLATION, text))

    def on_closed(self) -> None:
        """See :class:`proxy.management.rawsocket.Client`."""
        self._end()
        self._state = State.CLOSED
        self._realm.gone(self)

    # --- joining and leaving ---

    def _on_hello(self, message: list[Any]) -> None:
        realm, details = check_hello(message)
        if realm not in (None, self._realm.name):
            self._deny("wamp.error.no_such_realm", f'no realm {shorten(realm)}: this socket has "{self._realm.name}"')
            return
        methods = details.get("authmethods")
        if methods and "anonymous" not in methods:
            self._deny("wamp.error.no_auth_method", "expected anonymous: who may open the socket may log in")
            return
        self._state = State.JOINED
        self.session_id = self._realm.draw_id()
        self._connection.expect_within(None)
        welcome = {
            "realm": self._realm.name,
            "authid": self.authid,
            "authrole": AUTHROLE,
            "authmethod": "anonymous",
            "authprovider": "unix",
            "authextra": self._realm.authextra,
            "roles": ROLES,
        }
        log.debug("management: %s joined", self.name)
        self._send([int(MessageType.WELCOME), self.session_id, welcome])

    def _deny(self, reason: str, text: str) -> None:
        self._state = State.CLOSED
        log.info("management: %s is refused: %s", self.name, text)
        self._send(abort(reason, text))
        self._connection.close()

    def _on_goodbye(self, message: list[Any]) -> None:
        check_goodbye(message)
        self._end()
        self._state = State.OPEN
        self._send(goodbye("wamp.close.goodbye_and_out"))
        self._connection.expect_within(HANDSHAKE_TIMEOUT)

    def _on_abort(self, message: list[Any]) -> None:
        check_abort(message)
        self._end()
        self._state = State.CLOSED
        self._connection.close()

    def _on_answer(self, message: list[Any]) -> None:
        self._state = State.CLOSED
        self._connection.close()

    def _ignore(self, message: list[Any]) -> None:
        """What the client said before it knew that the session is over."""

    def dismiss(self, reason: str) -> None:
        """The worker ends: say GOODBYE, and close once it is answered or the time is up."""
        if self._state is State.JOINED:
            self._end()
            self._state = State.DISMISSED
            self._send(goodbye(reason))
            self._connection.expect_within(CLOSE_TIMEOUT)
        elif self._state is State.OPEN:
            self._state = State.CLOSED
            self._connection.close()

    def _end(self) -> None:
        """The session is over: its calls get no answer, its subscriptions no event."""
        for number in self._subscriptions:
            self._realm.subscriptions.remove(self, number)
        self._subscriptions.clear()
        self._calls.clear()
        self.session_id = 0

    # --- subscriptions ---

    def _on_subscribe(self, message: list[Any]) -> None:
        request, topic, match = check_subscribe(message)
        if not is_topic(topic, match):
            self._fail(message[0], request, INVALID_URI, f"{shorten(topic)} is no topic to match {match}")
        elif len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            self._fail(message[0], request, UNAVAILABLE, f"at most {SUBSCRIPTIONS_MAX} subscriptions for each client")
        else:
            number = self._realm.subscriptions.add(self, topic, match)
            self._subscriptions.add(number)
            self._send([int(MessageType.SUBSCRIBED), request, number])

    def _on_unsubscribe(self, message: list[Any]) -> None:
        request, number = check_undo(message, "UNSUBSCRIBE")
        if not self._realm.subscriptions.remove(self, number):
            self._fail(message[0], request, "wamp.error.no_such_subscription", f"no subscription {number}")
            return
        self._subscriptions.discard(number)
        self._send([int(MessageType.UNSUBSCRIBED), request])

    def on_event(self, message: list[Any]) -> None:
        """An EVENT for it."""
        self._send(message)

    # --- calls ---

    def _on_call(self, message: list[Any]) -> None:
        call = check_call(message)
        if call.request in self._calls:
            raise MessageError(f"CALL.Request {call.request} is that of a call under way")
        if not is_topic(call.procedure, "exact"):
            self._fail_call(call.request, INVALID_URI, f"{shorten(call.procedure)} is no URI")
            return
        # Those that nobody waits for any more count, too: what was begun goes on.
        if self._under_way >= CALLS_MAX:
            self._fail_call(call.request, UNAVAILABLE, f"at most {CALLS_MAX} calls of each client at a time")
            return
        token = self._calls[call.request] = object()
        progress = self._progress(call.request, token) if call.takes_progress else None
        caller = Caller(self.session_id, self.authid, AUTHROLE, call.procedure, progress, self._realm)
        self._under_way += 1
        done = self._realm.call(call.procedure, call.args, call.kwargs, caller)
        done.addBoth(self._is_done)
        done.addCallbacks(self._has_returned, self._has_failed, (call, token), {}, (call, token))
        done.addErrback(self._crashed, call)

    def _is_done(self, result: Any) -> Any:
        self._under_way -= 1
        return result

    def _progress(self, request: int, token: object) -> Callable[..., None]:
        def progress(*args: Any, **kwargs: Any) -> None:
            if self._calls.get(request) is token:
                result: list[Any] = [int(MessageType.RESULT), request, {"progress": True}, list(args), kwargs]
                self._send(result if kwargs else result[:4])

        return progress

    def _is_over(self, request: int, token: object) -> bool:
        """Forget a call; True: nobody waits for it any more."""
        if self._calls.get(request) is not token:
            return True
        del self._calls[request]
        return False

    def _has_returned(self, result: Any, call: Call, token: object) -> None:
        if self._is_over(call.request, token):
            return
        try:
            self._connection.send([int(MessageType.RESULT), call.request, {}, [result]])
        except TooLong as error:
            self._fail_call(call.request, "wamp.error.payload_size_exceeded", f"the result is too long: {error}")
        except MessageError as error:
            log.error("management: the result of %s: %s", call.procedure, error)
            self._fail_call(call.request, "wamp.error.invalid_payload", f"the result: {error}")

    def _has_failed(self, failure: Failure, call: Call, token: object) -> None:
        failure.trap(CallError)
        error = failure.value
        assert isinstance(error, CallError)
        if not self._is_over(call.request, token):
            self._fail_call(call.request, error.uri, error.message, error.details)

    def _crashed(self, failure: Failure, call: Call) -> None:
        log.error("management: error while %s was answered\n%s", call.procedure, failure.getTraceback())
        self._connection.abort()

    def _on_cancel(self, message: list[Any]) -> None:
        """No procedure can be stopped half way, so that every mode means "skip": the caller waits no more."""
        request = check_cancel(message)
        if self._calls.pop(request, None) is not None:
            self._fail_call(request, "wamp.error.canceled", "the result is not waited for; what was begun goes on")

    # --- what is not for clients ---

    def _on_publish(self, message: list[Any]) -> None:
        request, wants_answer = check_publish(message)
        if wants_answer:
            self._fail(message[0], request, NOT_AUTHORIZED, "only the worker publishes on its management realm")

    def _on_register(self, message: list[Any]) -> None:
        request = check_register(message)
        self._fail(message[0], request, NOT_AUTHORIZED, "only the worker's procedures are on its management realm")

    def _on_unregister(self, message: list[Any]) -> None:
        request, number = check_undo(message, "UNREGISTER")
        self._fail(message[0], request, "wamp.error.no_such_registration", f"no registration {number}")

    # --- answers ---

    def _fail_call(self, request: int, uri: str, text: str, details: dict[str, Any] | None = None) -> None:
        self._fail(MessageType.CALL, request, uri, text, details)

    def _fail(self, kind: int, request: int, uri: str, text: str, details: dict[str, Any] | None = None) -> None:
        head: list[Any] = [int(MessageType.ERROR), int(kind), request, {}, uri]
        whole = [*head, [text], details] if details else [*head, [text]]
        try:
            self._connection.send(whole)
        except (TooLong, MessageError):
            # Who asked waits for an answer, and no deadline would end that.
            self._send([*head, [f"{text[:ERROR_TEXT_MIN].encode(errors='replace').decode()}..."]])

    def _send(self, message: list[Any]) -> None:
        """Send what is short enough for everybody, or not worth an error."""
        try:
            self._connection.send(message)
        except (TooLong, MessageError) as error:
            log.warning("management: %s is not sent to %s: %s", type_name(message[0]), self.name, error)


Handler = Callable[[RealmSession, list[Any]], None]

_HANDLERS: Final[dict[State, dict[int, Handler]]] = {
    State.OPEN: {
        MessageType.HELLO: RealmSession._on_hello,
        MessageType.ABORT: RealmSession._on_abort,
    },
    State.JOINED: {
        MessageType.GOODBYE: RealmSession._on_goodbye,
        MessageType.ABORT: RealmSession._on_abort,
        MessageType.SUBSCRIBE: RealmSession._on_subscribe,
        MessageType.UNSUBSCRIBE: RealmSession._on_unsubscribe,
        MessageType.CALL: RealmSession._on_call,
        MessageType.CANCEL: RealmSession._on_cancel,
        MessageType.PUBLISH: RealmSession._on_publish,
        MessageType.REGISTER: RealmSession._on_register,
        MessageType.UNREGISTER: RealmSession._on_unregister,
    },
    State.DISMISSED: {
        MessageType.GOODBYE: RealmSession._on_answer,
        MessageType.ABORT: RealmSession._on_answer,
        MessageType.SUBSCRIBE: RealmSession._ignore,
        MessageType.UNSUBSCRIBE: RealmSession._ignore,
        MessageType.CALL: RealmSession._ignore,
        MessageType.CANCEL: RealmSession._ignore,
        MessageType.PUBLISH: RealmSession._ignore,
        MessageType.REGISTER: RealmSession._ignore,
        MessageType.UNREGISTER: RealmSession._ignore,
    },
    State.CLOSED: {},
}
