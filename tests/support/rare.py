"""UBJSON and FlatBuffers by autobahn: there is no other implementation of WAMP in them to test against."""

from __future__ import annotations

import functools
import os
from typing import Any

SERIALIZERS = {"ubjson": 4, "flatbuffers": 5}


@functools.cache
def _serializer(name: str) -> Any:
    # bjdata prints a warning of NumPy's when it is imported, straight to the descriptor
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import txaio

        if not getattr(txaio, "_explicit_framework", None):
            txaio.use_twisted()
        from autobahn.wamp import serializer
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
    return {"ubjson": serializer.UBJSONSerializer, "flatbuffers": serializer.FlatBuffersSerializer}[name]()


def encode(name: str, message: list[Any]) -> bytes:
    """One WAMP message; FlatBuffers holds only what autobahn's schema has a place for."""
    if name == "ubjson":
        return bytes(_serializer(name)._serializer.serialize(message))
    octets, _ = _serializer(name).serialize(_serializer(name).MESSAGE_TYPE_MAP[message[0]].parse(message))
    return bytes(octets)


def decode(name: str, octets: bytes) -> list[Any]:
    """One WAMP message as a list."""
    if name == "ubjson":
        message: list[Any] = _serializer(name)._serializer.unserialize(octets)[0]
        return message
    (parsed,) = _serializer(name).unserialize(octets)
    return list(parsed.marshal())
