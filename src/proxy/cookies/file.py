"""Cookies in a file that one worker has for itself: a line of JSON for each change, the last one of a cookie counts.

The lines have the keys of Crossbar.io's file, so that a file that Crossbar.io has written is taken over, and
Crossbar.io can read ours. In place of a cookie's value there is its key, which is of use to nobody who reads the file.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final

from proxy.cookies.memory import MemoryBackend
from proxy.cookies.records import Job, Record, StoreError, key_of, pack, unpack
from proxy.messages import MessageError

__all__ = ["FileBackend"]

log = logging.getLogger(__name__)

_KEY_PREFIX: Final = "sha256:"
# Lines that are worth nothing any more are tolerated up to as many as there are records, and these.
_SLACK: Final = 1000
_LINE_MAX: Final = 1 << 20


class FileBackend(MemoryBackend):
    """See :class:`proxy.cookies.records.Backend`.

    :param path: of the file; another one beside it, with ``.lock`` behind its name, says that it is in use.
    :param max_cookies: most of them that are kept.
    :param purge: forget all that are in it when it is opened.
    """

    is_quick = False

    def __init__(self, path: str, max_cookies: int, purge: bool) -> None:
        super().__init__(max_cookies)
        self._path = path
        self._purge = purge
        self._lock = -1
        self._file: IO[bytes] | None = None
        self._lines = 0
        self._pending: list[bytes] = []
        # The file lacks something, which only the whole of it makes good.
        self._is_torn = False

    # --- opening ---

    def open(self) -> None:
        """See Backend."""
        try:
            self._take_lock()
            if not self._purge:
                self._read()
            self._pending.clear()
            self._rewrite()
        except (OSError, StoreError) as error:
            self.close()
            raise StoreError(f"the file of cookies {self._path} cannot be used: {error}") from error

    def _take_lock(self) -> None:
        folder = os.path.dirname(self._path)
        if folder:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self._lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError("another worker has it (the store that workers share is of the type database)") from None

    def close(self) -> None:
        """See Backend."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _read(self) -> None:
        if not os.path.exists(self._path):
            return
        now = int(time.time())
        with open(self._path, "rb") as file:
            for number, line in enumerate(_lines(file), 1):
                try:
                    key, record = _parse(line)
                except (ValueError, ArithmeticError, LookupError, TypeError, RecursionError, MessageError) as error:
                    if not line.endswith(b"\n"):
                        break  # the worker was ended while it wrote
                    raise StoreError(f"line {number} is none of a file of cookies") from error
                if record is None:
                    super().delete(key)
                else:
                    super().put(key, record, now)

    def _rewrite(self) -> None:
        """Write what counts to a new file, which takes the place of the old one."""
        temporary = f"{self._path}.new"
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        file = os.fdopen(descriptor, "wb")
        try:
            os.fchmod(descriptor, 0o600)  # it may have been there
            file.writelines(_line(key, record) for key, record in self.records.items())
            _flush(file)
            os.rename(temporary, self._path)
        except BaseException:
            file.close()
            raise
        before, self._file = self._file, file
        if before is not None:
            try:
                before.close()
            except OSError:
                pass  # what could not be written there is in the new one
        self._lines = len(self.records)

    # --- jobs ---

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """See Backend."""
        results = super().run(jobs)
        if not self._pending and not (self._is_torn and any(is_write for is_write, _ in jobs)):
            return results
        try:
            self._write()
        except (OSError, StoreError) as error:
            self._is_torn = True
            failed = StoreError(f"the file of cookies {self._path}: {error}")
            return [failed if is_write else result for (is_write, _), result in zip(jobs, results, strict=True)]
        finally:
            self._pending.clear()
        return results

    def _write(self) -> None:
        if self._file is None:
            raise StoreError("it is closed")
        self._lines += len(self._pending)
        if self._is_torn or self._lines > 2 * len(self.records) + _SLACK:
            self._rewrite()
            self._is_torn = False
        else:
            self._file.writelines(self._pending)
            _flush(self._file)

    def put(self, key: str, record: Record, now: int) -> None:
        """See Backend."""
        try:
            line = _line(key, record)
        except MessageError as error:
            raise StoreError(f"a login cannot be kept in {self._path}: {error}") from error
        super().put(key, record, now)
        if record.expires > now:
            self._pending.append(line)

    def delete(self, key: str) -> None:
        """See Backend."""
        if self.records.pop(key, None) is not None:
            self._pending.append(_line(key, None))


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(_LINE_MAX):
        if line.strip():
            yield line


def _line(key: str, record: Record | None) -> bytes:
    now = int(time.time())
    item: dict[str, Any] = {"cbtid": _KEY_PREFIX + key}
    if record is None:
        item |= {"status": "deleted", "created": None, "modified": None, "deleted": _text(now), "max_age": 0}
        item |= dict.fromkeys(("authid", "authrole", "authmethod", "authrealm", "authextra"))
    else:
        item |= {"status": "created", "created": _text(now), "modified": _text(now), "deleted": None}
        item["max_age"] = record.expires - now
        item |= {"authid": record.authid, "authrole": record.authrole, "authmethod": record.authmethod}
        item |= {"authrealm": record.realm, "asked": record.asked}
        item["authextra"] = json.loads(pack(record.authextra, as_text=True))[1]
    return json.dumps(item, separators=(",", ":")).encode("ascii") + b"\n"


def _text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parse(line: bytes) -> tuple[str, Record | None]:
    """Key and record of a line; None: it is deleted, or nobody has logged in with it."""
    item = json.loads(line)
    if not isinstance(item, Mapping) or not isinstance(item["cbtid"], str):
        raise ValueError("not a cookie")
    name: str = item["cbtid"]
    key = name.removeprefix(_KEY_PREFIX) if name.startswith(_KEY_PREFIX) else key_of(name)
    who = [item["authrealm"], item["authid"], item["authrole"], item["authmethod"]]
    if item["deleted"] is not None or not all(isinstance(text, str) and text for text in who):
        return key, None
    created = datetime.fromisoformat(item["created"]).timestamp()
    extra = unpack(json.dumps([0, item["authextra"] or {}]).encode(), as_text=True)
    asked = item.get("asked", item["authrealm"])
    return key, Record(int(created + item["max_age"]), who[0], asked, who[1], who[2], who[3], dict(extra))
