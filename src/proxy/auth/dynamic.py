"""Dynamic authenticators: procedures at a router, called over a session of the proxy's own."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from autobahn.exception import PayloadExceededError
from autobahn.wamp.exception import ApplicationError, SerializationError, TransportLost
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, inlineCallbacks, succeed

from proxy.auth.authenticators import AT_WORK_MAX, denied, details_for, is_plain, judged, unavailable
from proxy.auth.base import NO_SUCH_REALM, Attempt, failed
from proxy.auth.principals import Found, Unavailable
from proxy.config.auth import AUTHENTICATOR_ROLE, Dynamic
from proxy.errors import NoSuchObject, ProxyError

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["DynamicSource"]

log = logging.getLogger(__name__)

GIVEN_UP_MAX: Final = 1000
"""Calls that nobody waits for any more, and that a router, which cannot cancel them, still has to answer. Then its
session is given up with them."""

# The call did not get to the authenticator, or its answer not back.
_NOT_ASKED: Final = frozenset(
    {
        "wamp.error.no_such_procedure",
        "wamp.error.canceled",
        "wamp.error.timeout",
        "wamp.error.network_failure",
        "wamp.error.unavailable",
        "wamp.error.no_available_callee",
        "wamp.error.no_eligible_callee",
        "wamp.error.max_concurrency_reached",
        "wamp.error.payload_size_exceeded",
        "wamp.error.system_shutdown",
    }
)
_OF_EITHER: Final = frozenset({"wamp.error.not_authorized", "wamp.error.authorization_failed"})


class DynamicSource:
    """Asks a procedure about principals.

    :param item: which one, and where.
    :param controller: whose service sessions lead there.
    """

    provider = "dynamic"

    def __init__(self, item: Dynamic, controller: "ProxyController") -> None:
        self.default_role = item.default_role
        self._item = item
        self._controller = controller
        self._role = item.authenticator_role or AUTHENTICATOR_ROLE
        self._label = f'authenticator "{item.authenticator}"'
        self._turns = DeferredSemaphore(AT_WORK_MAX)
        # By session: how many answers nobody waits for.
        self._given_up: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def start(self) -> "Deferred[None]":
        """See :class:`Source`. The procedure may be registered later, so nothing is asked for now."""
        return succeed(None)

    def close(self) -> None:
        """See :class:`Source`. The service session is the worker's."""

    def find(
        self, attempt: Attempt, authmethod: str, authid: str | None, more: Mapping[str, Any]
    ) -> "Found | Deferred[Found]":
        """See :class:`Source`."""
        realm = self._item.authenticator_realm or attempt.realm
        if not realm:
            return Unavailable(NO_SUCH_REALM, "HELLO names no realm, and none is configured for the authenticator")
        if not self._item.authenticator_realm and not self._controller.has_realm(realm):
            # The client's own doing, and what it would be told after a login as well.
            return Unavailable(NO_SUCH_REALM, f'no route for realm "{realm}"')
        said = [attempt.realm, authid, attempt.details.get("authrole"), attempt.details.get("authextra"), dict(more)]
        if not is_plain(said):
            return failed(f"{self._label} is not asked: not every serializer can express what the client says")
        arguments = (attempt.realm, authid, details_for(attempt, authmethod, more))
        return self._turns.run(self._ask, realm, authmethod, arguments)

    @inlineCallbacks
    def _ask(self, realm: str, authmethod: str, arguments: tuple[Any, ...]) -> Any:
        try:
            session = yield self._controller.get_service_session(realm, self._role)
            answer = yield self._call(session, arguments)
        except CancelledError:
            raise
        except ApplicationError as error:
            if self._was_asked(error):
                return denied(error, self._label)
            return unavailable(f'{self._label} in realm "{realm}" cannot be called: {error.error}')
        except NoSuchObject as error:
            return unavailable(f"{self._label} cannot be called: {error}{self._hint()}")
        except ProxyError as error:
            return unavailable(f"{self._label} cannot be called: {error}")
        except (SerializationError, PayloadExceededError):
            # The errors' own texts quote what was to be sent.
            return failed(f"{self._label} cannot be told of the client: no serializer can express it, or it is too big")
        except TransportLost:
            return unavailable(f'{self._label} cannot be called: the session in realm "{realm}" is lost')
        return judged(authmethod, answer, self._label)

    def _was_asked(self, error: ApplicationError) -> bool:
        uri = error.error
        if uri in _NOT_ASKED or uri.startswith("wamp.close."):
            return False
        # Said by the router of the proxy's own session, whose text names the procedure, or by an authenticator of the
        # client.
        is_routers = uri in _OF_EITHER and bool(error.args) and self._item.authenticator in str(error.args[0])
        return not is_routers

    def _hint(self) -> str:
        return "" if self._item.authenticator_role else " (the role that is used where no authenticator-role is given)"

    # --- the call ---

    def _call(self, session: Any, arguments: tuple[Any, ...]) -> "Deferred[Any]":
        """Call the authenticator.

        :returns: the answer. When it is cancelled the router is told, if it understands.
        """
        called: Deferred[Any] = session.call(self._item.authenticator, *arguments)
        answer: Deferred[Any] = Deferred(lambda _: self._give_up(session, called))

        def over(result: Any) -> None:
            if not answer.called:
                answer.callback(result)
            elif session in self._given_up:
                self._given_up[session] -= 1

        called.addBoth(over)
        return answer

    def _give_up(self, session: Any, called: "Deferred[Any]") -> None:
        dealer = (session._router_roles or {}).get("dealer")
        transport = session._transport
        if transport is None:
            return
        if dealer is not None and dealer.call_canceling:
            with suppress(TransportLost):
                called.cancel()
            return
        # It would not know what is meant. What is still to come would be an error without its call.
        self._given_up[session] = count = self._given_up.get(session, 0) + 1
        if count >= GIVEN_UP_MAX:
            log.warning("%s: %d calls are not answered; their session is given up", self._label, count)
            transport.abort()
