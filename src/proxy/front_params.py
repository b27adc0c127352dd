"""What a listening transport does by its configuration: its handshake, and what the data plane is told of it."""

from typing import Any, Final
from urllib.parse import unquote

from proxy import __version__
from proxy.compression import Settings
from proxy.config import EntranceConfig, Limits, RawSocketKeys, TesteeTransport, WebSocketKeys, WebSocketOptions
from proxy.config.fields import subprotocols
from proxy.config.urls import parse_websocket_url
from proxy.handshake import Policy
from proxy.messages import SERIALIZERS
from proxy.plane import CODEC_RS, CODEC_WS

__all__ = ["SERVER_NAME", "SERVER_TEXT", "connection_params", "handshake_policy", "limit_params"]

SERVER_NAME: Final = "wamp-proxy"
SERVER_TEXT: Final = f"{SERVER_NAME}/{__version__}"


def handshake_policy(config: EntranceConfig, *, takes_any_path: bool = False) -> Policy | None:
    """What the opening handshake at an entrance for WebSocket lets in; None for RawSocket.

    :param takes_any_path: its place among several has been found by the path already.
    """
    if isinstance(config, RawSocketKeys):
        return None
    options = config.options
    is_wamp = isinstance(config, WebSocketKeys)
    return Policy(
        path=None if takes_any_path else _path(config.url),
        serializers=subprotocols(config.serializers) if isinstance(config, WebSocketKeys) else tuple(SERIALIZERS),
        allowed_origins=options.allowed_origins,
        allow_null_origin=options.allow_null_origin,
        enable_webstatus=options.enable_webstatus,
        require_subprotocol=is_wamp and options.require_websocket_subprotocol,
        show_server_version=options.show_server_version,
        external_port=options.external_port,
        server_text=SERVER_TEXT,
        compression=_compression(options),
    )


def _compression(options: WebSocketOptions) -> Settings | None:
    """What to negotiate of permessage-deflate; None where it is not configured."""
    if options.compression is None or options.compression.deflate is None:
        return None
    return Settings(**options.compression.deflate.model_dump())


def _path(url: str | None) -> str | None:
    """The only path that clients may ask for, if ``url`` names one; else any will do, as in Crossbar.io."""
    path = unquote(parse_websocket_url(url).resource.partition("?")[0]) if url is not None else "/"
    return path if path != "/" else None


def limit_params(limits: Limits) -> dict[str, Any]:
    """Keywords of add_params() for connections of which no more is known than the transport's limits."""
    return {
        "kind": CODEC_WS,
        "max_out": limits.max_message_out,
        "max_head": limits.max_head_size,
        "high_water": limits.high_water,
        "low_water": limits.low_water,
        "handshake_ms": limits.handshake_timeout,
        "hello_ms": limits.hello_timeout,
        "close_ms": limits.close_timeout,
        "stall_ms": limits.stall_timeout,
    }


def connection_params(config: EntranceConfig, limits: Limits) -> dict[str, Any]:
    """Keywords of add_params() for the connections that come in at an entrance.

    :param limits: that go for them.
    """
    params: dict[str, Any] = limit_params(limits) | {"max_message": config.options.max_message_size}
    if isinstance(config, RawSocketKeys):
        return params | {
            "kind": CODEC_RS,
            "serializers": sum(1 << SERIALIZERS[name] for name in config.serializers),
        }
    options = config.options
    params |= {
        "max_frame": options.max_frame_size,
        "require_mask": options.require_masked_client_frames,
        "mask_out": options.mask_server_frames,
        "apply_mask": options.apply_mask,
        "validate_utf8": options.validate_utf8,
        "any_opcode": isinstance(config, TesteeTransport),
        "auto_fragment": options.auto_fragment_size,
        "fail_by_drop": options.fail_by_drop,
        "echo_close": options.echo_close_codereason,
        "ping_interval_ms": options.auto_ping_interval or 0,
        "ping_timeout_ms": options.auto_ping_timeout or 0,
        "ping_size": options.auto_ping_size,
        "ping_restart_on_traffic": options.auto_ping_restart_on_any_traffic,
    }
    # Crossbar.io's 0 is "no deadline". Here it is "the one of limits": a connection that waits for ever is a leak.
    if options.open_handshake_timeout:
        params["handshake_ms"] = options.open_handshake_timeout
    if options.close_handshake_timeout:
        params["close_ms"] = options.close_handshake_timeout
    return params
