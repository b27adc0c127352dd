"""The data plane never touches the interpreter: what Cython made of the parts is searched for Python's C API."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from quality import sources

PARTS = [part for part in sources.includes() if not sources.is_probe(part)]
# Calls that need the GIL or take it. __Pyx_ helpers are mostly wrappers over the API, so all of them are refused.
PYTHON_CALL = re.compile(r"\b(?:Py[A-Z]\w*|_Py\w+|__Pyx_\w+|__Pyx\w+GIL\w*)\s*\(")
# Macros that are plain C, whatever their names say.
HARMLESS = re.compile(r"\b(?:__Pyx_(?:memviewslice|zero_int)\w*|__Pyx_(?:div|mod)_\w+|__Pyx_(?:UN)?LIKELY)\s*\(")

DEFINITION = re.compile(r"^ *static [^;{}]*?\b__pyx_f_5proxy_6_relay_(\w+)\([^;{}]*\{$", re.MULTILINE)
# What may hold braces that are none: comments (Cython quotes the source in them), strings, characters.
NOT_CODE = re.compile(r"/\*.*?\*/|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)+'", re.DOTALL)


def body_at(text: str, start: int) -> str:
    """The text from ``start``, which is behind an opening brace, up to the closing one."""
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : brace.start()]
    raise AssertionError("a function has no end")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """C text, without comments, of every function that the extension defines, by its name in the Cython source."""
    target = tmp_path_factory.mktemp("c") / "_relay.c"
    directives = "boundscheck=False,wraparound=False,cdivision=True,initializedcheck=False"
    command = [sys.executable, "-m", "cython", "-3", "--module-name", "proxy._relay", "-X", directives, "-I", "src"]
    subprocess.run([*command, "-o", str(target), "src/_relay.pyx"], cwd=sources.ROOT, check=True)
    text = NOT_CODE.sub(" ", target.read_text())
    return {match[1]: body_at(text, match.end()) for match in DEFINITION.finditer(text)}


@pytest.mark.parametrize("part", PARTS)
def test_part_calls_no_python(part: str, bodies: dict[str, str]) -> None:
    offences = []
    for function in sources.functions(part):
        calls = {call[0] for call in PYTHON_CALL.finditer(HARMLESS.sub("", bodies[function.name]))}
        if calls:
            offences.append(f"{part}.pxi:{function.line}: {function.name} calls {sorted(calls)}")
    assert not offences, "\n".join(offences)


def test_the_search_finds_what_it_looks_for() -> None:
    samples = ["__Pyx_ErrOccurredWithGIL()", "PyGILState_Ensure()", "__Pyx_PyGILState_Ensure()", "PyErr_Occurred()"]
    assert [sample for sample in samples if not PYTHON_CALL.search(sample)] == []


@pytest.mark.parametrize("part", PARTS)
def test_signatures_say_noexcept_nogil(part: str) -> None:
    """Without noexcept, Cython takes the GIL after each call to ask whether an error was raised."""
    wrong = [f"{f.line}: {f.name}" for f in sources.functions(part) if not f.signature.endswith("noexcept nogil:")]
    assert not wrong, "\n".join(wrong)
