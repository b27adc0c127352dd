"""Joining a router for one client: which connection, which address, and what becomes of failures."""

import errno
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.auth.base import Accept
from proxy.auth.routers import Answer, Client, LoginError, RouterLogin
from proxy.back import Back, Joiner
from proxy.connections import ANY, ProxyConnection
from proxy.forwarding import leave_taking
from proxy.handshake import HandshakeError, build_request, check_response
from proxy.messages import (
    SERIALIZER_NAMES,
    SUBPROTOCOL_NAMES,
    MessageError,
    MessageType,
    abort,
    check_abort,
    check_challenge,
    check_welcome,
    decode,
    encode,
    type_name,
)
from proxy.messages import Challenge as ChallengeMessage
from proxy.plane import (
    CLOSED_DEADLINE,
    CLOSED_FRONT_GONE,
    CLOSED_NOMEM,
    CLOSED_REFUSED,
    CLOSED_TLS,
    CLOSED_TOO_BIG,
    EV_CLOSED,
    EV_HEAD,
    EV_MESSAGE,
    EV_VIOLATION,
    HANDSHAKE_DROPPED,
    Plane,
    closed_text,
)
from proxy.session_ids import Claim
from proxy.session_states import SYSTEM_SHUTDOWN
from proxy.turns import Turns

__all__ = ["BackendJoin"]

log = logging.getLogger(__name__)

HTTPS_PORT: Final = 443

# HANDSHAKE_DROPPED plus the RawSocket error octet "serializer unsupported".
RAWSOCKET_SERIALIZER: Final = HANDSHAKE_DROPPED + 1

OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})

_CLOSE_REASON_LENGTH: Final = 200

# CHALLENGEs that a router may ask on one connection: every method has one.
CHALLENGES_MAX: Final = 4

# What becomes of a connection that is stopped or drained while a login is on its way to it.
OUT_OF_SERVICE: Final = "is out of service by now"
# What clients are told where there is no TLS with the router: why, only the log says.
TLS_FAILED: Final = "cannot be reached: TLS failed"
# What becomes of it when its route is changed while the login waits for its turn.
OUT_OF_ROUTE: Final = "is not in the route any more"


def _too_long(_: object, seconds: float) -> Failure:
    return Failure(LoginError(f"what the router asks takes more than {seconds:g} s to compute"))


class BackendJoin:
    """One attempt after the other, until a router says WELCOME or ABORT or there is none left to try.

    A connection is tried with the client's own serializer first and then, if the router refuses that, with those that
    can be translated; each at the address where the last one was refused, and on.

    :param session: the client session; told by ``joined()`` or ``refused()``, once, unless cancel() comes first.
    :param candidates: connections in the order of the route.
    :param client: who the client is, and what it said.
    :param claim: realm and session ID, for the data plane.
    :param leads_to: whether the client's realm and role lead to a connection, by its id, at this moment.
    """

    __slots__ = (
        "_address",
        "_addresses",
        "_candidates",
        "_challenges",
        "_claim",
        "_failures",
        "_hellos",
        "_key",
        "_leads_to",
        "_login",
        "_lookup",
        "_others",
        "_plane",
        "_postponed",
        "_serializer",
        "_session",
        "_thinking",
        "_turns",
        "_waits_for",
        "_ways",
        "back",
        "client",
    )

    def __init__(
        self,
        plane: Plane,
        session: Joiner,
        candidates: list[ProxyConnection],
        client: Client,
        claim: Claim,
        leads_to: Callable[[str], bool],
    ) -> None:
        self._plane = plane
        self._session = session
        self.client = client
        self._claim = claim
        self._leads_to = leads_to
        if len(candidates) > 1:
            # Those that failed lately come last: they are tried before the client is refused, not before.
            candidates = sorted(candidates, key=lambda connection: connection.is_down(session.serializer))
        self._candidates = deque(candidates)
        self._postponed: set[ProxyConnection] = set()
        self._addresses: Sequence[bytes] = ()
        self._address = 0
        self._ways: Iterator[int] = iter(())
        self._serializer = 0
        # The login at the connection that is tried, and its HELLO by serializer.
        self._login: RouterLogin | None = None
        self._hellos: dict[int, bytes] = {}
        self._challenges = 0
        self._thinking: Deferred[Answer] | None = None
        # What was tried: connection ID and what became of it; and whether anything but serializers was in the way.
        self._failures: list[tuple[str, str]] = []
        self._others = False
        # The connection whose turns it waits for, and those that it has one of.
        self._waits_for: ProxyConnection | None = None
        self._turns: Turns | None = None
        self._key = ""
        self._lookup: Deferred[list[bytes]] | None = None
        self.back: Back | None = None

    def start(self) -> None:
        """Try the first connection."""
        self._next_connection()

    def cancel(self) -> None:
        """The client is gone: the data plane closes what was dialled for it."""
        lookup, self._lookup = self._lookup, None
        if lookup is not None:
            lookup.cancel()
        self._stop_thinking()
        if self.back is not None:
            self.back.session = None
            self.back = None
        waits_for, self._waits_for = self._waits_for, None
        if waits_for is not None:
            waits_for.turns.drop(self)
        self._leave_turn()

    @property
    def accept(self) -> Accept:
        """Who the client is."""
        return self.client.accept

    def _stop_thinking(self) -> None:
        thinking, self._thinking = self._thinking, None
        if thinking is not None:
            thinking.cancel()

    # --- going on ---

    def _next_connection(self) -> None:
        while self._candidates:
            candidate = self._candidates.popleft()
            # What it was when this login began may have been replaced: with its permit, its secrets and its address.
            connection = candidate.latest
            if not connection.takes_logins or connection.relays is not candidate.relays:
                self._fell_through(connection, OUT_OF_SERVICE)
            elif not self._leads_to(connection.id):
                self._fell_through(connection, OUT_OF_ROUTE)
            elif not connection.ways(self._session.serializer):
                text = f"does not take {self._serializer_text(self._session.serializer)}"
                self._failures.append((connection.id, text))
            else:
                self._waits_for = connection
                if connection.turns.take(self):
                    self.on_turn(connection.turns)
                return
        self._give_up()

    def on_turn(self, turns: Turns) -> None:
        """See :class:`proxy.turns.Waiter`."""
        self._turns = turns
        try:
            self._on_turn()
        except Exception:  # who else has the turn to give does not know whose login it is
            self._crashed(Failure())

    def _on_turn(self) -> None:
        connection, self._waits_for = self._waits_for, None
        assert connection is not None
        if connection.successor is not None:
            self._candidates.appendleft(connection)
            self._after_failure()
            return
        if not connection.takes_logins:
            self._fell_through(connection, OUT_OF_SERVICE)
            self._after_failure()
            return
        if not self._leads_to(connection.id):
            self._fell_through(connection, OUT_OF_ROUTE)
            self._after_failure()
            return
        if self._candidates and connection not in self._postponed and connection.is_down(self._session.serializer):
            # It failed while this login waited for its turn there: the others first.
            self._postponed.add(connection)
            self._candidates.append(connection)
            self._after_failure()
            return
        try:
            self._login = connection.login(self.client)
        except LoginError as error:
            self._fell_through(connection, str(error))
            self._after_failure()
            return
        self._hellos.clear()
        lookup = connection.resolve()
        self._lookup = lookup
        lookup.addCallbacks(
            self._resolved, self._unresolved, callbackArgs=(connection,), errbackArgs=(connection,)
        ).addErrback(self._crashed)

    def on_turn_late(self, turns: Turns) -> None:
        """See :class:`proxy.turns.Waiter`."""
        connection, self._waits_for = self._waits_for, None
        assert connection is not None
        self._fell_through(connection, "has too many logins before this one")
        self._after_failure()

    def _leave_turn(self) -> None:
        """Let somebody else have its turn at the connection."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.leave()

    def _resolved(self, addresses: list[bytes], connection: ProxyConnection) -> None:
        self._lookup = None
        if not addresses:
            self._failed(connection, "has no address", "")
            self._after_failure()
            return
        self._addresses = addresses
        self._address = 0
        self._ways = iter(connection.open_ways(self._session.serializer))
        self._next_way(connection)

    def _unresolved(self, failure: Failure, connection: ProxyConnection) -> None:
        if self._lookup is None:
            return
        self._lookup = None
        self._failed(connection, "cannot be resolved", failure.getErrorMessage())
        self._after_failure()

    def _crashed(self, failure: Failure) -> None:
        log.error("error while joining a router\n%s", failure.getTraceback())
        self._refuse(abort("wamp.error.runtime_error", "internal error of the proxy"))

    def _next_way(self, connection: ProxyConnection) -> None:
        """Dial with the next serializer, or go on to the next connection."""
        if not connection.takes_logins:
            self._fell_through(connection, OUT_OF_SERVICE)
            self._after_failure()
            return
        for serializer in self._ways:
            try:
                self._hello(serializer)
            except MessageError as error:
                self._fell_through(connection, f"cannot be told HELLO: {error}")
                continue
            self._serializer = serializer
            self._dial(connection)
            return
        self._after_failure()

    def _next_address(self, connection: ProxyConnection) -> bool:
        """Dial the next address of the connection; False when there is none."""
        self._address += 1
        if self._address >= len(self._addresses) or self._is_committed:
            return False
        self._dial(connection)
        return True

    def _dial(self, connection: ProxyConnection) -> None:
        session, serializer = self._session, self._serializer
        request = b""
        if connection.target is not None:
            target = connection.target
            # An HTTP client leaves the port out where it is the scheme's own (RFC 9110 section 7.2).
            port = 0 if target.secure and target.port == HTTPS_PORT else target.port
            request, self._key = build_request(
                target.host, port, target.resource, [SUBPROTOCOL_NAMES[serializer]], connection.headers
            )
        hello = self._hello(serializer)
        self._challenges = 0
        # Only now: an owner that is never dialled would never be dropped.
        back = self.back = Back(self._plane, session, connection, serializer, self._claim)
        self._plane.dial(
            session.conn,
            back.token,
            connection.params,
            serializer,
            self._addresses[self._address],
            request,
            hello,
            connection.dial_ms,
            connection.join_ms,
            self._claim.realm,
            self._claim.front_sid,
        )

    def _hello(self, serializer: int) -> bytes:
        """HELLO for the router.

        :raises MessageError: the serializer cannot express it.
        """
        hello = self._hellos.get(serializer)
        if hello is None:
            assert self._login is not None
            hello = self._hellos[serializer] = encode(serializer, self._login.hello())
        return hello

    # --- what the router says ---

    def on_back(self, back: Back, kind: int, arg: int, data: bytes) -> None:
        """An event of the router's connection while the join is under way."""
        if kind == EV_MESSAGE:
            self._on_message(back, arg, data)
        elif kind == EV_HEAD:
            self._on_head(back, data)
        elif kind == EV_CLOSED:
            self._on_closed(back, arg, data)
        elif kind == EV_VIOLATION:
            self._broken(back, "sent something that is not a WAMP message")
        else:
            self._broken(back, "is in a state that it cannot be in")

    def _on_head(self, back: Back, data: bytes) -> None:
        subprotocol = SUBPROTOCOL_NAMES[back.serializer]
        try:
            check_response(data[1:], self._key, [subprotocol])
        except HandshakeError as error:
            back.session = None
            self._plane.abort(back.conn)
            self._refused(back, f"refused the WebSocket handshake for subprotocol {subprotocol}: {error}")
            return
        self._plane.upgrade(back.conn, b"", back.serializer)

    def _on_message(self, back: Back, code: int, data: bytes) -> None:
        try:
            message = decode(back.serializer, data, trusted=True)
            if message[0] == MessageType.WELCOME:
                welcome = check_welcome(message)
            elif message[0] == MessageType.ABORT:
                reason = check_abort(message).reason
                self._aborted(back, reason, leave_taking(back.serializer, self._session.serializer, data, message))
                return
            elif message[0] == MessageType.CHALLENGE:
                self._on_challenge(back, check_challenge(message))
                return
            else:
                self._broken(back, f"answered HELLO with {type_name(code)}")
                return
        except MessageError as error:
            self._broken(back, f"answered HELLO with something else: {error}")
            return
        if not back.connection.takes_logins:
            # Stopped while it was joined: no session may come to life on it any more.
            back.say_goodbye(SYSTEM_SHUTDOWN)
            self._fell_through(back.connection, OUT_OF_SERVICE)
            self._after_failure()
            return
        assert self._login is not None
        try:
            self._login.verify(welcome)
        except LoginError as error:
            self._cannot_answer(back, f"is not to be trusted: {error}")
            return
        back.has_joined(welcome.session_id)
        back.connection.mark_up(back.serializer)
        self.back = None
        self._leave_turn()
        self._session.joined(back, welcome, self._login)

    def _on_challenge(self, back: Back, question: ChallengeMessage) -> None:
        """The router wants to know more before it lets anybody in."""
        assert self._login is not None
        self._challenges += 1
        if self._challenges > CHALLENGES_MAX:
            self._broken(back, f"asks for more than {CHALLENGES_MAX} answers")
            return
        if self._login.RELAYS:
            self._leave_turn()  # clients take their time, and others are not to wait for them
        try:
            answer = self._login.challenge(question.authmethod, question.extra)
        except LoginError as error:
            self._cannot_answer(back, str(error))
            return
        if isinstance(answer, Deferred):
            self._thinking = answer
            if not self._login.RELAYS and not answer.called:
                # Neither the client nor the router is waited for meanwhile, and so by nobody's deadline.
                connection = back.connection
                answer.addTimeout(connection.join_ms / 1000, connection.controller.reactor, _too_long)
            answer.addCallbacks(self._thought, self._not_thought, callbackArgs=(back,), errbackArgs=(back,))
            answer.addErrback(self._crashed)
        else:
            self._authenticate(back, answer)

    def _thought(self, answer: Answer, back: Back) -> None:
        if self._thinking is not None:
            self._thinking = None
            self._authenticate(back, answer)

    def _not_thought(self, failure: Failure, back: Back) -> None:
        if self._thinking is None:
            return
        self._thinking = None
        failure.trap(LoginError)
        self._cannot_answer(back, failure.getErrorMessage())

    def _authenticate(self, back: Back, answer: Answer) -> None:
        """Answer the router."""
        signature, extra = answer
        try:
            message = encode(back.serializer, [int(MessageType.AUTHENTICATE), signature, extra])
        except MessageError as error:
            self._cannot_answer(back, str(error))
            return
        self._plane.send(back.conn, message)
        self._plane.next(back.conn, back.connection.join_ms)

    def _cannot_answer(self, back: Back, text: str) -> None:
        back.leave(encode(back.serializer, abort("wamp.error.cannot_authenticate")))
        assert self._login is not None
        if not self._login.RELAYS:
            self._failed(back.connection, "does not let the proxy log in", text)
            self._after_failure()
            return
        log.warning("connection %s: %s", back.connection.id, text)
        self._refuse(abort("wamp.error.authentication_failed", f"{text} (connection {back.connection.id})"))

    def _aborted(self, back: Back, reason: str, data: bytes) -> None:
        """The router refuses this client. That is its right, not a failure: no other router is asked. Where it refuses
        the proxy itself, no client can be joined there, and others are asked."""
        back.leave(b"")
        assert self._login is not None
        if self._login.refuses_proxy(reason):
            self._failed(back.connection, "does not let the proxy log in", f"the router says {reason}")
            self._after_failure()
            return
        self.back = None
        self._leave_turn()
        self._session.refused(data, reason)

    def _broken(self, back: Back, text: str) -> None:
        """The router does not keep to the protocol."""
        back.leave(encode(back.serializer, abort("wamp.error.protocol_violation")))
        log.warning("connection %s: the router %s", back.connection.id, text)
        self._fell_through(back.connection, text)
        self._after_failure()

    def _on_closed(self, back: Back, arg: int, data: bytes) -> None:
        self._stop_thinking()
        if arg & 0xFF == CLOSED_FRONT_GONE:
            self.back = None  # the client's own EV_CLOSED is the next to come
            return
        connection = back.connection
        reason, number = arg & 0xFF, arg >> 8 & 0xFFFF
        if reason == CLOSED_REFUSED and number >= HANDSHAKE_DROPPED:
            name = self._serializer_text(back.serializer)
            if number == RAWSOCKET_SERIALIZER:
                self._refused(back, f"does not take {name}")
            else:
                self._refused(back, f"broke off the transport handshake, maybe because of {name}")
            return
        if reason == CLOSED_REFUSED and number in OUT_OF_DESCRIPTORS:
            log.error("connection %s cannot be dialled: the proxy is out of file descriptors", connection.id)
            self._fell_through(connection, "cannot be dialled, the proxy is out of file descriptors")
        elif reason == CLOSED_TOO_BIG:
            self._fell_through(connection, "does not take a HELLO of this size, or sent too long an answer")
        elif reason == CLOSED_TLS:
            self._tls_failed(connection, data)
            return
        elif reason == CLOSED_NOMEM:
            self._fell_through(connection, "cannot be dialled, the proxy is out of memory")
        elif reason in (CLOSED_REFUSED, CLOSED_DEADLINE):
            if self._next_address(connection):
                return
            text = "cannot be reached" if reason == CLOSED_REFUSED else "did not answer in time"
            if self._is_committed:
                # It asked the client and then thought for too long about the answer: that may be this client's doing.
                self._fell_through(connection, text)
            else:
                self._failed(connection, text, closed_text(arg))
        else:
            # It was there and spoke our protocol. What ended it may be this one client's HELLO, so nobody else suffers.
            detail = data[:_CLOSE_REASON_LENGTH].decode("utf-8", "replace")
            self._fell_through(connection, "closed the connection instead of answering HELLO")
            log.warning(
                "connection %s: the router closed instead of answering HELLO (%s) %r",
                connection.id,
                closed_text(arg),
                detail,
            )
        self._after_failure()

    # --- failing ---

    def _tls_failed(self, connection: ProxyConnection, data: bytes) -> None:
        """No TLS with the router, or it was broken off. The reason is the operator's, and no client's business."""
        if self._next_address(connection):
            return
        detail = data[:_CLOSE_REASON_LENGTH].decode("utf-8", "replace")
        if self._is_committed:
            log.warning("connection %s: TLS failed: %s", connection.id, detail)
            self._fell_through(connection, TLS_FAILED)
        else:
            self._failed(connection, TLS_FAILED, detail)
        self._after_failure()

    def _serializer_text(self, serializer: int) -> str:
        own = "the client's " if serializer == self._session.serializer else ""
        return f"{own}serializer {SERIALIZER_NAMES[serializer]}"

    def _refused(self, back: Back, text: str) -> None:
        """The router does not take this serializer, as far as one can tell: another one, or another router."""
        connection = back.connection
        self.back = None
        self._failures.append((connection.id, text))
        if connection.mark_down(back.serializer):
            log.warning("connection %s %s", connection.id, text)
        self._next_way(connection)

    def _failed(self, connection: ProxyConnection, text: str, detail: str) -> None:
        """The connection does not work, for anybody."""
        if connection.mark_down(ANY):
            log.warning("connection %s %s%s", connection.id, text, f" ({detail})" if detail else "")
        self._fell_through(connection, text)

    def _fell_through(self, connection: ProxyConnection, text: str) -> None:
        self._failures.append((connection.id, text))
        self._others = True

    def _after_failure(self) -> None:
        self.back = None
        self._leave_turn()
        if self._is_committed:
            self._give_up()
        else:
            self._next_connection()

    @property
    def _is_committed(self) -> bool:
        return self._login is not None and self._login.is_committed

    def _give_up(self) -> None:
        accept = self.accept
        where = f'realm "{accept.realm}" and role "{accept.authrole}"'
        tried = "; ".join(f'connection "{name}" {text}' for name, text in self._failures)
        if not self._failures:
            kind = " and relays logins" if accept.authmethod == "passthrough" else ""
            message = f"no router for {where}: none of the route's connections is started{kind}"
        elif self._others:
            message = f"no router for {where} could be joined: {tried}"
        else:
            message = f"no router for {where} takes {self._serializer_text(self._session.serializer)}: {tried}"
        self._refuse(abort("wamp.error.network_failure", message))

    def _refuse(self, message: list[Any]) -> None:
        self.cancel()
        self._session.refused(encode(self._session.serializer, message), message[2])
