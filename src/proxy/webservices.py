"""Procedures for the services on the paths of web and universal transports: names, shapes and events of Crossbar.io."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.config.redaction import redacted
from proxy.errors import InvalidService, NotRunning
from proxy.management.procedures import Caller, procedure
from proxy.worker import WorkerController

if TYPE_CHECKING:
    from proxy.registry import Registry
    from proxy.transports import ProxyTransport
    from proxy.web.base import WebService
    from proxy.web.site import WebSite

__all__ = ["WebServiceProcedures"]

log = logging.getLogger(__name__)


class WebServiceProcedures(WorkerController):
    """Part of the controller.

    :ivar transports: those in service, by ID.
    """

    transports: "Registry[ProxyTransport]"

    @procedure
    def start_web_transport_service(
        self, transport_id: str, path: str, config: Any, details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Start a service on a path of a web or universal transport.

        A node orders those of its configuration one by one, after their transport. They are in service already; that
        order is answered as if it had been for this.

        :param path: ``info``, or ``a/info`` below a service of type path; ``/`` is the root.
        :param config: of the service, with its ``type``.
        :returns: fires with transport_id, path and config.
        :raises InvalidService: no type.
        :raises InvalidConfiguration: the configuration cannot be used.
        :raises InvalidArgument: no such path is possible.
        :raises NotRunning: there is no such transport, it is not in service, or it has no paths.
        :raises AlreadyRunning: there is a service on the path.
        :raises CannotStart: the service cannot be had.
        """
        if not isinstance(config, Mapping) or "type" not in config:
            raise InvalidService("config: expected a mapping with a type")
        site = self._site(f'cannot start a service on path "{path}"', transport_id)
        started = site.start_service(path, config)
        self.publish_event("on_web_transport_service_starting", transport_id, path, exclude=details)

        def has_started(service: "WebService") -> dict[str, Any]:
            shown = {"transport_id": transport_id, "path": path, "config": redacted(config)}
            self.publish_event("on_web_transport_service_started", transport_id, path, shown, exclude=details)
            log.info("%s started", service.label)
            return shown

        def has_failed(failure: Failure) -> Failure:
            shown = {"transport_id": transport_id, "path": path}
            self.publish_event("on_web_transport_service_stopped", transport_id, path, shown, exclude=details)
            return failure

        return started.addCallbacks(has_started, has_failed)

    @procedure
    def stop_web_transport_service(
        self, transport_id: str, path: str, details: Caller | None = None
    ) -> "Deferred[dict[str, Any]]":
        """Stop a service on a path of a web or universal transport. WAMP sessions over WebSocket that came through it
        stay; those over long-poll end.

        :param path: as for the start.
        :returns: fires with transport_id and path.
        :raises InvalidArgument: no such path is possible.
        :raises NotRunning: there is no such transport or service, or the transport has no paths.
        """
        site = self._site(f'cannot stop the service on path "{path}"', transport_id)
        stopped = site.stop_service(path)
        self.publish_event("on_web_transport_service_stopping", transport_id, path, exclude=details)

        def has_stopped(service: "WebService") -> dict[str, Any]:
            shown = {"transport_id": transport_id, "path": path}
            self.publish_event("on_web_transport_service_stopped", transport_id, path, shown, exclude=details)
            log.info("%s stopped", service.label)
            return shown

        return stopped.addCallback(has_stopped)

    @procedure
    def get_web_transport_service(self, transport_id: str, path: str, details: Caller | None = None) -> dict[str, Any]:
        """One service of a web or universal transport.

        :param path: as for the start.
        :returns: transport_id, path, type and config.
        :raises InvalidArgument: no such path is possible.
        :raises NotRunning: there is no such transport or service, or the transport has no paths.
        """
        site = self._site(f'cannot show the service on path "{path}"', transport_id)
        service = site.service(path)
        config = service.config.model_dump(mode="json", exclude_unset=True, by_alias=True)
        return {"transport_id": transport_id, "path": path, "type": service.TYPE, "config": redacted(config)}

    @procedure
    def get_web_transport_services(self, transport_id: str, details: Caller | None = None) -> list[str]:
        """Paths of a web or universal transport that have a service now, sorted.

        :raises NotRunning: there is no such transport, or it has no paths.
        """
        return sorted(self._site("cannot list services", transport_id).services())

    def _site(self, what: str, transport_id: str) -> "WebSite":
        transport = self.transports.get(transport_id)
        if transport is None:
            raise NotRunning(f'{what}: no transport "{transport_id}"')
        site: WebSite | None = getattr(transport, "site", None)
        if site is None:
            raise NotRunning(
                f'{what}: transport "{transport_id}" is of type {transport.model.type}, which has no paths'
            )
        if not transport.is_started:
            raise NotRunning(f'{what}: transport "{transport_id}" is {transport.state.name.lower()}')
        return site
