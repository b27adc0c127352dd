"""The key by which routers know the proxy: an Ed25519 key in the form in which nodes of Crossbar.io keep theirs."""

import contextlib
import getpass
import logging
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import Final

from autobahn.util import utcnow
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy.errors import CannotStart

__all__ = ["FILE_NAME", "FOLDER_ALONE", "NodeKey"]

log = logging.getLogger(__name__)

FILE_NAME: Final = "key.priv"
FOLDER_ALONE: Final = ".crossbar"
"""Where the file is for a worker that runs without a node: in a folder beside its configuration."""

_PRIVATE: Final = "private-key-ed25519"
_PUBLIC: Final = "public-key-ed25519"
# Those that Crossbar.io insists on.
_REQUIRED: Final = ("creator", "created-at", "machine-id", _PUBLIC, _PRIVATE)
_TITLE: Final = "Crossbar.io node private key - KEEP THIS SAFE!"
_FILE_MAX: Final = 65536
_KEY_OCTETS: Final = 32


class NodeKey:
    """The key, in memory.

    :param privkey: the private key, 32 octets.

    :ivar public: the public key in hexadecimal digits.
    """

    __slots__ = ("_key", "public")

    def __init__(self, privkey: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(privkey)
        self.public: str = self._key.public_key().public_bytes_raw().hex()

    def sign(self, octets: bytes) -> bytes:
        """The signature of some octets: 64 octets."""
        return self._key.sign(octets)

    @classmethod
    def load(cls, path: Path) -> "NodeKey":
        """Read a key.

        :param path: of the file, which nobody but its owner may read.
        :raises CannotStart: it cannot be read, others may read it, or it is no such key.
        """
        return _parsed(path, _read(path))

    @classmethod
    def load_or_create(cls, path: Path, authid: str) -> "NodeKey":
        """Read a key; make one if there is none.

        Processes that do so at the same time get the same key.

        :param path: of the file. Its folder is made, too.
        :param authid: noted in a file that is made.
        :raises CannotStart: as :meth:`load`, or the file cannot be written.
        """
        if not os.path.lexists(path):
            try:
                _create(path, authid)
            except OSError as error:
                raise CannotStart(f"node key {path} cannot be made: {error.strerror or error}") from None
        return cls.load(path)


def _read(path: Path) -> str:
    try:
        # A FIFO is not to be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CannotStart(f"node key {path}: expected a file")
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise CannotStart(f"node key {path}: expected mode 0600, has {mode:04o}: others may read it")
            octets = file.read(_FILE_MAX)
    except OSError as error:
        raise CannotStart(f"node key {path} cannot be read: {error.strerror or error}") from None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise CannotStart(f"node key {path}: expected text in UTF-8") from None


def _parsed(path: Path, text: str) -> NodeKey:
    """What a file says: a title, an empty line, and ``tag: value`` in each line."""
    tags: dict[str, str] = {}
    has_begun = False
    for line in text.splitlines():
        if not line.strip():
            has_begun = True
        elif has_begun:
            tag, colon, value = line.partition(":")
            tag = tag.strip().lower()
            if not colon or tag in tags:
                # The line itself may be the private key.
                raise CannotStart(f"node key {path}: expected lines like tag: value, each tag once")
            tags[tag] = value.strip()
    for tag in _REQUIRED:
        if tag not in tags:
            raise CannotStart(f"node key {path}: {tag} is missing")
    privkey = _octets(tags[_PRIVATE])
    if privkey is None:
        raise CannotStart(f"node key {path}: {_PRIVATE}: expected {2 * _KEY_OCTETS} hexadecimal digits")
    key = NodeKey(privkey)
    if tags[_PUBLIC].lower() != key.public:
        raise CannotStart(f"node key {path}: {_PUBLIC} does not belong to {_PRIVATE}")
    return key


def _octets(text: str) -> bytes | None:
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        return None
    return octets if len(octets) == _KEY_OCTETS else None


def _create(path: Path, authid: str) -> None:
    """Write a file with a new key, unless somebody else has by then: it is there as a whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    privkey = secrets.token_bytes(_KEY_OCTETS)
    key = NodeKey(privkey)
    tags = {
        "creator": _creator(),
        "created-at": utcnow(),
        "machine-id": _machine_id(),
        "node-authid": authid,
        _PUBLIC: key.public,
        _PRIVATE: privkey.hex(),
    }
    lines = [_TITLE, "", *(f"{tag}: {value}" for tag, value in tags.items()), ""]
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
            log.info("node key %s is new: public key %s", path, key.public)
    finally:
        os.unlink(unfinished)


def _creator() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return "unknown"  # a user that the system has no name for


def _machine_id() -> str:
    for name in ("/var/lib/dbus/machine-id", "/etc/machine-id"):
        with contextlib.suppress(OSError):
            text = Path(name).read_text(encoding="ascii", errors="replace").strip()
            if text:
                return text
    return socket.gethostname()
