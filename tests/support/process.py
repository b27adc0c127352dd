"""Child processes that never outlive the tests, and whose output is at hand when something fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SPAWN = Path(__file__).with_name("spawn.py")
_LIVE: weakref.WeakSet[Child] = weakref.WeakSet()


INSTRUMENTS = ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "PYTHONMALLOC", "PYTHONPATH")


def peer_environment() -> dict[str, str]:
    """The environment for programs that are not under test: without what instruments the proxy."""
    return {name: value for name, value in os.environ.items() if name not in INSTRUMENTS}


def live_children() -> list[Child]:
    """The children that somebody still holds, for failure reports."""
    return sorted(_LIVE, key=lambda child: child.name)


class Child:
    """A child process with its output lines kept.

    :param name: what error texts call it.
    :param argv: program and arguments.
    :param env: its environment, None for that of a peer.
    :param stdin: keep a pipe to its standard input.
    :param nofile: limit of open descriptors, 0 for that of the tests.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        nofile: int = 0,
    ) -> None:
        _LIVE.add(self)
        self.name = name
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            # A test run that is killed must not leave routers and proxies behind.
            [sys.executable, "-I", "-S", str(SPAWN), str(os.getpid()), str(nofile), *argv],
            cwd=cwd,
            env=peer_environment() if env is None else dict(env),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
        )
        self._readers = [
            threading.Thread(target=self._collect, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._collect, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _collect(self, stream: object, into: list[str]) -> None:
        for line in stream:  # type: ignore[attr-defined]
            with self._changed:
                into.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """Process ID."""
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything it printed, for failure reports."""
        out, err = self.lines[-200:], self.errors[-400:]
        return "\n".join([f"--- {self.name}: stdout", *out, f"--- {self.name}: stderr", *err])

    def wait_line(self, prefix: str, timeout: float = 30.0, errors: bool = False) -> str:
        """The first line that begins with (``errors``: that holds, on stderr) ``prefix``; fails loudly otherwise."""
        lines = self.errors if errors else self.lines
        deadline = time.monotonic() + timeout
        seen = 0
        with self._changed:
            while True:
                for line in lines[seen:]:
                    if line.startswith(prefix) or (errors and prefix in line):
                        return line
                seen = len(lines)
                rest = deadline - time.monotonic()
                if rest <= 0 or (self.process.poll() is not None and not any(t.is_alive() for t in self._readers)):
                    status = self.process.poll()
                    raise AssertionError(f"{self.name} did not print {prefix!r}, status {status}\n{self.output}")
                self._changed.wait(min(rest, 0.2))

    def send_line(self, line: str) -> None:
        """Write one line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15.0) -> int:
        """Send a signal and wait; kills it after ``timeout`` seconds, which fails the test. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end on signal {number}\n{self.output}") from None
        for reader in self._readers:
            reader.join(5.0)
        return status

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def wait_until(condition: Callable[[], object], what: str, timeout: float = 15.0, interval: float = 0.01) -> None:
    """Wait for ``condition``; AssertionError naming ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(interval)
