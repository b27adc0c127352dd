"""``wamp-proxy crossbar``: Crossbar.io's own program, with our proxy workers in its nodes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from conftest import missing
from support.nodes import proxy_environment
from support.process import peer_environment
from support.routers import find_crossbar


class Crossbar:
    """An environment in which both Crossbar.io and the proxy can be imported.

    :param folder: for what the proxy needs and the environment of the peers has not.
    """

    def __init__(self, folder: Path) -> None:
        program = find_crossbar()
        if program is None:
            missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
        assert program is not None
        self.python = Path(program).read_text().split("\n", 1)[0].removeprefix("#!")
        for name in ("h11",):
            found = importlib.util.find_spec(name)
            assert found is not None
            assert found.origin is not None
            (folder / name).symlink_to(Path(found.origin).parent)
        self.environment = proxy_environment(folder)
        self.command = [self.python, "-m", "proxy", "crossbar"]
        done = subprocess.run([self.python, "-c", "import proxy.controller, crossbar"], env=self.all, timeout=60)
        if done.returncode:
            missing("Crossbar.io in the same Python", f"the proxy is built for {sys.version.split()[0]}")

    @property
    def all(self) -> dict[str, str]:
        """Its whole environment."""
        return {**peer_environment(), **self.environment}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        argv = [*self.command, *arguments]
        return subprocess.run(
            argv, env={**self.all, **environment}, capture_output=True, text=True, timeout=60, check=False
        )
