"""The table of states that transports, connections and routes share."""

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from proxy.errors import CannotListen
from proxy.lifecycle import NEXT, InvalidTransition, Lifecycle, Managed, State
from proxy.management.procedures import Caller


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


class Recorder:
    """A controller that only writes down what is published."""

    def __init__(self) -> None:
        self.events = []

    def publish_event(self, name, *args, exclude=None, acknowledge=False):
        self.events.append((name, args[0]["state"], exclude, acknowledge))


class Thing(Managed):
    KIND = "thing"

    def __init__(self, start=None, stop=None):
        super().__init__(Recorder(), 'thing "x"')
        self.starting, self.stopping = start or succeed(None), stop or succeed(None)

    def marshal(self):
        return {"state": int(self.state), "started": self.started, "stopped": self.stopped}

    def _start(self):
        return self.starting

    def _stop(self):
        return self.stopping


class Quiet(Thing):
    EXCLUDES_CALLER = True


CALLER = Caller(7)


def test_each_step_is_published_with_the_state_of_that_moment():
    thing = Thing()
    thing.start(CALLER)
    assert thing.marshal()["started"] > 0
    thing.stop(CALLER)
    assert thing.controller.events == [
        ("on_proxy_thing_starting", 2, None, True),
        ("on_proxy_thing_started", 3, None, True),
        ("on_proxy_thing_stopping", 5, None, True),
        ("on_proxy_thing_stopped", 6, None, True),
    ]
    assert thing.marshal()["started"] is None
    assert thing.marshal()["stopped"] > 0


def test_some_kinds_do_not_tell_the_caller():
    thing = Quiet()
    thing.start(CALLER)
    assert thing.controller.events[0] == ("on_proxy_thing_starting", 2, CALLER, False)


def test_it_is_started_and_stopped_no_sooner_than_the_work_is_done():
    starting, stopping = Deferred(), Deferred()
    thing = Thing(starting, stopping)
    done = thing.start()
    assert (thing.state, done.called) == (State.STARTING, False)
    with pytest.raises(InvalidTransition, match="is starting"):
        thing.start()
    with pytest.raises(InvalidTransition, match="is starting"):
        thing.stop()
    starting.callback(None)
    assert (thing.state, done.called) == (State.STARTED, True)
    done = thing.stop()
    assert (thing.state, thing.is_started) == (State.STOPPING, False)
    with pytest.raises(InvalidTransition, match="is stopping"):
        thing.stop()
    stopping.callback(None)
    assert (thing.state, done.called) == (State.STOPPED, True)


def test_a_start_that_fails_is_told_to_its_end():
    thing = Thing(fail(CannotListen("in use")))
    errors = []
    thing.start().addErrback(errors.append)
    assert errors[0].value.message == "in use"
    assert [(name, state) for name, state, _, _ in thing.controller.events] == [
        ("on_proxy_thing_starting", 2),
        ("on_proxy_thing_stopping", 5),
        ("on_proxy_thing_stopped", 6),
    ]
    assert thing.state is State.STOPPED
    assert thing.started is None


def test_a_stop_that_fails_may_be_tried_again():
    thing = Thing(stop=fail(CannotListen("held")))
    thing.start()
    errors = []
    thing.stop().addErrback(errors.append)
    assert errors[0].value.message == "held"
    assert thing.state is State.FAILED
    thing.stopping = succeed(None)
    thing.stop()
    assert [name for name, *_ in thing.controller.events][2:] == [
        "on_proxy_thing_stopping", "on_proxy_thing_stopping", "on_proxy_thing_stopped",
    ]  # fmt: skip
