"""Properties of batches over random messages and random octets."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st

from proxy._relay import SER_CBOR, SER_JSON, SER_MSGPACK, probe_batch

serializers = st.sampled_from([SER_JSON, SER_MSGPACK, SER_CBOR])
separators = [b"\x18", b"\x1e"]


def messages(serializer: int) -> st.SearchStrategy[list[bytes]]:
    """Messages of one batch; those of JSON hold no separator, as no JSON does."""
    octets = st.binary(min_size=1, max_size=300)
    if serializer == SER_JSON:
        octets = octets.map(lambda item: item.translate(None, b"\x18\x1e") or b"0")
    return st.lists(octets, min_size=1, max_size=20)


@given(data=st.data(), serializer=serializers)
def test_put_then_take_is_identity(data: st.DataObject, serializer: int) -> None:
    given_ = data.draw(messages(serializer))
    writer, reader = probe_batch(serializer), probe_batch(serializer)
    whole = writer.put(given_)
    assert reader.take(whole) == given_
    assert reader.walk(whole) == len(given_)
    assert reader.put(given_) == whole  # it answers in the kind that it was asked in


def split(serializer: int, data: bytes) -> list[bytes] | None:
    """What the specification makes of a batch; None: malformed."""
    found = []
    if serializer == SER_JSON:
        if data[-1:] not in separators:
            return None
        found = data[:-1].split(data[-1:])
    else:
        while data:
            (size,) = struct.unpack("!L", data[:4]) if len(data) >= 4 else (1 << 32,)
            if len(data) < 4 + size:
                return None
            found.append(data[4 : 4 + size])
            data = data[4 + size :]
    return found if found and all(found) else None


batches = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from([*separators, b"\0\0\0\0", b"\xff\xff\xff\xff"]),
        st.binary(max_size=20).map(lambda item: struct.pack("!L", len(item)) + item),
    ),
    max_size=6,
).map(b"".join)


@given(serializer=serializers, data=batches)
@example(serializer=SER_JSON, data=b"[1]\x18\x1e")
@example(serializer=SER_CBOR, data=b"\0\0\0\1a\0")
def test_any_octets_are_read_as_the_specification_says(serializer: int, data: bytes) -> None:
    batch = probe_batch(serializer)
    try:
        found = batch.take(data)
    except ValueError as error:
        assert error.args[0] == "ST_PROTOCOL"  # noqa: PT017
        assert split(serializer, data) is None
    else:
        assert found == split(serializer, data)
        assert batch.put(found) == data
