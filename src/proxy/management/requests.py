"""What clients of the management realm may ask for: strict checks of their messages.

Each message is a list as :func:`proxy.messages.decode` returns it. Sections are those of the WAMP specification.
"""

import re
from typing import Any, Final, NamedTuple

from proxy.messages import ID_MAX, MessageError, shorten

__all__ = [
    "Call",
    "Subscribe",
    "check_call",
    "check_cancel",
    "check_publish",
    "check_register",
    "check_subscribe",
    "check_undo",
]

URI_LENGTH_MAX: Final = 1024

_COMPONENT: Final = r"[^\s.#]+"
# By match policy: a prefix may end anywhere in a component, a wildcard has empty components ("Pattern-based
# Subscriptions").
_TOPICS: Final = {
    "exact": re.compile(rf"{_COMPONENT}(?:\.{_COMPONENT})*"),
    "prefix": re.compile(rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*\.?)?"),
    "wildcard": re.compile(rf"(?:{_COMPONENT})?(?:\.(?:{_COMPONENT})?)*"),
}
_CANCEL_MODES: Final = ("skip", "kill", "killnowait")


class InvalidUri(Exception):
    """A topic or procedure that is no URI. The request fails with wamp.error.invalid_uri; the session goes on."""


class Call(NamedTuple):
    """A checked CALL."""

    request: int
    procedure: str
    args: list[Any]
    kwargs: dict[str, Any]
    takes_progress: bool


class Subscribe(NamedTuple):
    """A checked SUBSCRIBE."""

    request: int
    topic: str
    match: str


def check_call(message: list[Any]) -> Call:
    """Check ``[CALL, Request|id, Options|dict, Procedure|uri, Arguments|list, ArgumentsKw|dict]`` ("CALL").

    :raises MessageError: with the first thing that is wrong.
    """
    _length(message, "CALL", 4, 6)
    request = _id(message[1], "CALL.Request")
    options = _dict(message[2], "CALL.Options")
    takes_progress = _flag(options, "receive_progress", "CALL.Options")
    args = message[4] if len(message) > 4 else []
    if type(args) is not list:
        raise MessageError(f"CALL.Arguments must be a list, got {shorten(args)}")
    kwargs = _dict(message[5], "CALL.ArgumentsKw") if len(message) > 5 else {}
    if not all(type(name) is str for name in kwargs):
        raise MessageError("CALL.ArgumentsKw must have strings as keys")
    return Call(request, _text(message[3], "CALL.Procedure"), args, kwargs, takes_progress)


def check_cancel(message: list[Any]) -> int:
    """Check ``[CANCEL, Request|id, Options|dict]`` ("Call Canceling").

    :returns: the request that is to be canceled.
    :raises MessageError: with the first thing that is wrong.
    """
    _length(message, "CANCEL", 3, 3)
    options = _dict(message[2], "CANCEL.Options")
    mode = options.get("mode", "skip")
    if mode not in _CANCEL_MODES:
        raise MessageError(f"CANCEL.Options.mode must be one of {', '.join(_CANCEL_MODES)}, got {shorten(mode)}")
    return _id(message[1], "CANCEL.Request")


def check_subscribe(message: list[Any]) -> Subscribe:
    """Check ``[SUBSCRIBE, Request|id, Options|dict, Topic|uri]`` ("SUBSCRIBE").

    :raises MessageError: with the first thing that is wrong.
    """
    _length(message, "SUBSCRIBE", 4, 4)
    request = _id(message[1], "SUBSCRIBE.Request")
    options = _dict(message[2], "SUBSCRIBE.Options")
    match = options.get("match", "exact")
    if type(match) is not str or match not in _TOPICS:
        raise MessageError(f"SUBSCRIBE.Options.match must be one of {', '.join(_TOPICS)}, got {shorten(match)}")
    return Subscribe(request, _text(message[3], "SUBSCRIBE.Topic"), match)


def is_topic(topic: str, match: str) -> bool:
    """Whether a topic or pattern is a URI (in the specification's loose sense) under this match policy."""
    return len(topic) <= URI_LENGTH_MAX and _TOPICS[match].fullmatch(topic) is not None


def check_undo(message: list[Any], name: str) -> tuple[int, int]:
    """Check ``[UNSUBSCRIBE, Request|id, Subscription|id]`` or ``[UNREGISTER, Request|id, Registration|id]``.

    :param name: of the message.
    :returns: the request, and what is to be undone.
    :raises MessageError: with the first thing that is wrong.
    """
    _length(message, name, 3, 4)
    return _id(message[1], f"{name}.Request"), _id(message[2], f"{name}.{_UNDONE[name]}")


_UNDONE: Final = {"UNSUBSCRIBE": "Subscription", "UNREGISTER": "Registration"}


def check_publish(message: list[Any]) -> tuple[int, bool]:
    """Check ``[PUBLISH, Request|id, Options|dict, Topic|uri, ..]`` as far as it takes to refuse it.

    :returns: the request, and whether it wants an answer.
    :raises MessageError: with the first thing that is wrong.
    """
    _length(message, "PUBLISH", 4, 6)
    options = _dict(message[2], "PUBLISH.Options")
    return _id(message[1], "PUBLISH.Request"), _flag(options, "acknowledge", "PUBLISH.Options")


def check_register(message: list[Any]) -> int:
    """Check ``[REGISTER, Request|id, Options|dict, Procedure|uri]`` as far as it takes to refuse it.

    :returns: the request.
    :raises MessageError: with the first thing that is wrong.
    """
    _length(message, "REGISTER", 4, 4)
    _dict(message[2], "REGISTER.Options")
    return _id(message[1], "REGISTER.Request")


def _length(message: list[Any], name: str, least: int, most: int) -> None:
    if not least <= len(message) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise MessageError(f"{name} must have {wanted} items, got {len(message)}")


def _id(value: object, name: str) -> int:
    if type(value) is not int or not 1 <= value <= ID_MAX:
        raise MessageError(f"{name} must be an integer from 1 to 2^53, got {shorten(value)}")
    return value


def _dict(value: object, name: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise MessageError(f"{name} must be a dict, got {shorten(value)}")
    return value


def _text(value: object, name: str) -> str:
    if type(value) is not str:
        raise MessageError(f"{name} must be a URI, got {shorten(value)}")
    return value


def _flag(options: dict[str, Any], key: str, name: str) -> bool:
    value = options.get(key, False)
    if type(value) is not bool:
        raise MessageError(f"{name}.{key} must be true or false, got {shorten(value)}")
    return value
