"""The WebSocket client end of the data plane, as it dials routers, against the suite's fuzzing server."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from conformance import wstest
from support.endpoints import free_port
from support.process import Child, wait_until

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(wstest.GROUP_TIMEOUT + 60)]

TESTEE = Path(__file__).with_name("echo_client.py")


def call(url: str) -> str:
    """One of the fuzzing server's services: connect, take its message (if any), leave."""
    with connect(url, compression=None, proxy=None) as connection:
        messages = [str(message) for message in connection]
    return messages[0] if messages else ""


def is_listening(port: int) -> bool:
    """Whether a connection is taken there. (What the server prints comes before it listens.)"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("group", wstest.GROUPS)
def test_group(program: str, group: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    reports = tmp_path / "reports"
    spec = {
        "url": url,
        "outdir": str(reports),
        "cases": [f"{group}.*"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    command = wstest.argv(program, "fuzzingserver", spec, tmp_path)
    server = Child("wstest", ["env", "PYTHONUNBUFFERED=1", *command], cwd=tmp_path, env=wstest.environment())
    try:
        wait_until(lambda: is_listening(port), "the fuzzing server listens", 30.0, 0.05)
        count = int(call(f"{url}/getCaseCount"))
        testee = [sys.executable, str(TESTEE), "127.0.0.1", str(port), wstest.AGENT, str(count)]
        done = subprocess.run(testee, capture_output=True, text=True, timeout=wstest.GROUP_TIMEOUT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        call(f"{url}/updateReports?agent={wstest.AGENT}")
    finally:
        server.kill()
    wstest.check("client", group, wstest.results(reports), wstest.CASES[group])
