"""The configuration file of a worker that runs alone: put into service at the start, and again when it has changed."""

import logging
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from autobahn.util import utcnow
from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks

from proxy.changes import Booked, Change
from proxy.config import ConfigError, Finding, Loaded, WorkerConfig, load
from proxy.errors import AlreadyRunning, FeatureUnavailable, NotRunning, ProxyError
from proxy.management.procedures import Caller, procedure
from proxy.systemd import notify
from proxy.worker import WorkerController

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["ReloadProcedures", "Source"]

log = logging.getLogger(__name__)

# Reloads that wait for the one that is under way; each reads the file anew.
WAITING_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Source:
    """Where a worker's configuration comes from.

    :ivar path: the file, absolute. A symbolic link is followed each time.
    :ivar worker_id: which proxy worker of a node configuration is meant; None: the only one.
    """

    path: Path
    worker_id: str | None = None

    def load(self) -> Loaded:
        """Read and check it.

        :raises ConfigError: with everything that was found.
        """
        try:
            is_file = stat.S_ISREG(self.path.stat().st_mode)
        except OSError:
            is_file = True  # load() says what is wrong
        if not is_file:  # to open a pipe would block
            raise ConfigError([Finding("", str(self.path), "expected a regular file, which can be read again")])
        return load(self.path, self.worker_id)


class ReloadProcedures(WorkerController):
    """What puts a configuration into service, at the start and later.

    :ivar source: the configuration file; None: there is none that this worker would read.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.source: Source | None = None
        self._in_service: WorkerConfig | None = None
        self._booked = Booked()
        self._reloads = DeferredLock()

    @property
    def _controller(self) -> "ProxyController":
        return cast("ProxyController", self)

    def boot(self, config: WorkerConfig) -> "Deferred[None]":
        """Start what the configuration names.

        :returns: fires when all is started; fails with the ProxyError of the first that cannot be, and then nothing is
            started, and no client has been let in.
        """
        done: Deferred[None] = self._reloads.run(self._boot, config)
        return done

    @inlineCallbacks
    def _boot(self, config: WorkerConfig) -> Any:
        self._take(config)
        yield Change(self._controller, self._booked, config).run()

    def _take(self, config: WorkerConfig) -> None:
        self._in_service = config
        self._controller.shutdown_timeout = config.shutdown_timeout / 1000

    @procedure
    def reload_tls(self, details: Caller | None = None) -> dict[str, Any]:
        """Put keys and certificates into use whose files have changed, for handshakes from now on. Connections stay.

        Files are looked at now and then in any case. What cannot be used changes nothing for who names it.

        Publishes on_proxy_tls_reloaded {replaced, who, when}, where anything was replaced.

        :returns: ``replaced``: transports and connections that use new ones; ``kept``: those whose files have not
            changed; ``failed``: by transport or connection, what is wrong with its files.
        """
        report: dict[str, Any] = self._controller.tls_contexts.reload()
        if report["replaced"]:
            self.on_tls_reloaded(report["replaced"], details)
        return report

    def on_tls_reloaded(self, replaced: list[str], details: Caller | None = None) -> None:
        """Certificates were replaced.

        :param replaced: for people, whose: ``transport ws1``.
        :param details: of who asked for it; None: nobody did.
        """
        who = details.caller if details is not None else None
        event = {"replaced": replaced, "who": who, "when": utcnow()}
        self._controller.publish_event("on_proxy_tls_reloaded", event, acknowledge=True)

    @property
    def has_reload_waiting(self) -> bool:
        """Whether the file will be read again anyway, after the reload that is under way."""
        return bool(self._reloads.waiting)

    @procedure
    def reload_config(self, details: Caller | None = None) -> "Deferred[dict[str, Any]]":
        """Read the configuration file again and change the worker to what it says now.

        The fewest objects are started and stopped, and sessions stay. Where something is wrong with the file, or
        something cannot be started, nothing changes. What the management API started and the file does not name stays,
        but for a transport whose address the file names. Certificates are read again, too, see :meth:`reload_tls`.
        One reload is done after the other.

        Publishes on_proxy_config_reloaded {started, stopped, kept, who, when}.

        :returns: fires with ``started`` and ``stopped``: each ``connections`` (ids), ``routes`` (realm -> ids) and
            ``transports`` (ids), with what was replaced in both; ``kept``: the number of each kind that went on as it
            was; ``warnings``: lines for people.
        :raises FeatureUnavailable: the worker has no configuration file of its own.
        :raises AlreadyRunning: too many reloads wait already, or something that is to be replaced starts or stops.
        :raises NotRunning: the worker is shutting down.
        :raises ConfigError: the file cannot be used.
        :raises CannotListen: an address cannot be listened on.
        """
        if self.source is None:
            text = "this worker has no configuration file of its own: the management API or its node configures it"
            raise FeatureUnavailable(text)
        if len(self._reloads.waiting) >= WAITING_MAX:
            raise AlreadyRunning(f"{WAITING_MAX} reloads of the configuration are waiting already")
        done: Deferred[dict[str, Any]] = self._reloads.run(self._reload, self.source, details)
        return done

    @inlineCallbacks
    def _reload(self, source: Source, details: Caller | None) -> Any:
        if self._controller.is_stopping:
            raise NotRunning("the worker is shutting down")
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            result = yield self._change(source, details)
        except ConfigError as error:
            for item in error.findings:
                log.error("%s: %s", source.path, item)
            log.error("%s cannot be used: nothing is changed", source.path)
            raise
        except ProxyError as error:
            log.error("%s cannot be put into service: %s", source.path, error.message)
            raise
        finally:
            if not self._controller.is_stopping:
                notify("READY=1")
        return result

    @inlineCallbacks
    def _change(self, source: Source, details: Caller | None) -> Any:
        controller = self._controller
        loaded = source.load()
        change = Change(controller, self._booked, loaded.config, details)
        yield change.run()
        warnings = [*map(str, loaded.warnings), *self._fixed(loaded.config)]
        for text in warnings:
            log.warning("%s: %s", source.path, text)
        self._take(loaded.config)
        certificates = self.reload_tls(details)
        warnings += [f"{owner} goes on with what it has: {why}" for owner, why in certificates["failed"].items()]
        report = {"started": change.started, "stopped": change.stopped, "kept": self._count_kept(change)}
        log.info("%s is in service: started %s, stopped %s", source.path, change.started, change.stopped)
        who = details.caller if details is not None else None
        event = {**report, "who": who, "when": utcnow()}
        controller.publish_event("on_proxy_config_reloaded", event, acknowledge=True)
        return {**report, "warnings": [*warnings, *change.warnings]}

    def _fixed(self, config: WorkerConfig) -> list[str]:
        """Warnings about changes of keys that a running worker cannot follow."""
        changed = []
        if config.id != self._controller.worker_id:
            changed.append("id")
        if self._in_service is not None and config.management != self._in_service.management:
            changed.append("management")
        return [f"warning: {key}: changed, takes effect when the worker is started again" for key in changed]

    def _count_kept(self, change: Change) -> dict[str, int]:
        controller = self._controller
        routes = sum(len(controller.routes.of_realm(realm)) for realm in controller.routes.realms())
        return {
            "connections": len(controller.connections) - len(change.started["connections"]),
            "routes": routes - sum(map(len, change.started["routes"].values())),
            "transports": len(controller.transports) - len(change.started["transports"]),
        }
