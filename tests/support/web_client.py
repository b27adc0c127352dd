"""A web under test, wherever it listens, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from support.process import Child, wait_until
from support.web import Answer

ROOT = Path(__file__).resolve().parents[2]


class Place:
    """Where a web listens.

    :param port: on 127.0.0.1.
    :param ca: of the server's certificate, which makes it HTTPS.
    :param unix: path of a Unix socket instead.
    """

    def __init__(self, port: int, ca: Path | None = None, unix: str = "") -> None:
        self.port = port
        self.unix = unix
        self.context = None if ca is None else ssl.create_default_context(cafile=str(ca))

    @property
    def scheme(self) -> str:
        """Of its URLs."""
        return "http" if self.context is None else "https"

    def connect(self, timeout: float = 20.0) -> socket.socket:
        """A connection."""
        if self.unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
            sock.connect(self.unix)
            return sock
        sock = socket.create_connection(("127.0.0.1", self.port), timeout)
        return sock if self.context is None else self.context.wrap_socket(sock, server_hostname="localhost")

    def client(self) -> http.client.HTTPConnection:
        """A connection that takes requests, and stays."""
        client = http.client.HTTPConnection("localhost", self.port or None, timeout=20)
        client.sock = self.connect()
        return client

    def ask(
        self, path: str = "/", method: str = "GET", body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request on a connection of its own."""
        client = self.client()
        try:
            client.request(method, path, body, headers or {})
            return read(client)
        finally:
            client.close()


def read(client: http.client.HTTPConnection) -> Answer:
    """The answer to the request that was sent."""
    response = client.getresponse()
    fields = [(name.lower(), value) for name, value in response.getheaders()]
    return Answer(response.status, dict(fields), response.read(), fields)


class StageProcess:
    """The process of webs without a data plane; see web_stage.py."""

    def __init__(self) -> None:
        source = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT / "src")]))
        script = str(Path(__file__).with_name("web_stage.py"))
        env = {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"}
        self.child = Child("web", [sys.executable, script], env=env, stdin=True)
        self._count = 0

    def command(self, verb: str, number: int, rest: str = "") -> str:
        """Have it do something; its answer."""
        before = len(self.child.lines)
        self.child.send_line(f"{verb} {number} {rest}".rstrip())
        prefix = f"{number}: "
        wait_until(lambda: any(line.startswith(prefix) for line in self.child.lines[before:]), f"an answer to {verb}")
        return next(line for line in self.child.lines[before:] if line.startswith(prefix)).removeprefix(prefix)

    def start(
        self, folder: Path, paths: dict[str, Any], options: dict[str, Any] | None = None, **keys: Any
    ) -> WebStage:
        """Start a web; see :class:`WebStage`."""
        self._count += 1
        return WebStage(self, self._count, folder, {"paths": paths, "options": options or {}, **keys})

    def stop(self) -> None:
        """End it; nothing may have gone wrong."""
        status = self.child.stop(signal.SIGTERM)
        assert status == 0, self.child.output


class WebStage(Place):
    """A web site on a socket of Twisted's.

    :param folder: relative paths are relative to it, and modules are found there.
    :param item: ``paths``, ``options`` and what else web_stage.py knows; ``ca``, which its certificate is by.

    :ivar failure: why it could not be started; empty: it runs.
    :ivar is_log_clean: whether a traceback in the log is a mistake.
    """

    def __init__(self, process: StageProcess, number: int, folder: Path, item: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ca = item.pop("ca", None)
        path = folder / "stage.json"
        path.write_text(json.dumps({"folder": str(folder), **item}))
        self.child = process.child
        self._process = process
        self._number = number
        self._first_line = len(self.child.errors)
        self.is_log_clean = True
        word, rest = process.command("start", number, str(path)).split(" ", 1)
        self.failure = rest if word == "FAILED" else ""
        super().__init__(0 if self.failure else int(rest), ca, item.get("unix", ""))

    @property
    def errors(self) -> list[str]:
        """Lines that it has logged so far."""
        return self.child.errors[self._first_line :]

    @property
    def log(self) -> str:
        """Likewise."""
        return "\n".join(self.errors)

    def stop(self) -> None:
        """Stop it; nothing may have gone wrong."""
        if not self.failure:
            assert self._process.command("stop", self._number) == "STOPPED ''", self.log
        assert "Traceback" not in self.log or not self.is_log_clean, self.log
