"""What cannot be translated may stand in Options or a URI, too: whoever sent the request learns that it has failed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import cbor2
import msgpack
import pytest

from support.raw import CALL, ERROR, PUBLISH, REGISTER, SUBSCRIBE, UNSUBSCRIBE
from support.stage import Stage

INVALID = "wamp.error.invalid_payload"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Routers that speak one serializer, in front of which another one must be translated."""
    stage = Stage(tmp_path_factory.mktemp("heads"))
    for name in ("json", "cbor"):
        stage.add_stub(name, serializer=name, serializers=[name]).add_front(name, to=name)
    stage.start()
    yield stage
    stage.close()


def octets(message: str, serializer: str, value: bytes) -> bytes:
    """A request with ``value``, encoded, among its Options."""
    options = {"acknowledge": True, "x": "VALUE"}
    plain = {
        "call": [CALL, 7, options, "com.x"],
        "publish": [PUBLISH, 7, options, "com.x"],
        "subscribe": [SUBSCRIBE, 7, options, "com.x"],
        "register": [REGISTER, 7, options, "com.x"],
    }[message]
    if serializer == "json":
        return json.dumps(plain, separators=(",", ":")).encode().replace(b'"VALUE"', value)
    if serializer == "cbor":
        return bytes(cbor2.dumps(plain)).replace(b"\x65VALUE", value)
    return bytes(msgpack.packb(plain)).replace(b"\xa5VALUE", value)


VALUES = [
    ("json", "cbor", b"1e999"),
    ("json", "cbor", b'"\\ud800"'),
    ("json", "cbor", b'"\\u0000!"'),
    ("json", "cbor", b"1" + b"0" * 5000),
    ("json", "cbor", b'{"a":-1e999}'),
    ("cbor", "json", b"\xfb\x7f\xf0\0\0\0\0\0\0"),
    ("cbor", "json", b"\xc0\x60"),
    ("cbor", "json", b"\xf0"),
    ("cbor", "json", b"\x62\0a"),
    ("cbor", "json", b"\xa1\x40\x00"),
    ("cbor", "json", b"\xa2\x01\x02\xf9\x00\x00\x03"),
    ("cbor", "json", b"\xc2\x49" + b"\xff" * 9),
    ("msgpack", "json", b"\xd4\x05\x00"),
    ("msgpack", "json", b"\xd6\xff\0\0\0\0"),
    ("msgpack", "json", b"\xa1\xff"),
    ("msgpack", "cbor", b"\xa1\xff"),
    ("msgpack", "cbor", b"\xc7\x0c\xff" + b"\xff" * 12),
    ("msgpack", "json", b"\x81\xc4\x00\x01"),
    ("msgpack", "json", b"\x81\x90\x01"),
]


@pytest.mark.parametrize(("client_speaks", "router_speaks", "value"), VALUES)
@pytest.mark.parametrize("message", ["call", "publish", "subscribe", "register"])
def test_in_options(message: str, client_speaks: str, router_speaks: str, value: bytes, stage: Stage) -> None:
    client, router = stage.session(router_speaks, client_speaks)
    client.send_raw(octets(message, client_speaks, value))
    client.send([UNSUBSCRIBE, 8, 1])
    got = router.recv()
    if got[0] == UNSUBSCRIBE:
        error = client.recv()
        assert error[0] == ERROR
        assert error[2] == 7
        assert error[4] == INVALID
    else:
        pytest.skip("it can be translated")
    client.close()
    router.close()


def test_in_a_uri(stage: Stage) -> None:
    client, router = stage.session("cbor", "json")
    client.send_raw(b'[48,7,{},"com.\\ud800"]')
    error = client.recv()
    assert error[:3] + error[4:5] == [ERROR, CALL, 7, INVALID]
    client.close()
    router.close()
