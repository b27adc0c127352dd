"""Numbers that the data plane gives for good must not pile up while transports and connections come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from proxy.plane import DataPlane
from support.certificates import Authority


def test_dropped_tls_is_used_again(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server")
    options = {"server": True, "certificates": [(pair.chain.read_bytes(), pair.key.read_bytes(), [])]}
    plane = DataPlane(MemoryReactorClock(), 1)
    try:
        first = plane.add_tls(**options)
        second = plane.add_tls(**options)
        plane.drop_tls(first)
        with pytest.raises(ValueError, match=r"^key: "):
            plane.add_tls(server=True, certificates=[(pair.chain.read_bytes(), b"", [])])
        assert plane.add_tls(**options) == first
        assert plane.add_tls(**options) not in (first, second)
    finally:
        plane.stop()
