"""What every native worker of a node offers: joining the management realm, being ready, and shutting down."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

from autobahn.exception import Disconnected
from autobahn.util import utcnow
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig, PublishOptions, SessionDetails
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from proxy.errors import InvalidArgument, OperationFailed
from proxy.management.procedures import Caller, procedure
from proxy.management.session import SessionCarrier
from proxy.process import NativeProcess
from proxy.profiling import Profilers

__all__ = ["WorkerController"]

log = logging.getLogger(__name__)

PROFILE_SECONDS_MAX: Final = 3600.0

# How long the node may take to answer the worker's goodbye, seconds.
LEAVE_TIMEOUT: Final = 5.0


class WorkerController(NativeProcess):
    """A worker that a node started, or that runs alone.

    Parameters as :class:`NativeProcess`.

    :ivar is_ready: the node knows that the worker is.
    :ivar on_ready: called then.
    """

    WORKER_TYPE: ClassVar[str] = "native"
    WORKER_TITLE: ClassVar[str] = "Native worker"

    def __init__(
        self, config: ComponentConfig | None = None, reactor: Any = None, personality: Any = None, **names: Any
    ) -> None:
        super().__init__(config, reactor, personality, **names)
        self._profilers = Profilers(self.reactor)
        self._own_carrier: SessionCarrier | None = None
        self._is_shutdown_requested = False
        self.is_ready = False
        self.on_ready: Callable[[], None] = lambda: None

    # --- the session on the node's management realm ---

    @property
    def is_shutdown_requested(self) -> bool:
        """Whether the end was asked for, by a call or by SIGTERM."""
        return self._is_shutdown_requested

    def onConnect(self) -> None:
        """The way to the node is open: join its management realm."""
        self.join(self.config.realm)

    def onJoin(self, details: SessionDetails) -> "Deferred[None]":
        """Offer the procedures, and tell the node that the worker is ready. A worker that cannot do so ends."""
        done: Deferred[None] = self._get_ready()
        return done.addErrback(self._cannot_get_ready)

    @inlineCallbacks
    def _get_ready(self) -> Any:
        self.prepare()
        carrier = SessionCarrier(self, self, self.uri_prefix)
        yield carrier.register()
        self.carriers.append(carrier)
        self._own_carrier = carrier
        signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            public_key = yield self.call("crossbar.get_public_key")
        except ApplicationError as error:
            if error.error != ApplicationError.NOT_AUTHORIZED:
                raise
            text = "it may not ask for the node's public key; does options.expose_controller of the worker say false?"
            raise ApplicationError(error.error, text) from error
        self.on_node_key(public_key)
        yield self.publish_ready()
        self.is_ready = True
        log.info("%s %s is ready on node %s", self.WORKER_TITLE, self.worker_id, self.node_id)
        self.on_ready()

    def _cannot_get_ready(self, failure: Failure) -> None:
        error: Any = failure.value
        told = error.error_message() if failure.check(ApplicationError) else failure.getErrorMessage()
        log.critical("the worker cannot get ready for its node: %s", told)
        self.onDisconnect()

    def prepare(self) -> None:
        """Called before the first procedure can be called over the node's management realm."""

    def on_node_key(self, public_key: str) -> None:
        """The node told its public key (hex)."""

    @inlineCallbacks
    def publish_ready(self) -> Any:
        """Publish on_worker_ready: the node's start_worker returns with it, and configures the worker."""
        ready = {"type": self.WORKER_TYPE, "id": self.worker_id, "pid": os.getpid()}
        yield self.publish(f"{self.uri_prefix}.on_worker_ready", ready, options=PublishOptions(acknowledge=True))

    def onLeave(self, details: Any) -> None:
        """The node let the worker go, or does not take it."""
        if not self.is_ready:
            told = f"{details.reason}: {details.message or 'no message'}"
            log.critical("the node ended the worker's session before it was ready: %s", told)
        self._forget_carrier()
        self.disconnect()

    def onDisconnect(self) -> None:
        """Without its node a worker has nobody to answer to: it ends, its sessions in order."""
        self._forget_carrier()
        try:
            self.reactor.stop()
        except ReactorNotRunning:
            pass

    def _forget_carrier(self) -> None:
        carrier, self._own_carrier = self._own_carrier, None
        if carrier is not None:
            self.carriers.remove(carrier)

    def _on_sigterm(self, number: int, frame: object) -> None:
        self.reactor.callFromThread(self.shutdown)

    # --- the end ---

    def before_end(self) -> "Deferred[Any]":
        """What is to be done before the worker leaves its node. Fires when it is done; never fails."""
        return succeed(None)

    def end(self) -> None:
        """Do what is to be done, and leave the node; the process ends with that."""
        self.before_end().addBoth(lambda _: self._leave_node())

    def _leave_node(self) -> None:
        if not self.is_attached():
            self.onDisconnect()
            return
        try:
            self.leave()
        except Disconnected:
            pass  # the node is closing the connection already
        # A node that does not answer is not waited for; onDisconnect() does nothing the second time.
        self.reactor.callLater(LEAVE_TIMEOUT, self.onDisconnect)

    # --- procedures ---

    @procedure
    def shutdown(self, details: Caller | None = None) -> None:
        """End the worker in order. A second call does nothing.

        Publishes on_shutdown_requested {who, when}, and returns before anything ends.
        """
        if self._is_shutdown_requested:
            return
        self._is_shutdown_requested = True
        who = details.caller if details is not None else None
        event = {"who": who, "when": utcnow()}
        self.publish_event("on_shutdown_requested", event, exclude=details, acknowledge=True)
        # The answer to this call, and the event, are to leave before the session does.
        self.reactor.callLater(0, self.end)

    @procedure
    def set_node_id(self, node_id: str, details: Caller | None = None) -> None:
        """Change the ID of the node that the worker says it belongs to."""
        self.node_id = node_id

    @procedure
    def get_node_id(self, details: Caller | None = None) -> str:
        """The ID of the node."""
        return self.node_id

    # --- profilers ---

    @procedure
    def get_profilers(self, details: Caller | None = None) -> list[dict[str, Any]]:
        """The profilers that there are, as :meth:`Profilers.marshal` shows them."""
        return self._profilers.marshal()

    @procedure
    def start_profiler(
        self,
        profiler: str | None = None,
        runtime: float = 10,
        start_async: bool = True,
        details: Caller | None = None,
    ) -> Any:
        """Profile the control plane for a while. Publishes on_profile_started and on_profile_finished.

        :param profiler: id of one of them; null: ``vmprof`` if it is there, else another one.
        :param runtime: seconds.
        :param start_async: return at once; the profile is for get_profile and in the event. Else return the profile,
            and exclude the caller from both events.
        :returns: the content of on_profile_started, or the profile.
        :raises NoSuchObject: there is no such profiler.
        :raises AlreadyRunning: one is running.
        :raises CannotStart: something is in its way.
        :raises InvalidArgument: ``runtime`` is out of range.
        """
        if not 0 < runtime <= PROFILE_SECONDS_MAX:  # refuses what is no number, too
            expected = f"expected a number greater than 0, at most {PROFILE_SECONDS_MAX:g} (seconds)"
            raise InvalidArgument(f"runtime: {runtime}: {expected}")
        name = profiler or self._profilers.default
        profile_id, done = self._profilers.start(name, runtime)
        excluded = None if start_async else details
        started = {
            "id": profile_id,
            "who": details.caller if details is not None else None,
            "profiler": name,
            "runtime": runtime,
            "async": start_async,
        }
        self.publish_event("on_profile_started", started, exclude=excluded)

        def finished(profile: Any) -> Any:
            has_failed = isinstance(profile, Failure)
            error = f"{type(profile.value).__name__}: {profile.getErrorMessage()}" if has_failed else None
            event = {"id": profile_id, "error": error, "profile": None if has_failed else profile}
            self.publish_event("on_profile_finished", event, exclude=excluded)
            if error is not None:
                raise OperationFailed(f'profile {profile_id} of profiler "{name}" has failed: {error}')
            return profile

        done.addBoth(finished)
        if not start_async:
            return done
        done.addErrback(lambda failure: log.warning("%s", failure.getErrorMessage()))
        return started

    @procedure
    def get_profile(self, profile_id: str, details: Caller | None = None) -> dict[str, Any]:
        """A profile that is finished: id, profiler, runtime and profile.

        :raises NoSuchObject: it was never made, is not finished, or is too old.
        """
        return self._profilers.get(profile_id)

    # --- where Python looks for modules ---

    @procedure
    def get_pythonpath(self, details: Caller | None = None) -> list[str]:
        """The folders that Python searches for modules."""
        return list(sys.path)

    @procedure
    def add_pythonpath(self, paths: list[str], prepend: bool = True, details: Caller | None = None) -> dict[str, Any]:
        """Have Python search more folders. Publishes on_pythonpath_add with the result.

        :param paths: relative ones start in the node's folder. One that is there already changes its place.
        :param prepend: search them first; else last.
        :returns: paths, paths_added (requested and resolved of each), prepend, who.
        :raises InvalidArgument: one of them is not a folder; none is added.
        """
        added = [{"requested": path, "resolved": str(self._folder(path))} for path in paths]
        resolved = list(dict.fromkeys(item["resolved"] for item in added))
        others = [path for path in sys.path if path not in resolved]
        sys.path[:] = [*resolved, *others] if prepend else [*others, *resolved]
        result = {
            "paths": list(sys.path),
            "paths_added": added,
            "prepend": prepend,
            "who": details.caller if details is not None else None,
        }
        self.publish_event("on_pythonpath_add", result, exclude=details)
        return result

    def _folder(self, path: str) -> Path:
        resolved = Path(os.path.normpath(self.cbdir.absolute() / path))
        if "\0" in path or not resolved.is_dir():
            text = f'paths: "{path}": expected a folder, {resolved} is none'
            raise InvalidArgument(text, requested=path, resolved=str(resolved))
        return resolved
