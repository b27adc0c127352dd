"""Child process: the procedures of dynamic authentication at a router, see authenticators.py.

Arguments: an endpoint and the configuration of the authenticator, both as JSON. One procedure per authmethod,
``com.example.authenticate.<method>``, and ``com.example.sum`` for whoever wants to see that a session works.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import txaio

txaio.use_asyncio()

from autobahn.asyncio.rawsocket import WampRawSocketClientFactory  # noqa: E402
from autobahn.asyncio.wamp import ApplicationSession  # noqa: E402
from autobahn.wamp import ComponentConfig  # noqa: E402
from autobahn.wamp.serializer import CBORSerializer  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.authenticators import create  # noqa: E402
from support.principals import METHODS  # noqa: E402

REALM = "realm1"


class Procedures(ApplicationSession):
    """Has them registered."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(ComponentConfig(realm=REALM))
        self.authenticate = create(config, None)

    async def onJoin(self, details: Any) -> None:
        """WELCOME."""
        for method in ("anonymous", *METHODS):
            await self.register(self.authenticate, f"com.example.authenticate.{method}")
        await self.register(lambda *values: sum(values), "com.example.sum")
        print("ready", flush=True)

    def onDisconnect(self) -> None:
        """The router is gone, and so is what we are for."""
        asyncio.get_event_loop().stop()


def main() -> None:
    """Until the router is gone."""
    endpoint, config = (json.loads(argument) for argument in sys.argv[1:])
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    txaio.config.loop = loop
    txaio.start_logging(level="critical", out=sys.stderr)
    factory: Any = WampRawSocketClientFactory(lambda: Procedures(config), serializer=CBORSerializer())
    if endpoint["path"]:
        loop.run_until_complete(loop.create_unix_connection(factory, endpoint["path"]))
    else:
        loop.run_until_complete(loop.create_connection(factory, endpoint["host"], endpoint["port"]))
    loop.run_forever()


if __name__ == "__main__":
    main()
