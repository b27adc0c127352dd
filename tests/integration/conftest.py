"""Fixtures of the tests of web services that need no data plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.web_client import StageProcess, WebStage


@pytest.fixture(scope="module")
def stage_process() -> Iterator[StageProcess]:
    """A process for webs on sockets of Twisted's."""
    process = StageProcess()
    yield process
    process.stop()


@pytest.fixture
def stage(stage_process: StageProcess, tmp_path: Path) -> Iterator[Callable[..., WebStage]]:
    """Start a web with these paths; its folder is ``web0`` in the test's, the next one's ``web1``."""
    made: list[WebStage] = []

    def make(paths: dict[str, Any], options: dict[str, Any] | None = None, **keys: Any) -> WebStage:
        made.append(stage_process.start(tmp_path / f"web{len(made)}", paths, options, **keys))
        return made[-1]

    yield make
    for one in made:
        one.stop()
