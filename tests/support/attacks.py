"""What the tests of attacks on logins have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.principals import METHODS, PRINCIPALS, ROLE, static
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, WELCOME, Peer, hello
from support.raw_logins import Prover
from support.routers import META_REALM
from support.stub import StubRouter

FAILED = "wamp.error.authentication_failed"
SECRETS = [item.secret for item in PRINCIPALS.values()] + [item.wrong for item in PRINCIPALS.values()]
SERIALIZERS = ("json", "msgpack", "cbor")

CHALLENGED = tuple(PRINCIPALS)
"""All that is tested of methods that ask something."""
SIGNED = tuple(name for name in PRINCIPALS if name != "ticket")
"""Methods whose answers are good for one question; a ticket is what it is."""
FORGED: dict[str, Any] = {
    "proxy_realm": "forged",
    "proxy_authid": "forged",
    "proxy_authrole": "trusted",
    "proxy_authmethod": "forged",
    "proxy_authprovider": "forged",
    "proxy_authextra": {"transport": {"peer": "forged"}},
    "x_cb_proxy_peer": "forged",
    "x_cb_node": "forged",
    "transport": {"peer": "forged", "http_headers_received": {"host": "forged"}},
}
"""What a client could say in its authextra if only it were believed."""


def prover_of(what: str, *, right: bool = True) -> Prover:
    """Who proves to be a principal, or (``right`` is false) tries to."""
    principal = PRINCIPALS[what]
    return Prover(principal.method, principal.authid, principal.secret if right else principal.wrong)


def named_by(prover: Prover) -> dict[str, Any]:
    """What HELLO.Details says of somebody."""
    return {"authmethods": [prover.method], "authid": prover.authid, "authextra": prover.authextra}


def static_auth(**more: Any) -> dict[str, Any]:
    """The ``auth`` item of a transport that knows all principals; ``more`` methods."""
    return {method: static(method) for method in METHODS} | more


def dial_with_cookie(endpoint: Endpoint, value: str = "") -> tuple[raw.Peer, str]:
    """A WebSocket connection, and the cookie that it has.

    :param value: of the cookie that is sent; none if empty.
    """
    wire = raw.Wire(endpoint.connect())
    headers = {"Cookie": f"cbtid={value}"} if value else {}
    _, head = raw.upgrade(wire, endpoint, "wamp.2.cbor", **headers)
    for line in head.decode().split("\r\n"):
        name, _, text = line.partition(": ")
        if name.lower() == "set-cookie":
            value = SimpleCookie(text)["cbtid"].value
    return raw.WebSocketPeer(wire, "cbor"), value


class Stage:
    """A proxy with the principals in its configuration, and a stub router behind it."""

    def __init__(self, stub: StubRouter, proxy: ProxyProcess) -> None:
        self.stub, self.proxy = stub, proxy

    def dial(self, name: str = "rawsocket", serializer: str = "cbor", **headers: str) -> Peer:
        """A client's connection to an endpoint."""
        return raw.dial(self.proxy.endpoints[name], serializer, **headers)

    def ask(
        self, peer: Peer, what: str, *, prover: Prover | None = None, **details: Any
    ) -> tuple[Prover, dict[str, Any]]:
        """HELLO and CHALLENGE of a principal: who proves it, and CHALLENGE.Extra."""
        prover = prover or prover_of(what)
        peer.send(hello(**{**named_by(prover), **details}))
        message = peer.recv_type(CHALLENGE)
        assert message[1] == prover.method
        return prover, message[2]

    def log_in(self, peer: Peer, what: str, **details: Any) -> tuple[Peer, list[Any], tuple[str, dict[str, Any]]]:
        """The whole login: the router's end, its HELLO, and the answer to CHALLENGE that was the right one."""
        prover, extra = self.ask(peer, what, **details)
        answer = prover.sign(extra), {}
        peer.send([AUTHENTICATE, *answer])
        router, message = self.stub.accept_session(4711)
        peer.recv_type(WELCOME)
        return router, message, answer

    def expect_no_login(self) -> None:
        """Assert that the router has heard of nobody."""
        self.stub.sock.settimeout(0.1)
        try:
            with pytest.raises(TimeoutError):
                self.stub.accept_wire()
        finally:
            self.stub.sock.settimeout(15.0)

    def expect_refused(self, peer: Peer, reason: str = FAILED) -> list[Any]:
        """Assert that the client gets one ABORT, its connection is closed, and the router has heard of nobody."""
        messages, _ = peer.recv_end()
        assert [message[::2] for message in messages] == [[ABORT, reason]], messages
        self.expect_no_login()
        return messages[0]


@contextmanager
def stages(folder: Path) -> Iterator[Callable[[], Stage]]:
    """What starts proxies of one configuration, in front of one stub router.

    In the end each that still runs must be idle and end in order; none may have told a secret in its log.

    Endpoints: ``<kind>`` knows all principals; ``open/<kind>`` takes anonymous clients as well; ``all`` has all
    serializers, batched and not; ``cookies`` is a WebSocket endpoint with cookies, ``drawn`` a RawSocket one with IDs
    drawn by the proxy, and ``slow`` one whose tickets say how many seconds their judge takes.

    :param folder: for sockets and the configuration.
    """
    running: list[ProxyProcess] = []
    with StubRouter(Endpoint("rawsocket", path=str(folder / "stub.sock"))) as stub:
        item = {"transport": stub.endpoint.as_backend(), "auth": {"anonymous-proxy": {"type": "static"}}}

        def make() -> Stage:
            config = Config(folder)
            for role in ("anonymous", ROLE):
                config.backend("stub", item, role=role)
            config.backend("stub", item, realm=META_REALM, role=ROLE)
            cookie = {"store": {"type": "memory"}}
            config.listen("websocket", "cookies", auth=static_auth(cookie={}), cookie=cookie)
            for kind in ("websocket", "rawsocket"):
                config.listen(kind, kind, auth=static_auth())
                config.listen(kind, f"open/{kind}", auth=static_auth(anonymous={"type": "static"}))
            names = [*SERIALIZERS, "ubjson", "flatbuffers", *(f"{name}.batched" for name in SERIALIZERS)]
            # FlatBuffers have no place for what asserts an identity.
            config.stub("plain", stub.endpoint, role="plain")
            config.listen("websocket", "all", serializers=names, role="plain")
            config.listen("rawsocket", "drawn", auth=static_auth(), session_ids="proxy")
            slow = {"type": "function", "create": "support.slow_authenticator.create", "config": {"role": ROLE}}
            config.listen("rawsocket", "slow", auth=static_auth(ticket=slow))
            with pytest.MonkeyPatch.context() as patch:
                tests = str(Path(__file__).resolve().parent.parent)
                patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")])))
                running.append(ProxyProcess(config))
            return Stage(stub, running[-1])

        yield make
        for proxy in running:
            if proxy.child.process.poll() is None:
                proxy.check_idle()
                proxy.stop()
            told = [secret for secret in SECRETS if secret in proxy.child.output]
            assert not told, "secrets in the log"
