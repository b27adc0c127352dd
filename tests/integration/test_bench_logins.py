"""The load generators' logins, storms and probes, through a running proxy."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import missing

BENCH = Path(__file__).resolve().parents[2] / "bench"
COMPILER = shlex.split(os.environ.get("CC", "cc"))[0]

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which("make")),
    reason=f"no C compiler ({COMPILER}) or no make: the benchmark tools are NOT tested",
)


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """bench/measure.py, with tools of its own."""
    build = tmp_path_factory.mktemp("tools")
    command = ["make", "-C", str(BENCH / "native"), f"BUILD={build}", "CFLAGS=-O1 -g -Werror"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "openssl/" in done.stderr and "No such file" in done.stderr:
        missing("OpenSSL's headers", "apt install libssl-dev")
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import measure as module

        patch.setattr(module, "TOOLS", build)
        yield module
    for name in ("measure", "storm"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def running(measure: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, Any]]:
    """The set-up that stands for a proxy beside a Crossbar.io node, its router, and the router of the calm realm."""
    from peers.ours import OursAsserting

    folder = tmp_path_factory.mktemp("peer")
    (folder / "calm").mkdir()
    calm = measure.Router(folder / "calm", OursAsserting.router_options)
    router = measure.Router(folder, OursAsserting.router_options, calm.backend)
    peer = OursAsserting()
    try:
        peer.start(folder, router.backend)
        yield peer, router, calm
    finally:
        peer.stop()
        router.stop()
        calm.stop()


@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
@pytest.mark.parametrize("method", ["ticket", "wampcra", "cryptosign"])
def test_users_log_in_as_themselves(measure: ModuleType, running: Any, method: str, serializer: str) -> None:
    peer = running[0]
    options = {"mode": "logins", "sessions": 4, "duration": 0.2, "warmup": 0, "auth": method, "serializer": serializer}
    raw = measure.run_load(peer.target(), **options)
    assert raw["errors"] == 0, raw["first_error"]
    assert raw["count"] > 0


@pytest.mark.parametrize("method", ["ticket", "wampcra", "cryptosign"])
def test_a_set_up_is_measured_only_if_it_refuses_wrong_secrets(measure: ModuleType, running: Any, method: str) -> None:
    from peers.base import Unavailable

    measure.check_logins(running[0], method)
    with pytest.raises(Unavailable, match="a WELCOME for somebody else"):
        # one that asks nobody for anything: the stand-in router itself
        measure.check_logins(_Direct(running[1].backend.port), method)


class _Direct:
    path = "/"

    def __init__(self, port: int) -> None:
        self._port = port

    def target(self) -> str:
        return f"tcp:127.0.0.1:{self._port}"

    def load_options(self) -> dict[str, str]:
        return {"path": self.path}

    def log_tail(self) -> str:
        return ""


def test_a_storm_is_counted_to_its_last_client(measure: ModuleType, running: Any) -> None:
    import storm

    peer, router, _ = running
    result = storm.measure_storm(peer, router.process.pid, {"sessions": 150, "auth": "ticket"}, quick=True)
    assert result["not_joined"] == 0, result["first_error"]
    assert [w["joined"] for w in result["waves"]] == [150, 150]
    assert [sum(w["slices"]) for w in result["waves"]] == [150, 150]
    assert result["peak_kib"] >= result["rss_before_kib"] > 0
    assert all(period["calls"] and not period["skipped"] for period in result["periods"].values())
    assert storm.brief(result)


def test_refused_clients_of_a_storm_are_told_apart(measure: ModuleType, running: Any) -> None:
    import storm

    clients = storm.Lines("wamp-storm", running[0].target(), sessions=20, auth="ticket", secret="wrong", timeout=30)
    try:
        wave = clients.ask()
    finally:
        clients.end()
    assert (wave["joined"], wave["refused"], wave["unfinished"]) == (0, 20, 0)
    assert "authentication_failed" in wave["first_error"]


def test_evenness_sees_a_pause(measure: ModuleType) -> None:
    import storm

    even = storm.evenness({"slices": [0, 10, 10, 10, 10, 1], "slice_seconds": 0.1, "joined": 41, "seconds": 0.5})
    assert (even["slowest"], even["fastest"], even["idle_seconds"]) == (100, 100, 0)
    paused = storm.evenness({"slices": [20, 0, 0, 0, 20, 1], "slice_seconds": 0.1, "joined": 41, "seconds": 0.5})
    assert (paused["slowest"], paused["idle_seconds"]) == (0, 0.3)
