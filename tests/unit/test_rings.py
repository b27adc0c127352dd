"""Rings between the planes: first in, first out, nothing dropped, over the edge too."""

from __future__ import annotations

import os
import select
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy._relay import ProbeRing


def is_awake(ring: ProbeRing) -> bool:
    """Whether the consumer would be woken, which clears it."""
    if not select.select([ring.wake_fd], [], [], 0)[0]:
        return False
    os.eventfd_read(ring.wake_fd)
    return True


class Ring(RuleBasedStateMachine):
    """A small ring, so that it runs over often, beside a list that does the same."""

    @initialize(size=st.sampled_from([1, 2, 4, 16]))
    def make(self, size: int) -> None:
        self.size = size
        self.ring = ProbeRing(size)
        self.model: list[tuple[int, bytes]] = []
        self.next = 0

    @rule(count=st.integers(1, 40), data=st.binary(max_size=20))
    def push(self, count: int, data: bytes) -> None:
        was_empty = not self.model
        is_awake(self.ring)
        self.ring.push(self.next, count, data)
        self.model += [(number, data) for number in range(self.next, self.next + count)]
        self.next += count
        if was_empty:
            assert is_awake(self.ring)

    @rule(count=st.integers(1, 40))
    def pop(self, count: int) -> None:
        for _ in range(count):
            expected = self.model.pop(0) if self.model else None
            assert self.ring.pop() == expected

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "ring"):
            assert self.ring.count == min(len(self.model), self.size)
            assert self.ring.overflow == max(len(self.model) - self.size, 0)

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            while self.model:
                assert self.ring.pop() == self.model.pop(0)
            assert self.ring.pop() is None
            assert self.ring.overflow == 0


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("size", [4, 4096])
def test_threads_push_and_one_takes(size: int) -> None:
    ring = ProbeRing(size)
    threads, each, run = 4, 20_000, 500
    start = threading.Barrier(threads)

    def produce(index: int) -> None:
        start.wait()
        for first in range(0, each, run):
            ring.push(index << 32 | first, run, b"x" * index)

    workers = [threading.Thread(target=produce, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    following = [0] * threads
    taken = 0
    while taken < threads * each:
        # Sleeping until woken must be enough: an entry never lies there unannounced.
        assert select.select([ring.wake_fd], [], [], 20)[0], "entries are left and nobody woke the consumer"
        os.eventfd_read(ring.wake_fd)
        while (entry := ring.pop()) is not None:
            index, number = entry[0] >> 32, entry[0] & 0xFFFFFFFF
            assert number == following[index]
            assert entry[1] == b"x" * index
            following[index] += 1
            taken += 1
    for worker in workers:
        worker.join()
    assert ring.pop() is None
    assert (ring.count, ring.overflow) == (0, 0)


def test_what_nobody_took_is_freed() -> None:
    for _ in range(3):
        ring = ProbeRing(8)
        ring.push(0, 100, b"z" * 1000)
        del ring
