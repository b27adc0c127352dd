"""The Autobahn test suite: where it is, how it is run, what it reports.

It is a Python 2.7 program (``wstest``) with two ends: ``fuzzingclient`` connects to a server under test,
``fuzzingserver`` is connected to by a client under test. Both send each case's frames and judge what comes back; the
testee only has to echo messages.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXPECTATIONS = Path(__file__).with_name("expectations.toml")

AGENT = "wamp-proxy"
# 8 does not exist, 9 measures, 11 is gone, 12 and 13 are compression
GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8 handling",
    "7": "close handling",
    "10": "autofragmentation",
}
CASES = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "10": 1}
# By the suite's own timers one case takes a few seconds at most; of the largest group nearly all take milliseconds.
GROUP_TIMEOUT = 240.0

# The same list as in the Makefile, which builds the environment.
_PYTHONS = ("python2.7", "~/.pyenv/versions/2.7.*/bin/python2.7")


def find() -> str | None:
    """Path of ``wstest``: $WAMP_WSTEST or the one in ``.venv-wstest``; None without one."""
    named = os.environ.get("WAMP_WSTEST")
    if named:
        return shutil.which(named)
    local = ROOT / ".venv-wstest" / "bin" / "wstest"
    return str(local) if local.exists() else None


def find_python27() -> str | None:
    """A Python 2.7 that works, with which `make conformance-setup` could build ``.venv-wstest``."""
    named = [os.environ["WAMP_PYTHON27"]] if os.environ.get("WAMP_PYTHON27") else []
    for pattern in [*named, *_PYTHONS]:
        for path in glob.glob(os.path.expanduser(pattern)) or [pattern]:
            # a shim of pyenv is found but leads nowhere
            if shutil.which(path) and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
                return path
    return None


def environment() -> dict[str, str]:
    """The environment for ``wstest``: without what is meant for Python 3 and for our extension only."""
    dropped = ("PYTHONPATH", "PYTHONMALLOC", "LD_PRELOAD", "PYTHONHOME")
    return {key: value for key, value in os.environ.items() if key not in dropped} | {"PYTHONWARNINGS": "ignore"}


def argv(program: str, mode: str, spec: dict[str, Any], folder: Path) -> list[str]:
    """Write the specification file and return the command line.

    :param mode: ``fuzzingclient`` or ``fuzzingserver``.
    :param folder: where the specification goes and the process runs.
    """
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return [program, "--mode", mode, "--spec", str(path), "--webport", "0"]


@dataclass(frozen=True)
class Result:
    """How one case went: the suite's verdict on the messages and, apart from it, on the closing handshake."""

    behavior: str
    close: str
    report: str

    @property
    def verdict(self) -> str:
        """Both in one word when they agree, else ``messages/close``."""
        if self.close in (self.behavior, "OK", "INFORMATIONAL"):
            return self.behavior
        return f"{self.behavior}/{self.close}"


def results(folder: Path) -> dict[str, Result]:
    """What a finished run reported, by case ID."""
    index = json.loads((folder / "index.json").read_text())[AGENT]
    found = {}
    for case, entry in index.items():
        report = json.loads((folder / entry["reportfile"]).read_text())
        text = f"{report['result']} {report['resultClose']}"
        found[case] = Result(entry["behavior"], entry["behaviorClose"], text)
    return found


def expected(side: str, group: str) -> dict[str, str]:
    """The verdicts of one group that are known to differ from ``OK``, by case ID.

    :param side: ``server`` or ``client``: which end is ours.
    """
    table = tomllib.loads(EXPECTATIONS.read_text())
    entries = table.get("both", {}) | table.get(side, {})
    return {case: entry["verdict"] for case, entry in entries.items() if case.split(".")[0] == group}


def check(side: str, group: str, found: dict[str, Result]) -> None:
    """AssertionError unless every case of the group ran and went exactly as expected; a better result fails too."""
    assert len(found) == CASES[group], f"{len(found)} of {CASES[group]} cases ran: {sorted(found)}"
    wanted = expected(side, group)
    wrong = [
        f"{case}: {result.verdict}, expected {wanted.get(case, 'OK')} ({result.report})"
        for case, result in sorted(found.items())
        if result.verdict != wanted.get(case, "OK")
    ]
    assert not wrong, "\n".join([f"{len(wrong)} cases differ from {EXPECTATIONS.name}:", *wrong])
