"""WAMP messages as lists: decoding, encoding, and what the control plane checks of them.

The data plane reads types and lengths only; whatever the control plane must understand (HELLO, WELCOME, ABORT, GOODBYE)
comes through here. Messages stay plain lists, so that attributes nobody here knows survive a decode and encode.
Sections named below are those of the WAMP specification, basic profile.
"""

import base64
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn

import cbor2
import msgpack

from proxy import flatbuffers, ubjson

__all__ = [
    "ID_MAX",
    "SERIALIZERS",
    "SERIALIZER_NAMES",
    "SER_CBOR",
    "SER_FLATBUFFERS",
    "SER_JSON",
    "SER_MSGPACK",
    "SER_UBJSON",
    "SUBPROTOCOLS",
    "SUBPROTOCOL_NAMES",
    "UNTRUSTED_SIZE_MAX",
    "Abort",
    "Authenticate",
    "Challenge",
    "Goodbye",
    "Hello",
    "MessageError",
    "MessageType",
    "Welcome",
    "abort",
    "check_abort",
    "check_authenticate",
    "check_challenge",
    "check_goodbye",
    "check_hello",
    "check_welcome",
    "decode",
    "decode_value",
    "encode",
    "encode_value",
    "goodbye",
    "is_uri",
    "shorten",
    "type_name",
]

SER_JSON: Final = 1
SER_MSGPACK: Final = 2
SER_CBOR: Final = 3
SER_UBJSON: Final = 4
SER_FLATBUFFERS: Final = 5

SERIALIZERS: Final[Mapping[str, int]] = MappingProxyType(
    {"json": SER_JSON, "msgpack": SER_MSGPACK, "cbor": SER_CBOR, "ubjson": SER_UBJSON, "flatbuffers": SER_FLATBUFFERS}
)
"""Name in configuration files -> number, which is also the one of the RawSocket handshake."""

SERIALIZER_NAMES: Final[Mapping[int, str]] = MappingProxyType({number: name for name, number in SERIALIZERS.items()})

SUBPROTOCOLS: Final[Mapping[str, int]] = MappingProxyType(
    {f"wamp.2.{name}": number for name, number in SERIALIZERS.items()}
)
"""WebSocket subprotocol -> serializer ("WebSocket Transport")."""

SUBPROTOCOL_NAMES: Final[Mapping[int, str]] = MappingProxyType({number: name for name, number in SUBPROTOCOLS.items()})

ID_MAX: Final = 2**53
"""Largest WAMP ID ("IDs")."""

UNTRUSTED_SIZE_MAX: Final = 131_072
"""Octets of a client's message that the control plane decodes at most. A HELLO takes hundreds, or a few thousand with
certificates in it; megabytes of hostile numbers, nesting and tags could keep a decoder busy for a long time."""

_URI_LENGTH_MAX: Final = 1024
_SHOWN_MAX: Final = 64
_CLIENT_ROLES: Final = frozenset({"publisher", "subscriber", "caller", "callee"})
_LOOSE_URI: Final = re.compile(r"(?:[^\s.#]+\.)*[^\s.#]+")


class MessageType(IntEnum):
    """Message codes ("Message Codes"); 337 is autobahn's and Crossbar.io's extension."""

    HELLO = 1
    WELCOME = 2
    ABORT = 3
    CHALLENGE = 4
    AUTHENTICATE = 5
    GOODBYE = 6
    ERROR = 8
    PUBLISH = 16
    PUBLISHED = 17
    SUBSCRIBE = 32
    SUBSCRIBED = 33
    UNSUBSCRIBE = 34
    UNSUBSCRIBED = 35
    EVENT = 36
    CALL = 48
    CANCEL = 49
    RESULT = 50
    REGISTER = 64
    REGISTERED = 65
    UNREGISTER = 66
    UNREGISTERED = 67
    INVOCATION = 68
    INTERRUPT = 69
    YIELD = 70
    EVENT_RECEIVED = 337


class MessageError(Exception):
    """Octets that are not a WAMP message, or a message that is not as the specification wants it.

    The text is one line, names the offending attribute and can be sent to the peer.
    """


class Hello(NamedTuple):
    """A checked HELLO. ``realm`` is None where the client leaves the choice to the authentication."""

    realm: str | None
    details: dict[str, Any]


class Welcome(NamedTuple):
    """A checked WELCOME."""

    session_id: int
    details: dict[str, Any]


class Abort(NamedTuple):
    """A checked ABORT."""

    reason: str
    details: dict[str, Any]
    args: list[Any] | None
    kwargs: dict[str, Any] | None


class Challenge(NamedTuple):
    """A checked CHALLENGE."""

    authmethod: str
    extra: dict[str, Any]


class Authenticate(NamedTuple):
    """A checked AUTHENTICATE."""

    signature: str
    extra: dict[str, Any]


class Goodbye(NamedTuple):
    """A checked GOODBYE."""

    reason: str
    details: dict[str, Any]


# --- octets <-> lists --------------------------------------------------------------------------------------------

def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text} is out of range")
    return value


def _binary_to_json(value: object) -> str:
    if isinstance(value, bytes):
        return "\0" + base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} is not JSON")


def _binary_from_json(value: Any) -> Any:
    if isinstance(value, str):
        return base64.b64decode(value[1:], validate=True) if value.startswith("\0") else value
    if isinstance(value, list):
        return [_binary_from_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _binary_from_json(item) for key, item in value.items()}
    return value


_json_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
_json_encoder = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_binary_to_json
)


def _decode_json(data: bytes, trusted: bool) -> Any:
    text = str(data, "utf-8")
    value = _json_decoder.decode(text)
    if "\\ud" in text or "\\uD" in text:
        # Half of a surrogate pair is text that nobody can encode again; this raises for it.
        _json_encoder.encode(value).encode("utf-8")
    # Binary values begin with an escaped NUL ("Binary Conversion of JSON Strings"); hardly any HELLO has one.
    return _binary_from_json(value) if "\\u0000" in text else value


def _decode_msgpack(data: bytes, trusted: bool) -> Any:
    return msgpack.unpackb(data, raw=False)


def _plain_tag(tag: int, value: object, immutable: bool) -> cbor2.CBORTag:
    return cbor2.CBORTag(tag, value)


# Tags that cbor2 makes objects of: they stay tags, like any other. A few octets could otherwise unfold into gigabytes
# when they are encoded again (shared references), or compile regular expressions for minutes. Bignums are harmless.
_CBOR_TAGS: Final = (0, 1, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_plain_tags: Final = {tag: partial(_plain_tag, tag) for tag in _CBOR_TAGS}


def _decode_cbor(data: bytes, trusted: bool) -> Any:
    # cbor2.loads() ignores what follows the first value, so the position is asked for. Strings as keys only: colliding
    # integers in a client's map cost quadratic time.
    source = io.BytesIO(data)
    value = cbor2.CBORDecoder(source, semantic_decoders=_plain_tags, strict_hashable_types=not trusted).decode()
    if source.tell() != len(data):
        raise ValueError(f"{len(data) - source.tell()} octets follow the message")
    return value


def _decode_ubjson(data: bytes, trusted: bool) -> Any:
    return ubjson.loads(data)


def _decode_flatbuffers(data: bytes, trusted: bool) -> Any:
    return flatbuffers.loads(data)


def _refuse_nul(value: Any) -> None:
    """Text that begins with NUL would be read as binary data. Keys never are."""
    if isinstance(value, str):
        if value.startswith("\0"):
            raise ValueError("text that begins with U+0000, which in JSON is binary data")
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_nul(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_nul(item)


def _encode_json(message: list[Any]) -> bytes:
    text = _json_encoder.encode(message)
    if '"\\u0000' in text:
        _refuse_nul(message)
    return text.encode("utf-8")


def _encode_msgpack(message: list[Any]) -> bytes:
    data: bytes = msgpack.packb(message, use_bin_type=True)
    return data


_DECODERS: Final[Mapping[int, Callable[[bytes, bool], Any]]] = {
    SER_JSON: _decode_json,
    SER_MSGPACK: _decode_msgpack,
    SER_CBOR: _decode_cbor,
    SER_UBJSON: _decode_ubjson,
    SER_FLATBUFFERS: _decode_flatbuffers,
}
_ENCODERS: Final[Mapping[int, Callable[[list[Any]], bytes]]] = {
    SER_JSON: _encode_json,
    SER_MSGPACK: _encode_msgpack,
    SER_CBOR: cbor2.dumps,
    SER_UBJSON: ubjson.dumps,
    SER_FLATBUFFERS: flatbuffers.dumps,
}


def decode(serializer: int, data: bytes, *, trusted: bool = False) -> list[Any]:
    """Decode one WAMP message.

    :param serializer: one of :data:`SERIALIZERS`.
    :param data: the octets of exactly one message, without framing.
    :param trusted: the message comes from a router: its size is not bounded here and its CBOR maps may have any keys.
    :returns: the message; its first item is an int. In FlatBuffers it comes without Arguments.
    :raises MessageError: not exactly one message of this serializer, or larger than :data:`UNTRUSTED_SIZE_MAX`.
    """
    if len(data) > UNTRUSTED_SIZE_MAX and not trusted:
        raise MessageError(f"message of {len(data)} octets, at most {UNTRUSTED_SIZE_MAX} are expected here")
    try:
        message = _DECODERS[serializer](data, trusted)
    except Exception as error:  # decoders raise almost anything: ValueError, RecursionError, OverflowError, their own
        raise MessageError(f"not a {SERIALIZER_NAMES[serializer]} message: {shorten(error)}") from error
    if type(message) is not list or not message or type(message[0]) is not int:
        raise MessageError(f"a WAMP message is a list that begins with its type, got {shorten(message)}")
    return message


def decode_value(serializer: int, data: bytes) -> Any:
    """Decode what is no WAMP message, but serialized as if it were a part of one.

    :param serializer: one of :data:`SERIALIZERS`, but not FlatBuffers.
    :raises MessageError: not exactly one value of this serializer.
    """
    try:
        return _DECODERS[serializer](data, False)
    except Exception as error:  # as in decode()
        raise MessageError(f"not {SERIALIZER_NAMES[serializer]}: {shorten(error)}") from error


def encode_value(serializer: int, value: Any) -> bytes:
    """The opposite of :func:`decode_value`.

    :raises MessageError: the serializer cannot express it.
    """
    return encode(serializer, value)


def encode(serializer: int, message: list[Any]) -> bytes:
    """Encode one WAMP message.

    :param serializer: one of :data:`SERIALIZERS`.
    :param message: the message as :func:`decode` returns it.
    :returns: its octets, without framing.
    :raises MessageError: it holds a value that the serializer cannot express.
    """
    try:
        return _ENCODERS[serializer](message)
    except Exception as error:  # as in decode()
        text = f"the message cannot be expressed in {SERIALIZER_NAMES[serializer]}: {shorten(error)}"
        raise MessageError(text) from error


# --- what messages must look like --------------------------------------------------------------------------------


def shorten(value: object) -> str:
    """One line that shows a value (an exception: its text) in at most 64 characters, for errors and logs."""
    if isinstance(value, Exception):
        text = (str(value) or type(value).__name__)[: _SHOWN_MAX + 1]
        text = text if text.isprintable() else repr(text)[1:-1]
    elif isinstance(value, list):
        # not repr() of the whole: it may be large or nested very deeply; nor the first items of first items
        first = "a list" if value and isinstance(value[0], list) else shorten(value[0]) if value else ""
        text = f"a list of {len(value)} items" + (f" beginning with {first}" if first else "")
    elif isinstance(value, dict):
        text = f"a dict of {len(value)} items"
    elif isinstance(value, str | bytes):
        text = repr(value[: _SHOWN_MAX + 1])
    elif value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() <= 64):
        text = repr(value)
    else:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def type_name(code: int) -> str:
    """Name of a message type for people: ``CALL``, or ``type 99``."""
    try:
        return MessageType(code).name
    except ValueError:
        return f"type {shorten(code)}"


def is_uri(value: object) -> bool:
    """Loose URI check ("URIs": no white space, no "#", no empty component)."""
    return type(value) is str and len(value) <= _URI_LENGTH_MAX and _LOOSE_URI.fullmatch(value) is not None


def _expect(message: list[Any], code: MessageType, shape: str, least: int, most: int) -> None:
    if message[0] != code:
        raise MessageError(f"expected {code.name}, got {type_name(message[0])}")
    if not least <= len(message) <= most:
        raise MessageError(f"{code.name} is [{shape}], got {len(message)} items")


def _dict(value: object, name: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise MessageError(f"{name} must be a dict, got {shorten(value)}")
    return value


def _uri(value: object, name: str) -> str:
    if not is_uri(value):
        raise MessageError(f"{name} must be a URI, got {shorten(value)}")
    assert isinstance(value, str)
    return value


def _roles(details: dict[str, Any], name: str, known: frozenset[str] | None) -> None:
    """``details.roles`` ("Client: Role and Feature Announcement"): at least one, each with a dict of features."""
    roles = _dict(details.get("roles"), f"{name}.roles")
    if not roles:
        raise MessageError(f"{name}.roles must name at least one role, got none")
    for role, attributes in roles.items():
        if known is not None and role not in known:
            raise MessageError(f"{name}.roles: unknown role {shorten(role)}, expected {', '.join(sorted(known))}")
        if type(attributes) is not dict:
            _dict(attributes, f"{name}.roles[{shorten(role)}]")
        if type(attributes.get("features", {})) is not dict:
            _dict(attributes["features"], f"{name}.roles[{shorten(role)}].features")


def check_hello(message: list[Any]) -> Hello:
    """Check ``[HELLO, Realm|uri, Details|dict]`` ("HELLO").

    A realm of None is let through: autobahn sends it when the authentication shall choose the realm.

    :param message: as decoded.
    :returns: realm and details, the very objects of the message.
    :raises MessageError: with the first thing that is wrong.
    """
    _expect(message, MessageType.HELLO, "HELLO, Realm|uri, Details|dict", 3, 3)
    realm = message[1]
    if realm is not None:
        _uri(realm, "HELLO.Realm")
    details = _dict(message[2], "HELLO.Details")
    _roles(details, "HELLO.Details", _CLIENT_ROLES)
    methods = details.get("authmethods")
    if methods is not None and (type(methods) is not list or not all(type(method) is str for method in methods)):
        raise MessageError(f"HELLO.Details.authmethods must be a list of strings, got {shorten(methods)}")
    for key in ("authid", "authrole", "agent"):
        value = details.get(key)
        if value is not None and type(value) is not str:
            raise MessageError(f"HELLO.Details.{key} must be a string, got {shorten(value)}")
    if details.get("authextra") is not None:
        _dict(details["authextra"], "HELLO.Details.authextra")
    return Hello(realm, details)


def check_welcome(message: list[Any]) -> Welcome:
    """Check ``[WELCOME, Session|id, Details|dict]`` ("WELCOME"). Roles need not be known ones: routers may have more.

    :param message: as decoded.
    :raises MessageError: with the first thing that is wrong.
    """
    _expect(message, MessageType.WELCOME, "WELCOME, Session|id, Details|dict", 3, 3)
    session_id = message[1]
    if type(session_id) is not int or not 1 <= session_id <= ID_MAX:
        raise MessageError(f"WELCOME.Session must be an integer from 1 to 2^53, got {shorten(session_id)}")
    details = _dict(message[2], "WELCOME.Details")
    _roles(details, "WELCOME.Details", None)
    return Welcome(session_id, details)


def check_abort(message: list[Any]) -> Abort:
    """Check ``[ABORT, Details|dict, Reason|uri, Arguments|list, ArgumentsKw|dict]`` ("ABORT"), the last two optional.

    :param message: as decoded.
    :raises MessageError: with the first thing that is wrong.
    """
    _expect(message, MessageType.ABORT, "ABORT, Details|dict, Reason|uri (, Arguments|list (, ArgumentsKw|dict))", 3, 5)
    details = _dict(message[1], "ABORT.Details")
    reason = _uri(message[2], "ABORT.Reason")
    args = message[3] if len(message) > 3 else None
    if args is not None and type(args) is not list:
        raise MessageError(f"ABORT.Arguments must be a list, got {shorten(args)}")
    kwargs = message[4] if len(message) > 4 else None
    if kwargs is not None:
        _dict(kwargs, "ABORT.ArgumentsKw")
    return Abort(reason, details, args, kwargs)


def check_challenge(message: list[Any]) -> Challenge:
    """Check ``[CHALLENGE, AuthMethod|string, Extra|dict]`` ("CHALLENGE").

    :param message: as decoded.
    :raises MessageError: with the first thing that is wrong.
    """
    _expect(message, MessageType.CHALLENGE, "CHALLENGE, AuthMethod|string, Extra|dict", 3, 3)
    if type(message[1]) is not str:
        raise MessageError(f"CHALLENGE.AuthMethod must be a string, got {shorten(message[1])}")
    return Challenge(message[1], _dict(message[2], "CHALLENGE.Extra"))


def check_authenticate(message: list[Any]) -> Authenticate:
    """Check ``[AUTHENTICATE, Signature|string, Extra|dict]`` ("AUTHENTICATE"). What is wrong is not shown: it may be a
    secret.

    :param message: as decoded.
    :raises MessageError: with the first thing that is wrong.
    """
    _expect(message, MessageType.AUTHENTICATE, "AUTHENTICATE, Signature|string, Extra|dict", 3, 3)
    if type(message[1]) is not str:
        raise MessageError("AUTHENTICATE.Signature must be a string")
    if type(message[2]) is not dict:
        raise MessageError("AUTHENTICATE.Extra must be a dict")
    return Authenticate(message[1], message[2])


def check_goodbye(message: list[Any]) -> Goodbye:
    """Check ``[GOODBYE, Details|dict, Reason|uri]`` ("GOODBYE").

    :param message: as decoded.
    :raises MessageError: with the first thing that is wrong.
    """
    _expect(message, MessageType.GOODBYE, "GOODBYE, Details|dict, Reason|uri", 3, 3)
    details = _dict(message[1], "GOODBYE.Details")
    return Goodbye(_uri(message[2], "GOODBYE.Reason"), details)


# --- messages made here ------------------------------------------------------------------------------------------


def abort(reason: str, message: str | None = None) -> list[Any]:
    """An ABORT.

    :param reason: URI.
    :param message: text for people, sent as ``Details.message``.
    """
    return [int(MessageType.ABORT), {} if message is None else {"message": message}, reason]


def goodbye(reason: str, message: str | None = None) -> list[Any]:
    """A GOODBYE.

    :param reason: URI.
    :param message: text for people, sent as ``Details.message``.
    """
    return [int(MessageType.GOODBYE), {} if message is None else {"message": message}, reason]
