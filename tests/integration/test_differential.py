"""A scenario through the proxy gives each client the same messages as without it.

Three raw clients run one script; every message they receive is recorded. IDs that a router draws and what it says about
a session's way to it are replaced by stable names; everything else must be equal, also the order.
"""

from __future__ import annotations

from typing import Any

import pytest

from support import raw
from support.endpoints import Endpoint
from support.proxies import ProxyProcess
from support.raw import (
    CALL,
    CANCEL,
    EVENT,
    GOODBYE,
    INVOCATION,
    PUBLISH,
    REGISTER,
    RESULT,
    SUBSCRIBE,
    WELCOME,
    YIELD,
    Peer,
)

pytestmark = pytest.mark.peers

# What a router says about itself, its process and the connection it sees: true on both ways, and different.
VOLATILE = {"x_cb_node", "x_cb_worker", "x_cb_peer", "x_cb_pid", "authid", "caller_authid", "callee_authid"}
VOLATILE |= {"publisher_authid", "authextra"}
# How the client was authenticated is the proxy's word (test_login.py looks at it).
VOLATILE |= {"authmethod", "authprovider", "realm"}
PAYLOAD: list[Any] = [None, True, -1, 1.5, 2**53, "åß∂ƒ €𝄞", "", [], {}, [1, [2, [3]]], {"k": {"v": [None]}}]


class Names:
    """Stable names for the IDs of one run, in the order in which they appear, apart for each kind of ID."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, int], str] = {}

    def of(self, kind: str, number: int) -> str:
        """The name of an ID."""
        count = sum(key[0] == kind for key in self.names)
        return self.names.setdefault((kind, number), f"{kind}{count}")


# Where messages hold IDs that a router draws (INVOCATION.Request counts over all sessions of some routers).
DRAWN: dict[int, dict[int, str]] = {
    2: {1: "session"},
    17: {2: "publication"},
    33: {2: "subscription"},
    36: {1: "subscription", 2: "publication"},
    65: {2: "registration"},
    68: {1: "request", 2: "registration"},
    69: {1: "request"},
}
SESSION_KEYS = {"caller", "callee", "publisher", "session"}


def normal(message: list[Any], names: Names) -> list[Any]:
    """A message with drawn IDs named and volatile details removed."""
    message = list(message)
    for position, kind in DRAWN.get(message[0], {}).items():
        message[position] = names.of(kind, message[position])
    for position, part in enumerate(message[:4]):
        if isinstance(part, dict):
            message[position] = {
                key: names.of("session", value) if key in SESSION_KEYS else value
                for key, value in sorted(part.items())
                if key not in VOLATILE
            }
    return message


def script(a: Peer, b: Peer, c: Peer, prefix: str) -> None:
    """RPC, errors, progressive results, cancelling, events, lists, wrong requests, GOODBYE, and a second session."""
    b.register(prefix + "echo")
    a.send([CALL, a.request(), {}, prefix + "echo", PAYLOAD, {"key": PAYLOAD}])
    invocation = b.recv_type(INVOCATION)
    assert invocation[4:] == [PAYLOAD, {"key": PAYLOAD}]
    b.send([YIELD, invocation[1], {}, *invocation[4:]])
    assert a.recv_type(RESULT)[3:] == [PAYLOAD, {"key": PAYLOAD}]

    a.send([CALL, a.request(), {}, prefix + "echo"])
    b.send([raw.ERROR, INVOCATION, b.recv_type(INVOCATION)[1], {}, "com.example.error.e", ["text", 1], {"k": [2]}])
    a.recv_type(raw.ERROR)

    a.send([CALL, a.request(), {"receive_progress": True}, prefix + "echo", [1]])
    number = b.recv_type(INVOCATION)[1]
    b.send(*([YIELD, number, {"progress": True}, [i]] for i in range(3)), [YIELD, number, {}, ["end"]])
    for _ in range(4):
        a.recv_type(RESULT)

    a.send([CALL, a.request(), {}, prefix + "nothing"])
    a.recv_type(raw.ERROR)
    a.send([REGISTER, a.request(), {}, prefix + "echo"])
    a.recv_type(raw.ERROR)

    for peer in (b, c):
        peer.send([SUBSCRIBE, peer.request(), {}, prefix + "topic"])
        peer.recv_type(raw.SUBSCRIBED)
    for i in range(3):
        a.send([PUBLISH, a.request(), {"acknowledge": True}, prefix + "topic", [i], {"n": PAYLOAD}])
        a.recv_type(raw.PUBLISHED)
        for peer in (b, c):
            peer.recv_type(EVENT)
    a.send([PUBLISH, a.request(), {}, prefix + "topic"])
    for peer in (b, c):
        peer.recv_type(EVENT)


def crossbar_script(a: Peer, b: Peer, c: Peer, prefix: str) -> None:
    """What only Crossbar.io knows: cancelling, lists of session IDs, disclosed identities, shared registrations."""
    b.register(prefix + "slow")
    request = a.request()
    a.send([CALL, request, {}, prefix + "slow"])
    b.recv_type(INVOCATION)
    a.send([CANCEL, request, {"mode": "killnowait"}])
    a.recv_type(raw.ERROR)
    number = b.recv_type(raw.INTERRUPT)[1]
    b.send([raw.ERROR, INVOCATION, number, {}, "wamp.error.canceled"])
    for options in ({"exclude": [b.session]}, {"eligible": [c.session]}):
        a.send([PUBLISH, a.request(), {"acknowledge": True, **options}, prefix + "topic", [1]])
        a.recv_type(raw.PUBLISHED)
        c.recv_type(EVENT)
    for peer in (b, c):
        peer.register(prefix + "shared", invoke="roundrobin")
    for i in range(4):
        a.send([CALL, a.request(), {}, prefix + "shared", [i]])
        callee = (b, c)[i % 2]
        callee.send([YIELD, callee.recv_type(INVOCATION)[1], {}, [i]])
        a.recv_type(RESULT)


def record(endpoint: Endpoint, serializer: str, router: str, prefix: str) -> list[list[list[Any]]]:
    """Run the script; what each of three clients received, made comparable."""
    peers = [raw.dial(endpoint, serializer) for _ in range(3)]
    for peer in peers:
        peer.recorded = []
        peer.join()
    script(*peers, prefix)
    if router == "crossbar":
        crossbar_script(*peers, prefix)
    for peer in peers:
        peer.goodbye()
    for peer in peers:
        peer.close()
    names = Names()
    return [[normal(message, names) for message in peer.recorded or ()] for peer in peers]


@pytest.mark.parametrize("router", ["crossbar", "xconn"])
@pytest.mark.parametrize("serializer", ["json", "msgpack", "cbor"])
@pytest.mark.parametrize("transport", ["ws-tcp", "rs-unix"])
def test_same_messages(router: str, serializer: str, transport: str, main_proxy: ProxyProcess, get_router) -> None:
    """Recorded messages are equal, the client's second look at WELCOME included."""
    direct = record(get_router(router).direct[transport], serializer, router, f"com.direct.{transport}.{serializer}.")
    prefix = f"com.direct.{transport}.{serializer}."
    proxied = record(main_proxy.endpoints[f"{router}/{transport}"], serializer, router, prefix)
    for seen_direct, seen_proxied in zip(direct, proxied, strict=True):
        assert [message[0] for message in seen_proxied] == [message[0] for message in seen_direct]
        for without, through in zip(seen_direct, seen_proxied, strict=True):
            assert through == without
    assert direct[0][0][0] == WELCOME
    assert direct[0][-1][0] == GOODBYE


def odd_call(serializer: str) -> bytes:
    """A CALL with one argument (1 or 7) in an encoding that no encoder here would choose."""
    uri = f"com.example.octets.{serializer}".encode()
    if serializer == "json":
        return b'[48 ,1,\n{"x_unknown":1.50}, "%s" ,[1.0, "\\u0041\\/", 1e2],{ } ]' % uri
    if serializer == "msgpack":
        # empty options as map 16, URI as str 16, arguments as array 32 with an integer as uint 32
        head = bytes([0x95, 48, 1, 0xDE, 0, 0, 0xDA, 0, len(uri)])
        return head + uri + bytes([0xDD, 0, 0, 0, 1, 0xCE, 0, 0, 0, 7])
    # options with a double where a half would do, arguments with an integer in four octets
    head = bytes([0x85, 0x18, 48, 1, 0xA1, 0x61, 0x78, 0xFB, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0, 0x78, len(uri)])
    return head + uri + bytes([0x81, 0x1A, 0, 0, 0, 7])


@pytest.mark.parametrize("serializer", ["json", "msgpack", "cbor"])
def test_odd_encodings_pass(serializer: str, main_proxy: ProxyProcess) -> None:
    """Odd but legal encodings of options and payload go through, and the router understands them."""
    endpoint = main_proxy.endpoints["crossbar/ws-tcp"]
    with raw.joined(endpoint, serializer) as callee, raw.joined(endpoint, serializer) as caller:
        callee.register(f"com.example.octets.{serializer}")
        caller.send_raw(odd_call(serializer))
        invocation = callee.recv_type(INVOCATION)
        assert invocation[4][0] == (1.0 if serializer == "json" else 7)
        callee.send([YIELD, invocation[1], {}, ["ok"]])
        assert caller.recv_type(RESULT)[3] == ["ok"]
