"""Where the parts of a packet are, and that its texts are texts; the rest of it is the library's to read.

Both versions of MQTT have the same packets, but for the property blocks that only version 5 has: that is what the
positions are for. Texts are checked here because the library takes U+0000 in them, and treats octets that are no UTF-8
as an error of its own, with a page on standard error (MQTT 5, section 1.5.4).
"""

from collections.abc import Callable
from typing import Final

import mqtt5

from proxy.mqtt.errors import MqttError

__all__ = [
    "CONNACK",
    "CONNECT",
    "DISCONNECT",
    "FILTERS_MAX",
    "PUBACK",
    "PUBCOMP",
    "PUBLISH",
    "PUBREC",
    "PUBREL",
    "SUBACK",
    "SUBSCRIBE",
    "UNSUBACK",
    "UNSUBSCRIBE",
    "V5",
    "V311",
    "Span",
    "property_blocks",
]

V311: Final = 4
V5: Final = 5
"""Protocol levels, as CONNECT names them."""

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)
"""Packet types (section 2.1.2)."""

Span = tuple[int, int]
"""Of a property block: where it begins, its length included, and where it ends."""

# Kinds of values that properties have, by identifier (section 2.2.2.2).
_OCTETS: Final = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
_TEXTS: Final = frozenset({0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F})
_BINARIES: Final = frozenset({0x09, 0x16})
_SUBSCRIPTION_ID: Final = 0x0B
_USER_PROPERTY: Final = 0x26

_CODES: Final = mqtt5.DisconnectReasonCode

FILTERS_MAX: Final = 1000
"""Topic filters of one packet. They are handled in one go, in which nobody else is served: as many as there is room for
in a megabyte would take seconds."""


def _malformed(text: str) -> MqttError:
    return MqttError(_CODES.MALFORMED_PACKET, text)


class _Cursor:
    """Goes over a packet."""

    __slots__ = ("at", "data", "has_properties", "spans")

    def __init__(self, data: bytes, has_properties: bool) -> None:
        self.data = data
        self.at = 0
        self.has_properties = has_properties
        self.spans: list[Span] = []

    @property
    def is_at_end(self) -> bool:
        return self.at >= len(self.data)

    def skip(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise _malformed("the packet is cut short")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, octets: int) -> int:
        return int.from_bytes(self.skip(octets))

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            octet = self.number(1)
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                return value
        raise _malformed("a variable byte integer has more than four octets")

    def binary(self) -> bytes:
        return self.skip(self.number(2))

    def text(self) -> None:
        try:
            text = self.binary().decode("utf-8")
        except UnicodeDecodeError as error:
            raise _malformed("a text is not UTF-8") from error
        if "\0" in text:
            raise _malformed("a text has U+0000 in it")

    def packet_id(self) -> None:
        if not self.number(2):
            raise MqttError(_CODES.PROTOCOL_ERROR, "packet identifier 0")

    def properties(self) -> None:
        start = self.at
        if self.has_properties:
            end = self.varint() + self.at
            seen: set[int] = set()
            while self.at < end:
                self._property(seen)
            if self.at != end:
                raise _malformed("a property is longer than the properties")
        self.spans.append((start, self.at))

    def _property(self, seen: set[int]) -> None:
        name = self.varint()
        if name in seen and name != _USER_PROPERTY:
            raise MqttError(_CODES.PROTOCOL_ERROR, f"property {name:#04x} is there twice")
        seen.add(name)
        if name in _OCTETS:
            self.skip(_OCTETS[name])
        elif name in _TEXTS:
            self.text()
        elif name in _BINARIES:
            self.binary()
        elif name == _SUBSCRIPTION_ID:
            self.varint()
        elif name == _USER_PROPERTY:
            self.text()
            self.text()
        else:
            raise _malformed(f"unknown property {name:#04x}")


def _connect(cursor: _Cursor, flags: int) -> None:
    """Section 3.1. Name and version have been looked at."""
    cursor.text()
    cursor.skip(1)
    bits = cursor.number(1)
    cursor.skip(2)
    has_will, will_qos = bits & 0x04, bits >> 3 & 3
    has_name, has_password = bits & 0x80, bits & 0x40
    if bits & 0x01 or will_qos > 2 or (not has_will and bits & 0x38):
        raise _malformed(f"connect flags {bits:#04x}")
    if has_password and not has_name and not cursor.has_properties:
        raise _malformed("a password without a user name")  # 3.1.1, section 3.1.2.9
    cursor.properties()
    cursor.text()
    if has_will:
        cursor.properties()
        cursor.text()
        cursor.binary()
    if has_name:
        cursor.text()
    if has_password:
        cursor.binary()


def _publish(cursor: _Cursor, flags: int) -> None:
    """Section 3.3."""
    cursor.text()
    if flags & 0x06:
        cursor.packet_id()
    cursor.properties()
    cursor.at = len(cursor.data)


def _acknowledgement(cursor: _Cursor, flags: int) -> None:
    """Sections 3.4 to 3.7: of version 5 the end may be left out."""
    cursor.packet_id()
    _reason(cursor, flags)


def _reason(cursor: _Cursor, flags: int) -> None:
    """Sections 3.14 and 3.15."""
    if cursor.has_properties and not cursor.is_at_end:
        cursor.skip(1)
        if not cursor.is_at_end:
            cursor.properties()


def _check_count(count: int) -> None:
    if count > FILTERS_MAX:
        raise MqttError(_CODES.QUOTA_EXCEEDED, f"more than {FILTERS_MAX} topic filters in a packet")


def _subscribe(cursor: _Cursor, flags: int) -> None:
    """Section 3.8."""
    cursor.packet_id()
    cursor.properties()
    reserved = 0xC0 if cursor.has_properties else 0xFC
    if cursor.is_at_end:
        raise MqttError(_CODES.PROTOCOL_ERROR, "SUBSCRIBE without topic filters")
    count = 0
    while not cursor.is_at_end:
        count += 1
        _check_count(count)
        cursor.text()
        options = cursor.number(1)
        if options & reserved or options & 3 == 3 or options >> 4 & 3 == 3:
            raise _malformed(f"subscription options {options:#04x}")


def _unsubscribe(cursor: _Cursor, flags: int) -> None:
    """Section 3.10."""
    cursor.packet_id()
    cursor.properties()
    if cursor.is_at_end:
        raise MqttError(_CODES.PROTOCOL_ERROR, "UNSUBSCRIBE without topic filters")
    count = 0
    while not cursor.is_at_end:
        count += 1
        _check_count(count)
        cursor.text()


def _nothing(cursor: _Cursor, flags: int) -> None:
    """Section 3.12."""


_WALKS: Final[dict[int, Callable[[_Cursor, int], None]]] = {
    CONNECT: _connect,
    PUBLISH: _publish,
    **dict.fromkeys((PUBACK, PUBREC, PUBREL, PUBCOMP), _acknowledgement),
    SUBSCRIBE: _subscribe,
    UNSUBSCRIBE: _unsubscribe,
    PINGREQ: _nothing,
    DISCONNECT: _reason,
    AUTH: _reason,
}


def property_blocks(first: int, body: bytes, version: int) -> list[Span]:
    """Go over a packet of a client, or a PUBLISH of the server.

    :param first: its first octet.
    :param body: what follows the length.
    :param version: V311 or V5.
    :returns: where its property blocks are; in 3.1.1: where they would be, of length 0.
    :raises MqttError: it is malformed, or none that clients send.
    """
    kind = first >> 4
    walk = _WALKS.get(kind)
    if walk is None or (kind == AUTH and version == V311):
        raise MqttError(_CODES.PROTOCOL_ERROR, f"a packet of type {kind} from a client")
    cursor = _Cursor(body, version == V5)
    walk(cursor, first & 0x0F)
    if not cursor.is_at_end:
        raise _malformed("the packet is longer than what is in it")
    return cursor.spans
