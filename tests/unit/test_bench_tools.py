"""The tools that the benchmarks rest on: they build, and what they count is what happened."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from websockets.sync.client import unix_connect

from conftest import missing

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
    if "openssl/" in done.stderr and "No such file" in done.stderr:
        missing("OpenSSL's headers", "apt install libssl-dev")
    assert done.returncode == 0, done.stderr
    return build


class Router:
    def __init__(self, tools: Path, path: Path, *options: str) -> None:
        self.path = str(path)
        self.target = f"unix:{path}"
        command = [str(tools / "wamp-router"), "--listen", self.target, *options]
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


# --- session IDs -----------------------------------------------------------------------------------------------------

SERIALIZERS = ["cbor", "msgpack", "json"]
BUSY = ["--sessions", "6", "--inflight", "4", "--duration", "0.15"]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_events_name_their_publisher(tools: Path, router: Router, serializer: str) -> None:
    result = load(tools, router, "--mode", "events", *BUSY, "--serializer", serializer)
    assert result["errors"] == 0, result["first_error"]
    counts = router.stop()
    assert counts["events"] >= result["count"] > 0
    assert counts["events"] == 6 * counts["publications"]
    assert counts["sessions"] == 7
    assert counts["joined"] == 0


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_invocations_name_their_caller(tools: Path, router: Router, serializer: str) -> None:
    result = load(tools, router, "--mode", "invocations", *BUSY, "--serializer", serializer)
    assert result["errors"] == 0, result["first_error"]
    counts = router.stop()
    assert counts["invocations"] >= result["count"] > 0
    assert counts["invocations"] == 6 * counts["calls"]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_lists_of_session_ids_are_read_by_the_router(tools: Path, router: Router, serializer: str) -> None:
    result = load(tools, router, "--mode", "publishes", "--listed", "3", *BUSY, "--serializer", serializer)
    assert result["errors"] == 0, result["first_error"]
    counts = router.stop()
    assert counts["publications"] >= result["count"] > 0
    assert counts["session_ids_listed"] == 6 * counts["publications"], "3 excluded, 3 eligible"
    assert counts["errors"] == 0


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_sessions_learn_whether_their_ids_are_the_routers(
    tools: Path, router: Router, tmp_path: Path, serializer: str
) -> None:
    options = ["--mode", "identify", "--sessions", "5", "--duration", "0.05", "--serializer", serializer]
    result = load(tools, router, *options)
    assert (result["errors"], result["session_ids_replaced"]) == (0, 0), result["first_error"]
    if serializer != "json":
        return
    relay = Relay(tmp_path / "relay.sock", router.path, rb"(\[2,)(\d)")
    command = [str(tools / "wamp-load"), "--target", f"unix:{relay.path}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    relay.listener.close()
    assert json.loads(done.stdout.splitlines()[-1])["session_ids_replaced"] == 5


class Relay:
    """Between load generator and router: swaps digits in what the router sends."""

    def __init__(self, path: Path, target: str, pattern: bytes) -> None:
        self.target, self.pattern = target, re.compile(pattern)
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                front, _ = self.listener.accept()
            except OSError:
                return
            back = socket.socket(socket.AF_UNIX)
            back.connect(self.target)
            threading.Thread(target=self.pump, args=(front, back, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(back, front, True), daemon=True).start()

    def pump(self, source: socket.socket, target: socket.socket, changes: bool) -> None:
        try:
            while data := source.recv(1 << 20):
                if changes:
                    data = self.pattern.sub(lambda m: m[1] + (b"2" if m[2] == b"1" else b"1"), data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction ended first


@pytest.mark.parametrize(
    ("mode", "pattern", "error"),
    [
        ("events", rb'("publisher":)(\d)', "an EVENT whose publisher is not the session ID that published"),
        ("invocations", rb'("caller":)(\d)', "an INVOCATION whose caller is not the session ID that called"),
        # what a proxy that forgets to replace its own IDs would do
        ("publishes", rb"(\[2,)(\d)", "unknown session ID"),
    ],
)
def test_wrong_session_ids_are_errors(
    tools: Path, router: Router, tmp_path: Path, mode: str, pattern: bytes, error: str
) -> None:
    relay = Relay(tmp_path / "relay.sock", router.path, pattern)
    options = ["--mode", mode, "--listed", "2", "--serializer", "json", *BUSY]
    command = [str(tools / "wamp-load"), "--target", f"unix:{relay.path}", "--warmup", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    relay.listener.close()
    result = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert result["errors"] > 0
    if mode != "publishes":
        assert error in result["first_error"]
        return
    counts = router.stop()  # its ABORT may be lost behind the load generator's own octets
    assert counts["errors"] > 0
    assert error in counts["first_error"]


# --- batches, compression, serializers --------------------------------------------------------------------------------


@pytest.mark.parametrize("deflate", ["", "takeover", "fresh"])
@pytest.mark.parametrize("batched", ["", ".batched"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_batched_and_compressed_calls(tools: Path, router: Router, serializer: str, batched: str, deflate: str) -> None:
    options = [*BUSY, "--document", "1024", "--serializer", serializer + batched]
    result = load(tools, router, *options, *(["--deflate", deflate] if deflate else []))
    assert result["errors"] == 0, result["first_error"]
    assert result["count"] > 0
    assert bool(result["came_compressed"]) == bool(deflate)
    if deflate:
        assert result["octets_sent"] < result["count"] * 900


@pytest.mark.parametrize("mode", ["events", "invocations", "publishes"])
def test_batches_of_other_messages(tools: Path, router: Router, mode: str) -> None:
    result = load(tools, router, "--mode", mode, "--listed", "2", "--serializer", "cbor.batched", *BUSY)
    assert result["errors"] == 0, result["first_error"]
    assert result["count"] > 0


def test_compression_as_others_do_it(router: Router) -> None:
    hello = '[1,"realm1",{"roles":{"caller":{}}}]'
    with unix_connect(router.path, uri="ws://localhost/", subprotocols=["wamp.2.json"], compression="deflate") as ws:
        ws.send(hello)
        assert json.loads(ws.recv())[0] == 2
        for request in range(1, 20):
            ws.send(json.dumps([48, request, {}, "com.example.echo", ["abc " * 50 * request]]))
            assert json.loads(ws.recv()) == [50, request, {}, ["abc " * 50 * request]]


def test_a_compression_that_is_not_granted_is_an_error(tools: Path, router: Router, tmp_path: Path) -> None:
    """Or uncompressed messages would be measured unnoticed."""
    relay = Relay(tmp_path / "relay.sock", router.path, rb"(Extensions: permessage-)(d)")
    command = [str(tools / "wamp-load"), "--target", f"unix:{relay.path}", "--deflate", "fresh", "--duration", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    relay.listener.close()
    assert json.loads(done.stdout.splitlines()[-1])["first_error"] == "another compression than was asked for"


def test_rawsocket_knows_neither_batches_nor_compression(tools: Path, router: Router) -> None:
    for options in (["--deflate", "fresh"], ["--serializer", "json.batched"]):
        command = [str(tools / "wamp-load"), "--target", router.target, "--transport", "rawsocket", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "RawSocket" in done.stderr


def test_the_router_speaks_only_what_it_is_told_to(tools: Path, tmp_path: Path) -> None:
    router = Router(tools, tmp_path / "cbor.sock", "--serializers", "cbor")
    try:
        for serializer, answer in ((1, "7f100000"), (2, "7f100000"), (3, "7ff30000")):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(router.path)
                client.sendall(struct.pack("BBBB", 0x7F, 0xF0 | serializer, 0, 0))
                assert client.recv(4).hex() == answer
        assert "refused" in load(tools, router, "--serializer", "json", "--duration", "0.1")["first_error"]
        assert load(tools, router, "--serializer", "cbor", "--duration", "0.1")["errors"] == 0
    finally:
        router.stop()


# --- scenarios and report ---------------------------------------------------------------------------------------------


@pytest.fixture
def bench() -> Iterator[ModuleType]:
    """bench/run.py, which is a program, as a module."""
    sys.path.insert(0, str(BENCH))
    try:
        import run

        yield run
    finally:
        sys.path.remove(str(BENCH))


def test_scenarios_fit_together(bench: ModuleType) -> None:
    import peers
    import scenarios

    names = [kind.name for kind in peers.EVERY]
    assert len(set(names)) == len(names)
    by_name = {s.name: s for s in scenarios.SCENARIOS}
    assert len(by_name) == len(scenarios.SCENARIOS)
    assert {way.peer for s in scenarios.SCENARIOS for way in s.ways} <= set(names)
    for cost in scenarios.COSTS:
        assert {cost.way, cost.base} <= {way.name for way in by_name[cost.scenario].ways}
        assert 0 < cost.concerned <= 1


def test_our_name_stands_for_all_our_rows(bench: ModuleType) -> None:
    import peers
    import scenarios

    chosen, needed, standard = bench.chosen("ours")
    assert chosen == list(scenarios.SCENARIOS)
    ours = {kind.name for kind in peers.EVERY if kind.family == "ours"}
    assert needed == {way.peer for s in scenarios.SCENARIOS for way in s.ways} & ours | {"ours"}
    assert standard == {"ours"}
    assert bench.chosen("ids-events,haproxy")[1] == {"haproxy"}
    with pytest.raises(SystemExit, match="nonsense"):
        bench.chosen("nonsense")


def rounds(*cpu: float) -> list[dict[str, Any]]:
    latency = {"p50": 10.0, "p99": 20.0, "p99_9": 30.0}
    figures = {"cpu_share": 0.5, "latency_us": latency, "errors": 0, "octets": 169.0}
    return [{"cpu_us": c, "per_second": 1e6 / c} | figures for c in cpu]


RESULTS: dict[str, Any] = {
    "taken": "2026-01-01",
    "quick": False,
    "rounds": 3,
    "placement": "split",
    "machine": {"cpu": "X", "cores": 2, "virtual": True, "memory_gib": 1, "kernel": "Linux 6.1", "python": "3.11"},
    "peers": {n: {"label": n, "version": "1", "setup": "-"} for n in ("ours", "haproxy")},
    "missing": {"nginx": "not installed"},
    "syscalls_per_call": {"calls-10x16": {"ours": 0.25}},
    "syscalls_counted_by": "perf",
}


def test_report_takes_ratios_within_a_round(bench: ModuleType, tmp_path: Path) -> None:
    results = RESULTS | {
        "scenarios": {"calls-10x16": {"text": "work", "kind": "calls"}},
        # a machine that is slower in round 2 is slower for both: the ratio of the medians would be 1
        "data": {"calls-10x16": {"ours": rounds(1.0, 4.0, 2.0), "haproxy": rounds(2.0, 8.0, 1.0)}},
    }
    bench.report.write(results, tmp_path)
    written = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert [(t["median"], t["reached"]) for t in written["targets"]] == [(0.5, True)]
    text = (tmp_path / "latest.md").read_text(encoding="utf-8")
    assert "| ours |" in text
    assert "nginx: LEFT OUT" in text
    assert "What each feature costs" not in text


def test_report_counts_the_whole_difference_for_the_messages_concerned(bench: ModuleType, tmp_path: Path) -> None:
    """10 of 22 messages hold a session ID: 1.2 x for all is 1.44 x for those, which misses the limit of 1.3."""
    ways = {n: {"label": n, "peer": "ours"} for n in ("plain", "proxy")}
    about = {"text": "work", "kind": "feature", "unit": "invocation", "base": "plain", "ways": ways}
    results = RESULTS | {
        "scenarios": {"ids-invocations": about},
        "data": {"ids-invocations": {"plain": rounds(1.0, 4.0, 2.0), "proxy": rounds(1.2, 4.8, 2.4)}},
    }
    bench.report.write(results, tmp_path)
    written = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert [(c["ratio"], c["concerned"], c["reached"]) for c in written["costs"]] == [(1.2, 1.44, False)]
    text = (tmp_path / "latest.md").read_text(encoding="utf-8")
    assert "| 2.00 -> 2.40 | 1.2 | 1.2 .. 1.2 | 1.44 |" in text
