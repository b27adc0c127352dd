"""MQTT on a listening transport: its clients, and what they share."""

import logging
import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory

from proxy.config.mqtt import MqttKeys
from proxy.config.websocket_items import RawSocketItem
from proxy.inner_clients import Caller, InnerEntrance, InnerSession
from proxy.messages import SER_CBOR
from proxy.mqtt.client import MqttClient
from proxy.mqtt.link import NETWORK_FAILURE, Refused, WampLink
from proxy.mqtt.payloads import CODEC_SECONDS, PayloadMapping
from proxy.peers import Peer
from proxy.service_requests import Reply
from proxy.web.longpoll_end import RawSocketEnd
from proxy.web.tunnel import SecureTunnelEnd, TunnelEnd, open_pair

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["MqttBridge"]

log = logging.getLogger(__name__)

_LINE_SECONDS: Final = 10.0
"""Between two lines about what clients have done wrong."""


class MqttSession(InnerSession):
    """The session of an MQTT client, as :class:`FrontSession`."""

    __slots__ = ()

    def transport_details(self) -> dict[str, Any]:
        """What the router is told of the client's connection."""
        # Autobahn has no name for it; Crossbar.io says the same of its own MQTT clients.
        return super().transport_details() | {"type": "mqtt", "channel_framing": "native"}


class MqttEntrance(InnerEntrance):
    """The way in for the MQTT clients of a transport."""

    SESSION = MqttSession


class MqttBridge:
    """The MQTT part of a transport.

    :param transport: the listening transport.
    :param name: which way in of that transport's it is, see :class:`proxy.entrances.Entrance`.
    :param config: its item.

    :ivar mapping: what becomes of payloads.
    :ivar connect_seconds: how long a client may take for CONNECT.
    """

    FIRST_OCTET: Final = 0x10
    """Of what a client sends: the type of CONNECT."""

    def __init__(self, transport: "ProxyTransport", name: str, config: MqttKeys) -> None:
        self._transport = transport
        self._controller = transport.controller
        self.reactor: Any = transport.controller.reactor
        self.options = config.options
        item = RawSocketItem.model_construct(
            serializers=("cbor",),
            auth=self.options.auth,
            session_ids=self.options.session_ids,
            limits=getattr(config, "limits", None) if name else None,
        )
        self._entrance = MqttEntrance(transport, name, item)
        limits = self._entrance.limits
        self.connect_seconds = limits.handshake_timeout / 1000
        self._stall_seconds = limits.stall_timeout / 1000
        self.mapping = PayloadMapping(self.options.payload_mapping, self.options.realm, self._call)
        self._clients: set[MqttClient] = set()
        self._by_id: dict[tuple[str, str], MqttClient] = {}
        self._is_started = self._is_stopping = False
        self._next_line = 0.0
        self._untold = 0

    # --- life ---

    def start(self) -> "Deferred[None]":
        """Get ready. Fails with a ProxyError."""

        def started(_: None) -> None:
            self._is_started = True

        return self._entrance.start().addCallback(started)

    def stop(self) -> "Deferred[None]":
        """Take nobody any more, and end the sessions.

        :returns: fires when all sessions are gone.
        """
        if self._is_stopping or not self._is_started:
            return succeed(None)
        self._is_stopping = True
        for client in list(self._clients):
            client.stop()
        return self._entrance.stop()

    # --- clients ---

    def tunnel(self, conn: int, peer: Peer, head: bytes) -> None:
        """Serve a client whose connection waits in the data plane.

        :param conn: its number.
        :param peer: who it is, by the PROXY protocol where that is spoken.
        :param head: nothing.
        :raises OSError: out of descriptors; the connection still waits.
        """
        if self._is_stopping:
            self._transport.plane.abort(conn)
            return
        ours, theirs = open_pair()
        self._transport.plane.tunnel(conn, theirs.detach())
        client: Any = MqttClient(self, peer)
        end_class = SecureTunnelEnd if peer.is_secure else TunnelEnd
        self._clients.add(client)
        end_class(ours, client, self.reactor, peer, None, self._stall_seconds).open()

    def gone(self, client: MqttClient) -> None:
        """A client's connection is closed."""
        self._clients.discard(client)

    def connect(self, peer: Peer, link: WampLink) -> "Deferred[None]":
        """Connect a client to the data plane.

        :returns: fires when messages may be sent; fails with Refused.
        """
        opened: Deferred[None] = Deferred()
        try:
            ours, token = self._entrance.add(Caller(peer, None, "mqtt", on_gone=link.resume))
        except (OSError, RuntimeError) as error:
            self.complain(f"clients are refused: {error}")
            opened.errback(Refused(NETWORK_FAILURE, "this server takes no more clients"))
            return opened

        link.forget = lambda: self._entrance.drop(token)

        def told(trouble: str | None) -> None:
            if trouble is None:
                opened.callback(None)
            else:
                opened.errback(Refused(NETWORK_FAILURE, trouble))

        end = RawSocketEnd(self.reactor, link, SER_CBOR, told)
        factory: Any = Factory.forProtocol(lambda: end)
        factory.noisy = False
        with ours:  # the reactor has a descriptor of its own
            self.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        return opened

    # --- clients by their IDs ---

    def enter(self, client: MqttClient) -> None:
        """A client is there; where it is there already, that connection ends.

        An ID is that of an identity: nobody can end another one's connection by taking its ID.
        """
        key = client.authid, client.client_id
        before = self._by_id.get(key)
        if before is not None:
            before.taken_over()
        self._by_id[key] = client

    def leave(self, client: MqttClient) -> None:
        """A client is there no more. No error if it was not."""
        key = client.authid, client.client_id
        if self._by_id.get(key) is client:
            del self._by_id[key]

    # --- codecs of payloads ---

    def _call(self, realm: str, procedure: str, args: list[Any]) -> "Deferred[Any]":
        session: Deferred[Any] = self._controller.get_service_session(realm, self.options.role)
        called = session.addCallback(lambda found: found.requests.call(procedure, args, {}))
        return called.addTimeout(CODEC_SECONDS, self.reactor).addCallback(_result)

    # --- the log ---

    def complain(self, text: str) -> None:
        """Something that clients or routers do is dropped. That may happen any number of times: not all of it is
        logged."""
        self._untold += 1
        now = self.reactor.seconds()
        if now >= self._next_line:
            self._next_line = now + _LINE_SECONDS
            log.warning("MQTT on transport %s: %s (%d such things so far)", self._transport.id, text, self._untold)

    def note_end(self, client: MqttClient, text: str) -> None:
        """A client's connection is ended for a reason."""
        if self._controller.logs_sessions:
            log.info("MQTT client %s is disconnected: %s", client.peer.text, text)


def _result(reply: Reply) -> Any:
    return reply.args[0] if reply.args else None
