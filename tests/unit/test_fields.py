"""Single fields of messages: what answers are matched by, and the message without its payload."""

from __future__ import annotations

from typing import Any

import pytest

from proxy._relay import probe_fields_head, probe_fields_request
from support.gate import CBOR, DUMP, JSON, SERIALIZERS


@pytest.fixture(params=SERIALIZERS.values(), ids=SERIALIZERS)
def ser(request: pytest.FixtureRequest) -> int:
    assert isinstance(request.param, int)
    return request.param


REQUESTS: dict[str, tuple[list[Any], tuple[int, int, bool]]] = {
    "WELCOME": ([2, 2**53, {"roles": {}}], (2**53, 0, False)),
    "ERROR": ([8, 48, 17, {"progress": True}, "com.e"], (17, 48, False)),
    "PUBLISH": ([16, 3, {}, "com.t"], (3, 0, False)),
    "PUBLISHED": ([17, 3, 4], (3, 0, False)),
    "SUBSCRIBE": ([32, 2**32, {}, "com.t"], (2**32, 0, False)),
    "EVENT": ([36, 5, 6, {"progress": True}], (5, 0, False)),
    "CALL": ([48, 300, {}, "com.p"], (300, 0, False)),
    "CALL progressive": ([48, 300, {"timeout": 5, "progress": True}, "com.p", [1]], (300, 0, True)),
    "RESULT": ([50, 70000, {}, [1], {}], (70000, 0, False)),
    "RESULT progressive": ([50, 1, {"callee": 5, "x": {"progress": False}, "progress": True}, [1]], (1, 0, True)),
    "RESULT last": ([50, 1, {"x": [{"progress": True}], "progress": False}], (1, 0, False)),
    "RESULT one": ([50, 1, {"progress": 1}], (1, 0, False)),
    "RESULT no Details": ([50, 1], (1, 0, False)),
    "INVOCATION": ([68, 0, 9, {"progress": True}], (0, 0, True)),
    "INTERRUPT": ([69, 5, {"mode": "kill"}], (5, 0, False)),
    "YIELD": ([70, 23, {"progress": True}, [1]], (23, 0, True)),
    "UNREGISTERED": ([67, 2**64 - 1], (2**64 - 1, 0, False)),
}


@pytest.mark.parametrize(("message", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_request(ser: int, message: list[Any], expected: tuple[int, int, bool]) -> None:
    assert probe_fields_request(ser, message[0], DUMP[ser](message)) == expected


@pytest.mark.parametrize(
    "message", [[48], [48, "1", {}], [48, -1, {}], [48, 1.0, {}], [48, None], [8, 48], [8, "48", 1], [8, 2**40, 1], []]
)
def test_no_request(ser: int, message: list[Any]) -> None:
    with pytest.raises(ValueError, match="ST_MALFORMED"):
        probe_fields_request(ser, 8 if message[:1] == [8] else 48, DUMP[ser](message))


def test_request_of_spelled_out_messages() -> None:
    assert probe_fields_request(JSON, 50, b' [ 50 , 12 , { "pro\\u0067ress" : true } ] ') == (12, 0, True)
    assert probe_fields_request(JSON, 50, b'[50,12,{"progress":true,"progress":false}]') == (12, 0, False)
    assert probe_fields_request(CBOR, 50, bytes.fromhex("831832 190005 bf 7f 6470726f67 6472657373 ff f5 ff")) == (
        5, 0, True,
    )  # fmt: skip


HEADS: dict[str, tuple[list[Any], int]] = {
    "CALL": ([48, 1, {"timeout": 5}, "com.p", [1, 2], {"a": 1}], 4),
    "PUBLISH": ([16, 1, {"acknowledge": True}, "com.t", [1]], 4),
    "EVENT": ([36, 1, 2, {"publisher": 5}, ["x" * 100]], 4),
    "RESULT": ([50, 1, {}, [], {}], 3),
    "YIELD": ([70, 1, {}, [1]], 3),
    "INVOCATION": ([68, 1, 2, {}, [1], {"k": [{}]}], 4),
    "ERROR": ([8, 48, 1, {}, "com.e", [1], {}], 5),
    "CALL without": ([48, 1, {}, "com.p"], 4),
    "CALL cut": ([48, 1], 2),
    "SUBSCRIBE": ([32, 1, {"match": "prefix"}, "com."], 4),
    "WELCOME": ([2, 1, {"roles": {}}], 3),
    "GOODBYE": ([6, {}, "wamp.close.normal"], 3),
}


@pytest.mark.parametrize(("message", "count"), HEADS.values(), ids=HEADS)
def test_head(ser: int, message: list[Any], count: int) -> None:
    assert probe_fields_head(ser, message[0], DUMP[ser](message)) == DUMP[ser](message[:count])


def test_head_keeps_the_octets_as_they_are() -> None:
    data = b' [ 48 ,1, {"a":1.50, "a":[ ]} , "com.\\u0070", [ 5 ] ] '
    assert probe_fields_head(JSON, 48, data) == b'[48 ,1, {"a":1.50, "a":[ ]} , "com.\\u0070"]'
    data = bytes.fromhex("8518 30 1b0000000000000001 bfff 7f6161ff 8101")
    assert probe_fields_head(CBOR, 48, data) == bytes.fromhex("84 1830 1b0000000000000001 bfff 7f6161ff")


def test_head_over_the_limit(ser: int) -> None:
    data = DUMP[ser]([48, 1, {"x": "y" * 1000}, "com.p", [1]])
    whole = probe_fields_head(ser, 48, data)
    assert probe_fields_head(ser, 48, data, len(whole)) == whole
    with pytest.raises(ValueError, match="ST_TOO_BIG"):
        probe_fields_head(ser, 48, data, len(whole) - 1)


@pytest.mark.parametrize("data", [b"", b"{}", b"[", b'[48,"', b"[48,1,{"])
def test_head_of_no_message(data: bytes) -> None:
    with pytest.raises(ValueError, match="ST_MALFORMED"):
        probe_fields_head(JSON, 48, data)
