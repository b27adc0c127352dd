"""Logs in over SSH and types: ``manhole_client.py ENDPOINT USER PASSWORD LINE ...``.

ENDPOINT is a client endpoint as Twisted writes them (``tcp:127.0.0.1:6022``, ``unix:/path``). Prints the fingerprint of
the host key, then what the prompt prints; ends with status 0 when the connection is closed, 1 when the login failed.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.conch.ssh import channel, common, connection, transport, userauth
from twisted.internet import reactor
from twisted.internet.defer import fail, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory


class Shell(channel.SSHChannel):
    name = b"session"

    def channelOpen(self, data: Any) -> None:
        size = b"\0\0\0\x50\0\0\0\x18" + b"\0" * 8
        self.conn.sendRequest(self, b"pty-req", common.NS(b"dumb") + size + common.NS(b""), wantReply=1)
        self.conn.sendRequest(self, b"shell", b"", wantReply=1)
        for line in sys.argv[4:]:
            self.write(line.encode() + b"\r")

    def closed(self) -> None:
        self.conn.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        sys.stdout.write(data.decode(errors="replace"))
        sys.stdout.flush()


class Connection(connection.SSHConnection):
    def serviceStarted(self) -> None:
        self.openChannel(Shell(conn=self))


class Login(userauth.SSHUserAuthClient):
    tries = 0

    def getPassword(self, prompt: Any = None) -> Any:
        self.tries += 1
        return succeed(sys.argv[3].encode()) if self.tries == 1 else fail(RuntimeError("refused"))

    def getPublicKey(self) -> None:
        return None

    def ssh_USERAUTH_FAILURE(self, packet: bytes) -> Any:
        if self.tries:
            end(1)
            return None
        return super().ssh_USERAUTH_FAILURE(packet)


class Client(transport.SSHClientTransport):
    def verifyHostKey(self, key: bytes, fingerprint: bytes) -> Any:
        print("host key", fingerprint.decode(), flush=True)
        return succeed(True)

    def connectionSecure(self) -> None:
        self.requestService(Login(sys.argv[2].encode(), Connection()))

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        end(0)


status = 2


def end(code: int) -> None:
    global status
    if status == 2:
        status = code
        reactor.stop()


def main() -> int:
    """Run until the connection is closed."""
    endpoint = clientFromString(reactor, sys.argv[1])
    endpoint.connect(Factory.forProtocol(Client)).addErrback(lambda failure: (print(failure.value), end(3)))
    reactor.run()
    return status


if __name__ == "__main__":
    sys.exit(main())
