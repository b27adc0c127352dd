"""What WAMP's errors are in MQTT."""

from collections.abc import Mapping
from typing import Final

import mqtt5

__all__ = ["login_code", "publish_code", "reason_text", "session_code", "subscribe_code"]

_CONNECT: Final = mqtt5.ConnAckReasonCode
_PUBLISH: Final = mqtt5.PubAckReasonCode
_SUBSCRIBE: Final = mqtt5.SubAckReasonCode
_END: Final = mqtt5.DisconnectReasonCode

_UNAVAILABLE: Final = (
    "unavailable",
    "network_failure",
    "runtime_error",
    "no_such_realm",
    "no_such_role",
    "system_shutdown",
    "timeout",
)
_LOGIN: Final[Mapping[str, mqtt5.ConnAckReasonCode]] = {
    **dict.fromkeys((f"wamp.error.{name}" for name in _UNAVAILABLE), _CONNECT.SERVER_UNAVAILABLE),
    "wamp.close.system_shutdown": _CONNECT.SERVER_UNAVAILABLE,
    "wamp.error.no_auth_method": _CONNECT.NOT_AUTHORIZED,
    "wamp.error.no_matching_auth_method": _CONNECT.NOT_AUTHORIZED,
    "wamp.error.authentication_denied": _CONNECT.NOT_AUTHORIZED,
}
_PUBLICATION: Final[Mapping[str, mqtt5.PubAckReasonCode]] = {
    "wamp.error.not_authorized": _PUBLISH.NOT_AUTHORIZED,
    "wamp.error.authorization_failed": _PUBLISH.NOT_AUTHORIZED,
    "wamp.error.invalid_uri": _PUBLISH.TOPIC_NAME_INVALID,
    "wamp.error.invalid_topic": _PUBLISH.TOPIC_NAME_INVALID,
    "wamp.error.invalid_payload": _PUBLISH.PAYLOAD_FORMAT_INVALID,
    "wamp.error.invalid_argument": _PUBLISH.PAYLOAD_FORMAT_INVALID,
    "wamp.error.payload_size_exceeded": _PUBLISH.QUOTA_EXCEEDED,
}
_SUBSCRIPTION: Final[Mapping[str, mqtt5.SubAckReasonCode]] = {
    "wamp.error.not_authorized": _SUBSCRIBE.NOT_AUTHORIZED,
    "wamp.error.authorization_failed": _SUBSCRIBE.NOT_AUTHORIZED,
    "wamp.error.invalid_uri": _SUBSCRIBE.TOPIC_FILTER_INVALID,
    "wamp.error.invalid_topic": _SUBSCRIBE.TOPIC_FILTER_INVALID,
}
_SESSION: Final[Mapping[str, mqtt5.DisconnectReasonCode]] = {
    "wamp.close.system_shutdown": _END.SERVER_SHUTTING_DOWN,
    "wamp.close.goodbye_and_out": _END.SERVER_SHUTTING_DOWN,
    "wamp.close.killed": _END.ADMINISTRATIVE_ACTION,
    "wamp.error.timeout": _END.SERVER_BUSY,
}


_TEXT_MAX: Final = 200
"""Characters; a client takes packets of 1024 octets at least where it gets texts."""


def reason_text(text: str) -> str | None:
    """A text as a reason string: routers, authenticators and codecs may say anything, at any length (MQTT 5, section
    1.5.4). None: there is nothing to be said."""
    return "".join(one for one in text[:_TEXT_MAX] if one.isprintable()) or None


def login_code(uri: str, *, has_password: bool) -> mqtt5.ConnAckReasonCode:
    """Of a login that was refused.

    :param has_password: the client has shown user name and password: then whatever is wrong is wrong with these.
    """
    code = _LOGIN.get(uri)
    if code is not None:
        return code
    return _CONNECT.BAD_USER_NAME_OR_PASSWORD if has_password else _CONNECT.NOT_AUTHORIZED


def publish_code(uri: str) -> mqtt5.PubAckReasonCode:
    """Of a publication that was refused."""
    return _PUBLICATION.get(uri, _PUBLISH.UNSPECIFIED_ERROR)


def subscribe_code(uri: str) -> mqtt5.SubAckReasonCode:
    """Of a subscription that was refused."""
    return _SUBSCRIPTION.get(uri, _SUBSCRIBE.UNSPECIFIED_ERROR)


def session_code(uri: str) -> mqtt5.DisconnectReasonCode:
    """Of a session that its router, or the proxy, has ended."""
    return _SESSION.get(uri, _END.UNSPECIFIED_ERROR)
