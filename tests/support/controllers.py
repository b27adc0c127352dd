"""A worker process whose controller the test calls, one line per call; see service_worker.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from support.process import Child
from support.routers import REALM, ROOT

SCRIPT = Path(__file__).with_name("service_worker.py")
ROLE = "backend"


class Refused(Exception):
    """The worker answered with an error."""

    def __init__(self, uri: str, message: str) -> None:
        super().__init__(f"{uri}: {message}")
        self.uri = uri


class ServiceWorker:
    """The worker process."""

    def __init__(self, folder: Path, deadline: float = 15.0) -> None:
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(ROOT / "src")]))
        argv = [sys.executable, str(SCRIPT), str(deadline)]
        self.child = Child("service worker", argv, cwd=folder, env=env, stdin=True)
        self.child.wait_line("ready", 30.0)
        # What third-party modules say while they are imported is not the proxy's.
        self._first_line = len(self.child.errors)
        self._number = 0

    def start(self, name: str, *arguments: Any, **keywords: Any) -> int:
        """Ask; the number of the answer to come."""
        self._number += 1
        self.child.send_line(json.dumps([self._number, name, arguments, keywords]))
        return self._number

    def answer(self, number: int) -> Any:
        """The answer; raises Refused."""
        line = self.child.wait_line(f"[{number},", 30.0)
        _, result, *error = json.loads(line)
        if error:
            raise Refused(*error)
        return result

    def __call__(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        return self.answer(self.start(name, *arguments, **keywords))

    def fails(self, uri: str, name: str, *arguments: Any) -> str:
        """Assert that a request fails; the text."""
        with pytest.raises(Refused) as caught:
            self(name, *arguments)
        assert caught.value.uri == uri, caught.value
        return str(caught.value)

    def route(self, *ids: str, role: str = ROLE) -> str:
        """Start a route to connections; its ID."""
        return str(self("start_proxy_realm_route", REALM, {role: list(ids)})["id"])

    def get(self, role: str = ROLE) -> dict[str, Any]:
        """A service session."""
        shown: dict[str, Any] = self("get_service_session", REALM, role)
        return shown

    def stop(self) -> None:
        status = self.child.stop()
        assert status == 0, self.child.output
        said = "\n".join(self.child.errors[self._first_line :])
        assert "Traceback" not in said
        assert "Unhandled" not in said
