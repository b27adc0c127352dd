"""A client's connection: handshake, login, session, and its end: a state machine that the data plane's events drive.

States and the events they take are the tables at the end. While a session is idle, memory holds what the slots of
FrontSession name: HELLO, WELCOME and all that belongs to the login are gone once it is done.
"""

import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from proxy.auth import Deny, authenticate
from proxy.backend import Back, BackendJoin
from proxy.forwarding import forwarded_headers, front_welcome, leave_taking, transport_details
from proxy.handshake import HttpError, head_too_large, parse_request
from proxy.messages import (
    MessageError,
    MessageType,
    Welcome,
    abort,
    check_abort,
    check_goodbye,
    check_hello,
    decode,
    encode,
    goodbye,
    type_name,
)
from proxy.plane import (
    EV_CLOSED,
    EV_CONTROL,
    EV_HEAD,
    EV_MESSAGE,
    EV_OPEN,
    EV_REFUSED,
    EV_VIOLATION,
    ST_DEADLINE,
    ST_TOO_BIG,
    closed_text,
    peer_text,
    violation_text,
)
from proxy.refusals import INVALID_PAYLOAD, PAYLOAD_SIZE_EXCEEDED, fail_request
from proxy.routes import NoSuchRealm, NoSuchRole
from proxy.session_ids import Claim
from proxy.session_states import (
    CODE_GOING_AWAY,
    CODE_NORMAL,
    CODE_PROTOCOL_ERROR,
    CODE_SERVICE_RESTART,
    CODE_TOO_BIG,
    State,
)

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["FrontSession", "State", "head_error"]

log = logging.getLogger(__name__)

PROTOCOL_VIOLATION: Final = "wamp.error.protocol_violation"
GOODBYE_AND_OUT: Final = "wamp.close.goodbye_and_out"
SYSTEM_SHUTDOWN: Final = "wamp.close.system_shutdown"
# What clients take for an accident, after which they come again; "wamp.close.normal" would make them stay away.
TRANSPORT_LOST: Final = "wamp.close.transport_lost"


@lru_cache(maxsize=64)
def _goodbye(serializer: int, reason: str, message: str | None = None) -> bytes:
    """One of our own few GOODBYE messages, encoded."""
    return encode(serializer, goodbye(reason, message))


def head_error(status: int) -> HttpError:
    """What to answer when EV_VIOLATION comes instead of an HTTP head."""
    if status == ST_DEADLINE:
        return HttpError(408, "the request's head did not come in time")
    if status == ST_TOO_BIG:
        return head_too_large()
    return HttpError(400, "malformed request")


class FrontSession:
    """One client connection and the session on it, if any.

    :param transport: the listening transport that it came through.
    :param conn: its number in the data plane.

    :ivar front_sid: the session ID that the client was told, or will be; 0: it has none, or the router chooses it.
    """

    __slots__ = (
        "authid",
        "back",
        "conn",
        "deadline",
        "extension",
        "front_sid",
        "headers",
        "join",
        "peer",
        "plane",
        "realm",
        "serializer",
        "state",
        "subprotocol",
        "timer",
        "transport",
    )

    def __init__(self, transport: "ProxyTransport", conn: int) -> None:
        self.transport = transport
        self.plane = transport.plane
        self.conn = conn
        self.state = State.HANDSHAKE
        self.serializer = 0
        self.peer = ""
        self.headers: dict[str, str] | None = None
        self.subprotocol: str | None = None
        self.extension: str | None = None
        self.join: BackendJoin | None = None
        self.back: Back | None = None
        self.front_sid = 0
        self.realm = ""
        self.authid = ""
        self.timer: Any = None  # IDelayedCall
        self.deadline = 0.0

    # --- events ---

    def on_front(self, kind: int, arg: int, data: bytes) -> None:
        """An event of the client's connection."""
        handler = FRONT[self.state].get(kind)
        if handler is None:
            raise RuntimeError(f"event {kind} in state {self.state.name}")
        handler(self, arg, data)

    def on_back(self, back: Back, kind: int, arg: int, data: bytes) -> None:
        """An event of the router's connection."""
        if self.join is not None:
            self.join.on_back(back, kind, arg, data)
            return
        handler = BACK[self.state].get(kind)
        if handler is None:
            raise RuntimeError(f"event {kind} of the router in state {self.state.name}")
        handler(self, arg, data)

    def crashed(self) -> None:
        """Something went wrong in here: end both sides."""
        self._detach(TRANSPORT_LOST)
        if self.state < State.CLOSING:
            self.state = State.CLOSING
            self.plane.abort(self.conn)

    def back_crashed(self, back: Back) -> None:
        """Something went wrong while the router's event was handled: end both sides."""
        self.crashed()

    def _ignore(self, arg: int, data: bytes) -> None:
        """An event that was under way while we decided otherwise."""

    # --- transport handshake ---

    def _on_head(self, arg: int, data: bytes) -> None:
        start = 1 + data[0]
        self.peer = peer_text(data[1:start])
        try:
            request = parse_request(data[start:])
            accepted = self.transport.accept(self.conn, request)
        except HttpError as error:
            self._reply(error)
            return
        self.headers = forwarded_headers(request.headers)
        self.serializer = accepted.serializer
        # Both are known to the handshake, so there are few different ones and connections may share them.
        self.subprotocol = sys.intern(accepted.subprotocol)
        if accepted.compression is not None:
            self.extension = sys.intern(accepted.compression.response)
        self.state = State.OPEN
        self.plane.upgrade(self.conn, accepted.response, accepted.serializer, **accepted.keywords)

    def _on_bad_head(self, arg: int, data: bytes) -> None:
        self._reply(head_error(arg))

    def _reply(self, error: HttpError) -> None:
        self.state = State.CLOSING
        self.plane.reply(self.conn, error.to_bytes())

    def _on_open(self, arg: int, data: bytes) -> None:
        self.serializer = arg
        self.peer = peer_text(data)
        self.state = State.OPEN

    # --- login ---

    def _on_first(self, code: int, data: bytes) -> None:
        if code == MessageType.HELLO:
            self._on_hello(data)
        elif code == MessageType.ABORT:
            self._close(CODE_NORMAL)
        else:
            self._violated(f"{type_name(code)} where HELLO is expected")

    def _on_hello(self, data: bytes) -> None:
        try:
            realm, details = check_hello(decode(self.serializer, data))
        except MessageError as error:
            self._violated(str(error))
            return
        transport = transport_details(
            self.transport.kind, self.serializer, self.peer, self.headers, self.subprotocol, self.extension
        )
        controller = self.transport.controller
        if self.transport.draws_sids:
            # Before anything is decided: a CHALLENGE names the ID that WELCOME will have.
            self.front_sid = controller.session_ids.draw()
        decision = authenticate(self.transport.auth, realm, details, transport)
        if isinstance(decision, Deny):
            self._deny(decision.reason, decision.message)
            return
        try:
            candidates = controller.pick(decision.realm, decision.authrole, self.serializer)
        except NoSuchRealm:
            self._deny("wamp.error.no_such_realm", f'no route for realm "{decision.realm}"')
            return
        except NoSuchRole:
            text = f'no route for role "{decision.authrole}" in realm "{decision.realm}"'
            self._deny("wamp.error.no_such_role", text)
            return
        try:
            number = self.plane.add_realm(decision.realm)
        except RuntimeError as error:
            log.error("realm %s cannot be joined: %s", decision.realm, error)
            self._deny("wamp.error.unavailable", f'no room for realm "{decision.realm}" in the proxy')
            return
        # It is known to the route table, so there are few different ones and sessions may share them.
        self.realm = sys.intern(decision.realm)
        self.state = State.JOINING
        claim = Claim(controller.session_ids, number, self.front_sid)
        self.join = BackendJoin(self.plane, self, candidates, details, decision, transport, controller.identity, claim)
        self.join.start()

    def joined(self, back: Back, welcome: Welcome) -> None:
        """The router let us in: tell the client, and get out of the way."""
        assert self.join is not None
        identity = self.join.accept
        self.join = None
        self.back = back
        back_sid = welcome.session_id
        controller = self.transport.controller
        own_sid = self.transport.draws_sids
        if not own_sid:
            self.front_sid = back_sid
        controller.session_ids.join(self.front_sid, back_sid)
        details = front_welcome(welcome, identity, back.connection.asserts_identity, self.front_sid)
        details["authextra"].update(controller.own_authextra)
        details["authextra"]["x_cb_proxy_peer"] = self.peer
        try:
            message = encode(self.serializer, [int(MessageType.WELCOME), self.front_sid, details])
        except MessageError as error:
            self._detach(INVALID_PAYLOAD)
            self._deny(INVALID_PAYLOAD, f"the router's WELCOME: {error}")
            return
        self.authid = details["authid"]
        self.state = State.ESTABLISHED
        self.plane.link(self.conn, back.conn, message)
        if controller.logs_sessions:
            log.info(
                "session %d joined realm %s as %s (%s) from %s through %s to %s%s",
                self.front_sid,
                self.realm,
                self.authid,
                details["authrole"],
                self.peer,
                self.transport.id,
                back.connection.id,
                f" (session {back_sid} there)" if own_sid else "",
            )

    def refused(self, message: bytes, reason: str) -> None:
        """No router took the client: it gets this ABORT."""
        self._detach("")
        self._log_refused(reason)
        self._close(CODE_NORMAL, message)

    def _deny(self, reason: str, message: str) -> None:
        self._detach("")
        self._log_refused(reason)
        self._close(CODE_NORMAL, encode(self.serializer, abort(reason, message)))

    def _log_refused(self, reason: str) -> None:
        if self.transport.controller.logs_sessions:
            log.info("login from %s refused: %s", self.peer, reason)

    # --- the client leaves ---

    def _on_goodbye(self, code: int, data: bytes) -> None:
        """The client's GOODBYE goes to the router, whose answer ends the session."""
        assert self.back is not None
        try:
            message = decode(self.serializer, data)
            check_goodbye(message)
        except MessageError as error:
            self._violated(str(error))
            return
        self.state = State.LEAVING
        self.plane.send(self.back.conn, leave_taking(self.serializer, self.back.serializer, data, message))
        seconds = self.back.connection.goodbye_ms / 1000
        self.timer = self.transport.controller.reactor.callLater(seconds, self._goodbye_timeout)

    def _goodbye_timeout(self) -> None:
        self.timer = None
        self._left(b"")

    def _on_back_left(self, code: int, data: bytes) -> None:
        assert self.back is not None
        source = self.back.serializer
        if code != MessageType.GOODBYE:
            data = b""
        elif source != self.serializer:
            try:
                message = decode(source, data, trusted=True)
                check_goodbye(message)
                data = leave_taking(source, self.serializer, data, message)
            except MessageError:
                data = b""
        self._left(data)

    def _on_back_lost_leaving(self, arg: int, data: bytes) -> None:
        self._left(b"")

    def _left(self, goodbye_of_router: bytes) -> None:
        """The session is over on both sides. The connection stays, for another one."""
        self.plane.unlink(self.conn)
        self.plane.send(self.conn, goodbye_of_router or _goodbye(self.serializer, GOODBYE_AND_OUT))
        self._log_left("the client said GOODBYE")
        self._detach("")
        self._await_hello()

    def _await_hello(self) -> None:
        if self.transport.controller.is_stopping:
            self._close(CODE_GOING_AWAY)
            return
        self.state = State.OPEN
        self.plane.next(self.conn)

    def _on_lost(self, arg: int, data: bytes) -> None:
        """The client's connection is gone: its session must not stay with the router."""
        if self.state in (State.ESTABLISHED, State.LEAVING):
            self._log_left(f"the client's connection: {closed_text(arg)}")
        # While LEAVING the router has the client's own GOODBYE already.
        self._detach(TRANSPORT_LOST if self.state is State.ESTABLISHED else "")
        self.state = State.CLOSED
        self.transport.gone(self.conn)

    # --- the router leaves ---

    def _on_dismissed(self, code: int, data: bytes) -> None:
        """The router's GOODBYE or ABORT: the client gets it as it is."""
        assert self.back is not None
        source = self.back.serializer
        try:
            message = decode(source, data, trusted=True)
            if code == MessageType.ABORT:
                reason = check_abort(message).reason
            else:
                reason = check_goodbye(message).reason
        except MessageError as error:
            self._router_broke(str(error))
            return
        self._log_left(f"the router said {type_name(code)}, {reason}")
        data = leave_taking(source, self.serializer, data, message)
        if code == MessageType.ABORT:
            self.plane.unlink(self.conn)
            self._detach("")
            self._close(CODE_NORMAL, data)
        else:
            self._dismiss(data, GOODBYE_AND_OUT)

    def _dismiss(self, message: bytes, to_router: str) -> None:
        """Send GOODBYE to both sides and wait for the client's answer."""
        self.plane.unlink(self.conn)
        self.plane.send(self.conn, message)
        self._detach(to_router)
        self.state = State.DISMISSED
        timeout_ms = self.transport.close_ms
        self.deadline = self.transport.controller.reactor.seconds() + timeout_ms / 1000
        self.plane.next(self.conn, timeout_ms)

    def _on_answer(self, code: int, data: bytes) -> None:
        """Something from a client that was sent GOODBYE. What it said before it knew is dropped."""
        if code == MessageType.GOODBYE:
            self._await_hello()
        elif code == MessageType.HELLO:
            self._violated("HELLO where the answer to GOODBYE is expected")
        elif code == MessageType.ABORT:
            self._close(CODE_NORMAL)
        else:
            left_ms = int((self.deadline - self.transport.controller.reactor.seconds()) * 1000)
            if left_ms > 0:
                self.plane.next(self.conn, left_ms)
            else:
                self._close(CODE_PROTOCOL_ERROR)

    def _on_crossed(self, code: int, data: bytes) -> None:
        """The client's own GOODBYE crossed the one to it; both mean the same. It is read from already."""
        if self.transport.controller.is_stopping:
            self._close(CODE_GOING_AWAY)
        else:
            self.state = State.OPEN

    def _on_back_lost(self, arg: int, data: bytes) -> None:
        self._log_left(f"the router's connection: {closed_text(arg)}")
        self._lose_back("the connection to the router is lost")

    def _router_broke(self, text: str) -> None:
        """The router broke the protocol. For the client that is no different from a router that died."""
        assert self.back is not None
        log.warning("connection %s: the router broke the protocol: %s", self.back.connection.id, text)
        self._log_left("the router broke the protocol")
        self._lose_back("the router broke the protocol")

    def _lose_back(self, text: str) -> None:
        self.plane.unlink(self.conn)
        self._detach(PROTOCOL_VIOLATION)
        self._close(CODE_SERVICE_RESTART, _goodbye(self.serializer, TRANSPORT_LOST, text))

    # --- messages that the other side cannot take ---

    def _on_refused(self, arg: int, data: bytes) -> None:
        """The router cannot take a message of the client."""
        self._fail_request(True, arg, data)

    def _on_back_refused(self, arg: int, data: bytes) -> None:
        """The client cannot take a message of the router."""
        self._fail_request(False, arg, data)

    def _fail_request(self, is_to_back: bool, status: int, data: bytes) -> None:
        """Fail the request that a refused message belongs to, and read on from where the message came."""
        back = self.back
        assert back is not None
        tally = self.transport.refused if is_to_back else back.connection.refused
        # After the client's GOODBYE nothing more may go to the router.
        fail_request(self, back, is_to_back, status, data, tally, tells_back=self.state is State.ESTABLISHED)
        self.plane.next(self.conn if is_to_back else back.conn)

    # --- violations ---

    def _on_violation(self, arg: int, data: bytes) -> None:
        text = violation_text(arg, data)
        if arg == ST_TOO_BIG:
            self._violated(text, PAYLOAD_SIZE_EXCEEDED, CODE_TOO_BIG)
        else:
            self._violated(text)

    def _violated(self, text: str, reason: str = PROTOCOL_VIOLATION, code: int = CODE_PROTOCOL_ERROR) -> None:
        """The client broke the protocol: ABORT to it, GOODBYE to the router, and both connections are closed."""
        if self.back is not None:
            self._log_left(f"{reason}, {text}")
            self.plane.unlink(self.conn)
            self._detach(reason)
        elif self.state is State.OPEN:
            self._log_refused(f"{reason}, {text}")
        self._close(code, encode(self.serializer, abort(reason, text)))

    def _on_back_violation(self, arg: int, data: bytes) -> None:
        self._router_broke(violation_text(arg, data))

    # --- the end ---

    def shut_down(self) -> None:
        """The worker ends: say so, and let the client go."""
        if self.state is State.ESTABLISHED:
            self._log_left("shutdown")
            self._dismiss(_goodbye(self.serializer, SYSTEM_SHUTDOWN), SYSTEM_SHUTDOWN)
        elif self.state is State.JOINING:
            self._detach("")
            self.plane.undial(self.conn)
            self._close(CODE_GOING_AWAY, encode(self.serializer, abort(SYSTEM_SHUTDOWN)))
        elif self.state in (State.HANDSHAKE, State.OPEN):
            self._close(CODE_GOING_AWAY)

    def _close(self, code: int, message: bytes = b"") -> None:
        """Send ``message``, if any, and close the client's transport."""
        self.state = State.CLOSING
        if message:
            self.plane.send(self.conn, message)
        self.plane.close(self.conn, code)

    def _detach(self, reason: str) -> None:
        """Let go of the router: GOODBYE with ``reason`` (none if empty) and close; end the login that is under way."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
        join, self.join = self.join, None
        if join is not None:
            join.cancel()
        back, self.back = self.back, None
        if back is not None:
            self.transport.controller.session_ids.drop(back.back_sid)
            back.leave(_goodbye(back.serializer, reason) if reason else b"")
        self._drop_sid()

    def _drop_sid(self) -> None:
        """The session, or the attempt at one, is over: its ID is free."""
        front_sid, self.front_sid = self.front_sid, 0
        if front_sid and self.transport.draws_sids:
            number = self.plane.add_realm(self.realm) if self.realm else 0
            self.transport.controller.session_ids.release(number, front_sid)
        self.realm = ""

    def _log_left(self, why: str) -> None:
        if self.transport.controller.logs_sessions:
            log.info("session %d left realm %s: %s", self.front_sid, self.realm, why)


Handler = Callable[[FrontSession, int, bytes], None]

FRONT: Final[dict[State, dict[int, Handler]]] = {
    State.HANDSHAKE: {
        EV_HEAD: FrontSession._on_head,
        EV_OPEN: FrontSession._on_open,
        EV_VIOLATION: FrontSession._on_bad_head,
        EV_CLOSED: FrontSession._on_lost,
    },
    State.OPEN: {
        EV_MESSAGE: FrontSession._on_first,
        EV_VIOLATION: FrontSession._on_violation,
        EV_CLOSED: FrontSession._on_lost,
    },
    State.JOINING: {EV_CLOSED: FrontSession._on_lost},
    State.ESTABLISHED: {
        EV_CONTROL: FrontSession._on_goodbye,
        EV_REFUSED: FrontSession._on_refused,
        EV_VIOLATION: FrontSession._on_violation,
        EV_CLOSED: FrontSession._on_lost,
    },
    State.LEAVING: {EV_CLOSED: FrontSession._on_lost},
    State.DISMISSED: {
        EV_MESSAGE: FrontSession._on_answer,
        EV_CONTROL: FrontSession._on_crossed,
        EV_REFUSED: FrontSession._ignore,
        EV_VIOLATION: FrontSession._on_violation,
        EV_CLOSED: FrontSession._on_lost,
    },
    State.CLOSING: {
        EV_MESSAGE: FrontSession._ignore,
        EV_CONTROL: FrontSession._ignore,
        EV_REFUSED: FrontSession._ignore,
        EV_VIOLATION: FrontSession._ignore,
        EV_CLOSED: FrontSession._on_lost,
    },
    State.CLOSED: {},
}

BACK: Final[dict[State, dict[int, Handler]]] = {
    State.ESTABLISHED: {
        EV_CONTROL: FrontSession._on_dismissed,
        EV_REFUSED: FrontSession._on_back_refused,
        EV_VIOLATION: FrontSession._on_back_violation,
        EV_CLOSED: FrontSession._on_back_lost,
    },
    State.LEAVING: {
        EV_CONTROL: FrontSession._on_back_left,
        EV_REFUSED: FrontSession._on_back_refused,
        EV_VIOLATION: FrontSession._on_back_lost_leaving,
        EV_CLOSED: FrontSession._on_back_lost_leaving,
    },
}
