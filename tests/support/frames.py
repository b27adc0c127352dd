"""WebSocket frames made by hand, and feeding a codec in every way the network may deliver its input."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest

from proxy._relay import FrameCodec, FrameError

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x37\xfa\x21\x3d"  # the key of the examples in RFC 6455 5.7

Frame = tuple[str, int, bytes]
Maker = Callable[[], FrameCodec]


def xor(data: bytes, key: bytes, phase: int = 0) -> bytes:
    """RFC 6455 5.3, octet by octet."""
    turned = key[phase % 4 :] + key[: phase % 4]
    return bytes(a ^ b for a, b in zip(data, cycle(turned), strict=False))


def ws_head(
    opcode: int, size: int, *, key: bytes | None = KEY, fin: bool = True, rsv: int = 0, width: int | None = None
) -> bytes:
    """A frame header; key None: not masked; width: octets of extended length (0, 2, 8) where not the minimal one."""
    if width is None:
        width = 0 if size < 126 else 2 if size < 65536 else 8
    short = {0: size, 2: 126, 8: 127}[width]
    extended = {0: b"", 2: struct.pack("!Q", size)[-2:], 8: struct.pack("!Q", size)}[width]
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    return bytes([first, (0x80 if key is not None else 0) | short]) + extended + (key or b"")


def ws_frame(opcode: int, payload: bytes = b"", *, key: bytes | None = KEY, **head: Any) -> bytes:
    """A whole frame."""
    return ws_head(opcode, len(payload), key=key, **head) + (payload if key is None else xor(payload, key))


def rs_frame(kind: int, payload: bytes = b"") -> bytes:
    """A whole RawSocket frame of less than 2^24 octets."""
    return struct.pack("!I", kind << 24 | len(payload)) + payload


def feed_octets(codec: FrameCodec, data: bytes) -> list[Frame]:
    """Feed one octet at a time; whenever nothing comes of it the codec must ask for more than it has."""
    frames = []
    for i in range(len(data)):
        found = codec.feed(data[i : i + 1])
        assert codec.need > codec.pending
        frames += found
    return frames


def assert_frames(make: Maker, data: bytes, expected: list[Frame]) -> None:
    """``data``, all of whose frames are whole, gives ``expected``: whole, octet by octet, and with more behind it."""
    codec = make()
    assert codec.feed(data) == expected
    assert codec.pending == 0
    assert feed_octets(make(), data) == expected
    codec = make()
    assert feed_octets(codec, data[:-1]) == expected[: len(expected) - 1]
    assert codec.feed(data[-1:] + data) == expected[len(expected) - 1 :] + expected
    codec = make()
    trailing = data[:1]
    assert codec.feed(data + trailing) == expected
    assert codec.pending == 1


def refusal(codec: FrameCodec, data: bytes) -> FrameError:
    """The error with which the codec refuses ``data``."""
    with pytest.raises(FrameError) as caught:
        codec.feed(data)
    return caught.value


def assert_refused(make: Maker, data: bytes, status: str, *, frames: list[Frame] | None = None) -> None:
    """``data`` is refused with ``status`` at its last octet and not before, however it comes and whatever follows."""
    for trailing in (b"", b"\x00", b"\xff" * 20):
        error = refusal(make(), data + trailing)
        assert (error.status, error.frames) == (status, frames or [])
    codec = make()
    assert feed_octets(codec, data[:-1]) == (frames or [])
    assert refusal(codec, data[-1:]).status == status
