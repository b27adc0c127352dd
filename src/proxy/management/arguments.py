"""Checks of arguments that several procedures take."""

from typing import Final

from proxy.config.findings import render_value
from proxy.errors import InvalidArgument
from proxy.messages import is_uri

__all__ = ["MESSAGE_MAX", "check_message", "check_reason"]

MESSAGE_MAX: Final = 1000
"""Characters of a text for people that clients are sent."""


def check_reason(reason: str) -> str:
    """A reason for GOODBYE.

    :raises InvalidArgument: it is no URI ("URIs" in the specification).
    """
    if not is_uri(reason) or not _is_text(reason):
        raise InvalidArgument(f"reason: {render_value(reason, ('reason',))}: expected a URI")
    return reason


def check_message(message: str | None) -> str | None:
    """A text for people in GOODBYE.

    :raises InvalidArgument: it is too long, or no Unicode text.
    """
    if message is None:
        return None
    if len(message) > MESSAGE_MAX:
        raise InvalidArgument(f"message: {len(message)} characters: expected at most {MESSAGE_MAX}")
    if not _is_text(message):
        raise InvalidArgument("message: expected Unicode text, got a lone surrogate")
    return message


def _is_text(value: str) -> bool:
    """Whether it can be encoded at all: JSON can smuggle halves of surrogate pairs in."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
