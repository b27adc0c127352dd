"""The proxy under test as a real process, and its configuration in a few lines."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.census import Census
from support.endpoints import Endpoint, free_port
from support.process import Child
from support.routers import REALM, ROOT

READY = "wamp-proxy ready"
NEVER_IN_LOG = ("Traceback (most recent call last)", "AddressSanitizer", "LeakSanitizer", "runtime error:", "Unhandled")


class Config:
    """A proxy worker's configuration under construction.

    :param directory: where Unix sockets go.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.connections: dict[str, dict[str, Any]] = {}
        self.routes: dict[str, dict[str, Any]] = {}
        self.transports: list[dict[str, Any]] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.extra: dict[str, Any] = {}

    def backend(self, name: str, item: dict[str, Any], realm: str = REALM, role: str = "anonymous") -> Config:
        """Add a connection and the route that leads to it; a route named twice goes round robin."""
        self.connections[name] = item
        routes = self.routes.setdefault(realm, {})
        before = routes.get(role, [])
        routes[role] = [*([before] if isinstance(before, str) else before), name]
        return self

    def stub(self, name: str, endpoint: Endpoint, role: str = "anonymous", **keys: Any) -> Config:
        """Add a connection to a router that takes anybody (``anonymous``)."""
        item = {"transport": endpoint.as_backend(), "auth": {"anonymous": {"type": "static"}}, **keys}
        return self.backend(name, item, role=role)

    def listen(
        self, kind: str = "rawsocket", name: str = "", *, unix: bool = False, role: str = "anonymous", **keys: Any
    ) -> Endpoint:
        """Add a listening transport; ``keys`` are more keys of its item."""
        number = len(self.transports)
        if unix:
            endpoint = Endpoint(kind, path=str(self.directory / f"front{number}.sock"))
        else:
            endpoint = Endpoint(kind, free_port())
        item = {
            "type": kind,
            "id": f"transport{number:03d}",
            "endpoint": endpoint.as_config(),
            "serializers": ["json", "msgpack", "cbor"],
            "auth": {"anonymous": {"type": "static", "role": role}},
            **keys,
        }
        self.transports.append(item)
        self.endpoints[name or f"transport{number:03d}"] = endpoint
        return endpoint

    def as_dict(self) -> dict[str, Any]:
        """The worker item."""
        return {
            "type": "proxy",
            "connections": self.connections,
            "routes": self.routes,
            "transports": self.transports,
            **self.extra,
        }


class ProxyProcess:
    """A running proxy.

    :param config: its configuration.
    :param threads: data threads.
    :param nofile: limit of open descriptors, 0 for that of the tests.
    :param within: program and arguments that become the proxy, whose own follow.
    """

    def __init__(
        self,
        config: Config,
        *,
        threads: int = 2,
        log_level: str = "info",
        nofile: int = 0,
        within: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.endpoints = config.endpoints
        config.directory.mkdir(parents=True, exist_ok=True)
        path = config.directory / "proxy.json"
        path.write_text(json.dumps(config.as_dict(), indent=1))
        env = dict(os.environ)
        # A build with assertions or sanitizers comes first where PYTHONPATH names one.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(ROOT / "src")]))
        env["PYTHONUNBUFFERED"] = "1"
        argv = [sys.executable, "-m", "proxy", "run", str(path), "--threads", str(threads), "--log-level", log_level]
        self.child = Child("wamp-proxy", [*within, *argv], cwd=config.directory, env=env, nofile=nofile)
        self.child.wait_line(READY, 30.0)
        # What third-party modules say while they are imported is not the proxy's.
        self._first_line = len(self.child.errors)
        self.census = Census(self.pid)

    @property
    def pid(self) -> int:
        """Process ID."""
        return self.child.pid

    def check_idle(self) -> None:
        """Assert that it runs and holds no more descriptors than when it was idle first."""
        assert self.child.process.poll() is None, f"the proxy ended by itself\n{self.child.output}"
        self.census.check()

    def check_log(self) -> None:
        """Assert that nothing went wrong that only the log shows."""
        lines = self.child.errors[self._first_line :]
        found = [line for line in lines if any(word in line for word in NEVER_IN_LOG)]
        assert not found, f"the proxy's output holds {found}\n{self.child.output}"

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15.0) -> None:
        """End it by a signal; asserts exit status 0 and a clean log."""
        status = self.child.stop(number, timeout)
        assert status == 0, f"the proxy ended with status {status}\n{self.child.output}"
        self.check_log()
