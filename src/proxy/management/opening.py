"""Where the management API of a worker without a node is to be had, as its configuration says."""

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, maybeDeferred

if TYPE_CHECKING:
    from proxy.config.management import ManagementConfig
    from proxy.controller import ProxyController

__all__ = ["Management", "open_management"]


class Management(Protocol):
    """An open way to the management API."""

    def close(self) -> "Deferred[None]":
        """Say goodbye to whoever uses it, and close it: last of all, so that the worker's end can be followed.

        :returns: fires once that is done, within a few seconds; never fails.
        """


class _None:
    """No management API."""

    def close(self) -> "Deferred[None]":
        """See :class:`Management`."""
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


def open_management(controller: "ProxyController", config: "ManagementConfig | None") -> "Deferred[Management]":
    """Open the management API.

    :param controller: the worker.
    :param config: ``management`` of its configuration; None: there is none.
    :returns: fires with what closes it again; fails with CannotListen (the path cannot be listened on), or
        FeatureUnavailable (no serializer that is spoken here). A router that cannot be reached is no failure:
        it is tried again for as long as the worker runs.
    """
    return maybeDeferred(_open, controller, config)


def _open(controller: "ProxyController", config: "ManagementConfig | None") -> Management:
    # Imported late: the procedures, which everything here needs, are of this package too.
    if config is None:
        return _None()
    if config.path is not None:
        from proxy.management.unixsocket import ManagementSocket

        socket = ManagementSocket(controller, config)
        socket.open()
        return socket
    from proxy.management.remote import RemoteManagement

    remote = RemoteManagement(controller, config)
    remote.open()
    return remote
