"""Which way in a client takes on a transport that has several, and what each of them has of its own."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from proxy.cookies.records import Record
from proxy.errors import CannotListen
from proxy.messages import SER_CBOR, SER_JSON, encode
from proxy.peers import Peer
from proxy.plane import (
    CLOSED_PEER,
    CLOSED_TLS,
    CODEC_WS,
    EV_CLOSED,
    EV_HEAD,
    EV_LISTEN,
    EV_MESSAGE,
    EV_OPEN,
    EV_RAW,
    EV_VIOLATION,
    LISTEN_CLOSED,
    ST_TOO_BIG,
)
from support.planes import FRONT, HELLO, INTRO, Rig

TCP = {"type": "tcp", "interface": "127.0.0.1", "port": 0}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TICKET = {"ticket": {"type": "static", "principals": {"joe": {"ticket": "secret", "role": "anonymous"}}}}


def head(path: str = "/", method: str = "GET", *, upgrade: bool = True, protocol: str = "wamp.2.json") -> bytes:
    """A request, for WebSocket unless said otherwise."""
    lines = [f"{method} {path} HTTP/1.1", "Host: proxy.example"]
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Protocol: {protocol}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Site:
    """Web services by the paths of their requests; what they got."""

    def __init__(self, entrances: dict[str, Any] | None = None) -> None:
        self.entrances = entrances or {}
        self.tunnelled: list[tuple[int, Peer, bytes]] = []
        self.stopped = 0
        self.end: Deferred[None] | None = None
        self.error: OSError | None = None

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self.stopped += 1
        return self.end or succeed(None)

    def websocket_at(self, path: str) -> Any:
        return self.entrances.get(path)

    def tunnel(self, conn: int, peer: Peer, head: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.tunnelled.append((conn, peer, head))


class Stage(Rig):
    """A proxy with one transport more, to which all events of clients go."""

    def __init__(self, **item: Any) -> None:
        super().__init__(serializer=SER_JSON)
        self.plane.params.clear()
        self.started: Any = self.controller.start_proxy_transport("many", {"endpoint": TCP, **item})
        self.transport = self.controller.transports["many"]
        self.plane.take()

    def with_site(self, **entrances: Any) -> Site:
        """Give the transport web services."""
        site = Site({f"/{path}": entrance for path, entrance in entrances.items()})
        self.transport.site = site  # type: ignore[assignment]
        return site

    def asks(self, request: bytes, conn: int = FRONT) -> list[tuple[Any, ...]]:
        """A client sends a request; the commands that follow."""
        self.front(EV_HEAD, 0, INTRO + request, conn)
        return self.did()

    def answer(self, request: bytes, conn: int = FRONT) -> str:
        """Likewise; what it is answered, which must be the end."""
        ((name, number, response),) = self.asks(request, conn)
        assert (name, number) == ("reply", conn)
        return response.decode()

    def enters(self, path: str, conn: int = FRONT) -> Any:
        """A client opens a WebSocket; its session."""
        ((name, number, response, *_),) = self.asks(head(path), conn)
        assert (name, number) == ("upgrade", conn)
        assert response.startswith(b"HTTP/1.1 101")
        return self.transport.sessions[conn]


def universal(**item: Any) -> Stage:
    return Stage(**{"type": "universal", "rawsocket": {}, "websocket": {"ws": {}, "other": {}}, **item})


# --- told apart ---


def test_the_first_component_of_the_path_says_which_entrance():
    stage = universal(websocket={"ws": {}, "other": {"auth": TICKET}, "/": {}})
    for conn, (path, name) in enumerate(
        [("/ws", "ws"), ("/ws/further?x=1", "ws"), ("/other/", "other"), ("//%77s", "ws"), ("/", "/"), ("/?ws", "/")]
    ):
        assert stage.enters(path, conn + 1).entrance.name == name


def test_cookies_of_one_entrance_are_worth_nothing_at_another_of_the_same_name():
    """The path "/" of a universal transport's WebSockets is the root alone; that of its services is all the rest."""
    item = {"cookie": {}, "auth": {**TICKET, "cookie": {}}}
    paths = {"/": {"type": "websocket", **item}}
    transport = universal(websocket={"/": item}, web={"paths": paths}).transport
    own, service = transport.websocket_at("/"), transport.site.websocket_at("/x")
    assert own.name == service.name
    own.cookies._store.put("key", Record(1 << 40, "realm1", None, "joe", "anonymous", "ticket"))
    found: list[Any] = []
    own.cookies.find("key").addCallback(found.append)
    service.cookies.find("key").addCallback(found.append)
    assert [record is not None for record in found] == [True, False]


def test_an_encoded_slash_parts_no_components():
    """The service at the root has such a path, whichever request of a connection it is in."""
    stage = universal(websocket={"ws": {}})
    site = stage.with_site(chat="an entrance")
    for conn, path in enumerate(("/ws%2Fx", "/%2fws", "/chat%2F", "/ws%252Fx")):
        assert stage.asks(head(path), conn + 1) == []
    assert [conn for conn, _, _ in site.tunnelled] == [1, 2, 3, 4]


def test_each_path_lets_in_by_its_own_configuration():
    stage = universal(
        websocket={
            "json": {"serializers": ["json"]},
            "cbor": {"serializers": ["cbor"]},
            "here": {"options": {"allowed_origins": ["https://here.example"]}},
        }
    )
    assert stage.enters("/json", 1).serializer == SER_JSON
    assert "400 Bad Request" in stage.answer(head("/cbor"), 2)
    (call,) = stage.asks(head("/cbor", protocol="wamp.2.cbor"), 3)
    assert (call[0], call[3]) == ("upgrade", SER_CBOR)
    foreign = head("/here").replace(b"Host:", b"Origin: https://there.example\r\nHost:")
    assert "403 Forbidden" in stage.answer(foreign, 4)


def test_each_path_authenticates_by_its_own_configuration():
    stage = universal(websocket={"open": {}, "closed": {"auth": TICKET}})
    stage.enters("/closed", 1)
    stage.says(HELLO, conn=1)
    ((_, _, abort), _) = stage.did()
    assert abort[2] == "wamp.error.no_auth_method"
    stage.enters("/open", 2)
    stage.says(HELLO, conn=2)
    assert stage.dialled()


def test_rawsocket_clients_have_their_own_entrance():
    stage = universal(rawsocket={"auth": TICKET})
    stage.front(EV_OPEN, SER_CBOR, INTRO)
    session: Any = stage.transport.sessions[FRONT]
    assert session.entrance.name == "rawsocket"
    stage.front(EV_MESSAGE, 1, encode(SER_CBOR, HELLO))
    assert [call[0] for call in stage.plane.take()] == ["send", "close"]


def test_the_url_of_a_path_restricts_nothing():
    stage = universal(websocket={"ws": {"url": "ws://public.example/elsewhere"}})
    assert stage.enters("/ws")


@pytest.mark.parametrize("path", ["/", "/nowhere", "/wsx", "/Ws"])
def test_where_nothing_is_nothing_is_found(path: str):
    stage = universal()
    assert "404 Not Found" in stage.answer(head(path))
    assert "404 Not Found" in stage.answer(head(path, upgrade=False), FRONT + 1)
    for conn in (FRONT, FRONT + 1):
        stage.front(EV_CLOSED, CLOSED_PEER, conn=conn)
    assert not stage.transport.sessions


def test_a_request_line_that_is_none():
    assert "404 Not Found" in universal().answer(b"GET\r\n\r\n")


def test_a_head_that_is_too_large_is_answered():
    stage = universal()
    stage.front(EV_VIOLATION, ST_TOO_BIG)
    ((name, _, response),) = stage.did()
    assert name == "reply"
    assert response.startswith(b"HTTP/1.1 431")


def test_an_unknown_protocol_is_cut_off():
    stage = universal()
    stage.front(EV_RAW, 0, INTRO)
    assert stage.did() == [("abort", FRONT)]


def test_another_protocol_is_tunnelled_to_who_speaks_it():
    stage = universal()
    raw = Site()
    stage.transport.raw = raw
    stage.front(EV_RAW, 0, INTRO)
    ((conn, peer, rest),) = raw.tunnelled
    assert (conn, peer.text, rest) == (FRONT, "tcp4:192.0.2.7:4711", b"")


# --- web ---


def test_a_plain_get_at_an_entrance_shows_its_page():
    stage = universal()
    site = stage.with_site()
    assert "200 OK" in stage.answer(head("/ws", upgrade=False))
    assert not site.tunnelled


def test_other_requests_are_tunnelled():
    stage = universal()
    site = stage.with_site()
    requests = [head("/", upgrade=False), head("/elsewhere"), head("/ws", "POST", upgrade=False), b"BREW\r\n\r\n"]
    for conn, request in enumerate(requests, 1):
        assert stage.asks(request, conn) == []
    assert [request for _, _, request in site.tunnelled] == requests
    assert stage.transport.tunnels == len(requests)
    assert site.tunnelled[0][1].text == "tcp4:192.0.2.7:4711"


def test_websocket_paths_go_before_services():
    stage = universal()
    other = stage.transport.websockets["other"]
    stage.with_site(ws=other)
    assert stage.enters("/ws").entrance.name == "ws"


def test_a_service_may_be_an_entrance():
    stage = universal()
    stage.with_site(chat=stage.transport.websockets["other"])
    assert stage.enters("/chat").entrance.name == "other"


def test_a_tunnel_counts_until_it_is_closed():
    stage = universal()
    stage.with_site()
    stage.asks(head("/", upgrade=False))
    assert (stage.transport.tunnels, stage.transport.accepted) == (1, 1)
    stats = stage.controller.get_proxy_stats()["transports"]["many"]
    assert (stats["tunnels"], stats["connections"], stats["sessions"]) == (1, 1, 0)
    stage.front(EV_CLOSED, CLOSED_PEER)
    assert (stage.transport.tunnels, len(stage.transport.sessions)) == (0, 0)


def test_who_cannot_be_tunnelled_is_told():
    stage = universal()
    stage.with_site().error = OSError(24, "too many open files")
    assert "503 Service Unavailable" in stage.answer(head("/", upgrade=False))
    assert stage.transport.tunnels == 0


# --- what the data plane is told ---


def test_connections_go_on_by_the_parameters_of_their_entrance():
    stage = universal(
        rawsocket={"options": {"max_message_size": 1024}},
        websocket={"small": {"options": {"max_message_size": 512}, "limits": {"close_timeout": 7}}, "plain": {}},
        limits={"close_timeout": 9, "max_head_size": 300},
    )
    ((*_, keywords),) = stage.asks(head("/small"), 1)
    assert keywords == {"params": stage.transport.websockets["small"].params}
    given = [params for params in stage.plane.params if params.get("max_message") == 512]
    assert [params["close_ms"] for params in given] == [7]
    listener = stage.plane.params[-1]
    assert (listener["kind"], listener["max_head"], listener["close_ms"]) == (CODEC_WS, 300, 9)
    assert stage.transport.rawsocket is not None
    assert listener["rawsocket"] == stage.transport.rawsocket.params
    assert stage.enters("/plain", 2).entrance.close_ms == 9


def test_a_transport_with_one_way_in_has_one_set_of_parameters():
    stage = Stage(type="websocket")
    ((_, _, _, _, *keywords),) = stage.asks(head("/"))
    assert keywords == []
    assert len(stage.plane.params) == 1


def test_proxy_protocol_and_rawsocket_reach_the_data_plane_only_where_they_are_wanted():
    stage = Stage(type="websocket")
    assert not {"proxy_from", "tls", "rawsocket", "raw_first"} & stage.plane.params[-1].keys()
    stage = Stage(type="websocket", endpoint={**TCP, "proxy_protocol": ["10.0.0.0/8"]})
    assert stage.plane.params[-1]["proxy_from"]


# --- limits ---


def test_ways_in_without_limits_of_their_own_share_those_of_the_transport():
    stage = universal(
        limits={"max_logins_per_address": 3},
        websocket={"one": {}, "two": {}, "own": {"limits": {"max_logins_per_address": 1}}},
    )
    one, two, own = (stage.transport.websockets[name] for name in ("one", "two", "own"))
    assert one.logins is two.logins is stage.transport.logins
    assert one.compression is two.compression
    assert own.logins is not one.logins


# --- who the client is ---


def test_a_listed_proxy_tells_who_the_client_is():
    stage = Stage(type="websocket", endpoint={**TCP, "forwarded": ["192.0.2.0/24"]})
    request = head("/").replace(b"Host:", b"X-Forwarded-For: 198.51.100.9\r\nHost:")
    stage.asks(request)
    assert stage.transport.sessions[FRONT].peer == "tcp4:198.51.100.9:0"  # type: ignore[union-attr]


def test_nobody_else_does():
    stage = Stage(type="websocket")
    stage.asks(head("/").replace(b"Host:", b"X-Forwarded-For: 198.51.100.9\r\nHost:"))
    assert stage.transport.sessions[FRONT].peer == "tcp4:192.0.2.7:4711"  # type: ignore[union-attr]


def test_failed_tls_handshakes_are_counted_and_seldom_logged(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    stage = universal()
    for conn in range(100):
        stage.front(EV_CLOSED, CLOSED_TLS, b"wrong version number", conn=conn + 1)
    lines = [record.getMessage() for record in caplog.records if "TLS handshake" in record.getMessage()]
    assert len(lines) == 1
    assert "wrong version number" in lines[0]
    assert stage.controller.get_proxy_stats()["transports"]["many"]["tls_failed"] == 100


# --- the end ---


def stop(stage: Stage, **keywords: Any) -> None:
    stage.controller.stop_proxy_transport("many", **keywords)
    stage.front(EV_LISTEN, LISTEN_CLOSED, conn=0)


def test_tunnels_are_cut_off_when_their_time_is_up():
    stage = universal(limits={"close_timeout": 500})
    site = stage.with_site()
    stage.asks(head("/", upgrade=False))
    site.end = Deferred()
    stop(stage)
    assert site.stopped == 1
    stage.clock.advance(10)
    assert ("abort", FRONT) not in stage.did()  # the answer is under way, which is the site's business
    site.end.callback(None)
    stage.clock.advance(0.4)
    assert ("abort", FRONT) not in stage.did()
    stage.clock.advance(0.2)
    assert ("abort", FRONT) in stage.did()
    assert not stage.transport.is_forgotten
    stage.front(EV_CLOSED, CLOSED_PEER)
    assert stage.transport.is_forgotten


def test_a_transport_is_forgotten_when_its_last_tunnel_is_closed():
    stage = universal()
    stage.with_site()
    stage.asks(head("/", upgrade=False))
    stop(stage)
    stage.front(EV_CLOSED, CLOSED_PEER)
    assert stage.transport.is_forgotten
    stage.clock.advance(60)
    assert not stage.clock.getDelayedCalls()


def test_the_end_of_the_worker_ends_the_site_once():
    stage = universal()
    site = stage.with_site()
    stage.asks(head("/", upgrade=False))
    stage.controller.shut_down(5)
    stage.front(EV_LISTEN, LISTEN_CLOSED, conn=0)
    assert site.stopped == 1


def test_an_entrance_that_is_closed_keeps_what_its_clients_need():
    stage = universal(websocket={"ws": {"auth": TICKET}})
    entrance = stage.transport.websockets["ws"]
    closed: list[int] = []
    entrance.authentication.close = lambda: closed.append(1)  # type: ignore[method-assign]
    stage.enters("/ws")
    entrance.close()
    assert not closed
    stage.front(EV_CLOSED, CLOSED_PEER)
    assert closed


# --- endpoints of Twisted ---


class Other:
    """What lets clients in for Twisted."""

    def __init__(self, gate: Any, address: str = "tcp4:127.0.0.1:8080") -> None:
        self.gate = gate
        self.address = address
        self.is_stopped = False

    def stop(self) -> Deferred[None]:
        self.is_stopped = True
        return succeed(None)


TWISTED = {"type": "twisted", "server_string": "tcp:8080:interface=127.0.0.1"}


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[Other]:
    """All that were opened."""
    opened: list[Other] = []

    def open_endpoint(gate: Any, endpoint: Any) -> Deferred[Any]:
        if opened and endpoint.server_string == "fail":
            raise CannotListen("no such thing")
        opened.append(Other(gate))
        return succeed(opened[-1])

    monkeypatch.setattr("proxy.other_endpoints.open_endpoint", open_endpoint)
    return opened


def test_an_endpoint_of_twisted_lets_clients_in(others: list[Other]):
    stage = Stage(type="websocket", endpoint=TWISTED)
    (other,) = others
    assert other.gate.number == stage.transport.number != 0
    assert stage.transport.address == "ws://127.0.0.1:8080"
    stop(stage)
    assert other.is_stopped


def test_an_endpoint_of_twisted_cannot_be_opened_twice(others: list[Other]):
    stage = Stage(type="websocket", endpoint=TWISTED)
    before = len(os.listdir("/proc/self/fd"))
    failed = stage.controller.start_proxy_transport("more", {"type": "rawsocket", "endpoint": TWISTED})
    failures: list[Any] = []
    failed.addErrback(failures.append)
    assert failures[0].check(CannotListen)
    assert 'transport "many" listens there' in failures[0].getErrorMessage()
    assert len(others) == 1
    assert len(os.listdir("/proc/self/fd")) == before
    assert stage.transport.is_listening
