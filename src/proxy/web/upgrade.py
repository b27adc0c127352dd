"""WebSocket through a path service: the opening handshake is passed on, and then every octet, both ways.

What is spoken after the handshake is between client and server (subprotocol, extensions, fragments, pings); this proxy
neither reads nor changes it, and reads from neither side faster than the other takes it.
"""

import logging
from typing import Any, Final

import h11
from twisted.internet.defer import CancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from proxy.web.backends import Backend
from proxy.web.fields import Fields, answer_error, end_to_end

__all__ = ["UpgradeRelay"]

log = logging.getLogger("proxy.web")

ANSWER_MAX: Final = 1 << 20
"""Octets of a server's answer that is not an upgrade."""
CLOSE_SECONDS: Final = 5.0
"""How long one side may take for what is queued for it, once the other one is gone."""


class UpgradeRelay(Protocol):
    """One client, and its connection to the server (which this is the protocol of).

    :param reactor: Twisted's.
    :param request: the client's opening handshake; its resource has returned NOT_DONE_YET.
    :param backend: the server.
    :param label: of the service, for logs.
    """

    def __init__(self, reactor: Any, request: Any, backend: Backend, label: str) -> None:
        self._reactor = reactor
        self._request = request
        self._backend = backend
        self._label = label
        self._http = h11.Connection(h11.CLIENT)
        self._first = b""
        self._front: Any = None  # transport of the client, once everything is relayed
        self._room = ANSWER_MAX
        self._connecting: Any = None  # Deferred
        self._timer: Any = None  # IDelayedCall
        self._is_answering = False
        self._is_over = False

    def start(self, target: bytes, fields: Fields, timeout: float) -> None:
        """Ask the server.

        :param target: path and query.
        :param fields: header fields, without those of the upgrade itself.
        :param timeout: until its answer is complete, seconds.
        """
        headers = [*fields, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        try:
            first = self._http.send(h11.Request(method="GET", target=target, headers=headers))
            self._first = (first or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError:
            answer_error(self._request, 400)
            return
        self._request.notifyFinish().addErrback(self._client_lost)
        self._timer = self._reactor.callLater(timeout, self._overdue)
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        self._connecting = self._backend.connect(factory)
        self._connecting.addCallbacks(self._connected, self._not_connected)

    # --- before the upgrade ---

    def _connected(self, _: Any) -> None:
        self._connecting = None
        if self._is_over:
            self._cut()

    def _not_connected(self, reason: Failure) -> None:
        self._connecting = None
        if not reason.check(CancelledError):
            self._fail(504 if reason.check(ConnectTimeout) else 502, str(reason.value) or type(reason.value).__name__)

    def connectionMade(self) -> None:
        """Send the handshake."""
        transport: Any = self.transport
        transport.write(self._first)
        self._first = b""

    def dataReceived(self, data: bytes) -> None:
        """Octets of the server."""
        if self._front is not None:
            self._front.write(data)
        elif not self._is_over:
            try:
                self._http.receive_data(data)
                self._read_answer()
            except h11.RemoteProtocolError as error:
                self._fail(502, f"no proper HTTP: {error}")

    def _read_answer(self) -> None:
        while not self._is_over and self._front is None:
            event = self._http.next_event()
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    self._switch(event)
            elif isinstance(event, h11.Response):
                self._begin_answer(event)
            elif isinstance(event, h11.Data):
                self._pass_on(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._end()
                self._request.finish()
                self._cut()
            else:  # NEED_DATA, PAUSED, ConnectionClosed
                return

    def _begin_answer(self, response: h11.Response) -> None:
        """The server does not want to; the client hears why."""
        request = self._request
        self._is_answering = True
        request.setResponseCode(response.status_code, bytes(response.reason))
        request.defaultContentType = None
        grouped: dict[bytes, list[bytes]] = {}
        is_chunked = any(name == b"transfer-encoding" for name, _ in response.headers)
        for name, value in end_to_end((bytes(name), [bytes(value)]) for name, value in response.headers.raw_items()):
            if not is_chunked or name.lower() != b"content-length":  # which is not how long it is, then
                grouped.setdefault(name.lower(), []).append(value)
        for name, values in grouped.items():
            request.responseHeaders.setRawHeaders(name, values)

    def _pass_on(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            self._fail(502, f"answered the upgrade with more than {ANSWER_MAX} octets")
        else:
            self._request.write(data)

    # --- after it ---

    def _switch(self, response: h11.InformationalResponse) -> None:
        """From here on octets are octets."""
        request, channel = self._request, self._request.channel
        front, back = channel.transport, self.transport
        self._stop_timer()
        self._front = front
        front.unregisterProducer()  # the channel; what it has held back comes first
        held, channel._dataBuffer = b"".join(channel._dataBuffer), []
        channel.dataReceived = self._from_client
        channel.finish_up = self._finish_up
        front.registerProducer(back, True)
        back.registerProducer(front, True)  # type: ignore[union-attr]
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket"]
        fields = end_to_end((bytes(name), [bytes(value)]) for name, value in response.headers.raw_items())
        lines += [name + b": " + value for name, value in fields]
        front.write(b"\r\n".join(lines) + b"\r\n\r\n" + self._http.trailing_data[0])
        request.setResponseCode(101)
        if channel.factory is not None:
            channel.factory.log(request)
        front.resumeProducing()
        if held:
            self._from_client(held)

    def _from_client(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def _finish_up(self) -> None:
        """The transport is being stopped; there is no answer whose end could be waited for."""
        if self._front is not None:
            self._close(self._front)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server has closed."""
        if self._front is not None:
            self._close(self._front)
        elif not self._is_over:
            try:
                self._http.receive_data(b"")
                self._read_answer()
            except h11.RemoteProtocolError:
                pass
            text = reason.getErrorMessage()
            self._fail(502, f"no answer: {text}")

    def _client_lost(self, _: Any) -> None:
        """The client has closed, while connecting or later."""
        if self._front is not None:
            self._stop_timer()
            self._front = None
            self._is_over = True
            if self.transport is not None and self.connected:
                self._close(self.transport)
        elif not self._is_over:
            self._end()
            self._cut()

    def _close(self, transport: Any) -> None:
        """Flush what is queued for one side, and close it; the other one is gone."""
        transport.unregisterProducer()
        transport.resumeProducing()
        transport.loseConnection()
        self._stop_timer()
        self._timer = self._reactor.callLater(CLOSE_SECONDS, self._abort, transport)

    def _abort(self, transport: Any) -> None:
        self._timer = None
        transport.abortConnection()

    # --- failures ---

    def _overdue(self) -> None:
        self._timer = None
        self._fail(504, "no answer in time")

    def _fail(self, status: int, why: str) -> None:
        if self._is_over:
            return
        log.warning("%s: server %s: %s", self._label, self._backend, why[:300])
        self._end()
        self._cut()
        if self._is_answering:
            self._request.loseConnection()  # half an answer must not look like a whole one
        else:
            answer_error(self._request, status)

    def _end(self) -> None:
        self._is_over = True
        self._stop_timer()

    def _cut(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        elif self.transport is not None:
            self.transport.abortConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
