"""Which connections serve a realm and role, and whose turn it is."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from proxy.errors import InvalidConfiguration
from proxy.lifecycle import Managed

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["NoSuchRealm", "NoSuchRole", "ProxyRoute", "RouteTable"]


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
    :raises InvalidConfiguration: no role, or something that is not an id.

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
        self.realm = realm_name
        self.id = route_id
        self.roles = _roles(realm_name, config)
        self.config: dict[str, Any] = {
            role: list(ids) if isinstance(ids, (list, tuple)) else ids for role, ids in config.items()
        }
        self.joined = 0

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
        raise InvalidConfiguration(f"{where}: {config!r}: expected a mapping of roles to connection ids")
    if not config:
        raise InvalidConfiguration(f"{where}: expected at least one role, got none")
    roles: dict[str, tuple[str, ...]] = {}
    for role, value in config.items():
        if not isinstance(role, str) or not role:
            raise InvalidConfiguration(f"{where}, role {role!r}: expected a string that is not empty")
        ids = (value,) if isinstance(value, str) else value
        if not isinstance(ids, (list, tuple)) or not ids or not all(isinstance(item, str) and item for item in ids):
            raise InvalidConfiguration(
                f'{where}, role "{role}": {value!r}: expected the id of a connection or a list of them'
            )
        roles[role] = tuple(dict.fromkeys(ids))
    return roles


class _Turns:
    """The connections of one (realm, role) over all its routes, and the index of the next one."""

    __slots__ = ("ids", "turn")

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids
        self.turn = 0


class RouteTable:
    """The started routes of a worker.

    Several routes may name the same realm and role; then their connections follow each other in the order in which the
    routes were started, and one that is named twice counts once. What a stopped route alone brought in is gone at once.
    """

    def __init__(self) -> None:
        self._routes: dict[str, dict[str, ProxyRoute]] = {}
        self._turns: dict[str, dict[str, _Turns]] = {}

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
        merged: dict[str, dict[str, None]] = {}
        for route in self._routes.get(realm, {}).values():
            for role, connection_ids in route.roles.items():
                merged.setdefault(role, {}).update(dict.fromkeys(connection_ids))
        if not merged:
            self._turns.pop(realm, None)
            return
        old = self._turns.get(realm, {})
        fresh: dict[str, _Turns] = {}
        for role, names in merged.items():
            ids = tuple(names)
            turns = old.get(role)
            # An untouched role keeps its turn: adding a route elsewhere must not bunch logins on the first connection.
            fresh[role] = turns if turns is not None and turns.ids == ids else _Turns(ids)
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
