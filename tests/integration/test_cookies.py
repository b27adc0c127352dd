"""Browsers that have logged in once come again by their cookie, and are out once they log out: everywhere."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import ABORT, AUTHENTICATE, CHALLENGE, GOODBYE, WELCOME, WebSocketPeer
from support.routers import CrossbarRouter

pytestmark = pytest.mark.slow

TICKETS = {"joe": {"ticket": "secret-of-joe", "role": "anonymous"}, "eve": {"ticket": "secret-of-eve", "role": "guest"}}
AUTH: dict[str, Any] = {"ticket": {"type": "static", "principals": TICKETS}, "cookie": {}}
LOGOUT = "wamp.close.logout"
FAILED = "wamp.error.no_auth_method"
MakeProxy = Callable[..., ProxyProcess]


class Browser:
    """Keeps the cookie of one site.

    :ivar cookie: its value.
    :ivar attributes: of the last Set-Cookie.
    """

    def __init__(self, name: str = "cbtid") -> None:
        self.name = name
        self.cookie = ""
        self.attributes = ""

    def open(self, endpoint: Endpoint, cookies: str | None = None) -> WebSocketPeer:
        """A WebSocket connection."""
        wire = raw.Wire(endpoint.connect())
        sent = cookies if cookies is not None else f"{self.name}={self.cookie}" if self.cookie else None
        _, head = raw.upgrade(wire, endpoint, "wamp.2.json", **({"Cookie": sent} if sent else {}))
        found = re.findall(r"(?im)^set-cookie: (.*)\r$", head.decode())
        assert len(found) <= 1
        if found:
            self.cookie = SimpleCookie(found[0])[self.name].value
            self.attributes = found[0].partition("; ")[2]
        return WebSocketPeer(wire, "json")

    def ticket(self, endpoint: Endpoint, authid: str = "joe", realm: str = "realm1") -> WebSocketPeer:
        """Log in by ticket."""
        return log_in(self.open(endpoint), authid, realm)

    def by_cookie(
        self, endpoint: Endpoint, realm: str | None = "realm1", **keys: Any
    ) -> tuple[WebSocketPeer, list[Any]]:
        """Log in by the cookie: the connection, and what it is answered."""
        peer = self.open(endpoint)
        peer.send(raw.hello(realm or "realm1", **{"authmethods": ["cookie"], **keys}))
        return peer, peer.recv_type(WELCOME, ABORT)

    def is_known(self, endpoint: Endpoint) -> bool:
        """Whether the cookie is worth a login. A browser that is not known has another cookie then."""
        peer, answer = self.by_cookie(endpoint)
        if answer[0] == ABORT:
            assert answer[2] == FAILED
            peer.close()
            return False
        peer.leave()
        return True


def still_known(browser: Browser, endpoint: Endpoint) -> bool:
    """As is_known(), without taking another cookie."""
    value = browser.cookie
    is_known = browser.is_known(endpoint)
    browser.cookie = value
    return is_known


def log_in(peer: WebSocketPeer, authid: str = "joe", realm: str = "realm1") -> WebSocketPeer:
    """Log in by ticket on a connection."""
    peer.send(raw.hello(realm, authid=authid, authmethods=["ticket"], authextra={"shown": authid}))
    peer.recv_type(CHALLENGE)
    peer.send([AUTHENTICATE, TICKETS[authid]["ticket"], {}])
    peer.welcome = peer.recv_type(WELCOME)
    peer.session = peer.welcome[1]
    return peer


def who(welcome: list[Any]) -> tuple[str, ...]:
    """What WELCOME says of who it is."""
    return tuple(welcome[2][key] for key in ("realm", "authid", "authrole", "authmethod", "authprovider"))


def listen(config: Config, router: Any, at: str = "ws", store: dict[str, Any] | None = None, **cookie: Any) -> Endpoint:
    """A transport with cookies."""
    item = {**cookie, "store": store} if store is not None else cookie
    for role in ("anonymous", "guest"):
        if role not in config.routes.get("realm1", {}):
            config.backend("router", router.backends[router.name], role=role)
    return config.listen("websocket", at, auth=AUTH, cookie=item)


def ended(peer: WebSocketPeer) -> str:
    """The reason of the GOODBYE that a session is ended with."""
    message = peer.recv_type(GOODBYE)
    peer.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    return str(message[2])


def test_who_logged_in_comes_again_by_the_cookie(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    endpoint = listen(config, crossbar)
    make_proxy(config)
    browser = Browser()
    first = browser.ticket(endpoint)
    assert who(first.welcome) == ("realm1", "joe", "anonymous", "ticket", "static")
    assert len(browser.cookie) == 24
    assert browser.attributes == "Max-Age=604800; Path=/"
    value = browser.cookie
    first.leave()
    peer, answer = browser.by_cookie(endpoint, authmethods=["cookie", "ticket"])
    assert who(answer) == ("realm1", "joe", "anonymous", "ticket", "cookie")
    assert answer[2]["authextra"]["shown"] == "joe"
    peer.leave()
    # A client that offers no other method is told none that it did not offer.
    peer, answer = browser.by_cookie(endpoint)
    assert who(answer) == ("realm1", "joe", "anonymous", "cookie", "cookie")
    peer.leave()
    assert browser.cookie == value
    # Several at a time, and after a GOODBYE on the same connection.
    peers = [browser.by_cookie(endpoint)[0] for _ in range(3)]
    peers[0].goodbye()
    peers[0].send(raw.hello(authmethods=["cookie"]))
    assert who(peers[0].recv_type(WELCOME))[1] == "joe"
    for peer in peers:
        peer.leave()


def test_a_cookie_without_a_login_lets_nobody_in(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    endpoint = listen(config, crossbar)
    make_proxy(config)
    browser = Browser()
    browser.open(endpoint).close()
    given = browser.cookie
    assert not browser.is_known(endpoint)
    # One that is worth nothing is replaced: nobody logs in with a value that somebody else may know.
    assert browser.cookie != given
    for made_up in ("x" * 24, "", "a" * 5000, '"quoted"', "1;cbtid"):
        browser.cookie = made_up
        assert not browser.is_known(endpoint)
        assert len(browser.cookie) == 24


def test_a_login_that_fails_is_not_remembered(config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter) -> None:
    endpoint = listen(config, crossbar)
    make_proxy(config)
    browser = Browser()
    peer = browser.open(endpoint)
    peer.send(raw.hello(authid="joe", authmethods=["ticket"]))
    peer.recv_type(CHALLENGE)
    peer.send([AUTHENTICATE, "wrong", {}])
    assert peer.recv_type(ABORT)[2] == "wamp.error.authentication_failed"
    peer.close()
    value = browser.cookie
    assert not browser.is_known(endpoint)
    # The ticket is right, and no router takes the client.
    peer = browser.open(endpoint)
    peer.send(raw.hello("realm9", authid="joe", authmethods=["ticket"]))
    peer.recv_type(CHALLENGE)
    peer.send([AUTHENTICATE, "secret-of-joe", {}])
    assert peer.recv_type(ABORT)[2] == "wamp.error.no_such_realm"
    peer.close()
    assert not browser.is_known(endpoint)
    assert browser.cookie != value


def test_a_cookie_that_was_planted_is_not_logged_in_with(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    endpoint = listen(config, crossbar)
    make_proxy(config)
    thief, victim = Browser(), Browser()
    kept = thief.ticket(endpoint, "eve")
    for planted in (thief.cookie, "A" * 24):
        victim.cookie = planted
        victim.ticket(endpoint, "joe").leave()
        peer = thief.open(endpoint, f"cbtid={planted}")
        peer.send(raw.hello(authmethods=["cookie"]))
        answer = peer.recv_type(WELCOME, ABORT)
        assert answer[0] == ABORT, who(answer)
        peer.close()
    kept.leave()


def test_a_cookie_is_good_in_its_realm_only(config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter) -> None:
    for realm in ("realm1", "realm2"):
        config.backend("router", crossbar.backends["crossbar"], realm=realm)
    principals = {**TICKETS, "ann": {"ticket": "secret-of-ann", "role": "anonymous", "realm": "realm2"}}
    auth = {"ticket": {"type": "static", "principals": principals}, "cookie": {}}
    endpoint = config.listen("websocket", auth=auth, cookie={})
    make_proxy(config)
    browser = Browser()
    browser.ticket(endpoint).leave()
    peer, answer = browser.by_cookie(endpoint, "realm2")
    assert answer[:1] == [ABORT]
    assert answer[2] == FAILED
    peer.close()
    # The next of the client's methods has the say.
    second = browser.open(endpoint)
    second.send(raw.hello("realm2", authid="joe", authmethods=["cookie", "ticket"]))
    assert second.recv_type(CHALLENGE)[1] == "ticket"
    second.close()
    # Who is given a realm that they did not ask for ask for the same again.
    ann = Browser()
    peer = ann.open(endpoint)
    peer.send(raw.hello("realm1", authid="ann", authmethods=["ticket"]))
    peer.recv_type(CHALLENGE)
    peer.send([AUTHENTICATE, "secret-of-ann", {}])
    assert who(peer.recv_type(WELCOME))[0] == "realm2"
    peer.leave()
    for asked, expected in (("realm1", WELCOME), ("realm2", WELCOME), ("realm3", ABORT)):
        peer, answer = ann.by_cookie(endpoint, asked)
        assert answer[0] == expected
        if expected == WELCOME:
            assert who(answer)[:2] == ("realm2", "ann")
        peer.close()


def test_logging_out_ends_all_that_came_with_the_cookie(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    endpoint = listen(config, crossbar)
    proxy = make_proxy(config)
    browser, other = Browser(), Browser()
    first = browser.ticket(endpoint)
    tabs = [browser.by_cookie(endpoint)[0] for _ in range(2)]
    stranger = other.ticket(endpoint)
    idle = browser.open(endpoint)
    value = browser.cookie
    assert tabs[0].goodbye(LOGOUT)[0] == GOODBYE
    # When it is answered nobody gets in any more, not even on a connection that is there.
    idle.send(raw.hello(authmethods=["cookie"]))
    assert idle.recv_type(ABORT)[2] == FAILED
    assert not browser.is_known(endpoint)
    assert browser.cookie != value
    assert [ended(peer) for peer in (first, tabs[1])] == [LOGOUT, LOGOUT]
    assert isinstance(stranger.call("wamp.session.count"), int)
    stranger.goodbye()
    assert other.is_known(endpoint)
    # The connections are good for another login, which does not bring the cookie back.
    log_in(tabs[1])
    tabs[1].goodbye()
    browser.cookie = value
    assert not browser.is_known(endpoint)
    for peer in (first, *tabs, stranger, idle):
        peer.close()
    proxy.check_idle()


def test_another_goodbye_is_no_logout(config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter) -> None:
    endpoint = listen(config, crossbar)
    make_proxy(config)
    browser = Browser()
    first = browser.ticket(endpoint)
    second, _ = browser.by_cookie(endpoint)
    second.goodbye("wamp.close.normal")
    assert browser.is_known(endpoint)
    first.leave()
    second.close()


def test_who_is_killed_does_not_come_back_by_the_cookie(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    endpoint = listen(config, crossbar)
    make_proxy(config)
    for arguments, reason in (
        ({}, "wamp.close.normal"),
        ({"reason": "wamp.close.killed"}, "wamp.close.killed"),
        ({"reason": "com.example.banned"}, "com.example.banned"),
    ):
        browser = Browser()
        killed = browser.ticket(endpoint)
        tab, _ = browser.by_cookie(endpoint)
        with raw.joined(crossbar.direct["ws-tcp"]) as admin:
            admin.call("wamp.session.kill", killed.session, **arguments)
            admin.leave()
        assert ended(killed) == reason
        value = browser.cookie
        assert not browser.is_known(endpoint)
        assert browser.cookie != value
        # The router let the other one be.
        assert isinstance(tab.call("wamp.session.count"), int)
        tab.leave()
        killed.close()


def test_the_attributes_are_those_of_the_configuration(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    keys = {"name": "my_id", "length": 40, "max_age": 3600, "secure": True, "http_strict": True, "same_site": "Strict"}
    endpoint = listen(config, crossbar, **keys)
    make_proxy(config)
    browser = Browser("my_id")
    browser.ticket(endpoint).leave()
    assert browser.attributes == "Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Strict"
    assert len(browser.cookie) == 40
    # Among others, whatever those look like.
    for cookies in (
        f"a=b; my_id={browser.cookie}",
        f'[{{,}}]=1;my_id={browser.cookie}; "x',
        f"my_id=x; my_id={browser.cookie}",
    ):
        peer = browser.open(endpoint, cookies)
        peer.send(raw.hello(authmethods=["cookie"]))
        assert who(peer.recv_type(WELCOME))[1] == "joe"
        peer.leave()


def test_a_cookie_ends_when_its_time_is_over(config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter) -> None:
    endpoint = listen(config, crossbar, max_age=2)
    make_proxy(config)
    browser = Browser()
    browser.ticket(endpoint).leave()
    before = time.monotonic()
    value = browser.cookie

    def is_over() -> bool:
        browser.cookie = value
        return not browser.is_known(endpoint)

    wait_until(is_over, "the cookie has expired")
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("kind", ["file", "database"])
def test_cookies_outlive_the_worker(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter, kind: str, tmp_path: Path
) -> None:
    store = {"type": "file", "filename": "cookies"} if kind == "file" else {"type": "database", "path": "cookies"}
    endpoint = listen(config, crossbar, store=store)
    first = make_proxy(config)
    browser, gone = Browser(), Browser()
    browser.ticket(endpoint).leave()
    gone.ticket(endpoint).goodbye(LOGOUT)
    first.stop()
    files = [path for path in tmp_path.rglob("*cookies*") if path.is_file()]
    assert files
    # The values are credentials.
    assert not any(browser.cookie.encode() in path.read_bytes() for path in files)
    second = make_proxy(config)
    assert browser.is_known(endpoint)
    value = gone.cookie
    assert not gone.is_known(endpoint)
    # Killed, it may lose the last moment, and not more.
    second.child.process.send_signal(signal.SIGKILL)
    second.child.process.wait()
    config.transports[0]["cookie"]["store"]["purge_on_startup"] = True
    third = make_proxy(config)
    assert not browser.is_known(endpoint)
    assert value != gone.cookie
    browser.ticket(endpoint).leave()
    assert browser.is_known(endpoint)
    third.check_log()


def test_cookies_end_with_the_worker_where_they_are_in_memory(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    endpoint = listen(config, crossbar)
    first = make_proxy(config)
    browser = Browser()
    browser.ticket(endpoint).leave()
    first.stop()
    make_proxy(config)
    assert not browser.is_known(endpoint)


@pytest.fixture
def two(tmp_path: Path, make_proxy: MakeProxy, crossbar: CrossbarRouter) -> list[Endpoint]:
    """Two proxies that share a database of cookies."""
    endpoints = []
    for name in ("one", "two"):
        config = Config(tmp_path / name)
        store = {"type": "database", "path": str(tmp_path / "shared")}
        endpoints.append(listen(config, crossbar, store=store))
        make_proxy(config)
    return endpoints


def test_proxies_share_a_database(two: list[Endpoint]) -> None:
    browser = Browser()
    first = browser.ticket(two[0])
    wait_until(lambda: still_known(browser, two[1]), "the other proxy knows the cookie")
    there, answer = browser.by_cookie(two[1])
    assert who(answer)[:3] == ("realm1", "joe", "anonymous")
    waiting = browser.open(two[1])
    # Out there, and here, without anybody asking.
    before = time.monotonic()
    assert there.goodbye(LOGOUT)[0] == GOODBYE
    assert ended(first) == LOGOUT
    assert time.monotonic() - before < 5
    value = browser.cookie
    assert not browser.is_known(two[0])
    browser.cookie = value
    assert not browser.is_known(two[1])
    waiting.send(raw.hello(authmethods=["cookie"]))
    assert waiting.recv_type(ABORT)[2] == FAILED
    for peer in (first, there, waiting):
        peer.close()


def test_many_browsers_at_two_proxies(two: list[Endpoint]) -> None:
    browsers = [Browser() for _ in range(40)]
    peers = [browser.ticket(two[number % 2]) for number, browser in enumerate(browsers)]
    for number, browser in enumerate(browsers):
        wait_until(lambda b=browser, n=number: still_known(b, two[1 - n % 2]), "the other proxy knows the cookie")
    tabs = [browser.by_cookie(two[1 - number % 2])[0] for number, browser in enumerate(browsers)]
    for peer in peers[::2]:
        peer.goodbye(LOGOUT)
    assert all(ended(tab) == LOGOUT for tab in tabs[::2])
    for tab in tabs[1::2]:
        tab.goodbye()
    assert all(still_known(browser, two[0]) for browser in browsers[1::2])
    assert not any(still_known(browser, two[1]) for browser in browsers[::2])
    for peer in (*peers, *tabs):
        peer.close()


def test_one_transport_lets_in_who_logged_in_at_another(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    store = {"type": "file", "filename": "cookies"}
    one, two = listen(config, crossbar, "one", store), listen(config, crossbar, "two", store)
    alone = listen(config, crossbar, "three")
    make_proxy(config)
    browser = Browser()
    first = browser.ticket(one)
    tab, answer = browser.by_cookie(two)
    assert who(answer)[1] == "joe"
    assert not still_known(browser, alone)
    tab.goodbye(LOGOUT)
    assert ended(first) == LOGOUT
    first.close()
    tab.close()


def test_a_reload_keeps_the_cookies(config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter) -> None:
    endpoint = listen(config, crossbar)
    proxy = make_proxy(config)
    browser = Browser()
    browser.ticket(endpoint).leave()
    config.transports[0]["max_connections"] = 77
    (config.directory / "proxy.json").write_text(json.dumps(config.as_dict()))
    proxy.child.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any("is in service: started" in line for line in proxy.child.errors), "it is reloaded")
    assert browser.is_known(endpoint)


def test_a_store_that_cannot_be_used_is_an_error_of_the_start(
    config: Config, crossbar: CrossbarRouter, tmp_path: Path
) -> None:
    (tmp_path / "cookies").write_text("something else\n")
    for store in ({"type": "file", "filename": "cookies"}, {"type": "database", "path": "cookies"}):
        config.transports.clear()
        listen(config, crossbar, store=store)
        path = tmp_path / "proxy.json"
        path.write_text(json.dumps(config.as_dict()))
        argv = [sys.executable, "-m", "proxy", "run", str(path), "--threads", "1"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "transport000" in done.stderr
        assert f"{tmp_path}/cookies cannot be used" in done.stderr
        assert "Traceback" not in done.stderr
        assert (tmp_path / "cookies").read_text() == "something else\n"


def test_a_store_that_fails_keeps_nobody_out(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter, tmp_path: Path
) -> None:
    endpoint = listen(config, crossbar, store={"type": "database", "path": str(tmp_path / "cookies.db")})
    proxy = make_proxy(config)
    browser = Browser()
    browser.ticket(endpoint).leave()
    (tmp_path / "cookies.db").write_bytes(b"no database at all" * 1000)
    peer = browser.open(endpoint)
    peer.send(raw.hello(authid="joe", authmethods=["cookie", "ticket"]))
    peer.recv_type(CHALLENGE, WELCOME)
    peer.close()
    proxy.check_log()


def test_nobody_learns_a_cookie_from_the_proxy(config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter) -> None:
    management = Endpoint("rawsocket", path=str(config.directory / "management.sock"))
    config.extra["management"] = {"path": management.path}
    endpoint = listen(config, crossbar)
    proxy = make_proxy(config, log_level="debug")
    browser = Browser()
    browser.ticket(endpoint).leave()
    peer, answer = browser.by_cookie(endpoint)
    told = [answer]
    with raw.joined(crossbar.direct["ws-tcp"]) as other:
        told.append(other.call("wamp.session.get", answer[1]))
        other.leave()
    with raw.joined(management, realm="crossbar") as api:
        told.append(api.call("crossbar.worker.worker001.get_proxy_session", answer[1]))
        told.append(api.call("crossbar.worker.worker001.get_proxy_sessions"))
        api.leave()
    peer.goodbye(LOGOUT)
    peer.close()
    assert told[1]["authid"] == "joe"
    assert browser.cookie not in json.dumps(told)
    assert browser.cookie not in proxy.child.output


def test_a_client_that_is_gone_in_the_middle_leaves_nothing(
    config: Config, make_proxy: MakeProxy, crossbar: CrossbarRouter
) -> None:
    endpoint = listen(config, crossbar, store={"type": "database", "path": "cookies"})
    proxy = make_proxy(config)
    browser = Browser()
    browser.ticket(endpoint).leave()
    for number in range(60):
        wire = raw.Wire(endpoint.connect())
        wire.write(
            raw.upgrade_request(endpoint, "AAAAAAAAAAAAAAAAAAAAAA==", "wamp.2.json", Cookie=f"cbtid={browser.cookie}")
        )
        if number % 3 == 0:
            wire.reset()
            continue
        peer = WebSocketPeer(wire, "json")
        wire.read_head()
        peer.send(raw.hello(authmethods=["cookie"]))
        if number % 3 == 1:
            peer.recv_type(WELCOME)
            peer.send([GOODBYE, {}, "wamp.close.normal" if number < 58 else LOGOUT])
        wire.reset()
    proxy.check_idle()
    assert not still_known(browser, endpoint)


def test_check_says_what_the_database_is(tmp_path: Path) -> None:
    config = Config(tmp_path)
    config.stub("router", Endpoint("rawsocket", 9), role="anonymous")
    config.listen("websocket", auth=AUTH, cookie={"store": {"type": "database", "path": "db"}, "length": 8})
    config.listen("rawsocket", auth=AUTH)
    config.listen("websocket", auth=AUTH, cookie={"same_site": "None"})
    config.listen("websocket", auth=AUTH, cookie={"same_site": "Lax"})
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps(config.as_dict()))
    argv = [sys.executable, "-m", "proxy", "check", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert 'cookie.store.type: "database": SQLite, not LMDB as in Crossbar.io' in text
    assert "transports[0].cookie.length: 8: a value of fewer than 22 characters may be guessed" in text
    assert "transports[1].auth.cookie: {}: has no effect" in text
    assert "transports[2].cookie.same_site" in text
    # Not every browser takes a cookie that does not say so for one of its own site alone.
    assert "transports[0].options.allowed_origins" in text
    assert "transports[2].options.allowed_origins" in text
    assert "transports[3]" not in text
    assert not (tmp_path / "db").exists()
