"""Webs of transports on sockets of Twisted's, without a data plane, in one process.

Commands are lines of standard input: ``start NUMBER FILE``, ``stop NUMBER``; each is answered by a line that begins
with ``NUMBER:``. A FILE is JSON: ``paths``, ``options``, ``folder``; ``key`` and ``certificate`` for TLS; ``unix``, a
path to listen on instead of a TCP port; ``env``, environment variables. SIGTERM ends the process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.ssl import DefaultOpenSSLContextFactory

from proxy.config import Limits, checked
from proxy.config.web import WebOptions, WebServiceConfig
from proxy.logs import log_twisted
from proxy.web.site import WebSite

reactor: Any = _reactor


class Stage:
    """The webs, by number."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[WebSite, Any]] = {}

    def command(self, line: str) -> None:
        """Do what a line says."""
        verb, number, *rest = line.split(" ", 2)
        if verb == "start":
            self._start(number, json.loads(Path(rest[0]).read_text()))
        else:
            self._stop(number)

    def _start(self, number: str, item: dict[str, Any]) -> None:
        os.environ.update(item.get("env", {}))
        folder = Path(item["folder"])
        sys.path.insert(0, str(folder))
        transport: Any = SimpleNamespace(
            id="web1",
            label='transport "web1"',
            plane=None,
            controller=SimpleNamespace(reactor=reactor, cbdir=folder),
            address="http://127.0.0.1:8080",
            websocket_at=lambda path: None,
            model=SimpleNamespace(limits=Limits(), endpoint=SimpleNamespace()),
        )
        models = {name: checked(WebServiceConfig, config, folder)[0] for name, config in item["paths"].items()}
        site = WebSite(transport, models, WebOptions.model_validate(item.get("options", {})))
        started = site.start().addCallback(lambda _: self._listen(number, site, item))
        started.addErrback(lambda failure: print(f"{number}: FAILED {failure.value}", flush=True))

    def _listen(self, number: str, site: WebSite, item: dict[str, Any]) -> None:
        if "unix" in item:
            port = reactor.listenUNIX(item["unix"], site.http)
        elif "key" in item:
            context = DefaultOpenSSLContextFactory(item["key"], item["certificate"])
            port = reactor.listenSSL(0, site.http, context, interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, site.http, interface="127.0.0.1")
        self._running[number] = (site, port)
        print(f"{number}: PORT {0 if 'unix' in item else port.getHost().port}", flush=True)

    def _stop(self, number: str) -> None:
        site, port = self._running.pop(number)
        stopped = port.stopListening() or site.stop()
        stopped.addCallback(lambda _: site.stop())
        stopped.addCallbacks(lambda _: "", lambda failure: failure.getTraceback())
        stopped.addCallback(lambda failure: print(f"{number}: STOPPED {failure!r}", flush=True))


def main() -> None:
    """Serve until a signal comes."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    log_twisted()
    logging.getLogger("twisted").setLevel(logging.WARNING)
    stage = Stage()

    def read() -> None:
        for line in sys.stdin:
            reactor.callFromThread(stage.command, line.rstrip("\n"))

    # As a worker does: no handlers of Twisted's.
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop))
    threading.Thread(target=read, daemon=True).start()
    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
