"""A peer that sends as fast as the connection takes it, without regard to who reads."""

from __future__ import annotations

import threading
import time
from typing import Any

from support.raw import Peer, encode


class Flood(threading.Thread):
    """Sends octets again and again until it is told to stop or the connection ends; counts what the socket took.

    :param peer: who sends.
    :param octets: whole frames.
    """

    def __init__(self, peer: Peer, octets: bytes) -> None:
        super().__init__(daemon=True)
        self.peer, self.octets = peer, octets
        self.sent, self.seen, self.ended, self.is_over = 0, -1, threading.Event(), False
        peer.wire.sock.settimeout(0.3)
        self.start()

    @classmethod
    def of(cls, peer: Peer, message: list[Any]) -> Flood:
        """Send one message over and over; what it compresses to must not depend on what was sent before."""
        return cls(peer, peer.frame(encode(peer.serializer, message)) * 16)

    def run(self) -> None:
        """Send."""
        pending = memoryview(b"")
        try:
            while not self.is_over:
                pending = pending or memoryview(self.octets)
                try:
                    count = self.peer.wire.sock.send(pending)
                except TimeoutError:
                    continue
                self.sent += count
                pending = pending[count:]
        except OSError:
            pass
        self.ended.set()

    def is_moving(self) -> bool:
        """Whether the connection took something since the last question."""
        seen, self.seen = self.seen, self.sent
        return self.seen != seen

    def settle(self) -> int:
        """Octets taken once the connection takes no more."""
        while self.is_moving():
            time.sleep(0.4)
        return self.sent

    def stop(self) -> None:
        """End the thread."""
        self.is_over = True
        self.join(5.0)
