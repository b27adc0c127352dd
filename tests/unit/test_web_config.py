"""Items of web services: keys and defaults of Crossbar.io, clear errors, and what several together come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError, checked
from proxy.config.web import WebOptions, WebServiceConfig

FOLDER = Path("/srv/node")


def check(item: Any) -> Any:
    """The checked item."""
    return checked(WebServiceConfig, item, FOLDER)[0]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "none"},
        {"type": "path", "paths": {"/": {"type": "none"}, "a_B-9": {"type": "path", "paths": {}}}},
        {"type": "redirect", "url": "https://example.com/"},
        {"type": "resource", "classname": "a.B"},
        {"type": "resource", "classname": "a.B", "extra": {"x": [1]}},
        {"type": "static", "directory": ".."},
        {"type": "static", "package": "p", "resource": "r", "options": {"cache_timeout": None, "default_file": "i"}},
        {"type": "json", "value": None, "options": {"prettify": True, "discourage_caching": True}},
        {"type": "nodeinfo"},
        {"type": "reverseproxy", "host": "localhost"},
        {"type": "reverseproxy", "host": "h", "port": 8080, "path": "/x", "forwarded_proto": "https"},
        {"type": "cgi", "directory": "cgi", "processor": "python3"},
        {"type": "wsgi", "module": "m", "object": "app", "minthreads": 1, "maxthreads": 5},
        {"type": "archive", "archive": "a.zip", "origin": "https://h/a.zip", "download": True, "hashes": ["0" * 64]},
        {"type": "websocket", "serializers": ["cbor"], "auth": {"anonymous": {"type": "static"}}},
        {
            "type": "websocket-reverseproxy",
            "backend": {
                "type": "websocket",
                "endpoint": {"type": "tcp", "host": "h", "port": 1},
                "url": "ws://h:1/ws",
            },
        },
        {"type": "longpoll", "options": {"request_timeout": 5, "queue_limit_messages": 10}},
        {"type": "publisher", "realm": "realm1", "role": "anonymous"},
        {"type": "caller", "realm": "r", "role": "a", "options": {"key": "k", "secret": "s", "require_ip": ["::1"]}},
        {"type": "webhook", "realm": "r", "role": "a", "options": {"topic": "com.x", "github_secret": "s"}},
    ],
    ids=lambda item: item["type"],
)
def test_what_crossbar_takes_is_taken(item: dict[str, Any]) -> None:
    assert check({"id": "service1", **item}).type == item["type"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "wap", "templates": "x", "routes": [], "wamp": {}}, 'type: "wap": not supported by this version'),
        ({"type": "catalog"}, 'type: "catalog": not supported by this version'),
        ({"type": "jsn"}, 'did you mean "json"'),
        ({}, "type: required key is missing"),
        ({"type": "path", "paths": {"a.b": {"type": "none"}}}, 'bad path "a.b": expected letters, digits'),
        ({"type": "path", "paths": {"a/b": {"type": "none"}}}, 'bad path "a/b"'),
        ({"type": "path", "paths": {"": {"type": "none"}}}, 'bad path ""'),
        ({"type": "path", "paths": {7: {"type": "none"}}}, 'bad path "7"'),
        ({"type": "path", "paths": {"a": {"type": "static"}}}, "paths.a.directory: expected either a directory"),
        ({"type": "static", "directory": "d", "package": "p", "resource": "r"}, "expected either a directory"),
        ({"type": "static", "package": "p"}, "expected either a directory"),
        ({"type": "static", "directory": ""}, "expected a path of the file system"),
        (
            {"type": "static", "directory": "d", "options": {"mime_types": {"svg": "image/svg+xml"}}},
            "suffixes of files",
        ),
        ({"type": "static", "directory": "d", "options": {"mime_types": {".x": "a\r\nb: c"}}}, "expected a media type"),
        ({"type": "redirect", "url": "https://x/\r\nset-cookie: a"}, "expected a URL in printable ASCII"),
        ({"type": "redirect", "url": ""}, "expected a URL in printable ASCII"),
        ({"type": "reverseproxy", "host": "h", "port": 0}, "port: 0: expected an integer from 1 to 65535"),
        ({"type": "reverseproxy", "host": "h", "forwarded_proto": "ftp"}, "expected http or https"),
        ({"type": "archive", "archive": "a", "origin": "ftp://x"}, "expected a URL like https://host/path"),
        ({"type": "archive", "archive": "a", "hashes": ["00"]}, "expected a SHA-256 hash"),
        ({"type": "wsgi", "module": "m", "object": "o", "minthreads": 30}, r"expected at most maxthreads \(20\)"),
        ({"type": "webhook", "realm": "r", "role": "a"}, "options: required key is missing"),
        (
            {"type": "publisher", "realm": "r", "role": "a", "options": {"secret": "hush"}},
            "expected both key and secret",
        ),
        (
            {"type": "publisher", "realm": "r", "role": "a", "options": {"post_body_limit": 1 << 21}},
            "from 0 to 1048576",
        ),
        ({"type": "websocket", "endpoint": {"type": "tcp", "port": 1}}, "expected nothing here"),
    ],
)
def test_what_is_wrong_is_said(item: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check(item)


def test_secrets_are_not_in_errors_nor_in_texts_of_items() -> None:
    signed = {"type": "caller", "realm": "r", "role": "a", "options": {"key": "kkk", "secret": "hush-hush"}}
    assert "hush-hush" not in repr(check(signed))
    with pytest.raises(ConfigError) as caught:
        check({**signed, "options": {"key": "kkk", "secret": ["hush-hush"]}})
    assert "hush-hush" not in str(caught.value)


def test_paths_of_files_are_relative_to_the_configuration() -> None:
    assert check({"type": "static", "directory": "../web"}).directory == "/srv/web"
    assert check({"type": "archive", "archive": "/x/a.zip"}).archive == "/x/a.zip"


def test_tls_of_a_server_behind_may_be_a_switch() -> None:
    def tls(value: Any) -> Any:
        return check({"type": "reverseproxy", "host": "h", "tls": value}).tls

    assert tls(False) is None
    assert tls(True).verify is True
    assert tls({"ca_certificates": ["ca.pem"]}).ca_certificates == ("/srv/node/ca.pem",)


def test_defaults_of_the_options_are_those_of_crossbar() -> None:
    options = WebOptions()
    assert (options.access_log, options.display_tracebacks, options.hsts) == (False, False, False)
    assert options.hsts_max_age == 31_536_000
    assert options.client_timeout is None
