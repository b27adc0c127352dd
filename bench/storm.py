"""A reconnect storm: thousands of clients log in at once, while other sessions go on calling."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import time
from pathlib import Path
from statistics import mean
from typing import Any

import measure
from peers.base import Peer

#: What the sessions that go on calling do; theirs is a router that the storm does not reach.
PROBE = {"realm": "calm", "sessions": 10, "rate": 500}
#: Descriptors that a proxy needs besides two for each session.
SPARE_DESCRIPTORS = 200


def sessions_possible(wanted: int) -> int:
    """As many as a process can hold both connections of, by its limit of open descriptors."""
    return min(wanted, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_DESCRIPTORS) // 2)


def go_first(pid: int) -> bool:
    """Lets a process run before all others: what it measures is not to be that it waits for the load generator.

    :returns: whether we may do that here.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
        return True
    return False


class Lines:
    """A load generator that answers each line with a line of JSON."""

    def __init__(self, program: str, target: str, **options: Any) -> None:
        command = measure.load_command(target, program=program, **options)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self) -> dict[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a load generator ended before its time")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise RuntimeError(f"a load generator failed: {found['error']}")
        return found

    def ask(self) -> dict[str, Any]:
        """Ends a period, or makes and awaits a wave."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        """Ends it in peace."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def peak_reset(pids: list[int]) -> None:
    """Forgets the peak of resident memory so far."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_kib(pids: list[int]) -> int:
    """Peak of resident memory since, of all processes together, in KiB."""
    found = [re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{p}/status").read_text(), re.MULTILINE) for p in pids]
    return sum(int(f.group(1)) for f in found if f)


def evenness(wave: dict[str, Any]) -> dict[str, Any]:
    """How even the rate was, from the first tenth of a second with a login to the last login but one.

    :returns: ``per_second`` over the whole wave; ``slowest`` and ``fastest`` tenth of it, logins per second;
        ``idle_seconds``, the longest time without any login.
    """
    slices, width = wave["slices"], wave["slice_seconds"]
    busy = [i for i, n in enumerate(slices) if n]
    if not busy:
        return {"per_second": 0.0, "slowest": 0.0, "fastest": 0.0, "idle_seconds": 0.0}
    active = slices[busy[0] : busy[-1]] or slices[busy[0] :]
    # at most ten parts, none shorter than a slice
    size = max(1, len(active) // 10)
    parts = [mean(active[i : i + size]) / width for i in range(0, len(active) - size + 1, size)]
    gap = longest = 0
    for n in active:
        gap = 0 if n else gap + 1
        longest = max(longest, gap)
    return {
        "per_second": round(wave["joined"] / wave["seconds"], 1) if wave["seconds"] else 0.0,
        "slowest": round(min(parts), 1),
        "fastest": round(max(parts), 1),
        "idle_seconds": round(longest * width, 1),
    }


def measure_storm(peer: Peer, router: int, load: dict[str, Any], *, quick: bool) -> dict[str, Any]:
    """Two waves: all clients connect; then all are cut off and connect again. A peer that is fresh.

    :param router: process number of the router that the clients' sessions are at.
    :param load: options of the load generator.
    """
    pids = peer.pids()
    seconds = 1.0 if quick else 4.0
    common = peer.load_options() | {"auth": load["auth"]}
    # what is set up lazily is not part of the storm
    measure.run_load(peer.target(), mode="logins", sessions=1, duration=0.3, warmup=0.1, **common)
    probe = Lines("wamp-probe", peer.target(), **peer.load_options(), **PROBE)
    storm = None
    try:
        probe.read()
        preferred = go_first(probe.process.pid)
        watched = {"cpu_of": [*pids, router], "timeout": 120}
        storm = Lines("wamp-storm", peer.target(), **load, **peer.load_options(), **watched)
        before_kib = measure.rss_kib(pids)
        time.sleep(0.5)
        probe.ask()
        time.sleep(seconds)
        periods = {"before": probe.ask()}
        peak_reset(pids)
        waves = []
        for name in ("connect", "reconnect"):
            waves.append(storm.ask())
            periods[name] = probe.ask()
            time.sleep(1)
            waves[-1]["held_kib"] = measure.rss_kib(pids)
            waves[-1]["peak_kib"] = peak_kib(pids)
            periods[f"held after {name}"] = probe.ask()
        storm.end()
        time.sleep(2)
        probe.ask()
        time.sleep(seconds)
        periods["after"] = probe.ask()
        after_kib = measure.rss_kib(pids)
    finally:
        if storm is not None:
            storm.end()
        probe.end()
    return figures(waves, periods, pids, router) | {
        "rss_before_kib": before_kib,
        "rss_after_kib": after_kib,
        "probe_goes_first": preferred,
    }


def figures(
    waves: list[dict[str, Any]], periods: dict[str, dict[str, Any]], pids: list[int], router: int
) -> dict[str, Any]:
    """The figures of a storm, of which the second wave is the one that counts most."""
    told = []
    for wave in waves:
        cpu = wave.pop("cpu")
        cpu_ns = sum(cpu[str(pid)]["cpu_ns"] for pid in pids)
        other_ns = wave.pop("machine_busy_ns") - cpu_ns - wave.pop("own_cpu_ns") - cpu[str(router)]["cpu_ns"]
        told.append(
            wave
            | evenness(wave)
            | {
                "cpu_us": round(cpu_ns / wave["joined"] / 1e3, 1) if wave["joined"] else None,
                "other_cpu_share": round(max(other_ns, 0) / (wave["seconds"] * 1e9), 3) if wave["seconds"] else None,
            }
        )
    lost = sum(w["refused"] + w["lost"] + w["unfinished"] for w in told)
    before = periods["before"]["latency_us"]["p99"]
    during = max(periods[name]["latency_us"]["p99"] for name in ("connect", "reconnect"))
    return {
        "sessions": told[0]["sessions"],
        "waves": told,
        "periods": periods,
        "p99_ratio": round(during / before, 3) if before else None,
        "not_joined": lost,
        "peak_kib": max(w["peak_kib"] for w in told),
        "other_cpu_share": max(w["other_cpu_share"] or 0.0 for w in told),
        "per_second": min(w["per_second"] for w in told),
        "evenness": min(round(w["slowest"] / w["per_second"], 3) if w["per_second"] else 0.0 for w in told),
        "errors": lost,
        "first_error": next((w["first_error"] for w in told if w["first_error"]), ""),
    }


def brief(result: dict[str, Any]) -> str:
    """One result in one line."""
    waves = ", ".join(
        f"{w['joined']} in {w['seconds']:.1f} s ({w['slowest']:.0f} to {w['fastest']:.0f}/s)" for w in result["waves"]
    )
    p99 = {name: round(period["latency_us"]["p99"]) for name, period in result["periods"].items()}
    trouble = f"  {result['not_joined']} NOT JOINED: {result['first_error']}" if result["not_joined"] else ""
    return f"{waves}; p99 of others {p99} us; peak {result['peak_kib'] / 1024:.0f} MiB{trouble}"
