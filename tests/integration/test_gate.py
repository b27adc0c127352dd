"""After the join: only what a client may say reaches the router, and only what a router may say reaches the client."""

from __future__ import annotations

from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, GOODBYE, WELCOME, Peer, encode, hello
from support.stub import StubRouter

SERIALIZERS = ["json", "msgpack", "cbor"]
TRUSTED = {"roles": {}, "authmethods": ["anonymous-proxy"], "authextra": {"proxy_authrole": "trusted"}}
FORBIDDEN_TO_BACK: dict[str, list[Any]] = {
    "hello": [1, "realm1", TRUSTED],
    "welcome": [2, 1, {"roles": {}}],
    "abort": [3, {}, "wamp.error.x"],
    "challenge": [4, "ticket", {}],
    "authenticate": [5, "x", {}],
    "published": [17, 1, 2],
    "event": [36, 1, 2, {}],
    "result": [50, 1, {}],
    "invocation": [68, 1, 2, {}],
    "unknown": [99, 1],
    "huge-type": [2**40, 1],
    "negative": [-1, 1],
    "type-is-text": ["1", 1],
    "type-is-bool": [True, 1],
    "type-is-null": [None, 1],
    "empty": [],
}
FORBIDDEN_TO_FRONT: dict[str, list[Any]] = {
    "hello": [1, "realm1", {}],
    "welcome": [2, 1, {"roles": {}}],
    "challenge": [4, "ticket", {}],
    "authenticate": [5, "x", {}],
    "publish": [16, 1, {}, "com.example"],
    "call": [48, 1, {}, "com.example"],
    "unknown": [99, 1],
    "empty": [],
}
# One message that two decoders could read differently, or that holds more than one.
AMBIGUOUS: dict[str, tuple[str, bytes]] = {
    "json-float-type": ("json", b'[48.0,1,{},"com.example"]'),
    "json-exponent-type": ("json", b'[1e0,"realm1",{}]'),
    "json-leading-zero": ("json", b'[01,"realm1",{}]'),
    "json-plus": ("json", b'[+1,"realm1",{}]'),
    "json-bom": ("json", b'\xef\xbb\xbf[48,1,{},"com.example"]'),
    "json-trailing": ("json", b'[48,1,{},"com.example"][1,"realm1",{}]'),
    "json-nul": ("json", b'[48,1,{},"com.example"]\x00[1,"realm1",{}]'),
    "json-object": ("json", b'{"0":48}'),
    "json-cut": ("json", b'[48,1,{},"com.exam'),
    "json-empty": ("json", b""),
    "cbor-non-minimal": ("cbor", bytes.fromhex("83180166") + b"realm1" + b"\xa0"),
    "cbor-tagged": ("cbor", b"\xd9\xd9\xf7" + encode("cbor", [48, 1, {}, "com.example"])),
    "cbor-float-type": ("cbor", encode("cbor", [48.0, 1, {}, "com.example"])),
    "cbor-indefinite": ("cbor", b"\x9f" + encode("cbor", [48, 1, {}, "com.example"])[1:] + b"\xff"),
    "cbor-trailing": ("cbor", encode("cbor", [48, 1, {}, "com.example"]) + encode("cbor", [1, "realm1", {}])),
    "cbor-cut": ("cbor", encode("cbor", [48, 1, {}, "com.example"])[:-1]),
    "msgpack-signed-type": ("msgpack", b"\x94\xd0\x30\x01\x80\xaacom.exampl"),
    "msgpack-wide-type": ("msgpack", b"\x94\xcf" + (1).to_bytes(8, "big") + b"\x01\x80\xaacom.exampl"),
    "msgpack-float-type": ("msgpack", encode("msgpack", [48.0, 1, {}, "com.example"])),
    "msgpack-ext-type": ("msgpack", b"\x94\xd4\x01\x30\x01\x80\xaacom.exampl"),
    "msgpack-trailing": ("msgpack", encode("msgpack", [48, 1, {}, "com.example"]) + encode("msgpack", [1, "r", {}])),
    "msgpack-cut": ("msgpack", encode("msgpack", [48, 1, {}, "com.example"])[:-1]),
}


class Fixture:
    """A proxy with a stub router behind it."""

    def __init__(self, stub: StubRouter, fronts: dict[str, Endpoint]) -> None:
        self.stub, self.fronts = stub, fronts

    def session(self, kind: str, serializer: str) -> tuple[Peer, Peer]:
        """A joined session: (client, router's end)."""
        client = raw.dial(self.fronts[kind], serializer)
        client.send(hello())
        router, _ = self.stub.accept_session()
        client.recv_type(WELCOME)
        return client, router


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One proxy for all tests here; it must be idle and stop cleanly after them."""
    directory = tmp_path_factory.mktemp("gate")
    with StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock"))) as stub:
        config = Config(directory).stub("stub", stub.endpoint)
        fronts = {kind: config.listen(kind) for kind in ("websocket", "rawsocket")}
        proxy = ProxyProcess(config)
        yield Fixture(stub, fronts)
        proxy.check_idle()
        proxy.stop()


def assert_violation(client: Peer, router: Peer) -> None:
    """ABORT for the client, GOODBYE or the end for the router, both transports closed, nothing else on either."""
    messages, closed = client.recv_end()
    assert [message[:1] + message[2:3] for message in messages] == [[ABORT, "wamp.error.protocol_violation"]]
    assert closed.how in ("eof", "close")
    messages, _ = router.recv_end()
    assert [message[0] for message in messages] == [GOODBYE]
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
@pytest.mark.parametrize("name", FORBIDDEN_TO_BACK)
def test_smuggled_to_the_router(name: str, kind: str, serializer: str, stage: Fixture) -> None:
    """A message that no client may send does not reach the router, and ends the session."""
    client, router = stage.session(kind, serializer)
    client.send(FORBIDDEN_TO_BACK[name])
    assert_violation(client, router)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("name", FORBIDDEN_TO_FRONT)
def test_smuggled_to_the_client(name: str, serializer: str, stage: Fixture) -> None:
    """A message that no router may send does not reach the client; for the client its router is lost."""
    client, router = stage.session("websocket", serializer)
    router.send(FORBIDDEN_TO_FRONT[name])
    messages, _ = client.recv_end()
    assert [message[0] for message in messages] == [GOODBYE]
    assert messages[0][2] != "wamp.close.normal"
    assert [message[0] for message in router.recv_end()[0]] in ([GOODBYE], [])
    client.close()


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_encoding(name: str, stage: Fixture) -> None:
    """An encoding that two decoders could read differently is refused, not guessed."""
    serializer, octets = AMBIGUOUS[name]
    client, router = stage.session("rawsocket", serializer)
    client.send_raw(octets)
    assert_violation(client, router)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
def test_violation_behind_good_messages(kind: str, serializer: str, stage: Fixture) -> None:
    """In one write: what comes before the violation is delivered, what comes after is not."""
    client, router = stage.session(kind, serializer)
    good = [raw.CALL, 1, {}, "com.example.good"]
    client.send(good, [1, "realm1", {"roles": {}}], [raw.CALL, 2, {}, "com.example.evil"])
    assert router.recv() == good
    assert_violation(client, router)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_all_client_messages_pass(serializer: str, stage: Fixture) -> None:
    """Every type that a client may send arrives with its octets as they were."""
    client, router = stage.session("websocket", serializer)
    messages = [
        [8, 68, 1, {}, "com.example.error", [1], {"a": 2}],
        [16, 1, {"acknowledge": True, "x_unknown": [1]}, "com.example", [1.5, None]],
        [32, 2, {"match": "prefix"}, "com.example"],
        [34, 3, 2**53],
        [337, 3],
        [48, 4, {"receive_progress": True}, "com.example", [], {"text": "åß∂ƒ"}],
        [49, 4, {"mode": "kill"}],
        [64, 5, {}, "com.example"],
        [66, 6, 77],
        [70, 7, {"progress": True}, ["x" * 70_000]],
    ]
    client.send(*messages)
    for message in messages:
        assert router.recv_payload() == encode(serializer, message)
    client.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_all_router_messages_pass(serializer: str, stage: Fixture) -> None:
    """Every type that a router may send arrives with its octets as they were."""
    client, router = stage.session("rawsocket", serializer)
    messages = [
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
    router.send(*messages)
    for message in messages:
        assert client.recv_payload() == encode(serializer, message)
    client.close()
