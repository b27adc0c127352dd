"""The table of states that transports, connections and routes share."""

import pytest

from proxy.lifecycle import NEXT, InvalidTransition, Lifecycle, State


def test_numbers_are_those_of_the_management_api():
    assert [(state.name, int(state)) for state in State] == [
        ("CREATED", 1), ("STARTING", 2), ("STARTED", 3), ("FAILED", 4), ("STOPPING", 5), ("STOPPED", 6),
    ]  # fmt: skip


def test_a_whole_life():
    thing = Lifecycle('connection "cnc1"')
    assert not thing.is_started
    for state in (State.STARTING, State.STARTED):
        thing.enter(state)
    assert thing.is_started
    for state in (State.STOPPING, State.STOPPED):
        thing.enter(state)
    assert not thing.is_started


def test_every_transition_is_either_allowed_or_leaves_the_state():
    for current in State:
        for wanted in State:
            thing = Lifecycle("thing")
            thing.state = current
            if wanted in NEXT[current]:
                thing.enter(wanted)
                assert thing.state is wanted
            else:
                with pytest.raises(InvalidTransition):
                    thing.enter(wanted)
                assert thing.state is current


def test_error_names_object_and_states():
    thing = Lifecycle('route "route001" of realm "realm1"')
    with pytest.raises(InvalidTransition) as caught:
        thing.enter(State.STOPPED)
    assert str(caught.value) == (
        'route "route001" of realm "realm1" is created and cannot become stopped (allowed next: starting)'
    )


def test_what_stopped_stays_stopped():
    thing = Lifecycle("thing")
    thing.state = State.STOPPED
    with pytest.raises(InvalidTransition, match="allowed next: nothing"):
        thing.enter(State.STARTING)
