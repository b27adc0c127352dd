"""Items of reverseproxy, websocket-reverseproxy, cgi, wsgi and archive: what Crossbar.io takes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.config.web import ConnectingTls, WebServiceConfig

ADAPTER: TypeAdapter[Any] = TypeAdapter(WebServiceConfig)
WS = {"type": "websocket", "endpoint": {"type": "tcp", "host": "h", "port": 1}, "url": "ws://h:1/x"}


def read(item: dict[str, Any]) -> Any:
    """The item, checked."""
    return ADAPTER.validate_python(item, context={"folder": Path("/node")})


def test_reverseproxy_as_crossbar_has_it() -> None:
    model = read({"type": "reverseproxy", "id": "web1", "host": "h", "port": 8080, "path": "/x", "forwarded_port": 443})
    assert (model.host, model.port, model.path, model.forwarded_port, model.tls) == ("h", 8080, "/x", 443, None)
    assert read({"type": "reverseproxy", "host": "h"}).port == 80


def test_tls_is_a_switch_or_a_mapping() -> None:
    item = {"type": "reverseproxy", "host": "h"}
    assert read({**item, "tls": True}).tls == ConnectingTls()
    assert read({**item, "tls": False}).tls is None
    tls = read({**item, "tls": {"ca_certificates": ["ca.pem"], "certificate": "a.pem", "key": "/k.pem"}}).tls
    assert (tls.ca_certificates, tls.certificate, tls.key) == (("/node/ca.pem",), "/node/a.pem", "/k.pem")
    assert tls.verify


def test_websocket_reverseproxy_as_crossbar_has_it() -> None:
    options = {"allowed_origins": ["https://a"], "max_message_size": 1024, "auto_ping_interval": 10000}
    model = read({"type": "websocket-reverseproxy", "url": "ws://me/x", "options": options, "backend": WS})
    assert (model.backend.endpoint.host, model.options.allowed_origins) == ("h", ("https://a",))
    assert read({"type": "websocket-reverseproxy", "backend": WS}).options.allowed_origins == ("*",)
    unix = {**WS, "endpoint": {"type": "unix", "path": "sock"}}
    assert read({"type": "websocket-reverseproxy", "backend": unix}).backend.endpoint.path == "/node/sock"
    twisted = {**WS, "endpoint": {"type": "twisted", "client_string": "tcp:h:1"}}
    assert read({"type": "websocket-reverseproxy", "backend": twisted}).backend.endpoint.client_string == "tcp:h:1"


def test_cgi_wsgi_and_archive_as_crossbar_has_them() -> None:
    assert read({"type": "cgi", "directory": "../cgi-bin", "processor": "/usr/bin/python3"}).directory == "/cgi-bin"
    wsgi = read({"type": "wsgi", "module": "app", "object": "app"})
    assert (wsgi.minthreads, wsgi.maxthreads) == (0, 20)
    archive = read({"type": "archive", "archive": "web.zip", "hashes": ["AB" * 32], "mime_types": {".x": "a/b"}})
    assert (archive.archive, archive.hashes) == ("/node/web.zip", ("ab" * 32,))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "reverseproxy", "port": 80}, "host"),
        ({"type": "reverseproxy", "host": "h", "port": 0}, "integer from 1 to 65535"),
        ({"type": "reverseproxy", "host": "h", "forwarded_proto": "ftp"}, "expected http or https"),
        ({"type": "reverseproxy", "host": "h", "tls": {"key": "k"}}, "both certificate and key"),
        ({"type": "reverseproxy", "host": "h", "tls": "yes"}, "tls"),
        ({"type": "websocket-reverseproxy"}, "backend"),
        ({"type": "websocket-reverseproxy", "backend": {**WS, "url": "http://h"}}, "expected a URL like ws://"),
        ({"type": "websocket-reverseproxy", "backend": {**WS, "type": "rawsocket"}}, "websocket"),
        ({"type": "websocket-reverseproxy", "backend": {**WS, "endpoint": {"type": "tor"}}}, "tor"),
        ({"type": "cgi", "directory": "x"}, "processor"),
        ({"type": "wsgi", "module": "x", "object": "y", "minthreads": 21}, "at most maxthreads"),
        ({"type": "archive", "archive": ""}, "expected a path"),
        ({"type": "archive", "archive": "x", "hashes": ["abc"]}, "SHA-256"),
        ({"type": "archive", "archive": "x", "origin": "ftp://h/x"}, "expected a URL like https://"),
        ({"type": "archive", "archive": "x", "mime_types": {"x": "a/b"}}, "suffixes of files"),
    ],
)
def test_what_is_refused(item: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        read(item)
