"""The WAMP specification's message vectors in the other serializers: whole, cut at every octet, and followed."""

from __future__ import annotations

import pytest

from proxy._relay import probe_wamp_type
from support.gate import CBOR, JSON, MSGPACK, Vector, require_vectors
from support.translation import decode, normal, translate

VECTORS = [vector for vector in require_vectors() if vector.serializer in (JSON, MSGPACK, CBOR)]


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_whole(vector: Vector) -> None:
    """A message means the same in another serializer, and the gate reads the same type."""
    for target in {JSON, MSGPACK, CBOR} - {vector.serializer}:
        out = translate(vector.serializer, target, vector.data)
        assert normal(decode(target, out), False) == normal(decode(vector.serializer, vector.data), False)
        assert probe_wamp_type(target, out)[:2] == (1, vector.code)
        back = translate(target, vector.serializer, out)
        assert normal(decode(vector.serializer, back), False) == normal(decode(target, out), False)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_cut_and_followed(vector: Vector) -> None:
    for target in {JSON, MSGPACK, CBOR} - {vector.serializer}:
        for size in range(len(vector.data)):
            with pytest.raises(ValueError, match=r"ST_MALFORMED|ST_UNTRANSLATABLE"):
                translate(vector.serializer, target, vector.data[:size])
        with pytest.raises(ValueError, match="ST_MALFORMED"):
            translate(vector.serializer, target, vector.data + b"\0")
