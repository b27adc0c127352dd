"""Topics and payloads of MQTT as those of WAMP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

pytest.importorskip("mqtt5")

from proxy.config.mqtt import DynamicPayload, NativePayload, PassthroughPayload
from proxy.mqtt.link import Event
from proxy.mqtt.payloads import PayloadError, PayloadMapping, publication
from proxy.mqtt.topics import Subscription, TopicError, filter_to_wamp, matches, topic_to_mqtt, topic_to_wamp


@pytest.mark.parametrize(("topic", "uri"), [("a", "a"), ("a/b/ä", "a.b.ä"), ("a.b/c", "a.b.c"), ("$SYS/x", "$SYS.x")])
def test_topics(topic: str, uri: str) -> None:
    assert topic_to_wamp(topic) == uri
    assert topic_to_mqtt(uri) == topic.replace(".", "/")


@pytest.mark.parametrize("topic", ["", "/a", "a/", "a//b", "a b", "a/+", "a/#", "a\tb", "x" * 1025, "."])
def test_what_is_no_topic(topic: str) -> None:
    with pytest.raises(TopicError):
        topic_to_wamp(topic)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("a/b", [("a.b", "exact")]),
        ("a/+/c", [("a..c", "wildcard")]),
        ("+", [("", "wildcard")]),
        ("+/+", [(".", "wildcard")]),
        ("+/a", [(".a", "wildcard")]),
        ("#", [("", "prefix")]),
        ("a/b/#", [("a.b.", "prefix"), ("a.b", "exact")]),
    ],
)
def test_filters(pattern: str, wanted: list[tuple[str, str]]) -> None:
    assert list(filter_to_wamp(pattern)) == [Subscription(*one) for one in wanted]


@pytest.mark.parametrize(
    "pattern", ["", "a+", "a/b#", "#/a", "a/#/b", "+/#", "a/+/#", "/a", "a//+", "a b", "a/ /+", "/#", "a//#", "a b/#"]
)
def test_what_is_no_filter(pattern: str) -> None:
    with pytest.raises(TopicError):
        filter_to_wamp(pattern)


def test_matches() -> None:
    assert matches(Subscription("a.b", "exact"), "a.b")
    assert not matches(Subscription("a.b", "exact"), "a.b.c")
    assert matches(Subscription("a.", "prefix"), "a.b")
    assert not matches(Subscription("a.", "prefix"), "a")
    assert matches(Subscription("a..c", "wildcard"), "a.b.c")
    assert not matches(Subscription("a..c", "wildcard"), "a.b.d")
    assert not matches(Subscription("a..c", "wildcard"), "a.b.c.d")


# --- payloads ---


CALLS: list[Any] = []


def call(realm: str, procedure: str, args: list[Any]) -> Deferred[Any]:
    CALLS.append((realm, procedure, args))
    return succeed(b"21" if procedure == "enc" else {"args": [21]})


ITEMS = {
    "com": PassthroughPayload(type="passthrough"),
    "com.native": NativePayload(type="native", serializer="json"),
    "com.native.cbor": NativePayload(type="native", serializer="cbor"),
    "com.dynamic": DynamicPayload(type="dynamic", encoder="enc", decoder="dec", realm="codecs"),
}
MAPPING = PayloadMapping(ITEMS, "realm1", call)


def event(*args: Any, payload: bytes | None = None, algo: str = "mqtt", **kwargs: Any) -> Event:
    return Event(1, {"enc_algo": algo} if payload is not None else {}, list(args), kwargs, payload)


def test_the_longest_beginning_counts() -> None:
    assert MAPPING.find("com.x").type == "passthrough"
    assert MAPPING.find("com.native.x") is ITEMS["com.native"]
    assert MAPPING.find("com.native.cbor.x") is ITEMS["com.native.cbor"]
    with pytest.raises(PayloadError):
        MAPPING.find("org.x")
    assert PayloadMapping({}, "realm1", call).find("org.x").type == "passthrough"


def test_passthrough() -> None:
    made = MAPPING.to_wamp("com.x", "com/x", b"\xff")
    assert (made.options, made.payload) == ({"enc_algo": "mqtt"}, [b"\xff"])
    assert MAPPING.to_mqtt("com.x", event(payload=b"\xff")) == b"\xff"
    assert MAPPING.to_mqtt("com.x", event("text")) == b"text"
    assert MAPPING.to_mqtt("com.x", event()) == b""
    for bad in (event(1), event("a", "b"), event("a", key=1), event(payload=b"x", algo="cryptobox")):
        with pytest.raises(PayloadError):
            MAPPING.to_mqtt("com.x", bad)


def test_native() -> None:
    payload = MAPPING.to_mqtt("com.native", event(1, key="ä"))
    assert json.loads(payload) == {"args": [1], "kwargs": {"key": "ä"}}
    made = MAPPING.to_wamp("com.native", "", b'{"args": [1], "kwargs": {"a": 2}, "eligible": [5], "other": 1}')
    assert (made.options, made.payload) == ({"eligible": [5]}, [[1], {"a": 2}])
    wrong = (b'{"args": {}}', b'{"kwargs": []}', b'{"exclude": ["a"]}', b'{"exclude": [true]}')
    for bad in (b"", b"1", b"{", b"\xff", *wrong):
        with pytest.raises(PayloadError):
            MAPPING.to_wamp("com.native", "", bad)


def test_dynamic() -> None:
    CALLS.clear()
    done: list[Any] = []
    MAPPING.to_wamp("com.dynamic", "com/dynamic", b"21").addCallback(done.append)
    MAPPING.to_mqtt("com.dynamic", event(21, unit="C")).addCallback(done.append)
    assert done[0].payload == [[21]]
    assert done[1] == b"21"
    assert CALLS == [
        ("codecs", "dec", ["com.dynamic", "com/dynamic", b"21"]),
        ("codecs", "enc", ["com/dynamic", "com.dynamic", [21], {"unit": "C"}]),
    ]


def test_publications() -> None:
    assert publication({}).payload == []
    assert publication({"kwargs": {"a": 1}}).payload == [[], {"a": 1}]
    assert publication({"exclude_authid": ["joe"]}).options == {"exclude_authid": ["joe"]}
    with pytest.raises(PayloadError):
        publication([1])
