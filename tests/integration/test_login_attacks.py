"""Attacks on logins, against a running proxy: each must fail, in a way that tells the attacker nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support import extended
from support.attacks import CHALLENGED, FORGED, SIGNED, Stage, dial_with_cookie, prover_of, stages
from support.principals import METHODS, PRINCIPALS, ROLE
from support.raw import ABORT, AUTHENTICATE, CALL, CHALLENGE, GOODBYE, HELLO, PUBLISH, WELCOME, Peer, encode, hello
from support.raw_logins import Prover
from support.routers import META_REALM, REALM

KINDS = ("websocket", "rawsocket")
SERIALIZERS = ("json", "msgpack", "cbor")
RARE = ("ubjson", "flatbuffers")
VIOLATION = "wamp.error.protocol_violation"
NO_METHOD = "wamp.error.no_auth_method"
HELLO_MAX = 131_072
"""Octets of a message that is read before the join."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One proxy for all tests here."""
    with stages(tmp_path_factory.mktemp("attacks")) as make:
        yield make()


# --- the wrong message at the wrong time ---


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_authenticate_before_hello(kind: str, serializer: str, stage: Stage) -> None:
    """There is no question that it could answer; a HELLO behind it changes nothing."""
    for rest in ([], [hello(authmethods=["ticket"], authid="tina")]):
        peer = stage.dial(kind, serializer)
        peer.send([AUTHENTICATE, PRINCIPALS["ticket"].secret, {}], *rest)
        stage.expect_refused(peer, VIOLATION)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", CHALLENGED)
def test_second_hello_while_the_client_is_asked(what: str, kind: str, stage: Stage) -> None:
    """It cannot change who is asked, or by what."""
    peer = stage.dial(f"open/{kind}")
    stage.ask(peer, what)
    peer.send(hello(authmethods=["anonymous"]))
    stage.expect_refused(peer, VIOLATION)


def test_second_hello_behind_the_answer(stage: Stage) -> None:
    """While the router is joined nothing is read; then the HELLO is a violation, and no second session comes of it."""
    peer = stage.dial()
    prover, extra = stage.ask(peer, "ticket")
    peer.send([AUTHENTICATE, prover.sign(extra), {}], hello(authmethods=["anonymous"]))
    router, _ = stage.stub.accept_hello()
    stage.expect_no_login()
    router.send([WELCOME, 5, {"roles": {"broker": {}}}])
    peer.recv_type(WELCOME)
    assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, VIOLATION]]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


def test_second_hello_while_an_authenticator_thinks(stage: Stage) -> None:
    """It waits, and is a violation then; the decision is about the first one, and so is the one session."""
    peer = stage.dial("slow")
    stage.ask(peer, "ticket")
    again = hello(authmethods=["wampcra"], authid="carl")
    peer.send([AUTHENTICATE, "0.5", {}], again, again)
    router, message = stage.stub.accept_session(4711)
    assert message[2]["authextra"]["proxy_authid"] == "tina"
    peer.recv_type(WELCOME)
    assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, VIOLATION]]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]
    stage.expect_no_login()


def test_who_left_while_an_authenticator_thinks(stage: Stage) -> None:
    """Its decision is nobody's any more: the router hears of the next client only."""
    peer, other = stage.dial("slow"), stage.dial("slow")
    stage.ask(peer, "ticket")
    peer.send([AUTHENTICATE, "3", {}])
    peer.expect_silence(0.2)
    peer.close()
    stage.ask(other, "ticket", authid="other")
    other.send([AUTHENTICATE, "4", {}])
    router, message = stage.stub.accept_session(4711)
    assert message[2]["authextra"]["proxy_authid"] == "other"
    other.recv_type(WELCOME)
    other.close()
    router.recv_end()
    stage.expect_no_login()


def test_one_answer_to_a_question(stage: Stage) -> None:
    """Guesses in one go: the first one counts, and the connection is closed."""
    peer = stage.dial()
    prover, extra = stage.ask(peer, "ticket")
    peer.send([AUTHENTICATE, "guess", {}], [AUTHENTICATE, prover.sign(extra), {}])
    stage.expect_refused(peer)


def test_second_answer_after_the_right_one(stage: Stage) -> None:
    """AUTHENTICATE is over with WELCOME."""
    peer = stage.dial()
    router, _, answer = stage.log_in(peer, "wampcra")
    peer.send([AUTHENTICATE, *answer])
    assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, VIOLATION]]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


SMUGGLED: dict[str, list[Any]] = {
    "hello": [HELLO, REALM, {"roles": {"caller": {}}, "authmethods": ["anonymous-proxy"], "authextra": FORGED}],
    "authenticate": [AUTHENTICATE, "x", {}],
    "challenge": [CHALLENGE, "ticket", {}],
    "welcome": [WELCOME, 1, {"roles": {"broker": {}}, "authid": "forged", "authrole": "trusted", "authmethod": "x"}],
}


@pytest.mark.parametrize("serializer", [*SERIALIZERS, *RARE])
@pytest.mark.parametrize("name", SMUGGLED)
def test_smuggled_after_the_join(name: str, serializer: str, stage: Stage) -> None:
    """What belongs to logins does not reach the router over the connection that believes the proxy."""
    peer = stage.dial("all", serializer)
    peer.send(hello())
    router, _ = stage.stub.accept_session(4711)
    peer.recv_type(WELCOME)
    peer.send_raw(encode(serializer, SMUGGLED[name]))
    assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, VIOLATION]]
    assert [message[0] for message in router.recv_end()[0]] == [GOODBYE]


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("name", SMUGGLED)
def test_smuggled_in_a_batch(name: str, serializer: str, stage: Stage) -> None:
    """Behind messages that are allowed, in the same WebSocket message."""
    peer = extended.dial(stage.proxy.endpoints["all"], serializer, batched=True)
    peer.send(hello())
    router, _ = stage.stub.accept_session(4711)
    peer.recv_type(WELCOME)
    peer.send_batch([CALL, 1, {}, "com.example"], [PUBLISH, 2, {}, "com.example"], SMUGGLED[name], [CALL, 3, {}, "x"])
    assert [message[::2] for message in peer.recv_end()[0]] == [[ABORT, VIOLATION]]
    types = [message[0] for message in router.recv_end()[0]]
    assert types[-1] == GOODBYE
    assert set(types[:-1]) <= {CALL, PUBLISH}


# --- what was said before ---


@pytest.mark.parametrize("name", ["websocket", "rawsocket", "drawn"])
@pytest.mark.parametrize("what", SIGNED)
def test_replayed_authenticate(what: str, name: str, stage: Stage) -> None:
    """A login that was recorded is worth nothing: not over another connection, and not over the same one."""
    prover = prover_of(what)
    peer = stage.dial(name)
    router, _, answer = stage.log_in(peer, what, prover=prover)
    _leave(peer, router)
    # The same HELLO, to the octet: nonce and all.
    _, extra = stage.ask(peer, what, prover=prover)
    peer.send([AUTHENTICATE, *answer])
    stage.expect_refused(peer)
    other = stage.dial(name)
    _, again = stage.ask(other, what, prover=prover)
    assert again != extra
    other.send([AUTHENTICATE, *answer])
    stage.expect_refused(other)


def _leave(peer: Peer, router: Peer) -> None:
    peer.send([GOODBYE, {}, "wamp.close.normal"])
    router.recv_type(GOODBYE)
    router.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    peer.recv_type(GOODBYE)


@pytest.mark.parametrize("what", SIGNED)
def test_answer_to_somebody_elses_question(what: str, stage: Stage) -> None:
    """Two connections at once: what the one was asked cannot be answered over the other."""
    prover = prover_of(what)
    one, other = stage.dial(), stage.dial()
    _, extra = stage.ask(one, what, prover=prover)
    stage.ask(other, what, prover=prover)
    other.send([AUTHENTICATE, prover.sign(extra), {}])
    stage.expect_refused(other)
    one.send([AUTHENTICATE, prover.sign(extra), {}])
    router, _ = stage.stub.accept_session(5)
    one.recv_type(WELCOME)
    one.close()
    router.recv_end()


@pytest.mark.parametrize("what", CHALLENGED)
def test_answer_of_one_principal_for_another(what: str, stage: Stage) -> None:
    """Whoever can prove to be somebody cannot prove to be somebody else of the same method."""
    others = {"wampcra": "sally", "wampcra-salted": "carl", "scram-argon2id": "paul", "scram-pbkdf2": "sam"}
    prover = prover_of(what)
    prover.authid = others.get(what, "nobody")
    peer = stage.dial()
    _, extra = stage.ask(peer, what, prover=prover)
    peer.send([AUTHENTICATE, prover.sign({**extra, "kdf": extra.get("kdf", "")}), {}])
    stage.expect_refused(peer)


# --- who one is not ---


@pytest.mark.parametrize("forged", [FORGED, {"deep": FORGED, "list": [FORGED]}], ids=["top", "nested"])
@pytest.mark.parametrize("what", [*CHALLENGED, "anonymous"])
def test_forged_words_of_the_proxy(what: str, forged: dict[str, Any], stage: Stage) -> None:
    """The router hears of the client what the proxy says of it, under each key that it would believe."""
    peer = stage.dial("open/websocket")
    claims = {"proxy_authrole": "trusted", "transport": {"peer": "forged"}, "authprovider": "forged", "authmethod": "x"}
    if what == "anonymous":
        peer.send(hello(authid="forged", authrole="trusted", authextra=forged, **claims))
        router, message = stage.stub.accept_session(5)
        peer.recv_type(WELCOME)
    else:
        prover = prover_of(what)
        authextra = {**forged, **prover.authextra}
        router, message, _ = stage.log_in(peer, what, prover=prover, authextra=authextra, authrole="trusted", **claims)
    told = message[2]
    assert told["authmethods"] == ["anonymous-proxy"]
    assert not [key for key in told if key.startswith(("proxy_", "x_cb_", "transport", "authprovider"))]
    extra = told["authextra"]
    is_known = what != "anonymous"
    assert extra["proxy_realm"] == REALM
    assert extra["proxy_authrole"] == (ROLE if is_known else "anonymous")
    assert extra["proxy_authprovider"] == "static"
    assert extra["proxy_authmethod"] == (PRINCIPALS[what].method if is_known else "anonymous")
    assert (extra["proxy_authid"] == PRINCIPALS[what].authid) if is_known else extra["proxy_authid"] != "forged"
    assert set(extra) == {"pubkey", *(key for key in FORGED if key.startswith("proxy_"))}
    inner = extra["proxy_authextra"]
    assert inner["transport"]["peer"].startswith("tcp4:127.0.0.1:")
    assert not [key for key in inner if key.startswith(("proxy_", "x_cb_"))]
    peer.close()
    router.recv_end()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_oversize_authextra(serializer: str, kind: str, stage: Stage) -> None:
    """Neither in HELLO nor in AUTHENTICATE: the connection is closed unread, and the router hears nothing of it."""
    big = {"big": "x" * HELLO_MAX}
    for message in (
        hello(authmethods=["ticket"], authid="tina", authextra=big),
        [AUTHENTICATE, PRINCIPALS["ticket"].secret, big],
        [AUTHENTICATE, "x" * HELLO_MAX, {}],
    ):
        peer = stage.dial(kind, serializer)
        if message[0] == AUTHENTICATE:
            stage.ask(peer, "ticket")
        peer.send(message)
        messages, closed = peer.recv_end()
        assert messages == []
        assert closed.code == (1009 if kind == "websocket" else None)
        stage.expect_no_login()


def test_authextra_that_is_nested_too_deeply(stage: Stage) -> None:
    """A hundred thousand lists in one another cost the attacker its connection, and nobody else anything."""
    peer = stage.dial("rawsocket", "json")
    nested = b"[" * 50_000 + b"]" * 50_000
    peer.send_raw(b'[1,"realm1",{"roles":{"caller":{}},"authextra":{"n":' + nested + b"}}]")
    stage.expect_refused(peer, VIOLATION)


class ByKey(Prover):
    """Signs with a key, and says that it is another one's."""

    def __init__(self, authid: str | None, key: str, shown: str) -> None:
        super().__init__("cryptosign", authid or "", key)
        self.shown = shown

    @property
    def authextra(self) -> dict[str, Any]:
        return {"pubkey": self.shown}


ADA = PRINCIPALS["cryptosign"]
ADAS = ADA.known["authorized_keys"][0]


def _public(key: str) -> str:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key)).public_key().public_bytes_raw().hex()


@pytest.mark.parametrize(
    ("authid", "shown"),
    [("ada", ADAS), (None, ADAS), ("ada", _public(ADA.wrong)), (None, _public(ADA.wrong)), ("nobody", ADAS)],
    ids=["adas-shown", "adas-shown-without-authid", "own-shown", "own-shown-without-authid", "other-authid"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_cryptosign_with_the_wrong_key(kind: str, authid: str | None, shown: str, stage: Stage) -> None:
    """Whatever key and name are shown, the signature is by a key that nobody has authorized."""
    prover = ByKey(authid, ADA.wrong, shown)
    peer = stage.dial(kind)
    details = {} if authid else {"authid": None}
    _, extra = stage.ask(peer, "cryptosign", prover=prover, **details)
    peer.send([AUTHENTICATE, prover.sign(extra), {}])
    stage.expect_refused(peer)


def test_cryptosign_of_something_else(stage: Stage) -> None:
    """A good signature, but not of what was asked; and what is no signature at all."""
    prover = prover_of("cryptosign")
    signatures = [prover.sign({"challenge": "00" * 32}), "", "00", "zz" * 96, "00" * 96, "00" * 64, "é" * 192]
    for signature in signatures:
        peer = stage.dial()
        stage.ask(peer, "cryptosign")
        peer.send([AUTHENTICATE, signature, {}])
        stage.expect_refused(peer)
    peer = stage.dial()
    _, extra = stage.ask(peer, "cryptosign")
    # Signed is the one, and appended is the other.
    signature = prover.sign({"challenge": "00" * 32})[:128] + extra["challenge"]
    peer.send([AUTHENTICATE, signature, {}])
    stage.expect_refused(peer)


@pytest.mark.parametrize("what", CHALLENGED)
def test_answers_that_are_none(what: str, stage: Stage) -> None:
    """Texts of all kinds where a signature belongs."""
    for answer in ("", "\0", "=", "AAAA", "é", "\U0001f600" * 100, "{}", "x" * 10_000):
        peer = stage.dial("rawsocket", "cbor")
        stage.ask(peer, what)
        peer.send([AUTHENTICATE, answer, {"nonce": 1, "channel_binding": [], "cbind_data": {}}])
        stage.expect_refused(peer)


def test_cookie_of_another_realm(stage: Stage) -> None:
    """It is worth a login where it was got; elsewhere nothing is, nor is one that was made up or never logged in."""
    endpoint = stage.proxy.endpoints["cookies"]
    peer, cookie = dial_with_cookie(endpoint)
    router, message, _ = stage.log_in(peer, "wampcra")
    assert message[1] == REALM
    _leave(peer, router)
    peer.close()
    _, unused = dial_with_cookie(endpoint)
    for realm, value in ((META_REALM, cookie), (REALM, unused), (REALM, "x" * 24), (REALM, cookie.swapcase())):
        peer, _ = dial_with_cookie(endpoint, value)
        peer.send(hello(realm, authmethods=["cookie"], authid="carl"))
        stage.expect_refused(peer, NO_METHOD)
    peer, _ = dial_with_cookie(endpoint, cookie)
    peer.send(hello(authmethods=["cookie"]))
    router, message = stage.stub.accept_session(5)
    assert message[2]["authextra"]["proxy_authid"] == "carl"
    peer.close()
    router.recv_end()


# --- the weaker method ---


def test_the_weaker_method_gives_its_own_identity(stage: Stage) -> None:
    """``anonymous`` first: that is what one becomes, not the principal that was named."""
    peer = stage.dial("open/rawsocket")
    peer.send(hello(authmethods=["anonymous", "wampcra"], authid="carl", authrole=ROLE))
    router, message = stage.stub.accept_session(5)
    extra = message[2]["authextra"]
    assert extra["proxy_authrole"] == "anonymous"
    assert extra["proxy_authid"] != "carl"
    peer.close()
    router.recv_end()


@pytest.mark.parametrize("what", CHALLENGED)
def test_no_second_method_after_a_failure(what: str, stage: Stage) -> None:
    """What has failed has failed, though the client named another method that would do."""
    peer = stage.dial("open/rawsocket")
    prover = prover_of(what, right=False)
    _, extra = stage.ask(peer, what, prover=prover, authmethods=[prover.method, "anonymous"])
    peer.send([AUTHENTICATE, prover.sign(extra), {}])
    stage.expect_refused(peer)


def test_methods_that_the_transport_does_not_have(stage: Stage) -> None:
    """They are skipped, wherever they stand; nobody becomes anonymous where that is not configured."""
    nonsense = ["", "x" * 1000, "anonymous-proxy", "cryptosign-proxy", "trusted", "tls", "cookie", "passthrough"]
    peer = stage.dial()
    stage.ask(peer, "wampcra", authmethods=["anonymous", *nonsense, "wampcra", "ticket"])
    peer.close()
    for methods in (["anonymous"], nonsense, [], None, ["anonymous-proxy"], ["Ticket"], [" ticket"]):
        peer = stage.dial()
        peer.send(hello(authmethods=methods, authid="tina", authextra=FORGED))
        stage.expect_refused(peer, NO_METHOD)


@pytest.mark.parametrize("what", CHALLENGED)
def test_a_principal_of_another_method(what: str, stage: Stage) -> None:
    """The right secret by the wrong method."""
    principal = PRINCIPALS[what]
    for method in set(METHODS) - {principal.method}:
        secret = PRINCIPALS["cryptosign"].wrong if method == "cryptosign" else principal.secret
        prover = Prover(method, principal.authid, secret)
        peer = stage.dial()
        _, extra = stage.ask(peer, method, prover=prover)
        peer.send([AUTHENTICATE, prover.sign(extra), {}])
        stage.expect_refused(peer)
