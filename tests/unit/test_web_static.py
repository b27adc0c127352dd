"""Files of a folder over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import InvalidConfiguration
from support.web import Answer, Web


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files."""
    root = tmp_path / "web"
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a b.txt").write_text("0123456789")
    (root / "page.html").write_text("<p>page</p>")
    (root / "app.js").write_text("1;")
    (root / "pic.SVG").write_text("<svg/>")
    (root / "data.unknown").write_text("?")
    (root / "packed.txt.gz").write_bytes(b"\x1f\x8b")
    (root / "sub" / "index.html").write_text("<p>sub</p>")
    (root / "x<b>&.txt").write_text("odd")
    (tmp_path / "secret.txt").write_text("outside")
    return root


def web_of(folder: Path, path: str = "/", **options: Any) -> Web:
    """A site with the files."""
    return Web({path: {"type": "static", "directory": str(folder), "options": options}})


def test_files_are_sent_with_their_type(folder: Path) -> None:
    web = web_of(folder)
    for path, kind in [
        ("/a%20b.txt", "text/plain"),
        ("/page.html", "text/html"),
        ("/app.js", "text/javascript"),
        ("/pic.SVG", "image/svg+xml"),
        ("/data.unknown", "application/octet-stream"),
    ]:
        answer = web.ask(path)
        assert (answer.status, answer.headers["content-type"]) == (200, kind), path
        assert answer.headers["x-content-type-options"] == "nosniff"
    packed = web.ask("/packed.txt.gz").headers
    assert (packed["content-type"], packed["content-encoding"]) == ("text/plain", "gzip")


def test_types_of_one_service_are_not_those_of_another(folder: Path) -> None:
    first = web_of(folder, mime_types={".unknown": "application/x-first"})
    assert first.ask("/data.unknown").headers["content-type"] == "application/x-first"
    assert web_of(folder).ask("/data.unknown").headers["content-type"] == "application/octet-stream"


def test_head_tells_the_length(folder: Path) -> None:
    answer = web_of(folder).ask("/a%20b.txt", "HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "10", b"")


def test_a_folder_gets_its_slash_and_its_index(folder: Path) -> None:
    web = web_of(folder)
    answer = web.ask("/sub?x=1")
    assert (answer.status, answer.headers["location"]) == (301, "/sub/?x=1")
    assert web.ask("/sub/").text == "<p>sub</p>"


def test_the_slash_leads_nowhere_else(folder: Path) -> None:
    (folder / "evil.com").mkdir()
    for path in ("//evil.com", "/evil.com", "//sub", "/%2fsub"):
        location = web_of(folder, enable_directory_listing=True).ask(path).headers.get("location", "/x")
        assert location.startswith("/"), path
        assert not location.startswith("//"), path


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/sub/../../secret.txt",
        "/sub/%2e%2e%2f%2e%2e/secret.txt",
        "/%2fetc%2fpasswd",
        "//etc/passwd",
        "/a%20b.txt/x",
        "/a%20b.txt%00.html",
        "/%ff%fe",
        "/nope",
        "/empty/",
        "/empty/x",
    ],
)
def test_what_is_not_in_the_folder_is_not_found(folder: Path, path: str) -> None:
    answer = web_of(folder).ask(path)
    assert answer.status == 404
    assert b"outside" not in answer.body


def test_a_pipe_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert web_of(folder).ask("/pipe").status == 404


def test_a_folder_is_listed_only_if_that_is_wanted(folder: Path) -> None:
    assert web_of(folder).ask("/").status == 404
    answer = web_of(folder, enable_directory_listing=True).ask("/")
    assert answer.status == 200
    assert "x&lt;b&gt;&amp;.txt" in answer.text
    assert '"./x%3Cb%3E%26.txt"' in answer.text
    assert '"./sub/"' in answer.text
    assert "<b>" not in answer.text


def test_a_listing_bears_names_that_are_no_text(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.bin")).write_bytes(b"")
    os.symlink("nowhere", folder / "dangling")
    answer = web_of(folder, enable_directory_listing=True).ask("/")
    assert answer.status == 200
    assert "%FF%FE.bin" in answer.text


def test_a_default_file_is_sent_for_all_that_is_not_there(folder: Path) -> None:
    web = web_of(folder, default_file="page.html")
    for path in ("/nope", "/some/route", "/empty/", "/"):
        assert web.ask(path).text == "<p>page</p>", path
    assert web.ask("/a%20b.txt").text == "0123456789"


def test_a_default_file_that_is_missing_is_a_404(folder: Path) -> None:
    assert web_of(folder, default_file="gone.html").ask("/nope").status == 404


def test_browsers_may_keep_files_as_long_as_configured(folder: Path) -> None:
    assert web_of(folder).ask("/page.html").headers["cache-control"] == "max-age=43200, public"
    assert web_of(folder, cache_timeout=5).ask("/page.html").headers["cache-control"] == "max-age=5, public"
    assert "cache-control" not in web_of(folder, cache_timeout=None).ask("/page.html").headers


def test_a_browser_that_has_the_file_does_not_get_it_again(folder: Path) -> None:
    web = web_of(folder)
    since = web.ask("/page.html").headers["last-modified"]
    answer = web.ask("/page.html", if_modified_since=since)
    assert (answer.status, answer.body) == (304, b"")


# --- parts ---


def part(web: Web, wanted: str, **headers: str) -> Answer:
    """Ask for a part of ten digits."""
    return web.ask("/a%20b.txt", range=wanted, **headers)


@pytest.mark.parametrize(
    ("wanted", "body", "place"),
    [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
        ("bytes=5-99", "56789", "bytes 5-9/10"),
    ],
)
def test_a_part_of_a_file(folder: Path, wanted: str, body: str, place: str) -> None:
    answer = part(web_of(folder), wanted)
    assert (answer.status, answer.text, answer.headers["content-range"]) == (206, body, place)


def test_a_part_behind_the_end(folder: Path) -> None:
    answer = part(web_of(folder), "bytes=10-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10")


def test_several_parts_behind_the_end(folder: Path) -> None:
    answer = part(web_of(folder), "bytes=10-12,20-30")
    assert (answer.status, answer.headers["content-range"], answer.body) == (416, "bytes */10", b"")


def test_paths_that_are_no_text_are_not_found(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    web = web_of(folder)
    assert [web.ask(path).status for path in ("/%ff", "/sub/%ed%b0%80")] == [404, 404]
    assert caplog.text == ""


def test_nobody_keeps_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.web.static import File

    monkeypatch.setattr(File, "makeProducer", lambda *_: {}["broken"])
    answer = web_of(folder).ask("/a%20b.txt")
    assert (answer.status, answer.headers["cache-control"]) == (500, "no-store")
    assert not {"expires", "last-modified"} & set(answer.headers)


def test_several_parts(folder: Path) -> None:
    answer = part(web_of(folder), "bytes=0-1,8-9")
    assert answer.status == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert b"bytes 8-9/10" in answer.body


@pytest.mark.parametrize(
    "wanted", ["bytes=" + ",".join(["0-"] * 9), "bytes=x", "octets=0-1", "bytes=", "bytes=4-2-1", "bytes=\xff"]
)
def test_of_an_odd_part_all_is_sent(folder: Path, wanted: str) -> None:
    answer = part(web_of(folder), wanted)
    assert (answer.status, answer.text) == (200, "0123456789")


def test_a_part_of_a_file_that_has_changed_is_all_of_it(folder: Path) -> None:
    web = web_of(folder)
    since = web.ask("/a%20b.txt").headers["last-modified"]
    assert part(web, "bytes=2-4", if_range=since).status == 206
    os.utime(folder / "a b.txt", (1, 1))
    assert part(web, "bytes=2-4", if_range=since).status == 200


# --- other origins ---


def test_pages_of_other_origins_may_read_files(folder: Path) -> None:
    headers = web_of(folder).ask("/page.html", origin="https://a.example").headers
    assert headers["access-control-allow-origin"] == "https://a.example"
    assert headers["vary"] == "Origin"
    headers = web_of(folder, allow_cross_origin=False).ask("/page.html", origin="https://a.example").headers
    assert "access-control-allow-origin" not in headers


def test_browsers_may_ask_first(folder: Path) -> None:
    answer = web_of(folder).ask("/page.html", "OPTIONS", origin="https://a", access_control_request_headers="x-y")
    assert answer.status == 204
    assert answer.headers["access-control-allow-headers"] == "x-y"
    assert "GET" in answer.headers["access-control-allow-methods"]


# --- where files come from ---


def test_files_of_a_package() -> None:
    web = Web({"/": {"type": "static", "package": "proxy", "resource": "web"}})
    assert web.ask("/pages.py").status == 200


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"directory": "/nowhere/at/all"}, 'directory: "/nowhere/at/all": expected a folder'),
        ({"package": "no_such_package_x", "resource": "y"}, "cannot be imported"),
        ({"package": "proxy", "resource": "nope"}, "expected a folder in package proxy"),
    ],
)
def test_a_folder_that_is_not_there_is_found_at_the_start(item: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfiguration, match=text):
        Web({"x": {"type": "static", **item}})


def test_files_below_a_path(folder: Path) -> None:
    web = web_of(folder, "files")
    assert web.ask("/files/page.html").text == "<p>page</p>"
    assert web.ask("/files/sub").headers["location"] == "/files/sub/"
    assert web.ask("/page.html").status == 404
