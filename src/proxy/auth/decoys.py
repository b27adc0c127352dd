"""What a client is asked that names nobody who is known: the same as if it had named somebody.

A challenge tells of its principal: salts, iterations, a role. One that came only for principals who exist, or that was
another one each time for those who do not, would tell whoever asks which names are worth guessing passwords for.
"""

import hashlib
import hmac
import re
import secrets
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from twisted.internet.defer import Deferred

from proxy.auth.base import Deny, failed
from proxy.auth.principals import Found, Principal

__all__ = ["Decoys", "decoy_key", "octets_of", "refusal", "then"]

_T = TypeVar("_T")

# Of the installation; of what was booted, where that has none, as in many containers.
_MACHINE_IDS: Sequence[Path] = (Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id"))
_MACHINE_ID: Final = re.compile(r"[0-9A-Fa-f]{32}")
# The alphabets that salts are written in, narrow ones first.
_ALPHABETS: Final = (
    string.digits,
    string.digits + "abcdef",
    string.digits + "ABCDEF",
    string.ascii_lowercase,
    string.ascii_lowercase + string.digits,
    string.ascii_letters + string.digits,
    string.ascii_letters + string.digits + "+/",
    string.ascii_letters + string.digits + "-_",
    string.printable[:94],
)


def then(found: "Found | Deferred[Found]", use: Callable[[Found], _T]) -> "_T | Deferred[_T]":
    """Go on with what a source found, now or once it is there."""
    return found.addCallback(use) if isinstance(found, Deferred) else use(found)


def octets_of(text: str) -> bytes:
    """UTF-8 of a client's text, which may hold what UTF-8 cannot express: half a surrogate pair."""
    return text.encode("utf-8", "surrogatepass")


def decoy_key() -> bytes:
    """The key of decoys: the same after a restart and in all workers of a machine.

    It rests on an ID of the machine that nobody outside is to know (machine-id(5)). The secrets of the configuration
    would be the same on other machines, too; but decoys are for everybody to see, and by them a password could be
    guessed offline. Without any ID the key is this process's.
    """
    for path in _MACHINE_IDS:
        with suppress(OSError, UnicodeError):
            machine_id = path.read_text().strip().replace("-", "")
            if _MACHINE_ID.fullmatch(machine_id):
                return hmac.digest(machine_id.lower().encode(), b"wamp-proxy decoys", "sha256")
    return _process_key()


@cache
def _process_key() -> bytes:
    return secrets.token_bytes(32)


class Decoys:
    """Makes up principals of one method.

    :param key: of :func:`decoy_key`.
    :param method: name of the method.
    :param samples: the principals that there are, by authid: a made-up one looks like one of them. Empty: they are not
        known beforehand, and :meth:`learn` tells.
    """

    def __init__(self, key: bytes, method: str, samples: Mapping[str, Principal]) -> None:
        self._key = hmac.digest(key, method.encode(), "sha256")
        self._samples: list[tuple[str | None, Principal]] = list(samples.items())
        self._salts = Counter(sample.get("salt") for _, sample in self._samples)

    def learn(self, authid: str | None, principal: Principal, keys: Iterable[str]) -> None:
        """Look like this one if nothing better is known. Only the first counts: decoys are not to change.

        :param keys: what to keep of it; no secret is among it.
        """
        if not self._samples:
            self._samples.append((authid, {key: principal[key] for key in keys if key in principal}))

    def octets(self, purpose: str, authid: str | None, size: int) -> bytes:
        """Octets that look random and are always the same for an authid."""
        seed = purpose.encode() + (b"" if authid is None else b"\0" + octets_of(authid))
        return hashlib.shake_256(hmac.digest(self._key, seed, "sha256")).digest(size)

    def sample(self, authid: str | None) -> tuple[str | None, Principal]:
        """Name of and what is known of the principal that this authid's decoy looks like; maybe nothing."""
        if not self._samples:
            return None, {}
        return self._samples[int.from_bytes(self.octets("sample", authid, 8), "big") % len(self._samples)]

    def is_shared(self, salt: str) -> bool:
        """Whether several principals have this salt."""
        return self._salts[salt] > 1

    def salt(self, authid: str | None) -> str:
        """A salt that looks like that of the sample, in characters and length; the same one where it has company."""
        name, sample = self.sample(authid)
        salt: str = sample["salt"]
        if salt == name or self.is_shared(salt):
            return salt if salt != name or authid is None else authid
        body = salt.rstrip("=")
        alphabet = next((chars for chars in _ALPHABETS if set(body) <= set(chars)), string.ascii_letters)
        drawn = self.octets("salt", authid, 2 * len(body))
        pairs = zip(drawn[::2], drawn[1::2], strict=True)
        made = "".join(alphabet[(high << 8 | low) % len(alphabet)] for high, low in pairs)
        return made + "=" * (len(salt) - len(body))


def refusal(found: Deny | None, method: str) -> Deny:
    """What a login comes to for which no principal was found."""
    return failed(f"{method}: no such principal") if found is None else found
