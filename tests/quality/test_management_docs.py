"""docs/management.md tells of every procedure, event, error and command, of each as it is, and of nothing else."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from proxy import ProxyController, cli
from proxy.config import load
from proxy.lifecycle import State
from proxy.management.procedures import Procedure, procedures
from quality import sources

DOCUMENT = sources.ROOT / "docs" / "management.md"

# The topics that are put together at run time.
KINDS = ("connection", "route", "transport")
STEPS = ("starting", "started", "stopping", "stopped")
EXPANSIONS = {
    "on_proxy_{self.KIND}_{step}": {f"on_proxy_{kind}_{step}" for kind in KINDS for step in STEPS},
    "on_proxy_{self._kind}_draining": {f"on_proxy_{kind}_draining" for kind in KINDS},
    "on_proxy_{self._kind}_drained": {f"on_proxy_{kind}_drained" for kind in KINDS},
}
# Not procedures of a worker: what a node answers, and the worker's own realm in its place.
NODE_URI = re.compile(r'"(crossbar\.get_[a-z_]+)"')


def section(title: str) -> str:
    """Text of a section of second level, with all below it."""
    parts = re.split(r"^## (.+)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert title in found, f"no section {title!r} among {sorted(found)}"
    return found[title]


def rows(title: str) -> list[list[str]]:
    """Cells of all tables of a section, without their heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def documented(title: str) -> dict[str, list[str]]:
    """Rows of a section by the name that they begin with, each once."""
    found: dict[str, list[str]] = {}
    for first, *others in rows(title):
        match = re.match(r"`([\w.]+)[`(]", first)
        assert match is not None, first
        assert match[1] not in found, f"{match[1]} is there twice"
        found[match[1]] = [first, *others]
    return found


def written(value: Any) -> str:
    """A default as the document has it: in JSON."""
    return json.dumps(value)


def signature(item: Procedure) -> str:
    """The parameters as the document has them."""
    parts = [
        name if parameter.default is inspect.Parameter.empty else f"{name}={written(parameter.default)}"
        for name, parameter in item.signature.parameters.items()
    ]
    return f"`{item.name}({', '.join(parts)})`"


def publishers() -> list[Path]:
    """The modules that may publish: all but the command line's, which listens."""
    return [path for path in sources.modules() if "ctl" not in path.parts]


def error_uris() -> set[str]:
    """The URIs of the package's own errors, and those of Crossbar.io's that it names elsewhere."""
    found = set()
    for path in publishers():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and field.value is None:
                        continue  # what an instance has, of whatever kind
                    if isinstance(field, ast.Assign | ast.AnnAssign) and "uri" in ast.unparse(field).partition("=")[0]:
                        assert isinstance(field.value, ast.Constant), ast.unparse(field)
                        found.add(str(field.value.value))
            elif isinstance(node, ast.Constant) and re.fullmatch(r"crossbar\.error\.\w+", str(node.value)):
                found.add(str(node.value))
    return found


def strings() -> dict[str, str]:
    """The texts of the package that look like a topic's last part: as they stand in the source -> where."""
    found = {}
    for path in publishers():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = re.sub(r"^\{[\w.]+\}\.(?=on_)", "", ast.unparse(node)[1:].strip("'\""))
            else:
                continue
            if re.fullmatch(r"on_[a-z_{}.A-Z]+[a-z}]", text):
                found[text] = f"{path.name}:{node.lineno}"
    return found


def topics() -> set[str]:
    """Last parts of all topics that the package publishes."""
    found: set[str] = set()
    parts = strings()
    for text, place in parts.items():
        if "{" in text:
            assert text in EXPANSIONS, f"{place}: tell this test (EXPANSIONS) what {text!r} can be"
            found |= EXPANSIONS[text]
        elif not any(text != other and other.startswith(text + "{") for other in parts):
            found.add(text)
    return found


# --- procedures ---


def test_every_procedure_is_documented_and_no_other() -> None:
    assert sorted(documented("Procedures")) == sorted(procedures(ProxyController))


@pytest.mark.parametrize("name", sorted(procedures(ProxyController)))
def test_arguments_and_defaults_are_the_real_ones(name: str) -> None:
    assert documented("Procedures")[name][0] == signature(procedures(ProxyController)[name])


@pytest.mark.parametrize("name", sorted(procedures(ProxyController)))
def test_a_procedure_says_for_itself_what_it_does(name: str) -> None:
    assert procedures(ProxyController)[name].doc


def test_errors_of_procedures_exist() -> None:
    known = {uri.removeprefix("crossbar.error.") for uri in documented("Errors")}
    wrong = {
        (name, error)
        for name, cells in documented("Procedures").items()
        for error in re.findall(r"`([a-z_.]+)`", cells[-1])
        if error not in known
    }
    assert not wrong


def test_procedures_of_the_own_realm_are_documented() -> None:
    realm = (sources.PROXY / "management" / "realm.py").read_text()
    assert set(NODE_URI.findall(realm)) - set(re.findall(r"`(crossbar\.get_[a-z_]+)", DOCUMENT.read_text())) == set()


# --- events and errors ---


def test_every_event_is_documented_and_no_other() -> None:
    assert sorted(documented("Events")) == sorted(topics())


def test_events_that_are_mentioned_exist() -> None:
    mentioned = set(re.findall(r"`(on_[a-z_]+)`", DOCUMENT.read_text()))
    assert sorted(mentioned - set(documented("Events")) - {"on_log"}) == []


def test_every_error_is_documented_and_no_other() -> None:
    stated = [uri for uri in documented("Errors") if not uri.startswith("wamp.")]
    assert sorted(stated) == sorted(uri for uri in error_uris() if not uri.startswith("wamp."))


@pytest.mark.parametrize("state", list(State))
def test_states_are_documented(state: State) -> None:
    assert f"{int(state)} {state.name.lower()}" in DOCUMENT.read_text()


# --- the command line ---


def ctl() -> click.Group:
    """The group ``wamp-proxy ctl``."""
    group = cli.main.commands["ctl"]
    assert isinstance(group, click.Group)
    return group


@pytest.mark.parametrize("name", sorted(ctl().commands))
def test_every_command_of_ctl_is_documented(name: str) -> None:
    assert re.search(rf"^\| `{name}\b", section("wamp-proxy ctl"), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(ctl().commands))
def test_every_option_of_ctl_is_documented(name: str) -> None:
    command = ctl().commands[name]
    parts = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    options = {
        option
        for part in parts
        for parameter in part.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--") and option not in ("--help", "--json", "--socket")
    }
    text = section("wamp-proxy ctl")
    assert sorted(option for option in options if option not in text) == []


def test_exit_codes_of_ctl_are_those_of_its_help() -> None:
    help_text = ctl().get_help(click.Context(ctl()))
    table = {int(cells[0].strip("`")) for cells in rows("wamp-proxy ctl") if re.fullmatch(r"`\d+`", cells[0])}
    assert table
    assert sorted(code for code in table if not re.search(rf"\b{code}\b", help_text)) == []


# --- what is shown works ---

BLOCK = re.compile(r"^```(json|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = [sources.ROOT / "README.md", *sorted((sources.ROOT / "docs").glob("*.md"))]
BLOCKS = [(path, kind, text) for path in DOCUMENTS for kind, text in BLOCK.findall(path.read_text())]


def block_id(value: object) -> str | None:
    """What a failure calls a block's document."""
    return value.name if isinstance(value, Path) else "" if isinstance(value, str) and "\n" in value else None


@pytest.mark.parametrize(("path", "kind", "text"), BLOCKS, ids=block_id)
def test_configurations_in_documents_can_be_used(
    path: Path, kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker items, and nodes with one in them, are checked as `wamp-proxy check` does; others must at least parse."""
    value = json.loads(text) if kind == "json" else yaml.safe_load(text)
    items = [value, *value.get("workers", [])] if isinstance(value, dict) else []
    is_worker = any(item.get("type") == "proxy" for item in items)
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "anything")
    if is_worker:
        file = tmp_path / f"config.{kind}"
        file.write_text(text)
        load(file)


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*sorted(sources.ROOT.glob("*.md")), *sorted((sources.ROOT / "docs").glob("*.md")),
                                  sources.ROOT / "examples" / "README.md"], ids=lambda path: path.name)  # fmt: skip
def test_links_lead_to_files_and_headings(path: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong
