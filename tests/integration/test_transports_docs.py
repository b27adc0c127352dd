"""docs/transports.md is true: its configurations run, and its commands print what it says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import missing
from proxy.config import check
from support.balancers import find_haproxy
from support.documents import BLOCK, Example, Place, examples
from support.routers import ROOT, find_crossbar

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "transports.md"
EXAMPLES = list(examples(DOCUMENT))
CONFIGS = [block["text"] for block in BLOCK.finditer(DOCUMENT.read_text()) if str(block["name"]).endswith(".yaml")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The running router of the document."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    config = EXAMPLES[0].files["config.json"]
    place = Place(tmp_path_factory.mktemp("docs"), config, program, ("8000", "8080", "8443"))
    try:
        place.wait_ready()
        yield place
    finally:
        place.router.stop(timeout=20.0)


@pytest.mark.peers
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.slug)
def test_the_examples_work(example: Example, place: Place) -> None:
    """Every command prints what the document says, and the proxy ends in order and with a clean log."""
    for command, _ in example.steps:
        if command.startswith("haproxy") and find_haproxy() is None:
            missing("HAProxy", "apt-get install haproxy")
        if command.startswith("curl") and shutil.which("curl") is None:
            missing("curl", "apt-get install curl")
    place.try_out(example)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_check_has_nothing_to_say(config: str, tmp_path: Path) -> None:
    """No errors, nothing that is ignored. That includes what needs Tor."""
    path = tmp_path / "proxy.yaml"
    path.write_text(config)
    for name in ("server.key", "server.crt"):
        (tmp_path / name).touch()
    assert check(path) == []


def test_everything_has_an_example() -> None:
    """All types of transports and endpoints that there are."""
    text = "\n".join(CONFIGS)
    for word in ("websocket", "rawsocket", "universal", "web", "tcp", "unix", "twisted", "onion"):
        assert re.search(rf"type: {word}\b", text), word
    assert all(example.steps for example in EXAMPLES)
