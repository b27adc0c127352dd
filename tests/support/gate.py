"""What the tests of scanners and gate share: statuses, decoders that judge, memory that ends at a guard page."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import msgpack
import pytest
import txaio
import ujson
from msgpack import fallback

txaio.use_twisted()  # autobahn's serializers take their clock from the framework that was chosen before their import

with contextlib.redirect_stderr(io.StringIO()):  # an older bjdata on a newer NumPy makes that one complain at length
    import bjdata

from autobahn.wamp.serializer import (  # noqa: E402
    CBORSerializer,
    FlatBuffersSerializer,
    JsonSerializer,
    MsgPackSerializer,
    UBJSONSerializer,
)

from proxy._relay import probe_scan, probe_wamp_plan, probe_wamp_type  # noqa: E402

JSON, MSGPACK, CBOR, UBJSON, FLATBUFFERS = 1, 2, 3, 4, 5
# Those whose messages are arrays of any values; FlatBuffers is not one of them.
SERIALIZERS = {"json": JSON, "msgpack": MSGPACK, "cbor": CBOR, "ubjson": UBJSON}
COUNTED = (MSGPACK, CBOR)  # they state the number of elements
TO_BACK, TO_FRONT = 0, 1
PASS, CONTROL = 1, 2

# DESIGN: the types that may pass, by direction; everything else is forbidden
PASSES = {
    TO_BACK: {8, 16, 32, 34, 48, 49, 64, 66, 70, 337},
    TO_FRONT: {8, 17, 33, 35, 36, 50, 65, 67, 68, 69},
}
CONTROLS = {TO_BACK: {6}, TO_FRONT: {3, 6}}


class Status(IntEnum):
    """What scanners and gate return for a refusal."""

    MALFORMED = -5
    TRUNCATED = -6
    TRAILING = -7
    DEPTH = -8
    AMBIGUOUS = -9
    FORBIDDEN = -10


def dump_json(value: Any) -> bytes:
    """The value as compact JSON text."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


DUMP: dict[int, Callable[[Any], bytes]] = {
    JSON: dump_json,
    MSGPACK: msgpack.packb,
    CBOR: cbor2.dumps,
    UBJSON: bjdata.dumpb,
}


def expected_plan(direction: int, code: int) -> int:
    """What the gate must say to a well-formed message of this type."""
    if code in PASSES[direction]:
        return PASS
    return CONTROL if code in CONTROLS[direction] else Status.FORBIDDEN


# --- decoders that judge ---------------------------------------------------------------------------------------------

AUTOBAHN = {
    JSON: JsonSerializer(),
    MSGPACK: MsgPackSerializer(),
    CBOR: CBORSerializer(),
    UBJSON: UBJSONSerializer(),
    FLATBUFFERS: FlatBuffersSerializer(),
}


def _fallback(data: bytes) -> list[Any]:
    return [fallback.unpackb(data, strict_map_key=False, unicode_errors="replace")]


def _msgpack_stream(data: bytes) -> list[Any]:
    """As a decoder reads that expects any number of values."""
    unpacker = msgpack.Unpacker(strict_map_key=False, raw=True)
    unpacker.feed(data)
    return list(unpacker)


def _ujson(data: bytes) -> list[Any]:
    return [ujson.loads(data)]


def _json_octets(data: bytes) -> list[Any]:
    """Python's json guesses UTF-16 and UTF-32 from the NULs in the first four octets."""
    return [json.loads(data)]


def _cbor_lenient(data: bytes) -> list[Any]:
    return [cbor2.loads(data, str_errors="replace")]


def _ubjson_big_endian(data: bytes) -> list[Any]:
    """As older autobahn reads it, whose UBJSON is big-endian and has no unsigned integers but those of an octet."""
    if data[1:2] in (b"u", b"m", b"M"):
        raise ValueError("unknown marker")
    return [bjdata.loadb(data, islittle=False)]


def _flatbuffers(data: bytes) -> list[Any]:
    """The type alone: the objects have no list form that does not look into Arguments."""
    return [[message.MESSAGE_TYPE] for message in AUTOBAHN[FLATBUFFERS].unserialize(data)]


DECODERS: dict[int, dict[str, Callable[[bytes], list[Any]]]] = {
    JSON: {"autobahn": AUTOBAHN[JSON]._serializer.unserialize, "json": _json_octets, "ujson": _ujson},
    MSGPACK: {
        "autobahn": AUTOBAHN[MSGPACK]._serializer.unserialize,
        "fallback": _fallback,
        "stream": _msgpack_stream,
    },
    CBOR: {"autobahn": AUTOBAHN[CBOR]._serializer.unserialize, "lenient": _cbor_lenient},
    UBJSON: {"autobahn": AUTOBAHN[UBJSON]._serializer.unserialize, "big-endian": _ubjson_big_endian},
    FLATBUFFERS: {"autobahn": _flatbuffers},
}


def check_reading(serializer: int, data: bytes, code: int) -> int:
    """Assert that every decoder refuses ``data`` or reads exactly one message of type ``code``; how many read it."""
    readers = 0
    for name, decode in DECODERS[serializer].items():
        try:
            messages = decode(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a decoder written in Rust may panic, which is no Exception; to panic is to refuse
            continue
        assert len(messages) == 1, f"{name} reads {len(messages)} messages in {data.hex()}, the gate one"
        message = messages[0]
        assert type(message) is list, f"{name} reads no list in {data.hex()}: {message!r}"
        assert message, f"{name} reads an empty list in {data.hex()}"
        assert type(message[0]) is int, f"{name} reads {message[0]!r} as type in {data.hex()}, the gate {code}"
        assert message[0] == code, f"{name} reads {message[0]!r} as type in {data.hex()}, the gate {code}"
        readers += 1
    try:
        parsed = AUTOBAHN[serializer].unserialize(data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return readers
    assert [message.MESSAGE_TYPE for message in parsed] == [code], f"autobahn parses {parsed!r} from {data.hex()}"
    return readers


# --- memory ----------------------------------------------------------------------------------------------------------


class Guarded:
    """Memory that ends at a page without access, so that one octet read past the end of the data is a segfault."""

    def __init__(self, size: int = 1 << 20) -> None:
        self._size = math.ceil(size / mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._size + mmap.PAGESIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(address + self._size), ctypes.c_size_t(mmap.PAGESIZE), 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
        self._view = memoryview(self._map)

    def __call__(self, data: bytes) -> memoryview:
        """A copy of ``data`` right before the guard page; valid until the next call."""
        start = self._size - len(data)
        self._view[start : self._size] = data
        return self._view[start : self._size]


# --- the property ----------------------------------------------------------------------------------------------------

_GUARDED = Guarded()


def check_gate(serializer: int, data: bytes) -> str:
    """Assert the property of the gate for one octet string, in both directions, and that all ways to ask it agree.

    :return: what became of it, in words.
    """
    room = _GUARDED(data)
    status, code, _ = probe_wamp_type(serializer, room)
    for direction in (TO_BACK, TO_FRONT):
        plan, type_, _ = probe_wamp_plan(serializer, direction, room)
        if status < 0:
            assert plan == status, f"{data.hex()}: {plan}, but as a message in general {status}"
        else:
            assert (plan, type_) == (expected_plan(direction, code), code), f"{data.hex()}: {plan} {type_}, not {code}"
    if status < 0:
        return Status(status).name
    length = probe_scan(serializer, room)
    assert length == len(data) or (serializer == JSON and not data[length:].strip(b" \t\r\n")), data.hex()
    return "passes, and is read" if check_reading(serializer, data, code) else "passes, and no decoder reads it"


# --- vectors ---------------------------------------------------------------------------------------------------------


class Vector(NamedTuple):
    """One byte representation of one message of the WAMP specification's test suite."""

    name: str
    serializer: int
    code: int
    data: bytes

    def __str__(self) -> str:
        return self.name


def vector_folder() -> Path | None:
    """Where the vectors are: WAMP_VECTORS, or ``../shared/vectors`` beside the project; None: nowhere."""
    named = os.environ.get("WAMP_VECTORS")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "vectors"
    return folder if folder.is_dir() else None


def vectors() -> Iterator[Vector]:
    """All of them, UBJSON as present autobahn writes it (older one wrote it in big-endian)."""
    folder = vector_folder()
    if folder is None:
        return
    for path in sorted(folder.glob("singlemessage/*/*.json")):
        content = json.loads(path.read_text())
        for at, sample in enumerate(content["samples"]):
            for name, serializer in {**SERIALIZERS, "flatbuffers": FLATBUFFERS}.items():
                for number, form in enumerate(sample.get("serializers", {}).get(name, ())):
                    if serializer == UBJSON and "bjdata" not in form["note"].lower():
                        continue
                    data = bytes.fromhex(form["bytes_hex"]) if "bytes_hex" in form else form["bytes"].encode()
                    yield Vector(f"{path.stem}-{at}-{name}-{number}", serializer, content["wamp_message_code"], data)


def require_vectors() -> list[Vector]:
    """All vectors; skips the whole module, loudly, where there are none."""
    found = list(vectors())
    if not found:
        pytest.skip(
            "NO WAMP VECTORS: the message vectors of the WAMP specification are not tested. Put them into "
            "../shared/vectors beside the project, or name their folder in WAMP_VECTORS",
            allow_module_level=True,
        )
    return found
