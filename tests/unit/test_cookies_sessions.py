"""A WebSocket client while its cookie is looked up, and while it, or somebody else with its cookie, logs out."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxy.cookies.tracker import Admission
from proxy.messages import SER_JSON
from proxy.plane import EV_CLOSED, EV_CONTROL, EV_HEAD, EV_MESSAGE, EV_VIOLATION, ST_DEADLINE
from support.planes import FRONT, INTRO, WELCOME_DETAILS, Rig, back_conn

HEAD = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: wamp.2.json\r\n%s\r\n"
)
TICKET = {"type": "static", "principals": {"joe": {"ticket": "secret", "role": "anonymous"}}}
HELLO: list[Any] = [1, "realm1", {"roles": {"caller": {}}, "authid": "joe", "authmethods": ["cookie", "ticket"]}]
OTHER = FRONT + 1


class CookieRig(Rig):
    """A proxy with a WebSocket transport that has cookies."""

    def __init__(self) -> None:
        super().__init__(serializer=SER_JSON)
        item = {
            "type": "websocket",
            "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": 0},
            "auth": {"ticket": TICKET, "cookie": {}},
            "cookie": {},
        }
        self.controller.start_proxy_transport("cookies", item)
        self.transport = self.controller.transports["cookies"]
        assert self.entrance.cookies is not None
        self.cookies = self.entrance.cookies
        self.plane.take()

    def head(self, conn: int = FRONT, cookie: str = "") -> None:
        """The client's upgrade request."""
        head = HEAD % (f"Cookie: {cookie}\r\n".encode() if cookie else b"")
        self.front(EV_HEAD, 0, INTRO + head, conn)

    def connect(self, conn: int = FRONT, cookie: str = "") -> str:
        """The handshake; the cookie that the client has now."""
        self.head(conn, cookie)
        (call,) = self.plane.take()
        assert call[:2] == ("upgrade", conn)
        _, found, rest = call[2].decode().partition("Set-Cookie: ")
        return rest.partition(";")[0] if found else cookie

    def by_ticket(self, conn: int = FRONT) -> int:
        """Log in by ticket as far as to the router; the token of its connection."""
        self.says(HELLO, conn=conn)
        self.did()
        self.says([5, "secret", {}], conn=conn)
        return self.dialled()[0]

    def joined(self, token: int, back_sid: int) -> None:
        """The router lets the client in."""
        self.answers(token, [2, back_sid, dict(WELCOME_DETAILS)])
        self.plane.take()

    def logs_out(self, conn: int = FRONT) -> None:
        """The client logs out."""
        self.says([6, {}, "wamp.close.logout"], EV_CONTROL, conn)

    def state_of(self, conn: int) -> str:
        """See :attr:`Rig.state`."""
        session = self.transport.sessions.get(conn)
        return "CLOSED" if session is None else session.state.name  # type: ignore[union-attr]


@pytest.fixture
def rig() -> CookieRig:
    """The proxy."""
    return CookieRig()


@pytest.fixture
def looked_up(rig: CookieRig, monkeypatch: pytest.MonkeyPatch) -> Deferred[Any]:
    """A cookie that is being looked up."""
    found: Deferred[Any] = Deferred()
    monkeypatch.setattr(rig.cookies, "admit", lambda header: found)
    rig.head(cookie="cbtid=x")
    assert rig.plane.take() == []
    return found


@pytest.mark.parametrize("event", [(EV_CLOSED, 0), (EV_VIOLATION, ST_DEADLINE)], ids=["gone", "too late"])
def test_a_client_that_does_not_wait_for_its_cookie(
    rig: CookieRig, looked_up: Deferred[Any], event: tuple[int, int]
) -> None:
    rig.front(*event)
    assert [call[0] for call in rig.plane.take()] == (["reply"] if event[0] == EV_VIOLATION else [])
    looked_up.callback(Admission("key"))
    assert rig.plane.take() == []
    assert not rig.cookies.is_in_use


def test_a_transport_that_is_stopped_does_not_wait_either(rig: CookieRig, looked_up: Deferred[Any]) -> None:
    session = rig.transport.sessions[FRONT]
    session.shut_down()
    assert rig.plane.take() == [("close", FRONT, 1001)]
    looked_up.callback(Admission("key"))
    assert rig.plane.take() == []
    assert not rig.cookies.is_in_use


def test_the_store_has_no_say_in_who_may_connect(rig: CookieRig, looked_up: Deferred[Any]) -> None:
    looked_up.callback(None)
    (call,) = rig.plane.take()
    assert call[:2] == ("upgrade", FRONT)
    assert b"Set-Cookie" not in call[2]
    assert rig.state == "OPEN"
    rig.by_ticket()


def test_a_request_that_is_refused_is_given_no_cookie(rig: CookieRig) -> None:
    head = HEAD.replace(b"wamp.2.json", b"chat") % b""
    rig.front(EV_HEAD, 0, INTRO + head)
    (call,) = rig.plane.take()
    assert call[0] == "reply"
    assert b"Set-Cookie" not in call[2]


def test_a_cookie_is_good_once_the_router_has_taken_the_client(rig: CookieRig) -> None:
    cookie = rig.connect()
    token = rig.by_ticket()
    assert rig.connect(OTHER, cookie) != cookie
    rig.joined(token, 17)
    assert rig.connect(OTHER + 1, cookie) == cookie
    rig.says(HELLO, conn=OTHER + 1)
    token, hello = rig.dialled()
    assert hello[2]["authextra"]["proxy_authid"] == "joe"
    assert hello[2]["authextra"]["proxy_authprovider"] == "cookie"
    # The cookie is known to nobody but the browser.
    assert cookie.partition("=")[2] not in str(hello)
    assert str(rig.transport.sessions[FRONT].cookie) not in str(hello)  # type: ignore[union-attr]


def test_the_router_hears_of_a_logout_once_the_cookie_is_worth_nothing(
    rig: CookieRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.connect()
    token = rig.by_ticket()
    rig.joined(token, 17)
    over: Deferred[None] = Deferred()
    monkeypatch.setattr(rig.cookies, "log_out", lambda session: over)
    rig.logs_out()
    assert rig.did() == []
    over.callback(None)
    assert rig.did() == [("send", back_conn(token), [6, {}, "wamp.close.logout"])]
    assert rig.state == "LEAVING"


@pytest.mark.parametrize("what", ["client gone", "router gone", "too late"])
def test_what_may_happen_while_a_cookie_is_deleted(rig: CookieRig, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    rig.connect()
    token = rig.by_ticket()
    rig.joined(token, 17)
    over: Deferred[None] = Deferred()
    monkeypatch.setattr(rig.cookies, "log_out", lambda session: over)
    rig.logs_out()
    rig.did()
    if what == "client gone":
        rig.front(EV_CLOSED)
    elif what == "router gone":
        rig.back(token, EV_CLOSED)
    else:
        rig.clock.advance(3600)
    assert rig.state == ("CLOSED" if what == "client gone" else "OPEN")
    rig.did()
    over.callback(None)
    assert rig.did() == []


def test_a_logout_ends_a_login_that_waits_for_the_router(rig: CookieRig) -> None:
    cookie = rig.connect()
    rig.joined(rig.by_ticket(), 17)
    rig.connect(OTHER, cookie)
    rig.says(HELLO, conn=OTHER)
    token, _ = rig.dialled()
    assert rig.state_of(OTHER) == "JOINING"
    rig.logs_out()
    commands = rig.did()
    aborted = ("send", OTHER, [3, {"message": "authentication failed"}, "wamp.error.authentication_failed"])
    assert aborted in commands
    assert ("undial", OTHER) in commands
    assert rig.state_of(OTHER) == "CLOSING"
    rig.back(token, EV_CLOSED)


def test_a_logout_ends_a_session_and_leaves_the_connection(rig: CookieRig) -> None:
    cookie = rig.connect()
    rig.joined(rig.by_ticket(), 17)
    rig.connect(OTHER, cookie)
    rig.says(HELLO, conn=OTHER)
    rig.joined(rig.dialled()[0], 18)
    rig.connect(OTHER + 1, cookie)
    rig.logs_out(OTHER)
    assert ("send", FRONT, [6, {}, "wamp.close.logout"]) in rig.did()
    assert (rig.state, rig.state_of(OTHER), rig.state_of(OTHER + 1)) == ("DISMISSED", "LEAVING", "OPEN")
    # Whoever is connected has no cookie any more, and logs in by other means.
    rig.says(HELLO, EV_MESSAGE, OTHER + 1)
    ((_, conn, message), _) = rig.did()
    assert (conn, message[:2]) == (OTHER + 1, [4, "ticket"])


def test_a_connection_that_ends_is_forgotten(rig: CookieRig) -> None:
    rig.connect()
    assert rig.cookies.is_in_use
    rig.front(EV_CLOSED)
    assert not rig.cookies.is_in_use


def test_who_is_killed_by_the_operator_is_forgotten(rig: CookieRig) -> None:
    cookie = rig.connect()
    rig.joined(rig.by_ticket(), 17)
    rig.controller.kill_proxy_session(17)
    assert rig.state == "DISMISSED"
    rig.plane.take()
    assert rig.connect(OTHER, cookie) != cookie
