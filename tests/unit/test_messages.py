"""WAMP messages: octets to lists and back, and what is checked of them."""

import datetime
import struct

import cbor2
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import messages
from proxy.messages import (
    SER_CBOR,
    SER_FLATBUFFERS,
    SER_JSON,
    SER_MSGPACK,
    SER_UBJSON,
    MessageError,
    MessageType,
    decode,
    encode,
)

ALL = pytest.mark.parametrize("serializer", [SER_JSON, SER_MSGPACK, SER_CBOR, SER_UBJSON])

HELLO = [1, "realm1", {"roles": {"caller": {"features": {"progressive_call_results": True}}, "publisher": {}}}]


def with_details(**changes: object) -> list[object]:
    details = {"roles": {"caller": {}}, **changes}
    return [1, "realm1", {key: value for key, value in details.items() if value is not ...}]


@ALL
def test_a_message_survives_with_attributes_nobody_knows(serializer: int) -> None:
    message = [1, "realm1", {"roles": {"caller": {}}, "x_unknown": {"deep": [1, None, -1.5, "ü", {"": False}]}}, 99]
    assert decode(serializer, encode(serializer, message)) == message


# JSON has no binary type: a string that begins with NUL is one.
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | FLOATS | TEXT | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=15,
)


@ALL
@given(items=st.lists(VALUES))
def test_any_value_survives(serializer: int, items: list[object]) -> None:
    message = [50, *items]
    assert decode(serializer, encode(serializer, message)) == message


def test_binary_in_json_follows_the_specification() -> None:
    assert encode(SER_JSON, [1, b"\x10\x20"]) == b'[1,"\\u0000ECA="]'
    assert decode(SER_JSON, b'[1,"\\u0000ECA=",{"k":["\\u0000"]}]') == [1, b"\x10\x20", {"k": [b""]}]


def test_text_that_json_has_only_as_binary_is_refused() -> None:
    with pytest.raises(MessageError, match="begins with U"):
        encode(SER_JSON, [1, "com.x", {"a": ["\0text"]}])
    message = [1, "com.x", {"\0key": "a\0b", "binary": b"x"}]
    assert decode(SER_JSON, encode(SER_JSON, message)) == message


def test_an_escaped_backslash_is_not_binary_in_json() -> None:
    assert decode(SER_JSON, b'[1,"\\\\u0000ECA="]') == [1, "\\u0000ECA="]


@pytest.mark.parametrize(
    ("serializer", "data"),
    [
        (SER_JSON, b""),
        (SER_JSON, b"[1] [2]"),
        (SER_JSON, b"[1]x"),
        (SER_JSON, b"\xff"),
        (SER_JSON, b"\xef\xbb\xbf[1]"),
        (SER_JSON, b"[1,NaN]"),
        (SER_JSON, b'[1,-Infinity,"\\u0000ECA="]'),
        (SER_JSON, b'[1,"\\u0000not base64"]'),
        (SER_JSON, b"[" * 100_000),
        (SER_JSON, b"{}"),
        (SER_JSON, b"[]"),
        (SER_JSON, b'["1"]'),
        (SER_JSON, b"[true]"),
        (SER_JSON, b"[1.0]"),
        (SER_JSON, b"[1," + b"9" * 10_000 + b"]"),
        (SER_JSON, b"[1,1e999]"),
        (SER_JSON, b"[1,-1e999]"),
        (SER_JSON, b'[1,"\\ud800"]'),
        (SER_JSON, b'[1,{"\\uDFFF":1}]'),
        (SER_MSGPACK, b""),
        (SER_MSGPACK, b"\x91\x01\x91\x01"),
        (SER_MSGPACK, b"\x92\x01"),
        (SER_MSGPACK, b"\x91" * 100_000),
        (SER_MSGPACK, b"\x01"),
        (SER_MSGPACK, b"\x90"),
        (SER_MSGPACK, b"\x91\xc3"),
        (SER_MSGPACK, b"\x92\x01\xa1\xff"),
        (SER_CBOR, b""),
        (SER_CBOR, b"\x81\x01\x81\x01"),
        (SER_CBOR, b"\x82\x01"),
        (SER_CBOR, b"\x81" * 100_000),
        (SER_CBOR, b"\x01"),
        (SER_CBOR, b"\x80"),
        (SER_CBOR, b"\x81\xf5"),
        (SER_CBOR, b"\x82\x01\x61\xff"),
        (SER_CBOR, b"\x82\x01\xa1\x01\x02"),
        (SER_UBJSON, b""),
        (SER_UBJSON, b"[U\x01][U\x01]"),
        (SER_UBJSON, b"[U\x01"),
        (SER_UBJSON, b"[" * 100_000),
        (SER_UBJSON, b"U\x01"),
        (SER_UBJSON, b"[]"),
        (SER_UBJSON, b"[T]"),
        (SER_UBJSON, b"[U\x01SU\x01\xff]"),
        (SER_UBJSON, b"[U\x01HU\x01x]"),
        (SER_UBJSON, b"[U\x01[$Z#l\xff\xff\xff\x7f]"),
        (SER_FLATBUFFERS, b""),
        (SER_FLATBUFFERS, bytes(100)),
        (SER_FLATBUFFERS, b"\xff" * 100),
        (SER_FLATBUFFERS, b"[1]"),
    ],
)
def test_octets_that_are_not_one_message_are_refused(serializer: int, data: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        decode(serializer, data)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 200


@pytest.mark.parametrize("serializer", messages.SERIALIZERS.values(), ids=messages.SERIALIZERS)
@given(data=st.binary(max_size=200))
def test_random_octets_never_raise_anything_else(serializer: int, data: bytes) -> None:
    try:
        message = decode(serializer, data)
    except MessageError:
        return
    assert type(message[0]) is int


@ALL
def test_clients_messages_are_bounded_and_routers_are_not(serializer: int) -> None:
    data = encode(serializer, [3, {}, "a.b", ["x" * messages.UNTRUSTED_SIZE_MAX]])
    with pytest.raises(MessageError, match="at most 131072"):
        decode(serializer, data)
    assert decode(serializer, data, trusted=True)[2] == "a.b"


def test_a_router_may_use_integers_as_cbor_keys() -> None:
    data = cbor2.dumps([3, {}, "a.b", [{1: 2}]])
    assert decode(SER_CBOR, data, trusted=True)[3] == [{1: 2}]


def test_extension_types_survive() -> None:
    message = [50, 1, {}, [msgpack.ExtType(5, b"abc")]]
    assert decode(SER_MSGPACK, encode(SER_MSGPACK, message)) == message
    message = [50, 1, {}, [cbor2.CBORTag(4711, "x"), datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)]]
    data = encode(SER_CBOR, message)
    assert encode(SER_CBOR, decode(SER_CBOR, data)) == data


def test_a_surrogate_pair_in_json_is_one_character() -> None:
    assert decode(SER_JSON, b'[1,"\\ud83d\\ude00"]') == [1, "\U0001f600"]


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("value", [b"\x01", b"\x61a", b"\x41a", b"\x82\x01\x02", b"\xa1\x61a\x02"])
def test_cbor_tags_stay_tags(trusted: bool, value: bytes) -> None:
    # Whatever tags the library knows now or later: nothing is to be built from what a peer sent.
    for tag in range(70_000):
        if tag in (2, 3):  # bignums
            continue
        data = b"\x82\x01" + cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1] + value
        message = decode(SER_CBOR, data, trusted=trusted)
        assert type(message[1]) is cbor2.CBORTag, tag
        assert encode(SER_CBOR, message) == data


def test_shared_references_do_not_unfold() -> None:
    # Each item refers twice to the one before it: 2^30 values, if somebody followed them.
    items = [cbor2.CBORTag(28, [0]), *(cbor2.CBORTag(28, [cbor2.CBORTag(29, i)] * 2) for i in range(30))]
    data = encode(SER_CBOR, [1, items])
    assert encode(SER_CBOR, decode(SER_CBOR, data)) == data


@pytest.mark.parametrize(
    ("serializer", "message"),
    [
        (SER_JSON, [1, float("nan")]),
        (SER_JSON, [1, float("inf")]),
        (SER_JSON, [1, "\ud800"]),
        (SER_JSON, [1, {b"key": 1}]),
        (SER_JSON, [1, object()]),
        (SER_MSGPACK, [1, 2**64]),
        (SER_MSGPACK, [1, object()]),
        (SER_CBOR, [1, object()]),
        (SER_CBOR, [1, "\ud800"]),
    ],
)
def test_what_a_serializer_cannot_express_is_refused(serializer: int, message: list[object]) -> None:
    with pytest.raises(MessageError, match=messages.SERIALIZER_NAMES[serializer]):
        encode(serializer, message)


def test_text_that_looks_like_a_constant_is_fine() -> None:
    assert decode(SER_JSON, encode(SER_JSON, [1, "NaN", "-Infinity"])) == [1, "NaN", "-Infinity"]


def test_a_number_beyond_64_bits_survives_where_the_serializer_has_it() -> None:
    for serializer in (SER_JSON, SER_CBOR):
        assert decode(serializer, encode(serializer, [1, 2**70])) == [1, 2**70]


def test_single_precision_floats_keep_their_value() -> None:
    data = b"\x82\x01\xfa" + struct.pack(">f", 1.5)
    assert decode(SER_CBOR, data) == [1, 1.5]


# --- checks ------------------------------------------------------------------------------------------------------


def test_a_good_hello_is_returned_as_it_is() -> None:
    hello = messages.check_hello(HELLO)
    assert hello.realm == "realm1"
    assert hello.details is HELLO[2]


def test_hello_may_leave_the_realm_open() -> None:
    assert messages.check_hello([1, None, {"roles": {"caller": {}}}]).realm is None


@pytest.mark.parametrize(
    "details",
    [
        {"authmethods": ["ticket", "x"], "authid": "joe", "authextra": {"a": 1}, "agent": "me"},
        {"authmethods": None, "authid": None, "authextra": None},
        {"authmethods": []},
        {"roles": {"caller": {"features": {}}, "callee": {}, "publisher": {}, "subscriber": {}}},
    ],
)
def test_hello_details_that_are_fine(details: dict[str, object]) -> None:
    messages.check_hello(with_details(**details))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([48, 1, {}], "expected HELLO, got CALL"),
        ([99], "expected HELLO, got type 99"),
        ([1, "realm1"], "HELLO is .HELLO, Realm.uri, Details.dict., got 2 items"),
        ([1, "realm1", {}, 1], "got 4 items"),
        ([1, 5, {}], "HELLO.Realm must be a URI, got 5"),
        ([1, "", {}], "HELLO.Realm must be a URI, got ''"),
        ([1, "a b", {}], "HELLO.Realm must be a URI, got 'a b'"),
        ([1, "a..b", {}], "HELLO.Realm must be a URI"),
        ([1, "a#b", {}], "HELLO.Realm must be a URI"),
        ([1, "realm1\n", {}], "HELLO.Realm must be a URI"),
        ([1, "r" * 5000, {}], r"HELLO.Realm must be a URI, got 'r+\.\.\."),
        ([1, "realm1", []], "HELLO.Details must be a dict, got a list of 0 items"),
        (with_details(roles=...), "HELLO.Details.roles must be a dict, got None"),
        (with_details(roles={}), "at least one role"),
        (with_details(roles=["caller"]), "HELLO.Details.roles must be a dict"),
        (with_details(roles={"dealer": {}}), "unknown role 'dealer', expected callee, caller, publisher, subscriber"),
        (with_details(roles={"caller": True}), r"HELLO.Details.roles\['caller'\] must be a dict, got True"),
        (with_details(roles={"caller": {"features": 1}}), r"roles\['caller'\].features must be a dict, got 1"),
        (with_details(authmethods="ticket"), "authmethods must be a list of strings, got 'ticket'"),
        (with_details(authmethods=["ticket", 1]), "authmethods must be a list of strings"),
        (with_details(authid=7), "HELLO.Details.authid must be a string, got 7"),
        (with_details(authrole=[]), "HELLO.Details.authrole must be a string"),
        (with_details(agent={}), "HELLO.Details.agent must be a string"),
        (with_details(authextra=["a"]), "HELLO.Details.authextra must be a dict"),
    ],
)
def test_a_bad_hello_is_refused_with_the_place_named(message: list[object], text: str) -> None:
    with pytest.raises(MessageError, match=text) as caught:
        messages.check_hello(message)
    assert len(str(caught.value)) < 250


def test_welcome() -> None:
    details = {"roles": {"broker": {}, "x_new_role": {"features": {}}}, "x": 1}
    assert messages.check_welcome([2, 2**53, details]) == (2**53, details)


@pytest.mark.parametrize(
    "message",
    [
        [2, 0, {"roles": {"broker": {}}}],
        [2, 2**53 + 1, {"roles": {"broker": {}}}],
        [2, True, {"roles": {"broker": {}}}],
        [2, 1.0, {"roles": {"broker": {}}}],
        [2, "1", {"roles": {"broker": {}}}],
        [2, 1, {}],
        [2, 1, {"roles": {}}],
        [2, 1],
        [3, 1, {"roles": {"broker": {}}}],
    ],
)
def test_a_bad_welcome_is_refused(message: list[object]) -> None:
    with pytest.raises(MessageError, match="WELCOME"):
        messages.check_welcome(message)


def test_abort_may_carry_arguments() -> None:
    assert messages.check_abort([3, {"message": "m"}, "a.b"]) == ("a.b", {"message": "m"}, None, None)
    assert messages.check_abort([3, {}, "a.b", [1], {"k": 2}]) == ("a.b", {}, [1], {"k": 2})


@pytest.mark.parametrize(
    "message",
    [[3, {}], [3, {}, 5], [3, "a.b", {}], [3, {}, "a.b", {}], [3, {}, "a.b", [], []], [3, {}, "a.b", [], {}, 1]],
)
def test_a_bad_abort_is_refused(message: list[object]) -> None:
    with pytest.raises(MessageError, match="ABORT"):
        messages.check_abort(message)


def test_goodbye() -> None:
    assert messages.check_goodbye([6, {"x": 1}, "wamp.close.normal"]) == ("wamp.close.normal", {"x": 1})
    for bad in ([6], [6, {}, ""], [6, [], "a.b"], [6, {}, "a.b", 1]):
        with pytest.raises(MessageError, match="GOODBYE"):
            messages.check_goodbye(bad)


def test_messages_made_here_pass_their_own_check() -> None:
    assert messages.check_abort(messages.abort("a.b", "why")).details == {"message": "why"}
    assert messages.check_goodbye(messages.goodbye("a.b")).details == {}
    assert type(messages.abort("a.b")[0]) is int


def test_names() -> None:
    assert messages.type_name(48) == "CALL"
    assert messages.type_name(99) == "type 99"
    assert messages.type_name(10**5000) == "type a value of type int"
    assert messages.SUBPROTOCOLS["wamp.2.msgpack"] == messages.SERIALIZERS["msgpack"] == SER_MSGPACK
    assert MessageType.EVENT_RECEIVED == 337


@given(
    st.recursive(
        st.text() | st.binary() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.sets(st.text())
    )
)
def test_shorten_gives_one_short_line(value: object) -> None:
    text = messages.shorten(value)
    assert len(text) <= 64
    assert text.isprintable()


def test_nothing_is_nested_too_deeply_to_be_refused() -> None:
    data = b"\x91" * 1020 + b"\x01"  # MessagePack lets that through
    for message in (data, b"\x93\x01" + data + b"\x80", b"\x93\x01\xa1r" + data):
        with pytest.raises(MessageError, match="a list of 1 items"):
            messages.check_hello(messages.decode(SER_MSGPACK, message))
