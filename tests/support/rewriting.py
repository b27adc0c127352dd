"""What the tests of the rewriter share: sessions by number, and messages that are written once for both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import msgpack

from proxy._relay import probe_notes, probe_rewrite, probe_sids
from support.gate import CBOR, DUMP, JSON, MSGPACK, UBJSON, bjdata

# every width that an ID can have in MessagePack and CBOR, on both sides, and the largest one
FRONT = [23, 3335656, 2**53, 200, 65536, 4294967296, 4711]
BACK = [7139875911, 24, 60000, 2**53 - 1, 99, 128, 255]
OTHER = 1234567890123  # a session that did not come through the proxy

LOAD: dict[int, Callable[[bytes], Any]] = {
    JSON: json.loads,
    MSGPACK: lambda data: msgpack.unpackb(data, strict_map_key=False),
    CBOR: cbor2.loads,
    UBJSON: bjdata.loadb,
}
UINT: dict[int, Callable[[int], bytes]] = {
    JSON: lambda n: b"%d" % n,
    MSGPACK: msgpack.packb,
    CBOR: cbor2.dumps,
    UBJSON: bjdata.dumpb,
}


@dataclass(frozen=True)
class Sid:
    """The session with that number where its ID must be rewritten."""

    number: int


@dataclass(frozen=True)
class Same:
    """The ID of the session with that number, as the sender knows it, where it must not be rewritten."""

    number: int


def render(value: Any, sender: list[int], reader: list[int]) -> Any:
    """A message with the IDs of the sender, or (reader != sender) as its reader must see it."""
    if isinstance(value, Sid):
        return reader[value.number]
    if isinstance(value, Same):
        return sender[value.number]
    if isinstance(value, dict):
        return {key: render(item, sender, reader) for key, item in value.items()}
    if isinstance(value, list):
        return [render(item, sender, reader) for item in value]
    return value


class Realm:
    """A map with the sessions of FRONT and BACK, and the notes of one link."""

    def __init__(self) -> None:
        self.sids = probe_sids()
        self.number = self.sids.add_realm()
        self.notes = probe_notes()
        for front, back in zip(FRONT, BACK, strict=True):
            self.sids.put(self.number, front, back)

    def rewrite(self, serializer: int, direction: int, code: int, data: Any, **options: Any) -> bytes | None:
        """The message for the other side; None: it is the same."""
        out = probe_rewrite(serializer, direction, code, data, self.sids, self.number, self.notes, **options)
        assert out is None or isinstance(out, bytes)
        return out

    def check(self, serializer: int, direction: int, message: list[Any], **options: Any) -> None:
        """Assert what becomes of a message with Sid and Same in it, to the octet."""
        sender, reader = (BACK, FRONT) if direction else (FRONT, BACK)
        data = DUMP[serializer](render(message, sender, sender))
        expected = DUMP[serializer](render(message, sender, reader))
        out = self.rewrite(serializer, direction, message[0], data, **options)
        assert LOAD[serializer](out or data) == LOAD[serializer](expected)
        assert out == (expected if expected != data else None)
