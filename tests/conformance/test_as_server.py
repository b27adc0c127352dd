"""The WebSocket server end of the data plane, in the real process, against the suite's fuzzing client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import wstest
from support.certificates import certificates
from support.endpoints import free_port
from support.process import Child

pytestmark = [pytest.mark.peers, pytest.mark.slow]


# Over TLS: what depends on how octets arrive, on sizes and on ends. The frames themselves are the same.
TLS_GROUPS = ("1", "2", "5", "7")
TLS_COMPRESSION = ("12.1", "13.1")


@pytest.fixture(scope="module")
def url(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a proxy process with an echoing transport listens."""
    yield from serve("ws", {}, tmp_path_factory.mktemp("testee"))


@pytest.fixture(scope="module")
def tls_url(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same behind TLS. The suite takes any certificate."""
    folder = tmp_path_factory.mktemp("testee_tls")
    yield from serve("wss", {"tls": certificates(folder).server_rsa.tls}, folder)


def serve(scheme: str, tls: dict[str, Any], folder: Path) -> Iterator[str]:
    """Run a proxy process with an echoing transport."""
    port = free_port()
    endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": port, **tls}
    options = {"fail_by_drop": False, "compression": {"deflate": {}}}
    config = {
        "type": "proxy",
        "connections": {},
        "routes": {},
        "transports": [{"type": "websocket.testee", "endpoint": endpoint, "options": options}],
    }
    path = folder / "proxy.json"
    path.write_text(json.dumps(config))
    proxy = Child("proxy", [sys.executable, "-m", "proxy", "run", str(path), "--threads", "1"])
    try:
        proxy.wait_line("wamp-proxy ready")
        yield f"{scheme}://127.0.0.1:{port}/"
        assert proxy.stop() == 0, proxy.output
    finally:
        proxy.kill()


def run(program: str, url: str, cases: list[str], folder: Path, timeout: float) -> dict[str, wstest.Result]:
    """Let the fuzzing client run these cases; results by case ID. ``timeout`` in seconds."""
    reports = folder / "reports"
    spec = {
        "outdir": str(reports),
        "servers": [{"agent": wstest.AGENT, "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    command = wstest.argv(program, "fuzzingclient", spec, folder)
    subprocess.run(command, cwd=folder, env=wstest.environment(), capture_output=True, timeout=timeout, check=True)
    return wstest.results(reports)


@pytest.mark.timeout(wstest.GROUP_TIMEOUT + 60)
@pytest.mark.parametrize("group", wstest.GROUPS)
def test_group(program: str, url: str, group: str, tmp_path: Path) -> None:
    found = run(program, url, [f"{group}.*"], tmp_path, wstest.GROUP_TIMEOUT)
    wstest.check("server", group, found, wstest.CASES[group])


@pytest.mark.timeout(wstest.COMPRESSION_TIMEOUT + 60)
@pytest.mark.parametrize("subgroup", wstest.COMPRESSION)
def test_compression(program: str, url: str, subgroup: str, tmp_path: Path) -> None:
    cases = wstest.compression_cases(subgroup)
    found = run(program, url, cases, tmp_path, wstest.COMPRESSION_TIMEOUT)
    wstest.check("server", subgroup, found, len(cases))


@pytest.mark.timeout(wstest.GROUP_TIMEOUT + 60)
@pytest.mark.parametrize("group", TLS_GROUPS)
def test_group_over_tls(program: str, tls_url: str, group: str, tmp_path: Path) -> None:
    found = run(program, tls_url, [f"{group}.*"], tmp_path, wstest.GROUP_TIMEOUT)
    wstest.check("server", group, found, wstest.CASES[group])


@pytest.mark.timeout(wstest.COMPRESSION_TIMEOUT + 60)
@pytest.mark.parametrize("subgroup", TLS_COMPRESSION)
def test_compression_over_tls(program: str, tls_url: str, subgroup: str, tmp_path: Path) -> None:
    cases = wstest.compression_cases(subgroup)
    found = run(program, tls_url, cases, tmp_path, wstest.COMPRESSION_TIMEOUT)
    wstest.check("server", subgroup, found, len(cases))
