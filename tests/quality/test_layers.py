"""Who may know whom: the order of the parts, the sans-IO parts, and the one door from Python to the data plane."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from quality import sources

# Parts that turn octets into answers. They know no descriptor, no clock, no connection.
SANS_IO = [
    "sink", "ws", "rawsocket", "framing", "batch", "deflate", "wamp", "notes", "sids",
    *(part for part in sources.includes() if part.startswith(("scan_", "fields", "rewrite", "translate"))),
]  # fmt: skip
INPUT_OUTPUT = re.compile(
    r"\b(?:conn_t|loop_t|recv\w*|send(?:msg|to)?|epoll\w*|eventfd\w*|clock_gettime|accept4?|connect|close)\b(?=\s*[(*])"
)
# Parts that move octets and do not read messages; link is where both meet.
TRANSPORT = ["buf", "pool", "rings", "timers", "conn", "loop"]
READS_MESSAGES = re.compile(
    r"\b(?:scan_(?:json|msgpack|cbor|ubjson|flatbuffers)|wamp_plan|wamp_type|fields_\w+|rewrite|translate)\s*\("
)


def code(part: str) -> str:
    """Text of a part without comments and docstrings."""
    text = (sources.RELAY / f"{part}.pxi").read_text()
    text = re.sub(r'"""(?:[^"\\]|\\.|"(?!""))*"""', "", text)
    return re.sub(r"#.*", "", text)


def test_every_part_is_included_once() -> None:
    included = sources.includes()
    assert sorted(included) == sorted(path.stem for path in sources.RELAY.glob("*.pxi"))


def test_a_part_uses_only_parts_above_it() -> None:
    order = sources.includes()
    home = {function.name: part for part in order if not sources.is_probe(part) for function in sources.functions(part)}
    wrong = []
    for index, part in enumerate(order):
        below = {name for name, owner in home.items() if order.index(owner) > index}
        used = set(re.findall(r"\b(\w+)\s*\(", code(part))) & below
        wrong += [f"{part}.pxi uses {name} of {home[name]}.pxi, which is included after it" for name in sorted(used)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", SANS_IO)
def test_codecs_know_no_sockets(part: str) -> None:
    assert sorted(set(INPUT_OUTPUT.findall(code(part)))) == []


@pytest.mark.parametrize("part", TRANSPORT)
def test_transport_reads_no_messages(part: str) -> None:
    assert sorted(set(READS_MESSAGES.findall(code(part)))) == []


def imported(path: Path) -> set[str]:
    """Absolute names of what a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = f"proxy.{node.module or ''}".rstrip(".") if node.level else str(node.module)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def test_only_plane_imports_the_extension() -> None:
    users = {path.name for path in sources.modules() if "proxy._relay" in imported(path)}
    assert users == {"plane.py"}


def test_the_package_imports_neither_tests_nor_bench() -> None:
    wrong = [path.name for path in sources.modules() if imported(path) & {"pytest", "hypothesis", "support", "bench"}]
    assert not wrong
