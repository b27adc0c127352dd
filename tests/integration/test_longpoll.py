"""WAMP over HTTP long-poll: real clients, every serializer, and what happens when requests or clients go wrong."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import session_count
from support.census import assert_grown, rss
from support.certificates import Certificates
from support.clients import EXPECTED, ClientDriver
from support.endpoints import Endpoint, free_port
from support.longpoll import Http, LongPollClient, Refused
from support.matrix import Combination, scenarios_of, wrong
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, EVENT, GOODBYE, PUBLISH, PUBLISHED, SUBSCRIBE, SUBSCRIBED, WELCOME, hello, joined
from support.routers import CrossbarRouter

pytestmark = [pytest.mark.slow, pytest.mark.peers]

SERIALIZERS = ["json", "msgpack", "cbor", "ubjson"]
BATCHED = ["json.batched", "msgpack.batched", "cbor.batched", "ubjson.batched"]
GROWN_MAX = 8 << 20
"""Octets of memory that a slow client may cost; what waits for it in the test are 24 million."""
TOPIC = "com.example.longpoll"
COUNT = "wamp.session.count"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Keys and certificates."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


class WebConfig(Config):
    """A configuration with web transports that have a long-poll service on ``lp``."""

    def web(self, service: dict[str, Any] | None = None, *, tls: dict[str, Any] | None = None, **keys: Any) -> str:
        """Add one.

        :param service: keys of the service.
        :param tls: of the endpoint.
        :param keys: of the transport.
        :returns: the service's URL.
        """
        endpoint: dict[str, Any] = {"type": "tcp", "interface": "127.0.0.1", "port": free_port()}
        if tls is not None:
            endpoint["tls"] = tls
        item = {"type": "longpoll", "serializers": SERIALIZERS, **(service or {})}
        paths = {"/": {"type": "none"}, "lp": item}
        name = f"web{len(self.transports)}"
        self.transports.append({"type": "web", "id": name, "endpoint": endpoint, "paths": paths, **keys})
        return f"{'http' if tls is None else 'https'}://localhost:{endpoint['port']}/lp"


@pytest.fixture
def config(tmp_path: Path, crossbar: CrossbarRouter) -> WebConfig:
    """In front of Crossbar.io."""
    config = WebConfig(tmp_path)
    config.backend("crossbar", crossbar.backends["crossbar"])
    return config


@pytest.fixture
def connect() -> Iterator[Callable[..., LongPollClient]]:
    """A client, whose HTTP connections are closed in the end."""
    clients: list[LongPollClient] = []

    def make(*args: Any, **keys: Any) -> LongPollClient:
        clients.append(LongPollClient(*args, **keys))
        return clients[-1]

    yield make
    for client in clients:
        client.hang_up()


def endpoint_of(url: str) -> Endpoint:
    """The service, for the clients of the scenarios."""
    port = int(url.split(":")[2].split("/")[0])
    return Endpoint("longpoll", port, resource="/lp", host="localhost")


# --- real clients ---


@pytest.mark.parametrize("router_name", ["crossbar", "xconn"])
def test_autobahn_js(router_name: str, tmp_path: Path, get_router, make_proxy, get_client) -> None:
    """What autobahn-js does over WebSocket, it does over long-poll.

    But for progressive results: it sends without waiting for the answer to what it has sent before, by several HTTP
    connections, and that does not keep the order.
    """
    config = WebConfig(tmp_path)
    config.backend("router", get_router(router_name).backends[router_name])
    url = config.web()
    make_proxy(config)
    client: ClientDriver = get_client("autobahn-js")
    scenarios = scenarios_of(Combination("autobahn-js", router_name, "ws-tcp", "json"))
    del scenarios["progressive"]
    results = client.run(endpoint_of(url), "json", scenarios)
    assert set(results) >= set(scenarios)
    assert not wrong(results, EXPECTED)
    client.stop()  # it keeps its HTTP connections


@pytest.mark.parametrize("protocol", SERIALIZERS + BATCHED)
def test_every_protocol(protocol: str, config, make_proxy, connect) -> None:
    url = config.web()
    make_proxy(config)
    client = connect(url, f"wamp.2.{protocol}")
    client.join()
    client.send([SUBSCRIBE, 1, {}, TOPIC])
    assert client.receive()[:2] == [SUBSCRIBED, 1]
    options = {"acknowledge": True, "exclude_me": False}
    for number in range(3):
        client.send([PUBLISH, 10 + number, options, TOPIC, [number, "äö", None]])
    seen = [client.receive() for _ in range(6)]
    assert [message[1] for message in seen if message[0] == PUBLISHED] == [10, 11, 12]
    assert [message[4] for message in seen if message[0] == EVENT] == [[number, "äö", None] for number in range(3)]
    client.leave()


@pytest.mark.parametrize("separator", [b"\x1e", b"\x18"], ids=["specification", "autobahn"])
def test_batches_both_ways(separator: bytes, config, make_proxy, connect) -> None:
    """One request sends several messages, and one gets several; JSON's separator is the client's."""
    url = config.web()
    make_proxy(config)
    client = connect(url, "wamp.2.json.batched", separator=separator)
    client.join()
    client.send([SUBSCRIBE, 1, {}, TOPIC], *([PUBLISH, number, {"acknowledge": True}, TOPIC] for number in (2, 3, 4)))
    messages: list[Any] = []
    while len(messages) < 4:
        messages += client.poll()
    assert [message[:2] for message in messages] == [[SUBSCRIBED, 1], [PUBLISHED, 2], [PUBLISHED, 3], [PUBLISHED, 4]]
    client.leave()


def test_over_https(config, certificates: Certificates, make_proxy, connect) -> None:
    url = config.web({"auth": {"anonymous": {"type": "static"}}}, tls=certificates.server.tls)
    make_proxy(config)
    context = ssl.create_default_context(cafile=str(certificates.ca))
    client = connect(url, context=context)
    client.join()
    client.call(COUNT)
    client.leave()


# --- what the router is told ---


@pytest.mark.parametrize("is_secure", [False, True], ids=["http", "https"])
def test_the_router_is_told_who_it_is(
    is_secure: bool, config, certificates: Certificates, crossbar: CrossbarRouter, make_proxy, connect
) -> None:
    url = config.web(tls=certificates.server.tls if is_secure else None)
    make_proxy(config)
    context = ssl.create_default_context(cafile=str(certificates.ca)) if is_secure else None
    client = connect(url, "wamp.2.cbor", context=context, headers={"User-Agent": "tester", "Cookie": "secret=1"})
    session = client.join()["session"]
    with joined(crossbar.direct["rs-unix"]) as peer:
        told = peer.call("wamp.session.get", session)["transport"]
        peer.leave()
    assert told["channel_framing"] == "native"
    assert told["websocket_protocol"] == "wamp.2.cbor"
    assert told["channel_serializer"] == "cbor"
    assert told["peer"].startswith("tcp4:127.0.0.1:")
    assert (told["is_secure"], told["channel_type"]) == (is_secure, "tls" if is_secure else "tcp")
    assert told["http_headers_received"]["user-agent"] == "tester"
    assert "cookie" not in told["http_headers_received"]
    client.leave()


# --- the ends of sessions ---


def test_a_login_that_is_refused(config, make_proxy, connect) -> None:
    """The client gets ABORT, and is told then that there is nothing more."""
    url = config.web({"auth": {"ticket": {"type": "static", "principals": {"joe": {"ticket": "x" * 16}}}}})
    make_proxy(config)
    client = connect(url)
    client.send(hello())
    assert client.receive()[::2] == [ABORT, "wamp.error.no_auth_method"]
    with pytest.raises(Refused) as caught:
        client.poll()
    assert (caught.value.answer.status, caught.value.answer.reason) == (
        410,
        "the session is over: the connection is closed",
    )
    assert client.post("close").status == 204


def test_a_client_that_stays_away(config, crossbar: CrossbarRouter, make_proxy, connect) -> None:
    before = session_count(crossbar)
    url = config.web({"options": {"session_timeout": 1}})
    proxy = make_proxy(config)
    client = connect(url)
    client.join()
    assert session_count(crossbar) == before + 1
    wait_until(lambda: session_count(crossbar) == before, "the session has ended")
    with pytest.raises(Refused, match="410 the client did not ask for messages for 1 s"):
        client.send([SUBSCRIBE, 1, {}, TOPIC])
    client.hang_up()
    proxy.check_idle()


def test_a_client_that_only_asks_stays(config, make_proxy, connect) -> None:
    url = config.web({"options": {"session_timeout": 1, "request_timeout": 1}})
    make_proxy(config)
    client = connect(url)
    client.join()
    assert [client.poll() for _ in range(3)] == [[], [], []]
    client.leave()


def test_a_client_closes_without_goodbye(config, crossbar: CrossbarRouter, make_proxy, connect) -> None:
    before = session_count(crossbar)
    url = config.web()
    make_proxy(config)
    client = connect(url)
    client.join()
    client.begin_to_wait()
    assert client.post("close").status == 204
    assert client.polling.answer().status in (204, 410)  # it may have come after the other, on its own connection
    wait_until(lambda: session_count(crossbar) == before, "the session has ended")
    with pytest.raises(Refused, match="410 closed by the client"):
        client.poll()


def test_the_router_ends_a_session(config, crossbar: CrossbarRouter, make_proxy, connect) -> None:
    url = config.web()
    make_proxy(config)
    client = connect(url)
    session = client.join()["session"]
    client.begin_to_wait()
    with joined(crossbar.direct["rs-unix"]) as peer:
        peer.call("wamp.session.kill", session, reason="com.example.enough")
        peer.leave()
    answer = json.loads(client.polling.answer().body)
    assert answer[::2] == [GOODBYE, "com.example.enough"]
    client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    # The connection is there for another session.
    client.join()
    client.leave()


def test_the_proxy_ends(config, make_proxy, connect) -> None:
    """Whoever waits for messages hears of it."""
    url = config.web()
    proxy = make_proxy(config)
    client = connect(url)
    client.join()
    client.begin_to_wait()
    stopping = threading.Thread(target=proxy.stop)
    stopping.start()
    answer = json.loads(client.polling.answer().body)
    assert answer[::2] == [GOODBYE, "wamp.close.system_shutdown"]
    client.hang_up()
    stopping.join(20)
    assert not stopping.is_alive()


def test_a_message_that_breaks_the_protocol(config, make_proxy, connect) -> None:
    """It passes the same gate as everywhere."""
    url = config.web()
    make_proxy(config)
    client = connect(url)
    client.join()
    client.send([WELCOME, 1, {}])
    assert client.receive()[::2] == [ABORT, "wamp.error.protocol_violation"]
    with pytest.raises(Refused, match="410"):
        client.poll()


# --- much of everything ---


def test_a_client_that_reads_slowly_gets_everything(config, crossbar: CrossbarRouter, make_proxy, connect) -> None:
    """Far more than the queue, and all sockets on the way, can hold; it comes in order, and takes no memory."""
    events, octets = 400, 60_000
    url = config.web({"options": {"queue_limit_messages": 10, "queue_limit_bytes": 100_000}})
    proxy = make_proxy(config)
    client = connect(url)
    client.join()
    client.send([SUBSCRIBE, 1, {}, TOPIC])
    client.receive()
    before = rss(proxy.pid)
    with joined(crossbar.direct["rs-unix"]) as peer:
        for number in range(events):
            peer.send([PUBLISH, number + 1, {"acknowledge": True}, TOPIC, [number, "x" * octets]])
            assert peer.recv()[0] == PUBLISHED
        peer.leave()
    assert_grown(proxy.pid, before, GROWN_MAX, "events for a client that does not ask for them")
    assert [client.receive()[4][0] for _ in range(events)] == list(range(events))
    client.leave()


def test_a_large_message(config, make_proxy, connect) -> None:
    url = config.web()
    make_proxy(config)
    client = connect(url)
    client.join()
    client.send([SUBSCRIBE, 1, {}, TOPIC])
    client.receive()
    text = "x" * 3_000_000
    client.send([PUBLISH, 2, {"exclude_me": False}, TOPIC, [text]])
    assert client.receive()[4] == [text]
    client.leave()


def test_no_more_clients_than_configured(config, make_proxy) -> None:
    url = config.web(max_connections=3)
    make_proxy(config)
    http = Http(url)

    def open_another() -> Any:
        return http.request("POST", "/open", b'{"protocols": ["wamp.2.json"]}')

    answers = [open_another() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 503]
    assert http.request("POST", f"/{answers[0].json['transport']}/close").status == 204
    wait_until(lambda: answers.append(open_another()) or answers[-1].status == 200, "somebody else may come")
    for answer in answers:
        if answer.status == 200:
            http.request("POST", f"/{answer.json['transport']}/close")
    http.close()


# --- requests ---


@pytest.fixture(scope="module")
def service_url(crossbar: CrossbarRouter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a service that pages of example.com may use."""
    config = WebConfig(tmp_path_factory.mktemp("requests"))
    config.backend("crossbar", crossbar.backends["crossbar"])
    url = config.web({"serializers": ["json"], "options": {"allowed_origins": ["https://*.example.com"]}})
    proxy = ProxyProcess(config)
    yield url
    proxy.check_idle()
    proxy.stop()


@pytest.fixture
def service(service_url: str) -> Iterator[Http]:
    """That service, without a client."""
    http = Http(service_url)
    yield http
    http.close()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[]", "protocols"),
        (b"{}", "protocols"),
        (b'{"protocols": "wamp.2.json"}', "protocols"),
        (b'{"protocols": ["wamp.2.cbor", 7, null]}', "no common protocol, expected one of wamp.2.json"),
    ],
)
def test_bad_requests_for_a_connection(service: Http, body: bytes, text: str) -> None:
    answer = service.request("POST", "/open", body)
    assert answer.status == 400
    assert text in answer.reason
    assert answer.reason in answer.body.decode()


def test_the_first_protocol_that_is_spoken_is_taken(service: Http) -> None:
    wanted = ["wamp.3.json", "wamp.2.json", "wamp.2.json.batched"]
    answer = service.request("POST", "/open?x=4711", json.dumps({"protocols": wanted}).encode())
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"].startswith("no-store")
    assert answer.json["protocol"] == "wamp.2.json"
    assert len(answer.json["transport"]) == 32
    assert service.request("POST", f"/{answer.json['transport']}/close?x=4712").status == 204


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/nobody/receive", 404),
        ("POST", "/nobody/send", 404),
        ("POST", "/nobody/close", 404),
        ("POST", "/nobody/other", 404),
        ("POST", "/open/more", 404),
        ("POST", "", 404),
        ("GET", "/open", 405),
        ("PUT", "/nobody/send", 405),
        ("GET", "", 200),
        ("HEAD", "/", 200),
    ],
)
def test_other_requests(service: Http, method: str, path: str, status: int) -> None:
    assert service.request(method, path).status == status


def test_an_empty_body_is_no_message(service: Http) -> None:
    name = service.request("POST", "/open", b'{"protocols": ["wamp.2.json"]}').json["transport"]
    assert service.request("POST", f"/{name}/send").status == 400
    assert service.request("POST", f"/{name}/close").status == 204


def test_pages_of_other_origins(service: Http) -> None:
    """Browsers ask first; who is not allowed gets nothing, whatever their browser does."""
    good, bad = {"Origin": "https://a.example.com"}, {"Origin": "https://example.org"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = service.request("OPTIONS", "/open", headers=good | asks)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == good["Origin"]
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-headers"] == "content-type"
    assert "POST" in answer.headers["access-control-allow-methods"]
    body = b'{"protocols": ["wamp.2.json"]}'
    opened = service.request("POST", "/open", body, headers=good)
    assert opened.headers["access-control-allow-origin"] == good["Origin"]
    assert service.request("POST", f"/{opened.json['transport']}/close", headers=good).status == 204
    for method in ("OPTIONS", "POST"):
        refused = service.request(method, "/open", body, headers=bad | asks)
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers


def test_the_name_of_a_connection_is_not_logged(config, make_proxy, connect) -> None:
    url = config.web(options={"access_log": True})
    proxy = make_proxy(config)
    client = connect(url)
    client.join()
    spelt = "".join(f"%{ord(character):02x}" for character in client.name)
    assert client.sending.request("POST", f"//{spelt}/send?x=1").status == 400
    client.leave()
    wait_until(lambda: "/lp/.../close" in proxy.child.output, "the last request is logged")
    assert '"POST /lp/.../send?x=1 HTTP/1.1" 400' in proxy.child.output
    assert client.name not in proxy.child.output
    assert spelt not in proxy.child.output


# --- cookies ---


def test_a_cookie_stands_for_a_login(config, make_proxy, connect) -> None:
    ticket = "correct-horse"
    auth = {
        "ticket": {"type": "static", "principals": {"joe": {"ticket": ticket, "role": "anonymous"}}},
        "cookie": {},
    }
    url = config.web({"auth": auth, "cookie": {"store": {"type": "memory"}}})
    make_proxy(config)
    first = connect(url)
    cookie = first.opened.headers["set-cookie"].split(";")[0]
    first.send(hello(authmethods=["ticket"], authid="joe"))
    assert first.receive()[1] == "ticket"
    first.send([5, ticket, {}])
    assert first.receive()[0] == WELCOME
    first.leave()
    again = connect(url, headers={"Cookie": cookie})
    assert "set-cookie" not in again.opened.headers
    details = again.join(authmethods=["cookie"])
    assert (details["authid"], details["authprovider"]) == ("joe", "cookie")
    again.leave()
    other = connect(url)
    other.send(hello(authmethods=["cookie"]))
    assert other.receive()[0] == ABORT


# --- on other transports, and while the configuration changes ---


def test_on_a_universal_transport(config, make_proxy, connect) -> None:
    port = free_port()
    config.transports.append(
        {
            "type": "universal",
            "id": "all",
            "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": port},
            "rawsocket": {"serializers": ["cbor"]},
            "web": {"paths": {"/": {"type": "none"}, "below": {"type": "path", "paths": {"lp": {"type": "longpoll"}}}}},
        }
    )
    make_proxy(config)
    client = connect(f"http://127.0.0.1:{port}/below/lp")
    client.join()
    with joined(Endpoint("rawsocket", port)) as peer:
        assert client.call(COUNT) == peer.call(COUNT)
        peer.leave()
    client.leave()


def test_the_address_that_a_proxy_in_front_tells_of(config, crossbar: CrossbarRouter, make_proxy, connect) -> None:
    url = config.web()
    config.transports[-1]["endpoint"]["forwarded"] = ["127.0.0.0/8", "::1"]
    make_proxy(config)
    client = connect(url, headers={"X-Forwarded-For": "192.0.2.99"})
    session = client.join()["session"]
    with joined(crossbar.direct["rs-unix"]) as peer:
        told = peer.call("wamp.session.get", session)["transport"]
        peer.leave()
    assert told["peer"].startswith("tcp4:192.0.2.99:")
    client.leave()


@pytest.fixture
def managed(config) -> Callable[..., Any]:
    """Calls of management procedures."""
    endpoint = Endpoint("rawsocket", path=str(config.directory / "manage.sock"))
    config.extra["management"] = {"path": endpoint.path}

    def call(procedure: str, *args: Any, **keys: Any) -> Any:
        with joined(endpoint, "json", "crossbar") as peer:
            result = peer.call(f"crossbar.worker.worker001.{procedure}", *args, **keys)
            peer.leave()
            return result

    return call


def test_the_service_stops_and_starts(config, managed, crossbar: CrossbarRouter, make_proxy, connect) -> None:
    """Clients of a service that is stopped hear of it; others may come once it is there again."""
    before = session_count(crossbar)
    url = config.web()
    proxy = make_proxy(config)
    waiting, away = connect(url), connect(url)
    for client in (waiting, away):
        client.join()
    waiting.begin_to_wait()
    managed("stop_web_transport_service", "web0", "lp")
    assert json.loads(waiting.polling.answer().body)[::2] == [GOODBYE, "wamp.close.system_shutdown"]
    assert away.post("receive").status == 404
    wait_until(lambda: session_count(crossbar) == before, "the sessions have ended")
    for client in (waiting, away):
        client.hang_up()
    managed("start_web_transport_service", "web0", "lp", {"type": "longpoll", "serializers": ["json"]})
    again = connect(url)
    again.join()
    again.leave()
    proxy.check_idle()


def test_the_transport_stops(config, managed, crossbar: CrossbarRouter, make_proxy, connect) -> None:
    """Nobody can ask for messages any more, so the sessions end."""
    before = session_count(crossbar)
    url = config.web()
    proxy = make_proxy(config)
    client = connect(url)
    client.join()
    client.begin_to_wait()
    managed("stop_proxy_transport", "web0")
    assert json.loads(client.polling.answer().body)[0] == GOODBYE
    wait_until(lambda: session_count(crossbar) == before, "the session has ended")
    client.hang_up()
    with pytest.raises(OSError, match="refused"):
        connect(url)
    wait_until(lambda: proxy.census.surplus().total() <= 0, "nothing is left of the transport")


def test_a_session_is_killed_through_the_proxy(config, managed, make_proxy, connect) -> None:
    url = config.web()
    make_proxy(config)
    client = connect(url)
    session = client.join()["session"]
    client.begin_to_wait()
    managed("kill_proxy_session", session, reason="com.example.enough")
    assert json.loads(client.polling.answer().body)[::2] == [GOODBYE, "com.example.enough"]
    client.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    client.join()
    client.leave()
