"""The WAMP specification's message vectors through the gate: whole, cut at every octet, and with octets behind them."""

from __future__ import annotations

import pytest

from proxy._relay import probe_scan, probe_wamp_plan, probe_wamp_type
from support.gate import (
    COUNTED,
    FLATBUFFERS,
    JSON,
    TO_BACK,
    TO_FRONT,
    Guarded,
    Status,
    Vector,
    check_reading,
    expected_plan,
    require_vectors,
)

VECTORS = require_vectors()
GUARDED = Guarded()


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_whole(vector: Vector) -> None:
    data = GUARDED(vector.data)
    assert probe_scan(vector.serializer, data) == len(vector.data)
    status, code, elements = probe_wamp_type(vector.serializer, data)
    assert (status, code) == (1, vector.code)
    assert elements >= 2 if vector.serializer in COUNTED else elements == 0
    for direction in (TO_BACK, TO_FRONT):
        assert probe_wamp_plan(vector.serializer, direction, data)[:2] == (expected_plan(direction, code), code)
    assert check_reading(vector.serializer, vector.data, vector.code) > 0


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.serializer != FLATBUFFERS], ids=str)
def test_cut(vector: Vector) -> None:
    for size in range(len(vector.data)):
        data = GUARDED(vector.data[:size])
        assert probe_scan(vector.serializer, data) == Status.TRUNCATED
        assert probe_wamp_type(vector.serializer, data)[0] == Status.TRUNCATED
        for direction in (TO_BACK, TO_FRONT):
            assert probe_wamp_plan(vector.serializer, direction, data)[0] == Status.TRUNCATED


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.serializer != FLATBUFFERS], ids=str)
def test_followed(vector: Vector) -> None:
    tails = [bytes([octet]) for octet in range(256)]
    if vector.serializer == JSON:
        tails = [tail for tail in tails if tail not in b" \t\r\n"]
    for tail in (*tails, vector.data, b"\0" * 16, b" x"):
        data = GUARDED(vector.data + tail)
        assert probe_wamp_type(vector.serializer, data)[0] == Status.TRAILING
        for direction in (TO_BACK, TO_FRONT):
            assert probe_wamp_plan(vector.serializer, direction, data)[0] == Status.TRAILING
    if vector.serializer == JSON:
        assert probe_wamp_type(JSON, GUARDED(vector.data + b" \t\r\n"))[:2] == (1, vector.code)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_in_another_serializer_s_place(vector: Vector) -> None:
    """Octets that reach the wrong scanner do not pass as something else than what their decoder reads."""
    for serializer in {1, 2, 3, 4, 5} - {vector.serializer}:
        for direction in (TO_BACK, TO_FRONT):
            plan, code, _ = probe_wamp_plan(serializer, direction, GUARDED(vector.data))
            if plan > 0:
                check_reading(serializer, vector.data, code)
