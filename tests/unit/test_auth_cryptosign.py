"""WAMP-Cryptosign, against PyNaCl."""

import pytest
from nacl.signing import SigningKey
from twisted.internet.defer import Deferred

from proxy.auth import Accept, Challenge, Deny
from proxy.auth.cryptosign import Cryptosign
from proxy.auth.principals import Unavailable
from support.answers import FAILED, Source, attempt_of, authentication, now

JOE, JOES_OTHER, ANN, STRANGER = (SigningKey(bytes([number]) * 32) for number in range(1, 5))
CHANNEL = bytes(range(32))
TLS = {"channel_id": {"tls-unique": CHANNEL, "tls-exporter": bytes(reversed(CHANNEL))}}


def public(key):
    return key.verify_key.encode().hex()


ITEM = {
    "type": "static",
    "principals": {
        "joe": {"authorized_keys": [public(JOE), public(JOES_OTHER).upper()], "role": "user"},
        "ann": {"authorized_keys": [public(ANN)], "role": "user", "realm": "realm2"},
    },
}


def asked(authid, pubkey=None, *, item=ITEM, transport=None, **authextra):
    authextra |= {} if pubkey is None else {"pubkey": pubkey}
    attempt = attempt_of("cryptosign", authid, authextra=authextra, transport=transport)
    return authentication(cryptosign=item).hello(attempt)


def sign(key, challenge, channel=bytes(32)):
    """What clients do: signature and signed message."""
    message = bytes(a ^ b for a, b in zip(bytes.fromhex(challenge.extra["challenge"]), channel, strict=True))
    return key.sign(message).hex()


@pytest.mark.parametrize(("authid", "key"), [("joe", JOE), ("joe", JOES_OTHER), ("ann", ANN), (None, JOE), (None, ANN)])
def test_the_right_key(authid, key):
    challenge = asked(authid, public(key), channel_binding=None)
    assert set(challenge.extra) == {"challenge", "channel_binding"}
    assert challenge.extra["channel_binding"] is None
    assert len(bytes.fromhex(challenge.extra["challenge"])) == 32
    accept = challenge.answer(sign(key, challenge), {})
    assert isinstance(accept, Accept)
    name, realm = ("ann", "realm2") if key is ANN else ("joe", "realm1")
    assert (accept.authid, accept.realm, accept.authrole, accept.authmethod) == (name, realm, "user", "cryptosign")


def test_hexadecimal_digits_may_be_capitals():
    challenge = asked("joe", public(JOE).upper())
    assert isinstance(challenge.answer(sign(JOE, challenge).upper(), {}), Accept)


def test_a_public_key_need_not_be_named_where_there_is_one_only():
    challenge = asked("ann")
    assert isinstance(challenge.answer(sign(ANN, challenge), {}), Accept)
    challenge = asked("joe")
    refusal = challenge.answer(sign(JOE, challenge), {})
    assert (refusal.reason, refusal.message) == FAILED
    assert "several" in refusal.cause


@pytest.mark.parametrize(
    ("authid", "named", "signer"),
    [
        ("joe", JOE, STRANGER),
        ("joe", STRANGER, STRANGER),
        ("joe", ANN, ANN),
        ("ann", JOE, JOE),
        ("nobody", JOE, JOE),
        ("nobody", STRANGER, STRANGER),
        (None, STRANGER, STRANGER),
        (None, JOE, STRANGER),
        ("ann", None, STRANGER),
        ("nobody", None, STRANGER),
        (None, None, STRANGER),
    ],
)
def test_any_other_key_is_asked_and_refused(authid, named, signer):
    """Without a difference between those who are known and those who are not."""
    challenge = asked(authid, None if named is None else public(named))
    assert isinstance(challenge, Challenge)
    assert set(challenge.extra) == {"challenge", "channel_binding"}
    refusal = challenge.answer(sign(signer, challenge), {})
    assert (refusal.reason, refusal.message) == FAILED


@pytest.mark.parametrize("authid", ["joe", "nobody"])
def test_nonsense_is_refused(authid):
    challenge = asked(authid, public(JOE))
    good = sign(JOE, challenge)
    other_message = JOE.sign(bytes(32)).hex()
    signature_only = good[:128]
    unsigned = "00" * 64 + challenge.extra["challenge"]
    for answer in (
        "",
        "x" * 192,
        "é" * 192,
        "\ud800" * 192,
        signature_only,
        good + "00",
        " " + good[1:],
        other_message,
        unsigned,
    ):
        refusal = challenge.answer(answer, {})
        assert (refusal.reason, refusal.message) == FAILED


def test_the_answer_to_another_challenge_is_refused():
    first, second = asked("joe", public(JOE)), asked("joe", public(JOE))
    assert isinstance(second.answer(sign(JOE, first), {}), Deny)
    assert first.extra != second.extra


@pytest.mark.parametrize(
    "pubkey", ["", "00", "x" * 64, 7, ["00" * 32], "0x" + public(JOE), public(JOE) + " ", "é" * 64]
)
def test_a_public_key_that_is_none_is_refused_at_once(pubkey):
    refusal = asked("joe", pubkey)
    assert isinstance(refusal, Deny)
    assert refusal.reason == FAILED[0]
    assert "authextra.pubkey" in refusal.message


def test_a_key_of_several_principals_needs_an_authid():
    item = {"type": "static", "principals": {name: {"authorized_keys": [public(JOE)], "role": "r"} for name in "ab"}}
    challenge = asked(None, public(JOE), item=item)
    assert (challenge.answer(sign(JOE, challenge), {}).reason) == FAILED[0]
    challenge = asked("b", public(JOE), item=item)
    assert challenge.answer(sign(JOE, challenge), {}).authid == "b"


SMALL_ORDER = [
    "00" * 32,
    "00" * 31 + "80",
    "01" + "00" * 31,
    "01" + "00" * 30 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ec" + "ff" * 30 + "7f",
    "ec" + "ff" * 31,
    "ed" + "ff" * 30 + "7f",
    "ed" + "ff" * 31,
    "ee" + "ff" * 30 + "7f",
    "ee" + "ff" * 31,
]


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_key_that_anybody_can_sign_for_lets_nobody_in(key):
    """A placeholder of zeros is one of them: one of a few fixed signatures fits every message."""
    item = {"type": "static", "principals": {"joe": {"authorized_keys": [key], "role": "user"}}}
    for _ in range(16):
        for point in SMALL_ORDER:
            challenge = asked("joe", key, item=item)
            assert isinstance(challenge.answer(point + "00" * 32 + challenge.extra["challenge"], {}), Deny)


# --- channel binding ---


@pytest.mark.parametrize("binding", ["tls-unique", "tls-exporter"])
def test_a_channel_binding_binds_to_the_channel(binding):
    def challenged():
        challenge = asked("joe", public(JOE), channel_binding=binding, transport=TLS)
        assert challenge.extra["channel_binding"] == binding
        return challenge

    challenge = challenged()
    assert isinstance(challenge.answer(sign(JOE, challenge, TLS["channel_id"][binding]), {}), Accept)
    # Who signs for another channel, or for none, is somebody in between.
    for channel in (bytes(32), b"\1" * 32):
        challenge = challenged()
        refusal = challenge.answer(sign(JOE, challenge, channel), {})
        assert (refusal.reason, refusal.message) == FAILED


def test_without_a_binding_the_channel_does_not_matter():
    challenge = asked("joe", public(JOE), transport=TLS)
    assert isinstance(challenge.answer(sign(JOE, challenge), {}), Accept)


@pytest.mark.parametrize(
    ("binding", "transport"),
    [
        ("tls-unique", {}),
        ("tls-unique", {"channel_id": {}}),
        ("tls-unique", {"channel_id": None}),
        ("tls-unique", {"channel_id": {"tls-exporter": CHANNEL}}),
        ("tls-unique", {"channel_id": {"tls-unique": CHANNEL[:12]}}),
        ("tls-unique", {"channel_id": {"tls-unique": None}}),
        ("tls-server-end-point", TLS),
        ("", TLS),
        (["tls-unique"], TLS),
        (False, TLS),
    ],
)
def test_a_binding_that_cannot_be_had_is_refused(binding, transport):
    """Never a login without it: the client would think that it has it."""
    refusal = asked("joe", public(JOE), channel_binding=binding, transport=transport)
    assert isinstance(refusal, Deny)
    assert refusal.reason == FAILED[0]
    assert "channel binding" in refusal.message


def test_a_binding_may_be_nested_as_deeply_as_it_can_come():
    binding = []
    for _ in range(1020):  # MessagePack lets that through
        binding = [binding]
    refusal = asked("joe", public(JOE), channel_binding=binding)
    assert isinstance(refusal, Deny)
    assert len(refusal.message) < 200


# --- over an authenticator ---


def dynamic(found, authid="joe"):
    source = Source(found)
    return Cryptosign(source).hello(attempt_of("cryptosign", authid, authextra={"pubkey": public(JOE)})), source


def test_an_authenticator_that_takes_its_time():
    later = Deferred()
    outcome, source = dynamic(later, None)
    assert source.asked == [("cryptosign", None, {})]
    later.callback({"authorized_keys": (public(JOE),), "authid": "found", "role": "user"})
    challenge = now(outcome)
    accept = challenge.answer(sign(JOE, challenge), {})
    assert (accept.authid, accept.authprovider) == ("found", "dynamic")


def test_an_authenticator_that_names_another_key():
    challenge, _ = dynamic({"authorized_keys": (public(ANN),), "role": "user"})
    assert challenge.answer(sign(JOE, challenge), {}).reason == FAILED[0]


@pytest.mark.parametrize("found", [None, Deny("com.example.no_such_user", "who?")])
def test_an_authenticators_refusal_comes_after_the_challenge(found):
    challenge, _ = dynamic(found)
    assert isinstance(challenge, Challenge)
    refusal = challenge.answer(sign(JOE, challenge), {})
    assert refusal is found or refusal.reason == FAILED[0]


def test_an_authenticator_that_cannot_be_asked_is_said_at_once():
    refusal = Unavailable("wamp.error.unavailable", "not now")
    assert dynamic(refusal)[0] is refusal
