"""What the tests of the translation share: the values that libraries read, and the properties of every translation."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import cbor2

from proxy._relay import probe_scan, probe_translate, probe_wamp_type
from support.gate import AUTOBAHN, CBOR, JSON, MSGPACK, Guarded

PAIRS = list(permutations((JSON, MSGPACK, CBOR), 2))
NAMES = {JSON: "json", MSGPACK: "msgpack", CBOR: "cbor"}
_GUARDED = Guarded()

# every reason why a well-formed value is not translated
REASONS = {
    "an integer of more than 64 bits",
    "a number that is not finite",
    "a number that is not valid JSON",
    "a number beyond the range of double precision",
    "a bare word other than true, false and null",
    "text that is not valid UTF-8",
    "text with a lone surrogate",
    "text that begins with U+0000, which in JSON is binary data",
    "binary data that is not valid Base64",
    "a map key that is neither text nor an integer",
    "a MessagePack extension value",
    "a CBOR tag",
    "a CBOR simple value",
}


def pair_name(pair: tuple[int, int]) -> str:
    """A direction in words."""
    return f"{NAMES[pair[0]]}-{NAMES[pair[1]]}"


def translate(source: int, target: int, data: bytes, limit: int = 0) -> bytes:
    """The translation, of octets that end where memory ends."""
    return probe_translate(source, target, _GUARDED(data), limit)


def encode(serializer: int, value: Any) -> bytes:
    """The value as autobahn writes it."""
    return AUTOBAHN[serializer]._serializer.serialize(value)


def decode(serializer: int, data: bytes) -> Any:
    """The one value that autobahn reads."""
    (value,) = AUTOBAHN[serializer]._serializer.unserialize(data)
    return value


def normal(value: Any, text_keys: bool) -> Any:
    """The value in a form that compares equal only when type, sign and order are equal too."""
    if value is cbor2.undefined:
        value = None
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, list | tuple):
        return "list", [normal(item, text_keys) for item in value]
    if isinstance(value, Mapping):  # cbor2 makes what stands in a tag immutable
        pairs = {str(key) if text_keys else key: item for key, item in value.items()}
        return "map", [(normal(key, text_keys), normal(item, text_keys)) for key, item in pairs.items()]
    return type(value).__name__, value


def _read(serializer: int, data: bytes) -> tuple[bool, Any]:
    """Whether autobahn reads the octets, and as what."""
    try:
        return True, decode(serializer, data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a decoder written in Rust may panic, which is no Exception
        return False, None


def _try(source: int, target: int, data: bytes) -> tuple[bytes | None, str]:
    """The translation, or why there is none."""
    try:
        return translate(source, target, data), ""
    except ValueError as error:
        return None, str(error)


def check_direction(source: int, target: int, data: bytes) -> str:
    """Assert what holds for any octets in one direction; what became of them, in words."""
    out, refusal = _try(source, target, data)
    if out is None:
        status, _, why = refusal.partition(": ")
        assert status in ("ST_UNTRANSLATABLE", "ST_MALFORMED", "ST_DEPTH"), f"{data.hex()}: {refusal}"
        assert status != "ST_UNTRANSLATABLE" or why in REASONS, f"{data.hex()}: {refusal}"
        return why if status == "ST_UNTRANSLATABLE" else status
    assert probe_scan(target, _GUARDED(out)) == len(out), f"{data.hex()} became {out.hex()}"
    gate, code, _ = probe_wamp_type(source, _GUARDED(data))
    # what passed the gate is the same message for the next gate, which takes four digits in JSON
    if gate > 0 and code < 10_000:
        assert probe_wamp_type(target, _GUARDED(out))[:2] == (1, code), f"{data.hex()} became {out.hex()}"
    back = translate(target, source, out)
    assert translate(source, target, back) == out, f"{data.hex()} became {out.hex()}, and by {back.hex()} another"
    is_read, before = _read(source, data)
    is_kept, after = _read(target, out)
    if is_read and is_kept:
        text_keys = JSON in (source, target)
        assert normal(before, text_keys) == normal(after, text_keys), f"{data.hex()} became {out.hex()}"
    return "is translated"


def check_translation(source: int, data: bytes) -> str:
    """Assert what holds for any octets in both directions away from a serializer; what became of them, in words."""
    return "; ".join(check_direction(source, target, data) for target in (JSON, MSGPACK, CBOR) if target != source)
