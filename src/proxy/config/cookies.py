"""Cookies of WebSocket clients: the ``cookie`` item of a listening transport (keys and defaults as in Crossbar.io)."""

import os
import re
from http.cookies import Morsel
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, StrictBool, StrictStr, ValidationInfo

from proxy.config.fields import Model, NoEffect, integer, one_of, problem

__all__ = ["CookieConfig", "DatabaseStore", "FileStore", "MemoryStore"]

_NAME = re.compile(r"[a-z][a-z0-9_]+")
_KIB = 1024


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise problem("expected a lower-case letter, then lower-case letters, digits or _")
    if Morsel().isReservedKey(value):
        raise problem("expected a name that no attribute of cookies has")  # it could not be told from that
    return value


def _path(value: str, info: ValidationInfo) -> str:
    """Make it absolute, against the folder of the configuration file."""
    path = os.path.expandvars(value)
    folder: Path | None = (info.context or {}).get("folder")
    if not value or "\0" in path:
        raise problem("expected the path of a file")
    return os.path.normpath(folder / path) if folder is not None else path


_Path = Annotated[StrictStr, AfterValidator(_path)]


class MemoryStore(Model):
    """Cookies end with the worker."""

    type: Literal["memory"] = "memory"


class FileStore(Model):
    """Cookies are kept in a file that one worker has for itself.

    :ivar purge_on_startup: forget all that are in it.
    """

    type: Literal["file"]
    filename: _Path
    purge_on_startup: StrictBool = False


class DatabaseStore(Model):
    """Cookies are kept in an SQLite database, which all workers of a machine may share.

    :ivar path: of the database; a folder (which is what Crossbar.io has here) gets a file in it.
    """

    type: Annotated[
        Literal["database"],
        NoEffect("SQLite, not LMDB as in Crossbar.io: cookies that Crossbar.io has in its database are not taken over"),
    ]
    path: _Path
    purge_on_startup: StrictBool = False
    maxsize: Annotated[int, integer(128 * _KIB, 128 * _KIB**3, "octets")] = _KIB**3
    readonly: Annotated[StrictBool | None, NoEffect()] = None
    sync: StrictBool = True


Store: TypeAlias = Annotated[MemoryStore | FileStore | DatabaseStore, Field(discriminator="type")]


class CookieConfig(Model):
    """Tracking of WebSocket clients by a cookie.

    :ivar name: of the cookie.
    :ivar length: characters of its value.
    :ivar max_age: how long a browser keeps it, and the proxy what is known of it, seconds.
    :ivar secure: sent over TLS only; ``http_strict``: out of reach for scripts; ``same_site``: with requests of which
        sites.
    :ivar max_cookies: most logins that the store keeps; for more of them those go that expire first.
    """

    name: Annotated[StrictStr, AfterValidator(_name)] = "cbtid"
    length: Annotated[int, integer(6, 64)] = 24
    max_age: Annotated[int, integer(1, 315_360_000, "seconds")] = 604_800
    secure: StrictBool = False
    http_strict: StrictBool = False
    same_site: Annotated[Literal["Strict", "Lax", "None"], one_of("Strict", "Lax", "None")] | None = None
    max_cookies: Annotated[int, integer(1, 100_000_000)] = 100_000
    store: Store = MemoryStore()
