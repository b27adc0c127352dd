"""One TLS context of the data plane, and the files that it is made from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from proxy.config.findings import ConfigError, Finding
from proxy.plane import Plane
from proxy.tls.files import Certificate, Fingerprint, fingerprint

__all__ = ["VERSIONS", "TlsContext", "split_ciphers"]

VERSIONS: Final = {"1.2": 0x0303, "1.3": 0x0304}
"""``min_version`` as the data plane has it (RFC 8446 4.2.1)."""


class TlsContext(ABC):
    """Base of :class:`~proxy.tls.server.ServerTls` and :class:`~proxy.tls.client.ClientTls`.

    :param plane: the data plane.
    :param owner: whose it is, for people: ``transport ws1``.
    :param paths: of all files that it is made from.
    :raises ConfigError: a file cannot be used, or OpenSSL refuses what is in them.

    :ivar number: in the data plane, as long as it is not closed.
    :ivar owner: as given.
    :ivar expiries: path and end of each certificate of its own.
    """

    def __init__(self, plane: Plane, owner: str, paths: Sequence[str]) -> None:
        self._plane = plane
        self._paths = tuple(dict.fromkeys(paths))
        self.owner = owner
        self.expiries: tuple[tuple[str, datetime], ...] = ()
        self.on_close: Callable[[TlsContext], None] = _ignore
        self._is_closed = False
        # Looked at before the files are read: what changes meanwhile is read again.
        self._loaded = fingerprint(self._paths)
        self.number: int = self._load(plane.add_tls)

    @abstractmethod
    def _options(self) -> tuple[dict[str, Any], list[Certificate]]:
        """Keywords of ``add_tls()``, read from the files, and the certificates among them.

        :raises ConfigError: a file cannot be used.
        """

    def _load(self, give: Callable[..., int]) -> int:
        options, certificates = self._options()
        try:
            number = give(**options)
        except ValueError as error:
            raise ConfigError([Finding(f"{self.owner}, tls", "", f"OpenSSL: {error}")]) from None
        self.expiries = tuple((item.path, item.expires) for item in certificates)
        return number

    @property
    def fingerprint(self) -> Fingerprint:
        """What the system says of the files now."""
        return fingerprint(self._paths)

    @property
    def has_changed(self) -> bool:
        """Whether the files are others than those in use."""
        return self.fingerprint != self._loaded

    def reload(self, *, force: bool = False) -> bool:
        """Use what the files hold now, for handshakes from now on; connections that are there stay.

        :param force: even if nothing has changed: then at least the keys of session tickets are new.
        :returns: whether there was anything to do.
        :raises ConfigError: the files cannot be used; what is in use stays so.
        """
        found = self.fingerprint
        if self._is_closed or (found == self._loaded and not force):
            return False
        self._load(self._replace)
        self._loaded = found
        return True

    def _replace(self, **options: Any) -> int:
        self._plane.replace_tls(self.number, **options)
        return self.number

    def close(self) -> None:
        """No new connection uses it any more. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._plane.drop_tls(self.number)
            self.on_close(self)


def _ignore(_: TlsContext) -> None:
    """Nobody is to hear of the end."""


def split_ciphers(ciphers: str | None) -> dict[str, str]:
    """``ciphers`` and ``ciphersuites`` of ``add_tls()``: OpenSSL has two lists, for TLS 1.2 and for TLS 1.3.

    :param ciphers: one list for both, in which the names of TLS 1.3 begin with ``TLS_``; None: the usual ones.
    """
    names = (ciphers or "").replace(",", ":").replace(" ", ":").split(":")
    suites = [name for name in names if name.startswith("TLS_")]
    others = [name for name in names if name and not name.startswith("TLS_")]
    return {"ciphers": ":".join(others), "ciphersuites": ":".join(suites)}
