"""Turns: how many go on at a time, in which order, and for how long the others wait."""

import pytest
from twisted.internet.task import Clock

from proxy.turns import Turns


class Someone:
    """Writes down what it is told. It may give its turn back at once, or fail."""

    def __init__(self, name, told, *, is_quick=False, fails=False):
        self.name, self.told, self.is_quick, self.fails = name, told, is_quick, fails

    def on_turn(self, turns):
        self.told.append(self.name)
        if self.is_quick:
            turns.leave()
        if self.fails:
            raise RuntimeError("for the test")

    def on_turn_late(self, turns):
        self.told.append(f"{self.name} late")
        if self.fails:
            raise RuntimeError("for the test")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


def test_more_than_the_limit_wait_in_the_order_they_came(clock, told):
    turns = Turns(2, clock, 10)
    people = [Someone(number, told) for number in range(5)]
    assert [turns.take(someone) for someone in people] == [True, True, False, False, False]
    assert turns.waiting == 3
    turns.leave()
    turns.leave()
    assert told == [2, 3]
    assert turns.taken == 2


def test_without_limit_nobody_waits(clock, told):
    turns = Turns(0, clock, 10)
    assert all(turns.take(Someone(number, told)) for number in range(100))
    assert not clock.getDelayedCalls()


def test_nobody_overtakes_those_who_wait(clock, told):
    turns = Turns(1, clock, 10)
    assert turns.take(Someone("first", told))
    assert not turns.take(Someone("second", told))
    turns.leave()
    assert told == ["second"]
    assert not turns.take(Someone("third", told))


def test_ten_thousand_who_have_nothing_to_do_need_no_stack(clock, told):
    turns = Turns(1, clock, 10)
    assert turns.take(Someone("first", told))
    for number in range(10_000):
        assert not turns.take(Someone(number, told, is_quick=True))
    turns.leave()
    assert told == list(range(10_000))
    assert turns.taken == 0
    assert not clock.getDelayedCalls()


def test_who_does_not_wait_any_more_has_no_turn(clock, told):
    turns = Turns(1, clock, 10)
    turns.take(Someone("first", told))
    second, third = Someone("second", told), Someone("third", told)
    turns.take(second)
    turns.take(third)
    turns.drop(second)
    turns.drop(second)
    turns.leave()
    assert told == ["third"]
    assert not clock.getDelayedCalls()


def test_patience_ends_for_each_at_its_own_time(clock, told):
    turns = Turns(1, clock, 10)
    turns.take(Someone("first", told))
    turns.take(Someone("second", told))
    clock.advance(4)
    turns.take(Someone("third", told))
    clock.advance(6)
    assert told == ["second late"]
    clock.advance(3.9)
    assert told == ["second late"]
    clock.advance(0.1)
    assert told == ["second late", "third late"]
    assert not clock.getDelayedCalls()
    turns.leave()
    assert turns.taken == 0


def test_an_error_of_one_does_not_take_the_turns_of_the_others(clock, told):
    turns = Turns(1, clock, 10)
    turns.take(Someone("first", told))
    turns.take(Someone("broken", told, is_quick=True, fails=True))
    turns.take(Someone("third", told))
    turns.leave()
    assert told == ["broken", "third"]


def test_an_error_of_one_who_is_late_does_not_keep_the_others_waiting(clock, told):
    turns = Turns(1, clock, 10)
    turns.take(Someone("first", told))
    turns.take(Someone("broken", told, fails=True))
    turns.take(Someone("third", told))
    clock.advance(4)
    turns.take(Someone("fourth", told))
    clock.advance(6)
    clock.advance(4)
    assert told == ["broken late", "third late", "fourth late"]
    assert not clock.getDelayedCalls()
