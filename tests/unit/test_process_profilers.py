"""Profilers: what is run, kept and published."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.profiling import ENTRIES_MAX, PROFILES_MAX, CProfiler, Profilers, VmProfiler
from support.workers import ME, Reactor, Worker, now


class Scripted:
    """A profiler that finds what it is told to."""

    id = "scripted"

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.obstacle: Exception | None = None
        self.result: Any = [{"fun": "f"}]

    def enable(self) -> None:
        if self.obstacle is not None:
            raise self.obstacle

    def disable(self) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def profiler() -> Scripted:
    return Scripted()


@pytest.fixture
def worker(tmp_path: Path, profiler: Scripted) -> Worker:
    worker = Worker(tmp_path)
    worker.controller._profilers = Profilers(worker.clock, [profiler])
    return worker


def test_the_list(worker: Worker) -> None:
    assert worker("get_profilers") == [{"id": "scripted", "config": {}, "state": "stopped", "started": None}]
    worker("start_profiler", "scripted")
    (shown,) = worker("get_profilers")
    assert shown["state"] == "running"
    assert shown["started"].endswith("Z")
    worker.clock.advance(10)
    assert worker("get_profilers")[0]["state"] == "stopped"


def test_in_the_background(worker: Worker) -> None:
    started = worker("start_profiler", "scripted", 5)
    assert started == {"id": "profile001", "who": 4711, "profiler": "scripted", "runtime": 5, "async": True}
    assert worker.recorder.take() == [("on_profile_started", started, None)]
    worker.fails("crossbar.error.no_such_object", "get_profile", "profile001")
    worker.clock.advance(5)
    finished = {"id": "profile001", "error": None, "profile": [{"fun": "f"}]}
    assert worker.recorder.take() == [("on_profile_finished", finished, None)]
    profile = {"id": "profile001", "profiler": "scripted", "runtime": 5, "profile": [{"fun": "f"}]}
    assert worker("get_profile", "profile001") == profile


def test_while_the_caller_waits(worker: Worker) -> None:
    done = worker.start("start_profiler", "scripted", 5, False)
    assert not done.called
    worker.clock.advance(5)
    assert now(done) == [{"fun": "f"}]
    assert [(name, exclude) for name, _, exclude in worker.recorder.take()] == [
        ("on_profile_started", 4711),
        ("on_profile_finished", 4711),
    ]


@pytest.mark.parametrize("start_async", [True, False])
def test_a_failure_is_told(worker: Worker, profiler: Scripted, start_async: bool) -> None:
    profiler.result = ValueError("no samples")
    done = worker.start("start_profiler", "scripted", 5, start_async)
    worker.clock.advance(5)
    outcome: list[Any] = []
    done.addBoth(outcome.append)
    assert isinstance(outcome[0], Failure) is not start_async
    if not start_async:
        assert outcome[0].value.uri == "crossbar.error.runtime_error"
    event = worker.recorder.take()[-1][1]
    assert event == {"id": "profile001", "error": "ValueError: no samples", "profile": None}
    worker.fails("crossbar.error.no_such_object", "get_profile", "profile001")
    assert worker("get_profilers")[0]["state"] == "stopped"


def test_what_takes_time_to_read(worker: Worker, profiler: Scripted) -> None:
    profiler.result = reading = Deferred()
    worker("start_profiler", "scripted", 1)
    worker.clock.advance(1)
    assert worker("get_profilers")[0]["state"] == "running"
    reading.callback([])
    assert worker("get_profile", "profile001")["profile"] == []


def test_one_at_a_time(worker: Worker) -> None:
    worker("start_profiler", "scripted")
    worker.fails("crossbar.error.already_running", "start_profiler", "scripted")
    worker.clock.advance(10)
    assert worker("start_profiler", "scripted")["id"] == "profile002"


def test_what_is_in_the_way(worker: Worker, profiler: Scripted) -> None:
    profiler.obstacle = ValueError("Another profiling tool is already active")
    assert "already active" in worker.fails("crossbar.error.cannot_start", "start_profiler", "scripted")
    assert worker("get_profilers")[0]["state"] == "stopped"
    assert worker.recorder.take() == []


def test_a_profiler_that_there_is_not(worker: Worker) -> None:
    assert "scripted" in worker.fails("crossbar.error.no_such_object", "start_profiler", "vmprof")


@pytest.mark.parametrize("runtime", [0, -1, 1e9, float("nan"), True, "10"])
def test_runtimes_that_make_no_sense(worker: Worker, runtime: Any) -> None:
    assert "runtime" in worker.fails("crossbar.error.invalid_argument", "start_profiler", "scripted", runtime)


def test_old_profiles_go(worker: Worker) -> None:
    for _ in range(PROFILES_MAX + 1):
        worker("start_profiler", "scripted", 1)
        worker.clock.advance(1)
    worker.fails("crossbar.error.no_such_object", "get_profile", "profile001")
    assert worker("get_profile", f"profile{PROFILES_MAX + 1:03d}")["id"] == f"profile{PROFILES_MAX + 1:03d}"


def busy() -> int:
    return sum(number * number for number in range(2000))


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else profiles")
def test_cprofile_sees_what_the_thread_does(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    assert "cprofile" in [shown["id"] for shown in worker("get_profilers")]
    worker.start("start_profiler", "cprofile", 1, caller=ME)
    for _ in range(3):
        busy()
    worker.clock.advance(1)
    entries = worker("get_profile", "profile001")["profile"]
    (entry,) = [item for item in entries if item["fun"] == "busy"]
    assert entry["count"] == 3
    assert entry["basename"] == Path(__file__).name
    assert entry["type"] == "py"
    assert len(entries) <= ENTRIES_MAX
    assert [item["own"] for item in entries] == sorted((item["own"] for item in entries), reverse=True)


def test_cprofile_ends_when_it_is_told() -> None:
    profiler = CProfiler()
    profiler.enable()
    profiler.disable()
    assert sys.getprofile() is None


class Node:
    """As vmprof has them."""

    def __init__(self, name: str, count: int, *children: Node) -> None:
        self.name, self.count = name, count
        self.children = {child.name: child for child in children}


class VmProf:
    """As much of vmprof as is used."""

    def __init__(self) -> None:
        self.path = ""
        self.obstacle: Exception | None = None

    def enable(self, file: int, period: float) -> None:
        self.path = os.readlink(f"/proc/self/fd/{file}")
        assert os.stat(self.path).st_mode & 0o777 == 0o600
        if self.obstacle is not None:
            raise self.obstacle

    def disable(self) -> None:
        assert os.path.exists(self.path)

    def read_profile(self, path: str) -> VmProf:
        assert path == self.path
        if self.obstacle is not None:
            raise self.obstacle
        return self

    def get_tree(self) -> Node:
        return Node("py:main:1:/x/a.py", 8, Node("py:f:2:/x/b.py", 6, Node("jit:loop", 3)), Node("py:g:3:/x/b.py", 2))


def test_vmprof_is_read_as_a_tree() -> None:
    module = VmProf()
    profiler = VmProfiler(module, Reactor())
    profiler.enable()
    entries = now(profiler.disable())
    assert [(item["fun"], item["level"], item["perc"], item["perc_of_parent"]) for item in entries] == [
        ("main", 0, 100.0, 100.0),
        ("f", 1, 75.0, 75.0),
        ("loop", 2, 37.5, 50.0),
        ("g", 1, 25.0, 25.0),
    ]
    assert entries[1] == {
        "type": "py", "level": 1, "parent": "py:main:1:/x/a.py", "fun": "f", "filename": "/x/b.py", "dirname": "/x",
        "basename": "b.py", "line": "2", "perc": 75.0, "perc_of_parent": 75.0, "count": 6, "parent_count": 8,
    }  # fmt: skip
    assert entries[2]["type"] == "jit"
    assert not os.path.exists(module.path)


@pytest.mark.parametrize("when", ["enable", "read"])
def test_vmprof_leaves_no_file_behind(when: str) -> None:
    module = VmProf()
    profiler = VmProfiler(module, Reactor())
    before = os.listdir("/proc/self/fd")
    if when == "enable":
        module.obstacle = ValueError("already enabled")
        with pytest.raises(ValueError, match="already"):
            profiler.enable()
    else:
        profiler.enable()
        module.obstacle = ValueError("not a profile")
        with pytest.raises(ValueError, match="not a profile"):
            now(profiler.disable())
    assert not os.path.exists(module.path)
    assert os.listdir("/proc/self/fd") == before
