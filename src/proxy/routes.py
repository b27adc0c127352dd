"""Which connections serve a realm and role, and whose turn it is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from proxy.lifecycle import Lifecycle, State

__all__ = ["NoSuchRealm", "NoSuchRole", "ProxyRoute", "RouteTable"]


class NoSuchRealm(LookupError):
    """No started route is for this realm."""


class NoSuchRole(LookupError):
    """The realm has routes, but none for this role."""


class ProxyRoute(Lifecycle):
    """For one realm: role -> the connections that take its sessions, in order.

    :param realm: realm name.
    :param route_id: ``route%03d``, unique in the worker.
    :param roles: role -> connection ids, at least one each.
    """

    __slots__ = ("config", "id", "realm", "roles", "since", "until")

    def __init__(self, realm: str, route_id: str, roles: Mapping[str, Sequence[str]]) -> None:
        super().__init__(f'route "{route_id}" of realm "{realm}"')
        self.realm = realm
        self.id = route_id
        self.roles: dict[str, tuple[str, ...]] = {role: tuple(ids) for role, ids in roles.items()}
        # As in the configuration: a lone connection is a plain string.
        self.config: dict[str, str | list[str]] = {
            role: ids[0] if len(ids) == 1 else list(ids) for role, ids in self.roles.items()
        }
        self.since: int | None = None
        self.until: int | None = None

    def start(self) -> None:
        """Mark it started, at the present time."""
        self.enter(State.STARTING)
        self.enter(State.STARTED)
        self.since = time.time_ns()

    def stop(self) -> None:
        """Mark it stopped, at the present time."""
        self.enter(State.STOPPING)
        self.enter(State.STOPPED)
        self.since = None
        self.until = time.time_ns()

    def marshal(self) -> dict[str, Any]:
        """What the management API shows: realm, id, config, started and stopped (ns since the epoch), state."""
        return {
            "realm": self.realm,
            "id": self.id,
            "config": self.config,
            "started": self.since,
            "stopped": self.until,
            "state": int(self.state),
        }


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
