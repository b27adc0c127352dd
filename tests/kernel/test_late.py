"""Connections without a session wait for each other, not sessions for them; commands may be gathered."""

from __future__ import annotations

import pytest

from kernel.harness import Plane, call, result
from proxy import _relay as R

MANY = 300


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_many_that_end_at_once_all_end(plane: Plane, how: str) -> None:
    """More at once than a turn looks at: each is told of once, and its slot is free again."""
    listener = plane.listen("rs")
    ends = [plane.join(listener) for _ in range(MANY)]
    plane.settle(connections=MANY)
    for end, _ in ends:
        getattr(end, how)()
    for _, conn in ends:
        plane.closed(conn)
    plane.settle(connections=0)
    for _ in range(MANY):
        plane.join(listener)
    plane.settle(connections=MANY)


@pytest.mark.parametrize("kind", ["rs", "ws"])
def test_a_session_goes_on_while_many_come_and_go(plane: Plane, kind: str) -> None:
    listener = plane.listen(kind)
    session = plane.session(listener=listener)
    for turn in range(5):
        others = [plane.connect(listener) for _ in range(MANY // 5)]
        session.client.send(call(100, request=turn + 1))
        assert session.router.recv() == call(100, request=turn + 1)
        for other in others:
            other.reset()
        session.router.send(result(100, request=turn + 1))
        assert session.client.recv() == result(100, request=turn + 1)


def test_a_session_that_ends_among_many_says_what_it_had_to_say(plane: Plane) -> None:
    """Its end waits like that of others, but behind its last message."""
    listener = plane.listen("rs")
    session = plane.session(listener=listener)
    others = [plane.join(listener)[0] for _ in range(MANY)]
    for other in others:
        other.close()
    session.client.send(call(1000))
    session.client.close()
    assert session.router.recv() == call(1000)
    plane.closed(session.front)


def test_more_commands_than_a_turn_does_are_all_done_in_order(plane: Plane) -> None:
    listener = plane.listen("rs")
    end, conn = plane.join(listener)
    messages = [result(size, request=size + 1) for size in range(200)]
    for message in messages:
        plane.relay.send(conn, message)
    assert [end.recv() for _ in messages] == messages


def test_gathered_commands_are_done_once_they_are_let_go(plane: Plane) -> None:
    listener = plane.listen("rs")
    end, conn = plane.join(listener)
    plane.relay.hold()
    for request in range(1, 11):
        plane.relay.send(conn, result(10, request))
    plane.relay.let_go()
    assert [end.recv() for _ in range(10)] == [result(10, request) for request in range(1, 11)]
    plane.relay.hold()
    plane.relay.let_go()
    plane.relay.send(conn, result(5))
    assert end.recv() == result(5)


def test_a_relay_that_was_released_has_nothing_to_gather() -> None:
    relay = R.Relay(1)
    relay.release()
    relay.hold()
    relay.let_go()
