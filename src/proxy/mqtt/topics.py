"""MQTT's topics and WAMP's, as Crossbar.io maps them: ``/`` between levels is ``.`` between components.

A filter with ``+`` becomes a wildcard subscription, one with ``#`` a prefix subscription, every other one an exact one.
"""

import re
from typing import Final, NamedTuple

__all__ = ["Subscription", "TopicError", "filter_to_wamp", "is_topic", "matches", "topic_to_mqtt", "topic_to_wamp"]

_COMPONENT: Final = r"[^\s.#]+"
_TOPIC: Final = re.compile(rf"(?:{_COMPONENT}\.)*{_COMPONENT}")
_PATTERN: Final = re.compile(r"(?:[^\s.#]*\.)*[^\s.#]*")
_LENGTH_MAX: Final = 1024
_OCTETS_MAX: Final = 65_535
_NO_TOPIC: Final = re.compile(r"[+#\0]")


class TopicError(ValueError):
    """A topic, or a filter, that WAMP cannot express."""


class Subscription(NamedTuple):
    """What to ask a router for.

    :ivar uri: a topic, or a pattern of topics.
    :ivar match: ``exact``, ``prefix`` or ``wildcard``.
    """

    uri: str
    match: str


def topic_to_wamp(topic: str) -> str:
    """The URI of a topic that is published to (MQTT 5, section 4.7).

    :raises TopicError: it has wildcards in it, or is no URI.
    """
    if "+" in topic or "#" in topic:
        raise TopicError("a topic name has a wildcard in it")
    uri = topic.replace("/", ".")
    if len(uri) > _LENGTH_MAX or not _TOPIC.fullmatch(uri):
        raise TopicError("a topic name has an empty level, white space, or is too long: WAMP has no such topics")
    return uri


def topic_to_mqtt(uri: str) -> str:
    """The topic of an event."""
    return uri.replace(".", "/")


def is_topic(topic: str) -> bool:
    """Whether a client may be sent an event of it (MQTT 5, sections 1.5.4 and 4.7). WAMP's loose URIs may have
    wildcards and U+0000 in them."""
    if not topic or _NO_TOPIC.search(topic):
        return False
    try:
        return len(topic.encode("utf-8")) <= _OCTETS_MAX
    except UnicodeEncodeError:
        return False


def filter_to_wamp(topic_filter: str) -> tuple[Subscription, ...]:
    """The subscriptions that a filter stands for (MQTT 5, section 4.7.1).

    ``a/#`` stands for ``a`` itself, too, which no prefix in WAMP does, so it takes two.

    :raises TopicError: WAMP has no such subscription, or MQTT no such filter.
    """
    levels = topic_filter.split("/")
    for level in levels:
        if len(level) > 1 and ("+" in level or "#" in level):
            raise TopicError("a wildcard is not a level of its own")
    if "#" in levels[:-1]:
        raise TopicError("# is not the last level")
    if "+" in levels:
        if levels[-1] == "#":
            raise TopicError("WAMP has no subscription for + and # in one filter")
        if "" in levels:
            raise TopicError("a level is empty: WAMP has no such topics")
        pattern = ".".join("" if level == "+" else level for level in levels)
        return (_checked(pattern, "wildcard", _PATTERN),)
    if levels[-1] == "#":
        if len(levels) == 1:
            return (Subscription("", "prefix"),)
        above = ".".join(levels[:-1])
        return Subscription(above + ".", "prefix"), _checked(above, "exact", _TOPIC)
    return (_checked(".".join(levels), "exact", _TOPIC),)


def _checked(uri: str, match: str, pattern: re.Pattern[str]) -> Subscription:
    if len(uri) > _LENGTH_MAX or not pattern.fullmatch(uri):
        raise TopicError("a level is empty, has white space in it, or all is too long: WAMP has no such topics")
    return Subscription(uri, match)


def matches(subscription: Subscription, uri: str) -> bool:
    """Whether events of a topic come to a subscription ("Pattern-based Subscriptions")."""
    if subscription.match == "exact":
        return uri == subscription.uri
    if subscription.match == "prefix":
        return uri.startswith(subscription.uri)
    wanted, given = subscription.uri.split("."), uri.split(".")
    return len(wanted) == len(given) and all(one in ("", other) for one, other in zip(wanted, given, strict=True))
