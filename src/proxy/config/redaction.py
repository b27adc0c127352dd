"""Configurations as the management API shows them: as they were given, but for their secrets."""

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["HIDDEN", "redacted", "without_credentials"]

HIDDEN: Final = "***"
"""What stands in place of a secret."""

_SECRET_KEY: Final = re.compile(
    r"secret|ticket|passw|passphrase|token|credential|authorization|cookie|private|privkey|seed|(stored|server)[-_]key|"
    r"^(key|salt|headers|authextra)$",
    re.IGNORECASE,
)
# Names of files are no secrets, whatever is in the files, where one may stand; a password may look like one. So it may
# like $NAME: only the form in braces is taken for what names an environment variable.
_FILE_KEY: Final = re.compile(r"key$", re.IGNORECASE)
_FILE_NAME: Final = re.compile(r"[\w.\-/ ]+\.(pem|key|crt|cer)")
_REFERENCE: Final = re.compile(r"\$\{\w+\}")
_USER_INFO: Final = re.compile(r"(?<=://)[^/\s]*(?=@)")
_QUERY: Final = re.compile(
    r"([?&][^=&#\s]*(?:secret|ticket|passw|token|credential|key|auth|sig)[^=&#\s]*=)[^&#\s\"']+", re.IGNORECASE
)
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
        return value if isinstance(value, str) and _is_reference(value, key) else HIDDEN
    return without_credentials(value) if isinstance(value, str) else value


def _is_reference(value: str, key: str) -> bool:
    """Whether it only says where the secret is."""
    return bool(_REFERENCE.fullmatch(value) or (_FILE_KEY.search(key) and _FILE_NAME.fullmatch(value)))


def without_credentials(text: str) -> str:
    """A text, with :data:`HIDDEN` for what a URL in it has before its host, or in its query for keys and tokens."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER_INFO.sub(HIDDEN, text)) if "://" in text else text
