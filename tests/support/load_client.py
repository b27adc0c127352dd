"""Child process: autobahn-python sessions that call and publish all the time, and count what they sent and got.

It takes a line of JSON for each command and answers each with a line, in order:

- ``{"open": name, "job": {...}, "load": bool}`` joins (``job`` as in clients.py) and begins to call and to publish;
- ``{"close": name}`` ends that, waits for what is under way, and leaves: ``{"calls": n, "published": n}``;
- ``{"left": name}`` waits until the session was ended by the other side: ``{"reason": uri}``;
- ``{"counts": null}``: for each session that is there, how many calls returned and how many events were acknowledged.

The first session that is opened is the witness: it answers the calls and gets all events. ``{"witness": null}`` says
how many it got of each publisher, once it has all that were acknowledged. Any error, and anything that is lost, doubled
or out of order, is in ``errors`` of that answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from autobahn.wamp.types import PublishOptions
from client_autobahn import STEP, connect, leave

ECHO, TOPIC = "com.example.load.echo", "com.example.load.topic"


class Load:
    """A session that calls the witness and publishes to it, both at once, and each time waits for the answer.

    :param name: of the session.
    :param session: joined.
    """

    def __init__(self, name: str, session: Any) -> None:
        self.name, self.session = name, session
        self.calls = self.published = 0
        self.is_over = False
        self.tasks: list[asyncio.Task[None]] = []
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        session.on("leave", lambda _, details: self.reason.set_result(details.reason))

    def start(self, errors: list[str]) -> None:
        """Go on with both until it is over; what goes wrong is put into ``errors``."""
        for step in (self._call, self._publish):
            self.tasks.append(asyncio.create_task(self._run(step, errors)))

    async def _run(self, step: Callable[[], Awaitable[None]], errors: list[str]) -> None:
        try:
            while not self.is_over:
                await asyncio.wait_for(step(), STEP)
        except Exception as error:
            errors.append(f"{self.name}: after {self.calls} calls and {self.published} events: {error!r}")

    async def _call(self) -> None:
        number = self.calls + 1
        answer = await self.session.call(ECHO, self.name, number)
        if answer != [self.name, number]:
            raise ValueError(f"call {number} was answered {answer!r}")
        self.calls = number

    async def _publish(self) -> None:
        number = self.published + 1
        await self.session.publish(TOPIC, self.name, number, options=PublishOptions(acknowledge=True))
        self.published = number


class Loads:
    """All sessions of this process."""

    def __init__(self) -> None:
        self.there: dict[str, Load] = {}
        self.past: dict[str, int] = {}
        self.errors: list[str] = []
        self.received: dict[str, int] = {}

    async def open(self, name: str, job: dict[str, Any], load: bool) -> dict[str, Any]:
        """Join."""
        session = await connect(job)
        item = self.there[name] = Load(name, session)
        if len(self.there) == 1 and not self.past:
            await session.register(lambda *values: list(values), ECHO)
            await session.subscribe(self.on_event, TOPIC)
        elif load:
            item.start(self.errors)
        return {"session": session._session_id}

    def on_event(self, name: str, number: int) -> None:
        """What the witness gets."""
        before = self.received.get(name, 0)
        if number != before + 1:
            self.errors.append(f"witness: event {number} of {name} came after {before}")
        self.received[name] = number

    async def close(self, name: str) -> dict[str, Any]:
        """End in order."""
        item = self.there.pop(name)
        item.is_over = True
        for task in item.tasks:
            await task
        self.past[name] = item.published
        await leave(item.session)
        return {"calls": item.calls, "published": item.published}

    async def left(self, name: str) -> dict[str, Any]:
        """Wait for the other side's end."""
        reason = await asyncio.wait_for(self.there.pop(name).reason, STEP)
        return {"reason": reason}

    async def counts(self, _: None) -> dict[str, Any]:
        """How far everybody is."""
        return {"counts": {name: [item.calls, item.published] for name, item in self.there.items() if item.tasks}}

    async def witness(self, _: None) -> dict[str, Any]:
        """What the witness has; waits for what is on its way."""
        wanted = {name: count for name, count in self.past.items() if count}
        for _turn in range(round(STEP / 0.01)):
            if self.received == wanted or self.errors:
                break
            await asyncio.sleep(0.01)
        return {"received": self.received, "published": wanted, "errors": self.errors}


async def main() -> None:
    """Commands from standard input."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    loads = Loads()
    print("ready", flush=True)
    while line := await reader.readline():
        command = json.loads(line)
        what = next(iter(command))
        extra = {key: value for key, value in command.items() if key != what}
        try:
            answer = await getattr(loads, what)(command[what], **extra)
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
