"""Logins at Crossbar.io's own proxy worker and at ours, under the same node: the same but for known differences.

Compared are all that a client is told, what the router knows of its session, and what an authenticator is called with.
What differs has to be exactly what authentication_differences.py lists, with what either of them does.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comparison.authentication_differences import DIFFERENCES, Pair
from comparison.logins import BUILTIN, CHAPTERS, COOKIE, auth, cases, log_in
from comparison.shown import Paths, differences, shown
from conftest import missing
from support.endpoints import Endpoint, free_port
from support.logins import start_authenticator
from support.nodes import Node, executable, proxy_environment, router_worker, running
from support.principals import ROLE
from support.routers import META_REALM, REALM, find_crossbar

pytestmark = [pytest.mark.peers, pytest.mark.slow]

TESTS = Path(__file__).resolve().parents[1]
WORKERS = ("stock", "ours")

Fronts = dict[tuple[str, str, str], Endpoint]
"""Endpoints by worker, type of the authentication, and kind of the transport."""


def _router(proxies: str, direct: str) -> dict[str, Any]:
    """A router with two realms and two roles, and a socket for authenticators."""
    item = router_worker(proxies)
    permissions = item["realms"][0]["roles"][0]["permissions"]
    roles = [{"name": name, "permissions": permissions} for name in ("anonymous", ROLE)]
    item["realms"] = [{"name": realm, "roles": roles} for realm in (REALM, META_REALM)]
    own = {"type": "rawsocket", "id": "direct", "endpoint": {"type": "unix", "path": direct}, "serializers": ["cbor"]}
    return {**item, "transports": [*item["transports"], own]}


def _proxy(name: str, folder: Path, proxies: str, fronts: Fronts) -> dict[str, Any]:
    """A proxy worker with a transport per type and kind."""
    options: dict[str, Any] = {"pythonpath": [str(TESTS)]}
    if name == "ours":
        argv = [sys.executable, "-m", "proxy.launcher"]
        options["python"] = str(executable(folder / "ours.sh", argv, proxy_environment(TESTS)))
    backend = Endpoint("rawsocket", path=proxies).as_backend() | {"url": "rs://localhost"}
    routes = {"anonymous": "router1", ROLE: "router1"}
    return {
        "type": "proxy",
        "id": name,
        "options": options,
        "connections": {"router1": {"transport": backend, "auth": {"anonymous-proxy": {"type": "static"}}}},
        "routes": {REALM: routes, META_REALM: routes},
        "transports": [
            {
                "type": kind,
                "id": f"{type_}_{kind}",
                "endpoint": endpoint.as_config(),
                "serializers": ["json"],
                **({} if type_ == BUILTIN else {"auth": auth(type_, folder / "function.jsonl")}),
                **({"cookie": {"store": {"type": "memory"}}} if type_ == COOKIE else {}),
            }
            for (worker, type_, kind), endpoint in fronts.items()
            if worker == name
        ],
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], list[Pair]]]:
    """All logins at both workers, by type and kind."""
    if find_crossbar() is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    folder = tmp_path_factory.mktemp("logins")
    proxies, direct = (str(folder / name) for name in ("proxies.sock", "direct.sock"))
    fronts = {(worker, type_, kind): Endpoint(kind, free_port()) for worker in WORKERS for type_, kind in CHAPTERS}
    workers = [_router(proxies, direct), *(_proxy(name, folder, proxies, fronts) for name in WORKERS)]
    with running(Node(folder, workers, stock=True)):
        authenticator = start_authenticator(Endpoint("rawsocket", path=direct), folder / "dynamic.jsonl")
        yield {(type_, kind): _pairs(type_, kind, fronts, folder) for type_, kind in CHAPTERS}
        authenticator.kill()


def _pairs(type_: str, kind: str, fronts: Fronts, folder: Path) -> list[Pair]:
    record = folder / f"{type_}.jsonl"
    found: dict[str, list[dict[str, Any]]] = {}
    for worker in WORKERS:
        jar = {"unknown": "cbtid=" + 24 * "A"}
        for case in cases(type_):
            told = shown(log_in(fronts[worker, type_, kind], case, record, jar), worker)
            found.setdefault(case.name, []).append(told)
    return [Pair(type_, kind, name, stock, ours) for name, (stock, ours) in found.items()]


def _known(pair: Pair) -> Paths:
    known: Paths = {}
    for difference in DIFFERENCES:
        if difference.when(pair):
            assert not known.keys() & difference.paths.keys(), (pair.name, difference)
            known |= difference.paths
    return known


@pytest.mark.parametrize(("type_", "kind"), CHAPTERS)
def test_same_but_for_known_differences(pairs: dict[tuple[str, str], list[Pair]], type_: str, kind: str) -> None:
    texts = []
    for pair in pairs[type_, kind]:
        known, found = _known(pair), differences(pair.stock, pair.ours)
        texts += [
            f"{pair.name}: {path}:\n  known: {_text(known.get(path))}\n  found: {_text(found.get(path))}"
            for path in {**found, **known}
            if found.get(path) != known.get(path)
        ]
    assert not texts, "\n".join(["", *texts])


def _text(values: tuple[object, object] | None) -> str:
    return "no difference" if values is None else f"stock {json.dumps(values[0])} ours {json.dumps(values[1])}"


def test_every_known_difference_is_there(pairs: dict[tuple[str, str], list[Pair]]) -> None:
    """One that is of no login would never be missed."""
    everything = [pair for found in pairs.values() for pair in found]
    idle = [difference for difference in DIFFERENCES if not any(map(difference.when, everything))]
    assert not idle


def test_cases_have_names_of_their_own() -> None:
    for type_, _ in CHAPTERS:
        twice = [name for name, count in Counter(case.name for case in cases(type_)).items() if count > 1]
        assert not twice
