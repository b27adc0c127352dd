"""The page that people see who open a WebSocket endpoint in a browser."""

from collections.abc import Sequence
from html import escape
from typing import Final

__all__ = ["CONTENT_SECURITY_POLICY", "render"]

CONTENT_SECURITY_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>WAMP endpoint</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem; color: #222; }}
code {{ background: #eef1f4; padding: .1rem .3rem; border-radius: .2rem; overflow-wrap: anywhere; }}
footer {{ margin-top: 3rem; color: #667; font-size: .9rem; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #181a1d; color: #ddd; }} code {{ background: #2a2e33; }} }}
</style>
</head>
<body>
<h1>WAMP endpoint</h1>
<p>This address is up. It speaks <a href="https://wamp-proto.org/" rel="noreferrer">WAMP</a> over WebSocket, so there is
nothing more to see in a browser.</p>
<p>To connect, give a WAMP client this URL:</p>
<p><code>{scheme}://{address}</code></p>
{hint}
<p>WebSocket subprotocols: {subprotocols}.</p>
<footer>{server}</footer>
</body>
</html>
"""

_HINT: Final = "<p>(<code>wss://{address}</code> where a server in front of it adds TLS.)</p>"


def render(address: str, subprotocols: Sequence[str], server: str, *, is_secure: bool = False) -> bytes:
    """The status page.

    :param address: host, port if there is one, and path of the endpoint, as the browser named them.
    :param subprotocols: that it speaks.
    :param server: product, and version if that may be told.
    :param is_secure: the browser has come over TLS.
    :returns: HTML in UTF-8, without anything to load from elsewhere.
    """
    page = _PAGE.format(
        scheme="wss" if is_secure else "ws",
        address=escape(address),
        hint="" if is_secure else _HINT.format(address=escape(address)),
        subprotocols=", ".join(f"<code>{escape(name)}</code>" for name in subprotocols),
        server=escape(server),
    )
    return page.encode("utf-8")
