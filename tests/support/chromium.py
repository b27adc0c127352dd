"""Headless Chromium, driven over its DevTools protocol by a pair of pipes: it ends when these are closed."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import Certificate

from support.process import peer_environment

TIMEOUT = 30.0
# Octets of the protocol's messages come in on descriptor 3 and go out on 4.
RUN = 'exec "${@:3}" 3<&"$1" 4>&"$2"'
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--window-size=1100,800",
)


def find_chromium() -> str | None:
    """Path of Chromium: $CHROMIUM, or what PATH has; None without one."""
    named = os.environ.get("CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    return next((path for path in map(shutil.which, names) if path is not None), None)


def key_hash(certificate: Certificate) -> str:
    """The public key as ``--ignore-certificate-errors-spki-list`` names it."""
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key)
    return base64.b64encode(digest.finalize()).decode()


class Chromium:
    """A running browser.

    :param program: path of Chromium.
    :param folder: where its profile goes.
    :param trusted: servers' certificates that it takes without knowing who has signed them.
    """

    def __init__(self, program: str, folder: Path, trusted: Sequence[Certificate] = ()) -> None:
        flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
        if trusted:
            flags.append(f"--ignore-certificate-errors-spki-list={','.join(map(key_hash, trusted))}")
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # it refuses to run as root with it
        self._log = (folder / "chromium.log").open("wb")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        self.process = subprocess.Popen(
            ["bash", "-c", RUN, "chromium", str(theirs_in), str(theirs_out), program, *flags, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=peer_environment() | {"HOME": str(folder)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers = itertools.count(1)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        buffer = b""
        while data := os.read(self._in, 65536):
            *messages, buffer = (buffer + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.put(message)
                else:
                    self.events.append(message)

    def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Have it do something; what comes of it."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        try:
            answer = self._answers.get(timeout=TIMEOUT)
        except queue.Empty:
            raise AssertionError(f"Chromium does not answer to {method}\n{self.output}") from None
        assert answer["id"] == number
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    @property
    def output(self) -> str:
        """What it printed, for failure reports."""
        return Path(self._log.name).read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(AssertionError, OSError):
            self.command("Browser.close")
        os.close(self._out)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(10)
        os.close(self._in)
        self._log.close()


class Page:
    """A page in a browser.

    :param browser: that shows it.
    :param url: of it.
    """

    def __init__(self, browser: Chromium, url: str) -> None:
        self._browser = browser
        self.target: str = browser.command("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.command("Target.attachToTarget", targetId=self.target, flatten=True)
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")
        self.command("Page.navigate", url=url)

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Have the page do something."""
        return self._browser.command(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of what it promises, if it is a promise."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, expression: str, what: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + TIMEOUT
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body && document.body.innerText")
                raise AssertionError(f"not within {TIMEOUT} s: {what}\n{self.troubles()}\n{text}")
            time.sleep(0.02)

    def _events(self, method: str) -> list[dict[str, Any]]:
        events = [event for event in list(self._browser.events) if event.get("sessionId") == self._session]
        return [event["params"] for event in events if event["method"] == method]

    def troubles(self) -> list[str]:
        """What went wrong: exceptions, errors and warnings of the console, requests that failed."""
        found = [str(event["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")]
        calls = self._events("Runtime.consoleAPICalled")
        found += [str(event["args"]) for event in calls if event["type"] in ("error", "warning", "assert")]
        entries = [event["entry"] for event in self._events("Log.entryAdded")]
        found += [
            f"{entry['text']} ({entry.get('url')})" for entry in entries if entry["level"] in ("error", "warning")
        ]
        found += [event["errorText"] for event in self._events("Network.loadingFailed") if not event.get("canceled")]
        return found

    def responses(self) -> list[dict[str, Any]]:
        """Answers to its requests, as the protocol has them: url, status, headers, securityDetails..."""
        return [event["response"] for event in self._events("Network.responseReceived")]

    def frames(self) -> list[dict[str, Any]]:
        """WebSockets that it opened: their answers to the opening handshake."""
        return [event["response"] for event in self._events("Network.webSocketHandshakeResponseReceived")]

    def screenshot(self, path: Path) -> Path:
        """A picture of it."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))
        return path

    def close(self) -> None:
        """Close it, as its user would."""
        self._browser.command("Target.closeTarget", targetId=self.target)
