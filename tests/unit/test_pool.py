"""Slots for connections: numbers that are never used twice, and the census."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy._relay import PROBE_LIMITS, ProbeLoop

CHUNK = PROBE_LIMITS["chunk_slots"]


class Pool(RuleBasedStateMachine):
    """Connections come and go; every number ever given is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = ProbeLoop()
        self.live: list[int] = []
        self.dead: list[int] = []
        self.most = 0

    @rule(count=st.integers(1, CHUNK + 10))
    def take(self, count: int) -> None:
        new = [self.loop.take() for _ in range(count)]
        assert len(set(new)) == count
        assert not set(new) & (set(self.live) | set(self.dead))
        self.live += new
        self.most = max(self.most, len(self.live))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(1, len(self.live)))):
            number = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)) if len(self.live) < 50 else 0)
            self.loop.give(number)
            self.dead.append(number)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def give_again(self, data: st.DataObject) -> None:
        with pytest.raises(KeyError):
            self.loop.give(data.draw(st.sampled_from(self.dead)))

    @invariant()
    def living_are_found_and_dead_are_not(self) -> None:
        assert all(self.loop.has(number) for number in self.live)
        assert not any(self.loop.has(number) for number in self.dead)

    @invariant()
    def census(self) -> None:
        stats = self.loop.stats()
        assert stats["connections"] == stats["load"] == len(self.live)
        # slots are used again before more are made
        assert stats["slots"] == -(-self.most // CHUNK) * CHUNK

    def teardown(self) -> None:
        for number in self.live:
            self.loop.give(number)
        assert self.loop.stats()["connections"] == 0


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_a_slot_counts_its_lives() -> None:
    loop = ProbeLoop()
    seen = set()
    for _ in range(1000):
        number = loop.take()
        loop.give(number)
        seen.add(number)
    assert len(seen) == 1000
    assert loop.stats()["slots"] == CHUNK


@pytest.mark.parametrize("number", [0, 1 << 32, 0xFFFFFF << 32 | 1, CHUNK << 32 | 1, 0xFFFFFFFFFFFFFFFF])
def test_numbers_that_never_were_find_nobody(number: int) -> None:
    loop = ProbeLoop()
    assert not loop.has(number)
    loop.take()
    assert not loop.has(number)


def test_numbers_of_another_loop_find_nobody() -> None:
    loop = ProbeLoop()
    number = loop.take()
    assert loop.has(number)
    assert not loop.has(number | 1 << 56)
