"""The service ``wsgi``: applications in threads, and what they are told."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.certificates import certificates
from support.process import wait_until
from support.web_client import WebStage

_names = itertools.count()


@pytest.fixture
def wsgi(stage: Callable[..., WebStage], tmp_path: Path) -> Callable[..., WebStage]:
    """A web with an application on a path: the text of its module, which has the application as ``app``."""

    def make(text: str, path: str = "app", web: dict[str, Any] | None = None, **keys: Any) -> WebStage:
        name = f"wsgi_test_app_{next(_names)}"
        folder = tmp_path / "web0"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
        return stage({path: {"type": "wsgi", "module": name, "object": "app", **keys}}, **(web or {}))

    return make


SHOW = """
import json
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    shown = {name: value for name, value in environ.items() if isinstance(value, (str, bool))}
    data = json.dumps({"environ": shown, "body": body.decode("latin-1")}).encode()
    start_response("200 Fine", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]
"""


def test_what_an_application_is_told(wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(SHOW)
    answer = web.ask("/app/a/%C3%BC?q=1", "POST", b"the body", {"X-One": "1", "Proxy": "http://evil"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    got = json.loads(answer.body)
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/a/\xc3\xbc",
        "QUERY_STRING": "q=1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(web.port),
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": "8",
        "HTTP_X_ONE": "1",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
    }
    assert {name: got["environ"].get(name) for name in expected} == expected
    assert "HTTP_PROXY" not in got["environ"]
    assert got["body"] == "the body"


def test_on_the_root(wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(SHOW, "/")
    for asked, info in (("/", "/"), ("/a/b", "/a/b"), ("/a/", "/a/")):
        environ = json.loads(web.ask(asked).body)["environ"]
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", info)


def test_over_tls_and_a_unix_socket(wsgi: Callable[..., WebStage], tmp_path: Path) -> None:
    pki = certificates(tmp_path / "pki")
    tls = {"key": str(pki.server.key), "certificate": str(pki.server.certificate), "ca": pki.ca}
    environ = json.loads(wsgi(SHOW, web=tls).ask("/app").body)["environ"]
    assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")
    environ = json.loads(wsgi(SHOW, web={"unix": str(tmp_path / "s")}).ask("/app").body)["environ"]
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"]) == ("", "80")


def test_forms_are_the_applications(wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(SHOW)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert json.loads(web.ask("/app", "POST", "a=b&c=d", form).body)["body"] == "a=b&c=d"


def test_pieces_and_the_older_way_to_write(wsgi: Callable[..., WebStage], tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    web = wsgi(f"""
import os, time
def app(environ, start_response):
    write = start_response("200 OK", [("X-A", "1"), ("X-A", "2")])
    write(b"one ")
    yield b"two "
    while not os.path.exists({str(flag)!r}):
        time.sleep(0.01)
    yield b"three"
""")
    client = web.client()
    client.request("GET", "/app")
    response = client.getresponse()
    assert response.headers.get_all("x-a") == ["1", "2"]
    assert response.read(8) == b"one two "
    flag.touch()
    assert response.read() == b"three"
    client.request("HEAD", "/app")
    assert client.getresponse().read() == b""
    client.close()


def test_several_at_a_time(wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(
        """
import threading
meeting = threading.Barrier(4)
def app(environ, start_response):
    meeting.wait(20)
    start_response("200 OK", [])
    return [threading.current_thread().name.encode()]
""",
        maxthreads=4,
    )
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(web.ask("/app").body)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 4


BUSY = """
import threading
go_on, running = threading.Event(), []
def app(environ, start_response):
    if environ["PATH_INFO"] == "/go":
        start_response("200 OK", [])
        go_on.set()
        return [b""]
    running.append(1)
    go_on.wait(20)
    start_response("200 OK", [])
    return [b"done"]
"""


def test_too_many_requests_are_refused(wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(BUSY, maxthreads=1, max_requests=2)
    clients = [web.client() for _ in range(2)]
    for client in clients:
        client.request("GET", "/app")
    wait_until(lambda: web.ask("/app").status == 503, "no more are taken")
    for client in clients:
        client.close()  # who goes while it waits makes room once it is its turn


def test_clients_that_go_make_no_room_before_their_turn(wsgi: Callable[..., WebStage], tmp_path: Path) -> None:
    """What waits for a thread is bounded, whoever goes meanwhile; for one that has gone, nothing is done."""
    go = tmp_path / "go"
    text = f"""
import os, time
runs = []
def app(environ, start_response):
    runs.append(1)
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)
    start_response("200 OK", [])
    return [str(len(runs)).encode()]
"""
    web = wsgi(text, maxthreads=1, max_requests=3)
    clients = [web.client() for _ in range(3)]
    for client in clients:
        client.request("GET", "/app")
    wait_until(lambda: web.ask("/app").status == 503, "no more are taken")
    for client in clients[1:]:
        client.close()
    for _ in range(20):
        assert web.ask("/app").status == 503
    go.touch()
    assert clients[0].getresponse().read() == b"1"
    clients[0].close()
    wait_until(lambda: web.ask("/app").status == 200, "there is room again")
    assert web.ask("/app").body == b"3", "the two that answered, and this one"


def test_a_field_cannot_pass_for_another_one(wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(SHOW)
    sent = {"X-Real-IP": "192.0.2.1", "X_Real_IP": "198.51.100.1", "X-Real_IP": "198.51.100.1"}
    environ = json.loads(web.ask("/app", headers=sent).body)["environ"]
    assert environ["HTTP_X_REAL_IP"] == "192.0.2.1"


def test_stopping_does_not_wait_for_an_application_that_hangs(wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(BUSY)
    client = web.client()
    client.request("GET", "/app")
    web.stop()
    web.failure = "stopped"
    with pytest.raises((OSError, http.client.HTTPException)):
        client.getresponse()
    client.close()


def test_a_client_that_does_not_read_stops_the_application(wsgi: Callable[..., WebStage], tmp_path: Path) -> None:
    count, pieces = tmp_path / "count", 400
    count.touch()
    web = wsgi(f"""
def app(environ, start_response):
    start_response("200 OK", [])
    for n in range({pieces}):
        open({str(count)!r}, "w").write(str(n))
        yield b"x" * 65536
""")
    client = web.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.request("GET", "/app")
    response = client.getresponse()
    state = [""]

    def has_stopped() -> bool:
        before, state[0] = state[0], count.read_text()
        return before == state[0] != ""

    wait_until(has_stopped, "the application is held up", interval=0.5)
    assert int(state[0]) < pieces - 1
    assert len(response.read()) == pieces << 16
    client.close()


def test_the_client_goes(wsgi: Callable[..., WebStage], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    web = wsgi(f"""
class Endless:
    def __iter__(self):
        return self
    def __next__(self):
        return b"x" * 65536
    def close(self):
        open({str(closed)!r}, "w").close()
def app(environ, start_response):
    start_response("200 OK", [])
    return Endless()
""")
    client = web.client()
    client.request("GET", "/app")
    client.getresponse().read(100)
    client.close()
    client.sock = None
    wait_until(closed.exists, "the application is told")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("raise KeyError('secret detail')", 500),
        ("start_response('200 OK', []); raise KeyError('secret detail')", 500),
        ("start_response('200 OK', [('A', b'octets')])", 500),
        ("start_response('200 OK', [('Content-Length', '100')]); yield b'half'; raise KeyError('x')", None),
    ],
)
def test_applications_that_fail(body: str, outcome: int | None, wsgi: Callable[..., WebStage]) -> None:
    web = wsgi(f"def app(environ, start_response):\n    {body}\n")
    if outcome is None:
        with pytest.raises(http.client.IncompleteRead):
            web.ask("/app")
    else:
        answer = web.ask("/app")
        assert answer.status == outcome
        assert b"secret" not in answer.body
    wait_until(lambda: "Error" in web.log, "the log says more")
    web.is_log_clean = False


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        ("import no_such_module", {}, "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", {}, "cannot be imported: SystemExit"),
        ("app = 3", {}, "expected a WSGI application"),
        ("", {}, "expected a WSGI application"),
    ],
)
def test_applications_that_cannot_be_used(
    text: str, keys: dict[str, Any], message: str, wsgi: Callable[..., WebStage]
) -> None:
    assert message in wsgi(text, **keys).failure
