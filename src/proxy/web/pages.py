"""Pages that this proxy writes itself: small, without anything to load from elsewhere, readable on any screen."""

from html import escape
from http import HTTPStatus
from typing import Any, Final

from twisted.web.resource import Resource

__all__ = ["CONTENT_SECURITY_POLICY", "HTML", "ErrorPage", "answer_html", "error_page", "render_page"]

HTML: Final = b"text/html; charset=utf-8"
CONTENT_SECURITY_POLICY: Final = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

_TEXTS: Final = {
    400: "The request cannot be understood.",
    401: "The request does not say who it is from.",
    403: "This may not be asked for.",
    404: "There is nothing at this address.",
    405: "This cannot be done here.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    421: "WebSocket connections to this address need a connection of their own.",
    431: "The request's head is too large.",
    500: "Something went wrong here. The server's log says more.",
    501: "This server does not know how to do that.",
    502: "The server behind this one does not answer as it should.",
    503: "This is out of service at the moment.",
    504: "The server behind this one did not answer in time.",
}

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.6rem; }} h1 small {{ color: #667; font-weight: normal; margin-right: .6rem; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #eef1f4; padding: .6rem; border-radius: .3rem; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #181a1d; color: #ddd; }} h1 small {{ color: #99a; }}
pre {{ background: #2a2e33; }} }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def render_page(title: str, body: str) -> bytes:
    """A page.

    :param title: plain text.
    :param body: HTML.
    """
    return _PAGE.format(title=escape(title), body=body).encode("utf-8")


def error_page(status: int, text: str = "", extra: str = "") -> bytes:
    """The page for an HTTP error.

    :param status: of HTTP.
    :param text: what is wrong, plain text, one line; empty: what the status usually means.
    :param extra: further HTML.
    """
    phrase = _phrase(status)
    shown = text or _TEXTS.get(status, "")
    paragraph = f"\n<p>{escape(shown)}</p>" if shown else ""
    return render_page(f"{status} {phrase}", f"<h1><small>{status}</small>{escape(phrase)}</h1>{paragraph}{extra}")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def answer_html(request: Any, body: bytes) -> bytes:
    """Say of a page of ours what it is; what is returned is to be sent."""
    request.setHeader(b"content-type", HTML)
    request.setHeader(b"content-security-policy", CONTENT_SECURITY_POLICY)
    request.setHeader(b"x-content-type-options", b"nosniff")
    return body


class ErrorPage(Resource):
    """Answers any request with an error.

    :param status: of HTTP.
    :param text: as for :func:`error_page`.
    :param headers: further header fields of the answer.
    """

    isLeaf = True

    def __init__(self, status: int, text: str = "", headers: dict[bytes, bytes] | None = None) -> None:
        super().__init__()
        self.status = status
        self.text = text
        self.headers = headers or {}

    def render(self, request: Any) -> bytes:
        """Answer."""
        request.setResponseCode(self.status)
        request.setHeader(b"cache-control", b"no-store")
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return answer_html(request, error_page(self.status, self.text))
