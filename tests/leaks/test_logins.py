"""Thousands of short sessions leave nothing: no descriptor, no memory, no thread, no session."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import raw
from support.census import assert_grown, rss, threads
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import GOODBYE, WELCOME, encode, hello

MIB = 1 << 20
ENDINGS = ("goodbye", "close", "reset", "goodbye-again", "no-hello", "half-hello", "bad-message", "abort")
CONCURRENCY = 40


def frame(payload: bytes) -> bytes:
    """A RawSocket frame."""
    return len(payload).to_bytes(4, "big") + payload


async def read_frame(reader: asyncio.StreamReader) -> list[Any]:
    """The next message."""
    head = await reader.readexactly(4)
    message: list[Any] = raw.decode("cbor", await reader.readexactly(int.from_bytes(head[1:], "big")))
    return message


HELLO = frame(encode("cbor", hello()))
BYE = frame(encode("cbor", [GOODBYE, {}, "wamp.close.normal"]))
WELCOMED = frame(encode("cbor", [WELCOME, 4711, {"roles": {"broker": {}}, "authid": "a", "authrole": "anonymous"}]))
REFUSED = frame(encode("cbor", [raw.ABORT, {"message": "no"}, "wamp.error.no_such_role"]))


async def route(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A router that welcomes everybody (one in eight it refuses) and answers GOODBYE."""
    try:
        writer.write(await reader.readexactly(4))
        message = await read_frame(reader)
        refuse = message[2]["authextra"]["proxy_authextra"].get("refuse")
        writer.write(REFUSED if refuse else WELCOMED)
        while (await read_frame(reader))[0] != GOODBYE:
            pass
        writer.write(BYE)
        await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def visit(front: Endpoint, ending: str) -> None:
    """One short visit of a client."""
    reader, writer = await asyncio.open_connection(front.host, front.port)
    try:
        if front.kind == "websocket":
            writer.write(raw.upgrade_request(front, "AAAAAAAAAAAAAAAAAAAAAA==", "wamp.2.cbor"))
            await reader.readuntil(b"\r\n\r\n")
            await websocket_visit(reader, writer, ending)
        else:
            writer.write(b"\x7f\xf3\0\0")
            await reader.readexactly(4)
            await rawsocket_visit(reader, writer, ending)
    except (asyncio.IncompleteReadError, ConnectionError):
        assert ending in ("bad-message", "abort"), f"{ending}: the proxy closed"
    finally:
        if ending == "reset":
            writer.transport.abort()
        writer.close()


async def rawsocket_visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ending: str) -> None:
    """RawSocket, after the handshake."""
    if ending == "no-hello":
        return
    if ending == "half-hello":
        writer.write(HELLO[:50])
        return
    for _ in range(2 if ending == "goodbye-again" else 1):
        writer.write(frame(encode("cbor", hello(authextra={"refuse": True}))) if ending == "abort" else HELLO)
        answer = await read_frame(reader)
        assert answer[0] == (raw.ABORT if ending == "abort" else WELCOME), answer
        if ending.startswith("goodbye"):
            writer.write(BYE)
            assert (await read_frame(reader))[0] == GOODBYE
    if ending == "bad-message":
        writer.write(frame(b"\xff\xff"))
        assert (await read_frame(reader))[0] == raw.ABORT
        assert await reader.read() == b""


async def websocket_visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ending: str) -> None:
    """WebSocket, after the handshake: login, and the end of the connection in one of three ways."""
    peer = raw.WebSocketPeer(None, "cbor")  # type: ignore[arg-type]
    if ending in ("no-hello", "half-hello"):
        writer.write(peer.frame(encode("cbor", hello()))[: 50 if ending == "half-hello" else 0])
        return
    writer.write(peer.frame(encode("cbor", hello())))
    head = await reader.readexactly(2)
    length = int.from_bytes(await reader.readexactly(2), "big") if head[1] == 126 else head[1]
    assert raw.decode("cbor", await reader.readexactly(length))[0] == WELCOME
    if ending.startswith("goodbye"):
        writer.write(peer.ws_frame(raw.OP_CLOSE, b"\x03\xe8"))
        while await reader.read(4096):
            pass


async def wave(fronts: list[Endpoint], count: int, chance: random.Random) -> None:
    """``count`` visits, some at a time."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one() -> None:
        async with gate:
            await asyncio.wait_for(visit(chance.choice(fronts), chance.choice(ENDINGS)), 30)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())


def settle(proxy: ProxyProcess) -> int:
    """Resident memory once everything is closed."""
    proxy.check_idle()
    return rss(proxy.pid)


async def storm(proxy: ProxyProcess, fronts: list[Endpoint], path: str, waves: int, count: int) -> list[int]:
    """Waves of visits; resident memory after each."""
    server = await asyncio.start_unix_server(route, path, backlog=1024)
    chance = random.Random(1)
    sizes = []
    async with server:
        for _ in range(waves):
            await wave(fronts, count, chance)
            await asyncio.sleep(0.1)
            sizes.append(await asyncio.to_thread(settle, proxy))
    return sizes


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_logins(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """Memory after the last thousands is what it was after the first ones."""
    path = str(tmp_path / "router.sock")
    item = {"transport": Endpoint("rawsocket", path=path).as_backend(), "auth": {"anonymous-proxy": {"type": "static"}}}
    config.backend("router", item)
    fronts = [config.listen("rawsocket", limits={"close_timeout": 300}), config.listen("websocket")]
    proxy = make_proxy(config, log_level="warn")
    before = threads(proxy.pid)
    sizes = asyncio.run(storm(proxy, fronts, path, waves=10, count=1000))
    print("MiB:", *(round(size / MIB, 1) for size in sizes))
    report = " ".join(f"{size / MIB:.1f}" for size in sizes)
    assert_grown(proxy.pid, sizes[2], 3 * MIB, f"resident memory after each 1,000 visits, MiB: {report}")
    assert threads(proxy.pid) == before
    assert len(proxy.child.errors) < 200, "quiet at log level warn"


@pytest.mark.slow
def test_second_sessions_on_one_connection(tmp_path: Path, config: Config, make_proxy: Callable[..., Any]) -> None:
    """Thousands of sessions one after the other on the same connection hold no more than one."""
    path = str(tmp_path / "router.sock")
    item = {"transport": Endpoint("rawsocket", path=path).as_backend(), "auth": {"anonymous-proxy": {"type": "static"}}}
    front = config.backend("router", item).listen("rawsocket")
    proxy = make_proxy(config, log_level="warn")

    async def visits() -> list[int]:
        server = await asyncio.start_unix_server(route, path)
        sizes = []
        async with server:
            reader, writer = await asyncio.open_connection(front.host, front.port)
            writer.write(b"\x7f\xf3\0\0")
            await reader.readexactly(4)
            for number in range(3000):
                await rawsocket_visit(reader, writer, "goodbye")
                if number % 1000 == 999:
                    sizes.append(rss(proxy.pid))
            assert len(os.listdir(f"/proc/{proxy.pid}/fd")) <= sum(proxy.census.baseline.values()) + 2
            writer.close()
        return sizes

    sizes = asyncio.run(visits())
    assert_grown(proxy.pid, sizes[0], 2 * MIB, "2,000 sessions on one connection")
