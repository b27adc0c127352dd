"""Web services of a worker under a real Crossbar.io node, which orders them one by one after their transport."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from support.endpoints import Endpoint, free_port
from support.nodes import CallFailed, Node, proxy_worker, router_worker, running
from support.raw import dial
from support.routers import find_crossbar
from support.web_client import Place

pytestmark = [pytest.mark.slow, pytest.mark.peers]

PATHS: dict[str, Any] = {
    "/": {"type": "static", "directory": "files"},
    "info": {"type": "nodeinfo"},
    "j": {"type": "json", "value": [1]},
    "p": {"type": "path", "paths": {"q": {"type": "json", "value": 2}}},
    "ws": {
        "type": "websocket",
        "auth": {"anonymous": {"type": "static", "role": "anonymous"}},
    },
}
WEB = Endpoint("websocket", free_port())
UNIVERSAL = Endpoint("websocket", free_port())
SERVICE = {"type": "json", "value": "new"}


def worker_item() -> dict[str, Any]:
    """A proxy worker with both kinds of transport that have paths."""
    item = proxy_worker("router.sock", WEB, extra={"threads": 1})
    item["transports"] = [
        {"type": "web", "id": "web1", "endpoint": WEB.as_config(), "paths": PATHS},
        {"type": "universal", "id": "uni1", "endpoint": UNIVERSAL.as_config(), "web": {"paths": PATHS}},
    ]
    return item


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a router worker and ours."""
    if find_crossbar() is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    with tempfile.TemporaryDirectory(prefix="node") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        (folder / "files" / "index.html").write_text("start")
        with running(Node(folder, [router_worker("router.sock"), worker_item()])) as started:
            yield started


@pytest.mark.parametrize("endpoint", [WEB, UNIVERSAL], ids=["web", "universal"])
def test_the_node_boots_all_services(node: Node, endpoint: Endpoint) -> None:
    place = Place(endpoint.port)
    assert place.ask("/").text == "start"
    assert place.ask("/j").text == "[1]"
    assert place.ask("/p/q").text == "2"
    assert "proxy1" in place.ask("/info").text
    peer = dial(endpoint)
    peer.join()
    peer.leave()


@pytest.mark.parametrize(("transport", "endpoint"), [("web1", WEB), ("uni1", UNIVERSAL)], ids=["web", "universal"])
def test_services_are_managed_over_the_node(node: Node, transport: str, endpoint: Endpoint) -> None:
    watcher = node.watcher
    mark = watcher.mark()
    assert node.worker("proxy1", "get_web_transport_services", transport) == sorted(PATHS)
    node.worker("proxy1", "start_web_transport_service", transport, "new", SERVICE)
    assert Place(endpoint.port).ask("/new").text == '"new"'
    node.worker("proxy1", "stop_web_transport_service", transport, "new")
    assert Place(endpoint.port).ask("/new").status == 404
    watcher.wait_event("crossbar.worker.proxy1.on_web_transport_service_stopped", mark)
    names = [event.name for event in watcher.since(mark) if "web_transport_service" in event.name]
    assert [name.rpartition("_")[2] for name in names] == ["starting", "started", "stopping", "stopped"]
    with pytest.raises(CallFailed, match="already_running"):
        node.worker("proxy1", "start_web_transport_service", transport, "j", PATHS["j"])
