"""The command ``wamp-proxy``: run, check, ctl, quickstart, crossbar, version.

Exit codes: 0 well done, 1 failed while running (an address in use, say), 2 unusable configuration or command line.
"""

import json
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import click

from proxy import __version__
from proxy.config import ConfigError, Finding, Loaded, check, load
from proxy.ctl.commands import ctl
from proxy.errors import ProxyError
from proxy.imports import leave_out_ubjson
from proxy.systemd import notify

EXIT_FAILED = 1
EXIT_UNUSABLE = 2
LOG_LEVELS = ("debug", "info", "warn", "error", "critical")
THREADS_MAX = 64
_COLOURS = {"error": "red", "warning": "yellow"}
_VERSION_TEXT = f"wamp-proxy {__version__} (Python {platform.python_version()})"

_worker_option = click.option("--worker", "worker_id", metavar="ID", help="Which proxy worker of a node configuration.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message=_VERSION_TEXT)
def main() -> None:
    """A proxy for WAMP: clients in, routers behind, messages relayed by compiled code."""


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@_worker_option
@click.option(
    "--threads", metavar="N", type=click.IntRange(1, THREADS_MAX), help="Data threads. Default: number of cores."
)
@click.option(
    "--log-level", metavar="LEVEL", type=click.Choice(LOG_LEVELS), default="info", show_default=True,
    help=f"One of {', '.join(LOG_LEVELS)}.",
)  # fmt: skip
def run(config: Path, worker_id: str | None, threads: int | None, log_level: str) -> None:
    """Run the proxy worker that CONFIG (JSON or YAML) describes.

    CONFIG is one worker item of type "proxy", or a whole Crossbar.io node configuration with one in it. On SIGHUP it is
    read again, and the worker changed to what it says then; SIGTERM and Ctrl-C end it.
    """
    loaded = _load_or_exit(config, worker_id)
    worker = _import_worker()
    try:
        source = worker.Source(config.absolute(), worker_id)
        status = worker.run(loaded.config, threads=threads, log_level=log_level, ready=_ready, source=source)
    except ProxyError as error:
        _fail(error.message)
    sys.exit(status)


@main.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@_worker_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def check_command(config: Path, worker_id: str | None, as_json: bool) -> None:
    """Check CONFIG without starting anything. Exit code 0 if it can be run (there may be warnings), else 2."""
    findings = check(config, worker_id)
    errors = sum(item.severity == "error" for item in findings)
    if as_json:
        report: dict[str, Any] = {"valid": not errors, "findings": [item.to_dict() for item in findings]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print_findings(findings, err=False)
        counts = [_count(errors, "error"), _count(len(findings) - errors, "warning")]
        verdict = click.style("not usable", fg="red") if errors else click.style("valid", fg="green")
        click.echo(f"{config}: {verdict}" + "".join(f", {count}" for count in counts if count))
    sys.exit(EXIT_UNUSABLE if errors else 0)


@main.command()
@click.option(
    "--router", type=click.Choice(["xconn", "crossbar"]), default="xconn", show_default=True,
    help="The router behind the proxy: xconn's, from PyPI, or Crossbar.io where it is installed.",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--ws-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="WebSocket port.")
@click.option(
    "--rawsocket-port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="RawSocket port."
)
@click.option("--once", is_flag=True, help="For scripts: exit after the first call and event.")
def quickstart(router: str, host: str, ws_port: int, rawsocket_port: int, once: bool) -> None:
    """Start a router and the proxy in front of it, make a call and an event through both, and stay up until Ctrl-C."""
    from proxy.quickstart import Settings, run_quickstart

    sys.exit(run_quickstart(Settings(router, host, ws_port, rawsocket_port, once)))


@main.command(
    "crossbar", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", metavar="ARGUMENTS...", nargs=-1, type=click.UNPROCESSED)
def crossbar_command(arguments: tuple[str, ...]) -> None:
    """Run Crossbar.io's own program with ARGUMENTS, with this proxy in its nodes' proxy workers.

    For nodes whose configuration cannot name wamp-proxy-worker as "python" in a worker's "options".
    """
    from proxy.native_workers import run_crossbar

    try:
        run_crossbar(list(arguments))
    except ProxyError as error:
        _fail(error.message)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(_VERSION_TEXT)


main.add_command(ctl)


def _load_or_exit(config: Path, worker_id: str | None) -> Loaded:
    try:
        loaded = load(config, worker_id)
    except ConfigError as error:
        _print_findings(error.findings, err=True)
        click.echo(f"wamp-proxy: {config} cannot be used", err=True)
        sys.exit(EXIT_UNUSABLE)
    _print_findings(loaded.warnings, err=True)
    return loaded


def _print_findings(findings: Sequence[Finding], *, err: bool) -> None:
    for item in findings:
        text = str(item).removeprefix(item.severity)
        click.echo(click.style(item.severity, fg=_COLOURS[item.severity]) + text, err=err)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}" if number else ""


def _import_worker() -> ModuleType:
    """The worker, with everything it needs; imported late, so that the other commands work without the extension."""
    leave_out_ubjson()
    try:
        return import_module("proxy.runner")
    except ImportError as error:
        if error.name != "proxy._relay" and "_relay" not in str(error):
            raise
        _fail(
            "the compiled part of the program (proxy._relay) is missing or was built for another Python; "
            "install the package again (pip install .), which needs a C compiler"
        )


def _fail(message: str) -> NoReturn:
    click.echo(f"wamp-proxy: {click.style('error', fg='red')}: {message}", err=True)
    sys.exit(EXIT_FAILED)


def _ready(addresses: Sequence[str]) -> None:
    """Say that every transport listens: to whoever reads stdout, and to the supervisor."""
    click.echo(f"wamp-proxy ready: {', '.join(addresses) or 'no transports'}")
    notify("READY=1")
