"""TLS whose octets the test has in its hands, before they are sent and after they have come."""

from __future__ import annotations

import socket
import ssl

from support.raw import PeerClosed, Wire

RECORD_HEAD = 5


class TlsWire(Wire):
    """A wire with TLS on it. ``sock`` is the plain socket.

    :param sock: connected.
    :param context: what the client wants.
    :param shake: make the handshake now.
    :param server: this is the server's end.
    :ivar has_notified: the other side has said that it ends (close_notify).
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        shake: bool = True,
        server_name: str = "localhost",
        server: bool = False,
    ) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server else server_name
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)
        self.has_notified = False
        if shake:
            while not self.step():
                self.receive()

    def step(self) -> bool:
        """Make one step of the handshake and send what there is to say; whether it is done."""
        done, octets = self.flight()
        if octets:
            super().write(octets)
        return done

    def flight(self) -> tuple[bool, bytes]:
        """One step, without sending anything: whether the handshake is done, and what would be sent."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False, self._outgoing.read()
        return True, self._outgoing.read()

    def receive(self) -> None:
        """Read some octets from the socket; raises PeerClosed at its end."""
        try:
            data = self.sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise PeerClosed("reset") from error
        if not data:
            raise PeerClosed("eof")
        self._incoming.write(data)

    def encrypted(self, data: bytes) -> bytes:
        """The records that carry ``data``."""
        if data:
            self.tls.write(data)
        return self._outgoing.read()

    def write(self, data: bytes) -> None:
        """Send in records."""
        super().write(self.encrypted(data))

    def write_raw(self, octets: bytes) -> None:
        """Send past TLS."""
        super().write(octets)

    def fill(self) -> None:
        """Read once; raises PeerClosed, ssl.SSLError (an alert) or TimeoutError."""
        while True:
            try:
                data = self.tls.read(1 << 18)
            except ssl.SSLWantReadError:
                self.receive()
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self.has_notified = True
                raise PeerClosed("eof")
            self.buffer += data
            return

    def read_last(self) -> str:
        """Read until it is over; how it was: ``close_notify``, ``eof``, ``reset``, or the text of an alert."""
        try:
            while True:
                self.fill()
        except PeerClosed as closed:
            return "close_notify" if self.has_notified else closed.how
        except ssl.SSLError as error:
            return error.reason or str(error)

    def notify(self) -> bytes:
        """Our own close_notify, not sent yet."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # it would wait for the other one's
        return self._outgoing.read()
