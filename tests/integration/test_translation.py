"""Client and router of different serializers: what each sends the other receives, or the request alone fails."""

from __future__ import annotations

import base64
import itertools
import math
import struct
from collections.abc import Iterator
from typing import Any

import cbor2
import msgpack
import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import ERROR, EVENT, INVOCATION, PUBLISH, RESULT, SUBSCRIBE, YIELD, Peer, encode, joined
from support.stage import Stage

SERIALIZERS = ["json", "msgpack", "cbor"]
PAIRS = [(front, back) for front in SERIALIZERS for back in SERIALIZERS if front != back]
INVALID = "wamp.error.invalid_payload"
NAN, INFINITY = float("nan"), float("inf")

VALUES: list[Any] = [
    *(None, True, False),
    *(0, 1, -1, 23, 24, 127, 128, 255, 256, -24, -25, -32, -33, -128, -129, 65_535, 65_536, 2**31, -(2**31), 2**32),
    *(2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1),
    *(0.0, -0.0, 1.0, 0.1, -1.5, 1e21, 1e22, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1 / 3, 1e-7),
    *("", "text", "åß∂ƒ", "€", "𝄞", "\u2028", "\ud7ff\ue000", "\x01\x1e\x7f", '"\\/\b\f\n\r\t'),
    *("a" * 31, "b" * 300, "c" * 70_000),
    *([], {}, [[]], [{}], {"": ""}, {"a": {"b": {"c": [1, [2, [3]]]}}}, {"å": 1, "𝄞": [2]}),
    *(list(range(20)), ["x"] * 70),
    {f"key{i}": i for i in range(40)},
    [[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]],
]  # fmt: skip
BINARIES = [b"", b"\0", b"\xff", bytes(range(256)), b"ab", b"abc", b"x" * 70_000]


def seen(value: Any, serializer: str) -> Any:
    """What a client of ``serializer`` sees of a value: JSON writes binary as NUL and base64."""
    if isinstance(value, bytes):
        return "\0" + base64.b64encode(value).decode() if serializer == "json" else value
    if isinstance(value, list):
        return [seen(item, serializer) for item in value]
    if isinstance(value, dict):
        return {key: seen(item, serializer) for key, item in value.items()}
    return value


def assert_same(found: Any, expected: Any) -> None:
    """Equal, also in type and in the sign of zero."""
    assert type(found) is type(expected), (found, expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert found == expected
        if isinstance(expected, float):
            assert math.copysign(1, found) == math.copysign(1, expected)


# --- by hand: both ends' octets ---


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("translation"))
    names = [*SERIALIZERS, *(f"{name}.batched" for name in SERIALIZERS)]
    for back in SERIALIZERS:
        kind = "websocket" if back == "msgpack" else "rawsocket"
        stage.add_stub(back, kind, serializer=back, serializers=[back])
        stage.add_front(f"ws/{back}", to=back, serializers=names)
        stage.add_front(f"rs/{back}", "rawsocket", to=back)
    for kind in ("websocket", "rawsocket"):
        only = {"serializer": "msgpack", "serializers": ["msgpack"]}
        stage.add_stub(f"picky_{kind}", kind, stub={"speaks": ["msgpack"]}, **only)
        stage.add_front(f"picky/{kind}", to=f"picky_{kind}")
    stage.add_stub("old", stub={"speaks": ["msgpack"]}, serializer="msgpack")
    stage.add_front("old", to="old")
    stage.start()
    yield stage
    stage.close()


def session(stage: Stage, front: str, back: str, kind: str = "ws", **keys: Any) -> tuple[Any, Peer]:
    """A joined session: (client that speaks ``front``, end of a router that speaks ``back``)."""
    client, router = stage.session(f"{kind}/{back}", front, **keys)
    assert router.serializer == back
    return client, router


@pytest.mark.parametrize("kind", ["ws", "rs"])
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_values_both_ways(front: str, back: str, kind: str, stage: Stage) -> None:
    """Every value that both serializers know arrives as it was, with its type, and with the order of keys."""
    client, router = session(stage, front, back, kind)
    for number, value in enumerate([*VALUES, VALUES]):
        client.send([raw.CALL, number, {"x_option": value}, "com.example", [value], {"key": value}])
        assert_same(router.recv(), [raw.CALL, number, {"x_option": value}, "com.example", [value], {"key": value}])
        router.send([EVENT, 1, number, {"x_detail": value}, [value], {"key": value}])
        assert_same(client.recv(), [EVENT, 1, number, {"x_detail": value}, [value], {"key": value}])
    client.close()


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batched"])
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_binary_both_ways(front: str, back: str, batched: bool, stage: Stage) -> None:
    """Binary is NUL and base64 in JSON, and binary in the others, both ways, at every place."""
    client, router = session(stage, front, back, batched=batched)
    for number, value in enumerate([*BINARIES, BINARIES, {"k": BINARIES}]):
        client.send([raw.CALL, number, {}, "com.example", [seen(value, front)], {"k": seen(value, front)}])
        expected = [raw.CALL, number, {}, "com.example", [seen(value, back)], {"k": seen(value, back)}]
        assert_same(router.recv(), expected)
        router.send([EVENT, 1, number, {}, [seen(value, back)]])
        assert_same(client.recv(), [EVENT, 1, number, {}, [seen(value, front)]])
    client.close()


MESSAGES_TO_BACK: list[list[Any]] = [
    [8, 68, 1, {}, "com.example.error", [1], {"a": 2}],
    [16, 1, {"acknowledge": True, "x_unknown": [1], "exclude": [2**53, 1]}, "com.example", [1.5, None]],
    [32, 2, {"match": "prefix"}, "com.example"],
    [34, 3, 2**53],
    [337, 3],
    [48, 4, {"receive_progress": True}, "com.example", [], {"text": "åß∂ƒ"}],
    [49, 4, {"mode": "kill"}],
    [64, 5, {}, "com.example"],
    [66, 6, 77],
    [70, 7, {"progress": True}, ["x" * 70_000]],
]
MESSAGES_TO_FRONT: list[list[Any]] = [
    [8, 48, 1, {}, "com.example.error", [1], {"a": 2}],
    [17, 1, 2**53],
    [33, 1, 2],
    [35, 0, {"subscription": 1, "reason": "com.example"}],
    [36, 1, 2, {"publisher": 3, "topic": "com.example"}, [1.5, None], {"text": "åß∂ƒ"}],
    [50, 1, {"progress": True}, ["x" * 70_000]],
    [65, 1, 2],
    [67, 0, {"registration": 1}],
    [68, 1, 2, {"caller": 2**53 - 1}],
    [69, 1, {"mode": "kill"}],
]


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batched"])
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_every_message_type(front: str, back: str, batched: bool, stage: Stage) -> None:
    """All that pass the gate, in one write each way."""
    client, router = session(stage, front, back, batched=batched)
    client.send(*MESSAGES_TO_BACK)
    assert [router.recv() for _ in MESSAGES_TO_BACK] == MESSAGES_TO_BACK
    router.send(*MESSAGES_TO_FRONT)
    assert [client.recv() for _ in MESSAGES_TO_FRONT] == MESSAGES_TO_FRONT
    client.close()


def u(hexadecimal: str) -> bytes:
    """Octets."""
    return bytes.fromhex(hexadecimal)


# One argument in an encoding that is legal and not the plainest, and what it is.
ODD: list[tuple[str, bytes, Any]] = [
    ("cbor", u("f93c00"), 1.0),
    ("cbor", u("fa3dcccccd"), struct.unpack(">f", u("3dcccccd"))[0]),
    ("cbor", u("f90001"), 5.960464477539063e-08),
    ("cbor", u("1b0000000000000001"), 1),
    ("cbor", u("9f0102ff"), [1, 2]),
    ("cbor", u("bf616101ff"), {"a": 1}),
    ("cbor", u("7f61616162ff"), "ab"),
    ("cbor", u("5f41014102ff"), b"\x01\x02"),
    ("cbor", u("7fff"), ""),
    ("cbor", u("980101"), [1]),
    ("msgpack", u("d30000000000000001"), 1),
    ("msgpack", u("cf0000000000000001"), 1),
    ("msgpack", u("ca3dcccccd"), struct.unpack(">f", u("3dcccccd"))[0]),
    ("msgpack", u("dd0000000101"), [1]),
    ("msgpack", u("df00000001a16101"), {"a": 1}),
    ("msgpack", u("db0000000161"), "a"),
    ("msgpack", u("c60000000161"), b"a"),
    ("json", rb'"\u00e5\ud834\udd1e\/"', "å𝄞/"),
    ("json", b"1e2", 100.0),
    ("json", b"-0.0", -0.0),
    ("json", b"1E+2", 100.0),
    ("json", b"0.1000000000000000055511151231257827", 0.1),
    ("json", b"123456789012345678", 123456789012345678),
    ("json", b' [ 1 ,\n2\t, {"a" : [ ] } ] ', [1, 2, {"a": []}]),
    ("json", rb'"\u0000AQI="', b"\x01\x02"),
]


def call_with(serializer: str, argument: bytes, number: int) -> bytes:
    """A CALL whose one argument is ``argument`` as it stands."""
    message = encode(serializer, [raw.CALL, number, {}, "com.example", [None]])
    return {
        "json": lambda: message.removesuffix(b"null]]") + argument + b"]]",
        "cbor": lambda: message[:-1] + argument,
        "msgpack": lambda: message[:-1] + argument,
    }[serializer]()


@pytest.mark.parametrize(("front", "argument", "value"), ODD)
def test_odd_encodings(front: str, argument: bytes, value: Any, stage: Stage) -> None:
    """Half and single floats, indefinite lengths, wide integers, escapes: the value is what counts."""
    for back in SERIALIZERS:
        if back != front:
            client, router = session(stage, front, back)
            client.send_raw(call_with(front, argument, 1))
            assert_same(router.recv()[4], [seen(value, back)])
            client.close()


def test_duplicate_keys_stay(stage: Stage) -> None:
    """Keys that come twice stay twice and in order: no decoder here decides which one counts."""
    client, router = session(stage, "json", "msgpack")
    client.send_raw(b'[48,1,{},"com.example",[{"b":1,"a":2,"b":3}]]')
    pairs: list[Any] = msgpack.unpackb(router.recv_payload(), object_pairs_hook=list, raw=False)[4][0]
    assert pairs == [("b", 1), ("a", 2), ("b", 3)]
    client.close()


# --- what cannot be said in the other serializer ---

UNTRANSLATABLE: list[tuple[str, str, bytes]] = [
    # front, back, argument
    ("msgpack", "json", msgpack.packb(NAN)),
    ("msgpack", "json", msgpack.packb(-INFINITY)),
    ("cbor", "json", cbor2.dumps(NAN)),
    ("cbor", "json", cbor2.dumps(INFINITY)),
    ("cbor", "json", u("f97c00")),
    ("json", "msgpack", b"18446744073709551616"),
    ("json", "cbor", b"18446744073709551616"),
    ("json", "msgpack", b"-9223372036854775809"),
    ("json", "msgpack", b"1e400"),
    ("json", "cbor", b"-1e400"),
]


def assert_error(message: list[Any], kind: int, request: int) -> None:
    """An ERROR that says what cannot be said."""
    assert message[:3] + message[4:5] == [ERROR, kind, request, INVALID], message
    assert len(message[5]) == 1
    assert isinstance(message[5][0], str)
    assert message[5][0]


def assert_alive(client: Peer, router: Peer) -> None:
    """Both directions work, and nothing else is in them."""
    client.send([raw.CALL, 4711, {}, "com.example.alive"])
    assert router.recv() == [raw.CALL, 4711, {}, "com.example.alive"]
    router.send([RESULT, 4711, {}, ["alive"]])
    assert client.recv() == [RESULT, 4711, {}, ["alive"]]


@pytest.mark.parametrize(("front", "back", "argument"), UNTRANSLATABLE)
def test_untranslatable_call(front: str, back: str, argument: bytes, stage: Stage) -> None:
    """The caller gets an ERROR, the router sees nothing of it, and the session lives on."""
    client, router = session(stage, front, back)
    client.send_raw(call_with(front, argument, 1))
    assert_error(client.recv(), raw.CALL, 1)
    assert_alive(client, router)
    client.close()


def bad(serializer: str) -> Any:
    """A value that the other side of a session() of ``serializer`` cannot say."""
    return 2**64 if serializer == "json" else NAN


BAD_TO_BACK: dict[str, tuple[list[Any], int]] = {
    "publish": ([PUBLISH, 1, {"acknowledge": True}, "com.example", ["BAD"]], PUBLISH),
    "publish-kwargs": ([PUBLISH, 1, {"acknowledge": True}, "com.example", [], {"k": ["BAD"]}], PUBLISH),
    "call-options": ([raw.CALL, 1, {"x": "BAD"}, "com.example"], raw.CALL),
    "subscribe": ([SUBSCRIBE, 1, {"x": "BAD"}, "com.example"], SUBSCRIBE),
    "register": ([raw.REGISTER, 1, {"x": "BAD"}, "com.example"], raw.REGISTER),
}
DIRECTIONS = [("json", "msgpack"), ("json", "cbor"), ("msgpack", "json"), ("cbor", "json")]


def spoilt(value: Any, serializer: str) -> Any:
    """A message with its BAD replaced by what the other side cannot say."""
    if isinstance(value, list):
        return [spoilt(item, serializer) for item in value]
    if isinstance(value, dict):
        return {key: spoilt(item, serializer) for key, item in value.items()}
    return bad(serializer) if value == "BAD" else value


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
@pytest.mark.parametrize("name", BAD_TO_BACK)
def test_untranslatable_request(name: str, front: str, back: str, stage: Stage) -> None:
    """PUBLISH with acknowledge, SUBSCRIBE, REGISTER: ERROR to the client."""
    message, kind = BAD_TO_BACK[name]
    client, router = session(stage, front, back)
    client.send(spoilt(message, front))
    assert_error(client.recv(), kind, 1)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
def test_untranslatable_without_an_answer(front: str, back: str, stage: Stage) -> None:
    """PUBLISH without acknowledge and CANCEL get no answer; it is logged, not once for each of them."""
    client, router = session(stage, front, back)
    before = len(stage.proxy.child.errors)
    client.send(*(spoilt([PUBLISH, i, {}, "com.example", ["BAD"]], front) for i in range(1, 201)))
    client.send(spoilt([raw.CANCEL, 1, {"x": "BAD"}], front))
    assert_alive(client, router)
    assert len(stage.proxy.child.errors) - before < 20
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
@pytest.mark.parametrize(
    "message",
    [[YIELD, 5, {}, ["BAD"]], [ERROR, INVOCATION, 5, {}, "com.example.e", ["BAD"]], [YIELD, 5, {}, [], {"k": "BAD"}]],
    ids=["yield", "error", "yield-kwargs"],
)
def test_untranslatable_answer_of_a_callee(message: list[Any], front: str, back: str, stage: Stage) -> None:
    """The router gets an ERROR for the invocation, so that the caller learns it; the callee gets nothing."""
    client, router = session(stage, front, back)
    router.send([INVOCATION, 5, 1, {}])
    client.recv_type(INVOCATION)
    client.send(spoilt(message, front))
    assert_error(router.recv(), INVOCATION, 5)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
@pytest.mark.parametrize(
    "message", [[RESULT, 1, {}, ["BAD"]], [ERROR, 48, 1, {}, "com.example.e", ["BAD"]]], ids=["result", "error"]
)
def test_untranslatable_answer_of_the_router(message: list[Any], front: str, back: str, stage: Stage) -> None:
    """The caller gets an ERROR instead of the result or the error."""
    client, router = session(stage, front, back)
    client.send([raw.CALL, 1, {}, "com.example"])
    router.recv()
    router.send(spoilt(message, back))
    assert_error(client.recv(), raw.CALL, 1)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
def test_untranslatable_invocation(front: str, back: str, stage: Stage) -> None:
    """The router gets an ERROR, the callee nothing."""
    client, router = session(stage, front, back)
    router.send(spoilt([INVOCATION, 5, 1, {}, ["BAD"]], back))
    assert_error(router.recv(), INVOCATION, 5)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
def test_untranslatable_event(front: str, back: str, stage: Stage) -> None:
    """An event that the client's serializer cannot express is left out; those around it come."""
    client, router = session(stage, front, back)
    router.send(*(spoilt([EVENT, 1, i, {}, ["BAD" if i % 2 else i]], back) for i in range(100)))
    assert [client.recv()[2] for _ in range(50)] == list(range(0, 100, 2))
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
def test_untranslatable_progress_to_the_caller(front: str, back: str, stage: Stage) -> None:
    """The call fails, its rest is cancelled at the router and dropped here, other calls go on."""
    client, router = session(stage, front, back)
    client.send([raw.CALL, 1, {"receive_progress": True}, "com.example"], [raw.CALL, 2, {}, "com.example"])
    assert [router.recv()[1] for _ in range(2)] == [1, 2]
    progress: dict[str, Any] = {"progress": True}
    router.send([RESULT, 1, progress, [1]], spoilt([RESULT, 1, progress, ["BAD"]], back), [RESULT, 1, progress, [3]])
    router.send([RESULT, 2, {}, ["other"]])
    assert client.recv() == [RESULT, 1, progress, [1]]
    assert_error(client.recv(), raw.CALL, 1)
    assert client.recv() == [RESULT, 2, {}, ["other"]]
    cancel = router.recv()
    assert cancel[:2] == [raw.CANCEL, 1]
    assert cancel[2]["mode"] == "killnowait"
    router.send([RESULT, 1, progress, [4]], [ERROR, raw.CALL, 1, {}, "wamp.error.canceled"])
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
def test_untranslatable_progress_of_the_callee(front: str, back: str, stage: Stage) -> None:
    """The invocation fails at the router; what the callee still says of it is dropped, also its final word."""
    client, router = session(stage, front, back)
    router.send([INVOCATION, 5, 1, {}], [INVOCATION, 6, 1, {}])
    assert [client.recv()[1] for _ in range(2)] == [5, 6]
    progress: dict[str, Any] = {"progress": True}
    client.send([YIELD, 5, progress, [1]], spoilt([YIELD, 5, progress, ["BAD"]], front), [YIELD, 5, progress, [3]])
    client.send([YIELD, 5, {}, ["end"]], [YIELD, 6, {}, ["other"]])
    assert router.recv() == [YIELD, 5, progress, [1]]
    assert_error(router.recv(), INVOCATION, 5)
    assert router.recv() == [YIELD, 6, {}, ["other"]]
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize(("front", "back"), DIRECTIONS)
def test_untranslatable_among_others_in_a_batch(front: str, back: str, stage: Stage) -> None:
    """The other messages of a batch go their way, in order."""
    client, router = session(stage, front, back, batched=True)
    calls = [[raw.CALL, i, {}, "com.example", ["BAD" if i in (2, 4, 5) else i]] for i in range(1, 8)]
    client.send_batch(*(spoilt(call, front) for call in calls))
    assert [router.recv()[1] for _ in range(4)] == [1, 3, 6, 7]
    errors = [client.recv() for _ in range(3)]
    for error, number in zip(errors, (2, 4, 5), strict=True):
        assert_error(error, raw.CALL, number)
    assert_alive(client, router)
    client.close()


MAYBE: list[tuple[str, str, bytes]] = [
    ("cbor", "json", cbor2.dumps({1: 2})),
    ("msgpack", "json", msgpack.packb({1: 2})),
    ("cbor", "msgpack", cbor2.dumps({1: 2})),
    ("cbor", "json", u("c249010000000000000000")),  # bignum 2^64
    ("cbor", "msgpack", u("c11a514b67b0")),  # epoch time
    ("cbor", "json", u("f7")),  # undefined
    ("cbor", "msgpack", u("f0")),  # simple(16)
    ("cbor", "json", u("d818456401020304")),  # encoded CBOR
    ("msgpack", "json", msgpack.packb(msgpack.ExtType(5, b"abc"))),
    ("msgpack", "cbor", msgpack.packb(msgpack.Timestamp(1, 2))),
    ("msgpack", "json", msgpack.packb("\0text")),  # looks like binary in JSON
    ("msgpack", "json", u("a1ff")),  # not UTF-8
    ("cbor", "json", u("61ff")),
    ("json", "cbor", rb'"\ud800"'),
    ("json", "msgpack", rb'"\udc00\ud800"'),
    ("json", "cbor", rb'"\u0000this is no base64"'),
    ("json", "msgpack", rb'"\u0000AQ"'),
]


@pytest.mark.parametrize(("front", "back", "argument"), MAYBE)
def test_at_the_border(front: str, back: str, argument: bytes, stage: Stage) -> None:
    """What has no exact counterpart is translated or refused, as docs/configuration.md says; the session lives on."""
    client, router = session(stage, front, back)
    client.send_raw(call_with(front, argument, 1))
    client.send([raw.CALL, 2, {}, "com.example.next"])
    message = router.recv()
    if message[1] == 1:
        message = router.recv()
    else:
        assert_error(client.recv(), raw.CALL, 1)
    assert message == [raw.CALL, 2, {}, "com.example.next"]
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
def test_smuggled_by_translation(kind: str, stage: Stage) -> None:
    """The gate stands before the translation: no other encoding of a message type becomes one by it."""
    for front, octets in (
        ("json", b'[1.0,"realm1",{}]'),
        ("cbor", u("83f93c00667265616c6d31a0")),
        ("msgpack", u("93d001a67265616c6d3180")),
        ("cbor", u("9f01667265616c6d31a0ff")),
    ):
        back = "msgpack" if front != "msgpack" else "cbor"
        client, router = session(stage, front, back, "ws" if kind == "websocket" else "rs")
        client.send_raw(octets)
        messages, _ = client.recv_end()
        assert [message[2] for message in messages] == ["wamp.error.protocol_violation"]
        assert [message[0] for message in router.recv_end()[0]] == [raw.GOODBYE]


# --- routers that refuse ---


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
def test_one_serializer_only(kind: str, stage: Stage) -> None:
    """A connection that lists one serializer never offers another, whatever the client speaks."""
    before = len(stage.refused)
    for front in SERIALIZERS:
        client, router = stage.session(f"picky/{kind}", front)
        assert router.serializer == "msgpack"
        assert_alive(client, router)
        client.close()
    assert stage.refused[before:] == []


def test_refused_serializer_is_remembered(stage: Stage) -> None:
    """A RawSocket router that refuses the client's serializer is spoken to in `serializer`, from then on at once."""
    for front, refused in (("cbor", ["cbor"]), ("cbor", []), ("msgpack", []), ("json", ["json"]), ("json", [])):
        before = len(stage.refused)
        client, router = stage.session("old", front)
        assert router.serializer == "msgpack"
        assert_alive(client, router)
        client.close()
        assert stage.refused[before:] == refused


# --- real routers ---


@pytest.fixture(scope="module")
def fronts(crossbar: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Endpoint]]:
    """Endpoints in front of Crossbar.io, by the serializer that the router is spoken to in."""
    config = Config(tmp_path_factory.mktemp("translation-crossbar"))
    for back, item in crossbar.translating.items():
        config.backend(f"to_{back}", item, role=f"to_{back}")
        config.listen("websocket" if back == "cbor" else "rawsocket", back, role=f"to_{back}")
    proxy = ProxyProcess(config)
    yield proxy.endpoints
    proxy.check_idle()
    proxy.stop()


@pytest.mark.peers
@pytest.mark.parametrize(("caller", "callee"), list(itertools.product(SERIALIZERS, SERIALIZERS)))
def test_calls_and_events_between_all(caller: str, callee: str, fronts: dict[str, Endpoint]) -> None:
    """Values and binaries from a client of one serializer to one of another, over routers' connections of all."""
    for number, (back, other) in enumerate(itertools.product(SERIALIZERS, SERIALIZERS)):
        uri = f"com.example.{caller}.{callee}.{number}"
        with joined(fronts[back], caller) as a, joined(fronts[other], callee) as b:
            b.register(uri)
            b.subscribe(uri)
            values = [*VALUES, *BINARIES]
            a.send([raw.CALL, a.request(), {}, uri, seen(values, caller), {"k": seen(values, caller)}])
            invocation = b.recv_type(INVOCATION)
            assert_same(invocation[4:], [seen(values, callee), {"k": seen(values, callee)}])
            b.send([YIELD, invocation[1], {}, *invocation[4:]])
            assert_same(a.recv_type(RESULT)[3:], [seen(values, caller), {"k": seen(values, caller)}])
            a.send([PUBLISH, a.request(), {"acknowledge": True}, uri, seen(values, caller)])
            a.recv_type(raw.PUBLISHED)
            assert_same(b.recv_type(EVENT)[4], seen(values, callee))
            a.leave()
            b.leave()


@pytest.mark.peers
def test_refused_yield_reaches_the_caller(fronts: dict[str, Endpoint]) -> None:
    """A callee's NaN on its way to a JSON router is an ERROR for the caller; both go on."""
    with joined(fronts["json"], "msgpack") as callee, joined(fronts["cbor"], "json") as caller:
        callee.register("com.example.nan")
        for _ in range(3):
            request = caller.request()
            caller.send([raw.CALL, request, {}, "com.example.nan"])
            callee.send([YIELD, callee.recv_type(INVOCATION)[1], {}, [NAN]])
            assert caller.recv_type(ERROR)[:3] == [ERROR, raw.CALL, request]
        request = caller.request()
        caller.send([raw.CALL, request, {}, "com.example.nan"])
        callee.send([YIELD, callee.recv_type(INVOCATION)[1], {}, [1.5]])
        assert caller.recv_type(RESULT)[3] == [1.5]
        callee.leave()
        caller.leave()
