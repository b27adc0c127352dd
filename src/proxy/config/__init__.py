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
    Limits,
    RawSocketOptions,
    RawSocketTransport,
    TcpEndpoint,
    TesteeTransport,
    TransportConfig,
    UnixEndpoint,
    WebSocketOptions,
    WebSocketTransport,
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
    "Finding",
    "Limits",
    "Loaded",
    "Permit",
    "RawSocketOptions",
    "RawSocketTransport",
    "TcpEndpoint",
    "TesteeTransport",
    "TransportConfig",
    "UnixEndpoint",
    "WebSocketOptions",
    "WebSocketTransport",
    "WorkerConfig",
    "check",
    "checked",
    "load",
]
