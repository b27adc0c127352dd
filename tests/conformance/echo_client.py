"""A WebSocket client that echoes, made of the end of the data plane that dials.

Usage: ``echo_client.py HOST PORT AGENT CASES``.
"""

from __future__ import annotations

import select
import sys
import threading
from collections import deque

from proxy import _relay
from proxy.handshake import build_request

NOBODY = 0  # the frontend connection to dial for
TOKEN = 1
SER_NONE = 0  # not WAMP: the data plane looks at no message
DIAL_TIMEOUT_MS = 5000
CASE_TIMEOUT = 30.0  # seconds; the suite's own timers are shorter


class Testee:
    """One data thread that dials, echoes what it is sent, and dials again.

    :param host: address of the fuzzing server.
    :param port: its TCP port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.relay = _relay.Relay(1)
        self.params = self.relay.add_params(kind=_relay.CODEC_WS, client=True, any_opcode=True, hello_ms=0)
        self.events: deque[tuple[int, int, int, int, bytes]] = deque()
        self.thread = threading.Thread(target=self.relay.run, args=(0,), daemon=True)
        self.thread.start()

    def wait(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """The next event of one of these kinds, as (kind, connection, arg, data); others are an error."""
        while not self.events:
            if not select.select([self.relay.event_fd], [], [], CASE_TIMEOUT)[0]:
                raise TimeoutError(f"no event of {kinds} within {CASE_TIMEOUT} s")
            self.events.extend(self.relay.drain())
        kind, conn, _, arg, data = self.events.popleft()
        if kind not in kinds:
            raise RuntimeError(f"event {kind} of connection {conn:#x}, expected one of {kinds}: {arg:#x} {data!r}")
        return kind, conn, arg, data

    def run_case(self, target: str) -> None:
        """Dial ``target`` (path and query) and echo until the connection ends."""
        # The suite answers without a subprotocol, which no router does, so check_response() is not asked.
        request, _ = build_request(*self.address, target, ["wamp.2.json"], {})
        sockaddr = _relay.pack_sockaddr(*self.address)
        self.relay.dial(NOBODY, TOKEN, self.params, SER_NONE, sockaddr, request, b"", DIAL_TIMEOUT_MS, 0)
        kind, conn, arg, head = self.wait(_relay.EV_HEAD, _relay.EV_CLOSED)
        if kind == _relay.EV_CLOSED or not head[1:].startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"no opening handshake for {target}: {arg:#x} {head!r}")
        self.relay.upgrade(conn, b"", SER_NONE)
        self.relay.link_self(conn)
        self.wait(_relay.EV_CLOSED)

    def stop(self) -> None:
        """End the data thread and free what it had."""
        self.relay.stop()
        self.thread.join()
        self.relay.release()


def main(host: str, port: str, agent: str, cases: str) -> None:
    """Run all cases, in order."""
    testee = Testee(host, int(port))
    for case in range(1, int(cases) + 1):
        testee.run_case(f"/runCase?case={case}&agent={agent}")
    testee.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
