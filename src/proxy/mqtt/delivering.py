"""Events for a client: they wait here while it takes no more, or while their payload is made (MQTT 5, section 4.9).

When too many wait, nothing more is taken from the router, which is how every slow reader is treated: its router waits
for a while, and then the data plane ends the session.
"""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mqtt5
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.mqtt.layout import V5
from proxy.mqtt.link import Event
from proxy.mqtt.payloads import PayloadError
from proxy.mqtt.subscribing import Filter
from proxy.mqtt.topics import is_topic, topic_to_mqtt

if TYPE_CHECKING:
    from proxy.config.mqtt import MqttOptions
    from proxy.mqtt.client import MqttClient

__all__ = ["Deliverer"]

_ID_MAX: Final = 65_535
_FAILED: Final = 0x80  # reason codes from here on
_OVERHEAD: Final = 64
"""Octets that an event counts beside what is in it."""


@dataclass(slots=True)
class _Waiting:
    """An event for one filter.

    :ivar payload: None: it is still to be made.
    """

    event: Event
    filter: Filter
    uri: str
    size: int
    payload: bytes | None = None


class Deliverer:
    """Those of one client.

    :param client: whose.
    :param options: of the transport.
    :param receive_max: how many with QoS 1 or 2 the client takes before it acknowledges one.
    :param packet_max: octets of a packet that the client takes; 0: any.
    """

    def __init__(self, client: "MqttClient", options: "MqttOptions", receive_max: int, packet_max: int) -> None:
        self._client = client
        self._octets_max, self._count_max = options.queue_limit_bytes, options.queue_limit_messages
        self._receive_max = receive_max
        self._packet_max = packet_max
        self._queue: deque[_Waiting] = deque()
        self._octets = 0
        self._is_paused = False
        # By packet identifier: quality of service, and whether PUBCOMP is expected.
        self._inflight: dict[int, tuple[int, bool]] = {}
        self._last_id = 0
        self._is_busy = False
        self._is_flushing = False

    # --- events ---

    def take(self, event: Event) -> None:
        """An event of the router."""
        for one, uri in self._client.subscriber.find(event):
            if not is_topic(topic_to_mqtt(uri)):
                self._client.bridge.complain("an event is dropped: its topic is none that MQTT has")
                continue
            size = _OVERHEAD + len(uri) + _size_of(event)
            self._queue.append(_Waiting(event, one, uri, size))
            self._octets += size
        self.flush()

    def flush(self) -> None:
        """Send what can be sent."""
        if self._is_flushing:
            return  # a payload was there at once: the loop goes on with it
        self._is_flushing = True
        try:
            self._send_all()
        finally:
            self._is_flushing = False
        self._regulate()

    def _send_all(self) -> None:
        while self._queue and not self._is_busy and not self._client.is_full:
            head = self._queue[0]
            if head.filter.qos and len(self._inflight) >= self._receive_max:
                break
            if head.payload is None and not self._make_payload(head):
                continue
            self._queue.popleft()
            self._octets -= head.size
            self._send(head)

    def _make_payload(self, head: _Waiting) -> bool:
        """Make it; False: it is not there yet, or will never be."""
        try:
            made = self._client.bridge.mapping.to_mqtt(head.uri, head.event)
        except PayloadError as error:
            self._drop_head(str(error))
            return False
        if not isinstance(made, Deferred):
            head.payload = made
            return True
        self._is_busy = True

        def has(payload: bytes) -> None:
            head.payload = payload

        def failed(failure: Failure) -> None:
            self._drop_head(f"the encoder failed: {failure.value}")

        def go_on(_: Any) -> None:
            self._is_busy = False
            self.flush()

        made.addCallback(has).addErrback(failed).addCallback(go_on)
        return False

    def _drop_head(self, why: str) -> None:
        self._client.bridge.complain(f"an event is dropped: {why}")
        if self._queue:
            self._octets -= self._queue.popleft().size

    def _send(self, head: _Waiting) -> None:
        is_retained = bool(head.event.details.get("retained"))
        if is_retained and not head.payload:
            return  # in MQTT nothing is retained then (section 3.3.1.3); routers retain even that
        qos, number = head.filter.qos, None
        if qos:
            number = self._free_id()
        subscription = head.filter.number
        packet = mqtt5.PublishPacket(
            topic_to_mqtt(head.uri),
            head.payload or b"",
            qos=mqtt5.QoS(qos),
            retain=is_retained,
            packet_id=number,
            subscription_ids=[subscription] if subscription is not None and self._client.version == V5 else None,
        )
        octets = self._client.encoded(packet)
        if self._packet_max and len(octets) > self._packet_max:
            self._client.bridge.complain("an event is dropped: it is larger than its client takes")
            return  # as if it were delivered (section 3.1.2.11.4)
        if number is not None:
            self._inflight[number] = qos, False
        self._client.write(octets)

    def _free_id(self) -> int:
        """A packet identifier that is not in use; receive maximum is less than there are."""
        while True:
            self._last_id = self._last_id % _ID_MAX + 1
            if self._last_id not in self._inflight:
                return self._last_id

    def _regulate(self) -> None:
        """Take nothing from the router while too much waits."""
        count, octets = len(self._queue), self._octets
        if not self._is_paused and (count >= self._count_max or octets >= self._octets_max):
            self._is_paused = True
            self._client.link.pause()
        elif self._is_paused and count <= self._count_max // 2 and octets <= self._octets_max // 2:
            self._is_paused = False
            self._client.link.resume()

    def clear(self) -> None:
        """The client is gone."""
        self._queue.clear()
        self._octets = 0
        self._inflight.clear()

    # --- acknowledgements ---

    def acknowledged(self, packet: mqtt5.PubAckPacket) -> None:
        """PUBACK: QoS 1 is done. One that nobody expects is of no consequence."""
        if self._inflight.get(packet.packet_id) == (1, False):
            del self._inflight[packet.packet_id]
            self.flush()

    def received(self, packet: mqtt5.PubRecPacket) -> None:
        """PUBREC: the first half of QoS 2, or its end if the client refuses."""
        number = packet.packet_id
        state = self._inflight.get(number)
        if state is None or state[0] != 2:
            not_found = mqtt5.PubRelReasonCode.PACKET_ID_NOT_FOUND
            self._client.send(mqtt5.PubRelPacket(number, reason_code=not_found))
        elif int(packet.reason_code) >= _FAILED:
            del self._inflight[number]
            self.flush()
        else:
            self._inflight[number] = 2, True
            self._client.send(mqtt5.PubRelPacket(number))

    def completed(self, packet: mqtt5.PubCompPacket) -> None:
        """PUBCOMP: QoS 2 is done."""
        if self._inflight.get(packet.packet_id) == (2, True):
            del self._inflight[packet.packet_id]
            self.flush()


def _size_of(event: Event) -> int:
    """About how much memory an event takes, octets: what is in it, and something for each part."""
    if event.payload is not None:
        return len(event.payload)
    return _measure(event.args) + _measure(event.kwargs)


def _measure(value: Any) -> int:
    total = 0
    todo = [value]
    while todo:
        one = todo.pop()
        total += 8
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, list):
            todo += one
        elif isinstance(one, dict):
            todo += one.keys()
            todo += one.values()
    return total
