"""A long-poll client between its requests and the data plane: queues, deadlines and ends."""

from __future__ import annotations

import io
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from proxy.messages import SER_JSON
from proxy.web.longpoll_connection import SENDS_MAX, Bounds, LongPollConnection, LongPollError
from proxy.web.longpoll_frames import Batches, frame


class End:
    """A connection to the data plane that writes down what happens to it."""

    def __init__(self) -> None:
        self.is_full = False
        self.written: list[bytes] = []
        self.done: list[str] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def close(self) -> None:
        self.done.append("close")


class Client:
    """A connection, and what its client has got."""

    def __init__(self, *, batched: bool = False, octets: int = 1000, messages: int = 4) -> None:
        self.clock = Clock()
        self.end = End()
        self.forgotten: list[str] = []
        bounds = Bounds(request_timeout=10, session_timeout=30, queue_octets=octets, queue_messages=messages)
        self.it = LongPollConnection(self.clock, Batches(SER_JSON, batched), bounds, self.forgotten.append)
        self.it.attach(self.end)

    def poll(self) -> list[Any]:
        """Ask for messages; what has come of that, if anything."""
        return outcome(self.it.receive())

    def send(self, body: bytes) -> list[Any]:
        return outcome(self.it.send(io.BytesIO(body)))

    def gets(self, *messages: bytes) -> None:
        self.it.on_messages(list(messages))


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """A list that gets the result, or status and reason of the failure."""
    seen: list[Any] = []

    def failed(failure: Any) -> None:
        error = failure.value
        seen.append((error.status, error.reason) if isinstance(error, LongPollError) else type(error))

    deferred.addCallbacks(seen.append, failed)
    return seen


@pytest.fixture
def client() -> Client:
    return Client()


# --- messages for the client ---


def test_messages_wait_for_the_client_in_order_one_per_request(client):
    client.gets(b"[1]", b"[2]")
    client.gets(b"[3]")
    assert [client.poll() for _ in range(3)] == [[b"[1]"], [b"[2]"], [b"[3]"]]


def test_a_request_waits_for_a_message(client):
    waiting = client.poll()
    assert waiting == []
    client.gets(b"[1]", b"[2]")
    assert waiting == [b"[1]"]
    assert client.poll() == [b"[2]"]


def test_batched_clients_get_all_at_once():
    client = Client(batched=True)
    client.gets(b"[1]", b"[2]")
    client.gets(b"[3]")
    assert client.poll() == [b"[1]\x1e[2]\x1e[3]\x1e"]


def test_a_request_in_vain_is_answered_in_time(client):
    waiting = client.poll()
    client.clock.advance(9.9)
    assert waiting == []
    client.clock.advance(0.2)
    assert waiting == [b""]
    client.gets(b"[1]")
    assert client.poll() == [b"[1]"]  # nothing went to the one that was over


def test_a_second_request_takes_the_place_of_the_first(client):
    first = client.poll()
    second = client.poll()
    assert first == [b""]
    client.gets(b"[1]", b"[2]")
    assert (first, second) == ([b""], [b"[1]"])


def test_a_client_that_goes_while_it_waits_loses_nothing(client):
    waiting = client.it.receive()
    seen = outcome(waiting)
    waiting.cancel()
    assert seen == [CancelledError]
    client.gets(b"[1]")
    assert client.poll() == [b"[1]"]


def test_too_many_messages_stop_reading_until_half_of_them_are_gone(client):
    client.gets(b"[1]", b"[2]", b"[3]")
    assert client.end.done == []
    client.gets(b"[4]", b"[5]")  # what one read brought is all there
    assert client.end.done == ["pause"]
    client.poll()
    client.poll()
    assert client.end.done == ["pause"]
    client.poll()
    assert client.end.done == ["pause", "resume"]
    assert client.poll() + client.poll() == [b"[4]", b"[5]"]


def test_too_many_octets_do_likewise_and_any_message_gets_through():
    client = Client(octets=10)
    client.gets(b"[" + b"1" * 40 + b"]")
    assert client.end.done == ["pause"]
    assert client.poll() == [b"[" + b"1" * 40 + b"]"]
    assert client.end.done == ["pause", "resume"]


# --- messages of the client ---


def test_messages_are_sent_as_frames():
    client = Client(batched=True)
    assert client.send(b"[1]\x18[2]\x18") == [None]
    assert client.end.written == [frame(b"[1]") + frame(b"[2]")]


def test_bad_bodies_fail_and_the_session_goes_on(client):
    assert client.send(b"") == [(400, "the request's body is empty: expected a WAMP message")]
    assert client.send(b"[1]") == [None]
    assert client.end.written == [frame(b"[1]")]


def test_requests_wait_while_the_data_plane_takes_no_more(client):
    client.end.is_full = True
    first, second = client.send(b"[1]"), client.send(b"[2]")
    assert (first, second, client.end.written) == ([], [], [])
    client.end.is_full = False
    client.it.on_writable()
    assert (first, second) == ([None], [None])
    assert client.end.written == [frame(b"[1]"), frame(b"[2]")]


def test_a_request_whose_client_goes_while_it_waits_is_not_sent(client):
    client.end.is_full = True
    waiting = client.it.send(io.BytesIO(b"[1]"))
    seen = outcome(waiting)
    other = client.send(b"[2]")
    waiting.cancel()
    client.end.is_full = False
    client.it.on_writable()
    assert (seen, other, client.end.written) == ([CancelledError], [None], [frame(b"[2]")])


def test_not_many_requests_may_wait(client):
    client.end.is_full = True
    waiting = [client.send(b"[1]") for _ in range(SENDS_MAX)]
    with pytest.raises(LongPollError) as caught:
        client.send(b"[2]")
    assert caught.value.status == 503
    assert not any(waiting)


# --- the end ---


def test_a_client_that_stays_away_is_given_up(client):
    client.gets(b"[1]")
    client.clock.advance(29)
    assert client.forgotten == []
    client.clock.advance(2)
    assert client.end.done == ["close"]
    assert client.forgotten == ["the client did not ask for messages for 30 s"]
    assert not client.clock.getDelayedCalls()


def test_any_request_keeps_the_session(client):
    for _ in range(4):
        client.clock.advance(20)
        client.send(b"[1]")
        client.clock.advance(20)
        client.poll()  # is answered with nothing while the next 20 seconds pass
    assert client.forgotten == []


def test_a_request_that_waits_keeps_the_session():
    client = Client()
    waiting = client.poll()
    for _ in range(39):
        client.clock.advance(1)
    assert waiting == [b""]  # after 10 seconds, since when 29 have passed
    assert client.forgotten == []
    client.clock.advance(2)
    assert len(client.forgotten) == 1


def test_what_was_said_before_the_end_is_delivered(client):
    client.gets(b"[3]", b"[6]")
    client.it.on_lost("over")
    assert client.poll() == [b"[3]"]
    assert client.forgotten == []
    assert client.poll() == [b"[6]"]
    assert client.forgotten == ["over"]
    with pytest.raises(LongPollError, match="over"):
        client.it.send(io.BytesIO(b"[1]"))
    assert not client.clock.getDelayedCalls()


def test_the_end_is_told_to_whoever_waits(client):
    client.end.is_full = True
    waiting, sending = client.poll(), client.send(b"[1]")
    client.it.on_lost("over")
    assert (waiting, sending) == ([(410, "over")], [(410, "over")])
    assert client.forgotten == ["over"]
    assert not client.clock.getDelayedCalls()


def test_nobody_waits_for_ever_for_a_client_to_hear_the_end(client):
    client.gets(b"[3]")
    client.it.on_lost("over")
    client.clock.advance(31)
    assert client.forgotten == ["over"]
    assert not client.clock.getDelayedCalls()


def test_a_client_closes(client):
    waiting = client.poll()
    client.it.close("closed by the client", is_wish=True)
    assert waiting == [b""]
    assert client.end.done == ["close"]
    assert client.forgotten == ["closed by the client"]
    client.it.on_lost("over")  # what the data plane says to that comes late
    client.gets(b"[1]")
    assert client.forgotten == ["closed by the client"]
    assert not client.clock.getDelayedCalls()


def test_the_service_closes(client):
    client.end.is_full = True
    waiting, sending = client.poll(), client.send(b"[1]")
    client.it.close("the service is stopped")
    assert (waiting, sending) == ([(410, "the service is stopped")], [(410, "the service is stopped")])
    assert client.end.done == ["close"]
    assert client.forgotten == ["the service is stopped"]
    assert not client.clock.getDelayedCalls()
