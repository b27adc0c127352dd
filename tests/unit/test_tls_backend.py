"""Connections to routers over TLS: what the data plane is told, and what becomes of a router that fails there."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from proxy.addresses import Address
from proxy.config import ConfigError
from proxy.config.tls import BackendTls
from proxy.connections import TLS_NEEDED_PERIOD, ProxyConnection
from proxy.plane import CLOSED_DEADLINE, CLOSED_TLS, EV_CLOSED, EV_MESSAGE
from proxy.tls.sessions import connection_creator, tls_trouble
from support.certificates import Certificates, certificates
from support.planes import FRONT, HELLO, Rig, abort_of, connection_of

HOST = {"type": "tcp", "host": "router.example", "port": 9000, "tls": True}
REASON = b"certificate verify failed: self-signed certificate"


class Names:
    """A resolver that knows two addresses."""

    def resolve(self, endpoint: object) -> "Deferred[list[Address]]":
        return succeed([Address("192.0.2.1", 9000), Address("192.0.2.2", 9000)])


def rig(connections: int = 1, tls: Any = True, **keys: Any) -> Rig:
    made = Rig(connections, router={"endpoint": {**HOST, "tls": tls}}, anonymous=True, **keys)
    made.controller.resolver = Names()  # type: ignore[assignment]
    return made


def login(made: Rig, conn: int = FRONT) -> int:
    made.open(conn)
    made.says(HELLO, conn=conn)
    return made.dialled()[0]


def test_the_data_plane_is_told_whom_to_expect() -> None:
    made = rig()
    (options,) = made.plane.tls
    assert (options["server"], options["verify"], options["default_ca"]) == (False, 2, True)
    params = made.plane.params[made.controller.connections["one"].params - 1]
    assert (params["tls"], params["server_name"]) == (1, "router.example")


def test_a_plain_connection_has_none_of_it() -> None:
    made = Rig()
    assert made.plane.tls == []
    assert "tls" not in made.plane.params[made.controller.connections["one"].params - 1]


def test_no_verification_is_not_passed_over_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    made = rig(tls={"verify": False})
    assert made.plane.tls[0]["verify"] == 0
    assert "connection one: verify is off: anybody in between can pass for the router" in caplog.text


def test_each_address_is_tried_then_the_next_connection(caplog: pytest.LogCaptureFixture) -> None:
    made = rig(2)
    token = login(made)
    for _ in range(3):
        made.back(token, EV_CLOSED, CLOSED_TLS, REASON)
        token, _ = made.dialled()
    assert connection_of(made, token) == "two"
    made.back(token, EV_CLOSED, CLOSED_TLS, REASON)
    reason, text = abort_of(made)
    assert reason == "wamp.error.network_failure"
    assert 'connection "one" cannot be reached: TLS failed; connection "two" cannot be reached: TLS failed' in text
    assert "certificate" not in text  # how the operator's routers are set up is no client's business
    assert f"connection one cannot be reached: TLS failed ({REASON.decode()})" in caplog.text


def test_one_without_tls_is_left_alone_for_a_while() -> None:
    made = rig(2)
    token = login(made)
    made.back(token, EV_CLOSED, CLOSED_TLS, REASON)
    made.back(made.dialled()[0], EV_CLOSED, CLOSED_TLS, REASON)
    made.dialled()
    assert {connection_of(made, login(made, FRONT + number)) for number in range(1, 5)} == {"two"}


def test_a_record_that_fails_in_the_middle_of_a_login_ends_it() -> None:
    made = Rig(1, router={"endpoint": HOST}, backend={"auth": {"passthrough": {}}}, auth=PASSED_ON)
    made.controller.resolver = Names()  # type: ignore[assignment]
    token = login(made)
    made.answers(token, [4, "ticket", {}])
    made.plane.take()
    made.back(token, EV_CLOSED, CLOSED_TLS, b"decryption failed or bad record mac")
    reason, text = abort_of(made)
    assert (reason, "TLS failed" in text) == ("wamp.error.network_failure", True)


PASSED_ON = {"passthrough": {"role": "anonymous"}}


def test_files_that_cannot_be_used_are_an_error_of_the_start(tmp_path: Path) -> None:
    made = rig()
    endpoint = {**HOST, "tls": {"ca_certificates": ["no.pem"]}}
    item = {"transport": {"type": "rawsocket", "endpoint": endpoint}, "auth": {"anonymous": {}}}
    made.controller.cbdir = tmp_path
    with pytest.raises(ConfigError, match=r"connection four, tls\.ca_certificates\[0\]: .*no\.pem: cannot be read"):
        raise_of(made.controller.start_proxy_connection("four", item))
    assert "four" not in made.controller.connections


def raise_of(done: "Deferred[Any]") -> None:
    """Raise what it failed with."""
    failures: list[Failure] = []
    done.addErrback(failures.append)
    if failures:
        failures[0].raiseException()


def dropped(made: Rig) -> list[int]:
    return [call[1] for call in made.plane.take() if call[0] == "drop_tls"]


def test_a_stopped_connection_lets_go_of_its_files() -> None:
    made = rig()
    made.controller.stop_proxy_connection("one", force=True)
    assert dropped(made) == [1]
    assert made.clock.getDelayedCalls() == []


def test_not_before_the_last_login_that_may_still_dial() -> None:
    made = rig(2)
    token = login(made)
    connection: ProxyConnection = made.controller.connections["one"]
    made.controller.stop_proxy_connection("one", force=True)
    made.clock.advance(TLS_NEEDED_PERIOD)
    assert dropped(made) == []
    made.back(token, EV_CLOSED, CLOSED_DEADLINE)
    made.back(made.dialled()[0], EV_CLOSED, CLOSED_DEADLINE)
    made.clock.advance(TLS_NEEDED_PERIOD)
    assert dropped(made) == [1]
    assert connection.tls is None


def test_what_is_over_when_the_last_login_is_there(tmp_path: Path) -> None:
    made = rig()
    token = login(made)
    made.answers(token, [2, 4242, {"roles": {"dealer": {}}}], EV_MESSAGE)
    made.controller.stop_proxy_connection("one", force=True)
    assert dropped(made) == [1]


# --- sessions of the worker's own ---


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


def test_their_files_are_read_anew(made: Certificates, tmp_path: Path) -> None:
    trust = tmp_path / "trust.pem"
    config = BackendTls(ca_certificates=(str(trust),))
    with pytest.raises(ConfigError, match=r"connection router1, tls\.ca_certificates"):
        connection_creator(config, "localhost", "connection router1")
    shutil.copy(made.ca, trust)
    connection_creator(config, "localhost", "connection router1")


@pytest.mark.parametrize(
    "ciphers", ["TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256,ECDHE+AESGCM", "ECDHE+AESGCM TLS_AES_128_GCM_SHA256"]
)
def test_their_ciphers_are_written_as_the_data_planes(ciphers: str) -> None:
    """There one list is for both versions of TLS, with commas and blanks, too."""
    connection_creator(BackendTls(ciphers=ciphers), "localhost", "connection router1")
    unverified = connection_creator(BackendTls(ciphers=ciphers, verify=False), "localhost", "connection router1")
    offered = unverified.clientConnectionForTLS(None).get_cipher_list()
    assert "TLS_AES_128_GCM_SHA256" in offered
    assert "ECDHE-RSA-AES128-GCM-SHA256" in offered


def test_why_a_connection_broke_off() -> None:
    from OpenSSL import SSL
    from service_identity import VerificationError

    assert tls_trouble(Failure(ConnectionLost())) == ""
    assert tls_trouble(Failure(SSL.Error([("SSL routines", "", "certificate verify failed")]))) == (
        "certificate verify failed"
    )
    assert tls_trouble(Failure(SSL.Error([]))) == "the connection was broken off"
    assert tls_trouble(Failure(SSL.Error())) == "the connection was broken off"
    assert tls_trouble(Failure(VerificationError(errors=[]))) == "the certificate is another host's"
