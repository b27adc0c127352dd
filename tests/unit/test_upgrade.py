"""What a listening WebSocket transport tells the data plane of an upgrade, and how it keeps to its memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from twisted.internet.task import Clock

from proxy.compression import stream_memory
from proxy.config import WorkerConfig
from proxy.controller import ProxyController
from proxy.messages import SER_CBOR, SER_JSON
from proxy.plane import EV_CLOSED, EV_HEAD
from support.planes import INTRO, FakePlane

DEFLATE = "permessage-deflate"
DEFAULT = {"inflate_bits": 15, "inflate_reset": False, "deflate_bits": 15, "deflate_reset": False, "mem_level": 8}
FULL = stream_memory(15) + stream_memory(15, 8)


class UpgradePlane(FakePlane):
    """Keeps the last upgrade of each connection: response, serializer and keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.upgrades: dict[int, tuple[bytes, int, dict[str, Any]]] = {}

    def upgrade(self, conn: int, response: bytes, serializer: int, **keywords: Any) -> None:
        self.upgrades[conn] = response, serializer, keywords


class Front:
    """One listening transport; ``more`` are keys of its configuration."""

    def __init__(self, type_: str = "websocket", deflate: dict[str, Any] | None = None, **more: Any) -> None:
        endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": 0}
        options = {} if deflate is None else {"compression": {"deflate": deflate}}
        transport = {"type": type_, "endpoint": endpoint, "options": options, **more}
        self.plane = UpgradePlane()
        controller = ProxyController(None, Clock(), plane=self.plane, worker_id="worker001", node_id="node7")
        controller.boot(WorkerConfig.model_validate({"transports": [transport]}))
        self.transport = controller.transports["transport000"]

    def upgrade(self, conn: int, protocols: str = "wamp.2.cbor", offer: str = DEFLATE) -> dict[str, Any]:
        """Keywords of the upgrade of a new connection."""
        lines = [
            "GET / HTTP/1.1",
            "Host: x",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Sec-WebSocket-Protocol: {protocols}",
            f"Sec-WebSocket-Extensions: {offer}",
        ]
        head = "\r\n".join([*lines, "", ""]).encode()
        self.transport.on_event(EV_HEAD, conn, 0, INTRO + head)
        response, _, keywords = self.plane.upgrades[conn]
        assert (b"permessage-deflate" in response) == ("inflate_bits" in keywords)
        return keywords

    def close(self, conn: int) -> None:
        """The connection ends."""
        self.transport.on_event(EV_CLOSED, conn, 0, b"")


def test_without_configuration_there_is_no_compression() -> None:
    for front in (Front(), Front(options={"compression": {}}), Front("websocket.testee")):
        assert front.upgrade(1) == {}


@pytest.mark.parametrize("type_", ["websocket", "websocket.testee"])
def test_what_was_agreed_reaches_the_data_plane(type_: str) -> None:
    settings = {"no_context_takeover": True, "max_window_bits": 12, "request_max_window_bits": 10, "memory_level": 3}
    front = Front(type_, settings)
    assert front.upgrade(1, offer=f"{DEFLATE}; client_max_window_bits, {DEFLATE}") == {
        "inflate_bits": 10,
        "inflate_reset": False,
        "deflate_bits": 12,
        "deflate_reset": True,
        "mem_level": 3,
    }
    assert front.upgrade(2, offer="") == {}


def test_a_plain_name_of_a_serializer_takes_batches_too() -> None:
    front = Front(serializers=["json", "cbor.batched"], deflate={})
    assert front.upgrade(1, "wamp.2.json.batched, wamp.2.json", "") == {"batched": True}
    assert front.upgrade(2, "wamp.2.json, wamp.2.json.batched", "") == {}
    assert front.upgrade(3, "wamp.2.cbor, wamp.2.msgpack, wamp.2.cbor.batched") == {"batched": True, **DEFAULT}
    assert [front.plane.upgrades[conn][1] for conn in (1, 2, 3)] == [SER_JSON, SER_JSON, SER_CBOR]
    assert b"wamp.2.cbor.batched\r\n" in front.plane.upgrades[3][0]


def test_all_serializers_are_batched_by_default() -> None:
    front = Front()
    for conn, name in enumerate(("json", "msgpack", "cbor"), 1):
        assert front.upgrade(conn, f"wamp.2.{name}.batched, wamp.2.{name}") == {"batched": True}


def test_a_testee_knows_no_batches() -> None:
    front = Front("websocket.testee")
    assert front.upgrade(1, "wamp.2.cbor.batched, wamp.2.cbor") == {}


def test_compression_ends_with_its_memory() -> None:
    front = Front(deflate={}, limits={"compression_memory": 2 * FULL + stream_memory(15)})
    assert [front.upgrade(conn) for conn in (1, 2)] == [DEFAULT, DEFAULT]
    assert front.upgrade(3) == {}
    assert front.upgrade(4, offer=f"{DEFLATE}, {DEFLATE}; server_no_context_takeover")["deflate_reset"]
    front.close(1)
    assert front.upgrade(5) == DEFAULT
    assert front.upgrade(6) == {}
    for conn in (2, 3, 4, 5, 6):
        front.close(conn)
    assert [front.upgrade(conn) for conn in (7, 8)] == [DEFAULT, DEFAULT]


def test_the_end_of_the_memory_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    front = Front(deflate={}, limits={"compression_memory": 4 * FULL})
    for conn in range(8):
        front.upgrade(conn)
    front.close(0)
    for conn in range(8, 11):
        front.upgrade(conn)
    assert caplog.text.count("is used up: further clients get no compression on transport transport000") == 1
    for conn in range(11):
        front.close(conn)
    for conn in range(5):
        front.upgrade(conn)
    assert caplog.text.count("is used up") == 2


def test_without_context_takeover_there_is_no_end() -> None:
    settings = {"request_no_context_takeover": True, "no_context_takeover": True}
    front = Front(deflate=settings, limits={"compression_memory": 0})
    assert all(front.upgrade(conn)["inflate_reset"] for conn in range(1, 50))


def test_a_refused_upgrade_takes_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    front = Front(deflate={}, limits={"compression_memory": FULL})
    for conn in (1, 2, 3):
        with pytest.raises(KeyError):
            front.upgrade(conn, "wamp.2.nonsense")
    assert front.upgrade(4) == DEFAULT
