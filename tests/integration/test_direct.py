"""The harness against the routers themselves: what fails here is not the proxy's fault."""

from __future__ import annotations

import pytest

from support.clients import EXPECTED
from support.matrix import CLIENTS, DEFLATES, ROUTERS, SERIALIZERS, Combination, scenarios_of, wrong

pytestmark = [pytest.mark.slow, pytest.mark.peers]
CELLS = [
    Combination(client, router, transport, serializer)
    for client in CLIENTS
    for router in ROUTERS
    for transport, serializer in (("ws-tcp", "cbor"), ("rs-unix", "json"))
]
RICH_CELLS = [
    *(Combination("autobahn-python", "crossbar", "ws-tcp", name, batched=True) for name in SERIALIZERS),
    Combination("autobahn-python", "crossbar", "ws-tcp", "ubjson"),
    *(Combination("autobahn-python", "crossbar", "ws-tcp", "cbor", batched=True, deflate=name) for name in DEFLATES),
    *(Combination("autobahn-js", "crossbar", "ws-tcp", "json", deflate=name) for name in DEFLATES),
    Combination("xconn", "crossbar", "ws-tcp", "msgpack", deflate="default"),
]


@pytest.mark.parametrize("combination", CELLS, ids=str)
def test_scenarios_without_the_proxy(combination: Combination, get_router, get_client) -> None:
    """Clients, routers and scenarios fit together."""
    endpoint = get_router(combination.router).direct[combination.transport]
    scenarios = scenarios_of(combination)
    assert not wrong(get_client(combination.client).run(endpoint, combination.serializer, scenarios), EXPECTED)


@pytest.mark.parametrize("combination", RICH_CELLS, ids=str)
def test_batches_and_compression_without_the_proxy(combination: Combination, crossbar, get_client) -> None:
    """The same for what clients negotiate on top."""
    scenarios = scenarios_of(combination)
    keys = {"batched": combination.batched, "deflate": DEFLATES.get(combination.deflate)}
    results = get_client(combination.client).run(crossbar.rich, combination.serializer, scenarios, **keys)
    assert not wrong(results, EXPECTED)
