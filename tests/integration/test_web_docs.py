"""docs/web-services.md is true: its files are written down and its commands are run, as its readers would do it.

A block of code is a file where the line before it ends in that file's name; a ``console`` block holds commands for a
shell and what they print. Each ``proxy.yaml`` is one example: it is started, and the commands up to the next one are
run. Commands that stand before the ``proxy.yaml`` of their section are run before it is started.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from conftest import missing
from proxy.config import check
from proxy.config.web import WebServiceConfig
from support.endpoints import free_port
from support.process import Child, peer_environment, wait_until
from support.proxies import NEVER_IN_LOG, READY
from support.routers import ROOT, find_crossbar, unix_answers

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "web-services.md"
BLOCK = re.compile(r"(?:`(?P<name>[\w./-]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND_SECONDS = 60.0
# IDs are other ones each time.
ID = re.compile(r"\b\d{12,16}\b")
UNSUPPORTED = {"wap", "catalog"}


@dataclass
class Example:
    """One configuration of the proxy.

    :ivar title: heading of its section.
    :ivar files: by name, of this example and those before it.
    :ivar steps: commands with what they print.
    :ivar before: those that prepare something.
    """

    title: str
    files: dict[str, str]
    steps: list[tuple[str, list[str]]] = field(default_factory=list)
    before: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        """The proxy's configuration."""
        found: dict[str, Any] = yaml.safe_load(self.files["proxy.yaml"])
        return found


def examples() -> Iterator[Example]:
    """All that the document has. Files that stand before a ``proxy.yaml`` are there for it, and for those after it."""
    text = DOCUMENT.read_text()
    files: dict[str, str] = {}
    current = None
    before: list[tuple[str, list[str]]] = []
    for block in BLOCK.finditer(text):
        name, kind, content = block["name"], block["kind"], block["text"]
        title = HEADING.findall(text, 0, block.start())[-1]
        if kind == "console":
            is_of_current = current is not None and current.title == title
            (current.steps if current is not None and is_of_current else before).extend(commands(content))
            continue
        assert name is not None, f"a block of {kind} that is no file: {content[:200]}"
        files[name] = content
        if name == "proxy.yaml":
            if current is not None:
                yield current
            current = Example(title, dict(files), before=before)
            before = []
    assert current is not None
    yield current


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands of a console block with the lines that each prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield command, lines


EXAMPLES = list(examples())
PORTS = sorted(
    {port for example in EXAMPLES for port in re.findall(r"\b(?:80[89]\d|9\d{3}|8443)\b", str(example.files))}
)


def title_of(example: Example) -> str:
    """Name of a test."""
    return example.title.lower().replace(" ", "-")


class Place:
    """A folder with the router's and the examples' files, and how ports are called today."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in PORTS}

    def localized(self, text: str) -> str:
        """A text of the document with the ports of this machine."""
        for port, real in self.ports.items():
            text = re.sub(rf"\b{port}\b", real, text)
        return text

    def write(self, name: str, text: str) -> None:
        """Write a file of the document."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.localized(text))


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of the document's router, which runs."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    folder = tmp_path_factory.mktemp("router")
    (folder / "config.json").write_text(EXAMPLES[0].files["config.json"])
    argv = [program, "start", "--cbdir", str(folder), "--loglevel", "warn"]
    child = Child("crossbar", argv, cwd=folder, env=peer_environment())
    try:
        wait_until(lambda: unix_answers(str(folder / "router.sock")), "crossbar listens", 90.0, 0.1)
        yield folder / "router.sock"
    finally:
        child.stop(timeout=20.0)


def environment_of(example: Example) -> dict[str, str]:
    """The variables that an example sets; they are there before the proxy is started."""
    exports = [command.removeprefix("export ") for command, _ in example.steps if command.startswith("export ")]
    return dict(item.split("=", 1) for item in exports)


@pytest.mark.parametrize("example", EXAMPLES, ids=title_of)
def test_the_examples_work(example: Example, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every command prints what the document says, and the proxy ends in order and with a clean log."""
    place = Place(tmp_path)
    if example.config.get("routes"):
        (tmp_path / "router.sock").symlink_to(request.getfixturevalue("router"))
    for name, text in example.files.items():
        if name != "config.json":
            place.write(name, text)
    environment = environment_of(example)
    paths = [environment.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", ""), str(ROOT / "src")]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, **environment, "PATH": programs, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    for command, expected in example.before:
        run(place, env, command, expected)
    background: list[Child] = []
    # Servers behind come first.
    steps = [step for step in example.steps if not step[0].startswith("export ")]
    for command, _ in [step for step in steps if step[0].endswith(" &")]:
        argv = place.localized(command).removesuffix("&").split()
        argv[0] = {"python": sys.executable}.get(argv[0], argv[0])
        background.append(Child(argv[0], argv, cwd=tmp_path, env=env))
    argv = [sys.executable, "-m", "proxy", "run", "proxy.yaml", "--log-level", "info"]
    proxy = Child("wamp-proxy", argv, cwd=tmp_path, env=env)
    try:
        proxy.wait_line(READY, 30.0)
        for command, expected in steps:
            if not command.endswith(" &"):
                run(place, env, command, expected)
    finally:
        for child in background:
            child.kill()
        status = proxy.stop()
    assert status == 0, proxy.output
    assert not [line for line in proxy.errors if any(word in line for word in NEVER_IN_LOG)], proxy.output


def run(place: Place, env: dict[str, str], command: str, expected: list[str]) -> None:
    """Run a command, and hold what it prints against the document. A server behind may need a moment to come up."""
    argv = ["sh", "-c", place.localized(command)]
    wanted = [ID.sub("ID", place.localized(line)) for line in expected]
    got: list[str] = []

    def is_as_told() -> bool:
        done = subprocess.run(argv, cwd=place.folder, env=env, capture_output=True, timeout=COMMAND_SECONDS)
        # A body without an end of line stands before what comes next.
        got[:] = [ID.sub("ID", line.rstrip("\r")) for line in done.stdout.decode().split("\n")]
        while got and not got[-1]:
            got.pop()
        return got == wanted

    try:
        wait_until(is_as_told, command, 10.0, 0.5)
    except AssertionError:
        assert got == wanted, command


@pytest.mark.parametrize("example", EXAMPLES, ids=title_of)
def test_check_has_nothing_to_say(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples have no errors, and use nothing that is ignored."""
    for name, value in environment_of(example).items():
        monkeypatch.setenv(name, value)
    for name, text in example.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert [str(finding) for finding in check(tmp_path / "proxy.yaml")] == []


def test_every_service_has_an_example_that_is_tried() -> None:
    """What is not supported is at least told of."""
    models = get_args(get_args(WebServiceConfig)[0])
    types = {get_args(model.model_fields["type"].annotation)[0] for model in models}
    shown = {
        name
        for example in EXAMPLES
        if example.steps
        for name in types
        if re.search(rf"type: {name}\b(?!-)", str(example.files))
    }
    assert types - shown == UNSUPPORTED
    text = DOCUMENT.read_text()
    assert all(f"`{name}`" in text for name in types)


def test_there_is_what_the_commands_need() -> None:
    assert shutil.which("curl"), "curl is needed"
