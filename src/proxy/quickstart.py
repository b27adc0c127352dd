"""``wamp-proxy quickstart``: a router, the proxy in front of it, a first call and event through both.

Router and proxy are child processes; the proxy is the real ``wamp-proxy run``. Everything lives in one private
temporary folder, every step has a deadline, and whatever ends the program, its children and files go with it.
"""

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from proxy.children import Child, ChildError
from proxy.imports import leave_out_ubjson

if TYPE_CHECKING:
    from proxy.demo import DemoClient, Outcome

REALM = "realm1"
ROUTER_SECONDS = {"xconn": 30.0, "crossbar": 90.0}
PROXY_SECONDS = 30.0
MANAGEMENT = "ctl.sock"
LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class QuickstartError(Exception):
    """A step failed; the text says which and what to do about it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the command, see its help. Port 0 takes a free one."""

    router: str = "xconn"
    host: str = "127.0.0.1"
    ws_port: int = 8080
    rawsocket_port: int = 8081
    once: bool = False


def run_quickstart(settings: Settings) -> int:
    """Run the whole command; returns its exit code: 0, or 1 when a step failed, or 130 when it was interrupted."""
    return asyncio.run(_Quickstart(settings).run())


class _Quickstart:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._demonstrated = False
        self._folder = Path()
        self._router: Child | None = None
        self._proxy: Child | None = None

    async def run(self) -> int:
        """Do all steps, stay up, clean up."""
        _end_with_signals()
        _say(click.style("wamp-proxy quickstart", bold=True))
        status = 0
        try:
            async with AsyncExitStack() as stack:
                await self._steps(stack)
        except (QuickstartError, ChildError, OSError) as error:
            _fail_line(str(error))
            status = 1
        except asyncio.CancelledError:
            status = 0 if self._demonstrated else 128 + signal.SIGINT
        if self._demonstrated:
            _say("  stopped, nothing is left behind")
        return status

    async def _steps(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        host = await _resolve(settings.host)
        ws_port = _free_port(host, settings.ws_port, "--ws-port")
        rawsocket_port = _free_port(host, settings.rawsocket_port, "--rawsocket-port")
        self._folder = Path(tempfile.mkdtemp(prefix="wamp-proxy-"))  # mode 0700
        stack.callback(shutil.rmtree, self._folder, ignore_errors=True)

        began = time.monotonic()
        self._router, connection, name = await self._start_router(stack)
        _ok_line("router", f"{name}, on a Unix socket", began)

        began = time.monotonic()
        config = self._folder / "proxy.json"
        config.write_text(json.dumps(_proxy_config(connection, host, ws_port, rawsocket_port), indent=2))
        argv = [sys.executable, "-P", "-m", "proxy", "run", str(config), "--log-level", "warn"]
        self._proxy = await Child.start(stack, "proxy", argv)
        await self._proxy.wait_line("wamp-proxy ready", PROXY_SECONDS)
        _ok_line("proxy", f"wamp-proxy run {config}", began)

        await self._demonstrate(stack, LOCAL.get(host, host), ws_port, rawsocket_port)
        self._demonstrated = True
        if not settings.once:
            await self._stay()

    async def _start_router(self, stack: AsyncExitStack) -> tuple[Child, dict[str, Any], str]:
        """Start the router; returns it with the proxy's connection item and a name for people."""
        path = self._folder / "router.sock"
        start = _start_crossbar if self._settings.router == "crossbar" else _start_xconn
        return await start(stack, self._folder, path)

    async def _demonstrate(self, stack: AsyncExitStack, host: str, ws_port: int, rawsocket_port: int) -> None:
        leave_out_ubjson()
        # Imported here: it chooses asyncio for autobahn, and takes a moment.
        from proxy.demo import DemoClient, DemoError

        shown = f"[{host}]" if ":" in host else host
        alice = DemoClient("alice", f"ws://{shown}:{ws_port}/ws", REALM)
        bob = DemoClient("bob", f"rs://{shown}:{rawsocket_port}", REALM)
        try:
            for client, port, what in ((alice, ws_port, "WebSocket, JSON"), (bob, rawsocket_port, "RawSocket, CBOR")):
                began = time.monotonic()
                await client.join(host, port)
                stack.push_async_callback(client.leave)
                _ok_line(client.name, f"joined over {client.url} ({what}), session {client.session_id}", began)
            await _round_trip(alice, bob)
        except DemoError as error:
            self._explain(str(error))
        if not self._settings.once:
            _say_how_to_connect(alice.url, bob.url, self._folder / MANAGEMENT)

    def _explain(self, text: str) -> NoReturn:
        """Fail with what the children said last: the reason is usually there."""
        for child in (self._proxy, self._router):
            if child is not None and child.tail:
                text += f"\n    the {child.name} said last:\n" + child.tail_text()
        raise QuickstartError(text)

    async def _stay(self) -> None:
        """Stay up until a signal or until a child ends, showing what the children print."""
        assert self._router is not None
        assert self._proxy is not None
        _say("\n  " + click.style("Ctrl-C ends it.", bold=True))
        for child in (self._router, self._proxy):
            child.forward(lambda name, line: _say(click.style(f"  {name:<8} | {line}", dim=True)))
        ends = {asyncio.ensure_future(child.wait()): child for child in (self._router, self._proxy)}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in ends:
                waiter.cancel()
        child = ends[done.pop()]
        raise QuickstartError(f"the {child.name} ended on its own (status {child.status})\n" + child.tail_text())


async def _round_trip(alice: "DemoClient", bob: "DemoClient") -> None:
    from proxy.demo import PROCEDURE, TOPIC

    events = await alice.provide()
    result: Outcome = await bob.call(2, 3)
    _ok_line("call", f"bob calls {PROCEDURE}(2, 3) at alice: {result.value}", milliseconds=result.milliseconds)
    event = await bob.publish("hello", events)
    _ok_line("event", f"bob publishes to {TOPIC}, alice gets {event.value!r}", milliseconds=event.milliseconds)


async def _start_xconn(stack: AsyncExitStack, folder: Path, path: Path) -> tuple[Child, dict[str, Any], str]:
    if importlib.util.find_spec("xconn") is None:
        raise QuickstartError(
            "the default router is not installed: pip install 'wamp-proxy[quickstart]' (or use --router crossbar)"
        )
    argv = [sys.executable, "-P", "-m", "proxy.embedded_router", str(path), REALM]
    child = await Child.start(stack, "router", argv)
    await child.wait_line("embedded router ready", ROUTER_SECONDS["xconn"])
    endpoint = {"type": "unix", "path": path.name}
    connection = {
        "transport": {"type": "websocket", "url": "ws://localhost/", "endpoint": endpoint},
        "auth": {"anonymous": {}},
    }
    return child, connection, f"xconn {importlib.metadata.version('xconn')}"


async def _start_crossbar(stack: AsyncExitStack, folder: Path, path: Path) -> tuple[Child, dict[str, Any], str]:
    program = _find_crossbar()
    node = folder / "crossbar"
    node.mkdir()
    (node / "config.json").write_text(json.dumps(_crossbar_config(path), indent=2))
    child = await Child.start(stack, "router", [program, "start", "--cbdir", str(node), "--loglevel", "warn"], cwd=node)
    await child.wait_until(lambda: _is_listening(path), "listen on its Unix socket", ROUTER_SECONDS["crossbar"])
    connection = {
        "transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": path.name}, "serializer": "cbor"},
        "auth": {"anonymous-proxy": {"type": "static"}},
    }
    return child, connection, "Crossbar.io"


def _find_crossbar() -> str:
    """``crossbar`` as named by the environment, beside this Python, or on PATH."""
    named = os.environ.get("CROSSBAR")
    beside = str(Path(sys.executable).parent / "crossbar")
    program = shutil.which(named) if named else shutil.which(beside) or shutil.which("crossbar")
    if program is None:
        what = f"$CROSSBAR names no program: {named}" if named else "Crossbar.io is not installed"
        raise QuickstartError(f"{what} (pip install crossbar, or set CROSSBAR to the path of its command)")
    return program


def _crossbar_config(path: Path) -> dict[str, Any]:
    """A node with one router worker: one realm, where role anonymous may do everything, for the proxy only."""
    permission = {
        "uri": "",
        "match": "prefix",
        "allow": {"call": True, "register": True, "publish": True, "subscribe": True},
        "disclose": {"caller": True, "publisher": True},
        "cache": True,
    }
    transport = {
        "type": "rawsocket",
        "endpoint": {"type": "unix", "path": str(path)},
        "serializers": ["cbor", "msgpack", "json"],
        "auth": {"anonymous-proxy": {"type": "static"}},
    }
    realm = {"name": REALM, "roles": [{"name": "anonymous", "permissions": [permission]}]}
    return {"version": 2, "workers": [{"type": "router", "realms": [realm], "transports": [transport]}]}


def _proxy_config(connection: dict[str, Any], host: str, ws_port: int, rawsocket_port: int) -> dict[str, Any]:
    """The worker item for ``wamp-proxy run``: a WebSocket and a RawSocket transport, one route."""
    address: dict[str, Any] = {"type": "tcp", "interface": host, "version": 6 if ":" in host else 4}
    return {
        "type": "proxy",
        "management": {"path": MANAGEMENT},
        "connections": {"router": connection},
        "routes": {REALM: {"anonymous": "router"}},
        "transports": [
            {
                "type": "websocket",
                "id": "websocket",
                "endpoint": {**address, "port": ws_port},
                "url": f"ws://localhost:{ws_port}/ws",
            },
            {"type": "rawsocket", "id": "rawsocket", "endpoint": {**address, "port": rawsocket_port}},
        ],
    }


async def _resolve(host: str) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise QuickstartError(f"--host {host}: {error.strerror}") from None
    except UnicodeError:
        raise QuickstartError(f"--host {host}: expected an address or the name of a host") from None
    return str(found[0][4][0])


def _free_port(host: str, port: int, option: str) -> int:
    """Make sure that nobody listens on the port (0: choose one), before anything is started."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        # As the proxy itself does it: connections of an earlier run that linger in TIME_WAIT are no obstacle.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(1)
        except OSError as error:
            text = f"cannot listen on {host} port {port}: {error.strerror}"
            raise QuickstartError(f"{text}; choose another port with {option} (0: any free one)") from None
        return int(sock.getsockname()[1])


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


def _end_with_signals() -> None:
    """Ctrl-C, SIGTERM and a closed terminal end the command in order; a second one changes nothing."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    pending = [True]

    def end() -> None:
        if pending:
            pending.clear()
            _say("\n  stopping")
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)


def _say(text: str) -> None:
    try:
        click.echo(text)
    except OSError:
        # The terminal is gone; the clean-up that is under way must not stop for that.
        pass


def _ok_line(what: str, text: str, began: float | None = None, *, milliseconds: float | None = None) -> None:
    if began is not None:
        milliseconds = (time.monotonic() - began) * 1000
    took = ""
    if milliseconds is not None:
        text_took = f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds / 1000:.1f} s"
        took = click.style(f"  {text_took}", dim=True)
    _say(f"  {click.style(_mark('✓', 'ok'), fg='green')} {what:<8} {text}{took}")


def _fail_line(text: str) -> None:
    _say(f"  {click.style(_mark('✗', 'failed:'), fg='red')} {text}")


def _mark(symbol: str, plain: str) -> str:
    """A symbol, where the terminal can show it."""
    return symbol if "utf" in (getattr(sys.stdout, "encoding", "") or "").lower() else plain


def _say_how_to_connect(websocket: str, rawsocket: str, management: Path) -> None:
    from proxy.demo import PROCEDURE

    _say(
        f"""
  {click.style("Connect your own clients", bold=True)}
    WebSocket  {websocket}
    RawSocket  {rawsocket}
    realm      {REALM}, no login; JSON, MessagePack or CBOR on both

  {click.style("Or call alice from another terminal", bold=True)}
    {_command("wamp")} --url {websocket} --realm {REALM} call {PROCEDURE} 2 3

  {click.style("Or look into the proxy (watch, drain, kill, ...)", bold=True)}
    {_command("wamp-proxy")} ctl --socket {shlex.quote(str(management))} sessions"""
    )


def _command(name: str) -> str:
    """How to call a program that was installed with this one."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name
