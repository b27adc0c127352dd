"""Signed requests of the HTTP bridge."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.config.redaction import redacted
from proxy.config.web import CallerConfig, WebServiceConfig
from proxy.web import signing
from proxy.web.signing import BadSignature, Replays, Verifier, check_github
from support.bridge import KEY, SECRET, Bridge, signed

BODY = b'{"procedure": "com.example.add2"}'
OPTIONS = {"key": KEY, "secret": SECRET}

# Computed with `openssl dgst -sha256 -hmac foobar -binary | base64 | tr '+/' '-_'` over the four fields and the body.
VECTOR_BODY = b'{"topic": "com.test.messages", "args": [1]}'
VECTOR = {
    "key": b"bazapp",
    "timestamp": b"2011-10-14T16:59:51.123Z",
    "seq": b"1",
    "nonce": b"424242",
    "signature": b"-VAlMwsifzxwsO57ISehiRjiJdefYi-MOBrlOP8QEWU=",
}
VECTOR_TIME = datetime(2011, 10, 14, 16, 59, 51, 123000, UTC).timestamp()


def verifier(delta: int = 300, now: float = VECTOR_TIME, replays: Replays | None = None) -> Verifier:
    return Verifier("bazapp", "foobar", delta, replays, lambda: now)


def refusal(fields: dict[str, bytes], body: bytes = VECTOR_BODY, **keys: Any) -> BadSignature:
    with pytest.raises(BadSignature) as caught:
        verifier(**keys).check(fields, body)
    return caught.value


# --- the scheme ---


def test_the_signature_is_what_openssl_makes_of_it() -> None:
    verifier().check(VECTOR, VECTOR_BODY)


@pytest.mark.parametrize("name", list(VECTOR))
def test_each_field_is_needed_and_counts(name: str) -> None:
    missing = {key: value for key, value in VECTOR.items() if key != name}
    assert refusal(missing).status == 400
    assert f'"{name}"' in str(refusal(missing))
    other = {"timestamp": b"2011-10-14T16:59:51.124Z", "key": b"bazapq"}.get(name, VECTOR[name].replace(b"4", b"5"))
    other = other if other != VECTOR[name] else b"2" if name == "seq" else other.replace(b"l", b"m")
    assert refusal({**VECTOR, name: other}).status == 401


def test_the_body_counts() -> None:
    assert refusal(VECTOR, VECTOR_BODY + b" ").status == 401
    assert refusal(VECTOR, b"").status == 401


@pytest.mark.parametrize("name", ["seq", "nonce"])
@pytest.mark.parametrize("value", [b"", b"x", b"1.5", b"1_0", b" 1", b"0x1", b"1" * 40])
def test_numbers(name: str, value: bytes) -> None:
    error = refusal({**VECTOR, name: value})
    assert error.status == 400
    assert f'"{name}"' in str(error)


@pytest.mark.parametrize(
    "time", [b"", b"now", b"2011-10-14", b"2011-10-14T16:59:51.123", b"2011-10-14T16:59:51.123+00:00", b"\xff", b"0"]
)
def test_times_that_are_none(time: bytes) -> None:
    error = refusal({**VECTOR, "timestamp": time})
    assert error.status == 400
    assert "timestamp" in str(error)


@pytest.mark.parametrize(("off", "is_good"), [(-301, False), (-299, True), (0, True), (299, True), (301, False)])
def test_clocks_may_be_off_a_little(off: int, is_good: bool) -> None:
    if is_good:
        verifier(now=VECTOR_TIME + off).check(VECTOR, VECTOR_BODY)
    else:
        assert refusal(VECTOR, now=VECTOR_TIME + off).status == 400


def test_any_time() -> None:
    verifier(delta=0, now=0).check(VECTOR, VECTOR_BODY)


@pytest.mark.parametrize("suffix", [b"=", b"\n", b" "])
def test_a_signature_has_one_spelling(suffix: bytes) -> None:
    assert refusal({**VECTOR, "signature": VECTOR["signature"] + suffix}).status == 401
    assert refusal({**VECTOR, "signature": VECTOR["signature"].rstrip(b"=")}).status == 401


# --- replays ---


@pytest.mark.parametrize("ahead", [-299, 0, 299])
def test_a_request_comes_once(ahead: int) -> None:
    """As long as its timestamp is taken, however far that is off."""
    now = [VECTOR_TIME - ahead]
    replays = Replays(300, lambda: now[0])
    checker = Verifier("bazapp", "foobar", 300, replays, lambda: now[0])
    checker.check(VECTOR, VECTOR_BODY)
    while now[0] <= VECTOR_TIME + 300:
        with pytest.raises(BadSignature, match="come before") as caught:
            checker.check(VECTOR, VECTOR_BODY)
        assert caught.value.status == 401
        now[0] += 20
    with pytest.raises(BadSignature, match="timestamp"):
        checker.check(VECTOR, VECTOR_BODY)
    assert replays.is_new(b"x", now[0])
    assert len(replays) == 1, "it is forgotten"
    now[0] = VECTOR_TIME  # the clock is set back
    with pytest.raises(BadSignature, match="older than those that are remembered"):
        checker.check(VECTOR, VECTOR_BODY)


def test_the_same_octets_in_other_fields_are_the_same_request() -> None:
    checker = verifier(replays=Replays(300, lambda: VECTOR_TIME))
    checker.check(VECTOR, VECTOR_BODY)
    with pytest.raises(BadSignature, match="come before"):
        checker.check({**VECTOR, "seq": b"14", "nonce": b"24242"}, VECTOR_BODY)


def test_a_wrong_signature_does_not_fill_the_memory() -> None:
    replays = Replays(300, lambda: VECTOR_TIME)
    checker = verifier(replays=replays)
    for number in range(10):
        with pytest.raises(BadSignature):
            checker.check({**VECTOR, "nonce": str(number).encode()}, VECTOR_BODY)
    assert len(replays) == 0


def test_the_memory_is_bounded_and_what_it_forgets_does_not_come_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signing, "REPLAYS_MAX", 3)
    replays = Replays(300, lambda: 1000.0)
    with caplog.at_level(logging.WARNING):
        for number in (3, 0, 4, 1, 2):
            time = 1000.0 + number
            assert replays.is_new(bytes([number]), time) == replays.covers(time)
    assert len(replays) == 3
    for number in range(5):
        time = 1000.0 + number
        assert not replays.covers(time) or not replays.is_new(bytes([number]), time)
    assert replays.covers(1005.0)
    assert replays.is_new(b"new", 1005.0)
    assert len(caplog.records) == 1


def test_more_requests_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "REPLAYS_MAX", 2)
    bridge = Bridge("caller", OPTIONS)
    now = datetime.now(UTC)
    times = [(now - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for age in (40, 30, 20, 10)]
    queries = [signed(BODY, timestamp=time) for time in times]
    for query in queries:
        bridge.ask(BODY, query=query)
    assert len(bridge.sent) == 4
    assert [bridge.answers(BODY, query=query).status for query in queries] == [401] * 4
    assert bridge.sent == []


def test_memory_without_an_end_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "REPLAYS_MAX", 2)
    replays = Replays(0, lambda: 1e9)
    assert replays.is_new(b"a", 7.0)
    assert not replays.is_new(b"a", 7.0)
    assert replays.is_new(b"b", 6.0)
    assert replays.is_new(b"c", 5.0)
    assert len(replays) == 2
    assert replays.covers(1.0), "times do not count"


# --- over HTTP ---


def test_over_http() -> None:
    bridge = Bridge("caller", OPTIONS)
    query = signed(BODY)
    bridge.ask(BODY, query=query)
    assert len(bridge.sent) == 1
    answer = bridge.answers(BODY, query=query)
    assert answer.status == 401
    assert answer.json == {"error": answer.json["error"], "args": [], "kwargs": {}}
    assert bridge.answers(BODY).status == 400
    assert bridge.answers(BODY, query=signed(BODY, secret="wrong")).status == 401
    assert bridge.answers(BODY, query=signed(BODY, key="other")).status == 401
    assert bridge.answers(BODY, query=signed(BODY, timestamp="2011-10-14T16:59:51.123Z")).status == 400
    assert bridge.answers(BODY, query="&".join(f"a{n}" for n in range(100))).status == 400
    assert bridge.answers(BODY, query="%ff=1").status == 400
    assert bridge.sent == []


def test_fields_in_the_body_are_none() -> None:
    bridge = Bridge("caller", OPTIONS)
    body = signed(b"").encode()
    answer = bridge.answers(body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 400
    assert "missing in the query" in answer.json["error"]


def test_the_first_of_two_fields_counts() -> None:
    bridge = Bridge("caller", OPTIONS)
    query = signed(BODY)
    assert bridge.answers(BODY, query=f"signature=x&{query}").status == 401
    bridge.ask(BODY, query=f"{query}&signature=x")
    assert len(bridge.sent) == 1


def test_a_signed_request_is_looked_at_like_any_other() -> None:
    bridge = Bridge("caller", OPTIONS)
    assert bridge.answers(b"[]", query=signed(b"[]")).status == 400


def test_replays_may_be_taken() -> None:
    bridge = Bridge("caller", {**OPTIONS, "refuse_replays": False})
    query = signed(BODY)
    for _ in range(2):
        bridge.ask(BODY, query=query)
        assert len(bridge.sent) == 1


def test_unsigned_services_do_not_look_at_the_query() -> None:
    bridge = Bridge("caller")
    bridge.ask(BODY, query="seq=x&timestamp=y")
    assert len(bridge.sent) == 1


# --- GitHub ---

HELLO = b"Hello, World!"
HELLO_SECRET = "It's a Secret to Everybody"
# From GitHub's documentation, "Validating webhook deliveries".
HELLO_SHA256 = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_githubs_own_example() -> None:
    check_github(HELLO_SECRET, HELLO, HELLO_SHA256, None)
    check_github(HELLO_SECRET, HELLO, HELLO_SHA256.upper(), "sha1=whatever")


@pytest.mark.parametrize(
    ("sha256", "sha1"),
    [
        (None, None),
        ("", None),
        ("sha256=", None),
        (HELLO_SHA256[:-1] + "8", None),
        (HELLO_SHA256.removeprefix("sha256="), None),
        ("sha1=" + HELLO_SHA256.removeprefix("sha256="), None),
        (None, HELLO_SHA256),
        ("sha256=ä", None),
    ],
)
def test_others(sha256: str | None, sha1: str | None) -> None:
    with pytest.raises(BadSignature) as caught:
        check_github(HELLO_SECRET, HELLO, sha256, sha1)
    assert caught.value.status == 400


# --- configuration ---


@pytest.mark.parametrize(
    "options",
    [
        {"key": "a"},
        {"secret": "b"},
        {"key": "", "secret": "b"},
        {"key": "a", "secret": "${NO_SUCH_VARIABLE}"},
        {"require_ip": ["10.0.0.1/8"]},
        {"require_ip": ["example.com"]},
        {"post_body_limit": 1048577},
        {"timestamp_delta_limit": 86401},
        {"timestamp_delta_limit": True},
        {"timeout": 0},
    ],
)
def test_options_that_are_refused(options: dict[str, Any]) -> None:
    item = {"type": "caller", "realm": "realm1", "role": "web", "options": options}
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(WebServiceConfig).validate_python(item)
    assert "not to be told" not in str(caught.value)


def test_the_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SECRET", "zyx")
    item = {"type": "caller", "realm": "realm1", "role": "web", "options": {**OPTIONS, "secret": "${BRIDGE_SECRET}"}}
    config = TypeAdapter(WebServiceConfig).validate_python(item)
    assert isinstance(config, CallerConfig)
    assert config.options.secret == "zyx"
    assert "zyx" not in repr(config)
    assert SECRET not in str(redacted({"options": OPTIONS}))
