"""Packets of both versions: taken apart, put together, and never more than a connection's end when they are wrong."""

from __future__ import annotations

from typing import Any

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mqtt.errors import MqttError
from proxy.mqtt.wire import UnknownVersion, Wire

CONNECT5 = b"\x10\x0d\0\4MQTT\5\2\0\x3c\0\0\0"
CONNECT311 = b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0"


def wire(connect: bytes, packet_max: int = 100_000) -> Wire:
    """One whose CONNECT has been read."""
    made = Wire(packet_max)
    made.feed(connect)
    assert isinstance(made.next(), mqtt5.ConnectPacket)
    return made


def read(made: Wire, octets: bytes) -> Any:
    made.feed(octets)
    return made.next()


def test_connect_of_both_versions() -> None:
    """All parts of CONNECT; in 3.1.1 there are no properties."""
    made = Wire(1000)
    parts = b"\0\2id\0\6will/a\0\2hi\0\3joe\0\2pw"
    body = b"\0\4MQTT\4\xf6\0\x0a" + parts
    old = read(made, bytes([0x10, len(body)]) + body)
    body = b"\0\4MQTT\5\xf6\0\x0a\0" + parts[:4] + b"\0" + parts[4:]
    new = read(Wire(1000), bytes([0x10, len(body)]) + body)
    for packet in (old, new):
        assert (packet.client_id, packet.username, packet.password) == ("id", "joe", b"pw")
        assert (packet.will.topic, packet.will.payload, packet.will.retain) == ("will/a", b"hi", True)
        assert int(packet.will.qos) == 2
        assert (packet.clean_start, packet.keep_alive) == (True, 10)


def test_packets_of_version_3_1_1() -> None:
    """What has properties in version 5 has none."""
    made = wire(CONNECT311)
    packet = read(made, b"\x33\x0b\0\3a/b\0\7body")
    assert (packet.topic, packet.payload, packet.packet_id, packet.retain) == ("a/b", b"body", 7, True)
    packet = read(made, b"\x82\x0b\0\1\0\1a\1\0\2b#\2")
    assert [(one.pattern, int(one.max_qos)) for one in packet.topic_filters] == [("a", 1), ("b#", 2)]
    assert read(made, b"\xa2\5\0\1\0\1a").patterns == ["a"]
    for first, kind in ((0x40, mqtt5.PubAckPacket), (0x50, mqtt5.PubRecPacket), (0x62, mqtt5.PubRelPacket)):
        assert isinstance(read(made, bytes([first]) + b"\2\0\1"), kind)
    assert isinstance(read(made, b"\xc0\0"), mqtt5.PingReqPacket)
    assert isinstance(read(made, b"\xe0\0"), mqtt5.DisconnectPacket)


def test_answers_in_version_3_1_1() -> None:
    made = wire(CONNECT311)
    codes, subs = mqtt5.ConnAckReasonCode, mqtt5.SubAckReasonCode
    assert made.write(mqtt5.ConnAckPacket(receive_max=5, assigned_client_id="a")) == b"\x20\2\0\0"
    for code, number in (
        (codes.CLIENT_ID_NOT_VALID, 2),
        (codes.SERVER_BUSY, 3),
        (codes.BAD_USER_NAME_OR_PASSWORD, 4),
        (codes.NOT_AUTHORIZED, 5),
    ):
        packet = mqtt5.ConnAckPacket(reason_code=code, reason_str="x" * 200)
        assert made.write(packet) == bytes([0x20, 2, 0, number])
    packet = mqtt5.PublishPacket("a/b", b"x" * 300, qos=mqtt5.QoS(1), packet_id=7)
    assert made.write(packet) == b"\x32\xb3\2\0\3a/b\0\7" + b"x" * 300
    assert made.write(mqtt5.PublishPacket("a", b"x", retain=True)) == b"\x31\4\0\1ax"
    granted = [subs(1), subs.NOT_AUTHORIZED, subs.TOPIC_FILTER_INVALID]
    assert made.write(mqtt5.SubAckPacket(9, granted, reason_str="y" * 150)) == b"\x90\5\0\x09\1\x80\x80"
    assert made.write(mqtt5.UnsubAckPacket(9, [mqtt5.UnsubAckReasonCode(0x11)])) == b"\xb0\2\0\x09"
    refused = mqtt5.PubAckPacket(3, reason_code=mqtt5.PubAckReasonCode.NOT_AUTHORIZED, reason_str="no")
    assert made.write(refused) == b"\x40\2\0\3"
    assert made.write(mqtt5.PubRelPacket(3)) == b"\x62\2\0\3"
    assert made.write(mqtt5.PingRespPacket()) == b"\xd0\0"
    assert made.write(mqtt5.DisconnectPacket()) == b""


def test_packets_in_pieces() -> None:
    """They come as they come."""
    made = Wire(1000)
    stream = CONNECT5 + b"\x30\5\0\1a\0b" * 3
    packets = []
    for octet in stream:
        made.feed(bytes([octet]))
        while (packet := made.next()) is not None:
            packets.append(packet)
    assert len(packets) == 4
    assert made.waiting == 0


def test_too_large_before_it_is_there() -> None:
    made = wire(CONNECT5, 1000)
    made.feed(b"\x30\xe9\7")  # 1001 octets with its header
    with pytest.raises(MqttError) as caught:
        made.next()
    assert caught.value.code == mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE


@pytest.mark.parametrize(
    ("connect", "octets", "code"),
    [
        (CONNECT5, b"\x30\6\0\3\xff\xfe\xfd\0", 0x81),  # no UTF-8
        (CONNECT5, b"\x30\6\0\3\xed\xa0\x80\0", 0x81),  # half a surrogate pair
        (CONNECT5, b"\x30\4\0\1\0\0", 0x81),  # U+0000
        (CONNECT5, b"\x30\x0a\0\1a\6\x26\0\1\xff\0\0", 0x81),
        (CONNECT5, b"\x32\6\0\1a\0\0\0", 0x82),  # packet identifier 0
        (CONNECT5, b"\x82\3\0\1\0", 0x82),  # no filters
        (CONNECT5, b"\xa2\3\0\1\0", 0x82),
        (CONNECT5, b"\x82\7\0\1\0\0\1a\x42", 0x81),  # reserved bits
        (CONNECT311, b"\x82\6\0\1\0\1a\4", 0x81),
        (CONNECT311, b"\xf0\0", 0x82),
        (CONNECT5, b"\x30\x09\0\1a\4\x01\1\x01\1x", 0x82),  # a property twice
        (CONNECT5, b"\xc0\1x", 0x81),
        (CONNECT5, CONNECT5, 0x82),
        (CONNECT5, b"\x30\xff\xff\xff\xff", 0x81),
        (CONNECT311, b"\x40\3\0\1\0", 0x81),
    ],
)
def test_what_is_wrong(connect: bytes, octets: bytes, code: int) -> None:
    made = wire(connect)
    made.feed(octets)
    with pytest.raises(MqttError) as caught:
        made.next()
    assert caught.value.code == code


@pytest.mark.parametrize("flags", [0x01, 0x1C, 0x08, 0x20])
def test_connect_flags(flags: int) -> None:
    made = Wire(1000)
    made.feed(CONNECT5[:9] + bytes([flags]) + CONNECT5[10:])
    with pytest.raises(MqttError):
        made.next()


def test_other_versions() -> None:
    for octets in (
        b"\x10\x0c\0\6MQIsdp\3\2\0\x3c",
        b"\x10\x0d\0\4MQTT\6\2\0\x3c\0\0\0",
        b"\x10\x0c\0\4MQTT\3\2\0\x3c\0\0",
    ):
        made = Wire(1000)
        made.feed(octets)
        with pytest.raises(UnknownVersion):
            made.next()
        assert made.write(mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION))


def outcome(made: Wire) -> Any:
    """The next packet, or the error that it is."""
    try:
        return made.next()
    except MqttError as error:
        return error


@given(st.sampled_from([CONNECT5, CONNECT311]), st.integers(0, 255), st.binary(max_size=60))
def test_any_packet(connect: bytes, first: int, body: bytes) -> None:
    """It is read, or it is an error of the client's; nothing else comes of it, the library's panic least of all."""
    made = wire(connect)
    made.feed(bytes([first, len(body)]) + body)
    result = outcome(made)
    if isinstance(result, MqttError):
        assert "cannot be read" not in result.text
    else:
        assert type(result).__module__.startswith("mqtt5")


@given(st.binary(max_size=60), st.integers(0, 255))
def test_any_connect(rest: bytes, flags: int) -> None:
    body = b"\0\4MQTT\5" + bytes([flags]) + b"\0\x3c" + rest
    made = Wire(1000)
    made.feed(bytes([0x10, len(body)]) + body)
    result = outcome(made)
    assert isinstance(result, mqtt5.ConnectPacket) or "cannot be read" not in result.text
