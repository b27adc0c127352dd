"""Sizes, and words that no file should contain."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from quality import sources

PART_LINES_MAX = 600  # the aim is 500; beyond this a part holds two ideas
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 80  # the aim is 40; tables and switches may need more
LINE_LENGTH_MAX = 120

# Paths of somebody's machine, and notes to self.
MACHINE_PATH = re.compile(r"(?<![\w.$}*])/(?:home|root|Users|work)/(?!(?:me|user|you)\b)\w+")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
# Files that no linter of ours measures.
UNLINTED = {".h", ".c", ".cpp", ".pxd", ""}


def name(path: Path) -> str:
    """How failures call a file."""
    return path.relative_to(sources.ROOT).as_posix()


FILES = list(sources.text_files())


def test_parts_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in sources.RELAY.glob("*.p*")}
    assert {part: n for part, n in lengths.items() if n > PART_LINES_MAX} == {}


def test_modules_are_short() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in sources.modules()}
    assert {module: n for module, n in lengths.items() if n > MODULE_LINES_MAX} == {}


def test_functions_of_parts_are_short() -> None:
    parts = [part for part in sources.includes() if not sources.is_probe(part)]
    long = [f"{f.part}.pxi:{f.line}: {f.name}: {f.lines} lines" for part in parts for f in sources.functions(part)
            if f.lines > FUNCTION_LINES_MAX]  # fmt: skip
    assert not long, "\n".join(long)


def test_functions_of_modules_are_short() -> None:
    long = []
    for path in sources.modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{name(path)}:{node.lineno}: {node.name}: {lines} lines")
    assert not long, "\n".join(long)


def test_lines_are_short() -> None:
    long = [
        f"{name(path)}:{number}: {len(line)} characters"
        for path in FILES
        if path.suffix in UNLINTED
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_LENGTH_MAX and "http" not in line
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("pattern", [MACHINE_PATH, UNFINISHED], ids=["machine-paths", "unfinished"])
def test_words(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name(path)}:{number}: {match[0]}"
        for path in FILES
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("part", sorted(path.stem for path in sources.RELAY.glob("*.pxi")))
def test_parts_say_what_they_are(part: str) -> None:
    text = (sources.RELAY / f"{part}.pxi").read_text()
    head = re.match(r"(?:#.*\n)+", text)
    assert head is not None
    assert head[0].startswith(f"# {part}.pxi - ")
