"""The worker's own management realm without a socket: its connections over a transport that the test holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxy.errors import NoSuchObject
from proxy.management.procedures import Caller, procedure
from proxy.management.rawsocket import ManagementConnection
from proxy.management.realm import ManagementRealm
from support import raw

PREFIX = "crossbar.worker.worker007"
SERIALIZER_NUMBERS = {"json": 1, "msgpack": 2, "cbor": 3}


class Worker:
    """What the realm needs of a worker, and procedures that do as the test says."""

    WORKER_TYPE = "proxy"
    WORKER_TITLE = "WAMP proxy"

    def __init__(self) -> None:
        self.reactor = Clock()
        self.worker_id = "worker007"
        self.uri_prefix = PREFIX
        self.cbdir = Path("/srv")
        self.public_key = None
        self.is_stopping = False
        self.carriers: list[Any] = []
        self.own_authextra = {"x_cb_proxy_worker": self.worker_id}
        self.pending: list[Deferred[Any]] = []
        self.callers: list[Caller | None] = []

    @procedure
    def echo(self, value: Any, details: Caller | None = None) -> Any:
        """What it is given."""
        self.callers.append(details)
        return value

    @procedure
    def length(self, text: str, details: Caller | None = None) -> Deferred[int]:
        """A Deferred that has fired."""
        return succeed(len(text))

    @procedure
    def wait(self, details: Caller | None = None) -> Deferred[Any]:
        """What the test answers."""
        self.callers.append(details)
        self.pending.append(Deferred())
        return self.pending[-1]

    @procedure
    def refuse(self, details: Caller | None = None) -> None:
        """A failure that has a URI."""
        raise NoSuchObject("nothing there")

    @procedure
    def crash(self, details: Caller | None = None) -> None:
        """A mistake in the program."""
        raise ZeroDivisionError("secret")


class Pipe:
    """The transport of one connection, as Twisted's: it buffers, and stops its producer while nobody reads."""

    def __init__(self) -> None:
        self.octets = b""
        self.producer: Any = None
        self.protocol: ManagementConnection
        self.is_read = True
        self.is_paused = False
        self.is_losing = False
        self.is_gone = False

    def getHandle(self) -> object:
        """No socket: nobody knows who is there."""
        return self

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert not self.is_gone
        self.octets += data
        if not self.is_read and self.producer is not None:
            self.producer.pauseProducing()

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def loseConnection(self) -> None:
        self.is_losing = True
        if self.is_read:
            self._lose(ConnectionDone())

    def abortConnection(self) -> None:
        self._lose(ConnectionAborted())

    def _lose(self, why: Exception) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.protocol.connectionLost(Failure(why))

    def read_again(self) -> None:
        """The client reads what is there."""
        self.is_read = True
        if self.producer is not None:
            self.producer.resumeProducing()
        if self.is_losing:
            self._lose(ConnectionDone())


class RealmClient:
    """One client.

    :param limit: code of the longest message that it takes: 2 ** (9 + limit) octets.
    """

    def __init__(self, realm: ManagementRealm, clock: Clock, serializer: str = "json", limit: int = 15) -> None:
        self.serializer = serializer
        self.pipe = Pipe()
        self.protocol = ManagementConnection(clock, realm.admit)
        self.pipe.protocol = self.protocol
        self.protocol.makeConnection(self.pipe)
        self.limit = limit
        self.request = 0

    def feed(self, octets: bytes) -> None:
        """Send octets, as far as the other side reads."""
        if not self.pipe.is_gone and not self.pipe.is_losing:
            self.protocol.dataReceived(octets)

    def shake(self) -> bytes:
        """RawSocket's handshake; the answer."""
        self.feed(bytes((0x7F, self.limit << 4 | SERIALIZER_NUMBERS[self.serializer], 0, 0)))
        answer, self.pipe.octets = self.pipe.octets[:4], self.pipe.octets[4:]
        return answer

    def say(self, *messages: list[Any]) -> list[list[Any]]:
        """Send messages; all that came since the last time."""
        for message in messages:
            payload = raw.encode(self.serializer, message)
            self.feed(len(payload).to_bytes(4, "big") + payload)
        return self.heard()

    def heard(self) -> list[list[Any]]:
        """The messages that came since the last time."""
        messages = []
        while self.pipe.octets:
            assert self.pipe.octets[0] == 0
            end = 4 + int.from_bytes(self.pipe.octets[:4], "big")
            messages.append(raw.decode(self.serializer, self.pipe.octets[4:end]))
            self.pipe.octets = self.pipe.octets[end:]
        return messages

    def join(self, **details: Any) -> RealmClient:
        """Handshake and HELLO."""
        self.shake()
        (welcome,) = self.say(raw.hello("crossbar", **details))
        assert welcome[0] == raw.WELCOME
        self.session = welcome[1]
        return self

    def ask(self, procedure: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> list[list[Any]]:
        """CALL a procedure of the worker; all that came since the last time."""
        self.request += 1
        uri = procedure if "." in procedure else f"{PREFIX}.{procedure}"
        return self.say([raw.CALL, self.request, options or {}, uri, list(args), kwargs])

    def subscribe(self, topic: str, match: str = "exact") -> int:
        """SUBSCRIBE; the subscription."""
        self.request += 1
        (answer,) = self.say([raw.SUBSCRIBE, self.request, {"match": match}, topic])
        assert answer[:2] == [raw.SUBSCRIBED, self.request]
        return int(answer[2])
