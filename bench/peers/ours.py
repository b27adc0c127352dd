"""wamp-proxy itself: WebSocket in, RawSocket out, with one data thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from peers.base import PROJECT, Backend, Peer, Unavailable


class Ours(Peer):
    name = "ours"
    label = "wamp-proxy"

    def version(self) -> str:
        command = [sys.executable, "-c", "import proxy, proxy._relay; print(proxy.__version__)"]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), check=False)
        if done.returncode:
            raise Unavailable(f"it does not import: {done.stderr.strip().splitlines()[-1]}")
        return f"wamp-proxy {done.stdout.strip()}"

    def setup(self) -> str:
        return "1 data thread; WebSocket in, RawSocket over TCP loopback out, anonymous login"

    def environment(self) -> dict[str, str]:
        sources = os.pathsep.join(filter(None, (str(PROJECT / "src"), os.environ.get("PYTHONPATH", ""))))
        return {**os.environ, "PYTHONPATH": sources}

    def endpoint(self, backend: Backend) -> dict[str, Any]:
        """Where the router is, in the proxy's configuration."""
        return {"type": "tcp", "host": "127.0.0.1", "port": backend.port}

    def command(self, backend: Backend) -> list[str]:
        config = {
            "type": "proxy",
            "connections": {
                "backend": {
                    "transport": {
                        "type": "rawsocket",
                        "endpoint": self.endpoint(backend),
                        "serializer": "cbor",
                    },
                    "auth": {"anonymous": {}},
                }
            },
            "routes": {"realm1": {"anonymous": "backend"}},
            "transports": [
                {
                    "type": "websocket",
                    "id": "bench",
                    "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": self.port, "backlog": 4096},
                }
            ],
        }
        (self.workdir / "proxy.json").write_text(json.dumps(config), encoding="utf-8")
        options = os.environ.get("BENCH_OURS_OPTIONS", "--threads 1 --log-level warn").split()
        return [sys.executable, "-m", "proxy", "run", str(self.workdir / "proxy.json"), *options]


class OursUnix(Ours):
    """The same with the router behind a Unix socket, as beside a Crossbar.io node."""

    name = "ours-unix"
    label = "wamp-proxy, Unix"

    def setup(self) -> str:
        return "1 data thread; WebSocket in, RawSocket over a Unix socket out, anonymous login"

    def endpoint(self, backend: Backend) -> dict[str, Any]:
        return {"type": "unix", "path": str(backend.path)}
