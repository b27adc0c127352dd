"""The service ``archive``: files out of a ZIP archive, which may be fetched from somewhere first."""

import logging
import os
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThreadPool
from twisted.web.http import CACHED
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy.config.redaction import without_credentials
from proxy.config.web import ArchiveConfig
from proxy.errors import CannotStart, InvalidConfiguration
from proxy.web.archive_files import READ_ERRORS, Archive, open_archive
from proxy.web.base import WebService
from proxy.web.download import download
from proxy.web.pages import ErrorPage
from proxy.web.static import media_types

__all__ = ["ArchiveService"]

log = logging.getLogger("proxy.web")

PIECE: Final = 64 * 1024
"""Octets that are unpacked at a time, whenever the client has taken the ones before."""
_UNKNOWN: Final = "application/octet-stream"


class ArchiveService(WebService):
    """Files out of an archive."""

    TYPE: ClassVar[str] = "archive"
    config: ArchiveConfig

    @inlineCallbacks
    def start(self) -> "Generator[Deferred[Any], Any, None]":
        """Fetch the archive if need be, check and open it."""
        config, reactor = self.config, self.site.reactor
        is_new = not os.path.exists(config.archive)
        if is_new:
            yield self._download()
        elif not os.path.isfile(config.archive):
            raise InvalidConfiguration(f'archive: "{config.archive}": expected a file')
        if config.hashes is None:
            log.warning("%s: no hashes are given: the archive is served as it is", self.label)
        limit = config.cache_limit if config.cache else 0
        threads = reactor.getThreadPool()
        try:
            opened = deferToThreadPool(reactor, threads, open_archive, config.archive, config.hashes, limit)
            self.archive: Archive = yield opened
        except Exception:
            if is_new:
                os.unlink(config.archive)  # what must not be served is not to be found there the next time
            raise
        self.types = media_types(config.mime_types)
        self.resource = _Files(self)

    def stop(self) -> None:
        """Close it."""
        self.archive.close()

    def _download(self) -> "Deferred[None]":
        config = self.config
        if config.origin is None or not config.download:
            hint = "with download set to true" if config.origin is not None else "with an origin"
            raise CannotStart(f'archive: "{config.archive}" does not exist; {hint} it would be downloaded')
        if not os.path.isdir(os.path.dirname(config.archive)):
            raise InvalidConfiguration(f'archive: "{config.archive}": its folder does not exist')
        log.info("%s: downloading %s", self.label, without_credentials(config.origin))
        seconds = config.download_timeout / 1000
        return download(self.site.reactor, config.origin, config.archive, size_max=config.max_download, seconds=seconds)


class _Files(Resource):
    """Everything at and below the path."""

    isLeaf = True

    def __init__(self, service: ArchiveService) -> None:
        super().__init__()
        self._service = service

    def render_GET(self, request: Any) -> Any:
        """Send a file."""
        name = self._find(request)
        if name is None:
            return ErrorPage(404).render(request)
        archive = self._service.archive
        entry = archive.entries[name]
        _, suffix = os.path.splitext(name)
        request.setHeader(b"content-type", self._service.types.get(suffix.lower(), _UNKNOWN).encode("ascii"))
        request.setHeader(b"x-content-type-options", b"nosniff")
        if _set_validators(request, entry.CRC, entry.file_size, entry.date_time):
            return b""
        request.setHeader(b"content-length", b"%d" % entry.file_size)
        if request.method == b"HEAD":
            request.write(b"")
            request.finish()
            return NOT_DONE_YET
        try:
            source = archive.open(name)
        except READ_ERRORS as error:
            log.warning("%s: %r cannot be read: %s", self._service.label, name, error)
            request.responseHeaders.removeHeader(b"content-length")
            return ErrorPage(500).render(request)
        if isinstance(source, bytes):
            return source
        _Sender(self._service, name, source, request).start()
        return NOT_DONE_YET

    render_HEAD = render_GET

    def _find(self, request: Any) -> str | None:
        """The file that the path names."""
        config, entries = self._service.config, self._service.archive.entries
        try:
            asked = b"/".join(request.postpath).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if config.default_object is not None and (not asked or asked.endswith("/")):
            asked += config.default_object
        for name in (asked, config.options.default_file):
            if name is None:
                continue
            # Not os.path.join(): a name with a slash in front would lead out of the prefix.
            full = name if config.object_prefix is None else f"{config.object_prefix.rstrip('/')}/{name}"
            if full in entries:
                return full
        return None


def _set_validators(request: Any, checksum: int, size: int, changed: tuple[int, ...]) -> bool:
    """Tell the client what it may keep (RFC 9110 section 13); True: it has this very file, and that is the answer."""
    is_known = request.setETag(b'"%08x-%x"' % (checksum, size)) is CACHED
    year, month, day, hour, minute, second = changed
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:  # a date that does not exist
        return is_known
    if request.getHeader(b"if-none-match") is None:  # which goes first
        return request.setLastModified(moment) is CACHED
    request.lastModified = int(moment)
    return is_known


class _Sender:
    """Unpacks a file at the pace of its client: a pull producer."""

    def __init__(self, service: ArchiveService, name: str, source: Any, request: Any) -> None:
        self._service = service
        self._name = name
        self._source = source
        self._request = request
        self._left = service.archive.entries[name].file_size
        self._kept: list[bytes] | None = [] if service.archive.may_keep(name) else None

    def start(self) -> None:
        """Begin."""
        self._request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """The client wants more."""
        try:
            data = self._source.read(PIECE)
            if not data and self._left:  # zipfile takes the archive's word for how much there is
                raise EOFError("it ends too early")
        except READ_ERRORS as error:
            log.warning("%s: %r cannot be read: %s", self._service.label, self._name, error)
            self._request.unregisterProducer()
            self.stopProducing()
            self._request.loseConnection()  # half a file must not look like a whole one
            return
        if data:
            self._left -= len(data)
            self._request.write(data)
            if self._kept is not None:
                self._kept.append(data)
            return
        self._request.unregisterProducer()
        self.stopProducing()
        if self._kept is not None:
            self._service.archive.keep(self._name, b"".join(self._kept))
        self._request.finish()

    def stopProducing(self) -> None:
        """That is it, or the client is gone."""
        self._source.close()
