"""How sessions end: by the client, by the router, by the proxy; each side is told the truth."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, EVENT, GOODBYE, WELCOME, Peer, PeerClosed, hello
from support.routers import XconnRouter
from support.stub import StubRouter

KINDS = ["websocket", "rawsocket"]


class Session:
    """Both ends of one session through the proxy: the client, and the router's end of its connection."""

    def __init__(self, proxy: ProxyProcess, client: Peer, router: Peer) -> None:
        self.proxy, self.client, self.router = proxy, client, router


@pytest.fixture(params=KINDS)
def session(request: pytest.FixtureRequest, tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> Any:
    """A joined session with a stub router; the transport kind of client and router is the parameter."""
    with StubRouter(Endpoint(request.param, path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen(request.param, limits={"close_timeout": 500})
        proxy = make_proxy(config)
        client = raw.dial(front)
        client.send(hello())
        router, _ = stub.accept_session(1001)
        assert client.recv_type(WELCOME)[1] == 1001
        # One message through, so that both sides are known to be linked.
        client.send([raw.SUBSCRIBE, 1, {}, "com.example"])
        assert router.recv() == [raw.SUBSCRIBE, 1, {}, "com.example"]
        yield Session(proxy, client, router)
        client.close()


# --- the client ends it ---


def test_lost_client_leaves_at_once(session: Session) -> None:
    """A client that vanishes: the router gets GOODBYE and the end of the connection."""
    session.client.wire.close()
    assert session.router.recv_type(GOODBYE)[2].startswith("wamp.")
    assert session.router.recv_end()[0] == []


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_lost_right_after_welcome(how: str, tmp_path: Path, config: Config, make_proxy) -> None:
    """Whatever else is under way in that moment, the router's session is left in order."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        front = config.listen("websocket")
        make_proxy(config)
        for _ in range(50):
            client = raw.dial(front)
            client.send(hello())
            router, _ = stub.accept_session()
            client.recv_type(WELCOME)
            getattr(client.wire, how)()
            assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


def test_reset_client_leaves_at_once(session: Session) -> None:
    """The same when its connection is reset."""
    session.client.wire.reset()
    session.router.recv_type(GOODBYE)
    assert session.router.recv_end()[0] == []


def test_goodbye_reaches_the_router_and_back(session: Session) -> None:
    """The client's reason and details go to the router, the router's answer comes back."""
    session.client.send([GOODBYE, {"message": "bye", "x": 1}, "wamp.close.logout"])
    assert session.router.recv() == [GOODBYE, {"message": "bye", "x": 1}, "wamp.close.logout"]
    session.router.send([GOODBYE, {"y": 2}, "wamp.close.goodbye_and_out"])
    assert session.client.recv() == [GOODBYE, {"y": 2}, "wamp.close.goodbye_and_out"]
    session.client.expect_silence(0.15)
    assert session.router.recv_end()[0] == []


def test_goodbye_with_a_router_that_does_not_answer(tmp_path: Path, config: Config, make_proxy) -> None:
    """The answer does not depend on the router; it comes after timeouts.goodbye."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint, timeouts={"goodbye": 200})
        front = config.listen("rawsocket")
        make_proxy(config)
        client = raw.dial(front)
        client.send(hello())
        router, _ = stub.accept_session()
        client.recv_type(WELCOME)
        client.send([GOODBYE, {}, "wamp.close.normal"])
        assert client.recv()[0] == GOODBYE
        router.recv_type(GOODBYE)
        assert router.recv_end()[0] == []
        client.send(hello())
        stub.accept_session(77)
        assert client.recv_type(WELCOME)[1] == 77
        client.close()


def test_messages_before_goodbye_are_delivered(session: Session) -> None:
    """What was sent before GOODBYE reaches the other side before it, in both directions."""
    count = 200
    publications = ([raw.PUBLISH, i + 1, {}, "com.example", [i]] for i in range(count))
    session.client.send(*publications, [GOODBYE, {}, "wamp.close.normal"])
    received = [session.router.recv() for _ in range(count + 1)]
    assert [message[1] for message in received[:-1]] == list(range(1, count + 1))
    assert received[-1][0] == GOODBYE
    session.router.send(*([EVENT, 1, i + 1, {}] for i in range(count)), [GOODBYE, {}, "wamp.close.goodbye_and_out"])
    received = [session.client.recv() for _ in range(count + 1)]
    assert [message[2] for message in received[:-1]] == list(range(1, count + 1))
    assert received[-1][0] == GOODBYE


# --- the router ends it ---


def test_routers_goodbye_reaches_the_client(session: Session) -> None:
    """Reason and details are the router's; the session is over, the transport is good for another one."""
    session.router.send([EVENT, 1, 2, {}], [GOODBYE, {"message": "maintenance"}, "wamp.close.killed"])
    assert session.client.recv() == [EVENT, 1, 2, {}]
    assert session.client.recv() == [GOODBYE, {"message": "maintenance"}, "wamp.close.killed"]
    assert session.router.recv_type(GOODBYE)[2] == "wamp.close.goodbye_and_out"
    assert session.router.recv_end()[0] == []
    session.client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    session.client.expect_silence(0.15)


def test_client_that_ignores_goodbye_is_closed(session: Session) -> None:
    """A dismissed client that does not answer is not kept."""
    session.router.send([GOODBYE, {}, "wamp.close.killed"])
    session.client.recv_type(GOODBYE)
    assert session.client.recv_end()[0] == []


def test_goodbyes_that_cross(session: Session) -> None:
    """Both sides say GOODBYE at once: each gets exactly one."""
    session.router.send([GOODBYE, {}, "wamp.close.system_shutdown"])
    session.client.send([GOODBYE, {}, "wamp.close.normal"])
    assert session.client.recv_type(GOODBYE)
    session.client.expect_silence(0.15)
    messages, _ = session.router.recv_end()
    assert [message[0] for message in messages] == [GOODBYE]


def test_routers_abort_reaches_the_client(session: Session) -> None:
    """An ABORT in the session ends it, with the router's reason and details, and is not answered."""
    session.router.send([ABORT, {"message": "you did it"}, "wamp.error.protocol_violation"])
    messages, closed = session.client.recv_end()
    assert messages == [[ABORT, {"message": "you did it"}, "wamp.error.protocol_violation"]]
    assert closed.how in ("eof", "close")
    assert [message[0] for message in session.router.recv_end()[0]] in ([], [GOODBYE])


@pytest.mark.parametrize("how", ["close", "reset"])
def test_lost_router(how: str, session: Session) -> None:
    """The client is told a reason that makes it come again, and its transport is closed."""
    session.router.send([EVENT, 1, 2, {}])
    assert session.client.recv() == [EVENT, 1, 2, {}]
    if how == "reset":
        # a Unix socket that is closed with unread data resets its peer
        session.client.send([raw.PUBLISH, 1, {}, "com.example"])
        wait_until(lambda: session.router.wire.sock.recv(1, 2), "the message has arrived")  # MSG_PEEK
    session.router.wire.close()
    assert_lost(session.client)


def assert_lost(client: Peer) -> None:
    """The client learns that its session is lost, and is not told that all is well."""
    messages, closed = client.recv_end()
    assert [message[0] for message in messages] == [GOODBYE]
    assert messages[0][2] not in ("wamp.close.normal", "wamp.close.goodbye_and_out")
    assert closed.how in ("eof", "close")
    assert closed.code not in (1000,)


def test_killed_router_process(tmp_path: Path, config: Config, make_proxy) -> None:
    """kill -9 on a real router: every client of it learns."""
    router = XconnRouter(tmp_path / "router")
    router.wait_ready()
    config.backend("xconn", router.backends["xconn"], role="unix")
    config.backend("xconn_rs", router.backends["xconn_rs"], role="tcp")
    fronts = [config.listen("websocket", role="unix"), config.listen("rawsocket", role="tcp")]
    make_proxy(config)
    clients = [raw.dial(front).join() for front in fronts for _ in range(3)]
    router.child.kill()
    for client in clients:
        assert_lost(client)


@pytest.mark.peers
def test_session_kill(main_proxy: ProxyProcess) -> None:
    """wamp.session.kill through the proxy: the victim gets the given reason, the killer goes on."""
    endpoint = main_proxy.endpoints["crossbar/ws-tcp"]
    with raw.joined(endpoint) as killer, raw.joined(main_proxy.endpoints["crossbar/rs-unix"], "json") as victim:
        request = killer.request()
        kwargs = {"reason": "com.example.kicked", "message": "out"}
        killer.send([raw.CALL, request, {}, "wamp.session.kill", [victim.session], kwargs])
        goodbye = victim.recv_type(GOODBYE)
        assert goodbye[2] == "com.example.kicked"
        assert goodbye[1]["message"] == "out"
        killer.recv_type(raw.RESULT)
        victim.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
        wait_until(lambda: victim.session not in killer.call("wamp.session.list"), "the session has ended")
        victim.join()
        assert victim.session in killer.call("wamp.session.list")


# --- the proxy ends it ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown(number: int, session: Session) -> None:
    """Clients and routers get GOODBYE, new clients are refused, the process ends with status 0."""
    session.proxy.child.process.send_signal(number)
    goodbye = session.client.recv_type(GOODBYE)
    assert goodbye[2] == "wamp.close.system_shutdown"
    session.router.recv_type(GOODBYE)
    session.client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    assert session.client.recv_end()[0] == []
    assert session.router.recv_end()[0] == []
    assert session.proxy.child.process.wait(10) == 0
    session.proxy.check_log()
    with pytest.raises((OSError, PeerClosed)):
        raw.dial(next(iter(session.proxy.endpoints.values())))


def test_shutdown_is_bounded(tmp_path: Path, config: Config, make_proxy) -> None:
    """Clients in every phase that do not answer do not hold up the end; Unix sockets are removed."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as stub:
        config.stub("stub", stub.endpoint)
        config.extra["shutdown_timeout"] = 1000
        front, unix = config.listen("websocket"), config.listen("rawsocket", unix=True)
        proxy = make_proxy(config)
        silent = front.connect()
        shaken = raw.dial(front)
        joining = raw.dial(unix)
        joining.send(hello())
        stub.accept_hello()
        joined = raw.dial(unix)
        joined.send(hello())
        stub.accept_session()
        joined.recv_type(WELCOME)
        proxy.stop(timeout=8.0)
        assert not Path(unix.path).exists()
        assert joined.recv_type(GOODBYE)[2] == "wamp.close.system_shutdown"
        for peer in (shaken, joining, joined):
            peer.recv_end()
        silent.close()


def test_shutdown_does_not_wait_for_a_name(tmp_path: Path, config: Config, make_proxy, monkeypatch) -> None:
    """A name server that does not answer keeps getaddrinfo() busy, not the end of the process."""
    asked = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, socket, time\n"
        "real = socket.getaddrinfo\n"
        "def lookup(host, *more, **names):\n"
        "    if host == 'router.test':\n"
        f"        pathlib.Path({str(asked)!r}).touch()\n"
        "        time.sleep(600)\n"
        "    return real(host, *more, **names)\n"
        "socket.getaddrinfo = lookup\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    endpoint = {"type": "tcp", "host": "router.test", "port": 9}
    config.backend("far", {"transport": {"type": "rawsocket", "endpoint": endpoint}, "auth": {"anonymous": {}}})
    front = config.listen("rawsocket")
    proxy = make_proxy(config)
    client = raw.dial(front)
    client.send(hello())
    wait_until(asked.exists, "the lookup has begun")
    proxy.stop()


def test_second_signal_ends_at_once(session: Session) -> None:
    """Whoever is in a hurry signals twice; the status is still defined."""
    session.proxy.child.process.send_signal(signal.SIGTERM)
    session.client.recv_type(GOODBYE)
    session.proxy.child.process.send_signal(signal.SIGTERM)
    session.proxy.child.process.wait(10)
