"""The worker-wide map between front_sids and back_sids: who is known, how long, and what threads make of it."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy._relay import PROBE_SIDS, probe_fail_allocation, probe_notes, probe_sids

LINGER = PROBE_SIDS["linger_ms"]
MOST = PROBE_SIDS["lingerers_max"]


@pytest.fixture
def sids() -> probe_sids:
    return probe_sids()


@pytest.fixture
def realm(sids: probe_sids) -> int:
    return sids.add_realm()


# --- the map ---------------------------------------------------------------------------------------------------------


def test_maps_both_ways(sids: probe_sids, realm: int) -> None:
    sids.put(realm, 10, 2**53)
    assert (sids.to_front(realm, 2**53), sids.to_back(realm, 10)) == (10, 2**53)
    assert sids.is_known(realm, 2**53)
    assert not sids.is_known(realm, 10)


def test_an_unknown_id_passes_as_it_is(sids: probe_sids, realm: int) -> None:
    assert (sids.to_front(realm, 5), sids.to_back(realm, 5), sids.is_known(realm, 5)) == (5, 5, False)
    sids.put(realm, 10, 20)
    for sid in (0, 5, 2**53 + 1, 2**64 - 1):
        assert (sids.to_front(realm, sid), sids.to_back(realm, sid)) == (sid, sid)


def test_an_identity_is_known(sids: probe_sids, realm: int) -> None:
    sids.put(realm, 10, 10)
    assert (sids.to_front(realm, 10), sids.is_known(realm, 10), sids.mapped(realm)) == (10, True, 1)


def test_realms_do_not_mix(sids: probe_sids) -> None:
    one, two = sids.add_realm(), sids.add_realm()
    sids.put(one, 10, 20)
    sids.put(two, 11, 20)
    assert (sids.to_front(one, 20), sids.to_front(two, 20)) == (10, 11)
    assert (sids.to_back(one, 11), sids.to_back(two, 10)) == (11, 10)
    assert (sids.mapped(one), sids.mapped(two)) == (1, 1)
    sids.drop(one, 10, 0)
    sids.sweep(LINGER)
    assert (sids.mapped(one), sids.mapped(two), sids.to_front(two, 20)) == (0, 1, 11)


def test_realms_are_numbered_up_to_their_most_and_never_move(sids: probe_sids) -> None:
    first = sids.add_realm()
    where = sids.address(first)
    numbers = [sids.add_realm() for _ in range(PROBE_SIDS["realms_max"] - 1)]
    assert [first, *numbers] == list(range(1, PROBE_SIDS["realms_max"] + 1))
    assert sids.address(first) == where
    assert len({sids.address(number) for number in numbers}) == len(numbers)
    with pytest.raises(ValueError, match="ST_TOO_BIG"):
        sids.add_realm()
    with pytest.raises(ValueError, match="expected a number"):
        sids.to_back(0, 1)


@pytest.mark.parametrize("first", [1, 2**52], ids=["counted up", "from the middle"])
def test_grows_evenly_also_with_ids_in_a_row(sids: probe_sids, realm: int, first: int) -> None:
    count = 100_000
    for i in range(count):
        sids.put(realm, 2**53 - i, first + i)
    assert all(sids.to_front(realm, first + i) == 2**53 - i for i in range(0, count, 7))
    assert all(sids.to_back(realm, 2**53 - i) == first + i for i in range(0, count, 7))
    by_back, by_front, _, fullest = sids.census()
    assert by_back == by_front == sids.mapped(realm) == count
    assert fullest < 1.2 * count / PROBE_SIDS["shards"]
    assert sids.longest_chain() < 16


# --- ends ------------------------------------------------------------------------------------------------------------


def test_an_ended_session_stays_known_for_a_while(sids: probe_sids, realm: int) -> None:
    sids.put(realm, 10, 20)
    sids.drop(realm, 10, 1000)
    assert not sids.sweep(1000 + LINGER - 1)
    assert (sids.to_front(realm, 20), sids.to_back(realm, 10), sids.mapped(realm)) == (10, 20, 1)
    assert not sids.sweep(1000 + LINGER)
    assert (sids.to_front(realm, 20), sids.to_back(realm, 10), sids.mapped(realm)) == (20, 10, 0)
    assert sids.census() == (0, 0, 0, 0)


def test_dropping_again_or_the_unknown_changes_nothing(sids: probe_sids, realm: int) -> None:
    sids.drop(realm, 10, 0)
    sids.put(realm, 10, 20)
    sids.drop(realm, 10, 0)
    sids.drop(realm, 10, 500)
    assert sids.census()[2] == 1
    sids.sweep(LINGER)
    assert sids.mapped(realm) == 0


def test_a_session_that_comes_back_is_not_forgotten(sids: probe_sids, realm: int) -> None:
    sids.put(realm, 10, 20)
    sids.drop(realm, 10, 0)
    sids.put(realm, 10, 20)
    sids.sweep(LINGER)
    assert (sids.to_front(realm, 20), sids.to_back(realm, 10), sids.mapped(realm)) == (10, 20, 1)
    sids.drop(realm, 10, LINGER)
    sids.sweep(2 * LINGER)
    assert sids.census() == (0, 0, 0, 0)


def test_a_router_that_gives_an_id_again(sids: probe_sids, realm: int) -> None:
    """Some routers count sessions from 1, and start anew when they are started anew."""
    sids.put(realm, 10, 1)
    sids.drop(realm, 10, 0)
    sids.put(realm, 11, 1)
    assert (sids.to_front(realm, 1), sids.to_back(realm, 10), sids.to_back(realm, 11)) == (11, 1, 1)
    sids.sweep(LINGER)
    assert (sids.to_front(realm, 1), sids.to_back(realm, 10), sids.mapped(realm)) == (11, 10, 1)


def test_more_ended_sessions_than_can_be_remembered(sids: probe_sids, realm: int) -> None:
    for i in range(1, MOST + 11):
        sids.put(realm, i, 2**52 + i)
        sids.drop(realm, i, i)
    assert sids.census()[:3] == (MOST, MOST, MOST)
    assert not any(sids.is_known(realm, 2**52 + i) for i in range(1, 11))
    assert sids.is_known(realm, 2**52 + 11)
    assert sids.mapped(realm) == MOST


def test_a_sweep_is_short(sids: probe_sids, realm: int) -> None:
    count = PROBE_SIDS["sweep_max"] * 2
    for i in range(1, count + 2):
        sids.put(realm, i, 2**52 + i)
        sids.drop(realm, i, 0)
    assert sids.sweep(LINGER)
    assert sids.mapped(realm) == count // 2 + 1
    assert sids.sweep(LINGER)
    assert not sids.sweep(LINGER)
    assert sids.mapped(realm) == 0


# --- linked anew -----------------------------------------------------------------------------------------------------


def test_a_session_that_is_linked_anew_keeps_its_front_sid(sids: probe_sids, realm: int) -> None:
    sids.sweep(5000)
    sids.put(realm, 10, 20)
    sids.put(realm, 10, 21)
    assert (sids.to_back(realm, 10), sids.to_front(realm, 21), sids.to_front(realm, 20)) == (21, 10, 10)
    assert sids.mapped(realm) == 2
    sids.sweep(5000 + LINGER)
    assert (sids.to_back(realm, 10), sids.to_front(realm, 21), sids.to_front(realm, 20)) == (21, 10, 20)
    assert sids.mapped(realm) == 1
    sids.put(realm, 10, 20)
    assert (sids.to_back(realm, 10), sids.to_front(realm, 20)) == (20, 10)
    sids.drop(realm, 10, 5000 + LINGER)
    sids.sweep(9000 + 2 * LINGER)
    assert sids.census() == (0, 0, 0, 0)


def test_a_session_that_ends_after_it_was_linked_anew(sids: probe_sids, realm: int) -> None:
    sids.put(realm, 10, 20)
    sids.put(realm, 10, 21)
    sids.drop(realm, 10, 1000)
    assert sids.mapped(realm) == 2
    sids.sweep(LINGER)
    assert (sids.is_known(realm, 20), sids.is_known(realm, 21)) == (False, True)
    sids.sweep(LINGER + 1000)
    assert sids.census() == (0, 0, 0, 0)


# --- against a model -------------------------------------------------------------------------------------------------

few = st.integers(1, 6)


class Sessions(RuleBasedStateMachine):
    """Every session that lives is known, none is known for longer than it lingers, and the count is right."""

    def __init__(self) -> None:
        super().__init__()
        self.sids = probe_sids()
        self.realm = self.sids.add_realm()
        self.now = 0
        self.back: dict[int, int] = {}
        self.owner: dict[int, int] = {}
        self.known_until: dict[int, int] = {}

    @rule(front=few, back=few)
    def put(self, front: int, back: int) -> None:
        self.sids.put(self.realm, front, back + 100)
        old = self.back.get(front)
        if old is not None and old != back and self.owner.get(old) == front:
            self.known_until[old] = self.now + LINGER
        self.back[front] = back
        self.owner[back] = front

    @rule(front=few)
    def drop(self, front: int) -> None:
        self.sids.drop(self.realm, front, self.now)
        back = self.back.pop(front, None)
        if back is not None:
            self.known_until[back] = self.now + LINGER

    @rule(ms=st.integers(0, 2 * LINGER))
    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.sids.sweep(self.now)

    @invariant()
    def the_living_are_known(self) -> None:
        for front, back in self.back.items():
            assert self.sids.to_back(self.realm, front) == back + 100
            if self.owner[back] == front:
                assert self.sids.to_front(self.realm, back + 100) == front

    @invariant()
    def the_forgotten_are_unknown(self) -> None:
        living = set(self.back.values())
        for back, until in self.known_until.items():
            if until <= self.now and back not in living and self.now:
                self.sids.sweep(self.now)
                assert not self.sids.is_known(self.realm, back + 100)

    @invariant()
    def the_count_is_right(self) -> None:
        known = sum(self.sids.is_known(self.realm, back + 100) for back in range(1, 7))
        assert self.sids.mapped(self.realm) == known == self.sids.census()[0]


TestSessions = Sessions.TestCase
TestSessions.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


# --- threads and memory ----------------------------------------------------------------------------------------------


def test_threads_meet_in_the_map(sids: probe_sids, realm: int) -> None:
    """Each thread has sessions of its own and asks for those of all; no answer is ever a mixture."""
    wrong: list[tuple[int, int]] = []
    rounds = 1500

    def work(number: int) -> None:
        draw = random.Random(number)
        first = number * 10**6
        for i in range(1, rounds + 1):
            front, back = first + i, first + i + 2**40
            sids.put(realm, front, back)
            if sids.to_front(realm, back) != front or sids.to_back(realm, front) != back:
                wrong.append((front, back))
            if i % 3 == 0:
                sids.put(realm, front, back + 2**41)
            if i % 2 == 0:
                sids.drop(realm, front, i)
            if i % 50 == 0:
                sids.sweep(LINGER + i // 2)
            other = draw.randrange(1, 5) * 10**6 + draw.randrange(1, rounds)
            if sids.to_front(realm, other + 2**40) not in (other, other + 2**40):
                wrong.append((other, other + 2**40))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    while sids.sweep(3 * LINGER):
        pass
    by_back, by_front, gone, _ = sids.census()
    assert by_back == by_front == sids.mapped(realm) == 4 * rounds // 2
    assert gone == 0


def test_without_memory_nothing_is_half_mapped(sids: probe_sids, realm: int) -> None:
    if not probe_fail_allocation(-1):
        pytest.skip("this build cannot fail an allocation")
    for n in range(6):
        probe_fail_allocation(n)
        with contextlib.suppress(ValueError):
            sids.put(realm, 10 + n, 20 + n)
        probe_fail_allocation(-1)
        known = sids.is_known(realm, 20 + n)
        assert (sids.to_back(realm, 10 + n), sids.to_front(realm, 20 + n)) == (
            (20 + n, 10 + n) if known else (10 + n, 20 + n)
        )
    by_back, by_front, _, _ = sids.census()
    assert by_back == by_front == sids.mapped(realm)


def test_without_memory_to_remember_an_end_it_is_forgotten_at_once(sids: probe_sids, realm: int) -> None:
    if not probe_fail_allocation(-1):
        pytest.skip("this build cannot fail an allocation")
    sids.put(realm, 10, 20)
    probe_fail_allocation(0)
    sids.drop(realm, 10, 0)
    probe_fail_allocation(-1)
    assert sids.census() == (0, 0, 0, 0)
    assert sids.mapped(realm) == 0


# --- notes -----------------------------------------------------------------------------------------------------------


def test_notes_are_found_by_kind_and_id() -> None:
    notes = probe_notes()
    assert (notes.find("call", 1), notes.all()) == (-1, [])
    notes.add("call", 1, 3)
    notes.add("subscribe", 1, 4)
    notes.add("dead_call", 1)
    assert notes.all() == [("call", 1), ("dead_call", 1), ("subscribe", 1)]
    assert (notes.find("call", 2), notes.find("subscription", 1), notes.dead()) == (-1, -1, 1)
    notes.drop("dead_call", 1)
    notes.drop("call", 1)
    assert (notes.all(), notes.dead()) == ([("subscribe", 1)], 0)
    notes.clear()
    assert notes.all() == []


def test_a_note_is_made_once() -> None:
    notes = probe_notes()
    for _ in range(3):
        notes.add("dead_call", 7)
    assert (notes.all(), notes.dead()) == ([("dead_call", 7)], 1)


def test_notes_are_bounded() -> None:
    notes = probe_notes()
    for i in range(PROBE_SIDS["notes_max"]):
        notes.add("call", i)
    with pytest.raises(ValueError, match="ST_TOO_BIG"):
        notes.add("call", 2**53)
    notes.add("call", 5)
    notes.drop("call", 5)
    notes.add("call", 2**53)
    assert notes.find("call", 2**53) >= 0
