"""Which connections serve a realm and role, and whose turn it is."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from proxy.config.findings import render_value
from proxy.errors import InvalidConfiguration
from proxy.lifecycle import Managed

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["NoSuchRealm", "NoSuchRole", "ProxyRoute", "RouteTable", "RouteUse"]


class NoSuchRealm(LookupError):
    """No started route is for this realm."""


class NoSuchRole(LookupError):
    """The realm has routes, but none for this role."""


class ProxyRoute(Managed):
    """For one realm: role -> the connections that take its sessions, in order.

    :param controller: the worker that it belongs to.
    :param realm_name: realm name.
    :param route_id: ``route%03d``, unique in the worker.
    :param config: role -> connection id, or a list of them that take turns.
    :raises InvalidConfiguration: no realm, no role, something that is not an id, or a connection that does not permit
        it.

    :ivar config: as it was given.
    :ivar roles: role -> connection ids, at least one each.
    :ivar joined: sessions that came by it ever.
    """

    __slots__ = ("config", "id", "joined", "realm", "roles")

    KIND = "route"

    def __init__(
        self, controller: "ProxyController", realm_name: str, route_id: str, config: Mapping[str, Any]
    ) -> None:
        super().__init__(controller, f'route "{route_id}" of realm "{realm_name}"')
        if not realm_name:
            raise InvalidConfiguration("route: expected the name of a realm, got an empty string")
        self.realm = realm_name
        self.id = route_id
        self.roles = _roles(realm_name, config)
        self.config: dict[str, Any] = {
            role: list(ids) if isinstance(ids, (list, tuple)) else ids for role, ids in config.items()
        }
        self.joined = 0
        self._require_permits()

    def _require_permits(self) -> None:
        for role, ids in self.roles.items():
            for connection_id in ids:
                connection = self.controller.connections.get(connection_id)
                if connection is not None and not connection.permits(self.realm, role):
                    raise InvalidConfiguration(
                        f'route of realm "{self.realm}", role "{role}": '
                        f'the permit of connection "{connection_id}" does not allow it'
                    )

    @property
    def connection_ids(self) -> frozenset[str]:
        """All connections that it names."""
        return frozenset(connection_id for ids in self.roles.values() for connection_id in ids)

    def has_role(self, role_name: str) -> bool:
        """Whether the route is for this role, too."""
        return role_name in self.roles

    def map_connection_id(self, role_name: str) -> str | list[str] | None:
        """What the configuration has for a role: a connection id or a list of them; None: nothing."""
        return self.config.get(role_name)

    def marshal(self) -> dict[str, Any]:
        """What the management API shows: realm, id, config, started and stopped (ns since the epoch), state."""
        return {
            "realm": self.realm,
            "id": self.id,
            "config": self.config,
            "started": self.started,
            "stopped": self.stopped,
            "state": int(self.state),
        }


def _roles(realm: str, config: Any) -> dict[str, tuple[str, ...]]:
    where = f'route of realm "{realm}"'
    if not isinstance(config, Mapping):
        shown = render_value(config, ())
        raise InvalidConfiguration(f"{where}: {shown}: expected a mapping of roles to connection ids")
    if not config:
        raise InvalidConfiguration(f"{where}: expected at least one role, got none")
    roles: dict[str, tuple[str, ...]] = {}
    for role, value in config.items():
        if not isinstance(role, str) or not role:
            raise InvalidConfiguration(f"{where}, role {render_value(role, ())}: expected a string that is not empty")
        ids = (value,) if isinstance(value, str) else value
        if not isinstance(ids, (list, tuple)) or not ids or not all(isinstance(item, str) and item for item in ids):
            raise InvalidConfiguration(
                f'{where}, role "{role}": {render_value(value, ())}: expected the id of a connection or a list of them'
            )
        roles[role] = tuple(dict.fromkeys(ids))
    return roles


class RouteUse:
    """The sessions of one realm and role that are joined over one connection. They share this object.

    :ivar role: the role that chose the route; what a router calls the session's role may be another one.
    :ivar connection_id: id of the connection.
    :ivar live: how many there are.
    """

    __slots__ = ("connection_id", "live", "realm", "role")

    def __init__(self, realm: str, role: str, connection_id: str) -> None:
        self.realm = realm
        self.role = role
        self.connection_id = connection_id
        self.live = 0


class _Turns:
    """The connections of one (realm, role) over all its routes, and the index of the next one.

    :param routes: by connection id: the routes that name it.
    """

    __slots__ = ("ids", "routes", "turn")

    def __init__(self, routes: dict[str, list[ProxyRoute]]) -> None:
        self.ids = tuple(routes)
        self.routes = routes
        self.turn = 0


class RouteTable:
    """The started routes of a worker.

    Several routes may name the same realm and role; then their connections follow each other in the order in which the
    routes were started, and one that is named twice counts once. What a stopped route alone brought in is gone at once.
    """

    def __init__(self) -> None:
        self._routes: dict[str, dict[str, ProxyRoute]] = {}
        self._turns: dict[str, dict[str, _Turns]] = {}
        self._uses: dict[tuple[str, str, str], RouteUse] = {}

    def add(self, route: ProxyRoute) -> None:
        """Put a started route into service."""
        self._routes.setdefault(route.realm, {})[route.id] = route
        self._rebuild(route.realm)

    def remove(self, route: ProxyRoute) -> None:
        """Take a route out of service; sessions that are joined stay.

        :raises KeyError: if it is not in the table.
        """
        routes = self._routes[route.realm]
        del routes[route.id]
        if not routes:
            del self._routes[route.realm]
        self._rebuild(route.realm)

    def _rebuild(self, realm: str) -> None:
        merged: dict[str, dict[str, list[ProxyRoute]]] = {}
        for route in self._routes.get(realm, {}).values():
            for role, connection_ids in route.roles.items():
                for connection_id in connection_ids:
                    merged.setdefault(role, {}).setdefault(connection_id, []).append(route)
        if not merged:
            self._turns.pop(realm, None)
            return
        old = self._turns.get(realm, {})
        fresh = {role: _Turns(routes) for role, routes in merged.items()}
        for role, turns in fresh.items():
            # An untouched role keeps its turn: adding a route elsewhere must not bunch logins on the first connection.
            if role in old and old[role].ids == turns.ids:
                turns.turn = old[role].turn
        self._turns[realm] = fresh

    def has_realm(self, realm: str) -> bool:
        """Whether a started route with at least one role is for ``realm``."""
        return realm in self._turns

    def has_role(self, realm: str, role: str) -> bool:
        """Whether :meth:`pick` would find something."""
        return role in self._turns.get(realm, ())

    def pick(self, realm: str, role: str, is_usable: Callable[[str], bool] | None = None) -> tuple[str, ...]:
        """The connections to try for one login, the one whose turn it is first, the others after it in their order.

        :param realm: realm the client was accepted to.
        :param role: exact role that authentication gave it.
        :param is_usable: connections that it refuses lose their turn to the next one, so that those that are left share
            the load evenly. They are still in the result; when it refuses all, the turn goes on as if it refused none.
        :return: connection ids, at least one.
        :raises NoSuchRealm: no route for the realm.
        :raises NoSuchRole: no route for the role in it.
        """
        roles = self._turns.get(realm)
        if roles is None:
            raise NoSuchRealm(realm)
        turns = roles.get(role)
        if turns is None:
            raise NoSuchRole(role)
        ids = turns.ids
        if len(ids) == 1:
            return ids
        count, turn = len(ids), turns.turn
        if is_usable is not None and not is_usable(ids[turn]):
            others = ((turn + step) % count for step in range(1, count))
            turn = next((other for other in others if is_usable(ids[other])), turn)
        turns.turn = (turn + 1) % count
        return ids[turn:] + ids[:turn]

    def peek(self, realm: str, role: str) -> str | None:
        """The connection whose turn it is, which stays so; None where :meth:`pick` would find nothing."""
        turns = self._turns.get(realm, {}).get(role)
        return turns.ids[turns.turn] if turns is not None else None

    def connection_ids(self, realm: str, role: str) -> tuple[str, ...]:
        """The connections that a realm and role lead to; empty if there are none."""
        turns = self._turns.get(realm, {}).get(role)
        return turns.ids if turns is not None else ()

    def naming(self, realm: str, role: str, connection_id: str) -> list[ProxyRoute]:
        """The routes that lead a realm and role to a connection."""
        turns = self._turns.get(realm, {}).get(role)
        return turns.routes.get(connection_id, []) if turns is not None else []

    def realms(self) -> list[str]:
        """Names of all realms that have a route, sorted."""
        return sorted(self._routes)

    def of_realm(self, realm: str) -> list[ProxyRoute]:
        """The routes of one realm in the order they were started; empty if there are none."""
        return list(self._routes.get(realm, {}).values())

    def get(self, realm: str, route_id: str) -> ProxyRoute | None:
        """One route, or None."""
        return self._routes.get(realm, {}).get(route_id)

    def using(self, connection_id: str) -> Iterator[ProxyRoute]:
        """The routes that name a connection."""
        for routes in self._routes.values():
            for route in routes.values():
                if any(connection_id in ids for ids in route.roles.values()):
                    yield route

    # --- the sessions that came by them ---

    def enter(self, realm: str, role: str, connection_id: str) -> RouteUse | None:
        """Count in a session that has joined.

        :returns: what leave() takes; None: no route leads there any more.
        """
        routes = self.naming(realm, role, connection_id)
        if not routes:
            return None
        for route in routes:
            route.joined += 1
        key = realm, role, connection_id
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = RouteUse(realm, role, connection_id)
        use.live += 1
        return use

    def leave(self, use: RouteUse) -> None:
        """Count it out: it is over."""
        use.live -= 1
        if not use.live:
            del self._uses[use.realm, use.role, use.connection_id]

    def live(self, route: ProxyRoute) -> int:
        """Sessions that a route leads to. Those of a realm, role and connection that two routes name count for both."""
        keys = ((route.realm, role, connection_id) for role, ids in route.roles.items() for connection_id in ids)
        return sum(use.live for use in map(self._uses.get, keys) if use is not None)

    def live_by_connection(self) -> Counter[str]:
        """Sessions by the id of their connection."""
        count: Counter[str] = Counter()
        for use in self._uses.values():
            count[use.connection_id] += use.live
        return count

    def stranded(self, route: ProxyRoute) -> list[RouteUse]:
        """The sessions of a route that was removed that no other route leads to, by realm, role and connection."""
        keys = ((route.realm, role, connection_id) for role, ids in route.roles.items() for connection_id in ids)
        return [self._uses[key] for key in keys if key in self._uses and not self.naming(*key)]
