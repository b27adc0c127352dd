"""Authenticators at real routers, and in the worker: who decides, how long that may take, and who leaves meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from support.census import Census
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import (
    ABORT,
    AUTHENTICATE,
    CHALLENGE,
    ERROR,
    INTERRUPT,
    INVOCATION,
    WELCOME,
    YIELD,
    Peer,
    dial,
    hello,
    joined,
)
from support.raw_logins import Prover, log_in
from support.routers import META_REALM, REALM, ROOT, CrossbarRouter, Router

pytestmark = [pytest.mark.peers]

ROLE = "guest"
FAILED = "wamp.error.authentication_failed"
UNAVAILABLE = "wamp.error.unavailable"
TIMEOUT_MS = 1500


def procedure(method: str) -> str:
    return f"com.example.dynamic.{method}"


def dynamic(*methods: str, **keys: Any) -> dict[str, Any]:
    """The ``auth`` of a transport whose methods are decided by procedures."""
    return {
        method: {"type": "dynamic", "authenticator": procedure(method), "authenticator-role": ROLE, **keys}
        for method in methods
    }


class Authenticator:
    """A client of the router whose procedures decide, with an answer for each call."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def asked(self) -> tuple[int, list[Any]]:
        """The next call: its request, and the arguments."""
        message = self.peer.recv_type(INVOCATION)
        return message[1], message[4]

    def says(self, request: int, *answer: Any) -> None:
        self.peer.send([YIELD, request, {}, list(answer)])

    def refuses(self, request: int, uri: str, *args: Any) -> None:
        self.peer.send([ERROR, INVOCATION, request, {}, uri, list(args)])


crossbar_only = pytest.mark.parametrize("router", ["crossbar"], indirect=True)


@pytest.fixture(scope="module", params=["crossbar", "xconn"])
def router(request: pytest.FixtureRequest, get_router: Callable[[str], Router]) -> Router:
    return get_router(request.param)


@pytest.fixture
def authenticator(router: Router) -> Iterator[Authenticator]:
    """Somebody at the router who has the procedures of all methods."""
    with joined(router.direct["rs-unix"]) as peer:
        for method in ("anonymous", "ticket", "wampcra", "cryptosign"):
            peer.register(procedure(method))
        yield Authenticator(peer)


@pytest.fixture(scope="module")
def _proxy(router: Router, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    config = Config(tmp_path_factory.mktemp(f"dynamic-{router.name}"))
    for role in ("anonymous", ROLE):
        config.backend("backend", router.backends[router.name], role=role)
    auth = dynamic("anonymous", "ticket", "wampcra", "cryptosign")
    for kind in ("websocket", "rawsocket"):
        config.listen(kind, kind, auth=auth, limits={"authenticator_timeout": TIMEOUT_MS})
    proxy = ProxyProcess(config)
    # From here on it holds a service session.
    with joined(router.direct["rs-unix"]) as peer:
        peer.register(procedure("anonymous"))
        with Client(proxy.endpoints["rawsocket"], "anonymous") as client:
            Authenticator(peer).says(peer.recv_type(INVOCATION)[1], ROLE)
            client.peer.recv_type(WELCOME)
    proxy.census = Census(proxy.pid)
    yield proxy
    proxy.stop()


@pytest.fixture
def proxy(_proxy: ProxyProcess) -> Iterator[ProxyProcess]:
    """A proxy all whose methods are dynamic. After the test it holds no more than before."""
    yield _proxy
    _proxy.check_idle()
    _proxy.check_log()


class Client:
    """A client that has said all that it has to say for its login."""

    def __init__(self, endpoint: Endpoint, method: str = "ticket", serializer: str = "cbor", **details: Any) -> None:
        self.peer = dial(endpoint, serializer)
        self.peer.send(hello(authmethods=[method], **{"authid": "joe", **details}))
        if method == "ticket":
            assert self.peer.recv_type(CHALLENGE)[1:] == ["ticket", {}]
            self.peer.send([AUTHENTICATE, "a ticket", {}])

    def welcome(self) -> dict[str, Any]:
        """WELCOME.Details of a session that works."""
        self.peer.welcome = self.peer.recv_type(WELCOME)
        assert self.peer.register(f"com.example.of.{self.peer.welcome[1]}") > 0
        details: dict[str, Any] = self.peer.welcome[2]
        return details

    def refusal(self) -> tuple[str, str]:
        """Reason and message of the ABORT."""
        _, details, reason = self.peer.recv_type(ABORT)
        return reason, details["message"]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()


# --- the decision ---


@pytest.mark.parametrize("kind", ["websocket", "rawsocket"])
def test_the_procedure_decides(proxy: ProxyProcess, authenticator: Authenticator, kind: str) -> None:
    with Client(proxy.endpoints[kind], serializer="json", authextra={"team": "blue"}) as client:
        request, (realm, authid, details) = authenticator.asked()
        assert (realm, authid) == (REALM, "joe")
        transport = details.pop("transport")
        assert details.pop("session") > 0
        assert details == {"authmethod": "ticket", "authextra": {"team": "blue"}, "ticket": "a ticket"}
        assert transport["channel_framing"] == kind
        assert transport["peer"].startswith("tcp4:127.0.0.1:")
        assert {"client_cert", "peer_cert", "channel_id", "http_headers_received"} <= transport.keys()
        authenticator.says(request, {"role": ROLE, "authid": "jack"})
        details = client.welcome()
        assert details["authmethod"] == "ticket"
        assert details["authprovider"] == "dynamic"


@crossbar_only
def test_the_router_learns_what_the_procedure_said(proxy: ProxyProcess, authenticator: Authenticator) -> None:
    with Client(proxy.endpoints["rawsocket"], authextra={"team": "blue", "proxy_authrole": "admin"}) as client:
        request, _ = authenticator.asked()
        extra = {"badge": 7, "nested": {"a": [1, None]}, "proxy_authrole": "admin"}
        authenticator.says(request, {"role": ROLE, "authid": "jack", "extra": extra})
        details = client.welcome()
        assert (details["authid"], details["authrole"]) == ("jack", ROLE)
        shown = client.peer.call("wamp.session.get", client.peer.welcome[1])
        assert (shown["authid"], shown["authrole"]) == ("jack", ROLE)
        assert (shown["authextra"]["badge"], shown["authextra"]["nested"]) == (7, {"a": [1, None]})
        assert "team" not in shown["authextra"], "what the authenticator says goes before what the client says"


def test_another_realm_than_the_client_asked_for(
    config: Config, crossbar: CrossbarRouter, make_proxy: Callable[..., ProxyProcess]
) -> None:
    config.backend("backend", crossbar.backends["crossbar"], realm=META_REALM, role=ROLE)
    config.backend("backend", crossbar.backends["crossbar"], realm=REALM, role="anonymous")
    auth = dynamic("ticket", **{"authenticator-realm": REALM, "authenticator-role": "anonymous"})
    config.listen("rawsocket", "front", auth=auth)
    proxy = make_proxy(config)
    with joined(crossbar.direct["rs-unix"]) as peer:
        peer.register(procedure("ticket"))
        authenticator = Authenticator(peer)
        for realm in ("nowhere", None):
            with Client(proxy.endpoints["front"], **({"realm": realm} if realm else {})) as client:
                request, arguments = authenticator.asked()
                assert arguments[0] == (realm or REALM)
                authenticator.says(request, {"role": ROLE, "realm": META_REALM})
                assert client.welcome()["realm"] == META_REALM
    proxy.stop()


@pytest.mark.parametrize("answer", [17, {"role": 7}, {}, {"role": "nobody"}, {"role": ROLE, "realm": "nowhere"}])
def test_answers_that_let_nobody_in(proxy: ProxyProcess, authenticator: Authenticator, answer: Any) -> None:
    with Client(proxy.endpoints["rawsocket"]) as client:
        request, _ = authenticator.asked()
        authenticator.says(request, answer)
        reason, _ = client.refusal()
        expected = {"realm": "no_such_realm"} if isinstance(answer, dict) and "realm" in answer else {}
        if not expected and answer in ({}, {"role": "nobody"}):
            expected = {"role": "no_such_role"}
        assert reason == f"wamp.error.{next(iter(expected.values()), 'authentication_failed')}"


def test_an_error_with_its_text(proxy: ProxyProcess, authenticator: Authenticator) -> None:
    with Client(proxy.endpoints["websocket"]) as client:
        request, _ = authenticator.asked()
        authenticator.refuses(request, "com.example.error.locked", "ask Jane")
        assert client.refusal() == ("com.example.error.locked", "ask Jane")


def test_nobody_by_that_name(proxy: ProxyProcess, authenticator: Authenticator) -> None:
    with Client(proxy.endpoints["rawsocket"]) as client:
        request, _ = authenticator.asked()
        authenticator.says(request, None)
        assert client.refusal() == (FAILED, "authentication failed")


def test_anonymous_has_an_authid_of_the_proxys(proxy: ProxyProcess, authenticator: Authenticator) -> None:
    with Client(proxy.endpoints["rawsocket"], "anonymous", authid="root") as client:
        request, (_, authid, details) = authenticator.asked()
        assert authid not in ("root", None)
        assert details["authmethod"] == "anonymous"
        authenticator.says(request, "anonymous")
        assert client.welcome()["authmethod"] == "anonymous"


@pytest.mark.parametrize(("secret", "is_right"), [("a secret", True), ("another", False)])
def test_wampcra(proxy: ProxyProcess, authenticator: Authenticator, secret: str, is_right: bool) -> None:
    prover = Prover("wampcra", "joe", secret)
    with Client(proxy.endpoints["rawsocket"], "wampcra", authrole="admin") as client:
        request, (_, authid, details) = authenticator.asked()
        assert (authid, details["authid"], details["authrole"]) == ("joe", "joe", "admin")
        authenticator.says(request, {"secret": "a secret", "role": ROLE})
        client.peer.send([AUTHENTICATE, prover.sign(client.peer.recv_type(CHALLENGE)[2]), {}])
        if is_right:
            client.welcome()
        else:
            assert client.refusal() == (FAILED, "authentication failed")


def test_who_is_known_cannot_be_found_out_by_wampcra(proxy: ProxyProcess, authenticator: Authenticator) -> None:
    seen = []
    for answer in ({"secret": "a secret", "role": ROLE}, None, 17, "error"):
        with Client(proxy.endpoints["rawsocket"], "wampcra") as client:
            request, _ = authenticator.asked()
            if answer == "error":
                authenticator.refuses(request, FAILED, "authentication failed")
            else:
                authenticator.says(request, answer)
            challenge = client.peer.recv_type(CHALLENGE)
            client.peer.send([AUTHENTICATE, "wrong", {}])
            told = json.loads(challenge[2]["challenge"])
            seen.append((sorted(challenge[2]), sorted(told), client.refusal()))
    assert seen == [seen[0]] * 4


# --- trouble ---


def test_a_procedure_that_comes_later(proxy: ProxyProcess, router: Router) -> None:
    with Client(proxy.endpoints["rawsocket"]) as client:
        reason, message = client.refusal()
        assert reason == UNAVAILABLE
        assert "com.example" not in message
    with joined(router.direct["rs-unix"]) as peer:
        peer.register(procedure("ticket"))
        authenticator = Authenticator(peer)
        with Client(proxy.endpoints["rawsocket"]) as client:
            authenticator.says(authenticator.asked()[0], ROLE)
            client.welcome()


def test_a_slow_procedure_holds_up_nobody_else(
    proxy: ProxyProcess, authenticator: Authenticator, router: Router
) -> None:
    with Client(proxy.endpoints["rawsocket"]) as slow, Client(proxy.endpoints["websocket"]) as quick:
        requests = {}
        for _ in range(2):
            request, arguments = authenticator.asked()
            requests[arguments[2]["transport"]["channel_framing"]] = request
        authenticator.says(requests["websocket"], ROLE)
        quick.welcome()
        assert slow.refusal() == (UNAVAILABLE, "authentication is not available at the moment")
        assert quick.peer.register("com.example.still.there") > 0
        if isinstance(router, CrossbarRouter):
            assert authenticator.peer.recv_type(INTERRUPT)[1] == requests["rawsocket"]
        else:
            # It knows nothing of cancelling, and the answer that nobody waits for any more does no harm.
            authenticator.says(requests["rawsocket"], ROLE)
    with Client(proxy.endpoints["rawsocket"]) as client:
        authenticator.says(authenticator.asked()[0], ROLE)
        client.welcome()


@pytest.mark.parametrize("how", ["close", "reset", "abort", "message"])
def test_the_client_leaves_while_it_is_judged(
    proxy: ProxyProcess, authenticator: Authenticator, router: Router, how: str
) -> None:
    with Client(proxy.endpoints["rawsocket"]) as client:
        request, _ = authenticator.asked()
        if how == "close":
            client.peer.close()
        elif how == "reset":
            client.peer.wire.reset()
        else:
            client.peer.send([ABORT, {}, "wamp.error.canceled"] if how == "abort" else hello())
        if isinstance(router, CrossbarRouter):
            assert authenticator.peer.recv_type(INTERRUPT)[1] == request
    with Client(proxy.endpoints["rawsocket"]) as client:
        request, _ = authenticator.asked()
        authenticator.says(request, ROLE)
        client.welcome()


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "said",
    [cbor2.CBORTag(30, "x"), cbor2.CBORTag(29, 7), _nested(100), float("nan"), 2**70, "\0not Base64"],
    ids=["rational", "shared reference", "nested", "nan", "bignum", "binary in JSON"],
)
def test_nothing_that_a_client_says_ends_the_session_of_all(
    proxy: ProxyProcess, authenticator: Authenticator, said: object
) -> None:
    """Neither the router nor the authenticator may be sent what their decoders do not take."""
    with Client(proxy.endpoints["rawsocket"]) as honest, Client(
        proxy.endpoints["rawsocket"], authextra={"x": said}
    ) as hostile:
        request, arguments = authenticator.asked()
        assert arguments[2]["authextra"] is None
        assert hostile.refusal() == (FAILED, "authentication failed")
        authenticator.says(request, ROLE)
        honest.welcome()


# xconn's router leaves callers alone with calls whose callee is gone.
@crossbar_only
def test_the_authenticator_vanishes(proxy: ProxyProcess, router: Router) -> None:
    with joined(router.direct["rs-unix"]) as peer:
        peer.register(procedure("ticket"))
        with Client(proxy.endpoints["rawsocket"]) as client:
            Authenticator(peer).asked()
            peer.close()
            assert client.refusal()[0] == UNAVAILABLE


@crossbar_only
def test_the_service_session_is_killed(proxy: ProxyProcess, router: Router, authenticator: Authenticator) -> None:
    with Client(proxy.endpoints["rawsocket"]) as client, joined(router.direct["rs-tcp"]) as operator:
        authenticator.asked()
        services = [
            session
            for session in operator.call("wamp.session.list")
            if str(operator.call("wamp.session.get", session)["authid"]).startswith("proxy-")
        ]
        (service,) = services
        operator.call("wamp.session.kill", service, reason="wamp.close.killed", message="by hand")
        assert client.refusal()[0] == UNAVAILABLE
    with Client(proxy.endpoints["rawsocket"]) as client:
        # What of the first call may still come is not for this client.
        while True:
            message = authenticator.peer.recv_type(INVOCATION, INTERRUPT)
            if message[0] == INVOCATION:
                break
        authenticator.says(message[1], ROLE)
        client.welcome()


def test_answers_find_their_clients_in_any_order(proxy: ProxyProcess, authenticator: Authenticator) -> None:
    clients = {f"client{number}": Client(proxy.endpoints["rawsocket"], authid=f"client{number}") for number in range(9)}
    requests = {}
    for _ in clients:
        request, arguments = authenticator.asked()
        requests[arguments[1]] = request
    for name in reversed(clients):
        authenticator.refuses(requests[name], "com.example.error.refused", name)
    for name, client in clients.items():
        assert client.refusal() == ("com.example.error.refused", name)
        client.peer.close()


def test_a_realm_that_is_not_there(proxy: ProxyProcess) -> None:
    peer = dial(proxy.endpoints["rawsocket"])
    reply = log_in(peer, Prover("ticket", "joe", "a ticket"), realm="nowhere")
    assert (reply[0], reply[2]) == (ABORT, "wamp.error.no_such_realm")
    peer.close()


# --- functions ---

OPERATORS = """
    from twisted.internet import reactor
    from twisted.internet.task import deferLater
    from twisted.internet.threads import deferToThread

    from autobahn.wamp.exception import ApplicationError

    async def create(config, controller):
        await deferLater(reactor, 0.01, lambda: None)
        asked = []

        async def authenticate(realm, authid, details):
            asked.append(authid)
            if authid == "locked":
                raise ApplicationError("com.example.error.locked", "ask Jane")
            if authid == "broken":
                raise RuntimeError("cannot read " + config["password"] + " of " + details["ticket"])
            if authid == "slow":
                await deferLater(reactor, 60, lambda: None)
            right = await deferToThread(lambda: config["tickets"].get(authid))
            if details["ticket"] != right:
                return None
            return {"role": "guest", "extra": {"asked": len(asked), "worker": controller and controller.worker_id}}

        return authenticate
"""


@pytest.fixture
def operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The ``auth`` of a transport whose tickets a function judges."""
    folder = tmp_path / "python"
    folder.mkdir()
    (folder / "operators_own.py").write_text(textwrap.dedent(OPERATORS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(folder)])))
    config = {"tickets": {"joe": "a ticket", "jane": "hers"}, "password": "4711pass"}
    return {"ticket": {"type": "function", "create": "operators_own.create", "config": config}}


def test_a_function_decides(
    config: Config, xconn: Router, make_proxy: Callable[..., ProxyProcess], operators: dict[str, Any]
) -> None:
    config.backend("backend", xconn.backends["xconn"], role=ROLE)
    exposed = {"ticket": {**operators["ticket"], "expose_controller": True}}
    config.listen("websocket", "one", auth=operators, limits={"authenticator_timeout": TIMEOUT_MS})
    config.listen("rawsocket", "two", auth=exposed)
    proxy = make_proxy(config)
    with Client(proxy.endpoints["one"], authid="slow") as slow:
        for name in ("one", "two"):
            with Client(proxy.endpoints[name]) as client:
                assert client.welcome()["authprovider"] == "function"
        with Client(proxy.endpoints["one"], authid="jane") as client:
            assert client.refusal() == (FAILED, "authentication failed")
        with Client(proxy.endpoints["one"], authid="locked") as client:
            assert client.refusal() == ("com.example.error.locked", "ask Jane")
        for _ in range(2):
            with Client(proxy.endpoints["one"], authid="broken") as client:
                assert client.refusal() == (FAILED, "authentication failed")
        assert slow.refusal() == (UNAVAILABLE, "authentication is not available at the moment")
    proxy.stop()
    output = proxy.child.output
    assert output.count("RuntimeError: cannot read *** of ***") == 1
    assert "4711pass" not in output
    assert "a ticket" not in output


@pytest.mark.parametrize(
    ("create", "text"),
    [
        ("operators_own.no_such", 'module "operators_own" has no "no_such"'),
        ("no_such_module.create", 'there is no module "no_such_module"'),
    ],
)
def test_a_proxy_whose_function_is_missing_does_not_start(
    config: Config, xconn: Router, operators: dict[str, Any], create: str, text: str
) -> None:
    config.backend("backend", xconn.backends["xconn"], role=ROLE)
    config.listen("rawsocket", "front", auth={"ticket": {**operators["ticket"], "create": create}})
    path = config.directory / "proxy.json"
    path.write_text(json.dumps(config.as_dict()))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT / "src")])}
    argv = [sys.executable, "-m", "proxy", "run", str(path)]
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode not in (0, -9)
    assert f'transport transport000: auth.ticket: "{create}": {text}' in ended.stderr
    assert "4711pass" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_reload_that_names_a_missing_function_changes_nothing(
    config: Config, xconn: Router, make_proxy: Callable[..., ProxyProcess], operators: dict[str, Any]
) -> None:
    config.backend("backend", xconn.backends["xconn"], role=ROLE)
    config.listen("rawsocket", "front", auth=operators)
    proxy = make_proxy(config)
    path = config.directory / "proxy.json"
    config.transports[0]["auth"]["ticket"]["create"] = "no_such_module.create"
    path.write_text(json.dumps(config.as_dict()))
    proxy.child.process.send_signal(1)
    wait_until(lambda: 'there is no module "no_such_module"' in proxy.child.output, "it says why")
    with Client(proxy.endpoints["front"]) as client:
        client.welcome()
