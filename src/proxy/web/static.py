"""Files of a folder."""

import importlib
import math
import os
import re
import time
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from twisted.web.http import datetimeToString
from twisted.web.resource import Resource
from twisted.web.static import File, SingleRangeStaticProducer, loadMimeTypes

from proxy.config.web import StaticConfig
from proxy.errors import InvalidConfiguration
from proxy.web.base import WebService
from proxy.web.cross_origin import allow_any_origin, answer_preflight
from proxy.web.pages import ErrorPage, answer_html, render_page

__all__ = ["StaticService", "media_types"]

RANGES_MAX: Final = 8
"""Parts of a file that one request may ask for; of more, all of the file is sent: they may be the same ones again."""

_RANGE: Final = re.compile(rb"bytes=[ \t]*(?:\d+-\d*|-\d+)(?:[ \t]*,[ \t]*(?:\d+-\d*|-\d+))*[ \t]*", re.IGNORECASE)
_UNKNOWN: Final = "application/octet-stream"

# What the system's list lacks, or has in a way that browsers refuse.
_TYPES: Final = {
    ".avif": "image/avif",
    ".jgz": "text/javascript",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


def media_types(more: dict[str, str]) -> dict[str, str]:
    """Media types by suffix of a file's name.

    :param more: of a configuration, which go first.
    """
    return {**loadMimeTypes(), **_TYPES, **{suffix.lower(): name for suffix, name in more.items()}}


class StaticService(WebService):
    """Sends files. What is a link is followed, wherever it leads."""

    TYPE = "static"

    def __init__(self, site: Any, path: str, config: StaticConfig) -> None:
        super().__init__(site, path, config)
        folder = _folder(config)
        self.resource = _Files(folder, _Settings(config, folder))


def _folder(config: StaticConfig) -> str:
    """Where the files are.

    :raises InvalidConfiguration: there is no such folder, package or resource.
    """
    if config.directory is not None:
        if not Path(config.directory).is_dir():
            raise InvalidConfiguration(f'directory: "{config.directory}": expected a folder')
        return os.path.abspath(config.directory)
    assert config.package is not None
    assert config.resource is not None
    try:
        importlib.import_module(config.package)
        folder = os.path.abspath(str(files(config.package) / config.resource))
    except Exception as error:
        raise InvalidConfiguration(f'package: "{config.package}": cannot be imported: {error}') from error
    if not Path(folder).is_dir():
        raise InvalidConfiguration(f'resource: "{config.resource}": expected a folder in package {config.package}')
    return folder


class _Settings:
    """What goes for all files of a service."""

    def __init__(self, config: StaticConfig, folder: str) -> None:
        options = config.options
        self.types = media_types(options.mime_types)
        self.cache_timeout = options.cache_timeout
        self.allow_cross_origin = options.allow_cross_origin
        self.is_listed = options.enable_directory_listing
        self.default_file = None if options.default_file is None else os.path.join(folder, options.default_file)


class _Files(File):
    """A file or a folder."""

    indexNames = ["index.html", "index.htm"]
    forbidden: Any = ErrorPage(403)

    def __init__(self, path: str, settings: _Settings) -> None:
        super().__init__(path, _UNKNOWN)
        self._settings = settings
        self.contentTypes = settings.types
        self.childNotFound: Any = self._not_found()

    def createSimilarFile(self, path: str) -> "_Files":
        """The same for another path."""
        return type(self)(path, self._settings)

    def getChild(self, path: bytes, request: Any) -> Any:
        """The file, or what answers for it."""
        try:
            path.decode("utf-8")
        except UnicodeDecodeError:
            return self.childNotFound  # Twisted would log a traceback, as often as a client wants
        return self.childNotFound if b"\0" in path else super().getChild(path, request)

    def _not_found(self) -> Resource:
        """What answers for a path that does not exist."""
        if self._settings.default_file is None:
            return ErrorPage(404)
        return _DefaultFile(self._settings.default_file, self._settings)

    def directoryListing(self) -> Any:
        """What answers for a folder without an index."""
        return _Listing(self) if self._settings.is_listed else self.childNotFound

    def render_OPTIONS(self, request: Any) -> bytes:
        """What may be done here."""
        return answer_preflight(request, is_allowed=self._settings.allow_cross_origin)

    def render_GET(self, request: Any) -> Any:
        """Send the file."""
        self.restat(False)
        if self.exists() and not self.isdir() and not self.isfile():
            return ErrorPage(404).render(request)  # opening a pipe would block
        self._check_range(request)
        request.setHeader(b"x-content-type-options", b"nosniff")
        if self._settings.cache_timeout is not None:
            seconds = self._settings.cache_timeout
            request.setHeader(b"cache-control", b"max-age=%d, public" % seconds)
            request.setHeader(b"expires", datetimeToString(time.time() + seconds))
        if self._settings.allow_cross_origin:
            allow_any_origin(request)
        return super().render_GET(request)

    render_HEAD = render_GET

    def _check_range(self, request: Any) -> None:
        """Have all of the file sent where a part of it is asked for that cannot be meant."""
        wanted = request.getHeader(b"range")
        if wanted is None:
            return
        is_odd = not _RANGE.fullmatch(wanted) or wanted.count(b",") >= RANGES_MAX
        condition = request.getHeader(b"if-range")
        if is_odd or (condition is not None and not self._is_as_of(condition)):
            request.requestHeaders.removeHeader(b"range")

    def _is_as_of(self, condition: bytes) -> bool:
        """Whether the file is still the one that a client has a part of (RFC 9110 section 13.1.5)."""
        return self.isfile() and condition == datetimeToString(math.ceil(self.getModificationTime()))

    def _rangeToOffsetAndSize(self, start: int | None, end: int | None) -> Any:
        if start is None and end is not None:
            end = min(end, self.getFileSize())  # the last octets, of which there may be less
        return super()._rangeToOffsetAndSize(start, end)

    def makeProducer(self, request: Any, fileForReading: Any) -> Any:
        """What sends the file, or the parts that were asked for; see Twisted."""
        made = super().makeProducer(request, fileForReading)
        if request.code != 416:
            return made
        return SingleRangeStaticProducer(request, fileForReading, 0, 0)  # Twisted's for several fails without any

    def redirect(self, request: Any) -> bytes:
        """Add the slash that a folder's URL needs, for the links in its index."""
        path, mark, query = request.uri.partition(b"?")
        request.setResponseCode(301)
        request.setHeader(b"location", b"/" + path.strip(b"/") + b"/" + mark + query)
        return answer_html(request, render_page("Moved", "<h1>This is a folder</h1>"))


class _DefaultFile(_Files):
    """Is sent whatever is asked for below it: an application in one page finds its way by itself."""

    isLeaf = True

    def _not_found(self) -> Resource:
        """The file itself is missing."""
        return ErrorPage(404)


class _Listing(Resource):
    """What is in a folder."""

    isLeaf = True

    def __init__(self, folder: _Files) -> None:
        super().__init__()
        self._folder = folder

    def render_GET(self, request: Any) -> bytes:
        if request.postpath not in ([], [b""]):
            return ErrorPage(404).render(request)
        try:
            with os.scandir(self._folder.path) as entries:
                rows = sorted(_row(entry) for entry in entries)
        except OSError:
            return ErrorPage(403).render(request)
        title = unquote(request.path.decode("ascii", "replace"))
        table = "\n".join(row for _, _, row in rows)
        up = "" if len(request.prepath) <= 1 else '<p><a href="../">up</a></p>\n'
        return answer_html(
            request,
            render_page(f"Contents of {title}", f"<h1>{escape(title)}</h1>\n{up}<table>\n{table}\n</table>"),
        )


def _row(entry: "os.DirEntry[str]") -> tuple[bool, str, str]:
    """Folders go first, then by name."""
    is_folder = entry.is_dir()
    name = entry.name + ("/" if is_folder else "")
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere
        return not is_folder, entry.name, f"<tr><td>{_text(name)}</td></tr>"
    size = "" if is_folder else f"{status.st_size:,}".replace(",", "\u2009")
    changed = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%d %H:%M")
    link = f'<a href="./{quote(os.fsencode(name), "/")}">{_text(name)}</a>'
    return not is_folder, entry.name, f"<tr><td>{link}</td><td>{size}</td><td>{changed}</td></tr>"


def _text(name: str) -> str:
    return escape(os.fsencode(name).decode("utf-8", "replace"))
