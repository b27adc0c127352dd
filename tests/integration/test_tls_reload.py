"""Certificates are replaced while clients come and go: by themselves, on SIGHUP, on request; and nobody is dropped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from support import raw
from support.certificates import Certificates, Pair, certificates
from support.ctl import Ctl
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import Peer
from support.routers import XconnRouter
from support.tls import TlsEndpoint, client_context, listen

pytestmark = pytest.mark.peers


class Renewal:
    """A proxy with a certificate that is replaced.

    :ivar endpoint: as its clients reach it.
    """

    def __init__(self, config: Config, make_proxy: Callable[..., ProxyProcess], xconn: XconnRouter) -> None:
        self.made: Certificates = certificates(config.directory / "made")
        self.folder = config.directory / "live"
        self.folder.mkdir()
        self.put(self.made.server)
        config.backend("xconn", xconn.backends["xconn"])
        plain = config.listen("websocket", "ws")
        names = {"key": "live/key.pem", "certificate": "live/certificate.pem"}  # below the configuration's folder
        config.transports[-1]["endpoint"]["tls"] = names
        self.management = Endpoint("rawsocket", path=str(config.directory / "management.sock"))
        config.extra["management"] = {"path": self.management.path}
        self.endpoint = TlsEndpoint.over(plain, client_context(self.made.ca))
        self.proxy = make_proxy(config)

    def put(self, pair: Pair, *which: str) -> None:
        """Replace the files, or some of them."""
        for name in which or ("key", "certificate"):
            new = self.folder / "new"
            shutil.copy(getattr(pair, name), new)
            os.replace(new, self.folder / f"{name}.pem")

    @property
    def shown(self) -> int:
        """Serial number of the certificate that a new client sees."""
        with self.endpoint.connect() as sock:
            der = sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        return x509.load_der_x509_certificate(der).serial_number

    def shows(self, pair: Pair) -> bool:
        """Whether that is this one's."""
        return self.shown == pair.made.serial_number

    def logged(self, text: str) -> None:
        """Wait for a line of the log."""
        wait_until(lambda: any(text in line for line in self.proxy.child.errors), text)


@pytest.fixture
def renewal(config: Config, make_proxy: Callable[..., Any], xconn: XconnRouter) -> Renewal:
    """See :class:`Renewal`."""
    return Renewal(config, make_proxy, xconn)


def check(peer: Peer) -> None:
    """The session works."""
    assert peer.subscribe("com.example.check") > 0


def test_replaced_files_are_noticed_and_sessions_stay(renewal: Renewal) -> None:
    with raw.joined(renewal.endpoint) as peer:
        check(peer)
        assert renewal.shows(renewal.made.server)
        renewal.put(renewal.made.second)
        wait_until(lambda: renewal.shows(renewal.made.second), "the new certificate is shown", 30)
        check(peer)
        with raw.joined(renewal.endpoint) as later:
            check(later)
            later.leave()
        peer.leave()
    renewal.logged("transport transport000: the certificates were replaced")


def test_sighup(renewal: Renewal) -> None:
    with raw.joined(renewal.endpoint) as peer:
        renewal.put(renewal.made.second)
        renewal.proxy.child.process.send_signal(signal.SIGHUP)
        renewal.logged("is in service: started")
        assert renewal.shows(renewal.made.second)
        check(peer)
        peer.leave()


def test_sighup_with_a_configuration_that_cannot_be_used(renewal: Renewal) -> None:
    (renewal.proxy.config.directory / "proxy.json").write_text("nonsense")
    renewal.put(renewal.made.second)
    renewal.proxy.child.process.send_signal(signal.SIGHUP)
    renewal.logged("nothing is changed")
    renewal.logged("the certificates were replaced")
    assert renewal.shows(renewal.made.second)


def test_on_request_and_half_a_pair_changes_nothing(renewal: Renewal) -> None:
    owner, ctl = "transport transport000", Ctl(renewal.management.path)
    assert ctl.ok("reload-tls") == "no certificate has changed; kept: 1 set\n"
    renewal.put(renewal.made.second, "certificate")
    failed = ctl.run("reload-tls")
    assert failed.returncode == 1
    assert f"{owner} goes on with what it has: " in failed.stderr
    assert "expected the private key of the certificate" in failed.stderr
    assert renewal.shows(renewal.made.server)
    renewal.put(renewal.made.second, "key")
    with raw.joined(renewal.management, realm="crossbar") as peer:
        peer.subscribe("crossbar.worker.worker001.on_proxy_tls_reloaded")
        assert ctl.ok("reload-tls") == f"{owner} uses new certificates\n"
        event = peer.recv_type(raw.EVENT)[4][0]
        assert sorted(event) == ["replaced", "when", "who"]
        assert event["replaced"] == [owner]
        peer.leave()
    assert renewal.shows(renewal.made.second)
    assert json.loads(ctl.ok("--json", "reload-tls")) == {"replaced": [], "kept": [owner], "failed": {}}


def test_a_start_without_its_files_is_refused(renewal: Renewal, tmp_path: Path) -> None:
    endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": 0, "tls": {"key": "no.pem", "certificate": "no.pem"}}
    item = {"type": "websocket", "endpoint": endpoint}
    with raw.joined(renewal.management, realm="crossbar") as peer:
        peer.send([raw.CALL, peer.request(), {}, "crossbar.worker.worker001.start_proxy_transport", ["late", item]])
        answer = peer.recv_type(raw.ERROR)
        assert answer[4] == "crossbar.error.invalid_configuration"
        assert f"transport late, tls.certificate: {tmp_path}/no.pem: cannot be read: No such file" in answer[5][0]
        assert peer.call("crossbar.worker.worker001.get_proxy_transports") == ["transport000"]
        peer.leave()


def test_a_stopped_transport_and_a_new_one_at_its_place(renewal: Renewal) -> None:
    prefix = "crossbar.worker.worker001."
    with raw.joined(renewal.endpoint) as client, raw.joined(renewal.management, realm="crossbar") as peer:
        item = peer.call(prefix + "get_proxy_transport", "transport000")["config"]
        peer.call(prefix + "stop_proxy_transport", "transport000")
        check(client)
        item["endpoint"]["tls"] = {name: str(getattr(renewal.made.second, name)) for name in ("key", "certificate")}
        peer.call(prefix + "start_proxy_transport", "transport001", item)
        assert renewal.shows(renewal.made.second)
        check(client)
        client.leave()
        peer.leave()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_ticket_does_not_outlive_the_authority_of_its_certificate(
    version: ssl.TLSVersion, config: Config, make_proxy: Callable[..., Any], xconn: XconnRouter
) -> None:
    """Who resumes is not asked for a certificate again: that must not count once other ones are wanted."""
    made = certificates(config.directory / "made")
    authorities = config.directory / "clients.pem"
    shutil.copy(made.ca, authorities)
    config.backend("xconn", xconn.backends["xconn"], role="guest")
    principals = {"joe": {"certificate-sha1": made.client.sha1, "role": "guest"}}
    auth = {"tls": {"type": "static", "principals": principals}}
    plain = listen(config, "rawsocket", "rs", made.server, tls={"ca_certificates": ["clients.pem"]}, auth=auth)
    proxy = make_proxy(config)
    context = client_context(made.ca, made.client, low=version, high=version)
    endpoint = TlsEndpoint.over(plain, context)

    def login(sock: Any) -> str:
        """How the client has proven who it is."""
        peer = raw.dial(endpoint, sock=sock)
        try:
            peer.send(raw.hello(authmethods=["tls"]))
            method: str = peer.recv_type(raw.WELCOME)[2]["authmethod"]
            return method
        finally:
            sessions.append(sock.session)
            peer.close()

    def again() -> Any:
        sock = context.wrap_socket(Endpoint.connect(endpoint), server_hostname="localhost", session=sessions[-1])
        resumed.append(sock.session_reused)
        return sock

    sessions: list[Any] = []
    resumed: list[bool | None] = []
    assert login(endpoint.connect()) == "tls"
    assert login(again()) == "tls"  # the ticket says whose certificate it was
    shutil.copy(made.foreign.certificate, authorities)
    proxy.child.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any("certificates were replaced" in line for line in proxy.child.errors), "the reload")
    with pytest.raises((ssl.SSLError, raw.PeerClosed)):
        login(again())
    assert resumed[0] is True
    assert not any(resumed[1:])
