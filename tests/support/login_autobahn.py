"""Child process: autobahn-python (asyncio) as a client that logs in, see logins.py."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from typing import Any

import txaio

txaio.use_asyncio()

from autobahn.asyncio.rawsocket import WampRawSocketClientFactory  # noqa: E402
from autobahn.asyncio.wamp import ApplicationSession, Session  # noqa: E402
from autobahn.asyncio.websocket import WampWebSocketClientFactory  # noqa: E402
from autobahn.wamp import ComponentConfig  # noqa: E402
from autobahn.wamp.auth import create_authenticator  # noqa: E402
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer  # noqa: E402

SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer, "cbor": CBORSerializer}
SECRETS = {"ticket": "ticket", "wampcra": "secret", "scram": "password", "cryptosign": "privkey"}
STEP = 20.0


class Refused(Exception):
    """ABORT, by either side."""


class Reporting:
    """What both kinds of session report."""

    joined: asyncio.Future[Any]
    gone: asyncio.Future[Any]

    def prepare(self) -> None:
        """Before the connection."""
        self.joined = asyncio.get_running_loop().create_future()
        self.gone = asyncio.get_running_loop().create_future()

    def onJoin(self, details: Any) -> None:
        """WELCOME."""
        self.joined.set_result(details)

    def onLeave(self, details: Any) -> None:
        """GOODBYE or ABORT."""
        if not self.joined.done():
            self.joined.set_exception(Refused(details.reason, details.message))
        self.disconnect()  # type: ignore[attr-defined]

    def onDisconnect(self) -> None:
        """The transport is closed."""
        if not self.joined.done():
            self.joined.set_exception(RuntimeError("closed before WELCOME"))
        if not self.gone.done():
            self.gone.set_result(None)


class Client(Reporting, Session):  # type: ignore[misc]
    """A session with one of the library's authenticators."""


class CookieClient(Reporting, ApplicationSession):  # type: ignore[misc]
    """A session that relies on its cookie: the library has no authenticator for that."""

    def onConnect(self) -> None:
        """The connection is there."""
        self.join(self.config.realm, authmethods=["cookie"])


def make_session(job: dict[str, Any]) -> Any:
    """A session that is not connected yet."""
    config = ComponentConfig(realm=job["realm"])
    if job["cookie"] is not None:
        return CookieClient(config)
    session, keys = Client(config), {}
    if job["method"] != "anonymous":
        keys = {"authid": job["authid"], SECRETS[job["method"]]: job["secret"]}
    session.add_authenticator(create_authenticator(job["method"], **keys))
    return session


async def connect(job: dict[str, Any]) -> Any:
    """A joined session."""
    loop = asyncio.get_running_loop()
    endpoint, serializer = job["endpoint"], SERIALIZERS[job["serializer"]]()
    session = make_session(job)
    session.prepare()
    factory: Any
    if endpoint["kind"] == "websocket":
        headers = {} if job["cookie"] is None else {"Cookie": job["cookie"]}
        factory = WampWebSocketClientFactory(
            lambda: session, url=endpoint["url"], headers=headers, serializers=[serializer], loop=loop
        )
    else:
        factory = WampRawSocketClientFactory(lambda: session, serializer=serializer)
    await loop.create_connection(factory, endpoint["host"], endpoint["port"])
    try:
        await asyncio.wait_for(session.joined, STEP)
    except Refused:
        await asyncio.wait_for(session.gone, STEP)
        raise
    return session


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """One login."""
    try:
        session = await connect(job)
    except Refused as refused:
        return {"refused": refused.args[0], "message": refused.args[1]}
    details = session.joined.result()
    names = ("session", "realm", "authid", "authrole", "authmethod", "authprovider", "authextra")
    answer = {"joined": {name: getattr(details, name) for name in names}}
    answer["sum"] = await session.call("com.example.sum", 2, 3)
    answer["router"] = await session.call("wamp.session.get", details.session)
    if job["endpoint"]["kind"] == "websocket":
        answer["set_cookie"] = session._transport.http_headers.get("set-cookie")
    session.leave()
    await asyncio.wait_for(session.gone, STEP)
    return answer


async def main() -> None:
    """Jobs from standard input, answers to standard output."""
    txaio.config.loop = asyncio.get_running_loop()
    txaio.start_logging(level="critical", out=sys.stderr)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        try:
            answer = await run(job)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps({"id": job["id"], **answer}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
