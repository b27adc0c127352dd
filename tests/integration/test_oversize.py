"""Messages over what the receiver takes: the request fails with an error to its sender, and the session lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import (
    CALL,
    CANCEL,
    ERROR,
    EVENT,
    INVOCATION,
    PUBLISH,
    REGISTER,
    RESULT,
    SUBSCRIBE,
    WELCOME,
    YIELD,
    Peer,
    RawSocketPeer,
    Wire,
    encode,
    hello,
    joined,
)
from support.stage import Stage

SERIALIZERS = ["json", "msgpack", "cbor"]
LIMIT = 4096
BIG = "x" * 5000
TOO_BIG = "wamp.error.payload_size_exceeded"
PROGRESS: dict[str, Any] = {"progress": True}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here; idle and clean at the end."""
    stage = Stage(tmp_path_factory.mktemp("oversize")).add_stub().add_stub("small", stub={"takes": LIMIT})
    stage.add_stub("json", serializer="json", serializers=["json"], stub={"takes": LIMIT})
    stage.add_stub("cbor", serializer="cbor", serializers=["cbor"], stub={"takes": LIMIT})
    stage.add_stub("small_ws", "websocket")
    stage.config.connections["to_small_ws"]["limits"] = {"max_message_out": LIMIT}
    batched = [f"{name}.batched" for name in SERIALIZERS]
    keys = {"serializers": [*SERIALIZERS, *batched], "options": {"compression": {"deflate": {}}}}
    for name in ("anonymous", "small", "small_ws", "json", "cbor"):
        stage.add_front(f"rs/{name}", "rawsocket", to=name)
        stage.add_front(f"ws/{name}", to=name, **keys)
    stage.add_front("tight", limits={"max_message_out": LIMIT, "close_timeout": 500}, **keys)
    stage.start()
    yield stage
    stage.close()


def small_client(stage: Stage, serializer: str, kind: str = "rs", limit: int = LIMIT, **keys: Any) -> tuple[Any, Peer]:
    """A session whose client announces a small limit, or (WebSocket) is known to have one: (client, router's end)."""
    if kind == "ws":
        return stage.session("tight", serializer, **keys)
    endpoint = stage.fronts["rs/anonymous"][0]
    wire = Wire(endpoint.connect())
    wire.write(bytes([0x7F, (limit.bit_length() - 10) << 4 | raw.SERIALIZERS[serializer], 0, 0]))
    assert wire.read(4)[0] == 0x7F
    return stage.join("rs/anonymous", RawSocketPeer(wire, serializer))


def small_router(stage: Stage, serializer: str, kind: str = "ws", to: str = "small", **keys: Any) -> tuple[Any, Peer]:
    """A session whose router announces a small limit: (client, router's end)."""
    return stage.session(f"{kind}/{to}", serializer, **keys)


def assert_error(message: list[Any], kind: int, request: int) -> None:
    """An ERROR that says what is too large."""
    assert message[:3] + message[4:5] == [ERROR, kind, request, TOO_BIG], message
    assert len(message[5]) == 1
    assert " octets" in message[5][0], message[5]


def assert_alive(client: Peer, router: Peer) -> None:
    """Both directions work, and nothing else is in them."""
    client.send([CALL, 4711, {}, "com.example.alive"])
    assert router.recv() == [CALL, 4711, {}, "com.example.alive"]
    router.send([RESULT, 4711, {}, ["alive"]])
    assert client.recv() == [RESULT, 4711, {}, ["alive"]]


def sized(serializer: str, message: list[Any], size: int) -> list[Any]:
    """``message`` with a last argument that makes it ``size`` octets in all."""
    text = ""
    while len(encode(serializer, [*message, [text]])) < size:
        text += "y" * max(1, size - len(encode(serializer, [*message, [text]])) - 4)
    assert len(encode(serializer, [*message, [text]])) == size
    return [*message, [text]]


# --- the router's limit ---

TO_BACK: dict[str, tuple[list[Any], int]] = {
    "call": ([CALL, 1, {}, "com.example", [BIG]], CALL),
    "call-kwargs": ([CALL, 1, {}, "com.example", [], {"k": BIG}], CALL),
    "call-uri": ([CALL, 1, {}, "com." + BIG], CALL),
    "call-options": ([CALL, 1, {"x_big": BIG}, "com.example"], CALL),
    "publish": ([PUBLISH, 1, {"acknowledge": True}, "com.example", [BIG]], PUBLISH),
    "publish-topic": ([PUBLISH, 1, {"acknowledge": True}, "com." + BIG], PUBLISH),
    "publish-list": ([PUBLISH, 1, {"acknowledge": True, "exclude": list(range(3000))}, "com.example"], PUBLISH),
    "subscribe": ([SUBSCRIBE, 1, {}, "com." + BIG], SUBSCRIBE),
    "register": ([REGISTER, 1, {}, "com." + BIG], REGISTER),
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("name", TO_BACK)
def test_request_over_the_routers_limit(name: str, serializer: str, stage: Stage) -> None:
    """CALL, PUBLISH with acknowledge, SUBSCRIBE and REGISTER: ERROR to the client; the router sees nothing."""
    message, kind = TO_BACK[name]
    way = ("ws", "small") if kind == CALL else ("rs", "small_ws")
    client, router = small_router(stage, serializer, *way)
    client.send(message)
    assert_error(client.recv(), kind, 1)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_to_the_octet(serializer: str, stage: Stage) -> None:
    """A message of the limit passes, one more octet does not."""
    client, router = small_router(stage, serializer)
    for request, size in ((1, LIMIT), (2, LIMIT + 1), (3, LIMIT)):
        message = sized(serializer, [CALL, request, {}, "com.example"], size)
        client.send(message)
        if size == LIMIT:
            assert router.recv() == message
        else:
            assert_error(client.recv(), CALL, request)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_much_over_the_limit(size: int, serializer: str, stage: Stage) -> None:
    """What does not even fit into the buffers between the two sides is refused the same way."""
    client, router = small_router(stage, serializer)
    client.send([CALL, 1, {}, "com.example", ["x" * size]], [CALL, 2, {}, "com.example.next"])
    assert_error(client.recv(), CALL, 1)
    assert router.recv() == [CALL, 2, {}, "com.example.next"]
    client.send([SUBSCRIBE, 3, {}, "com." + "x" * size])
    assert_error(client.recv(), SUBSCRIBE, 3)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_publish_without_acknowledge(serializer: str, stage: Stage) -> None:
    """No answer was asked for: the message is dropped and logged, not once for each; others around it go on."""
    client, router = small_router(stage, serializer)
    before = len(stage.proxy.child.errors)
    client.send(*([PUBLISH, i, {}, "com.example", [BIG if i % 2 else i]] for i in range(1, 201)))
    assert [router.recv()[1] for _ in range(100)] == list(range(2, 201, 2))
    assert_alive(client, router)
    assert len(stage.proxy.child.errors) - before < 20
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    "message",
    [[YIELD, 5, {}, [BIG]], [YIELD, 5, {}, [], {"k": BIG}], [ERROR, INVOCATION, 5, {}, "com.example.e", [BIG]]],
    ids=["yield", "yield-kwargs", "error"],
)
def test_answer_of_a_callee(message: list[Any], serializer: str, stage: Stage) -> None:
    """YIELD and ERROR: the router gets an ERROR for the invocation, so that the caller learns it."""
    client, router = small_router(stage, serializer)
    router.send([INVOCATION, 5, 1, {}])
    client.recv_type(INVOCATION)
    client.send(message)
    assert_error(router.recv(), INVOCATION, 5)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_progressive_answer_of_a_callee(serializer: str, stage: Stage) -> None:
    """The invocation fails at the router; what the callee still says of it is dropped, also its final word."""
    client, router = small_router(stage, serializer)
    router.send([INVOCATION, 5, 1, {}], [INVOCATION, 6, 1, {}])
    assert [client.recv()[1] for _ in range(2)] == [5, 6]
    client.send([YIELD, 5, PROGRESS, [1]], [YIELD, 5, PROGRESS, [BIG]], [YIELD, 5, PROGRESS, [3]])
    client.send([YIELD, 5, {}, ["end"]], [YIELD, 6, {}, ["other"]])
    assert router.recv() == [YIELD, 5, PROGRESS, [1]]
    assert_error(router.recv(), INVOCATION, 5)
    assert router.recv() == [YIELD, 6, {}, ["other"]]
    # The number is free again: another invocation of it is answered as any.
    router.send([INVOCATION, 5, 1, {}])
    client.recv_type(INVOCATION)
    client.send([YIELD, 5, {}, ["again"]])
    assert router.recv() == [YIELD, 5, {}, ["again"]]
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_progressive_call(serializer: str, stage: Stage) -> None:
    """A part of a progressive call over the limit: the call fails, and is cancelled at the router."""
    client, router = small_router(stage, serializer)
    client.send([CALL, 1, PROGRESS, "com.example", [1]], [CALL, 1, PROGRESS, "com.example", [BIG]])
    assert router.recv() == [CALL, 1, PROGRESS, "com.example", [1]]
    assert_error(client.recv(), CALL, 1)
    cancel = router.recv()
    assert cancel[:2] == [CANCEL, 1]
    assert cancel[2]["mode"] == "killnowait"
    router.send([ERROR, CALL, 1, {}, "wamp.error.canceled"])
    assert_alive(client, router)
    client.close()


# --- the client's limit ---


@pytest.mark.parametrize("kind", ["rs", "ws"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    "message",
    [
        [RESULT, 1, {}, [BIG]],
        [RESULT, 1, {}, [], {"k": BIG}],
        [RESULT, 1, {"x_big": BIG}],
        [ERROR, CALL, 1, {}, "com.example.e", [BIG]],
        [ERROR, CALL, 1, {}, "com." + BIG],
    ],
    ids=["result", "result-kwargs", "result-details", "error", "error-uri"],
)
def test_answer_over_the_clients_limit(message: list[Any], kind: str, serializer: str, stage: Stage) -> None:
    """RESULT and ERROR: the caller gets an ERROR that says so."""
    client, router = small_client(stage, serializer, kind)
    client.send([CALL, 1, {}, "com.example"])
    router.recv()
    router.send(message)
    assert_error(client.recv(), CALL, 1)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("kind", ["rs", "ws"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_to_the_clients_octet(kind: str, serializer: str, stage: Stage) -> None:
    """A message of the limit passes, one more octet does not."""
    client, router = small_client(stage, serializer, kind)
    for request, size in ((1, LIMIT), (2, LIMIT + 1), (3, LIMIT)):
        message = sized(serializer, [RESULT, request, {}], size)
        router.send(message)
        if size == LIMIT:
            assert client.recv() == message
        else:
            assert_error(client.recv(), CALL, request)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("kind", ["rs", "ws"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_progressive_result(kind: str, serializer: str, stage: Stage) -> None:
    """The call fails, its rest is cancelled at the router and dropped here, other calls go on."""
    client, router = small_client(stage, serializer, kind)
    client.send([CALL, 1, {"receive_progress": True}, "com.example"], [CALL, 2, {}, "com.example"])
    assert [router.recv()[1] for _ in range(2)] == [1, 2]
    router.send([RESULT, 1, PROGRESS, [1]], [RESULT, 1, PROGRESS, [BIG]], [RESULT, 1, PROGRESS, [3]])
    router.send([RESULT, 2, {}, ["other"]])
    assert client.recv() == [RESULT, 1, PROGRESS, [1]]
    assert_error(client.recv(), CALL, 1)
    assert client.recv() == [RESULT, 2, {}, ["other"]]
    cancel = router.recv()
    assert cancel[:2] == [CANCEL, 1]
    assert cancel[2]["mode"] == "killnowait"
    router.send([RESULT, 1, PROGRESS, [4]], [ERROR, CALL, 1, {}, "wamp.error.canceled"])
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("kind", ["rs", "ws"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_invocation_over_the_clients_limit(kind: str, serializer: str, stage: Stage) -> None:
    """The router gets an ERROR, the callee nothing."""
    client, router = small_client(stage, serializer, kind)
    router.send([INVOCATION, 5, 1, {}, [BIG]], [INVOCATION, 6, 1, {}, ["small"]])
    assert_error(router.recv(), INVOCATION, 5)
    assert client.recv() == [INVOCATION, 6, 1, {}, ["small"]]
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("kind", ["rs", "ws"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_event_over_the_clients_limit(kind: str, serializer: str, stage: Stage) -> None:
    """It comes without its payload and says so; what even so is too large is left out; those around it come."""
    client, router = small_client(stage, serializer, kind)
    details = {"publisher": 7, "topic": "com.example", "x_unknown": [1, {"a": None}]}
    router.send([EVENT, 1, 1, details, ["small"]], [EVENT, 1, 2, details, [BIG], {"k": 1}], [EVENT, 1, 3, {}])
    router.send([EVENT, 1, 4, {"topic": BIG}, [1]], [EVENT, 1, 5, {}, ["end"]])
    assert client.recv() == [EVENT, 1, 1, details, ["small"]]
    message = client.recv()
    assert message[:3] == [EVENT, 1, 2]
    assert message[3] == details | {"payload_limit_exceeded": True}
    assert message[4:] in ([], [[]], [[], {}])
    assert client.recv() == [EVENT, 1, 3, {}]
    assert client.recv() == [EVENT, 1, 5, {}, ["end"]]
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_events_without_end(serializer: str, stage: Stage) -> None:
    """Many oversize events neither stop the others nor fill the log."""
    client, router = small_client(stage, serializer)
    before = len(stage.proxy.child.errors)
    router.send(*([EVENT, 1, i, {}, [BIG if i % 2 else i]] for i in range(400)))
    assert [client.recv()[2] for _ in range(400)] == list(range(400))
    assert_alive(client, router)
    assert len(stage.proxy.child.errors) - before < 20
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_client_with_the_smallest_limit(serializer: str, stage: Stage) -> None:
    """Even where our own ERROR must be short: a client that takes 512 octets."""
    endpoint = stage.fronts["rs/anonymous"][0]
    wire = Wire(endpoint.connect())
    wire.write(bytes([0x7F, raw.SERIALIZERS[serializer], 0, 0]))
    assert wire.read(4)[0] == 0x7F
    client = RawSocketPeer(wire, serializer)
    client.send(hello())
    router, _ = stage.stubs["anonymous"].accept_hello()
    router.send([WELCOME, 9, {"roles": {"broker": {}}}])
    client.recv_type(WELCOME)
    router.send([RESULT, 2**53, {}, ["x" * 600]], [RESULT, 2, {}, ["small"]])
    payload = client.recv_payload()
    assert len(payload) <= 512
    assert raw.decode(serializer, payload)[:5:2] == [ERROR, 2**53, "wamp.error.payload_size_exceeded"]
    assert client.recv() == [RESULT, 2, {}, ["small"]]
    client.close()


# --- with other features on the way ---


@pytest.mark.parametrize("offer", [None, "permessage-deflate"], ids=["plain", "deflate"])
@pytest.mark.parametrize("serializer", ["json", "cbor"])
def test_in_batches_and_compressed(serializer: str, offer: str | None, stage: Stage) -> None:
    """The octets of the WAMP message count, not those on the wire; the others of a batch go their way."""
    client, router = small_router(stage, serializer, batched=True, offer=offer)
    client.send_batch(*([CALL, i, {}, "com.example", [BIG if i in (2, 3) else i]] for i in range(1, 6)))
    assert [router.recv()[1] for _ in range(3)] == [1, 4, 5]
    for number in (2, 3):
        assert_error(client.recv(), CALL, number)
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("offer", [None, "permessage-deflate"], ids=["plain", "deflate"])
def test_to_a_client_in_batches(offer: str | None, stage: Stage) -> None:
    """The limit is for what the client's WebSocket sees: no batch is over it."""
    client, router = small_client(stage, "cbor", "ws", batched=True, offer=offer)
    router.send(*([EVENT, 1, i, {}, ["x" * (5000 if i % 10 == 5 else 500)]] for i in range(100)))
    events = [client.recv() for _ in range(100)]
    assert [event[2] for event in events] == list(range(100))
    assert [event[2] for event in events if event[3]] == list(range(5, 100, 10))
    assert max(client.sizes) <= LIMIT
    assert max(client.batches) > 1
    for size in range(LIMIT - 8, LIMIT + 1):  # what surrounds a message in a batch counts, too
        router.send(sized("cbor", [EVENT, 1, size, {}], size))
        client.recv_type(EVENT)
        assert client.sizes[-1] <= LIMIT
    assert_alive(client, router)
    client.close()


@pytest.mark.parametrize("serializer", ["msgpack", "cbor"])
def test_translation_makes_it_too_large(serializer: str, stage: Stage) -> None:
    """Base64 and escapes make it longer: what counts is the message as it is sent."""
    client, router = small_router(stage, serializer, to="json")
    for request, value in ((1, b"\xff" * 3500), (2, "\x01" * 1000), (3, [0.1 + 0.2] * 300)):
        assert len(encode(serializer, [CALL, request, {}, "com.example", [value]])) < LIMIT
        client.send([CALL, request, {}, "com.example", [value]])
        assert_error(client.recv(), CALL, request)
    assert_alive(client, router)
    client.close()


def test_translation_makes_it_small_enough(stage: Stage) -> None:
    """And the other way round: what is too long in JSON passes where it fits in the router's serializer."""
    client, router = stage.session("ws/cbor", "json")
    message = [CALL, 1, {}, "com.example", [[0.1 + 0.2] * 300]]
    assert len(encode("cbor", message)) < LIMIT < len(encode("json", message))
    client.send(message)
    assert router.recv() == message
    assert_alive(client, router)
    client.close()


# --- real routers ---


@pytest.fixture(scope="module")
def front(crossbar: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A RawSocket endpoint in front of Crossbar.io."""
    config = Config(tmp_path_factory.mktemp("oversize-crossbar"))
    config.backend("crossbar", crossbar.backends["crossbar"])
    endpoint = config.listen("rawsocket")
    proxy = ProxyProcess(config)
    yield endpoint
    proxy.check_idle()
    proxy.stop()


def join_small(endpoint: Endpoint, serializer: str) -> Peer:
    """A joined client that takes 16 KiB."""
    wire = Wire(endpoint.connect())
    wire.write(bytes([0x7F, 5 << 4 | raw.SERIALIZERS[serializer], 0, 0]))
    wire.read(4)
    return RawSocketPeer(wire, serializer).join()


@pytest.mark.peers
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_callee_with_a_small_limit(serializer: str, front: Endpoint) -> None:
    """A call whose arguments its callee does not take fails for the caller, and does not hang."""
    callee, uri = join_small(front, serializer), f"com.example.small.{serializer}"
    callee.register(uri)
    callee.subscribe(uri)
    with joined(front) as caller:
        for number in range(3):
            request = caller.request()
            caller.send([CALL, request, {}, uri, ["x" * 20_000]])
            error = caller.recv_type(ERROR)
            assert error[:3] + error[4:5] == [ERROR, CALL, request, TOO_BIG]
            caller.send([PUBLISH, caller.request(), {"acknowledge": True}, uri, ["x" * 20_000]])
            caller.recv_type(raw.PUBLISHED)
            assert callee.recv_type(EVENT)[3]["payload_limit_exceeded"] is True
            caller.send([CALL, caller.request(), {}, uri, [number]])
            callee.send([YIELD, callee.recv_type(INVOCATION)[1], {}, [number]])
            assert caller.recv_type(RESULT)[3] == [number]
        caller.leave()
    callee.leave()


@pytest.mark.peers
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_caller_with_a_small_limit(serializer: str, front: Endpoint) -> None:
    """Progressive and other results over what the caller takes: an ERROR, and the callee is interrupted."""
    caller, uri = join_small(front, serializer), f"com.example.large.{serializer}"
    with joined(front) as callee:
        callee.register(uri)
        caller.send([CALL, caller.request(), {}, uri])
        callee.send([YIELD, callee.recv_type(INVOCATION)[1], {}, ["x" * 20_000]])
        assert caller.recv_type(ERROR)[4] == TOO_BIG
        caller.send([CALL, caller.request(), {"receive_progress": True}, uri])
        number = callee.recv_type(INVOCATION)[1]
        callee.send([YIELD, number, PROGRESS, [1]], [YIELD, number, PROGRESS, ["x" * 20_000]])
        assert caller.recv_type(RESULT)[3] == [1]
        assert caller.recv_type(ERROR)[4] == TOO_BIG
        assert callee.recv_type(raw.INTERRUPT)[1] == number
        callee.send([ERROR, INVOCATION, number, {}, "wamp.error.canceled"])
        caller.send([CALL, caller.request(), {}, uri])
        callee.send([YIELD, callee.recv_type(INVOCATION)[1], {}, [2]])
        assert caller.recv_type(RESULT)[3] == [2]
        callee.leave()
    caller.leave()
