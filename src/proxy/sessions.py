"""A client's connection: handshake, login, session, and its end: a state machine that the data plane's events drive.

States and the events they take are the tables at the end. While a session is idle, memory holds what the slots of
FrontEnd name: HELLO, WELCOME and all that belongs to the login are gone once it is done.
"""

import logging
import sys
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import succeed

from proxy.back import Back
from proxy.cookies.tracker import LOGOUT, Admission
from proxy.forwarded import client_peer
from proxy.forwarding import encoded_goodbye, forwarded_headers, leave_taking
from proxy.handshake import Accepted, HttpError, head_too_large, parse_request
from proxy.logins import LoginSession
from proxy.messages import (
    MessageError,
    MessageType,
    check_abort,
    check_goodbye,
    decode,
    type_name,
)
from proxy.peers import read_intro
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
    violation_text,
)
from proxy.refusals import PAYLOAD_SIZE_EXCEEDED, fail_request
from proxy.session_states import (
    CODE_GOING_AWAY,
    CODE_NORMAL,
    CODE_PROTOCOL_ERROR,
    CODE_SERVICE_RESTART,
    CODE_TOO_BIG,
    GOODBYE_AND_OUT,
    PROTOCOL_VIOLATION,
    TRANSPORT_LOST,
    State,
)

__all__ = ["FrontSession", "State", "head_error"]

log = logging.getLogger(__name__)


def head_error(status: int) -> HttpError:
    """What to answer when EV_VIOLATION comes instead of an HTTP head."""
    if status == ST_DEADLINE:
        return HttpError(408, "the request's head did not come in time")
    if status == ST_TOO_BIG:
        return head_too_large()
    return HttpError(400, "malformed request")


class FrontSession(LoginSession):
    """One client connection and the session on it, if any.

    Parameters as :class:`FrontEnd`.
    """

    __slots__ = ()

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
        peer, head = read_intro(data)
        self.peer, self.tls = peer.text, peer.tls
        try:
            request = parse_request(head, is_secure=peer.is_secure)
            self.peer = client_peer(peer, request.headers, self.transport.model.endpoint.forwarded).text
            accepted = self.entrance.accept(self.conn, request)
        except HttpError as error:
            self._reply(error)
            return
        self.headers = forwarded_headers(request.headers)
        self.serializer = accepted.serializer
        # Both are known to the handshake, so there are few different ones and connections may share them.
        self.subprotocol = sys.intern(accepted.subprotocol)
        if accepted.compression is not None:
            self.extension = sys.intern(accepted.compression.response)
        cookies = self.entrance.cookies
        if cookies is None:
            self._upgrade(accepted, accepted.response)
            return

        def admitted(admission: Admission | None) -> None:
            if self.state is not State.HANDSHAKE:
                return  # gone, or turned away, while the cookie was looked up
            response = accepted.response
            if admission is not None:
                cookies.enter(self, admission)
                if admission.header:
                    response = accepted.with_header("Set-Cookie", admission.header)
            self._upgrade(accepted, response)

        cookies.admit(request.headers.get("cookie", "")).addCallback(admitted).addErrback(self._on_error)

    def _upgrade(self, accepted: Accepted, response: bytes) -> None:
        self.state = State.OPEN
        self.entrance.upgrade(self.conn, accepted, response)

    def _on_bad_head(self, arg: int, data: bytes) -> None:
        self._reply(head_error(arg))

    def _reply(self, error: HttpError) -> None:
        self.state = State.CLOSING
        self.plane.reply(self.conn, error.to_bytes())

    def _on_open(self, arg: int, data: bytes) -> None:
        self.serializer = arg
        peer, _ = read_intro(data)
        self.peer, self.tls = peer.text, peer.tls
        self.state = State.OPEN

    # --- the client leaves ---

    def _on_goodbye(self, code: int, data: bytes) -> None:
        """The client's GOODBYE goes to the router, whose answer ends the session."""
        assert self.back is not None
        try:
            message = decode(self.serializer, data)
            goodbye = check_goodbye(message)
        except MessageError as error:
            self._violated(str(error))
            return
        back = self.back
        self.state = State.LEAVING
        seconds = back.connection.goodbye_ms / 1000
        self.timer = self.transport.controller.reactor.callLater(seconds, self._goodbye_timeout)

        def pass_on(_: None) -> None:
            if self.state is State.LEAVING and self.back is back:
                self.plane.send(back.conn, leave_taking(self.serializer, back.serializer, data, message))

        # Once it is answered the cookie is worth nothing, wherever the client shows it.
        cookies = self.entrance.cookies
        is_logout = cookies is not None and goodbye.reason == LOGOUT
        over = cookies.log_out(self) if cookies is not None and is_logout else succeed(None)
        over.addCallback(pass_on).addErrback(self._on_error)

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

    def _on_lost(self, arg: int, data: bytes) -> None:
        """The client's connection is gone: its session must not stay with the router."""
        if self.state in (State.ESTABLISHED, State.LEAVING):
            self._log_left(f"the client's connection: {closed_text(arg)}")
        # While LEAVING the router has the client's own GOODBYE already.
        self._detach(TRANSPORT_LOST if self.state is State.ESTABLISHED else "")
        self.state = State.CLOSED
        if self.entrance.cookies is not None:
            self.entrance.cookies.leave(self)
        self.entrance.gone(self.conn)

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
        if self.entrance.cookies is not None:
            self.entrance.cookies.dismissed(self, reason)
        data = leave_taking(source, self.serializer, data, message)
        if code == MessageType.ABORT:
            self.plane.unlink(self.conn)
            self._detach("")
            self._close(CODE_NORMAL, data)
        else:
            self._dismiss(data, GOODBYE_AND_OUT)

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
        if self.transport.takes_logins:
            self.state = State.OPEN
        else:
            self._close(CODE_GOING_AWAY)

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
        self._close(CODE_SERVICE_RESTART, encoded_goodbye(self.serializer, TRANSPORT_LOST, text))

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

    def _on_back_violation(self, arg: int, data: bytes) -> None:
        self._router_broke(violation_text(arg, data))


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
    State.AUTHENTICATING: {EV_CLOSED: FrontSession._on_lost},
    State.CHALLENGED: {
        EV_MESSAGE: FrontSession._on_authenticate,
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
