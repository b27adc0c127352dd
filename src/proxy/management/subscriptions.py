"""Who listens to which topics: exact, prefix and wildcard subscriptions."""

import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Subscription", "Subscriptions"]

T = TypeVar("T")


class Subscription(Generic[T]):
    """One topic or pattern, and those who subscribed to it.

    :param number: its ID.
    :param topic: URI, or pattern.
    :param match: ``exact``, ``prefix`` or ``wildcard``.

    :ivar members: in the order in which they came.
    """

    __slots__ = ("_parts", "match", "members", "number", "topic")

    def __init__(self, number: int, topic: str, match: str) -> None:
        self.number = number
        self.topic = topic
        self.match = match
        self.members: dict[T, None] = {}
        self._parts = topic.split(".")

    def fits(self, topic: str) -> bool:
        """Whether events of a topic are meant; not for ``exact``."""
        if self.match == "prefix":
            return topic.startswith(self.topic)
        parts = topic.split(".")
        return len(parts) == len(self._parts) and all(
            not wanted or wanted == part for wanted, part in zip(self._parts, parts, strict=True)
        )


class Subscriptions(Generic[T]):
    """All subscriptions of a realm. IDs are never used twice."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_topic: dict[tuple[str, str], Subscription[T]] = {}
        self._by_number: dict[int, Subscription[T]] = {}
        self._patterns: dict[int, Subscription[T]] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, member: T, topic: str, match: str) -> int:
        """Subscribe somebody; who is subscribed already stays so.

        :returns: ID of the subscription, which all who chose the same topic and match share.
        """
        found = self._by_topic.get((topic, match))
        if found is None:
            found = Subscription(next(self._numbers), topic, match)
            self._by_topic[topic, match] = self._by_number[found.number] = found
            if match != "exact":
                self._patterns[found.number] = found
        found.members[member] = None
        return found.number

    def remove(self, member: T, number: int) -> bool:
        """Unsubscribe somebody.

        :returns: False: no such subscription of this member.
        """
        found = self._by_number.get(number)
        if found is None or member not in found.members:
            return False
        del found.members[member]
        if not found.members:
            del self._by_number[number]
            del self._by_topic[found.topic, found.match]
            self._patterns.pop(number, None)
        return True

    def of_topic(self, topic: str) -> Iterator[Subscription[T]]:
        """The subscriptions that an event of this topic goes to."""
        exact = self._by_topic.get((topic, "exact"))
        if exact is not None:
            yield exact
        for found in list(self._patterns.values()):
            if found.fits(topic):
                yield found
