"""Which router is tried next, and how long one that failed is left alone."""

import pytest

from proxy.connections import PAUSE_FIRST, PAUSE_JITTER, PAUSE_LIMIT
from proxy.messages import SER_CBOR
from proxy.plane import CLOSED_DEADLINE, CLOSED_PEER, CLOSED_REFUSED, EV_CLOSED, EV_HEAD
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

EMFILE = 24

def login(rig, conn=FRONT):
    """A client says HELLO; the token of what is dialled."""
    rig.open(conn)
    rig.says(HELLO, conn=conn)
    return rig.dialled()[0]


def test_the_next_one_is_tried_at_once():
    rig = Rig(3)
    tried = []
    token = login(rig)
    for _ in range(2):
        tried.append(connection_of(rig, token))
        rig.back(token, EV_CLOSED, REFUSED)
        token, _ = rig.dialled()
    tried.append(connection_of(rig, token))
    assert tried == ["one", "two", "three"]
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    assert rig.state == "ESTABLISHED"


def test_the_client_is_told_what_was_tried_and_no_address():
    rig = Rig(2)
    token = login(rig)
    rig.back(token, EV_CLOSED, REFUSED)
    token, _ = rig.dialled()
    rig.back(token, EV_CLOSED, CLOSED_DEADLINE)
    reason, text = abort_of(rig)
    assert reason == "wamp.error.network_failure"
    assert 'connection "one" cannot be reached' in text
    assert 'connection "two" did not answer in time' in text
    assert "/run/router.sock" not in text
    assert rig.state == "CLOSING"


def test_one_that_failed_is_left_alone_for_a_while():
    rig = Rig(2)
    token = login(rig)
    rig.back(token, EV_CLOSED, REFUSED)
    rig.dialled()
    chosen = [connection_of(rig, login(rig, FRONT + number)) for number in range(1, 5)]
    assert chosen == ["two"] * 4
    rig.clock.advance(PAUSE_FIRST * (1 + PAUSE_JITTER))
    chosen = [connection_of(rig, login(rig, FRONT + number)) for number in range(5, 9)]
    assert sorted(chosen) == ["one", "one", "two", "two"]


def test_when_all_failed_they_are_tried_all_the_same():
    rig = Rig(2)
    token = login(rig)
    rig.back(token, EV_CLOSED, REFUSED)
    rig.back(rig.dialled()[0], EV_CLOSED, REFUSED)
    rig.did()
    token = login(rig, FRONT + 1)
    rig.back(token, EV_CLOSED, REFUSED)
    rig.answers(rig.dialled()[0], [2, 4242, WELCOME_DETAILS])
    assert rig.transport.sessions[FRONT + 1].state.name == "ESTABLISHED"


def test_the_pause_grows_to_its_limit_and_success_ends_it():
    rig = Rig()
    connection = rig.controller.connections["one"]
    pauses = []
    for _ in range(9):
        connection.mark_down()
        start = rig.clock.seconds()
        while connection.is_down(SER_CBOR):
            rig.clock.advance(0.01)
        pauses.append(rig.clock.seconds() - start)
    wanted = [min(PAUSE_LIMIT, PAUSE_FIRST * 2**step) for step in range(9)]
    assert pauses == [pytest.approx(pause, rel=PAUSE_JITTER + 0.03) for pause in wanted]
    connection.mark_down()
    connection.mark_up(SER_CBOR)
    assert not connection.is_down(SER_CBOR)
    connection.mark_down()
    rig.clock.advance(PAUSE_FIRST * (1 + PAUSE_JITTER))
    assert not connection.is_down(SER_CBOR)


def test_logins_that_fail_together_count_once():
    rig = Rig()
    connection = rig.controller.connections["one"]
    for _ in range(100):
        connection.mark_down()
    assert connection.failures == 100
    rig.clock.advance(PAUSE_FIRST * (1 + PAUSE_JITTER))
    assert not connection.is_down(SER_CBOR)


@pytest.mark.parametrize("why", [HANDSHAKE_DROPPED, SERIALIZER_REFUSED])
def test_the_abort_names_serializers_and_connection(why):
    rig = Rig()
    rig.back(login(rig), EV_CLOSED, why)
    for _ in range(2):
        rig.back(rig.dialled()[0], EV_CLOSED, why)
    reason, text = abort_of(rig)
    assert reason == "wamp.error.network_failure"
    assert 'takes the client\'s serializer cbor: connection "one"' in text
    for name in ("serializer json", "serializer msgpack"):
        assert name in text


def test_a_router_that_ends_after_hello_is_not_left_alone():
    # What ended it may be this one client's HELLO.
    rig = Rig(2)
    token = login(rig)
    rig.back(token, EV_CLOSED, CLOSED_PEER, b"because")
    assert connection_of(rig, rig.dialled()[0]) == "two"
    assert not rig.controller.connections["one"].is_down(SER_CBOR)


def test_our_own_lack_of_descriptors_is_not_the_routers_fault():
    rig = Rig()
    rig.back(login(rig), EV_CLOSED, CLOSED_REFUSED | EMFILE << 8)
    _, text = abort_of(rig)
    assert "the proxy is out of file descriptors" in text
    assert not rig.controller.connections["one"].is_down(SER_CBOR)


def test_a_welcome_that_is_none_is_answered_and_the_next_one_tried():
    rig = Rig(2)
    token = login(rig)
    rig.answers(token, [2, "x", {}])
    abort, close, dial = rig.plane.take()
    assert (abort[0], close, dial[0]) == ("send", ("close", back_conn(token)), "dial")
    rig.back(token, EV_CLOSED, CLOSED_PEER)
    rig.answers(dial[2], [2, 4242, WELCOME_DETAILS])
    assert rig.state == "ESTABLISHED"


def test_a_stopped_connection_is_not_tried():
    rig = Rig(2)
    rig.controller.stop_proxy_connection("one", force=True)
    assert [connection_of(rig, login(rig, FRONT + number)) for number in range(3)] == ["two"] * 3
    rig.controller.stop_proxy_connection("two", force=True)
    rig.open(FRONT + 9)
    rig.says(HELLO, conn=FRONT + 9)
    (_, _, (code, details, reason)), _ = rig.did()
    assert (code, reason) == (3, "wamp.error.network_failure")
    assert "none of the route's connections is started" in details["message"]


def websocket_login(rig):
    """A client says HELLO; token and upgrade request of what is dialled."""
    rig.open()
    rig.says(HELLO)
    (dial,) = rig.plane.take()
    return dial[2], dial[6]


def test_a_websocket_router_is_asked_for_the_clients_serializer():
    rig = Rig(websocket=True)
    token, request = websocket_login(rig)
    assert request.startswith(b"GET /ws HTTP/1.1\r\n")
    assert b"router:8080" in request
    assert b"wamp.2.cbor\r\n" in request
    rig.back(token, EV_HEAD, 0, upgrade_response(request, "wamp.2.cbor"))
    assert rig.did() == [("upgrade", back_conn(token), b"", SER_CBOR)]
    rig.answers(token, [2, 4242, WELCOME_DETAILS])
    assert rig.state == "ESTABLISHED"


@pytest.mark.parametrize("bad", ["subprotocol", "status", "key"])
def test_a_websocket_router_that_does_not_upgrade_is_skipped(bad):
    rig = Rig(2, websocket=True, router={"serializers": ["cbor"]})
    token, request = websocket_login(rig)
    response = upgrade_response(request, "wamp.2.json" if bad == "subprotocol" else "wamp.2.cbor")
    if bad == "status":
        response = b"\0HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    elif bad == "key":
        response = response.replace(b"Accept: ", b"Accept: x")
    rig.back(token, EV_HEAD, 0, response)
    abort, dial = rig.plane.take()
    assert abort == ("abort", back_conn(token))
    assert connection_of(rig, dial[2]) == "two"
    rig.back(token, EV_CLOSED, 2)
    rig.back(dial[2], EV_CLOSED, REFUSED)
    reason, text = abort_of(rig)
    assert reason == "wamp.error.network_failure"
    assert 'connection "one" refused the WebSocket handshake for subprotocol wamp.2.cbor' in text


def test_a_rawsocket_router_is_never_pinged():
    rig = Rig()
    (to_router,) = [params for params in rig.plane.params if params.get("client")]
    assert not to_router.get("ping_interval_ms")
