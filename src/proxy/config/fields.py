"""What single values may be: checks that name the whole range and the unit, shared by all models.

Every check raises :class:`PydanticCustomError`, whose text says what was expected; the value itself is never part of
it, so that :mod:`proxy.config.findings` alone decides what may be printed.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictStr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

ID_PATTERN = re.compile(r"[a-z][a-z0-9_]{2,63}")
ENV_PATTERN = re.compile(r"\$(?:([A-Za-z0-9_]+)|\{([A-Za-z0-9_]+)\})")
PEM_MARK = "-----BEGIN "
"""How anything in PEM begins (RFC 7468): a private key, maybe."""
UNIX_PATH_MAX = 107
"""Octets of a Unix socket path: ``sun_path`` holds 108 with its NUL (unix(7))."""

SERIALIZERS = ("json", "msgpack", "cbor", "ubjson", "flatbuffers")
"""Serializers that this version speaks."""
TRANSLATED = ("json", "msgpack", "cbor")
"""Serializers that are translated into each other."""
SERIALIZERS_DEFAULT = TRANSLATED
"""Those that are spoken unless others are named: a client can choose any of them, whatever its router takes."""
UNBATCHED = ("flatbuffers",)
"""Serializers that have no batched subprotocol, not even in autobahn."""
BATCHED = tuple(f"{name}.batched" for name in SERIALIZERS if name not in UNBATCHED)
"""Names of the batched subprotocols that this version speaks."""
SERIALIZERS_KNOWN = tuple(f"{name}{suffix}" for suffix in ("", ".batched") for name in SERIALIZERS)
"""All names that Crossbar.io takes: those that stand for nothing here are skipped with a warning."""


def subprotocols(names: tuple[str, ...]) -> tuple[str, ...]:
    """What to offer on WebSocket for ``serializers``: names of subprotocols, without their ``wamp.2.``.

    A plain name stands for its batched form, too, as in Crossbar.io; one with ``.batched`` for that form only.
    """
    offered: dict[str, None] = {}
    for name in names:
        if f"{name}.batched" in BATCHED:
            offered[f"{name}.batched"] = None
        offered[name] = None
    return tuple(offered)


class Model(BaseModel):
    """Base of all items: immutable, with the keys that Crossbar.io names, tolerant of stray ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


@dataclass(frozen=True, slots=True)
class NoEffect:
    """Marks a field that is accepted and does nothing yet; ``text`` is what the warning says."""

    text: str = "accepted, has no effect"


class StrictModel(Model):
    """An item in which a key that nobody knows is an error, as in Crossbar.io."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, value: Any) -> Any:
        for key in value if isinstance(value, Mapping) else ():
            if key not in cls.model_fields:
                raise problem("unknown key, expected one of " + ", ".join(cls.model_fields), str(key))
        return value


@dataclass(frozen=True, slots=True)
class Spoken:
    """Marks a list of serializers: names that stand for something there; other known ones are skipped."""

    names: tuple[str, ...]


def problem(text: str, key: str = "", /, **context: Any) -> PydanticCustomError:
    """An error whose place is the item itself, or its member ``key`` (dots for deeper ones).

    :param context: values for ``{names}`` in ``text``.
    """
    return PydanticCustomError("proxy", text, {"key": key, **context})


def unsupported(text: str = "") -> BeforeValidator:
    """Refuse any value but null: the key has a meaning in Crossbar.io that must not be ignored silently."""

    def refuse(value: Any) -> None:
        if value is not None:
            raise problem("not supported by this version" + (f"; {text}" if text else ""))

    return BeforeValidator(refuse)


def integer(low: int, high: int, unit: str = "", zero: str = "") -> BeforeValidator:
    """Check for an integer from ``low`` to ``high`` (``unit`` only for the text).

    :param zero: when given, 0 is allowed beside the range, and this says what it means.
    """
    wanted = f"expected an integer from {low} to {high}" + (f" ({unit})" if unit else "")
    if zero:
        wanted += f", or 0 for {zero}"

    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and (low <= value <= high or (zero and value == 0)):
            return value
        raise problem(wanted)

    return BeforeValidator(check)


def seconds(high: int) -> BeforeValidator:
    """Check for a number of seconds from 0 to ``high``."""

    def check(value: Any) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high:
            return value
        raise problem(f"expected a number from 0 to {high} (seconds)")

    return BeforeValidator(check)


def one_of(*allowed: Any) -> BeforeValidator:
    """Check for one of a few scalars, with their exact type."""

    def check(value: Any) -> Any:
        if any(type(value) is type(item) and value == item for item in allowed):
            return value
        raise problem("expected " + " or ".join(str(item) for item in allowed))

    return BeforeValidator(check)


def _environment(text: str) -> str:
    match = ENV_PATTERN.fullmatch(text)
    if match is None:
        raise problem('expected an integer from 0 to 65535, or "$NAME" of an environment variable')
    name = match[1] or match[2]
    if name not in os.environ:
        raise problem("environment variable {name} is not set", name=name)
    return os.environ[name]


def _port(value: Any) -> int:
    text = ""
    if isinstance(value, str):
        text = _environment(value)
        value = int(text) if text.isascii() and text.isdigit() else text
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
        return value
    if text:
        raise problem("expected the environment variable to hold an integer from 0 to 65535")
    raise problem("expected an integer from 0 to 65535 (0: any free port)")


def _identifier(value: str) -> str:
    if ID_PATTERN.fullmatch(value):
        return value
    raise problem("expected 3 to 64 characters: a lower-case letter, then lower-case letters, digits or _")


def _not_empty(value: str) -> str:
    if value:
        return value
    raise problem("expected a string that is not empty")


def _unix_path(value: str, info: ValidationInfo) -> str:
    """Expand environment variables and make the path absolute, against the folder of the configuration file."""
    path = os.path.expandvars(value)
    folder: Path | None = (info.context or {}).get("folder")
    if folder is not None:
        path = os.path.normpath(folder / path)
    if not value or "\0" in path:
        raise problem("expected the path of a Unix socket")
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise problem(f"expected a path of at most {UNIX_PATH_MAX} octets once it is absolute")
    return path


def _serializer(value: str) -> str:
    if value in SERIALIZERS_KNOWN:
        return value
    raise problem("expected one of " + ", ".join(SERIALIZERS))


def _spoken(spoken: tuple[str, ...]) -> AfterValidator:
    """Leave out the names that stand for nothing here; there must be others."""

    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        known = tuple(dict.fromkeys(name for name in names if name in spoken))
        if not known:
            raise problem(f"expected at least one of {', '.join(spoken)}")
        return known

    return AfterValidator(check)


def checked(check: Callable[[str], object]) -> AfterValidator:
    """``check`` reads the value, which stays as it is; it raises ValueError with what was expected."""

    def run(value: Any) -> Any:
        try:
            check(value)
        except ValueError as error:
            raise problem("{text}", text=str(error)) from None
        return value

    return AfterValidator(run)


def _from_environment(value: str) -> str:
    """What an environment variable holds, where the value is ``${NAME}``; a secret itself may look like ``$NAME``."""
    match = ENV_PATTERN.fullmatch(value)
    if match is None or match[2] is None:
        return value
    if not os.environ.get(match[2]):
        raise problem("environment variable {name} is not set, or empty", name=match[2])
    return os.environ[match[2]]


Text = Annotated[StrictStr, AfterValidator(_not_empty)]
Secret = Annotated[Text, AfterValidator(_from_environment)]
"""Text, or ``${NAME}`` of an environment variable that holds it. Never shown."""
Identifier = Annotated[StrictStr, AfterValidator(_identifier)]
Port = Annotated[int, BeforeValidator(_port)]
UnixPath = Annotated[StrictStr, AfterValidator(_unix_path)]
SerializerName = Annotated[StrictStr, AfterValidator(_serializer)]
SerializerNames = Annotated[tuple[SerializerName, ...], _spoken(SERIALIZERS), Spoken(SERIALIZERS)]
WebSocketSerializerNames = Annotated[
    tuple[SerializerName, ...], _spoken(SERIALIZERS + BATCHED), Spoken(SERIALIZERS + BATCHED)
]
