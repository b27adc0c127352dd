"""The classes that ``proxy`` offers: names and parameters on which Crossbar.io's nodes and users' code rely."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

import proxy
from proxy.lifecycle import State
from proxy.management.procedures import procedures
from quality import sources

# As a caller gives them, by position.
CONSTRUCTORS = {
    "ProxyController": ["config", "reactor", "personality"],
    "ProxyConnection": ["controller", "connection_id", "config"],
    "ProxyRoute": ["controller", "realm_name", "route_id", "config"],
    "ProxyTransport": ["controller", "transport_id", "config"],
}
MEMBERS = {
    "ProxyController": [
        "has_realm", "has_role", "can_map_backend", "map_backend", "unmap_backend", "get_backend_config",
        "get_service_session", "get_controller_session", "onJoin", "WORKER_TYPE", "WORKER_TITLE",
    ],
    "ProxyConnection": ["id", "config", "marshal", "start", "stop", "__str__"],
    "ProxyRoute": ["id", "config", "realm", "has_role", "map_connection_id", "marshal", "start", "stop", "__str__"],
    "ProxyTransport": ["marshal", "start", "stop", "__str__"],
    "ProxyWorkerProcess": ["TYPE", "LOGNAME"],
}  # fmt: skip
# The methods that a node's personality or a web service calls with these.
PARAMETERS = {
    ("ProxyController", "unmap_backend"): ["frontend", "backend", "leave_reason", "leave_message"],
    ("ProxyController", "get_backend_config"): ["realm", "authrole"],
    ("ProxyController", "get_service_session"): ["realm", "authrole"],
    ("ProxyController", "can_map_backend"): ["session_id", "realm", "authid", "authrole", "authextra"],
    ("ProxyController", "map_backend"): ["frontend", "realm", "authid", "authrole", "authextra"],
    ("ProxyRoute", "has_role"): ["role_name"],
    ("ProxyRoute", "map_connection_id"): ["role_name"],
}


def parameters(function: object) -> list[str]:
    """Names of what may be given by position, without self."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    items = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [item.name for item in items if item.kind in positional and item.name != "self"]


def test_the_package_offers_these() -> None:
    assert {name for name in proxy.__all__ if name[0].isupper()} == set(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS)
def test_members(name: str) -> None:
    offered = getattr(proxy, name)
    assert offered.__name__ == name
    assert inspect.getdoc(offered)
    assigned = {
        target.attr
        for base in offered.__mro__
        if base.__module__.startswith("proxy.")
        for node in ast.walk(ast.parse((sources.SRC / (base.__module__.replace(".", "/") + ".py")).read_text()))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute)
    }
    assert [member for member in MEMBERS[name] if not hasattr(offered, member) and member not in assigned] == []


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors(name: str) -> None:
    assert parameters(getattr(proxy, name))[: len(CONSTRUCTORS[name])] == CONSTRUCTORS[name]


@pytest.mark.parametrize(("name", "method"), PARAMETERS, ids=str)
def test_parameters(name: str, method: str) -> None:
    wanted = PARAMETERS[name, method]
    assert parameters(getattr(getattr(proxy, name), method))[: len(wanted)] == wanted


def test_what_a_node_reads_of_the_worker() -> None:
    assert (proxy.ProxyController.WORKER_TYPE, proxy.ProxyController.WORKER_TITLE) == ("proxy", "WAMP proxy")
    assert (proxy.ProxyWorkerProcess.TYPE, proxy.ProxyWorkerProcess.LOGNAME) == ("proxy", "Proxy")


def test_states_have_the_numbers_of_crossbar() -> None:
    assert {state.name.lower(): int(state) for state in State} == {
        "created": 1, "starting": 2, "started": 3, "failed": 4, "stopping": 5, "stopped": 6,
    }  # fmt: skip


def test_no_procedure_takes_what_a_caller_cannot_give() -> None:
    """Every parameter has a name and an annotation that a value from the wire is checked against."""
    loose = [
        f"{name}: {parameter}"
        for name, item in procedures(proxy.ProxyController).items()
        for parameter in item.signature.parameters.values()
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD
        or parameter.annotation is inspect.Parameter.empty
    ]
    assert not loose


def test_the_package_itself_needs_no_compiled_part() -> None:
    """The command line must say what is missing where the extension is not built; nor is Crossbar.io needed for it."""
    code = (
        "import sys; sys.modules['proxy._relay'] = None; sys.modules['crossbar'] = None\n"
        "import proxy, proxy.cli\n"
        "from click.testing import CliRunner\n"
        "for args in ([], ['ctl', '--help'], ['check', '--help'], ['crossbar', '--help']):\n"
        "    result = CliRunner().invoke(proxy.cli.main, args)\n"
        "    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_package_imports_crossbar_but_its_launcher() -> None:
    """Only `wamp-proxy crossbar`, which runs Crossbar.io's own command line, does, when it is called."""
    users = set()
    for path in sources.modules():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            if any(name.partition(".")[0] == "crossbar" for name in names):
                users.add(path.name)
    assert users == {"native_workers.py"}
