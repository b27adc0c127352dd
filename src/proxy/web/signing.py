"""Signed HTTP requests: who sent them, that they are recent, that each comes once.

The scheme is Crossbar.io's. A request's query has ``key``, ``timestamp`` (UTC, ``2011-10-14T16:59:51.123Z``), ``seq``
and ``nonce`` (integers), and ``signature``, the HMAC-SHA256 over those four and the body, one behind the other, in
base64 for URLs. GitHub's webhooks carry an HMAC over the body in a header.
"""

import base64
import hashlib
import heapq
import hmac
import logging
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

__all__ = ["BadSignature", "Replays", "Verifier", "check_github"]

log = logging.getLogger(__name__)

REPLAYS_MAX: Final = 100_000
"""Signatures that are remembered. One takes some 250 octets."""

SIGNED_FIELDS: Final = ("key", "timestamp", "seq", "nonce")
_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,30}")
_TIMES: Final = ("%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ")
_SHOWN: Final = "2011-10-14T16:59:51.123Z"


class BadSignature(Exception):
    """A request that is not signed as it has to be.

    :param text: why, for the client.
    :ivar status: of HTTP: 400 if it cannot be a signed request, 401 if it is one by somebody else.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Replays:
    """Signatures that were used, for as long as their timestamps would be taken.

    Where there is no room for all of them, those with the oldest timestamps are forgotten, and from then on nothing is
    taken that is as old: a request that was forgotten cannot come again.

    :param delta: how far a timestamp may be off, seconds; 0: any, and signatures are kept as long as there is room.
    :param clock: the time, seconds since 1970.
    """

    def __init__(self, delta: float, clock: Callable[[], float]) -> None:
        self._delta = delta
        self._clock = clock
        self._seen: set[bytes] = set()
        self._oldest: list[tuple[float, bytes]] = []  # a heap: by timestamp, or in order of coming where that is any
        self._count = 0
        self._horizon = -math.inf
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._seen)

    def covers(self, timestamp: float) -> bool:
        """Whether a request of this time would be known, if it had come before."""
        return not self._delta or timestamp > self._horizon

    def is_new(self, signature: bytes, timestamp: float) -> bool:
        """Whether a signature has not come before; from now on it has.

        :param timestamp: of its request, one that is covered, seconds since 1970.
        """
        while self._delta and self._oldest and self._oldest[0][0] + self._delta < self._clock():
            self._forget()
        if signature in self._seen:
            return False
        self._count += 1
        self._seen.add(signature)
        heapq.heappush(self._oldest, (timestamp if self._delta else self._count, signature))
        if len(self._seen) > REPLAYS_MAX:
            self._forget()
            if self._delta and not self._has_warned:
                self._has_warned = True
                text = "more than %d signed requests within %g s: late ones are refused, as they could be replays"
                log.warning(text, REPLAYS_MAX, self._delta)
        return True

    def _forget(self) -> None:
        # The clock may be set back later; what is forgotten stays too old.
        time, signature = heapq.heappop(self._oldest)
        self._seen.discard(signature)
        self._horizon = max(self._horizon, time)


class Verifier:
    """Tells whether requests are signed.

    :param key: public name of the secret.
    :param secret: what they are signed with.
    :param delta: how far the client's clock may be off, seconds; 0: any.
    :param replays: None: requests may come again.
    :param now: the time, seconds since 1970.
    """

    def __init__(self, key: str, secret: str, delta: int, replays: Replays | None, now: Callable[[], float]) -> None:
        self._key = key.encode("utf-8")
        self._secret = secret.encode("utf-8")
        self._delta = delta
        self._replays = replays
        self._now = now

    def check(self, query: Mapping[str, bytes], body: bytes) -> None:
        """Check one request.

        :param query: the first value of each field.
        :raises BadSignature: and why.
        """
        for name in (*SIGNED_FIELDS, "signature"):
            if name not in query:
                raise BadSignature(f'signed requests only: field "{name}" is missing in the query')
        for name in ("seq", "nonce"):
            if not _INTEGER.fullmatch(query[name]):
                raise BadSignature(f'field "{name}": expected an integer')
        time = self._check_time(query["timestamp"])
        if not hmac.compare_digest(query["key"], self._key):
            raise BadSignature("unknown key", 401)
        mac = hmac.new(self._secret, digestmod=hashlib.sha256)
        for name in SIGNED_FIELDS:
            mac.update(query[name])
        mac.update(body)
        digest = mac.digest()
        # As text: what a decoder would skip, or take twice, must not make another signature of the same request.
        expected = base64.urlsafe_b64encode(digest)
        if not hmac.compare_digest(query["signature"], expected):
            raise BadSignature("the signature is wrong", 401)
        if self._replays is None:
            return
        if not self._replays.covers(time):
            raise BadSignature("the timestamp is older than those that are remembered here", 401)
        if not self._replays.is_new(digest, time):
            raise BadSignature("this very request has come before; sign each one with a nonce of its own", 401)

    def _check_time(self, text: bytes) -> float:
        time = _read_time(text)
        if time is None:
            raise BadSignature(f'field "timestamp": expected a time in UTC like {_SHOWN}')
        if self._delta and abs(time - self._now()) > self._delta:
            raise BadSignature(f"the timestamp is more than {self._delta} s off; here it is {_shown(self._now())}")
        return time


def _read_time(text: bytes) -> float | None:
    for pattern in _TIMES:
        try:
            return datetime.strptime(text.decode("ascii"), pattern).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None


def _shown(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_github(secret: str, body: bytes, sha256: str | None, sha1: str | None) -> None:
    """Check a webhook of GitHub.

    :param secret: that GitHub was told.
    :param sha256: header ``X-Hub-Signature-256``; where there is one, nothing else counts.
    :param sha1: header ``X-Hub-Signature``, which older senders have alone.
    :raises BadSignature: neither is there, or it is wrong.
    """
    if sha256 is not None:
        name, given, digest = "sha256", sha256, hashlib.sha256
    elif sha1 is not None:
        name, given, digest = "sha1", sha1, hashlib.sha1
    else:
        raise BadSignature("signed requests only: X-Hub-Signature-256 is missing")
    expected = f"{name}=" + hmac.new(secret.encode("utf-8"), body, digest).hexdigest()
    if not hmac.compare_digest(given.strip().lower().encode("utf-8"), expected.encode("ascii")):
        raise BadSignature("the signature is wrong")
