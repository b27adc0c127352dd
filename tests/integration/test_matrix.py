"""Real clients reach real routers through the proxy, over every transport and serializer."""

from __future__ import annotations

import pytest

from support.clients import EXPECTED, ClientDriver
from support.matrix import (
    DEFLATES,
    SERIALIZERS,
    Combination,
    combinations,
    feature_combinations,
    scenarios_of,
    wrong,
)
from support.proxies import ProxyProcess

pytestmark = [pytest.mark.slow, pytest.mark.peers]


@pytest.mark.parametrize("combination", combinations(), ids=str)
def test_scenarios_through_the_proxy(combination: Combination, main_proxy: ProxyProcess, get_client) -> None:
    """Every scenario that client and router can do gives what the specification says."""
    client: ClientDriver = get_client(combination.client)
    endpoint = main_proxy.endpoints[f"{combination.router}/{combination.transport}"]
    scenarios = scenarios_of(combination)
    results = client.run(endpoint, combination.serializer, scenarios)
    assert set(results) >= set(scenarios)
    assert not wrong(results, EXPECTED)


@pytest.mark.parametrize("backend", ["crossbar_rs", "crossbar_ws", "xconn_rs", "xconn_ws", "xconn_ws_unix"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_way_to_the_router(backend: str, serializer: str, main_proxy: ProxyProcess, get_client) -> None:
    """RawSocket and WebSocket, TCP and Unix sockets behind the proxy, joined with a service credential."""
    router = backend.split("_")[0]
    scenarios = scenarios_of(Combination("autobahn-python", router, "ws-tcp", serializer))
    results = get_client("autobahn-python").run(main_proxy.endpoints[f"{backend}/ws-tcp"], serializer, scenarios)
    assert set(results) >= set(scenarios)
    assert not wrong(results, EXPECTED)


@pytest.mark.parametrize("combination", feature_combinations(), ids=str)
def test_scenarios_with_features(combination: Combination, feature_proxy: ProxyProcess, get_client) -> None:
    """The same with translation, the proxy's own session IDs, batches and compression on the way."""
    client: ClientDriver = get_client(combination.client)
    endpoint = feature_proxy.endpoints[combination.front]
    scenarios = scenarios_of(combination)
    keys = {"batched": combination.batched, "deflate": DEFLATES.get(combination.deflate)}
    results = client.run(endpoint, combination.serializer, scenarios, **keys)
    assert set(results) >= set(scenarios)
    assert not wrong(results, EXPECTED)
