"""From HELLO to WELCOME: what the client is told, what the router is told, and what happens instead."""

from __future__ import annotations

from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint, free_port
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, GOODBYE, HELLO, WELCOME, Peer, hello
from support.stub import ROUTER_ROLES, StubRouter

FRONTS = ["ws-tcp", "rs-tcp", "rs-unix"]
SERIALIZERS = ["json", "msgpack", "cbor"]


@pytest.fixture
def stub(tmp_path) -> Any:
    """A router played by the test, on a Unix socket."""
    with StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock"))) as router:
        yield router


@pytest.fixture
def front(stub: StubRouter, config: Config, make_proxy) -> Endpoint:
    """A WebSocket endpoint of a proxy in front of the stub, which takes asserted identities."""
    item = {"transport": stub.endpoint.as_backend(), "auth": {"anonymous-proxy": {"type": "static"}}}
    config.backend("stub", item)
    endpoint = config.listen("websocket")
    make_proxy(config)
    return endpoint


# --- with Crossbar.io ---


@pytest.mark.peers
@pytest.mark.parametrize("transport", FRONTS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_welcome(transport: str, serializer: str, main_proxy: ProxyProcess) -> None:
    """The session ID and the roles are the router's, the authentication is the proxy's."""
    endpoint = main_proxy.endpoints[f"crossbar/{transport}"]
    with raw.joined(endpoint, serializer) as peer:
        details = peer.welcome[2]
        assert details["authmethod"] == "anonymous"
        assert details["authprovider"] == "static"
        assert details["realm"] == "realm1"
        assert details["authrole"] == "anonymous"
        assert details["authid"]
        assert details["roles"]["dealer"]["features"]["shared_registration"] is True
        extra = details["authextra"]
        assert {"x_cb_proxy_node", "x_cb_proxy_worker", "x_cb_proxy_peer", "x_cb_proxy_pid"} <= set(extra)
        assert extra["x_cb_proxy_pid"] == main_proxy.pid
        assert "transport" not in extra
        assert not [key for key in extra if key.startswith("proxy_")]
        assert peer.session in peer.call("wamp.session.list")


@pytest.mark.peers
def test_routers_view_of_the_session(main_proxy: ProxyProcess) -> None:
    """The meta API shows the client's own transport, its identity, and none of the secrets in its HTTP headers."""
    endpoint = main_proxy.endpoints["crossbar/ws-tcp"]
    secrets = {"Cookie": "cbtid=top-secret", "Authorization": "Basic dG9wLXNlY3JldA==", "X_Api_Key": "top-secret"}
    peer = raw.dial(endpoint, "json", User_Agent="integration-test", **secrets).join(authextra={"team": "blue"})
    details = peer.call("wamp.session.get", peer.session)
    assert details["session"] == peer.session
    assert details["authid"] == peer.welcome[2]["authid"]
    assert details["authextra"]["team"] == "blue"
    assert details["transport"]["channel_framing"] == "websocket"
    assert details["transport"]["channel_serializer"] == "json"
    address = peer.wire.sock.getsockname()
    assert details["transport"]["peer"] == f"tcp4:127.0.0.1:{address[1]}"
    received = {name.lower(): value for name, value in details["transport"]["http_headers_received"].items()}
    assert received["user-agent"] == "integration-test"
    assert "top-secret" not in repr(details)
    assert "dG9wLXNlY3JldA" not in repr(details)
    assert "dG9wLXNlY3JldA" not in repr(peer.welcome)
    assert "secret" not in main_proxy.child.output
    peer.leave()


@pytest.mark.peers
def test_meta_events_reach_clients(main_proxy: ProxyProcess) -> None:
    """wamp.session.on_join and on_leave name the client by the ID that it was told itself."""
    endpoint = main_proxy.endpoints["crossbar/rs-tcp"]
    with raw.joined(endpoint) as observer:
        joins = observer.subscribe("wamp.session.on_join")
        leaves = observer.subscribe("wamp.session.on_leave")
        with raw.joined(endpoint) as peer:
            event = observer.recv_type(raw.EVENT)
            assert event[1] == joins
            assert event[4][0]["session"] == peer.session
            peer.leave()
        event = observer.recv_type(raw.EVENT)
        assert (event[1], event[4][0]) == (leaves, peer.session)


@pytest.mark.peers
@pytest.mark.parametrize("transport", FRONTS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_goodbye_and_a_second_session(transport: str, serializer: str, main_proxy: ProxyProcess) -> None:
    """GOODBYE gets exactly one GOODBYE, no ABORT follows, and the same connection takes another HELLO."""
    peer = raw.dial(main_proxy.endpoints[f"crossbar/{transport}"], serializer)
    sessions = []
    for _ in range(3):
        peer.join()
        sessions.append(peer.session)
        assert peer.call("wamp.session.get", peer.session)["session"] == peer.session
        assert peer.goodbye()[0] == GOODBYE
        peer.expect_silence(0.15)
    assert len(set(sessions)) == 3
    peer.close()


@pytest.mark.peers
def test_no_such_realm_from_the_route_table(main_proxy: ProxyProcess) -> None:
    """A realm without a route is refused by the proxy with the reason that says so."""
    peer = raw.dial(main_proxy.endpoints["crossbar/ws-tcp"])
    peer.send(hello("nowhere"))
    messages, closed = peer.recv_end()
    assert [message[0] for message in messages] == [ABORT]
    assert messages[0][2] == "wamp.error.no_such_realm"
    assert "nowhere" in messages[0][1]["message"]
    assert closed.how == "close"


@pytest.mark.peers
def test_routers_abort_reaches_the_client(crossbar, config: Config, make_proxy) -> None:
    """The router's own reason and message for refusing a realm or a role, not a generic one."""
    config.backend("router", crossbar.backends["crossbar"], realm="ghost")
    config.backend("router", crossbar.backends["crossbar"], realm="realm1", role="phantom")
    ghost = config.listen("websocket")
    phantom = config.listen("rawsocket", role="phantom")
    make_proxy(config)
    for endpoint, realm, reason in (
        (ghost, "ghost", "wamp.error.no_such_realm"),
        (phantom, "realm1", "wamp.error.no_such_role"),
    ):
        peer = raw.dial(endpoint)
        peer.send(hello(realm))
        messages, _ = peer.recv_end()
        assert [message[0] for message in messages] == [ABORT]
        assert messages[0][2] == reason
        assert realm in messages[0][1]["message"]


# --- with a router played by the test ---


def test_no_such_role_from_the_route_table(stub: StubRouter, config: Config, make_proxy) -> None:
    """A role without a route is refused by the proxy with the reason that says so."""
    config.stub("stub", stub.endpoint)
    endpoint = config.listen("rawsocket", role="stranger")
    make_proxy(config)
    peer = raw.dial(endpoint)
    peer.send(hello())
    messages, closed = peer.recv_end()
    assert [message[:1] + message[2:3] for message in messages] == [[ABORT, "wamp.error.no_such_role"]]
    assert "stranger" in messages[0][1]["message"]
    assert closed.how == "eof"


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_hello_that_the_router_gets(serializer: str, front: Endpoint, stub: StubRouter) -> None:
    """Roles, features and agent are the client's; the identity is the proxy's word and cannot be forged."""
    peer = raw.dial(front, serializer, Cookie="a=top-secret", Authorization="Bearer top-secret")
    roles = {"caller": {"features": {"call_canceling": True, "x_own_feature": True}}, "subscriber": {}}
    forged = {"proxy_authrole": "trusted", "proxy_authid": "root", "transport": {"peer": "forged"}}
    extra = {**forged, "mine": [1, {"a": 2}]}
    claims = {"authid": "me", "authrole": "trusted", "authextra": extra, "proxy_realm": "x"}
    peer.send(hello(roles=roles, agent="agent/1.0", **claims))
    router, message = stub.accept_session(4711)
    welcome = peer.recv_type(WELCOME)
    assert message[:2] == [HELLO, "realm1"]
    details = message[2]
    assert details["roles"]["caller"] == roles["caller"]
    assert set(details["roles"]) == {"caller", "subscriber"}
    assert details["agent"] == "agent/1.0"
    assert details["authmethods"] == ["anonymous-proxy"]
    assert "authrole" not in details
    assert details["authid"] != "me"
    assert not [key for key in details if key.startswith("proxy_")]
    extra = details["authextra"]
    assert extra["proxy_realm"] == "realm1"
    assert extra["proxy_authrole"] == "anonymous"
    assert extra["proxy_authid"] not in ("me", "root")
    assert extra["proxy_authmethod"] == "anonymous"
    assert extra["proxy_authprovider"] == "static"
    assert extra["proxy_authextra"]["mine"] == [1, {"a": 2}]
    assert extra["proxy_authextra"]["transport"]["peer"] == f"tcp4:127.0.0.1:{peer.wire.sock.getsockname()[1]}"
    assert "top-secret" not in repr(message)
    assert welcome[1] == 4711
    assert welcome[2]["roles"] == ROUTER_ROLES
    assert router.serializer == serializer
    peer.close()


def test_unknown_authmethod(front: Endpoint) -> None:
    """A client that offers no method the transport has is refused, not left waiting."""
    peer = raw.dial(front)
    peer.send(hello(authmethods=["ticket"], authid="me"))
    messages, _ = peer.recv_end()
    assert [message[0] for message in messages] == [ABORT]
    assert messages[0][2] in ("wamp.error.no_matching_auth_method", "wamp.error.no_auth_method")


@pytest.mark.parametrize("transport", ["websocket", "rawsocket"])
def test_identity_by_service_credential(transport: str, tmp_path, config: Config, make_proxy) -> None:
    """A router without anonymous-proxy is joined as an anonymous client, over either transport."""
    listening = Endpoint(transport, free_port(), resource="/some/path?x=1")
    with StubRouter(listening) as stub:
        config.stub("stub", listening)
        front = config.listen("rawsocket")
        make_proxy(config)
        peer = raw.dial(front, "msgpack")
        peer.send(hello(agent="agent/1.0"))
        router, message = stub.accept_session(42)
        assert peer.recv_type(WELCOME)[1] == 42
        assert message[2]["authmethods"] == ["anonymous"]
        assert message[2]["agent"] == "agent/1.0"
        assert router.serializer == "msgpack"
        if transport == "websocket":
            assert stub.last_head.startswith(b"GET /some/path?x=1 HTTP/1.1\r\n")
            assert f"host: 127.0.0.1:{listening.port}\r\n".encode() in stub.last_head.lower()
        peer.close()


def test_one_hello_at_a_time(front: Endpoint, stub: StubRouter) -> None:
    """A second HELLO while the first is pending opens no second router session, and is a violation afterwards."""
    peer = raw.dial(front)
    peer.send(hello(), hello())
    router, _ = stub.accept_hello()
    stub.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        stub.accept_wire()
    router.send([WELCOME, 5, {"roles": ROUTER_ROLES}])
    assert peer.recv_type(WELCOME)[1] == 5
    messages, _ = peer.recv_end()
    assert [message[:1] + message[2:3] for message in messages] == [[ABORT, "wamp.error.protocol_violation"]]
    assert router.recv()[0] == GOODBYE


def test_message_behind_hello_waits(front: Endpoint, stub: StubRouter) -> None:
    """What a client sends before it sees WELCOME reaches the router after the join, not before, and is not lost."""
    peer = raw.dial(front)
    peer.send(hello(), [raw.CALL, 1, {}, "com.example.early"])
    router, _ = stub.accept_hello()
    router.expect_silence(0.2)
    router.send([WELCOME, 5, {"roles": ROUTER_ROLES}])
    assert router.recv() == [raw.CALL, 1, {}, "com.example.early"]
    assert peer.recv_type(WELCOME)[1] == 5
    peer.close()


BEFORE_HELLO: list[tuple[str, list[Any]]] = [
    ("call", [raw.CALL, 1, {}, "com.example"]),
    ("goodbye", [GOODBYE, {}, "wamp.close.normal"]),
    ("welcome", [WELCOME, 1, {}]),
    ("authenticate", [raw.AUTHENTICATE, "sig", {}]),
    ("unknown", [99, 1]),
    ("empty", []),
    ("not-a-list", {"a": 1}),
    ("bad-realm", [HELLO, 17, {}]),
    ("no-roles", [HELLO, "realm1", {}]),
    ("short", [HELLO]),
]


@pytest.mark.parametrize("transport", ["websocket", "rawsocket"])
@pytest.mark.parametrize("message", [m for _, m in BEFORE_HELLO], ids=[n for n, _ in BEFORE_HELLO])
def test_wrong_first_message(transport: str, message: Any, stub: StubRouter, config: Config, make_proxy) -> None:
    """Anything but a proper HELLO: ABORT with protocol_violation, transport closed, no router bothered."""
    config.stub("stub", stub.endpoint)
    peer = raw.dial(_listening(config, transport, make_proxy), "json")
    peer.send(message)
    messages, closed = peer.recv_end()
    assert [answer[:1] + answer[2:3] for answer in messages] == [[ABORT, "wamp.error.protocol_violation"]]
    assert closed.how == ("close" if transport == "websocket" else "eof")
    stub.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        stub.accept_wire()


def _listening(config: Config, transport: str, make_proxy) -> Endpoint:
    endpoint = config.listen(transport)
    make_proxy(config)
    return endpoint


def test_abort_before_hello_is_not_answered(front: Endpoint) -> None:
    """ABORT is never answered; the transport is closed."""
    peer = raw.dial(front)
    peer.send([ABORT, {}, "wamp.close.normal"])
    messages, closed = peer.recv_end()
    assert messages == []
    assert closed.how == "close"


def test_hello_timeout(stub: StubRouter, config: Config, make_proxy) -> None:
    """A client that shakes hands and then says nothing is closed by the deadline."""
    config.stub("stub", stub.endpoint)
    limits = {"handshake_timeout": 300, "hello_timeout": 300}
    for transport in ("websocket", "rawsocket"):
        config.listen(transport, transport, limits=limits)
    proxy = make_proxy(config)
    for name in ("websocket", "rawsocket"):
        peer: Peer = raw.dial(proxy.endpoints[name])
        messages, _ = peer.recv_end()
        assert all(message[0] == ABORT for message in messages)


def test_configured_identity(stub: StubRouter, config: Config, make_proxy) -> None:
    """A static authid, role and realm go before what the client asks for."""
    item = {"transport": stub.endpoint.as_backend(), "auth": {"anonymous-proxy": {"type": "static"}}}
    config.backend("stub", item, realm="fixed", role="guest")
    auth = {"anonymous": {"type": "static", "realm": "fixed", "role": "guest", "authid": "visitor"}}
    front = config.listen("rawsocket", auth=auth)
    make_proxy(config)
    peer = raw.dial(front)
    peer.send(hello("other"))
    _, message = stub.accept_session(7)
    extra = message[2]["authextra"]
    assert message[1] == extra["proxy_realm"] == "fixed"
    assert (extra["proxy_authid"], extra["proxy_authrole"]) == ("visitor", "guest")
    assert peer.recv_type(WELCOME)[2]["realm"] == "fixed"
    peer.close()


def test_one_line_per_login_and_logout(stub: StubRouter, config: Config, make_proxy) -> None:
    """The log names a session once when it joins and once when it leaves, and no message between."""
    config.stub("stub", stub.endpoint)
    front = config.listen("websocket")
    proxy: ProxyProcess = make_proxy(config)
    client = raw.dial(front)
    client.send(hello())
    router, _ = stub.accept_session(987654321)
    client.recv_type(WELCOME)
    for number in range(50):
        client.send([raw.PUBLISH, number + 1, {}, "com.example.private", ["private"]])
        router.recv()
    client.close()
    router.recv_end()
    proxy.child.wait_line("987654321 left", errors=True)
    lines = [line for line in proxy.child.errors if "987654321" in line]
    assert len(lines) == 2
    assert "private" not in proxy.child.output
