"""The configuration: models with Crossbar.io's keys, loading and checking."""

from proxy.config.auth import AnonymousStatic, AuthConfig
from proxy.config.connections import (
    BackendOptions,
    BackendTcp,
    BackendTimeouts,
    BackendTransport,
    BackendUnix,
    ConnectionConfig,
)
from proxy.config.credentials import Account, BackendAnonymous, BackendAuth, Permit
from proxy.config.findings import ConfigError, Finding
from proxy.config.loading import Loaded, check, checked, load
from proxy.config.transports import (
    Endpoint,
    EntranceConfig,
    MqttTransport,
    OnionEndpoint,
    RawSocketTransport,
    TcpEndpoint,
    TesteeTransport,
    TransportConfig,
    TwistedEndpoint,
    UniversalTransport,
    UnixEndpoint,
    WebItem,
    WebSocketTransport,
    WebTransport,
)
from proxy.config.websocket_items import (
    Limits,
    RawSocketItem,
    RawSocketKeys,
    RawSocketOptions,
    WebSocketItem,
    WebSocketKeys,
    WebSocketOptions,
)
from proxy.config.worker import WorkerConfig

__all__ = [
    "Account",
    "AnonymousStatic",
    "AuthConfig",
    "BackendAnonymous",
    "BackendAuth",
    "BackendOptions",
    "BackendTcp",
    "BackendTimeouts",
    "BackendTransport",
    "BackendUnix",
    "ConfigError",
    "ConnectionConfig",
    "Endpoint",
    "EntranceConfig",
    "Finding",
    "Limits",
    "Loaded",
    "MqttTransport",
    "OnionEndpoint",
    "Permit",
    "RawSocketItem",
    "RawSocketKeys",
    "RawSocketOptions",
    "RawSocketTransport",
    "TcpEndpoint",
    "TesteeTransport",
    "TransportConfig",
    "TwistedEndpoint",
    "UniversalTransport",
    "UnixEndpoint",
    "WebItem",
    "WebSocketItem",
    "WebSocketKeys",
    "WebSocketOptions",
    "WebSocketTransport",
    "WebTransport",
    "WorkerConfig",
    "check",
    "checked",
    "load",
]
