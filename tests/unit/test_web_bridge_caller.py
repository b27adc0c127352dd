"""The web service ``caller``: what reaches the router, what comes back, and what happens when nothing does."""

import json
import logging
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from autobahn.exception import PayloadExceededError
from autobahn.wamp import message
from autobahn.wamp.exception import SerializationError, TransportLost
from autobahn.wamp.types import CloseDetails
from twisted.internet.defer import Deferred, fail

from proxy import service_requests
from proxy.errors import NoSuchObject
from proxy.service_attempts import NoServiceSession
from proxy.web.bridge_requests import Refused, require_utf8
from proxy.web.bridge_values import TOKENS_MAX
from support.bridge import Bridge, error, make_session, result

PROCEDURE = "com.example.add2"


def call(bridge: Bridge, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """A request under way, and the CALL that it came to."""
    exchange = bridge.ask({"procedure": PROCEDURE, "args": list(args), "kwargs": kwargs})
    return exchange, bridge.take(message.Call)


# --- arguments and results ---


def test_a_call_and_its_result() -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge, 2, 3, unit="m")
    assert (said.procedure, said.args, said.kwargs) == (PROCEDURE, [2, 3], {"unit": "m"})
    assert bridge.controller.asked == [("realm1", "web")]
    assert not exchange.is_answered
    result(bridge.session, said, 5)
    answer = exchange.response()
    assert answer.status == 200
    assert answer.json == {"args": [5]}
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert "no-store" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        ((), {}, {"args": [None]}),
        ((None,), {}, {"args": [None]}),
        (([],), {}, {"args": [[]]}),
        ((1, "2"), {}, {"args": [1, "2"]}),
        ((), {"a": 1}, {"kwargs": {"a": 1}}),
        ((1,), {"a": "ä"}, {"args": [1], "kwargs": {"a": "ä"}}),
        ((), {"callee": 1, "enc_algo": "x", "forward_for": "y", "self": 2}, None),
    ],
)
def test_results(args: tuple[Any, ...], kwargs: dict[str, Any], shown: Any) -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge)
    result(bridge.session, said, *args, **kwargs)
    assert exchange.response().json == (shown or {"kwargs": kwargs})


@pytest.mark.parametrize("name", ["options", "procedure", "self", "args", "kwargs", "request", "topic"])
def test_no_keyword_has_a_meaning_of_its_own(name: str) -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge, **{name: {"a": 1}})
    assert said.kwargs == {name: {"a": 1}}
    error(bridge.session, said, "com.example.bad", **{name: 1})
    assert exchange.response().json == {"error": "com.example.bad", "args": [], "kwargs": {name: 1}}


def test_errors_of_procedures_are_answers() -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge)
    error(bridge.session, said, "com.example.error", "too much", 7, error="x", args="y")
    answer = exchange.response()
    assert answer.status == 200
    assert answer.json == {"error": "com.example.error", "args": ["too much", 7], "kwargs": {"error": "x", "args": "y"}}


def test_missing_and_empty_arguments() -> None:
    bridge = Bridge("caller")
    for extra in ({}, {"args": None, "kwargs": None}, {"args": [], "kwargs": {}}):
        bridge.ask({"procedure": PROCEDURE, **extra})
        said = bridge.take(message.Call)
        assert not said.args
        assert not said.kwargs


def test_binary_data_both_ways() -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge, "\0/wA=", plain="a\0b")
    assert said.args == [b"\xff\x00"]
    assert said.kwargs == {"plain": "a\0b"}
    result(bridge.session, said, b"\x01\x02", {b"k": float("nan"), 3: {"deep": b""}})
    assert exchange.response().json == {"args": ["\0AQI=", {"\0aw==": None, "3": {"deep": "\0"}}]}


def test_put_is_post() -> None:
    bridge = Bridge("caller")
    bridge.ask({"procedure": PROCEDURE}, method="PUT")
    bridge.take(message.Call)


# --- requests that cannot be used ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"{}",
        b'{"procedure": 1}',
        b'{"procedure": null}',
        b'{"procedure": ""}',
        b'{"procedure": "a b"}',
        b'{"procedure": "a..b"}',
        b'{"procedure": "a.b", "args": {"a": 1}}',
        b'{"procedure": "a.b", "args": "text"}',
        b'{"procedure": "a.b", "args": 0}',
        b'{"procedure": "a.b", "kwargs": [1]}',
        b'{"procedure": "a.b", "args": [NaN]}',
        b'{"procedure": "a.b", "args": [-Infinity]}',
        b'{"procedure": "a.b", "args": [1e999]}',
        b'{"procedure": "a.b", "args": [18446744073709551616]}',
        b'{"procedure": "a.b", "args": [-9223372036854775809]}',
        b'{"procedure": "a.b", "args": ["\\ud800"]}',
        b'{"procedure": "a.b", "args": ["\\u0000no base64"]}',
        b'{"procedure": "a.b", "kwargs": {"\\u0000a": 1}}',
        b'{"procedure": "a.b", "kwargs": {"\\udc00": 1}}',
        b'{"procedure": "a.b", "args": ["\xff"]}',
        b'\xef\xbb\xbf{"procedure": "a.b"}',
        b'{"procedure": "a.b"}{"procedure": "a.b"}',
        b'{"procedure": "a.b", "args": [' + b"[" * 70 + b"]" * 70 + b"]}",
        b"[" * 100_000,
        b'{"procedure": "a.b", "args": [' + b"1" * 5000 + b"]}",
    ],
)
def test_bodies_that_cannot_be_used(body: bytes) -> None:
    bridge = Bridge("caller")
    answer = bridge.answers(body)
    assert answer.status == 400
    assert answer.json["error"].startswith("the request's body: ")
    assert answer.json["args"] == []
    assert bridge.sent == []
    assert bridge.controller.asked == []


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0.1, -0.0])
def test_numbers_that_can(number: float) -> None:
    bridge = Bridge("caller")
    _, said = call(bridge, number)
    assert said.args == [number]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("application/json", 202),
        ("Application/JSON; Charset=UTF-8", 202),
        ('application/json; charset="utf8"', 202),
        ("", 202),
        ("application/json; charset=latin-1", 400),
        ("application/json; charset=utf-16", 400),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
        ("application/json; charset*=x; charset*0=y", 400),
    ],
)
def test_content_types(given: str, status: int) -> None:
    bridge = Bridge("caller")
    exchange = bridge.ask({"procedure": PROCEDURE}, headers={"Content-Type": given} if given else {})
    if status == 400:
        assert exchange.response().status == 400
        assert "Content-Type" in exchange.response().json["error"]
    else:
        bridge.take(message.Call)


@pytest.mark.parametrize("item", ["0", "[]", '""', '{"a":"b"}', '",,,,"'])
def test_so_many_values(item: str) -> None:
    """All that the worker does waits while a body is read, so it is not the octets alone that count."""
    few = json.dumps({"procedure": PROCEDURE, "args": ['[,:"\\' * TOKENS_MAX]}).encode()
    bridge = Bridge("caller")
    bridge.ask(few)
    assert len(bridge.take(message.Call).args[0]) == 5 * TOKENS_MAX
    many = f'{{"procedure": "{PROCEDURE}", "args": [{",".join([item] * TOKENS_MAX)}]}}'.encode()
    answer = bridge.answers(many)
    assert answer.status == 400
    assert answer.json["error"] == "the request's body: too many values"
    assert bridge.sent == []


def test_a_long_string_without_an_end() -> None:
    """It is looked through once, and not once more from each quote in it, which would take hours."""
    body = b'"' + b'\\"' * (1 << 20) + b"," * TOKENS_MAX
    assert "not valid JSON" in Bridge("caller").answers(body).json["error"]


@pytest.mark.parametrize("given", ["x; charset*=x; charset*0=y", f"x; charset*{'9' * 5000}=x"], ids=["mixed", "digits"])
def test_content_types_that_python_stumbles_over(given: str) -> None:
    with pytest.raises(Refused, match="Content-Type"):
        require_utf8(SimpleNamespace(getHeader=lambda _: given.encode()))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PATCH", "BREW"])
def test_other_methods(method: str) -> None:
    bridge = Bridge("caller")
    exchange = bridge.ask({"procedure": PROCEDURE}, method=method)
    assert b" 405 " in exchange.transport.value()
    assert b"\r\nAllow: POST, PUT, OPTIONS\r\n" in exchange.transport.value()
    assert bridge.sent == []


def test_pages_of_other_origins_may_ask() -> None:
    bridge = Bridge("caller")
    asked = {"Origin": "https://example.org", "Access-Control-Request-Headers": "content-type, x-more"}
    answer = bridge.answers(method="OPTIONS", headers=asked)
    assert answer.status == 200
    assert answer.body == b""
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    assert answer.headers["access-control-allow-headers"] == "content-type, x-more"
    assert answer.headers["access-control-allow-methods"] == "POST, PUT, OPTIONS"
    assert answer.headers["vary"] == "Origin"
    assert bridge.answers(b"x").headers["access-control-allow-origin"] == "*"
    assert bridge.answers(b"x", headers={"Origin": "null"}).headers["access-control-allow-origin"] == "*"


# --- who may ---


def test_body_limit() -> None:
    bridge = Bridge("caller", {"post_body_limit": 100})
    body = json.dumps({"procedure": PROCEDURE}).encode()
    bridge.ask(body.ljust(100))
    bridge.take(message.Call)
    answer = bridge.answers(body.ljust(101))
    assert answer.status == 413
    assert "100" in answer.json["error"]
    assert bridge.sent == []


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.3.7", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("127.0.0.1", True),
    ],
)
def test_addresses(host: str, is_allowed: bool) -> None:
    bridge = Bridge("caller", {"require_ip": ["192.0.2.0/24", "2001:db8::/32", "127.0.0.1"]})
    exchange = bridge.ask({"procedure": PROCEDURE}, host=host)
    if is_allowed:
        bridge.take(message.Call)
    else:
        assert exchange.response().status == 400
        assert "address" in exchange.response().json["error"]
        assert bridge.sent == []


def test_tls_only() -> None:
    bridge = Bridge("caller", {"require_tls": True})
    answer = bridge.answers({"procedure": PROCEDURE})
    assert answer.status == 400
    assert "TLS" in answer.json["error"]
    assert bridge.sent == []
    bridge.ask({"procedure": PROCEDURE}, is_secure=True)
    bridge.take(message.Call)


# --- no answer ---


@pytest.mark.parametrize(
    "trouble", [NoSuchObject("no route for realm"), NoServiceSession('connection "secret1" at 10.9.8.7: refused')]
)
def test_no_router(trouble: Exception, caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge("caller", sessions=[fail(trouble), fail(trouble), make_session()])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            answer = bridge.answers({"procedure": PROCEDURE})
            assert answer.status == 503
            assert answer.json["error"] == "wamp.error.unavailable"
            assert answer.headers["retry-after"] == "5"
            assert b"secret1" not in answer.body
            assert b"10.9" not in answer.body
    assert [record.getMessage().endswith(str(trouble)) for record in caplog.records] == [True], "said once"
    exchange, said = call(bridge)
    result(bridge.session, said, 1)
    assert exchange.response().status == 200


def test_a_session_that_is_over_is_not_the_clients_business() -> None:
    bridge = Bridge("caller", sessions=[make_session(), make_session()])
    bridge.sessions[0]._transport.error = TransportLost()
    exchange, said = call(bridge)
    result(bridge.session, said, 1)
    assert exchange.response().json == {"args": [1]}


def test_no_session_lives() -> None:
    bridge = Bridge("caller")
    bridge.session._transport.error = TransportLost()
    assert bridge.answers({"procedure": PROCEDURE}).status == 503


@pytest.mark.parametrize("end", ["goodbye", "lost"])
def test_the_session_ends_before_the_answer(end: str) -> None:
    bridge = Bridge("caller")
    exchange, _ = call(bridge)
    if end == "goodbye":
        bridge.session.onLeave(CloseDetails("wamp.close.system_shutdown", "bye"))
    else:
        bridge.session.onDisconnect()
    answer = exchange.response()
    assert answer.status == 502
    assert answer.json["error"] == "wamp.error.unavailable"


@pytest.mark.parametrize(("trouble", "status"), [(PayloadExceededError("x"), 413), (SerializationError("secret"), 400)])
def test_what_cannot_be_sent(trouble: Exception, status: int) -> None:
    bridge = Bridge("caller")
    bridge.session._transport.error = trouble
    answer = bridge.answers({"procedure": PROCEDURE})
    assert answer.status == status
    assert b"secret" not in answer.body
    bridge.session._transport.error = None
    exchange, said = call(bridge)
    result(bridge.session, said, 1)
    assert exchange.response().status == 200


def test_results_that_json_does_not_have() -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge)
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    result(bridge.session, said, deep)
    assert exchange.response().status == 502
    assert "JSON" in exchange.response().json["args"][0]
    exchange, said = call(bridge)
    error(bridge.session, said, "com.example.bad", deep)
    assert exchange.response().status == 502


@pytest.mark.parametrize("value", [10**5000, {10**5000: 1}, [Decimal("1e9"), 10**5000]], ids=["plain", "key", "deep"])
def test_integers_that_python_does_not_write(value: Any) -> None:
    """CBOR and MessagePack have them. The client gets an answer."""
    bridge = Bridge("caller")
    exchange, said = call(bridge)
    result(bridge.session, said, value)
    assert exchange.response().status == 502
    exchange, said = call(bridge)
    error(bridge.session, said, "com.example.bad", value)
    assert exchange.response().status == 502


def test_an_encrypted_result_is_an_error() -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge)
    sealed = message.Result(said.request, payload=b"x", enc_algo="cryptobox", enc_serializer="cbor", enc_key="k")
    bridge.session.onMessage(sealed)
    assert exchange.response().json["error"] == "wamp.error.invalid_argument"


@pytest.mark.parametrize("cancels", [True, False])
def test_a_callee_that_does_not_answer(cancels: bool) -> None:
    bridge = Bridge("caller", {"timeout": 2000}, [make_session(cancels=cancels)])
    exchange, said = call(bridge)
    bridge.clock.advance(1.9)
    assert not exchange.is_answered
    bridge.clock.advance(0.2)
    answer = exchange.response()
    assert answer.status == 504
    assert answer.json["error"] == "wamp.error.timeout"
    if cancels:
        cancel = bridge.take(message.Cancel)
        assert (cancel.request, cancel.mode) == (said.request, "killnowait")
    assert bridge.sent == []
    # What comes too late is no error of the router's.
    result(bridge.session, said, 1)
    assert not bridge.session._transport.is_aborted


def test_a_session_that_does_not_come() -> None:
    cancelled: list[Any] = []
    bridge = Bridge("caller", {"timeout": 2000}, [Deferred(cancelled.append)])
    exchange = bridge.ask({"procedure": PROCEDURE})
    bridge.clock.advance(2.1)
    assert exchange.response().status == 504
    assert len(cancelled) == 1


def test_a_client_that_goes_away() -> None:
    bridge = Bridge("caller", {"max_requests": 1})
    exchange, said = call(bridge)
    exchange.hang_up()
    assert bridge.take(message.Cancel).request == said.request
    error(bridge.session, said, "wamp.error.canceled")
    exchange, said = call(bridge)
    result(bridge.session, said, 1)
    assert exchange.response().status == 200
    assert not bridge.clock.getDelayedCalls() or all(
        "ask" not in str(delayed) for delayed in bridge.clock.getDelayedCalls()
    )


def test_so_many_at_a_time() -> None:
    bridge = Bridge("caller", {"max_requests": 2})
    waiting = [call(bridge) for _ in range(2)]
    assert bridge.answers({"procedure": PROCEDURE}).status == 503
    exchange, said = waiting[0]
    result(bridge.session, said, 1)
    assert exchange.response().status == 200
    call(bridge)


def test_answers_that_never_come_cost_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_requests, "GIVEN_UP_MAX", 3)
    bridge = Bridge("caller", sessions=[make_session(cancels=False)])
    for count in range(3):
        assert not bridge.session._transport.is_aborted, count
        call(bridge)[0].hang_up()
    assert bridge.session._transport.is_aborted


def test_progress_that_nobody_asked_for() -> None:
    bridge = Bridge("caller")
    exchange, said = call(bridge)
    bridge.session.onMessage(message.Result(said.request, args=[1], progress=True))
    assert not exchange.is_answered
    result(bridge.session, said, 2)
    assert exchange.response().json == {"args": [2]}


def test_an_internal_error_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge("caller")
    bridge.session._transport.error = RuntimeError("inner life")
    answer = bridge.answers({"procedure": PROCEDURE})
    assert answer.status == 500
    assert b"inner life" not in answer.body
