"""What publisher and caller have in common: JSON in, and requests that are signed where a secret is configured."""

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from proxy.messages import is_uri
from proxy.web.bridge import BridgeService, Send
from proxy.web.bridge_requests import Refused, query_of, require_utf8
from proxy.web.bridge_values import read_json
from proxy.web.signing import Replays, Verifier

if TYPE_CHECKING:
    from proxy.web.site import WebSite

__all__ = ["SignedService", "arguments_of", "uri_of"]


class SignedService(BridgeService):
    """A service that takes JSON objects, perhaps signed."""

    def __init__(self, site: "WebSite", path: str, config: Any) -> None:
        super().__init__(site, path, config)
        self._verifier = _verifier(config.options)

    @property
    def is_signed(self) -> bool:
        """Whether requests are taken from those only who know the secret."""
        return self._verifier is not None

    def authenticate(self, request: Any, body: bytes) -> None:
        """See :class:`BridgeService`."""
        if self._verifier is not None:
            self._verifier.check(query_of(request), body)

    def read(self, request: Any, body: bytes) -> Send:
        """See :class:`BridgeService`."""
        # Before the body is looked at: what is not JSON on purpose is told so.
        media_type = require_utf8(request)
        if media_type not in ("", "application/json"):
            raise Refused(400, "the request's Content-Type: expected application/json")
        said = read_json(body)
        if not isinstance(said, dict):
            raise Refused(400, "the request's body: expected a JSON object")
        return self.read_object(said)

    @abstractmethod
    def read_object(self, said: dict[str, Any]) -> Send:
        """As :meth:`read`, of the object in the body."""


def _verifier(options: Any) -> Verifier | None:
    if options.secret is None:
        return None
    replays = Replays(options.timestamp_delta_limit, time.time) if options.refuse_replays else None
    return Verifier(options.key, options.secret, options.timestamp_delta_limit, replays, time.time)


def uri_of(said: dict[str, Any], key: str) -> str:
    """The URI that an object has under a key.

    :raises Refused: it has none.
    """
    if key not in said:
        raise Refused(400, f'the request\'s body: key "{key}" is missing')
    uri = said[key]
    if not is_uri(uri):
        raise Refused(400, f'the request\'s body: "{key}": expected a URI like com.example.name')
    return str(uri)


def arguments_of(said: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """``args`` and ``kwargs`` of an object, which may be missing or null.

    :raises Refused: they are something else.
    """
    args, kwargs = said.get("args"), said.get("kwargs")
    if not isinstance(args, list | None):
        raise Refused(400, 'the request\'s body: "args": expected a list')
    if not isinstance(kwargs, dict | None):
        raise Refused(400, 'the request\'s body: "kwargs": expected an object')
    return args or [], kwargs or {}
