"""What is known of a cookie, and what keeps it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from proxy.messages import SER_CBOR, SER_JSON, decode, encode

__all__ = ["EXTRA_MAX", "Backend", "Job", "Record", "StoreError", "key_of", "pack", "unpack"]

EXTRA_MAX: Final = 16_384
"""Octets of an authextra that is kept, encoded. Clients choose what is in it."""


# The codecs are those of messages, which begin with a code.
_CODE: Final = 0


class StoreError(Exception):
    """A store cannot be used. The text holds no secret."""


@dataclass(frozen=True, slots=True)
class Record:
    """The login that a cookie stands for.

    :ivar expires: until when (Posix time, seconds).
    :ivar realm: realm that was joined.
    :ivar asked: realm that the client had asked for; None: it named none.
    :ivar authid: who it is; likewise ``authrole`` and ``authmethod``.
    :ivar authextra: what the router was told besides. Not to be changed.
    """

    expires: int
    realm: str
    asked: str | None
    authid: str
    authrole: str
    authmethod: str
    authextra: dict[str, Any] = field(default_factory=dict, repr=False)

    def is_of(self, other: "Record") -> bool:
        """Whether both say the same of who somebody is."""
        return (self.realm, self.authid, self.authrole) == (other.realm, other.authid, other.authrole)


def key_of(value: str) -> str:
    """The key of a cookie: a hash of its value, in hexadecimal digits."""
    return hashlib.sha256(value.encode()).hexdigest()


def pack(authextra: dict[str, Any], *, as_text: bool = False) -> bytes:
    """An authextra in CBOR, or in JSON.

    :raises proxy.messages.MessageError: it holds something that has no place there.
    """
    return encode(SER_JSON if as_text else SER_CBOR, [_CODE, authextra])


def unpack(octets: bytes, *, as_text: bool = False) -> dict[str, Any]:
    """The reverse of :func:`pack`.

    :raises proxy.messages.MessageError: that is not it.
    """
    authextra: dict[str, Any] = decode(SER_JSON if as_text else SER_CBOR, octets, trusted=True)[1]
    return authextra


Job: TypeAlias = "tuple[bool, Callable[[Backend], Any]]"
"""Whether it writes, and what is to be done."""


class Backend(Protocol):
    """Keeps records by the keys of their cookies. Used by one thread at a time; times are Posix times, seconds.

    :ivar is_shared: other processes may use it at the same time.
    :ivar is_quick: it never waits, for a disk or for others.
    """

    is_shared: bool
    is_quick: bool

    def open(self) -> None:
        """Get ready.

        :raises StoreError: it cannot be used.
        """

    def close(self) -> None:
        """Let go of everything. Idempotent."""

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """Do jobs, in their order; what is written is safe when this returns.

        :returns: the results; for a job that failed a StoreError, and nothing of it is done.
        """

    def find(self, key: str, now: int) -> Record | None:
        """The record of a cookie that has not expired."""

    def put(self, key: str, record: Record, now: int) -> None:
        """Keep a record, unless its cookie has expired or was logged out. Where there is no room, the one goes that
        expires first."""

    def settle(self, key: str, record: Record) -> None:
        """Delete a record that says something else of who somebody is."""

    def delete(self, key: str) -> None:
        """Delete a record, if it is there."""

    def log_out(self, key: str, now: int) -> None:
        """Delete it, and have other processes hear of it."""

    def news(self) -> list[str]:
        """Keys that other processes have logged out since the last call."""

    def sweep(self, now: int) -> None:
        """Delete what has expired."""
