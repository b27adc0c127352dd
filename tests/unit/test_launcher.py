"""The command line that a node gives a worker, and the program that takes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest

from proxy.errors import ProxyError
from proxy.launcher import own_folders, parse
from proxy.nodelog import ANNOUNCEMENT
from proxy.options import extra_options

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "wamp-proxy-worker"
REQUIRED = ["--cbdir", "/node", "--node", "node1", "--worker", "proxy1", "--realm", "crossbar"]
STOCK = ["-u", "-m", "crossbar.worker.main", *REQUIRED]
STOCK += ["--personality", "crossbar.personality.Personality", "--klass", "crossbar.worker.proxy.ProxyController"]
STOCK += ["--loglevel", "info"]


class Config:
    """What a worker's constructor gets."""

    def __init__(self, extra: Any) -> None:
        self.extra = type("Options", (), {"extra": extra})


def test_the_command_line_of_a_node() -> None:
    options, unknown = parse(STOCK)
    assert unknown == []
    assert (options.cbdir, options.node, options.worker, options.realm) == ("/node", "node1", "proxy1", "crossbar")
    assert options.loglevel == "info"
    assert options.title is options.extra is options.reactor is None


def test_everything_that_a_node_may_add() -> None:
    more = ["--debug-lifecycle", "--debug-programflow", "--vmprof", "--shutdown", "x", "--restart", "y"]
    more += ["--extra", cbor2.dumps({"threads": 3}).hex(), "--title", "a title", "--reactor", "poll"]
    options, unknown = parse([*STOCK, *more])
    assert unknown == []
    assert (options.title, options.reactor, options.extra) == ("a title", "poll", {"threads": 3})
    assert options.debug_lifecycle
    assert options.vmprof


def test_what_a_later_node_adds_is_told_and_ignored() -> None:
    """Nothing of it is taken for an abbreviation of something known."""
    options, unknown = parse([*STOCK, "--work", "other", "--tit=le"])
    assert unknown == ["--work", "other", "--tit=le"]
    assert options.worker == "proxy1"
    assert options.title is None


@pytest.mark.parametrize("extra", ["zz", "abc", "ff", "61"])
def test_extra_that_is_not_cbor_in_hexadecimal_digits(extra: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        parse([*STOCK, "--extra", extra])
    assert end.value.code == 2
    assert "--extra: expected CBOR in hexadecimal digits" in caplog.text


@pytest.mark.parametrize("number", range(0, len(REQUIRED), 2))
def test_missing_arguments_are_named(number: int, caplog: pytest.LogCaptureFixture) -> None:
    argv = REQUIRED[:number] + REQUIRED[number + 2 :]
    with pytest.raises(SystemExit):
        parse(argv)
    assert f"required: -{REQUIRED[number][2]}/{REQUIRED[number]}" in caplog.text


def test_options_for_the_worker_itself() -> None:
    assert extra_options(None).shutdown_timeout == 5000
    assert extra_options(Config(None)).threads is None
    options = extra_options(Config({"threads": 2, "shutdown_timeout": 700}))
    assert (options.threads, options.shutdown_timeout) == (2, 700)


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"threads": 0}, "threads"),
        ({"threads": 65}, "threads"),
        ({"threads": True}, "threads"),
        ({"threads": "2"}, "threads"),
        ({"shutdown_timeout": 0}, "shutdown_timeout"),
        ({"shutdown_timeout": 1.5}, "shutdown_timeout"),
        ({"thread": 2}, "thread"),
        ([2], "mapping|dictionary|valid"),
    ],
)
def test_options_that_cannot_be_used(extra: Any, key: str) -> None:
    with pytest.raises(ProxyError, match=key) as error:
        extra_options(Config(extra))
    assert error.value.uri == "crossbar.error.invalid_configuration"


def test_folders_of_the_operator_and_of_the_nodes_interpreter() -> None:
    own = ["/srv/auth", "/srv/bin/modules"]
    stock = ["/usr/lib/python312.zip", "/usr/lib/python3.12", "/usr/lib/python3.12/lib-dynload"]
    stock += ["/node/lib/python3.12/site-packages"]
    assert own_folders(":".join([*own, *stock])) == own
    assert own_folders(":".join([*own, "/node/bin", "", ".", "/node/lib/python3.12/site-packages", *stock])) == own
    assert own_folders(":".join(stock)) == []
    # Without a mark nobody can tell which of them are the interpreter's.
    assert own_folders(":".join(own)) == []
    assert own_folders("") == []


def test_the_program_imports_nothing_from_the_nodes_folders(tmp_path: Path) -> None:
    """Whatever the node has under the names of our modules, and of the standard library, does not disturb it."""
    for name in ("argparse", "cbor2", "json", "logging", "proxy", "re", "twisted", "typing"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} of the node')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), "/usr/lib/python39.zip", "/nowhere"])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "-u", "-m", "crossbar.worker.main", "--cbdir", "x"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    announcement, records = done.stderr.split(b"\n", 1)
    assert announcement + b"\n" == ANNOUNCEMENT
    *found, rest = records.split(b"\x1e")
    assert rest == b""
    (record,) = map(json.loads, found)
    assert record["level"] == "critical"
    assert "required" in record["text"]


@pytest.mark.parametrize(("argv", "status"), [([], 2), (["--help"], 0)])
def test_somebody_starts_it_by_hand(argv: list[str], status: int) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert '"options": {"python":' in done.stdout
    assert done.stderr == ""
