"""What HTTP long-poll and RawSocket make of WAMP messages, without sockets.

A long-poll client is, for the data plane, a RawSocket client (WAMP specification, advanced profile, "RawSocket
Transport"): the bodies of its requests are taken apart into frames, and frames are put together to bodies of responses.
Nobody looks into the messages here; that is the data plane's business.
"""

import struct
from typing import Final

from proxy.config.fields import subprotocols
from proxy.messages import SER_CBOR, SER_JSON, SERIALIZERS

__all__ = [
    "BATCH_MAX",
    "MESSAGE_MAX",
    "MIME_TYPES",
    "Batches",
    "FrameError",
    "FrameReader",
    "frame",
    "handshake",
    "protocols",
]

MIME_TYPES: Final[dict[int, bytes]] = {
    number: b"application/json" if number == SER_JSON else f"application/x-{name}".encode()
    for name, number in SERIALIZERS.items()
} | {SER_CBOR: b"application/cbor"}
"""Serializer -> media type of its messages."""

MESSAGE_MAX: Final = 1 << 24
"""Octets of a message, and the only length that takes the 25th bit of a frame's header."""

BATCH_MAX: Final = 65_536
"""Messages of one request. They are taken apart in one go, in which nobody else is served: a body of the least messages
that there are would take seconds, and a hundred times its size in memory.
"""

_BATCHED: Final = ".batched"

_MAGIC: Final = 0x7F
_SIZE_CODE: Final = 15  # we take messages of 2^24 octets
_HEADER: Final = struct.Struct(">I")
_HANDSHAKE_LENGTH: Final = 4
_LENGTH_BIT: Final = 1 << 27  # the 25th bit of the length
_TYPE_MESSAGE: Final = 0
_TYPE_PING: Final = 1
_TYPE_PONG: Final = 2

_LENGTH: Final = struct.Struct(">I")
_SEPARATORS: Final = (0x1E, 0x18)
"""After each JSON message of a batch: by the specification, and as autobahn writes it."""


def protocols(names: tuple[str, ...]) -> dict[str, tuple[int, bool]]:
    """What clients may ask for: serializer, and whether messages come in batches, by name of the protocol.

    :param names: of serializers, as configured.
    """
    offered = {}
    for name in subprotocols(names):
        plain = name.removesuffix(_BATCHED)
        offered[f"wamp.2.{name}"] = (SERIALIZERS[plain], plain != name)
    return offered


class FrameError(ValueError):
    """Octets that are no batch, or no RawSocket."""


class Batches:
    """Bodies of one client's requests and responses.

    :param serializer: number of the serializer that was agreed.
    :param batched: whether a body holds several messages; else it is one message.
    """

    __slots__ = ("_separator", "batched", "serializer")

    def __init__(self, serializer: int, batched: bool) -> None:
        self.serializer = serializer
        self.batched = batched
        self._separator = _SEPARATORS[0]

    def split(self, body: bytes) -> list[bytes]:
        """Take the body of a request apart; a client's kind of JSON separator is remembered for the answers.

        :raises FrameError: it is empty, has no end, holds an empty message or one of more than MESSAGE_MAX octets, or
            more than BATCH_MAX of them.
        """
        if not body:
            raise FrameError("the request's body is empty: expected a WAMP message")
        if not self.batched:
            messages = [body]
        elif self.serializer == SER_JSON:
            messages = self._split_json(body)
        else:
            messages = _split_prefixed(body)
        if any(len(message) > MESSAGE_MAX for message in messages):
            raise FrameError(f"a message has more than {MESSAGE_MAX} octets")
        return messages

    def _split_json(self, body: bytes) -> list[bytes]:
        if body[-1] not in _SEPARATORS:
            raise FrameError("the batch has no end: expected the octet 1E or 18 (hexadecimal) after each message")
        if body.count(body[-1:]) > BATCH_MAX:
            raise _too_many()
        self._separator = body[-1]
        messages = body[:-1].split(bytes([self._separator]))
        if not all(messages):
            raise FrameError("a message of the batch is empty")
        return messages

    def join(self, messages: list[bytes]) -> bytes:
        """The body of a response: of one message, unless they are batched."""
        if not self.batched:
            (message,) = messages
            return message
        if self.serializer == SER_JSON:
            separator = bytes([self._separator])
            return separator.join(messages) + separator
        return b"".join(part for message in messages for part in (_LENGTH.pack(len(message)), message))


def _too_many() -> FrameError:
    return FrameError(f"the batch has more than {BATCH_MAX} messages")


def _split_prefixed(body: bytes) -> list[bytes]:
    messages: list[bytes] = []
    at = 0
    while at < len(body):
        if len(messages) == BATCH_MAX:
            raise _too_many()
        start = at + _LENGTH.size
        if start > len(body):
            raise FrameError("the batch is cut short")
        (length,) = _LENGTH.unpack_from(body, at)
        at = start + length
        if not length or at > len(body):
            raise FrameError("a message of the batch is empty, or longer than the batch")
        messages.append(body[start:at])
    return messages


def handshake(serializer: int) -> bytes:
    """What a RawSocket client begins with."""
    return bytes([_MAGIC, _SIZE_CODE << 4 | serializer, 0, 0])


def frame(message: bytes) -> bytes:
    """A message of at most MESSAGE_MAX octets with its header."""
    length = len(message)
    return _HEADER.pack(length if length < MESSAGE_MAX else _LENGTH_BIT) + message


class FrameReader:
    """What comes from a RawSocket server, its handshake included.

    :param serializer: the one that was asked for.

    :ivar is_open: the handshake is done.
    """

    __slots__ = ("_buffer", "_serializer", "is_open")

    def __init__(self, serializer: int) -> None:
        self._serializer = serializer
        self._buffer = bytearray()
        self.is_open = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Take some octets in.

        :returns: the messages that are complete now, and what to answer (to pings).
        :raises FrameError: this is no RawSocket, or the server refuses.
        """
        buffer = self._buffer
        buffer += data
        if not self.is_open:
            if len(buffer) < _HANDSHAKE_LENGTH:
                return [], b""
            self._check_handshake(bytes(buffer[:_HANDSHAKE_LENGTH]))
            self.is_open = True
            del buffer[:_HANDSHAKE_LENGTH]
        messages: list[bytes] = []
        answers: list[bytes] = []
        at = 0
        while (end := self._next(at, messages, answers)) > at:
            at = end
        # Once per piece of input: what is in front of the rest must not be moved for each message.
        del buffer[:at]
        return messages, b"".join(answers)

    def _check_handshake(self, octets: bytes) -> None:
        if octets[0] != _MAGIC or octets[2] or octets[3] or octets[1] & 15 != self._serializer:
            raise FrameError(f"the RawSocket handshake was answered with {octets.hex()}")

    def _next(self, at: int, messages: list[bytes], answers: list[bytes]) -> int:
        """Where the frame at ``at`` ends; ``at`` if it is not all there."""
        buffer = self._buffer
        start = at + _HEADER.size
        if start > len(buffer):
            return at
        header: int = _HEADER.unpack_from(buffer, at)[0]
        # Four reserved bits, the 25th bit of the length, the type, and 24 bits of length.
        kind, length = header >> 24 & 7, header & 0xFFFFFF | (MESSAGE_MAX if header & _LENGTH_BIT else 0)
        if header >> 28 or kind > _TYPE_PONG or length > MESSAGE_MAX:
            raise FrameError(f"a frame's header is {header:08x}")
        end = start + length
        if end > len(buffer):
            return at
        payload = bytes(memoryview(buffer)[start:end])
        if kind == _TYPE_MESSAGE:
            messages.append(payload)
        elif kind == _TYPE_PING:
            answers.append(_HEADER.pack(_TYPE_PONG << 24 | length) + payload)
        return end
