"""The worker's own management realm: it answers calls and subscriptions itself, without any router."""

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail

from proxy.management import node_procedures
from proxy.management.node_procedures import NodeProcedures
from proxy.management.procedures import Caller, CallError, call, procedures
from proxy.management.rawsocket import ManagementConnection
from proxy.management.realm_session import RealmSession
from proxy.management.subscriptions import Subscriptions
from proxy.messages import ID_MAX, MessageType, shorten

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["REALM", "ManagementRealm"]

log = logging.getLogger(__name__)

REALM: Final = "crossbar"

# Connections at a time.
CLIENTS_MAX: Final = 64

# Calls under way, of all clients and of those that are gone: who comes again and again begins no more than this.
CALLS_MAX: Final = 1024

SYSTEM_SHUTDOWN: Final = "wamp.close.system_shutdown"


class ManagementRealm:
    """Broker and dealer for the management API of one worker.

    A :class:`proxy.management.session.Carrier`: what the worker publishes goes to whoever subscribed here.

    :param controller: the worker.
    """

    name = REALM

    def __init__(self, controller: "ProxyController") -> None:
        self._controller = controller
        self._node = NodeProcedures(controller)
        self.subscriptions: Subscriptions[RealmSession] = Subscriptions()
        self._clients: dict[RealmSession, None] = {}
        self._emptied: Deferred[None] | None = None
        self._is_closing = False
        self._under_way = 0

    @property
    def authextra(self) -> dict[str, Any]:
        """What clients are told in WELCOME, besides who they are."""
        return self._controller.own_authextra

    # --- clients ---

    def admit(self, connection: ManagementConnection) -> RealmSession | None:
        """A connection wants in.

        :returns: None: there is no room for it.
        """
        if self._is_closing or len(self._clients) >= CLIENTS_MAX:
            log.warning("management: %s is refused: %d clients are the most", connection.peer, CLIENTS_MAX)
            return None
        client = RealmSession(self, connection)
        self._clients[client] = None
        return client

    def draw_id(self) -> int:
        """A new session ID ("IDs": global scope, drawn at random)."""
        taken = {client.session_id for client in self._clients}
        while True:
            number = secrets.randbelow(ID_MAX) + 1
            if number not in taken:
                return number

    def gone(self, client: RealmSession) -> None:
        """A client's connection is closed."""
        self._clients.pop(client, None)
        if not self._clients and self._emptied is not None:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    def close(self) -> "Deferred[None]":
        """Say GOODBYE to all. Fires once all are gone, which their deadlines see to."""
        self._is_closing = True
        done: Deferred[None] = Deferred()
        if not self._clients:
            done.callback(None)
            return done
        self._emptied = done
        for client in list(self._clients):
            client.dismiss(SYSTEM_SHUTDOWN)
        return done

    # --- what they ask for ---

    def call(self, uri: str, args: Sequence[Any], kwargs: Mapping[str, Any], caller: Caller) -> "Deferred[Any]":
        """Call a procedure of the worker, or one of those that a node would have.

        :returns: fires with the result; fails with CallError.
        """
        if self._under_way >= CALLS_MAX:
            return fail(CallError("wamp.error.unavailable", f"at most {CALLS_MAX} calls of all clients at a time"))
        self._under_way += 1
        return self._call(uri, args, kwargs, caller).addBoth(self._is_done)

    def _is_done(self, result: Any) -> Any:
        self._under_way -= 1
        return result

    def _call(self, uri: str, args: Sequence[Any], kwargs: Mapping[str, Any], caller: Caller) -> "Deferred[Any]":
        prefix, _, name = uri.rpartition(".")
        if prefix == self._controller.uri_prefix and name in procedures(type(self._controller)):
            return call(self._controller, name, args, kwargs, caller)
        if prefix == node_procedures.PREFIX and name in procedures(NodeProcedures):
            return call(self._node, name, args, kwargs, caller)
        text = f"no procedure {shorten(uri)}: those of this worker begin with {self._controller.uri_prefix}."
        return fail(CallError("wamp.error.no_such_procedure", text))

    def publish_event(self, topic: str, args: tuple[Any, ...], exclude: int | None, acknowledge: bool) -> None:
        """See :class:`proxy.management.session.Carrier`."""
        publication = secrets.randbelow(ID_MAX) + 1
        for subscription in self.subscriptions.of_topic(topic):
            details = {} if subscription.match == "exact" else {"topic": topic}
            event: list[Any] = [int(MessageType.EVENT), subscription.number, publication, details]
            if args:
                event.append(list(args))
            # A client that is cut off because it does not read is gone from here at once.
            for client in list(subscription.members):
                if client.session_id and client.session_id != exclude:
                    client.on_event(event)
