"""All ways in for WAMP clients that a configuration has, wherever they are: on transports, and on paths of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from proxy.config.auth import AuthConfig
from proxy.config.findings import Place
from proxy.config.mqtt import MqttOptions
from proxy.config.transports import MqttTransport, TesteeTransport, TransportConfig, UniversalTransport, WebTransport
from proxy.config.web import LongPollConfig, PathConfig
from proxy.config.websocket_items import RawSocketKeys, WebSocketKeys
from proxy.config.worker import WorkerConfig

__all__ = ["WayIn", "ways_in", "ways_into"]

_WampItem: TypeAlias = WebSocketKeys | RawSocketKeys | LongPollConfig | MqttOptions


@dataclass(frozen=True, slots=True)
class WayIn:
    """One of them.

    :ivar item: its configuration.
    :ivar place: of that in the file.
    """

    item: _WampItem
    place: Place

    @property
    def auth(self) -> AuthConfig:
        """How clients log in there."""
        return self.item.auth


def ways_in(config: WorkerConfig, prefix: Place) -> Iterator[WayIn]:
    """Those of a worker.

    :param prefix: place of the worker in the file.
    """
    for index, transport in enumerate(config.transports):
        yield from ways_into(transport, (*prefix, "transports", index))


def ways_into(transport: TransportConfig, place: Place) -> Iterator[WayIn]:
    """Those of a transport.

    :param place: of the transport in the file.
    """
    if isinstance(transport, TesteeTransport):
        return
    if isinstance(transport, WebTransport):
        yield from _on_paths(transport.paths, (*place, "paths"))
    elif isinstance(transport, UniversalTransport):
        if transport.rawsocket is not None:
            yield WayIn(transport.rawsocket, (*place, "rawsocket"))
        for path, item in transport.websocket.items():
            yield WayIn(item, (*place, "websocket", path))
        if transport.web is not None:
            yield from _on_paths(transport.web.paths, (*place, "web", "paths"))
        if transport.mqtt is not None:
            yield WayIn(transport.mqtt.options, (*place, "mqtt", "options"))
    elif isinstance(transport, MqttTransport):
        yield WayIn(transport.options, (*place, "options"))
    else:
        yield WayIn(transport, place)


def _on_paths(paths: Mapping[str, Any], place: Place) -> Iterator[WayIn]:
    for path, service in paths.items():
        here = (*place, path)
        if isinstance(service, PathConfig):
            yield from _on_paths(service.paths, (*here, "paths"))
        elif isinstance(service, WebSocketKeys | LongPollConfig):
            yield WayIn(service, here)
