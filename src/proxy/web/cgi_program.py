"""A program that answers one request: what it is fed, what it says, and its end (RFC 3875 section 6)."""

import logging
import re
import signal
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure

from proxy.web.fields import HOP_BY_HOP, RequestBody, answer_error

__all__ = ["Program"]

log = logging.getLogger("proxy.web")

HEAD_MAX: Final = 64 * 1024
"""Octets of the head that a program writes."""
ERRORS_MAX: Final = 8 * 1024
"""Octets of its standard error that the log gets."""
KILL_SECONDS: Final = 2.0
"""From SIGTERM to SIGKILL."""

_END: Final = re.compile(rb"\r?\n\r?\n")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# What this server sees to itself. A length that is wrong would have the next answer begin in the middle of this one.
_OURS: Final = HOP_BY_HOP | {b"content-length", b"date", b"server", b"status"}


class Program(ProcessProtocol):
    """One run of a program; a push producer of its answer.

    :param reactor: Twisted's.
    :param request: that it answers.
    :param label: of the service, for logs.
    :param timeout: how long it may go without output, seconds. Time that the client takes to read does not count.
    :param ended: called with this when the process is gone.
    """

    def __init__(
        self, reactor: Any, request: Any, label: str, timeout: float, ended: "Callable[[Program], None]"
    ) -> None:
        self._reactor = reactor
        self._request = request
        self._label = label
        self._timeout = timeout
        self._ended = ended
        self._uri = request.uri.partition(b"?")[0]
        self._head: bytearray | None = bytearray()  # None: it is complete
        self._errors = bytearray()
        self._is_over = False  # nothing more goes to the client
        self._is_gone = False
        self._was_ended = False  # by us
        self._timer: Any = None  # IDelayedCall
        self._killer: Any = None  # likewise

    # --- the process ---

    def connectionMade(self) -> None:
        """It runs: give it the request's body."""
        request = self._request
        request.notifyFinish().addErrback(self._client_lost)
        request.registerProducer(self, True)
        self._watch()
        transport: Any = self.transport
        # Cut short when the program ends, or closes its input, before it has read all.
        sent = FileSender().beginFileTransfer(RequestBody(request.content), transport)
        sent.addBoth(lambda _: transport.closeStdin())

    def errReceived(self, data: bytes) -> None:
        """It complains."""
        self._errors += data[: ERRORS_MAX - len(self._errors)]

    def outReceived(self, data: bytes) -> None:
        """A part of its answer."""
        if self._is_over:
            return
        if self._timer is not None:
            self._timer.reset(self._timeout)
        if self._head is None:
            self._request.write(data)
            return
        self._head += data
        end = _END.search(self._head)
        if end is not None:
            head, body = bytes(self._head[: end.start()]), bytes(self._head[end.end() :])
            self._head = None
            self._begin(head)
            self._request.write(body)
        elif len(self._head) > HEAD_MAX:
            self._fail(502, f"more than {HEAD_MAX} octets without the end of its head")

    def outConnectionLost(self) -> None:
        """It has closed its output: the answer is complete."""
        if self._is_over:
            return
        if not self._is_gone:  # it may clean up, or work on, for a while
            self._killer = self._reactor.callLater(self._timeout, self.end)
        if self._head is not None:
            self._fail(502, "no answer, or no empty line after the head of one", is_ended=False)
            return
        self._finish()
        self._request.finish()

    def processEnded(self, reason: Failure) -> None:
        """It is gone."""
        self._is_gone = True
        self._stop_killer()
        if not self._is_over:  # its output is open yet in a program of its own: nobody may wait for that
            self.outConnectionLost()
        value: Any = reason.value
        if (value.exitCode != 0 and not self._was_ended) or self._errors:
            how = f"signal {value.signal}" if value.signal else f"status {value.exitCode}"
            said = self._errors.decode("utf-8", "replace").strip()
            log.warning("%s: %r ended with %s%s", self._label, self._uri[:200], how, said and f", saying: {said!r}")
        self._ended(self)

    # --- its answer ---

    def _begin(self, head: bytes) -> None:
        request = self._request
        request.defaultContentType = None
        fields: dict[bytes, list[bytes]] = {}
        for line in head.splitlines():
            name, colon, value = line.partition(b":")
            if colon and _NAME.fullmatch(name):
                fields.setdefault(name.lower(), []).append(value.strip())
        code, _, phrase = fields.get(b"status", [b"302" if b"location" in fields else b"200"])[0].partition(b" ")
        if not (code.isdigit() and len(code) == 3 and code >= b"200"):
            log.warning("%s: %r: Status: expected three digits", self._label, self._uri[:200])
            code, phrase = b"500", b""
        request.setResponseCode(int(code), phrase.strip() or None)
        for name, values in fields.items():
            if name not in _OURS:
                request.responseHeaders.setRawHeaders(name, values)

    def _fail(self, status: int, why: str, *, is_ended: bool = True) -> None:
        """The answer will never be complete."""
        has_begun = self._head is None
        log.warning("%s: %r: %s", self._label, self._uri[:200], why)
        self._finish()
        if is_ended:
            self.end()
        if has_begun:
            self._request.loseConnection()  # half an answer must not look like a whole one
        else:
            answer_error(self._request, status)

    def _finish(self) -> None:
        self._is_over = True
        self._rest()
        self._request.unregisterProducer()

    def _client_lost(self, _: Any) -> None:
        if not self._is_over:
            self._is_over = True
            self._rest()
            self.end()

    # --- time ---

    def _watch(self) -> None:
        if self._timer is None and not self._is_over:
            self._timer = self._reactor.callLater(self._timeout, self._overdue)

    def _rest(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _overdue(self) -> None:
        self._timer = None
        self._fail(504, f"no output for {self._timeout:g} s")

    def end(self) -> None:
        """Have it end: in order first, then at once."""
        if not self._is_gone and not self._was_ended:
            self._was_ended = True
            self._stop_killer()
            transport: Any = self.transport
            transport.resumeProducing()
            self._signal(signal.SIGTERM)
            self._killer = self._reactor.callLater(KILL_SECONDS, self._kill)

    def _kill(self) -> None:
        self._killer = None
        self._signal(signal.SIGKILL)
        transport: Any = self.transport
        transport.loseConnection()  # a program of its own may hold the pipes

    def _signal(self, number: int) -> None:
        transport: Any = self.transport
        try:
            transport.signalProcess(number)
        except ProcessExitedAlready:
            pass

    def _stop_killer(self) -> None:
        killer, self._killer = self._killer, None
        if killer is not None and killer.active():
            killer.cancel()

    # --- push producer ---

    def pauseProducing(self) -> None:
        """The client does not read."""
        self._rest()
        transport: Any = self.transport
        transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It does again."""
        self._watch()
        transport: Any = self.transport
        transport.resumeProducing()

    def stopProducing(self) -> None:
        """It is gone; the request hears of that, too."""
