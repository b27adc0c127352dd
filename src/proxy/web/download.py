"""Fetching a file over HTTP or HTTPS before a service starts: bounded in size and time, there whole or not at all."""

import logging
import os
import re
import tempfile
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikeRedirectAgent, ResponseDone
from twisted.web.http import PotentialDataLoss

from proxy.config.redaction import HIDDEN, without_credentials
from proxy.errors import CannotStart, ProxyError

__all__ = ["download"]

log = logging.getLogger("proxy.web")

CONNECT_SECONDS: Final = 10.0
REDIRECTS_MAX: Final = 5

_USER_INFO: Final = re.compile(r"[^\s/]+@")  # in what is not a whole URL


def download(reactor: Any, url: str, path: str, *, size_max: int, seconds: float) -> "Deferred[None]":
    """Fetch a file.

    :param url: ``http:`` or ``https:``; servers are checked against the system's authorities.
    :param path: where it goes; its folder must exist. It gets this name when it is complete.
    :param size_max: octets.
    :param seconds: for all of it.
    :returns: fires when it is there; fails with :class:`CannotStart`.
    """
    plain: Any = Agent(reactor, connectTimeout=CONNECT_SECONDS)
    agent = BrowserLikeRedirectAgent(plain, redirectLimit=REDIRECTS_MAX)
    asked: Deferred[Any] = agent.request(b"GET", url.encode("ascii"))
    asked.addCallback(_receive, url, path, size_max)
    asked.addTimeout(seconds, reactor, _too_late)
    return asked.addErrback(_explain, without_credentials(url))


def _too_late(result: Any, seconds: float) -> Any:
    if isinstance(result, Failure):
        raise CannotStart(f"origin: the download was not done within {seconds:g} s (download_timeout)")
    return result


def _explain(failure: Failure, url: str) -> Failure:
    if isinstance(failure.value, ProxyError):
        return failure
    raise CannotStart(f"origin: {url} cannot be downloaded: {_reason(failure)}") from failure.value


def _reason(failure: Failure) -> str:
    inner = getattr(failure.value, "reasons", None)
    if inner:
        return _reason(inner[0])
    text = _USER_INFO.sub(f"{HIDDEN}@", without_credentials(failure.getErrorMessage()))
    return f"{type(failure.value).__name__}: {text}"[:300]


def _receive(response: Any, url: str, path: str, size_max: int) -> "Deferred[None]":
    why = _refusal(response, url)
    if why:
        response.deliverBody(_Nothing())
        raise CannotStart(f"origin: {without_credentials(url)} {why}")
    done: Deferred[None] = Deferred(lambda _: receiver.abort())
    receiver = _Receiver(path, size_max, done)
    response.deliverBody(receiver)
    return done


def _refusal(response: Any, url: str) -> str:
    """Why this answer is not what was wanted; empty: it is."""
    one = response
    while one is not None:
        if url.startswith("https:") and not one.request.absoluteURI.startswith(b"https:"):
            return "leads to an address without TLS"
        one = one.previousResponse
    return "" if response.code == 200 else f"was answered with HTTP status {response.code}"


class _Nothing(Protocol):
    """Wants no body."""

    def connectionMade(self) -> None:
        """There is one: close."""
        transport: Any = self.transport
        transport.loseConnection()


class _Receiver(Protocol):
    """Writes a body to a file beside its later name."""

    def __init__(self, path: str, size_max: int, done: "Deferred[None]") -> None:
        self._path = path
        self._room = size_max
        self._size_max = size_max
        self._done = done
        self._is_over = False
        folder, name = os.path.split(path)
        try:
            descriptor, self._part = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder or ".")
        except OSError as error:
            raise CannotStart(f'archive: "{path}" cannot be written: {error.strerror}') from error
        self._file = os.fdopen(descriptor, "wb")

    def dataReceived(self, data: bytes) -> None:
        """A part."""
        if self._is_over:
            return
        self._room -= len(data)
        if self._room < 0:
            self._fail(CannotStart(f"origin: the file is larger than {self._size_max} octets (max_download)"))
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._fail(CannotStart(f'archive: "{self._path}" cannot be written: {error.strerror}'))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That was all."""
        if self._is_over:
            return
        if not reason.check(ResponseDone, PotentialDataLoss):
            self._fail(CannotStart("origin: the connection was lost before the file was complete"))
            return
        self._is_over = True
        try:
            self._file.close()
            os.chmod(self._part, 0o644)  # as files are that people put there; mkstemp() keeps them to itself
            os.replace(self._part, self._path)
        except OSError as error:
            self._discard()
            self._done.errback(CannotStart(f'archive: "{self._path}" cannot be written: {error.strerror}'))
        else:
            self._done.callback(None)

    def abort(self) -> None:
        """It takes too long."""
        self._fail(CancelledError())

    def _fail(self, error: Exception) -> None:
        if not self._is_over:
            self._is_over = True
            self._discard()
            transport: Any = self.transport
            transport.loseConnection()
            self._done.errback(error)

    def _discard(self) -> None:
        self._file.close()
        try:
            os.unlink(self._part)
        except OSError:
            log.warning("%s cannot be removed", self._part)
