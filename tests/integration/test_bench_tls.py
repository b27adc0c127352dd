"""The benchmark's TLS set-up of the proxy: what is measured is checked first, and the load generators talk to it."""

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
def running(measure: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The set-up with TLS in front, and its router."""
    from peers.ours import OursTls

    folder = tmp_path_factory.mktemp("peer")
    (folder / "calm").mkdir()
    (folder / "it").mkdir()
    calm = measure.Router(folder / "calm", OursTls.router_options)
    router = measure.Router(folder / "it", OursTls.router_options, calm.backend)
    peer = OursTls()
    try:
        peer.start(folder / "it", router.backend)
        yield peer, router
    finally:
        peer.stop()
        router.stop()
        calm.stop()


def test_what_is_measured_is_checked(measure: ModuleType, running: Any) -> None:
    measure.check_session_ids(running[0])
    measure.check_tls(running[0])


def test_a_set_up_with_another_key_is_not_measured(measure: ModuleType, running: Any) -> None:
    from peers.base import Unavailable

    peer = running[0]
    ports = peer.port, peer.doors["rsa"]
    peer.port, peer.doors["rsa"] = reversed(ports)
    try:
        with pytest.raises(Unavailable, match=r"RSA-2048.*expected .*EC-256"):
            measure.check_tls(peer)
    finally:
        peer.port, peer.doors["rsa"] = ports


def test_a_set_up_without_tls_is_not_measured_as_one_with_it(measure: ModuleType, running: Any) -> None:
    from peers.base import Unavailable

    peer, router = running
    port, peer.port = peer.port, router.backend.port
    try:
        with pytest.raises(Unavailable):
            measure.check_tls(peer)
    finally:
        peer.port = port


@pytest.mark.parametrize("load", [{"inflight": 4}, {"payload": 300_000}, {"serializer": "json", "inflight": 4}])
def test_calls_come_back_unharmed(measure: ModuleType, running: Any, load: dict[str, Any]) -> None:
    peer = running[0]
    common = {"sessions": 4, "duration": 0.2, "warmup": 0.05} | peer.load_options()
    raw = measure.run_load(peer.target(), **common, **load)
    assert raw["errors"] == 0, raw["first_error"]
    assert raw["count"] > 0


@pytest.mark.parametrize("door", ["", "rsa"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("which", ["full", "resumed"])
def test_handshakes(measure: ModuleType, running: Any, which: str, version: str, door: str) -> None:
    """Each ends with the peer's end; `resumed` fails when one ticket is not taken."""
    peer = running[0]
    load = {"mode": "handshakes", "sessions": 4, "duration": 0.2, "warmup": 0.2, "tls_handshakes": which}
    options = {**peer.load_options(), "tls_version": version}
    if version == "1.2":
        del options["tls_cipher"]
    raw = measure.run_load(peer.target(door), **load, **options)
    assert raw["errors"] == 0, raw["first_error"]
    assert raw["count"] > 0
    assert raw["tls_resumed"] == (raw["tls_handshakes"] if which == "resumed" else 0)


def test_a_storm_of_tls_clients(measure: ModuleType, running: Any) -> None:
    import storm

    peer, router = running
    result = storm.measure_storm(peer, router.process.pid, {"sessions": 100, "auth": "ticket"}, quick=True)
    assert result["not_joined"] == 0, result["first_error"]
    assert [w["joined"] for w in result["waves"]] == [100, 100]


def test_idle_sessions_are_held(measure: ModuleType, running: Any) -> None:
    load = measure.IdleLoad(running[0], 20)
    assert (load.held, load.error) == (20, "")
    assert load.release()["errors"] == 0


def test_system_calls_are_counted(measure: ModuleType, running: Any) -> None:
    counter = measure.SyscallCounter()
    count = measure.syscalls_per_call(counter, running[0], 0.3, sessions=2, inflight=4)
    assert count is None or count > 0
