"""As kernel.traffic, for what comes before and beside WAMP: PROXY protocol headers, TLS, tunnels.

Arguments: the first seed and the number of seeds.
"""

from __future__ import annotations

import ctypes
import random
import socket
import ssl
import sys
import tempfile
import threading
from pathlib import Path

from kernel.harness import HELLO, REQUEST, WELCOME, End, Plane, call, result
from proxy import _relay as R
from proxy.peers import read_intro
from support.certificates import Authority

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 443\r\n"


def carry(write: End, read: End, octets: bytes) -> None:
    """Octets from one end to the other; one direction at a time, as Python's TLS sockets want it."""
    writer = threading.Thread(target=write.write, args=(octets,))
    writer.start()
    assert read.read(len(octets)) == octets, "octets did not arrive as they were sent"
    writer.join()


def client_of(plane: Plane, tls: ssl.SSLContext, address: tuple[str, int], kind: str) -> End:
    """A client behind a balancer, over TLS."""
    sock = socket.create_connection(address, 20)
    sock.sendall(HEADER)
    end = End(tls.wrap_socket(sock, server_hostname="localhost"), kind, client=True)
    plane.ends.append(end)
    return end


def run(seed: int, tls: ssl.SSLContext, options: dict[str, object]) -> None:
    """A session, and a tunnel."""
    rng = random.Random(seed)
    plane = Plane(1)
    number = plane.relay.add_tls(**options)
    begin = {"tls": number, "proxy_from": R.pack_networks(["127.0.0.1"]), "high_water": 20_000, "low_water": 1000}
    try:
        listener = plane.listen("rs", **begin)
        client = client_of(plane, tls, listener.address, "rs")
        client.write(bytes([0x7F, 0xF0 | R.SER_CBOR, 0, 0]))
        assert client.read(4)[:1] == b"\x7f"
        event = plane.wait(R.EV_OPEN, owner=listener.number)
        assert read_intro(event.data)[0].host == "192.0.2.7"
        client.send(HELLO)
        plane.wait(R.EV_MESSAGE, conn=event.conn)
        router, back, _ = plane.back(event.conn, plane.router())
        plane.relay.link(event.conn, back, WELCOME)
        assert client.recv() == WELCOME
        for _ in range(4):
            sizes = [rng.choice([0, 20, 3000, 16_384, 200_000]) for _ in range(8)]
            carry(client, router, b"".join(client.frame(call(size)) for size in sizes))
            carry(router, client, b"".join(router.frame(result(size)) for size in sizes))
        plane.relay.close(event.conn)
        assert client.read_end() == "eof"  # with close_notify, or it is an error

        listener = plane.listen("ws", **begin)
        client = client_of(plane, tls, listener.address, "ws")
        client.write(REQUEST + b"body")
        event = plane.wait(R.EV_HEAD, owner=listener.number)
        near, far = socket.socketpair()
        far.setblocking(False)
        ours = End(near, "ws", client=False)
        plane.ends.append(ours)
        plane.relay.tunnel(event.conn, far.detach())
        assert ours.read(4) == b"body"
        for size in (1, 5000, 300_000):
            carry(client, ours, rng.randbytes(size))
            carry(ours, client, rng.randbytes(size))
        ours.write(b"last words")
        ours.close()
        assert client.read(10) == b"last words"
        assert client.read_end() == "eof"
        plane.close()
    except BaseException:
        plane.kill()
        raise


def main() -> None:
    """Rounds."""
    shim = ctypes.CDLL(None)
    first, count = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        pair = authority.issue("server")
        items = [(pair.chain.read_bytes(), pair.key.read_bytes(), [])]
        tls = ssl.create_default_context(cafile=str(authority.certificate))
        for seed in range(first, first + count):
            shim.faults_seed(seed)
            print("seed", seed, flush=True)
            run(seed, tls, {"server": True, "certificates": items})


main()
