"""UBJSON for the few messages that the control plane reads and writes, in the dialect that autobahn speaks.

That is Binary JData, draft 4 (UBJSON in little-endian with unsigned integers), without its arrays of more than one
dimension and its tables. A codec of our own, because the package that autobahn uses allocates what a header claims and
makes NumPy arrays of lists: nothing for octets that anybody may send.
"""

import struct
from decimal import Decimal
from typing import Any, Final

__all__ = ["DEPTH_MAX", "dumps", "loads"]

DEPTH_MAX: Final = 100
"""Containers within one another, at most."""

_NUMBERS: Final = {
    ord(marker): struct.Struct(f"<{code}") for marker, code in zip("iUIulmLMhdD", "bBhHiIqQefd", strict=True)
}
_NUMBERS[ord("B")] = _NUMBERS[ord("U")]
_CONSTANTS: Final = {ord("Z"): None, ord("T"): True, ord("F"): False}
_LENGTHS: Final = frozenset(b"iUIulmLMB")
# Of each range of integers, the marker; unsigned ones first, as autobahn prefers them.
_INTEGERS: Final = tuple(
    (low, high, marker, struct.Struct(f"<c{code}"))
    for low, high, marker, code in (
        (0, 2**8, b"U", "B"),
        (0, 2**16, b"u", "H"),
        (0, 2**32, b"m", "I"),
        (0, 2**64, b"M", "Q"),
        (-(2**7), 0, b"i", "b"),
        (-(2**15), 0, b"I", "h"),
        (-(2**31), 0, b"l", "i"),
        (-(2**63), 0, b"L", "q"),
    )
)
_FLOAT: Final = struct.Struct("<cd")


class _Reader:
    """One value after the other, from the start of the octets. Raises ValueError, IndexError or struct.error."""

    __slots__ = ("at", "data", "unsized")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.unsized = len(data)

    def marker(self, *, skips: bool = False) -> int:
        """The next octet; ``skips``: the next one that is no no-op."""
        while True:
            octet = self.data[self.at]
            self.at += 1
            if octet != 0x4E or not skips:
                return octet

    def octets(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError("cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def length(self) -> int:
        marker = self.marker()
        value = self.scalar(marker) if marker in _LENGTHS else -1
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"no length at octet {self.at - 1}")
        return value

    def scalar(self, marker: int) -> Any:
        """The value behind its marker that is no container."""
        number = _NUMBERS.get(marker)
        if number is not None:
            (value,) = number.unpack_from(self.data, self.at)
            self.at += number.size
            return value
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == ord("S"):
            return self.octets(self.length()).decode()
        if marker == ord("C"):
            return self.octets(1).decode()
        if marker == ord("H"):
            return Decimal(self.octets(self.length()).decode("ascii"))
        raise ValueError(f"no value at octet {self.at - 1}")

    def value(self, marker: int, depth: int) -> Any:
        """The value behind its marker."""
        if marker != ord("[") and marker != ord("{"):
            return self.scalar(marker)
        if depth == DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX}")
        kind, count = self.parameters()
        if kind in _CONSTANTS and count is not None:
            self.unsized -= count
            if self.unsized < 0:
                raise ValueError("more values than octets")
        if marker == ord("{"):
            return self.object(kind, count, depth + 1)
        if kind == ord("B") and count is not None:
            return self.octets(count)
        return self.array(kind, count, depth + 1)

    def parameters(self) -> tuple[int, int | None]:
        """Type (0: each value has its own) and count of a container."""
        kind, octet = 0, self.data[self.at]
        if octet == ord("$"):
            kind, octet = self.data[self.at + 1], self.data[self.at + 2]
            self.at += 2
            if kind == ord("{") or octet != ord("#"):
                raise ValueError(f"a kind of container that is not supported, at octet {self.at}")
        if octet != ord("#"):
            return 0, None
        self.at += 1
        return kind, self.length()

    def array(self, kind: int, count: int | None, depth: int) -> list[Any]:
        values: list[Any] = []
        while count is None or len(values) < count:
            marker = kind or self.marker(skips=True)
            if marker == ord("]") and count is None:
                break
            values.append(self.value(marker, depth))
        return values

    def object(self, kind: int, count: int | None, depth: int) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        left = -1 if count is None else count
        while left != 0:
            left -= 1
            if self.marker(skips=True) == ord("}") and count is None:
                break
            self.at -= 1
            key = self.octets(self.length()).decode()
            pairs[key] = self.value(kind or self.marker(), depth)
        return pairs


def loads(data: bytes) -> Any:
    """Decode one value.

    Time and memory are linear in the octets. ``[$B#`` becomes bytes, every other array a list; a high-precision number
    becomes a Decimal. Of equal keys the last counts.

    :param data: the octets of exactly one value.
    :raises ValueError: they are not (also IndexError, struct.error and decimal.InvalidOperation).
    """
    reader = _Reader(data)
    value = reader.value(reader.marker(), 0)
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} octets follow the message")
    return value


def _integer(value: int) -> bytes:
    for low, high, marker, form in _INTEGERS:
        if low <= value < high:
            return form.pack(marker, value)
    raise ValueError("an integer of more than 64 bits")


def _put(value: Any, out: list[bytes], depth: int) -> None:
    if value is None:
        out.append(b"Z")
    elif isinstance(value, bool):
        out.append(b"T" if value else b"F")
    elif isinstance(value, str):
        octets = value.encode()
        out += (b"S", _integer(len(octets)), octets)
    elif isinstance(value, int):
        out.append(_integer(value))
    elif isinstance(value, float):
        out.append(_FLOAT.pack(b"D", value))
    elif isinstance(value, bytes):
        out += (b"[$B#", _integer(len(value)), value)
    elif isinstance(value, Decimal):
        octets = str(value).encode()
        out += (b"H", _integer(len(octets)), octets)
    elif depth == DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    elif isinstance(value, list | tuple):
        out.append(b"[")
        for item in value:
            _put(item, out, depth + 1)
        out.append(b"]")
    elif isinstance(value, dict):
        out.append(b"{")
        for key, item in value.items():
            octets = key.encode()
            out += (_integer(len(octets)), octets)
            _put(item, out, depth + 1)
        out.append(b"}")
    else:
        raise ValueError(f"a value of type {type(value).__name__}")


def dumps(value: Any) -> bytes:
    """Encode one value; containers without type and count, integers in the shortest form.

    :param value: of None, bool, int, float, str, bytes, Decimal, list and dict with keys of text.
    :raises ValueError: it cannot be expressed (also AttributeError: a key that is no text).
    """
    out: list[bytes] = []
    _put(value, out, 0)
    return b"".join(out)
