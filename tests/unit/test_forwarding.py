"""What one side is told of the other."""

import pytest

from proxy.forwarding import leave_taking, transport_details
from proxy.messages import SER_CBOR, SER_JSON, SER_MSGPACK, decode, encode
from proxy.plane import CODEC_RS, CODEC_WS


def test_transport_of_a_batched_and_compressed_client():
    told = transport_details(CODEC_WS, SER_CBOR, "tcp4:1", {}, "wamp.2.cbor.batched", "permessage-deflate")
    assert told["websocket_protocol"] == "wamp.2.cbor.batched"
    assert told["websocket_extensions_in_use"] == ["permessage-deflate"]
    assert told["channel_serializer"] == "cbor"


def test_transport_of_plain_clients():
    told = transport_details(CODEC_WS, SER_CBOR, "tcp4:1", {})
    assert (told["websocket_protocol"], told["websocket_extensions_in_use"]) == ("wamp.2.cbor", [])
    told = transport_details(CODEC_RS, SER_CBOR, "tcp4:1", None)
    assert (told["websocket_protocol"], told["websocket_extensions_in_use"]) == (None, None)


def test_the_same_serializer_needs_no_encoding():
    octets = b'[ 6 , {"x" : 1.0}, "com.bye"]'
    assert leave_taking(SER_JSON, SER_JSON, octets, decode(SER_JSON, octets)) is octets


@pytest.mark.parametrize("target", [SER_MSGPACK, SER_CBOR])
def test_another_serializer(target):
    message = [3, {"message": "no"}, "com.no", [b"\1", None], {"k": [1.5]}]
    octets = encode(SER_JSON, message)
    assert decode(target, leave_taking(SER_JSON, target, octets, decode(SER_JSON, octets))) == message


@pytest.mark.parametrize("code", [3, 6])
def test_what_cannot_be_expressed_keeps_type_and_reason(code):
    message = [code, {"x": 2**70}, "com.why"]
    octets = encode(SER_CBOR, message)
    told = decode(SER_MSGPACK, leave_taking(SER_CBOR, SER_MSGPACK, octets, message))
    assert (told[0], told[2], list(told[1])) == (code, "com.why", ["message"])
