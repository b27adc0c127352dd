"""The procedures of every native process: shapes, types and errors, as Crossbar.io's callers know them."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from proxy.processinfo import SOCKETS_MAX, ProcessMonitor, process_info
from support.workers import Worker

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


# --- CPUs ---


@pytest.fixture
def affinity() -> Iterator[set[int]]:
    """The CPUs of this process, which are given back to it."""
    before = os.sched_getaffinity(0)
    yield before
    for task in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(task), before)


def test_cpus_are_counted(worker: Worker) -> None:
    assert worker("get_cpu_count") == psutil.cpu_count()
    assert worker("get_cpu_count", logical=False) == psutil.cpu_count(logical=False)
    assert worker("get_cpus") == worker("get_cpu_affinity") == sorted(os.sched_getaffinity(0))


def test_every_thread_is_bound(worker: Worker, affinity: set[int]) -> None:
    first = min(affinity)
    end = threading.Event()
    ids: list[int] = []
    thread = threading.Thread(target=lambda: (ids.append(threading.get_native_id()), end.wait()))
    thread.start()
    try:
        while not ids:
            time.sleep(0.001)
        assert worker("set_cpu_affinity", [first], False) == [first]
        assert os.sched_getaffinity(ids[0]) == os.sched_getaffinity(0) == {first}
        assert worker("get_cpu_affinity") == [first]
        assert worker("get_cpus") == sorted(affinity), "those of the start"
        assert worker("set_cpu_affinity", list(range(len(affinity)))) == sorted(affinity)
        assert os.sched_getaffinity(ids[0]) == affinity
    finally:
        end.set()
        thread.join()
    assert worker.recorder.take() == [
        ("on_cpu_affinity_set", {"cpus": [first], "relative": False, "affinity": [first], "who": 4711}, 4711),
        (
            "on_cpu_affinity_set",
            {"cpus": list(range(len(affinity))), "relative": True, "affinity": sorted(affinity), "who": 4711},
            4711,
        ),
    ]


def test_relative_numbers_are_indices(worker: Worker, affinity: set[int]) -> None:
    assert worker("set_cpu_affinity", [len(affinity) - 1]) == [max(affinity)]


@pytest.mark.parametrize(
    ("cpus", "relative", "uri"),
    [
        ([4096], True, "crossbar.error.invalid_argument"),
        ([-1], True, "crossbar.error.invalid_argument"),
        (["0"], True, "crossbar.error.invalid_argument"),
        ("0", True, "crossbar.error.invalid_argument"),
        ([0], 1, "crossbar.error.invalid_argument"),
        ([], True, "crossbar.error.runtime_error"),
        ([], False, "crossbar.error.runtime_error"),
        ([1_000_000], False, "crossbar.error.runtime_error"),
        ([-1], False, "crossbar.error.runtime_error"),
        ([1 << 70], False, "crossbar.error.runtime_error"),
    ],
)
def test_cpus_that_there_are_not(worker: Worker, affinity: set[int], cpus: Any, relative: Any, uri: str) -> None:
    worker.fails(uri, "set_cpu_affinity", cpus, relative)
    assert os.sched_getaffinity(0) == affinity
    assert worker.recorder.take() == []


def test_a_cpu_that_there_is_not_beside_one_that_there_is_changes_nothing(worker: Worker, affinity: set[int]) -> None:
    first, unknown = min(affinity), 1000
    message = worker.fails("crossbar.error.runtime_error", "set_cpu_affinity", [first, unknown], False)
    assert str(unknown) in message
    assert os.sched_getaffinity(0) == affinity


# --- numbers ---

STATS = {
    "ts": str, "time": int, "pid": int, "status": str, "voluntary": int, "nonvoluntary": int, "user": float,
    "system": float, "cpu_percent": float, "resident": int, "virtual": int, "mem_percent": float, "reads": int,
    "writes": int,
}  # fmt: skip
MONITOR = {
    "type": str, "pid": int, "status": str, "num_fds": int, "num_threads": int, "num_ctx_switches_voluntary": int,
    "num_ctx_switches_involuntary": int, "read_ios": int, "write_ios": int, "read_bytes": int, "write_bytes": int,
    "cpu_user": float, "cpu_system": float,
}  # fmt: skip
GROWING = (
    "read_ios", "write_ios", "read_bytes", "write_bytes", "cpu_user", "cpu_system", "num_ctx_switches_voluntary",
    "num_ctx_switches_involuntary",
)  # fmt: skip


def shape(shown: dict[str, Any]) -> dict[str, type]:
    """Type of each value."""
    return {key: type(value) for key, value in shown.items()}


def test_statistics(worker: Worker) -> None:
    stats = worker("get_process_stats")
    assert shape(stats) == STATS
    assert stats["pid"] == os.getpid()
    assert STAMP.fullmatch(stats["ts"])
    assert abs(stats["time"] - time.time_ns()) < 60e9


def test_the_monitor_shows_rates_from_the_second_reading_on(worker: Worker) -> None:
    first = worker("get_process_monitor")
    assert shape(first) == MONITOR
    assert first["type"] == "native"
    second = worker("get_process_monitor")
    assert shape(second) == MONITOR | {f"{name}_per_sec": int for name in GROWING}


def test_rates_are_per_second() -> None:
    monitor = ProcessMonitor("proxy")
    current = monitor.read() | {"read_ios": 100, "write_ios": None}
    assert "read_ios_per_sec" not in monitor.add_rates(current, 1_000_000_000)
    later = monitor.add_rates(current | {"read_ios": 300}, 5_000_000_000)
    assert later["read_ios_per_sec"] == 50
    assert "write_ios_per_sec" not in later
    assert monitor.add_rates(current | {"read_ios": 310}, 6_000_000_000)["read_ios_per_sec"] == 10


def test_descriptors_and_sockets(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "some.sock"
    with (
        (tmp_path / "file").open("w"),
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as server6,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(path))
        unix.listen()
        info = worker("get_process_info")
        port, port6 = server.getsockname()[1], server6.getsockname()[1]
        mine = f"127.0.0.1:{client.getsockname()[1]}"
    assert shape(info) == {"descriptors": int, "threads": int, "files": list, "sockets": list}
    assert info["files"] == sorted(info["files"])
    assert str(tmp_path / "file") in info["files"]
    assert {"type": "tcp4", "local": f"127.0.0.1:{port}", "remote": "", "status": "LISTEN"} in info["sockets"]
    assert {"type": "tcp6", "local": f"::1:{port6}", "remote": "", "status": "LISTEN"} in info["sockets"]
    assert {
        "type": "tcp4", "local": mine, "remote": f"127.0.0.1:{port}", "status": "ESTABLISHED",
    } in info["sockets"]  # fmt: skip
    assert {"type": "unix", "local": str(path), "remote": "", "status": "NONE"} in info["sockets"]


def test_the_list_of_sockets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    process = psutil.Process()
    server = socket.create_server(("127.0.0.1", 0))
    with server:
        item = next(entry for entry in process.net_connections() if entry.fd == server.fileno())
    monkeypatch.setattr(process, "net_connections", lambda kind: [item] * (SOCKETS_MAX + 1))
    assert len(process_info(process)["sockets"]) == SOCKETS_MAX


def test_what_the_system_keeps_to_itself_is_null(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise psutil.AccessDenied

    for name in ("io_counters", "net_connections", "open_files"):
        monkeypatch.setattr(psutil.Process, name, denied)
    stats = worker("get_process_stats")
    assert (stats["reads"], stats["writes"]) == (None, None)
    monitor = [worker("get_process_monitor") for _ in range(2)][1]
    assert monitor["read_ios"] is None
    assert "read_ios_per_sec" not in monitor
    info = worker("get_process_info")
    assert (info["files"], info["sockets"]) == ([], [])


# --- periodic statistics ---


def test_statistics_are_published_time_and_again(worker: Worker) -> None:
    assert worker("set_process_stats_monitoring", 2) is None
    worker.clock.advance(2)
    worker.clock.advance(2)
    assert worker("set_process_stats_monitoring", 0) is None
    worker.clock.advance(10)
    events = worker.recorder.take()
    assert [(name, exclude) for name, _, exclude in events] == [
        ("on_process_stats", None),
        ("on_process_stats_monitoring_set", 4711),
        ("on_process_stats", None),
        ("on_process_stats", None),
        ("on_process_stats_monitoring_set", 4711),
    ]
    assert [event["seq"] for name, event, _ in events if name == "on_process_stats"] == [1, 2, 3]
    assert shape(events[0][1]) == STATS | {"seq": int}
    assert [event for name, event, _ in events if name.endswith("set")] == [2, 0]
    assert worker.clock.getDelayedCalls() == []


def test_another_interval_replaces_the_first(worker: Worker) -> None:
    worker("set_process_stats_monitoring", 1)
    worker("set_process_stats_monitoring", 60.0)
    worker.recorder.take()
    worker.clock.advance(59)
    assert worker.recorder.take() == []
    worker.clock.advance(1)
    assert [event["seq"] for _, event, _ in worker.recorder.take()] == [3]
    worker("set_process_stats_monitoring", 0)


def test_off_while_off_says_nothing(worker: Worker) -> None:
    worker("set_process_stats_monitoring", 0)
    assert worker.recorder.take() == []


@pytest.mark.parametrize("interval", [-1, 0.0001, 1e9, float("nan"), float("inf"), True, "1", None])
def test_intervals_that_make_no_sense(worker: Worker, interval: Any) -> None:
    message = worker.fails("crossbar.error.invalid_argument", "set_process_stats_monitoring", interval)
    assert "interval" in message
    assert worker.recorder.take() == []


# --- the rest ---


def test_garbage_is_collected(worker: Worker) -> None:
    duration = worker("trigger_gc")
    assert type(duration) is int
    requester = {"session_id": 4711, "auth_id": "joe", "auth_role": "admin"}
    assert worker.recorder.take() == [("on_gc_finished", {"requester": requester, "duration": duration}, 4711)]


def test_times(worker: Worker) -> None:
    assert STAMP.fullmatch(worker("started"))
    assert STAMP.fullmatch(worker("utcnow"))
    assert worker("started") <= worker("utcnow")
    assert type(worker("uptime")) is float
    assert 0 <= worker("uptime") < 60


def test_the_python_path(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/one", "/two"])
    (tmp_path / "lib").mkdir()
    (tmp_path / "other").mkdir()
    lib, other = str(tmp_path / "lib"), str(tmp_path / "other")
    assert worker("get_pythonpath") == ["/one", "/two"]
    result = worker("add_pythonpath", ["lib"])
    assert result == {
        "paths": [lib, "/one", "/two"],
        "paths_added": [{"requested": "lib", "resolved": lib}],
        "prepend": True,
        "who": 4711,
    }
    assert worker.recorder.take() == [("on_pythonpath_add", result, 4711)]
    assert worker("add_pythonpath", ["x/../other", other], prepend=False)["paths"] == [lib, "/one", "/two", other]
    assert worker("add_pythonpath", [lib], False)["paths"] == ["/one", "/two", other, lib], "once each"
    assert sys.path == worker("get_pythonpath") == ["/one", "/two", other, lib]


@pytest.mark.parametrize("paths", [["lib", "nope"], ["file"], ["a\0b"], "lib", [1]])
def test_paths_that_are_no_folders(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: Any) -> None:
    monkeypatch.setattr(sys, "path", ["/one"])
    (tmp_path / "lib").mkdir()
    (tmp_path / "file").touch()
    worker.fails("crossbar.error.invalid_argument", "add_pythonpath", paths)
    assert sys.path == ["/one"], "none of them"
    assert worker.recorder.take() == []
