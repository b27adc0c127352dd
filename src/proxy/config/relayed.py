"""Findings about logins that are passed on to routers: whether routes and connections are there for them.

All are warnings: what is missing can still be added to the running worker.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from proxy.config.auth import AuthConfig, PassThroughAuth
from proxy.config.findings import Finding, Place, finding
from proxy.config.ways_in import ways_in
from proxy.config.worker import WorkerConfig


def findings(config: WorkerConfig, prefix: Place) -> Iterator[Finding]:
    """Look at a valid configuration.

    :param prefix: its place in the file.
    """
    roles: set[str] = set()
    for way in ways_in(config, prefix):
        item = way.auth.passthrough
        if item is None:
            continue
        here = (*way.place, "auth", "passthrough")
        roles |= {item.role, *(rule.role for rule in item.rules)}
        yield from _roles(config, item, here)
        yield from _local_methods(way.auth, item, here)
    yield from _unused(config, roles, prefix)


def _roles(config: WorkerConfig, item: PassThroughAuth, place: Place) -> Iterator[Finding]:
    """The roles of one transport: each has a route, and that one leads to a connection that relays logins."""
    yield from _role(config, item.role, None, (*place, "role"))
    for index, rule in enumerate(item.rules):
        here = (*place, "rules", index)
        yield from _role(config, rule.role, rule.realm, (*here, "role"))
        left = item.authmethods
        if rule.authmethods is not None and left is not None and not set(rule.authmethods) & set(left):
            text = f"has no effect: only {', '.join(left)} can be left to a router"
            yield finding((*here, "authmethods"), list(rule.authmethods), text, "warning")


def _role(config: WorkerConfig, role: str, realm: str | None, place: Place) -> Iterator[Finding]:
    routes = {
        name: roles[role]
        for name, roles in config.routes.items()
        if role in roles and (realm is None or fnmatchcase(name, realm))
    }
    where = "any realm" if realm is None else f'a realm like "{realm}"'
    if not routes:
        yield finding(place, role, f"no route for this role in {where}: such logins are refused", "warning")
    for name, ids in routes.items():
        if not any(_relays(config, connection_id) for connection_id in ids):
            text = f'the route for it in realm "{name}" leads to no connection with auth: {{"passthrough": {{}}}}'
            yield finding(place, role, f"{text}: such logins are refused", "warning")


def _relays(config: WorkerConfig, connection_id: str) -> bool:
    connection = config.connections.get(connection_id)
    return connection is not None and connection.auth_mode == "passthrough"


def _local_methods(auth: AuthConfig, item: PassThroughAuth, place: Place) -> Iterator[Finding]:
    for index, name in enumerate(item.authmethods or ()):
        if getattr(auth, name.replace("-", "_"), None) is not None:
            text = "has no effect: the transport decides this method itself"
            yield finding((*place, "authmethods", index), name, text, "warning")


def _unused(config: WorkerConfig, roles: set[str], prefix: Place) -> Iterator[Finding]:
    """Connections that relay logins are used for these only, and so they need a transport that has them relayed."""
    for realm, routes in config.routes.items():
        for role, ids in routes.items():
            for connection_id in ids if role not in roles else ():
                if _relays(config, connection_id):
                    text = "is never used: it takes relayed logins only, and no transport's passthrough names this role"
                    yield finding((*prefix, "routes", realm, role), connection_id, text, "warning")
