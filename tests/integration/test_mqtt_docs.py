"""docs/mqtt.md is true: its configuration runs, and its commands print what it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

pytest.importorskip("mqtt5")

from conftest import missing
from proxy.config import check
from proxy.config.mqtt import DynamicPayload, MqttOptions, NativePayload
from support.documents import Place, examples
from support.routers import ROOT, find_crossbar

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "mqtt.md"
# The piece of a configuration there is no file.
WHOLE = re.sub(r"^```text\n.*?^```$", "", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """What of the document can be tried."""
    path = tmp_path / "mqtt.md"
    path.write_text(WHOLE)
    return path


@pytest.mark.peers
def test_the_example_works(document: Path, tmp_path: Path) -> None:
    """Every command prints what the document says, and the proxy ends in order and with a clean log."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    if shutil.which("mosquitto_pub") is None:
        missing("mosquitto's clients", "apt-get install mosquitto-clients")
    assert program is not None
    (example,) = examples(document)
    (tmp_path / "node").mkdir()
    place = Place(tmp_path / "node", example.files["config.json"], program, ("1883", "8080"))
    try:
        place.wait_ready()
        assert example.steps
        place.try_out(example)
    finally:
        place.router.stop(timeout=20.0)


def test_check_has_nothing_to_say(document: Path, tmp_path: Path) -> None:
    """No errors, nothing that is ignored."""
    (example,) = examples(document)
    path = tmp_path / "proxy.yaml"
    path.write_text(example.files["proxy.yaml"])
    assert check(path) == []


@pytest.mark.parametrize("model", [MqttOptions, NativePayload, DynamicPayload])
def test_every_key_is_there(model: type[BaseModel]) -> None:
    for name in model.model_fields:
        assert f"`{name}`" in WHOLE, name
