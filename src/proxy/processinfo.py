"""What the operating system knows of this process, in the shapes that the management API has."""

import os
import socket
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import psutil
from autobahn.util import utcstr

from proxy.errors import InvalidArgument, OperationFailed

__all__ = ["Cpus", "ProcessMonitor", "process_info", "process_stats", "timestamp"]

FILES_MAX: Final = 1_000
"""Open files that are named at most."""

SOCKETS_MAX: Final = 10_000
"""Sockets that are described at most: about 1 MB in a result. How many there are, ``descriptors`` tells."""

TASKS: Final = Path("/proc/self/task")

_SOCKET_TYPES: Final = {
    (socket.AF_INET, socket.SOCK_STREAM): "tcp4",
    (socket.AF_INET6, socket.SOCK_STREAM): "tcp6",
    (socket.AF_INET, socket.SOCK_DGRAM): "udp4",
    (socket.AF_INET6, socket.SOCK_DGRAM): "udp6",
    (socket.AF_UNIX, socket.SOCK_STREAM): "unix",
    (socket.AF_UNIX, socket.SOCK_DGRAM): "unix",
}

# Of ProcessMonitor: what grows, and is shown per second, too.
_GROWING: Final = (
    "read_ios",
    "write_ios",
    "read_bytes",
    "write_bytes",
    "cpu_user",
    "cpu_system",
    "num_ctx_switches_voluntary",
    "num_ctx_switches_involuntary",
)


def timestamp(posix: float | None = None) -> str:
    """A point in time as the management API has it: UTC, ISO 8601, ms, ``Z``.

    :param posix: seconds since the epoch; None: now.
    """
    return str(utcstr(datetime.now(UTC) if posix is None else datetime.fromtimestamp(posix, UTC)))


# --- CPUs ---


class Cpus:
    """The CPUs that this process may use: those of its start, and of now.

    :ivar ids: those of its start, sorted. Relative numbers are indices into them.
    """

    def __init__(self) -> None:
        self.ids = sorted(os.sched_getaffinity(0))

    def get(self) -> list[int]:
        """The CPUs that it may use now, sorted."""
        return sorted(os.sched_getaffinity(os.getpid()))

    def set(self, cpus: list[int], *, relative: bool) -> list[int]:
        """Bind all threads of the process to CPUs.

        :param cpus: ids of CPUs, or, if ``relative``, indices into :attr:`ids`.
        :returns: ids of the CPUs that it may use now, sorted.
        :raises InvalidArgument: an index that there is not.
        :raises OperationFailed: the system refuses, for example because it has no such CPU. Nothing has changed then.
        """
        wanted = {self._by_index(index) for index in cpus} if relative else set(cpus)
        if not wanted:
            raise OperationFailed("cannot set the CPU affinity: expected at least one CPU, got none")
        before = os.sched_getaffinity(os.getpid())
        try:
            _bind_threads(wanted)
            # The system leaves out CPUs that it has not, as long as there are others.
            now = os.sched_getaffinity(os.getpid())
            if now != wanted:
                raise ValueError(f"there is no CPU {', '.join(map(str, sorted(wanted - now)))} for this process")
        except (OSError, ValueError, OverflowError) as error:
            _bind_threads(before)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise OperationFailed(f"cannot set the CPU affinity to {sorted(wanted)}: {reason}") from error
        return sorted(now)

    def _by_index(self, index: int) -> int:
        if not 0 <= index < len(self.ids):
            raise InvalidArgument(
                f"cpus: {index}: expected indices from 0 to {len(self.ids) - 1} of the CPUs {self.ids} (see get_cpus), "
                "or relative=false"
            )
        return self.ids[index]


def _bind_threads(cpus: Iterable[int]) -> None:
    """Bind every thread: the system binds single threads only, and it is the data threads that do the work."""
    wanted = set(cpus)
    os.sched_setaffinity(os.getpid(), wanted)  # if it is refused, then before anything has changed
    done = {os.getpid()}
    while True:
        # Threads that are started meanwhile may come from one that is not bound yet.
        others = {int(task.name) for task in TASKS.iterdir()} - done
        if not others:
            return
        for thread_id in others:
            try:
                os.sched_setaffinity(thread_id, wanted)
            except ProcessLookupError:
                pass  # it has ended
        done |= others


# --- descriptors and numbers ---


def process_info(process: psutil.Process) -> dict[str, Any]:
    """Open descriptors (number), threads (number), files (paths) and sockets. Takes long where there are many sockets.

    :param process: this process.
    """
    return {
        "descriptors": _permitted(process.num_fds),
        "threads": process.num_threads(),
        "files": sorted(islice((file.path for file in _permitted(process.open_files) or ()), FILES_MAX)),
        "sockets": [_socket(item) for item in islice(_connections(process), SOCKETS_MAX)],
    }


def _connections(process: psutil.Process) -> Iterable[Any]:
    return _permitted(lambda: process.net_connections(kind="all")) or ()


def _socket(item: Any) -> dict[str, Any]:
    return {
        "type": _SOCKET_TYPES.get((item.family, item.type)),
        "local": _address(item.laddr),
        "remote": "" if item.family == socket.AF_UNIX else _address(item.raddr),
        "status": str(item.status),
    }


def _address(address: Any) -> str:
    if isinstance(address, str):
        return address
    return f"{address[0]}:{address[1]}" if len(address) >= 2 else ""


def _permitted(read: Callable[[], Any]) -> Any:
    """What ``read`` returns; None where the system keeps that to itself (hardened containers)."""
    try:
        return read()
    except (psutil.AccessDenied, PermissionError, NotImplementedError):
        return None


def process_stats(process: psutil.Process) -> dict[str, Any]:
    """CPU (seconds; percent since the last call), memory (octets; percent), context switches and I/O operations.

    :param process: this process, the same object each time.
    """
    switches = process.num_ctx_switches()
    cpu = process.cpu_times()
    memory = process.memory_info()
    io = _permitted(process.io_counters)
    return {
        "ts": timestamp(),
        "time": time.time_ns(),
        "pid": process.pid,
        "status": str(process.status()),
        "voluntary": switches.voluntary,
        "nonvoluntary": switches.involuntary,
        "user": cpu.user,
        "system": cpu.system,
        "cpu_percent": process.cpu_percent(),
        "resident": memory.rss,
        "virtual": memory.vms,
        "mem_percent": process.memory_percent(),
        "reads": io.read_count if io is not None else None,
        "writes": io.write_count if io is not None else None,
    }


class ProcessMonitor:
    """Numbers of the process, and from the second reading on what they grew by per second.

    :param worker_type: ``type`` in what it shows.
    """

    def __init__(self, worker_type: str) -> None:
        self._type = worker_type
        self._process = psutil.Process()
        self._last: dict[str, Any] | None = None
        self._last_time = 0

    def read(self) -> dict[str, Any]:
        """What the system says now. May be called in any thread."""
        process = self._process
        switches = process.num_ctx_switches()
        io = _permitted(process.io_counters)
        cpu = process.cpu_times()
        return {
            "type": self._type,
            "pid": process.pid,
            "status": str(process.status()),
            "num_fds": process.num_fds(),
            "num_threads": process.num_threads(),
            "num_ctx_switches_voluntary": switches.voluntary,
            "num_ctx_switches_involuntary": switches.involuntary,
            "read_ios": io.read_count if io is not None else None,
            "write_ios": io.write_count if io is not None else None,
            "read_bytes": io.read_bytes if io is not None else None,
            "write_bytes": io.write_bytes if io is not None else None,
            "cpu_user": cpu.user,
            "cpu_system": cpu.system,
        }

    def add_rates(self, current: dict[str, Any], now: int) -> dict[str, Any]:
        """Add what it grew by since the reading before.

        :param current: of :meth:`read`.
        :param now: Posix time of it, ns.
        :returns: ``current`` with ``<name>_per_sec`` for all that grows.
        """
        last, self._last = self._last, dict(current)
        seconds = (now - self._last_time) / 1e9
        self._last_time = now
        if last is not None and seconds > 0:
            for name in _GROWING:
                if last[name] is not None and current[name] is not None:
                    current[f"{name}_per_sec"] = int((current[name] - last[name]) / seconds)
        return current
