"""Entries of a ZIP archive that are packed with bzip2 or LZMA, unpacked no faster than they are read.

Python's zipfile unpacks a block of the archive at a time, whatever comes out of it: of bzip2, gigabytes.
"""

import copy
import zipfile
import zlib
from typing import IO, Any, Final

__all__ = ["PACKED", "Unpacker", "open_packed"]

PACKED: Final = frozenset({zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
"""Methods that this is for."""

DICTIONARY_MAX: Final = 64 << 20
"""Octets of what LZMA has been told to remember: all that its packers use, if they are not asked for more."""

_BLOCK: Final = 4096
_LZMA_HEAD: Final = 4  # version, and the size of the properties that follow
_LZMA_PROPERTIES: Final = 5


def open_packed(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> "Unpacker":
    """Open an entry.

    :raises OSError: or BadZipFile, NotImplementedError: it cannot be read.
    """
    raw = copy.copy(entry)
    raw.compress_type = zipfile.ZIP_STORED
    raw.file_size = entry.compress_size
    del raw.CRC  # of what comes out; that is checked here
    packed = archive.open(raw)
    try:
        return Unpacker(packed, entry)
    except BaseException:
        packed.close()
        raise


class Unpacker:
    """What is in an entry, as a file to be read from its beginning to its end.

    :param packed: its octets in the archive.
    :param entry: of the archive's directory.
    """

    def __init__(self, packed: IO[bytes], entry: zipfile.ZipInfo) -> None:
        self._packed = packed
        self._name = entry.filename
        self._left = entry.file_size
        self._expected = entry.CRC
        self._checksum = 0
        self._error: type[Exception] = OSError
        self._engine: Any = None
        if entry.compress_type == zipfile.ZIP_LZMA:
            self._begin_lzma(entry.file_size)
        else:
            import bz2

            self._engine = bz2.BZ2Decompressor()

    def _begin_lzma(self, size: int) -> None:
        import lzma  # some builds of Python lack it

        head = self._packed.read(_LZMA_HEAD)
        properties = self._packed.read(_LZMA_PROPERTIES)
        if len(properties) < _LZMA_PROPERTIES or head[2:] != _LZMA_PROPERTIES.to_bytes(2, "little"):
            raise zipfile.BadZipFile(f"no properties of LZMA in {self._name!r}")
        rest, lc = divmod(properties[0], 9)
        pb, lp = divmod(rest, 5)
        # It cannot look back further than to the beginning of the file.
        dictionary = min(int.from_bytes(properties[1:], "little"), max(size, _BLOCK))
        if dictionary > DICTIONARY_MAX:
            raise NotImplementedError(f"LZMA with a dictionary of more than {DICTIONARY_MAX} octets")
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, _BLOCK), "lc": lc, "lp": lp, "pb": pb}]
        self._error = lzma.LZMAError
        try:
            self._engine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        except (lzma.LZMAError, ValueError) as error:
            raise zipfile.BadZipFile(f"bad properties of LZMA in {self._name!r}") from error

    def read(self, size: int) -> bytes:
        """Some octets, ``size`` at most; none: that was all.

        :raises BadZipFile: and others of what reading a damaged archive may raise.
        """
        data = b""
        while self._left and not data:
            block = self._packed.read(_BLOCK) if self._engine.needs_input else b""
            if self._engine.eof or (self._engine.needs_input and not block):
                raise EOFError(f"{self._name!r} ends too early")
            try:
                data = self._engine.decompress(block, min(size, self._left))
            except self._error as error:
                raise zipfile.BadZipFile(f"{self._name!r} is damaged: {error}") from error
        if data:
            self._left -= len(data)
            self._checksum = zlib.crc32(data, self._checksum)
            if not self._left and self._checksum != self._expected:
                raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._name!r}")
        return data

    def close(self) -> None:
        """Close it."""
        self._packed.close()
