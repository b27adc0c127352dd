"""What is written beside the code is true: the stub, the build modes, the documents."""

from __future__ import annotations

import ast
import os
import re
import tomllib

import pytest

from proxy import _relay
from quality import sources

MODES = ["release", "debug", "asan", "trace"]


def stub() -> ast.Module:
    """The parsed stub of the extension."""
    return ast.parse((sources.PROXY / "_relay.pyi").read_text())


def is_public(name: str) -> bool:
    """Whether a name is part of the contract."""
    return not name.startswith("_")


def test_the_build_under_test_is_the_one_that_was_asked_for() -> None:
    assert _relay.build_mode in MODES
    assert _relay.build_mode == os.environ.get("WAMP_PROXY_BUILD_MODE", _relay.build_mode)


def stated(body: list[ast.stmt]) -> set[str]:
    """Names that a body of the stub declares."""
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    fields = [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return names | {field.id for field in fields if isinstance(field, ast.Name)}


def test_stub_names_exist() -> None:
    assert [name for name in stated(stub().body) if not hasattr(_relay, name)] == []


def test_stub_of_relay_is_complete() -> None:
    (relay,) = (node for node in stub().body if isinstance(node, ast.ClassDef) and node.name == "Relay")
    assert set(filter(is_public, stated(relay.body))) == set(filter(is_public, dir(_relay.Relay)))


def test_version_is_stated_once() -> None:
    project = tomllib.loads((sources.ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "proxy.__version__"}


def test_changelog_has_this_version() -> None:
    from proxy import __version__

    assert re.search(rf"^## \[?{re.escape(__version__)}\b", (sources.ROOT / "CHANGELOG.md").read_text(), re.M)


def test_readme_names_every_command() -> None:
    from proxy.cli import main

    readme = (sources.ROOT / "README.md").read_text()
    assert [name for name in main.commands if f"wamp-proxy {name}" not in readme] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"])
def test_make_targets_in_documents_exist(document: str) -> None:
    makefile = (sources.ROOT / "Makefile").read_text()
    targets = {target for line in re.findall(r"^([\w -]+):(?!=)", makefile, re.M) for target in line.split()}
    named = set(re.findall(r"`make ([a-z][\w-]*)", (sources.ROOT / document).read_text()))
    assert sorted(named - targets) == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_in_documents_lead_somewhere(document: str) -> None:
    text = (sources.ROOT / document).read_text()
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (sources.ROOT / target).exists()] == []


@pytest.mark.parametrize("mode", MODES)
def test_contributing_names_the_build_modes(mode: str) -> None:
    assert f"`{mode}`" in (sources.ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("document", ["SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_tests_that_documents_name_exist(document: str) -> None:
    named = re.findall(r"\btests/[\w/]+(?:\.\w+)?", (sources.ROOT / document).read_text())
    assert sorted(name for name in named if not (sources.ROOT / name).exists()) == []


def test_architecture_names_every_module() -> None:
    text = (sources.ROOT / "ARCHITECTURE.md").read_text()
    top = {path.relative_to(sources.PROXY).parts[0] for path in sources.modules()}
    names = {name if name.endswith(".py") else f"{name}/" for name in top} - {"__init__.py", "__main__.py"}
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_architecture_names_no_other_module() -> None:
    text = (sources.ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", text))
    assert (
        sorted(name for name in named if not any((base / name).exists() for base in (sources.PROXY, sources.ROOT)))
        == []
    )
