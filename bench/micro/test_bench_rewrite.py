"""Session-ID rewriting on the shipped binary. Run with ``pytest bench/micro``.

``extra_info`` holds ``octets`` of the message and ``messages``, how many times one round rewrites it: time divided by
it is what ``session_ids: proxy`` adds to relaying one message. The map holds a hundred thousand sessions.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cbor2
import msgpack
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from proxy._relay import probe_rewrite, probe_sids

SERIALIZERS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "json": (1, lambda message: json.dumps(message, separators=(",", ":")).encode()),
    "msgpack": (2, msgpack.packb),
    "cbor": (3, cbor2.dumps),
}
TO_BACK, TO_FRONT = 0, 1
ROUNDS = 20_000

DRAW = random.Random(1)
SESSIONS = [(DRAW.randint(1, 2**53), DRAW.randint(1, 2**53)) for _ in range(100_000)]
FRONT = [front for front, _ in SESSIONS]
BACK = [back for _, back in SESSIONS]
ARGS = ["x" * 28]
LISTS = {"acknowledge": True, "exclude": FRONT[:2], "eligible": FRONT[2:3]}
MESSAGES: dict[str, tuple[int, list[Any]]] = {
    "event": (TO_FRONT, [36, 5512315355, 4429313566, {"publisher": BACK[0], "topic": "com.example.topic"}, ARGS]),
    "event-undisclosed": (TO_FRONT, [36, 5512315355, 4429313566, {}, ARGS]),
    "invocation": (TO_FRONT, [68, 6, 9, {"caller": BACK[1], "caller_authid": "j", "caller_authrole": "user"}, ARGS]),
    "publish": (TO_BACK, [16, 239714735, LISTS, "com.example.topic", ARGS]),
    "publish-plain": (TO_BACK, [16, 239714735, {}, "com.example.topic", ARGS]),
    "call": (TO_BACK, [48, 7814135, {}, "com.example.echo", ARGS]),
    "call-meta": (TO_BACK, [48, 7814135, {}, "wamp.session.kill", FRONT[:1]]),
    "result": (TO_FRONT, [50, 7814135, {}, ARGS]),
    "yield": (TO_BACK, [70, 7814135, {}, ARGS]),
    "event-64k": (TO_FRONT, [36, 5512315355, 4429313566, {"publisher": BACK[0]}, ["x" * 65536]]),
}  # fmt: skip


@pytest.fixture(scope="module")
def sids() -> Iterator[probe_sids]:
    """The map, in a process with two threads: with one alone a lock costs next to nothing."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    found = probe_sids()
    found.add_realm()
    for front, back in SESSIONS:
        found.put(1, front, back)
    yield found
    done.set()
    thread.join()


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_rewrite(benchmark: BenchmarkFixture, sids: probe_sids, serializer: str, name: str) -> None:
    """The whole rewriter, as the relay calls it for a message that the gate has passed."""
    number, dump = SERIALIZERS[serializer]
    direction, message = MESSAGES[name]
    data = dump(message)
    benchmark.extra_info.update(messages=ROUNDS, octets=len(data))
    out = benchmark(probe_rewrite, number, direction, message[0], data, sids, 1, None, False, ROUNDS)
    changes = name in ("event", "invocation", "publish", "call-meta", "event-64k")
    assert (out is not None) == changes


def test_lookup(benchmark: BenchmarkFixture, sids: probe_sids) -> None:
    """One question to the map."""
    benchmark.extra_info.update(messages=ROUNDS)
    assert benchmark(sids.to_front, 1, BACK[7], ROUNDS) == FRONT[7]


def test_login_and_logout(benchmark: BenchmarkFixture, sids: probe_sids) -> None:
    """One session enters the map, ends and is forgotten."""
    benchmark.extra_info.update(messages=100)
    now = 0

    def turn() -> None:
        nonlocal now
        for i in range(100):
            sids.put(1, 2**53 + 1 + i, 2**54 + i)
            sids.drop(1, 2**53 + 1 + i, now)
        now += 60_000
        sids.sweep(now)

    benchmark(turn)
    assert sids.mapped(1) == len(SESSIONS)
