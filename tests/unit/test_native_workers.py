"""What ``wamp-proxy crossbar`` tells a node of our worker; with a real node: integration/test_node_command.py."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from proxy.native_workers import WORKER_PROGRAM, worker_program


def test_worker_program_on_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node takes absolute paths only, and changes its folder."""
    program = tmp_path / "tools" / WORKER_PROGRAM
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "tools")
    monkeypatch.setattr(sys, "argv", ["/nowhere/wamp-proxy"])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere")
    assert worker_program() == str(program)
