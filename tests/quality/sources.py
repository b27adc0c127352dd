"""The project's sources as the quality tests see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
RELAY = SRC / "relay"
PROXY = SRC / "proxy"
COMPILE_ROOT = SRC / "_relay.pyx"

TEXT_SUFFIXES = {
    ".py", ".pyi", ".pyx", ".pxi", ".pxd", ".h", ".c", ".cpp", ".js",
    ".md", ".toml", ".txt", ".json", ".yaml", ".yml", ".in", ".conf", ".cfg",
}  # fmt: skip
TEXT_NAMES = {"Makefile", "run", ".gitignore", ".gitattributes"}
SKIPPED = {".git", "build", "dist", "node_modules", "__pycache__", "results", "corpus"}


def includes() -> list[str]:
    """Names of the parts, in the order in which ``_relay.pyx`` includes them."""
    return re.findall(r'^include "relay/(\w+)\.pxi"', COMPILE_ROOT.read_text(), re.MULTILINE)


def is_probe(part: str) -> bool:
    """Whether a part is Python: wrappers for tests and benchmarks, or what the control plane calls."""
    return part.startswith("probe") or part == "tls_make"


@dataclass(frozen=True)
class Function:
    """A C function of a part: its name, its signature up to the colon, its first line and number of lines."""

    part: str
    name: str
    signature: str
    line: int
    lines: int


# A signature may take several lines; it ends with the colon that is not inside its parentheses.
_FUNCTION = re.compile(
    r"^cdef (?!extern|class|enum|struct|packed)[\w *]*?\b(\w+)\((?:[^()]|\([^()]*\))*\)[^:\n]*:", re.MULTILINE
)


def functions(part: str) -> Iterator[Function]:
    """The C functions that a part defines at module level."""
    text = (RELAY / f"{part}.pxi").read_text()
    for match in _FUNCTION.finditer(text):
        body = re.match(r"(?:[ \t]+.*\n|\n)*", text[match.end() :].partition("\n")[2])
        assert body is not None
        lines = match[0].count("\n") + 1 + body[0].rstrip().count("\n") + 1
        yield Function(part, match[1], match[0], text.count("\n", 0, match.start()) + 1, lines)


def text_files() -> Iterator[Path]:
    """Every text file of the project, whether git knows it yet or not."""
    stack = [ROOT]
    while stack:
        for path in sorted(stack.pop().iterdir()):
            if path.name in SKIPPED or path.name.startswith(".venv") or path.name.endswith(("_cache", ".egg-info")):
                continue
            if path.is_dir():
                stack.append(path)
            elif path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES:
                yield path


def modules() -> list[Path]:
    """The Python modules of the package."""
    return sorted(PROXY.glob("**/*.py"))
