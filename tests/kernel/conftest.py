"""Fixtures of the tests of the data plane alone: each test leaves neither descriptors nor threads behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from kernel.harness import Plane


def descriptors() -> dict[int, str]:
    """What is open now."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of the listing itself
            pass
    return found


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    gc.collect()
    before, threads = descriptors(), threading.active_count()
    yield
    gc.collect()
    after = descriptors()
    assert {fd: what for fd, what in after.items() if before.get(fd) != what} == {}
    assert threading.active_count() == threads


@pytest.fixture
def make_plane(request: pytest.FixtureRequest, _nothing_left: None) -> Iterator[Callable[..., Plane]]:
    """Make planes; after the test all of them must be idle and end."""
    planes: list[Plane] = []

    def make(threads: int = 1) -> Plane:
        planes.append(Plane(threads))
        return planes[-1]

    yield make
    for made in planes:
        try:
            made.close()
        except BaseException:
            made.kill()
            raise


@pytest.fixture
def plane(make_plane: Callable[..., Plane]) -> Plane:
    """A plane of one thread."""
    return make_plane()
