"""Child process: xconn's asyncio client as the client of the scenarios, see clients.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from typing import Any

from wampproto import auth, serializers
from xconn.async_client import AsyncClient
from xconn.async_session import AsyncSession
from xconn.exception import ApplicationError
from xconn.types import Event, Invocation, InvokeOptions, PublishOptions, RegisterOptions, Result

SERIALIZERS = {
    "json": serializers.JSONSerializer,
    "msgpack": serializers.MsgPackSerializer,
    "cbor": serializers.CBORSerializer,
}
STEP = 20.0
DEFLATE_DEFAULT = {"no_context": False, "bits": 0}


async def connect(job: dict[str, Any]) -> AsyncSession:
    """A joined session."""
    endpoint = job["endpoint"]
    url = f"unix+rs://{endpoint['path']}" if endpoint["path"] else endpoint["url"]
    if job["batched"]:
        raise NotImplementedError("the client has no batched subprotocols")
    if job["deflate"] not in (None, DEFLATE_DEFAULT):
        raise NotImplementedError("the client has no parameters for its compression")
    client = AsyncClient(auth.AnonymousAuthenticator(""), SERIALIZERS[job["serializer"]]())
    session = await asyncio.wait_for(client.connect(url, job["realm"]), STEP)
    if endpoint["kind"] == "websocket":
        extensions = session._base_session.transport._websocket.protocol.extensions
        if bool(extensions) != (job["deflate"] is not None):
            raise RuntimeError(f"asked for compression {job['deflate']}, the server speaks {extensions}")
    return session


class Scenarios:
    """The scenarios over three joined sessions: a (caller, publisher), b and c."""

    def __init__(self, prefix: str, a: AsyncSession, b: AsyncSession, c: AsyncSession) -> None:
        self.prefix, self.a, self.b, self.c = prefix, a, b, c

    async def rpc(self) -> Any:
        async def sum_up(invocation: Invocation) -> Result:
            return Result([sum(invocation.args)])

        async def same(invocation: Invocation) -> Result:
            return Result(invocation.args, invocation.kwargs)

        registration = await self.b.register(self.prefix + "add", sum_up)
        await self.b.register(self.prefix + "echo", same)
        values = [None, True, -1, 1.5, 9007199254740991, "åß∂ƒ", [1, [2]], {"k": {"v": []}}]
        seen: dict[str, Any] = {"add": (await self.a.call(self.prefix + "add", [2, 3])).args[0]}
        echoed = await self.a.call(self.prefix + "echo", values, {"a": 1, "b": [2, 3]})
        seen["echo"] = [echoed.args, echoed.kwargs]
        seen["unknown"] = await self.refusal(self.prefix + "unknown")
        await registration.unregister()
        seen["unregistered"] = await self.refusal(self.prefix + "add")
        return seen

    async def refusal(self, procedure: str) -> str:
        """The URI of the error a call ends in."""
        try:
            return f"no error: {await self.a.call(procedure, [2, 3])!r}"
        except ApplicationError as error:
            return str(error.message)

    async def collect(self, session: AsyncSession, topic: str) -> tuple[list[Any], Any]:
        """Subscribe; the list that events go into."""
        events: list[Any] = []

        async def on_event(event: Event) -> None:
            events.append([event.args or [], event.kwargs or {}])

        return events, await session.subscribe(topic, on_event)

    async def pubsub(self, events: int) -> Any:
        topic = self.prefix + "topic"
        seen_b, subscription = await self.collect(self.b, topic)
        seen_c, _ = await self.collect(self.c, topic)
        for i in range(events):
            await self.a.publish(topic, [i], {"n": i}, PublishOptions(acknowledge=True))
        await until(lambda: len(seen_b) == len(seen_c) == events)
        await subscription.unsubscribe()
        before = seen_b.copy()
        seen_b.clear()
        await self.a.publish(topic, ["late"], options=PublishOptions(acknowledge=True))
        await until(lambda: len(seen_c) == events + 1)
        return {"events": [[a[0], k] for a, k in before], "also": len(seen_c) - 1, "after_unsubscribe": seen_b}

    async def failing(self) -> ApplicationError:
        async def fail(_: Invocation) -> Result:
            raise ApplicationError("com.example.error.failed", "because", 7, why="reasons", code=9)

        registration = await self.b.register(self.prefix + "fail", fail)
        try:
            await self.a.call(self.prefix + "fail")
        except ApplicationError as error:
            return error
        finally:
            await registration.unregister()
        raise AssertionError("the call did not fail")

    async def errors(self) -> Any:
        error = await self.failing()
        return {"uri": error.message, "args": list(error.args)}

    async def error_kwargs(self) -> Any:
        error = await self.failing()
        return {"uri": error.message, "kwargs": error.kwargs}

    async def progressive(self, steps: int) -> Any:
        async def work(_: Invocation) -> Result:
            return Result(["done"])

        await self.b.register(self.prefix + "work", work)
        on_progress = getattr(self.a, "call_progress", None)
        assert on_progress is not None, "the client has no progressive results"
        raise NotImplementedError(f"progressive results appeared in the client: write this scenario ({steps} steps)")

    async def cancel(self) -> Any:
        assert hasattr(self.a, "cancel"), "the client has no call cancelling"
        raise NotImplementedError("call cancelling appeared in the client: write this scenario")

    async def exclude_eligible(self) -> Any:
        topic = self.prefix + "listed"
        lists = [(await self.collect(session, topic))[0] for session in (self.b, self.c, self.a)]
        b, c = self.b._base_session.id, self.c._base_session.id
        for text, options in (
            ("all-but-one", PublishOptions(acknowledge=True, exclude_me=False, exclude=[b])),
            ("only", PublishOptions(acknowledge=True, exclude_me=False, eligible=[c])),
            ("end", PublishOptions(acknowledge=True, exclude_me=False)),
        ):
            await self.a.publish(topic, [text], options=options)
        await until(lambda: all(events and events[-1][0][0] == "end" for events in lists))
        texts = [[args[0] for args, _ in events] for events in lists]
        return {"excluded": texts[0], "chosen": texts[1], "other": texts[2]}

    async def shared(self, calls: int) -> Any:
        async def zero(_: Invocation) -> Result:
            return Result([0])

        async def one(_: Invocation) -> Result:
            return Result([1])

        options = RegisterOptions(invoke=InvokeOptions.ROUNDROBIN)
        await self.b.register(self.prefix + "shared", zero, options)
        await self.c.register(self.prefix + "shared", one, options)
        answers = [(await self.a.call(self.prefix + "shared")).args[0] for _ in range(calls)]
        return {"answers": sorted(answers)}

    async def payload(self, octets: int) -> Any:
        text = "0123456789abcdef" * (octets // 16)
        got: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def same(invocation: Invocation) -> Result:
            return Result(invocation.args)

        async def on_event(event: Event) -> None:
            got.set_result(event.args[0])

        await self.b.register(self.prefix + "same", same)
        await self.b.subscribe(self.prefix + "big", on_event)
        called = (await self.a.call(self.prefix + "same", [text])).args[0] == text
        await self.a.publish(self.prefix + "big", [text], options=PublishOptions(acknowledge=True))
        return {"called": called, "event": await asyncio.wait_for(got, STEP) == text}

    async def inflight(self, calls: int) -> Any:
        async def same(invocation: Invocation) -> Result:
            return Result(invocation.args)

        await self.b.register(self.prefix + "one", same)
        answers = await asyncio.gather(*(self.a.call(self.prefix + "one", [i]) for i in range(calls)))
        return {"answers": [answer.args[0] for answer in answers] == list(range(calls))}


async def until(condition: Any) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(STEP):
        while not condition():  # noqa: ASYNC110 - what is waited for is state of the library
            await asyncio.sleep(0.002)


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """All scenarios of a job; a failed connection fails them all."""
    results: dict[str, Any] = {}
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
        # A transport that failed in a scenario is that scenario's error, not one of leaving.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(session.leave(), STEP)
    return results


async def main() -> None:
    """Jobs from standard input, answers to standard output."""
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        with contextlib.redirect_stdout(sys.stderr):  # the library prints
            results = await run(job)
        print(json.dumps({"id": job["id"], "results": results}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
