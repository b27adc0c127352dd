"""Configurations as the management API shows them: as they were given, but for their secrets."""

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["HIDDEN", "redacted"]

HIDDEN: Final = "***"
"""What stands in place of a secret."""

_SECRET_KEY: Final = re.compile(
    r"secret|ticket|passw|passphrase|token|credential|authorization|cookie|private|privkey|seed|(stored|server)[-_]key|"
    r"^(key|salt|headers|authextra)$",
    re.IGNORECASE,
)
# Names of files are no secrets, whatever is in the files.
_FILE_NAME: Final = re.compile(r"[\w.\-/ ]+\.(pem|key|crt|cer)|\$\{?\w+\}?")
_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]*(?=@)")
# Keys below which every scalar is hidden, whatever its own key.
_WHOLLY: Final = frozenset({"headers", "authextra"})


def redacted(value: Any, key: str = "", *, wholly: bool = False) -> Any:
    """A copy of a configuration with :data:`HIDDEN` for each secret in it.

    :param value: mappings, lists and scalars.
    :param key: the key that it stands under.
    :param wholly: it stands below a key that hides everything.
    """
    if isinstance(value, Mapping):
        return {name: redacted(item, str(name), wholly=wholly or str(name).lower() in _WHOLLY)
                for name, item in value.items()}  # fmt: skip
    if isinstance(value, (list, tuple)):
        return [redacted(item, key, wholly=wholly) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if wholly:
        return HIDDEN
    if _SECRET_KEY.search(key):
        return value if isinstance(value, str) and _FILE_NAME.fullmatch(value) else HIDDEN
    return _USER_INFO.sub(HIDDEN, value) if isinstance(value, str) else value
