"""Who is the client? The frontend's authentication: one module per WAMP authentication method.

A method is a function in :data:`METHODS`. It looks at what the client announced in HELLO and decides; it changes
neither the configuration, which all clients of a transport share, nor the client's own dicts.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from proxy.auth.anonymous import anonymous
from proxy.auth.base import Accept, Attempt, Deny, Method
from proxy.config import AnonymousStatic, AuthConfig
from proxy.messages import shorten

__all__ = ["METHODS", "Accept", "Attempt", "Deny", "Method", "authenticate"]

METHODS: Final[Mapping[str, Method]] = MappingProxyType({"anonymous": anonymous})
"""Authentication methods by their name in HELLO, in WELCOME and in the configuration."""

_BUILTIN: Final = AuthConfig(anonymous=AnonymousStatic(type="static"))
_SHOWN_MAX: Final = 8


def authenticate(
    config: AuthConfig | None, realm: str | None, details: Mapping[str, Any], transport_details: Mapping[str, Any]
) -> Accept | Deny:
    """Decide a HELLO: the first method in the client's order that this transport is configured for has the say.

    Methods that nobody here knows are skipped, which is how the specification means the list. A client that names no
    method asks for ``anonymous``.

    :param config: the transport's ``auth`` item; None (it has none): everybody is ``anonymous``.
    :param realm: realm that the client asked for, if any.
    :param details: HELLO.Details, checked by :func:`proxy.messages.check_hello`; not changed.
    :param transport_details: what is known of the client's connection; not changed.
    :returns: the identity, or the refusal that is to be sent as ABORT.
    """
    config = _BUILTIN if config is None else config
    attempt = Attempt(realm, details, transport_details)
    offered: list[str] = details.get("authmethods") or ["anonymous"]
    for name in offered:
        method = METHODS.get(name)
        item = None if method is None else getattr(config, name)
        if method is not None and item is not None:
            return method(item, attempt)
    return Deny("wamp.error.no_auth_method", _no_method(config, offered))


def _no_method(config: AuthConfig, offered: list[str]) -> str:
    configured = [name for name in METHODS if getattr(config, name) is not None]
    shown = ", ".join(shorten(name) for name in offered[:_SHOWN_MAX]) + (", ..." if len(offered) > _SHOWN_MAX else "")
    return f"none of the client's authmethods ({shown}) is possible here, expected {' or '.join(configured) or 'none'}"
