"""A blocking client of WAMP over HTTP long-poll, written against the specification and not against the proxy's code."""

from __future__ import annotations

import http.client
import json
import ssl
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from support.raw import ABORT, CALL, ERROR, GOODBYE, RESULT, WELCOME, decode, encode, hello

TIMEOUT = 15.0


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Http:
    """One persistent HTTP connection.

    :param url: of the service.
    :param context: for HTTPS.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self.path = parts.path.rstrip("/")
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            self._http: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT, context=context
            )
        else:
            self._http = http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Ask, and wait for the answer.

        :param path: below that of the service, with its slash.
        """
        self.begin(method, path, body, headers)
        return self.answer()

    def begin(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Ask."""
        self._http.request(method, self.path + path, body, headers or {})

    def answer(self) -> Answer:
        """Wait for the answer to what was asked."""
        response = self._http.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.reason, fields, response.read())

    def close(self) -> None:
        """Hang up."""
        self._http.close()


class Refused(Exception):
    """A request that failed.

    :param answer: to it.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.reason} {answer.body!r}")
        self.answer = answer


class LongPollClient:
    """One connection of a client.

    :param url: of the service.
    :param protocol: that it asks for.
    :param context: for HTTPS.
    :param headers: of its requests.
    :param separator: after each message of a batch in JSON.

    :ivar opened: the answer to ``open``.
    """

    def __init__(
        self,
        url: str,
        protocol: str = "wamp.2.json",
        *,
        context: ssl.SSLContext | None = None,
        headers: dict[str, str] | None = None,
        separator: bytes = b"\x1e",
    ) -> None:
        self.serializer, _, batched = protocol.removeprefix("wamp.2.").partition(".")
        self.batched = bool(batched)
        self._separator = separator
        self._headers = headers or {}
        self.sending, self.polling = Http(url, context), Http(url, context)
        self._waiting: deque[Any] = deque()
        body = json.dumps({"protocols": [protocol]}).encode()
        self.opened = self.sending.request("POST", "/open", body, self._headers)
        if self.opened.status != 200:
            self.hang_up()
            raise Refused(self.opened)
        assert self.opened.json["protocol"] == protocol
        self.name: str = self.opened.json["transport"]

    def hang_up(self) -> None:
        """Close the HTTP connections, without a word about that."""
        self.sending.close()
        self.polling.close()

    # --- the protocol ---

    def _join(self, messages: list[bytes]) -> bytes:
        if not self.batched:
            (message,) = messages
            return message
        if self.serializer == "json":
            return b"".join(message + self._separator for message in messages)
        return b"".join(struct.pack(">I", len(message)) + message for message in messages)

    def _split(self, body: bytes) -> list[bytes]:
        if not self.batched:
            return [body]
        if self.serializer == "json":
            assert body.endswith(self._separator)
            return body[:-1].split(self._separator)
        messages = []
        while body:
            (length,) = struct.unpack_from(">I", body)
            messages.append(body[4 : 4 + length])
            body = body[4 + length :]
        return messages

    def post(self, operation: str, body: bytes = b"", http: Http | None = None) -> Answer:
        """A request to one of the connection's addresses."""
        return (http or self.sending).request("POST", f"/{self.name}/{operation}", body, self._headers)

    def send(self, *messages: Any) -> None:
        """Send messages in one request (unless they are batched, that can be one only)."""
        answer = self.post("send", self._join([encode(self.serializer, message) for message in messages]))
        if answer.status != 204:
            raise Refused(answer)
        assert answer.body == b""

    def poll(self) -> list[Any]:
        """One request for messages; what came of it, which may be nothing."""
        answer = self.post("receive", http=self.polling)
        if answer.status == 204:
            assert answer.body == b""
            return []
        if answer.status != 200:
            raise Refused(answer)
        return [decode(self.serializer, message) for message in self._split(answer.body)]

    def begin_to_wait(self) -> None:
        """Ask for messages without waiting for the answer, which ``polling.answer()`` has."""
        self.polling.begin("POST", f"/{self.name}/receive", headers=self._headers)
        # What comes later by the other connection is answered later, so the request has arrived.
        self.sending.request("GET", "")

    def receive(self) -> Any:
        """The next message; raises Refused once the session is over."""
        while not self._waiting:
            self._waiting.extend(self.poll())
        return self._waiting.popleft()

    # --- WAMP ---

    def join(self, realm: str = "realm1", **details: Any) -> Any:
        """Log in; the details of WELCOME, with the session ID as ``session``."""
        self.send(hello(realm, **details))
        answer = self.receive()
        assert answer[0] == WELCOME, answer
        return answer[2] | {"session": answer[1]}

    def call(self, procedure: str, *args: Any, request: int = 99) -> Any:
        """The first result of a call."""
        self.send([CALL, request, {}, procedure, list(args)])
        answer = self.receive()
        assert answer[:2] == [RESULT, request], answer
        return answer[3][0]

    def leave(self) -> None:
        """Say GOODBYE, close, and hang up."""
        self.send([GOODBYE, {}, "wamp.close.normal"])
        answer = self.receive()
        assert answer[0] == GOODBYE, answer
        assert self.post("close").status == 204
        self.hang_up()


__all__ = ["ABORT", "ERROR", "TIMEOUT", "Answer", "Http", "LongPollClient", "Refused"]
