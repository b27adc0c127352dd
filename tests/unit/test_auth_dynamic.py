"""Dynamic authenticators: what they are told, what their answers mean, and what happens when they give none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp import message
from autobahn.wamp.exception import ApplicationError, SerializationError
from autobahn.wamp.role import RoleDealerFeatures
from autobahn.wamp.types import CloseDetails
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from proxy.auth import dynamic
from proxy.auth.base import Attempt, Deny
from proxy.auth.dynamic import DynamicSource
from proxy.auth.principals import Unavailable
from proxy.config import load
from proxy.config.auth import Dynamic
from proxy.errors import NoSuchObject
from proxy.service_attempts import NoServiceSession, ServiceSession

PROCEDURE = "com.example.authenticate"
TRANSPORT = {"peer": "tcp4:192.0.2.7:4711", "peer_cert": None, "http_headers_received": {"user-agent": "tester"}}
DETAILS = {"authid": "joe", "authrole": "admin", "authextra": {"team": "blue"}, "authmethods": ["ticket"]}
FAILED = ("wamp.error.authentication_failed", "authentication failed")


class Wire:
    """A transport below a service session: writes down what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.is_aborted = False
        self.error: Exception | None = None

    def send(self, sent: Any) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(sent)

    def abort(self) -> None:
        self.is_aborted = True

    def isOpen(self) -> bool:
        return True

    def take(self) -> Any:
        """The one message since the last time."""
        (sent,) = self.sent
        self.sent.clear()
        return sent


def make_session(*, cancels: bool = True) -> tuple[ServiceSession, Wire]:
    """A joined service session, and what it talks to."""
    session = ServiceSession({}, lambda *_: None)
    session._transport = wire = Wire()
    session._session_id = 1
    session._router_roles = {"dealer": RoleDealerFeatures(call_canceling=cancels)}
    return session, wire


class Worker:
    """What a source needs of the controller.

    :ivar sessions: what is asked for next is given these, one after the other; the last again and again.
    """

    def __init__(self, *sessions: "Deferred[Any]") -> None:
        self.sessions = list(sessions)
        self.asked: list[tuple[str, str]] = []

    def has_realm(self, realm: str) -> bool:
        return realm in ("realm1", "realm2")

    def get_service_session(self, realm: str, role: str) -> "Deferred[Any]":
        self.asked.append((realm, role))
        given = self.sessions.pop(0) if len(self.sessions) > 1 else self.sessions[0]
        return succeed(given) if isinstance(given, ServiceSession) else given


def make_source(*sessions: Any, **keys: Any) -> tuple[DynamicSource, Worker]:
    worker = Worker(*sessions)
    item = {"type": "dynamic", "authenticator": PROCEDURE, "authenticator-role": "backend", **keys}
    return DynamicSource(Dynamic.model_validate(item), worker), worker  # type: ignore[arg-type]


def attempt(realm: str | None = "realm1", **details: Any) -> Attempt:
    return Attempt(realm, {**DETAILS, **details}, TRANSPORT, 4242)


class Asked:
    """A question under way, and its answer."""

    def __init__(
        self, source: DynamicSource, method: str = "ticket", authid: str | None = "joe", more: Mapping[str, Any] = {}
    ) -> None:
        self.found: Any = "nothing yet"
        self.deferred = source.find(attempt(), method, authid, more)
        assert isinstance(self.deferred, Deferred)
        self.deferred.addBoth(self._set)

    def _set(self, found: Any) -> None:
        self.found = found


def answer(session: ServiceSession, call: Any, *args: Any, **kwargs: Any) -> None:
    session.onMessage(message.Result(call.request, args=list(args), kwargs=kwargs or None))


def ask(reply: Any, method: str = "ticket", **keys: Any) -> Any:
    """What comes of one answer (an exception: ERROR) of the authenticator."""
    session, wire = make_session()
    asked = Asked(make_source(session, **keys)[0], method)
    call = wire.take()
    if isinstance(reply, ApplicationError):
        error = message.Error(message.Call.MESSAGE_TYPE, call.request, reply.error, args=list(reply.args))
        session.onMessage(error)
    else:
        answer(session, call, reply)
    return asked.found


# --- the question ---


@pytest.mark.parametrize("where", ["authextra", "authid", "authrole", "ticket", "realm"])
def test_what_not_everybody_can_read_is_not_passed_on(where: str) -> None:
    """All logins share the session, which the router or the authenticator would end over it."""
    said: dict[str, Any] = {"authextra": {"a": [b"x", 1, 1.5, None, True, {"b": "text"}]}, "authid": "joe"}
    said |= {"authrole": "user", "ticket": "right", "realm": "realm1"}
    session, wire = make_session()
    for is_bad in (False, True):
        if is_bad:
            said[where] = {"a": [{1: 2}]} if where == "authextra" else "\0" + said[where]
        source, _ = make_source(session, **{"authenticator-realm": "realm2"})
        found = source.find(attempt(**said), "ticket", said["authid"], {"ticket": said["ticket"]})
        if is_bad:
            assert isinstance(found, Deny)
            assert (found.reason, found.message) == FAILED
            assert wire.sent == []
        else:
            assert wire.take().args[2]["authextra"] == said["authextra"]


@pytest.mark.parametrize(
    ("method", "named"), [("anonymous", {}), ("ticket", {}), ("scram", {}), ("tls", {}),
                          ("wampcra", {"authid": "joe", "authrole": "admin"}),
                          ("cryptosign", {"authid": "joe", "authrole": "admin"})]
)  # fmt: skip
def test_the_arguments_are_those_of_crossbar(method: str, named: dict[str, Any]) -> None:
    session, wire = make_session()
    source, worker = make_source(session)
    Asked(source, method, more={"ticket": "a ticket"} if method == "ticket" else {})
    call = wire.take()
    assert worker.asked == [("realm1", "backend")]
    assert (call.procedure, call.args[:2]) == (PROCEDURE, ("realm1", "joe"))
    assert call.args[2] == {
        "transport": {**TRANSPORT, "client_cert": None},
        "session": 4242,
        "authmethod": method,
        "authextra": {"team": "blue"},
        **named,
        **({"ticket": "a ticket"} if method == "ticket" else {}),
    }
    assert "client_cert" not in TRANSPORT, "what the session knows of itself is left alone"


def test_it_is_asked_where_the_configuration_says() -> None:
    session, wire = make_session()
    source, worker = make_source(session, **{"authenticator-realm": "realm2"})
    found = source.find(attempt(None), "ticket", None, {})
    assert isinstance(found, Deferred)
    assert worker.asked == [("realm2", "backend")]
    assert wire.take().args[:2] == (None, None), "the client named no realm, and the authenticator learns of it"


def test_without_a_role_it_is_a_role_of_its_own() -> None:
    source, worker = make_source(fail(NoSuchObject("no route")), **{"authenticator-role": None})
    asked = Asked(source)
    assert worker.asked == [("realm1", "authenticator")]
    assert "authenticator-role" in asked.found.cause


@pytest.mark.parametrize(("realm", "text"), [(None, "names no realm"), ("nowhere", 'no route for realm "nowhere"')])
def test_a_realm_that_is_not_there(realm: str | None, text: str) -> None:
    source, worker = make_source(make_session()[0])
    found = source.find(attempt(realm), "ticket", "joe", {})
    assert isinstance(found, Unavailable)
    assert found.reason == "wamp.error.no_such_realm"
    assert text in found.message
    assert not worker.asked


# --- the answer ---


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("user", {"role": "user"}),
        ({}, {}),
        (
            {"role": "user", "realm": "realm2", "authid": "jack", "extra": {"a": 1}},
            {"role": "user", "realm": "realm2", "authid": "jack", "extra": {"a": 1}},
        ),
        ({"role": "user", "realm": None, "extra": None}, {"role": "user"}),
        (None, None),
    ],
)
def test_answers(reply: Any, found: Any) -> None:
    assert ask(reply) == found


@pytest.mark.parametrize(
    "reply",
    [17, True, ["user"], b"user", {"role": 7}, {"role": "user", "realm": []}, {"authid": b"x"}, {"extra": "text"}],
)
def test_answers_that_say_nothing(reply: Any) -> None:
    found = ask(reply)
    assert type(found) is Deny, "the client may be known or not: a challenge comes first"
    assert (found.reason, found.message) == FAILED
    assert PROCEDURE in found.cause


def test_an_answer_of_several_values_says_nothing() -> None:
    session, wire = make_session()
    asked = Asked(make_source(session)[0])
    answer(session, wire.take(), "user", "and more")
    assert (asked.found.reason, asked.found.message) == FAILED


KEY = "AB" * 32


@pytest.mark.parametrize(
    ("method", "reply", "found"),
    [
        ("wampcra", {"secret": "s", "role": "user"}, {"secret": "s", "role": "user"}),
        ("wampcra", {"secret": "s", "salt": "x", "iterations": 100}, {"secret": "s"}),
        (
            "wampcra",
            {"secret": "s", "salt": "x", "iterations": 100, "keylen": 32},
            {"secret": "s", "salt": "x", "iterations": 100, "keylen": 32},
        ),
        (
            "scram",
            {"kdf": "pbkdf2", "iterations": 4096, "salt": "FF", "stored-key": KEY, "server-key": KEY, "memory": None},
            {"kdf": "pbkdf2", "iterations": 4096, "salt": "ff", "stored-key": "ab" * 32, "server-key": "ab" * 32},
        ),
        ("cryptosign", {"pubkey": KEY}, {"authorized_keys": ("ab" * 32,)}),
        ("cryptosign", {"pubkey": "0x" + KEY}, {"authorized_keys": ("ab" * 32,)}),
        ("cryptosign", {"authorized_keys": [KEY, KEY.lower()]}, {"authorized_keys": ("ab" * 32, "ab" * 32)}),
    ],
)
def test_principals_have_the_form_of_the_configuration(method: str, reply: Any, found: Any) -> None:
    assert ask(reply, method) == found


SCRAM = {"kdf": "argon2id-13", "iterations": 4, "memory": 512, "salt": "ff", "stored-key": KEY, "server-key": KEY}


@pytest.mark.parametrize(
    ("method", "reply", "key"),
    [
        ("wampcra", "user", "secret"),
        ("wampcra", {"secret": b"octets"}, "secret"),
        ("wampcra", {"secret": ""}, "secret"),
        ("wampcra", {"secret": "s", "salt": 7, "iterations": 100, "keylen": 32}, "salt"),
        ("wampcra", {"secret": "s", "salt": "x", "iterations": "100", "keylen": 32}, "iterations"),
        ("wampcra", {"secret": "s", "salt": "x", "iterations": 10**9, "keylen": 32}, "iterations"),
        ("wampcra", {"secret": "s", "salt": "x", "iterations": 100, "keylen": True}, "keylen"),
        ("scram", "user", "kdf"),
        ("scram", {**SCRAM, "kdf": "bcrypt"}, "kdf"),
        ("scram", {**SCRAM, "memory": 0}, "memory"),
        ("scram", {**SCRAM, "salt": "no digits"}, "salt"),
        ("scram", {**SCRAM, "stored-key": KEY[2:]}, "stored-key"),
        ("scram", {**SCRAM, "server-key": None}, "server-key"),
        ("cryptosign", "user", "pubkey"),
        ("cryptosign", {"pubkey": KEY[2:]}, "pubkey"),
        ("cryptosign", {"authorized_keys": []}, "authorized_keys"),
        ("cryptosign", {"authorized_keys": KEY}, "authorized_keys"),
    ],
)
def test_principals_that_a_method_cannot_use(method: str, reply: Any, key: str) -> None:
    found = ask(reply, method)
    assert type(found) is Deny
    assert (found.reason, found.message) == FAILED
    assert f"as {key}" in found.cause
    values = reply.values() if isinstance(reply, dict) else [reply]
    assert not any(str(value) in found.cause for value in values if len(str(value)) > 5 and value != "bcrypt")


# --- errors ---


def test_an_error_of_the_authenticators_own_reaches_the_client() -> None:
    found = ask(ApplicationError("com.example.error.locked", "ask Jane", 7))
    assert type(found) is Deny
    assert (found.reason, found.message) == ("com.example.error.locked", "ask Jane")


@pytest.mark.parametrize("args", [(), (17,), ("x" * 100_000,)])
def test_whatever_an_error_brings_along(args: tuple[Any, ...]) -> None:
    found = ask(ApplicationError("com.example.error.locked", *args))
    assert found.reason == "com.example.error.locked"
    assert found.message == (str(args[0])[:1000] if args else "authentication failed")


def test_an_authenticator_may_say_what_routers_say() -> None:
    found = ask(ApplicationError("wamp.error.not_authorized", "not you"))
    assert (type(found), found.reason, found.message) == (Deny, "wamp.error.not_authorized", "not you")


@pytest.mark.parametrize("uri", ["wamp.error.runtime_error", "wamp.error.invalid_argument"])
def test_a_fault_of_the_authenticator_is_nobodys_business(uri: str) -> None:
    found = ask(ApplicationError(uri, "KeyError: 'the password'"))
    assert type(found) is Deny
    assert (found.reason, found.message) == FAILED
    assert uri in found.cause
    assert "password" not in found.cause


@pytest.mark.parametrize(
    "error",
    [
        ApplicationError("wamp.error.no_such_procedure", f"no callee registered for procedure <{PROCEDURE}>"),
        ApplicationError("wamp.error.canceled", "callee disconnected from in-flight request"),
        ApplicationError("wamp.error.not_authorized", f'session (authid=proxy) not authorized to call "{PROCEDURE}"'),
        ApplicationError("wamp.close.system_shutdown"),
    ],
)
def test_what_comes_from_the_router_is_told_at_once_and_without_names(error: ApplicationError) -> None:
    found = ask(error)
    assert isinstance(found, Unavailable)
    assert found.reason == "wamp.error.unavailable"
    assert PROCEDURE not in found.message
    assert error.error in found.cause


def test_no_service_session() -> None:
    asked = Asked(make_source(fail(NoServiceSession("no answer")))[0])
    assert isinstance(asked.found, Unavailable)
    assert "no answer" in asked.found.cause
    assert "no answer" not in asked.found.message


def test_the_service_session_is_lost_while_it_is_asked_and_the_next_client_gets_a_new_one() -> None:
    first, wire = make_session()
    second, other_wire = make_session()
    source, _ = make_source(first, second)
    asked = Asked(source)
    wire.take()
    first.onLeave(CloseDetails(CloseDetails.REASON_TRANSPORT_LOST, "lost"))
    assert isinstance(asked.found, Unavailable)
    again = Asked(source)
    answer(second, other_wire.take(), "user")
    assert again.found == {"role": "user"}


def test_a_session_whose_transport_is_gone() -> None:
    session, _ = make_session()
    session._transport = None
    assert isinstance(Asked(make_source(session)[0]).found, Unavailable)


def test_what_no_serializer_can_express_is_not_quoted() -> None:
    session, wire = make_session()
    wire.error = SerializationError("cannot serialize 'the ticket'")
    asked = Asked(make_source(session)[0], more={"ticket": "the ticket"})
    assert (asked.found.reason, asked.found.message) == FAILED
    assert "the ticket" not in asked.found.cause


# --- nobody waits any more ---


def test_a_call_is_cancelled_at_the_router() -> None:
    session, wire = make_session()
    source, _ = make_source(session)
    asked = Asked(source)
    call = wire.take()
    asked.deferred.cancel()
    assert isinstance(asked.found, Failure)
    assert asked.found.check(CancelledError)
    cancel = wire.take()
    assert isinstance(cancel, message.Cancel)
    assert cancel.request == call.request
    session.onMessage(message.Error(message.Call.MESSAGE_TYPE, call.request, "wamp.error.canceled"))
    assert not session._call_reqs


def test_a_router_that_cannot_cancel_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "GIVEN_UP_MAX", 2)
    session, wire = make_session(cancels=False)
    source, _ = make_source(session)
    calls = []
    for _ in range(5):
        asked = Asked(source)
        calls.append(wire.take())
        asked.deferred.cancel()
        assert isinstance(asked.found, Failure)
        answer(session, calls[-1], "user")
    assert not wire.sent
    assert not wire.is_aborted, "all of them are answered in the end"
    for _ in range(2):
        assert not wire.is_aborted
        asked = Asked(source)
        wire.take()
        asked.deferred.cancel()
    assert wire.is_aborted, "answers that never come are not waited for without end"


def test_who_waits_for_a_service_session_may_leave() -> None:
    given_up: list[Any] = []
    waiting: Deferred[Any] = Deferred(given_up.append)
    asked = Asked(make_source(waiting)[0])
    asked.deferred.cancel()
    assert given_up == [waiting]


def test_no_more_calls_than_a_bound_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "AT_WORK_MAX", 2)
    session, wire = make_session()
    source, _ = make_source(session)
    asked = [Asked(source, authid=f"client{number}") for number in range(5)]
    assert len(wire.sent) == 2
    asked[2].deferred.cancel()
    answer(session, wire.sent[1], "user")
    assert [call.args[1] for call in wire.sent] == ["client0", "client1", "client3"], "in their order, without who left"
    asked[0].deferred.cancel()
    assert wire.sent[-1].args[1] == "client4"
    assert asked[1].found == {"role": "user"}


def test_it_needs_no_start() -> None:
    source, worker = make_source(make_session()[0])
    assert source.start().called
    source.close()
    assert not worker.asked, "the procedure may be registered later"


# --- what a check of the configuration finds ---


def _config(**keys: str) -> dict[str, Any]:
    endpoint = {"type": "unix", "path": "/run/router.sock"}
    item = {"type": "dynamic", "authenticator": PROCEDURE, **keys}
    return {
        "type": "proxy",
        "connections": {"router1": {"transport": {"type": "rawsocket", "endpoint": endpoint}}},
        "routes": {"realm1": {"backend": "router1"}, "realm2": {"authenticator": "router1"}},
        "transports": [{"type": "rawsocket", "endpoint": {"type": "tcp", "port": 8080}, "auth": {"ticket": item}}],
    }


@pytest.mark.parametrize(
    ("keys", "key", "text"),
    [
        ({}, "", ""),
        ({"authenticator-realm": "realm2"}, "", ""),
        ({"authenticator-role": "backend"}, "", ""),
        ({"authenticator-realm": "realm1", "authenticator-role": "backend"}, "", ""),
        ({"authenticator-realm": "realm3"}, "authenticator-realm", 'no route for realm "realm3"'),
        ({"authenticator-realm": "realm1"}, "authenticator-role", "the key is missing"),
        ({"authenticator-role": "nobody"}, "authenticator-role", 'no route for role "nobody" in any realm'),
    ],
)
def test_an_authenticator_that_no_route_leads_to(tmp_path: Path, keys: dict[str, str], key: str, text: str) -> None:
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps(_config(**keys)))
    found = [item for item in load(path).warnings if "authenticator" in item.place]
    places = [f"transports[0].auth.ticket.{key}"] if key else []
    assert [item.place for item in found] == places
    assert all(text in item.expected for item in found)
