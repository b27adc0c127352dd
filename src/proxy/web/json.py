"""A fixed value, as JSON."""

import hashlib
import json
from typing import Any, Final

from twisted.web.http import CACHED
from twisted.web.resource import Resource

from proxy.config.web import JsonConfig
from proxy.errors import InvalidConfiguration
from proxy.web.base import WebService
from proxy.web.cross_origin import allow_any_origin, answer_preflight
from proxy.web.pages import ErrorPage

__all__ = ["JsonService"]

_INDENT: Final = 3


class JsonService(WebService):
    """Answers with the value."""

    TYPE = "json"

    def __init__(self, site: Any, path: str, config: JsonConfig) -> None:
        super().__init__(site, path, config)
        self.resource = _Value(_encode(config), config)


def _encode(config: JsonConfig) -> bytes:
    """:raises InvalidConfiguration: the value is not one that JSON has."""
    options = config.options
    layout: dict[str, Any] = {"indent": _INDENT} if options.prettify else {"separators": (",", ":")}
    try:
        text = json.dumps(
            config.value, ensure_ascii=False, allow_nan=False, sort_keys=options.sort_keys, **layout
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidConfiguration(f"value: expected what JSON can express: {error}") from error
    return text + b"\n" if options.prettify else text


class _Value(Resource):
    def __init__(self, text: bytes, config: JsonConfig) -> None:
        super().__init__()
        self._text = text
        self._options = config.options
        self._etag = b'"' + hashlib.sha256(text).hexdigest()[:32].encode() + b'"'

    def getChild(self, path: bytes, request: Any) -> Resource:
        return self if not path and not request.postpath else ErrorPage(404)

    def render_OPTIONS(self, request: Any) -> bytes:
        return answer_preflight(request, is_allowed=self._options.allow_cross_origin)

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"content-type", b"application/json; charset=utf-8")
        request.setHeader(b"x-content-type-options", b"nosniff")
        if self._options.allow_cross_origin:
            allow_any_origin(request)
        if self._options.discourage_caching:
            request.setHeader(b"cache-control", b"no-store, no-cache, must-revalidate, max-age=0")
        elif request.setETag(self._etag) is CACHED:
            return b""
        return self._text
