"""System calls that fall short or fail: all traffic still arrives, and nothing is left behind."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SEEDS = int(os.environ.get("WAMP_PROXY_FAULT_SEEDS", "6"))  # per process


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faults.c as a library."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("NOT TESTED: system calls that fail: there is no C compiler (cc) for the library that does it")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(HERE / "faults.c")]
    subprocess.run([*command, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("first", [1, 1001])
def test_traffic_survives_faults(shim: Path, first: int) -> None:
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)]))
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, str(HERE / "traffic.py"), str(first), str(SEEDS)],
        env={**os.environ, "LD_PRELOAD": preload, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert child.returncode == 0, f"{child.stdout}\n{child.stderr}"
    made = ast.literal_eval(child.stdout.splitlines()[-1].removeprefix("faults "))
    assert all(made.values()), f"some kinds of fault never happened: {made}"


def test_tls_and_tunnels_survive_faults(shim: Path) -> None:
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)]))
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, str(HERE / "traffic_tls.py"), "1", str(SEEDS)],
        env={**os.environ, "LD_PRELOAD": preload, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert child.returncode == 0, f"{child.stdout}\n{child.stderr}"
