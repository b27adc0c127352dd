"""MQTT clients on WAMP topics: a real client of both versions, a real router, WAMP peers on the other side."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mqtt5")
pytest.importorskip("paho.mqtt.client")

from conftest import missing, session_count
from support.census import assert_grown, rss
from support.certificates import Certificates
from support.endpoints import Endpoint, free_port
from support.mqtt import TIMEOUT, V5, V311, Mqtt, MqttConfig, dial
from support.process import wait_until
from support.proxies import ProxyProcess
from support.raw import (
    EVENT,
    INVOCATION,
    PUBLISH,
    PUBLISHED,
    YIELD,
    Peer,
    Wire,
    joined,
)
from support.routers import CrossbarRouter, find_crossbar
from support.stub import StubRouter

pytestmark = [pytest.mark.slow, pytest.mark.peers]

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
PASSTHROUGH = {"enc_algo": "mqtt"}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Keys and certificates."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def config(tmp_path: Path, crossbar: CrossbarRouter) -> Iterator[MqttConfig]:
    """In front of Crossbar.io, which has no more sessions after the test than before."""
    before = session_count(crossbar)
    config = MqttConfig(tmp_path)
    config.backend("crossbar", crossbar.backends["crossbar"])
    yield config
    wait_until(lambda: session_count(crossbar) <= before, "the router's sessions have ended")


@pytest.fixture
def connect() -> Iterator[Callable[..., Mqtt]]:
    """A client, which leaves in the end."""
    clients: list[Mqtt] = []

    def make(*args: Any, **keys: Any) -> Mqtt:
        clients.append(Mqtt(*args, **keys))
        return clients[-1]

    yield make
    for client in clients:
        client.leave()


@pytest.fixture
def wamp(crossbar: CrossbarRouter) -> Iterator[Peer]:
    """A WAMP peer at the router itself."""
    with joined(crossbar.direct["ws-tcp"], "cbor") as peer:
        yield peer
        peer.leave()


def subscribe(peer: Peer, topic: str, **options: Any) -> None:
    peer.subscribe(topic, **options)


def publish(peer: Peer, topic: str, *rest: Any, **options: Any) -> None:
    peer.send([PUBLISH, peer.request(), {"acknowledge": True, **options}, topic, *rest])
    peer.recv_type(PUBLISHED)


# --- events ---


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_mqtt_to_mqtt(version: int, qos: int, config, make_proxy, connect) -> None:
    """Of every quality of service, to a client of the other version, and to the publisher itself."""
    port = config.mqtt()
    make_proxy(config)
    sender, other = connect(port, version), connect(port, V5 if version == V311 else V311)
    for client in (sender, other):
        assert client.subscribe("com/example/+", qos=qos) == [qos]
    for number in range(5):
        assert sender.publish("com/example/a", b"\0\xff%d" % number, qos) == 0
    for client in (sender, other):
        assert [client.message() for _ in range(5)] == [("com/example/a", b"\0\xff%d" % n) for n in range(5)]
        assert client.messages.empty()


@VERSIONS
def test_mqtt_to_wamp_and_back(version: int, config, make_proxy, connect, wamp) -> None:
    """Payloads go through as they are; so does the only argument of an event."""
    port = config.mqtt()
    make_proxy(config)
    client = connect(port, version)
    subscribe(wamp, "com.example.up")
    client.publish("com/example/up", b"\x01\x02", 1)
    event = wamp.recv()
    assert event[0] == EVENT
    assert event[3]["enc_algo"] == "mqtt"
    assert event[4] == b"\x01\x02"
    client.subscribe("com/example/down")
    publish(wamp, "com.example.down", b"\xfe", **PASSTHROUGH)
    publish(wamp, "com.example.down", ["text"])
    publish(wamp, "com.example.down", [b"octets"])
    publish(wamp, "com.example.down", [1, 2, 3])  # that is no payload: it is dropped
    publish(wamp, "com.example.down", ["last"])
    assert [client.message()[1] for _ in range(4)] == [b"\xfe", b"text", b"octets", b"last"]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "cbor", "ubjson"])
def test_native(serializer: str, config, make_proxy, connect, wamp) -> None:
    """Arguments are in the payload, and only there where the mapping says so."""
    mapping = {"com.example": {"type": "native", "serializer": serializer}, "com.example.raw": {"type": "passthrough"}}
    port = config.mqtt({"payload_mapping": mapping})
    make_proxy(config)
    one, other = connect(port, V5), connect(port, V311)
    subscribe(wamp, "com.example.native")
    other.subscribe("com/example/#", qos=1)
    publish(wamp, "com.example.native", [1, "ä"], {"key": [None, True]})
    topic, payload = other.message()
    assert topic == "com/example/native"
    assert one.publish(topic, payload, 1) == 0
    assert wamp.recv()[4:] == [[1, "ä"], {"key": [None, True]}]
    assert other.message() == (topic, payload)
    if serializer == "json":
        assert json.loads(payload) == {"args": [1, "ä"], "kwargs": {"key": [None, True]}}
        assert one.publish(topic, b'{"args": 1}', 1) == 0x99
        assert one.publish(topic, b"\xff", 1) == 0x99
        assert other.publish(topic, b"no json", 1) == 0  # version 3.1.1 has no way to say so
        assert one.publish("com/other", b"{}", 1) == 0x99
    assert one.publish("com/example/raw", b"\xff", 1) == 0
    assert other.message() == ("com/example/raw", b"\xff")


def test_dynamic(config, make_proxy, connect, crossbar) -> None:
    """Procedures make payloads; what comes later does not overtake what waits for them."""
    codec = {"type": "dynamic", "encoder": "com.codec.encode", "decoder": "com.codec.decode"}
    port = config.mqtt({"payload_mapping": {"com.temperature": codec, "com": {"type": "passthrough"}}})
    proxy = make_proxy(config)
    with joined(crossbar.direct["ws-tcp"], "cbor") as callee, joined(crossbar.direct["ws-tcp"], "cbor") as peer:
        procedures = {}
        for name in ("com.codec.encode", "com.codec.decode"):
            procedures[callee.register(name)] = name
        subscribe(peer, "com.", match="prefix")
        client = connect(port)
        client.subscribe("com/#")
        client.paho.publish("com/temperature/attic", b"21.5", 1)
        client.paho.publish("com/plain", b"after it", 1)
        call = callee.recv()
        assert call[0] == INVOCATION
        assert procedures[call[2]] == "com.codec.decode"
        assert call[4] == ["com.temperature.attic", "com/temperature/attic", b"21.5"]
        callee.send([YIELD, call[1], {}, [{"args": [21.5], "kwargs": {"unit": "C"}}]])
        assert peer.recv()[4:] == [[21.5], {"unit": "C"}]
        assert peer.recv()[4] == b"after it"
        call = callee.recv()
        assert procedures[call[2]] == "com.codec.encode"
        assert call[4] == ["com/temperature/attic", "com.temperature.attic", [21.5], {"unit": "C"}]
        assert client.messages.empty()
        callee.send([YIELD, call[1], {}, [b"21.5 C"]])
        assert [client.message() for _ in range(2)] == [
            ("com/temperature/attic", b"21.5 C"),
            ("com/plain", b"after it"),
        ]
        client.leave()
    proxy.stop()  # and with it the session that it called from


def test_a_codec_that_fails(config, make_proxy, connect) -> None:
    """Nobody is there: the publication is refused, and the client goes on."""
    codec = {"type": "dynamic", "encoder": "com.nobody", "decoder": "com.nobody"}
    port = config.mqtt({"payload_mapping": {"com.lost": codec, "": {"type": "passthrough"}}})
    proxy = make_proxy(config)
    client = connect(port)
    assert client.publish("com/lost", b"x", 1) == 0x83
    assert client.publish("com/found", b"x", 1) == 0
    client.leave()
    proxy.stop()


# --- subscriptions ---


@VERSIONS
def test_filters(version: int, config, make_proxy, connect, wamp) -> None:
    """Which topics which filters stand for, and those that WAMP has not."""
    port = config.mqtt({"max_subscriptions": 4})
    make_proxy(config)
    client = connect(port, version)
    failed = [0x80] * 4 if version == V311 else [0x8F, 0x8F, 0x8F, 0x9E]
    # paho itself refuses what is no filter of MQTT's; these are, or it does not look.
    assert client.subscribe("+/a/#", "/a", "a b", "$share/group/a") == failed
    assert client.subscribe("one/+/three", "two/#", "three") == [0, 0, 0]
    for topic in ("one.two.three", "one.two.four", "two", "two.three.four", "twox", "three", "three.four"):
        publish(wamp, topic, [topic])
    got = [client.message() for _ in range(4)]
    expected = ("one.two.three", "two", "two.three.four", "three")
    assert got == [(topic.replace(".", "/"), topic.encode()) for topic in expected]
    assert client.subscribe("four", "five") == [0, 0x80 if version == V311 else 0x97]
    assert client.unsubscribe("two/#", "unknown") == ([] if version == V311 else [0, 0x11])
    for topic in ("two", "two.three", "three"):
        publish(wamp, topic, [topic])
    assert client.message()[0] == "three"
    assert client.messages.empty()


@VERSIONS
def test_retained(version: int, config, make_proxy, connect, wamp) -> None:
    """What is retained comes with a subscription, and an empty payload deletes it."""
    port = config.mqtt()
    make_proxy(config)
    client = connect(port, version)
    topic = f"com/retained/{version}"
    client.subscribe(topic)
    assert client.publish(topic, b"kept", 1, retain=True) == 0
    live = client.messages.get(timeout=TIMEOUT)
    assert (live.payload, live.retain) == (b"kept", False)
    late = connect(port, version)
    late.subscribe(topic)
    kept = late.messages.get(timeout=TIMEOUT)
    assert (kept.payload, kept.retain) == (b"kept", True)
    assert client.publish(topic, b"", 1, retain=True) == 0
    assert late.message() == (topic, b"")
    later = connect(port, version)
    later.subscribe(topic)
    assert client.publish(topic, b"live", 1) == 0
    assert later.message() == (topic, b"live")


def test_what_version_5_may_ask_for(config, make_proxy, connect) -> None:
    """Identifiers of subscriptions, nothing of one's own, and no retained events."""
    port = config.mqtt()
    make_proxy(config)
    client, other = connect(port), connect(port)
    assert other.publish("com/five", b"old", 1, retain=True) == 0
    assert client.subscribe("com/five", qos=1, number=77, noLocal=True, retainHandling=2) == [1]
    assert client.publish("com/five", b"own", 1) == 0
    assert other.publish("com/five", b"other's", 1) == 0
    message = client.messages.get(timeout=TIMEOUT)
    assert (message.payload, message.properties.SubscriptionIdentifier) == (b"other's", [77])


# --- logins ---


TICKETS = {"ticket": {"type": "static", "principals": {"joe": {"ticket": "s3cret", "role": "anonymous"}}}}


@VERSIONS
def test_user_name_and_password(version: int, config, make_proxy, connect, crossbar) -> None:
    """They are a ticket; the router is told who it is, and the log nothing secret."""
    port = config.mqtt({"auth": TICKETS})
    proxy: ProxyProcess = make_proxy(config)
    with joined(crossbar.direct["ws-tcp"], "cbor") as peer:
        subscribe(peer, "wamp.session.on_join")
        client = connect(port, version, "thermometer", user="joe", password="s3cret")
        assert client.code == 0
        session = peer.recv()[4][0]
        assert session["authid"] == "joe"
        assert session["transport"]["peer"].startswith("tcp4:127.0.0.1:")
    # paho shows the return codes of 3.1.1 as those of version 5.
    for user, password in (("joe", "wrong"), ("ann", "s3cret")):
        client = connect(port, version, user=user, password=password)
        assert client.code == 0x86
    assert connect(port, version).code == 0x87
    assert "s3cret" not in proxy.child.output


def test_the_realm_is_not_there(config, make_proxy, connect) -> None:
    port = config.mqtt({"realm": "nowhere"})
    make_proxy(config)
    for version in (V311, V5):
        assert connect(port, version).code == 0x88


@VERSIONS
def test_persistent_sessions_are_not_kept(version: int, config, make_proxy, connect) -> None:
    """The client is told so, and its subscriptions are gone."""
    port = config.mqtt()
    make_proxy(config)
    expiry = {"properties": {"SessionExpiryInterval": 600}} if version == V5 else {}
    client = connect(port, version, "device", clean=False, **expiry)
    client.subscribe("com/kept")
    client.leave()
    again = connect(port, version, "device", clean=False, **expiry)
    assert (again.code, again.flags.session_present) == (0, False)
    if version == V5:
        assert again.properties.SessionExpiryInterval == 0
    assert again.publish("com/kept", b"x", 1) == 0
    assert again.messages.empty()


@VERSIONS
def test_the_same_client_once_more(version: int, config, make_proxy, connect) -> None:
    """It takes the session's place; another user with the same client ID does not."""
    auth = {**TICKETS, "anonymous": {"type": "static", "role": "anonymous"}}
    port = config.mqtt({"auth": auth})
    make_proxy(config)
    first = connect(port, version, "device", will=("com/will", b"gone", 1, False))
    watcher = connect(port)
    watcher.subscribe("com/will")
    stranger = connect(port, version, "device", user="joe", password="s3cret")
    second = connect(port, version, "device")
    first.paho.loop_stop()
    assert first.end() == (0x8E if version == V5 else 0x80)
    assert watcher.message() == ("com/will", b"gone")
    assert second.publish("com/a", b"x", 1) == stranger.publish("com/a", b"x", 1) == 0


# --- how it ends ---


@VERSIONS
def test_will(version: int, config, make_proxy, connect) -> None:
    """It is published when the connection is lost, and not when the client says DISCONNECT."""
    port = config.mqtt()
    make_proxy(config)
    watcher = connect(port)
    watcher.subscribe("com/will/#")
    leaving = connect(port, version, will=("com/will/leaving", b"no", 0, False))
    leaving.leave()
    lost = connect(port, version, will=("com/will/lost", b"yes", 2, True))
    lost.hang_up()
    assert watcher.message() == ("com/will/lost", b"yes")
    late = connect(port)
    late.subscribe("com/will/lost")
    assert late.message() == ("com/will/lost", b"yes")
    assert late.publish("com/will/lost", b"", 1, retain=True) == 0


def test_keep_alive(config, make_proxy, connect) -> None:
    """A client that says nothing for one and a half times as long is lost."""
    port = config.mqtt()
    make_proxy(config)
    watcher = connect(port)
    watcher.subscribe("com/will")
    # CONNECT: version 5, clean start and a will, keep alive 1 s, client ID "a".
    body = b"\0\4MQTT\5\6\0\1\0\0\1a\0\0\x08com/will\0\4gone"
    wire = dial(port)
    wire.write(bytes([0x10, len(body)]) + body)
    assert wire.read(1) == b"\x20"
    end = wire.read_all()
    assert b"\xe0" in end
    assert b"\x8d" in end
    wire.close()
    assert watcher.message() == ("com/will", b"gone")


def test_stop(config, make_proxy, connect) -> None:
    """Clients are told that the server shuts down."""
    port = config.mqtt()
    proxy = make_proxy(config)
    client = connect(port)
    proxy.stop()
    assert client.end() == 0x8B


def test_the_router_is_lost(tmp_path: Path, make_proxy) -> None:
    """The client's connection ends, with a reason."""

    stub = StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock")))
    config = MqttConfig(tmp_path)
    config.backend("stub", {"transport": stub.endpoint.as_backend()})
    port = config.mqtt()
    make_proxy(config)
    wire = dial(port)
    wire.write(CONNECT5)
    router, _ = stub.accept_session()
    wire.read(wire.read(2)[1])
    router.close()
    assert wire.read_all()[0] == 0xE0
    wire.close()
    stub.close()


# --- limits, and what is wrong ---


CONNECT5 = b"\x10\x0d\0\4MQTT\5\2\0\x3c\0\0\0"
CONNECT311 = b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0"


@pytest.mark.parametrize(
    ("octets", "answer"),
    [
        (b"\x10\x0c\0\6MQIsdp\3\2\0\x3c", b"\x20\x02\0\x01"),
        (b"\x10\x0d\0\4MQTT\6\2\0\x3c\0\0\0", b"\x84"),
        (b"\x10\x0c\0\4MQTT\4\0\0\x3c\0\0", b"\x20\x02\0\x02"),
        (CONNECT311 + CONNECT311, b"\x20\x02\0\0"),
        (CONNECT5 + CONNECT5, b"\x82"),
        (CONNECT5 + b"\x30\6\0\3\xff\xfe\xfd\0", b"\x81"),
        (CONNECT5 + b"\x30\4\0\1\0\0", b"\x81"),
        (CONNECT5 + b"\x36\7\0\1a\0\1\0x", b"\x81"),
        (CONNECT5 + b"\x30\7\0\1a\3\x23\0\1", b"\x94"),
        (CONNECT5 + b"\x82\2\0\1", b"\x81"),
        (CONNECT5 + b"\x30\xff\xff\xff\x7f", b"\x95"),
        (CONNECT5 + b"\xf0\2\x19\0", b"\x82"),
        (CONNECT5 + b"\x20\3\0\0\0", b"\x82"),
        (CONNECT5[:7] + b"\1" + CONNECT5[8:], b""),
        (b"\x10\xff\xff\xff\xff", b""),
        (b"\x10\4\0\2XX", b""),
    ],
)
def test_what_is_no_mqtt(octets: bytes, answer: bytes, config, make_proxy, connect) -> None:
    """The connection ends, with the reason where there is a way to say it; others notice nothing."""
    port = config.mqtt({"max_packet_size": 4096})
    proxy = make_proxy(config)
    other = connect(port)
    wire = dial(port)
    wire.write(octets)
    said = wire.read_all()
    wire.close()
    assert answer in said
    assert other.publish("com/a", b"x", 1) == 0
    assert "panic" not in proxy.child.output


def test_no_connect(config, make_proxy) -> None:
    """Who says nothing, or only begins to, is cut off."""
    port = config.mqtt(limits={"handshake_timeout": 500})
    make_proxy(config)
    for octets in (b"", b"\x10", CONNECT5[:9]):
        wire = dial(port)
        wire.write(octets)
        assert wire.read_all() in (b"", b"HTTP/1.1") or not octets
        wire.close()


def test_the_same_publication_twice(config, make_proxy, connect) -> None:
    """QoS 2: it is published once, and again only when the client has released its number."""
    port = config.mqtt({"receive_maximum": 2})
    make_proxy(config)
    watcher = connect(port)
    watcher.subscribe("a")
    wire = dial(port)
    wire.write(CONNECT5)
    length = wire.read(2)[1]
    wire.read(length)
    first, again = b"\x34\7\0\1a\0\5\0x", b"\x3c\7\0\1a\0\5\0x"
    wire.write(first)
    assert wire.read(4) == b"\x50\2\0\5"
    wire.write(again)
    assert wire.read(4) == b"\x50\2\0\5"
    wire.write(b"\x62\2\0\5")
    assert wire.read(4) == b"\x70\2\0\5"
    wire.write(b"\x62\2\0\5")
    assert wire.read(5) == b"\x70\3\0\5\x92"
    wire.write(first.replace(b"x", b"y"))
    assert wire.read(4) == b"\x50\2\0\5"
    assert [watcher.message()[1] for _ in range(2)] == [b"x", b"y"]
    assert watcher.messages.empty()
    for number in (6, 7):
        wire.write(b"\x34\7\0\1a\0" + bytes([number]) + b"\0x")
    assert b"\x93" in wire.read_all()[4:]
    wire.close()


def test_a_client_that_does_not_acknowledge(config, make_proxy, wamp) -> None:
    """No more come than it has said that it takes, and the rest is not held in memory."""
    port = config.mqtt({"queue_limit_bytes": 65536}, limits={"stall_timeout": 1500})
    proxy: ProxyProcess = make_proxy(config)
    body = b"\0\4MQTT\5\2\0\0\3\x21\0\2\0\1a"  # receive maximum 2
    wire = dial(port)
    wire.write(bytes([0x10, len(body)]) + body)
    wire.read(wire.read(2)[1])
    wire.write(b"\x82\x0e\0\1\0\0\x08com/slow\1")
    assert wire.read(6) == b"\x90\4\0\1\0\1"
    before = rss(proxy.pid)
    payload = bytes(60_000)
    for _ in range(200):
        publish(wamp, "com.slow", [payload])
    assert_grown(proxy.pid, before, 8 << 20, "a client that does not acknowledge")
    said = wire.read_all()  # the data plane has cut it off
    assert said.count(b"com/slow") == 2
    wire.close()


def test_many_publications(config, make_proxy, connect) -> None:
    """More than may be under way, of a client that knows no maximum: they wait for each other."""
    port = config.mqtt({"receive_maximum": 5})
    make_proxy(config)
    sender, watcher = connect(port, V311, inflight=0), connect(port, V311)
    watcher.subscribe("com/many", qos=2)
    for number in range(300):
        sender.paho.publish("com/many", b"%d" % number, 1)
    assert [watcher.message()[1] for _ in range(300)] == [b"%d" % number for number in range(300)]
    assert len([sender.answer() for _ in range(300)]) == 300


def test_large(config, make_proxy, connect) -> None:
    """A packet of a megabyte, both ways."""
    port = config.mqtt()
    make_proxy(config)
    client = connect(port)
    client.subscribe("com/large", qos=1)
    payload = bytes(range(256)) * 4000
    assert client.publish("com/large", payload, 2) == 0
    assert client.message() == ("com/large", payload)


# --- ways in ---


def test_over_tls(config, certificates: Certificates, make_proxy, connect) -> None:
    port = config.mqtt(tls=certificates.server.tls)
    make_proxy(config)
    client = connect(port, ca=certificates.ca)
    client.subscribe("com/tls")
    assert client.publish("com/tls", b"x", 1) == 0
    assert client.message() == ("com/tls", b"x")


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
def test_universal(is_secure: bool, config, certificates: Certificates, make_proxy, connect) -> None:
    """MQTT beside WAMP over RawSocket on one port."""

    port = config.mqtt(tls=certificates.server.tls if is_secure else None)
    item = config.transports.pop()
    mqtt = {"options": item.pop("options")}
    config.transports.append(item | {"type": "universal", "rawsocket": {}, "websocket": {"ws": {}}, "mqtt": mqtt})
    make_proxy(config)
    client = connect(port, ca=certificates.ca) if is_secure else connect(port)
    client.subscribe("com/universal")
    if is_secure:
        assert client.publish("com/universal", b"x", 1) == 0
    else:
        with joined(Endpoint("rawsocket", port), "cbor") as peer:
            publish(peer, "com.universal", b"x", **PASSTHROUGH)
    assert client.message() == ("com/universal", b"x")


def test_http(config, make_proxy) -> None:
    """HTTP on the port gets an answer that says that there is nothing."""
    port = config.mqtt()
    make_proxy(config)
    wire = dial(port)
    wire.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert wire.read_all().startswith(b"HTTP/1.1 404")
    wire.close()


# --- Crossbar.io's own MQTT ---


class MqttRouter(CrossbarRouter):
    """Crossbar.io that listens for MQTT clients itself."""

    def _config(self, proxy: Endpoint) -> dict[str, Any]:
        config = super()._config(proxy)
        self.mqtt_port = free_port()
        endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": self.mqtt_port}
        options = {"realm": "realm1", "role": "anonymous", "payload_mapping": MAPPING}
        auth = {"anonymous": {"type": "static", "role": "anonymous"}}
        transport = {"type": "mqtt", "endpoint": endpoint, "options": {**options, "auth": auth}}
        config["workers"][0]["transports"].append(transport)
        return config


MAPPING = {"com": {"type": "passthrough"}, "com.native": {"type": "native", "serializer": "json"}}


def test_beside_the_mqtt_of_crossbar(tmp_path: Path, make_proxy, connect) -> None:
    """With the same options, its clients and ours get the same of each other and of WAMP peers."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    router = MqttRouter(tmp_path / "router", program)
    try:
        router.wait_ready()
        config = MqttConfig(tmp_path / "proxy")
        config.backend("crossbar", router.backends["crossbar"])
        port = config.mqtt({"payload_mapping": MAPPING})
        proxy = make_proxy(config)
        stock, ours = connect(router.mqtt_port, V311), connect(port, V311)
        for client in (stock, ours):
            for topic_filter in ("com/a", "com/+/wild", "com/native/#"):  # Crossbar.io's answer to several is short
                assert client.subscribe(topic_filter) == [0]
        payload = b'{"args":[1,"x"],"kwargs":{"k":null}}'
        for sender in (stock, ours):
            for topic, octets in (("com/a", b"\0\xff"), ("com/b/wild", b"plain"), ("com/native/x", payload)):
                assert sender.publish(topic, octets, 1) == 0
                assert stock.message() == ours.message() == (topic, octets)
        with joined(router.direct["ws-tcp"], "cbor") as peer:
            publish(peer, "com.native.wamp", [1, "x"], {"k": None})
            publish(peer, "com.a", b"\xfe", **PASSTHROUGH)
        assert stock.message() == ours.message() == ("com/native/wamp", payload)
        assert stock.message() == ours.message() == ("com/a", b"\xfe")
        ours.leave()
        stock.leave()
        proxy.stop()
    finally:
        router.stop()


@pytest.mark.parametrize("version", ["311", "5"])
def test_mosquitto(version: str, config, make_proxy) -> None:
    """The clients that most people have at hand."""
    if shutil.which("mosquitto_pub") is None:
        missing("mosquitto's clients", "apt-get install mosquitto-clients")
    port = config.mqtt({"auth": TICKETS})
    make_proxy(config)
    common = ["-h", "127.0.0.1", "-p", str(port), "-V", version, "-u", "joe", "-P", "s3cret", "-q", "2", "-t"]
    kept = ["mosquitto_pub", *common, "com/mosquitto", "-m", f"hello {version}", "-r"]
    subprocess.run(kept, check=True, timeout=TIMEOUT)
    watch = ["mosquitto_sub", *common, "com/mosquitto", "-C", "1", "-v", "-W", "10"]
    done = subprocess.run(watch, check=True, timeout=TIMEOUT, capture_output=True, text=True)
    assert done.stdout == f"com/mosquitto hello {version}\n"
    subprocess.run([*kept[:-3], "-n", "-r"], check=True, timeout=TIMEOUT)


# --- what others publish, and what is under way when a client leaves ---


@VERSIONS
def test_events_of_topics_that_mqtt_has_not(version: int, config, make_proxy, connect, wamp) -> None:
    """WAMP's loose URIs may have in them what no topic name has: such events are dropped, and nobody is."""
    port = config.mqtt()
    proxy = make_proxy(config)
    client = connect(port, version)
    assert client.subscribe("com/#", qos=1) == [1]
    for topic in ("com.a+b", "com.+", "com.a\0b"):
        publish(wamp, topic, ["x"])
    publish(wamp, "com.after", ["last"])
    assert client.message() == ("com/after", b"last")
    assert client.publish("com/b", b"y", 1) == 0
    assert "Traceback" not in proxy.child.output


def enter(port: int, body: bytes) -> Wire:
    """A client of a test's own, that is let in."""
    wire = dial(port)
    wire.write(bytes([0x10, len(body)]) + body)
    assert wire.read(1) == b"\x20"
    wire.read(wire.read(1)[0])
    return wire


def test_a_client_that_reads_no_answers(config, make_proxy) -> None:
    """Nothing more is read from it; what it is to be told is not heaped up."""
    port = config.mqtt(limits={"stall_timeout": 60_000})
    proxy: ProxyProcess = make_proxy(config)
    wire = enter(port, b"\0\4MQTT\5\2\0\0\0\0\1a")
    before = rss(proxy.pid)
    refused = b"\x32\x07\0\2/a\0\1\0" * 2000  # each answer has a text
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.sock.settimeout(3)
    sent = 0
    with suppress(TimeoutError):
        while sent < 24 << 20:  # what is on the way between the two of us is some of it
            sent += wire.sock.send(refused)
    assert sent < 24 << 20
    assert_grown(proxy.pid, before, 8 << 20, "a client that reads no answers")
    wire.close()


@pytest.mark.parametrize(("code", "is_published"), [(b"\xe0\0", False), (b"\xe0\1\x04", True), (b"\xe0\1\x81", True)])
def test_will_and_the_reason_of_disconnect(code: bytes, is_published: bool, config, make_proxy, connect) -> None:
    """Only a normal DISCONNECT takes the will back."""
    port = config.mqtt()
    make_proxy(config)
    watcher = connect(port)
    watcher.subscribe("com/will")
    wire = enter(port, b"\0\4MQTT\5\6\0\0\0\0\1a\0\0\x08com/will\0\4gone")
    wire.write(code)
    assert wire.read_all() == b""
    wire.close()
    assert watcher.publish("com/will", b"after", 1) == 0
    expected = [b"gone", b"after"] if is_published else [b"after"]
    assert sorted(watcher.message()[1] for _ in expected) == sorted(expected)
    assert watcher.messages.empty()


def test_acknowledgements_of_a_client_that_publishes_as_much_as_it_may(config, make_proxy, wamp) -> None:
    """They are read, though its publications wait: their answers may be behind events that wait for just these."""
    port = config.mqtt({"receive_maximum": 2, "queue_limit_messages": 2})
    make_proxy(config)
    wire = enter(port, b"\0\4MQTT\5\2\0\0\3\x21\0\1\0\1a")  # receive maximum 1
    wire.write(b"\x82\x09\0\1\0\0\3com\1")
    assert wire.read(6) == b"\x90\4\0\1\0\1"
    for number in range(20):
        publish(wamp, "com", [f"{number:02}"])
    wire.write(b"\x32\7\0\1a\0\1\0x\x32\7\0\1a\0\2\0x")
    got = []
    answers = set()
    while len(got) < 20 or len(answers) < 2:
        first, length = wire.read(2)
        body = wire.read(length)
        if first == 0x32:
            got.append(body[-2:])
            wire.write(b"\x40\2" + body[5:7])
        else:
            answers.add((first, body))
    assert got == [b"%02d" % number for number in range(20)]
    assert answers == {(0x40, b"\0\1"), (0x40, b"\0\2")}
    wire.close()


@pytest.mark.parametrize("first", [b"\x82", b"\xa2"], ids=["subscribe", "unsubscribe"])
def test_too_many_filters_at_once(first: bytes, config, make_proxy, connect) -> None:
    """All of a packet's are handled in one go, in which nobody else is served."""
    port = config.mqtt()
    make_proxy(config)
    wire = enter(port, b"\0\4MQTT\5\2\0\0\0\0\1a")
    one = b"\0\1a\0" if first == b"\x82" else b"\0\1a"
    body = b"\0\1\0" + one * 1001
    wire.write(first + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body)
    assert b"\x97" in wire.read_all()
    wire.close()


def test_a_client_that_leaves_while_its_payload_is_decoded(config, make_proxy, connect, crossbar) -> None:
    """What it has published before is published, and as it has said DISCONNECT, its will is not."""
    codec = {"type": "dynamic", "encoder": "com.codec.encode", "decoder": "com.codec.decode"}
    port = config.mqtt({"payload_mapping": {"com.temperature": codec, "com": {"type": "passthrough"}}})
    proxy = make_proxy(config)
    with joined(crossbar.direct["ws-tcp"], "cbor") as callee, joined(crossbar.direct["ws-tcp"], "cbor") as peer:
        callee.register("com.codec.decode")
        subscribe(peer, "com.", match="prefix")
        watcher = connect(port)
        wire = enter(port, b"\0\4MQTT\4\6\0\0\0\1a\0\x08com/will\0\4gone")
        first = b"\0\x0fcom/temperature21.5"
        wire.write(bytes([0x30, len(first)]) + first + b"\x30\x0b\0\x08com/lastx\xe0\0")
        call = callee.recv()
        wire.close()
        assert watcher.publish("com/meanwhile", b"", 1) == 0
        callee.send([YIELD, call[1], {}, [{"args": [21.5]}]])
        topics = ["com.meanwhile", "com.temperature", "com.last", "com.end"]
        got = [peer.recv() for _ in topics[:3]]
        assert watcher.publish("com/end", b"", 1) == 0
        got.append(peer.recv())
        assert [event[3]["topic"] for event in got] == topics
        watcher.leave()
    proxy.stop()  # and with it the session that it called from
