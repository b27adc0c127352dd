"""The worker item: connections, routes and transports together."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictStr, model_validator

from proxy.config.connections import ConnectionConfig
from proxy.config.fields import Identifier, Model, NoEffect, Text, integer, problem
from proxy.config.management import ManagementConfig
from proxy.config.transports import TransportConfig


def _with_ids(transports: Any) -> Any:
    """Name the transports that have no ID after their place, as Crossbar.io does."""
    if not isinstance(transports, (list, tuple)):
        return transports
    return [
        {**item, "id": f"transport{index:03d}"} if isinstance(item, Mapping) and "id" not in item else item
        for index, item in enumerate(transports)
    ]


def _connection_ids(value: Any) -> Any:
    """A lone connection ID is a list of one."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple)):
        return value
    raise problem("expected a connection ID or a list of them")


ConnectionIds = Annotated[tuple[Text, ...], BeforeValidator(_connection_ids)]


class WorkerConfig(Model):
    """A proxy worker.

    :ivar id: the worker's ID.
    :ivar options: options of the process, applied by the Crossbar.io node that starts the worker.
    :ivar routes: realm -> authrole -> connection IDs, used in turn. A role without connections has been left out.
    :ivar management: where the management API is to be had; None: nowhere. Not known to Crossbar.io.
    :ivar shutdown_timeout: how long sessions may take to end after SIGTERM, ms. Not known to Crossbar.io.
    """

    type: Literal["proxy"] = "proxy"
    id: Identifier = "worker001"
    options: Annotated[
        dict[StrictStr, Any], NoEffect("accepted, has no effect: applied by the Crossbar.io node that starts a worker")
    ] = Field(default_factory=dict)
    manhole: Annotated[Any, NoEffect()] = None
    connections: dict[Text, ConnectionConfig] = Field(default_factory=dict)
    routes: dict[Text, dict[Text, ConnectionIds]] = Field(default_factory=dict)
    transports: Annotated[tuple[TransportConfig, ...], BeforeValidator(_with_ids)] = ()
    management: ManagementConfig | None = None
    shutdown_timeout: Annotated[int, integer(1, 600_000, "ms")] = 5_000

    @model_validator(mode="after")
    def _used_routes_only(self) -> "WorkerConfig":
        for roles in self.routes.values():
            for role in [role for role, ids in roles.items() if not ids]:
                del roles[role]
        return self
