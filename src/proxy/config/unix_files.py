"""Mode, owner and group of the file of a Unix socket."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from proxy.config.fields import problem

__all__ = ["FileMode", "GroupName", "UserName"]

_OCTAL: Final = re.compile(r"(?:0o?)?[0-7]{3}")
_MODE_TEXT: Final = 'expected the mode of a file in octal, like "0660": read and write for the owner, either for others'
_ID_MAX: Final = 2**32 - 2  # the highest number stands for "unchanged" (chown(2))
_NAME_MAX: Final = 256


def _mode(value: Any) -> int:
    """A string is octal; a number is what it is, which in YAML may be written in octal, too."""
    if isinstance(value, str) and _OCTAL.fullmatch(value):
        value = int(value.removeprefix("0o"), 8)
    if not isinstance(value, int) or isinstance(value, bool) or value & ~0o666 or value & 0o600 != 0o600:
        raise problem(_MODE_TEXT)
    return value


def _account(kind: str) -> BeforeValidator:
    """The name or number of an account. Whether there is one is a matter of the machine, and of when it is asked."""

    def check(value: Any) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _ID_MAX:
            return value
        if isinstance(value, str) and 0 < len(value) <= _NAME_MAX and not re.search(r"[:\s\0]", value):
            return value
        raise problem(f"expected the name of a {kind}, or its number")

    return BeforeValidator(check)


FileMode = Annotated[int, BeforeValidator(_mode)]
"""Who may connect: that takes the right to write."""
UserName = Annotated[int | str, _account("user")]
GroupName = Annotated[int | str, _account("group")]
