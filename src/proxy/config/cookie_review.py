"""What is unwise about the cookies of valid transports."""

from collections.abc import Iterator
from typing import Final

from proxy.config.findings import Finding, Place, finding
from proxy.config.transports import TesteeTransport, WebSocketTransport
from proxy.config.worker import WorkerConfig

__all__ = ["findings"]

_LENGTH_SAFE: Final = 22
"""Characters, each of 6 bits, of a value that nobody can guess."""


def findings(config: WorkerConfig, prefix: Place) -> Iterator[Finding]:
    """Warnings about cookies that are of no use, or of use to the wrong people."""
    for index, transport in enumerate(config.transports):
        if isinstance(transport, TesteeTransport) or transport.auth.cookie is None:
            continue
        here = (*prefix, "transports", index)
        if not isinstance(transport, WebSocketTransport) or transport.cookie is None:
            text = "has no effect: the transport gives its clients no cookie"
            yield finding((*here, "auth", "cookie"), {}, text, "warning")
        else:
            yield from _of_browsers(transport, here)


def _of_browsers(transport: WebSocketTransport, here: Place) -> Iterator[Finding]:
    cookie = transport.cookie
    assert cookie is not None
    if cookie.length < _LENGTH_SAFE:
        text = f"a value of fewer than {_LENGTH_SAFE} characters may be guessed"
        yield finding((*here, "cookie", "length"), cookie.length, text, "warning")
    if cookie.same_site == "None" and not cookie.secure:
        text = "browsers do not take such a cookie without secure: true"
        yield finding((*here, "cookie", "same_site"), cookie.same_site, text, "warning")
    # Without the attribute some browsers take it for Lax, others for None.
    if cookie.same_site in (None, "None") and "*" in transport.options.allowed_origins:
        text = "the pages of any site may log in by the cookies of their visitors: name the sites"
        yield finding((*here, "options", "allowed_origins"), "*", text, "warning")
