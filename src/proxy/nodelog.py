"""A worker's log as a Crossbar.io node takes it: JSON records on stderr, after a line that announces them.

The node reads a worker's stderr in pieces as they come. It decodes each piece for itself, so records are ASCII; it
throws away what comes in one piece with the announcement, so nothing is written until that has been read; and it uses
the text as a format, so braces are doubled.
"""

import array
import fcntl
import json
import logging
import os
import select
import sys
import termios
import threading
import time
from collections import deque
from typing import Any, Final

from proxy.logs import log_twisted, set_level

__all__ = ["ANNOUNCEMENT", "LEVELS", "NodeLog", "announce", "install_node_log", "set_log_level"]

ANNOUNCEMENT: Final = b"CROSSBAR_RICH_LOGGING_ENABLE=True\n"
SEPARATOR: Final = b"\x1e"

# The node's levels. At "none" nothing at all is logged.
LEVELS: Final = {
    "none": logging.CRITICAL + 1,
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}

# What the node has not read yet, octets. With more, records are left out: a node that hangs must not stop the worker.
QUEUE_MAX: Final = 4 * 1024 * 1024

# Characters of one record's text.
TEXT_MAX: Final = 64 * 1024

# The node reads the announcement at once unless it is busy, seconds.
ANNOUNCEMENT_TIMEOUT: Final = 5.0

# Seconds between two looks whether it has.
ANNOUNCEMENT_POLL: Final = 0.01

# How long the last records may take at the end of the process, seconds.
FLUSH_TIMEOUT: Final = 1.0


def announce(fd: int = 2) -> None:
    """Tell the node that records follow; the first that it reads of this worker. Whoever listens may be gone."""
    try:
        os.write(fd, ANNOUNCEMENT)
    except OSError:
        pass


class NodeLog(logging.Handler):
    """Writes records for the node, in a thread of its own: the node may take its time.

    :param fd: where to.
    """

    def __init__(self, fd: int = 2) -> None:
        super().__init__()
        self._fd = fd
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._lost = 0
        self._is_closing = False
        self._changed = threading.Condition()
        self._may_write = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        try:
            octets = self._encode(record)
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._queued + len(octets) > QUEUE_MAX or self._is_closing:
                self._lost += 1
                return
            if self._lost:
                lost, self._lost = self._lost, 0
                text = f"{lost} records of the log are left out here: the node did not read them"
                octets = encode("warn", __name__, text, record.created) + octets
            self._queue.append(octets)
            self._queued += len(octets)
            self._changed.notify()

    def _encode(self, record: logging.LogRecord) -> bytes:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        return encode(level_name(record.levelno), record.name, text, record.created)

    def _run(self) -> None:
        self._wait_until_announced()
        self._may_write.set()
        while True:
            with self._changed:
                while not self._queue:
                    if self._is_closing:
                        return
                    self._changed.wait()
                octets = self._queue.popleft()
            is_written = self._write(octets)
            with self._changed:
                self._queued -= len(octets)
                if not is_written:
                    # Nobody reads any more: no other record will fit.
                    self._queue.clear()
                    self._queued = QUEUE_MAX
                    return

    def _wait_until_announced(self) -> None:
        unread = array.array("i", [0])
        reader = select.poll()
        reader.register(self._fd, 0)  # tells of POLLERR only: the other end is closed
        deadline = time.monotonic() + ANNOUNCEMENT_TIMEOUT
        try:
            while time.monotonic() < deadline and not reader.poll(0):
                fcntl.ioctl(self._fd, termios.FIONREAD, unread)
                if not unread[0]:
                    return
                time.sleep(ANNOUNCEMENT_POLL)
        except OSError:
            pass  # not a pipe

    def _write(self, octets: bytes) -> bool:
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Write what is queued, for as long as that may take, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        # A worker that cannot start is at its end before a busy node has read of it; that is what it has to tell most.
        self._may_write.wait(ANNOUNCEMENT_TIMEOUT)
        self._thread.join(FLUSH_TIMEOUT)
        super().close()


class _Lines:
    """What is printed to stderr by others becomes records, a line each; as it is it would garble the next one."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        self._log = logging.getLogger("stderr")
        self._rest = ""

    def write(self, text: str) -> int:
        """Take a piece of text."""
        *lines, rest = (self._rest + text).split("\n")
        self._rest = rest[-TEXT_MAX:]
        for line in lines:
            if line.strip():
                self._log.warning("%s", line)
        return len(text)

    def flush(self) -> None:
        """Lines go as soon as they end."""

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def fileno(self) -> int:
        """The real one: for those who must write where nothing of this works, when the process crashes."""
        return 2


def encode(level: str, namespace: str, text: str, created: float) -> bytes:
    """One record.

    :param level: a name of the node's.
    :param namespace: who says it.
    :param created: when, Posix seconds.
    """
    if len(text) > TEXT_MAX:
        text = text[:TEXT_MAX] + " ..."
    # The node publishes the text, too. What UTF-8 has no octets for would fail there.
    text = text.encode("utf-8", "backslashreplace").decode()
    shown = text.replace("{", "{{").replace("}", "}}")
    # The node takes "text" out of what crossbar.get_worker_log returns.
    record: dict[str, Any] = {"text": shown, "level": level, "namespace": namespace}
    return json.dumps(record | {"log_time": created, "log_text": text}).encode("ascii") + SEPARATOR


def level_name(number: int) -> str:
    """The node's name for one of Python's levels."""
    for name in ("critical", "error", "warn", "info"):
        if number >= LEVELS[name]:
            return name
    return "debug"


def install_node_log(level: str) -> NodeLog:
    """Log to the node from now on: what we say, what Twisted says, warnings, and whatever is printed to stderr.

    :param level: one of :data:`LEVELS`.
    """
    handler = NodeLog()
    logging.getLogger().addHandler(handler)
    set_log_level(level)
    logging.captureWarnings(True)
    printed: Any = _Lines()
    sys.stderr = printed
    log_twisted()
    return handler


def set_log_level(level: str) -> None:
    """Log from a level on.

    :param level: one of :data:`LEVELS`.
    """
    set_level(LEVELS[level])
