"""No proxy: the load generator talks to the stand-in router."""

from __future__ import annotations

from pathlib import Path

from peers.base import Backend, Peer


class Direct(Peer):
    name = "none"
    family = "none"
    label = "no proxy"

    def version(self) -> str:
        return "-"

    def setup(self) -> str:
        return "the load generator talks WebSocket to the stand-in router"

    def start(self, workdir: Path, backend: Backend) -> None:
        self.port = backend.port

    def pids(self) -> list[int]:
        return []
