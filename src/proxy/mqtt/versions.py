"""MQTT 3.1.1 as MQTT 5, and back: one library reads and writes the packets of both.

What differs (section numbers are those of the MQTT 5 specification unless 3.1.1 is named):

* Property blocks (2.2.2): CONNECT and its will, PUBLISH, SUBSCRIBE, UNSUBSCRIBE and their answers have them in version
  5. Coming in, empty ones are put where they belong; going out, they are cut away.
* The protocol level in CONNECT (3.1.2.2): 4 becomes 5.
* Clean session (3.1.1: 3.1.2.4) is clean start with a session that ends with the connection, or that does not: no
  session outlives its connection here, so both are the same.
* Return codes of CONNACK (3.1.1: 3.2.2.3): there are five, see RETURN_CODES.
* SUBACK (3.1.1: 3.9.3) has one code for everything that fails, 0x80. UNSUBACK (3.1.1: 3.11) has none.
* PUBACK, PUBREC and PUBCOMP (3.1.1: 3.4 to 3.7) say that it is done, nothing else: a publication that is refused is
  acknowledged like any other, or its client is disconnected (3.1.1: 3.3.5).
* DISCONNECT (3.1.1: 3.14) is the client's alone: the server closes the connection.
"""

from collections.abc import Mapping
from typing import Final

import mqtt5

from proxy.mqtt.layout import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    V5,
    Span,
    property_blocks,
)

__all__ = ["RETURN_CODES", "downgraded", "encoded_length", "upgraded"]

_FAILED: Final = 0x80
_NO_PROPERTIES: Final = b"\0"
_LEVEL_AT: Final = 6  # in a CONNECT that begins with "MQTT"

_CODES: Final = mqtt5.ConnAckReasonCode

RETURN_CODES: Final[Mapping[int, int]] = {
    int(_CODES.SUCCESS): 0,
    int(_CODES.UNSUPPORTED_PROTOCOL_VERSION): 1,
    int(_CODES.CLIENT_ID_NOT_VALID): 2,
    int(_CODES.BAD_USER_NAME_OR_PASSWORD): 4,
    int(_CODES.NOT_AUTHORIZED): 5,
    int(_CODES.BANNED): 5,
    int(_CODES.BAD_AUTHENTICATION_METHOD): 5,
    int(_CODES.TOPIC_NAME_INVALID): 5,
}
"""Reason code of CONNACK -> return code of 3.1.1. All others are 3, "Server unavailable"."""
_UNAVAILABLE: Final = 3


def encoded_length(length: int) -> bytes:
    """A variable byte integer (1.5.5)."""
    octets = bytearray()
    while length >= 0x80:
        octets.append(length & 0x7F | 0x80)
        length >>= 7
    octets.append(length)
    return bytes(octets)


def upgraded(first: int, body: bytes, places: list[Span]) -> bytes:
    """The body of a client's 3.1.1 packet, as version 5 has it.

    :param places: where its property blocks would be, see :func:`proxy.mqtt.layout.property_blocks`.
    """
    parts: list[bytes] = []
    at = 0
    for start, _ in places:
        parts += body[at:start], _NO_PROPERTIES
        at = start
    parts.append(body[at:])
    whole = b"".join(parts)
    if first >> 4 == CONNECT:
        whole = whole[:_LEVEL_AT] + bytes([V5]) + whole[_LEVEL_AT + 1 :]
    return whole


def downgraded(octets: bytes) -> bytes:
    """One of our packets in version 5, as 3.1.1 has it; nothing for DISCONNECT."""
    first = octets[0]
    at = 1
    while octets[at] & 0x80:
        at += 1
    body = octets[at + 1 :]
    kind = first >> 4
    if kind == DISCONNECT:
        return b""
    if kind == CONNACK:
        code = RETURN_CODES.get(body[1], _UNAVAILABLE)
        body = bytes([body[0] if not code else 0, code])
    elif kind == PUBLISH:
        ((start, end),) = property_blocks(first, body, V5)
        body = body[:start] + body[end:]
    elif kind == SUBACK:
        codes = body[2 + _block_length(body, 2) :]
        body = body[:2] + bytes(min(code, _FAILED) for code in codes)
    elif kind in (UNSUBACK, PUBACK, PUBREC, PUBREL, PUBCOMP):
        body = body[:2]
    return bytes([first]) + encoded_length(len(body)) + body


def _block_length(body: bytes, at: int) -> int:
    """Octets of a property block of ours, its length included."""
    length = shift = 0
    start = at
    while True:
        octet = body[at]
        length |= (octet & 0x7F) << shift
        shift += 7
        at += 1
        if octet < 0x80:
            return at - start + length
