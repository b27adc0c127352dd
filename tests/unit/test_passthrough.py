"""Logins that a router decides: which routers are asked, what they are told, and each message on its way."""

import json

import pytest

from proxy.auth import Authentication
from proxy.auth.base import Attempt, Deny, PassThrough
from proxy.auth.passthrough import Relayed
from proxy.config import ConfigError, WorkerConfig, check, load
from proxy.config.auth import AuthConfig, PassThroughAuth, is_relayable
from proxy.messages import SER_CBOR, SER_JSON
from proxy.plane import (
    CLOSED_DEADLINE,
    CLOSED_FRONT_GONE,
    CLOSED_PEER,
    EV_CLOSED,
    EV_VIOLATION,
    LISTEN_CLOSED,
    ST_DEADLINE,
)
from support.planes import FRONT, REFUSED, WELCOME_DETAILS, Rig, abort_of, back_conn, connection_of

ROLES = {"caller": {"features": {"call_canceling": True}}}
DETAILS = {"roles": ROLES, "agent": "tester", "authmethods": ["ticket"], "authid": "joe"}
HELLO = [1, "realm1", DETAILS]
CHALLENGE = [4, "ticket", {"hint": [1, {"a": None}]}]
ANSWER = [5, "secret", {"more": True}]
WELCOME = [2, 4242, {**WELCOME_DETAILS, "authmethod": "ticket", "authextra": {"told": "by the router"}}]
FAILED = "wamp.error.authentication_failed"


def relayed(local=(), **keys):
    return Relayed(PassThroughAuth.model_validate(keys), local)


def attempt(*authmethods, realm="realm1", **details):
    return Attempt(realm, {"roles": ROLES, "authmethods": list(authmethods), **details}, {})


def rig_for(**keywords):
    """A proxy whose transport leaves ticket and wampcra to the routers, and lets anonymous clients in by itself."""
    auth = {"passthrough": {"role": "anonymous"}}
    return Rig(auth=auth, backend={"auth": {"passthrough": {}}}, **keywords)


def asked(**keywords):
    """A rig whose client has been asked by the router; and the token of the router's connection."""
    rig = rig_for(**keywords)
    rig.open()
    rig.says(HELLO)
    token, _ = rig.dialled()
    rig.answers(token, CHALLENGE)
    assert rig.did() == [("send", FRONT, CHALLENGE), ("next", FRONT)]
    assert rig.state == "CHALLENGED"
    return rig, token


# --- which routers ---


def test_realm_and_role_of_the_routes():
    assert relayed().hello("ticket", attempt("ticket")) == PassThrough("realm1", "passthrough", ("ticket",))
    assert relayed(role="x").hello("ticket", attempt("ticket")) == PassThrough("realm1", "x", ("ticket",))


def test_a_client_without_realm_gets_the_configured_one():
    nobody = attempt("ticket", realm=None)
    assert relayed(realm="home").hello("ticket", nobody) == PassThrough("home", "passthrough", ("ticket",))
    refused = relayed().hello("ticket", nobody)
    assert isinstance(refused, Deny)
    assert refused.reason == "wamp.error.no_such_realm"


RULES = [
    {"realm": "com.a.*", "role": "a"},
    {"authid": "*@b.example", "role": "b"},
    {"authmethods": ["scram", "cryptosign"], "role": "c"},
    {"realm": "com.?", "authid": "joe", "authmethods": ["ticket"], "role": "d"},
]


@pytest.mark.parametrize(
    ("client", "role"),
    [
        (attempt("ticket", realm="com.a.x"), "a"),
        (attempt("ticket", realm="com.a"), "passthrough"),
        (attempt("ticket", realm="COM.A.X"), "passthrough"),
        (attempt("ticket", authid="joe@b.example"), "b"),
        (attempt("ticket", realm="com.a.x", authid="joe@b.example"), "a"),
        (attempt("ticket", authid="joe@b.example.org"), "passthrough"),
        (attempt("ticket", "cryptosign"), "c"),
        (attempt("wampcra"), "passthrough"),
        (attempt("ticket", realm="com.z", authid="joe"), "d"),
        (attempt("ticket", realm="com.z"), "passthrough"),
        (attempt("wampcra", realm="com.z", authid="joe"), "passthrough"),
    ],
)
def test_the_first_rule_that_fits(client, role):
    decision = relayed(rules=RULES).hello(client.details["authmethods"][0], client)
    assert decision.role == role


def test_a_pattern_of_authids_is_not_for_clients_without():
    chooser = relayed(rules=[{"authid": "*", "role": "known"}])
    assert chooser.hello("ticket", attempt("ticket")).role == "passthrough"
    assert chooser.hello("ticket", attempt("ticket", authid="")).role == "known"


# --- which methods ---


@pytest.mark.parametrize(
    "name",
    [
        "anonymous-proxy",
        "cryptosign-proxy",
        "Anonymous-Proxy",
        " anonymous-proxy ",
        "anonymous_proxy",
        "any-proxy",
        "tls",
        "TLS",
        "cookie",
        "trusted",
    ],
)
def test_methods_that_no_client_may_use_there(name):
    assert not is_relayable(name)
    assert relayed().hello(name, attempt(name)) is None
    assert relayed().hello("ticket", attempt(name, "ticket", name)).authmethods == ("ticket",)
    with pytest.raises(ValueError, match="expected another authmethod"):
        PassThroughAuth.model_validate({"authmethods": ["ticket", name]})


def test_the_router_is_told_of_its_own_methods_only():
    chooser = relayed(local=("wampcra",), authmethods=["ticket", "scram", "wampcra"])
    offered = attempt("anonymous", "scram", "wampcra", "ticket", "scram", "tls")
    assert chooser.hello("scram", offered).authmethods == ("scram", "ticket")
    assert chooser.hello("anonymous", offered) is None
    assert chooser.hello("wampcra", offered) is None


def test_a_client_that_names_no_method_is_anonymous_at_the_router():
    config = AuthConfig.model_validate({"passthrough": {}})
    for details in ({}, {"authmethods": []}, {"authmethods": None}):
        decision = Authentication(config).hello(Attempt("realm1", {"roles": ROLES, **details}, {}))
        assert decision == PassThrough("realm1", "passthrough", ("anonymous",))


def test_the_clients_order_between_local_methods_and_the_router():
    config = AuthConfig.model_validate({"anonymous": {"type": "static"}, "passthrough": {}})
    authentication = Authentication(config)
    assert authentication.hello(attempt("ticket", "anonymous")).authmethods == ("ticket",)
    assert authentication.hello(attempt("anonymous", "ticket")).authmethod == "anonymous"
    assert authentication.hello(attempt("tls", "cookie", "anonymous-proxy", "anonymous")).authmethod == "anonymous"
    nobody = authentication.hello(attempt("tls", "anonymous-proxy"))
    assert isinstance(nobody, Deny)
    assert nobody.reason == "wamp.error.no_auth_method"


@pytest.mark.parametrize("binding", ["tls-unique", "tls-exporter", "", 0, False])
def test_channel_binding_cannot_be_relayed(binding):
    decision = relayed().hello("cryptosign", attempt("cryptosign", authextra={"channel_binding": binding}))
    assert isinstance(decision, Deny)
    assert decision.reason == FAILED
    assert "channel binding" in decision.message
    without = attempt("cryptosign", authextra={"channel_binding": None, "pubkey": "ab"})
    assert isinstance(relayed().hello("cryptosign", without), PassThrough)


# --- each message on its way ---


@pytest.mark.parametrize("serializer", [SER_JSON, SER_CBOR])
def test_a_login_in_full(serializer):
    rig = rig_for(serializer=serializer)
    rig.open()
    rig.says([1, "realm1", {**DETAILS, "authrole": "wish", "authextra": {"pubkey": "ab", "n": [1, {"b": None}]}}])
    token, hello = rig.dialled()
    wanted = {**DETAILS, "authrole": "wish", "authextra": {"pubkey": "ab", "n": [1, {"b": None}]}}
    assert hello == [1, "realm1", wanted]
    rig.answers(token, CHALLENGE)
    assert rig.did() == [("send", FRONT, CHALLENGE), ("next", FRONT)]
    rig.says(ANSWER)
    assert rig.state == "JOINING"
    assert rig.did() == [("send", back_conn(token), ANSWER), ("next", back_conn(token), 10_000)]
    rig.answers(token, WELCOME)
    ((command, conn, back, octets),) = rig.plane.take()
    assert (command, conn, back) == ("link", FRONT, back_conn(token))
    code, session_id, details = rig.read(FRONT, octets)
    assert (code, session_id) == (2, 4242)
    assert details.pop("authextra") == {
        "told": "by the router",
        "x_cb_proxy_node": "node7",
        "x_cb_proxy_worker": "worker001",
        "x_cb_proxy_pid": rig.controller.own_authextra["x_cb_proxy_pid"],
        "x_cb_proxy_peer": "tcp4:192.0.2.7:4711",
    }
    assert details == {key: value for key, value in WELCOME[2].items() if key != "authextra"}
    session = rig.transport.sessions[FRONT]
    assert (session.authid, session.authrole, session.authmethod) == ("joe", "anonymous", "ticket")


def test_several_questions():
    rig, token = asked()
    for number in range(3):
        rig.says([5, str(number), {}])
        assert rig.did() == [("send", back_conn(token), [5, str(number), {}]), ("next", back_conn(token), 10_000)]
        rig.answers(token, [4, "more", {"number": number}])
        assert rig.did() == [("send", FRONT, [4, "more", {"number": number}]), ("next", FRONT)]
    rig.says(ANSWER)
    rig.answers(token, WELCOME)
    assert rig.state == "ESTABLISHED"


def test_a_router_that_never_stops_asking():
    rig, token = asked()
    for _ in range(3):
        rig.says(ANSWER)
        rig.answers(token, CHALLENGE)
    rig.says(ANSWER)
    rig.plane.take()
    rig.answers(token, CHALLENGE)
    (_, _, abort), _, *to_front = rig.did()
    assert abort[2] == "wamp.error.protocol_violation"
    assert to_front[0][2][2] == "wamp.error.network_failure"


def test_forged_words_of_the_proxy_are_left_out():
    rig = rig_for()
    rig.open()
    forged = {"proxy_authrole": "trusted", "x_cb_node": "n", "transport": {"peer": "p"}, "deep": {"proxy_authid": "r"}}
    details = {**DETAILS, **forged, "authextra": forged, "authprovider": "x", "authmethod": "trusted", "custom": 7}
    rig.says([1, "realm1", details])
    _, (_, _, told) = rig.dialled()
    assert told == {**DETAILS, "authextra": {"deep": {"proxy_authid": "r"}}, "deep": {"proxy_authid": "r"}, "custom": 7}


def test_the_routers_refusal_arrives_as_it_is():
    rig, token = asked()
    rig.says(ANSWER)
    rig.plane.take()
    rig.answers(token, [3, {"message": "no, because", "n": 1}, "com.example.error.no", ["a"], {"k": "v"}])
    _, (_, _, abort), close = rig.did()
    assert abort == [3, {"message": "no, because", "n": 1}, "com.example.error.no", ["a"], {"k": "v"}]
    assert close == ("close", FRONT, 1000)


@pytest.mark.parametrize("session_ids", ["router", "proxy"])
def test_the_session_id_is_the_routers(session_ids):
    rig, token = asked(session_ids=session_ids)
    rig.says(ANSWER)
    rig.answers(token, WELCOME)
    session = rig.transport.sessions[FRONT]
    assert session.front_sid == session.back.back_sid == 4242
    assert not session.has_own_sid


# --- the wrong thing at the wrong time ---


@pytest.mark.parametrize("message", [HELLO, [48, 1, {}, "com.x"], [5, 7, {}], [6, {}, "wamp.close.normal"], [2, 1, {}]])
def test_something_else_instead_of_an_answer(message):
    rig, token = asked()
    rig.says(message)
    undial, (_, conn, (code, _, reason)), close = rig.did()
    assert undial == ("undial", FRONT)
    assert (conn, code, reason, close) == (FRONT, 3, "wamp.error.protocol_violation", ("close", FRONT, 1002))
    assert rig.plane.owners[token].session is None


def test_a_client_that_gives_up():
    rig, _ = asked()
    rig.says([3, {}, "wamp.close.normal"])
    assert rig.did() == [("undial", FRONT), ("close", FRONT, 1000)]


def test_no_answer_in_time():
    rig, _ = asked()
    rig.front(EV_VIOLATION, ST_DEADLINE)
    undial, (_, _, (code, _, _)), close = rig.did()
    assert (undial, code, close) == (("undial", FRONT), 3, ("close", FRONT, 1002))


@pytest.mark.parametrize("answered", [False, True])
def test_the_client_is_lost(answered):
    rig, token = asked()
    if answered:
        rig.says(ANSWER)
    rig.plane.take()
    rig.back(token, EV_CLOSED, CLOSED_FRONT_GONE)
    rig.front(EV_CLOSED, CLOSED_PEER)
    assert rig.state == "CLOSED"
    assert rig.did() == []
    assert token not in rig.plane.owners


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("reason", [CLOSED_PEER, CLOSED_DEADLINE])
def test_a_router_that_is_lost_after_it_asked(answered, reason):
    """Nobody else can judge the answer: no other router is asked, and the client learns of it."""
    rig, token = asked(connections=2)
    if answered:
        rig.says(ANSWER)
    rig.plane.take()
    rig.back(token, EV_CLOSED, reason)
    (_, conn, (code, details, uri)), close = rig.did()
    assert (conn, code, uri, close) == (FRONT, 3, "wamp.error.network_failure", ("close", FRONT, 1000))
    assert 'connection "one"' in details["message"]


def test_a_router_that_is_lost_before_it_asked():
    """The next one is asked in its place."""
    rig = rig_for(connections=2)
    rig.open()
    rig.says(HELLO)
    first, hello = rig.dialled()
    rig.back(first, EV_CLOSED, REFUSED)
    second, again = rig.dialled()
    assert connection_of(rig, second) == "two"
    assert again == hello
    rig.answers(second, CHALLENGE)
    rig.says(ANSWER)
    rig.answers(second, WELCOME)
    assert rig.state == "ESTABLISHED"


def test_a_slow_decision_is_not_the_connections_failure():
    """What a router thinks about for too long may be this client's doing: others are not kept from it."""
    rig, token = asked()
    rig.says(ANSWER)
    rig.back(token, EV_CLOSED, CLOSED_DEADLINE)
    assert not rig.controller.connections.find("one").is_down(SER_CBOR)


def test_the_transport_is_stopped_meanwhile():
    rig, _ = asked()
    rig.controller.stop_proxy_transport("transport000", sessions="close")
    rig.transport.on_listen(LISTEN_CLOSED, 0)
    commands = rig.did()
    assert ("undial", FRONT) in commands
    assert [call[2][2] for call in commands if call[0] == "send"] == ["wamp.close.system_shutdown"]


def test_an_answer_that_the_routers_serializer_cannot_express():
    rig, token = asked(serializer=SER_CBOR, router={"serializers": ["json"]})
    rig.says([5, "\0text", {}])
    (_, _, to_back), _, (_, conn, (code, _, reason)), _ = rig.did()
    assert (to_back[0], conn, code, reason) == (3, FRONT, 3, FAILED)
    assert token in rig.plane.owners


@pytest.mark.parametrize(
    ("reason", "is_failure"),
    [
        ("wamp.error.not_authorized", True),  # as Crossbar.io has it
        ("wamp.error.authentication_failed", True),
        ("com.example.error.no", True),
        ("wamp.error.no_such_realm", False),
        ("wamp.close.system_shutdown", False),
    ],
)
def test_what_routers_refuse_counts_as_failures(reason, is_failure):
    """Whoever guesses is stopped here, too, though the router decides."""
    rig, token = asked(max_failures_per_address=1)
    rig.says(ANSWER)
    rig.plane.take()
    rig.answers(token, [3, {}, reason])
    rig.plane.take()
    rig.open(FRONT + 1)
    rig.says(HELLO, conn=FRONT + 1)
    names = [call[0] for call in rig.plane.take()]
    assert ("dial" not in names) is is_failure


@pytest.mark.parametrize("answer", [WELCOME, [3, {}, FAILED]], ids=["right", "wrong"])
def test_guesses_that_a_router_looks_at_together_tell_no_more_than_one_after_the_other(answer):
    rig, token = asked(max_failures_per_address=1)
    rig.open(FRONT + 1)
    rig.says(HELLO, conn=FRONT + 1)
    other, _ = rig.dialled()
    rig.answers(other, CHALLENGE)
    rig.says(ANSWER)
    rig.says(ANSWER, conn=FRONT + 1)
    rig.answers(token, [3, {}, FAILED])
    rig.plane.take()
    rig.answers(other, answer)
    sent = [call[2] for call in rig.did() if call[:2] == ("send", FRONT + 1)]
    assert [(code, reason) for code, _, reason in sent] == [(3, "wamp.error.authentication_denied")]
    assert rig.transport.sessions[FRONT + 1].state.name == "CLOSING"


def test_a_lost_router_is_nobodys_failure():
    rig, token = asked(max_failures_per_address=1)
    rig.back(token, EV_CLOSED, CLOSED_PEER)
    rig.plane.take()
    rig.open(FRONT + 1)
    rig.says(HELLO, conn=FRONT + 1)
    assert "dial" in [call[0] for call in rig.plane.take()]


# --- who relays, and who does not ---


@pytest.mark.parametrize("auth", [{"anonymous": {}}, {"anonymous-proxy": {}}])
def test_a_router_that_believes_the_proxy_gets_no_relayed_login(auth):
    rig = Rig(auth={"passthrough": {"role": "anonymous"}}, backend={"auth": auth})
    rig.open()
    rig.says(HELLO)
    reason, message = abort_of(rig)
    assert reason == "wamp.error.network_failure"
    assert "relays logins" in message


def test_a_router_that_decides_itself_gets_no_client_of_ours():
    auth = {"anonymous": {"type": "static", "role": "anonymous"}, "passthrough": {"role": "anonymous"}}
    rig = Rig(auth=auth, backend={"auth": {"passthrough": {}}})
    rig.open()
    rig.says([1, "realm1", {"roles": ROLES, "authmethods": ["anonymous"]}])
    assert abort_of(rig)[0] == "wamp.error.network_failure"


def test_a_role_without_route():
    rig = Rig(auth={"passthrough": {"role": "nowhere"}}, backend={"auth": {"passthrough": {}}})
    rig.open()
    rig.says(HELLO)
    assert abort_of(rig)[0] == "wamp.error.no_such_role"


# --- what check says ---

SOCKET = {"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/router.sock"}}
DECIDING = {"transport": SOCKET, "auth": {"passthrough": {}}}
PLACE = "transports[0].auth.passthrough"
RULE = {"authmethods": ["scram"], "role": "passthrough"}
BELIEVING = {"transport": SOCKET, "auth": {"anonymous-proxy": {}}}


def findings_of(tmp_path, *, passthrough, connections, routes, **methods):
    listening = {"type": "tcp", "port": 8080}
    transport = {"type": "rawsocket", "endpoint": listening, "auth": {"passthrough": passthrough, **methods}}
    item = {"type": "proxy", "connections": connections, "routes": routes, "transports": [transport]}
    path = tmp_path / "proxy.json"
    WorkerConfig.model_validate(item)
    path.write_text(json.dumps(item))
    return [str(finding) for finding in check(path)]


def test_check_has_nothing_to_say_of_what_fits(tmp_path):
    found = findings_of(
        tmp_path,
        passthrough={"role": "ask", "rules": [{"realm": "com.*", "role": "others", "authmethods": ["ticket"]}]},
        connections={"deciding": DECIDING, "believing": BELIEVING},
        routes={"com.x": {"ask": "deciding", "others": ["deciding", "believing"], "guest": "believing"}},
    )
    assert found == []


def test_check_misses_a_route(tmp_path):
    found = findings_of(
        tmp_path,
        passthrough={"rules": [{"realm": "com.*", "role": "others"}]},
        connections={"deciding": DECIDING},
        routes={"org.x": {"others": "deciding"}},
    )
    assert [finding.partition(": such")[0] for finding in found] == [
        f'warning: {PLACE}.role: "passthrough": no route for this role in any realm',
        f'warning: {PLACE}.rules[0].role: "others": no route for this role in a realm like "com.*"',
    ]


def test_check_finds_routes_to_the_wrong_connections(tmp_path):
    found = findings_of(
        tmp_path,
        passthrough={"role": "ask"},
        connections={"deciding": DECIDING, "believing": BELIEVING},
        routes={"com.x": {"ask": "believing", "guest": ["believing", "deciding"]}},
    )
    wrong, unused = found
    assert wrong.startswith(f'warning: {PLACE}.role: "ask": the route for it in realm "com.x" leads to no connection')
    assert unused.startswith('warning: routes["com.x"].guest: "deciding": is never used: it takes relayed logins only')


def test_check_finds_methods_without_effect(tmp_path):
    found = findings_of(
        tmp_path,
        passthrough={"authmethods": ["ticket", "anonymous"], "rules": [RULE]},
        connections={"deciding": DECIDING},
        routes={"com.x": {"passthrough": "deciding"}},
        anonymous={"type": "static"},
    )
    rule, local = found
    assert rule.startswith(f"warning: {PLACE}.rules[0].authmethods: [..]: has no effect: only ticket, anonymous can be")
    assert local.startswith(f'warning: {PLACE}.authmethods[1]: "anonymous": has no effect: the transport decides')


def test_a_method_that_no_client_may_use_is_an_error(tmp_path):
    path = tmp_path / "proxy.yaml"
    path.write_text(
        "{type: proxy, transports: [{type: rawsocket, endpoint: {type: tcp, port: 1},"
        " auth: {passthrough: {authmethods: [anonymous-proxy]}}}]}"
    )
    with pytest.raises(ConfigError, match=r"authmethods\[0\].*expected another authmethod"):
        load(path)
