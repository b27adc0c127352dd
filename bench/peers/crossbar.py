"""Crossbar.io's own proxy worker: a node with nothing but that worker, in front of the stand-in router."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from peers.base import Backend, Peer, Unavailable, children_of, find_program, output_of
from peers.certificates import Certificate
from peers.users import ROLE, methods


class Crossbar(Peer):
    name = "crossbar"
    family = "crossbar"
    label = "Crossbar.io proxy"
    idle_sessions = 200  # it makes some 30 logins a second
    storm_sessions = 300
    authenticates = True
    router_options = ("--authmethod", "anonymous-proxy")  # it refuses a WELCOME with a method it did not offer
    start_timeout = 90.0
    stop_timeout = 15.0

    def version(self) -> str:
        text = output_of(find_program("crossbar", "CROSSBAR", ".venv-peers/bin/crossbar"), "version")
        found = re.search(r"Crossbar\.io v(\S+)", text)
        if not found:
            raise Unavailable("`crossbar version` does not tell its version")
        return f"Crossbar.io {found.group(1)}"

    def setup(self) -> str:
        return (
            "1 proxy worker; WebSocket in, RawSocket and CBOR over a Unix socket out (anonymous-proxy works on those "
            "only)"
        )

    @staticmethod
    def connection(backend: Backend) -> dict[str, Any]:
        """A way to a router."""
        return {
            "transport": {
                "type": "rawsocket",
                "endpoint": {"type": "unix", "path": str(backend.path)},
                "url": "rs://localhost",
                "serializer": "cbor",
            },
            "auth": {"anonymous-proxy": {"type": "static"}},
        }

    @staticmethod
    def transport(name: str, port: int, shown: Certificate | None) -> dict[str, Any]:
        """A listening transport."""
        tls = {"tls": {"key": str(shown.key), "certificate": str(shown.certificate)}} if shown else {}
        return {
            "type": "websocket",
            "id": name,
            "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": port, "backlog": 4096} | tls,
            "serializers": ["cbor", "json"],
            "options": {"compression": {"deflate": {}}},
            "auth": methods(),
        }

    def command(self, backend: Backend) -> list[str]:
        node = self.workdir / ".crossbar"
        node.mkdir(exist_ok=True)
        backends = {"realm1": backend} | ({"calm": backend.calm} if backend.calm else {})
        worker = {
            "type": "proxy",
            "connections": {realm: self.connection(to) for realm, to in backends.items()},
            "routes": {realm: {ROLE: realm} for realm in backends},
            "transports": [self.transport(name, *listen) for name, listen in self.listens().items()],
        }
        (node / "config.json").write_text(json.dumps({"version": 2, "workers": [worker]}), encoding="utf-8")
        crossbar = find_program("crossbar", "CROSSBAR", ".venv-peers/bin/crossbar")
        return [crossbar, "start", "--cbdir", str(node)]

    def pids(self) -> list[int]:
        """The worker process alone, not the node controller."""
        assert self.process is not None
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for pid in children_of(self.process.pid):
                if b"proxy" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return [pid]
            time.sleep(0.1)
        raise Unavailable("the proxy worker process was not found")


class CrossbarTls(Crossbar):
    """The same with TLS in front."""

    name = "crossbar-tls"
    label = "Crossbar.io proxy, TLS"
    tls = True
    tls_alpn = ""  # it refuses all who offer something

    def setup(self) -> str:
        return "1 proxy worker; WebSocket over TLS in, RawSocket and CBOR over a Unix socket out"
