"""The control plane's FlatBuffers: autobahn reads what it writes, and it reads what autobahn writes."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from proxy import flatbuffers
from proxy._relay import probe_scan
from proxy.messages import (
    SER_FLATBUFFERS,
    MessageError,
    abort,
    check_abort,
    check_goodbye,
    check_hello,
    check_welcome,
    decode,
    encode,
    goodbye,
)
from support.flat import ID, dump, look, messages, mutate
from support.gate import FLATBUFFERS, Guarded

GUARDED = Guarded()
MESSAGES = messages()
NAMED = {"caller": {"caller": ID, "caller_authid": "joe", "caller_authrole": "user"}}
CALLEE = {"callee": ID, "callee_authid": "sue", "callee_authrole": "user", "progress": True}
HELLO_DETAILS = {"authid": "joe", "authrole": "user", "resumable": True, "resume-session": ID, "resume-token": "t"}
CLIENT_ROLES = {"roles": {"publisher": {}, "subscriber": {}, "caller": {}, "callee": {}}}
ROUTER_ROLES = {"roles": {"broker": {}, "dealer": {}}}
WELCOME_DETAILS = {"realm": "realm1", "authid": "joe", "authrole": "user", "authprovider": "static"}
EVENT_DETAILS = {"publisher": ID, "publisher_authid": "joe", "publisher_authrole": "user", "retained": True,
                 "topic": "com.example.topic"}  # fmt: skip

LISTS: dict[str, list[Any]] = {
    "Hello": [1, "realm1", HELLO_DETAILS | CLIENT_ROLES],
    "Welcome": [2, ID, WELCOME_DETAILS | ROUTER_ROLES],
    "Abort": [3, {"message": "gone"}, "wamp.error.no_such_realm"],
    "Challenge": [4, "wampcra", {}],
    "Authenticate": [5, "signature", {}],
    "Goodbye": [6, {"message": "bye", "resumable": True}, "wamp.close.normal"],
    "Error": [8, 48, 5, {}, "com.example.error"],
    "Publish": [16, 1, {"acknowledge": True, "exclude_me": False, "retain": True}, "com.example.topic"],
    "Published": [17, 1, ID],
    "Subscribe": [32, 1, {"get_retained": True}, "com.example."],
    "Subscribed": [33, 1, ID],
    "Unsubscribe": [34, 1, ID],
    "Unsubscribed": [35, 0, {"subscription": ID, "reason": "wamp.subscription.revoked"}],
    "Event": [36, ID, 5, EVENT_DETAILS],
    "EventReceived": [337, ID],
    "Call": [48, 1, {"timeout": 5000, "receive_progress": True, **NAMED["caller"]}, "com.example.echo"],
    "Result": [50, 1, CALLEE],
    "Register": [64, 1, {}, "com.example."],
    "Registered": [65, 1, ID],
    "Unregister": [66, 1, ID],
    "Unregistered": [67, 0, {"registration": ID, "reason": "wamp.registration.revoked"}],
    "Invocation": [68, 1, ID, {"timeout": 5000, "receive_progress": True, "procedure": "com.example.echo",
                               **NAMED["caller"]}],
    "Yield": [70, 1, CALLEE],
}  # fmt: skip
# Attributes that autobahn writes and the control plane has no use for, and the Arguments.
UNUSED = {"args", "kwargs", "payload", "transaction_hash", "forward_for", "match", "invoke", "concurrency", "mode"}
LISTED = {f"{kind}{who}" for kind in ("exclude", "eligible") for who in ("", "_authid", "_authrole")}


@pytest.mark.parametrize("name", LISTS)
def test_reads_what_autobahn_writes(name: str) -> None:
    assert decode(SER_FLATBUFFERS, dump(MESSAGES[name])) == LISTS[name]


@pytest.mark.parametrize("name", LISTS)
def test_autobahn_reads_what_it_writes(name: str) -> None:
    data = encode(SER_FLATBUFFERS, LISTS[name])
    assert probe_scan(FLATBUFFERS, GUARDED(data)) == len(data)
    assert decode(SER_FLATBUFFERS, data) == LISTS[name]
    before, after = look(dump(MESSAGES[name])), look(data)
    for attribute in before.keys() - UNUSED - LISTED:
        assert after[attribute] == before[attribute], attribute


@pytest.mark.parametrize("mode", ["skip", "kill", "killnowait"])
def test_modes(mode: str) -> None:
    for message in ([49, 7, {"mode": mode}], [69, 7, {"mode": mode, "reason": "wamp.error.timeout"}]):
        assert decode(SER_FLATBUFFERS, encode(SER_FLATBUFFERS, message)) == message
    with pytest.raises(MessageError):
        encode(SER_FLATBUFFERS, [49, 7, {"mode": "abort"}])


def test_everything_is_aligned() -> None:
    """As the readers of other languages demand it, which autobahn's does not."""
    for message in LISTS.values():
        data = encode(SER_FLATBUFFERS, message)
        (table,) = struct.unpack_from("<I", data, 16)
        table += 16
        vtable = table - struct.unpack_from("<i", data, table)[0]
        length, _, *offsets = struct.unpack_from(f"<{struct.unpack_from('<H', data, vtable)[0] // 2}H", data, vtable)
        assert (table + 4) % 8 == 0
        assert vtable % 2 == 0
        assert length + vtable <= table
        wide = [slot for slot, offset in enumerate(offsets) if (table + offset) % 8 == 0 and offset]
        assert wide or message[0] in (1, 3, 4, 5, 6)
        assert len(data) % 4 == 0


def test_what_is_checked_of_messages() -> None:
    hello = check_hello(decode(SER_FLATBUFFERS, dump(MESSAGES["Hello"])))
    assert (hello.realm, set(hello.details["roles"])) == ("realm1", {"publisher", "subscriber", "caller", "callee"})
    welcome = check_welcome(decode(SER_FLATBUFFERS, dump(MESSAGES["Welcome"])))
    assert (welcome.session_id, welcome.details["authrole"]) == (ID, "user")
    data = encode(SER_FLATBUFFERS, abort("wamp.error.no_such_realm", "text"))
    assert check_abort(decode(SER_FLATBUFFERS, data)).details == {"message": "text"}
    data = encode(SER_FLATBUFFERS, goodbye("wamp.close.normal"))
    assert check_goodbye(decode(SER_FLATBUFFERS, data)).reason == "wamp.close.normal"
    with pytest.raises(MessageError, match=r"GOODBYE\.Reason must be a URI, got None"):
        check_goodbye(decode(SER_FLATBUFFERS, encode(SER_FLATBUFFERS, [6, {}, None])))


def test_details_that_are_not_carried() -> None:
    """Left out where autobahn leaves them out too; refused where the receiver would understand something else."""
    details = {"roles": {"caller": {}}, "agent": "x", "authmethods": ["anonymous"], "authextra": {"a": 1}}
    assert decode(SER_FLATBUFFERS, encode(SER_FLATBUFFERS, [1, "realm1", details])) == [1, "realm1", CLIENT_ROLES]
    assert decode(SER_FLATBUFFERS, encode(SER_FLATBUFFERS, [2, 7, {"authextra": {}}])) == [2, 7, ROUTER_ROLES]
    refused: list[list[Any]] = [
        [1, "realm1", {**details, "authmethods": ["anonymous-proxy"]}],
        [4, "wampcra", {"challenge": "{}"}],
        [5, "signature", {"x": 1}],
        [36, 1, 2, {"payload_limit_exceeded": True}],
        [50, 1, {}, [1]],
        [99, 1],
        [1],
        [6, {}, 5],
        [17, "x", 1],
        [17, 2**64, 1],
    ]
    for message in refused:
        with pytest.raises(MessageError, match="cannot be expressed in flatbuffers"):
            encode(SER_FLATBUFFERS, message)


def test_an_error_goes_without_arguments() -> None:
    """autobahn looks for them in the place of the URI."""
    data = encode(SER_FLATBUFFERS, [8, 48, 5, {}, "wamp.error.payload_size_exceeded", ["too big"], {"a": 1}])
    assert decode(SER_FLATBUFFERS, data) == [8, 48, 5, {}, "wamp.error.payload_size_exceeded"]
    assert look(data)["args"] is None


@pytest.mark.parametrize("name", MESSAGES)
def test_changed_octets_never_raise_anything_else(name: str) -> None:
    dice = random.Random(name)
    for _ in range(300):
        data = mutate(dump(MESSAGES[name]), dice)
        try:
            message = decode(SER_FLATBUFFERS, data)
        except MessageError:
            continue
        assert type(message[0]) is int


def test_a_vtable_before_the_message() -> None:
    data = bytearray(dump(MESSAGES["Goodbye"]))
    (root,) = struct.unpack_from("<I", data)
    struct.pack_into("<i", data, root, root + 8)
    with pytest.raises(ValueError, match="before the message"):
        flatbuffers.loads(bytes(data))
