"""An MQTT client that sends many packets at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

pytest.importorskip("mqtt5")

from proxy.mqtt.client import SLICE_SECONDS, MqttClient
from proxy.mqtt.layout import V5


class BusyClock(Clock):
    """Time passes whenever somebody looks at it."""

    def seconds(self) -> float:
        self.rightNow += SLICE_SECONDS / 4
        return self.rightNow


def test_others_are_served_in_between() -> None:
    """All packets are answered, but not in one go of the reactor."""
    clock = BusyClock()
    options = SimpleNamespace(max_packet_size=1000, max_subscriptions=1, receive_maximum=1)
    bridge: Any = SimpleNamespace(reactor=clock, options=options, connect_seconds=1000.0, leave=lambda _: None)
    bridge.gone = lambda _: None
    client = MqttClient(bridge, SimpleNamespace(text="", tls=None))  # type: ignore[arg-type]
    transport = StringTransport()
    client.makeConnection(transport)
    client._wire.version = V5
    client._deliverer = SimpleNamespace(clear=lambda: None)  # type: ignore[assignment]
    client.dataReceived(b"\xc0\0" * 100)
    turns = 0
    while len(transport.value()) < 200:
        turns += 1
        assert len(transport.value()) <= 12 * turns
        clock.advance(0)
    assert transport.value() == b"\xd0\0" * 100
    client.dataReceived(b"\xc0\0" * 100)
    client.connectionLost(None)  # type: ignore[arg-type]
    while client._turn is not None:
        clock.advance(0)
    assert clock.getDelayedCalls() == []
