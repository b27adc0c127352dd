"""The tools that the benchmarks rest on: they build, and what they count is what happened."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
COMPILER = shlex.split(os.environ.get("CC", "cc"))[0]

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which("make")),
    reason=f"no C compiler ({COMPILER}) or no make: the benchmark tools are NOT tested",
)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("tools")
    flags = "CFLAGS=-O1 -g -Werror"
    done = subprocess.run(
        ["make", "-C", str(BENCH / "native"), f"BUILD={build}", flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return build


class Router:
    def __init__(self, tools: Path, path: Path) -> None:
        self.target = f"unix:{path}"
        command = [str(tools / "wamp-router"), "--listen", self.target]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "wamp-router ready\n"

    def stop(self) -> dict[str, Any]:
        self.process.terminate()
        out, _ = self.process.communicate(timeout=10)
        counts: dict[str, Any] = json.loads(out)
        return counts


@pytest.fixture
def router(tools: Path, tmp_path: Path) -> Iterator[Router]:
    it = Router(tools, tmp_path / "r.sock")
    yield it
    it.process.kill()
    it.process.wait()


def load(tools: Path, router: Router, *options: str) -> dict[str, Any]:
    command = [str(tools / "wamp-load"), "--target", router.target, "--warmup", "0.05", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("serializer", ["cbor", "msgpack", "json"])
@pytest.mark.parametrize("transport", ["websocket", "rawsocket"])
def test_calls_come_back_unharmed(tools: Path, router: Router, transport: str, serializer: str) -> None:
    options = ["--sessions", "5", "--inflight", "4", "--payload", "300", "--duration", "0.15", "--transport", transport]
    result = load(tools, router, *options, "--serializer", serializer)
    assert result["errors"] == 0, result["first_error"]
    assert result["count"] > 0
    latency = result["latency_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99_9"] <= latency["max"] * 1.02
    counts = router.stop()
    assert counts["sessions"] == 5
    assert counts["joined"] == 0, "every session said GOODBYE"
    assert counts["calls"] >= result["count"]


def test_direct_run_of_one_second(tools: Path, router: Router) -> None:
    options = ["--sessions", "10", "--inflight", "16", "--duration", "1", "--cpu-of", str(router.process.pid)]
    result = load(tools, router, *options)
    assert result["errors"] == 0, result["first_error"]
    assert result["count"] > 0
    assert result["cpu"][str(router.process.pid)]["cpu_ns"] > 0
    assert result["seconds"] == pytest.approx(1, rel=0.5)


def test_large_messages(tools: Path, router: Router) -> None:
    result = load(tools, router, "--payload", str(300_000), "--sessions", "2", "--inflight", "3", "--duration", "0.1")
    assert result["errors"] == 0, result["first_error"]
    assert result["count"] > 0


def test_logins_are_new_sessions(tools: Path, router: Router) -> None:
    result = load(tools, router, "--mode", "logins", "--sessions", "4", "--duration", "0.2")
    assert result["errors"] == 0, result["first_error"]
    assert router.stop()["sessions"] >= result["count"] > 0


def test_idle_sessions_are_held_until_released(tools: Path, router: Router) -> None:
    command = [str(tools / "wamp-load"), "--target", router.target, "--mode", "idle", "--sessions", "50"]
    process = subprocess.Popen(
        [*command, "--duration", "60", "--warmup", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"event": "measuring", "sessions": 50}
    out, _ = process.communicate(timeout=20)  # closes its standard input
    assert json.loads(out)["errors"] == 0
    assert router.stop()["joined"] == 0


def test_a_lost_router_is_an_error(tools: Path, router: Router) -> None:
    router.stop()
    result = load(tools, router, "--sessions", "1", "--duration", "0.1")
    assert result["errors"] > 0
    assert "refused" in result["first_error"]


@pytest.mark.parametrize(
    "arguments", [["--target", "tcp:nowhere:1"], ["--target", "unix:/x", "--serializer", "ubjson"], ["--sessions"]]
)
def test_bad_arguments_are_named(tools: Path, arguments: list[str]) -> None:
    done = subprocess.run([str(tools / "wamp-load"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert arguments[-2 if len(arguments) > 1 else -1] in done.stderr


def test_report_takes_ratios_within_a_round(tmp_path: Path) -> None:
    sys.path.insert(0, str(BENCH))
    try:
        import report
    finally:
        sys.path.remove(str(BENCH))

    def rounds(*cpu: float) -> list[dict[str, Any]]:
        latency = {"p50": 10.0, "p99": 20.0, "p99_9": 30.0}
        return [{"cpu_us": c, "per_second": 1e6 / c, "cpu_share": 0.5, "latency_us": latency, "errors": 0} for c in cpu]

    results = {
        "taken": "2026-01-01",
        "quick": False,
        "rounds": 3,
        "placement": "split",
        "machine": {"cpu": "X", "cores": 2, "virtual": True, "memory_gib": 1, "kernel": "Linux 6.1", "python": "3.11"},
        "peers": {n: {"label": n, "version": "1", "setup": "-"} for n in ("ours", "haproxy")},
        "missing": {"nginx": "not installed"},
        "scenarios": {"calls-10x16": {"text": "work", "kind": "calls"}},
        "syscalls_per_call": {"calls-10x16": {"ours": 0.25}},
        "syscalls_counted_by": "perf",
        # a machine that is slower in round 2 is slower for both: the ratio of the medians would be 1
        "data": {"calls-10x16": {"ours": rounds(1.0, 4.0, 2.0), "haproxy": rounds(2.0, 8.0, 1.0)}},
    }
    report.write(results, tmp_path)
    written = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert [(t["median"], t["reached"]) for t in written["targets"]] == [(0.5, True)]
    text = (tmp_path / "latest.md").read_text(encoding="utf-8")
    assert "| ours |" in text
    assert "nginx: LEFT OUT" in text
