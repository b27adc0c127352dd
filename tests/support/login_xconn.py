"""Child process: xconn's asyncio client as a client that logs in, see logins.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from typing import Any

from wampproto import auth, serializers
from wampproto.exception import ApplicationError
from xconn.async_client import AsyncClient

SERIALIZERS = {
    "json": serializers.JSONSerializer,
    "msgpack": serializers.MsgPackSerializer,
    "cbor": serializers.CBORSerializer,
}
AUTHENTICATORS = {
    "ticket": auth.TicketAuthenticator,
    "wampcra": auth.WAMPCRAAuthenticator,
    "cryptosign": auth.CryptoSignAuthenticator,
}
STEP = 20.0


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """One login."""
    if job["method"] == "anonymous":
        authenticator = auth.AnonymousAuthenticator("")
    else:
        authenticator = AUTHENTICATORS[job["method"]](job["authid"], job["secret"])
    client = AsyncClient(authenticator, SERIALIZERS[job["serializer"]]())
    try:
        session = await asyncio.wait_for(client.connect(job["endpoint"]["url"], job["realm"]), STEP)
    except ApplicationError as error:
        # Of ABORT the library keeps the URI, and none of the details.
        return {"refused": error.message, "message": None}
    details = session._base_session
    answer: dict[str, Any] = {
        "joined": {"session": details.id, "authid": details.authid, "authrole": details.authrole},
        "sum": (await session.call("com.example.sum", [2, 3])).args[0],
        "router": (await session.call("wamp.session.get", [details.id])).args[0],
    }
    await asyncio.wait_for(session.leave(), STEP)
    return answer


async def main() -> None:
    """Jobs from standard input, answers to standard output."""
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        with contextlib.redirect_stdout(sys.stderr):  # the library prints
            try:
                answer = await run(job)
            except Exception:
                answer = {"error": traceback.format_exc()}
        print(json.dumps({"id": job["id"], **answer}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
