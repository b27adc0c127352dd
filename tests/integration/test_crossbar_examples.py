"""Configurations like those that Crossbar.io shows for its proxy workers, in one of its nodes, unchanged.

The keys and their values are those of its examples (crossbario/crossbar-examples, folder ``proxy``); what differs is
what a test needs: free ports, files of its own, and no other hosts. The node is Crossbar.io's own, the proxy workers
are ours: two of them, which share a port.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config import check
from support import raw
from support.endpoints import Endpoint, free_port
from support.node_command import Crossbar
from support.nodes import Node, our_worker, running
from support.raw import Peer

pytestmark = [pytest.mark.slow, pytest.mark.peers]

SERIALIZERS = ["cbor", "msgpack", "json"]
NODE_KEY = """\
A node key

creator: node1@localhost
created-at: 2026-01-01T00:00:00.000Z
machine-id: 0123456789abcdef0123456789abcdef
public-key-ed25519: 4fe2b96624c758cb6745ff5cb006f4dc38b4421c6d7d0389e14da525a0bc6682
private-key-ed25519: 70726f78792773206578616d706c65206b65792c206e6f207365637265742121
"""
NODE_PUBKEY = "4fe2b96624c758cb6745ff5cb006f4dc38b4421c6d7d0389e14da525a0bc6682"
BACKEND = """\
from autobahn.twisted.wamp import ApplicationSession


class Backend(ApplicationSession):
    async def onJoin(self, details):
        await self.register(lambda x, y: x + y, "com.example.add2")
"""
SCRIPT = b"// autobahn, or something of its name\n"

WEBSOCKET_OPTIONS = {
    "allowed_origins": ["*"],
    "allow_null_origin": True,
    "enable_webstatus": True,
    "max_frame_size": 1048576,
    "max_message_size": 1048576,
    "auto_fragment_size": 65536,
    "fail_by_drop": True,
    "open_handshake_timeout": 2500,
    "close_handshake_timeout": 1000,
    "auto_ping_interval": 10000,
    "auto_ping_timeout": 5000,
    "auto_ping_size": 12,
    "compression": {
        "deflate": {
            "request_no_context_takeover": False,
            "request_max_window_bits": 13,
            "no_context_takeover": False,
            "max_window_bits": 13,
            "memory_level": 5,
        }
    },
}
AUTH = {
    "anonymous": {"type": "static", "role": "anonymous"},
    "ticket": {
        "type": "static",
        "principals": {
            "user1": {"ticket": "secret1", "role": "user"},
            "user2": {"ticket": "secret2", "role": "user"},
        },
    },
}
ROUTES = {"realm1": {"anonymous": "conn1", "restbridge": "conn1", "user": "conn1"}}


class Example:
    """An example in a folder, and where its proxies listen.

    :param folder: gets a ``.crossbar``, which is the node's, and a ``web``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.router_port = free_port(), free_port()
        self.cbdir = folder / ".crossbar"
        self.cbdir.mkdir()
        (self.cbdir / "key.priv").touch(0o600)
        (self.cbdir / "key.priv").write_text(NODE_KEY)
        (folder / "web").mkdir()
        (folder / "web" / "index.html").write_text("<h1>an example</h1>")
        (folder / "web" / "more").mkdir()
        (folder / "web" / "more" / "page.txt").write_text("a page")
        (folder / "backend.py").write_text(BACKEND)
        archive = self.cbdir / "autobahn-v20.1.1.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("autobahn-js-browser-20.1.1/autobahn.min.js", SCRIPT)
        self.digest = hashlib.sha256(archive.read_bytes()).hexdigest()

    # --- parts of configurations ---

    def router(self, transport: dict[str, Any], **keys: Any) -> dict[str, Any]:
        """A router worker whose roles may do everything."""
        allow = {"call": True, "register": True, "publish": True, "subscribe": True}
        disclose = {"caller": True, "publisher": True}
        permission = {"uri": "", "match": "prefix", "allow": allow, "disclose": disclose, "cache": True}
        roles = [{"name": name, "permissions": [permission]} for name in ("anonymous", "restbridge", "user")]
        return {
            "type": "router",
            "options": {"pythonpath": [".."]},
            "realms": [{"name": "realm1", "roles": roles}],
            "transports": [transport],
            **keys,
        }

    @property
    def unix_router(self) -> dict[str, Any]:
        """A transport of the router, for proxies that it believes."""
        return {
            "type": "rawsocket",
            "endpoint": {"type": "unix", "path": "router.sock"},
            "options": {"max_message_size": 1048576},
            "serializers": ["cbor"],
            "auth": {"anonymous-proxy": {"type": "static"}},
        }

    @property
    def tcp_router(self) -> dict[str, Any]:
        """Likewise, for proxies whose key it knows."""
        principals = {"node1": {"realm": "realm1", "role": "anonymous", "authorized_keys": [NODE_PUBKEY]}}
        return {
            "type": "rawsocket",
            "endpoint": {"type": "tcp", "port": self.router_port},
            "serializers": ["cbor"],
            "auth": {"cryptosign-proxy": {"type": "static", "principals": principals}},
        }

    def unix_connection(self, **keys: Any) -> dict[str, Any]:
        """A connection to the first of them."""
        endpoint = {"type": "unix", "path": "router.sock"}
        transport = {"type": "rawsocket", "endpoint": endpoint, "url": "ws://localhost", "serializer": "cbor"}
        return {"transport": transport, **keys}

    def tcp_connection(self) -> dict[str, Any]:
        """A connection to the second."""
        endpoint = {"type": "tcp", "host": "localhost", "port": self.router_port}
        url = f"rs://localhost:{self.router_port}"
        transport = {"type": "rawsocket", "endpoint": endpoint, "serializer": "cbor", "url": url}
        return {"transport": transport, "auth": {"cryptosign-proxy": {"type": "static"}}}

    @property
    def endpoint(self) -> dict[str, Any]:
        """Where both proxies listen."""
        return {"type": "tcp", "port": self.port, "shared": True, "backlog": 1024}

    def paths(self, listing: bool = False, **more: Any) -> dict[str, Any]:
        """Web services of all examples."""
        return {
            "/": {"type": "static", "directory": "../web", "options": {"enable_directory_listing": listing}},
            "autobahn": {
                "type": "archive",
                "archive": "autobahn-v20.1.1.zip",
                "origin": "https://127.0.0.1:1/v20.1.1.zip",
                "object_prefix": "autobahn-js-browser-20.1.1",
                "default_object": "autobahn.min.js",
                "download": True,
                "cache": True,
                "hashes": [self.digest],
                "mime_types": {".min.js": "text/javascript", ".jgz": "text/javascript"},
            },
            "info": {"type": "nodeinfo"},
            **more,
        }

    def proxy(self, transport: dict[str, Any], connection: dict[str, Any], routes: dict[str, Any]) -> dict[str, Any]:
        """A proxy worker."""
        return {
            "type": "proxy",
            "options": {},
            "connections": {"conn1": connection},
            "routes": routes,
            "transports": [transport],
        }

    # --- the examples ---

    def web(self) -> list[dict[str, Any]]:
        """WebSocket on a path, without a word about authentication; static files, an archive, a status page."""
        ws = {"type": "websocket", "serializers": SERIALIZERS, "options": WEBSOCKET_OPTIONS}
        transport = {"type": "web", "endpoint": self.endpoint, "paths": self.paths(ws=ws)}
        proxy = self.proxy(transport, self.unix_connection(), {"realm1": {"anonymous": "conn1"}})
        return [self.router(self.unix_router), proxy, proxy]

    def universal(self) -> list[dict[str, Any]]:
        """RawSocket, WebSocket and web on one port, tickets for both."""
        transport = {
            "type": "universal",
            "endpoint": self.endpoint,
            "rawsocket": {"auth": AUTH, "serializers": SERIALIZERS, "options": {"max_message_size": 1048576}},
            "websocket": {
                "ws": {"type": "websocket", "auth": AUTH, "serializers": SERIALIZERS, "options": WEBSOCKET_OPTIONS}
            },
            "web": {"paths": self.paths(listing=True)},
        }
        connection = self.unix_connection(auth={"anonymous-proxy": {"type": "static"}})
        routes = {"realm1": {"anonymous": "conn1", "user": "conn1"}}
        proxy = self.proxy(transport, connection, routes)
        return [self.router(self.unix_router), proxy, proxy]

    def bridge(self) -> list[dict[str, Any]]:
        """Calls over HTTP, too; the procedure is a component's beside the router."""
        container = {
            "type": "container",
            "options": {"pythonpath": [".."]},
            "components": [
                {
                    "type": "class",
                    "classname": "backend.Backend",
                    "realm": "realm1",
                    "transport": {
                        "type": "rawsocket",
                        "endpoint": {"type": "unix", "path": "router.sock"},
                        "serializer": "cbor",
                    },
                }
            ],
        }
        router = self.router(self.unix_router)
        router["transports"][0]["auth"]["anonymous"] = {"type": "static", "role": "anonymous"}
        proxy = self.proxy(self._bridge_transport(), self.unix_connection(auth={"anonymous-proxy": {}}), ROUTES)
        return [router, container, proxy, proxy]

    def cryptosign(self) -> list[dict[str, Any]]:
        """The same over TCP, where the router knows the node's key; the component is in the router worker."""
        component = {"type": "class", "classname": "backend.Backend", "realm": "realm1", "role": "anonymous"}
        router = self.router(self.tcp_router, components=[component])
        proxy = self.proxy(self._bridge_transport(), self.tcp_connection(), ROUTES)
        return [router, proxy, proxy]

    def _bridge_transport(self) -> dict[str, Any]:
        ws = {"type": "websocket", "serializers": SERIALIZERS, "options": WEBSOCKET_OPTIONS, "auth": AUTH}
        call = {"type": "caller", "realm": "realm1", "role": "restbridge", "options": {"debug": True}}
        return {"type": "web", "endpoint": self.endpoint, "paths": self.paths(listing=True, ws=ws, call=call)}

    # --- clients ---

    def client(self, kind: str, serializer: str) -> Peer:
        """One that has shaken hands."""
        return raw.dial(Endpoint(kind, self.port), serializer)

    def get(self, path: str, data: Any = None) -> tuple[int, dict[str, str], bytes]:
        """An HTTP request: status, headers, body."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()


@pytest.fixture(scope="module")
def crossbar_env(tmp_path_factory: pytest.TempPathFactory) -> Crossbar:
    """Crossbar.io's program, which knows our workers."""
    return Crossbar(tmp_path_factory.mktemp("lent"))


@pytest.fixture
def example() -> Iterator[Example]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="node") as name:
        yield Example(Path(name))


def node_of(example: Example, workers: list[dict[str, Any]], crossbar_env: Crossbar) -> Node:
    """The node of an example; its ``config.json`` is what ``workers`` says and nothing else."""
    programs = example.folder / "bin"
    our_worker(programs).rename(programs / "wamp-proxy-worker")
    environment = {**crossbar_env.environment, "PATH": f"{programs}:{os.environ['PATH']}"}
    return Node(example.cbdir, workers, stock=True, command=crossbar_env.command, environment=environment)


def check_web(example: Example, listing: bool) -> None:
    """What all examples have."""
    status, headers, body = example.get("/")
    assert (status, body) == (200, b"<h1>an example</h1>")
    assert headers["Content-Type"].startswith("text/html")
    assert example.get("/more/")[0] == (200 if listing else 404)
    assert example.get("/more/page.txt")[2] == b"a page"
    for path in ("/autobahn", "/autobahn/autobahn.min.js"):
        status, headers, body = example.get(path)
        assert (status, body) == (200, SCRIPT), path
        assert headers["Content-Type"].startswith("text/javascript")
    status, headers, body = example.get("/info")
    assert status == 200
    assert b"node1" in body
    assert example.get("/../.crossbar/key.priv")[0] == 404
    assert example.get("/ws")[0] == 200  # the status page


def check_ticket(client: Peer) -> None:
    """A login by ticket, with the role that goes with it."""
    client.send(raw.hello(authmethods=["ticket"], authid="user1"))
    client.recv_type(raw.CHALLENGE)
    client.send([raw.AUTHENTICATE, "secret1", {}])
    welcome = client.recv_type(raw.WELCOME)[2]
    assert (welcome["authid"], welcome["authrole"], welcome["authmethod"]) == ("user1", "user", "ticket")
    assert client.call("wamp.session.count") >= 1
    client.leave()


def check_anonymous(example: Example, kind: str) -> None:
    """Clients of all serializers meet each other."""
    callee = example.client(kind, "json").join()
    callee.register(f"com.example.{kind}")
    for serializer in SERIALIZERS:
        caller = example.client(kind, serializer).join()
        assert caller.welcome[2]["authrole"] == "anonymous"
        caller.send([raw.CALL, 1, {}, f"com.example.{kind}", ["hello"]])
        invocation = callee.recv_type(raw.INVOCATION)
        callee.send([raw.YIELD, invocation[1], {}, invocation[4]])
        assert caller.recv_type(raw.RESULT)[3] == ["hello"]
        caller.leave()
    callee.leave()


def test_web(example: Example, crossbar_env: Crossbar) -> None:
    with running(node_of(example, example.web(), crossbar_env)):
        check_web(example, listing=False)
        check_anonymous(example, "websocket")


def test_universal(example: Example, crossbar_env: Crossbar) -> None:
    with running(node_of(example, example.universal(), crossbar_env)):
        check_web(example, listing=True)
        for kind in ("websocket", "rawsocket"):
            check_anonymous(example, kind)
            check_ticket(example.client(kind, "cbor"))


@pytest.mark.parametrize("name", ["bridge", "cryptosign"])
def test_bridge(name: str, example: Example, crossbar_env: Crossbar) -> None:
    with running(node_of(example, getattr(example, name)(), crossbar_env)):
        check_web(example, listing=True)
        check_ticket(example.client("websocket", "json"))
        status, _, body = example.get("/call", {"procedure": "com.example.add2", "args": [23, 666]})
        assert status == 200, body
        assert json.loads(body)["args"] == [689]
        status, _, body = example.get("/call", {"procedure": "com.example.nobody", "args": []})
        assert json.loads(body)["error"] == "wamp.error.no_such_procedure"


@pytest.mark.parametrize("name", ["web", "universal", "bridge", "cryptosign"])
def test_check_finds_no_errors(name: str, example: Example, crossbar_env: Crossbar) -> None:
    """Neither Crossbar.io's, which has ours in it, nor ours; and all that it warns of is the node's business."""
    path = example.cbdir / "config.json"
    path.write_text(json.dumps({"version": 2, "workers": getattr(example, name)()}))
    done = crossbar_env.run("check", "--cbdir", str(example.cbdir))
    assert done.returncode == 0, done.stdout + done.stderr
    workers = json.loads(path.read_text())["workers"]
    number = next(index for index, worker in enumerate(workers, 1) if worker["type"] == "proxy")
    findings = check(path, f"worker{number:03d}")
    assert not [str(found) for found in findings if not found.place.endswith((".options", ".debug"))]
    assert not [str(found) for found in findings if found.severity == "error"]
