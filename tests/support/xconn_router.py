"""Child process: xconn's Router and acceptor behind WebSocket and RawSocket listeners, TCP and Unix.

xconn brings only WebSocket listeners and does not detach a session whose client vanishes; both are added here, around
its own router. Arguments: realm, a JSON list of endpoints, and (if it is to decide who is who) whom it knows: a JSON
mapping of authids to ``method``, ``role`` and ``secret``, which is the public key for cryptosign.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from aiohttp import WSMsgType, web
from wampproto import acceptor, auth, serializers
from xconn import Router, types

SERIALIZERS = {1: serializers.JSONSerializer, 2: serializers.MsgPackSerializer, 3: serializers.CBORSerializer}
PROTOCOLS = {"wamp.2.json": 1, "wamp.2.msgpack": 2, "wamp.2.cbor": 3}
LENGTH_MAX = 1 << 24


class Authenticator(auth.IServerAuthenticator):
    """Takes anybody into one realm."""

    def __init__(self, realm: str) -> None:
        self.realm = realm

    def authenticate(self, request: Any) -> auth.Response:
        """Accept; the exception becomes an ABORT."""
        if request.realm != self.realm:
            raise ValueError(f"no realm {request.realm}")
        return auth.Response(request.authid or "anonymous", "anonymous")


class Deciding(Authenticator):
    """Lets in whom it knows, and who has proven it."""

    def __init__(self, realm: str, principals: dict[str, dict[str, str]]) -> None:
        super().__init__(realm)
        self.principals = principals

    def authenticate(self, request: Any) -> auth.Response:
        """See Authenticator."""
        if request.method == "anonymous":
            return super().authenticate(request)
        principal = self.principals.get(request.authid)
        if request.realm != self.realm or principal is None or principal["method"] != request.method:
            raise ValueError("who is that?")
        role, secret = principal["role"], principal["secret"]
        if request.method == "wampcra":
            return auth.WAMPCRAResponse(request.authid, role, secret)
        if (request.ticket if request.method == "ticket" else request.public_key) != secret:
            raise ValueError("is that so?")
        return auth.Response(request.authid, role)


class StreamSession(types.IAsyncBaseSession):
    """What xconn's router needs of a session whose messages go out through ``write``."""

    def __init__(self, details: Any, serializer: Any, write: Any, close: Any) -> None:
        self._details, self._serializer, self._write, self._close = details, serializer, write, close

    id = property(lambda self: self._details.session_id)
    realm = property(lambda self: self._details.realm)
    authid = property(lambda self: self._details.authid)
    authrole = property(lambda self: self._details.authrole)
    serializer = property(lambda self: self._serializer)

    async def send(self, data: bytes | str) -> None:
        """Write one serialized message."""
        await self._write(data)

    async def send_message(self, msg: Any) -> None:
        """Serialize and write one message."""
        await self._write(self._serializer.serialize(msg))

    async def close(self) -> None:
        """End the transport."""
        await self._close()


async def serve(router: Router, login: Authenticator, serializer: Any, read: Any, write: Any, close: Any) -> None:
    """One session: login, then every message to the router until ``read`` returns None."""
    gate = acceptor.Acceptor(serializer=serializer, authenticator=login)
    final = False
    while not final:
        data = await read()
        if data is None:
            return
        answer, final = gate.receive(data)
        await write(answer)
    try:
        details = gate.get_session_details()
    except ValueError:  # an ABORT was sent
        return
    session = StreamSession(details, serializer, write, close)
    router.attach_client(session)
    try:
        while (data := await read()) is not None:
            try:
                await router.receive_message(session, serializer.deserialize(data))
            except (ValueError, KeyError) as error:  # its way to refuse a message, or a recipient that is gone
                print(f"refused: {error!r}", file=sys.stderr, flush=True)
    finally:
        with contextlib.suppress(KeyError, ValueError):  # left with GOODBYE
            router.detach_client(session)


async def websocket(router: Router, login: Authenticator, request: web.Request) -> web.WebSocketResponse:
    """WebSocket transport of one client."""
    ws = web.WebSocketResponse(protocols=list(PROTOCOLS), max_msg_size=LENGTH_MAX, compress=False)
    await ws.prepare(request)

    async def read() -> Any:
        message = await ws.receive()
        return message.data if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) else None

    async def write(data: bytes | str) -> None:
        with contextlib.suppress(ConnectionError):
            await (ws.send_str(data) if isinstance(data, str) else ws.send_bytes(data))

    if ws.ws_protocol in PROTOCOLS:
        await serve(router, login, SERIALIZERS[PROTOCOLS[ws.ws_protocol]](), read, write, ws.close)
    await ws.close()
    return ws


async def rawsocket(
    router: Router, login: Authenticator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """RawSocket transport of one client."""

    async def read() -> Any:
        while True:
            head = await reader.readexactly(4)
            kind, length = head[0] & 7, int.from_bytes(head[1:], "big") or (LENGTH_MAX if head[0] & 8 else 0)
            payload = await reader.readexactly(length)
            if kind == 0:
                return payload.decode() if number == 1 else payload
            if kind == 1:
                writer.write(b"\x02" + head[1:] + payload)

    async def write(data: bytes | str) -> None:
        octets = data.encode() if isinstance(data, str) else data
        with contextlib.suppress(ConnectionError):
            writer.write(len(octets).to_bytes(4, "big") + octets)
            await writer.drain()

    async def close() -> None:
        writer.close()

    try:
        hello = await reader.readexactly(4)
        number = hello[1] & 15
        if hello[0] == 0x7F and number in SERIALIZERS:
            writer.write(bytes([0x7F, 0xF0 | number, 0, 0]))
            await serve(router, login, SERIALIZERS[number](), read, write, close)
        elif hello[0] == 0x7F:
            writer.write(b"\x7f\x10\0\0")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(realm: str, endpoints: list[dict[str, Any]], principals: dict[str, dict[str, str]] | None) -> None:
    """Listen on every endpoint until killed."""
    router = Router()
    router.add_realm(realm)
    login = Authenticator(realm) if principals is None else Deciding(realm, principals)
    app = web.Application()
    app.router.add_get("/{tail:.*}", lambda request: websocket(router, login, request))
    runner = web.AppRunner(app)
    await runner.setup()
    for endpoint in endpoints:
        if endpoint["kind"] == "websocket" and endpoint["path"]:
            await web.UnixSite(runner, endpoint["path"]).start()
        elif endpoint["kind"] == "websocket":
            await web.TCPSite(runner, endpoint["host"], endpoint["port"], backlog=1024).start()
        elif endpoint["path"]:
            await asyncio.start_unix_server(lambda r, w: rawsocket(router, login, r, w), endpoint["path"], backlog=1024)
        else:
            await asyncio.start_server(
                lambda r, w: rawsocket(router, login, r, w), endpoint["host"], endpoint["port"], backlog=1024
            )
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], *(json.loads(argument) for argument in (*sys.argv[2:], "null")[:2])))
