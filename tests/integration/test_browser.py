"""A real browser shows the example page, from the proxy's static service, and speaks WAMP through the same port."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import missing, session_count
from support.certificates import Certificates
from support.chromium import Chromium, Page, find_chromium
from support.clients import find_node, install_js
from support.endpoints import free_port
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.routers import ROOT, CrossbarRouter

pytestmark = [pytest.mark.slow, pytest.mark.peers]

EXAMPLE = ROOT / "examples" / "web.yaml"
HELD_SECONDS = 2
"""How long the proxy waits for a long-poll client that went without a word."""
PANELS = """Object.fromEntries([...document.querySelectorAll(".panel")].map((panel) => [panel.id, {
  state: panel.querySelector(".state").textContent,
  ...Object.fromEntries([...panel.querySelectorAll("dd")].map((shown) => [shown.dataset.name, shown.textContent])),
}]))"""
HEARD = '[...document.querySelectorAll("#log li")].map((item) => item.textContent)'


@pytest.fixture(scope="session")
def library() -> Path:
    """The folder of autobahn-js's build for browsers."""
    if find_node() is None:
        missing("autobahn-js", "install node (20 or newer) and npm")
    try:
        return install_js().parent / "node_modules" / "autobahn-browser"
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        missing("autobahn-js", f"npm ci failed: {getattr(error, 'stderr', b'')!r}")
        raise


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Keys and certificates."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def browser(tmp_path: Path, certificates: Certificates) -> Iterator[Chromium]:
    """Chromium, which trusts the server's certificate. It keeps its connections: name it after the proxy."""
    program = find_chromium()
    if program is None:
        missing("Chromium", "install it (Debian: chromium), or name the program in $CHROMIUM")
    assert program is not None
    chromium = Chromium(program, tmp_path, [certificates.server.made])
    yield chromium
    chromium.stop()


class Example(Config):
    """The example's configuration with its page, in a folder of its own.

    :param directory: the folder.
    :param library: see above.
    :param backend: the router's connection item.
    :param tls: of the endpoint.
    """

    def __init__(self, directory: Path, library: Path, backend: dict[str, Any], tls: dict[str, Any] | None) -> None:
        super().__init__(directory)
        self._config: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
        assert list(self._config["connections"]) == ["router1"]
        self._config["connections"] = {"router1": backend}
        (transport,) = self._config["transports"]
        transport["endpoint"] = {"type": "tcp", "interface": "127.0.0.1", "port": free_port()}
        if tls is not None:
            transport["endpoint"]["tls"] = tls
        transport["paths"]["lp"]["options"] = {"session_timeout": HELD_SECONDS}
        self.url = f"{'http' if tls is None else 'https'}://localhost:{transport['endpoint']['port']}"
        shutil.copytree(EXAMPLE.parent / "web", directory / "web", ignore=shutil.ignore_patterns("node_modules"))
        shutil.copytree(library, directory / "web" / "node_modules" / library.name)

    def as_dict(self) -> dict[str, Any]:
        """The worker item."""
        return self._config


@pytest.mark.parametrize("is_secure", [False, True], ids=["http", "https"])
def test_the_example_page(
    is_secure: bool,
    tmp_path: Path,
    library: Path,
    certificates: Certificates,
    crossbar: CrossbarRouter,
    make_proxy: Callable[..., ProxyProcess],
    browser: Chromium,
) -> None:
    before = session_count(crossbar)
    tls = certificates.server.tls if is_secure else None
    example = Example(tmp_path / "example", library, crossbar.backends["crossbar"], tls)
    proxy = make_proxy(example)
    page = Page(browser, f"{example.url}/")
    page.wait('document.body && document.body.dataset.state === "ready"', "both sessions have called each other")
    page.wait(f"{HEARD}.length === 4", "both have heard what both said")
    assert page.troubles() == []

    panels = page.evaluate(PANELS)
    assert list(panels) == ["websocket", "longpoll"]
    for way, other in (("websocket", "long-poll"), ("longpoll", "WebSocket")):
        assert panels[way]["state"] == "open"
        assert panels[way]["role"] == "anonymous"
        assert panels[way]["2 + 3"].startswith(f"5, says the session on {other}")
    assert panels["longpoll"]["protocol"] == "wamp.2.json"
    assert session_count(crossbar) == before + 2
    heard = page.evaluate(HEARD)
    for way in ("WebSocket", "long-poll"):
        by = sorted(text for text in heard if text.startswith(f"Hello from {way} "))
        session = panels["websocket" if way == "WebSocket" else "longpoll"]["session"]
        assert [text.rpartition(" ")[2] for text in by] == [session, session]
        assert [text.split(" heard by ")[1].split(",")[0] for text in by] == ["WebSocket", "long-poll"]
    page.screenshot(tmp_path / "page.png")

    for number, way in enumerate(("websocket", "longpoll"), 1):
        page.evaluate(f"document.querySelector('#say input').value = 'from hand {number}'")
        page.evaluate(f"""document.querySelector('#say button[value="{way}"]').click()""")
        page.wait(f"{HEARD}.length === {4 + 2 * number}", f"what was published by {way}")
    assert [text.split(" heard")[0] for text in page.evaluate(HEARD)[:4]] == ["from hand 2"] * 2 + ["from hand 1"] * 2

    kinds = {response["url"].removeprefix(example.url).split("?")[0]: response for response in page.responses()}
    assert kinds["/"]["mimeType"] == "text/html"
    assert kinds["/lp/open"]["status"] == 200
    assert kinds["/"]["securityState"] == ("secure" if is_secure else kinds["/"]["securityState"])
    assert [frame["status"] for frame in page.frames()] == [101]

    page.close()
    # The WebSocket tells of its end; of a long-poll client nothing is heard any more.
    wait_until(lambda: session_count(crossbar) == before, "both sessions have ended")
    assert proxy.child.process.poll() is None


def test_the_page_says_that_the_library_is_missing(
    tmp_path: Path,
    library: Path,
    crossbar: CrossbarRouter,
    make_proxy: Callable[..., ProxyProcess],
    browser: Chromium,
) -> None:
    example = Example(tmp_path / "example", library, crossbar.backends["crossbar"], None)
    shutil.rmtree(tmp_path / "example" / "web" / "node_modules")
    make_proxy(example)
    page = Page(browser, f"{example.url}/")
    page.wait('document.readyState === "complete"', "the page is there")
    assert "npm install" in page.evaluate('document.querySelector("#trouble").innerText')
    page.close()
