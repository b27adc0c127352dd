"""Keys that are derived from passwords: once, in a thread, and kept.

A derivation is meant to be work: done for each login, it would let anybody keep the proxy busy.
"""

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

__all__ = ["KEPT_MAX", "DerivedKeys"]

KEPT_MAX: Final = 4096
# The threads are shared with whatever else waits in this process, like name resolution.
_THREADS: Final = 2


def _derive(secret: bytes, salt: bytes, iterations: int, keylen: int) -> bytes:
    return base64.b64encode(hashlib.pbkdf2_hmac("sha256", secret, salt, iterations, keylen))


class DerivedKeys:
    """Keys of salted WAMP-CRA, with PBKDF2; the last ones that were asked for.

    :param kept_max: how many of them are kept.
    :param run: calls a function in a thread.
    """

    def __init__(self, kept_max: int = KEPT_MAX, run: Callable[..., "Deferred[bytes]"] = deferToThread) -> None:
        self._kept_max = kept_max
        self._run = run
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._waiting: dict[bytes, list[Deferred[bytes]]] = {}
        self._threads = DeferredSemaphore(_THREADS)

    def get(self, secret: bytes, salt: bytes, iterations: int, keylen: int) -> "bytes | Deferred[bytes]":
        """A key, now or once it is derived.

        :param keylen: octets.
        :returns: the key in Base64, which is how WAMP-CRA uses it.
        """
        names = (secret, salt, b"%d" % iterations, b"%d" % keylen)
        name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in names)).digest()
        key = self._kept.get(name)
        if key is not None:
            self._kept.move_to_end(name)
            return key
        is_new = name not in self._waiting
        waiting = self._waiting.setdefault(name, [])
        answer: Deferred[bytes] = Deferred(waiting.remove)
        waiting.append(answer)
        if is_new:
            work = self._threads.run(self._start, name, (secret, salt, iterations, keylen))
            work.addBoth(lambda result: self._derived(name, result))
        return answer

    def _start(self, name: bytes, arguments: tuple[bytes, bytes, int, int]) -> "Deferred[bytes] | None":
        # Whoever asked may have left before it was its turn.
        return self._run(_derive, *arguments) if self._waiting[name] else None

    def _derived(self, name: bytes, result: "bytes | Failure | None") -> None:
        if isinstance(result, bytes):
            self._kept[name] = result
            if len(self._kept) > self._kept_max:
                self._kept.popitem(last=False)
        waiting = self._waiting.pop(name)
        if result is not None:
            for answer in waiting:
                answer.callback(result)
