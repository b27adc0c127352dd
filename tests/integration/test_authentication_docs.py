"""docs/authentication.md is true: its files are written down and its commands are run, as its readers would do it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import missing
from proxy.config import check
from support.certificates import certificates
from support.documents import Example, examples
from support.endpoints import free_port
from support.process import Child, peer_environment, wait_until
from support.proxies import NEVER_IN_LOG, READY
from support.routers import ROOT, find_crossbar, unix_answers

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "authentication.md"
CLIENT_SECONDS = 60.0

# What readers put in the place of: the name of the machine, which is the authid of a proxy that runs alone.
HOST = "proxy.example.com"
# The key whose public part the router's configuration names, as the proxy of the reader's has made it.
NODE_KEY = """\
A node key

creator: proxy@proxy.example.com
created-at: 2026-01-01T00:00:00.000Z
machine-id: 0123456789abcdef0123456789abcdef
public-key-ed25519: 4fe2b96624c758cb6745ff5cb006f4dc38b4421c6d7d0389e14da525a0bc6682
private-key-ed25519: 70726f78792773206578616d706c65206b65792c206e6f207365637265742121
"""
ROUTER_SOCKETS = ("router.sock", "local.sock")


EXAMPLES = list(examples(DOCUMENT))


class Place:
    """A folder with the router's files and running router, and how its ports are called today."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.ports = {"9001": str(free_port()), "9002": str(free_port())}
        # What the commands call ``python`` is the interpreter that has everything that clients need.
        python = Path(program).resolve().parent / "python"
        self.python = str(python) if python.exists() else sys.executable
        self.write("config.json", EXAMPLES[0].files["config.json"])
        assert {certificates(folder).ca.name, certificates(folder).server.key.name} == {"ca.pem", "server.key"}
        (folder / ".crossbar").mkdir()
        key = folder / ".crossbar" / "key.priv"
        key.touch(0o600)
        key.write_text(NODE_KEY)
        argv = [program, "start", "--cbdir", str(folder), "--loglevel", "warn"]
        self.router = Child("crossbar", argv, cwd=folder, env=peer_environment())

    def wait_ready(self) -> None:
        """Wait until the router listens."""
        for name in ROUTER_SOCKETS:
            wait_until(
                lambda path=self.folder / name: unix_answers(str(path)), f"crossbar listens on {name}", 90.0, 0.1
            )

    def localized(self, text: str) -> str:
        """A text of the document with the ports and names of this machine."""
        for port, real in self.ports.items():
            text = re.sub(rf"\b{port}\b", real, text)
        return text.replace(HOST, socket.gethostname())

    def write(self, name: str, text: str) -> Path:
        """Write a file of the document."""
        path = self.folder / name
        path.write_text(self.localized(text))
        return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The running router of the document."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    place = Place(tmp_path_factory.mktemp("docs"), program)
    try:
        place.wait_ready()
        yield place
    finally:
        place.router.stop(timeout=20.0)


class Console:
    """Runs the commands of one example, in an environment of its own."""

    def __init__(self, place: Place, example: Example) -> None:
        self.place = place
        self.environment = peer_environment()
        self.children: list[Child] = []
        # The variables are there before the proxy is started.
        for command, _ in example.steps:
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                self.environment[name] = value

    def run(self, command: str, expected: list[str]) -> None:
        """Run a command, and hold what it prints against the document."""
        argv = shlex.split(self.place.localized(command))
        assert argv[0] == "python", command
        argv[0] = self.place.python
        if argv[-1] == "&":
            self.children.append(Child(argv[1], argv[:-1], cwd=self.place.folder, env=self.environment))
            for line in expected:
                self.children[-1].wait_line(line, 60.0)
            return
        done = subprocess.run(
            argv, cwd=self.place.folder, env=self.environment, capture_output=True, text=True, timeout=CLIENT_SECONDS
        )
        assert done.stdout.splitlines() == expected, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"

    def stop(self) -> None:
        """End what still runs."""
        for child in self.children:
            child.kill()


def start_proxy(place: Place, environment: dict[str, str]) -> Child:
    """``wamp-proxy run proxy.yaml``, ready."""
    paths = [environment.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", ""), str(ROOT / "src")]
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    argv = [sys.executable, "-m", "proxy", "run", "proxy.yaml", "--log-level", "info"]
    child = Child("wamp-proxy", argv, cwd=place.folder, env=env)
    child.wait_line(READY, 30.0)
    return child


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title.lower().replace(" ", "-"))
def test_the_examples_work(example: Example, place: Place) -> None:
    """Every command prints what the document says, and the proxy ends in order and with a clean log."""
    place.ports["8080"] = str(free_port())
    for name, text in example.files.items():
        if name != "config.json":
            place.write(name, text)
    console = Console(place, example)
    proxy = start_proxy(place, console.environment)
    try:
        for command, expected in example.steps:
            if not command.startswith("export "):
                console.run(command, expected)
    finally:
        console.stop()
        status = proxy.stop()
    assert status == 0, proxy.output
    assert not [line for line in proxy.errors if any(word in line for word in NEVER_IN_LOG)], proxy.output
    secrets = secrets_of(yaml.safe_load(place.localized(example.files["proxy.yaml"])))
    assert not [secret for secret in secrets if secret in proxy.output], proxy.output


def secrets_of(value: Any, key: str = "") -> set[str]:
    """What a configuration keeps secret."""
    if isinstance(value, dict):
        return {secret for name, item in value.items() for secret in secrets_of(item, str(name))}
    if isinstance(value, list):
        return {secret for item in value for secret in secrets_of(item, key)}
    keys = ("ticket", "secret", "password", "privkey", "stored-key", "server-key")
    return {value} if key in keys and isinstance(value, str) and not value.startswith("${") else set()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title.lower().replace(" ", "-"))
def test_check_has_nothing_to_say(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples have no errors and use nothing that is ignored, but for what their section tells of."""
    for command, _ in example.steps:
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
    path = tmp_path / "proxy.yaml"
    path.write_text(example.files["proxy.yaml"])
    found = [str(finding) for finding in check(path)]
    assert not [text for text in found if "SQLite" not in text], found


def test_every_example_is_tried() -> None:
    """All but the one that needs TLS have commands, good logins and bad ones; every way of logging in has one."""
    assert [example.title for example in EXAMPLES if not example.steps] == ["TLS certificates"]
    printed = "\n".join(line for example in EXAMPLES for _, lines in example.steps for line in lines)
    for provider, methods in (
        ("static", ("anonymous", "ticket", "wampcra", "scram", "cryptosign")),
        ("dynamic", ("anonymous", "ticket", "wampcra", "scram", "cryptosign")),
        ("function", ("ticket", "wampcra", "scram", "cryptosign")),
    ):
        for method in methods:
            assert f"by {method}, {provider}" in printed


@pytest.mark.parametrize("name", ["authentication.yaml", "passthrough.yaml"])
def test_the_example_files_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are, with nothing in them that is ignored."""
    monkeypatch.setenv("SERVICE_SECRET", "a secret")
    assert check(ROOT / "examples" / name) == []


def test_the_readme_has_a_valid_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All YAML of README.md can be run; the part about logins leaves out the type."""
    monkeypatch.setenv("TICKET", "a ticket")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        path = tmp_path / "proxy.yaml"
        path.write_text(block if "type: proxy" in block else "type: proxy\n" + block)
        assert check(path) == []


def test_security_names_tests_that_there_are() -> None:
    """SECURITY.md says what shows that an attack fails; that must be there."""
    named = set(re.findall(r"tests/[\w/]+(?:\.py)?", (ROOT / "SECURITY.md").read_text()))
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
