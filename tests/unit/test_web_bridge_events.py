"""The web services ``publisher`` and ``webhook``; and the types that are refused."""

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from autobahn.wamp import message
from pydantic import TypeAdapter, ValidationError
from twisted.internet.defer import fail
from twisted.web.http_headers import Headers

from proxy.config.web import WebServiceConfig
from proxy.service_attempts import NoServiceSession
from proxy.web.bridge_requests import Refused
from support.bridge import KEY, SECRET, Bridge, error, make_session, signed

TOPIC = "com.example.news"


def publish(bridge: Bridge, **keys: Any) -> tuple[Any, Any]:
    """A request under way, and the PUBLISH that it came to."""
    exchange = bridge.ask({"topic": TOPIC, **keys})
    return exchange, bridge.take(message.Publish)


# --- publisher ---


def test_an_event() -> None:
    bridge = Bridge("publisher")
    exchange, said = publish(bridge, args=[1, "two"], kwargs={"three": 3, "options": 4, "topic": 5})
    assert (said.topic, said.args) == (TOPIC, [1, "two"])
    assert said.kwargs == {"three": 3, "options": 4, "topic": 5}
    assert said.acknowledge is True
    assert not exchange.is_answered
    bridge.session.onMessage(message.Published(said.request, 2**53))
    answer = exchange.response()
    assert answer.status == 200
    assert answer.json == {"id": 2**53}


def test_options() -> None:
    bridge = Bridge("publisher")
    options = {
        "acknowledge": False,
        "exclude_me": False,
        "retain": True,
        "exclude": 7,
        "exclude_authid": "joe",
        "exclude_authrole": ["a", "b"],
        "eligible": [8, 9],
        "eligible_authid": ["jim"],
        "eligible_authrole": "c",
        "unknown": 1,
    }
    _, said = publish(bridge, options=options)
    assert said.acknowledge is True, "there would be no answer without"
    assert (said.exclude_me, said.retain) == (False, True)
    assert (said.exclude, said.exclude_authid, said.exclude_authrole) == ([7], ["joe"], ["a", "b"])
    assert (said.eligible, said.eligible_authid, said.eligible_authrole) == ([8, 9], ["jim"], ["c"])
    said.marshal()


def test_only_signed_requests_name_forwarders() -> None:
    forward_for = [{"session": 1, "authid": "joe", "authrole": "user"}]
    body = json.dumps({"topic": TOPIC, "options": {"forward_for": forward_for}}).encode()
    bridge = Bridge("publisher")
    answer = bridge.answers(body)
    assert answer.status == 400
    assert "forward_for" in answer.json["error"]
    assert bridge.sent == []
    bridge = Bridge("publisher", {"key": KEY, "secret": SECRET})
    bridge.ask(body, query=signed(body))
    assert bridge.take(message.Publish).forward_for == forward_for


def test_no_options() -> None:
    bridge = Bridge("publisher")
    for options in (None, {}, {"exclude": None, "retain": None, "forward_for": []}):
        _, said = publish(bridge, options=options)
        assert said.marshal()[2] == {"acknowledge": True}


@pytest.mark.parametrize(
    "options",
    [
        [],
        "text",
        {"exclude_me": 1},
        {"retain": "yes"},
        {"exclude": "joe"},
        {"exclude": [1, "joe"]},
        {"exclude": True},
        {"eligible": {}},
        {"exclude_authid": 1},
        {"eligible_authrole": ["a", 1]},
        {"forward_for": {"session": 1}},
        {"forward_for": [1]},
        {"forward_for": [{"session": "1", "authid": "a", "authrole": "b"}]},
        {"forward_for": [{"session": 1, "authid": "a"}]},
    ],
)
def test_bad_options(options: Any) -> None:
    bridge = Bridge("publisher")
    answer = bridge.answers({"topic": TOPIC, "options": options})
    assert answer.status == 400
    assert "options" in answer.json["error"]
    assert bridge.sent == []


@pytest.mark.parametrize("body", [{}, {"topic": None}, {"topic": "a b"}, {"topic": TOPIC, "args": 1}])
def test_bad_events(body: dict[str, Any]) -> None:
    bridge = Bridge("publisher")
    assert bridge.answers(body).status == 400
    assert bridge.sent == []


def test_an_event_that_the_router_refuses() -> None:
    bridge = Bridge("publisher")
    exchange, said = publish(bridge)
    error(bridge.session, said, "wamp.error.not_authorized", "no")
    assert exchange.response().status == 200
    assert exchange.response().json == {"error": "wamp.error.not_authorized", "args": ["no"], "kwargs": {}}


def test_a_signed_event() -> None:
    bridge = Bridge("publisher", {"key": KEY, "secret": SECRET})
    body = b'{"topic": "com.example.news"}'
    bridge.ask(body, query=signed(body))
    bridge.take(message.Publish)
    assert bridge.answers(body).status == 400


def test_an_acknowledgement_that_does_not_come() -> None:
    bridge = Bridge("publisher", {"timeout": 1000})
    exchange, said = publish(bridge)
    bridge.clock.advance(1.1)
    assert exchange.response().status == 504
    assert bridge.sent == [], "there is no way to cancel an event"
    bridge.session.onMessage(message.Published(said.request, 1))


# --- webhook ---


def test_a_webhook() -> None:
    bridge = Bridge("webhook", {"topic": TOPIC})
    headers: dict[str, Any] = {"Content-Type": "text/plain", "X-Many": ["a", "b"], "X-Latin": "\xe4"}
    exchange = bridge.ask("payload=ä&b".encode(), headers=headers)
    said = bridge.take(message.Publish)
    assert said.topic == TOPIC
    assert said.args == [
        {
            "headers": {
                "Host": ["example.com"],
                "Content-Length": ["12"],
                "Content-Type": ["text/plain"],
                "X-Many": ["a", "b"],
                "X-Latin": ["\xe4"],
            },
            "body": "payload=ä&b",
        }
    ]
    assert not said.kwargs
    bridge.session.onMessage(message.Published(said.request, 1))
    answer = exchange.response()
    assert answer.status == 202
    assert answer.body == b"OK"
    assert answer.headers["content-type"].startswith("text/plain")


def test_what_a_webhook_is_answered() -> None:
    options = {"topic": TOPIC, "success_response": '{"is": "ö"}', "error_response": "schlimm ö"}
    bridge = Bridge("webhook", options)
    exchange = bridge.ask(b"")
    bridge.session.onMessage(message.Published(bridge.take(message.Publish).request, 1))
    assert exchange.response().json == {"is": "ö"}
    assert exchange.response().headers["content-type"].startswith("application/json")


def test_a_webhook_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge("webhook", {"topic": TOPIC, "error_response": "schlimm ö"})
    exchange = bridge.ask(b"x")
    with caplog.at_level(logging.WARNING):
        error(bridge.session, bridge.take(message.Publish), "wamp.error.not_authorized", "no")
    assert exchange.response().status == 500
    assert exchange.response().body == "schlimm ö".encode()
    assert "wamp.error.not_authorized" in caplog.text
    assert TOPIC in caplog.text


def test_a_webhook_without_a_router() -> None:
    bridge = Bridge("webhook", {"topic": TOPIC}, [fail(NoServiceSession("10.9.8.7")), make_session()])
    answer = bridge.answers(b"x")
    assert answer.status == 503
    assert answer.body == b"NOT OK"


@pytest.mark.parametrize("body", [b"\xff", b"\0abc"])
def test_webhooks_are_text(body: bytes) -> None:
    bridge = Bridge("webhook", {"topic": TOPIC})
    assert bridge.answers(body).status == 400
    assert bridge.sent == []


def test_a_header_field_that_would_be_binary_data() -> None:
    bridge = Bridge("webhook", {"topic": TOPIC})
    headers = Headers()
    request = SimpleNamespace(requestHeaders=headers, getHeader=lambda _: None)
    assert callable(bridge.service.read(request, b"x"))
    headers.addRawHeader(b"x-event", b"\0abc")
    with pytest.raises(Refused, match="NUL"):
        bridge.service.read(request, b"x")


def test_a_webhook_in_another_charset() -> None:
    bridge = Bridge("webhook", {"topic": TOPIC})
    assert bridge.answers(b"x", headers={"Content-Type": "text/plain; charset=latin-1"}).status == 400


# printf 'payload=%%7B%%22zen%%22%%7D' | openssl dgst -sha256 -hmac "It's a Secret"
FORM = b"payload=%7B%22zen%22%7D"
SHA256 = "sha256=1c54e9a501d74ed8288e5fb61daaa5d7cf6817c5b35f6864ce8fda55e8225a68"
SHA1 = "sha1=7183e67413ae22f61ce30f0b54935e7b7c0d1308"


@pytest.mark.parametrize(
    ("headers", "is_good"),
    [
        ({"X-Hub-Signature-256": SHA256}, True),
        ({"X-Hub-Signature": SHA1}, True),
        ({"X-Hub-Signature": SHA1, "X-Hub-Signature-256": SHA256}, True),
        ({"X-Hub-Signature": SHA1, "X-Hub-Signature-256": SHA256[:-1] + "9"}, False),
        ({"X-Hub-Signature": SHA256}, False),
        ({"X-Hub-Signature": "sha1=\xff"}, False),
        ({"X-Hub-Signature-256": "\xff"}, False),
        ({}, False),
    ],
)
def test_github(headers: dict[str, Any], is_good: bool) -> None:
    bridge = Bridge("webhook", {"topic": TOPIC, "github_secret": "It's a Secret"})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    exchange = bridge.ask(FORM, headers={**form, **headers})
    if is_good:
        assert bridge.take(message.Publish).args[0]["body"] == FORM.decode()
    else:
        assert exchange.response().status == 400
        assert bridge.sent == []


def test_a_webhook_has_a_topic() -> None:
    for options in ({}, {"topic": ""}, {"topic": "a b"}, {"topic": None}):
        with pytest.raises(ValidationError, match="topic"):
            Bridge("webhook", options)


# --- what there is not ---


@pytest.mark.parametrize("kind", ["wap", "catalog"])
def test_types_that_are_not_supported(kind: str) -> None:
    with pytest.raises(ValidationError, match="not supported"):
        TypeAdapter(WebServiceConfig).validate_python({"type": kind, "realm": "realm1", "role": "web"})
