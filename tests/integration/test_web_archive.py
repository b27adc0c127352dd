"""The service ``archive``: files out of ZIP archives, local ones and ones that are fetched first."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import random
import socket
import ssl
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.backends import BackendServer, Seen, respond
from support.certificates import Certificates, certificates
from support.process import wait_until
from support.web_client import WebStage

NOISE = random.Random(7).randbytes(3_000_000)
CONTENT = {
    "index.html": b"<h1>start</h1>",
    "a/index.html": b"<h1>a</h1>",
    "a/style.css": b"body {}",
    "a/app.js": b"let x;",
    "a/data.weird": b"weird",
    "a/ü b.txt": "ü".encode(),
    "big.bin": NOISE,
    "empty.txt": b"",
}


def make_zip(content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.mkdir("a")
        for name, data in content.items():
            info = zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10))
            archive.writestr(info, data, method)
    return buffer.getvalue()


PLAIN = make_zip(CONTENT)


@pytest.fixture
def archive(stage: Callable[..., WebStage], tmp_path: Path) -> Callable[..., WebStage]:
    """A web with an archive on ``/zip``."""

    def make(data: bytes | None = PLAIN, **keys: Any) -> WebStage:
        if data is not None:
            (tmp_path / "web.zip").write_bytes(data)
        return stage({"zip": {"type": "archive", "archive": str(tmp_path / "web.zip"), **keys}})

    return make


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("cache", [False, True])
def test_files(method: int, cache: bool, archive: Callable[..., WebStage]) -> None:
    web = archive(make_zip(CONTENT, method), cache=cache)
    client = web.client()
    for _ in range(2):
        for name, data in CONTENT.items():
            client.request("GET", "/zip/" + name.replace("ü b", "%C3%BC%20b"))
            response = client.getresponse()
            assert (response.status, response.read()) == (200, data), name
    client.close()


def test_types_and_other_fields(archive: Callable[..., WebStage]) -> None:
    web = archive(mime_types={".weird": "application/x-weird"})
    types = {"index.html": "text/html", "a/style.css": "text/css", "a/app.js": "text/javascript"}
    types |= {"a/data.weird": "application/x-weird", "big.bin": "application/octet-stream"}
    for name, media_type in types.items():
        answer = web.ask(f"/zip/{name}")
        assert answer.headers["content-type"].split(";")[0] == media_type
        assert answer.headers["content-length"] == str(len(CONTENT[name]))
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["last-modified"] == "Mon, 06 May 2024 07:08:10 GMT"
    head = web.ask("/zip/big.bin", "HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(NOISE)), b"")
    assert web.ask("/zip/big.bin", "POST", b"x").status == 405


def test_clients_keep_what_has_not_changed(archive: Callable[..., WebStage]) -> None:
    web = archive()
    answer = web.ask("/zip/big.bin")
    tag, date = answer.headers["etag"], answer.headers["last-modified"]
    for fields, status in (
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": "Mon, 06 May 2019 07:08:10 GMT"}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": date}, 200),
    ):
        answer = web.ask("/zip/big.bin", headers=fields)
        assert (answer.status, answer.headers["etag"], answer.headers["last-modified"]) == (status, tag, date), fields
        assert bool(answer.body) == (status == 200)


def test_paths(archive: Callable[..., WebStage]) -> None:
    web = archive(default_object="index.html")
    assert web.ask("/zip/").body == web.ask("/zip").body == CONTENT["index.html"]
    assert web.ask("/zip/a/").body == CONTENT["a/index.html"]
    for path in (
        "a",
        "none",
        "a/none/",
        "../index.html",
        "%2e%2e/index.html",
        "a/../index.html",
        "%ff",
        "a//style.css",
    ):
        assert web.ask(f"/zip/{path}").status == 404, path


def test_without_a_default_object(archive: Callable[..., WebStage]) -> None:
    web = archive()
    assert [web.ask(path).status for path in ("/zip", "/zip/", "/zip/a/")] == [404] * 3


def test_prefix_and_default_file(archive: Callable[..., WebStage]) -> None:
    web = archive(object_prefix="a", default_object="index.html", options={"default_file": "app.js"})
    assert web.ask("/zip/").body == CONTENT["a/index.html"]
    assert web.ask("/zip/style.css").body == CONTENT["a/style.css"]
    answer = web.ask("/zip/some/page")
    assert (answer.body, answer.headers["content-type"]) == (CONTENT["a/app.js"], "text/javascript")


def test_memory_for_the_cache_is_bounded(archive: Callable[..., WebStage]) -> None:
    names = [f"{number}.bin" for number in range(40)]
    web = archive(make_zip(dict.fromkeys(names, NOISE)), cache=True, cache_limit=2 * len(NOISE))
    process = psutil.Process(web.child.pid)
    assert all(web.ask(f"/zip/{name}").body == NOISE for name in names[:4])
    before = process.memory_info().rss
    assert all(web.ask(f"/zip/{name}").body == NOISE for name in names)
    assert process.memory_info().rss - before < 15 * len(NOISE)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_memory_for_a_file_is_bounded(method: int, archive: Callable[..., WebStage]) -> None:
    """What unpacks to very much more than it is: nobody has to read it."""
    web = archive(make_zip({"bomb": bytes(400 << 20)}, method))
    process = psutil.Process(web.child.pid)
    before = process.memory_info().rss
    sockets = [web.connect() for _ in range(10)]
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(b"GET /zip/bomb HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(sock.recv(1 << 16)) > 0
    assert web.ask("/zip/none").status == 404
    assert process.memory_info().rss - before < 64 << 20
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("cache", [False, True])
def test_damaged_packed_files(method: int, cache: bool, archive: Callable[..., WebStage]) -> None:
    data = bytearray(make_zip({"a.bin": NOISE, "b.txt": b"fine"}, method))
    data[2_000_000:2_000_100] = bytes(100)
    web = archive(bytes(data), cache=cache)
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead):
            web.ask("/zip/a.bin")
    assert web.ask("/zip/b.txt").body == b"fine"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_that_is_shorter_than_the_archive_says(method: int, archive: Callable[..., WebStage]) -> None:
    """Its length has been told already: what follows on the connection must not pass for the rest of it."""
    data = make_zip({"a.txt": b"x" * 50}, method)
    at = data.rindex(b"PK\x01\x02")  # of the archive's directory; its field of the length follows 24 octets later
    data = data[: at + 24] + (90).to_bytes(4, "little") + data[at + 28 :]
    if method == zipfile.ZIP_STORED:
        data = data[: at + 20] + (50).to_bytes(4, "little") + data[at + 24 :]
    with pytest.raises(http.client.IncompleteRead):
        archive(data).ask("/zip/a.txt")


def test_a_prefix_is_not_left(archive: Callable[..., WebStage]) -> None:
    web = archive(make_zip({"in/a.txt": b"in", "/secret.txt": b"out", "secret.txt": b"out"}), object_prefix="in/")
    assert web.ask("/zip/a.txt").body == b"in"
    paths = ("/zip//secret.txt", "/zip/%2Fsecret.txt", "/zip/../secret.txt")
    assert [web.ask(path).status for path in paths] == [404] * 3


@pytest.mark.parametrize("spoil", ["data", "end"])
def test_damaged_archives(spoil: str, archive: Callable[..., WebStage]) -> None:
    data = bytearray(make_zip({"a.bin": NOISE, "b.txt": b"fine"}, zipfile.ZIP_STORED))
    if spoil == "end":
        assert "expected a ZIP archive" in archive(bytes(data[:-40])).failure
        return
    data[2_000_000] ^= 1
    web = archive(bytes(data))
    with pytest.raises(http.client.IncompleteRead):
        web.ask("/zip/a.bin")
    assert web.ask("/zip/b.txt").body == b"fine"
    assert "Bad CRC-32" in web.log


def test_hashes(archive: Callable[..., WebStage]) -> None:
    good, bad = hashlib.sha256(PLAIN).hexdigest(), "0" * 64
    assert archive(hashes=[bad, good.upper()]).ask("/zip/index.html").status == 200
    failure = archive(hashes=[bad]).failure
    assert good in failure
    assert "none of those listed" in failure


def test_no_descriptor_stays_open(archive: Callable[..., WebStage], tmp_path: Path) -> None:
    web = archive()
    path = str(tmp_path / "web.zip")

    def is_open() -> bool:
        return path in [file.path for file in psutil.Process(web.child.pid).open_files()]

    assert is_open()
    web.ask("/zip/big.bin")
    web.stop()
    web.failure = "stopped"
    assert not is_open()


# --- archives that are fetched ---


@pytest.fixture
def origin() -> Iterator[BackendServer]:
    """A server that has the archive."""
    with BackendServer(respond(PLAIN)) as server:
        yield server


def left(tmp_path: Path) -> list[str]:
    """Files that a download has left, without what was there before."""
    return sorted(name for name in os.listdir(tmp_path) if name not in ("web0", "web1", "pki"))


def test_download(archive: Callable[..., WebStage], origin: BackendServer, tmp_path: Path) -> None:
    keys = {"origin": f"http://127.0.0.1:{origin.port}/some.zip", "download": True}
    web = archive(None, hashes=[hashlib.sha256(PLAIN).hexdigest()], **keys)
    assert web.ask("/zip/big.bin").body == NOISE
    assert origin.seen[0].target == "/some.zip"
    assert left(tmp_path) == ["web.zip"]
    assert archive(None, **keys).ask("/zip/index.html").status == 200
    assert len(origin.seen) == 1, "what is there is not fetched again"


def test_redirected_download(archive: Callable[..., WebStage], origin: BackendServer) -> None:
    def answer(seen: Seen, sock: socket.socket) -> bool | None:
        if seen.target == "/found":
            return respond(PLAIN)(seen, sock)
        return respond(b"over there", "302 Found", {"Location": "/found"})(seen, sock)

    origin.answer = answer
    web = archive(None, origin=f"http://127.0.0.1:{origin.port}/x", download=True)
    assert web.ask("/zip/index.html").status == 200
    wait_until(lambda: origin.open == 0, "the connections are closed")


@pytest.mark.parametrize(
    ("answer", "keys", "text"),
    [
        (respond(b"", "404 Not Found"), {}, "HTTP status 404"),
        (respond(b"no zip"), {}, "expected a ZIP archive"),
        (respond(PLAIN), {"hashes": ["0" * 64]}, "none of those listed"),
        (respond(PLAIN), {"max_download": 1_000_000}, "larger than 1000000 octets"),
        (respond(b"", "302 Found", {"Location": "/again"}), {}, "cannot be downloaded"),
        (lambda _, sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") is not None, {}, "complete"),
        (lambda _, sock: sock.recv(1) == b"", {"download_timeout": 300}, "not done within 0.3 s"),
        (
            lambda _, sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") or sock.recv(1) == b"",
            {"download_timeout": 300},
            "not done within 0.3 s",
        ),
    ],
)
def test_downloads_that_fail(
    answer: Any,
    keys: dict[str, Any],
    text: str,
    archive: Callable[..., WebStage],
    origin: BackendServer,
    tmp_path: Path,
) -> None:
    origin.answer = answer
    web = archive(None, origin=f"http://127.0.0.1:{origin.port}/x", download=True, **keys)
    assert text in web.failure
    assert left(tmp_path) == []
    wait_until(lambda: origin.open == 0, "the connections are closed")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/x?token=hush", "http://joe:hush@127.0.0.1:{port}/x"])
def test_secrets_of_an_origin_are_not_told(
    url: str, archive: Callable[..., WebStage], origin: BackendServer, tmp_path: Path
) -> None:
    origin.answer = respond(b"", "404 Not Found")
    web = archive(None, origin=url.format(port=origin.port), download=True)
    assert "***" in web.failure
    assert "hush" not in web.failure + web.log


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({}, "does not exist; with an origin"),
        ({"origin": "https://localhost/x"}, "does not exist; with download set to true"),
        ({"origin": "http://localhost:1/x", "download": True}, "cannot be downloaded"),
    ],
)
def test_no_archive(keys: dict[str, Any], text: str, archive: Callable[..., WebStage], tmp_path: Path) -> None:
    assert text in archive(None, **keys).failure
    assert left(tmp_path) == []


def test_origins_are_checked_by_their_certificates(
    archive: Callable[..., WebStage], tmp_path_factory: pytest.TempPathFactory
) -> None:
    pki: Certificates = certificates(tmp_path_factory.mktemp("pki"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.chain, pki.server.key)
    with BackendServer(respond(PLAIN), context) as server:
        web = archive(None, origin=f"https://localhost:{server.port}/x", download=True)
        assert "certificate verify failed" in web.failure
        assert not server.seen
