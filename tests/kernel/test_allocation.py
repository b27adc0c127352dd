"""No memory: whichever allocation fails, the session ends in order and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import _relay as R

HERE = Path(__file__).resolve().parent


@pytest.mark.skipif(
    not R.probe_fail_allocation(-1), reason=f"a {R.build_mode} build cannot fail allocations: `make test-debug` does"
)
@pytest.mark.parametrize("pair", ["rs-rs", "ws-ws", "ws-rs", "messages"])
def test_every_allocation_may_fail(pair: str) -> None:
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, str(HERE / "allocation.py"), pair],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert child.returncode == 0, f"{child.stdout[-3000:]}\n{child.stderr[-6000:]}"
    assert int(child.stdout.split()[-1]) > 10, child.stdout
