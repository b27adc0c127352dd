"""Linear buffers: content, headroom, and the pool that their memory comes from."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from proxy._relay import PROBE_LIMITS, ProbeBuffer, ProbeLoop

HEADROOM = PROBE_LIMITS["headroom"]
SMALLEST = 1 << PROBE_LIMITS["class_min"]
LARGEST_POOLED = 1 << PROBE_LIMITS["class_max"]
POOL_BYTES_MAX = PROBE_LIMITS["pool_bytes_max"]

# Sizes around what matters: nothing, the smallest class, class borders with headroom, beyond the pooled classes.
sizes = st.one_of(
    st.integers(0, 200),
    st.integers(SMALLEST - HEADROOM - 2, SMALLEST + 2),
    st.integers(0, 70_000),
    st.sampled_from([LARGEST_POOLED - HEADROOM, LARGEST_POOLED - HEADROOM + 1, LARGEST_POOLED, 3 * LARGEST_POOLED]),
)


def pattern(size: int, seed: int) -> bytes:
    """Octets that show when they are out of place."""
    return bytes((i * 7 + seed) & 0xFF for i in range(256)) * (size // 256 + 1)


class Buffers(RuleBasedStateMachine):
    """Several buffers of one loop, each beside a bytearray that does the same."""

    buffers = Bundle("buffers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = ProbeLoop()
        self.base = self.loop.stats()
        self.live: list[tuple[ProbeBuffer, bytearray]] = []

    @rule(target=buffers)
    def make(self) -> tuple[ProbeBuffer, bytearray]:
        pair = (ProbeBuffer(self.loop), bytearray())
        self.live.append(pair)
        return pair

    @rule(pair=buffers, size=sizes, seed=st.integers(0, 255))
    def append(self, pair: tuple[ProbeBuffer, bytearray], size: int, seed: int) -> None:
        data = pattern(size, seed)[:size]
        pair[0].append(data)
        pair[1].extend(data)

    @rule(pair=buffers, size=sizes)
    def reserve(self, pair: tuple[ProbeBuffer, bytearray], size: int) -> None:
        pair[0].reserve(size)
        assert pair[0].room >= size
        assert pair[0].start >= HEADROOM

    @rule(pair=buffers, share=st.floats(0, 1))
    def consume(self, pair: tuple[ProbeBuffer, bytearray], share: float) -> None:
        size = round(len(pair[1]) * share)
        pair[0].consume(size)
        del pair[1][:size]

    @rule(pair=buffers)
    def spoil_front(self, pair: tuple[ProbeBuffer, bytearray]) -> None:
        pair[0].spoil_front()

    @rule(pair=buffers)
    def free(self, pair: tuple[ProbeBuffer, bytearray]) -> None:
        pair[0].free()
        pair[1].clear()
        assert pair[0].capacity == 0

    @rule(pair=consumes(buffers))
    def drop(self, pair: tuple[ProbeBuffer, bytearray]) -> None:
        pair[0].free()
        self.live = [other for other in self.live if other[0] is not pair[0]]

    @invariant()
    def content_is_kept(self) -> None:
        for buffer, model in self.live:
            assert buffer.content() == model

    @invariant()
    def headroom_is_kept(self) -> None:
        for buffer, _ in self.live:
            assert buffer.capacity == 0 or buffer.start >= HEADROOM

    @invariant()
    def memory_is_in_proportion(self) -> None:
        for buffer, _ in self.live:
            capacity = buffer.capacity
            assert capacity == 0 or (capacity >= SMALLEST and capacity & (capacity - 1) == 0)

    @invariant()
    def counts_balance(self) -> None:
        stats = self.loop.stats()
        held = [buffer.capacity for buffer, _ in self.live if buffer.capacity]
        assert stats["buffers"] - self.base["buffers"] == len(held)
        assert stats["buffered_octets"] - self.base["buffered_octets"] == sum(held)
        assert stats["pooled_octets"] <= POOL_BYTES_MAX

    def teardown(self) -> None:
        for buffer, _ in self.live:
            buffer.free()
        stats = self.loop.stats()
        assert (stats["buffers"], stats["buffered_octets"]) == (self.base["buffers"], self.base["buffered_octets"])


TestBuffers = Buffers.TestCase
TestBuffers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_loop_holds_its_scratch_only() -> None:
    stats = ProbeLoop().stats()
    assert stats["buffers"] == 1
    assert stats["buffered_octets"] == PROBE_LIMITS["scratch"]


def test_freed_memory_is_used_again() -> None:
    loop = ProbeLoop()
    buffer = ProbeBuffer(loop)
    buffer.append(b"x")
    buffer.free()
    assert loop.stats()["pooled_octets"] == SMALLEST
    buffer.append(b"y")
    assert loop.stats()["pooled_octets"] == 0
    assert buffer.content() == b"y"


def test_pool_is_bounded() -> None:
    loop = ProbeLoop()
    buffers = [ProbeBuffer(loop) for _ in range(2 * POOL_BYTES_MAX // LARGEST_POOLED)]
    for buffer in buffers:
        buffer.reserve(LARGEST_POOLED - HEADROOM)
    for buffer in buffers:
        buffer.free()
        assert loop.stats()["pooled_octets"] <= POOL_BYTES_MAX
    assert loop.stats()["pooled_octets"] == POOL_BYTES_MAX


def test_large_memory_is_not_kept() -> None:
    loop = ProbeLoop()
    buffer = ProbeBuffer(loop)
    buffer.reserve(LARGEST_POOLED)
    assert buffer.capacity > LARGEST_POOLED
    buffer.free()
    assert loop.stats()["pooled_octets"] == 0


def test_consumed_room_is_used_before_more_memory_is_asked_for() -> None:
    loop = ProbeLoop()
    buffer = ProbeBuffer(loop)
    buffer.append(bytes(SMALLEST - HEADROOM))
    for _ in range(50):
        buffer.consume(1000)
        buffer.append(bytes(1000))
    assert buffer.capacity == SMALLEST


@pytest.mark.parametrize("size", [1 << 32, (1 << 32) - HEADROOM - 1, 1 << 31, 1 << 62])
def test_what_cannot_be_counted_is_refused(size: int) -> None:
    buffer = ProbeBuffer(ProbeLoop())
    buffer.append(b"kept")
    with pytest.raises(MemoryError):
        buffer.reserve(size)
    assert buffer.content() == b"kept"
