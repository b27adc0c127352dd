"""publisher, caller and webhook through a running proxy, over HTTP and HTTPS; and Crossbar.io's own, side by side."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conftest import missing, session_count
from support.bridge import KEY, SECRET, signed
from support.census import Census
from support.certificates import Certificates
from support.endpoints import free_port
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ERROR, EVENT, INTERRUPT, INVOCATION, YIELD, Peer, joined
from support.routers import REALM, CrossbarRouter, XconnRouter, find_crossbar

TOPIC = "com.example.bridge.news"
HOOK_TOPIC = "com.example.bridge.hook"
PROCEDURE = "com.example.bridge.add2"
GITHUB_SECRET = "not known to strangers"
OURS = ["http", "https", "unix", "universal"]
FRONTS = [*OURS, "crossbar"]
JSON = {"Content-Type": "application/json"}


def services() -> dict[str, Any]:
    """Paths that Crossbar.io takes as well."""
    who = {"realm": REALM, "role": "anonymous"}
    signing = {"key": KEY, "secret": SECRET}
    return {
        "/": {"type": "json", "value": "here"},
        "call": {"type": "caller", **who},
        "publish": {"type": "publisher", **who},
        "signed-call": {"type": "caller", **who, "options": {**signing, "timestamp_delta_limit": 60}},
        "signed-publish": {"type": "publisher", **who, "options": signing},
        "small": {"type": "caller", **who, "options": {"post_body_limit": 200}},
        "tls": {"type": "caller", **who, "options": {"require_tls": True}},
        "near": {"type": "caller", **who, "options": {"require_ip": ["127.0.0.0/8"]}},
        "far": {"type": "caller", **who, "options": {"require_ip": ["10.0.0.0/8"]}},
        "hook": {"type": "webhook", **who, "options": {"topic": HOOK_TOPIC, "error_response": "sorry"}},
        "github": {"type": "webhook", **who, "options": {"topic": HOOK_TOPIC, "github_secret": GITHUB_SECRET}},
    }


class BridgeCrossbar(CrossbarRouter):
    """Crossbar.io with the same services in its router worker."""

    def __init__(self, directory: Path, program: str) -> None:
        self.web_port = free_port()
        super().__init__(directory, program)

    def _config(self, proxy: Any) -> dict[str, Any]:
        config = super()._config(proxy)
        web = {"type": "web", "endpoint": {"type": "tcp", "port": self.web_port}, "paths": services()}
        config["workers"][0]["transports"].append(web)
        return config


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, connect: Callable[[str], Any]) -> None:
        super().__init__("localhost", timeout=15)
        self._path = path
        self._connect = connect

    def connect(self) -> None:
        self.sock = self._connect(self._path)


class Web:
    """Where the services are, over several ways."""

    def __init__(self, connections: dict[str, Callable[[], http.client.HTTPConnection]]) -> None:
        self._connections = connections

    def connection(self, front: str) -> http.client.HTTPConnection:
        return self._connections[front]()

    def start(
        self, front: str, target: str, body: Any = b"", headers: dict[str, str] | None = None, method: str = "POST"
    ) -> http.client.HTTPConnection:
        """Send a request."""
        connection = self.connection(front)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, f"/{target}", data, JSON if headers is None else headers)
        return connection

    def ask(self, *args: Any, **keys: Any) -> Answer:
        """Send a request, and wait for the answer."""
        return finished(self.start(*args, **keys))


class Answer:
    """To a request."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def finished(connection: http.client.HTTPConnection) -> Answer:
    """Wait for the answer."""
    with closing(connection):
        return Answer(connection.getresponse())


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeCrossbar]:
    program = find_crossbar()
    if program is None:
        missing("Crossbar.io", "pip install crossbar into .venv-peers, or name the program in $CROSSBAR")
    assert program is not None
    router = BridgeCrossbar(tmp_path_factory.mktemp("bridge-crossbar"), program)
    router.wait_ready()
    yield router
    router.stop()


@pytest.fixture(scope="module")
def _proxy(
    router: BridgeCrossbar, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ProxyProcess, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("bridge-proxy")
    certificates = Certificates(folder)
    config = Config(folder)
    config.backend("crossbar", router.backends["crossbar"])
    nowhere = {"type": "caller", "realm": "realm2", "role": "anonymous"}
    paths = {**services(), "nowhere": nowhere}
    ports = {name: free_port() for name in ("http", "https", "universal")}
    path = str(folder / "web.sock")
    endpoints: list[dict[str, Any]] = [
        {"type": "tcp", "port": ports["http"]},
        {"type": "tcp", "port": ports["https"], "tls": certificates.server.tls},
        {"type": "unix", "path": path},
    ]
    config.transports += [
        {"type": "web", "id": f"web{number}", "endpoint": endpoint, "paths": paths}
        for number, endpoint in enumerate(endpoints)
    ]
    universal = {"type": "tcp", "port": ports["universal"], "tls": certificates.server.tls}
    config.transports.append({"type": "universal", "id": "web9", "endpoint": universal, "web": {"paths": paths}})
    context = ssl.create_default_context(cafile=str(certificates.ca))
    proxy = ProxyProcess(config)
    connections: dict[str, Any] = {
        "http": lambda: http.client.HTTPConnection("127.0.0.1", ports["http"], timeout=15),
        "https": lambda: http.client.HTTPSConnection("127.0.0.1", ports["https"], timeout=15, context=context),
        "universal": lambda: http.client.HTTPSConnection("127.0.0.1", ports["universal"], timeout=15, context=context),
        "unix": lambda: UnixConnection(path, _dial),
        "crossbar": lambda: http.client.HTTPConnection("127.0.0.1", router.web_port, timeout=15),
    }
    # The service session, once there is one, stays.
    assert Web(connections).ask("http", "call", {"procedure": "wamp.session.count"}).status == 200
    proxy.census = Census(proxy.pid)
    yield proxy, connections
    proxy.stop()


def _dial(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(15)
    sock.connect(path)
    return sock


@pytest.fixture
def web(_proxy: tuple[ProxyProcess, dict[str, Any]]) -> Iterator[Web]:
    proxy, connections = _proxy
    yield Web(connections)
    proxy.check_idle()
    proxy.check_log()


@pytest.fixture
def peer(router: BridgeCrossbar) -> Iterator[Peer]:
    before = session_count(router)
    with joined(router.direct["ws-tcp"]) as peer:
        yield peer
        peer.leave()
    wait_until(lambda: session_count(router) <= before, "the test's session has ended")


# --- calls ---


@pytest.mark.parametrize("front", FRONTS)
def test_a_call(web: Web, peer: Peer, front: str) -> None:
    peer.register(PROCEDURE)
    said = {"procedure": PROCEDURE, "args": [2, "drei", [None]], "kwargs": {"unit": "m", "ä": {"b": 1.5}}}
    waiting = web.start(front, "call", said)
    invocation = peer.recv_type(INVOCATION)
    assert invocation[4:] == [said["args"], said["kwargs"]]
    peer.send([YIELD, invocation[1], {}, ["sum", 5], {"rest": "ü"}])
    answer = finished(waiting)
    assert answer.status == 200
    assert answer.json == {"args": ["sum", 5], "kwargs": {"rest": "ü"}}
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert "no-store" in answer.headers["cache-control"]


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("value", [5, None, "text", [], {"a": [1]}])
def test_a_result(web: Web, peer: Peer, front: str, value: Any) -> None:
    peer.register(PROCEDURE)
    waiting = web.start(front, "call", {"procedure": PROCEDURE})
    invocation = peer.recv_type(INVOCATION)
    peer.send([YIELD, invocation[1], {}, [value]])
    assert finished(waiting).json == {"args": [value]}


@pytest.mark.parametrize("front", FRONTS)
def test_no_result(web: Web, peer: Peer, front: str) -> None:
    peer.register(PROCEDURE)
    waiting = web.start(front, "call", {"procedure": PROCEDURE})
    peer.send([YIELD, peer.recv_type(INVOCATION)[1], {}])
    assert finished(waiting).json == {"args": [None]}


@pytest.mark.parametrize("front", FRONTS)
def test_an_error(web: Web, peer: Peer, front: str) -> None:
    peer.register(PROCEDURE)
    waiting = web.start(front, "call", {"procedure": PROCEDURE})
    invocation = peer.recv_type(INVOCATION)
    peer.send([ERROR, INVOCATION, invocation[1], {}, "com.example.bad", ["why", 1], {"more": 2}])
    answer = finished(waiting)
    assert answer.status == 200
    assert answer.json == {"error": "com.example.bad", "args": ["why", 1], "kwargs": {"more": 2}}


@pytest.mark.parametrize("front", FRONTS)
def test_nobody_has_it(web: Web, front: str) -> None:
    answer = web.ask(front, "call", {"procedure": "com.example.bridge.nobody"})
    assert answer.status == 200
    assert answer.json["error"] == "wamp.error.no_such_procedure"


@pytest.mark.parametrize("front", OURS)
def test_keywords_that_autobahn_would_take_for_its_own(web: Web, peer: Peer, front: str) -> None:
    peer.register(PROCEDURE)
    odd = {"options": 1, "procedure": "x", "self": 2, "callee": 3, "enc_algo": 4, "error": 5}
    waiting = web.start(front, "call", {"procedure": PROCEDURE, "kwargs": odd})
    invocation = peer.recv_type(INVOCATION)
    assert invocation[5] == odd
    peer.send([YIELD, invocation[1], {}, [], odd])
    assert finished(waiting).json == {"kwargs": odd}
    waiting = web.start(front, "call", {"procedure": PROCEDURE})
    invocation = peer.recv_type(INVOCATION)
    peer.send([ERROR, INVOCATION, invocation[1], {}, "com.example.bad", [], odd])
    assert finished(waiting).json == {"error": "com.example.bad", "args": [], "kwargs": odd}


def test_what_would_end_the_session_for_all_is_refused(web: Web, router: BridgeCrossbar) -> None:
    before = web.ask("http", "call", {"procedure": "wamp.session.list"}).json["args"][0]
    bad = [b"[1e999]", b"[NaN]", b'["\\ud800"]', b"[%d]" % 2**70, b"[" * 90 + b"]" * 90]
    for args in bad:
        body = b'{"procedure": "%s", "args": %s}' % (PROCEDURE.encode(), args)
        assert web.ask("http", "call", body).status == 400
    for uri in ("", "a b", "wamp", "wamp.session.no", "A.b", "a.#", "\u00fc.b", 5):
        assert web.ask("http", "call", {"procedure": uri}).status in (200, 400)
        assert web.ask("http", "publish", {"topic": uri}).status in (200, 400)
    assert web.ask("http", "call", {"procedure": "wamp.session.list"}).json["args"][0] == before


@pytest.mark.parametrize("front", OURS)
def test_a_client_that_goes_away_interrupts_the_callee(web: Web, peer: Peer, front: str) -> None:
    peer.register(PROCEDURE)
    waiting = web.start(front, "call", {"procedure": PROCEDURE})
    invocation = peer.recv_type(INVOCATION)
    waiting.close()
    assert peer.recv_type(INTERRUPT)[1] == invocation[1]
    assert web.ask(front, "call", {"procedure": "wamp.session.count"}).status == 200


def test_many_requests_over_one_connection(web: Web) -> None:
    for front in OURS:
        with closing(web.connection(front)) as connection:
            for _ in range(5):
                connection.request("POST", "/call", b'{"procedure": "wamp.session.count"}', JSON)
                assert Answer(connection.getresponse()).status == 200
                connection.request("GET", "/call")
                assert Answer(connection.getresponse()).status == 405


def test_a_killed_session_is_made_anew(web: Web, peer: Peer) -> None:
    peer.register(PROCEDURE)
    waiting = web.start("http", "call", {"procedure": PROCEDURE})
    caller = peer.recv_type(INVOCATION)[3]["caller"]
    peer.call("wamp.session.kill", caller, reason="com.example.out", message="go")
    answer = finished(waiting)
    assert answer.status == 502
    assert answer.json["error"] == "wamp.error.unavailable"
    assert web.ask("http", "call", {"procedure": "wamp.session.count"}).status == 200


def test_no_route(web: Web) -> None:
    for front in OURS:
        answer = web.ask(front, "nowhere", {"procedure": PROCEDURE})
        assert answer.status == 503
        assert answer.json["error"] == "wamp.error.unavailable"
        assert b"realm2" not in answer.body
        assert answer.headers["retry-after"] == "5"


# --- events ---


@pytest.mark.parametrize("front", FRONTS)
def test_an_event(web: Web, peer: Peer, front: str) -> None:
    peer.subscribe(TOPIC)
    answer = web.ask(front, "publish", {"topic": TOPIC, "args": [1, "zwei"], "kwargs": {"three": [3]}})
    event = peer.recv_type(EVENT)
    assert event[4:] == [[1, "zwei"], {"three": [3]}]
    assert answer.status == 200
    assert answer.json == {"id": event[2]}


@pytest.mark.parametrize("front", FRONTS)
def test_an_event_for_some(web: Web, peer: Peer, router: BridgeCrossbar, front: str) -> None:
    peer.subscribe(TOPIC)
    with joined(router.direct["rs-tcp"]) as other:
        other.subscribe(TOPIC)
        for options in ({"eligible": peer.session}, {"exclude": [other.session]}):
            web.ask(front, "publish", {"topic": TOPIC, "args": ["some"], "options": options})
            assert peer.recv_type(EVENT)[4] == ["some"]
        web.ask(front, "publish", {"topic": TOPIC, "args": ["all"]})
        assert other.recv_type(EVENT)[4] == ["all"]
        assert peer.recv_type(EVENT)[4] == ["all"]
        other.leave()


# --- signed ---


@pytest.mark.parametrize("front", FRONTS)
def test_signed_requests(web: Web, peer: Peer, front: str) -> None:
    peer.subscribe(TOPIC)
    body = json.dumps({"topic": TOPIC, "args": ["signed"]}).encode()
    assert web.ask(front, f"signed-publish?{signed(body)}", body).status == 200
    assert peer.recv_type(EVENT)[4] == ["signed"]
    body = b'{"procedure": "wamp.session.count"}'
    assert web.ask(front, f"signed-call?{signed(body)}", body).json["args"][0] > 0
    for query, status in [
        (signed(body, secret="wrong"), 401),
        (signed(body, key="other"), 401),
        (signed(body + b" "), 401),
        (signed(body, timestamp="2011-10-14T16:59:51.123Z"), 400),
        (signed(body, timestamp="yesterday"), 400),
        (signed(body, seq="x"), 400),
        (signed(body, nonce="x"), 400),
        (signed(body).replace("signature=", "s="), 400),
        (signed(body).replace("nonce=", "n="), 400),
        (signed(body).replace("timestamp=", "t="), 400),
        (signed(body).replace("key=", "k="), 400),
        ("", 400),
    ]:
        answer = web.ask(front, f"signed-call?{query}", body)
        assert answer.status == status, query
        assert set(answer.json) == {"error", "args", "kwargs"}


@pytest.mark.parametrize("front", OURS)
def test_a_signed_request_comes_once(web: Web, front: str) -> None:
    body = b'{"procedure": "wamp.session.count"}'
    query = signed(body)
    assert web.ask(front, f"signed-call?{query}", body).status == 200
    assert web.ask(front, f"signed-call?{query}", body).status == 401


# --- webhooks ---


@pytest.mark.parametrize("front", FRONTS)
def test_a_webhook(web: Web, peer: Peer, front: str) -> None:
    peer.subscribe(HOOK_TOPIC)
    headers = {"Content-Type": "text/plain", "X-Event": "push"}
    answer = web.ask(front, "hook", "payload=ä".encode(), headers)
    assert answer.status == 202
    assert answer.body == b"OK"
    (event,) = peer.recv_type(EVENT)[4]
    assert event["body"] == "payload=ä"
    assert event["headers"]["X-Event"] == ["push"]
    assert event["headers"]["Content-Type"] == ["text/plain"]
    assert event["headers"]["Content-Length"] == ["10"]


@pytest.mark.parametrize(
    ("front", "name"), [*((front, "sha256") for front in OURS), ("http", "sha1"), ("crossbar", "sha1")]
)
def test_github(web: Web, peer: Peer, front: str, name: str) -> None:
    peer.subscribe(HOOK_TOPIC)
    body = b"payload=%7B%7D"
    header = "X-Hub-Signature-256" if name == "sha256" else "X-Hub-Signature"
    signature = f"{name}={hmac.new(GITHUB_SECRET.encode(), body, name).hexdigest()}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert web.ask(front, "github", body, {**form, header: signature}).status == 202
    assert peer.recv_type(EVENT)[4][0]["body"] == body.decode()
    assert web.ask(front, "github", body + b" ", {**form, header: signature}).status == 400
    assert web.ask(front, "github", body, form).status == 400


# --- requests that are refused ---

REFUSED: list[tuple[str, str, bytes, dict[str, str] | None, int]] = [
    ("GET", "call", b"", None, 405),
    ("DELETE", "publish", b"", None, 405),
    ("POST", "call", b"", None, 400),
    ("POST", "call", b"{", None, 400),
    ("POST", "call", b"[]", None, 400),
    ("POST", "call", b"{}", None, 400),
    ("POST", "publish", b"{}", None, 400),
    ("POST", "call", b'{"procedure": "\xff"}', None, 400),
    ("POST", "call", b"{}", {"Content-Type": "text/plain"}, 400),
    ("POST", "call", b"{}", {"Content-Type": "application/json; charset=latin-1"}, 400),
    ("POST", "hook", b"\xff", None, 400),
    ("POST", "hook", b"x", {"Content-Type": "text/plain; charset=latin-1"}, 400),
    ("POST", "github", b"x", None, 400),
    ("POST", "small", b'{"procedure": "wamp.session.count"}'.ljust(201), None, 413),
    ("POST", "small", b'{"procedure": "wamp.session.count"}'.ljust(200), None, 200),
    ("POST", "near", b'{"procedure": "wamp.session.count"}', None, 200),
    ("POST", "far", b'{"procedure": "wamp.session.count"}', None, 400),
    ("PUT", "call", b'{"procedure": "wamp.session.count"}', None, 200),
    ("POST", "call/below/it", b'{"procedure": "wamp.session.count"}', None, 200),
    ("POST", "call", b'{"procedure": "wamp.session.count"}', {}, 200),
    ("OPTIONS", "call", b"", {"Origin": "https://example.org"}, 200),
]


@pytest.mark.parametrize("front", FRONTS)
def test_refused_as_crossbar_does(web: Web, front: str) -> None:
    for method, path, body, headers, status in REFUSED:
        if front == "unix" and path == "near":
            continue  # there is no address
        answer = web.ask(front, path, body, headers, method=method)
        assert answer.status == status, (method, path, body, answer.body)
        if status >= 400:
            assert set(answer.json) == {"error", "args", "kwargs"}
        assert answer.headers["access-control-allow-credentials"] == "true"
        if method == "OPTIONS":
            assert answer.headers["access-control-allow-origin"] == "https://example.org"
            assert "POST" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    ("front", "status"), [("http", 400), ("https", 200), ("unix", 400), ("universal", 200), ("crossbar", 400)]
)
def test_tls_only(web: Web, front: str, status: int) -> None:
    assert web.ask(front, "tls", {"procedure": "wamp.session.count"}).status == status


# --- the documentation's signing client ---


def test_the_signature_in_a_few_lines(web: Web) -> None:
    body = b'{"procedure": "wamp.session.count"}'
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    mac = hmac.new(SECRET.encode(), f"{KEY}{now}17".encode() + body, hashlib.sha256)
    signature = base64.urlsafe_b64encode(mac.digest()).decode()
    query = f"key={KEY}&timestamp={now}&seq=1&nonce=7&signature={signature}"
    assert web.ask("https", f"signed-call?{query}", body).status == 200


# --- proxies of their own ---


def one_proxy(config: Config, backend: dict[str, Any]) -> Web:
    """Configure caller and publisher over HTTP in front of a router."""
    port = free_port()
    config.backend("router", backend)
    endpoint = {"type": "tcp", "port": port}
    config.transports.append({"type": "web", "id": "web1", "endpoint": endpoint, "paths": services()})
    return Web({"http": lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=15)})


@pytest.mark.parametrize("name", ["xconn", "xconn_ws"])
def test_another_router(config: Config, make_proxy: Callable[..., ProxyProcess], xconn: XconnRouter, name: str) -> None:
    web = one_proxy(config, xconn.backends[name])
    proxy = make_proxy(config)
    with joined(xconn.direct["rs-unix"]) as peer:
        peer.subscribe(TOPIC)
        assert web.ask("http", "publish", {"topic": TOPIC, "args": ["\0AQI="]}).json["id"] > 0
        assert peer.recv_type(EVENT)[4] == [b"\x01\x02"]
        proxy.census = Census(proxy.pid)
        peer.register(PROCEDURE)
        waiting = web.start("http", "call", {"procedure": PROCEDURE, "kwargs": {"options": 1}})
        invocation = peer.recv_type(INVOCATION)
        assert invocation[5] == {"options": 1}
        peer.send([YIELD, invocation[1], {}, [b"\xff"], {"callee": 2}])
        assert finished(waiting).json == {"args": ["\0/w=="], "kwargs": {"callee": 2}}
        assert "error" in web.ask("http", "call", {"procedure": "com.example.nobody"}).json
        peer.leave()


def test_the_end_of_the_proxy_is_an_answer(
    config: Config, make_proxy: Callable[..., ProxyProcess], router: BridgeCrossbar, peer: Peer
) -> None:
    web = one_proxy(config, router.backends["crossbar"])
    proxy = make_proxy(config)
    peer.register(PROCEDURE)
    waiting = web.start("http", "call", {"procedure": PROCEDURE})
    peer.recv_type(INVOCATION)
    proxy.stop()
    assert finished(waiting).status == 502


def test_a_type_that_is_not_supported(config: Config, router: BridgeCrossbar) -> None:
    one_proxy(config, router.backends["crossbar"])
    config.transports[0]["paths"]["pages"] = {"type": "wap", "realm": REALM, "role": "anonymous"}
    with pytest.raises(AssertionError, match="not supported"):
        ProxyProcess(config)
