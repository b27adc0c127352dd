"""The service ``wsgi``: a WSGI application (PEP 3333) in threads of its own."""

import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.python.threadpool import ThreadPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.wsgi import WSGIResource

from proxy.config.web import WsgiConfig
from proxy.errors import InvalidConfiguration
from proxy.web.base import WebService
from proxy.web.pages import ErrorPage

__all__ = ["WsgiService"]

log = logging.getLogger("proxy.web")

STOP_SECONDS: Final = 2.0
"""How long a stop waits for requests that are under way; they may go on after it."""


class _Thread(threading.Thread):
    """Nobody waits for it at the end: an application may never return."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, daemon=True)


class _Threads(ThreadPool):
    threadFactory = _Thread


class WsgiService(WebService):
    """An application."""

    TYPE: ClassVar[str] = "wsgi"
    config: WsgiConfig

    def start(self) -> "Deferred[None]":
        """Import the application."""
        config = self.config
        try:
            module = importlib.import_module(config.module)
        except BaseException as error:  # whatever it does at its top level
            if isinstance(error, KeyboardInterrupt):
                raise
            text = f'module: "{config.module}" cannot be imported: {type(error).__name__}: {error}'
            raise InvalidConfiguration(text) from error
        application = getattr(module, config.object, None)
        if not callable(application):
            text = f'object: "{config.object}": expected a WSGI application in module {config.module}'
            raise InvalidConfiguration(text)
        self.threads = _Threads(config.minthreads, config.maxthreads, f"wsgi {self.path}")
        self.threads.start()
        self.resource = _Application(self, application)
        return succeed(None)

    def stop(self) -> "Deferred[None]":
        """Let the threads end. What they are at goes on, but is not waited for long."""
        done: Deferred[None] = Deferred()
        reactor = self.site.reactor
        late = reactor.callLater(STOP_SECONDS, done.callback, None)

        def ended() -> None:
            if late.active():
                late.cancel()
                done.callback(None)

        def join() -> None:
            self.threads.stop()
            reactor.callFromThread(ended)

        _Thread(target=join, name=f"wsgi {self.path} stop").start()
        return done


class _Application(Resource):
    """Everything at and below the path."""

    isLeaf = True

    def __init__(self, service: WsgiService, application: Callable[..., Iterable[bytes]]) -> None:
        super().__init__()
        self._service = service
        self._application = application
        self._under_way = 0

    def render(self, request: Any) -> Any:
        """Hand the request to a thread."""
        service = self._service
        if self._under_way >= service.config.max_requests:
            return ErrorPage(503, headers={b"retry-after": b"1"}).render(request)
        _drop_ambiguous(request)
        flow = _Flow(request)
        application = partial(_run, self._application, flow, _corrections(request))
        _name_addresses(request)
        WSGIResource(service.site.reactor, self, application).render(request)
        return NOT_DONE_YET

    def callInThread(self, work: Callable[[], object]) -> None:
        """Of a thread pool: what Twisted wants of one. A request counts until its thread is done with it.

        One whose client has gone takes its place among those that wait, or its thread, nevertheless.
        """
        self._under_way += 1
        self._service.threads.callInThreadWithCallback(self._has_run, work)

    def _has_run(self, is_success: bool, result: object) -> None:
        """In the thread."""
        self._service.site.reactor.callFromThread(self._finished)

    def _finished(self) -> None:
        self._under_way -= 1


class _Flow:
    """Has the application's thread wait while its client does not read. A push producer."""

    def __init__(self, request: Any) -> None:
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        self.is_lost = False
        request.notifyFinish().addErrback(self._client_lost)
        request.registerProducer(self, True)
        finish = request.finish

        def finish_once() -> None:
            request.unregisterProducer()
            finish()

        request.finish = finish_once

    def wait(self) -> None:
        """In the application's thread: until the client has taken most of what was written."""
        self._may_go_on.wait()

    def _client_lost(self, _: Any) -> None:
        self.is_lost = True
        self._may_go_on.set()

    def pauseProducing(self) -> None:
        """The client does not read."""
        self._may_go_on.clear()

    def resumeProducing(self) -> None:
        """It does again."""
        self._may_go_on.set()

    def stopProducing(self) -> None:
        """It is gone."""
        self.is_lost = True
        self._may_go_on.set()


def _corrections(request: Any) -> dict[str, str]:
    """Where Twisted's idea of the environment is not right."""
    made = {"SERVER_PORT": str(getattr(request.getHost(), "port", 0) or (443 if request.isSecure() else 80))}
    made["REMOTE_ADDR"] = getattr(request.getClientAddress(), "host", None) or ""
    if request.isSecure():
        made["HTTPS"] = "on"
    return made


def _drop_ambiguous(request: Any) -> None:
    """Leave out header fields whose name has an underscore: in the environment it could pass for one with a dash."""
    fields = request.requestHeaders
    for name in [name for name, _ in fields.getAllRawHeaders() if b"_" in name]:
        fields.removeHeader(name)


def _name_addresses(request: Any) -> None:
    """Twisted's WSGI knows of no addresses but TCP's; what is put here is corrected later."""
    for name in ("getClientAddress", "getHost"):
        if not isinstance(getattr(request, name)(), IPv4Address | IPv6Address):
            setattr(request, name, lambda: IPv4Address("TCP", "", 0))


def _run(
    application: Callable[..., Iterable[bytes]],
    flow: _Flow,
    corrections: dict[str, str],
    environ: dict[str, Any],
    start_response: Callable[..., Callable[[bytes], None]],
) -> Iterator[bytes]:
    """The application as Twisted calls it, in a thread: no faster than its client reads."""
    if flow.is_lost:  # while it waited for a thread
        return iter(())
    environ.update(corrections)
    environ.pop("HTTP_PROXY", None)  # programs take a variable of this name for a proxy of theirs

    def start(*args: Any, **options: Any) -> Callable[[bytes], None]:
        write = start_response(*args, **options)

        def write_slowly(data: bytes) -> None:
            write(data)
            flow.wait()

        return write_slowly

    parts = application(environ, start)
    return _slowly(parts, flow)


def _slowly(parts: Iterable[bytes], flow: _Flow) -> Iterator[bytes]:
    try:
        for part in parts:
            yield part
            flow.wait()
            if flow.is_lost:
                return
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()
