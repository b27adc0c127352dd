"""HTTP servers for what stands in front of them, written for tests: each answer is the test's."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

Answer = Callable[["Seen", socket.socket], bool | None]


@dataclass
class Seen:
    """A request as the server got it.

    :ivar fields: header fields in their order, names in lower case.
    :ivar connection: number of the connection that it came on.
    """

    line: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    connection: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """The fields; the last one of a name."""
        return dict(self.fields)

    @property
    def target(self) -> str:
        """Path and query."""
        return self.line.split(" ")[1]


def respond(
    body: bytes = b"ok", status: str = "200 OK", fields: dict[str, str] | None = None, *, close: bool = False
) -> Answer:
    """An answer with its length."""

    def answer(_: Seen, sock: socket.socket) -> bool:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return not close

    return answer


@dataclass
class BackendServer:
    """A server in threads; an answer that returns False closes its connection.

    :param answer: writes the answer to a request.
    :param tls: makes it HTTPS.
    :param unix: path of a Unix socket to listen on instead of a TCP port.
    """

    answer: Answer
    tls: ssl.SSLContext | None = None
    unix: str = ""
    seen: list[Seen] = field(default_factory=list)
    open: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX if self.unix else socket.AF_INET)
        self._listener.bind(self.unix or ("127.0.0.1", 0))
        self._listener.listen(50)
        self.port = 0 if self.unix else self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._count = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> BackendServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._count += 1
            threading.Thread(target=self._serve, args=(sock, self._count), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
        except (OSError, ssl.SSLError):
            sock.close()
            return
        with self._lock:
            self._sockets.add(sock)
            self.open += 1
        try:
            with suppress(OSError, ssl.SSLError):
                self._converse(sock, number)
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self.open -= 1
            sock.close()

    def _converse(self, sock: socket.socket, number: int) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = sock.recv(65536)
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            line, *lines = head.decode("latin-1").split("\r\n")
            fields = [(name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in lines)]
            seen = Seen(line, fields, connection=number)
            length = int(seen.headers.get("content-length", "0"))
            while len(buffer) < length:
                data = sock.recv(65536)
                if not data:
                    return
                buffer += data
            seen.body, buffer = buffer[:length], buffer[length:]
            self.seen.append(seen)
            if self.answer(seen, sock) is False:
                return
