"""Documents whose examples are tried: their files are written down and their commands run, as readers would do it.

A block of code is a file where the line before it ends in that file's name; a ``console`` block holds commands and what
they print. Each ``proxy.yaml`` is one example: it is started, and the commands up to the next one are run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.endpoints import free_port
from support.process import Child, peer_environment, wait_until
from support.proxies import NEVER_IN_LOG, READY
from support.routers import ROOT, unix_answers

BLOCK = re.compile(r"(?:`(?P<name>[\w./]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CLIENT_SECONDS = 60.0
# What is done before the proxy is started: without it there would be nothing to start it with.
PREPARING = ("openssl",)


@dataclass
class Example:
    """One configuration of the proxy.

    :ivar title: heading of its section.
    :ivar files: by name, of this example and those before it.
    :ivar steps: commands with what they print.
    """

    title: str
    files: dict[str, str]
    steps: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def slug(self) -> str:
        """Name for a test."""
        return self.title.lower().replace(" ", "-")


def examples(document: Path) -> Iterator[Example]:
    """All that a document has."""
    text = document.read_text()
    files: dict[str, str] = {}
    early: list[tuple[str, list[str]]] = []
    current = None
    for block in BLOCK.finditer(text):
        name, kind, content = block["name"], block["kind"], block["text"]
        if kind == "console":
            for step in commands(content):
                if step[0].startswith(PREPARING):
                    early.append(step)
                else:
                    assert current is not None, "a command before the first proxy.yaml"
                    current.steps.append(step)
            continue
        assert name is not None, f"a block of {kind} that is no file: {content[:200]}"
        if name == "proxy.yaml":
            if current is not None:
                yield current
            files = dict(files)
            current = Example(HEADING.findall(text, 0, block.start())[-1], files, early)
            early = []
        files[name] = content
    assert current is not None
    yield current


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands of a console block with the lines that each prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield command, lines


class Place:
    """A folder with a running Crossbar.io router, and how the document's ports are called today.

    :param config: the router's configuration.
    :param program: Crossbar.io's.
    :param ports: those that the document names.
    """

    def __init__(self, folder: Path, config: str, program: str, ports: tuple[str, ...]) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in ports}
        # What the commands call ``python`` is the interpreter that has everything that clients need.
        python = Path(program).resolve().parent / "python"
        self.python = str(python) if python.exists() else sys.executable
        self.write("config.json", config)
        argv = [program, "start", "--cbdir", str(folder), "--loglevel", "warn"]
        self.router = Child("crossbar", argv, cwd=folder, env=peer_environment())

    def wait_ready(self, socket: str = "router.sock") -> None:
        """Wait until the router listens."""
        wait_until(lambda: unix_answers(str(self.folder / socket)), "crossbar listens", 90.0, 0.1)

    def localized(self, text: str) -> str:
        """A text of the document with the ports of this machine."""
        for port, real in self.ports.items():
            text = re.sub(rf"\b{port}\b", real, text)
        return text

    def write(self, name: str, text: str) -> None:
        """Write a file of the document."""
        (self.folder / name).write_text(self.localized(text))

    def try_out(self, example: Example) -> None:
        """Do all that an example says; every command must print what the document says it does."""
        for name, text in example.files.items():
            if name != "config.json":
                self.write(name, text)
        children: list[Child] = []
        early = [step for step in example.steps if step[0].startswith(PREPARING)]
        for command, expected in early:
            self._run(command, expected, children)
        proxy = self._start_proxy()
        try:
            for command, expected in example.steps:
                if (command, expected) not in early:
                    self._run(command, expected, children)
        finally:
            for child in children:
                child.kill()
            status = proxy.stop()
        assert status == 0, proxy.output
        assert not [line for line in proxy.errors if any(word in line for word in NEVER_IN_LOG)], proxy.output

    def _start_proxy(self) -> Child:
        paths = [os.environ.get("PYTHONPATH", ""), str(ROOT / "src")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        argv = [sys.executable, "-m", "proxy", "run", "proxy.yaml", "--log-level", "info"]
        child = Child("wamp-proxy", argv, cwd=self.folder, env=env)
        child.wait_line(READY, 30.0)
        return child

    def _run(self, command: str, expected: list[str], children: list[Child]) -> None:
        argv = shlex.split(self.localized(command))
        environment = peer_environment()
        while "=" in argv[0]:
            name, _, value = argv.pop(0).partition("=")
            environment[name] = value
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
        program = self.python if argv[0] == "python" else shutil.which(argv[0], path=path)
        assert program is not None, f"there is no {argv[0]}"
        argv[0] = program
        if argv[-1] == "&":
            children.append(Child(command.split()[0], argv[:-1], cwd=self.folder, env=environment))
            return

        def printed() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                argv, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=CLIENT_SECONDS
            )

        done = printed()
        if children and done.returncode:  # what was started a moment ago may not listen yet
            time.sleep(1.0)
            done = printed()
        assert done.stdout.splitlines() == expected, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"
