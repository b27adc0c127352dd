"""Answers that pages of any origin may read (Cross-Origin Resource Sharing, as Crossbar.io's services allow it)."""

from typing import Any, Final

__all__ = ["allow_any_origin", "answer_preflight"]

_METHODS: Final = b"GET, HEAD, OPTIONS"


def allow_any_origin(request: Any) -> None:
    """Let whatever page has asked read the answer, which must not depend on who asks."""
    origin = request.getHeader(b"origin")
    request.setHeader(b"access-control-allow-origin", b"*" if origin in (None, b"null") else origin)
    request.setHeader(b"access-control-allow-credentials", b"true")
    request.responseHeaders.addRawHeader(b"vary", b"Origin")
    wanted = request.getHeader(b"access-control-request-headers")
    if wanted is not None:
        request.setHeader(b"access-control-allow-headers", wanted)


def answer_preflight(request: Any, *, is_allowed: bool) -> bytes:
    """Answer OPTIONS: what may be done here, and from where."""
    request.setResponseCode(204)
    request.setHeader(b"allow", _METHODS)
    if is_allowed:
        allow_any_origin(request)
        request.setHeader(b"access-control-allow-methods", _METHODS)
    return b""
