"""X-Forwarded-For and Forwarded: from listed proxies they name the client, from others they are talk."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import missing
from support import raw
from support.balancers import find_haproxy, haproxy
from support.endpoints import Endpoint, free_port
from support.forwarding import Stage
from support.process import wait_until

LISTED = ["127.0.0.1", "10.0.0.0/8", "unix"]
CLIENT = "tcp4:198.51.100.7:0"
V1 = b"PROXY TCP4 10.0.0.9 127.0.0.1 4711 80\r\n"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Listeners that believe whom they list, and one that believes nobody."""
    stage = Stage(
        tmp_path_factory.mktemp("forwarded"),
        {
            "websocket": {"forwarded": LISTED},
            "wss": {"tls": True, "forwarded": LISTED},
            "unix": {"unix": True, "forwarded": ["unix"]},
            "chosen": {"forwarded": {"networks": LISTED, "header": "forwarded"}},
            "both": {"forwarded": ["10.0.0.0/8"], "proxy_protocol": ["127.0.0.1"]},
            "nobody": {},
            "universal": {"kind": "universal", "forwarded": LISTED},
        },
    )
    yield stage
    stage.close()


def seen(stage: Stage, name: str, *, sock: socket.socket | None = None, **headers: str) -> str:
    """Whom the router gets told as the client."""
    endpoint = stage.fronts[name]
    sock = sock or endpoint.connect()
    wired = stage.secured(sock) if name == "wss" else sock
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    peer: str = stage.seen(raw.dial(endpoint, sock=wired, **named))["peer"]
    return peer


@pytest.mark.parametrize("name", ["websocket", "wss", "unix"])
@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_For": "1.1.1.1, 198.51.100.7, 10.0.0.3"},
        {"Forwarded": 'for="1.1.1.1", For=198.51.100.7;proto=https'},
    ],
    ids=["x-forwarded-for", "forwarded"],
)
def test_a_listed_proxy_names_the_client(name: str, headers: dict[str, str], stage: Stage) -> None:
    if name == "unix" and "X_Forwarded_For" in headers:
        headers = {"X_Forwarded_For": "1.1.1.1, 198.51.100.7"}
    assert seen(stage, name, **headers) == CLIENT


def test_nobody_else_does(stage: Stage) -> None:
    sock = socket.create_connection(("127.0.0.1", stage.fronts["websocket"].port), 10, ("127.0.1.1", 0))
    own = sock.getsockname()
    assert seen(stage, "websocket", sock=sock, X_Forwarded_For="198.51.100.7") == f"tcp4:127.0.1.1:{own[1]}"
    assert seen(stage, "nobody", X_Forwarded_For="198.51.100.7").startswith("tcp4:127.0.0.1:")


def test_behind_the_proxy_protocol(stage: Stage) -> None:
    """First it is asked who has connected to the balancer, then whether to believe that one."""
    sock = stage.fronts["both"].connect()
    sock.sendall(V1)
    assert seen(stage, "both", sock=sock, X_Forwarded_For="198.51.100.7") == CLIENT
    sock = stage.fronts["both"].connect()
    sock.sendall(V1.replace(b"10.0.0.9", b"192.0.2.9"))
    assert seen(stage, "both", sock=sock, X_Forwarded_For="198.51.100.7") == "tcp4:192.0.2.9:4711"


def test_one_header_can_be_chosen(stage: Stage) -> None:
    headers = {"X_Forwarded_For": "1.1.1.1", "Forwarded": "for=198.51.100.7"}
    assert seen(stage, "chosen", **headers) == CLIENT
    with pytest.raises(raw.HandshakeRefused, match="400") as caught:
        seen(stage, "websocket", **headers)
    assert b"contradict" in caught.value.answer


@pytest.mark.parametrize("value", ['for="198.51.100.7', "for=198.51.100.7;for=1.1.1.1", "198.51.100.7"])
def test_a_malformed_header_is_refused(value: str, stage: Stage) -> None:
    with pytest.raises(raw.HandshakeRefused, match="400"):
        seen(stage, "websocket", Forwarded=value)


def test_the_log_names_the_client(stage: Stage) -> None:
    seen(stage, "websocket", X_Forwarded_For="198.51.100.99")
    assert "from tcp4:198.51.100.99:0" in stage.proxy.child.output


HAPROXY = """\
listen both
    mode http
    bind 127.0.0.1:{x}
    option forwardfor
    http-request del-header Forwarded
    server proxy 127.0.0.1:{websocket}
listen forwarded
    mode http
    bind 127.0.0.1:{forwarded}
    http-request set-header Forwarded for=%[src]
    server proxy 127.0.0.1:{chosen}
"""


@pytest.mark.peers
@pytest.mark.parametrize("name", ["x", "forwarded"])
def test_behind_haproxy(name: str, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that a client says for itself changes whom it is taken for."""
    program = find_haproxy()
    if program is None:
        missing("HAProxy", "apt-get install haproxy")
    assert program is not None
    ports = {"x": free_port(), "forwarded": free_port()}
    fronts: dict[str, Any] = {key: stage.fronts[key].port for key in ("websocket", "chosen")}
    with haproxy(program, tmp_path_factory.mktemp("haproxy"), HAPROXY.format(**ports, **fronts), list(ports.values())):
        for lie in ({}, {"X-Forwarded-For": "1.1.1.1"}, {"Forwarded": "for=1.1.1.1"}):
            sock = socket.create_connection(("127.0.0.1", ports[name]), 10, ("127.0.2.9", 0))
            client = raw.dial(Endpoint("websocket", ports[name]), sock=sock, **lie)
            assert stage.seen(client)["peer"] == "tcp4:127.0.2.9:0"


def test_web_services_see_the_client(stage: Stage) -> None:
    assert stage.page("universal", X_Forwarded_For="1.1.1.1, 198.51.100.77, 10.0.0.3") == 200
    wait_until(
        lambda: re.search(r"198\.51\.100\.77.*GET / ", stage.proxy.child.output), "the access log names the client"
    )
    assert stage.page("universal", Forwarded='for="') == 400


def test_the_status_page_is_refused_likewise(stage: Stage) -> None:
    """What only looks is no exception."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.fronts["websocket"].port, timeout=10)
    connection.request("GET", "/ws", headers={"Forwarded": 'for="'})
    assert connection.getresponse().status == 400
    connection.close()
