"""WAMP over RawSocket for the few clients of the management realm: framing, deadlines, and a bound on what waits.

These connections are the reactor's, not the data plane's: the management API is to answer while the data plane is
full, stuck or about to end, and a client that does not read is to be noticed by what is queued for it.
"""

import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.messages import SER_CBOR, SER_JSON, SER_MSGPACK, UNTRUSTED_SIZE_MAX, MessageError, decode, encode

__all__ = ["Client", "ManagementConnection", "Peer", "TooLong"]

log = logging.getLogger(__name__)

MAGIC: Final = 0x7F
HEADER: Final = 4
SERIALIZERS: Final = (SER_JSON, SER_MSGPACK, SER_CBOR)

# From accept to the end of the handshake, and from there to HELLO, seconds.
HANDSHAKE_TIMEOUT: Final = 10.0
# To flush, and for the answer to GOODBYE, seconds.
CLOSE_TIMEOUT: Final = 2.0
# How long a client may leave what is queued for it unread, seconds.
STALL_TIMEOUT: Final = 30.0
# Octets that may wait for a client that reads too slowly; more events than that are not to be kept for anybody.
QUEUE_MAX: Final = 4 * 1024 * 1024

_TYPE_MESSAGE: Final = 0
_TYPE_PING: Final = 1
_TYPE_PONG: Final = 2
_ERROR_SERIALIZER: Final = 1
_ERROR_RESERVED: Final = 3
# What we take: 2 ** (9 + 8) octets, what the decoder takes.
_LENGTH_CODE: Final = 8
assert 1 << (9 + _LENGTH_CODE) == UNTRUSTED_SIZE_MAX

_UCRED: Final = struct.Struct("3i")


class TooLong(Exception):
    """A message is longer than the client takes; the connection goes on."""


class Peer:
    """Who is at the other end of a Unix socket, as the kernel has it.

    :ivar pid: its process when it connected, 0 if it is not known.
    :ivar uid: its user, -1 likewise.
    """

    __slots__ = ("pid", "uid")

    def __init__(self, pid: int = 0, uid: int = -1) -> None:
        self.pid = pid
        self.uid = uid

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}" if self.pid else "an unknown process"


class Client(Protocol):
    """What a connection carries."""

    def on_message(self, message: list[Any]) -> None:
        """A message. May raise MessageError: the client breaks the protocol."""

    def on_violation(self, text: str) -> None:
        """The client broke the protocol: say so, and close."""

    def on_closed(self) -> None:
        """The connection is gone."""

    @property
    def name(self) -> str:
        """Who it is, for the log."""


@implementer(IPushProducer)
class ManagementConnection(TwistedProtocol):
    """One connection of the management socket.

    :param clock: IReactorTime.
    :param make_client: makes what the connection carries; None: there is no room for it.
    """

    transport: Any  # twisted.internet.interfaces.ITransport

    def __init__(self, clock: Any, make_client: "Callable[[ManagementConnection], Client | None]") -> None:
        self._clock = clock
        self._make_client = make_client
        self._client: Client | None = None
        self._timer: Any = None  # IDelayedCall
        self._stall_timer: Any = None  # IDelayedCall
        self._received = bytearray()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._is_blocked = False
        self._is_closing = False
        self._is_open = False
        self.serializer = 0
        self.max_out = 0
        self.peer = Peer()

    # --- life ---

    def connectionMade(self) -> None:
        """Accepted."""
        self._is_open = True
        self.peer = _peer_of(self.transport)
        self._client = self._make_client(self)
        if self._client is None:
            self.abort()
            return
        self.transport.registerProducer(self, True)
        self.expect_within(HANDSHAKE_TIMEOUT)

    def expect_within(self, seconds: float | None) -> None:
        """Set the deadline for what the client is to do next; None: none."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if seconds is not None and self._is_open:
            self._timer = self._clock.callLater(seconds, self._cut, "it did not go on in time")

    def _cut(self, why: str) -> None:
        log.warning("management: the connection of %s is cut: %s", self._name, why)
        self.abort()

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        self._is_closing = True
        self._forget()
        if self._is_open:
            self.transport.abortConnection()

    def close(self) -> None:
        """Flush, and close."""
        if self._is_closing or not self._is_open:
            return
        self._is_closing = True
        self.transport.unregisterProducer()
        for data in self._queue:
            self.transport.write(data)
        self._forget()
        self.transport.loseConnection()
        self.expect_within(CLOSE_TIMEOUT)

    def _forget(self) -> None:
        self._queue.clear()
        self._queued = 0
        self._received.clear()
        self.expect_within(None)
        timer, self._stall_timer = self._stall_timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self._is_open = False
        self._is_closing = True
        self._forget()
        client, self._client = self._client, None
        if client is not None:
            client.on_closed()

    @property
    def _name(self) -> str:
        return self._client.name if self._client is not None else str(self.peer)

    # --- what comes ---

    def dataReceived(self, data: bytes) -> None:
        """Octets. What is left of them waits while the client does not take its answers."""
        self._received += data
        self._read_on()

    def _read_on(self) -> None:
        while not self._is_blocked and not self._is_closing:
            if not self.serializer:
                if len(self._received) < HEADER:
                    return
                self._on_handshake(self._take(HEADER))
                continue
            frame = self._take_frame()
            if frame is None:
                return
            self._on_frame(*frame)

    def _take(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _on_handshake(self, octets: bytes) -> None:
        """``0x7F, length code and serializer, two octets of zero`` ("RawSocket Transport", Handshake)."""
        magic, chosen, *reserved = octets
        if magic != MAGIC:
            self._cut("it does not speak RawSocket")
            return
        if any(reserved):
            self._refuse(_ERROR_RESERVED)
            return
        if chosen & 0x0F not in SERIALIZERS:
            self._refuse(_ERROR_SERIALIZER)
            return
        self.serializer = chosen & 0x0F
        self.max_out = 1 << (9 + (chosen >> 4))
        self.transport.write(bytes((MAGIC, _LENGTH_CODE << 4 | self.serializer, 0, 0)))
        self.expect_within(HANDSHAKE_TIMEOUT)

    def _refuse(self, error: int) -> None:
        self.transport.write(bytes((MAGIC, error << 4, 0, 0)))
        self.close()

    def _take_frame(self) -> tuple[int, bytes] | None:
        """The next whole frame: type and payload; None: it is not there yet, or cannot be taken."""
        if len(self._received) < HEADER:
            return None
        kind = self._received[0]
        length = int.from_bytes(self._received[1:HEADER], "big")
        if kind > _TYPE_PONG:
            self._violated(f"RawSocket frame of type {kind}")
            return None
        if length > UNTRUSTED_SIZE_MAX:
            self._violated(f"message of {length} octets, at most {UNTRUSTED_SIZE_MAX} are expected here")
            return None
        if len(self._received) < HEADER + length:
            return None
        del self._received[:HEADER]
        return kind, self._take(length)

    def _on_frame(self, kind: int, payload: bytes) -> None:
        assert self._client is not None
        if kind == _TYPE_PING:
            self._write(bytes((_TYPE_PONG,)) + len(payload).to_bytes(3, "big") + payload)
        elif kind == _TYPE_MESSAGE:
            try:
                self._client.on_message(decode(self.serializer, payload))
            except MessageError as error:
                self._violated(str(error))

    def _violated(self, text: str) -> None:
        assert self._client is not None
        self._client.on_violation(text)
        self.close()

    # --- what goes ---

    def send(self, message: list[Any]) -> None:
        """Queue a message.

        :raises TooLong: the client does not take messages of this size.
        :raises MessageError: its serializer cannot express it.
        """
        data = encode(self.serializer, message)
        # The length has 24 bits, whatever the client says that it takes.
        if len(data) > min(self.max_out, 0xFFFFFF):
            raise TooLong(f"message of {len(data)} octets, the client takes {self.max_out}")
        self._write(len(data).to_bytes(HEADER, "big") + data)

    def _write(self, data: bytes) -> None:
        if self._is_closing or not self._is_open:
            return
        if not self._is_blocked:
            self.transport.write(data)
            return
        if self._queued > QUEUE_MAX:
            self._cut(f"it does not read, and {self._queued} octets wait for it")
            return
        self._queue.append(data)
        self._queued += len(data)

    def pauseProducing(self) -> None:
        """The socket takes no more: what is sent from now on is counted, and nothing is read any more."""
        self._is_blocked = True
        self.transport.pauseProducing()
        if self._stall_timer is None:
            self._stall_timer = self._clock.callLater(STALL_TIMEOUT, self._cut, "it does not read")

    def resumeProducing(self) -> None:
        """The socket has taken all it had."""
        self._is_blocked = False
        timer, self._stall_timer = self._stall_timer, None
        if timer is not None and timer.active():
            timer.cancel()
        while self._queue and not self._is_blocked:
            data = self._queue.popleft()
            self._queued -= len(data)
            self.transport.write(data)
        if not self._is_blocked and not self._is_closing:
            self.transport.resumeProducing()
            self._read_on()

    def stopProducing(self) -> None:
        """The connection is going down; connectionLost() does the work."""


def _peer_of(transport: Any) -> Peer:
    try:
        octets = transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except (AttributeError, OSError):
        return Peer()
    pid, uid, _ = _UCRED.unpack(octets)
    return Peer(pid, uid)
