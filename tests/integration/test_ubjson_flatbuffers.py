"""Clients that speak UBJSON or FlatBuffers reach routers that speak the same, and what these peers cannot do at all.

There is no translation for these two: the router is joined with the client's serializer or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.clients import EXPECTED, SCENARIOS, ClientDriver
from support.matrix import wrong
from support.proxies import Config, ProxyProcess
from support.routers import CrossbarRouter, FlatBuffersRouter, find_crossbar

pytestmark = [pytest.mark.slow, pytest.mark.peers]

ALL = ["json", "msgpack", "cbor", "ubjson", "flatbuffers"]
UBJSON, FLATBUFFERS = 4, 5

# What autobahn and Crossbar.io cannot do in FlatBuffers, with or without a proxy: scenario, and how it fails.
CANNOT = {
    "errors": "autobahn looks for the Arguments of an ERROR in the wrong place",
    "error_kwargs": "the same",
    "cancel": "WELCOME and HELLO carry no roles, so that Crossbar.io thinks that the callee cannot be interrupted",
    "shared": "Crossbar.io gets no invocation policy",
}
CAN = {name: keys for name, keys in SCENARIOS.items() if name not in CANNOT}


@pytest.fixture(scope="module")
def flat(crossbar: CrossbarRouter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlatBuffersRouter]:
    """A Crossbar.io that speaks FlatBuffers."""
    program = find_crossbar()
    assert program is not None
    router = FlatBuffersRouter(tmp_path_factory.mktemp("flat"), program)
    router.wait_ready()
    yield router
    router.stop()


@pytest.fixture(scope="module")
def proxy(
    crossbar: CrossbarRouter, flat: FlatBuffersRouter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    """Roles lead to routers: as the proxy's own, over RawSocket, over WebSocket, and to the one with FlatBuffers."""
    config = Config(tmp_path_factory.mktemp("proxy"))
    backends = crossbar.backends | {"flat": flat.backends["crossbar_ws"]}
    for name, item in backends.items():
        role = "anonymous" if name == "crossbar" else name  # where the proxy asserts it, the router must know it
        config.backend(name, item, role=role)
        config.listen("websocket", f"{name}/ws", role=role, serializers=ALL)
        config.listen("rawsocket", f"{name}/rs", role=role, serializers=ALL)
    process = ProxyProcess(config)
    yield process
    process.check_idle()
    process.stop()


@pytest.mark.parametrize("backend", ["crossbar", "crossbar_rs", "crossbar_ws"])
@pytest.mark.parametrize("transport", ["ws", "rs"])
def test_ubjson(transport: str, backend: str, proxy: ProxyProcess, get_client: Callable[[str], ClientDriver]) -> None:
    """Everything that works with the other serializers."""
    results = get_client("autobahn-python").run(proxy.endpoints[f"{backend}/{transport}"], "ubjson", SCENARIOS)
    assert set(results) >= set(SCENARIOS)
    assert not wrong(results, EXPECTED)


@pytest.mark.parametrize("transport", ["ws", "rs"])
def test_flatbuffers(transport: str, proxy: ProxyProcess, get_client: Callable[[str], ClientDriver]) -> None:
    """All that autobahn and Crossbar.io can do in FlatBuffers, calls, events and progressive results included."""
    results = get_client("autobahn-python").run(proxy.endpoints[f"flat/{transport}"], "flatbuffers", CAN)
    assert set(results) >= set(CAN)
    assert not wrong(results, EXPECTED)


@pytest.mark.parametrize("scenario", CANNOT)
def test_what_flatbuffers_peers_cannot_do_without_a_proxy(
    scenario: str, flat: FlatBuffersRouter, get_client: Callable[[str], ClientDriver]
) -> None:
    """The reason for what test_flatbuffers leaves out."""
    chosen = {scenario: SCENARIOS[scenario]}
    results = get_client("autobahn-python").run(flat.direct["ws-tcp"], "flatbuffers", chosen, step=1.5)
    assert wrong({scenario: results[scenario]}, EXPECTED), CANNOT[scenario]


def refusal(endpoint: Any, serializer: str, get_client: Callable[[str], ClientDriver]) -> str:
    results = get_client("autobahn-python").run(endpoint, serializer, {"rpc": {}})
    return str(results["rpc"].get("error"))


def test_a_router_that_speaks_neither(proxy: ProxyProcess, get_client: Callable[[str], ClientDriver]) -> None:
    """The client is told by an ABORT in its own serializer."""
    assert "wamp.error.network_failure" in refusal(proxy.endpoints["crossbar_ws/ws"], "flatbuffers", get_client)
    assert "wamp.error.network_failure" in refusal(proxy.endpoints["flat/ws"], "ubjson", get_client)


def test_no_identity_is_asserted_in_flatbuffers(proxy: ProxyProcess, get_client: Callable[[str], ClientDriver]) -> None:
    """HELLO cannot carry it: the client must not get to the router as somebody else."""
    assert "wamp.error.network_failure" in refusal(proxy.endpoints["crossbar/ws"], "flatbuffers", get_client)


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("number", [UBJSON, FLATBUFFERS])
def test_they_are_spoken_where_they_are_named(
    kind: str, number: int, tmp_path: Path, crossbar: CrossbarRouter, make_proxy: Callable[..., ProxyProcess]
) -> None:
    """Not named, they are refused in the handshake."""
    config = Config(tmp_path).backend("crossbar", crossbar.backends["crossbar"])
    endpoint = config.listen(kind)
    make_proxy(config)
    if kind == "rawsocket":
        with endpoint.connect() as sock:
            sock.sendall(bytes([0x7F, 0xF0 | number, 0, 0]))
            assert sock.recv(4) == b"\x7f\x10\0\0"
    else:
        with pytest.raises(raw.HandshakeRefused):
            raw.dial(endpoint, serializer="ubjson" if number == UBJSON else "flatbuffers")
