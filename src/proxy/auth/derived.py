"""Keys that are derived from passwords: once, in a thread, and kept.

A derivation is meant to be work: done for each login, it would let anybody keep the proxy busy.
"""

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThread

__all__ = ["KEPT_MAX", "Derived", "DerivedKeys"]

KEPT_MAX: Final = 4096
# Of one account at a router: whatever salts that may think of.
_ACCOUNT_KEPT_MAX: Final = 8
# The threads are shared with whatever else waits in this process, like name resolution.
_THREADS: Final = 2


class Derived:
    """Derived keys, the last ones that were asked for: each worked out once, however many logins wait for it.

    Only so many at a time, for an account one after the other: a router that has another salt for each login is not to
    take all threads, and the memory that each key needs, from the other routers.

    :param kept_max: how many are kept.
    :param at_a_time: how many are worked out at the same time.
    :param run: calls a function in a thread; None: one of the reactor's.
    """

    def __init__(
        self,
        kept_max: int = _ACCOUNT_KEPT_MAX,
        at_a_time: int = 1,
        run: "Callable[[Callable[[], bytes]], Deferred[bytes]] | None" = None,
    ) -> None:
        self._kept_max = kept_max
        self._turns = DeferredSemaphore(at_a_time)
        self._run = run
        self._keys: OrderedDict[Hashable, bytes] = OrderedDict()
        self._waiting: dict[Hashable, list[Deferred[bytes]]] = {}

    def get(self, how: Hashable, compute: Callable[[], bytes]) -> "bytes | Deferred[bytes]":
        """A key.

        :param how: what distinguishes it from others: the salt and so on.
        :param compute: called in a thread.
        :returns: the key, at once if it is known; else fires with it, or fails as ``compute`` does. May be cancelled.
        """
        if how in self._keys:
            self._keys.move_to_end(how)
            return self._keys[how]
        is_first = how not in self._waiting
        waiting = self._waiting.setdefault(how, [])
        waiter: Deferred[bytes] = Deferred(waiting.remove)
        waiting.append(waiter)
        if is_first:
            self._turns.run(self._start, how, compute).addBoth(self._computed, how)
        return waiter

    def _start(self, how: Hashable, compute: Callable[[], bytes]) -> "Deferred[bytes] | None":
        # Whoever asked may have left before it was its turn.
        return (self._run or deferToThread)(compute) if self._waiting[how] else None

    def _computed(self, result: Any, how: Hashable) -> None:
        if isinstance(result, bytes):
            self._keys[how] = result
            while len(self._keys) > self._kept_max:
                self._keys.popitem(last=False)
        for waiter in list(self._waiting.pop(how)):
            if not waiter.called:  # the one before may have been the end of it
                waiter.callback(result)


def _derive(secret: bytes, salt: bytes, iterations: int, keylen: int) -> bytes:
    return base64.b64encode(hashlib.pbkdf2_hmac("sha256", secret, salt, iterations, keylen))


class DerivedKeys:
    """Keys of salted WAMP-CRA, with PBKDF2, for all users of a method.

    :param kept_max: how many of them are kept.
    :param run: as for :class:`Derived`.
    """

    def __init__(
        self, kept_max: int = KEPT_MAX, run: "Callable[[Callable[[], bytes]], Deferred[bytes]] | None" = None
    ) -> None:
        self._keys = Derived(kept_max, _THREADS, run)

    def get(self, secret: bytes, salt: bytes, iterations: int, keylen: int) -> "bytes | Deferred[bytes]":
        """A key, now or once it is derived.

        :param keylen: octets.
        :returns: the key in Base64, which is how WAMP-CRA uses it.
        """
        names = (secret, salt, b"%d" % iterations, b"%d" % keylen)
        name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in names)).digest()
        return self._keys.get(name, partial(_derive, secret, salt, iterations, keylen))
