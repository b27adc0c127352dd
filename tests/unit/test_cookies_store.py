"""Stores as the reactor sees them, and who has which cookie: what is between connections and the cookies."""

from __future__ import annotations

import gc
import logging
import queue
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxy.auth import Accept, Attempt, Authentication, Deny
from proxy.config.auth import AuthConfig
from proxy.config.cookies import CookieConfig
from proxy.cookies import CookieTracker, StoreError, Stores
from proxy.cookies.file import FileBackend
from proxy.cookies.memory import MemoryBackend
from proxy.cookies.records import Job
from proxy.cookies.sqlite import SqliteBackend
from proxy.cookies.store import POLL_SECONDS, SWEEP_SECONDS
from proxy.errors import CannotStart

KINDS = ["memory", "file", "database"]
JOE = Accept("realm1", "joe", "user", "ticket", "static", {"team": {"name": "a"}})
EVE = Accept("realm1", "eve", "user", "ticket", "static")


class Reactor(Clock):
    """A clock, and what other threads have for its thread to do."""

    def __init__(self) -> None:
        super().__init__()
        self.others: queue.Queue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.Queue()
        self.triggers: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        self.others.put((call, arguments))

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> object:
        self.triggers.append(call)
        return call

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        self.triggers.remove(trigger)

    def result(self, deferred: Deferred[Any]) -> Any:
        """What a Deferred fires with, soon; raises what it fails with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            self.turn()
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def turn(self) -> None:
        """Do the next of what other threads want."""
        call, arguments = self.others.get(timeout=10)
        call(*arguments)


class Session:
    """A connection."""

    def __init__(self) -> None:
        self.cookie: str | None = None
        self.front_sid = 1
        self.was_logged_out = self.has_crashed = False

    def log_out(self) -> None:
        self.was_logged_out = True

    def crashed(self) -> None:
        self.has_crashed = True


class Site:
    """Transports with cookies in one worker."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.reactor = Reactor()
        self.stores = Stores(self.reactor)
        self.item: dict[str, Any] = {
            "memory": {"type": "memory"},
            "file": {"type": "file", "filename": str(folder / "cookies")},
            "database": {"type": "database", "path": str(folder / "db")},
        }[kind]
        self.trackers: list[CookieTracker] = []

    def tracker(self, name: str = "transport000", **keys: Any) -> CookieTracker:
        """One more transport's, started."""
        config = CookieConfig.model_validate({"store": self.item, **keys})
        tracker = CookieTracker(config, self.stores, name, self.reactor)
        self.reactor.result(tracker.start())
        self.trackers.append(tracker)
        return tracker

    def end(self) -> None:
        """Close all; then no thread, timer or trigger is left."""
        for tracker in self.trackers:
            tracker.close()
        while self.reactor.triggers:  # a thread's, until it ends
            self.reactor.turn()
        while not self.reactor.others.empty():
            self.reactor.turn()
        assert not self.reactor.getDelayedCalls()

    def connect(self, tracker: CookieTracker, header: str = "") -> tuple[Session, str]:
        """A connection: with its cookie, and the header that it was given with."""
        session = Session()
        admission = self.reactor.result(tracker.admit(header))
        tracker.enter(session, admission)  # type: ignore[arg-type]
        return session, admission.header.partition(";")[0]

    def identity(self, tracker: CookieTracker, header: str) -> str | None:
        """Whom a client with this cookie would be let in as."""
        session, given = self.connect(tracker, header)
        tracker.leave(session)  # type: ignore[arg-type]
        if given:
            return None
        again, _ = self.connect(tracker, header)
        assert again.cookie is not None
        record = self.reactor.result(tracker.find(again.cookie))
        tracker.leave(again)  # type: ignore[arg-type]
        return None if record is None else record.authid

    def remembered(self, tracker: CookieTracker, accept: Accept = JOE) -> tuple[Session, str]:
        """A connection that has logged in, and its cookie."""
        session, header = self.connect(tracker)
        tracker.remember(session, accept, "realm1")  # type: ignore[arg-type]
        return session, header


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A worker; afterwards no thread, timer or trigger is left."""
    site = Site(tmp_path, request.param)
    yield site
    site.end()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    """Workers that share a database."""
    sites: list[Site] = []

    def make() -> Site:
        sites.append(Site(tmp_path, "database"))
        return sites[-1]

    yield make
    for site in sites:
        site.end()


# --- the tracker -------------------------------------------------------------------------------------------------


def test_who_logged_in_is_known_by_the_cookie(site: Site) -> None:
    tracker = site.tracker()
    _, header = site.remembered(tracker)
    assert site.identity(tracker, header) == "joe"
    assert site.identity(tracker, f"other=1; {header}; more") == "joe"
    assert site.identity(tracker, header + "x") is None
    assert site.identity(tracker, header.replace("cbtid", "xcbtid")) is None


def test_what_is_kept_is_nothing_to_those_who_have_it(site: Site) -> None:
    tracker = site.tracker()
    accept = Accept("realm1", "joe", "user", "ticket", "static", {"team": {"name": "a"}, "transport": 1})
    session, header = site.connect(tracker)
    tracker.remember(session, accept, "realm1")  # type: ignore[arg-type]
    accept.authextra["team"]["name"] = "changed"
    method = Authentication(AuthConfig.model_validate({"cookie": {}}), None, tracker)
    again, _ = site.connect(tracker, header)
    for _ in range(2):
        attempt = Attempt("realm1", {"authmethods": ["cookie", "ticket"]}, {}, 1, again.cookie)
        outcome = method.hello(attempt)
        assert isinstance(outcome, Deferred)
        found = site.reactor.result(outcome)
        # Not even what only the proxy may say comes back from a store.
        assert found == Accept("realm1", "joe", "user", "ticket", "cookie", {"team": {"name": "a"}})
        found.authextra["team"]["name"] = "changed"


@pytest.mark.parametrize(
    "accept",
    [
        Accept("realm1", "joe", "user", "ticket", "cookie"),
        Accept("realm1", "x", "anonymous", "anonymous", "static"),
        Accept("realm1", "joe", "user", "ticket", "static", {"long": "x" * 20_000}),
    ],
    ids=["by the cookie", "anonymous", "too long"],
)
def test_what_is_not_remembered(site: Site, accept: Accept) -> None:
    tracker = site.tracker()
    _, header = site.remembered(tracker, accept)
    assert site.identity(tracker, header) is None


def test_a_cookie_that_somebody_came_with_never_becomes_somebody_else(site: Site) -> None:
    tracker = site.tracker()
    first, header = site.remembered(tracker)
    second, given = site.connect(tracker, header)
    assert not given
    # As the same: it stays. As another: it is over, and the new one is not remembered by it.
    tracker.remember(second, JOE, "realm1")  # type: ignore[arg-type]
    assert site.identity(tracker, header) == "joe"
    tracker.remember(second, EVE, "realm1")  # type: ignore[arg-type]
    assert site.identity(tracker, header) is None
    # Whoever was given it may log in as another.
    tracker.remember(first, EVE, "realm1")  # type: ignore[arg-type]
    assert site.identity(tracker, header) == "eve"


def test_a_cookie_does_not_bring_back_the_one_before_whose_successor_cannot_be_kept(site: Site) -> None:
    tracker = site.tracker()
    session, header = site.remembered(tracker)
    long = Accept("realm1", "eve", "user", "ticket", "static", {"long": "x" * 20_000})
    tracker.remember(session, long, "realm1")  # type: ignore[arg-type]
    assert site.identity(tracker, header) is None


def test_a_login_by_the_cookie_of_somebody_who_is_anonymous_now_stays(site: Site) -> None:
    tracker = site.tracker()
    _, header = site.remembered(tracker)
    second, _ = site.connect(tracker, header)
    tracker.remember(second, Accept("realm1", "x", "anonymous", "anonymous", "static"), None)  # type: ignore[arg-type]
    assert site.identity(tracker, header) == "joe"


def test_a_logout_ends_what_came_with_the_cookie_in_all_transports(site: Site) -> None:
    one = site.tracker("one")
    two = site.tracker("two")
    first, header = site.remembered(one)
    tab, _ = site.connect(one, header)
    other, _ = site.connect(two, header)
    stranger, strangers = site.remembered(one, EVE)
    site.reactor.result(one.log_out(first))  # type: ignore[arg-type]
    assert tab.was_logged_out
    assert not first.was_logged_out
    assert not stranger.was_logged_out
    # A store in memory is one transport's own.
    assert other.was_logged_out is (site.item["type"] != "memory")
    assert site.identity(one, header) is None
    assert site.identity(two, header) is None
    assert site.identity(one, strangers) == "eve"
    # Nothing that is done on these connections brings it back.
    for session in (first, tab):
        one.remember(session, JOE, "realm1")  # type: ignore[arg-type]
        site.reactor.result(one.log_out(session))  # type: ignore[arg-type]
    assert site.identity(one, header) is None


def test_a_login_under_way_does_not_slip_past_a_logout(site: Site) -> None:
    tracker = site.tracker()
    first, header = site.remembered(tracker)
    key = first.cookie
    assert key is not None
    looked_up = tracker.find(key)
    admitted = tracker.admit(header)
    done = tracker.log_out(first)  # type: ignore[arg-type]
    if site.item["type"] == "memory":
        return  # it was answered before
    # Both were asked before, and answered after it.
    assert site.reactor.result(looked_up) is None
    assert site.reactor.result(admitted).header
    site.reactor.result(done)


@pytest.mark.parametrize(
    ("reason", "is_over"),
    [
        ("wamp.close.killed", True),
        ("wamp.close.normal", True),
        ("com.example.banned", True),
        ("wamp.close.logout", True),
        ("wamp.close.system_shutdown", False),
        ("wamp.close.close_realm", False),
        ("wamp.error.timeout", False),
    ],
)
def test_who_is_dismissed_for_what_they_are_is_forgotten(site: Site, reason: str, is_over: bool) -> None:
    tracker = site.tracker()
    session, header = site.remembered(tracker)
    tab, _ = site.connect(tracker, header)
    tracker.dismissed(session, reason)  # type: ignore[arg-type]
    assert site.identity(tracker, header) == (None if is_over else "joe")
    assert tab.was_logged_out is (reason == "wamp.close.logout")


def test_one_session_that_breaks_does_not_keep_the_others_in(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    tracker = site.tracker()
    first, header = site.remembered(tracker)
    tabs = [site.connect(tracker, header)[0] for _ in range(5)]

    def breaks() -> None:
        raise RuntimeError("broken")

    tabs[2].log_out = breaks  # type: ignore[method-assign]
    with caplog.at_level(logging.CRITICAL):
        site.reactor.result(tracker.log_out(first))  # type: ignore[arg-type]
    assert [tab.was_logged_out for tab in tabs] == [True, True, False, True, True]
    assert tabs[2].has_crashed


def test_a_cookie_has_the_length_and_nothing_that_needs_quotes(site: Site) -> None:
    for length in (6, 7, 23, 64):
        tracker = site.tracker(f"length{length}", length=length)
        values = {site.connect(tracker)[1].partition("=")[2] for _ in range(20)}
        assert len(values) == 20
        assert all(len(value) == length for value in values)
        assert all(character.isalnum() or character in "-_" for value in values for character in value)


def test_realms(site: Site) -> None:
    tracker = site.tracker()
    method = Authentication(AuthConfig.model_validate({"cookie": {}, "anonymous": {"type": "static"}}), None, tracker)
    session, _ = site.connect(tracker)
    tracker.remember(session, JOE, "asked")  # type: ignore[arg-type]
    for realm, is_let_in in (("realm1", True), ("asked", True), (None, True), ("realm2", False), ("", False)):
        attempt = Attempt(realm, {"authmethods": ["cookie"]}, {}, 1, session.cookie)
        decision = site.reactor.result(method.hello(attempt))  # type: ignore[arg-type]
        assert isinstance(decision, Accept if is_let_in else Deny), realm
        # A client that offers more is asked for the next.
        attempt = Attempt(realm or "r", {"authmethods": ["x", "cookie", "anonymous"]}, {}, 1, session.cookie)
        decision = site.reactor.result(method.hello(attempt))  # type: ignore[arg-type]
        assert decision.authmethod == ("cookie" if is_let_in and realm else "anonymous")
    # However often it is named: it is looked for once.
    attempt = Attempt("realm2", {"authmethods": ["cookie"] * 10_000 + ["anonymous"]}, {}, 1, session.cookie)
    assert site.reactor.result(method.hello(attempt)).authmethod == "anonymous"  # type: ignore[arg-type]
    no_cookie = method.hello(Attempt("realm1", {"authmethods": ["cookie", "anonymous"]}, {}, 1, None))
    assert isinstance(no_cookie, Accept)
    assert no_cookie.authmethod == "anonymous"


def test_a_connection_that_is_gone_leaves_nothing(site: Site) -> None:
    tracker = site.tracker()
    sessions = [site.remembered(tracker)[0]]
    sessions.append(site.connect(tracker)[0])
    references = [weakref.ref(session) for session in sessions]
    for session in sessions:
        tracker.leave(session)  # type: ignore[arg-type]
        tracker.leave(session)  # type: ignore[arg-type]
    assert not tracker.is_in_use
    del session, sessions
    gc.collect()
    assert [reference() for reference in references] == [None, None]


# --- stores ------------------------------------------------------------------------------------------------------


def test_a_store_that_is_let_go_of_can_be_opened_again_at_once(site: Site) -> None:
    tracker = site.tracker()
    _, header = site.remembered(tracker)
    for _ in range(3):
        tracker.close()
        tracker.close()
        tracker = site.tracker()
    assert site.identity(tracker, header) == (None if site.item["type"] == "memory" else "joe")


def test_a_store_that_takes_its_time_to_close_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = FileBackend.close

    def slow(backend: FileBackend) -> None:
        time.sleep(0.2)
        close(backend)

    site = Site(tmp_path, "file")
    tracker = site.tracker()
    monkeypatch.setattr(FileBackend, "close", slow)
    tracker.close()
    waiting = site.stores.get(CookieConfig.model_validate({"store": site.item}), "given up")
    waiting.start(tracker)
    waiting.stop(tracker)
    _, header = site.remembered(site.tracker())
    assert site.identity(site.trackers[-1], header) == "joe"
    site.end()


def test_a_logout_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, "memory")
    tracker = site.tracker()
    session, _ = site.remembered(tracker)
    done: list[str] = []
    monkeypatch.setattr(MemoryBackend, "log_out", lambda _, key, now: done.append(key))
    tracker.log_out(session)  # type: ignore[arg-type]
    site.reactor.advance(SWEEP_SECONDS)
    assert len(done) == 1
    site.end()


def test_a_transport_that_takes_the_place_of_another_has_its_cookies(site: Site) -> None:
    before = site.tracker()
    _, header = site.remembered(before)
    after = site.tracker(max_age=77)
    before.close()
    assert site.identity(after, header) == "joe"


def test_options_that_come_too_late_are_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.tracker()
    site.tracker()
    assert not caplog.records
    site.tracker(max_cookies=5)
    assert "has the options of the transport that opened it" in caplog.text


def test_a_start_that_fails_can_be_tried_again(database: Callable[[], Site], tmp_path: Path) -> None:
    site = database()
    (tmp_path / "db").write_text("something else, and quite a lot of it\n" * 99)
    with pytest.raises(CannotStart, match="cannot be used"):
        site.tracker()
    (tmp_path / "db").unlink()
    tracker = site.tracker()
    _, header = site.remembered(tracker)
    assert site.identity(tracker, header) == "joe"


def test_what_was_expired_is_swept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = site.tracker()
    _, header = site.remembered(tracker)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 604_801)
    assert site.identity(tracker, header) is None
    site.reactor.advance(SWEEP_SECONDS)
    monkeypatch.undo()
    # It is not only hidden.
    assert site.identity(tracker, header) is None


def test_another_worker_hears_of_a_logout(database: Callable[[], Site]) -> None:
    one, two = database(), database()
    here, there = one.tracker(), two.tracker()
    session, header = one.remembered(here)
    assert one.identity(here, header) == "joe"
    tab, given = two.connect(there, header)
    assert not given
    one.reactor.result(here.log_out(session))  # type: ignore[arg-type]
    assert not tab.was_logged_out
    two.reactor.advance(POLL_SECONDS)
    two.reactor.turn()
    assert tab.was_logged_out
    for tracker in (here, there):
        tracker.close()


def test_nobody_is_asked_for_news_while_nobody_has_a_cookie(
    database: Callable[[], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(SqliteBackend, "news", lambda _: asked.append(1) or [])
    site = database()
    tracker = site.tracker()
    for _ in range(5):
        site.reactor.advance(POLL_SECONDS)
    assert not asked
    session, _ = site.connect(tracker)
    site.reactor.advance(POLL_SECONDS)
    site.reactor.turn()
    assert asked == [1]
    tracker.leave(session)  # type: ignore[arg-type]


def test_a_store_that_fails(
    database: Callable[[], Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = database()
    tracker = site.tracker()
    session, header = site.remembered(tracker)
    tab, _ = site.connect(tracker, header)
    with monkeypatch.context() as patch:

        def broken(*_: Any) -> None:
            raise StoreError("the disk is gone")

        patch.setattr(SqliteBackend, "find", broken)
        patch.setattr(SqliteBackend, "log_out", broken)
        # A client goes without, which is told once.
        for _ in range(3):
            assert site.reactor.result(tracker.admit(header)) is None
        assert caplog.text.count("clients go without their cookies: the disk is gone") == 1
        site.reactor.result(tracker.log_out(session))  # type: ignore[arg-type]
        assert tab.was_logged_out
    # What could not be deleted is over nevertheless, and is deleted later.
    assert site.identity(tracker, header) is None
    site.reactor.advance(SWEEP_SECONDS)
    assert site.identity(tracker, header) is None
    again = database()
    fresh = again.tracker()
    assert again.identity(fresh, header) is None


def test_a_store_that_does_not_answer_in_time(database: Callable[[], Site], caplog: pytest.LogCaptureFixture) -> None:
    site = database()
    tracker = site.tracker()
    _, header = site.remembered(tracker)
    admitted = tracker.admit(header)
    results: list[Any] = []
    admitted.addBoth(results.append)
    site.reactor.advance(5)
    assert results == [None]
    assert "no answer in time" in caplog.text


def test_a_worker_that_ends_writes_what_waits(
    database: Callable[[], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SqliteBackend.run

    def run_slowly(backend: SqliteBackend, jobs: Sequence[Job]) -> list[Any]:
        time.sleep(0.1)
        return run(backend, jobs)

    monkeypatch.setattr(SqliteBackend, "run", run_slowly)
    site = database()
    tracker = site.tracker()
    headers = [site.remembered(tracker)[1] for _ in range(300)]
    (trigger,) = site.reactor.triggers
    trigger()
    # All of it, and without the reactor, which is about to end.
    there = sqlite3.connect(tmp_path / "db" / "cookies.sqlite3")
    assert there.execute("SELECT count(*) FROM cookies").fetchone() == (300,)
    there.close()
    after = database()
    fresh = after.tracker()
    assert all(after.identity(fresh, header) == "joe" for header in headers[::50])
