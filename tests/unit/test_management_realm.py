"""The worker's own management realm: what clients may say, what they get, and what becomes of those that do wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from proxy.errors import NoSuchObject
from proxy.management import rawsocket, realm_session
from proxy.management.realm import CALLS_MAX, CLIENTS_MAX, ManagementRealm
from proxy.messages import ID_MAX, UNTRUSTED_SIZE_MAX
from support import raw
from support.realms import PREFIX, RealmClient, Worker

TOPIC = f"{PREFIX}.on_something"
VIOLATION = "wamp.error.protocol_violation"


class Stage:
    """A worker with its realm, and clients of it."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.clock = self.worker.reactor
        self.realm = ManagementRealm(self.worker)  # type: ignore[arg-type]
        self.worker.carriers.append(self.realm)

    def client(self, serializer: str = "json", **keys: Any) -> RealmClient:
        return RealmClient(self.realm, self.clock, serializer, **keys)

    def joined(self, serializer: str = "json", **keys: Any) -> RealmClient:
        return self.client(serializer, **keys).join()

    def publish(self, topic: str, *args: Any, exclude: int | None = None) -> None:
        self.realm.publish_event(topic, args, exclude, False)


@pytest.fixture
def stage() -> Stage:
    return Stage()


# --- handshake and deadlines ---


@pytest.mark.parametrize("serializer", ["json", "msgpack", "cbor"])
def test_a_session_in_every_serializer(stage: Stage, serializer: str) -> None:
    client = stage.joined(serializer)
    assert client.ask("echo", {"a": [1, 2.5, None, "ü"]}) == [[raw.RESULT, 1, {}, [{"a": [1, 2.5, None, "ü"]}]]]
    assert client.say([raw.GOODBYE, {}, "wamp.close.normal"]) == [[raw.GOODBYE, {}, "wamp.close.goodbye_and_out"]]


@pytest.mark.parametrize(
    ("octets", "answer"),
    [
        (b"\x7f\xf1\x00\x00", bytes((0x7F, 0x81, 0, 0))),
        (b"\x7f\x03\x00\x00", bytes((0x7F, 0x83, 0, 0))),
        (b"\x7f\xf4\x00\x00", bytes((0x7F, 0x10, 0, 0))),  # a serializer that is not spoken here
        (b"\x7f\xf0\x00\x00", bytes((0x7F, 0x10, 0, 0))),
        (b"\x7f\xf1\x00\x01", bytes((0x7F, 0x30, 0, 0))),  # reserved octets
        (b"GET ", b""),
    ],
)
def test_handshake(stage: Stage, octets: bytes, answer: bytes) -> None:
    client = stage.client()
    for octet in octets:
        client.feed(bytes((octet,)))
    assert client.pipe.octets == answer
    assert client.pipe.is_gone == (not answer or answer[1] & 0x0F == 0)


def test_who_says_nothing_is_cut_off(stage: Stage) -> None:
    silent, shaken, joined = stage.client(), stage.client(), stage.joined()
    shaken.shake()
    stage.clock.advance(rawsocket.HANDSHAKE_TIMEOUT - 0.1)
    assert not silent.pipe.is_gone
    assert not shaken.pipe.is_gone
    stage.clock.advance(0.2)
    assert silent.pipe.is_gone
    assert shaken.pipe.is_gone
    stage.clock.advance(86_400)
    assert not joined.pipe.is_gone
    assert joined.ask("echo", 1)[0][0] == raw.RESULT
    assert not stage.clock.getDelayedCalls()


def test_there_is_an_end_to_clients(stage: Stage) -> None:
    clients = [stage.joined() for _ in range(CLIENTS_MAX)]
    assert stage.client().pipe.is_gone
    clients[0].pipe.abortConnection()
    assert stage.joined().ask("echo", 1)[0][0] == raw.RESULT
    assert len({client.session for client in clients}) == CLIENTS_MAX


# --- joining and leaving ---


def test_welcome(stage: Stage) -> None:
    client = stage.client()
    client.shake()
    ((kind, session, details),) = client.say([raw.HELLO, "crossbar", {"roles": {"caller": {}}}])
    assert kind == raw.WELCOME
    assert 1 <= session <= ID_MAX
    assert set(details["roles"]) == {"broker", "dealer"}
    assert (details["realm"], details["authrole"], details["authmethod"]) == ("crossbar", "trusted", "anonymous")
    assert details["authextra"] == {"x_cb_proxy_worker": "worker007"}


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (raw.hello("realm1"), "wamp.error.no_such_realm"),
        (raw.hello("crossbar", authmethods=["ticket"]), "wamp.error.no_auth_method"),
        ([raw.HELLO, "crossbar", {}], VIOLATION),
        ([raw.HELLO, "cross bar", {"roles": {"caller": {}}}], VIOLATION),
        ([raw.HELLO], VIOLATION),
        ([raw.CALL, 1, {}, f"{PREFIX}.echo"], VIOLATION),
        ([raw.GOODBYE, {}, "wamp.close.normal"], VIOLATION),
        ([raw.AUTHENTICATE, "", {}], VIOLATION),
        ([99], VIOLATION),
        (["HELLO"], VIOLATION),
        ({}, VIOLATION),
    ],
)
def test_who_is_not_let_in(stage: Stage, hello: list[Any], reason: str) -> None:
    client = stage.client()
    client.shake()
    (answer,) = client.say(hello)
    assert answer[0] == raw.ABORT
    assert answer[2] == reason
    assert client.pipe.is_gone


def test_one_session_after_the_other(stage: Stage) -> None:
    client = stage.joined()
    first = client.session
    client.subscribe(TOPIC)
    assert client.ask("wait") == []
    assert client.say([raw.GOODBYE, {}, "wamp.close.normal"])[0][0] == raw.GOODBYE
    stage.publish(TOPIC, 1)
    stage.worker.pending[0].callback("late")
    assert client.heard() == []
    assert len(stage.realm.subscriptions) == 0
    (welcome,) = client.say(raw.hello("crossbar"))
    assert welcome[0] == raw.WELCOME
    assert welcome[1] != first
    # The next session counts its requests from 1 again, and has nothing to do with the call of the first.
    assert client.say([raw.CALL, 2, {}, f"{PREFIX}.echo", [5]]) == [[raw.RESULT, 2, {}, [5]]]
    # It may take its time only while it is in a session.
    client.say([raw.GOODBYE, {}, "wamp.close.normal"])
    stage.clock.advance(rawsocket.HANDSHAKE_TIMEOUT + 1)
    assert client.pipe.is_gone


def test_a_lost_client_leaves_nothing_behind(stage: Stage) -> None:
    client = stage.joined()
    client.subscribe("crossbar.", "prefix")
    client.ask("wait")
    client.pipe.abortConnection()
    assert len(stage.realm.subscriptions) == 0
    stage.publish(TOPIC)
    stage.worker.pending[0].callback(1)
    assert not stage.clock.getDelayedCalls()


# --- calls ---


@pytest.mark.parametrize(
    ("procedure", "args", "uri", "text"),
    [
        ("refuse", [], "crossbar.error.no_such_object", "nothing there"),
        ("crash", [], "wamp.error.runtime_error", "internal error in crash; the worker's log says more"),
        ("echo", [], "crossbar.error.invalid_argument", "echo"),
        ("length", [7], "crossbar.error.invalid_argument", "length: text: 7"),
        ("nothing", [], "wamp.error.no_such_procedure", "crossbar.worker.worker007."),
        ("own_authextra", [], "wamp.error.no_such_procedure", "own_authextra"),
        ("crossbar.worker.worker008.echo", [1], "wamp.error.no_such_procedure", "worker008"),
        ("crossbar.start_worker", [], "wamp.error.no_such_procedure", "start_worker"),
        ("wamp.session.count", [], "wamp.error.no_such_procedure", "wamp.session.count"),
        ("no such uri", [], "wamp.error.invalid_uri", "no such uri"),
        ("x." * 600 + "x", [], "wamp.error.invalid_uri", "x.x."),
    ],
)
def test_what_a_call_fails_with(stage: Stage, procedure: str, args: list[Any], uri: str, text: str) -> None:
    client = stage.joined()
    name = procedure if "." in procedure or " " in procedure else f"{PREFIX}.{procedure}"
    ((kind, request_type, request, details, error, arguments),) = client.say([raw.CALL, 5, {}, name, args])
    assert (kind, request_type, request, details, error) == (raw.ERROR, raw.CALL, 5, {}, uri)
    assert text in arguments[0]
    assert client.ask("echo", 1) == [[raw.RESULT, 1, {}, [1]]]


def test_an_error_says_more_to_programs(stage: Stage) -> None:
    client = stage.joined()
    assert client.ask("wait") == []
    stage.worker.pending[0].errback(NoSuchObject("nothing there", requested="a", resolved="/a"))
    (error,) = client.heard()
    assert error[:5] == [raw.ERROR, raw.CALL, 1, {}, "crossbar.error.no_such_object"]
    assert error[5:] == [["nothing there"], {"requested": "a", "resolved": "/a"}]


def test_arguments_by_name_and_no_result(stage: Stage) -> None:
    client = stage.joined()
    assert client.ask("length", text="four") == [[raw.RESULT, 1, {}, [4]]]
    assert client.ask("echo", None) == [[raw.RESULT, 2, {}, [None]]]
    assert client.say([raw.CALL, 3, {}, "crossbar.get_workers"]) == [[raw.RESULT, 3, {}, [["worker007"]]]]


def test_the_worker_knows_who_calls(stage: Stage) -> None:
    client = stage.joined()
    client.ask("echo", 1)
    (caller,) = stage.worker.callers
    assert caller is not None
    assert caller.caller == client.session
    assert caller.caller_authrole == "trusted"
    assert caller.procedure == f"{PREFIX}.echo"
    assert caller.carrier is stage.realm
    assert caller.progress is None


def test_results_come_when_they_are_there(stage: Stage) -> None:
    client = stage.joined()
    assert client.ask("wait") == []
    assert client.ask("wait") == []
    assert client.ask("echo", "now") == [[raw.RESULT, 3, {}, ["now"]]]
    first, second = stage.worker.pending
    second.callback("second")
    first.errback(ZeroDivisionError())
    assert [message[:3] for message in client.heard()] == [[raw.RESULT, 2, {}], [raw.ERROR, raw.CALL, 1]]


def test_progressive_results(stage: Stage) -> None:
    client = stage.joined()
    client.ask("wait", options={"receive_progress": True})
    (caller,) = stage.worker.callers
    assert caller is not None
    assert caller.progress is not None
    caller.progress(1)
    caller.progress(2, of=3)
    stage.worker.pending[0].callback("done")
    caller.progress("too late")
    assert client.heard() == [
        [raw.RESULT, 1, {"progress": True}, [1]],
        [raw.RESULT, 1, {"progress": True}, [2], {"of": 3}],
        [raw.RESULT, 1, {}, ["done"]],
    ]


@pytest.mark.parametrize("mode", [None, "skip", "kill", "killnowait"])
def test_a_canceled_call_is_answered_at_once_and_once(stage: Stage, mode: str | None) -> None:
    client = stage.joined()
    client.ask("wait")
    (error,) = client.say([raw.CANCEL, 1, {} if mode is None else {"mode": mode}])
    assert error[:5] == [raw.ERROR, raw.CALL, 1, {}, "wamp.error.canceled"]
    # What the first call comes to is not for a later one with the same number.
    assert client.say([raw.CALL, 1, {}, f"{PREFIX}.wait"]) == []
    stage.worker.pending[0].callback("of the first")
    assert client.heard() == []
    stage.worker.pending[1].callback("of the second")
    assert client.heard() == [[raw.RESULT, 1, {}, ["of the second"]]]
    assert client.say([raw.CANCEL, 1, {}]) == []


def test_there_is_an_end_to_calls_under_way(stage: Stage) -> None:
    client = stage.joined()
    for _ in range(realm_session.CALLS_MAX):
        assert client.ask("wait") == []
    (error,) = client.ask("wait")
    assert error[4] == "wamp.error.unavailable"
    stage.worker.pending[0].callback(None)
    assert client.heard()[0][0] == raw.RESULT
    assert client.ask("wait") == []


def test_calls_that_are_canceled_or_left_behind_are_still_under_way(stage: Stage) -> None:
    """What they began goes on, so that a client cannot begin any number of them."""
    client = stage.joined()
    for request in range(1, realm_session.CALLS_MAX + 1):
        client.say([raw.CALL, request, {}, f"{PREFIX}.wait"], [raw.CANCEL, request, {}])
    client.say([raw.GOODBYE, {}, "wamp.close.normal"], raw.hello("crossbar"))
    (error,) = client.ask("wait")
    assert error[4] == "wamp.error.unavailable"
    for _ in range(CALLS_MAX // realm_session.CALLS_MAX - 1):
        other = stage.joined()
        for _ in range(realm_session.CALLS_MAX):
            assert other.ask("wait") == []
        other.pipe.abortConnection()
    last = stage.joined()
    (error,) = last.ask("wait")
    assert error[4] == "wamp.error.unavailable"
    assert len(stage.worker.pending) == CALLS_MAX
    stage.worker.pending[0].callback(None)
    assert client.heard() == []
    assert client.ask("wait") == []


def test_results_that_cannot_be_told(stage: Stage) -> None:
    """The client's limit, and what its serializer has no form for."""
    client = stage.joined(limit=0)
    client.ask("wait")
    stage.worker.pending[0].callback("x" * 600)
    (error,) = client.heard()
    assert error[4] == "wamp.error.payload_size_exceeded"
    assert "600" in error[5][0] or "6" in error[5][0]
    client.ask("wait")
    stage.worker.pending[1].callback(float("nan"))
    (error,) = client.heard()
    assert error[4] == "wamp.error.invalid_payload"
    assert client.ask("echo", 1) == [[raw.RESULT, 3, {}, [1]]]


# --- subscriptions ---


@pytest.mark.parametrize(
    ("match", "pattern", "fits"),
    [
        ("exact", TOPIC, True),
        ("exact", PREFIX, False),
        ("prefix", f"{PREFIX}.", True),
        ("prefix", f"{PREFIX}.on_some", True),
        ("prefix", "crossbar", True),
        ("prefix", "", True),
        ("prefix", "wamp.", False),
        ("wildcard", "crossbar.worker..on_something", True),
        ("wildcard", "...", True),
        ("wildcard", "crossbar..on_something", False),
        ("wildcard", "crossbar.worker..on_other", False),
    ],
)
def test_which_events_a_subscription_gets(stage: Stage, match: str, pattern: str, fits: bool) -> None:
    client = stage.joined()
    number = client.subscribe(pattern, match)
    stage.publish(TOPIC, {"id": 1}, 2)
    details = {} if match == "exact" else {"topic": TOPIC}
    events = client.heard()
    assert [event[:2] + event[3:] for event in events] == [[raw.EVENT, number, details, [{"id": 1}, 2]]] * fits
    assert all(1 <= event[2] <= ID_MAX for event in events)
    stage.publish("com.example.other.one.two")
    assert client.heard() == [] or pattern in ("", "...")


def test_events_reach_all_but_who_caused_them(stage: Stage) -> None:
    one, other, neither = stage.joined(), stage.joined("cbor"), stage.joined()
    numbers = {one.subscribe(TOPIC), other.subscribe(TOPIC), one.subscribe(TOPIC)}
    assert len(numbers) == 1  # one topic, one subscription, however often it is asked for
    stage.publish(TOPIC)
    assert [len(message) for message in one.heard()] == [4]
    assert len(other.heard()) == 1
    stage.publish(TOPIC, 1, exclude=one.session)
    assert one.heard() == []
    assert other.heard()[0][4] == [1]
    assert neither.heard() == []


def test_events_and_results_keep_their_order(stage: Stage) -> None:
    client = stage.joined()
    client.subscribe(TOPIC)
    client.ask("wait")
    stage.publish(TOPIC, 1)
    stage.worker.pending[0].callback(None)
    stage.publish(TOPIC, 2)
    assert [message[0] for message in client.heard()] == [raw.EVENT, raw.RESULT, raw.EVENT]


def test_unsubscribe(stage: Stage) -> None:
    one, other = stage.joined(), stage.joined()
    number = one.subscribe(TOPIC)
    assert other.say([raw.UNSUBSCRIBE, 1, number])[0][4] == "wamp.error.no_such_subscription"
    assert other.subscribe(TOPIC) == number
    assert one.say([raw.UNSUBSCRIBE, 2, number]) == [[raw.UNSUBSCRIBED, 2]]
    assert one.say([raw.UNSUBSCRIBE, 3, number])[0][4] == "wamp.error.no_such_subscription"
    stage.publish(TOPIC)
    assert one.heard() == []
    assert len(other.heard()) == 1
    other.say([raw.UNSUBSCRIBE, 2, number])
    assert len(stage.realm.subscriptions) == 0
    assert one.subscribe(TOPIC) != number


@pytest.mark.parametrize(("match", "topic"), [("exact", ""), ("exact", "a..b"), ("prefix", "a b"), ("wildcard", "a#.")])
def test_topics_that_are_none(stage: Stage, match: str, topic: str) -> None:
    (error,) = stage.joined().say([raw.SUBSCRIBE, 1, {"match": match}, topic])
    assert error[:5] == [raw.ERROR, raw.SUBSCRIBE, 1, {}, "wamp.error.invalid_uri"]


def test_there_is_an_end_to_subscriptions(stage: Stage) -> None:
    client = stage.joined()
    for number in range(realm_session.SUBSCRIPTIONS_MAX):
        client.subscribe(f"com.example.n{number}")
    (error,) = client.say([raw.SUBSCRIBE, 999, {}, "com.example.more"])
    assert error[4] == "wamp.error.unavailable"
    assert stage.joined().subscribe("com.example.more")


# --- what is not for clients ---


@pytest.mark.parametrize(
    ("message", "uri"),
    [
        ([raw.PUBLISH, 4, {"acknowledge": True}, TOPIC, [1]], "wamp.error.not_authorized"),
        ([raw.REGISTER, 4, {}, f"{PREFIX}.echo"], "wamp.error.not_authorized"),
        ([raw.UNREGISTER, 4, 1], "wamp.error.no_such_registration"),
    ],
)
def test_what_is_refused(stage: Stage, message: list[Any], uri: str) -> None:
    client, watcher = stage.joined(), stage.joined()
    watcher.subscribe("", "prefix")
    ((kind, request_type, request, _, error, _),) = client.say(message)
    assert (kind, request_type, request, error) == (raw.ERROR, message[0], 4, uri)
    assert client.say([raw.PUBLISH, 5, {}, TOPIC]) == []
    assert watcher.heard() == []


@pytest.mark.parametrize(
    "message",
    [
        raw.hello("crossbar"),
        [raw.CALL, 1, {}],
        [raw.CALL, 0, {}, "a.b"],
        [raw.CALL, 2**53 + 1, {}, "a.b"],
        [raw.CALL, True, {}, "a.b"],
        [raw.CALL, 1.0, {}, "a.b"],
        [raw.CALL, 1, [], "a.b"],
        [raw.CALL, 1, {}, 7],
        [raw.CALL, 1, {}, "a.b", {}],
        [raw.CALL, 1, {}, "a.b", [], []],
        [raw.CALL, 1, {}, "a.b", [], {}, 1],
        [raw.CALL, 1, {"receive_progress": 1}, "a.b"],
        [raw.CANCEL, 1],
        [raw.CANCEL, 1, {"mode": "now"}],
        [raw.CANCEL, 1, {"mode": ["skip"]}],
        [raw.SUBSCRIBE, 1, {"match": "regex"}, "a.b"],
        [raw.SUBSCRIBE, 1, {"match": []}, "a.b"],
        [raw.SUBSCRIBE, 1, {}, None],
        [raw.UNSUBSCRIBE, 1, "x"],
        [raw.PUBLISH, 1, {"acknowledge": "yes"}, "a.b"],
        [raw.REGISTER, 1, {}],
        [raw.YIELD, 1, {}],
        [raw.EVENT, 1, 1, {}],
        [raw.RESULT, 1, {}],
        [raw.ERROR, raw.INVOCATION, 1, {}, "a.b"],
        [raw.WELCOME, 1, {}],
        [raw.GOODBYE],
        [12345],
        [],
        "HELLO",
    ],
)
def test_who_breaks_the_protocol_is_told_and_let_go(stage: Stage, message: Any) -> None:
    client, other = stage.joined(), stage.joined()
    client.subscribe(TOPIC)
    (answer,) = client.say(message)
    assert answer[0] == raw.ABORT
    assert answer[2] == VIOLATION
    assert answer[1]["message"]
    assert client.pipe.is_gone
    assert len(stage.realm.subscriptions) == 0
    assert other.ask("echo", 1)[0][0] == raw.RESULT


def test_a_request_number_that_is_in_use(stage: Stage) -> None:
    client = stage.joined()
    client.ask("wait")
    (answer,) = client.say([raw.CALL, 1, {}, f"{PREFIX}.echo", [1]])
    assert answer[0] == raw.ABORT
    assert client.pipe.is_gone


@pytest.mark.parametrize(
    "octets",
    [b"\x00\x00\x00\x05hello", b"\x03\x00\x00\x00", b"\x08\x00\x00\x00", b"\x00\x02\x00\x01", b"\x00\x00\x00\x00"],
)
def test_octets_that_are_no_message(stage: Stage, octets: bytes) -> None:
    client = stage.joined()
    client.feed(octets)
    assert client.heard()[0][0] == raw.ABORT
    assert client.pipe.is_gone


def test_the_longest_message_and_one_octet_more(stage: Stage) -> None:
    client = stage.joined()
    empty = len(raw.encode("json", [raw.CALL, 1, {}, f"{PREFIX}.length", [""]]))
    assert client.ask("length", "x" * (UNTRUSTED_SIZE_MAX - empty - 3)) != []
    client.request = 8
    text = "x" * (UNTRUSTED_SIZE_MAX - empty)
    assert client.say([raw.CALL, 9, {}, f"{PREFIX}.length", [text]]) == [[raw.RESULT, 9, {}, [len(text)]]]
    assert client.say([raw.CALL, 9, {}, f"{PREFIX}.length", [text + "x"]])[0][0] == raw.ABORT
    assert client.pipe.is_gone


def test_pings_are_answered(stage: Stage) -> None:
    client = stage.joined()
    client.feed(b"\x01\x00\x00\x04ping" + b"\x02\x00\x00\x04pong")
    assert client.pipe.octets == b"\x02\x00\x00\x04ping"


@given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from(["json", "msgpack", "cbor"]), st.booleans())
def test_no_octets_break_it(pieces: list[bytes], serializer: str, joins: bool) -> None:
    stage = Stage()
    client = stage.joined(serializer) if joins else stage.client(serializer)
    if not joins:
        client.shake()
    for piece in pieces:
        client.feed(len(piece).to_bytes(4, "big") + piece)
        client.feed(piece)
    assert stage.joined().ask("echo", 1) == [[raw.RESULT, 1, {}, [1]]]


MESSAGES = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 70) | st.sampled_from(["", "a.b", TOPIC, "match", "crossbar"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["match", "mode", "x"]), inner),
        max_leaves=6,
    ),
    max_size=6,
)


@given(st.lists(st.tuples(st.integers(1, 70), MESSAGES).map(lambda pair: [pair[0], *pair[1]]), max_size=5))
def test_no_message_breaks_it(messages: list[list[Any]]) -> None:
    """Whatever a client says, it gets answers of the specification's shapes, and others notice nothing."""
    stage = Stage()
    other = stage.joined()
    client = stage.joined()
    answers = client.say(*messages)
    assert all(answer[0] in range(1, 71) for answer in answers)
    assert sum(answer[0] == raw.ABORT for answer in answers) == int(client.pipe.is_gone and answers[-1][0] == raw.ABORT)
    assert other.ask("echo", 1) == [[raw.RESULT, 1, {}, [1]]]


# --- clients that do not read ---


def test_who_does_not_read_is_cut_off_before_much_waits_for_it(stage: Stage) -> None:
    stuck, awake = stage.joined(), stage.joined()
    stuck.subscribe(TOPIC)
    awake.subscribe(TOPIC)
    stuck.pipe.is_read = False
    text = "x" * 100_000
    sent = 0
    while not stuck.pipe.is_gone:
        stage.publish(TOPIC, text)
        sent += len(text)
        assert sent < 2 * rawsocket.QUEUE_MAX
        assert len(awake.heard()) == 1
    assert sent > rawsocket.QUEUE_MAX
    stage.publish(TOPIC, text)
    assert len(awake.heard()) == 1
    assert not stage.clock.getDelayedCalls()


def test_who_reads_late_misses_nothing(stage: Stage) -> None:
    client = stage.joined()
    client.subscribe(TOPIC)
    client.pipe.is_read = False
    for number in range(100):
        stage.publish(TOPIC, number)
    # While its answers wait it is not read from: it cannot make more of them.
    assert client.pipe.is_paused
    payload = raw.encode("json", [raw.CALL, 7, {}, f"{PREFIX}.echo", ["asked"]])
    client.feed(len(payload).to_bytes(4, "big") + payload)
    assert not stage.worker.callers
    client.pipe.read_again()
    messages = client.heard()
    assert [message[4] for message in messages[:-1]] == [[number] for number in range(100)]
    assert messages[-1] == [raw.RESULT, 7, {}, ["asked"]]
    assert not client.pipe.is_paused
    stage.clock.advance(rawsocket.STALL_TIMEOUT + 1)
    assert not client.pipe.is_gone


def test_who_does_not_read_for_long_is_cut_off(stage: Stage) -> None:
    client = stage.joined()
    client.pipe.is_read = False
    client.ask("echo", 1)
    stage.clock.advance(rawsocket.STALL_TIMEOUT - 1)
    assert not client.pipe.is_gone
    stage.clock.advance(2)
    assert client.pipe.is_gone


# --- the end ---


def outcome(deferred: Deferred[None]) -> list[None]:
    """Whether it has fired."""
    fired: list[None] = []
    deferred.addCallback(fired.append)
    return fired


def test_all_are_told_of_the_end(stage: Stage) -> None:
    polite, busy, shaken, fresh = stage.joined(), stage.joined(), stage.client(), stage.client()
    shaken.shake()
    polite.subscribe(TOPIC)
    stage.publish(TOPIC, "last words")
    done = outcome(stage.realm.close())
    event, goodbye = polite.heard()
    assert event[4] == ["last words"]
    assert goodbye == [raw.GOODBYE, {}, "wamp.close.system_shutdown"]
    assert fresh.pipe.is_gone
    assert shaken.pipe.is_gone
    polite.say([raw.GOODBYE, {}, "wamp.close.goodbye_and_out"])
    assert polite.pipe.is_gone
    # This one had something on its way, and does not answer.
    assert busy.heard()[0][0] == raw.GOODBYE
    assert busy.say([raw.CALL, 1, {}, f"{PREFIX}.echo", [1]]) == []
    assert not done
    stage.clock.advance(rawsocket.CLOSE_TIMEOUT + 0.1)
    assert done
    assert busy.pipe.is_gone
    assert stage.client().pipe.is_gone
    assert not stage.clock.getDelayedCalls()


def test_the_end_does_not_wait_for_who_does_not_read(stage: Stage) -> None:
    client = stage.joined()
    client.pipe.is_read = False
    client.ask("echo", 1)
    done = outcome(stage.realm.close())
    assert not done
    stage.clock.advance(rawsocket.CLOSE_TIMEOUT + 0.1)
    assert done


def test_an_end_without_clients(stage: Stage) -> None:
    assert outcome(stage.realm.close())


# --- what a node would know ---


def test_the_workers_of_a_node_that_has_one(stage: Stage) -> None:
    client = stage.joined()
    assert client.ask("crossbar.get_workers", ["proxy", "router"])[0][3] == [["worker007"]]
    assert client.ask("crossbar.get_workers", ["router"])[0][3] == [[]]
    worker = client.ask("crossbar.get_worker", "worker007", include_stats=True)[0][3][0]
    assert (worker["id"], worker["type"], worker["status"]) == ("worker007", "proxy", "started")
    assert worker["uptime"] >= 0
    assert worker["startup_time"] >= 0
    assert worker["created"] <= worker["started"]
    assert worker["stats"] == {}
    assert client.ask("crossbar.get_worker", "worker001")[0][4] == "crossbar.error.no_such_worker"
    assert client.ask("crossbar.get_worker", 7)[0][4] == "crossbar.error.invalid_argument"
    status = client.ask("crossbar.get_status")[0][3][0]
    assert status["running_workers"] == 1
    assert status["workers_by_type"] == {"proxy": 1}
    assert status["directory"] == "/srv"


@pytest.mark.parametrize("serializer", ["json", "msgpack", "cbor"])
def test_an_error_that_is_too_long_for_the_client_comes_shorter(stage: Stage, serializer: str) -> None:
    client = stage.joined(serializer, limit=0)
    (answer,) = client.ask("crossbar.get_worker", "\u20ac" * 500)
    assert answer[:5] == [raw.ERROR, raw.CALL, 1, {}, "crossbar.error.no_such_worker"]
    assert answer[5][0].startswith('no worker "\u20ac\u20ac')
    assert answer[5][0].endswith("...")
