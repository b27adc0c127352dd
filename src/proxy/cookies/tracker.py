"""The cookies of a WebSocket transport: which connection has which, what logins they stand for, and logout.

A cookie stands for a login from the moment on when the router has accepted it, and only if its value was given out on
the very connection that logged in: whoever had planted a value of their own in somebody's browser would otherwise be
logged in with it. So a client that comes with a cookie that stands for nothing gets another one.
"""

import logging
import secrets
import time
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.python.failure import Failure

from proxy.auth.base import Accept
from proxy.config.cookies import CookieConfig
from proxy.cookies.records import EXTRA_MAX, Record, StoreError, key_of, pack, unpack
from proxy.messages import MessageError

if TYPE_CHECKING:
    from proxy.cookies.store import Store, Stores
    from proxy.logins import LoginSession

__all__ = ["Admission", "CookieTracker"]

log = logging.getLogger(__name__)

VALUES_MAX: Final = 3
"""Cookies of our name in one request that are looked at. A browser has several where their paths or domains differ."""
VALUE_MAX: Final = 256
"""Characters of a value that may be one of ours, or of Crossbar.io's."""
LOOKUP_SECONDS: Final = 5.0
"""How long a handshake waits for the store."""
LOGOUT: Final = "wamp.close.logout"

# Reasons of a router's GOODBYE that are not about the client.
_NOT_PERSONAL: Final = "wamp."
_KILLED: Final = frozenset({"wamp.close.killed", "wamp.close.normal"})


class Admission:
    """The cookie of a connection.

    :ivar key: key of the cookie.
    :ivar header: value of the Set-Cookie header; empty: the client has it.
    :ivar expires: when it does (Posix time, seconds), if it is a new one.
    """

    __slots__ = ("expires", "header", "key")

    def __init__(self, key: str, header: str = "", expires: int = 0) -> None:
        self.key = key
        self.header = header
        self.expires = expires


class CookieTracker:
    """The cookies of one transport.

    :param config: the transport's ``cookie`` item.
    :param stores: those of the worker.
    :param transport_id: of the transport.
    :param reactor: Twisted's.
    """

    def __init__(self, config: CookieConfig, stores: "Stores", transport_id: str, reactor: Any) -> None:
        self._config = config
        self._stores = stores
        self._transport_id = transport_id
        self._reactor = reactor
        self._store: Store | None = None
        # Connections by the key of their cookie.
        self._sessions: dict[str, set[LoginSession]] = {}
        # Those that were given their cookie, and did not come with it; when it expires.
        self._new: dict[LoginSession, int] = {}
        self._has_warned = False

    # --- life ---

    def start(self) -> "Deferred[None]":
        """Open the store.

        :returns: fails with CannotStart where it cannot be used.
        """
        if self._store is not None:
            return succeed(None)
        self._store = self._stores.get(self._config, self._transport_id)

        def failed(failure: Failure) -> Failure:
            self.close()
            return failure

        return self._store.start(self).addErrback(failed)

    def close(self) -> None:
        """Let go of the store. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            store.stop(self)

    @property
    def is_in_use(self) -> bool:
        """See :class:`proxy.cookies.store.LogoutListener`."""
        return bool(self._sessions)

    # --- connections ---

    @inlineCallbacks
    def admit(self, header: str) -> Any:
        """The cookie for a connection.

        :param header: the Cookie header of its request; empty: it has none.
        :returns: fires with an :class:`Admission`; with None where the store cannot be asked: then the connection goes
            without, and its client logs in by other means. Never fails. May be cancelled.
        """
        for value in _values(header, self._config.name):
            key = key_of(value)
            try:
                record = yield self.find(key).addTimeout(LOOKUP_SECONDS, self._reactor)
            except Exception as error:
                self._tell(str(error) if isinstance(error, StoreError) else "no answer in time")
                return None
            self._has_warned = False
            if record is not None:
                return Admission(key)
        return self._make()

    def _make(self) -> Admission:
        config = self._config
        value = secrets.token_urlsafe(config.length)[: config.length]
        attributes = [f"{config.name}={value}", f"Max-Age={config.max_age}", "Path=/"]
        attributes += ["Secure"] if config.secure else []
        attributes += ["HttpOnly"] if config.http_strict else []
        attributes += [f"SameSite={config.same_site}"] if config.same_site else []
        return Admission(key_of(value), "; ".join(attributes), int(time.time()) + config.max_age)

    def enter(self, session: "LoginSession", admission: Admission) -> None:
        """A connection has a cookie from now on, until :meth:`leave`."""
        session.cookie = admission.key
        self._sessions.setdefault(admission.key, set()).add(session)
        if admission.expires:
            self._new[session] = admission.expires

    def leave(self, session: "LoginSession") -> None:
        """The connection has it no more. No error if it had none."""
        key, session.cookie = session.cookie, None
        sessions = self._sessions.get(key) if key is not None else None
        if key is None or sessions is None:
            return
        self._new.pop(session, None)
        sessions.discard(session)
        if not sessions:
            del self._sessions[key]

    # --- logins ---

    def find(self, key: str) -> "Deferred[Record | None]":
        """The login that a cookie stands for. Fails with StoreError."""
        if self._store is None:
            return succeed(None)
        return self._store.find(key)

    def remember(self, session: "LoginSession", accept: Accept, asked: str | None) -> None:
        """A router has accepted a client: it may come again with its cookie.

        :param accept: who it is.
        :param asked: the realm that it asked for; None: it named none.
        """
        key = session.cookie
        # Whoever is anonymous has proven nothing that could be remembered.
        if key is None or self._store is None or accept.authprovider == "cookie" or accept.authmethod == "anonymous":
            return
        try:
            # A copy: what is given to the router, or kept for the next login, is nothing to the other.
            octets = pack(accept.authextra)
            record = self._record(session, accept, asked, unpack(octets))
        except MessageError as error:
            self._is_not_kept(session, str(error))
            return
        if session in self._new and len(octets) <= EXTRA_MAX:
            self._store.put(key, record).addErrback(self._not_done)
            return
        if session in self._new:
            self._is_not_kept(session, f"its authextra has more than {EXTRA_MAX} octets")
        # Somebody else may have logged in there: the cookie must not bring back the one before.
        self._store.settle(key, record).addErrback(self._not_done)

    def _record(self, session: "LoginSession", accept: Accept, asked: str | None, authextra: dict[str, Any]) -> Record:
        return Record(
            expires=self._new.get(session, 0),
            realm=accept.realm,
            asked=asked,
            authid=accept.authid,
            authrole=accept.authrole,
            authmethod=accept.authmethod,
            authextra=authextra,
        )

    def _is_not_kept(self, session: "LoginSession", why: str) -> None:
        log.info("session %d is not remembered by its cookie: %s", session.front_sid, why)

    def log_out(self, session: "LoginSession") -> "Deferred[None]":
        """A client logged out: its cookie is forgotten, and whatever else came with it is ended.

        :returns: fires once the cookie is worth nothing any more; never fails.
        """
        key = session.cookie
        if key is None or self._store is None:
            return succeed(None)
        self.leave(session)
        log.debug("session %d logged out: its cookie is forgotten", session.front_sid)
        return self._store.log_out(key)

    def dismissed(self, session: "LoginSession", reason: str) -> None:
        """A router ended a session: somebody who was thrown out does not come back by a cookie.

        :param reason: the router's.
        """
        key = session.cookie
        if key is None or self._store is None:
            return
        if reason == LOGOUT:
            self.log_out(session)
        elif reason in _KILLED or not reason.startswith(_NOT_PERSONAL):
            self.leave(session)
            self._store.delete(key).addErrback(self._not_done)

    def on_logout(self, key: str) -> None:
        """See :class:`proxy.cookies.store.LogoutListener`."""
        for session in list(self._sessions.get(key, ())):
            self.leave(session)
            try:
                session.log_out()
            except Exception:
                log.exception("error while a session was ended by a logout; it is cut off")
                session.crashed()

    # --- trouble ---

    def without(self, failure: Failure) -> None:
        """The store could not be asked: a client goes without its cookie."""
        failure.trap(StoreError)
        self._tell(failure.getErrorMessage())

    def _tell(self, why: str) -> None:
        """Say it once, until the store answers again."""
        if not self._has_warned:
            self._has_warned = True
            log.warning("transport %s: clients go without their cookies: %s", self._transport_id, why)

    def _not_done(self, failure: Failure) -> None:
        log.warning("transport %s: %s", self._transport_id, failure.getErrorMessage())


def _values(header: str, name: str) -> Iterator[str]:
    """Values of the cookies of a name. Each is read on its own, so that malformed ones of others do no harm."""
    found = 0
    for part in header.split(";"):
        if part.partition("=")[0].strip() != name:
            continue
        try:
            value = SimpleCookie(part.strip())[name].value
        except (CookieError, KeyError):
            continue
        found += 1
        if found > VALUES_MAX:
            return
        if 0 < len(value) <= VALUE_MAX:
            yield value
