"""TLS contexts of the data plane: what they are made from, and how they follow their files."""

import errno
import logging
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from proxy.config import ConfigError
from proxy.config.tls import BackendTls, TlsConfig
from proxy.tls.client import ClientTls
from proxy.tls.context import split_ciphers
from proxy.tls.server import ServerTls
from proxy.tls.watching import EXPIRY_PERIOD, POLL, RETRY, TICKET_AGE, TlsContexts
from support.certificates import Certificates, Pair, certificates


class TlsPlane:
    """Keeps what it is given.

    :ivar contexts: keywords by number; ``replaced``: numbers, as often as they were.
    :ivar refuses: what OpenSSL would say.
    """

    def __init__(self) -> None:
        self.contexts: dict[int, dict[str, Any]] = {}
        self.replaced: list[int] = []
        self.refuses = ""
        self._number = 0

    def _check(self) -> None:
        if self.refuses:
            raise ValueError(self.refuses)

    def add_tls(self, **options: Any) -> int:
        self._check()
        self._number += 1
        self.contexts[self._number] = options
        return self._number

    def replace_tls(self, number: int, **options: Any) -> None:
        self._check()
        assert number in self.contexts
        self.contexts[number] = options
        self.replaced.append(number)

    def drop_tls(self, number: int) -> None:
        del self.contexts[number]

    def chain(self, number: int) -> bytes:
        """The certificates of the first one."""
        chain: bytes = self.contexts[number]["certificates"][0][0]
        return chain


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path / "made")


@pytest.fixture
def plane() -> Any:
    return TlsPlane()


def config(pair: Pair, **keys: Any) -> TlsConfig:
    return TlsConfig(**{**pair.tls, **keys})


# --- what the data plane gets ---


def test_a_plain_server(made: Certificates, plane: Any) -> None:
    server = ServerTls(config(made.server), plane, "transport ws1")
    options = plane.contexts[server.number]
    assert options.pop("ciphers").startswith("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-")
    assert options == {
        "server": True,
        "certificates": [(made.server.certificate.read_bytes(), made.server.key.read_bytes(), ["localhost"])],
        "ca": b"",
        "default_ca": False,
        "verify": 0,
        "ciphersuites": "",
        "min_version": 0x0303,
        "alpn": [b"http/1.1"],
        "crl": b"",
    }


def test_a_server_with_everything(made: Certificates, plane: Any) -> None:
    more = {
        "ca_certificates": [str(made.ca)],
        "crl": [str(made.authority.revoke(made.client))],
        "ciphers": "ECDHE+AESGCM, TLS_AES_128_GCM_SHA256:!SHA1",
        "min_version": "1.3",
        "sni": [made.other.tls, made.wildcard.tls],
    }
    options = plane.contexts[ServerTls(config(made.chained, **more), plane, "transport ws1", alpn=[]).number]
    assert [names for _, _, names in options["certificates"]] == [
        ["localhost"],
        ["other.example.com"],
        ["*.wild.example.com"],
    ]
    assert plane.chain(1) == made.chained.chain.read_bytes()
    assert (options["ca"], options["verify"], options["alpn"]) == (made.ca.read_bytes(), 2, [])
    assert options["crl"].startswith(b"-----BEGIN X509 CRL-----")
    assert (options["ciphers"], options["ciphersuites"]) == ("ECDHE+AESGCM:!SHA1", "TLS_AES_128_GCM_SHA256")
    assert options["min_version"] == 0x0304


@pytest.mark.parametrize(
    ("text", "lists"),
    [
        (None, ("", "")),
        ("TLS_AES_128_GCM_SHA256", ("", "TLS_AES_128_GCM_SHA256")),
        ("HIGH:!aNULL", ("HIGH:!aNULL", "")),
        ("A TLS_B,C:TLS_D", ("A:C", "TLS_B:TLS_D")),
    ],
)
def test_one_list_of_ciphers_for_both_versions(text: str | None, lists: tuple[str, str]) -> None:
    assert tuple(split_ciphers(text).values()) == lists


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {"verify": 2, "default_ca": True, "certificates": 0, "ca": 0}),
        ({"verify": False}, {"verify": 0, "default_ca": False, "certificates": 0, "ca": 0}),
        ({"trust_root": "ca"}, {"verify": 2, "default_ca": False, "certificates": 0, "ca": 1}),
        (
            {"ca_certificates": ["ca"], "trust_root": "ca"},
            {"verify": 2, "default_ca": False, "certificates": 0, "ca": 2},
        ),
        ({"key": "key", "certificate": "certificate"}, {"verify": 2, "default_ca": True, "certificates": 1, "ca": 0}),
    ],
)
def test_a_client_verifies_unless_it_is_told_not_to(
    keys: dict[str, Any], expected: dict[str, Any], made: Certificates, plane: Any
) -> None:
    paths = {"ca": str(made.ca), "key": str(made.client.key), "certificate": str(made.client.certificate)}
    real = {
        name: [paths[item] for item in value] if isinstance(value, list) else paths.get(value, value)
        for name, value in keys.items()
    }
    options = plane.contexts[ClientTls(BackendTls(**real), plane, "connection router1").number]
    found = {name: options[name] for name in ("verify", "default_ca")}
    assert found | {"certificates": len(options["certificates"]), "ca": options["ca"].count(b"BEGIN")} == expected
    assert (options["server"], options["alpn"]) == (False, [])


def test_what_openssl_refuses_is_a_configuration_error(made: Certificates, plane: Any) -> None:
    plane.refuses = "ciphers: no cipher match"
    with pytest.raises(ConfigError, match="error: transport ws1, tls: OpenSSL: ciphers: no cipher match"):
        ServerTls(config(made.server, ciphers="NONSENSE"), plane, "transport ws1")


# --- reload ---


class Files:
    """A key and a certificate in use, and the contexts that follow them.

    :ivar number: in the data plane.
    """

    def __init__(self, folder: Path, made: Certificates, plane: Any) -> None:
        self.folder = folder
        self.plane = plane
        self.clock = Clock()
        self.now = datetime.now(UTC)
        self.replaced: list[list[str]] = []
        self.contexts = TlsContexts(plane, self.clock, self.replaced.append, lambda: self.now)
        self.put(made.server)
        self.config = TlsConfig(key=str(folder / "key"), certificate=str(folder / "certificate"))
        self.server = self.contexts.serve(self.config, "transport ws1")
        self.number = self.server.number

    def put(self, pair: Pair, *names: str) -> None:
        """Replace the files, or those named."""
        for name in names or ("key", "certificate"):
            shutil.copy(getattr(pair, name), self.folder / "new")
            os.replace(self.folder / "new", self.folder / name)

    def look(self, times: int = 1) -> None:
        """Let the time for so many looks pass."""
        self.clock.pump([POLL] * times)

    @property
    def chain(self) -> bytes:
        """The certificate in use."""
        return bytes(self.plane.chain(self.number))


@pytest.fixture
def files(tmp_path: Path, made: Certificates, plane: Any) -> Files:
    return Files(tmp_path, made, plane)


def test_replaced_files_are_noticed(files: Files, made: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files.look(3)
    assert files.plane.replaced == []
    files.put(made.second)
    files.look()
    assert files.plane.replaced == []  # somebody may be at it
    files.look()
    assert files.chain == made.second.certificate.read_bytes()
    assert "transport ws1: the certificates were replaced" in caplog.text
    files.look(3)
    assert (files.plane.replaced, files.replaced) == ([files.number], [["transport ws1"]])


def test_half_a_pair_changes_nothing(files: Files, made: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    files.put(made.second, "certificate")
    files.look(5)
    assert files.chain == made.server.certificate.read_bytes()
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1  # once, not at each look
    assert warnings[0].startswith("transport ws1 goes on with the certificates that it has: ")
    assert "expected the private key of the certificate" in warnings[0]
    files.put(made.second, "key")
    files.look(2)
    assert files.chain == made.second.certificate.read_bytes()


def test_a_file_that_is_gone_changes_nothing(files: Files, made: Certificates) -> None:
    (files.folder / "key").unlink()
    files.look(3)
    assert files.chain == made.server.certificate.read_bytes()
    files.put(made.second)
    files.look(2)
    assert files.chain == made.second.certificate.read_bytes()


def test_what_openssl_refuses_changes_nothing(
    files: Files, made: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    files.plane.refuses = "certificates: ee key too small"
    files.put(made.second)
    files.look(4)
    assert files.chain == made.server.certificate.read_bytes()
    assert caplog.text.count("ee key too small") == 1


def test_what_was_in_the_way_need_not_be_the_files(
    files: Files, made: Certificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing changes in what the system says of them once there are descriptors again."""

    def no_descriptors(path: str, *_: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    files.put(made.second)
    with monkeypatch.context() as full:
        full.setattr(os, "open", no_descriptors)
        files.look(int(3 * RETRY / POLL))
    assert files.chain == made.server.certificate.read_bytes()
    assert caplog.text.count("Too many open files") == 1
    files.look(int(RETRY / POLL) + 1)
    assert files.chain == made.second.certificate.read_bytes()


def test_a_link_that_leads_elsewhere_is_noticed(files: Files, made: Certificates) -> None:
    for name in ("key", "certificate"):
        (files.folder / name).unlink()
        (files.folder / name).symlink_to(getattr(made.second, name))
    files.look(2)
    assert files.chain == made.second.certificate.read_bytes()


def test_reload_on_request(files: Files, made: Certificates) -> None:
    assert files.contexts.reload() == {"replaced": [], "kept": ["transport ws1"], "failed": {}}
    files.put(made.second)
    assert files.contexts.reload() == {"replaced": ["transport ws1"], "kept": [], "failed": {}}
    assert files.chain == made.second.certificate.read_bytes()
    files.put(made.server, "key")
    report = files.contexts.reload()
    assert list(report["failed"]) == ["transport ws1"]
    assert "expected the private key of the certificate" in report["failed"]["transport ws1"]
    assert files.chain == made.second.certificate.read_bytes()
    assert files.replaced == []  # whoever asked knows


def test_one_whose_files_are_broken_does_not_hinder_another(
    files: Files, made: Certificates, tmp_path: Path, plane: Any
) -> None:
    trust = tmp_path / "trust.pem"
    shutil.copy(made.ca, trust)
    client = files.contexts.dial(BackendTls(ca_certificates=(str(trust),)), "connection router1")
    files.put(made.other, "key")
    shutil.copy(made.foreign.certificate, trust)
    files.look(2)
    assert plane.contexts[client.number]["ca"] == made.foreign.certificate.read_bytes()
    assert files.replaced == [["connection router1"]]
    assert files.chain == made.server.certificate.read_bytes()


def test_keys_of_session_tickets_do_not_become_old(files: Files) -> None:
    files.clock.advance(TICKET_AGE - POLL)
    assert files.plane.replaced == []
    files.look(2)
    assert files.plane.replaced == [files.number]
    files.look(3)
    assert files.plane.replaced == [files.number]
    assert files.replaced == []


# --- expiry ---


@pytest.mark.parametrize(
    ("days", "text"),
    [(30, ""), (3.5, "expires in 3 days ("), (-1, "has expired (")],
)
def test_the_end_of_a_certificate_is_announced(
    days: float, text: str, made: Certificates, plane: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pair = made.authority.issue("short", start=-5, days=5 + days)
    TlsContexts(plane, Clock()).serve(config(pair), "transport ws1")
    lines = [record.message for record in caplog.records]
    assert len(lines) == bool(text)
    assert all(text in line and str(pair.certificate) in line and "transport ws1" in line for line in lines)


def test_it_is_announced_once_a_day(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.now += timedelta(days=25)
    files.clock.advance(EXPIRY_PERIOD - POLL)
    assert caplog.text == ""
    files.look(10)
    assert caplog.text.count("expires in") == 1
    files.clock.advance(EXPIRY_PERIOD)
    assert caplog.text.count("expires in") == 2


# --- the end ---


def test_nothing_is_watched_once_all_are_closed(files: Files, made: Certificates, plane: Any) -> None:
    other = files.contexts.serve(config(made.other), "transport ws2")
    files.server.close()
    files.server.close()
    assert list(plane.contexts) == [other.number]
    assert files.clock.getDelayedCalls()
    other.close()
    assert (plane.contexts, files.clock.getDelayedCalls()) == ({}, [])
    files.put(made.second)
    assert files.server.reload() is False
    assert files.contexts.reload() == {"replaced": [], "kept": [], "failed": {}}
    again = files.contexts.serve(files.config, "transport ws1")
    files.put(made.server)
    files.look(2)
    assert plane.chain(again.number) == made.server.certificate.read_bytes()
