"""The benchmark's TLS clients: what they count happened, and what was not as asked for is an error."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import missing

BENCH = Path(__file__).resolve().parents[2] / "bench"
COMPILER = shlex.split(os.environ.get("CC", "cc"))[0]
CIPHER = "TLS_AES_128_GCM_SHA256"

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which("make")),
    reason=f"no C compiler ({COMPILER}) or no make: the benchmark tools are NOT tested",
)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("tools")
    command = ["make", "-C", str(BENCH / "native"), f"BUILD={build}", "CFLAGS=-O1 -g -Werror"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "openssl/" in done.stderr and "No such file" in done.stderr:
        missing("OpenSSL's headers", "apt install libssl-dev")
    assert done.returncode == 0, done.stderr
    return build


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sys.path.insert(0, str(BENCH))
    try:
        from peers.certificates import made

        yield made(tmp_path_factory.mktemp("tls") / "certificates")
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def router(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("router") / "r.sock"
    process = subprocess.Popen(
        [str(tools / "wamp-router"), "--listen", f"unix:{path}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "wamp-router ready\n"
    yield str(path)
    process.kill()
    process.communicate()


class Front:
    """A TLS server that passes what it gets on to the router; a thread to each connection."""

    def __init__(self, router: str, context: ssl.SSLContext) -> None:
        self.router, self.context = router, context
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.target = f"tcp:127.0.0.1:{self.listener.getsockname()[1]}"
        self.clean_ends: queue.SimpleQueue[None] = queue.SimpleQueue()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(plain,), daemon=True).start()

    def serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as back:
            plain.settimeout(20)
            with self.context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as front:
                back.connect(self.router)
                self.relay(front, back)

    def relay(self, front: ssl.SSLSocket, back: socket.socket) -> None:
        while True:
            ready = [front] if front.pending() else select.select([front, back], [], [], 20)[0]
            if front in ready:
                data = front.recv(1 << 16)
                if not data:  # close_notify
                    self.clean_ends.put(None)
                    front.unwrap()
                    return
                back.sendall(data)
            if back in ready:
                data = back.recv(1 << 16)
                if not data:
                    return
                front.sendall(data)

    def close(self) -> None:
        self.listener.close()


def server(certificates: Any, kind: str = "ecdsa") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.servers[kind].certificate, certificates.servers[kind].key)
    return context


@pytest.fixture
def fronts(router: str) -> Iterator[Any]:
    made: list[Front] = []

    def make(context: ssl.SSLContext) -> Front:
        made.append(Front(router, context))
        return made[-1]

    yield make
    for front in made:
        front.close()


def load(tools: Path, front: Front, certificates: Any, *options: str) -> dict[str, Any]:
    command = [str(tools / "wamp-load"), "--target", front.target, "--tls", str(certificates.ca), "--warmup", "0.1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("payload", ["64", "300000"])
@pytest.mark.parametrize("transport", ["websocket", "rawsocket"])
def test_calls_come_back_unharmed(tools: Path, fronts: Any, certificates: Any, transport: str, payload: str) -> None:
    front = fronts(server(certificates))
    options = ["--sessions", "3", "--inflight", "2", "--payload", payload, "--transport", transport]
    result = load(tools, front, certificates, *options, "--duration", "0.3", "--tls-cipher", CIPHER)
    assert result["errors"] == 0, result["first_error"]
    assert result["count"] > 0
    assert result["tls"].lower() == f"TLSv1.3 {CIPHER} x25519 EC-256".lower()
    # octets are counted as they are on the wire: a record's header and tag come on top of frame, message and payload
    # of those in flight when the measured time begins, octets have come already
    assert result["octets_received"] > (result["count"] - 6) * (int(payload) + 22)
    for _ in range(3):
        front.clean_ends.get(timeout=20)


def test_logins_are_full_handshakes(tools: Path, fronts: Any, certificates: Any) -> None:
    result = load(tools, fronts(server(certificates)), certificates, "--mode", "logins", "--duration", "0.3")
    assert result["errors"] == 0, result["first_error"]
    assert result["tls_handshakes"] >= result["count"] - 10 > 0 or result["count"] <= 10
    assert result["tls_resumed"] == 0


@pytest.mark.parametrize(("kind", "key"), [("ecdsa", "EC-256"), ("rsa", "RSA-2048")])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_handshakes_are_full_or_resumed_as_asked_for(
    tools: Path, fronts: Any, certificates: Any, version: str, kind: str, key: str
) -> None:
    front = fronts(server(certificates, kind))
    options = ["--mode", "handshakes", "--sessions", "2", "--duration", "0.3", "--tls-version", version]
    full = load(tools, front, certificates, *options)
    assert full["errors"] == 0, full["first_error"]
    assert full["count"] > 0
    assert full["tls_resumed"] == 0
    assert full["tls"].startswith(f"TLSv{version} ")
    assert full["tls"].endswith(f" {key}")
    resumed = load(tools, front, certificates, *options, "--tls-handshakes", "resumed")
    assert resumed["errors"] == 0, resumed["first_error"]
    assert resumed["tls_resumed"] == resumed["tls_handshakes"] > 0


def test_a_server_that_resumes_nothing_is_an_error(tools: Path, fronts: Any, certificates: Any) -> None:
    context = server(certificates)
    context.num_tickets = 0
    options = ["--mode", "handshakes", "--sessions", "2", "--duration", "0.2", "--tls-handshakes", "resumed"]
    result = load(tools, fronts(context), certificates, *options)
    assert result["first_error"] == "a full handshake where it was to be resumed"


def test_a_ticket_that_is_not_taken_is_an_error(tools: Path, fronts: Any, certificates: Any) -> None:
    class Forgetful(ssl.SSLContext):
        """Takes new ticket keys for each connection."""

        def wrap_socket(self, *args: Any, **options: Any) -> Any:
            return server(certificates).wrap_socket(*args, **options)

    options = ["--mode", "handshakes", "--sessions", "2", "--duration", "0.2", "--tls-handshakes", "resumed"]
    result = load(tools, fronts(Forgetful(ssl.PROTOCOL_TLS_SERVER)), certificates, *options)
    assert result["first_error"] == "TLS: a full handshake where it was to be resumed"


def test_a_server_of_another_authority_is_an_error(tools: Path, fronts: Any, certificates: Any, tmp_path: Path) -> None:
    import peers.certificates as maker

    others = maker.made(tmp_path / "others")
    result = load(tools, fronts(server(others)), certificates, "--duration", "0.1")
    assert result["errors"] > 0
    assert "TLS: " in result["first_error"]
    assert "certificate" in result["first_error"]


def test_another_version_is_an_error(tools: Path, fronts: Any, certificates: Any) -> None:
    context = server(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    result = load(tools, fronts(context), certificates, "--duration", "0.1")
    assert "protocol version" in result["first_error"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--mode", "handshakes"], "needs --tls"),
        (["--tls", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        (["--tls", "CA", "--tls-cipher", "ROT13"], "ROT13"),
        (["--tls", "CA", "--tls-group", "P-1"], "P-1"),
        (["--tls-version", "1.1"], "--tls-version"),
    ],
)
def test_bad_arguments_are_named(tools: Path, certificates: Any, arguments: list[str], named: str) -> None:
    given = [str(certificates.ca) if a == "CA" else a for a in arguments]
    command = [str(tools / "wamp-load"), "--target", "unix:/x", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert named in done.stderr


# --- set-ups and report -----------------------------------------------------------------------------------------------


@pytest.fixture
def bench(certificates: Any) -> ModuleType:
    """bench/run.py, which is a program, as a module."""
    import run

    return run


def test_all_tls_set_ups_show_the_same_certificates(bench: ModuleType, tmp_path: Path) -> None:
    import peers
    from peers.base import TLS_AGREED, Backend, Unavailable
    from peers.certificates import made

    shown = made(tmp_path / "certificates")
    assert made(tmp_path / "certificates") == shown
    for kind in peers.TLS:
        peer = kind()
        peer.workdir = tmp_path / kind.name
        peer.workdir.mkdir()
        peer.port, peer.doors, peer.certificates = 1, {"rsa": 2}, shown
        assert set(TLS_AGREED) == {"", *peer.doors}
        with contextlib.suppress(Unavailable):  # its program is not installed; what it was to read is written
            peer.command(Backend(3, tmp_path / "router.sock"))
        texts = [path.read_text() for path in peer.workdir.rglob("*") if path.is_file()]
        for files in shown.servers.values():
            pair = [str(files.both)] if kind.family == "haproxy" else [str(files.certificate), str(files.key)]
            assert all(any(name in text for text in texts) for name in pair), kind.name
        assert peer.load_options()["tls"] == shown.ca


def test_tls_scenarios_compare_with_haproxy(bench: ModuleType) -> None:
    import peers
    import scenarios

    names = {kind.name for kind in peers.TLS}
    for scenario in scenarios.TLS:
        assert {way.name for way in scenario.ways} == {way.peer for way in scenario.ways} <= names
        assert scenario.base in {way.name for way in scenario.ways}
    targets = {t.scenario for t in bench.report.TARGETS if t.peer == "haproxy-tls"}
    assert targets == {s.name for s in scenarios.TLS if s.kind in ("calls", "handshakes")}


def test_report_compares_what_a_busy_core_could_do(bench: ModuleType, tmp_path: Path) -> None:
    """The load generator may be what limits handshakes per second: they are then the same for all."""

    def rounds(per_cpu_second: float) -> list[dict[str, Any]]:
        latency = {"p50": 10.0, "p99": 20.0, "p99_9": 30.0}
        return [
            {"per_second": 2000.0, "per_cpu_second": per_cpu_second, "cpu_us": 1e6 / per_cpu_second}
            | {"cpu_share": 0.5, "latency_us": latency, "errors": 0}
        ]

    name = "tls-handshakes-rsa"
    results = {
        "taken": "2026-01-01",
        "quick": False,
        "rounds": 1,
        "placement": "split",
        "machine": {"cpu": "X", "cores": 2, "virtual": True, "memory_gib": 1, "kernel": "Linux", "python": "3.11"},
        "peers": {n: {"label": n, "version": "1", "setup": "-"} for n in ("ours-tls", "haproxy-tls")},
        "missing": {},
        "syscalls_per_call": {},
        "syscalls_counted_by": "perf",
        "scenarios": {name: {"text": "work", "kind": "handshakes", "unit": "handshake", "base": "haproxy-tls"}},
        "data": {name: {"ours-tls": rounds(3000.0), "haproxy-tls": rounds(4000.0)}},
    }
    bench.report.write(results, tmp_path)
    written = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert [(t["ours"], t["median"], t["reached"]) for t in written["targets"]] == [("ours-tls", 0.75, False)]
    assert "| ours-tls | 2,000 | 333 | 3,000 | 0.75 |" in (tmp_path / "latest.md").read_text(encoding="utf-8")
