"""Findings about dynamic authenticators: whether a route leads to them.

All are warnings: what is missing can still be added to the running worker.
"""

from collections.abc import Iterator

from proxy.config.auth import AUTHENTICATOR_ROLE, AuthConfig, Dynamic
from proxy.config.findings import Finding, Place, finding
from proxy.config.ways_in import ways_in
from proxy.config.worker import WorkerConfig


def findings(config: WorkerConfig, prefix: Place) -> Iterator[Finding]:
    """Look at a valid configuration.

    :param prefix: its place in the file.
    """
    for way in ways_in(config, prefix):
        for name in AuthConfig.model_fields:
            item = getattr(way.auth, name)
            if isinstance(item, Dynamic):
                yield from _route(config, item, (*way.place, "auth", name))


def _route(config: WorkerConfig, item: Dynamic, place: Place) -> Iterator[Finding]:
    role = item.authenticator_role or AUTHENTICATOR_ROLE
    realm = item.authenticator_realm
    if realm is not None and not config.routes.get(realm):
        text = f'no route for realm "{realm}": the authenticator cannot be called'
        yield finding((*place, "authenticator-realm"), realm, text, "warning")
        return
    routes = config.routes.values() if realm is None else [config.routes[realm]]
    if not any(role in roles for roles in routes):
        where = "any realm" if realm is None else f'realm "{realm}"'
        text = f'no route for role "{role}" in {where}: the authenticator cannot be called'
        text += "" if item.authenticator_role else " (the key is missing, so that is the role)"
        yield finding((*place, "authenticator-role"), role, text, "warning")
