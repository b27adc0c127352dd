"""Procedures of every native process, in a process with a reactor and data threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.controllers import ServiceWorker
from support.process import wait_until


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[ServiceWorker]:
    worker = ServiceWorker(tmp_path)
    yield worker
    worker.stop()


def test_the_data_threads_are_bound_too(worker: ServiceWorker) -> None:
    tasks = Path(f"/proc/{worker.child.pid}/task")
    (_, *others) = [int(task.name) for task in tasks.iterdir()]
    assert others, "there are data threads"
    cpu = max(os.sched_getaffinity(0))
    assert worker("set_cpu_affinity", [cpu], relative=False) == [cpu]
    assert {task.name: os.sched_getaffinity(int(task.name)) for task in tasks.iterdir()} == {
        task.name: {cpu} for task in tasks.iterdir()
    }
    assert worker("get_cpus") == sorted(os.sched_getaffinity(0))


def test_what_is_read_in_a_thread(worker: ServiceWorker, tmp_path: Path) -> None:
    process = psutil.Process(worker.child.pid)
    info = worker("get_process_info")
    assert info["threads"] >= 2
    # While it looks, it holds the folder open that it reads.
    assert abs(info["descriptors"] - process.num_fds()) <= 1
    endpoint = {"type": "unix", "path": str(tmp_path / "front.sock")}
    worker("start_proxy_transport", "front", {"type": "rawsocket", "endpoint": endpoint})
    listening = {"type": "unix", "local": endpoint["path"], "remote": "", "status": "NONE"}
    assert listening in worker("get_process_info")["sockets"]
    assert worker("get_process_monitor")["type"] == "proxy"
    assert "cpu_user_per_sec" in worker("get_process_monitor")


def test_the_reactor_is_profiled(worker: ServiceWorker) -> None:
    profile = worker("start_profiler", "cprofile", 0.5, False)
    assert "doPoll" in {entry["fun"] for entry in profile}
    started = worker("start_profiler", "cprofile", 0.1)

    def is_finished() -> bool:
        return bool(worker("get_profilers")[0]["state"] == "stopped")

    wait_until(is_finished, "the profiler has ended")
    assert worker("get_profile", started["id"])["runtime"] == 0.1


def test_monitoring_and_a_manhole_do_not_keep_the_worker(worker: ServiceWorker, tmp_path: Path) -> None:
    worker("set_process_stats_monitoring", 0.05)
    worker("start_profiler", "cprofile", 3600)
    # The fixture ends it.
