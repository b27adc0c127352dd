"""The WebSocket server end of the data plane, in the real process, against the suite's fuzzing client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import wstest
from support.endpoints import free_port
from support.process import Child

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(wstest.GROUP_TIMEOUT + 60)]


@pytest.fixture(scope="module")
def url(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a proxy process with an echoing transport listens."""
    port = free_port()
    endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": port}
    config = {
        "type": "proxy",
        "connections": {},
        "routes": {},
        "transports": [{"type": "websocket.testee", "endpoint": endpoint, "options": {"fail_by_drop": False}}],
    }
    path = tmp_path_factory.mktemp("testee") / "proxy.json"
    path.write_text(json.dumps(config))
    proxy = Child("proxy", [sys.executable, "-m", "proxy", "run", str(path), "--threads", "1"])
    try:
        proxy.wait_line("wamp-proxy ready")
        yield f"ws://127.0.0.1:{port}/"
        assert proxy.stop() == 0, proxy.output
    finally:
        proxy.kill()


@pytest.mark.parametrize("group", wstest.GROUPS)
def test_group(program: str, url: str, group: str, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    spec = {
        "outdir": str(reports),
        "servers": [{"agent": wstest.AGENT, "url": url}],
        "cases": [f"{group}.*"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    command = wstest.argv(program, "fuzzingclient", spec, tmp_path)
    subprocess.run(
        command, cwd=tmp_path, env=wstest.environment(), capture_output=True, timeout=wstest.GROUP_TIMEOUT, check=True
    )
    wstest.check("server", group, wstest.results(reports))
