"""Real client libraries that log in, each in a child process; jobs and answers are lines of JSON.

Every program of these takes a job as :class:`Login` has it and answers with either ``joined`` (what WELCOME says, as
far as the library tells), ``sum`` (of a call that the session made) and ``router`` (what the router says of the
session), or ``refused`` and ``message`` (of ABORT), or ``error`` (a text, where the library fails by itself).
"""

from __future__ import annotations

import json
import queue
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from support.clients import HERE, ClientDriver
from support.endpoints import Endpoint
from support.process import Child
from support.routers import find_crossbar

SUM, SESSION = "com.example.sum", "wamp.session.get"
CLIENTS = {
    "autobahn-python": ("anonymous", "ticket", "wampcra", "wampcra-salted", "scram-argon2id", "cryptosign"),
    "autobahn-js": ("anonymous", "ticket", "wampcra", "wampcra-salted", "cryptosign"),
    "xconn": ("anonymous", "ticket", "wampcra", "wampcra-salted", "cryptosign"),
}
"""The clients, and what each of them can log in with."""


@dataclass(frozen=True)
class Login:
    """A login.

    :ivar method: by which the client answers a CHALLENGE; also the authmethod it offers.
    :ivar secret: ticket, secret, password, or private key in hexadecimal digits.
    :ivar cookie: sent with the handshake (WebSocket only); None: none. Whoever sends one offers ``cookie`` alone.
    """

    method: str
    authid: str = ""
    secret: str = ""
    realm: str = "realm1"
    cookie: str | None = None


class LoginDriver(ClientDriver):
    """One client library that logs in."""

    @classmethod
    def named(cls, name: str, node: str | None = None) -> LoginDriver:
        """A library by name.

        :param node: path of the ``node`` program, for autobahn-js.
        """
        if name == "autobahn-js":
            assert node is not None
            return cls(name, [node, str(HERE / "js" / "login.js")])
        return cls(name, [_python(name), "-W", "ignore", str(HERE / f"login_{name.partition('-')[0]}.py")])

    def login(
        self, endpoint: Endpoint, login: Login, serializer: str = "cbor", timeout: float = 30.0
    ) -> dict[str, Any]:
        """Log in, look around, and leave.

        :param timeout: for all of it, seconds.
        """
        if self._child is None or self._child.process.poll() is not None:
            self._child = self._start()
        number = next(self._numbers)
        job = {"id": number, "endpoint": endpoint.as_job(), "serializer": serializer, **asdict(login)}
        self._child.send_line(json.dumps(job))
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            output = self._child.output
            self.stop()
            raise AssertionError(f"{self.name} gave no answer within {timeout} s\n{output}") from None
        assert answer.pop("id") == number
        return answer


def _python(name: str) -> str:
    """The interpreter for a client: autobahn's SCRAM needs what only Crossbar.io's environment has."""
    program = find_crossbar()
    python = None if program is None else Path(program).parent / "python"
    return str(python) if name == "autobahn-python" and python is not None and python.exists() else sys.executable


def start_authenticator(endpoint: Endpoint, record: Path) -> Child:
    """The procedures of dynamic authentication at a router.

    :param record: the file that the calls are written to.
    """
    config = json.dumps({"record": str(record)})
    argv = [sys.executable, "-W", "ignore", str(HERE / "authenticator.py"), json.dumps(endpoint.as_job()), config]
    child = Child("authenticator", argv)
    child.wait_line("ready", 30.0)
    return child
