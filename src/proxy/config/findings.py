"""What is wrong with a configuration, in words: place, value, what was expected. Secrets are never shown."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config.fields import PEM_MARK
from proxy.config.redaction import without_credentials
from proxy.errors import InvalidConfiguration

Place = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*")
_SECRET_KEY = re.compile(
    r"secret|ticket|passw|passphrase|token|credential|cookie|authorization|headers|private|privkey|seed|(^|[-_.])key(s|$|[-_.])",
    re.IGNORECASE,
)
_SHOWN_MAX = 80

LATER_TYPES = ("flashpolicy", "stream.testee", "tor")
"""Values of ``type`` that Crossbar.io knows and this version does not."""

_TYPE_TEXTS = {
    "string_type": "expected a string",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "missing": "required key is missing",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to say about a configuration.

    :ivar place: where, like ``transports[1].endpoint.port``; empty for the whole file.
    :ivar value: what stands there, cut and without secrets; empty where nothing does.
    :ivar expected: what was expected instead, or what becomes of it.
    """

    place: str
    value: str
    expected: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return ": ".join(part for part in (self.severity, self.place, self.value, self.expected) if part)

    def to_dict(self) -> dict[str, str]:
        """The finding for machines."""
        return asdict(self)


class ConfigError(InvalidConfiguration):
    """A configuration that cannot be used.

    :ivar findings: all that was found, errors first; there is at least one error.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = sorted(findings, key=lambda finding: finding.severity)
        super().__init__("; ".join(str(item) for item in self.findings if item.severity == "error"))


def render_place(place: Place) -> str:
    """Write a place as one would in code: ``routes["com.example"].anonymous[0]``."""
    text = ""
    for step in place:
        name = str(step)  # YAML has keys of other types, too
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(name):
            text += f".{name}" if text else name
        else:
            text += f"[{json.dumps(name)}]"
    return text


def render_value(value: Any, place: Place) -> str:
    """Write a scalar as in JSON, cut to a readable length; a container only by its kind; a secret not at all."""
    if isinstance(value, Mapping):
        return "{..}" if value else "{}"
    if isinstance(value, (list, tuple)):
        return "[..]" if value else "[]"
    # A transport's item "cookie" holds options; a cookie itself is a scalar.
    steps = [step for step in place[:-1] if step != "cookie"] + list(place[-1:])
    if any(isinstance(step, str) and _SECRET_KEY.search(step) for step in steps):
        return "***"
    if isinstance(value, str) and PEM_MARK in value:
        return "***"  # a private key, for all we know: some write it beside the certificate
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = without_credentials(text)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def finding(place: Place, value: Any, expected: str, severity: Literal["error", "warning"] = "error") -> Finding:
    """A finding about ``value``, which stands at ``place``."""
    return Finding(render_place(place), render_value(value, place), expected, severity)


def suggest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` for the nearest known name, or nothing."""
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def validation_findings(error: ValidationError, data: Any, prefix: Place) -> list[Finding]:
    """Say what pydantic found.

    :param data: what was validated; it tells a key from the tag of a union in pydantic's locations.
    :param prefix: place of ``data`` in the file.
    """
    return [_one(details, data, prefix) for details in error.errors(include_url=False)]


def _one(details: ErrorDetails, data: Any, prefix: Place) -> Finding:
    place = prefix + _place(details["loc"], data)
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "proxy":
        keys = tuple(key for key in context.get("key", "").split(".") if key) if value is not None else ()
        if isinstance(value, (list, tuple)) and len(keys) == 1 and keys[0].isdigit():
            index = int(keys[0])
            return finding((*place, index), value[index], details["msg"])
        if len(keys) > 1 or (isinstance(value, Mapping) and keys):
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            found = Finding(render_place(place + keys), "" if value is None else render_value(value, place + keys), "")
            return Finding(found.place, found.value, details["msg"])
        return finding(place, value, details["msg"])
    if kind == "missing":
        return Finding(render_place(place), "", _TYPE_TEXTS[kind])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_type(place, value, context)
    if details["loc"] and details["loc"][-1] == "[key]":
        return finding(place, value, "expected a string that is not empty as key")
    return finding(place, value, _TYPE_TEXTS.get(kind, "expected: " + details["msg"]))


def _wrong_type(place: Place, value: Any, context: Mapping[str, Any]) -> Finding:
    """No model goes by this ``type``: say which do, and which exist elsewhere."""
    given = value.get("type") if isinstance(value, Mapping) else None
    place = (*place, "type")
    if given is None:
        return Finding(render_place(place), "", _TYPE_TEXTS["missing"])
    known = [tag.strip(" '") for tag in str(context.get("expected_tags", "")).split(",")]
    wanted = "expected " + " or ".join(known)
    if given in LATER_TYPES:
        return finding(place, given, f"not supported by this version; {wanted}")
    return finding(place, given, wanted + suggest(str(given), known))


def _place(loc: Sequence[str | int], data: Any) -> Place:
    """Drop the union tags that pydantic puts into its locations, and its mark for a key."""
    place: list[str | int] = []
    for step in loc:
        if step == "[key]":
            break
        if isinstance(data, Mapping):
            if step not in data and data.get("type") == step:
                continue
            data = data.get(step)
        elif isinstance(data, (list, tuple)) and isinstance(step, int):
            data = data[step] if step < len(data) else None
        place.append(step)
    return tuple(place)
