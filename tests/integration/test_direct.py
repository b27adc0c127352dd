"""The harness against the routers themselves: what fails here is not the proxy's fault."""

from __future__ import annotations

import pytest

from support.clients import EXPECTED
from support.matrix import CLIENTS, ROUTERS, Combination, scenarios_of, wrong

pytestmark = [pytest.mark.slow, pytest.mark.peers]
CELLS = [
    Combination(client, router, transport, serializer)
    for client in CLIENTS
    for router in ROUTERS
    for transport, serializer in (("ws-tcp", "cbor"), ("rs-unix", "json"))
]


@pytest.mark.parametrize("combination", CELLS, ids=str)
def test_scenarios_without_the_proxy(combination: Combination, get_router, get_client) -> None:
    """Clients, routers and scenarios fit together."""
    endpoint = get_router(combination.router).direct[combination.transport]
    scenarios = scenarios_of(combination)
    assert not wrong(get_client(combination.client).run(endpoint, combination.serializer, scenarios), EXPECTED)
