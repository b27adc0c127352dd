"""The configuration of MQTT: what is taken, and what is wrong with the rest."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

pytest.importorskip("mqtt5")

from proxy.config import ConfigError, TransportConfig, checked
from proxy.config.loading import check

TCP = {"type": "tcp", "port": 1883}


def mqtt(**options: Any) -> dict[str, Any]:
    return {"type": "mqtt", "endpoint": TCP, "options": {"realm": "realm1", **options}}


def test_defaults() -> None:
    """Without auth everybody has the role of the options."""
    model, _ = checked(TransportConfig, mqtt(role="sensor"), None)
    assert model.options.auth.anonymous.role == "sensor"
    model, _ = checked(TransportConfig, mqtt(), None)
    assert model.options.auth.anonymous.role == "anonymous"
    assert model.options.payload_mapping == {}


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (mqtt(realm=""), "options.realm"),
        (mqtt(qos=1), "options.qos"),
        (mqtt(payload_mapping={"": {"type": "native"}}), "serializer"),
        (mqtt(payload_mapping={"": {"type": "native", "serializer": "xml"}}), "cbor or json or msgpack or ubjson"),
        (mqtt(payload_mapping={"": {"type": "dynamic", "encoder": "a.b"}}), "decoder"),
        (mqtt(payload_mapping={"": {"type": "dynamic", "encoder": "a.b", "decoder": "a b"}}), "URI of a procedure"),
        (mqtt(payload_mapping={"": {"type": "magic"}}), "passthrough"),
        (mqtt(max_packet_size=10), "from 256 to"),
        (mqtt(receive_maximum=0), "from 1 to 65535"),
        ({"type": "mqtt", "endpoint": TCP}, "options"),
        (
            {"type": "universal", "endpoint": TCP, "mqtt": {"endpoint": TCP, "options": {"realm": "realm1"}}},
            "mqtt.endpoint",
        ),
    ],
)
def test_errors(item: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(TransportConfig, item, None)
    assert text in str(caught.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "mqtt5" else find_spec(name))
    with pytest.raises(ConfigError, match=r"install wamp-proxy\[mqtt\]"):
        checked(TransportConfig, mqtt(), None)


def test_check_sees_how_clients_log_in(tmp_path: Any) -> None:
    """A way in on which nobody can log in is noted, as for other types."""
    path = tmp_path / "proxy.yaml"
    path.write_text(
        "type: proxy\ntransports:\n- type: mqtt\n  endpoint: {type: tcp, port: 1883}\n"
        "  options: {realm: realm1, auth: {}}\n"
    )
    findings = {finding.place: finding.expected for finding in check(path)}
    assert findings["transports[0].options.auth"] == "no method: nobody can log in"
