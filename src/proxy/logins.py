"""A client's login: from HELLO over what its authentication asks for to the router's WELCOME."""

import logging
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.auth.authenticators import unavailable
from proxy.auth.base import UNAVAILABLE, Accept, Attempt, Challenge, Decision, Deny, Outcome, PassThrough, failed
from proxy.auth.routers import RouterLogin
from proxy.back import Back
from proxy.cookies.tracker import LOGOUT
from proxy.forwarding import transport_details
from proxy.front_end import FrontEnd
from proxy.login_limits import LoginLimits
from proxy.messages import (
    ID_MAX,
    MessageError,
    MessageType,
    Welcome,
    abort,
    check_authenticate,
    check_hello,
    decode,
    encode,
    type_name,
)
from proxy.refusals import INVALID_PAYLOAD
from proxy.routes import NoSuchRealm, NoSuchRole
from proxy.session_states import (
    CODE_GOING_AWAY,
    CODE_NORMAL,
    CODE_PROTOCOL_ERROR,
    PROTOCOL_VIOLATION,
    SYSTEM_SHUTDOWN,
    State,
)
from proxy.turns import Turns

__all__ = ["Login", "LoginSession"]

log = logging.getLogger("proxy.sessions")

# What the routers are told, and the log, of clients that a router is to decide about.
RELAYED: Final = "passthrough"

_LOGGED_MAX: Final = 256  # characters

# Ends of a relayed login that say nothing of who the client is. Routers have all kinds of URIs for the others.
_NOT_OF_CLIENT: Final = frozenset({"wamp.error.network_failure", "wamp.error.runtime_error", SYSTEM_SHUTDOWN})


def _no_such_role(realm: str, role: str) -> tuple[str, str]:
    return "wamp.error.no_such_role", f'no route for role "{role}" in realm "{realm}"'


def _shared(name: object) -> str:
    """A name that many sessions have, so that they have it in memory once."""
    return sys.intern(name) if type(name) is str else str(name)


def _on_one_line(name: str) -> str:
    """A name as the log has it. Clients may choose theirs where nobody minds: it must not look like more lines."""
    is_plain = len(name) <= _LOGGED_MAX and name.isprintable()
    return name if is_plain else repr(name[:_LOGGED_MAX])[1:-1]


class Login:
    """A login that is under way.

    :param session: whose it is.
    :param attempt: the HELLO.

    :ivar challenge: what the client is asked; None: nothing.
    :ivar pending: the decision of an authenticator that is at work.
    :ivar welcome_extra: what the method has to tell the client once it has joined.
    """

    __slots__ = ("_action", "_has_turn", "attempt", "challenge", "pending", "session", "welcome_extra")

    def __init__(self, session: "LoginSession", attempt: Attempt) -> None:
        self.session = session
        self.attempt = attempt
        self.challenge: Challenge | None = None
        self.pending: Deferred[Decision] | None = None
        self.welcome_extra: dict[str, Any] = {}
        self._action: Callable[[], None] | None = None
        self._has_turn = False

    def work(self, action: Callable[[], None]) -> None:
        """Do what takes an authenticator or a router, as soon as it is this login's turn."""
        self._action = action
        self.session.state = State.AUTHENTICATING
        turns = self._limits.turns
        if turns.take(self):
            self.on_turn(turns)

    def on_turn(self, turns: Turns) -> None:
        """See :class:`proxy.turns.Waiter`."""
        self._has_turn = True
        action, self._action = self._action, None
        assert action is not None
        try:
            action()
        except Exception:
            log.exception("error during a login")
            self.session.crashed()

    def on_turn_late(self, turns: Turns) -> None:
        """See :class:`proxy.turns.Waiter`."""
        self._action = None
        self.session.wait_no_longer()

    def rest(self) -> None:
        """It is the client's turn: others may go on meanwhile."""
        if self._has_turn:
            self._has_turn = False
            self._limits.turns.leave()

    def end(self) -> None:
        """The login is over, whatever came of it."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        limits = self._limits
        if self._action is not None:
            self._action = None
            limits.turns.drop(self)
        limits.leave(self.session.peer)
        self.rest()

    @property
    def _limits(self) -> LoginLimits:
        return self.session.entrance.logins


class LoginSession(FrontEnd):
    """The part of a client's session that comes before WELCOME.

    Parameters as :class:`FrontEnd`.
    """

    __slots__ = ()

    # --- HELLO ---

    def _on_first(self, code: int, data: bytes) -> None:
        if code == MessageType.HELLO:
            self._on_hello(data)
        elif code == MessageType.ABORT:
            self._close(CODE_NORMAL)
        else:
            self._violated(f"{type_name(code)} where HELLO is expected")

    def _on_hello(self, data: bytes) -> None:
        if not self.transport.takes_logins:
            # It is being stopped; whoever has not said HELLO is about to be turned away.
            self._close(CODE_GOING_AWAY, encode(self.serializer, abort(SYSTEM_SHUTDOWN)))
            return
        try:
            realm, details = check_hello(decode(self.serializer, data))
        except MessageError as error:
            self._violated(str(error))
            return
        transport = self.transport_details()
        if self.entrance.draws_sids:
            # Before anything is decided: a CHALLENGE names the ID that WELCOME will have.
            self.front_sid = self.transport.controller.session_ids.draw()
            self.has_own_sid = True
        sid = self.front_sid or secrets.randbelow(ID_MAX) + 1
        attempt = Attempt(realm, details, transport, sid, self.cookie)
        refusal = self.entrance.logins.enter(self.peer)
        if refusal is not None:
            self._refuse(refusal)
            return
        self.login = Login(self, attempt)
        self.login.work(lambda: self._settle(self.entrance.authentication.hello(attempt)))

    # --- the decision ---

    def transport_details(self) -> dict[str, Any]:
        """What the router is told of the client's connection, see :func:`proxy.forwarding.transport_details`."""
        return transport_details(
            self.entrance.kind, self.serializer, self.peer, self.headers, self.subprotocol, self.extension, self.tls
        )

    def _settle(self, outcome: Outcome) -> None:
        """Go on with a decision, now or once it is there."""
        login = self.login
        assert login is not None
        if not isinstance(outcome, Deferred):
            self._decided(outcome)
            return
        seconds = self.entrance.authenticator_ms / 1000
        self.timer = self.transport.controller.reactor.callLater(seconds, self._authenticator_timeout, seconds)
        login.pending = outcome

        def settled(result: Decision | Failure) -> None:
            if self.login is not login or login.pending is not outcome:
                return  # the time is up, or the client is gone
            login.pending = None
            self._stop_timer()
            if isinstance(result, Failure):
                log.error("error in an authenticator\n%s", result.getTraceback())
                result = failed("the authenticator failed")
            self._decided(result)

        outcome.addBoth(settled).addErrback(self._on_error)

    def _on_error(self, failure: Failure) -> None:
        log.error("error during a login\n%s", failure.getTraceback())
        self.crashed()

    def _authenticator_timeout(self, seconds: float) -> None:
        self.timer = None
        # Not "failed": clients would take it for a wrong secret, and not come again.
        self._denied(unavailable(f"the authenticator took more than {seconds:g} s"))

    def _decided(self, decision: Decision) -> None:
        refusal = self.entrance.logins.blocked(self.peer)
        if refusal is not None:
            # Too many of its address have failed while it waited. Whoever guesses many at a time must not learn which
            # of the others was right.
            self._refuse(refusal)
        elif isinstance(decision, Deny):
            self._denied(decision)
        elif isinstance(decision, Challenge):
            self.challenge(decision)
        elif isinstance(decision, PassThrough):
            accept = Accept(decision.realm, "", decision.role, RELAYED, RELAYED)
            self._join(accept, relays=True, authmethods=list(decision.authmethods))
        else:
            assert self.login is not None
            self.login.welcome_extra = decision.welcome_extra
            self._join(decision, relays=False)

    def _denied(self, decision: Deny) -> None:
        self.entrance.logins.failed(self.peer, decision.reason)
        self._refuse(decision)

    # --- CHALLENGE and AUTHENTICATE ---

    def challenge(self, challenge: Challenge) -> None:
        """Ask the client to prove who it is."""
        assert self.login is not None
        question = [int(MessageType.CHALLENGE), challenge.authmethod, challenge.extra]
        try:
            message = encode(self.serializer, question)
        except MessageError as error:
            self._deny(INVALID_PAYLOAD, f"CHALLENGE: {error}")
            return
        self.login.rest()
        self.login.challenge = challenge
        self.state = State.CHALLENGED
        self.plane.send(self.conn, message)
        self.plane.next(self.conn)

    def _on_authenticate(self, code: int, data: bytes) -> None:
        """What the client has to say to a CHALLENGE. There is one try."""
        login = self.login
        assert login is not None
        assert login.challenge is not None
        if code == MessageType.ABORT:
            self._log_refused("the client gave it up")
            self._drop_login()
            self._close(CODE_NORMAL)
            return
        if code != MessageType.AUTHENTICATE:
            self._violated(f"{type_name(code)} where AUTHENTICATE is expected")
            return
        try:
            signature, extra = check_authenticate(decode(self.serializer, data))
        except MessageError as error:
            self._violated(str(error))
            return
        refusal = self.entrance.logins.blocked(self.peer)
        if refusal is not None:
            self._refuse(refusal)
            return
        challenge, login.challenge = login.challenge, None
        if self.join is not None:
            self.state = State.JOINING
            challenge.answer(signature, extra)
            return
        login.work(lambda: self._answered(challenge, signature, extra))

    def _answered(self, challenge: Challenge, signature: str, extra: dict[str, Any]) -> None:
        outcome = challenge.answer(signature, extra)
        assert outcome is not None
        self._settle(outcome)

    # --- the router ---

    def _join(self, accept: Accept, *, relays: bool, authmethods: list[str] | None = None) -> None:
        """Join a router for the client.

        :param relays: it is to decide who the client is, by one of ``authmethods``.
        """
        login = self.login
        assert login is not None
        attempt, controller = login.attempt, self.transport.controller
        details = dict(attempt.details)
        if relays:
            details["authmethods"] = authmethods
        if relays and self.has_own_sid:
            # The router may sign the ID of its own, so that is the one that the client is told.
            self._drop_sid()
        try:
            join = controller.map_backend(
                self,
                accept.realm,
                accept.authid,
                accept.authrole,
                accept.authextra,
                authmethod=accept.authmethod,
                authprovider=accept.authprovider,
                details=details,
                transport=dict(attempt.transport_details),
                relays=relays,
            )
        except NoSuchRealm:
            self._deny("wamp.error.no_such_realm", f'no route for realm "{accept.realm}"')
            return
        except NoSuchRole:
            self._deny(*_no_such_role(accept.realm, accept.authrole))
            return
        except RuntimeError as error:
            log.error("realm %s cannot be joined: %s", accept.realm, error)
            self._deny(UNAVAILABLE, f'no room for realm "{accept.realm}" in the proxy')
            return
        # It is known to the route table, so there are few different ones and sessions may share them.
        self.realm = sys.intern(accept.realm)
        self.state = State.JOINING
        self.join = join
        join.start()

    def joined(self, back: Back, welcome: Welcome, login: RouterLogin) -> None:
        """The router let us in: tell the client, and get out of the way."""
        assert self.join is not None
        identity = self.join.accept
        welcome_extra = self.login.welcome_extra if self.login is not None else {}
        asked = self.login.attempt.realm if self.login is not None else None
        self.join = None
        self.back = back
        self._end_login()
        back_sid = welcome.session_id
        controller = self.transport.controller
        refusal = self.entrance.logins.blocked(self.peer) if login.RELAYS else None
        if refusal is not None:  # as for those who are decided about here
            self._detach(refusal.reason)
            self._refuse(refusal)
            return
        if not self.has_own_sid:
            self.front_sid = back_sid
        controller.session_ids.join(self.front_sid, back_sid)
        try:
            details = login.welcome(welcome, self.front_sid)
            details["authextra"].update(welcome_extra)
            details["authextra"].update(controller.own_authextra)
            details["authextra"]["x_cb_proxy_peer"] = self.peer
            message = encode(self.serializer, [int(MessageType.WELCOME), self.front_sid, details])
        except MessageError as error:
            self._detach(INVALID_PAYLOAD)
            self._deny(INVALID_PAYLOAD, f"the router's WELCOME: {error}")
            return
        if not self._count_in(back, identity.authrole):
            # The route that led here was stopped since.
            reason, text = _no_such_role(identity.realm, identity.authrole)
            self._detach(reason)
            self._deny(reason, text)
            return
        self._establish(back, details, identity, message)
        if self.entrance.cookies is not None and not login.RELAYS:
            self.entrance.cookies.remember(self, identity, asked)

    def _establish(self, back: Back, details: dict[str, Any], identity: Accept, message: bytes) -> None:
        self.authid = str(details.get("authid") or identity.authid)
        self.authrole = _shared(details.get("authrole") or identity.authrole)
        self.authmethod = _shared(details.get("authmethod") or identity.authmethod)
        self.joined_at = time.time_ns() // 1000
        self.state = State.ESTABLISHED
        self.plane.link(self.conn, back.conn, message)
        if self.transport.controller.logs_sessions:
            log.info(
                "session %d joined realm %s as %s (%s) from %s through %s to %s%s",
                self.front_sid,
                self.realm,
                _on_one_line(self.authid),
                _on_one_line(self.authrole),
                self.peer,
                self.transport.id,
                back.connection.id,
                f" (session {back.back_sid} there)" if self.has_own_sid else "",
            )

    # --- refusals ---

    def log_out(self) -> None:
        """Its cookie was logged out elsewhere: what came with it is over."""
        if self.is_joined:
            self.dismiss(LOGOUT)
        elif self.is_joining:
            self._refuse(failed("its cookie was logged out meanwhile"))

    def wait_no_longer(self) -> None:
        """Its turn did not come in time."""
        self._deny(UNAVAILABLE, "too many clients log in, try again later")

    def refused(self, message: bytes, reason: str) -> None:
        """No router took the client: it gets this ABORT."""
        if self.join is not None and self.join.accept.authmethod == RELAYED and reason not in _NOT_OF_CLIENT:
            refusal = self.entrance.logins.blocked(self.peer)
            if refusal is not None:
                # As for one that the router would have taken.
                reason, message = refusal.reason, encode(self.serializer, abort(refusal.reason, refusal.message))
            self.entrance.logins.failed(self.peer, reason)
        self.transport.denied += 1
        self._detach("")
        self._log_refused(reason)
        self._close(CODE_NORMAL, message)

    def _refuse(self, decision: Deny) -> None:
        self._deny(decision.reason, decision.message, decision.cause)

    def _deny(self, reason: str, message: str, cause: str = "") -> None:
        """Refuse the client; ``cause`` is for the log alone."""
        self.transport.denied += 1
        self._log_refused(f"{reason}: {cause}" if cause else reason)
        self._drop_login()
        self._close(CODE_NORMAL, encode(self.serializer, abort(reason, message)))

    def _violated(self, text: str, reason: str = PROTOCOL_VIOLATION, code: int = CODE_PROTOCOL_ERROR) -> None:
        """The client broke the protocol: ABORT to it, GOODBYE to the router, and both connections are closed."""
        if self.back is not None:
            self._log_left(f"{reason}, {text}")
            self.plane.unlink(self.conn)
            self._detach(reason)
        elif self.state in (State.OPEN, State.CHALLENGED):
            self._log_refused(f"{reason}, {text}")
            self._drop_login()
        self._close(code, encode(self.serializer, abort(reason, text)))

    # --- what the rest of the session does ---

    def crashed(self) -> None:
        """Something went wrong in here: end both sides."""
        raise NotImplementedError

    def on_back(self, back: Back, kind: int, arg: int, data: bytes) -> None:
        """An event of the router's connection."""
        raise NotImplementedError

    def back_crashed(self, back: Back) -> None:
        """Something went wrong while the router's event was handled."""
        raise NotImplementedError
