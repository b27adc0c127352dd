"""One port for RawSocket, WebSocket on several paths, and web services: plain and over TLS."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.certificates import Certificates
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import HandshakeRefused, hello
from support.stub import StubRouter

TICKET = {"ticket": {"type": "static", "principals": {"joe": {"ticket": "secret", "role": "anonymous"}}}}
ANYBODY = {"anonymous": {"type": "static", "role": "anonymous"}}


def universal(endpoint: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A transport with all that fits on one port."""
    return {
        "type": "universal",
        "endpoint": endpoint,
        "rawsocket": {"auth": ANYBODY, "serializers": ["cbor"]},
        "websocket": {
            "ws": {"auth": ANYBODY},
            "small": {"auth": ANYBODY, "options": {"max_message_size": 600}},
            "closed": {"auth": TICKET},
            "hasty": {"auth": ANYBODY, "limits": {"hello_timeout": 300}},
            "pinged": {"auth": ANYBODY, "options": {"auto_ping_interval": 1000, "auto_ping_timeout": 5000}},
            "deflated": {"auth": ANYBODY, "options": {"compression": {"deflate": {}}}},
        },
        "web": {
            "paths": {
                "/": {"type": "json", "value": {"at": "the root"}},
                "info": {"type": "json", "value": [1, 2, 3]},
                "chat": {"type": "websocket", "auth": ANYBODY},
            },
            "options": {"show_server_version": False},
        },
        "limits": {"handshake_timeout": 5000, "close_timeout": 500},
        **more,
    }


@dataclass
class Front:
    """A port of the proxy under test.

    :ivar wrap: makes a connected socket a TLS one, where there is TLS.
    """

    port: int
    wrap: Callable[[socket.socket], socket.socket]
    stub: StubRouter

    def connect(self) -> socket.socket:
        """A connection, after the TLS handshake if there is one."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.wrap(sock)

    def websocket(self, path: str, serializer: str = "cbor") -> raw.Peer:
        """A WebSocket at a path."""
        return raw.dial(Endpoint("websocket", self.port, resource=path), serializer, sock=self.connect())

    def rawsocket(self, serializer: str = "cbor") -> raw.Peer:
        """A RawSocket."""
        return raw.dial(Endpoint("rawsocket", self.port), serializer, sock=self.connect())

    def joined(self, client: raw.Peer) -> tuple[raw.Peer, list[Any]]:
        """Log a client in: the router's end of its session, and the HELLO that it got."""
        client.send(hello())
        router, greeting = self.stub.accept_session()
        client.recv_type(raw.WELCOME)
        return router, greeting

    def http(self) -> http.client.HTTPConnection:
        """An HTTP client with its connection."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        client.sock = self.connect()
        return client


class Stand:
    """A proxy with a plain port and one with TLS, and its router."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(directory / "stub.sock")))
        self.config = Config(directory).stub("stub", self.stub.endpoint)
        plain, secure = Endpoint("universal", self._port()), Endpoint("universal", self._port())
        tls = certificates.server.tls
        self.config.transports += [
            {"id": "plain", **universal(plain.as_config())},
            {"id": "secure", **universal({**secure.as_config(), "tls": tls})},
        ]
        self.proxy = ProxyProcess(self.config)
        context = ssl.create_default_context(cafile=str(certificates.ca))
        self.fronts = {
            "plain": Front(plain.port, lambda sock: sock, self.stub),
            "tls": Front(secure.port, lambda sock: context.wrap_socket(sock, server_hostname="localhost"), self.stub),
        }

    @staticmethod
    def _port() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    def end(self) -> None:
        """All is closed, and nothing went wrong."""
        try:
            self.proxy.stop()
        finally:
            self.stub.close()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One proxy for all tests here; idle and clean at the end."""
    folder = tmp_path_factory.mktemp("universal")
    stand = Stand(folder, Certificates(folder))
    yield stand
    stand.proxy.check_idle()
    stand.end()


@pytest.fixture(params=["plain", "tls"])
def front(request: pytest.FixtureRequest, stand: Stand) -> Front:
    """Each of the ports."""
    return stand.fronts[request.param]


CALL = [raw.CALL, 1, {}, "com.example.echo", ["text " * 20]]


@pytest.mark.parametrize("path", ["/ws", "/ws/deeper", "/small", "/chat", "/chat/deeper"])
def test_a_websocket_session(front: Front, path: str) -> None:
    client = front.websocket(path)
    router, greeting = front.joined(client)
    client.send(CALL)
    assert router.recv() == CALL
    router.send([raw.RESULT, 1, {}, ["done"]])
    assert client.recv() == [raw.RESULT, 1, {}, ["done"]]
    assert greeting[1] == "realm1"
    client.close()
    router.close()


def test_a_rawsocket_session(front: Front) -> None:
    client = front.rawsocket()
    router, _ = front.joined(client)
    client.send(CALL)
    assert router.recv() == CALL
    client.close()
    router.close()


def test_each_way_in_has_serializers_of_its_own(front: Front) -> None:
    """RawSocket takes CBOR only, WebSocket JSON as well."""
    with pytest.raises(HandshakeRefused):
        front.rawsocket("json")
    client = front.websocket("/ws", "json")
    router, _ = front.joined(client)
    client.close()
    router.close()


def test_each_path_has_limits_of_its_own(front: Front) -> None:
    client = front.websocket("/small")
    router, _ = front.joined(client)
    client.send([raw.CALL, 1, {}, "com.example.echo", ["x" * 700]])
    _, closed = client.recv_end()
    assert closed.code == 1009
    client.close()
    router.close()


def test_each_path_has_deadlines_of_its_own(front: Front) -> None:
    """Who says nothing is sent away, where little patience is configured, and nowhere else."""
    patient, hasty = front.websocket("/ws"), front.websocket("/hasty")
    messages, _ = hasty.recv_end()
    assert messages == []
    router, _ = front.joined(patient)
    for end in (patient, hasty, router):
        end.close()


def test_each_path_pings_by_itself(front: Front) -> None:
    client = front.websocket("/pinged")
    assert isinstance(client, raw.WebSocketPeer)
    router, _ = front.joined(client)
    assert client.recv_frame()[0] == raw.OP_PING
    client.close()
    router.close()


def test_each_path_negotiates_extensions_by_itself(front: Front) -> None:
    offer = "permessage-deflate"
    for path, agreed in (("/deflated", True), ("/ws", False), ("/chat", False)):
        wire = raw.Wire(front.connect())
        place = Endpoint("websocket", front.port, resource=path)
        _, head = raw.upgrade(wire, place, "wamp.2.cbor", Sec_WebSocket_Extensions=offer)
        assert (offer.encode() in head) == agreed
        wire.close()


def test_each_path_authenticates_by_itself(front: Front) -> None:
    client = front.websocket("/closed")
    client.send(hello())
    assert client.recv()[2] == "wamp.error.no_auth_method"
    client.close()
    client = front.websocket("/closed")
    client.send(hello(authmethods=["ticket"], authid="joe"))
    assert client.recv()[:2] == [raw.CHALLENGE, "ticket"]
    client.close()


def test_web_services(front: Front) -> None:
    """Requests on one connection, one after the other."""
    client = front.http()
    for path, value in (("/info", [1, 2, 3]), ("/", {"at": "the root"}), ("/info", [1, 2, 3])):
        client.request("GET", path)
        response = client.getresponse()
        assert (response.status, json.loads(response.read())) == (200, value)
    client.close()


def test_a_request_with_its_body_at_once(front: Front) -> None:
    """What has come with the head is not lost on the way to the web service."""
    with front.connect() as sock:
        body = b"x" * 50_000
        sock.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + body)
        sock.sendall(b"GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert answer.endswith(b"[1,2,3]")
    assert answer.count(b"HTTP/1.1 ") == 2


def test_a_browser_at_a_websocket_path_sees_a_page(front: Front) -> None:
    for path in ("/ws", "/chat"):
        client = front.http()
        client.request("GET", path)
        response = client.getresponse()
        assert response.status == 200
        assert b"WAMP endpoint" in response.read()
        client.close()


@pytest.mark.parametrize("path", ["/chat", "/ws", "/closed/further"])
def test_a_handshake_on_a_used_connection_is_misdirected(front: Front, path: str) -> None:
    """Later requests of a connection belong to the web server, which speaks no WAMP (RFC 9110 section 15.5.20)."""
    client = front.http()
    client.request("GET", "/info")
    client.getresponse().read()
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "wamp.2.json",
    }
    client.request("GET", path, headers=headers)
    response = client.getresponse()
    assert response.status == 421
    response.read()
    client.close()


def test_the_path_of_a_websocket_is_no_services_whatever_comes(front: Front) -> None:
    """Neither a request that is no handshake, nor a later one of its connection, gets the service at the root."""
    client = front.http()
    client.request("GET", "/info")
    client.getresponse().read()
    for method, status, text in (("POST", 405, b"not possible"), ("GET", 200, b"WAMP endpoint")):
        client.request(method, "/ws")
        response = client.getresponse()
        assert (response.status, text in response.read()) == (status, True)
    client.close()
    client = front.http()
    for path in ("/ws%2Fx", "/chat%2F"):  # the first and a later request of a connection
        client.request("GET", path)
        response = client.getresponse()
        assert (response.status, b"WAMP" in response.read()) == (404, False)
    client.request("POST", "/%77s", body=b"x")
    assert client.getresponse().status == 405
    client.close()


def test_requests_that_are_none(front: Front) -> None:
    for request in (b"GET / HTTP/9.9\r\n\r\n", b"\r\nNONSENSE\r\n\r\n", b"GET /ws HTTP/1.0\r\n\r\n"):
        with front.connect() as sock:
            sock.sendall(request)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5", b"HTTP/1.0 4", b"HTTP/1.0 5"))


def test_plain_text_on_the_port_with_tls(stand: Stand) -> None:
    front = replace(stand.fronts["tls"], wrap=lambda sock: sock)
    with front.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in sock.recv(65536)
    client = stand.fronts["tls"].http()
    client.request("GET", "/info")
    assert client.getresponse().status == 200
    client.close()


def test_the_router_is_told_of_tls(tmp_path: Path) -> None:
    """What transport details say of the client's connection, as its router gets them."""
    certificates = Certificates(tmp_path)
    stub = StubRouter(Endpoint("rawsocket", path=str(tmp_path / "stub.sock")))
    config = Config(tmp_path)
    config.backend("stub", {"transport": stub.endpoint.as_backend()})
    port = Stand._port()
    endpoint = {**Endpoint("universal", port).as_config(), "tls": certificates.server.tls}
    config.transports.append({"id": "secure", **universal(endpoint)})
    proxy = ProxyProcess(config)
    context = ssl.create_default_context(cafile=str(certificates.ca))
    front = Front(port, lambda sock: context.wrap_socket(sock, server_hostname="localhost"), stub)
    for client in (front.websocket("/ws"), front.websocket("/chat"), front.rawsocket()):
        client.send(hello())
        router, greeting = stub.accept_session()
        told = greeting[2]["authextra"]["proxy_authextra"]["transport"]
        assert (told["is_secure"], told["channel_type"]) == (True, "tls")
        assert told["channel_framing"] == client.kind
        assert told["channel_id"]["tls-unique"]
        client.recv_type(raw.WELCOME)
        client.close()
        router.close()
    proxy.stop()
    stub.close()


def test_a_reload_changes_paths_and_drops_nobody(tmp_path: Path) -> None:
    """The port stays open; sessions go on; the new paths are there, the old ones are not."""
    stand = Stand(tmp_path, Certificates(tmp_path))
    for front in stand.fronts.values():
        client = front.websocket("/ws")
        router, _ = front.joined(client)
        guest = front.websocket("/chat")
        guest_router, _ = front.joined(guest)
        idle = front.http()
        idle.request("GET", "/info")
        idle.getresponse().read()
        for transport in stand.config.transports:
            transport["websocket"] = {"new": {"auth": ANYBODY}, **transport["websocket"]}
            transport["web"]["paths"]["info"] = {"type": "json", "value": "changed"}
            transport["limits"] = {**transport["limits"], "hello_timeout": front.port}
        path = tmp_path / "proxy.json"
        path.write_text(json.dumps(stand.config.as_dict()))
        stand.proxy.child.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 15
        while True:
            fresh = front.http()
            fresh.request("GET", "/info")
            if fresh.getresponse().read() == b'"changed"':
                break
            fresh.close()
            assert time.monotonic() < deadline, "the change did not come"
            time.sleep(0.05)
        fresh.close()
        client.send(CALL)
        assert router.recv() == CALL
        guest.send(CALL)
        assert guest_router.recv() == CALL
        other = front.websocket("/new")
        other_router, _ = front.joined(other)
        other.close()
        other_router.close()
        # The connection with the web services of before is closed, so that nobody is shown them for ever.
        assert idle.sock.recv(1) == b""
        idle.close()
        for end in (client, router, guest, guest_router):
            end.close()
        stand.config.transports[0]["web"]["paths"]["info"]["value"] = [1, 2, 3]
        stand.config.transports[1]["web"]["paths"]["info"]["value"] = [1, 2, 3]
    stand.proxy.check_idle()
    stand.end()
