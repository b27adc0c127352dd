"""Crossbar.io's own proxy worker and ours under the same node: the same answers and events, but for known differences.

Each chapter of the script (script.py) is run against both. What differs has to be exactly what differences.py lists,
with what either of them does.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comparison.differences import DIFFERENCES, Paths
from comparison.recording import Entry, Recorder, differences
from comparison.script import CHAPTERS, Subject
from conftest import missing
from proxy import ProxyController
from proxy.management.procedures import procedures
from support.endpoints import Endpoint
from support.nodes import Node, our_worker, router_worker, running
from support.routers import find_crossbar

pytestmark = [pytest.mark.peers, pytest.mark.slow]

HOST_KEY = """
import os, sys
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import rsa

key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
data = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, form.NoEncryption())
os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600), data)
"""
STOCK_PROCEDURES = """
import json
from crossbar.worker.proxy import ProxyController

names = [name for name in dir(ProxyController) if hasattr(getattr(ProxyController, name), "_wampuris")]
print(json.dumps(names))
"""
EVENTS = {
    *(f"on_proxy_{kind}_{step}" for kind in ("connection", "route") for step in ("starting", "started", "stopping")),
    *(f"on_proxy_{kind}_stopped" for kind in ("connection", "route", "transport")),
    *(f"on_proxy_transport_{step}" for step in ("starting", "started")),
    *(f"on_web_transport_service_{step}" for step in ("starting", "started", "stopping", "stopped")),
    *(f"on_manhole_{step}" for step in ("starting", "started", "stopping", "stopped")),
    *("on_worker_ready", "on_shutdown_requested", "on_pythonpath_add", "on_cpu_affinity_set", "on_gc_finished"),
    *("on_process_stats_monitoring_set", "on_process_stats"),
}
"""What the script makes the stock worker publish: all it can, but for what needs vmprof and what it never does."""

Run = Callable[[str, str], dict[str, Entry]]


@pytest.fixture(scope="module")
def peers_python() -> str:
    """The interpreter that Crossbar.io is installed for."""
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    return str(Path(program).parent / "python")


@pytest.fixture(scope="module")
def run(peers_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a chapter against a worker, ``stock`` or ``ours``, once each."""
    directory = tmp_path_factory.mktemp("comparison")
    router = Endpoint("rawsocket", path=str(directory / "router.sock"))
    # The stock worker starts no manhole without it.
    subprocess.run([peers_python, "-c", HOST_KEY, str(directory / "ssh_host_rsa_key")], check=True, timeout=60)
    done: dict[tuple[str, str], dict[str, Entry]] = {}
    with running(Node(directory, [router_worker(router.path)])) as node:
        options = {"stock": {}, "ours": {"python": str(our_worker(directory))}}

        def run_once(which: str, chapter: str) -> dict[str, Entry]:
            if (which, chapter) not in done:
                subject = Subject(f"{which}_{chapter}", directory / which / chapter, router, options[which])
                done[which, chapter] = Recorder(node, subject).run(chapter)
            return done[which, chapter]

        yield run_once


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_same_but_for_known_differences(run: Run, chapter: str) -> None:
    stock, ours = run("stock", chapter), run("ours", chapter)
    assert stock.keys() == ours.keys()
    found_paths = {step: differences(stock[step], ours[step]) for step in stock}
    known_paths = {step: item.paths for step, item in DIFFERENCES.get(chapter, {}).items()}
    texts = [
        f"{step}: {path}:\n  known: {_pair(known.get(path))}\n  found: {_pair(found.get(path))}"
        for step, known, found in _by_step(known_paths, found_paths)
        for path in {**found, **known}
        if found.get(path) != known.get(path)
    ]
    assert not texts, "\n".join(["", *texts])


def _by_step(known: dict[str, Paths], found: dict[str, Paths]) -> Iterator[tuple[str, Paths, Paths]]:
    for step in {**found, **known}:
        yield step, known.get(step, {}), found.get(step, {})


def _pair(values: tuple[object, object] | None) -> str:
    return "no difference" if values is None else f"stock {json.dumps(values[0])} ours {json.dumps(values[1])}"


def test_every_step_of_the_list_is_in_the_script(tmp_path: Path) -> None:
    """A difference that is listed for a step that does not exist would never be missed."""
    subject = Subject("worker1", tmp_path, Endpoint("rawsocket", path="router.sock"), {})
    for chapter, items in DIFFERENCES.items():
        names = {step.name for step in CHAPTERS[chapter](subject)}
        assert items.keys() <= names, chapter


def test_every_procedure_is_called(peers_python: str, tmp_path: Path) -> None:
    """All those that the stock worker has, which ours has, too, and all that ours has beyond."""
    argv = [peers_python, "-W", "ignore", "-c", STOCK_PROCEDURES]
    answer = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    stock = set(json.loads(answer.stdout.splitlines()[-1]))
    assert len(stock) == 40
    subject = Subject("worker1", tmp_path, Endpoint("rawsocket", path="router.sock"), {})
    steps = [step for chapter in CHAPTERS.values() for step in chapter(subject)]
    called = {call.procedure for step in steps for call in step.calls if "." not in call.procedure}
    ours = set(procedures(ProxyController))
    assert stock <= ours
    assert ours <= called


def test_every_event_is_compared(run: Run) -> None:
    """What the stock worker publishes in the script is all there is to be compared."""
    entries = [entry for chapter in CHAPTERS for entry in run("stock", chapter).values()]
    seen = {event["event"] for entry in entries for event in entry.observer}
    assert {name for name in seen if not name.startswith("crossbar.")} == EVENTS
