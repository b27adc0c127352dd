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
# 8 does not exist, 9 measures, 11 is gone; 12 and 13, compression, are below
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
# Clients may negotiate compression with us; with routers we do not. Subgroups differ in data (12) and offers (13).
COMPRESSION = {
    "12.1": "JSON",
    "12.2": "bitmap",
    "12.3": "prose",
    "12.4": "HTML",
    "12.5": "PDF",
    "13.1": "no parameters",
    "13.2": "no context takeover",
    "13.3": "window of 512 octets",
    "13.4": "window of 32 KiB",
    "13.5": "no context takeover, window of 512 octets",
    "13.6": "no context takeover, window of 32 KiB",
    "13.7": "three offers",
}
# Each has 18 cases of 1000 messages, of 16 octets to 128 KiB, whole and in frames. All of them take twenty minutes,
# most of it in the suite; these are 16 octets, 1 KiB, 32 KiB and 8 KiB in frames of 256 octets.
COMPRESSION_CASES = 18
COMPRESSION_QUICK = (1, 4, 8, 11)
COMPRESSION_FULL = os.environ.get("WAMP_PROXY_CONFORMANCE") == "full"
COMPRESSION_TIMEOUT = 1800.0 if COMPRESSION_FULL else 240.0

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


def compression_cases(subgroup: str) -> list[str]:
    """The cases of one subgroup that are to run: all with ``WAMP_PROXY_CONFORMANCE=full``, else a few."""
    numbers = range(1, COMPRESSION_CASES + 1) if COMPRESSION_FULL else COMPRESSION_QUICK
    return [f"{subgroup}.{number}" for number in numbers]


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
    :param group: also a subgroup.
    """
    table = tomllib.loads(EXPECTATIONS.read_text())
    entries = table.get("both", {}) | table.get(side, {})
    return {case: entry["verdict"] for case, entry in entries.items() if f"{case}.".startswith(f"{group}.")}


def check(side: str, group: str, found: dict[str, Result], count: int) -> None:
    """AssertionError unless ``count`` cases ran and all went exactly as expected; a better result fails too."""
    assert len(found) == count, f"{len(found)} of {count} cases ran: {sorted(found)}"
    wanted = expected(side, group)
    wrong = [
        f"{case}: {result.verdict}, expected {wanted.get(case, 'OK')} ({result.report})"
        for case, result in sorted(found.items())
        if result.verdict != wanted.get(case, "OK")
    ]
    assert not wrong, "\n".join([f"{len(wrong)} cases differ from {EXPECTATIONS.name}:", *wrong])
