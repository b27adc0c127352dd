"""Redirections."""

from html import escape
from typing import Any

from twisted.web.resource import Resource

from proxy.web.base import WebService
from proxy.web.pages import answer_html, render_page

__all__ = ["RedirectService"]


class RedirectService(WebService):
    """Sends whoever asks for the path, or for anything below it, to one URL."""

    TYPE = "redirect"

    def __init__(self, site: Any, path: str, config: Any) -> None:
        super().__init__(site, path, config)
        self.resource = _Redirect(config.url)


class _Redirect(Resource):
    isLeaf = True

    def __init__(self, url: str) -> None:
        super().__init__()
        self._location = url.encode("ascii")
        link = f'<h1>This is somewhere else</h1>\n<p><a href="{escape(url)}">{escape(url)}</a></p>'
        self._page = render_page("Somewhere else", link)

    def render_GET(self, request: Any) -> bytes:
        request.setResponseCode(302)
        request.setHeader(b"location", self._location)
        return answer_html(request, self._page)
