"""What of a login can be compared with a login at another proxy: names in place of what is another each time."""

from __future__ import annotations

import json
import re
from typing import Any

from comparison.logins import Record
from support.raw import ABORT, CHALLENGE, WELCOME

ABSENT = "absent"
OWN = "some text"
"""The text of an ABORT: what a proxy says itself is for people; what an authenticator says has to arrive."""

Paths = dict[str, tuple[Any, Any]]

_SERIAL = re.compile(r"(?:[A-Z0-9]{4}-){5}[A-Z0-9]{4}")
_PORT = re.compile(r"(127\.0\.0\.1:)\d+")
_TEXTS_OF_AUTHENTICATORS = frozenset(
    {"not today", "nobody has this name", "that is not the ticket", "that is not the key"}
)
# Another at each login, or at each start.
_VARYING = frozenset(
    {
        *("nonce", "timestamp", "scram_server_signature", "sec-websocket-key"),
        *("own_pid", "own_tid", "own_fd", "x_cb_pid", "x_cb_proxy_pid"),
        *("http_cbtid", "cookie", "Set-Cookie"),
    }
)


def shown(record: Record, worker: str) -> dict[str, Any]:
    """A login by what happened in it: ``challenge``, ``welcome``, ``abort``, ``silence``, ``router``, ``called``,
    and the ``cookie`` that was given out.

    :param worker: the ID of the proxy worker.
    """
    told: dict[str, Any] = {}
    session = 0
    for code, *rest in record.client:
        if code == CHALLENGE:
            told["challenge"] = {"authmethod": rest[0], "extra": _challenge(rest[1])}
        elif code == WELCOME:
            session, told["welcome"] = rest[0], rest[1]
        elif code == ABORT:
            told["abort"] = {"reason": rest[1], "details": rest[0]}
        else:
            told["silence"] = rest[0]
    if record.cookie is not None:
        pair, attributes = record.cookie
        told["cookie"] = {"name": pair.partition("=")[0], "attributes": attributes}
    if record.router is not None:
        told["router"] = record.router
    for index, (realm, authid, details) in enumerate(record.authenticator):
        told["called" if not index else f"called{index}"] = {"realm": realm, "authid": authid, "details": details}
    shown: dict[str, Any] = _Mask(session, worker)(told)
    return shown


def _challenge(extra: dict[str, Any]) -> dict[str, Any]:
    """The text that WAMP-CRA has signed as what it is, and without the random octets of cryptosign."""
    text = extra.get("challenge")
    if text is None:
        return extra
    is_json = text.startswith("{")
    return {**extra, "challenge": json.loads(text) if is_json else f"{len(text)} characters"}


class _Mask:
    def __init__(self, session: int, worker: str) -> None:
        self._session = session
        self._worker = worker

    def __call__(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if key in _VARYING:
            return type(value).__name__
        if key == "session":
            return "the session's" if value == self._session else "another"
        return self._text(value, key) if isinstance(value, str) else value

    def _text(self, value: str, key: str) -> str:
        if key == "message":
            return value if value in _TEXTS_OF_AUTHENTICATORS else OWN
        if _SERIAL.fullmatch(value):
            return "a random one"
        if value == self._worker:
            return "<worker>"
        return _PORT.sub(r"\1<port>", value)


def differences(stock: Any, ours: Any, path: str = "") -> Paths:
    """Where two logins differ: path -> what is there in the first and in the second one."""
    if isinstance(stock, dict) and isinstance(ours, dict):
        found: Paths = {}
        for key in {**stock, **ours}:
            found |= differences(stock.get(key, ABSENT), ours.get(key, ABSENT), f"{path}.{key}" if path else key)
        return found
    return {} if type(stock) is type(ours) and stock == ours else {path: (_brief(stock), _brief(ours))}


def _brief(value: Any) -> Any:
    """Of a mapping that only one side has, the names of its keys."""
    return sorted(value) if isinstance(value, dict) else value
