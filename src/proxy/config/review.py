"""A second look at a configuration, for what the models let pass: stray keys, keys without effect, and what only
several items together can be wrong in.
"""

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from proxy.config.fields import ID_PATTERN, SERIALIZERS_KNOWN, TRANSLATED, NoEffect, Spoken, StrictModel
from proxy.config.findings import Finding, Place, finding, suggest
from proxy.config.transports import TcpEndpoint, TransportConfig, UniversalTransport, UnixEndpoint
from proxy.config.ways_in import ways_into
from proxy.config.websocket_items import RawSocketKeys
from proxy.config.worker import WorkerConfig


def stray_keys(data: Any, prefix: Place) -> Iterator[Finding]:
    """Warn about keys that no model knows and those that do nothing, and skipped serializers.

    :param data: a worker item as read from the file, valid or not.
    :param prefix: its place in the file.
    """
    yield from _model_keys(WorkerConfig, data, prefix)


def _model_keys(model: type[BaseModel], data: Any, place: Place) -> Iterator[Finding]:
    if not isinstance(data, Mapping):
        return
    fields = {name: (key, field) for key, field in model.model_fields.items() for name in _input_names(key, field)}
    for name, value in data.items():
        here = (*place, name if isinstance(name, (str, int)) else str(name))
        if name not in fields and (issubclass(model, StrictModel) or name in getattr(model, "OF_TRANSPORT", ())):
            continue  # an error, which the model tells
        if name not in fields:
            yield finding(here, value, "unknown key, ignored" + suggest(str(name), fields), "warning")
            continue
        _, field = fields[name]
        yield from _marked(field.metadata, value, here)
        yield from _value_keys(field.annotation, value, here)


def _marked(marks: Iterable[Any], value: Any, place: Place) -> Iterator[Finding]:
    """What the marks of an annotation have to say about the value."""
    for mark in marks:
        if isinstance(mark, NoEffect) and value is not None:
            yield finding(place, value, mark.text, "warning")
        if isinstance(mark, Spoken) and isinstance(value, (list, tuple)):
            yield from _skipped_serializers(value, mark.names, place)


def _input_names(key: str, field: FieldInfo) -> tuple[str, ...]:
    """Names under which a field may be given, the best one to suggest first."""
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(choice for choice in field.validation_alias.choices if isinstance(choice, str))
    return (field.alias or key,)


def _value_keys(annotation: Any, value: Any, place: Place) -> Iterator[Finding]:
    """Follow an annotation to the models in it, beside the value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _marked(arguments[1:], value, place)
        yield from _value_keys(arguments[0], value, place)
    elif origin in (Union, types.UnionType):
        for choice in arguments:
            if _is_meant(choice, value):
                yield from _value_keys(choice, value, place)
    elif origin is dict and isinstance(value, Mapping):
        for name, item in value.items():
            yield from _value_keys(arguments[1], item, (*place, name))
    elif origin is tuple and isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _value_keys(arguments[0], item, (*place, index))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _model_keys(annotation, value, place)


def _is_meant(choice: Any, value: Any) -> bool:
    """Whether the ``type`` in ``value`` picks this member of a union; a model without literal ``type`` always is."""
    if not (isinstance(choice, type) and issubclass(choice, BaseModel) and isinstance(value, Mapping)):
        return get_origin(choice) is Annotated
    field = choice.model_fields.get("type")
    tags = get_args(field.annotation) if field is not None else ()
    return not tags or value.get("type") in tags


def _skipped_serializers(names: Any, spoken: tuple[str, ...], place: Place) -> Iterator[Finding]:
    for index, name in enumerate(names):
        if isinstance(name, str) and name not in spoken and name in SERIALIZERS_KNOWN:
            yield finding((*place, index), name, "stands for nothing here, skipped", "warning")


def names(data: Mapping[str, Any], prefix: Place) -> Iterator[Finding]:
    """Findings about IDs: routes to unknown connections, transport IDs given twice, unusual connection IDs.

    Reads the raw item, so that these are found beside whatever else is wrong.
    """
    connections = data.get("connections")
    known = [name for name in connections if isinstance(name, str)] if isinstance(connections, Mapping) else []
    for name in known:
        if not ID_PATTERN.fullmatch(name):
            text = "expected 3 to 64 lower-case letters, digits or _ that begin with a letter; used as it is"
            yield finding((*prefix, "connections", name), name, text, "warning")
    routes = data.get("routes")
    for realm, roles in routes.items() if isinstance(routes, Mapping) else ():
        yield from _realm(roles, known, (*prefix, "routes", realm))
    yield from _transport_ids(data.get("transports"), prefix)


def _realm(roles: Any, known: list[str], place: Place) -> Iterator[Finding]:
    if not roles:
        yield finding(place, roles, "no roles: nobody can join this realm", "warning")
    for role, value in roles.items() if isinstance(roles, Mapping) else ():
        here = (*place, role)
        if value == []:
            yield finding(here, value, "no connections: this role cannot join", "warning")
        if "*" in here:
            yield finding(here, value, "* is not a wildcard, but a name like any other", "warning")
        for index, name in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            if isinstance(name, str) and name not in known:
                at = here if value is name else (*here, index)
                text = f"expected one of the connections ({', '.join(sorted(known)) or 'there are none'})"
                yield finding(at, name, text + suggest(name, known))


def _transport_ids(transports: Any, prefix: Place) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, item in enumerate(transports if isinstance(transports, (list, tuple)) else ()):
        name = item.get("id", f"transport{index:03d}") if isinstance(item, Mapping) else None
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            text = f"expected an ID of its own, it is that of transports[{seen[name]}]"
            yield finding((*prefix, "transports", index, "id"), name, text)


def connections(config: WorkerConfig, prefix: Place) -> Iterator[Finding]:
    """Findings about keys of valid connections that do nothing beside the others."""
    for name, connection in config.connections.items():
        here = (*prefix, "connections", name)
        transport = connection.transport
        serializer = None if transport.serializer is None else transport.serializer.removesuffix(".batched")
        if serializer is not None and serializer not in TRANSLATED:
            text = f"has no effect: only {', '.join(TRANSLATED)} can be tried in place of a client's own"
            yield finding((*here, "transport", "serializer"), serializer, text, "warning")
        elif serializer is not None and transport.serializers is not None and serializer not in transport.serializers:
            text = "has no effect: serializers leaves it out"
            yield finding((*here, "transport", "serializer"), serializer, text, "warning")
        if transport.type == "rawsocket":
            yield from _announced(connection.limits.max_message_out, here, "router")
        if connection.auth is not None:
            yield from connection.auth.findings((*here, "auth"))


def permits(config: WorkerConfig, prefix: Place) -> Iterator[Finding]:
    """Findings about routes that name what their connections do not permit."""
    for realm, roles in config.routes.items():
        for role, ids in roles.items():
            for name in ids:
                connection = config.connections.get(name)
                if connection is not None and not connection.permit.allows(realm, role):
                    text = f'expected a connection whose permit allows role "{role}" in realm "{realm}"'
                    yield finding((*prefix, "routes", realm, role), name, text)


def _announced(max_message_out: int, place: Place, peer: str) -> Iterator[Finding]:
    if max_message_out:
        text = f"has no effect: a RawSocket {peer} announces its limit itself"
        yield finding((*place, "limits", "max_message_out"), max_message_out, text, "warning")


def transports(config: WorkerConfig, prefix: Place) -> Iterator[Finding]:
    """Findings about valid transports beside each other, and about what they come to."""
    if not config.transports:
        yield Finding("", "", "no transports: nothing to listen on", "warning")
    for index, transport in enumerate(config.transports):
        here = (*prefix, "transports", index)
        yield from _ways(transport, here)
        endpoint = transport.endpoint
        if isinstance(endpoint, TcpEndpoint) and endpoint.port is not None and endpoint.portrange is not None:
            yield finding((*here, "endpoint", "port"), endpoint.port, "ignored: portrange goes first", "warning")
        yield from _address_taken(config.transports, index, here)
        path = None if config.management is None else config.management.path
        if isinstance(endpoint, UnixEndpoint) and endpoint.path == path:
            yield finding((*here, "endpoint", "path"), path, "expected another path: management has it")


def _ways(transport: TransportConfig, place: Place) -> Iterator[Finding]:
    """Findings about how clients get in."""
    parts = {"rawsocket", "websocket", "mqtt", "web"}
    if isinstance(transport, UniversalTransport) and not transport.model_fields_set & parts:
        yield finding(place, {}, "none of rawsocket, websocket, mqtt and web: nobody gets in", "warning")
    for way in ways_into(transport, place):
        if not way.auth.has_method:
            yield finding((*way.place, "auth"), {}, "no method: nobody can log in", "warning")
        limits = getattr(way.item, "limits", None)
        if isinstance(way.item, RawSocketKeys) and limits is not None:
            yield from _announced(limits.max_message_out, way.place, "client")


def _address_taken(items: Sequence[TransportConfig], index: int, place: Place) -> Iterator[Finding]:
    for first in range(index):
        key = _clash(items[first], items[index])
        if key:
            text = f"expected another address: transports[{first}] has it"
            text += " (or shared: true on both)" if key == "port" else ""
            yield finding((*place, "endpoint", key), getattr(items[index].endpoint, key), text)
            return


def _clash(one: TransportConfig, other: TransportConfig) -> str:
    """The endpoint key in which two transports want the same address, or nothing."""
    a, b = one.endpoint, other.endpoint
    if isinstance(a, UnixEndpoint) and isinstance(b, UnixEndpoint):
        return "path" if a.path == b.path else ""
    if not isinstance(a, TcpEndpoint) or not isinstance(b, TcpEndpoint) or (a.shared and b.shared):
        return ""
    if a.portrange is not None or b.portrange is not None or not a.port or a.port != b.port or a.version != b.version:
        return ""
    everywhere = {None, "0.0.0.0", "::"}
    same = a.interface == b.interface or a.interface in everywhere or b.interface in everywhere
    return "port" if same else ""
