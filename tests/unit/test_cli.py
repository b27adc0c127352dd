"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy import __version__
from proxy.cli import main
from proxy.systemd import notify


def proxy_item(**changes: Any) -> dict[str, Any]:
    """A worker item with one transport on any free port and a router that is not there."""
    return {
        "type": "proxy",
        "connections": {
            "router1": {"transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": "no.sock"}}}
        },
        "routes": {"realm1": {"anonymous": "router1"}},
        "transports": [{"type": "rawsocket", "endpoint": {"type": "tcp", "port": 0, "interface": "127.0.0.1"}}],
        **changes,
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that can be run."""
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps(proxy_item()))
    return path


@pytest.fixture
def bad_config(tmp_path: Path) -> Path:
    """A configuration with one error and one warning."""
    path = tmp_path / "bad.json"
    path.write_text(
        json.dumps(proxy_item(transports=[{"type": "rawsocket", "endpoint": {"type": "tcp", "port": -1}}], x=1))
    )
    return path


def invoke(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("how", ["version", "--version"])
def test_version(how: str) -> None:
    result = invoke(how)
    assert result.exit_code == 0
    assert f"wamp-proxy {__version__}" in result.stdout


def test_check_valid(config: Path) -> None:
    result = invoke("check", config)
    assert result.exit_code == 0
    assert result.stdout == f"{config}: valid\n"


def test_check_warnings_do_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps(proxy_item(rotues={})))
    result = invoke("check", path)
    assert result.exit_code == 0
    assert 'warning: rotues: {}: unknown key, ignored; did you mean "routes"?' in result.stdout
    assert "valid, 1 warning" in result.stdout


def test_check_errors(bad_config: Path) -> None:
    result = invoke("check", bad_config)
    assert result.exit_code == 2
    assert "error: transports[0].endpoint.port: -1: expected an integer from 0 to 65535" in result.stdout
    assert "not usable, 1 error, 1 warning" in result.stdout


def test_check_json(bad_config: Path) -> None:
    result = invoke("check", bad_config, "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert report["valid"] is False
    error, warning = report["findings"]
    assert error["place"] == "transports[0].endpoint.port"
    assert error["value"] == "-1"
    assert error["severity"] == "error"
    assert "from 0 to 65535" in error["expected"]
    assert (warning["place"], warning["severity"]) == ("x", "warning")


def test_check_missing_file(tmp_path: Path) -> None:
    result = invoke("check", tmp_path / "none.json")
    assert result.exit_code == 2
    assert "No such file" in result.stdout


def test_check_takes_the_named_worker(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"version": 2, "workers": [proxy_item(id="one"), proxy_item(id="two", transports=5)]}))
    assert invoke("check", path).exit_code == 2
    assert invoke("check", path, "--worker", "one").exit_code == 0
    assert "workers[1].transports: 5" in invoke("check", path, "--worker", "two").stdout


def test_run_refuses_a_bad_configuration(bad_config: Path) -> None:
    result = invoke("run", bad_config)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "transports[0].endpoint.port" in result.stderr


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--threads", "x"], ["--log-level", "loud"], ["--lgo"]])
def test_run_refuses_bad_options(config: Path, arguments: list[str]) -> None:
    assert invoke("run", config, *arguments).exit_code == 2


def test_run_without_the_extension(config: Path, tmp_path: Path) -> None:
    """A source tree that was never built says what is missing, and check still works."""
    program = "import sys; sys.modules['proxy._relay'] = None; from proxy.cli import main; main(prog_name='wamp-proxy')"
    result = subprocess.run(
        [sys.executable, "-c", program, "run", str(config)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert result.returncode == 1
    assert "needs a C compiler" in result.stderr
    assert "Traceback" not in result.stderr


def test_notify_reaches_the_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        supervisor.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert notify("READY=1")
        assert supervisor.recv(100) == b"READY=1"
    assert not notify("STOPPING=1")


def test_notify_to_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"wamp-proxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind("\0" + name)
        supervisor.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("STOPPING=1")
        assert supervisor.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("value", ["", "relative", "/no/such/socket"])
def test_notify_without_supervisor_is_no_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", value)
    assert not notify("READY=1")
