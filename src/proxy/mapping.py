"""From a client's session to a router's: which connections serve it, the join, and letting go of it again."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from proxy.auth.base import Accept
from proxy.auth.routers import Client
from proxy.back import Back, Joiner
from proxy.backend import BackendJoin
from proxy.connections import ProxyConnection
from proxy.errors import CannotStart, NoSuchObject
from proxy.nodekey import FILE_NAME, FOLDER_ALONE, NodeKey
from proxy.routes import RouteTable
from proxy.service_sessions import ServiceSessions
from proxy.session_ids import Claim, SessionIds
from proxy.worker import WorkerController

if TYPE_CHECKING:
    from proxy.registry import Registry

__all__ = ["BackendMapping"]


class BackendMapping(WorkerController):
    """The part of the controller that a login needs.

    :ivar public_key: hex of the node's public key; None: not known (yet).
    """

    plane: Any
    routes: RouteTable
    connections: "Registry[ProxyConnection]"
    session_ids: SessionIds
    public_key: str | None
    _node_key: NodeKey | None = None
    service_sessions: ServiceSessions

    @property
    def identity(self) -> tuple[str, str | None]:
        """The proxy's own authid towards routers, and the hex of its public key or None."""
        return self.node_id, self.public_key

    @property
    def own_authextra(self) -> dict[str, Any]:
        """What every client is told in WELCOME.Details.authextra; sessions add x_cb_proxy_peer."""
        return {
            "x_cb_proxy_node": self.node_id,
            "x_cb_proxy_worker": self.worker_id,
            "x_cb_proxy_pid": os.getpid(),
        }

    def on_node_key(self, public_key: str) -> None:
        """See :class:`WorkerController`."""
        self.public_key = public_key

    @property
    def _has_node(self) -> bool:
        return getattr(self.config.extra, "node", None) is not None

    def require_node_key(self) -> NodeKey:
        """The node's key: of the node that the worker belongs to, or one of its own, which is made if there is none.
        It is read once.

        :raises CannotStart: it cannot be read, or is not the one that the node names.
        """
        if self._node_key is None:
            if self._has_node:
                path = self.cbdir / FILE_NAME
                key = NodeKey.load(path)
                if self.public_key not in (None, key.public):
                    raise CannotStart(f"node key {path}: expected the key of public key {self.public_key}")
            else:
                key = NodeKey.load_or_create(self.cbdir / FOLDER_ALONE / FILE_NAME, self.node_id)
            self._node_key = key
            self.public_key = key.public
        return self._node_key

    # --- what there is ---

    def has_realm(self, realm: str) -> bool:
        """Whether a started route is for this realm, for any role."""
        return self.routes.has_realm(realm)

    def has_role(self, realm: str, authrole: str) -> bool:
        """Whether a started route is for this realm and role."""
        return self.routes.has_role(realm, authrole)

    def can_map_backend(
        self,
        session_id: int | None,
        realm: str,
        authid: str | None,
        authrole: str,
        authextra: Mapping[str, Any] | None = None,
    ) -> bool:
        """Whether a client could be joined to a router as things are: a route leads to a connection in service.

        :param session_id: session ID, authid and authextra of the client change nothing about it.
        """
        return self.has_role(realm, authrole) and any(
            connection.takes_logins
            for connection_id in self.routes.connection_ids(realm, authrole)
            if (connection := self.connections.get(connection_id)) is not None
        )

    def get_backend_config(self, realm: str, authrole: str) -> Mapping[str, Any]:
        """The configuration of the connection whose turn it is, as it was given: with its secrets, if it has any.

        :raises NoSuchObject: no route for the realm and role, or none whose connection is in service.
        """
        connection_id = self.routes.peek(realm, authrole)
        if connection_id is None:
            raise NoSuchObject(f'no route for role "{authrole}" in realm "{realm}"')
        config: Mapping[str, Any] = self.connections.find(connection_id).config
        return config

    def get_controller_session(self) -> "BackendMapping":
        """The session on the node's management realm; without a node it is not joined."""
        return self

    def get_service_session(self, realm: str, authrole: str) -> "Deferred[Any]":
        """A session of the proxy's own at a router that a realm and role lead to, for all who ask, see
        :meth:`ServiceSessions.get`.

        :returns: fires with the joined session (autobahn's ApplicationSession); fails with NoSuchObject (no route), or
            with NoServiceSession (no router takes it).
        """
        return self.service_sessions.get(realm, authrole)

    def pick(self, realm: str, role: str, serializer: int) -> list[ProxyConnection]:
        """The connections to try for one login, in order.

        :raises NoSuchRealm, NoSuchRole: as :meth:`RouteTable.pick`.
        """
        connections = self.connections

        def is_usable(connection_id: str) -> bool:
            connection = connections.get(connection_id)
            return connection is not None and connection.takes_logins and not connection.is_down(serializer)

        ids = self.routes.pick(realm, role, is_usable)
        found = [connections.get(connection_id) for connection_id in ids]
        return [connection for connection in found if connection is not None and connection.takes_logins]

    # --- joining and leaving ---

    def map_backend(
        self,
        frontend: Joiner,
        realm: str,
        authid: str,
        authrole: str,
        authextra: dict[str, Any] | None = None,
        *,
        authmethod: str = "anonymous",
        authprovider: str = "static",
        details: dict[str, Any] | None = None,
        transport: dict[str, Any] | None = None,
        relays: bool = False,
    ) -> BackendJoin:
        """Join a client to a router that its realm and role lead to.

        :param frontend: the client's session: its joined() or refused() is called, once, unless the join is cancelled.
        :param authextra: what the client may tell the router about itself.
        :param details: HELLO.Details of the client.
        :param transport: the client's transport details, see :func:`proxy.forwarding.transport_details`.
        :param relays: the router decides who the client is: only connections that leave it that are used, and else
            none of them.
        :returns: the join, to be started.
        :raises NoSuchRealm: no route for the realm.
        :raises NoSuchRole: no route for the role in it.
        :raises RuntimeError: there are more realms than the data plane can have.
        """
        accept = Accept(realm, authid, authrole, authmethod, authprovider, {} if authextra is None else authextra)
        candidates = [item for item in self.pick(realm, authrole, frontend.serializer) if item.relays is relays]
        claim = Claim(self.session_ids, self.plane.add_realm(realm), frontend.front_sid)
        hello = {"roles": {}} if details is None else details
        client = Client(frontend, hello, accept, transport or {}, self.identity, self.session_ids.to_back)

        def leads_to(connection_id: str) -> bool:
            return bool(self.routes.naming(realm, authrole, connection_id))

        return BackendJoin(self.plane, frontend, candidates, client, claim, leads_to)

    def unmap_backend(
        self,
        frontend: object,
        backend: Back,
        leave_reason: str | None = None,
        leave_message: str | None = None,
    ) -> None:
        """End the session of a client with its router: GOODBYE, and the connection to the router is closed.

        :param backend: the router's side of the session.
        :param leave_reason: URI of the GOODBYE; None: say nothing, because there is nobody to hear or all is said.
        :param leave_message: text for people in the GOODBYE.
        """
        self.session_ids.drop(backend.back_sid)
        backend.say_goodbye(leave_reason, leave_message)
