"""The service ``cgi``: real programs, run by real processors."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.process import wait_until
from support.web import Answer
from support.web_client import WebStage

SHOW = """
import json, os, sys
body = sys.stdin.buffer.read()
print("Content-Type: application/json")
print("Set-Cookie: a=1")
print("Set-Cookie: b=2")
print("Content-Length: 1")
print()
shown = {"env": dict(os.environ), "body": body.decode("latin-1"), "argv": sys.argv, "cwd": os.getcwd()}
print(json.dumps(shown))
"""


@pytest.fixture
def cgi(stage: Callable[..., WebStage], tmp_path: Path) -> Callable[..., WebStage]:
    """A web with a service for Python programs on ``/cgi``: their texts by name."""

    def make(programs: dict[str, str], *, env: dict[str, str] | None = None, **keys: Any) -> WebStage:
        folder = tmp_path / "programs"
        for name, text in programs.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        service = {"type": "cgi", "directory": str(folder), "processor": sys.executable, **keys}
        return stage({"cgi": service}, env=env or {})

    return make


def children(web: WebStage) -> list[psutil.Process]:
    """Of the web's process."""
    return psutil.Process(web.child.pid).children(recursive=True)


def shown(answer: Answer) -> dict[str, Any]:
    """What SHOW has shown."""
    assert answer.status == 200, answer
    value: dict[str, Any] = json.loads(answer.body)
    return value


def test_what_a_program_is_told(cgi: Callable[..., WebStage], tmp_path: Path) -> None:
    web = cgi({"sub/show.py": SHOW}, env={"WP_SECRET": "do not tell", "WP_PASSED": "yes"}, environment=["WP_PASSED"])
    sent = {"X-Custom": "1", "Proxy": "http://evil", "X_Sly": "1", "Content-Type": "text/x", "Authorization": "Basic x"}
    answer = web.ask("/cgi/sub/show.py/more/%C3%BC?a=b%20c&d", "POST", b"the body", sent)
    assert answer.headers["content-type"] == "application/json"
    assert [value for name, value in answer.repeated if name == "set-cookie"] == ["a=1", "b=2"]
    got = shown(answer)
    env = got["env"]
    script = str(tmp_path / "programs/sub/show.py")
    assert got["argv"] == [script]
    assert got["cwd"] == str(tmp_path / "programs/sub")
    assert got["body"] == "the body"
    expected = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(web.port),
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/cgi/sub/show.py/more/%C3%BC?a=b%20c&d",
        "QUERY_STRING": "a=b%20c&d",
        "SCRIPT_NAME": "/cgi/sub/show.py",
        "SCRIPT_FILENAME": script,
        "PATH_INFO": "/more/ü",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": "8",
        "CONTENT_TYPE": "text/x",
        "HTTP_X_CUSTOM": "1",
        "HTTP_AUTHORIZATION": "Basic x",
        "WP_PASSED": "yes",
        "PATH": os.environ["PATH"],
    }
    assert {name: env.get(name) for name in expected} == expected
    assert not {"WP_SECRET", "HTTP_PROXY", "HTTP_X_SLY", "HTTPS", "PYTHONPATH"} & set(env)


def test_paths_without_a_program(cgi: Callable[..., WebStage], tmp_path: Path) -> None:
    web = cgi({"sub/show.py": SHOW, ".hidden.py": SHOW})
    (tmp_path / "outside.py").write_text(SHOW)
    paths = ["", "/", "/sub", "/sub/", "/none.py", "/.hidden.py", "/../outside.py", "/%2e%2e/outside.py"]
    paths += ["/..%2foutside.py", "/sub%2fshow.py", "/sub/show.py%00", "//sub/show.py"]
    assert [web.ask(f"/cgi{path}").status for path in paths] == [404] * len(paths)
    assert shown(web.ask("/cgi/sub/show.py/"))["env"]["PATH_INFO"] == "/"


@pytest.mark.parametrize("size", [0, 100, 3_000_000])
def test_bodies(size: int, cgi: Callable[..., WebStage]) -> None:
    program = "import sys; n = len(sys.stdin.buffer.read()); print(f'Content-Type: a/b\\n\\n{n}', end='')"
    web = cgi({"count.py": program})
    assert web.ask("/cgi/count.py", "POST", b"x" * size).body == str(size).encode()


def test_a_program_that_reads_nothing(cgi: Callable[..., WebStage]) -> None:
    web = cgi({"deaf.py": "print('Content-Type: a/b\\n\\ndeaf', end='')"})
    assert web.ask("/cgi/deaf.py", "POST", b"x" * 3_000_000).body == b"deaf"


@pytest.mark.parametrize(
    ("head", "status", "fields"),
    [
        ("Status: 404 Not here\\nX-A: 1", 404, {"x-a": "1"}),
        ("Location: /elsewhere", 302, {"location": "/elsewhere"}),
        ("Location: /elsewhere\\nStatus: 307 So", 307, {"location": "/elsewhere"}),
        ("Content-Type: a/b\\r\\nX-B:2\\r", 200, {"x-b": "2", "content-type": "a/b"}),
        ("Status: abc", 500, {}),
        ("Status: 100", 500, {}),
        ("no colon here\\nbad name: 1\\nX-C: 3\\nTransfer-Encoding: x\\nConnection: close", 200, {"x-c": "3"}),
    ],
)
def test_heads(head: str, status: int, fields: dict[str, str], cgi: Callable[..., WebStage]) -> None:
    web = cgi({"head.py": f"import sys; sys.stdout.write('{head}\\n\\nbody')".replace("\\\\", "\\")})
    client = web.client()
    for _ in range(2):  # the connection is in order after it
        client.request("GET", "/cgi/head.py")
        response = client.getresponse()
        assert (response.status, response.read()) == (status, b"body")
        got = {name.lower(): value for name, value in response.headers.items()}
        assert {name: got.get(name) for name in fields} == fields
        assert "bad name" not in got
    client.close()


def test_head_requests(cgi: Callable[..., WebStage]) -> None:
    web = cgi({"show.py": SHOW})
    client = web.client()
    for _ in range(2):
        client.request("HEAD", "/cgi/show.py")
        response = client.getresponse()
        assert (response.status, response.read(), response.headers["content-type"]) == (200, b"", "application/json")
    client.close()


def test_output_comes_as_it_is_made(cgi: Callable[..., WebStage], tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    program = f"""
import os, sys, time
print("Content-Type: a/b\\n\\nfirst", end="", flush=True)
while not os.path.exists({str(flag)!r}):
    time.sleep(0.01)
print("second", end="")
"""
    web = cgi({"slow.py": program})
    client = web.client()
    client.request("GET", "/cgi/slow.py")
    response = client.getresponse()
    assert response.read(5) == b"first"
    flag.touch()
    assert response.read() == b"second"
    client.close()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("import sys; sys.exit('it hurts here')", "it hurts here"),
        ("print('no empty line')", "no answer"),
        ("this is no Python", "SyntaxError"),
        ("import sys; sys.stdout.write('X: ' + 'x' * 1000000)", "without the end of its head"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
    ],
)
def test_programs_that_fail(program: str, text: str, cgi: Callable[..., WebStage]) -> None:
    web = cgi({"bad.py": program})
    answer = web.ask("/cgi/bad.py")
    assert answer.status == 502
    assert text not in answer.text
    wait_until(lambda: text in web.log, "the log says why")
    wait_until(lambda: not children(web), "the program is reaped")


def test_endless_complaints_are_bounded(cgi: Callable[..., WebStage]) -> None:
    program = "import sys; sys.stderr.write('x' * 3000000); print('Content-Type: a/b\\n\\nok', end='')"
    web = cgi({"loud.py": program})
    assert web.ask("/cgi/loud.py").body == b"ok"
    wait_until(lambda: "saying" in web.log, "the log has some of it")
    assert len(web.log) < 20_000


@pytest.mark.parametrize("begun", ["", "print('Content-Type: a/b\\n\\nhalf', flush=True)"])
def test_silent_programs_are_ended(begun: str, cgi: Callable[..., WebStage]) -> None:
    program = f"import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{begun}\ntime.sleep(60)"
    web = cgi({"silent.py": program}, timeout=700)
    if begun:
        with pytest.raises(http.client.IncompleteRead):
            web.ask("/cgi/silent.py")
    else:
        assert web.ask("/cgi/silent.py").status == 504
    wait_until(lambda: not children(web), "the program is gone")


def test_the_client_goes(cgi: Callable[..., WebStage]) -> None:
    program = "import time\nprint('Content-Type: a/b\\n\\nx', flush=True)\ntime.sleep(60)"
    web = cgi({"long.py": program})
    client = web.client()
    client.request("GET", "/cgi/long.py")
    client.getresponse().read(1)
    assert children(web)
    client.close()
    client.sock = None
    wait_until(lambda: not children(web), "the program is gone")


def test_the_client_goes_while_its_body_is_read(cgi: Callable[..., WebStage]) -> None:
    web = cgi({"lazy.py": "import time; time.sleep(60)"})
    client = web.client()
    client.request("POST", "/cgi/lazy.py", b"x" * 3_000_000)
    wait_until(lambda: children(web), "it runs")
    client.close()
    wait_until(lambda: not children(web), "the program is gone")


def test_a_client_that_does_not_read_stops_the_program(cgi: Callable[..., WebStage], tmp_path: Path) -> None:
    count, size = tmp_path / "count", 24 << 20
    count.touch()
    program = f"""
import sys
sys.stdout.write("Content-Type: a/b\\n\\n")
for n in range({size >> 16}):
    sys.stdout.write("x" * 65536)
    open({str(count)!r}, "w").write(str(n))
"""
    web = cgi({"big.py": program}, timeout=700)
    client = web.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.request("GET", "/cgi/big.py")
    response = client.getresponse()
    state = [""]

    def has_stopped() -> bool:
        before, state[0] = state[0], count.read_text()
        return before == state[0] != ""

    wait_until(has_stopped, "the program is held up", interval=1.0)
    assert int(state[0]) < (size >> 16) - 1  # and it was silent for longer than it may be, through no fault of its own
    assert len(response.read()) == size
    client.close()


def test_so_many_at_a_time(cgi: Callable[..., WebStage], tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    wait = f"import os, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.01)\n"
    web = cgi({"wait.py": wait + "print('Content-Type: a/b\\n\\nok', end='')"}, max_processes=2)
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(web.ask("/cgi/wait.py").body)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(children(web)) == 2, "two run")
    assert web.ask("/cgi/wait.py").status == 503
    flag.touch()
    for thread in threads:
        thread.join()
    assert got == [b"ok", b"ok"]
    wait_until(lambda: not children(web), "both are reaped")
    assert web.ask("/cgi/wait.py").body == b"ok"


def test_nothing_is_inherited(cgi: Callable[..., WebStage]) -> None:
    web = cgi({"fds.py": "import os; print('Content-Type: a/b\\n\\n' + ' '.join(os.listdir('/proc/self/fd')), end='')"})
    descriptors = {int(word) for word in web.ask("/cgi/fds.py").body.split()}
    assert descriptors <= {0, 1, 2, 3}  # the last one is that of listdir() itself


@pytest.mark.parametrize(
    ("keys", "text"),
    [({"directory": "/no/such/folder"}, "expected a folder"), ({"processor": "no-such-thing"}, "can be run")],
)
def test_what_is_missing_is_found_at_the_start(
    keys: dict[str, str], text: str, stage: Callable[..., WebStage], tmp_path: Path
) -> None:
    web = stage({"cgi": {"type": "cgi", "directory": str(tmp_path), "processor": sys.executable, **keys}})
    assert text in web.failure


def test_a_program_that_goes_on_after_its_answer(cgi: Callable[..., WebStage]) -> None:
    program = "import os, time\nprint('Content-Type: a/b\\n\\nok', end='', flush=True)\nos.close(1)\ntime.sleep(60)"
    web = cgi({"on.py": program}, timeout=1000)
    assert web.ask("/cgi/on.py").body == b"ok"
    wait_until(lambda: not children(web), "the program is ended when its time is up")
