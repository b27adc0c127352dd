"""What HTTP clients say in JSON, as what WAMP can carry, and the other way round.

Binary data is, in both directions, what it is in WAMP's own JSON: a string of NUL and the octets in base64 ("Binary
conversion of JSON strings" of the specification). Many use one session at a router, so nothing goes out that a
serializer cannot express: it would end the session for all of them.
"""

import base64
import binascii
import json
import math
import re
from typing import Any, Final, NoReturn

__all__ = ["BadValue", "read_json", "read_text", "write_json"]

DEPTH_MAX: Final = 64
"""How deep lists and objects may be nested. Peers have limits as well, and end the session at them."""

TOKENS_MAX: Final = 250_000
"""Strings, brackets, commas and colons in a body. Nothing else runs while one is read: that takes its time with each
value, not with each octet."""

_TOKEN: Final = re.compile(rb'[\[{,:]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # one that does not end, as well
_INT_LOW: Final = -(1 << 63)
_INT_HIGH: Final = (1 << 64) - 1
_DEPTH_OUT_MAX: Final = 256


class BadValue(ValueError):
    """Why a value cannot be taken. The text is for whoever sent it, and does not quote it."""


def read_json(body: bytes) -> Any:
    """A request's body.

    :raises BadValue: it is not JSON, or WAMP cannot carry it.
    """
    _require_few_tokens(body)
    try:
        value = json.loads(read_text(body), parse_constant=_refuse_constant)
    except RecursionError:
        raise BadValue(f"nested more than {DEPTH_MAX} deep") from None
    except json.JSONDecodeError as error:
        raise BadValue(f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except BadValue:
        raise
    except ValueError:
        raise BadValue("not valid JSON: a number has too many digits") from None
    return _to_wamp(value, DEPTH_MAX)


def _require_few_tokens(body: bytes) -> None:
    # Those in strings do not count, but mostly there are not even that many.
    if sum(body.count(token) for token in (b'"', b"[", b"{", b",", b":")) <= TOKENS_MAX:
        return
    for number, _ in enumerate(_TOKEN.finditer(body), 1):
        if number > TOKENS_MAX:
            raise BadValue("too many values")


def read_text(body: bytes) -> str:
    """A request's body as text.

    :raises BadValue: it is not UTF-8.
    """
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadValue(f"not valid UTF-8 at octet {error.start}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise BadValue(f"not valid JSON: {name}")


def _to_wamp(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if _INT_LOW <= value <= _INT_HIGH:
            return value
        raise BadValue("an integer has more than 64 bits")
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise BadValue("a number is too large")
    if depth == 0:
        raise BadValue(f"nested more than {DEPTH_MAX} deep")
    if isinstance(value, dict):
        return {_key(key): _to_wamp(item, depth - 1) for key, item in value.items()}
    return [_to_wamp(item, depth - 1) for item in value]


def _string(text: str) -> str | bytes:
    if not text.startswith("\0"):
        _require_unicode(text)
        return text
    try:
        return base64.b64decode(text[1:], validate=True)
    except (binascii.Error, ValueError):
        raise BadValue("a string begins with NUL, which stands for binary data, and is not base64 behind it") from None


def _key(text: str) -> str:
    _require_unicode(text)
    if text.startswith("\0"):
        raise BadValue("a key begins with NUL")
    return text


def _require_unicode(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadValue("a string holds half of a surrogate pair") from None


# --- to HTTP ---


def write_json(value: Any) -> bytes:
    """What came over WAMP, in JSON.

    What JSON has no form for is written as what comes nearest: NaN and infinity as null, times in ISO 8601, keys as
    text, and what a serializer's extensions stand for as text.

    :raises BadValue: it is nested too deep, or an integer has thousands of digits.
    """
    try:
        # Mostly there is nothing in it that would have to be looked for.
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_extension)
        return text.encode("utf-8")
    except (ValueError, TypeError, RecursionError):
        pass
    try:
        return json.dumps(_to_json(value, _DEPTH_OUT_MAX), separators=(",", ":")).encode("ascii")
    except BadValue:
        raise
    except ValueError:  # Python writes no such integer: that would take too long
        raise BadValue("a number has too many digits") from None


def _to_json(value: Any, depth: int) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth == 0:
        raise BadValue(f"nested more than {_DEPTH_OUT_MAX} deep")
    if isinstance(value, dict):
        return {_json_key(key): _to_json(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_to_json(item, depth - 1) for item in value]
    return _extension(value)


def _json_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    return str(_extension(key)) if not isinstance(key, bool | int | float | None) else json.dumps(key)


def _extension(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return "\0" + base64.b64encode(value).decode("ascii")
    if isinstance(value, set | frozenset):
        return list(value)
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat is not None else str(value)
