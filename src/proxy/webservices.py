"""Procedures for the services on the paths of a web transport.

A worker of this version has WebSocket and RawSocket transports, which have no paths. What is asked for their services
is answered as Crossbar.io answers it for such transports.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from proxy.errors import InvalidService, NotRunning
from proxy.management.procedures import Caller, procedure

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["WebServiceProcedures"]


class WebServiceProcedures:
    """Part of the controller.

    :ivar transports: those in service, by ID.
    """

    transports: "Mapping[str, ProxyTransport]"

    @procedure
    def start_web_transport_service(
        self, transport_id: str, path: str, config: Any, details: Caller | None = None
    ) -> dict[str, Any]:
        """Start a service on a path of a web transport.

        :param path: without a slash in front.
        :param config: of the service, with its ``type``.
        :raises InvalidService: no type.
        :raises NotRunning: there is no such transport, or it is no web transport.
        """
        if not isinstance(config, Mapping) or "type" not in config:
            raise InvalidService("config: expected a mapping with a type")
        self._refuse(f'cannot start a service on path "{path}"', transport_id)

    @procedure
    def stop_web_transport_service(self, transport_id: str, path: str, details: Caller | None = None) -> dict[str, Any]:
        """Stop a service on a path of a web transport.

        :raises NotRunning: there is no such transport or service, or it is no web transport.
        """
        self._refuse(f'cannot stop the service on path "{path}"', transport_id)

    @procedure
    def get_web_transport_service(self, transport_id: str, path: str, details: Caller | None = None) -> dict[str, Any]:
        """One service of a web transport.

        :raises NotRunning: there is no such transport or service, or it is no web transport.
        """
        self._refuse(f'cannot show the service on path "{path}"', transport_id)

    @procedure
    def get_web_transport_services(self, transport_id: str, details: Caller | None = None) -> list[str]:
        """Paths of a web transport that have a service, sorted.

        :raises NotRunning: there is no such transport, or it is no web transport.
        """
        self._refuse("cannot list services", transport_id)

    def _refuse(self, what: str, transport_id: str) -> NoReturn:
        transport = self.transports.get(transport_id)
        if transport is None:
            raise NotRunning(f'{what}: no transport "{transport_id}"')
        kind = transport.marshal()["type"]
        raise NotRunning(f'{what}: transport "{transport_id}" is of type {kind}, which has no paths')
