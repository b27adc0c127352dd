"""MQTT on a listening transport: which realm its clients are in, and what becomes of payloads (Crossbar.io's keys)."""

import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, StrictStr, model_validator

from proxy.config.auth import AuthConfig
from proxy.config.fields import Identifier, Model, StrictModel, Text, checked, integer, one_of, problem
from proxy.config.websocket_items import MIB, Limits, SessionIdSource, SubItem
from proxy.messages import is_uri

__all__ = ["DynamicPayload", "MqttItem", "MqttOptions", "NativePayload", "PassthroughPayload", "PayloadItem"]

LIBRARY: Final = "mqtt5"
ROLE_DEFAULT: Final = "anonymous"


def _uri(text: str) -> None:
    if not is_uri(text):
        raise ValueError("expected the URI of a procedure")


_Procedure: TypeAlias = Annotated[Text, checked(_uri)]
_Serializer: TypeAlias = Annotated[
    Literal["cbor", "json", "msgpack", "ubjson"], one_of("cbor", "json", "msgpack", "ubjson")
]


class PassthroughPayload(Model):
    """Payloads go through as they are, for others who know what they are ("Payload Passthru Mode")."""

    type: Literal["passthrough"]


class NativePayload(Model):
    """Payloads hold the arguments of the event, serialized: a dict with ``args`` and ``kwargs``."""

    type: Literal["native"]
    serializer: _Serializer


class DynamicPayload(Model):
    """Procedures make payloads of arguments, and arguments of payloads.

    :ivar encoder: called with topic, URI, args and kwargs, its result is the payload.
    :ivar decoder: called with URI, topic and payload, its result is a dict with ``args`` and ``kwargs``.
    :ivar realm: where they are registered; None: in that of the clients.
    """

    type: Literal["dynamic"]
    encoder: _Procedure
    decoder: _Procedure
    realm: Text | None = None


PayloadItem: TypeAlias = Annotated[
    PassthroughPayload | NativePayload | DynamicPayload, Field(discriminator="type")
]


class MqttOptions(StrictModel):
    """What MQTT clients get. From ``max_packet_size`` on, the keys are not known to Crossbar.io.

    :ivar realm: that all clients are in.
    :ivar role: that they have where ``auth`` is missing; codecs of dynamic payloads are called with it.
    :ivar payload_mapping: by the beginning of the topic's URI, of which the longest one counts; empty: payloads go
        through as they are.
    :ivar auth: how clients log in: ``ticket`` (user name and password), ``anonymous`` (none), ``tls``.
    :ivar max_packet_size: of a client's packets, octets.
    :ivar receive_maximum: publications of a client with QoS 1 or 2 that are under way at a time, at most.
    :ivar max_subscriptions: of a client.
    :ivar queue_limit_bytes: events that wait for a client, octets, and ``queue_limit_messages``: number; then no more
        are taken from its router.
    :ivar session_ids: who chooses the IDs of the clients' WAMP sessions.
    """

    realm: Text
    role: Text = ROLE_DEFAULT
    payload_mapping: dict[StrictStr, PayloadItem] = Field(default_factory=dict)
    auth: AuthConfig
    max_packet_size: Annotated[int, integer(256, 8 * MIB, "octets")] = MIB
    receive_maximum: Annotated[int, integer(1, 65_535)] = 100
    max_subscriptions: Annotated[int, integer(1, 100_000)] = 1000
    queue_limit_bytes: Annotated[int, integer(1024, 64 * MIB, "octets")] = MIB
    queue_limit_messages: Annotated[int, integer(1, 1_000_000)] = 1000
    session_ids: SessionIdSource = "router"

    @model_validator(mode="before")
    @classmethod
    def _everybody_without_auth(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("auth") is not None:
            return value
        return {**value, "auth": {"anonymous": {"type": "static", "role": value.get("role") or ROLE_DEFAULT}}}


class MqttKeys(Model):
    """What MQTT has, on a transport of its own or as a part of one."""

    type: Literal["mqtt"] = "mqtt"
    options: MqttOptions

    @model_validator(mode="before")
    @classmethod
    def _has_its_library(cls, value: Any) -> Any:
        if importlib.util.find_spec(LIBRARY) is None:
            raise problem(f"needs the Python package {LIBRARY}: install wamp-proxy[mqtt]", "type")
        return value


class MqttItem(SubItem, MqttKeys):
    """MQTT beside other ways in.

    :ivar limits: None: those of the transport.
    """

    id: Identifier | None = None
    limits: Limits | None = None
