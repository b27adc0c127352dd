"""Tunnels whose control-plane end goes away early: what it said last still reaches the client."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from kernel.harness import Plane
from kernel.test_tunnel import tunnel

ANSWER = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n" + b"too large " * 3000


def upload(client: socket.socket) -> None:
    """Send until it fails or is enough, as a client does that does not read before it has sent all."""
    with contextlib.suppress(OSError):
        for _ in range(200):
            client.sendall(b"u" * 65536)


def pressed(plane: Plane) -> None:
    """Wait until the client's octets pile up."""
    while not plane.stats("presses"):
        plane.pump(0.005)


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "queued"])
def test_an_answer_before_the_upload_is_read(plane: Plane, waits: bool) -> None:
    """The control plane's end answers and closes, and never reads what the client sends."""
    client, ours, conn = tunnel(plane)
    writer = threading.Thread(target=upload, args=(client.sock,))
    writer.start()
    if waits:
        pressed(plane)
    ours.sendall(ANSWER)
    ours.close()
    assert client.read(len(ANSWER)) == ANSWER
    client.read_end()
    writer.join()
    plane.closed(conn)


def test_an_answer_that_the_client_reads_slowly(plane: Plane) -> None:
    """As before, with more to say than the client takes at once."""
    listener = plane.listen("ws", high_water=65536, low_water=16384)
    client, ours, conn = tunnel(plane, listener)
    writer = threading.Thread(target=upload, args=(client.sock,))
    writer.start()
    pressed(plane)

    def answer() -> None:
        ours.sendall(b"a" * 8_000_000)
        ours.close()

    answering = threading.Thread(target=answer)
    answering.start()
    assert client.read(8_000_000) == b"a" * 8_000_000
    client.read_end()
    answering.join()
    writer.join()
    plane.closed(conn)


def test_reset_by_our_side_with_nothing_said(plane: Plane) -> None:
    client, ours, conn = tunnel(plane)
    client.write(b"never read")
    plane.barrier()
    ours.close()
    assert client.read_end() == "eof"
    assert plane.closed(conn).reason == "CLOSED_LOCAL"
