"""The web service ``webhook``: an event with head and body of each HTTP request that another service sends."""

import json
from typing import Any, ClassVar

from proxy.service_requests import RequestError
from proxy.web.bridge import JSON, Answer, BridgeService, Send
from proxy.web.bridge_requests import Refused, require_utf8
from proxy.web.bridge_values import read_text
from proxy.web.signing import check_github

__all__ = ["WebhookService"]

_TEXT = "text/plain; charset=UTF-8"
_SIGNATURES = (b"x-hub-signature-256", b"x-hub-signature")


class WebhookService(BridgeService):
    """Publishes ``{"headers": {name: [value, ..]}, "body": text}`` to the topic of its configuration."""

    TYPE: ClassVar[str] = "webhook"

    def authenticate(self, request: Any, body: bytes) -> None:
        """See :class:`BridgeService`."""
        if self.options.github_secret is not None:
            check_github(self.options.github_secret, body, *(_field(request, name) for name in _SIGNATURES))

    def read(self, request: Any, body: bytes) -> Send:
        """See :class:`BridgeService`."""
        require_utf8(request)
        text = read_text(body)
        if text.startswith("\0"):
            # In JSON that is binary data, which this is not.
            raise Refused(400, "the request's body: begins with NUL")
        headers = {
            name.decode("latin-1"): [value.decode("latin-1") for value in values]
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        if any(value.startswith("\0") for values in headers.values() for value in values):
            # Likewise, and not every version of Twisted refuses it.
            raise Refused(400, "the request's head: a value begins with NUL")
        event = {"headers": headers, "body": text}
        topic = self.options.topic
        return lambda requests: requests.publish(topic, [event], {}, {})

    def succeeded(self, reply: int) -> Answer:
        """See :class:`BridgeService`."""
        return _said(202, self.options.success_response)

    def failed(self, error: Exception, answer: Answer) -> Answer:
        """See :class:`BridgeService`. Who sends webhooks looks at the status only: no error is a success."""
        if isinstance(error, RequestError):
            # Whoever sends webhooks is not told, and could not do anything about it.
            self.complain(f'the event for "{self.options.topic}" is refused: {error.uri}')
        status = answer.status if answer.status >= 400 else 500
        return _said(status, self.options.error_response, answer.may_retry)


def _field(request: Any, name: bytes) -> str | None:
    """A header field, whatever octets it has: asked for as text, Twisted would want UTF-8."""
    value = request.getHeader(name)
    return None if value is None else value.decode("latin-1")


def _said(status: int, text: str, may_retry: bool = False) -> Answer:
    try:
        json.loads(text)
    except ValueError:
        return Answer(status, text.encode("utf-8"), _TEXT, may_retry)
    return Answer(status, text.encode("utf-8"), JSON, may_retry)
