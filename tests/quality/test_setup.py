"""A build from source says what is missing, before it spends its time on anything else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quality import sources

COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler: builds from source are NOT tested")

#: A compiler of a system where one header, or the static libraries, are not installed.
WITHOUT = """#!/bin/sh
for argument; do
    case $argument in
    -print-file-name=*) echo "${{argument#*=}}"; exit 0 ;;
    *.c) if grep -q '{header}' "$argument"; then
        echo "$argument:1:10: fatal error: {header}: No such file or directory" >&2
        exit 1
    fi ;;
    esac
done
exec {compiler} "$@"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a build needs, away from the tree that others build in."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(sources.ROOT / name, folder)
    (folder / "src" / "proxy").mkdir(parents=True)
    shutil.copy(sources.SRC / "proxy" / "__init__.py", folder / "src" / "proxy")
    return folder


def build(tree: Path, header: str, **variables: str) -> str:
    """What a build prints that must fail."""
    compiler = tree / "compiler"
    compiler.write_text(WITHOUT.format(header=header, compiler=COMPILER))
    compiler.chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PROXY_", "OPENSSL_"))}
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext"],
        cwd=tree,
        env=inherited | {"CC": str(compiler)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("header", "what", "packages"),
    [
        ("openssl/ssl.h", "the headers of OpenSSL 1.1.1 or newer are not installed", ("libssl-dev", "openssl-devel")),
        ("zlib.h", "the headers of zlib are not installed", ("zlib1g-dev", "zlib-devel")),
    ],
)
def test_missing_headers_are_named_with_their_packages(
    tree: Path, header: str, what: str, packages: tuple[str, ...]
) -> None:
    said = build(tree, header)
    assert what in said
    assert f"{header}: No such file or directory" in said
    assert all(package in said for package in packages)
    assert not list(tree.glob("build/**/*.c")), "it is said before Cython runs"


@pytest.mark.parametrize("prefix", ["", "elsewhere"])
def test_missing_static_libraries_are_named(tree: Path, prefix: str) -> None:
    """Or a wheel for other systems would take what this one has."""
    named = {"OPENSSL_PREFIX": str(tree / prefix)} if prefix else {}
    said = build(tree, "nothing.h", PROXY_OPENSSL="static", **named)
    assert "libssl.a" in said
    assert "OPENSSL_PREFIX" in said
