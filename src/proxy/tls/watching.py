"""All TLS contexts of a worker: their files are looked at now and then, and what has changed is put into use."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from twisted.internet.task import LoopingCall

from proxy.config.findings import ConfigError
from proxy.config.tls import BackendTls, TlsConfig
from proxy.plane import Plane
from proxy.tls.client import ClientTls
from proxy.tls.context import TlsContext
from proxy.tls.files import Fingerprint
from proxy.tls.server import ALPN, ServerTls

__all__ = ["TlsContexts"]

log = logging.getLogger(__name__)

# How often the files are looked at, seconds. A change is taken once it has lasted from one look to the next: whoever
# replaces a key and a certificate needs a moment for the second of them.
POLL: Final = 5.0
# How soon files that could not be used are tried again although they have not changed, seconds: what was in the way may
# have been something else, a folder's permissions or a lack of descriptors.
RETRY: Final = 60.0
# How old keys of session tickets become, seconds: whoever gets hold of one can read what was sent under it.
TICKET_AGE: Final = 86_400.0
# How long before a certificate expires that is in the log, and how often, seconds.
EXPIRY_NOTICE: Final = 14 * 86_400.0
EXPIRY_PERIOD: Final = 86_400.0

_Context = TypeVar("_Context", bound=TlsContext)


class TlsContexts:
    """The contexts of all transports and connections.

    :param plane: the data plane.
    :param reactor: Twisted's (IReactorTime).
    :param on_replaced: told of the owners whose certificates were replaced because their files had changed.
    :param now: the time of day.
    """

    def __init__(
        self,
        plane: Plane,
        reactor: Any,
        on_replaced: Callable[[list[str]], None] = lambda owners: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._plane = plane
        self._reactor = reactor
        self._on_replaced = on_replaced
        self._now = now
        self._contexts: dict[TlsContext, _Watch] = {}
        self._timer: LoopingCall | None = None

    def serve(self, config: TlsConfig, owner: str, alpn: Sequence[bytes] = ALPN) -> ServerTls:
        """TLS for a listening transport; parameters and errors as of :class:`ServerTls`. To be closed."""
        return self._add(ServerTls(config, self._plane, owner, alpn))

    def dial(self, config: BackendTls, owner: str) -> ClientTls:
        """TLS towards a router; parameters and errors as of :class:`ClientTls`. To be closed."""
        return self._add(ClientTls(config, self._plane, owner))

    def _add(self, context: _Context) -> _Context:
        watch = self._contexts[context] = _Watch(self._reactor.seconds())
        context.on_close = self._forget
        self._tell_of_expiry(context, watch)
        if self._timer is None:
            self._timer = LoopingCall(self._look)
            self._timer.clock = self._reactor
            self._timer.start(POLL, now=False).addErrback(_broken)
        return context

    def _forget(self, context: TlsContext) -> None:
        self._contexts.pop(context, None)
        if not self._contexts and self._timer is not None:
            timer, self._timer = self._timer, None
            timer.stop()

    # --- on request ---

    def reload(self) -> dict[str, Any]:
        """Read all files again that have changed.

        :returns: ``replaced``: owners that use new ones; ``kept``: owners whose have not changed; ``failed``: why those
            of others cannot be used, by owner: they go on with what they have.
        """
        replaced: list[str] = []
        kept: list[str] = []
        failed: dict[str, str] = {}
        for context, watch in list(self._contexts.items()):
            try:
                changed = self._reload(context, watch)
            except ConfigError as error:
                failed[context.owner] = error.message
            else:
                (replaced if changed else kept).append(context.owner)
        return {"replaced": sorted(set(replaced)), "kept": sorted(set(kept)), "failed": failed}

    # --- now and then ---

    def _look(self) -> None:
        replaced = []
        for context, watch in list(self._contexts.items()):
            try:
                if self._look_at(context, watch):
                    replaced.append(context.owner)
            except ConfigError:
                pass  # it is in the log
            except Exception:
                log.exception("error while the certificates of %s were looked at", context.owner)
            self._tell_of_expiry(context, watch)
        if replaced:
            self._on_replaced(sorted(set(replaced)))

    def _look_at(self, context: TlsContext, watch: "_Watch") -> bool:
        if not context.has_changed:
            watch.seen = None
            if self._reactor.seconds() - watch.loaded >= TICKET_AGE:
                watch.loaded = self._reactor.seconds()
                context.reload(force=True)
            return False
        found = context.fingerprint
        if found == watch.failed and self._reactor.seconds() - watch.failed_at < RETRY:
            return False
        if found != watch.failed and found != watch.seen:
            watch.seen = found
            return False
        return self._reload(context, watch, is_retry=True)

    def _reload(self, context: TlsContext, watch: "_Watch", *, is_retry: bool = False) -> bool:
        found = context.fingerprint
        try:
            changed = context.reload()
        except ConfigError as error:
            is_known = (found, error.message) == (watch.failed, watch.why)
            if not (is_retry and is_known):
                log.warning("%s goes on with the certificates that it has: %s", context.owner, error.message)
            watch.failed, watch.why, watch.failed_at = found, error.message, self._reactor.seconds()
            raise
        watch.failed = watch.seen = None
        if changed:
            watch.loaded = self._reactor.seconds()
            watch.told = None
            log.info("%s: the certificates were replaced", context.owner)
            self._tell_of_expiry(context, watch)
        return changed

    def _tell_of_expiry(self, context: TlsContext, watch: "_Watch") -> None:
        seconds = self._reactor.seconds()
        if watch.told is not None and seconds - watch.told < EXPIRY_PERIOD:
            return
        watch.told = seconds
        for path, expires in context.expiries:
            left = (expires - self._now()).total_seconds()
            if left <= 0:
                log.error("%s: the certificate %s has expired (%s)", context.owner, path, _date(expires))
            elif left < EXPIRY_NOTICE:
                days = int(left // 86_400)
                log.warning("%s: the certificate %s expires in %d days (%s)", context.owner, path, days, _date(expires))


class _Watch:
    """What is known of a context's files.

    :ivar loaded: when they were put into use, seconds of the reactor.
    :ivar told: when it was said how long they last.
    :ivar seen: how they were at the last look, where that is not what is in use.
    :ivar failed: how they were when they could not be used; ``failed_at``: when, seconds of the reactor; ``why``: what
        was said.
    """

    __slots__ = ("failed", "failed_at", "loaded", "seen", "told", "why")

    def __init__(self, loaded: float) -> None:
        self.loaded = loaded
        self.told: float | None = None
        self.seen: Fingerprint | None = None
        self.failed: Fingerprint | None = None
        self.failed_at = 0.0
        self.why = ""


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _broken(failure: Any) -> None:
    log.critical("certificates are not watched any more\n%s", failure.getTraceback())
