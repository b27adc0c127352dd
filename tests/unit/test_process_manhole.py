"""The manhole where SSH cannot be spoken. With it: tests/integration/test_manhole.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from support.workers import Worker

CONFIG = {"endpoint": {"type": "unix", "path": "hole.sock"}, "users": [{"user": "joe", "password": "x"}]}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("start_manhole", [CONFIG]), ("start_manhole", [{}]), ("get_manhole", [])],
)
def test_packages_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[Any]
) -> None:
    for module in [module for module in sys.modules if module.startswith("twisted.conch")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    worker = Worker(tmp_path)
    message = worker.fails("crossbar.error.feature_unavailable", name, *arguments)
    assert "bcrypt" in message
    assert 'extra "manhole"' in message
    assert worker.recorder.take() == []


def test_there_is_none_to_stop(tmp_path: Path) -> None:
    Worker(tmp_path).fails("crossbar.error.not_started", "stop_manhole")
