"""WAMP-TLS: clients by their certificate, as autobahn describes it."""

import datetime

import pytest
from autobahn.util import peer_certificate_details
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred

from proxy.auth import Accept, Attempt, Deny
from proxy.auth.principals import Unavailable
from proxy.auth.tls import Tls
from support.answers import FAILED, Source, attempt_of, authentication, now


def certificate(name):
    """A client's certificate, as it is in the transport's details."""
    key, subject = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start)
    made = builder.not_valid_after(start + datetime.timedelta(days=1)).sign(key, None)
    return peer_certificate_details(made), made.fingerprint(hashes.SHA1()).hex()


JOE, JOES_SHA1 = certificate("joe")
STRANGER, _ = certificate("joe")
ITEM = {"type": "static", "principals": {"joe": {"certificate-sha1": JOES_SHA1, "role": "user"}}}


def login(peer_cert, authid=None, item=ITEM):
    transport = {"peer_cert": peer_cert}
    return authentication(tls=item).hello(attempt_of("tls", authid, transport=transport))


@pytest.mark.parametrize("form", [JOES_SHA1, JOES_SHA1.upper(), JOE["sha1"]], ids=["lower", "upper", "colons"])
@pytest.mark.parametrize("authid", [None, "joe", "ann"])
def test_the_certificate_says_who_the_client_is(form, authid):
    item = {"type": "static", "principals": {"joe": {"certificate-sha1": form, "role": "user"}}}
    assert login(JOE, authid, item) == Accept("realm1", "joe", "user", "tls", "static")


@pytest.mark.parametrize(
    "peer_cert",
    [STRANGER, {"sha1": ""}, {"sha1": None}, {"other": 1}, "nonsense"],
    ids=["stranger", "empty", "none", "other", "text"],
)
def test_another_certificate_is_refused(peer_cert):
    refusal = login(peer_cert, "joe")
    assert isinstance(refusal, Deny)
    assert (refusal.reason, refusal.message) == FAILED


@pytest.mark.parametrize("peer_cert", [None, {}])
def test_without_a_certificate_the_next_method_has_the_say(peer_cert):
    auth = authentication(tls=ITEM, anonymous={"type": "static"})
    details = {"authmethods": ["tls", "anonymous"]}
    assert auth.hello(Attempt("realm1", details, {"peer_cert": peer_cert})).authmethod == "anonymous"
    alone = auth.hello(Attempt("realm1", {"authmethods": ["tls"]}, {"peer_cert": peer_cert}))
    assert alone.reason == "wamp.error.no_auth_method"


def test_a_certificate_of_several_principals_leaves_a_choice():
    principals = {name: {"certificate-sha1": JOES_SHA1, "role": name} for name in ("ann", "joe")}
    item = {"type": "static", "principals": principals}
    assert login(JOE, "joe", item).authrole == "joe"
    assert login(JOE, "ann", item).authrole == "ann"
    assert login(JOE, None, item).reason == FAILED[0]


def test_an_authenticator_is_asked():
    later = Deferred()
    source = Source(later)
    outcome = Tls(source).hello(attempt_of("tls", transport={"peer_cert": JOE}))
    assert source.asked == [("tls", "joe", {})]
    later.callback({"role": "user"})
    assert now(outcome) == Accept("realm1", "joe", "user", "tls", "dynamic")


@pytest.mark.parametrize("found", [Deny("com.example.no", "go away"), Unavailable("wamp.error.unavailable", "not now")])
def test_an_authenticators_refusal_is_the_clients(found):
    assert Tls(Source(found)).hello(attempt_of("tls", transport={"peer_cert": JOE})) is found
