"""What the worker's answers look like to people: states, ages, addresses."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["address", "age", "auth_methods", "duration", "humane", "serializers", "state", "time_of_day"]

_STATES: Final = {1: "created", 2: "starting", 3: "started", 4: "failed", 5: "stopping", 6: "stopped"}
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
# Without TLS and with it.
_SCHEMES: Final = {"rawsocket": ("rs", "rss"), "web": ("http", "https"), "universal": ("http", "https")}
# Keys of the answers that hold a time, ns since the epoch.
_TIMES: Final = ("started", "stopped", "joined")


def state(number: object) -> str:
    """The name of a state."""
    return _STATES.get(number, str(number)) if isinstance(number, int) else str(number)


def duration(seconds: float) -> str:
    """Two units of it: ``3d4h``, ``5m0s``, ``12s``."""
    rest = max(0, int(seconds))
    for index, (size, unit) in enumerate(_UNITS[:-1]):
        if rest >= size:
            small, small_unit = _UNITS[index + 1]
            return f"{rest // size}{unit}{rest % size // small}{small_unit}"
    return f"{rest}s"


def age(since: object, now: float | None = None) -> str | None:
    """How long ago something was.

    :param since: ns since the epoch, or ISO 8601; None gives None.
    :param now: seconds since the epoch; default: the clock.
    """
    if isinstance(since, str):
        try:
            began = datetime.fromisoformat(since).timestamp()
        except ValueError:
            return since
    elif isinstance(since, int) and since:
        began = since / 1e9
    else:
        return None
    return duration((time.time() if now is None else now) - began)


def time_of_day(seconds: float) -> str:
    """A local time with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def address(config: Mapping[str, Any], *, is_client: bool = False) -> str:
    """Where a transport listens, or where a connection leads, as its configuration says it.

    :param config: an item of ``transports``, or ``transport`` of an item of ``connections``.
    """
    endpoint = config.get("endpoint")
    if not isinstance(endpoint, Mapping):
        return str(endpoint if endpoint is not None else config.get("url", ""))
    scheme = _SCHEMES.get(str(config.get("type")), ("ws", "wss"))[_has_tls(config, endpoint)]
    if endpoint.get("type") == "unix" or "path" in endpoint:
        return f"{scheme}://unix:{endpoint.get('path')}"
    host = str(endpoint.get("host" if is_client else "interface") or ("localhost" if is_client else "*"))
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{host}:{endpoint.get('port')}"


def _has_tls(config: Mapping[str, Any], endpoint: Mapping[str, Any]) -> bool:
    """Whether there is TLS: the endpoint says so, or of a router, where it says nothing, the URL."""
    if "tls" in endpoint or endpoint.get("type") == "unix":
        return endpoint.get("tls") not in (None, False)
    return str(config.get("url", "")).startswith(("wss:", "rss:"))


def auth_methods(config: Mapping[str, Any], default: str = "") -> str:
    """Names of the authentication methods of an item; ``default`` where it names none."""
    auth = config.get("auth")
    return ",".join(str(name) for name in auth) if isinstance(auth, Mapping) else default


def serializers(session: Mapping[str, Any]) -> str:
    """The serializer of a session, and that of its router where it is another one."""
    front, back = session.get("serializer"), session.get("backend_serializer")
    return str(front) if back in (None, front) else f"{front} > {back}"


def humane(thing: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the worker with its state and its times in words."""
    shown = dict(thing)
    if "state" in shown:
        shown["state"] = state(shown["state"])
    for key in _TIMES:
        if isinstance(shown.get(key), int):
            shown[key] = datetime.fromtimestamp(shown[key] / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return shown
