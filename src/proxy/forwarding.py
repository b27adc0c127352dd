"""What the two sides are told of each other: HELLO for the router, WELCOME for the client.

The router trusts the proxy, so nothing of the client may pass for the proxy's own word; and what the proxy tells the
router about the client is not sent back to the client.
"""

import os
import threading
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Final

from proxy.auth.base import Accept, forwarded_authextra
from proxy.auth.routers import Client
from proxy.config.auth import is_relayable
from proxy.messages import (
    SERIALIZER_NAMES,
    SUBPROTOCOL_NAMES,
    MessageError,
    MessageType,
    Welcome,
    abort,
    encode,
    goodbye,
)
from proxy.peers import TlsInfo
from proxy.plane import CODEC_WS
from proxy.tls.details import for_routers, peer_details

__all__ = [
    "AGENT",
    "backend_hello",
    "encoded_goodbye",
    "forwarded_headers",
    "front_welcome",
    "leave_taking",
    "relayed_hello",
    "relayed_welcome",
    "transport_details",
]

AGENT: Final = "wamp-proxy"

# The client's HTTP headers that its router is told. All others may carry secrets (Cookie, Authorization and the like).
FORWARDED_HEADERS: Final = (
    "host",
    "origin",
    "user-agent",
    "accept-language",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "sec-websocket-extensions",
    "sec-websocket-version",
)
# They stay in memory as long as the connection, so that a client must not make them long. Characters each.
HEADER_VALUE_MAX: Final = 256


def forwarded_headers(received: Mapping[str, str]) -> dict[str, str]:
    """Those headers of the client's upgrade request that its router is told.

    :param received: all of them, by lower-case name.
    """
    return {name: received[name][:HEADER_VALUE_MAX] for name in FORWARDED_HEADERS if name in received}


def transport_details(
    kind: int,
    serializer: int,
    peer: str,
    headers: dict[str, str] | None,
    subprotocol: str | None = None,
    extension: str | None = None,
    tls: TlsInfo | None = None,
) -> dict[str, Any]:
    """The client's transport as autobahn's TransportDetails marshals it, for the router's session details.

    :param kind: CODEC_WS or CODEC_RS.
    :param peer: as :func:`proxy.plane.peer_text` has it.
    :param headers: of :func:`forwarded_headers`; None for RawSocket.
    :param subprotocol: of WebSocket; None: that of the serializer.
    :param extension: the WebSocket extension in use, as the handshake named it; None: there is none.
    :param tls: between the client and the proxy; None: the connection is plain.
    """
    is_websocket = kind == CODEC_WS
    details = {
        "channel_type": "tcp",
        "channel_framing": "websocket" if is_websocket else "rawsocket",
        "channel_serializer": SERIALIZER_NAMES[serializer],
        "own": None,
        "peer": peer,
        "is_server": True,
        "own_pid": os.getpid(),
        "own_tid": threading.get_native_id(),
        "own_fd": -1,
        "is_secure": False,
        "channel_id": {},
        "peer_cert": None,
        "websocket_protocol": (subprotocol or SUBPROTOCOL_NAMES[serializer]) if is_websocket else None,
        "websocket_extensions_in_use": ([extension] if extension else []) if is_websocket else None,
        "http_headers_received": headers,
        "http_headers_sent": {} if is_websocket else None,
        "http_cbtid": None,
    }
    return details if tls is None else details | peer_details(tls)


# What a client may not say for itself: on the trusted connection the router would take it for the proxy's word.
_OWN_KEYS: Final = frozenset({"realm", "roles", "agent", "transport", "resumable", "resume-session", "resume-token"})
_OWN_PREFIXES: Final = ("auth", "proxy_", "x_cb_")


def _clean_roles(roles: dict[str, Any]) -> dict[str, Any]:
    """The client's roles with those features that are a plain yes or no.

    Anything else makes a router drop the connection, and the client is to be told nothing worse than what it asked for.
    """
    cleaned: dict[str, Any] = {}
    for role, attributes in roles.items():
        features = attributes.get("features")
        if features is None:
            cleaned[role] = {}
        else:
            cleaned[role] = {
                "features": {name: value for name, value in features.items() if type(value) is bool and name != "self"}
            }
    return cleaned


def _passed_on(details: dict[str, Any], to_back: Callable[[int], int]) -> dict[str, Any]:
    """Other HELLO attributes of the client that go to the router: all that do not touch its identity.

    The session resumption attributes go along only when they are complete and of the right types.
    """
    kept = {
        key: value
        for key, value in details.items()
        if type(key) is str and key not in _OWN_KEYS and not key.startswith(_OWN_PREFIXES)
    }
    if type(details.get("resumable")) is bool:
        kept["resumable"] = details["resumable"]
    session_id, token = details.get("resume-session"), details.get("resume-token")
    if type(session_id) is int and type(token) is str:
        kept["resume-session"] = to_back(session_id)
        kept["resume-token"] = token
    return kept


def backend_hello(
    client: Client,
    *,
    authmethods: list[str],
    authid: str | None = None,
    authrole: str | None = None,
    authextra: Mapping[str, Any] | None = None,
) -> list[Any]:
    """The HELLO that joins the router in the client's name.

    :param client: for whom.
    :param authmethods: how the proxy can log in.
    :param authid: of the proxy itself.
    :param authrole: likewise; None: the router's choice.
    :param authextra: what the methods need to know besides.
    """
    accept = client.accept
    hello = _passed_on(client.details, client.to_back)
    hello["roles"] = _clean_roles(client.details["roles"])
    hello["agent"] = client.details.get("agent") or AGENT
    hello["authmethods"] = authmethods
    hello |= {key: value for key, value in (("authid", authid), ("authrole", authrole)) if value is not None}
    hello["authextra"] = {
        "pubkey": client.identity[1],
        **(authextra or {}),
        "proxy_realm": accept.realm,
        "proxy_authid": accept.authid,
        "proxy_authrole": accept.authrole,
        "proxy_authmethod": accept.authmethod,
        "proxy_authprovider": accept.authprovider,
        "proxy_authextra": {
            **accept.authextra,
            **({"transport": for_routers(client.transport)} if client.transport else {}),
        },
    }
    return [int(MessageType.HELLO), accept.realm, hello]


def relayed_hello(client: Client) -> list[Any]:
    """The client's own HELLO, for the router that decides who it is.

    Attributes by which a router would believe the proxy are left out: they are not the client's to use.

    :param client: ``authmethods`` of its details are those that the router may choose from.
    :raises MessageError: there are none: a router would take that for ``anonymous``.
    """
    details = client.details
    hello = _passed_on(details, client.to_back)
    hello["roles"] = _clean_roles(details["roles"])
    hello["agent"] = details.get("agent") or AGENT
    hello["authmethods"] = [name for name in details.get("authmethods") or () if is_relayable(name)]
    if not hello["authmethods"]:
        raise MessageError("no authmethod is left to the router")
    hello |= {key: details[key] for key in ("authid", "authrole") if details.get(key) is not None}
    if isinstance(details.get("authextra"), Mapping):
        hello["authextra"] = forwarded_authextra(details)
    return [int(MessageType.HELLO), client.accept.realm, hello]


def relayed_welcome(welcome: Welcome, accept: Accept) -> dict[str, Any]:
    """WELCOME.Details for a client that its router let in: the router's own."""
    details = welcome.details
    told = details.get("authextra")
    details["authextra"] = dict(told) if isinstance(told, dict) else {}
    details.setdefault("realm", accept.realm)
    return details


# Where routers repeat the session ID in WELCOME.Details and its authextra.
_SID_KEYS: Final = ("session", "session_id")


def _replace_sid(details: dict[str, Any], back_sid: int, front_sid: int) -> None:
    for key in _SID_KEYS:
        value = details.get(key)
        if type(value) is int and value == back_sid:
            details[key] = front_sid


def front_welcome(
    welcome: Welcome,
    accept: Accept,
    asserts_identity: bool,
    front_sid: int | None = None,
    own_keys: Collection[str] = (),
) -> dict[str, Any]:
    """WELCOME.Details for the client: the router's, but for how the client was authenticated.

    What the proxy told the router about the client, and the router told back, is not for the client: transport details
    with HTTP headers, and the ``proxy_*`` attributes.

    :param front_sid: the session ID that the client is told; None: the router's.
    :param own_keys: of authextra, between the proxy and its router.
    """
    details = welcome.details
    told = details.get("authextra")
    authextra = {} if asserts_identity else dict(accept.authextra)
    if isinstance(told, dict):
        authextra.update(
            (key, value)
            for key, value in told.items()
            if key not in ("transport", "pubkey", *own_keys) and not (type(key) is str and key.startswith("proxy_"))
        )
    if front_sid is not None:
        _replace_sid(details, welcome.session_id, front_sid)
        _replace_sid(authextra, welcome.session_id, front_sid)
    details["authextra"] = authextra
    details["authmethod"] = accept.authmethod
    details["authprovider"] = accept.authprovider
    for key in ("realm", "authid", "authrole"):
        # Some routers leave out what they think is known.
        details.setdefault(key, getattr(accept, key))
    return details


@lru_cache(maxsize=64)
def encoded_goodbye(serializer: int, reason: str, message: str | None = None) -> bytes:
    """A GOODBYE of our own, encoded: there are few different ones, and a shutdown sends one of them to everybody.

    :param reason: URI.
    :param message: text for people, sent as ``Details.message``.
    """
    return encode(serializer, goodbye(reason, message))


def leave_taking(source: int, target: int, octets: bytes, message: list[Any]) -> bytes:
    """A GOODBYE or ABORT of one side, as the other side gets it.

    It is passed on as it is. If the serializer of the other side is another one, and cannot express all that is in it,
    the other side gets one of ours with the same reason.

    :param source: serializer of ``octets``.
    :param target: serializer of the other side.
    :param message: the same, decoded and checked.
    """
    if source == target:
        return octets
    try:
        return encode(target, message)
    except MessageError as error:
        make = abort if message[0] == MessageType.ABORT else goodbye
        return encode(target, make(message[2], f"the original details are left out: {error}"))
