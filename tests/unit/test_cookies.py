"""What keeps cookies: in memory, in a file, in a database that processes share."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.cookies.file import FileBackend
from proxy.cookies.memory import MemoryBackend
from proxy.cookies.records import Backend, Job, Record, StoreError, key_of
from proxy.cookies.sqlite import SqliteBackend, database_file

NOW = 2_000_000_000  # not yet, so that a file that is read again has not expired
JOE = Record(NOW + 60, "realm1", None, "joe", "user", "ticket", {"team": ["a", {"b": 1}], "blob": b"\0\xff"})
EVE = Record(NOW + 60, "realm1", "realm1", "eve", "user", "wampcra")
KINDS = ["memory", "file", "database"]


def make(kind: str, folder: Path, most: int = 100, *, purge: bool = False) -> Backend:
    """A backend, not open yet."""
    if kind == "memory":
        return MemoryBackend(most)
    if kind == "file":
        return FileBackend(str(folder / "cookies.json"), most, purge)
    return SqliteBackend(database_file(str(folder / "db")), most, 1 << 30, True, purge)


def do(backend: Backend, name: str, *arguments: Any) -> Any:
    """One job; raises its error."""
    is_write = name not in ("find", "news")
    (result,) = backend.run([(is_write, lambda there: getattr(there, name)(*arguments))])
    if isinstance(result, StoreError):
        raise result
    return result


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Open backends by kind; closed after the test."""
    there: list[Backend] = []

    def get(kind: str, *arguments: Any, **keywords: Any) -> Backend:
        there.append(make(kind, tmp_path, *arguments, **keywords))
        there[-1].open()
        return there[-1]

    yield get
    for backend in there:
        backend.close()


Opened = Callable[..., Backend]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_found_as_it_was_put_until_it_expires(opened: Opened, kind: str) -> None:
    backend = opened(kind)
    do(backend, "put", "k1", JOE, NOW)
    assert do(backend, "find", "k1", NOW) == JOE
    assert do(backend, "find", "k1", JOE.expires - 1) == JOE
    assert do(backend, "find", "k1", JOE.expires) is None
    assert do(backend, "find", "k2", NOW) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_has_expired_is_not_kept(opened: Opened, kind: str) -> None:
    backend = opened(kind)
    do(backend, "put", "k1", JOE, JOE.expires)
    assert do(backend, "find", "k1", NOW) is None
    do(backend, "put", "k1", JOE, NOW)
    do(backend, "sweep", JOE.expires)
    assert do(backend, "find", "k1", NOW) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["delete", "log_out"])
def test_what_is_deleted_is_gone(opened: Opened, kind: str, way: str) -> None:
    backend = opened(kind)
    do(backend, "put", "k1", JOE, NOW)
    do(backend, "put", "k2", EVE, NOW)
    do(backend, way, "k1", *([NOW] if way == "log_out" else []))
    assert do(backend, "find", "k1", NOW) is None
    assert do(backend, "find", "k2", NOW) == EVE


@pytest.mark.parametrize("kind", KINDS)
def test_settling_keeps_who_it_is_about_and_nobody_else(opened: Opened, kind: str) -> None:
    backend = opened(kind)
    do(backend, "put", "k1", JOE, NOW)
    do(backend, "settle", "k1", Record(0, "realm1", "x", "joe", "user", "wampcra"))
    assert do(backend, "find", "k1", NOW) == JOE
    do(backend, "settle", "k1", EVE)
    assert do(backend, "find", "k1", NOW) is None


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_bound_and_those_go_that_expire_first(opened: Opened, kind: str) -> None:
    backend = opened(kind, 10)
    for number in range(30):
        record = Record(NOW + 1000 - number, "realm1", None, f"u{number}", "user", "ticket")
        do(backend, "put", f"k{number}", record, NOW)
    left = [number for number in range(30) if do(backend, "find", f"k{number}", NOW) is not None]
    assert len(left) <= 10
    # The last one is the first to expire of all, and was kept nevertheless.
    assert 29 in left
    assert left[:5] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["file", "database"])
def test_it_is_there_again_after_a_restart(opened: Opened, kind: str) -> None:
    first = opened(kind)
    do(first, "put", "k1", JOE, NOW)
    do(first, "put", "k2", EVE, NOW)
    do(first, "log_out", "k2", NOW)
    first.close()
    second = opened(kind)
    assert do(second, "find", "k1", NOW) == JOE
    assert do(second, "find", "k2", NOW) is None
    second.close()
    third = opened(kind, purge=True)
    assert do(third, "find", "k1", NOW) is None
    third.close()
    assert do(opened(kind), "find", "k1", NOW) is None


@pytest.mark.parametrize("kind", ["file", "database"])
def test_nobody_else_can_read_it(opened: Opened, tmp_path: Path, kind: str) -> None:
    before = os.umask(0)
    try:
        backend = opened(kind)
        do(backend, "put", "k1", JOE, NOW)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) >= 2
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files), files
    finally:
        os.umask(before)


@pytest.mark.parametrize("kind", ["file", "database"])
def test_one_job_that_fails_does_not_take_others_with_it(opened: Opened, kind: str) -> None:
    def breaks(_: Backend) -> None:
        raise StoreError("broken")

    backend = opened(kind)
    results = backend.run(
        [(True, lambda there: there.put("k1", JOE, NOW)), (True, breaks), (False, lambda there: there.find("k1", NOW))]
    )
    assert isinstance(results[1], StoreError)
    assert results[2] == JOE
    backend.close()
    assert do(opened(kind), "find", "k1", NOW) == JOE


@pytest.mark.parametrize("kind", ["file", "database"])
def test_it_says_so_when_it_is_closed(opened: Opened, kind: str) -> None:
    backend = opened(kind)
    backend.close()
    with pytest.raises(StoreError):
        do(backend, "put", "k1", JOE, NOW)


# --- file --------------------------------------------------------------------------------------------------------


def test_a_file_is_one_workers_own(opened: Opened, tmp_path: Path) -> None:
    opened("file")
    with pytest.raises(StoreError, match=r"cookies\.json cannot be used: another worker has it"):
        opened("file")
    assert (tmp_path / "cookies.json").exists()


ENDLESS = (
    b'{"cbtid": "x", "authrealm": "r", "authid": "a", "authrole": "b", "authmethod": "t", "authextra": null,'
    b' "deleted": null, "created": "2026-01-01T00:00:00Z", "max_age": 1e400}\n'
)


@pytest.mark.parametrize(
    "content",
    [b"hello\n", b"[1]\n", b'{"cbtid": 1}\n', b"SQLite format 3\0\n", ENDLESS, b"[" * 100_000 + b"\n"],
    ids=["text", "list", "number", "database", "endless", "deep"],
)
def test_a_file_of_something_else_is_left_alone(opened: Opened, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cookies.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="line 1 is none of a file of cookies"):
        opened("file")
    assert path.read_bytes() == content


def test_a_line_that_was_not_finished_is_left_out(opened: Opened, tmp_path: Path) -> None:
    backend = opened("file")
    do(backend, "put", "k1", JOE, NOW)
    backend.close()
    with open(tmp_path / "cookies.json", "ab") as file:
        file.write(b'{"cbtid": "sha256:k2", "sta')
    assert do(opened("file"), "find", "k1", NOW) == JOE


def test_the_file_of_crossbar_is_taken_over(opened: Opened, tmp_path: Path) -> None:
    def line(cbtid: str, **keys: Any) -> str:
        item = {"cbtid": cbtid, "status": "created", "created": "2033-05-18T03:00:00.000Z", "modified": None}
        item |= {"deleted": None, "max_age": 604800, "authid": None, "authrole": None, "authmethod": None}
        return json.dumps({**item, "authrealm": None, "authextra": None, **keys}) + "\n"

    who = {"authid": "joe", "authrole": "user", "authmethod": "ticket", "authrealm": "realm1"}
    text = line("aaa/+") + line("aaa/+", status="modified", **who) + line("bbb", **who)
    text += line("bbb", deleted="2033-05-18T03:01:00.000Z", **who) + line("ccc", authextra={"x": [1]}, **who)
    (tmp_path / "cookies.json").write_text(text)
    backend = opened("file")
    found = do(backend, "find", key_of("aaa/+"), NOW)
    assert (found.realm, found.authid, found.authrole, found.authmethod) == ("realm1", "joe", "user", "ticket")
    assert do(backend, "find", key_of("bbb"), NOW) is None
    assert do(backend, "find", key_of("ccc"), NOW).authextra == {"x": [1]}
    # From now on the values are not in it any more.
    assert "aaa/+" not in (tmp_path / "cookies.json").read_text()
    assert "ccc" not in (tmp_path / "cookies.json").read_text()


def test_the_file_does_not_grow_for_ever(opened: Opened, tmp_path: Path) -> None:
    backend = opened("file")
    do(backend, "put", "k1", JOE, NOW)
    for _ in range(3000):
        backend.put("k2", EVE, NOW)
        backend.delete("k2")
    backend.run([(True, lambda there: there.put("k3", EVE, NOW))])
    assert len((tmp_path / "cookies.json").read_text().splitlines()) < 1100
    backend.close()
    again = opened("file")
    assert do(again, "find", "k1", NOW) == JOE
    assert do(again, "find", "k2", NOW) is None


def test_what_could_not_be_written_is_written_later(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened("file")
    do(backend, "put", "k1", JOE, NOW)

    def full(_: FileBackend) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileBackend, "_write", full)
        with pytest.raises(StoreError, match="No space left on device"):
            do(backend, "log_out", "k1", NOW)
    do(backend, "log_out", "k1", NOW)
    backend.close()
    assert do(opened("file"), "find", "k1", NOW) is None


# --- database ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cookies.db", "cookies.db"), ("c.sqlite3", "c.sqlite3"), (".cookies", ".cookies/cookies.sqlite3")],
)
def test_where_the_database_is(tmp_path: Path, name: str, expected: str) -> None:
    assert database_file(str(tmp_path / name)) == str(tmp_path / expected)


def test_a_folder_or_a_file_that_is_there_counts_and_not_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "file").write_bytes(b"")
    assert database_file(str(tmp_path / "folder.db")) == str(tmp_path / "folder.db" / "cookies.sqlite3")
    assert database_file(str(tmp_path / "file")) == str(tmp_path / "file")


def test_the_database_of_crossbar_stays_beside_ours(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(b"LMDB")
    do(opened("database"), "put", "k1", JOE, NOW)
    assert (tmp_path / "db" / "data.mdb").read_bytes() == b"LMDB"


def test_two_processes_share_a_database_and_hear_of_logouts(opened: Opened) -> None:
    one, two = opened("database"), opened("database")
    do(one, "put", "k1", JOE, NOW)
    assert do(two, "find", "k1", NOW) == JOE
    assert do(two, "news") == []
    do(one, "log_out", "k1", NOW)
    do(one, "delete", "k2")
    assert do(two, "find", "k1", NOW) is None
    assert do(two, "news") == ["k1"]
    assert do(two, "news") == []
    do(two, "log_out", "k3", NOW)
    # Whoever logged it out knows that already.
    assert do(two, "news") == []
    assert do(one, "news") == ["k3"]
    assert do(opened("database"), "news") == []


def test_workers_that_start_at_the_same_moment_can_all_open_the_database(tmp_path: Path) -> None:
    def open_it(folder: Path) -> None:
        backend = SqliteBackend(database_file(str(folder / "db")), 100, 1 << 30, False, False)
        together.wait()
        try:
            backend.open()
            backend.close()
        except StoreError as error:
            errors.append(error)

    together = threading.Barrier(4)
    errors: list[StoreError] = []
    for number in range(20):
        threads = [threading.Thread(target=open_it, args=(tmp_path / str(number),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_another_that_changes_the_journal_is_waited_for(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two that do it at the same moment are told so at once, whatever their timeout is.
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    refusals = [busy, busy]

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if "journal_mode" in sql and refusals:
                raise refusals.pop()
            return super().execute(sql, *arguments)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **keys: connect(*args, factory=Connection, **keys))
    do(opened("database"), "put", "k1", JOE, NOW)
    assert not refusals


def test_a_lock_of_somebody_else_is_waited_for_once(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    class Watched(SqliteBackend):
        def _transact(self, jobs: Sequence[Job]) -> list[Any]:
            tries.append(sum(is_write for is_write, _ in jobs))
            return super()._transact(jobs)

    monkeypatch.setattr("proxy.cookies.sqlite.LOCK_SECONDS", 0.1)
    backend = Watched(database_file(str(tmp_path / "db")), 100, 1 << 30, False, False)
    backend.open()
    do(backend, "put", "k1", JOE, NOW)
    tries.clear()
    other = sqlite3.connect(tmp_path / "db" / "cookies.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    jobs: list[Job] = [(True, lambda backend: backend.delete("k1"))] * 5
    *failed, found = backend.run([*jobs, (False, lambda backend: backend.find("k1", NOW))])
    assert all("database is locked" in str(error) for error in failed)
    assert found == JOE
    assert tries == [5, 0]
    other.close()
    backend.close()


def test_a_cookie_that_was_logged_out_is_not_brought_back_by_another_process(opened: Opened) -> None:
    one, two = opened("database"), opened("database")
    do(one, "put", "k1", JOE, NOW)
    do(one, "log_out", "k1", NOW)
    do(two, "put", "k1", JOE, NOW)
    assert do(one, "find", "k1", NOW) is None


def test_a_logout_is_heard_of_although_something_else_failed(opened: Opened) -> None:
    def fail(backend: Backend) -> None:
        raise StoreError("of no use")

    one, two = opened("database"), opened("database")
    two.run([(False, lambda backend: backend.news())])
    one.run([(True, lambda backend: backend.log_out("k1", NOW))])
    news, failed = two.run([(False, lambda backend: backend.news()), (True, fail)])
    assert isinstance(failed, StoreError)
    assert news == ["k1"]


def test_logouts_are_not_kept_for_ever(opened: Opened, tmp_path: Path) -> None:
    backend = opened("database")
    do(backend, "log_out", "k1", NOW)
    do(backend, "log_out", "k2", NOW + 3000)
    do(backend, "sweep", NOW + 4000)
    with sqlite3.connect(tmp_path / "db" / "cookies.sqlite3") as database:
        assert database.execute("SELECT key FROM logouts").fetchall() == [("k2",)]
    database.close()


def test_a_file_that_is_no_database_is_left_alone(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"hello, I am a text of several words\n" * 50)
    with pytest.raises(StoreError, match=r"db cannot be used: file is not a database"):
        opened("database")
    assert (tmp_path / "db").read_bytes().startswith(b"hello")


@pytest.mark.parametrize("version", [None, 2])
def test_a_database_of_something_else_is_left_alone(opened: Opened, tmp_path: Path, version: int | None) -> None:
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("CREATE TABLE theirs (x)")
        if version is not None:
            database.execute("PRAGMA application_id = 0x7770636B")
            database.execute(f"PRAGMA user_version = {version}")
    database.close()
    expected = "another program" if version is None else "another version"
    with pytest.raises(StoreError, match=expected):
        opened("database")
    with sqlite3.connect(tmp_path / "db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    database.close()


def test_the_database_is_not_made_larger_than_it_may_be(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "small.db"
    backend = SqliteBackend(str(path), 1_000_000, 131_072, False, False)
    backend.open()
    for number in range(500):
        record = Record(NOW + number, "realm1", None, f"u{number}", "user", "ticket", {"x": "y" * 400})
        do(backend, "put", f"k{number}", record, NOW)
    assert do(backend, "find", "k499", NOW) is not None
    assert path.stat().st_size <= 131_072
    backend.close()


def test_a_database_that_is_full_has_room_for_logins_and_logouts(tmp_path: Path) -> None:
    path = tmp_path / "small.db"
    backend = SqliteBackend(str(path), 1_000_000, 131_072, False, False)
    backend.open()
    for number in range(100):
        record = Record(NOW + 1 + number, "realm1", None, f"u{number}", "user", "ticket", {"x": "y" * 16_000})
        do(backend, "put", key_of(str(number)), record, NOW)
    assert do(backend, "find", key_of("99"), NOW) == record
    for number in range(2000):
        do(backend, "log_out", key_of(str(99 - number)), NOW)
    assert do(backend, "find", key_of("99"), NOW) is None
    do(backend, "put", "another", record, NOW)
    assert do(backend, "find", "another", NOW) == record
    assert path.stat().st_size <= 131_072
    backend.close()


def test_no_value_of_a_cookie_can_be_read_from_a_key() -> None:
    key = key_of("the value")
    assert len(key) == 64
    assert "the" not in key
    assert key_of("the valuf") != key
