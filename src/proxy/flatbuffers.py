"""WAMP messages in FlatBuffers, as far as the control plane reads and writes them.

What autobahn writes is the reference, also where its schema would allow more: HELLO and WELCOME carry neither roles nor
authmethods nor authextra, CHALLENGE and AUTHENTICATE no extra. Arguments are never looked at.

A message is a root table {msg_type, msg}; msg_type is the WAMP message code, but 37 for EVENT_RECEIVED. A table
begins with the distance back to its vtable, which tells for each field of the schema where in the table it is, or 0.
"""

import struct
from typing import Any, Final, NamedTuple

__all__ = ["dumps", "loads"]

_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_I32: Final = struct.Struct("<i")
_PLAIN: Final = {"8": struct.Struct("<Q"), "4": _U32, "2": _U16, "1": struct.Struct("<B"), "?": struct.Struct("<?")}

_MODES: Final = ("skip", "kill", "killnowait")
_METHODS: Final = ("", "ticket", "wampcra", "wamp-scram", "cryptosign")


class _Field(NamedTuple):
    """A field of a message.

    :ivar slot: its number in the schema.
    :ivar kind: octets of an integer (8, 4, 2, 1), ``?`` bool, ``s`` string.
    :ivar place: index in the message, or key in its Options or Details.
    :ivar names: what the values of an enumeration are called.
    """

    slot: int
    kind: str
    place: int | str
    names: tuple[str, ...] = ()


class _Type(NamedTuple):
    """A message type.

    :ivar details: index of Options or Details in the message; 0: it has none.
    :ivar length: elements of the message without Arguments.
    :ivar slots: fields of the schema.
    :ivar given: Details that every message of the type has, because FlatBuffers does not carry them.
    """

    details: int
    length: int
    slots: int
    fields: tuple[_Field, ...]
    given: dict[str, Any] = {}


def _ids(*places: int) -> tuple[_Field, ...]:
    return tuple(_Field(slot, "8", place) for slot, place in enumerate(places, 1))


_CALLEE: Final = (
    _Field(9, "?", "progress"),
    _Field(10, "8", "callee"),
    _Field(11, "s", "callee_authid"),
    _Field(12, "s", "callee_authrole"),
)
_REASON: Final = _Field(3, "s", "reason")
_CLIENT_ROLES: Final[dict[str, Any]] = {"roles": {"publisher": {}, "subscriber": {}, "caller": {}, "callee": {}}}
_ROUTER_ROLES: Final[dict[str, Any]] = {"roles": {"broker": {}, "dealer": {}}}

_TYPES: Final[dict[int, _Type]] = {
    1: _Type(2, 3, 10, (
        _Field(2, "s", 1), _Field(4, "s", "authid"), _Field(5, "s", "authrole"), _Field(7, "?", "resumable"),
        _Field(8, "8", "resume-session"), _Field(9, "s", "resume-token"),
    ), _CLIENT_ROLES),
    2: _Type(2, 3, 11, (
        _Field(0, "8", 1), _Field(2, "s", "realm"), _Field(3, "s", "authid"), _Field(4, "s", "authrole"),
        _Field(6, "s", "authprovider"), _Field(8, "?", "resumed"), _Field(9, "?", "resumable"),
        _Field(10, "s", "resume_token"),
    ), _ROUTER_ROLES),
    3: _Type(1, 3, 3, (_Field(1, "s", 2), _Field(2, "s", "message"))),
    4: _Type(2, 3, 3, (_Field(1, "1", 1, _METHODS),)),
    5: _Type(2, 3, 3, (_Field(1, "s", 1),)),
    6: _Type(1, 3, 4, (_Field(1, "s", 2), _Field(2, "s", "message"), _Field(3, "?", "resumable"))),
    8: _Type(3, 5, 12, (_Field(1, "2", 1), _Field(2, "8", 2), _Field(3, "s", 4))),
    16: _Type(2, 4, 21, (
        *_ids(1), _Field(2, "s", 3), _Field(10, "?", "acknowledge"), _Field(11, "?", "exclude_me"),
        _Field(18, "?", "retain"),
    )),
    17: _Type(0, 3, 3, _ids(1, 2)),
    32: _Type(2, 4, 5, (*_ids(1), _Field(2, "s", 3), _Field(4, "?", "get_retained"))),
    33: _Type(0, 3, 3, _ids(1, 2)),
    34: _Type(0, 3, 3, _ids(1, 2)),
    35: _Type(2, 3, 4, (*_ids(1), _Field(2, "8", "subscription"), _REASON)),
    36: _Type(3, 4, 18, (
        *_ids(1, 2), _Field(10, "8", "publisher"), _Field(11, "s", "publisher_authid"),
        _Field(12, "s", "publisher_authrole"), _Field(13, "s", "topic"), _Field(14, "?", "retained"),
    )),
    337: _Type(0, 2, 3, _ids(1)),
    48: _Type(2, 4, 17, (
        *_ids(1), _Field(2, "s", 3), _Field(10, "4", "timeout"), _Field(11, "?", "receive_progress"),
        _Field(13, "8", "caller"), _Field(14, "s", "caller_authid"), _Field(15, "s", "caller_authrole"),
    )),
    49: _Type(2, 3, 4, (*_ids(1), _Field(2, "1", "mode", _MODES))),
    50: _Type(2, 3, 14, (*_ids(1), *_CALLEE)),
    64: _Type(2, 4, 7, (*_ids(1), _Field(2, "s", 3))),
    65: _Type(0, 3, 3, _ids(1, 2)),
    66: _Type(0, 3, 3, _ids(1, 2)),
    67: _Type(2, 3, 4, (*_ids(1), _Field(2, "8", "registration"), _REASON)),
    68: _Type(3, 4, 18, (
        *_ids(1, 2), _Field(10, "s", "procedure"), _Field(11, "4", "timeout"),
        _Field(12, "?", "receive_progress"), _Field(14, "8", "caller"), _Field(15, "s", "caller_authid"),
        _Field(16, "s", "caller_authrole"),
    )),
    69: _Type(2, 3, 5, (*_ids(1), _Field(2, "1", "mode", _MODES), _REASON)),
    70: _Type(2, 3, 14, (*_ids(1), *_CALLEE)),
}  # fmt: skip
_TO_OCTET: Final = {337: 37}
_FROM_OCTET: Final = {37: 337}


# --- reading -----------------------------------------------------------------------------------------------------


class _Table:
    """A table at a place in the octets. Raises struct.error or ValueError when it leads out of them."""

    __slots__ = ("at", "data", "slots", "vtable")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.vtable = at - _I32.unpack_from(data, at)[0]
        if self.vtable < 0:  # unpack_from() would count from the end
            raise ValueError("a vtable before the message")
        self.slots = (_U16.unpack_from(data, self.vtable)[0] - 4) // 2

    def find(self, slot: int) -> int:
        """Where the field is; 0: it is absent."""
        offset = _U16.unpack_from(self.data, self.vtable + 4 + 2 * slot)[0] if slot < self.slots else 0
        return self.at + offset if offset else 0

    def follow(self, slot: int) -> int:
        """Where the field leads to; 0: it is absent."""
        at = self.find(slot)
        return at + int(_U32.unpack_from(self.data, at)[0]) if at else 0

    def read(self, field: _Field) -> Any:
        """Value of the field; None: it is absent."""
        if field.kind == "s":
            at = self.follow(field.slot)
            if not at:
                return None
            end = at + 4 + _U32.unpack_from(self.data, at)[0]
            if end > len(self.data):
                raise ValueError("a string that is cut short")
            return self.data[at + 4 : end].decode()
        at = self.find(field.slot)
        if not at:
            return None
        (value,) = _PLAIN[field.kind].unpack_from(self.data, at)
        return field.names[value] if field.names else value


def loads(data: bytes) -> list[Any]:
    """Decode one message, without its Arguments.

    Roles, which FlatBuffers does not carry, are all there could be, without features. Absent integers are 0, absent
    texts None.

    :param data: the octets of one message.
    :returns: the message as a list.
    :raises ValueError: it is none (also struct.error and IndexError).
    """
    root = _Table(data, _U32.unpack_from(data, 0)[0])
    octet, at = root.find(0), root.follow(1)
    code = data[octet] if octet else 0
    code = _FROM_OCTET.get(code, code)
    schema = _TYPES.get(code)
    if schema is None or not at:
        raise ValueError(f"no message of type {code}")
    table = _Table(data, at)
    message: list[Any] = [code, *[None] * (schema.length - 1)]
    details = dict(schema.given)
    for field in schema.fields:
        value = table.read(field)
        if isinstance(field.place, str):
            if value is not None:
                details[field.place] = value
        else:
            message[field.place] = 0 if value is None and field.kind in "842" else value
    if schema.details:
        message[schema.details] = details
    return message


# --- writing -----------------------------------------------------------------------------------------------------


def _values(message: list[Any], schema: _Type) -> dict[_Field, Any]:
    """What each field is to hold; ValueError: the message holds more than its type can carry."""
    code = message[0]
    details = dict(message[schema.details]) if schema.details else {}
    if code == 1 and (details.get("authmethods") or ["anonymous"]) != ["anonymous"]:
        # Who asks for an authentication must not get to the router as somebody who asks for none.
        raise ValueError("HELLO carries no authmethods but anonymous")
    values: dict[_Field, Any] = {}
    for field in schema.fields:
        value = details.pop(field.place, None) if isinstance(field.place, str) else message[field.place]
        if value is not None:
            values[field] = field.names.index(value) if field.names else value
    lost = [key for key, value in details.items() if value not in (None, False)]
    if lost and not schema.given:
        raise ValueError(f"a message of type {code} does not carry {lost[0]}")
    # autobahn reads the Arguments of an ERROR in the wrong place and fails, so that an ERROR had better have none
    if len(message) > schema.length and code != 8:
        raise ValueError("Arguments are not written here")
    return values


def _table(schema: _Type, values: dict[_Field, Any]) -> tuple[bytes, int]:
    """A table with its vtable in front of it and its strings behind it, to be put at a multiple of 8.

    :returns: the octets, and where in them the table begins.
    """
    vtable = [0] * schema.slots
    start = (2 * schema.slots + 7) // 8 * 8 + 4  # behind the vtable; the first field, 4 octets on, is aligned to 8
    at = start + 4
    for field in sorted(values, key=lambda field: -_size(field)):
        vtable[field.slot] = at - start
        at += _size(field)
    size = at - start
    out = bytearray(-at % 4 + at)
    struct.pack_into(f"<HH{schema.slots}H", out, 0, 4 + 2 * schema.slots, size, *vtable)
    _I32.pack_into(out, start, start)
    for field, value in values.items():
        at = start + vtable[field.slot]
        if field.kind == "s":
            _U32.pack_into(out, at, len(out) - at)
            octets = value.encode()
            out += _U32.pack(len(octets)) + octets + bytes(4 - len(octets) % 4)
        else:
            _PLAIN[field.kind].pack_into(out, at, value)
    return bytes(out), start


def _size(field: _Field) -> int:
    return 4 if field.kind == "s" else _PLAIN[field.kind].size


def dumps(message: list[Any]) -> bytes:
    """Encode one message.

    Roles, authmethods and other Details of HELLO and WELCOME that FlatBuffers does not carry are left out, and so are
    the Arguments of an ERROR, which autobahn cannot read.

    :param message: as :func:`loads` returns it.
    :raises ValueError: it holds what FlatBuffers does not carry and what must not get lost (also IndexError, KeyError,
        TypeError, AttributeError and struct.error: it is no message).
    """
    code = message[0]
    schema = _TYPES[code]
    # root offset, vtable (8 octets), table (12 octets: vtable, msg, msg_type), and then the message at 24
    table, start = _table(schema, _values(message, schema))
    head = struct.pack("<IHHHHiIB3x", 12, 8, 12, 8, 4, 8, 24 + start - 16, _TO_OCTET.get(code, code))
    return head + table
