"""Publications of a client, with what its quality of service asks for (MQTT 5, section 4.3).

QoS 1 and 2 are acknowledged when the router has. A publication of QoS 2 that comes twice is published once.
"""

from typing import TYPE_CHECKING, Any, Final

import mqtt5
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from proxy.messages import MessageError
from proxy.mqtt.errors import MqttError
from proxy.mqtt.layout import V5
from proxy.mqtt.link import Refused
from proxy.mqtt.payloads import PayloadError, Publication
from proxy.mqtt.reasons import publish_code
from proxy.mqtt.topics import TopicError, topic_to_wamp

if TYPE_CHECKING:
    from proxy.mqtt.client import MqttClient

__all__ = ["Publisher"]

_CODES: Final = mqtt5.PubAckReasonCode
_END: Final = mqtt5.DisconnectReasonCode


class Publisher:
    """Those of one client.

    :param client: whose.
    :param receive_max: how many with QoS 1 or 2 may be under way.
    """

    def __init__(self, client: "MqttClient", receive_max: int) -> None:
        self._client = client
        self._receive_max = receive_max
        self._unacknowledged: set[int] = set()
        # QoS 2: published, and the client has not said yet that it knows so.
        self._received: set[int] = set()

    @property
    def is_full(self) -> bool:
        """Whether a client that knows no maximum has to wait with more.

        One in version 5 knows it, and must not wait: what it acknowledges might be what the answers are behind.
        """
        return self._client.version != V5 and len(self._unacknowledged) >= self._receive_max

    # --- PUBLISH ---

    def publish(self, packet: mqtt5.PublishPacket) -> None:
        """The client publishes.

        :raises MqttError: it may not do so in this way.
        """
        # The library's numbers are no integers, and all of them are true.
        number, qos = packet.packet_id or 0, int(packet.qos)
        if packet.topic_alias is not None:
            raise MqttError(_END.TOPIC_ALIAS_INVALID, "there are no topic aliases here")
        if packet.subscription_ids:
            raise MqttError(_END.PROTOCOL_ERROR, "a subscription identifier in a client's PUBLISH")
        if qos and not self._enter(number, qos):
            return
        try:
            uri = topic_to_wamp(packet.topic)
        except TopicError as error:
            self._refuse(qos, number, _CODES.TOPIC_NAME_INVALID, str(error))
            return
        sent = self.transmit(
            uri, packet.topic, packet.payload, is_acknowledged=qos > 0, is_retained=packet.retain
        )
        sent.addCallbacks(
            lambda _: self._acknowledge(qos, number),
            lambda failure: self._refuse(qos, number, *_reason(failure)),
        ).addErrback(self._client.crashed)

    def _enter(self, number: int, qos: int) -> bool:
        """Note a publication with QoS 1 or 2; False: it is one that has come before."""
        if number in self._unacknowledged:
            return False  # its answer is on the way
        if number in self._received:
            if qos == 2:
                self._client.send(mqtt5.PubRecPacket(number))
                return False
            raise MqttError(_END.PROTOCOL_ERROR, f"packet identifier {number} is in use")
        under_way = len(self._unacknowledged) + len(self._received)
        if under_way >= self._receive_max and (qos == 2 or self._client.version == V5):
            raise MqttError(_END.RECEIVE_MAX_EXCEEDED, f"more than {self._receive_max} publications are under way")
        self._unacknowledged.add(number)
        return True

    def transmit(
        self, uri: str, topic: str, payload: bytes, *, is_acknowledged: bool, is_retained: bool
    ) -> "Deferred[Any]":
        """Publish.

        :returns: fires when the router has it, or when it is sent where that is not acknowledged; fails with
            PayloadError, MessageError, Refused, or what went wrong in a call.
        """
        to_wamp: Any = self._client.bridge.mapping.to_wamp
        made: Deferred[Publication] = maybeDeferred(to_wamp, uri, topic, payload)
        # What this client publishes after it comes after it.
        go_on = _nothing if made.called else self._client.hold()

        def send(publication: Publication) -> "Deferred[Any] | None":
            try:
                return self._send(uri, publication, is_acknowledged, is_retained)
            finally:
                go_on()

        def failed(failure: Failure) -> Failure:
            go_on()
            return failure

        sent: Deferred[Any] = made.addCallbacks(send, failed)
        return sent

    def _send(
        self, uri: str, publication: Publication, is_acknowledged: bool, is_retained: bool
    ) -> "Deferred[Any] | None":
        options = dict(publication.options)
        if is_acknowledged:
            options["acknowledge"] = True
        if is_retained:
            options["retain"] = True
        # An MQTT client gets what it has published itself, if it has subscribed to it.
        options["exclude_me"] = self._client.subscriber.excludes_own(uri)
        return self._client.link.publish(options, uri, publication.payload)

    # --- answers ---

    def _acknowledge(self, qos: int, number: int) -> None:
        if qos == 1:
            self._unacknowledged.discard(number)
            self._client.send(mqtt5.PubAckPacket(number))
        elif qos == 2:
            self._unacknowledged.discard(number)
            self._received.add(number)
            self._client.send(mqtt5.PubRecPacket(number))
        self._client.go_on()

    def _refuse(self, qos: int, number: int, code: mqtt5.PubAckReasonCode, text: str) -> None:
        """Tell a client in version 5; in 3.1.1 it is acknowledged like any other (3.1.1, section 3.3.5)."""
        self._client.bridge.complain(f"a publication is dropped: {text}")
        if self._client.version != V5:
            self._acknowledge(qos, number)
            return
        self._unacknowledged.discard(number)
        if qos == 1:
            self._client.send(mqtt5.PubAckPacket(number, reason_code=code, reason_str=self._client.told(text)))
        elif qos == 2:
            recode = mqtt5.PubRecReasonCode(int(code))
            self._client.send(mqtt5.PubRecPacket(number, reason_code=recode, reason_str=self._client.told(text)))
        self._client.go_on()

    def release(self, packet: mqtt5.PubRelPacket) -> None:
        """PUBREL: the client knows that a publication with QoS 2 has come."""
        number = packet.packet_id
        if number in self._received:
            self._received.discard(number)
            self._client.send(mqtt5.PubCompPacket(number))
        else:
            not_found = mqtt5.PubCompReasonCode.PACKET_ID_NOT_FOUND
            self._client.send(mqtt5.PubCompPacket(number, reason_code=not_found))


def _nothing() -> None:
    """Nobody waits."""


def _reason(failure: Failure) -> tuple[mqtt5.PubAckReasonCode, str]:
    error = failure.value
    if isinstance(error, Refused):
        return publish_code(error.uri), error.text or error.uri
    if isinstance(error, PayloadError | MessageError):
        return _CODES.PAYLOAD_FORMAT_INVALID, str(error)
    if isinstance(error, CancelledError):
        return _CODES.UNSPECIFIED_ERROR, "given up"
    return _CODES.IMPLEMENTATION_SPECIFIC_ERROR, f"the decoder failed: {error}"
