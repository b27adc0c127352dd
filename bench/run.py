"""Side by side: the same work through wamp-proxy, HAProxy, nginx, Crossbar.io's proxy worker, and no proxy.

    python bench/run.py [--quick] [--rounds 3] [--only haproxy,calls-1x1] [--out FOLDER]

Rounds are interleaved: every round goes through all peers for one scenario before the next round begins, so that a
machine that gets slower for a while is slower for all. The features' scenarios compare ways: set-ups of one peer, or
what its clients do. Figures are medians of the rounds; ratios are taken within a
round. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import peers
import report
import storm
from scenarios import FEATURES, LOGINS, METHODS, SCENARIOS, STANDARD, STORM, TLS, Scenario, Way

#: A round is undisturbed when other work takes at most this share of one core.
QUIET = 0.05


class Bench:
    """The peers that run, and all figures taken so far: data[scenario][way] = list of figures, one per round."""

    def __init__(self, options: argparse.Namespace, workdir: Path) -> None:
        self.options = options
        self.workdir = workdir
        self.counter = measure.SyscallCounter()
        self.running: dict[str, tuple[peers.Peer, measure.Router]] = {}
        self.versions: dict[str, str] = {}
        self.setups: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.data: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.syscalls: dict[str, dict[str, float]] = {}
        self.refused: list[str] = []

    def start(
        self, kind: type[peers.Peer], folder: str, calm: peers.Backend | None = None
    ) -> tuple[peers.Peer, measure.Router]:
        """A fresh peer with a stand-in router of its own.

        :param calm: the router of another realm.
        """
        workdir = self.workdir / folder
        workdir.mkdir()
        workdir.chmod(0o755)  # nginx's worker runs as somebody else
        peer = kind()
        router = measure.Router(workdir, peer.router_options, calm)
        try:
            peer.start(workdir, router.backend)
            place(self.options.placement, peer, router)
        except BaseException:
            peer.stop()
            router.stop()
            raise
        return peer, router

    def start_all(self, names: set[str]) -> None:
        """Starts every peer named; one that cannot run here is noted and left out."""
        for kind in peers.EVERY:
            if kind.name not in names:
                continue
            try:
                self.versions[kind.name] = kind().version()
                self.running[kind.name] = self.start(kind, kind.name)
                peer = self.running[kind.name][0]
                measure.check_session_ids(peer)
                measure.check_tls(peer)
                for method in METHODS[1:] if kind.authenticates else ():
                    measure.check_logins(peer, method)
                threads = measure.threads_of(peer.pids())
                self.setups[kind.name] = peer.setup() + (f" (threads: {threads})" if threads else "")
            except peers.Unavailable as why:
                for part in self.running.pop(kind.name, ()):
                    part.stop()
                self.missing[kind.name] = str(why)
                print(f"{kind.name}: LEFT OUT: {why}", file=sys.stderr)

    def stop_all(self) -> None:
        """Ends all peers and routers."""
        for name, (peer, router) in self.running.items():
            peer.stop()
            router.stop()
            if router.counts.get("errors"):
                self.refused.append(f"the router behind {name}: {router.counts['first_error']}")
        self.running.clear()

    def measure(self, scenario: Scenario, way: Way) -> dict[str, Any]:
        """One round of one scenario through one peer."""
        if scenario.kind == "idle":
            return self.measure_idle(scenario, way.peer)
        if scenario.kind == "storm":
            return self.measure_storm(scenario, way)
        peer, router = self.running[way.peer]
        pids = peer.pids()
        seconds = min(scenario.seconds / 3, 1.0) if self.options.quick else scenario.seconds
        warmup = 0.1 if self.options.quick else 0.3
        raw = measure.run_load(
            peer.target(scenario.door),
            **{"mode": scenario.mode, "duration": seconds, "warmup": warmup, "cpu_of": [*pids, router.process.pid]}
            | peer.load_options()
            | dict(scenario.load)
            | dict(way.load),
        )
        if router.process.poll() is not None:
            raise SystemExit(f"the stand-in router of {way.peer} was ended by somebody else: nothing to measure")
        if raw["errors"]:
            print(f"{way.name}: {raw['first_error']}; it printed: {peer.log_tail()[-300:]}", file=sys.stderr)
        return figures(raw, pids, router.process.pid)

    def measure_undisturbed(self, scenario: Scenario, way: Way) -> dict[str, Any]:
        """A round, repeated while other work disturbs it; the least disturbed one counts, whatever its figures are."""
        tries: list[dict[str, Any]] = []
        while True:
            tries.append(self.measure(scenario, way))
            best = min(tries, key=lambda r: float(r.get("other_cpu_share") or 0))
            if (best.get("other_cpu_share") or 0) <= QUIET or len(tries) > self.options.patience:
                return best | {"tries": len(tries)}

    def measure_idle(self, scenario: Scenario, name: str) -> dict[str, Any]:
        """Growth of the resident memory of a fresh process: joined sessions that are held, against none."""
        kind = type(self.running[name][0])
        sessions = kind.idle_sessions or scenario.load["sessions"]
        sessions = min(sessions, 200) if self.options.quick else sessions
        peer, router = self.start(kind, f"{name}-idle-{len(self.data[scenario.name][name])}")
        try:
            # what is set up lazily is not part of a session
            once = {"mode": "logins", "sessions": 1, "duration": 0.3, "warmup": 0.1}
            measure.run_load(peer.target(), **once, **peer.load_options())
            before = measure.rss_kib(peer.pids())
            load = measure.IdleLoad(peer, sessions)
            after = measure.rss_kib(peer.pids())
            raw = load.release()
        finally:
            peer.stop()
            router.stop()
        return {
            "sessions": load.held,
            "rss_before_kib": before,
            "rss_held_kib": after,
            "rss_per_session_kib": round((after - before) / load.held, 2) if load.held else None,
            "errors": raw["errors"],
            "first_error": load.error or raw.get("first_error", ""),
        }

    def measure_storm(self, scenario: Scenario, way: Way) -> dict[str, Any]:
        """A storm through a fresh process."""
        kind = type(self.running[way.peer][0])
        load = {**scenario.load, **way.load}
        load["sessions"] = storm.sessions_possible(kind.storm_sessions or load["sessions"])
        if self.options.quick:
            load["sessions"] = min(load["sessions"], 40 if kind.storm_sessions else 1000)
        folder = self.workdir / f"{way.name}-storm-{len(list(self.workdir.glob('*-storm-*')))}"
        folder.mkdir()
        calm = measure.Router(folder, kind.router_options)
        storm.go_first(calm.process.pid)
        try:
            peer, router = self.start(kind, f"{folder.name}-peer", calm.backend)
            try:
                return storm.measure_storm(peer, router.process.pid, load, quick=self.options.quick)
            finally:
                peer.stop()
                router.stop()
        finally:
            calm.stop()

    def ways(self, scenario: Scenario) -> list[Way]:
        """The ways of a scenario whose peers run."""
        if scenario.ways:
            return [w for w in scenario.ways if w.peer in self.running]
        standard = [kind for kind in peers.ALL if kind.name in self.running and kind.name in self.options.standard]
        return [Way(k.name, k.label, k.name) for k in standard if scenario.kind != "idle" or k.name != "none"]

    def run(self, scenarios: list[Scenario]) -> None:
        """All scenarios, rounds and peers."""
        for scenario in scenarios:
            ways = self.ways(scenario)
            self.data[scenario.name] = {way.name: [] for way in ways}
            for turn in range(self.options.rounds):
                # small differences are looked for between features' ways: none has the same place in every round
                for way in ways[turn % len(ways) :] + ways[: turn % len(ways)] if scenario.ways and ways else ways:
                    result = self.measure_undisturbed(scenario, way)
                    self.data[scenario.name][way.name].append(result)
                    print(f"{scenario.name:15} round {turn + 1}  {way.name:12} {brief(result)}", flush=True)
            if scenario.kind == "calls":
                self.count_syscalls(scenario, [way.peer for way in ways])

    def count_syscalls(self, scenario: Scenario, names: list[str]) -> None:
        """A short run of its own per peer: counting costs time."""
        self.syscalls[scenario.name] = {}
        for name in names:
            seconds = 0.3 if self.options.quick else 1.0
            count = measure.syscalls_per_call(self.counter, self.running[name][0], seconds, **scenario.load)
            if count is not None:
                self.syscalls[scenario.name][name] = count
        print(f"{scenario.name:15} system calls per call: {self.syscalls[scenario.name]}", flush=True)

    def results(self, scenarios: list[Scenario]) -> dict[str, Any]:
        """What goes into latest.json."""
        return {
            "taken": datetime.now(UTC).strftime("%Y-%m-%d"),
            "quick": bool(self.options.quick),
            "rounds": self.options.rounds,
            "placement": self.options.placement,
            "machine": measure.machine() | {"cores": len(CORES)},
            "peers": {
                kind.name: {"label": kind.label, "version": self.versions[kind.name], "setup": self.setups[kind.name]}
                for kind in peers.EVERY
                if kind.name in self.setups
            },
            "missing": self.missing,
            "scenarios": {s.name: self.about(s) for s in scenarios},
            "syscalls_per_call": self.syscalls,
            "syscalls_counted_by": self.counter.method,
            "data": self.data,
        }

    def about(self, scenario: Scenario) -> dict[str, Any]:
        """What the report needs to know of a scenario."""
        ways = {way.name: {"label": way.label, "peer": way.peer} for way in self.ways(scenario)}
        base = scenario.base or (scenario.ways[0].name if scenario.ways else "")
        return {"text": scenario.text, "kind": scenario.kind, "unit": scenario.unit, "base": base, "ways": ways}


CORES = sorted(os.sched_getaffinity(0))
#: Cores of what is measured, cores of the tools.
PLACEMENTS = {"split": (CORES[:1], CORES[1:] or CORES), "one": (CORES[:1], CORES[:1]), "free": (CORES, CORES)}


def place(placement: str, peer: peers.Peer, router: measure.Router) -> None:
    """Moves all threads of a peer to its cores. Without a peer, the router takes its place."""
    for pid in peer.pids() or [router.process.pid]:
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), PLACEMENTS[placement][0])


def figures(raw: dict[str, Any], pids: list[int], router: int) -> dict[str, Any]:
    """The figures of a run out of what the load generator printed: each, count: what this scenario counts."""
    count = raw["count"]
    cpu_ns = sum(raw["cpu"][str(pid)]["cpu_ns"] for pid in pids)
    other_ns = raw["machine_busy_ns"] - cpu_ns - raw["own_cpu_ns"] - raw["cpu"][str(router)]["cpu_ns"]

    def each(ns: float) -> float | None:
        return round(ns / count / 1e3, 3) if count else None

    return {
        "per_second": raw["per_second"],
        "cpu_us": each(cpu_ns) if pids else None,
        "per_cpu_second": round(count / cpu_ns * 1e9, 1) if pids and cpu_ns else None,
        "cpu_user_ms": sum(raw["cpu"][str(pid)]["user_ms"] for pid in pids),
        "cpu_system_ms": sum(raw["cpu"][str(pid)]["system_ms"] for pid in pids),
        "cpu_share": round(cpu_ns / (raw["seconds"] * 1e9), 3) if raw["seconds"] else None,
        "other_cpu_share": round(max(other_ns, 0) / (raw["seconds"] * 1e9), 3) if raw["seconds"] else None,
        "router_cpu_us": each(raw["cpu"][str(router)]["cpu_ns"]),
        "load_cpu_us": each(raw["own_cpu_ns"]),
        "results_per_read": round(count / raw["reads"], 2) if raw["reads"] else None,
        "octets": round((raw["octets_sent"] + raw["octets_received"]) / count, 1) if count else None,
        "latency_us": raw["latency_us"],
        "errors": raw["errors"],
        "first_error": raw["first_error"],
    }


def brief(result: dict[str, Any]) -> str:
    """One result in one line."""
    if "waves" in result:
        return storm.brief(result)
    trouble = f"  {result['errors']} ERRORS: {result['first_error']}" if result["errors"] else ""
    if "rss_per_session_kib" in result:
        return f"{result['rss_per_session_kib']} KiB per idle session ({result['sessions']} held){trouble}"
    cpu = "" if result["cpu_us"] is None else f"{result['cpu_us']:9.3f} us CPU, {result['cpu_share']:.0%} of a core"
    latency = result["latency_us"]
    trouble += (
        f"  (other work: {result['other_cpu_share']:.0%} of a core)" if (result["other_cpu_share"] or 0) > QUIET else ""
    )
    return f"{result['per_second']:10.0f}/s {cpu}  p50 {latency['p50']:.1f} p99 {latency['p99']:.1f} us{trouble}"


GROUPS = {"standard": STANDARD, "authentication": LOGINS + STORM, "tls": TLS, "features": FEATURES}


def chosen(only: str) -> tuple[list[Scenario], set[str], set[str]]:
    """Scenarios, peers to start, and those of the side-by-side tables, out of --only; none of a kind means all of it.

    In the features' tables a peer's name stands for all set-ups of that program.
    """
    words = set(filter(None, only.split(",")))
    names = {kind.name for kind in peers.EVERY}
    known = {s.name for s in SCENARIOS} | names | set(GROUPS)
    if words - known:
        raise SystemExit(f"--only: {', '.join(sorted(words - known))}: unknown; known are {', '.join(sorted(known))}")
    groups = [s for name, group in GROUPS.items() if name in words for s in group]
    scenarios = [s for s in SCENARIOS if s.name in words or s in groups] or list(SCENARIOS)
    asked = names & words or names
    standard = {kind.name for kind in peers.ALL} & asked
    of_features = {kind.name for kind in peers.EVERY if {kind.name, kind.family} & asked}
    needed = {way.peer for s in scenarios for way in s.ways} & of_features
    if any(not s.ways for s in scenarios):
        needed |= standard
    return scenarios, needed, standard


def options_read() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of a second or half, fewer idle sessions")
    parser.add_argument("--rounds", type=int, default=None, help="rounds per scenario (default 3; quick: 1)")
    parser.add_argument("--only", default="", help="scenarios, peers, standard, authentication, tls, features")
    parser.add_argument(
        "--placement",
        choices=sorted(PLACEMENTS),
        default="split",
        help="split (default): a core for what is measured; one: all on one core; free: as the kernel likes",
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=None,
        help="repeat a round up to so often while other work disturbs it (default 2; quick: 0)",
    )
    parser.add_argument("--out", type=Path, help="folder for the tables (bench/results; --quick, --only: results/tmp)")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    if options.patience is None:
        options.patience = 0 if options.quick else 2
    partial = options.quick or options.only
    options.out = options.out or measure.BENCH / "results" / ("tmp" if partial else ".")
    return options


@contextlib.contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    """A Bench whose peers are stopped at the end, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="wamp-bench-") as folder:
        Path(folder).chmod(0o755)
        it = Bench(options, Path(folder))
        try:
            yield it
        finally:
            it.stop_all()


def main() -> int:
    """Runs what the command line asks for; 1 when a run had errors, or when a set-up of ours did not start."""
    options = options_read()
    scenarios, names, options.standard = chosen(options.only)
    measure.build_tools()
    os.sched_setaffinity(0, PLACEMENTS[options.placement][1])  # and what is started from here on
    with bench(options) as it:
        it.start_all(names)
        it.run(scenarios)
        results = it.results(scenarios)
        it.stop_all()  # what the routers have to say comes at their end
    report.write(results, options.out)
    print(f"\n{(options.out / 'latest.md').read_text(encoding='utf-8')}")
    ours = {kind.name for kind in peers.EVERY if kind.family == "ours"}
    broken = [f"{name}: {why}" for name, why in results["missing"].items() if name in ours] + it.refused
    broken += [
        f"{scenario} through {way}: {r['first_error']}"
        for scenario, by_way in results["data"].items()
        for way, rounds in by_way.items()
        for r in rounds
        if r["errors"]
    ]
    for line in broken:
        print(f"ERRORS: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
