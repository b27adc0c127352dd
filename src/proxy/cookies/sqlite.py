"""Cookies in an SQLite database, which all workers of a machine may share."""

import logging
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Sequence
from typing import Any, Final

from proxy.cookies.records import Job, Record, StoreError, pack, unpack
from proxy.messages import MessageError

__all__ = ["SqliteBackend", "database_file"]

log = logging.getLogger(__name__)

FILE_NAME: Final = "cookies.sqlite3"
"""In a folder, which is what Crossbar.io has for its database of another kind."""
_SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")

# "wpck": what tells a database of ours from those of other programs.
APPLICATION_ID: Final = 0x7770636B
VERSION: Final = 1
PAGE_SIZE: Final = 4096
RECORD_SIZE: Final = 1024
"""What a record takes at most, octets, unless its authextra is an unusual one."""
LOCK_SECONDS: Final = 5.0
"""How long to wait for another process that writes."""
LOGOUT_SECONDS: Final = 3600
"""How long a logout is kept for the others to hear of it; they look twice a second."""
SPARE_PAGES: Final = 8
"""What is kept free for the next record, which has four at most for its authextra, or the next logout."""
SWEEP_MAX: Final = 1000
"""Records that one sweep deletes, so that others do not wait for it."""

_FIELDS: Final = ("expires", "realm", "asked", "authid", "authrole", "authmethod", "authextra")
_FIND: Final = f"SELECT {', '.join(_FIELDS)} FROM cookies WHERE key = ? AND expires > ?"  # noqa: S608
_SCHEMA: Final = """
CREATE TABLE cookies (
    key TEXT PRIMARY KEY, expires INTEGER NOT NULL, realm TEXT NOT NULL, asked TEXT, authid TEXT NOT NULL,
    authrole TEXT NOT NULL, authmethod TEXT NOT NULL, authextra BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX cookies_expires ON cookies (expires);
CREATE TABLE logouts (seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, at INTEGER NOT NULL, who TEXT NOT NULL);
CREATE INDEX logouts_key ON logouts (key);
"""


def database_file(path: str) -> str:
    """The file of a database.

    :param path: as configured: a file, or a folder (which is made if it does not exist, unless the name ends like that
        of a file: .db, .sqlite, .sqlite3).
    """
    is_file = os.path.isfile(path) or (not os.path.isdir(path) and path.endswith(_SUFFIXES))
    return path if is_file else os.path.join(path, FILE_NAME)


class SqliteBackend:
    """See :class:`proxy.cookies.records.Backend`.

    :param path: of the file.
    :param max_cookies: most of them that are kept.
    :param maxsize: of the file, octets.
    :param sync: whether what is written survives a crash of the machine, and not just one of the worker.
    :param purge: forget all that are in it when it is opened.
    """

    is_shared = True
    is_quick = False

    def __init__(self, path: str, max_cookies: int, maxsize: int, sync: bool, purge: bool) -> None:
        self._path = path
        self._max = min(max_cookies, maxsize // RECORD_SIZE)
        self._max_pages = max(maxsize // PAGE_SIZE, 16)
        self._sync = sync
        self._purge = purge
        self._database: sqlite3.Connection | None = None
        self._count = 0
        self._who = secrets.token_hex(8)
        self._seen = 0  # the last logout that we know of
        self._data_version = -1

    # --- opening ---

    def open(self) -> None:
        """See Backend."""
        try:
            _make_file(self._path)
            # By one thread after the other, never by two at a time.
            self._database = sqlite3.connect(
                self._path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._set_up(self._database)
        except (OSError, sqlite3.Error, StoreError) as error:
            self.close()
            raise StoreError(f"the database of cookies {self._path} cannot be used: {error}") from error

    def _set_up(self, database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")  # two processes may be making it
        application = _pragma(database, "application_id")
        version = _pragma(database, "user_version")
        if not application and not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _SCHEMA.strip().strip(";").split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {VERSION}")
        elif application != APPLICATION_ID:
            raise StoreError("it is a database of another program")
        elif version != VERSION:
            raise StoreError(f"it was made by another version of this program (version {version}, expected {VERSION})")
        if self._purge:
            database.execute("DELETE FROM cookies")
        self._seen = database.execute("SELECT coalesce(max(seq), 0) FROM logouts").fetchone()[0]
        database.execute("COMMIT")
        _write_ahead(database)
        database.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
        database.execute(f"PRAGMA max_page_count = {self._max_pages}")
        self._recount()

    def close(self) -> None:
        """See Backend."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError("the database of cookies is closed")
        return self._database

    # --- jobs ---

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """See Backend. All of them in one transaction, as long as none fails."""
        if len(jobs) > 1:
            try:
                return self._transact(jobs)
            except (sqlite3.Error, StoreError) as error:
                if isinstance(error, sqlite3.Error) and _is_locked(error):
                    # It was waited for once; not again for each of them, and reading takes no lock.
                    return [self._failed(error) if job[0] else self._run(job) for job in jobs]
                # Else each on its own, to see which.
        return [self._run(job) for job in jobs]

    def _run(self, job: Job) -> Any:
        try:
            return self._transact([job])[0]
        except sqlite3.Error as error:
            return self._failed(error)
        except StoreError as error:
            return error

    def _failed(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"the database of cookies {self._path}: {error}")

    def _transact(self, jobs: Sequence[Job]) -> list[Any]:
        database = self._open
        writes = any(is_write for is_write, _ in jobs)
        # What a transaction has found out is told to nobody if it fails: it is to be found again.
        heard = self._seen, self._data_version
        database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            results = [action(self) for _, action in jobs]
            database.execute("COMMIT")
        except BaseException:
            self._seen, self._data_version = heard
            if database.in_transaction:  # some errors end it
                database.execute("ROLLBACK")
            raise
        return results

    def find(self, key: str, now: int) -> Record | None:
        """See Backend."""
        row = self._open.execute(_FIND, (key, now)).fetchone()
        if row is None:
            return None
        try:
            return Record(**dict(zip(_FIELDS, row, strict=True)) | {"authextra": unpack(row[-1])})
        except (MessageError, LookupError, TypeError) as error:
            raise StoreError(f"the database of cookies {self._path} is damaged: an authextra cannot be read") from error

    def put(self, key: str, record: Record, now: int) -> None:
        """See Backend."""
        database = self._open
        if record.expires <= now or database.execute("SELECT 1 FROM logouts WHERE key = ?", (key,)).fetchone():
            return
        self._make_room()
        database.execute(
            "INSERT OR REPLACE INTO cookies VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                record.expires,
                record.realm,
                record.asked,
                record.authid,
                record.authrole,
                record.authmethod,
                pack(record.authextra),
            ),
        )
        self._count += 1

    def _make_room(self) -> None:
        """Delete some where there are as many as may be: more than one, so that it is not done each time."""
        self._make_space()
        if self._count < self._max:
            return
        self._recount()  # others write, too
        excess = self._count - self._max + 1
        if excess > 0:
            self._drop_first(excess + self._max // 100)
            self._recount()

    def _make_space(self) -> None:
        """Delete some where the file is nearly full: else neither a login nor a logout would find room in it."""
        database = self._open
        while _pragma(database, "page_count") - _pragma(database, "freelist_count") > self._max_pages - SPARE_PAGES:
            if not self._drop_first(1 + self._count // 100) and not self._drop_logouts():
                return

    def _drop_first(self, count: int) -> int:
        """Delete those that expire first; how many there were."""
        return self._open.execute(
            "DELETE FROM cookies WHERE key IN (SELECT key FROM cookies ORDER BY expires LIMIT ?)", (count,)
        ).rowcount

    def _drop_logouts(self) -> int:
        """Delete the older half of them: the others have long heard of those; how many there were."""
        return self._open.execute(
            "DELETE FROM logouts WHERE seq IN (SELECT seq FROM logouts ORDER BY seq LIMIT "
            "(SELECT count(*) / 2 FROM logouts))"
        ).rowcount

    def _recount(self) -> None:
        self._count = self._open.execute("SELECT count(*) FROM cookies").fetchone()[0]

    def settle(self, key: str, record: Record) -> None:
        """See Backend."""
        self._open.execute(
            "DELETE FROM cookies WHERE key = ? AND NOT (realm = ? AND authid = ? AND authrole = ?)",
            (key, record.realm, record.authid, record.authrole),
        )

    def delete(self, key: str) -> None:
        """See Backend."""
        self._open.execute("DELETE FROM cookies WHERE key = ?", (key,))

    def log_out(self, key: str, now: int) -> None:
        """See Backend."""
        self.delete(key)
        self._make_space()
        self._open.execute("INSERT INTO logouts (key, at, who) VALUES (?, ?, ?)", (key, now, self._who))

    def news(self) -> list[str]:
        """See Backend."""
        version = _pragma(self._open, "data_version")
        if version == self._data_version:
            return []  # nobody else has written anything
        found = self._open.execute("SELECT seq, key, who FROM logouts WHERE seq > ? ORDER BY seq", (self._seen,))
        rows = found.fetchall()
        self._data_version = version
        if rows:
            self._seen = rows[-1][0]
        return [key for _, key, who in rows if who != self._who]

    def sweep(self, now: int) -> None:
        """See Backend."""
        database = self._open
        database.execute(
            "DELETE FROM cookies WHERE key IN (SELECT key FROM cookies WHERE expires <= ? ORDER BY expires LIMIT ?)",
            (now, SWEEP_MAX),
        )
        database.execute("DELETE FROM logouts WHERE at < ?", (now - LOGOUT_SECONDS,))
        self._recount()


def _pragma(database: sqlite3.Connection, name: str) -> int:
    value: int = database.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _write_ahead(database: sqlite3.Connection) -> None:
    """Have readers wait for nobody. SQLite does not wait by itself here while another process opens or closes it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_locked(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _is_locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _make_file(path: str) -> None:
    """Make the file, for nobody else to read; SQLite gives the files beside it the same mode."""
    folder = os.path.dirname(path)
    os.makedirs(folder or ".", mode=0o700, exist_ok=True)  # another worker may be making it
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError("it is not a regular file") from None
        if status.st_mode & 0o077:
            log.warning("%s can be used by others than its owner (mode %o)", path, status.st_mode & 0o777)
