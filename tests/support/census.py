"""What a process holds: descriptors, memory, threads. The leak checks compare two of these."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from support.process import wait_until


def descriptors(pid: int) -> Counter[str]:
    """Open descriptors by kind (``socket``, ``anon_inode:[eventpoll]``, a file's path ...)."""
    kinds: Counter[str] = Counter()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(entry.path)
        except OSError:  # closed while we looked
            continue
        kinds[target.split(":[")[0] if target.startswith(("socket", "pipe")) else target] += 1
    return kinds


def rss(pid: int) -> int:
    """Resident memory in octets."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most resident memory of a process from now on (the kernel's own high-water mark, reset here).

    :param pid: process to watch.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        self.before = rss(pid)

    def check(self, limit: int, what: str) -> None:
        """Assert that it never had ``limit`` octets more than at the start; nothing is said about sanitizer builds."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        most = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
        grown = most - self.before
        if os.environ.get("WAMP_PROXY_BUILD_MODE") != "asan":
            assert grown < limit, f"{what}: {grown / (1 << 20):.1f} MiB at most, allowed are {limit / (1 << 20):.1f}"


def assert_grown(pid: int, before: int, limit: int, what: str) -> None:
    """Assert that resident memory has grown by less than ``limit`` octets since it was ``before``.

    Sanitizers keep freed memory back on purpose: nothing is said about such a build.
    """
    grown = rss(pid) - before
    if os.environ.get("WAMP_PROXY_BUILD_MODE") != "asan":
        assert grown < limit, f"{what}: {grown / (1 << 20):.1f} MiB more, allowed are {limit / (1 << 20):.1f}"


def cpu_seconds(pid: int) -> float:
    """CPU time used so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads(pid: int) -> int:
    """Number of threads."""
    return len(os.listdir(f"/proc/{pid}/task"))


class Census:
    """The idle baseline of a process and the check that it is back there.

    :param pid: process to watch; it must be idle now.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.baseline = settled(pid)

    def surplus(self) -> Counter[str]:
        """What is open now and was not at the baseline."""
        return descriptors(self.pid) - self.baseline

    def check(self, timeout: float = 8.0) -> None:
        """Assert that the process is back at its baseline within ``timeout`` seconds."""
        try:
            wait_until(lambda: not self.surplus(), "", timeout)
        except AssertionError:
            raise AssertionError(f"descriptors left open after the test: {dict(self.surplus())}") from None


def settled(pid: int, quiet: float = 0.3, timeout: float = 10.0) -> Counter[str]:
    """The descriptors once their number has not changed for ``quiet`` seconds."""
    deadline = time.monotonic() + timeout
    last, since = descriptors(pid), time.monotonic()
    while time.monotonic() - since < quiet and time.monotonic() < deadline:
        time.sleep(0.02)
        now = descriptors(pid)
        if now != last:
            last, since = now, time.monotonic()
    return last
