"""How a figure is taken: the native tools, memory and system calls of a process, and what machine this is."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.base import TLS_AGREED, Backend, Peer, Unavailable, free_port, process_end

BENCH = Path(__file__).resolve().parent
TOOLS = BENCH / "build"


def build_tools() -> None:
    """Builds the load generator and the stand-in router."""
    subprocess.run(["make", "--quiet", "-C", str(BENCH / "native")], check=True)


class Router:
    """The stand-in router, one per peer."""

    def __init__(self, workdir: Path, options: Sequence[str], calm: Backend | None = None) -> None:
        self.backend = Backend(free_port(), workdir / "router.sock", calm)
        self.process = subprocess.Popen(
            [
                str(TOOLS / "wamp-router"),
                *("--listen", f"tcp:127.0.0.1:{self.backend.port}"),
                *("--listen", f"unix:{self.backend.path}"),
                *options,
            ],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        if not self.process.stdout.readline().startswith("wamp-router ready"):
            raise Unavailable("the stand-in router did not start")
        self.counts: dict[str, Any] = {}

    def stop(self) -> None:
        """Ends it; what it counted is in self.counts."""
        if self.process.poll() is None and self.process.stdout is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired, json.JSONDecodeError):
                out, _ = self.process.communicate(timeout=5)
                self.counts = json.loads(out)
        process_end(self.process, 5)


def load_command(target: str, program: str = "wamp-load", **options: Any) -> list[str]:
    """Command line of a load generator; cpu_of is a list of process numbers."""
    command = [str(TOOLS / program), "--target", target]
    for pid in options.pop("cpu_of", ()):
        command += ["--cpu-of", str(pid)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return command


def run_load(target: str, **options: Any) -> dict[str, Any]:
    """Runs the load generator to its end and returns what it printed last."""
    command = load_command(target, **options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
    if not done.stdout.strip():
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def check_logins(peer: Peer, method: str) -> None:
    """Whether users are let in by a method, and nobody else is: what is not checked must not be measured."""
    once = {"mode": "identify", **peer.load_options(), "sessions": 4, "warmup": 0, "duration": 0.01, "auth": method}
    raw = run_load(peer.target(), **once)
    if raw["errors"]:
        raise Unavailable(f"{method}: {raw['first_error']}: {peer.log_tail()[-300:]}")
    raw = run_load(peer.target(), **once, secret="wrong")
    if not raw["errors"] or "wamp.error" not in raw["first_error"]:
        raise Unavailable(f"{method}: users with a wrong secret are not refused: {raw['first_error']}")


def check_session_ids(peer: Peer) -> None:
    """Whether session IDs are whose they should be: a set-up whose option has no effect must not be measured."""
    sessions = 10
    once = {"mode": "identify", "sessions": sessions, "warmup": 0, "duration": 0.01}
    raw = run_load(peer.target(), **once, **peer.load_options())
    expected = sessions if peer.replaces_session_ids else 0
    if raw["errors"] or raw["session_ids_replaced"] != expected:
        why = raw["first_error"] or f"{raw['session_ids_replaced']} of {sessions} session IDs are not the router's"
        raise Unavailable(f"{why}; expected {expected}: {peer.log_tail()[-300:]}")


def check_tls(peer: Peer) -> None:
    """Whether TLS comes to the same for this peer as for all others: what is compared must be the same work."""
    for door in ("", *peer.doors) if peer.tls else ():
        once = {"mode": "handshakes", "sessions": 1, "warmup": 0, "duration": 0.1}
        raw = run_load(peer.target(door), **once, **peer.load_options())
        expected = TLS_AGREED[door]
        if raw["errors"] or raw["tls"].lower() != expected.lower():
            why = raw["first_error"] or f"TLS came to {raw['tls']!r}"
            raise Unavailable(f"{why}; expected {expected!r}: {peer.log_tail()[-300:]}")


class IdleLoad:
    """Sessions that are held open until released."""

    def __init__(self, peer: Peer, sessions: int) -> None:
        held = {"mode": "idle", "sessions": sessions, "warmup": 1, "duration": 600, "open_timeout": 180}
        command = load_command(peer.target(), **held, **peer.load_options())
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        first = json.loads(self.process.stdout.readline() or '{"errors": 1, "first_error": "no output"}')
        self.held = int(first.get("sessions", 0)) if first.get("event") == "measuring" else 0
        self.error = "" if self.held else str(first.get("first_error"))

    def release(self) -> dict[str, Any]:
        """Ends the sessions; what the load generator says about them."""
        out, _ = self.process.communicate(timeout=60)
        result: dict[str, Any] = json.loads(out.splitlines()[-1]) if out.strip() else {"errors": 1}
        return result


def rss_kib(pids: Sequence[int]) -> int:
    """Resident memory of the processes together, in KiB."""
    total = 0
    for pid in pids:
        found = re.search(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        total += int(found.group(1)) if found else 0
    return total


def threads_of(pids: Sequence[int]) -> int:
    """Threads of the processes together."""
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)


def _perf_counts() -> bool:
    """Whether the kernel lets us count system calls by its tracepoint."""
    if not shutil.which("perf"):
        return False
    command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", sys.executable, "-c", "pass"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return bool(re.search(r"^\d+,", done.stderr, re.MULTILINE))


class SyscallCounter:
    """Counts system calls of processes, all threads, between start() and stop().

    By the kernel's tracepoint where it can be had (`perf stat`: it hardly slows the process down, so that batches stay
    as large as they are), else by `strace -c`, which does slow it down.
    """

    def __init__(self) -> None:
        self.method = "perf" if _perf_counts() else "strace" if shutil.which("strace") else ""

    def start(self, pids: Sequence[int], seconds: float) -> None:
        """Counts for so many seconds from now."""
        if self.method == "perf":
            listed = ",".join(map(str, pids))
            command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", listed, "sleep", str(seconds)]
        else:
            command = ["timeout", "-s", "INT", str(seconds), "strace", "-c", "-f", "-q"]
            for pid in pids:
                command += ["-p", str(pid)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def stop(self) -> int | None:
        """System calls counted, None when the counter failed."""
        _, text = self.process.communicate(timeout=60)
        if self.method == "perf":
            found = re.search(r"^(\d+),.*raw_syscalls", text, re.MULTILINE)
        else:
            found = re.search(r"^100\.00\s+\S+\s+(?:\S+\s+)?(\d+)\s+(?:\d+\s+)?total", text, re.MULTILINE)
        return int(found.group(1)) if found else None


def syscalls_per_call(counter: SyscallCounter, peer: Peer, seconds: float, **options: Any) -> float | None:
    """Runs the load with the counter attached for the measured time. None where nothing can be counted."""
    pids = peer.pids()
    if not counter.method or not pids:
        return None
    command = load_command(peer.target(), **peer.load_options(), **{**options, "duration": seconds + 0.1})
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert load.stdout is not None
    load.stdout.readline()  # the measured time begins
    counter.start(pids, seconds)
    calls = counter.stop()
    out, _ = load.communicate(timeout=120)
    rate = float(json.loads(out.splitlines()[-1])["per_second"]) if out.strip() else 0.0
    return round(calls / (rate * seconds), 3) if calls is not None and rate else None


def machine() -> dict[str, Any]:
    """The machine, without its name: processor, memory, kernel, Python."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "cpu": cpu.group(1).strip() if cpu else platform.machine(),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "virtual": virtual,
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('-')[0].split('.')[:2])}",
        "python": platform.python_version(),
    }
