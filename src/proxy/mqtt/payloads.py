"""What is in a publication's payload and in an event's arguments, and how one is made of the other.

As in Crossbar.io, the URI of the topic decides: that item of ``payload_mapping`` whose key is the longest beginning of
it. Where there are none at all, payloads go through as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred

from proxy.config.mqtt import DynamicPayload, NativePayload, PassthroughPayload, PayloadItem
from proxy.messages import SERIALIZERS, MessageError, decode_value, encode_value
from proxy.mqtt.link import Event
from proxy.mqtt.topics import topic_to_mqtt

__all__ = ["CODEC_SECONDS", "ENC_ALGO", "PayloadError", "PayloadMapping", "Publication"]

ENC_ALGO: Final = "mqtt"
"""Of payloads that go through as they are ("Payload Passthru Mode"), as Crossbar.io names it."""

CODEC_SECONDS: Final = 10.0
"""How long a procedure may take to make something of a payload, or a payload of something."""

_PASSTHROUGH: Final = PassthroughPayload(type="passthrough")
_NUMBERS: Final = ("exclude", "eligible")
_TEXTS: Final = ("exclude_authid", "exclude_authrole", "eligible_authid", "eligible_authrole")


class PayloadError(ValueError):
    """A payload, or what is to be one, that cannot be mapped."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What a payload comes to.

    :ivar options: of PUBLISH.
    :ivar payload: what follows the topic there.
    """

    options: dict[str, Any] = field(default_factory=dict)
    payload: list[Any] = field(default_factory=list)


Call = Callable[[str, str, list[Any]], "Deferred[Any]"]
"""Calls a procedure: realm, procedure, arguments; fires with its result."""


class PayloadMapping:
    """That of a transport.

    :param items: ``payload_mapping`` of its options.
    :param realm: of its clients.
    :param call: see there.
    """

    def __init__(self, items: Mapping[str, PayloadItem], realm: str, call: Call) -> None:
        # The longest one first.
        self._items = sorted(items.items(), key=lambda item: -len(item[0]))
        self._realm = realm
        self._call = call

    def find(self, uri: str) -> PayloadItem:
        """What goes for a topic.

        :raises PayloadError: nothing.
        """
        if not self._items:
            return _PASSTHROUGH
        for beginning, item in self._items:
            if uri.startswith(beginning):
                return item
        raise PayloadError("payload_mapping has nothing for this topic")

    # --- from MQTT ---

    def to_wamp(self, uri: str, topic: str, payload: bytes) -> "Publication | Deferred[Publication]":
        """What to publish.

        :returns: a Deferred fails with PayloadError, or with what went wrong in a call.
        :raises PayloadError: the payload is not what it has to be.
        """
        item = self.find(uri)
        if isinstance(item, NativePayload):
            try:
                return publication(decode_value(SERIALIZERS[item.serializer], payload))
            except MessageError as error:
                raise PayloadError(str(error)) from error
        if isinstance(item, DynamicPayload):
            realm = item.realm or self._realm
            return self._call(realm, item.decoder, [uri, topic, payload]).addCallback(publication)
        return Publication({"enc_algo": ENC_ALGO}, [payload])

    # --- to MQTT ---

    def to_mqtt(self, uri: str, event: Event) -> "bytes | Deferred[bytes]":
        """The payload for an event. What was a payload before stays as it is.

        :returns: a Deferred fails as that of :meth:`to_wamp`.
        :raises PayloadError: it cannot be one.
        """
        item = self.find(uri)
        if event.payload is not None:
            if event.details.get("enc_algo") != ENC_ALGO:
                raise PayloadError("the event is encrypted")
            return event.payload
        if isinstance(item, NativePayload):
            arguments = {name: value for name, value in (("args", event.args), ("kwargs", event.kwargs)) if value}
            try:
                return encode_value(SERIALIZERS[item.serializer], arguments)
            except MessageError as error:
                raise PayloadError(str(error)) from error
        if isinstance(item, DynamicPayload):
            arguments_of_codec = [topic_to_mqtt(uri), uri, event.args, event.kwargs]
            return self._call(item.realm or self._realm, item.encoder, arguments_of_codec).addCallback(_octets)
        if not event.args and not event.kwargs:
            return b""  # what Crossbar.io makes of an empty payload
        if len(event.args) != 1 or event.kwargs:
            raise PayloadError("passthrough needs an event with a payload, or with one argument (octets or text)")
        return _octets(event.args[0])


def _octets(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, bytes):
        return value
    raise PayloadError("expected octets or text")


def publication(value: Any) -> Publication:
    """What a dict with ``args``, ``kwargs`` and options of PUBLISH comes to; other keys are skipped, as in Crossbar.io.

    :raises PayloadError: the value is something else, or what is in it.
    """
    if not isinstance(value, dict):
        raise PayloadError("expected a dict with args and kwargs")
    args, kwargs = value.get("args"), value.get("kwargs")
    if not isinstance(args, list | None):
        raise PayloadError("args: expected a list")
    if not isinstance(kwargs, dict | None) or not all(isinstance(key, str) for key in kwargs or ()):
        raise PayloadError("kwargs: expected a dict with strings as keys")
    options: dict[str, Any] = {}
    for names, kind in ((_NUMBERS, int), (_TEXTS, str)):
        for name in names:
            chosen = value.get(name)
            if chosen is None:
                continue
            if not isinstance(chosen, list) or not all(type(one) is kind for one in chosen):
                raise PayloadError(f"{name}: expected a list of {'integers' if kind is int else 'strings'}")
            options[name] = chosen
    if kwargs:
        return Publication(options, [args or [], kwargs])
    return Publication(options, [args] if args else [])
