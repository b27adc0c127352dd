"""Real client libraries, each in a child process that runs scenarios on request.

A job names an endpoint, a serializer, a realm, a URI prefix and the scenarios; the answer holds per scenario
either what the client observed or the error that stopped it. Jobs and answers are lines of JSON.
"""

from __future__ import annotations

import itertools
import json
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from support.endpoints import Endpoint
from support.process import Child, peer_environment

HERE = Path(__file__).resolve().parent
NODE_MAJOR_MIN = 20
MIB = 1 << 20

SCENARIOS: dict[str, dict[str, Any]] = {
    "rpc": {},
    "pubsub": {"events": 50},
    "errors": {},
    "error_kwargs": {},
    "progressive": {"steps": 5},
    "cancel": {},
    "exclude_eligible": {},
    "shared": {"calls": 6},
    "payload": {"octets": MIB},
    "inflight": {"calls": 1000},
}
"""Every scenario of the matrix with its parameters; the client programs implement them under these names."""

EXPECTED: dict[str, Any] = {
    "rpc": {
        "add": 5,
        "echo": [[None, True, -1, 1.5, 9007199254740991, "åß∂ƒ", [1, [2]], {"k": {"v": []}}], {"a": 1, "b": [2, 3]}],
        "unknown": "wamp.error.no_such_procedure",
        "unregistered": "wamp.error.no_such_procedure",
    },
    "pubsub": {"events": [[i, {"n": i}] for i in range(50)], "also": 50, "after_unsubscribe": []},
    "errors": {"uri": "com.example.error.failed", "args": ["because", 7]},
    "error_kwargs": {"uri": "com.example.error.failed", "kwargs": {"why": "reasons", "code": 9}},
    "progressive": {"progress": [0, 1, 2, 3, 4], "result": "done"},
    "cancel": {"uri": "wamp.error.canceled", "interrupted": True, "still_works": 5},
    "exclude_eligible": {
        "excluded": ["end"],
        "chosen": ["all-but-one", "only", "end"],
        "other": ["all-but-one", "end"],
    },
    "shared": {"answers": [0, 0, 0, 1, 1, 1]},
    "payload": {"called": True, "event": True},
    "inflight": {"answers": True},
}
"""What every client must observe, whatever stands between it and the router."""


def find_node() -> str | None:
    """Path of a usable node, None without one."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    command = [node, "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=False, env=peer_environment()).stdout
    return node if version.startswith("v") and int(version[1:].split(".")[0]) >= NODE_MAJOR_MIN else None


def install_js() -> Path:
    """Install autobahn-js by npm unless it is there; the client program. Raises CalledProcessError."""
    directory = HERE / "js"
    stamp = directory / "node_modules" / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < (directory / "package-lock.json").stat().st_mtime:
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=300, env=peer_environment())
    return directory / "client.js"


class ClientDriver:
    """One client library in a child process.

    :param name: ``autobahn-python``, ``xconn`` or ``autobahn-js``.
    :param argv: the program.
    """

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name, self.argv = name, argv
        self._numbers = itertools.count(1)
        self._child: Child | None = None
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()

    @classmethod
    def python(cls, name: str, script: str) -> ClientDriver:
        """A client written in Python, run by this interpreter."""
        return cls(name, [sys.executable, "-W", "ignore", str(HERE / script)])

    def _start(self) -> Child:
        child = Child(self.name, self.argv, stdin=True)
        child.wait_line("ready", 60.0)
        self._answers = queue.Queue()
        threading.Thread(target=self._read, args=(child, self._answers), daemon=True).start()
        return child

    @staticmethod
    def _read(child: Child, answers: queue.Queue[dict[str, Any]]) -> None:
        seen = 0
        while True:
            lines = child.lines[seen:]
            seen += len(lines)
            for line in lines:
                if line.startswith("{"):
                    answers.put(json.loads(line))
            if not lines:
                if child.process.poll() is not None:
                    return
                time.sleep(0.005)

    def run(
        self,
        endpoint: Endpoint,
        serializer: str,
        scenarios: dict[str, dict[str, Any]],
        *,
        realm: str = "realm1",
        batched: bool = False,
        deflate: dict[str, Any] | None = None,
        step: float = 20.0,
        timeout: float = 60.0,
    ) -> dict[str, dict[str, Any]]:
        """Run scenarios over three sessions of this client; ``{scenario: {"observed": ...} | {"error": text}}``.

        ``step`` bounds each scenario in the client, ``timeout`` the whole job here, both in seconds.

        :param batched: speak the serializer's batched subprotocol.
        :param deflate: parameters of permessage-deflate for both directions: ``no_context`` and window ``bits`` (0:
            any); None: no compression. When the other side does otherwise that is an error of every scenario.
        """
        if self._child is None or self._child.process.poll() is not None:
            self._child = self._start()
        number = next(self._numbers)
        job = {
            "id": number,
            "endpoint": endpoint.as_job(),
            "serializer": serializer,
            "batched": batched,
            "deflate": deflate,
            "realm": realm,
            "prefix": f"com.example.{self.name.replace('-', '_')}{number}.",
            "scenarios": scenarios,
            "step": step,
        }
        self._child.send_line(json.dumps(job))
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            output = self._child.output
            self.stop()
            raise AssertionError(f"{self.name} gave no answer within {timeout} s\n{output}") from None
        assert answer["id"] == number
        results: dict[str, dict[str, Any]] = answer["results"]
        return results

    def stop(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.kill()
            self._child = None
