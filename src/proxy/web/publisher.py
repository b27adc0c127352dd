"""The web service ``publisher``: an event for each HTTP request."""

from typing import Any, ClassVar, Final

from proxy.web.bridge import Answer, Send
from proxy.web.bridge_requests import Refused
from proxy.web.bridge_values import write_json
from proxy.web.signed import SignedService, arguments_of, uri_of

__all__ = ["PublisherService"]

_SWITCHES: Final = ("exclude_me", "retain")
_SESSIONS: Final = ("exclude", "eligible")
_NAMES: Final = ("exclude_authid", "exclude_authrole", "eligible_authid", "eligible_authrole")
_FORWARDER: Final = {"session": int, "authid": str, "authrole": str}


class PublisherService(SignedService):
    """Publishes ``args`` and ``kwargs`` of the JSON object that comes to its ``topic``, with its ``options``."""

    TYPE: ClassVar[str] = "publisher"

    def read_object(self, said: dict[str, Any]) -> Send:
        """See :class:`SignedService`."""
        topic = uri_of(said, "topic")
        args, kwargs = arguments_of(said)
        options = _options(said.get("options"))
        if "forward_for" in options and not self.is_signed:
            # A router may tell subscribers that they are the publishers: anybody could be anybody.
            raise Refused(400, 'the request\'s body: "options.forward_for": only signed requests may say so')
        return lambda requests: requests.publish(topic, args, kwargs, options)

    def succeeded(self, reply: int) -> Answer:
        """See :class:`BridgeService`."""
        return Answer(200, write_json({"id": reply}))


def _options(said: Any) -> dict[str, Any]:
    """The options of a publication. Keys that nobody knows are left out.

    :raises Refused: one of them is not what it has to be.
    """
    if not isinstance(said, dict | None):
        raise Refused(400, 'the request\'s body: "options": expected an object')
    given = {key: value for key, value in (said or {}).items() if value is not None}
    options: dict[str, Any] = {}
    for key in _SWITCHES:
        if key in given:
            options[key] = _checked(key, given[key], isinstance(given[key], bool), "true or false")
    for keys, kind, wanted in ((_SESSIONS, int, "a session ID or a list"), (_NAMES, str, "a string or a list")):
        for key in keys:
            if key in given:
                values = given[key] if isinstance(given[key], list) else [given[key]]
                options[key] = _checked(key, values, all(type(value) is kind for value in values), wanted)
    if given.get("forward_for"):
        items = given["forward_for"]
        is_good = isinstance(items, list) and all(map(_is_forwarder, items))
        wanted = "a list of objects with session, authid and authrole"
        options["forward_for"] = _checked("forward_for", items, is_good, wanted)
    return options


def _checked(key: str, value: Any, is_good: bool, wanted: str) -> Any:
    if not is_good:
        raise Refused(400, f'the request\'s body: "options.{key}": expected {wanted}')
    return value


def _is_forwarder(item: Any) -> bool:
    return isinstance(item, dict) and all(type(item.get(key)) is kind for key, kind in _FORWARDER.items())
