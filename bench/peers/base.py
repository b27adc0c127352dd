"""A process (or several) between the load generator and the stand-in router."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import certificates

PROJECT = Path(__file__).resolve().parents[2]


#: What all TLS clients offer, and nothing else.
TLS_CIPHER = "TLS_AES_128_GCM_SHA256"
#: What a handshake comes to, by the door: version, cipher, key exchange, key of the server.
TLS_AGREED = {"": f"TLSv1.3 {TLS_CIPHER} x25519 EC-256", "rsa": f"TLSv1.3 {TLS_CIPHER} x25519 RSA-2048"}


class Unavailable(Exception):
    """A peer cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Backend:
    """Where this peer's stand-in router listens, WebSocket and RawSocket alike.

    :ivar calm: the router of realm "calm", whose sessions are to be disturbed by nothing but the peer itself; None:
        there is no such realm.
    """

    port: int
    path: Path
    calm: Backend | None = None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def find_program(name: str, variable: str, *candidates: str) -> str:
    """Path of a program: from the environment variable, the candidates (relative to the project), or PATH."""
    chosen = os.environ.get(variable)
    if chosen:
        return chosen
    for candidate in candidates:
        if (PROJECT / candidate).exists():
            return str(PROJECT / candidate)
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise Unavailable(f"{name} is not installed (set {variable} to its path)")
    return found


def output_of(*command: str) -> str:
    """Standard output and error of a short command, stripped; empty when it fails to start."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()


def children_of(pid: int) -> list[int]:
    """Direct child processes."""
    with contextlib.suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def process_end(process: subprocess.Popen[str], patience: float) -> None:
    """SIGTERM, and SIGKILL to the whole process group after `patience` seconds."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


class Peer:
    """One row of the tables. Subclasses say how to start it; `start` returns when it accepts connections."""

    name = ""  #: as in --only and in the JSON
    #: Of which program it is a set-up; --only with this name takes its rows of the features' tables.
    family = ""
    label = ""  #: as in the tables
    #: Sessions of the idle scenario; None: as many as the scenario says.
    idle_sessions: int | None = None
    #: Clients of the storm scenario; likewise.
    storm_sessions: int | None = None
    #: Whether clients prove to it who they are. Checked.
    authenticates = False
    #: Options of its stand-in router.
    router_options: tuple[str, ...] = ()
    #: Whether clients are told other session IDs than the router's. Checked: what is measured must be in effect.
    replaces_session_ids = False
    #: Whether clients come with TLS. Behind `port` is an ECDSA key then, behind the door "rsa" an RSA key.
    tls = False
    #: What those clients offer by ALPN; none: nothing.
    tls_alpn = "http/1.1"
    start_timeout = 20.0
    stop_timeout = 5.0
    #: Path of the WebSocket transport.
    path = "/"

    def __init__(self) -> None:
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.workdir = Path()
        self.doors: dict[str, int] = {}
        self.certificates: certificates.Certificates | None = None

    def version(self) -> str:
        """Name and version of what runs; raises Unavailable."""
        raise NotImplementedError

    def setup(self) -> str:
        """How it is set up, for the table's notes."""
        raise NotImplementedError

    def command(self, backend: Backend) -> list[str]:
        """Writes the configuration into self.workdir and returns the command line."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Environment of the process."""
        return dict(os.environ)

    def start(self, workdir: Path, backend: Backend) -> None:
        """Starts it in front of the backend and waits until it listens."""
        self.workdir = workdir
        self.port = free_port()
        if self.tls:
            self.certificates = certificates.made(workdir.parent / "certificates")
            self.doors["rsa"] = free_port()
        command = self.command(backend)
        with open(workdir / "log.txt", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                cwd=workdir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment(),
                start_new_session=True,
            )
        self._wait_listening()

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        assert self.process is not None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Unavailable(f"{self.name} ended at once: {self.log_tail()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise Unavailable(f"{self.name} did not listen within {self.start_timeout:.0f} s: {self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what it printed."""
        log = self.workdir / "log.txt"
        return log.read_text(encoding="utf-8", errors="replace")[-600:].strip() if log.exists() else ""

    def pids(self) -> list[int]:
        """The processes that do the work: those whose CPU and memory count."""
        assert self.process is not None
        return [self.process.pid]

    def listens(self) -> dict[str, tuple[int, certificates.Certificate | None]]:
        """Ports to listen on, each with what it shows to TLS clients, by a name of letters and underscores."""
        if self.certificates is None:
            return {"bench": (self.port, None)}
        servers = self.certificates.servers
        more = {f"bench_{door}": (port, servers[door]) for door, port in self.doors.items()}
        return {"bench": (self.port, servers["ecdsa"]), **more}

    def target(self, door: str = "") -> str:
        """Address for the load generator.

        :param door: a key of `doors`; none: the one at `port`.
        """
        return f"tcp:127.0.0.1:{self.doors[door] if door else self.port}"

    def load_options(self) -> dict[str, Any]:
        """What the load generator must be told to talk to it; TLS is the same for all peers."""
        if self.certificates is None:
            return {"path": self.path}
        tls = {"tls": self.certificates.ca, "tls_version": "1.3", "tls_cipher": TLS_CIPHER, "tls_alpn": self.tls_alpn}
        return {"path": self.path} | tls

    def stop(self) -> None:
        """Ends it and all it started."""
        if self.process is not None:
            process_end(self.process, self.stop_timeout)
            self.process = None
