"""The timer wheel: never early, at most a tick late, and no deadline is lost however far it is or the clock jumps."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from proxy._relay import PROBE_LIMITS, ProbeLoop

TICK = PROBE_LIMITS["tick_ms"]
TURN = TICK * PROBE_LIMITS["timer_slots"]
HOUR = 3_600_000

starts = st.sampled_from([0, 1, TICK, TURN - 1, TURN, 123_456_789, 1 << 40])
delays = st.one_of(
    st.integers(0, 3 * TICK),
    st.integers(0, 2 * TURN),
    st.integers(TURN - TICK, TURN + TICK),
    st.integers(0, 10 * HOUR),
)


class Timers(RuleBasedStateMachine):
    """Deadlines come, go, move and pass; the clock goes on by what the loop asks for or by any other step."""

    numbers = Bundle("numbers")

    @initialize(start=starts)
    def make(self, start: int) -> None:
        self.now = start
        self.loop = ProbeLoop(start)
        self.tokens = 0
        self.due: dict[int, int] = {}  # token: ms, 0 for none
        self.number: dict[int, int] = {}

    def step(self, now: int) -> None:
        """Move the clock and see who fires."""
        self.now = now
        for token in self.loop.advance(now):
            due = self.due.pop(token)
            assert due, "fired without a deadline"
            assert due <= now, "fired early"
        late = {token: now - due for token, due in self.due.items() if due and now >= due + TICK}
        assert not late

    @rule(target=numbers, delay=delays)
    def arm(self, delay: int) -> int:
        self.tokens += 1
        self.due[self.tokens] = self.now + delay or 1
        self.number[self.tokens] = self.loop.arm(self.tokens, self.now + delay or 1)
        return self.tokens

    @rule(token=numbers, delay=delays)
    def move(self, token: int, delay: int) -> None:
        if token in self.due:
            self.due[token] = self.now + delay or 1
            self.loop.move(self.number[token], self.now + delay or 1)

    @rule(token=numbers)
    def clear(self, token: int) -> None:
        if token in self.due:
            self.due[token] = 0
            self.loop.clear(self.number[token])

    @rule(token=consumes(numbers))
    def drop(self, token: int) -> None:
        if self.due.pop(token, None) is not None:
            self.loop.drop(self.number[token])

    @rule(delay=st.one_of(st.integers(0, 4), delays))
    def advance(self, delay: int) -> None:
        self.step(self.now + delay)

    @rule()
    def sleep(self) -> None:
        """As the loop does: sleep for as long as it says, and no deadline is missed."""
        wait = self.loop.wait()
        armed = [due for due in self.due.values() if due]
        assert (wait >= 0) or not armed
        if wait >= 0:
            earliest = min(armed, default=self.now + TURN)
            assert self.now + wait <= max(earliest, self.now) + TICK + 1, "sleeps over a deadline"
            self.step(self.now + wait)

    @invariant()
    def census(self) -> None:
        if hasattr(self, "loop"):
            stats = self.loop.stats()
            assert stats["connections"] == len(self.due)
            assert stats["timers"] == sum(1 for due in self.due.values() if due)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for _ in range(100_000):
                if not any(self.due.values()):
                    break
                self.sleep()
            assert not any(self.due.values()), "a deadline never came"
            assert self.loop.wait() >= -1


TestTimers = Timers.TestCase
TestTimers.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_nothing_armed_sleeps_for_ever() -> None:
    loop = ProbeLoop(5000)
    assert loop.wait() == -1
    number = loop.arm(1, 6000)
    assert loop.wait() >= 0
    loop.drop(number)
    loop.advance(9000)
    assert loop.wait() == -1


@settings(deadline=None, max_examples=30)
@given(start=starts, jump=st.integers(HOUR, 24 * HOUR), due=st.lists(st.integers(0, 30 * HOUR), max_size=50))
def test_a_jump_of_hours_fires_all_that_is_due_and_nothing_else(start: int, jump: int, due: list[int]) -> None:
    loop = ProbeLoop(start)
    for token, delay in enumerate(due):
        loop.arm(token, start + delay or 1)
    now = start + jump
    fired = set(loop.advance(now))
    assert fired <= {token for token, delay in enumerate(due) if start + delay <= now}
    assert fired >= {token for token, delay in enumerate(due) if start + delay + TICK <= now}


def test_far_deadlines_go_round_the_wheel() -> None:
    start = 7 * TURN + 3
    loop = ProbeLoop(start)
    due = start + 3 * TURN + 5
    loop.arm(9, due)
    now, fired = start, []
    wakeups = 0
    while not fired:
        now += max(loop.wait(), 1)
        fired = loop.advance(now)
        wakeups += 1
    assert fired == [9]
    assert due <= now <= due + TICK + 1
    assert wakeups < 10  # once a turn, not once a tick


def test_deadlines_of_one_tick_fire_together() -> None:
    loop = ProbeLoop(0)
    for token in range(500):
        loop.arm(token, 100)
    assert loop.advance(90) == []
    assert sorted(loop.advance(100 + TICK)) == list(range(500))
    assert loop.stats()["connections"] == 0
