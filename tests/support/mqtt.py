"""A real MQTT client (paho) whose events a test waits for, and the transports that it connects to."""

from __future__ import annotations

import queue
import socket
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from support.endpoints import free_port
from support.proxies import Config
from support.raw import Wire

TIMEOUT = 15.0
V311, V5 = paho.MQTTv311, paho.MQTTv5


class MqttConfig(Config):
    """A configuration with MQTT transports."""

    def mqtt(self, options: dict[str, Any] | None = None, *, tls: dict[str, Any] | None = None, **keys: Any) -> int:
        """Add one.

        :param options: of MQTT; ``realm1`` unless they say something else.
        :returns: its port.
        """
        endpoint: dict[str, Any] = {"type": "tcp", "interface": "127.0.0.1", "port": free_port()}
        if tls is not None:
            endpoint["tls"] = tls
        item = {"type": "mqtt", "id": f"mqtt{len(self.transports):03d}", "endpoint": endpoint}
        self.transports.append({**item, "options": {"realm": "realm1", **(options or {})}, **keys})
        return int(endpoint["port"])


class Mqtt:
    """One client.

    :param port: of the transport, on this machine.
    :param version: V311 or V5.
    :param keys: ``user``, ``password``, ``clean``, ``keep_alive``, ``will`` (topic, payload, qos, retain), ``ca``,
        ``inflight`` (0: any number), ``properties`` (of CONNECT).
    """

    def __init__(self, port: int, version: int = V5, client_id: str = "", **keys: Any) -> None:
        clean = {} if version == V5 else {"clean_session": keys.get("clean", True)}
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, **clean)
        self.version = version
        self.answers: queue.Queue[Any] = queue.Queue()
        self.messages: queue.Queue[Any] = queue.Queue()
        self.ends: queue.Queue[int] = queue.Queue()
        self.paho.on_connect = lambda *args: self.answers.put(args[2:])
        self.paho.on_subscribe = lambda *args: self.answers.put([int(code.value) for code in args[3]])
        self.paho.on_unsubscribe = lambda *args: self.answers.put([int(code.value) for code in args[3]])
        self.paho.on_publish = lambda *args: self.answers.put((args[2], int(args[3].value)))
        self.paho.on_message = lambda *args: self.messages.put(args[2])
        self.paho.on_disconnect = lambda *args: self.ends.put(int(args[3].value))
        if "inflight" in keys:
            self.paho.max_inflight_messages_set(keys["inflight"])
        if "user" in keys:
            self.paho.username_pw_set(keys["user"], keys.get("password"))
        if "will" in keys:
            self.paho.will_set(*keys["will"])
        if "ca" in keys:
            self.paho.tls_set(str(keys["ca"]))
        self.paho.reconnect_delay_set(3600, 3600)
        arguments: dict[str, Any] = {"clean_start": keys["clean"]} if version == V5 and "clean" in keys else {}
        if "properties" in keys:
            arguments["properties"] = Properties(PacketTypes.CONNECT)
            for name, value in keys["properties"].items():
                setattr(arguments["properties"], name, value)
        self.paho.connect("localhost" if "ca" in keys else "127.0.0.1", port, keys.get("keep_alive", 60), **arguments)
        self.paho.loop_start()
        self.flags, reason, self.properties = self.answer()
        self.code = int(reason.value)

    def answer(self) -> Any:
        """The next of CONNACK, SUBACK, UNSUBACK, and that a publication is done."""
        return self.answers.get(timeout=TIMEOUT)

    def subscribe(self, *filters: str, qos: int = 0, number: int = 0, **options: Any) -> list[int]:
        """:param number: identifier of the subscription.
        :returns: the codes."""
        if self.version == V5:
            properties = Properties(PacketTypes.SUBSCRIBE)
            if number:
                properties.SubscriptionIdentifier = number
            wishes = [(one, SubscribeOptions(qos=qos, **options)) for one in filters]
            self.paho.subscribe(wishes, properties=properties)
        else:
            self.paho.subscribe([(one, qos) for one in filters])
        codes: list[int] = self.answer()
        return codes

    def unsubscribe(self, *filters: str) -> list[int]:
        """:returns: the codes; of 3.1.1 there are none."""
        self.paho.unsubscribe(list(filters))
        codes: list[int] = self.answer()
        return codes

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> int:
        """Publish, and wait until that is done.

        :returns: the reason code.
        """
        number = self.paho.publish(topic, payload, qos, retain).mid
        done = self.answer()
        assert done[0] == number
        return int(done[1])

    def message(self) -> tuple[str, bytes]:
        """The next event."""
        message = self.messages.get(timeout=TIMEOUT)
        return message.topic, message.payload

    def end(self) -> int:
        """Wait until the connection has ended; the reason code."""
        return self.ends.get(timeout=TIMEOUT)

    def hang_up(self) -> None:
        """End it without DISCONNECT."""
        sock = self.paho.socket()
        self.paho.loop_stop()
        with suppress(OSError, AttributeError):
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def leave(self) -> None:
        """DISCONNECT. No error if it is over."""
        self.paho.disconnect()
        self.paho.loop_stop()


def dial(port: int) -> Wire:
    """A connection for octets of a test's own."""
    return Wire(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT))
