"""What every native process of a node offers: a place on the management realm, and events to those who listen.

Names are those of Crossbar.io's classes, which a node knows.
"""

import argparse
import gc
import logging
import math
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

import psutil
from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from proxy.errors import AlreadyStarted, InvalidArgument, NotStarted
from proxy.management.procedures import Caller, procedure
from proxy.management.session import Carrier
from proxy.manhole import Manhole, require_conch
from proxy.processinfo import Cpus, ProcessMonitor, process_info, process_stats, timestamp

__all__ = ["NativeProcess"]

log = logging.getLogger(__name__)

_NO_EXTRA = argparse.Namespace()

# Between two events with statistics, seconds.
STATS_INTERVAL_MIN: Final = 0.01
STATS_INTERVAL_MAX: Final = 86_400.0


class NativeProcess(ApplicationSession):
    """A process of a node, and its session on the node's management realm.

    Without a node it is not joined to anything, and other carriers bring the calls.

    :param config: as a node's worker has it: ``realm``, and ``extra`` with ``node``, ``worker`` and ``cbdir``.
    :param reactor: Twisted's reactor; None: the one that is installed.
    :param personality: the node's; nothing here depends on it.
    :param worker_id: id of the worker, where ``config`` names none.
    :param node_id: id of the node, likewise; default: the host's name.

    :ivar cbdir: the node's folder; relative paths start here.
    :ivar uri_prefix: of all procedures and topics.
    :ivar carriers: the ways on which the management API travels at present.
    """

    WORKER_TYPE: ClassVar[str] = "native"

    def __init__(
        self,
        config: ComponentConfig | None = None,
        reactor: Any = None,
        personality: Any = None,
        *,
        worker_id: str | None = None,
        node_id: str | None = None,
    ) -> None:
        super().__init__(config)
        if reactor is None:
            from twisted.internet import reactor
        extra = config.extra if config is not None and config.extra is not None else _NO_EXTRA
        self.reactor = reactor
        self.personality = personality
        self.worker_id: str = getattr(extra, "worker", None) or worker_id or "worker001"
        self.node_id: str = getattr(extra, "node", None) or node_id or socket.gethostname().lower()
        self.cbdir = Path(getattr(extra, "cbdir", None) or Path.cwd())
        self.uri_prefix = f"crossbar.worker.{self.worker_id}"
        self.carriers: list[Carrier] = []
        self._began = time.time()
        self._began_monotonic = time.monotonic()
        self._cpus = Cpus()
        self._process = psutil.Process()
        self._monitor = ProcessMonitor(self.WORKER_TYPE)
        self._stats_loop: LoopingCall | None = None
        self._stats_count = 0
        self._manhole: Manhole | None = None

    def publish_event(self, name: str, *args: Any, exclude: Caller | None = None, acknowledge: bool = False) -> None:
        """Publish an event to whoever listens, on every carrier.

        :param name: last part of the topic.
        :param args: positional arguments of the event.
        :param exclude: a caller that does not get it.
        :param acknowledge: ask the router for an acknowledgement; a failure is logged.
        """
        topic = f"{self.uri_prefix}.{name}"
        for carrier in list(self.carriers):
            is_here = exclude is not None and exclude.carrier in (None, carrier)
            excluded = exclude.caller if exclude is not None and is_here else None
            try:
                carrier.publish_event(topic, args, excluded, acknowledge)
            except Exception:
                # What the event tells of happens all the same, and the other carriers tell of it.
                log.exception("event %s is not published", topic)

    def onUserError(self, fail: Failure, msg: str) -> None:
        """What autobahn does not know where to put. Errors of procedures are the caller's and need no log."""
        if isinstance(fail.value, ApplicationError):
            log.debug("%s: %s", msg, fail.value)
        else:
            log.error("%s\n%s", msg, fail.getTraceback())

    def _in_thread(self, function: Callable[[], Any]) -> "Deferred[Any]":
        """Do what takes long where the reactor does not wait for it."""
        done: Deferred[Any] = deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function)
        return done

    # --- CPUs ---

    @procedure
    def get_cpu_count(self, logical: bool = True, details: Caller | None = None) -> int | None:
        """Number of the machine's CPUs.

        :param logical: count each thread of a core; else each core.
        :returns: null where the system does not tell.
        """
        count: int | None = psutil.cpu_count(logical=logical)
        return count

    @procedure
    def get_cpus(self, details: Caller | None = None) -> list[int]:
        """IDs of the CPUs that the process was allowed to use when it started, sorted."""
        return list(self._cpus.ids)

    @procedure
    def get_cpu_affinity(self, details: Caller | None = None) -> list[int]:
        """IDs of the CPUs that the process may use now, sorted."""
        return self._cpus.get()

    @procedure
    def set_cpu_affinity(self, cpus: list[int], relative: bool = True, details: Caller | None = None) -> list[int]:
        """Bind all threads of the process, those of the data plane too, to CPUs. Publishes on_cpu_affinity_set.

        :param cpus: indices into what get_cpus returns, or, if not ``relative``, IDs of CPUs.
        :returns: IDs of the CPUs that the process may use now, sorted.
        :raises InvalidArgument: an index that there is not.
        :raises OperationFailed: the system refuses, and nothing has changed.
        """
        affinity = self._cpus.set(cpus, relative=relative)
        event = {"cpus": cpus, "relative": relative, "affinity": affinity, "who": _who(details)}
        self.publish_event("on_cpu_affinity_set", event, exclude=details)
        return affinity

    # --- what it takes ---

    @procedure
    def get_process_info(self, details: Caller | None = None) -> "Deferred[dict[str, Any]]":
        """Open descriptors and threads (numbers), files (paths) and sockets, as :func:`process_info` has them."""
        return self._in_thread(lambda: process_info(self._process))

    @procedure
    def get_process_stats(self, details: Caller | None = None) -> dict[str, Any]:
        """CPU, memory, context switches and I/O, as :func:`process_stats` has them."""
        return process_stats(self._process)

    @procedure
    def get_process_monitor(self, details: Caller | None = None) -> "Deferred[dict[str, Any]]":
        """Numbers of the process, and from the second call on what they grew by per second since the call before."""

        def add_rates(current: dict[str, Any]) -> dict[str, Any]:
            return self._monitor.add_rates(current, time.time_ns())

        return self._in_thread(self._monitor.read).addCallback(add_rates)

    @procedure
    def set_process_stats_monitoring(self, interval: float, details: Caller | None = None) -> None:
        """Publish on_process_stats time and again: what get_process_stats returns, and ``seq``, which counts them.

        Publishes on_process_stats_monitoring_set with 0 if it was on, and with the interval if it is on now.

        :param interval: seconds between two of them; 0: no more of them.
        :raises InvalidArgument: not a number, or out of range.
        """
        if not math.isfinite(interval) or (interval and not STATS_INTERVAL_MIN <= interval <= STATS_INTERVAL_MAX):
            raise InvalidArgument(
                f"interval: {interval}: expected 0 (off), or a number from {STATS_INTERVAL_MIN:g} to "
                f"{STATS_INTERVAL_MAX:g} (seconds)"
            )
        if self._stats_loop is not None:
            self._stats_loop.stop()
            self._stats_loop = None
            self.publish_event("on_process_stats_monitoring_set", 0, exclude=details)
        if interval:
            self._stats_loop = LoopingCall(self._publish_stats)
            self._stats_loop.clock = self.reactor
            self._stats_loop.start(interval)
            self.publish_event("on_process_stats_monitoring_set", interval, exclude=details)

    def _publish_stats(self) -> None:
        try:
            stats = process_stats(self._process)
        except psutil.Error as error:
            log.warning("no statistics of the process this time: %s", error)
            return
        self._stats_count += 1
        self.publish_event("on_process_stats", {**stats, "seq": self._stats_count})

    @procedure
    def trigger_gc(self, details: Caller | None = None) -> int:
        """Collect garbage. Publishes on_gc_finished.

        :returns: how long it took, ms.
        """
        began = time.perf_counter()
        gc.collect()
        duration = round(1000 * (time.perf_counter() - began))
        requester = {
            "session_id": _who(details),
            "auth_id": details.caller_authid if details is not None else None,
            "auth_role": details.caller_authrole if details is not None else None,
        }
        self.publish_event("on_gc_finished", {"requester": requester, "duration": duration}, exclude=details)
        return duration

    # --- a way in for those who debug it ---

    @procedure
    def start_manhole(self, config: Any, details: Caller | None = None) -> dict[str, Any]:
        """Open a Python prompt in this process, over SSH. Publishes on_manhole_starting and on_manhole_started.

        The caller gets a progressive result, if it takes them, instead of the first of these events.

        :param config: as :class:`proxy.manhole.ManholeConfig`.
        :returns: the manhole as :meth:`Manhole.marshal` shows it.
        :raises FeatureUnavailable: packages are missing.
        :raises AlreadyStarted: there is one.
        :raises InvalidConfiguration: the configuration cannot be used.
        :raises CannotListen: its address cannot be listened on.
        :raises CannotStart: the host key cannot be read or made.
        """
        require_conch()
        if self._manhole is not None:
            raise AlreadyStarted(f"the manhole is {self._manhole.status} already")
        manhole = Manhole(self.reactor, config, self.cbdir, {"session": self, "worker": self})
        self._tell("on_manhole_starting", manhole.marshal(), details)
        manhole.start()
        self._manhole = manhole
        shown = manhole.marshal()
        self.publish_event("on_manhole_started", shown, exclude=details)
        return shown

    @procedure
    def stop_manhole(self, details: Caller | None = None) -> "Deferred[None]":
        """Close the manhole, with all connections to it. Publishes on_manhole_stopping and on_manhole_stopped, of null.

        :raises NotStarted: there is none, or it is about to be closed.
        """
        manhole = self._manhole
        if manhole is None or manhole.status != "started":
            raise NotStarted("the manhole is not started" if manhole is None else f"the manhole is {manhole.status}")
        self._tell("on_manhole_stopping", None, details)

        def has_stopped(_: None) -> None:
            self._manhole = None
            self.publish_event("on_manhole_stopped", None, exclude=details)

        return manhole.stop().addCallback(has_stopped)

    def _tell(self, name: str, shown: Any, details: Caller | None) -> None:
        """Tell the caller by a progressive result, if it takes them, and everybody else by an event."""
        if details is not None and details.progress is not None:
            details.progress(shown)
        self.publish_event(name, shown, exclude=details)

    @procedure
    def get_manhole(self, details: Caller | None = None) -> dict[str, Any] | None:
        """The manhole as :meth:`Manhole.marshal` shows it; null if there is none.

        :raises FeatureUnavailable: packages are missing.
        """
        require_conch()
        return self._manhole.marshal() if self._manhole is not None else None

    # --- time ---

    @procedure
    def utcnow(self, details: Caller | None = None) -> str:
        """This moment by the clock of this machine (ISO 8601, UTC)."""
        return timestamp()

    @procedure
    def started(self, details: Caller | None = None) -> str:
        """When the process began to be a worker (ISO 8601, UTC)."""
        return timestamp(self._began)

    @procedure
    def uptime(self, details: Caller | None = None) -> float:
        """Seconds since then."""
        return time.monotonic() - self._began_monotonic


def _who(details: Caller | None) -> int | None:
    return details.caller if details is not None else None
