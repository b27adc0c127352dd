"""Octets and packets, without sockets: what a client sends, taken apart, and what it is sent, put together."""

import logging
from typing import Any, Final

import mqtt5

from proxy.mqtt.errors import MqttError
from proxy.mqtt.layout import CONNECT, V5, V311, property_blocks
from proxy.mqtt.versions import downgraded, encoded_length, upgraded

__all__ = ["UnknownVersion", "Wire"]

log = logging.getLogger(__name__)

_LENGTH_OCTETS: Final = 4
_NAME: Final = b"\0\4MQTT"
_OLD_NAME: Final = b"\0\6MQIsdp"  # of version 3.1

_CODES: Final = mqtt5.DisconnectReasonCode


class UnknownVersion(Exception):
    """CONNECT is of another version of MQTT (section 3.1.2.2)."""


class Wire:
    """One client's.

    :param packet_max: octets of a packet, at most.

    :ivar version: V311 or V5; 0: its CONNECT has not come yet.
    """

    __slots__ = ("_buffer", "_packet_max", "version")

    def __init__(self, packet_max: int) -> None:
        self._packet_max = packet_max
        self._buffer = bytearray()
        self.version = 0

    @property
    def waiting(self) -> int:
        """Octets that have come and were not asked for yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take some octets in."""
        self._buffer += data

    def next(self) -> Any:
        """The next packet, as the library has it; None: it is not all there.

        :raises MqttError: what comes is no MQTT, or not in place.
        :raises UnknownVersion: the first packet is of another version.
        """
        buffer = self._buffer
        header = self._header()
        if header is None:
            return None
        start, length = header
        first = buffer[0]
        if not self.version and first >> 4 != CONNECT:
            raise MqttError(_CODES.PROTOCOL_ERROR, "the first packet is no CONNECT")
        if start + length > self._packet_max:
            text = f"a packet of {start + length} octets, at most {self._packet_max} are taken"
            raise MqttError(_CODES.PACKET_TOO_LARGE, text)
        if len(buffer) < start + length:
            return None
        body = bytes(memoryview(buffer)[start : start + length])
        del buffer[: start + length]
        return self._read(first, body)

    def _header(self) -> tuple[int, int] | None:
        """Where the body begins, and how long it is."""
        length = 0
        for index, octet in enumerate(self._buffer[1 : 1 + _LENGTH_OCTETS]):
            length |= (octet & 0x7F) << 7 * index
            if octet < 0x80:
                return index + 2, length
            if index == _LENGTH_OCTETS - 1:
                raise MqttError(_CODES.MALFORMED_PACKET, "the length has more than four octets")
        return None

    def _read(self, first: int, body: bytes) -> Any:
        if first >> 4 == CONNECT:
            self._see_version(body)
        spans = property_blocks(first, body, self.version)
        if self.version == V311:
            body = upgraded(first, body, spans)
        octets = bytes([first]) + encoded_length(len(body)) + body
        try:
            packet, _ = mqtt5.read(memoryview(octets))
        except (ValueError, IndexError) as error:
            raise MqttError(_CODES.MALFORMED_PACKET, str(error)) from error
        except BaseException as error:
            # The library is written in Rust. Where it has not thought of something it raises what no "except
            # Exception" would stop, and that must not reach anybody else.
            if type(error).__name__ != "PanicException":
                raise
            log.error("MQTT: the library failed at a packet of type %d: %s", first >> 4, error)
            raise MqttError(_CODES.MALFORMED_PACKET, "the packet cannot be read") from error
        return packet

    def _see_version(self, body: bytes) -> None:
        if self.version:
            raise MqttError(_CODES.PROTOCOL_ERROR, "a second CONNECT")
        if body.startswith(_OLD_NAME):
            self.version = V311
            raise UnknownVersion
        if not body.startswith(_NAME) or len(body) <= len(_NAME):
            raise MqttError(_CODES.MALFORMED_PACKET, "CONNECT does not begin with the protocol's name")
        level = body[len(_NAME)]
        # The answer to an unknown version has to have some form (3.1.1, section 3.1.2.2).
        self.version = level if level in (V311, V5) else V5 if level > V5 else V311
        if level != self.version:
            raise UnknownVersion

    def write(self, packet: Any) -> bytes:
        """The octets of a packet for the client; empty: its version has none."""
        octets: bytes = packet.write()
        return downgraded(octets) if self.version == V311 else octets
