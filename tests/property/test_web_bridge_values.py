"""What the HTTP bridge lets through can be sent by every serializer, and what comes back is JSON."""

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from autobahn.wamp import message
from autobahn.wamp.serializer import create_transport_serializer
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.authenticators import is_plain
from proxy.web.bridge_values import BadValue, read_json, write_json

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
SAID = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)
CAME = st.recursive(
    st.one_of(SCALARS, st.binary(max_size=20), st.datetimes(), st.decimals(), st.frozensets(st.integers(), max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.one_of(TEXT, st.integers(), st.binary(max_size=4), st.none()), inner, max_size=4)
    ),
    max_leaves=20,
)


def refused_number(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


@given(SAID)
@pytest.mark.parametrize("name", ["json", "msgpack", "cbor"])
def test_what_is_read_can_be_sent(name: str, said: Any) -> None:
    try:
        value = read_json(json.dumps(said).encode())
    except BadValue:
        return
    assert is_plain(value)
    serializer = create_transport_serializer(name)
    octets, _ = serializer.serialize(message.Call(1, "com.example.add2", args=[value]))
    (call,) = serializer.unserialize(octets)
    # autobahn's CBOR and MessagePack tell octets from text; in JSON they are what they are over HTTP.
    assert _same(call.args[0], value)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return one == other or math.isclose(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


@given(SAID)
def test_what_is_read_is_written_as_it_was(said: Any) -> None:
    try:
        value = read_json(json.dumps(said).encode())
    except BadValue:
        return
    assert read_json(write_json(value)) == value


@given(CAME)
def test_what_came_is_written(came: Any) -> None:
    json.loads(write_json(came).decode("utf-8"), parse_constant=refused_number)


@given(st.binary(max_size=200))
def test_any_octets(body: bytes) -> None:
    with suppress(BadValue):
        read_json(body)
