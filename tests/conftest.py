"""Fixtures of all tests that need real processes: routers, clients, the proxy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import autobahn.twisted  # noqa: F401 - chooses Twisted, before parts of autobahn keep that nothing was chosen
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.clients import ClientDriver, find_node, install_js
from support.matrix import feature_combinations
from support.process import live_children, wait_until
from support.proxies import Config, ProxyProcess
from support.raw import joined
from support.routers import CrossbarRouter, Router, XconnRouter, find_crossbar

REQUIRE_PEERS = os.environ.get("WAMP_PROXY_REQUIRE_PEERS") == "1"
PLAIN_SERIALIZERS = ["json", "msgpack", "cbor"]
ALL_SERIALIZERS = [*PLAIN_SERIALIZERS, "ubjson", "flatbuffers"]
ALL_SERIALIZERS += [f"{name}.batched" for name in PLAIN_SERIALIZERS]
EXTRA_BACKENDS = ("crossbar_rs", "crossbar_ws", "xconn_rs", "xconn_ws", "xconn_ws_unix")
_MISSING: dict[str, str] = {}


def missing(peer: str, how: str) -> None:
    """Skip a test whose peer is not installed; a failure where WAMP_PROXY_REQUIRE_PEERS=1."""
    _MISSING[peer] = how
    if REQUIRE_PEERS:
        pytest.fail(f"{peer} is required here: {how}")
    pytest.skip(f"{peer} is missing: {how}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in red what was not tested."""
    for peer, how in _MISSING.items():
        terminalreporter.write_line(f"NOT TESTED: {peer} is missing ({how})", red=True, bold=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Attach what the child processes printed to the report of a failed test."""
    report = yield
    if report.failed:
        for child in live_children():
            report.sections.append((f"output of {child.name} ({child.pid})", child.output[-6000:]))
    return report


@pytest.fixture(scope="session")
def crossbar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrossbarRouter]:
    """Crossbar.io."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    router = CrossbarRouter(tmp_path_factory.mktemp("crossbar"), program)
    router.wait_ready()
    yield router
    router.stop()


@pytest.fixture(scope="session")
def xconn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XconnRouter]:
    """xconn's router."""
    router = XconnRouter(tmp_path_factory.mktemp("xconn"))
    router.wait_ready()
    yield router
    router.stop()


@pytest.fixture(scope="session")
def get_router(request: pytest.FixtureRequest) -> Callable[[str], Router]:
    """A router by name."""
    return request.getfixturevalue


@pytest.fixture(scope="session")
def get_client() -> Iterator[Callable[[str], ClientDriver]]:
    """A client driver by name."""
    drivers: dict[str, ClientDriver] = {}

    def make(name: str) -> ClientDriver:
        if name not in drivers:
            drivers[name] = _driver(name)
        return drivers[name]

    yield make
    for driver in drivers.values():
        driver.stop()


def _driver(name: str) -> ClientDriver:
    if name == "autobahn-python":
        return ClientDriver.python(name, "client_autobahn.py")
    if name == "xconn":
        return ClientDriver.python(name, "client_xconn.py")
    node = find_node()
    if node is None:
        missing("autobahn-js", "install node (20 or newer) and npm")
    try:
        script = install_js()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        missing("autobahn-js", f"npm ci failed: {getattr(error, 'stderr', b'')!r}")
    return ClientDriver(name, [str(node), str(script)])


@pytest.fixture(scope="session")
def _main_proxy(
    crossbar: CrossbarRouter, xconn: XconnRouter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    config = Config(tmp_path_factory.mktemp("proxy"))
    backends = crossbar.backends | xconn.backends
    for name, item in backends.items():
        role = "anonymous" if name == "crossbar" else name
        config.backend(name, item, role=role)
        config.listen("websocket", f"{name}/ws-tcp", role=role)
        if name not in EXTRA_BACKENDS:
            config.listen("rawsocket", f"{name}/rs-tcp", role=role)
            config.listen("rawsocket", f"{name}/rs-unix", role=role, unix=True)
    proxy = ProxyProcess(config)
    yield proxy
    proxy.stop()


@pytest.fixture
def main_proxy(_main_proxy: ProxyProcess, crossbar: CrossbarRouter) -> Iterator[ProxyProcess]:
    """The proxy in front of both routers; its endpoints are named ``<backend>/<transport>``.

    After the test it must hold no more descriptors, and Crossbar.io no more sessions, than before.
    """
    before = session_count(crossbar)
    yield _main_proxy
    _main_proxy.check_idle()
    wait_until(lambda: session_count(crossbar) <= before, "the router's sessions have ended")
    _main_proxy.check_log()


@pytest.fixture(scope="session")
def _feature_proxy(
    crossbar: CrossbarRouter, xconn: XconnRouter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    config = Config(tmp_path_factory.mktemp("features"))
    for router in (crossbar, xconn):
        for name, item in router.translating.items():
            config.backend(f"{router.name}_{name}", item, role=f"{router.name}_{name}")
    for front in sorted({combination.front for combination in feature_combinations()}):
        role, transport, session_ids, *deflate = front.split("/")
        keys: dict[str, Any] = {"role": role, "session_ids": session_ids}
        if transport == "ws-tcp":
            options = {"compression": {"deflate": {}}} if deflate else {}
            config.listen("websocket", front, serializers=ALL_SERIALIZERS, options=options, **keys)
        else:
            config.listen("rawsocket", front, unix=transport == "rs-unix", **keys)
    proxy = ProxyProcess(config)
    yield proxy
    proxy.stop()


@pytest.fixture
def feature_proxy(_feature_proxy: ProxyProcess, crossbar: CrossbarRouter) -> Iterator[ProxyProcess]:
    """The proxy that does more than relay: translation, session IDs, batches, compression; see matrix.front_name().

    After the test it must hold no more descriptors, and Crossbar.io no more sessions, than before.
    """
    before = session_count(crossbar)
    yield _feature_proxy
    _feature_proxy.check_idle()
    wait_until(lambda: session_count(crossbar) <= before, "the router's sessions have ended")
    _feature_proxy.check_log()


def session_count(crossbar: CrossbarRouter) -> int:
    """Number of sessions of Crossbar.io's realm, without the one that asks."""
    with joined(crossbar.direct["rs-unix"]) as peer:
        count = int(peer.call("wamp.session.count")) - 1
        peer.leave()
        return count


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An empty configuration for make_proxy."""
    return Config(tmp_path)


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., ProxyProcess]]:
    """Start a proxy with a configuration of its own.

    After the test each that still runs must be back at its idle baseline and end with status 0 on SIGTERM.
    """
    running: list[ProxyProcess] = []

    def make(config: Config, **keys: Any) -> ProxyProcess:
        running.append(ProxyProcess(config, **keys))
        return running[-1]

    yield make
    for proxy in running:
        if proxy.child.process.poll() is None:
            proxy.check_idle()
            proxy.stop()
