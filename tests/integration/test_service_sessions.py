"""Sessions of the proxy's own: made when asked for, shared, closed with their route, made anew when lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.controllers import ROLE, Refused, ServiceWorker
from support.endpoints import Endpoint, free_port
from support.process import wait_until
from support.raw import ABORT, CALL, CHALLENGE, GOODBYE, RESULT, PeerClosed, WebSocketPeer, joined
from support.routers import REALM, CrossbarRouter, XconnRouter
from support.stub import RefusedSerializer, StubRouter

OWN_ID = "proxy-node7-worker001"
ANONYMOUS = {"anonymous": {"type": "static"}}
UNAVAILABLE = "wamp.error.unavailable"
NO_SUCH_OBJECT = "crossbar.error.no_such_object"


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., ServiceWorker]]:
    workers: list[ServiceWorker] = []

    def make(**keywords: Any) -> ServiceWorker:
        workers.append(ServiceWorker(tmp_path, **keywords))
        return workers[-1]

    yield make
    for worker in workers:
        if worker.child.process.poll() is None:
            worker.stop()


@pytest.fixture
def worker(make_worker: Callable[..., ServiceWorker]) -> ServiceWorker:
    return make_worker()


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))


def item(endpoint: Endpoint, **keys: Any) -> dict[str, Any]:
    """A connection item for a stub."""
    return {"transport": endpoint.as_backend(), "auth": ANONYMOUS, **keys}


# --- real routers ---


def test_crossbar_knows_it_by_its_authid(worker: ServiceWorker, crossbar: CrossbarRouter) -> None:
    worker("start_proxy_connection", "cnc1", crossbar.backends["crossbar"])
    worker.route("cnc1", role="anonymous")
    session = worker.get("anonymous")
    assert session["authid"] == OWN_ID
    assert session["authrole"] == "anonymous"
    with joined(crossbar.direct["rs-unix"]) as peer:
        peer.subscribe("wamp.session.on_leave")
        shown = peer.call("wamp.session.get", session["session"])
        assert shown["authid"] == OWN_ID
        assert shown["authextra"]["x_cb_proxy_worker"] == "worker001"
        assert worker("call", REALM, "anonymous", "wamp.session.get", session["session"])["authid"] == OWN_ID
        assert worker.get("anonymous") == session, "the same for all"
        worker.stop()
        assert session["session"] in peer.recv_type(36)[4], "it has left with the worker"
        peer.leave()


@pytest.mark.parametrize("name", ["crossbar_rs", "crossbar_ws"])
def test_crossbar_over_tcp(worker: ServiceWorker, crossbar: CrossbarRouter, name: str) -> None:
    worker("start_proxy_connection", "cnc1", crossbar.backends[name])
    worker.route("cnc1")
    assert worker("call", REALM, ROLE, "wamp.session.count") >= 1
    assert worker.get()["authrole"] == "anonymous", "the router decides"


@pytest.mark.parametrize("name", ["xconn", "xconn_rs", "xconn_ws", "xconn_ws_unix"])
def test_xconn(worker: ServiceWorker, xconn: XconnRouter, name: str) -> None:
    worker("start_proxy_connection", "cnc1", xconn.backends[name])
    worker.route("cnc1")
    session = worker.get()
    with joined(xconn.direct["rs-unix"]) as peer:
        peer.register("com.example.add")
        number = worker.start("call", REALM, ROLE, "com.example.add", 2, 3)
        invocation = peer.recv_type(68)
        peer.send([70, invocation[1], {}, [sum(invocation[4])]])
        assert worker.answer(number) == 5
        peer.leave()
    assert worker.get() == session


def test_a_killed_session_is_made_anew(worker: ServiceWorker, crossbar: CrossbarRouter) -> None:
    worker("start_proxy_connection", "cnc1", crossbar.backends["crossbar"])
    worker.route("cnc1", role="anonymous")
    before = worker.get("anonymous")
    with joined(crossbar.direct["rs-unix"]) as peer:
        peer.call("wamp.session.kill", before["session"], reason="com.example.out", message="go")
        peer.leave()
    # The router's GOODBYE may still be under way.
    wait_until(lambda: worker.get("anonymous")["session"] != before["session"], "there is another session")
    assert worker.get("anonymous")["authid"] == OWN_ID


# --- routes and connections come and go ---


def test_what_there_is_no_route_for_is_asked_for_again_later(worker: ServiceWorker, endpoint: Endpoint) -> None:
    assert "realm1" in worker.fails(NO_SUCH_OBJECT, "get_service_session", REALM, ROLE)
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker.route("cnc1", role="other")
        assert "backend" in worker.fails(NO_SUCH_OBJECT, "get_service_session", REALM, ROLE)
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        router.accept_session(4242)
        assert worker.answer(number)["session"] == 4242


def test_many_ask_and_one_session_is_made(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker.route("cnc1")
        numbers = [worker.start("get_service_session", REALM, ROLE) for _ in range(5)]
        peer, hello = router.accept_session(4242)
        assert [worker.answer(number)["session"] for number in numbers] == [4242] * 5
        assert worker.get()["session"] == 4242
        assert hello[1] == REALM
        assert hello[2]["authmethods"] == ["anonymous"]
        extra = hello[2]["authextra"]
        assert extra["pubkey"] == "ab" * 32
        told = {"realm": REALM, "authid": OWN_ID, "authrole": ROLE, "authmethod": "proxy", "authprovider": "proxy"}
        assert {name: extra[f"proxy_{name}"] for name in told} == told
        router.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            router.sock.accept()
        peer.close()


@pytest.mark.parametrize("what", ["route", "connection"])
def test_it_goes_with_its_route_and_with_its_connection(worker: ServiceWorker, endpoint: Endpoint, what: str) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        route = worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_session(4242)
        worker.answer(number)
        worker("stop_proxy_realm_route", REALM, route)
        if what == "connection":  # by another route that names another connection, too
            worker.fails(NO_SUCH_OBJECT, "get_service_session", REALM, ROLE)
            worker("stop_proxy_connection", "cnc1")
        assert peer.recv_type(GOODBYE)[2] == "wamp.close.normal"
        peer.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        peer.recv_end()
        worker.fails(NO_SUCH_OBJECT, "get_service_session", REALM, ROLE)


def test_another_connection_takes_over_from_one_that_is_stopped(
    worker: ServiceWorker, endpoint: Endpoint, tmp_path: Path
) -> None:
    other = Endpoint("rawsocket", path=str(tmp_path / "other.sock"))
    with StubRouter(endpoint) as first, StubRouter(other) as second:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker("start_proxy_connection", "cnc2", item(other))
        worker.route("cnc1", "cnc2")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = first.accept_session(1)
        worker.answer(number)
        worker("stop_proxy_connection", "cnc1", force=True)
        number = worker.start("get_service_session", REALM, ROLE)
        second.accept_session(2)
        assert worker.answer(number)["session"] == 2
        assert peer.recv_type(GOODBYE)[2] == "wamp.close.normal"


def test_a_route_that_is_stopped_while_somebody_waits(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        route = worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_hello()
        worker("stop_proxy_realm_route", REALM, route)
        with pytest.raises(Refused, match="no route"):
            worker.answer(number)
        peer.recv_end()


def test_the_worker_says_goodbye(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_session(4242)
        worker.answer(number)
        worker.child.process.terminate()
        assert peer.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        peer.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        peer.recv_end()
        worker.stop()


def test_a_router_that_does_not_answer_goodbye_is_left(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint, timeouts={"goodbye": 200}))
        route = worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_session(4242)
        worker.answer(number)
        worker("stop_proxy_realm_route", REALM, route)
        messages, end = peer.recv_end()
        assert [message[0] for message in messages] == [GOODBYE]
        assert end.how in ("eof", "reset")


# --- what goes wrong ---


def test_a_router_that_comes_up_later(worker: ServiceWorker, endpoint: Endpoint) -> None:
    worker("start_proxy_connection", "cnc1", item(endpoint))
    worker.route("cnc1")
    number = worker.start("get_service_session", REALM, ROLE)
    worker("get_proxy_connection", "cnc1")  # it has dialled by now
    with StubRouter(endpoint) as router:
        router.accept_session(4242)
        assert worker.answer(number)["session"] == 4242


@pytest.mark.parametrize("kind", ["rawsocket", "websocket"])
@pytest.mark.parametrize("silent", ["handshake", "login"])
def test_a_deadline_that_is_over_is_not_the_end(
    make_worker: Callable[..., ServiceWorker], endpoint: Endpoint, kind: str, silent: str
) -> None:
    worker = make_worker(deadline=1.0)
    where = Endpoint(kind, path=endpoint.path)
    with StubRouter(where) as router:
        worker("start_proxy_connection", "cnc1", item(where))
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        wire = router.accept_wire() if silent == "handshake" else router.accept_hello()[0].wire
        with pytest.raises(Refused, match="within 1 s") as caught:
            worker.answer(number)
        assert caught.value.uri == UNAVAILABLE
        with pytest.raises((PeerClosed, ConnectionError)):
            wire.read(1 << 16)
        number = worker.start("get_service_session", REALM, ROLE)
        router.accept_session(4242)
        assert worker.answer(number)["session"] == 4242


@pytest.mark.parametrize("silent", ["handshake", "login"])
def test_a_silent_router_is_passed_over(worker: ServiceWorker, endpoint: Endpoint, tmp_path: Path, silent: str) -> None:
    other = Endpoint("websocket", path=str(tmp_path / "other.sock"))
    with StubRouter(endpoint) as first, StubRouter(other) as second:
        worker("start_proxy_connection", "cnc1", item(endpoint, timeouts={"dial": 300, "join": 300}))
        worker("start_proxy_connection", "cnc2", item(other))
        worker.route("cnc1", "cnc2")
        number = worker.start("get_service_session", REALM, ROLE)
        if silent == "handshake":
            first.accept_wire()
        else:
            first.accept_hello()
        second.accept_session(2)
        assert worker.answer(number)["session"] == 2


def test_a_dead_router_is_passed_over(worker: ServiceWorker, endpoint: Endpoint) -> None:
    dead = Endpoint("websocket", free_port())
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(dead))
        worker("start_proxy_connection", "cnc2", item(endpoint))
        worker.route("cnc1", "cnc2")
        number = worker.start("get_service_session", REALM, ROLE)
        router.accept_session(2)
        assert worker.answer(number)["session"] == 2


def test_a_router_that_refuses_is_asked_once_and_again_by_the_next(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_hello()
        peer.send([ABORT, {"message": "not you"}, "wamp.error.not_authorized"])
        with pytest.raises(Refused, match=r"wamp\.error\.not_authorized: not you") as caught:
            worker.answer(number)
        assert caught.value.uri == UNAVAILABLE
        peer.recv_end()
        number = worker.start("get_service_session", REALM, ROLE)
        router.accept_session(4242)
        assert worker.answer(number)["session"] == 4242


def test_a_router_that_wants_a_proof_gets_none(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_hello()
        peer.send([CHALLENGE, "ticket", {}])
        assert peer.recv()[0] == ABORT
        with pytest.raises(Refused, match="authenticate"):
            worker.answer(number)
        peer.recv_end()


@pytest.mark.parametrize("kind", ["rawsocket", "websocket"])
def test_a_router_of_another_serializer(worker: ServiceWorker, tmp_path: Path, kind: str) -> None:
    where = Endpoint(kind, path=str(tmp_path / "router.sock"))
    with StubRouter(where, speaks=["msgpack"]) as router:
        connection = item(where)
        connection["transport"].pop("serializer", None)
        worker("start_proxy_connection", "cnc1", connection)
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        for _ in range(2):
            with pytest.raises(RefusedSerializer):
                router.accept()
        peer, _ = router.accept_session(4242)
        assert worker.answer(number)["session"] == 4242
        assert peer.serializer == "msgpack"


@pytest.mark.parametrize("serializer", ["json", "ubjson"])
def test_the_serializer_that_the_configuration_names(
    worker: ServiceWorker, endpoint: Endpoint, serializer: str
) -> None:
    with StubRouter(endpoint) as router:
        connection = item(endpoint)
        connection["transport"] |= {"serializer": serializer, "serializers": [serializer]}
        worker("start_proxy_connection", "cnc1", connection)
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_session(4242)
        assert worker.answer(number)["session"] == 4242
        assert peer.serializer == serializer


def test_a_connection_that_is_lost_is_made_anew(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker.route("cnc1")
        number = worker.start("call", REALM, ROLE, "com.example.slow")
        peer, _ = router.accept_session(1)
        peer.recv_type(CALL)
        peer.wire.reset()
        with pytest.raises(Refused, match=r"transport_lost|TransportLost"):
            worker.answer(number)
        number = worker.start("call", REALM, ROLE, "com.example.quick")
        peer, _ = router.accept_session(2)
        call = peer.recv_type(CALL)
        peer.send([RESULT, call[1], {}, ["done"]])
        assert worker.answer(number) == "done"


def test_who_does_not_want_it_any_more(worker: ServiceWorker, endpoint: Endpoint) -> None:
    with StubRouter(endpoint) as router:
        worker("start_proxy_connection", "cnc1", item(endpoint))
        worker.route("cnc1")
        worker.fails("CancelledError", "cancel", REALM, ROLE)
        router.sock.settimeout(0.8)
        for _ in range(2):
            # It may have been dialled, but is not waited for, nor dialled again.
            try:
                wire = router.accept_wire()
            except TimeoutError:
                break
            wire.sock.settimeout(0.8)
            with pytest.raises((PeerClosed, ConnectionError)):
                wire.read(1 << 16)
        else:
            pytest.fail("it is dialled again and again")


def test_the_http_request_names_what_the_url_says(worker: ServiceWorker) -> None:
    where = Endpoint("websocket", free_port(), resource="/way/in?x=1")
    with StubRouter(where) as router:
        connection = item(where)
        connection["transport"]["headers"] = {"X-Gate": "open"}
        worker("start_proxy_connection", "cnc1", connection)
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_session(4242)
        assert isinstance(peer, WebSocketPeer)
        head = router.last_head.decode()
        assert head.startswith("GET /way/in?x=1 HTTP/1.1\r\n")
        assert f"Host: 127.0.0.1:{where.port}\r\n" in head
        assert "X-Gate: open" in head
        assert worker.answer(number)["session"] == 4242


def test_a_dead_tcp_peer_is_noticed(worker: ServiceWorker) -> None:
    where = Endpoint("rawsocket", free_port())
    with StubRouter(where) as router:
        worker("start_proxy_connection", "cnc1", item(where))
        worker.route("cnc1")
        number = worker.start("get_service_session", REALM, ROLE)
        peer, _ = router.accept_session(4242)
        worker.answer(number)
        port = peer.wire.sock.getpeername()[1]
        timers = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        (timer,) = [row[5].split(":")[0] for row in timers if row[1].endswith(f":{port:04X}") and row[3] == "01"]
        assert timer == "02", "the kernel's keepalive timer"
