"""What is unwise about the cookies of valid transports."""

from collections.abc import Iterator
from typing import Final

from proxy.config.findings import Finding, Place, finding
from proxy.config.ways_in import ways_in
from proxy.config.web import LongPollConfig
from proxy.config.websocket_items import WebSocketKeys
from proxy.config.worker import WorkerConfig

__all__ = ["findings"]

_LENGTH_SAFE: Final = 22
"""Characters, each of 6 bits, of a value that nobody can guess."""


def findings(config: WorkerConfig, prefix: Place) -> Iterator[Finding]:
    """Warnings about cookies that are of no use, or of use to the wrong people."""
    for way in ways_in(config, prefix):
        if way.auth.cookie is None:
            continue
        if getattr(way.item, "cookie", None) is None:
            text = "has no effect: the transport gives its clients no cookie"
            yield finding((*way.place, "auth", "cookie"), {}, text, "warning")
        elif isinstance(way.item, WebSocketKeys | LongPollConfig):
            yield from _of_browsers(way.item, way.place)


def _of_browsers(item: WebSocketKeys | LongPollConfig, here: Place) -> Iterator[Finding]:
    cookie = item.cookie
    assert cookie is not None
    if cookie.length < _LENGTH_SAFE:
        text = f"a value of fewer than {_LENGTH_SAFE} characters may be guessed"
        yield finding((*here, "cookie", "length"), cookie.length, text, "warning")
    if cookie.same_site == "None" and not cookie.secure:
        text = "browsers do not take such a cookie without secure: true"
        yield finding((*here, "cookie", "same_site"), cookie.same_site, text, "warning")
    # Without the attribute some browsers take it for Lax, others for None.
    if cookie.same_site in (None, "None") and "*" in item.options.allowed_origins:
        text = "the pages of any site may log in by the cookies of their visitors: name the sites"
        yield finding((*here, "options", "allowed_origins"), "*", text, "warning")
