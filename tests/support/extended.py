"""WebSocket clients with what is negotiated on top of frames: batched subprotocols and permessage-deflate.

Written against RFC 7692 and the WAMP specification with Python's zlib, not against the proxy's own code.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from typing import Any

from support.endpoints import Endpoint
from support.raw import OP_BINARY, OP_TEXT, WebSocketPeer, Wire, encode, upgrade

RSV1 = 4
TAIL = b"\x00\x00\xff\xff"
JSON_END = b"\x1e"
"""What ends each message of a JSON batch by the specification."""
JSON_END_AUTOBAHN = b"\x18"
"""What autobahn-python reads the specification's text as, and sends and expects."""
OFFER = "permessage-deflate; client_max_window_bits"

PARAMETERS = {
    "client_no_context_takeover",
    "server_no_context_takeover",
    "client_max_window_bits",
    "server_max_window_bits",
}


class Deflate:
    """One end of permessage-deflate, by the parameters that were agreed on (RFC 7692, 7.1 and 7.2).

    :param out_bits: window of what this end sends; ``in_bits``: of what it receives.
    :param out_reset: this end begins each message with an empty window; ``in_reset``: the other end does.
    """

    def __init__(self, out_bits: int = 15, out_reset: bool = False, in_bits: int = 15, in_reset: bool = False) -> None:
        self.out_bits, self.out_reset, self.in_bits, self.in_reset = out_bits, out_reset, in_bits, in_reset
        self._out: Any = None
        self._in: Any = None

    @classmethod
    def of_client(cls, answer: str) -> Deflate:
        """What a server's Sec-WebSocket-Extensions makes of a client; AssertionError if it is not RFC 7692's."""
        name, *parameters = (part.strip() for part in answer.split(";"))
        assert name == "permessage-deflate", answer
        values = dict(part.split("=", 1) if "=" in part else (part, "") for part in parameters)
        assert len(values) == len(parameters), f"a parameter comes twice: {answer}"
        assert set(values) <= PARAMETERS, answer
        return cls(
            int(values.get("client_max_window_bits", 15)),
            "client_no_context_takeover" in values,
            int(values.get("server_max_window_bits", 15)),
            "server_no_context_takeover" in values,
        )

    def compress(self, payload: bytes, level: int = 6) -> bytes:
        """The payload of a compressed message."""
        if self._out is None or self.out_reset:
            # zlib cannot make raw streams with a window of 256 octets; one of 512 that is never filled is the same
            self._out = zlib.compressobj(level, zlib.DEFLATED, -max(self.out_bits, 9))
        data: bytes = self._out.compress(payload) + self._out.flush(zlib.Z_SYNC_FLUSH)
        return data.removesuffix(TAIL)

    def inflate(self, payload: bytes) -> bytes:
        """The message that a compressed payload holds; raises zlib.error, also for a distance beyond the window."""
        if self._in is None or self.in_reset:
            self._in = zlib.decompressobj(-max(self.in_bits, 9))
        data: bytes = self._in.decompress(payload + TAIL)
        assert not self._in.unconsumed_tail
        assert not self._in.unused_data
        return data


class ExtendedPeer(WebSocketPeer):
    """A client that speaks batches, compression or both.

    :ivar batches: number of WAMP messages in each WebSocket message that was received.
    :ivar compressed: for each WebSocket message that was received, whether it was compressed.
    :ivar lengths: octets of each WebSocket message that was received, as they came; ``sizes``: inflated.
    """

    def __init__(self, wire: Wire, serializer: str, batched: bool, deflate: Deflate | None) -> None:
        super().__init__(wire, serializer)
        self.batched, self.deflate = batched, deflate
        self.json_end = JSON_END
        self.batches: list[int] = []
        self.compressed: list[bool] = []
        self.lengths: list[int] = []
        self.sizes: list[int] = []
        self._ready: deque[bytes] = deque()

    # --- sending ---

    @property
    def opcode(self) -> int:
        """Opcode of data frames."""
        return OP_TEXT if self.serializer == "json" else OP_BINARY

    def pack(self, *payloads: bytes) -> bytes:
        """A batch of messages."""
        if self.serializer == "json":
            return b"".join(payload + self.json_end for payload in payloads)
        return b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)

    def message(self, payload: bytes, compress: bool = True) -> bytes:
        """The octets of one WebSocket message, compressed when that was agreed on."""
        if self.deflate is None or not compress:
            return self.ws_frame(self.opcode, payload)
        return self.ws_frame(self.opcode, self.deflate.compress(payload), rsv=RSV1)

    def frame(self, payload: bytes) -> bytes:
        """One WAMP message: a batch of its own where batches are spoken."""
        return self.message(self.pack(payload) if self.batched else payload)

    def batch(self, *messages: Any) -> bytes:
        """The octets of one WebSocket message that holds several WAMP messages."""
        return self.message(self.pack(*(encode(self.serializer, message) for message in messages)))

    def send_batch(self, *messages: Any) -> None:
        """Send WAMP messages in one WebSocket message."""
        self.wire.write(self.batch(*messages))

    def send_fragments(self, payload: bytes, size: int) -> None:
        """Send one compressed message in frames of ``size`` octets (RFC 7692 7.2.3.1: RSV1 in the first only)."""
        assert self.deflate is not None
        data = self.deflate.compress(payload)
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        for number, piece in enumerate(pieces):
            first, last = number == 0, number == len(pieces) - 1
            opcode = self.opcode if first else 0
            self.wire.write(self.ws_frame(opcode, piece, fin=last, rsv=RSV1 * first))

    # --- receiving ---

    def recv_payload(self) -> bytes:
        """The next WAMP message's octets, out of a batch or not."""
        while not self._ready:
            data = self.recv_data()
            assert self.last_rsv in ((0, RSV1) if self.deflate else (0,)), self.last_rsv
            self.compressed.append(bool(self.last_rsv))
            self.lengths.append(len(data))
            if self.last_rsv:
                assert self.deflate is not None
                data = self.deflate.inflate(data)
            self.sizes.append(len(data))
            payloads = self.unpack(data) if self.batched else [data]
            self.batches.append(len(payloads))
            self._ready += payloads
        return self._ready.popleft()

    def unpack(self, data: bytes) -> list[bytes]:
        """The messages of a batch; AssertionError if it is none."""
        assert data, "an empty batch"
        if self.serializer == "json":
            assert data.endswith(self.json_end), data[-40:]
            payloads = data.split(self.json_end)[:-1]
        else:
            payloads, at = [], 0
            while at < len(data):
                assert at + 4 <= len(data), "a length is cut"
                (size,) = struct.unpack_from(">I", data, at)
                assert at + 4 + size <= len(data), "a message is cut"
                payloads.append(data[at + 4 : at + 4 + size])
                at += 4 + size
        assert all(payloads), "an empty message in a batch"
        return payloads


def dial(
    endpoint: Endpoint, serializer: str = "cbor", *, batched: bool = False, offer: str | None = None, **headers: str
) -> ExtendedPeer:
    """Connect and shake hands; raises HandshakeRefused, PeerClosed, OSError, AssertionError for a wrong answer.

    :param offer: Sec-WebSocket-Extensions of the request; whether and how it was taken is in ``deflate`` of the peer.
    """
    protocol = f"wamp.2.{serializer}" + (".batched" if batched else "")
    wire = Wire(endpoint.connect())
    try:
        if offer is not None:
            headers["Sec_WebSocket_Extensions"] = offer
        spoken, head = upgrade(wire, endpoint, protocol, **headers)
        assert spoken == protocol, f"asked for {protocol}, the server speaks {spoken}"
        return ExtendedPeer(wire, serializer, batched, agreed(head))
    except BaseException:
        wire.close()
        raise


def agreed(head: bytes) -> Deflate | None:
    """The compression that the head of a response agrees to."""
    lines = [line for line in head.decode().split("\r\n") if line.lower().startswith("sec-websocket-extensions:")]
    assert len(lines) < 2, lines
    return Deflate.of_client(lines[0].split(":", 1)[1].strip()) if lines else None
