"""Two ordinary clients of the quickstart: they join through the proxy, make one call and one publication.

autobahn-python's own asyncio clients, so that what is shown is what any client does. Importing this module chooses
asyncio for autobahn in the whole process: it is for the quickstart's process only.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from autobahn.asyncio.rawsocket import WampRawSocketClientFactory
from autobahn.asyncio.wamp import ApplicationSession
from autobahn.asyncio.websocket import WampWebSocketClientFactory
from autobahn.wamp.exception import ApplicationError, TransportLost
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer
from autobahn.wamp.types import ComponentConfig

PROCEDURE = "com.example.add"
TOPIC = "com.example.greeting"
JOIN_SECONDS = 15.0
CALL_SECONDS = 10.0
LEAVE_SECONDS = 3.0


class DemoError(Exception):
    """A step of the demonstration failed; the text says which and why."""


class Outcome(NamedTuple):
    """What came back, and after how long (ms)."""

    value: Any
    milliseconds: float


class _Session(ApplicationSession):
    """autobahn's session, without its log lines about how it ended: that is reported as a step."""

    def onLeave(self, details: Any) -> None:
        """The session has ended: close the transport as well."""
        self.disconnect()


class DemoClient:
    """A client session, joined through the proxy.

    :param name: what the output calls it.
    :param url: ``ws://host:port/path`` or ``rs://host:port``.
    :param realm: the realm to join.
    """

    def __init__(self, name: str, url: str, realm: str) -> None:
        self.name = name
        self.url = url
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._joined: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._session = cast(Any, _Session(ComponentConfig(realm=realm)))
        self._session.on("join", self._on_join)
        self._session.on("leave", self._on_end)
        self._session.on("disconnect", self._on_end)

    @property
    def session_id(self) -> int:
        """The session ID that the client was given."""
        return int(self._joined.result().session)

    async def join(self, host: str, port: int) -> None:
        """Connect to ``host``:``port`` and join.

        :raises DemoError: refused, aborted, or not done within ``JOIN_SECONDS``.
        """
        factory: Any
        if self.url.startswith("ws"):
            factory = WampWebSocketClientFactory(lambda: self._session, url=self.url, serializers=[JsonSerializer()])
            if ":" in host:  # autobahn leaves the brackets of an IPv6 address out of the Host header
                factory.host = f"[{host}]"
        else:
            factory = WampRawSocketClientFactory(lambda: self._session, serializer=CBORSerializer())
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                _, protocol = await asyncio.get_running_loop().create_connection(factory, host, port)
                # A handshake that fails ends the connection before the session hears of it.
                protocol.is_closed.add_done_callback(self._on_closed)
                await asyncio.wait({self._joined, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise DemoError(f"{self.name} did not join through {self.url} within {JOIN_SECONDS:.0f} s") from None
        except OSError as error:
            raise DemoError(f"{self.name} cannot connect to {self.url}: {error}") from None
        if not self._joined.done():
            raise DemoError(f"{self.name} was not let in through {self.url}: {self._ended.result()}")

    async def provide(self) -> "asyncio.Queue[str]":
        """Register the procedure and subscribe to the topic; returns where the events arrive."""
        events: asyncio.Queue[str] = asyncio.Queue(maxsize=16)

        def on_greeting(text: str) -> None:
            if not events.full():  # after the demonstration nobody reads it
                events.put_nowait(text)

        await self._step("register", lambda: self._session.register(lambda x, y: int(x) + int(y), PROCEDURE))
        await self._step("subscribe", lambda: self._session.subscribe(on_greeting, TOPIC))
        return events

    async def call(self, x: int, y: int) -> Outcome:
        """Call the procedure."""
        began = time.perf_counter()
        value = await self._step("call", lambda: self._session.call(PROCEDURE, x, y))
        return Outcome(value, (time.perf_counter() - began) * 1000)

    async def publish(self, text: str, events: "asyncio.Queue[str]") -> Outcome:
        """Publish to the topic and wait until the other client has the event."""
        began = time.perf_counter()

        def start() -> Any:
            self._session.publish(TOPIC, text)
            return events.get()

        value = await self._step("publication", start)
        return Outcome(value, (time.perf_counter() - began) * 1000)

    async def leave(self) -> None:
        """Say GOODBYE and wait for the end, for ``LEAVE_SECONDS`` at most."""
        if self._joined.done() and not self._ended.done():
            try:
                self._session.leave()
                await asyncio.wait({self._ended}, timeout=LEAVE_SECONDS)
            except Exception:
                # The transport is gone already: nothing is left to leave.
                return

    async def _step(self, what: str, start: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await start()
        except TimeoutError:
            raise DemoError(f"{self.name}: no answer to the {what} within {CALL_SECONDS:.0f} s") from None
        except ApplicationError as error:
            raise DemoError(f"{self.name}: the {what} failed: {error.error_message()}") from None
        except TransportLost:
            raise DemoError(f"{self.name}: the {what} failed: the connection was closed") from None

    def _on_join(self, _session: Any, details: Any) -> None:
        if not self._joined.done():
            self._joined.set_result(details)

    def _on_closed(self, _closed: object) -> None:
        self._on_end(self._session)

    def _on_end(self, _session: Any, details: Any = None, **_more: Any) -> None:
        if not self._ended.done():
            reason = getattr(details, "reason", None) or "the connection was closed"
            message = getattr(details, "message", None)
            self._ended.set_result(f"{reason} ({message})" if message else str(reason))
