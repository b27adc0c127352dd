"""The router of the quickstart, run in a process of its own: xconn's Router, on a Unix socket, over WebSocket.

``python -m proxy.embedded_router PATH REALM`` prints one line once it listens and ends when its standard input does, so
that it cannot outlive the process that started it. xconn comes with the extra ``quickstart``.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Any

from aiohttp import WSMsgType, web
from wampproto import auth
from xconn import Router
from xconn.acceptor import AIOHttpAcceptor

READY = "embedded router ready"
MESSAGE_MAX = 16 * 1024 * 1024
SUBPROTOCOLS = ("wamp.2.cbor", "wamp.2.msgpack", "wamp.2.json")

_log = logging.getLogger(__name__)


class _AnonymousOnly(auth.IServerAuthenticator):  # type: ignore[misc]
    """Takes anybody into one realm, with the authid asked for, if any."""

    def __init__(self, realm: str) -> None:
        self._realm = realm

    def authenticate(self, request: Any) -> Any:
        """Accept the request; what is raised becomes an ABORT."""
        if request.realm != self._realm:
            raise ValueError(f"no such realm: {request.realm}")
        return auth.Response(request.authid or "anonymous", "anonymous")


class EmbeddedRouter:
    """xconn's router with one realm; sessions leave it when their connection ends, however it ends.

    :param realm: the realm that clients can join.
    """

    def __init__(self, realm: str) -> None:
        self._router = Router()
        self._router.add_realm(realm)
        self._acceptor = AIOHttpAcceptor(_AnonymousOnly(realm))

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one client from its upgrade request to its end."""
        socket = web.WebSocketResponse(protocols=SUBPROTOCOLS, max_msg_size=MESSAGE_MAX, compress=False)
        await socket.prepare(request)
        try:
            session = await self._acceptor.accept(socket)
        except Exception as error:
            # It sent an ABORT, or the client vanished or sent something that is not a login.
            _log.info("no session: %s", error)
            await socket.close()
            return socket
        self._router.attach_client(session)
        try:
            await self._relay(socket, session)
        finally:
            with contextlib.suppress(KeyError, ValueError):  # it left with GOODBYE
                self._router.detach_client(session)
        return socket

    async def _relay(self, socket: web.WebSocketResponse, session: Any) -> None:
        async for message in socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            try:
                await self._router.receive_message(session, session.serializer.deserialize(message.data))
            except (ValueError, KeyError, ConnectionError) as error:
                # How xconn refuses a message, or tells that the one it was for is gone. The sender's session goes on.
                _log.warning("message not routed: %r", error)


async def serve(path: str, realm: str) -> None:
    """Listen on the Unix socket ``path`` until standard input ends or SIGTERM."""
    app = web.Application()
    app.router.add_get("/{path:.*}", EmbeddedRouter(realm).handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        print(READY, flush=True)
        await _end_of_parent()
    finally:
        await runner.cleanup()


async def _end_of_parent() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    loop.add_reader(sys.stdin.fileno(), read)
    await ended.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(*sys.argv[1:3]))
