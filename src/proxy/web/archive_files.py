"""A ZIP archive that files are served from: checked, listed, read piece by piece."""

import hashlib
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Collection
from typing import IO, Any, Final

from proxy.errors import CannotStart, InvalidConfiguration
from proxy.web.archive_packed import PACKED, Unpacker, open_packed

__all__ = ["Archive", "open_archive"]

_BLOCK: Final = 1 << 20
_ENCRYPTED: Final = 0x1
_BOUNDED: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})  # what zipfile unpacks piece by piece

READ_ERRORS: Final = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What reading a damaged archive may raise."""


class Archive:
    """An open archive.

    :param file: of Python's, open.
    :param cache_limit: octets of files that are kept in memory.

    :ivar entries: the files in it, by name.
    """

    def __init__(self, file: zipfile.ZipFile, cache_limit: int) -> None:
        self._file = file
        self._limit = cache_limit
        self._kept = 0
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self.entries = {
            entry.filename: entry
            for entry in file.infolist()
            if not entry.is_dir() and not entry.flag_bits & _ENCRYPTED
        }

    def open(self, name: str) -> IO[bytes] | Unpacker | bytes:
        """A file of it: octets that are in memory, or what they can be read from.

        :raises OSError: and others of :data:`READ_ERRORS`: the archive is damaged.
        """
        kept = self._cache.get(name)
        if kept is not None:
            self._cache.move_to_end(name)
            return kept
        entry = self.entries[name]
        if entry.compress_type in PACKED:
            return open_packed(self._file, entry)
        if entry.compress_type not in _BOUNDED:
            raise NotImplementedError(f"compression method {entry.compress_type}")
        return self._file.open(entry)

    def keep(self, name: str, data: bytes) -> None:
        """Keep a file in memory; those that nobody asked for longest make room."""
        if len(data) > self._limit or name in self._cache:
            return
        self._cache[name] = data
        self._kept += len(data)
        while self._kept > self._limit:
            _, dropped = self._cache.popitem(last=False)
            self._kept -= len(dropped)

    def may_keep(self, name: str) -> bool:
        """Whether a file is small enough for :meth:`keep`."""
        return self.entries[name].file_size <= self._limit

    def close(self) -> None:
        """Close it; what is being read stays open until that is done."""
        self._cache.clear()
        self._kept = 0
        self._file.close()


def open_archive(path: str, hashes: Collection[str] | None, cache_limit: int) -> Archive:
    """Check and open an archive; takes its time, for a thread.

    :param path: of the file.
    :param hashes: SHA-256, in hexadecimal, of those that may be served; None: any.
    :raises InvalidConfiguration: it is none of those, or no ZIP archive.
    :raises CannotStart: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            found = _sha256(file) if hashes is not None else ""
        if hashes is not None and found not in hashes:
            raise InvalidConfiguration(f'hashes: SHA-256 of "{path}" is {found}, which is none of those listed')
        return Archive(zipfile.ZipFile(path), cache_limit)
    except OSError as error:
        raise CannotStart(f'archive: "{path}" cannot be read: {error.strerror}') from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InvalidConfiguration(f'archive: "{path}": expected a ZIP archive: {error}') from error


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
