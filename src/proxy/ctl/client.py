"""A client of the management realm, on a worker's or a node's Unix socket."""

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from autobahn.twisted.rawsocket import WampRawSocketClientFactory, WampRawSocketClientProtocol
from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError, SerializationError, TransportLost
from autobahn.wamp.serializer import CBORSerializer
from autobahn.wamp.types import CallResult, CloseDetails, ComponentConfig, SubscribeOptions
from twisted.internet.defer import Deferred, DeferredList, FirstError
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from proxy.ctl.errors import NoSuchWorker, Refused, Unreachable, Unusable

__all__ = ["REALM", "Client"]

REALM: Final = "crossbar"
# How long the other side may take to say goodbye, seconds. Nothing is lost when it does not.
GOODBYE_SECONDS: Final = 2.0
# Octets of the path of a Unix socket: sun_path of <sys/un.h>, without the final NUL.
PATH_MAX: Final = 107

Listener = Callable[[str, Sequence[Any], Mapping[str, Any]], None]


class _Session(ApplicationSession):
    """autobahn's session, that tells the client what becomes of it."""

    def __init__(self, client: "Client") -> None:
        super().__init__(ComponentConfig(realm=REALM))
        self._client = client

    def onJoin(self, details: Any) -> None:
        self._client._on_joined()

    def onLeave(self, details: CloseDetails) -> None:
        self._client._on_end(_farewell(details))
        super().onLeave(details)  # fails the calls that wait for an answer

    def onUserError(self, fail: Failure, msg: str) -> None:
        """Something raised in a listener; autobahn would only log it."""
        self._client._on_end(fail)


class _Protocol(WampRawSocketClientProtocol):
    """autobahn's RawSocket protocol, that tells the client when the connection is gone, handshake done or not."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.factory.client._on_lost()


class Client:
    """A joined session, and the worker that is talked to.

    Every failure is a :class:`proxy.ctl.errors.CtlError`.

    :param reactor: Twisted's reactor.
    :param path: of the Unix socket.
    :param timeout: seconds that joining may take, and each call.

    :ivar worker: id of the worker, see :meth:`choose`.
    :ivar ended: fires when the session has ended otherwise than by :meth:`close`: with the text of its reason, or fails
        with what a listener raised.
    """

    def __init__(self, reactor: Any, path: str, timeout: float) -> None:
        self.worker = ""
        self.ended: Deferred[str] = Deferred()
        self._reactor = reactor
        self._path = path
        self._timeout = timeout
        self._joined: Deferred[None] = Deferred()
        self._lost: Deferred[None] = Deferred()
        self._is_closing = False
        self._is_silent = False
        self._session = _Session(self)

    @property
    def prefix(self) -> str:
        """Of the URIs of the worker's procedures and topics, with a dot at the end."""
        return f"crossbar.worker.{self.worker}."

    # --- the session ---

    async def connect(self) -> None:
        """Connect and join.

        :raises Unreachable: that is not possible, or not done in time.
        """
        factory = WampRawSocketClientFactory(lambda: self._session, serializer=CBORSerializer())
        factory.protocol = _Protocol
        factory.client = self  # type: ignore[attr-defined]
        factory.noisy = False
        _check_path(self._path)
        endpoint = UNIXClientEndpoint(self._reactor, self._path, timeout=self._timeout)
        try:
            await endpoint.connect(factory)
        except ConnectTimeout:
            raise Unreachable(f"{self._path}: no connection within {self._timeout:g} s") from None
        except ConnectError as error:
            raise Unreachable(f"{self._path}: {_why_not(error, self._path)}") from None
        silent = f"{self._path}: connected, but whoever listens there did not answer within {self._timeout:g} s"
        await self._in_time(self._joined, silent)

    async def choose(self, worker: str | None) -> None:
        """Settle which worker is talked to.

        :param worker: its id; None: the only proxy worker there is.
        :raises Unusable: there are several.
        :raises NoSuchWorker: there is none.
        """
        if worker is not None:
            self.worker = worker
            return
        found = await self.call_uri("crossbar.get_workers", [["proxy"]])
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise Unreachable(f"{self._path}: crossbar.get_workers answered {found!r}, expected a list of ids")
        if not found:
            raise NoSuchWorker(f"{self._path}: there is no proxy worker")
        if len(found) > 1:
            raise Unusable(f"there are several proxy workers: say which with --worker: {', '.join(found)}")
        self.worker = found[0]

    async def close(self) -> None:
        """Leave and disconnect. Never fails, and waits a moment at most."""
        self._is_closing = True
        if self._is_silent:
            return
        if self._session.is_attached():
            self._session.leave()
        elif self._session.is_connected():
            self._session.disconnect()
        else:
            return
        done: Deferred[Any] = self._lost
        await done.addTimeout(GOODBYE_SECONDS, self._reactor).addErrback(lambda _: None)

    def _on_joined(self) -> None:
        if not self._joined.called:
            self._joined.callback(None)

    def _on_end(self, why: str | Failure) -> None:
        """The first reason counts."""
        if not self._joined.called:
            self._joined.errback(Unreachable(f"{self._path}: {why}"))
        elif not self.ended.called and not self._is_closing:
            if isinstance(why, str):
                self.ended.callback(why)
            else:
                self.ended.errback(why)

    def _on_lost(self) -> None:
        self._on_end("the connection was closed")
        if not self._lost.called:
            self._lost.callback(None)

    # --- what it is for ---

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a procedure of the worker.

        :param name: last part of its URI.
        :returns: the result.
        :raises Refused: the worker answered with an error.
        :raises Unreachable: it did not answer in time.
        """
        return await self.call_uri(self.prefix + name, args, kwargs)

    async def call_uri(self, uri: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Call a procedure; parameters and errors as for :meth:`call`, ``uri`` is the whole one."""
        try:
            waiting = self._session.call(uri, *args, **(kwargs or {}))
            result = await self._in_time(waiting, f"{uri}: no answer within {self._timeout:g} s")
        except ApplicationError as error:
            raise self._refusal(uri, error) from None
        except TransportLost:
            raise Unreachable(f"{uri}: {self._ending()}") from None
        except SerializationError as error:
            raise Unusable(f"{uri}: the arguments cannot be sent: {error}") from None
        if isinstance(result, CallResult):
            return {"args": list(result.results), "kwargs": dict(result.kwresults or {})}
        return result

    async def subscribe(self, listener: Listener, name: str = "") -> None:
        """Listen to an event of the worker, or without a name to all.

        :param listener: called with the last part of the topic and the arguments. What it raises ends :attr:`ended`.
        """
        options = SubscribeOptions(match=None if name else "prefix", details_arg="details")
        prefix = self.prefix

        def on_event(*args: Any, details: Any, **kwargs: Any) -> None:
            listener((details.topic or prefix + name).removeprefix(prefix), args, kwargs)

        try:
            waiting = self._session.subscribe(on_event, prefix + name, options=options)
            await self._in_time(waiting, f"the subscription was not answered within {self._timeout:g} s")
        except ApplicationError as error:
            raise self._refusal(prefix + name, error) from None
        except TransportLost:
            raise Unreachable(f"{self._path}: {self._ending()}") from None

    async def until(self, waiting: "Deferred[Any]") -> Any:
        """Wait for something without a deadline, as long as the session lasts.

        :raises Unreachable: it has ended first.
        """
        both = [waiting, self.ended]
        first: Deferred[Any] = DeferredList(both, fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True)
        try:
            result, index = await first
        except FirstError as error:
            error.subFailure.raiseException()
        if index:
            raise Unreachable(f"{self._path}: {result}")
        return result

    async def _in_time(self, waiting: "Deferred[Any]", text: str) -> Any:
        def too_late(result: object, seconds: float) -> Any:
            self._is_silent = True
            raise Unreachable(text)

        return await waiting.addTimeout(self._timeout, self._reactor, too_late)

    def _refusal(self, uri: str, error: ApplicationError) -> Exception:
        if not self._session.is_attached():
            return Unreachable(f"{uri}: {self._ending()}")
        if error.error == ApplicationError.NO_SUCH_PROCEDURE and uri.startswith(self.prefix) and self.worker:
            text = f'worker "{self.worker}" has no such procedure, or there is no such worker'
            return Refused(error.error, f"{uri}: {text}")
        return Refused(error.error, error_text(error))

    def _ending(self) -> str:
        result = getattr(self.ended, "result", None)
        return result if isinstance(result, str) else "the connection was closed"


def error_text(error: ApplicationError) -> str:
    """The text of a WAMP error: its positional arguments."""
    return " ".join(str(item) for item in error.args)


def _farewell(details: CloseDetails) -> str:
    """Why the other side ended the session."""
    if details.reason == CloseDetails.REASON_TRANSPORT_LOST:
        return "the connection was closed"
    return f"the session was ended: {details.reason}" + (f": {details.message}" if details.message else "")


def _check_path(path: str) -> None:
    if len(os.fsencode(path)) > PATH_MAX or "\0" in path:
        raise Unusable(f"{path!r}: a Unix socket's path has at most {PATH_MAX} octets, and no NUL")


def _why_not(error: ConnectError, path: str) -> str:
    """What to do about a socket that cannot be connected to."""
    number = error.osError if isinstance(error.osError, int) else None
    if number == errno.ENOENT:
        return "there is no such file. Does the worker run, with this path in its management item?"
    if number == errno.EACCES:
        return "no permission (the management item's mode says who may)"
    if number == errno.ECONNREFUSED:
        return "nobody listens there (any more)" if _is_socket(path) else "that is not a socket"
    return os.strerror(number) if number else str(error)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
