"""Child process: autobahn-python (asyncio) as the client of the scenarios, see clients.py."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from typing import Any

import txaio

txaio.use_asyncio()

from autobahn.asyncio.rawsocket import WampRawSocketClientFactory  # noqa: E402
from autobahn.asyncio.wamp import ApplicationSession  # noqa: E402
from autobahn.asyncio.websocket import WampWebSocketClientFactory  # noqa: E402
from autobahn.wamp import ApplicationError, CallResult, ComponentConfig  # noqa: E402
from autobahn.wamp.serializer import (  # noqa: E402
    CBORSerializer,
    FlatBuffersSerializer,
    JsonSerializer,
    MsgPackSerializer,
    UBJSONSerializer,
)
from autobahn.wamp.types import CallOptions, PublishOptions, RegisterOptions, SubscribeOptions  # noqa: E402
from autobahn.websocket.compress import (  # noqa: E402
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)

SERIALIZERS = {
    "json": JsonSerializer,
    "msgpack": MsgPackSerializer,
    "cbor": CBORSerializer,
    "ubjson": UBJSONSerializer,
    "flatbuffers": FlatBuffersSerializer,
}
STEP = 20.0


class Client(ApplicationSession):
    """A session that says when it has joined and when it is gone."""

    def __init__(self, realm: str) -> None:
        super().__init__(ComponentConfig(realm=realm))
        self.joined: asyncio.Future[Any] = asyncio.get_event_loop().create_future()
        self.gone: asyncio.Future[Any] = asyncio.get_event_loop().create_future()

    async def onJoin(self, details: Any) -> None:
        """WELCOME."""
        self.joined.set_result(details)

    def onLeave(self, details: Any) -> None:
        """GOODBYE or ABORT."""
        if not self.joined.done():
            self.joined.set_exception(RuntimeError(f"{details.reason}: {details.message}"))
        self.disconnect()

    def onDisconnect(self) -> None:
        """The transport is closed."""
        if not self.joined.done():
            self.joined.set_exception(RuntimeError("transport closed before WELCOME"))
        if not self.gone.done():
            self.gone.set_result(None)


async def connect(job: dict[str, Any]) -> Client:
    """A joined session."""
    loop = asyncio.get_running_loop()
    endpoint, serializer = job["endpoint"], SERIALIZERS[job["serializer"]](batched=job["batched"])
    session = Client(job["realm"])
    factory: Any
    if endpoint["kind"] == "websocket":
        factory = WampWebSocketClientFactory(lambda: session, url=endpoint["url"], serializers=[serializer], loop=loop)
        factory.setProtocolOptions(openHandshakeTimeout=10, closeHandshakeTimeout=5, **compression(job["deflate"]))
    else:
        factory = WampRawSocketClientFactory(lambda: session, serializer=serializer)
    if endpoint["path"]:
        await loop.create_unix_connection(factory, endpoint["path"])
    else:
        await loop.create_connection(factory, endpoint["host"], endpoint["port"])
    await asyncio.wait_for(session.joined, STEP)
    if endpoint["kind"] == "websocket":
        check_negotiated(session._transport, job)
    return session


def compression(deflate: dict[str, Any] | None) -> dict[str, Any]:
    """Protocol options that offer permessage-deflate with parameters for both directions, or nothing."""
    if deflate is None:
        return {}

    def accept(response: Any) -> Any:
        return PerMessageDeflateResponseAccept(response) if isinstance(response, PerMessageDeflateResponse) else None

    offer = PerMessageDeflateOffer(True, True, deflate["no_context"], deflate["bits"])
    return {"perMessageCompressionOffers": [offer], "perMessageCompressionAccept": accept}


def check_negotiated(transport: Any, job: dict[str, Any]) -> None:
    """Raise RuntimeError unless subprotocol and compression are those that the job asks for."""
    protocol = f"wamp.2.{job['serializer']}" + (".batched" if job["batched"] else "")
    if transport.websocket_protocol_in_use != protocol:
        raise RuntimeError(f"asked for {protocol}, the server speaks {transport.websocket_protocol_in_use}")
    extensions = transport.websocket_extensions_in_use
    if bool(extensions) != (job["deflate"] is not None):
        raise RuntimeError(f"asked for compression {job['deflate']}, the server speaks {extensions}")


async def leave(session: Client) -> None:
    """GOODBYE, then wait for the end of the transport."""
    if session.is_attached():
        session.leave()
        await asyncio.wait_for(session.gone, STEP)


class Scenarios:
    """The scenarios over three joined sessions: a (caller, publisher), b and c."""

    def __init__(self, prefix: str, a: Client, b: Client, c: Client) -> None:
        self.prefix, self.a, self.b, self.c = prefix, a, b, c

    async def rpc(self) -> Any:
        add = await self.b.register(lambda x, y: x + y, self.prefix + "add")
        await self.b.register(CallResult, self.prefix + "echo")
        values = [None, True, -1, 1.5, 9007199254740991, "åß∂ƒ", [1, [2]], {"k": {"v": []}}]
        seen = {"add": await self.a.call(self.prefix + "add", 2, 3)}
        echoed = await self.a.call(self.prefix + "echo", *values, a=1, b=[2, 3])
        seen["echo"] = [list(echoed.results), echoed.kwresults]
        seen["unknown"] = await self.refusal(self.prefix + "unknown")
        await add.unregister()
        seen["unregistered"] = await self.refusal(self.prefix + "add")
        return seen

    async def refusal(self, procedure: str) -> str:
        """The URI of the error a call ends in."""
        try:
            return f"no error: {await self.a.call(procedure, 2, 3)!r}"
        except ApplicationError as error:
            return str(error.error)

    async def collect(self, session: Client, topic: str) -> tuple[list[Any], Any]:
        """Subscribe; the list that events go into."""
        events: list[Any] = []
        return events, await session.subscribe(lambda *args, **kwargs: events.append([args, kwargs]), topic)

    async def pubsub(self, events: int) -> Any:
        topic = self.prefix + "topic"
        seen_b, subscription = await self.collect(self.b, topic)
        seen_c, _ = await self.collect(self.c, topic)
        for i in range(events):
            await self.a.publish(topic, i, n=i, options=PublishOptions(acknowledge=True))
        await until(lambda: len(seen_b) == len(seen_c) == events)
        await subscription.unsubscribe()
        del (before := seen_b.copy())[events:]
        seen_b.clear()
        await self.a.publish(topic, "late", options=PublishOptions(acknowledge=True))
        await until(lambda: len(seen_c) == events + 1)
        return {"events": [[a[0], k] for a, k in before], "also": len(seen_c) - 1, "after_unsubscribe": seen_b}

    async def failing(self) -> ApplicationError:
        def fail() -> None:
            raise ApplicationError("com.example.error.failed", "because", 7, why="reasons", code=9)

        registration = await self.b.register(fail, self.prefix + "fail")
        try:
            await self.a.call(self.prefix + "fail")
        except ApplicationError as error:
            return error
        finally:
            await registration.unregister()
        raise AssertionError("the call did not fail")

    async def errors(self) -> Any:
        error = await self.failing()
        return {"uri": error.error, "args": list(error.args)}

    async def error_kwargs(self) -> Any:
        error = await self.failing()
        return {"uri": error.error, "kwargs": error.kwargs}

    async def progressive(self, steps: int) -> Any:
        async def work(details: Any = None) -> str:
            for i in range(steps):
                details.progress(i)
                await asyncio.sleep(0)
            return "done"

        seen: list[Any] = []
        await self.b.register(work, self.prefix + "work", options=RegisterOptions(details_arg="details"))
        result = await self.a.call(self.prefix + "work", options=CallOptions(on_progress=seen.append))
        return {"progress": seen, "result": result}

    async def cancel(self) -> Any:
        started, interrupted = asyncio.Event(), asyncio.Event()

        async def sleeper() -> None:
            started.set()
            try:
                await asyncio.sleep(STEP * 2)
            except asyncio.CancelledError:
                interrupted.set()
                raise

        await self.b.register(sleeper, self.prefix + "sleeper")
        await self.b.register(lambda x, y: x + y, self.prefix + "still")
        # Nobody sees the router's ERROR once autobahn's future is cancelled: look at it on the way in.
        codes: list[Any] = []
        inner = self.a.onMessage

        def spy(msg: Any) -> Any:
            codes.append(getattr(msg, "error", None))
            return inner(msg)

        self.a.onMessage = spy
        call = self.a.call(self.prefix + "sleeper")
        await asyncio.wait_for(started.wait(), STEP)
        call.cancel()
        await until(lambda: "wamp.error.canceled" in codes)
        await asyncio.wait_for(interrupted.wait(), STEP)
        self.a.onMessage = inner
        return {
            "uri": next(code for code in codes if code),
            "interrupted": True,
            "still_works": await self.a.call(self.prefix + "still", 2, 3),
        }

    async def exclude_eligible(self) -> Any:
        topic = self.prefix + "listed"
        lists = [(await self.collect(session, topic))[0] for session in (self.b, self.c)]
        extra, _ = await self.collect(self.a, topic)
        b, c = self.b._session_id, self.c._session_id
        for text, options in (
            ("all-but-one", PublishOptions(acknowledge=True, exclude=[b], exclude_me=False)),
            ("only", PublishOptions(acknowledge=True, eligible=[c], exclude_me=False)),
            ("end", PublishOptions(acknowledge=True, exclude_me=False)),
        ):
            await self.a.publish(topic, text, options=options)
        texts = [[args[0] for args, _ in events] for events in (*lists, extra)]
        await until(lambda: all(events and events[-1][0][0] == "end" for events in (*lists, extra)))
        texts = [[args[0] for args, _ in events] for events in (*lists, extra)]
        return {"excluded": texts[0], "chosen": texts[1], "other": texts[2]}

    async def shared(self, calls: int) -> Any:
        options = RegisterOptions(invoke="roundrobin")
        await self.b.register(lambda: 0, self.prefix + "shared", options=options)
        await self.c.register(lambda: 1, self.prefix + "shared", options=options)
        return {"answers": sorted([await self.a.call(self.prefix + "shared") for _ in range(calls)])}

    async def payload(self, octets: int) -> Any:
        text = "0123456789abcdef" * (octets // 16)
        got: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await self.b.register(lambda value: value, self.prefix + "same")
        await self.b.subscribe(got.set_result, self.prefix + "big", SubscribeOptions())
        called = await self.a.call(self.prefix + "same", text) == text
        await self.a.publish(self.prefix + "big", text, options=PublishOptions(acknowledge=True))
        return {"called": called, "event": await asyncio.wait_for(got, STEP) == text}

    async def inflight(self, calls: int) -> Any:
        await self.b.register(lambda value: value, self.prefix + "one")
        answers = await asyncio.gather(*(self.a.call(self.prefix + "one", i) for i in range(calls)))
        return {"answers": answers == list(range(calls))}


async def until(condition: Any) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(STEP):
        while not condition():  # noqa: ASYNC110 - what is waited for is state of the library
            await asyncio.sleep(0.002)


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """All scenarios of a job; a failed connection fails them all."""
    results: dict[str, Any] = {}
    sessions: list[Client] = []
    try:
        sessions = [await connect(job) for _ in range(3)]
    except Exception:
        trace = traceback.format_exc()
        return {name: {"error": trace} for name in job["scenarios"]}
    scenarios = Scenarios(job["prefix"], *sessions)
    for name, parameters in job["scenarios"].items():
        try:
            results[name] = {"observed": await asyncio.wait_for(getattr(scenarios, name)(**parameters), job["step"])}
        except Exception:
            results[name] = {"error": traceback.format_exc()}
    for session in sessions:
        try:
            await leave(session)
        except Exception:
            results["leave"] = {"error": traceback.format_exc()}
    return results


async def main() -> None:
    """Jobs from standard input, answers to standard output."""
    txaio.config.loop = asyncio.get_running_loop()
    txaio.start_logging(level="critical", out=sys.stderr)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        print(json.dumps({"id": job["id"], "results": await run(job)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
