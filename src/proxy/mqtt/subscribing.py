"""Subscriptions of a client: its filters, and the subscriptions of its WAMP session that they stand for."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import mqtt5
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from proxy.mqtt.link import Event, Refused
from proxy.mqtt.reasons import subscribe_code
from proxy.mqtt.topics import Subscription, TopicError, filter_to_wamp, matches

if TYPE_CHECKING:
    from proxy.mqtt.client import MqttClient

__all__ = ["Filter", "Subscriber"]

_SHARED: Final = "$share/"

_CODES: Final = mqtt5.SubAckReasonCode
_UNCODES: Final = mqtt5.UnsubAckReasonCode


@dataclass(slots=True)
class Filter:
    """One that the client has subscribed to.

    :ivar pattern: as the client wrote it.
    :ivar wanted: the subscriptions that it stands for.
    :ivar qos: with which events are delivered.
    :ivar no_local: the client does not want what it has published itself.
    :ivar number: the client's own for it; None: it has none.
    :ivar ids: of the subscriptions, once they are there.
    """

    pattern: str
    wanted: tuple[Subscription, ...]
    qos: int
    no_local: bool
    number: int | None
    ids: dict[int, Subscription] = field(default_factory=dict)


class Subscriber:
    """Those of one client.

    :param client: whose.
    :param most: how many filters it may have.
    """

    def __init__(self, client: "MqttClient", most: int) -> None:
        self._client = client
        self._most = most
        self._filters: dict[str, Filter] = {}
        self._by_id: dict[int, list[Filter]] = {}
        self._under_way = 0

    # --- SUBSCRIBE ---

    def subscribe(self, packet: mqtt5.SubscribePacket) -> None:
        """Answered when the router has answered for all filters."""
        codes = [self._add(wish, packet.subscription_id) for wish in packet.topic_filters]

        def done(results: list[tuple[bool, Any]]) -> None:
            self._client.send(mqtt5.SubAckPacket(packet.packet_id, [code for _, code in results]))

        DeferredList(codes).addCallback(done)

    def _add(self, wish: mqtt5.TopicFilter, number: int | None) -> "Deferred[mqtt5.SubAckReasonCode]":
        """:returns: fires with the code for the client. Never fails."""
        if wish.pattern.startswith(_SHARED):
            return succeed(_CODES.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED)
        before = self._filters.get(wish.pattern)
        if before is None and len(self._filters) + self._under_way >= self._most:
            return succeed(_CODES.QUOTA_EXCEEDED)
        try:
            wanted = filter_to_wamp(wish.pattern)
        except TopicError as error:
            self._client.bridge.complain(f"a topic filter is refused: {error}")
            return succeed(_CODES.TOPIC_FILTER_INVALID)
        added = Filter(wish.pattern, wanted, int(wish.max_qos), wish.no_local, number)
        handling = wish.retain_handling
        is_new_only = handling == mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
        gets_retained = handling == mqtt5.RetainHandling.SEND_ALWAYS or (is_new_only and before is None)
        self._under_way += 1
        answers = [self._ask(added, one, gets_retained) for one in wanted]
        all_of_it: Deferred[Any] = DeferredList(answers, consumeErrors=True)
        return all_of_it.addCallback(self._added, added)

    def _ask(self, added: Filter, one: Subscription, gets_retained: bool) -> "Deferred[None]":
        def subscribed(message: list[Any]) -> None:
            # Retained events may be right behind it.
            added.ids[message[2]] = one
            filters = self._by_id.setdefault(message[2], [])
            filters[:] = [known for known in filters if known.pattern != added.pattern]
            filters.append(added)

        return self._client.link.subscribe(one.uri, one.match, get_retained=gets_retained).addCallback(subscribed)

    def _added(self, results: list[tuple[bool, Any]], added: Filter) -> mqtt5.SubAckReasonCode:
        self._under_way -= 1
        failures = [result for has_succeeded, result in results if not has_succeeded]
        if not failures:
            self._filters[added.pattern] = added
            return _CODES(added.qos)
        self._filters.pop(added.pattern, None)
        self._drop(added)
        error = failures[0].value
        return subscribe_code(error.uri) if isinstance(error, Refused) else _CODES.UNSPECIFIED_ERROR

    # --- UNSUBSCRIBE ---

    def unsubscribe(self, packet: mqtt5.UnsubscribePacket) -> None:
        """Answered when the router has answered for all filters."""
        answers = [self._remove(pattern) for pattern in packet.patterns]

        def done(results: list[tuple[bool, Any]]) -> None:
            self._client.send(mqtt5.UnsubAckPacket(packet.packet_id, [code for _, code in results]))

        DeferredList(answers).addCallback(done)

    def _remove(self, pattern: str) -> "Deferred[mqtt5.UnsubAckReasonCode]":
        removed = self._filters.pop(pattern, None)
        if removed is None:
            return succeed(_UNCODES.NO_SUBSCRIPTION_EXISTED)
        answers: Deferred[Any] = DeferredList(self._drop(removed), consumeErrors=True)
        return answers.addCallback(lambda _: _UNCODES.SUCCESS)

    def _drop(self, removed: Filter) -> "list[Deferred[Any]]":
        """Unsubscribe from what no other filter of the client stands for."""
        answers = []
        for number in removed.ids:
            filters = [one for one in self._by_id.get(number, []) if one.pattern != removed.pattern]
            if filters:
                self._by_id[number] = filters
            elif self._by_id.pop(number, None) is not None and self._client.link.is_joined:
                answers.append(self._client.link.unsubscribe(number).addErrback(_ignore))
        return answers

    # --- events ---

    def excludes_own(self, uri: str) -> bool:
        """Whether the client does not want an event that it publishes itself: only where it has said so."""
        if not any(one.no_local for one in self._filters.values()):
            return False  # as for nearly everybody: nothing has to be compared for each publication
        wishes = [
            one.no_local
            for one in self._filters.values()
            if any(matches(subscription, uri) for subscription in one.wanted)
        ]
        return bool(wishes) and all(wishes)

    def find(self, event: Event) -> list[tuple[Filter, str]]:
        """Whom an event is for: the filters, each with the URI of the event's topic."""
        topic = event.details.get("topic")
        found = []
        for one in self._by_id.get(event.subscription, ()):
            uri = topic if isinstance(topic, str) else one.ids[event.subscription].uri
            found.append((one, uri))
        return found


def _ignore(failure: Failure) -> None:
    """The router does not know the subscription any more, or the session is over: it is gone in any case."""
