"""Child process: autobahn-python (asyncio) as a client of a worker's own management realm. Prints one JSON object.

Arguments: path of the Unix socket, serializer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from autobahn.wamp import ApplicationError
from autobahn.wamp.types import PublishOptions, SubscribeOptions
from client_autobahn import connect, leave, until

CONNECTION = {
    "transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/router.sock"}},
}


async def failure(awaitable: Any) -> list[Any]:
    """URI and text of the error that it ends in."""
    try:
        await awaitable
    except ApplicationError as error:
        return [error.error, error.args[0] if error.args else ""]
    raise AssertionError("no error")


async def main(path: str, serializer: str) -> None:
    """Every kind of message that a client may send."""
    endpoint = {"kind": "rawsocket", "path": path}
    job = {"endpoint": endpoint, "serializer": serializer, "batched": False, "realm": "crossbar"}
    watcher, client = await connect(job), await connect(job)
    (worker,) = await client.call("crossbar.get_workers")
    prefix = f"crossbar.worker.{worker}"
    events: list[list[Any]] = []

    def seen(event: Any, details: Any) -> None:
        events.append([details.topic, event["state"]])

    options = SubscribeOptions(match="prefix", details=True)
    subscription = await watcher.subscribe(seen, f"{prefix}.on_proxy_", options=options)
    found: dict[str, Any] = {"worker": worker}
    found["started"] = await client.call(f"{prefix}.start_proxy_connection", "cnc1", config=CONNECTION)
    found["again"] = await failure(client.call(f"{prefix}.start_proxy_connection", "cnc1", CONNECTION))
    found["list"] = await client.call(f"{prefix}.get_proxy_connections")
    found["stopped"] = (await client.call(f"{prefix}.stop_proxy_connection", "cnc1"))["state"]
    await until(lambda: len(events) == 4)
    await subscription.unsubscribe()
    found["events"] = events
    found["publish"] = await failure(client.publish("com.example.t", options=PublishOptions(acknowledge=True)))
    found["register"] = await failure(client.register(lambda: None, "com.example.p"))
    found["unknown"] = await failure(client.call(f"{prefix}.nothing"))
    await leave(watcher)
    await leave(client)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
