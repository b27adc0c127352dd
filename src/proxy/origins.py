"""Which web pages may connect: the Origin header against a list of patterns (RFC 6454, RFC 6455 section 10.2)."""

import re
from functools import lru_cache
from typing import Final

__all__ = ["is_allowed"]

# Lengths are bounded, as patterns with several wildcards take polynomial time. A host name has at most 253 characters.
_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.\-]{0,31})://(\[[0-9a-f:.]{2,45}\]|[^\s/?#@:\[\]]{1,253})(?::([0-9]{1,5}))?/?"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_PORT_MAX: Final = 65535


def is_allowed(origin: str, patterns: tuple[str, ...], allow_null: bool) -> bool:
    """Whether a page of this origin may connect.

    A pattern is matched against the whole of ``scheme://host:port``; ``*`` in it stands for any text. A port that is
    the scheme's default may be left out of the pattern, too. Case does not matter.

    :param origin: the Origin header.
    :param patterns: Crossbar.io's ``allowed_origins``.
    :param allow_null: whether pages without an origin may connect: ``null``, and local files. No pattern applies.
    :raises ValueError: not an origin; the text says what was expected.
    """
    origin = origin.strip().lower()
    if origin == "null" or origin.startswith("file:"):
        return allow_null
    forms = _forms(origin)
    return any(pattern.fullmatch(form) for pattern in _compile(patterns) for form in forms)


def _forms(origin: str) -> list[str]:
    """The origin with and without a default port; put together anew, so that nothing else in it can match."""
    match = _ORIGIN.fullmatch(origin)
    if match is None or int(match[3] or 0) > _PORT_MAX:
        raise ValueError("scheme://host or scheme://host:port")
    scheme, host = match[1], match[2]
    default = _DEFAULT_PORTS.get(scheme)
    port = int(match[3]) if match[3] else default
    if port is None:
        return [f"{scheme}://{host}"]
    full = f"{scheme}://{host}:{port}"
    return [full, f"{scheme}://{host}"] if port == default else [full]


@lru_cache(maxsize=256)
def _compile(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(".*".join(re.escape(part) for part in text.lower().split("*"))) for text in patterns)
