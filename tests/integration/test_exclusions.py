"""What the matrix leaves out fails without the proxy too, in the way the table of exclusions says."""

from __future__ import annotations

import pytest

from support.clients import EXPECTED, SCENARIOS
from support.matrix import CLIENTS, DEFLATES, EXCLUSIONS, JSON_ONLY, ROUTERS, Combination, Exclusion

pytestmark = [pytest.mark.slow, pytest.mark.peers]
STEP = 1.5


def cells(exclusion: Exclusion) -> list[Combination]:
    """One combination for each client and router that an exclusion covers."""
    candidates = [Combination(client, router, "ws-tcp", "json") for client in CLIENTS for router in ROUTERS]
    return [combination for combination in candidates if exclusion.covers(combination)]


CASES = [(exclusion, combination) for exclusion in EXCLUSIONS for combination in cells(exclusion)]


@pytest.mark.parametrize(("exclusion", "combination"), CASES, ids=lambda value: getattr(value, "scenario", str(value)))
def test_fails_without_the_proxy(exclusion: Exclusion, combination: Combination, get_router, get_client) -> None:
    """The direct run shows the limit of the peer."""
    endpoint = get_router(combination.router).direct[combination.transport]
    scenario = {exclusion.scenario: SCENARIOS[exclusion.scenario]}
    results = get_client(combination.client).run(endpoint, combination.serializer, scenario, step=STEP)
    result = results[exclusion.scenario]
    if exclusion.error:
        assert exclusion.error in result.get("error", ""), result
    elif "error" in result:  # another exclusion of the same scenario stops it earlier
        assert any(other.error and other.error in result["error"] for other in EXCLUSIONS if other is not exclusion)
    else:
        assert result["observed"] == exclusion.observed != EXPECTED[exclusion.scenario]


@pytest.mark.parametrize("serializer", ["msgpack", "cbor"])
def test_autobahn_js_speaks_only_json_over_rawsocket(serializer: str, crossbar, get_client) -> None:
    """The reason for four cells less in the matrix."""
    result = get_client("autobahn-js").run(crossbar.direct["rs-tcp"], serializer, {"rpc": {}})["rpc"]
    assert "the library speaks wamp.2.json" in result["error"], JSON_ONLY


@pytest.mark.parametrize("transport", ["ws-tcp", "rs-tcp"])
def test_xconn_client_takes_less_than_a_mebibyte(transport: str, crossbar, get_client) -> None:
    """The reason for its smaller payload: a message of a little more than 1 MiB ends its connection or never comes."""
    results = get_client("xconn").run(crossbar.direct[transport], "cbor", {"payload": SCENARIOS["payload"]}, step=STEP)
    assert "error" in results["payload"]


@pytest.mark.parametrize("client", ["xconn", "autobahn-js"])
def test_no_batches_but_autobahn_pythons(client: str, crossbar, get_client) -> None:
    """The reason why only one client speaks batches in the matrix."""
    run = get_client(client).run(crossbar.rich, "json", {"rpc": {}}, batched=True, step=STEP)
    assert "error" in run["rpc"], run


def test_no_parameters_for_xconns_compression(crossbar, get_client) -> None:
    """The reason why it is compressed in one way only."""
    run = get_client("xconn").run(crossbar.rich, "json", {"rpc": {}}, deflate=DEFLATES["bits-9"], step=STEP)
    assert "the client has no parameters for its compression" in run["rpc"]["error"]


def test_crossbar_serves_no_flatbuffers() -> None:
    """The reason why FlatBuffers are not in the matrix: Crossbar.io always makes the batched serializer, too."""
    from autobahn.wamp.serializer import FlatBuffersSerializer

    with pytest.raises(AssertionError, match="batching"):
        FlatBuffersSerializer(batched=True)
