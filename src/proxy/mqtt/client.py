"""One MQTT client: its connection, its WAMP session, and how both of them end."""

import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import mqtt5
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.mqtt.delivering import Deliverer
from proxy.mqtt.errors import MqttError
from proxy.mqtt.layout import V5
from proxy.mqtt.link import CLOSE_NORMAL, Event, Refused, WampLink
from proxy.mqtt.publishing import Publisher
from proxy.mqtt.reasons import login_code, reason_text, session_code
from proxy.mqtt.subscribing import Subscriber
from proxy.mqtt.topics import TopicError, topic_to_wamp
from proxy.mqtt.wire import UnknownVersion, Wire

if TYPE_CHECKING:
    from proxy.mqtt.bridge import MqttBridge
    from proxy.peers import Peer

__all__ = ["FLUSH_SECONDS", "LOGIN_SECONDS", "WILL_SECONDS", "MqttClient"]

log = logging.getLogger(__name__)

LOGIN_SECONDS: Final = 60.0
"""From CONNECT to CONNACK. What is waited for has deadlines of its own, most of them configurable; this is the last."""

WILL_SECONDS: Final = 5.0
"""How long the router may take for the will message of a client that is gone."""

FLUSH_SECONDS: Final = 2.0
"""How long a client may take for the last packet that it is sent."""

READ_AHEAD: Final = 65_536
"""Octets of a client that are read while it has to wait, so that its end is noticed."""

LAST_SECONDS: Final = 10.0
"""How long the packets that a client has sent before it left may take, where they have to wait."""

SLICE_SECONDS: Final = 0.02
"""How long packets of one client are handled before others are served."""

_KEEP_ALIVE_FACTOR: Final = 1.5  # section 3.1.2.10
_REASON_PACKET_MIN: Final = 1024
"""Clients that take less get no texts with the reason codes."""

_CONNECT: Final = mqtt5.ConnAckReasonCode
_END: Final = mqtt5.DisconnectReasonCode


@implementer(IPushProducer)
class MqttClient(Protocol):
    """See :class:`proxy.mqtt.link.LinkOwner`.

    :param bridge: that of its transport.
    :param peer: who it is.

    :ivar client_id: as the client names itself, or as it was named.
    :ivar authid: of its session; empty: anybody's.
    :ivar is_full: what was sent has to leave before there is more.
    """

    transport: Any

    def __init__(self, bridge: "MqttBridge", peer: "Peer") -> None:
        self.bridge = bridge
        self.peer = peer
        self.client_id = self.authid = ""
        self.is_full = False
        self.link = WampLink(bridge.reactor, self)
        self.subscriber = Subscriber(self, bridge.options.max_subscriptions)
        self.publisher = Publisher(self, bridge.options.receive_maximum)
        self._deliverer: Deliverer | None = None
        self._wire = Wire(bridge.options.max_packet_size)
        self._connect: mqtt5.ConnectPacket | None = None
        self._will: mqtt5.Will | None = None
        self._is_up = self._is_over = self._is_lost = False
        self._holds = 0
        self._is_pumping = False
        self._keep_alive = 0.0
        self._seen = 0.0
        self._timer: Any = None
        self._flush_timer: Any = None
        self._turn: Any = None

    @property
    def version(self) -> int:
        """V311 or V5; 0: it has not said."""
        return self._wire.version

    # --- Protocol ---

    def connectionMade(self) -> None:
        """The client is there. What it says first is CONNECT."""
        self.transport.registerProducer(self, True)
        self._arm(self.bridge.connect_seconds, self._no_connect)

    def dataReceived(self, data: bytes) -> None:
        """Some of its packets."""
        if not self._is_over:
            self._seen = self.bridge.reactor.seconds()
            self._wire.feed(data)
            self.go_on()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The client is gone."""
        self._is_lost = True
        self._cancel("_flush_timer")
        self.bridge.gone(self)
        if self._is_over or self._deliverer is None:
            self._finish(has_will=True)
            return
        # Packets of it may still wait, DISCONNECT among them: they came before the end.
        self.is_full = False
        self._deliverer.clear()
        self.link.resume()
        self._arm(LAST_SECONDS, self._no_more)
        self.go_on()

    # --- IPushProducer: what is sent has to wait ---

    def pauseProducing(self) -> None:
        """The client takes no more for now."""
        self.is_full = True

    def resumeProducing(self) -> None:
        """It does again."""
        self.is_full = False
        if self._deliverer is not None:
            self._deliverer.flush()
        self.go_on()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost() follows."""

    # --- what the client sends ---

    def hold(self) -> Callable[[], None]:
        """Have the client's next packets wait.

        :returns: to be called when they may come; idempotent.
        """
        self._holds += 1
        is_held = True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._holds -= 1
                self.go_on()

        return release

    @property
    def _has_to_wait(self) -> bool:
        # One that does not read what it is told is not read either: else the answers would heap up.
        is_here = self.is_full or self._turn is not None or bool(self._holds)
        return is_here or self.link.is_full or self.publisher.is_full

    def go_on(self) -> None:
        """Handle the packets that are there, unless the client has to wait."""
        if self._is_pumping:
            return
        self._is_pumping = True
        reactor = self.bridge.reactor
        end = reactor.seconds() + SLICE_SECONDS
        try:
            while not self._is_over and not self._has_to_wait and (packet := self._wire.next()) is not None:
                self._handle(packet)
                if reactor.seconds() >= end:
                    self._turn = reactor.callLater(0, self._next_turn)
        except UnknownVersion:
            self._refuse(_CONNECT.UNSUPPORTED_PROTOCOL_VERSION, "MQTT 3.1.1 and 5 are spoken here")
        except MqttError as error:
            self.fail(error.code, error.text)
        except Exception:
            log.exception("error while a packet of an MQTT client was handled")
            self.fail(_END.UNSPECIFIED_ERROR, "internal error")
        finally:
            self._is_pumping = False
        self._regulate()

    def _next_turn(self) -> None:
        self._turn = None
        self.go_on()

    def _regulate(self) -> None:
        """Read no more than what may come."""
        if self._is_over:
            return
        if self._is_lost:
            if not self._has_to_wait:
                self._finish(has_will=True)
        elif self._has_to_wait and self._wire.waiting >= READ_AHEAD:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def _handle(self, packet: Any) -> None:
        if isinstance(packet, mqtt5.ConnectPacket):
            self._on_connect(packet)
            return
        assert self._deliverer is not None, "only CONNECT is read before there is a session"
        if isinstance(packet, mqtt5.PublishPacket):
            self.publisher.publish(packet)
        elif isinstance(packet, mqtt5.PubAckPacket):
            self._deliverer.acknowledged(packet)
        elif isinstance(packet, mqtt5.PubRecPacket):
            self._deliverer.received(packet)
        elif isinstance(packet, mqtt5.PubRelPacket):
            self.publisher.release(packet)
        elif isinstance(packet, mqtt5.PubCompPacket):
            self._deliverer.completed(packet)
        elif isinstance(packet, mqtt5.SubscribePacket):
            self.subscriber.subscribe(packet)
        elif isinstance(packet, mqtt5.UnsubscribePacket):
            self.subscriber.unsubscribe(packet)
        elif isinstance(packet, mqtt5.PingReqPacket):
            self.send(mqtt5.PingRespPacket())
        elif isinstance(packet, mqtt5.DisconnectPacket):
            has_will = packet.reason_code != _END.NORMAL_DISCONNECTION  # section 3.1.2.5
            self._finish(has_will=has_will, reason=CLOSE_NORMAL)
        else:
            raise MqttError(_END.PROTOCOL_ERROR, "AUTH without enhanced authentication")

    # --- CONNECT ---

    def _on_connect(self, packet: mqtt5.ConnectPacket) -> None:
        if packet.authentication_method is not None:
            self._refuse(_CONNECT.BAD_AUTHENTICATION_METHOD, "there is no enhanced authentication here")
            return
        if not packet.client_id and self.version != V5 and not packet.clean_start:
            self._refuse(_CONNECT.CLIENT_ID_NOT_VALID, "")
            return
        ticket = _text_of(packet.password)
        if ticket is None:
            self._refuse(_CONNECT.BAD_USER_NAME_OR_PASSWORD, "the password is not UTF-8")
            return
        if packet.will is not None:
            try:
                topic_to_wamp(packet.will.topic)
            except TopicError as error:
                self._refuse(_CONNECT.TOPIC_NAME_INVALID, f"will: {error}")
                return
        self._connect, self._will = packet, packet.will
        self.client_id = packet.client_id or f"auto-{secrets.token_hex(12)}"
        self._arm(LOGIN_SECONDS, self._no_login)
        joined = self._join(packet, ticket)
        release = self.hold()
        joined.addCallbacks(self._joined, self._not_joined).addErrback(self.crashed).addBoth(lambda _: release())

    def _join(self, packet: mqtt5.ConnectPacket, ticket: str) -> "Deferred[dict[str, Any]]":
        """Log in, as Crossbar.io does it for MQTT clients."""
        will = packet.will
        told = {"client_id": self.client_id, "will": will is not None, "will_topic": will.topic if will else None}
        methods = ["tls"] if self.peer.tls is not None and self.peer.tls.certificate else []
        has_password = bool(packet.username and ticket)
        details = {
            "authmethods": [*methods, "ticket" if has_password else "anonymous"],
            "authid": packet.username if has_password else self.client_id,
            "authextra": {"mqtt": told},
        }
        opened = self.bridge.connect(self.peer, self.link)
        return opened.addCallback(lambda _: self.link.join(self.bridge.options.realm, details, ticket))

    def _joined(self, details: dict[str, Any]) -> None:
        packet, self._connect = self._connect, None
        assert packet is not None
        if self._is_over:
            return
        self._is_up = True
        is_known = details.get("authmethod") != "anonymous"
        self.authid = str(details.get("authid") or "") if is_known else ""
        self.bridge.enter(self)
        options = self.bridge.options
        self._deliverer = Deliverer(self, options, packet.receive_max or 1, packet.max_packet_size or 0)
        self.send(
            mqtt5.ConnAckPacket(
                # No session outlives its connection.
                session_expiry_interval=0 if packet.session_expiry_interval else None,
                assigned_client_id=None if packet.client_id else self.client_id,
                receive_max=options.receive_maximum,
                max_packet_size=options.max_packet_size,
                shared_subscription_available=False,
            )
        )
        self._wants_reasons = packet.request_problem_info and not 0 < (packet.max_packet_size or 0) < _REASON_PACKET_MIN
        self._cancel("_timer")
        if packet.keep_alive:
            self._keep_alive = packet.keep_alive * _KEEP_ALIVE_FACTOR
            self._arm(self._keep_alive, self._check_alive)

    def _not_joined(self, failure: Failure) -> None:
        failure.trap(Refused)
        error = failure.value
        assert isinstance(error, Refused)
        packet = self._connect
        if not self._is_over and packet is not None:
            has_password = bool(packet.username and packet.password)
            self._refuse(login_code(error.uri, has_password=has_password), error.text or error.uri)

    def _no_connect(self) -> None:
        self._timer = None
        self._finish(has_will=False)

    def _no_more(self) -> None:
        self._timer = None
        self._finish(has_will=True)

    def _no_login(self) -> None:
        self._timer = None
        self._refuse(_CONNECT.SERVER_BUSY, "the login takes too long")

    def _check_alive(self) -> None:
        self._timer = None
        if self._has_to_wait and self._wire.waiting >= READ_AHEAD:
            self._seen = self.bridge.reactor.seconds()  # nothing is read: it may well have said something
        left = self._seen + self._keep_alive - self.bridge.reactor.seconds()
        if left > 0:
            self._arm(left, self._check_alive)
        else:
            self.fail(_END.KEEP_ALIVE_TIMEOUT, "nothing came within one and a half times the keep alive time")

    # --- what is sent ---

    _wants_reasons = True

    def told(self, text: str) -> str | None:
        """A text to go with a reason code; None: the client does not want any."""
        return reason_text(text) if self._wants_reasons else None

    def encoded(self, packet: Any) -> bytes:
        """A packet's octets."""
        return self._wire.write(packet)

    def write(self, octets: bytes) -> None:
        """Send octets. No error if the client is gone."""
        if octets and not self._is_lost and not self._is_over:
            self.transport.write(octets)

    def send(self, packet: Any) -> None:
        """Send a packet; likewise."""
        self.write(self.encoded(packet))

    # --- LinkOwner ---

    def on_event(self, event: Event) -> None:
        """An event for the client."""
        if self._deliverer is not None and not self._is_over and not self._is_lost:
            self._deliverer.take(event)

    def on_link_full(self) -> None:
        """Nothing more is taken from the client for now; :attr:`WampLink.is_full` says so."""

    def on_link_writable(self) -> None:
        """It may go on."""
        self.go_on()

    def on_link_over(self, uri: str) -> None:
        """The router, or the proxy, has ended the session."""
        self.fail(session_code(uri), uri)

    # --- the end ---

    def taken_over(self) -> None:
        """Another connection of the same client is there (section 3.1.4)."""
        self.fail(_END.SESSION_TAKEN_OVER, "the client has connected once more")

    def stop(self) -> None:
        """The transport is stopped, and this client has no session that would be told so."""
        if not self._is_up:
            self._refuse(_CONNECT.SERVER_UNAVAILABLE, "the server shuts down")

    def crashed(self, failure: Failure) -> None:
        """Something went wrong in here."""
        log.error("error of an MQTT client's session\n%s", failure.getTraceback())
        self.fail(_END.UNSPECIFIED_ERROR, "internal error")

    def fail(self, code: mqtt5.DisconnectReasonCode, text: str) -> None:
        """End the connection, and say why. Idempotent."""
        if self._is_over:
            return
        self.bridge.note_end(self, text)
        if self._is_up:
            if self.version == V5:
                self.send(mqtt5.DisconnectPacket(reason_code=code, reason_str=self.told(text)))
            self._finish(has_will=True)
        elif self.version == V5:
            self._refuse(_refusal(code), text)
        else:
            self._finish(has_will=False)

    def _refuse(self, code: mqtt5.ConnAckReasonCode, text: str) -> None:
        """Refuse a client that has no session yet."""
        if self._is_over:
            return
        if self.version:
            self.send(mqtt5.ConnAckPacket(reason_code=code, reason_str=reason_text(text)))
        self._finish(has_will=False)

    def _finish(self, *, has_will: bool, reason: str = "") -> None:
        """Let go of the client, and of its session once its will is published.

        :param reason: of GOODBYE; empty: for the router the client's connection is lost.
        """
        if self._is_over:
            return
        self._is_over = True
        self._cancel("_timer")
        self._cancel("_turn")
        self.bridge.leave(self)
        if self._deliverer is not None:
            self._deliverer.clear()
            self.link.resume()  # what the router says of the will message may be behind events that nobody wants now
        if not self._is_lost:
            self._flush_timer = self.bridge.reactor.callLater(FLUSH_SECONDS, self._cut)
            self.transport.unregisterProducer()
            self.transport.resumeProducing()  # else the end would not be noticed
            self.transport.loseConnection()
        will, self._will = self._will, None
        if has_will and will is not None and self.link.is_joined:
            self._publish_will(will).addBoth(lambda _: self.link.close(reason))
        else:
            self.link.close(reason)

    def _publish_will(self, will: mqtt5.Will) -> "Deferred[Any]":
        """Section 3.1.2.5. The session ends with the connection, so there is no delay either (3.1.3.2.2)."""
        sent = self.publisher.transmit(
            topic_to_wamp(will.topic), will.topic, will.payload or b"", is_acknowledged=True, is_retained=will.retain
        )

        def failed(failure: Failure) -> None:
            self.bridge.complain(f"a will message is lost: {failure.value}")

        return sent.addTimeout(WILL_SECONDS, self.bridge.reactor).addErrback(failed)

    def _cut(self) -> None:
        self._flush_timer = None
        self.transport.abortConnection()

    # --- timers ---

    def _arm(self, seconds: float, act: Callable[[], None]) -> None:
        self._cancel("_timer")
        self._timer = self.bridge.reactor.callLater(seconds, act)

    def _cancel(self, name: str) -> None:
        timer = getattr(self, name)
        setattr(self, name, None)
        if timer is not None and timer.active():
            timer.cancel()


def _refusal(code: mqtt5.DisconnectReasonCode) -> mqtt5.ConnAckReasonCode:
    """The same for CONNACK."""
    try:
        return _CONNECT(int(code))
    except ValueError:
        return _CONNECT.UNSPECIFIED_ERROR


def _text_of(password: bytes | None) -> str | None:
    try:
        return (password or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
