"""Which serializer a router is joined with, and what becomes of messages that go between two of them."""

import json
import logging

import pytest

from proxy.config import check
from proxy.connections import PAUSE_FIRST, PAUSE_JITTER, PAUSE_LIMIT
from proxy.messages import (
    SER_CBOR,
    SER_FLATBUFFERS,
    SER_JSON,
    SER_MSGPACK,
    SER_UBJSON,
    SERIALIZERS,
    decode,
)
from proxy.plane import CLOSED_PEER, EV_CLOSED, EV_CONTROL, EV_HEAD
from support.planes import (
    FRONT,
    HANDSHAKE_DROPPED,
    HELLO,
    REFUSED,
    SERIALIZER_REFUSED,
    WELCOME_DETAILS,
    Rig,
    abort_of,
    back_conn,
    connection_of,
    upgrade_response,
)

CLIENTS = [SER_JSON, SER_MSGPACK, SER_CBOR]


@pytest.mark.parametrize(
    ("serializer", "router", "order"),
    [
        # nothing is known of the router: the client's own, then whatever can be translated
        (SER_CBOR, {}, (SER_CBOR, SER_JSON, SER_MSGPACK)),
        (SER_JSON, {}, (SER_JSON, SER_CBOR, SER_MSGPACK)),
        (SER_MSGPACK, {}, (SER_MSGPACK, SER_CBOR, SER_JSON)),
        # a preferred fallback
        (SER_JSON, {"serializer": "msgpack"}, (SER_JSON, SER_MSGPACK, SER_CBOR)),
        (SER_MSGPACK, {"serializer": "msgpack"}, (SER_MSGPACK, SER_CBOR, SER_JSON)),
        # a list of all that the router takes
        (SER_JSON, {"serializers": ["cbor"]}, (SER_CBOR,)),
        (SER_CBOR, {"serializers": ["cbor"]}, (SER_CBOR,)),
        (SER_CBOR, {"serializers": ["json", "msgpack"]}, (SER_JSON, SER_MSGPACK)),
        (SER_MSGPACK, {"serializers": ["json", "msgpack"]}, (SER_MSGPACK, SER_JSON)),
        (SER_CBOR, {"serializers": ["json", "msgpack"], "serializer": "msgpack"}, (SER_MSGPACK, SER_JSON)),
        (SER_JSON, {"serializers": ["cbor"], "serializer": "msgpack"}, (SER_CBOR,)),
        # what cannot be translated is relayed or refused
        (SER_UBJSON, {}, (SER_UBJSON,)),
        (SER_UBJSON, {"serializers": ["cbor", "json"]}, ()),
    ],
)
def test_order(serializer, router, order):
    assert Rig(router=router).controller.connections["one"].ways(serializer) == order


def login(rig, conn=FRONT):
    """A client says HELLO; token and serializer of what is dialled."""
    rig.open(conn)
    rig.says(HELLO, conn=conn)
    token, hello = rig.dialled()
    assert hello[:2] == HELLO[:2]
    return token, rig.plane.spoken[token]


@pytest.mark.parametrize("serializer", CLIENTS)
@pytest.mark.parametrize("name", ["json", "msgpack", "cbor"])
def test_a_router_that_takes_one_serializer_works_for_clients_of_all(name, serializer):
    rig = Rig(serializer=serializer, router={"serializers": [name]})
    token, spoken = login(rig)
    assert spoken == {"json": SER_JSON, "msgpack": SER_MSGPACK, "cbor": SER_CBOR}[name]
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    ((command, conn, back, welcome),) = rig.did()
    assert (command, conn, back) == ("link", FRONT, back_conn(token))
    code, session, details = decode(serializer, welcome)
    assert (code, session, details["roles"]) == (2, 4242, WELCOME_DETAILS["roles"])


@pytest.mark.parametrize("why", [HANDSHAKE_DROPPED, SERIALIZER_REFUSED])
def test_a_refused_serializer_is_replaced_on_the_same_connection(why):
    rig = Rig(2)
    token, spoken = login(rig)
    assert (connection_of(rig, token), spoken) == ("one", SER_CBOR)
    rig.back(token, EV_CLOSED, why)
    token, hello = rig.dialled()
    assert (connection_of(rig, token), rig.plane.spoken[token]) == ("one", SER_JSON)
    assert hello[2]["authextra"]["proxy_authextra"]["transport"]["channel_serializer"] == "cbor"
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    assert rig.state == "ESTABLISHED"


def test_a_refusal_is_remembered_and_costs_the_next_logins_nothing():
    rig = Rig()
    token, _ = login(rig)
    rig.back(token, EV_CLOSED, SERIALIZER_REFUSED)
    token, _ = rig.dialled()
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    for number in range(1, 6):
        token, spoken = login(rig, FRONT + number)
        assert spoken == SER_JSON
        rig.answers(token, [2, 4242 + number, WELCOME_DETAILS])
    rig.clock.advance(PAUSE_FIRST * (1 + PAUSE_JITTER))
    assert login(rig, FRONT + 9)[1] == SER_CBOR, "it is tried again after a while"


def test_success_in_another_serializer_does_not_end_the_pause():
    rig = Rig()
    connection = rig.controller.connections["one"]
    for pause in (PAUSE_FIRST, 2 * PAUSE_FIRST, 4 * PAUSE_FIRST):
        connection.mark_down(SER_CBOR)
        connection.mark_up(SER_JSON)
        rig.clock.advance(pause * (1 - PAUSE_JITTER) - 0.01)
        assert connection.open_ways(SER_CBOR) == (SER_JSON, SER_MSGPACK), "the pauses grow all the same"
        rig.clock.advance(pause * 2 * PAUSE_JITTER + 0.02)
        assert connection.open_ways(SER_CBOR) == (SER_CBOR, SER_JSON, SER_MSGPACK)


def test_a_connection_with_a_paused_serializer_keeps_its_turn():
    rig = Rig(2)
    rig.controller.connections["one"].mark_down(SER_CBOR)
    rig.controller.connections["two"].mark_down(SER_JSON)
    chosen = [login(rig, FRONT + number) for number in range(4)]
    assert [(connection_of(rig, token), spoken) for token, spoken in chosen] == [
        ("one", SER_JSON),
        ("two", SER_CBOR),
    ] * 2


def test_one_that_refuses_all_serializers_is_left_alone():
    rig = Rig(2)
    for serializer in CLIENTS:
        rig.controller.connections["one"].mark_down(serializer)
    assert [connection_of(rig, login(rig, FRONT + number)[0]) for number in range(3)] == ["two"] * 3


def test_a_refusal_is_logged_once(caplog):
    caplog.set_level(logging.WARNING)
    rig = Rig()
    for number in range(4):
        token, spoken = login(rig, FRONT + number)
        assert spoken == SER_CBOR
        rig.back(token, EV_CLOSED, SERIALIZER_REFUSED)
        rig.answers(rig.dialled()[0], [2, 4242 + number, WELCOME_DETAILS])
        rig.clock.advance(PAUSE_LIMIT * 2)
    assert caplog.messages == ["connection one does not take the client's serializer cbor"]


def test_the_next_serializer_is_tried_where_the_last_one_was_refused(monkeypatch):
    rig = Rig()
    connection = rig.controller.connections["one"]
    first, second = b"\1\0first", b"\1\0second"
    monkeypatch.setattr(connection, "_fixed", [first, second])
    rig.open()
    rig.says(HELLO)
    tried = []
    for why in (REFUSED, SERIALIZER_REFUSED, CLOSED_PEER):
        (dial,) = [call for call in rig.plane.take() if call[0] == "dial"]
        tried.append((dial[5], dial[4]))
        rig.back(dial[2], EV_CLOSED, why)
    assert tried == [(first, SER_CBOR), (second, SER_CBOR), (second, SER_JSON)]


def test_a_websocket_router_that_chooses_no_subprotocol_is_asked_for_the_next():
    rig = Rig(websocket=True)
    rig.open()
    rig.says(HELLO)
    (dial,) = rig.plane.take()
    assert b"wamp.2.cbor\r\n" in dial[6]
    response = upgrade_response(dial[6], "x").replace(b"Sec-WebSocket-Protocol: x\r\n", b"")
    rig.back(dial[2], EV_HEAD, 0, response)
    abort, dial = rig.plane.take()
    assert abort == ("abort", back_conn(dial[2] - 1))
    assert b"wamp.2.json\r\n" in dial[6]
    rig.back(dial[2], EV_HEAD, 0, upgrade_response(dial[6], "wamp.2.json"))
    assert rig.did() == [("upgrade", back_conn(dial[2]), b"", SER_JSON)]
    rig.answers(dial[2], [2, 4242, WELCOME_DETAILS])
    assert rig.state == "ESTABLISHED"


def test_a_hello_that_a_serializer_cannot_express_goes_to_one_that_can():
    rig = Rig(2, serializer=SER_CBOR, router={"serializers": ["json", "msgpack"]})
    rig.open()
    rig.says([1, "realm1", {**HELLO[2], "x_number": float("nan")}])
    token, (_, _, details) = rig.dialled()
    assert (connection_of(rig, token), rig.plane.spoken[token]) == ("one", SER_MSGPACK)
    assert details["x_number"] != details["x_number"]
    assert rig.controller.connections["one"].failures == 0, "the router refused nothing"


def test_a_hello_that_no_router_can_be_told_is_refused():
    rig = Rig(2, serializer=SER_CBOR, router={"serializers": ["json"]})
    rig.open()
    rig.says([1, "realm1", {**HELLO[2], "x_number": float("nan")}])
    reason, text = abort_of(rig)
    assert reason == "wamp.error.network_failure"
    assert 'connection "two" cannot be told HELLO: the message cannot be expressed in json' in text


def test_binary_in_hello_follows_the_conventions_of_both():
    rig = Rig(serializer=SER_JSON, router={"serializers": ["cbor"]})
    rig.open()
    rig.says([1, "realm1", {**HELLO[2], "x_octets": b"\0\xff"}])
    _, (_, _, details) = rig.dialled()
    assert details["x_octets"] == b"\0\xff"


def test_the_check_of_a_configuration_has_nothing_to_say_about_it(tmp_path):
    router = {"type": "websocket", "url": "ws://router:8080/", "serializers": ["cbor", "json"], "serializer": "json"}
    connection = {"transport": router, "auth": {"anonymous": {}}, "limits": {"max_message_out": 1000}}
    listen = {"type": "websocket", "endpoint": {"type": "tcp", "port": 0}, "session_ids": "proxy"}
    worker = {
        "type": "proxy",
        "connections": {"one": connection},
        "routes": {"realm1": {"anonymous": "one"}},
        "transports": [{**listen, "limits": {"max_message_out": 512}}],
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(worker))
    assert check(path) == []


def test_limits_reach_the_data_plane():
    rig = Rig(max_message_out=600)
    rig.controller.start_proxy_connection(
        "more",
        {"transport": {"url": "ws://router:1/"}, "auth": {"anonymous": {}}, "limits": {"max_message_out": 700}},
    )
    to_routers = [params["max_out"] for params in rig.plane.params if params.get("client")]
    to_clients = [params["max_out"] for params in rig.plane.params if not params.get("client")]
    assert (to_clients, to_routers) == ([600], [0, 700])


# --- messages between two serializers ---


@pytest.fixture
def rig():
    """A JSON client whose router takes CBOR only."""
    return Rig(serializer=SER_JSON, router={"serializers": ["cbor"]})


def nan_message(code, reason):
    return [code, {"x": float("nan")}, reason]


def test_a_welcome_that_the_client_cannot_take(rig):
    token, _ = login(rig)
    rig.answers(token, [2, 4242, {**WELCOME_DETAILS, "x": float("nan")}])
    to_router, close_router, to_client, close_client = rig.did()
    assert to_router == ("send", back_conn(token), [6, {}, "wamp.error.invalid_payload"])
    assert close_router == ("close", back_conn(token))
    assert to_client[2][2] == "wamp.error.invalid_payload"
    assert "WELCOME" in to_client[2][1]["message"]
    assert close_client == ("close", FRONT, 1000)
    assert len(rig.controller.session_ids) == 0


def test_the_routers_abort(rig):
    token, _ = login(rig)
    abort = [3, {"message": "no"}, "com.router.no", [b"\1"], {"k": 2}]
    rig.answers(token, abort)
    assert rig.did() == [("close", back_conn(token)), ("send", FRONT, abort), ("close", FRONT, 1000)]


def test_the_routers_abort_that_the_client_cannot_take_keeps_its_reason(rig):
    token, _ = login(rig)
    rig.answers(token, nan_message(3, "com.router.no"))
    _, (_, _, (code, details, reason)), _ = rig.did()
    assert (code, reason) == (3, "com.router.no")
    assert "left out" in details["message"]


def test_goodbye_and_its_answer(rig):
    token = rig.join()
    rig.says([6, {"message": "so long", "x": b"\1"}, "com.my.reason"], EV_CONTROL)
    assert rig.did() == [("send", back_conn(token), [6, {"message": "so long", "x": b"\1"}, "com.my.reason"])]
    rig.answers(token, [6, {"x": b"\2"}, "wamp.close.goodbye_and_out"], EV_CONTROL)
    assert ("send", FRONT, [6, {"x": b"\2"}, "wamp.close.goodbye_and_out"]) in rig.did()
    assert rig.state == "OPEN"


@pytest.mark.parametrize("answer", [nan_message(6, "com.router.bye"), [6, {}]])
def test_an_answer_to_goodbye_that_the_client_cannot_take(rig, answer):
    token = rig.join()
    rig.says([6, {}, "wamp.close.normal"], EV_CONTROL)
    rig.did()
    rig.answers(token, answer, EV_CONTROL)
    ((_, _, (code, _, reason)),) = [call for call in rig.did() if call[:2] == ("send", FRONT)]
    assert (code, reason) == (6, answer[2] if len(answer) > 2 else "wamp.close.goodbye_and_out")
    assert rig.state == "OPEN"


def test_a_goodbye_that_the_router_cannot_take_keeps_its_reason():
    rig = Rig(serializer=SER_CBOR, router={"serializers": ["json"]})
    token = rig.join()
    rig.says(nan_message(6, "com.my.reason"), EV_CONTROL)
    ((_, conn, (code, _, reason)),) = rig.did()
    assert (conn, code, reason) == (back_conn(token), 6, "com.my.reason")
    assert rig.state == "LEAVING"


@pytest.mark.parametrize("message", [[6, {"by": b"\7"}, "wamp.close.killed"], nan_message(6, "wamp.close.killed")])
def test_the_routers_goodbye(rig, message):
    token = rig.join()
    rig.answers(token, message, EV_CONTROL)
    _, (_, conn, (code, details, reason)), (_, back, answer), *_ = rig.did()
    assert (conn, code, reason) == (FRONT, 6, "wamp.close.killed")
    assert details == message[1] or "left out" in details["message"]
    assert (back, answer) == (back_conn(token), [6, {}, "wamp.close.goodbye_and_out"])


def test_what_the_proxy_itself_says_is_in_the_serializer_of_each_side(rig):
    token = rig.join()
    rig.controller.shut_down(5)
    shutdown = [6, {}, "wamp.close.system_shutdown"]
    assert [call for call in rig.did() if call[0] == "send"] == [
        ("send", FRONT, shutdown),
        ("send", back_conn(token), shutdown),
    ]


def test_a_router_that_wants_the_proxy_to_authenticate_is_told_in_its_serializer(rig):
    token, _ = login(rig)
    rig.answers(token, [4, "ticket", {}])
    assert rig.did()[0] == ("send", back_conn(token), [3, {}, "wamp.error.cannot_authenticate"])


# --- what is not translated ---


@pytest.mark.parametrize("serializer", [SER_UBJSON, SER_FLATBUFFERS])
def test_a_router_that_takes_the_same_is_joined(serializer):
    rig = Rig(serializer=serializer, anonymous=True)
    token, spoken = login(rig)
    assert spoken == serializer
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    assert rig.state == "ESTABLISHED"


def test_flatbuffers_cannot_say_who_the_client_is():
    rig = Rig(serializer=SER_FLATBUFFERS)
    rig.open()
    rig.says(HELLO)
    _, text = abort_of(rig)
    assert 'connection "one" cannot be told HELLO' in text


@pytest.mark.parametrize("name", ["ubjson", "flatbuffers"])
def test_connections_that_do_not_take_it_are_not_dialled(name):
    rig = Rig(2, serializer=SERIALIZERS[name], router={"serializers": ["cbor", "json"]})
    rig.open()
    rig.says(HELLO)
    reason, text = abort_of(rig)
    assert reason == "wamp.error.network_failure"
    assert f'no router for realm "realm1" and role "anonymous" takes the client\'s serializer {name}' in text
    assert 'connection "one"' in text
    assert 'connection "two"' in text


def test_a_router_that_refuses_it_is_not_asked_for_another_serializer():
    rig = Rig(2, serializer=SER_UBJSON)
    token, spoken = login(rig)
    tried = [(connection_of(rig, token), spoken)]
    rig.back(token, EV_CLOSED, SERIALIZER_REFUSED)
    token, _ = rig.dialled()
    tried.append((connection_of(rig, token), rig.plane.spoken[token]))
    rig.back(token, EV_CLOSED, SERIALIZER_REFUSED)
    assert tried == [("one", SER_UBJSON), ("two", SER_UBJSON)]
    _, text = abort_of(rig)
    assert "takes the client's serializer ubjson" in text
