"""Masking (RFC 6455 5.3) against the RFC's own definition, octet by octet."""

from __future__ import annotations

import pytest

from proxy._relay import mask_into, mask_moved
from support.frames import KEY, xor

# every size class with its neighbours: single octets, words, one register, several, the wide loop and its remainders
SIZES = [*range(130), 255, 256, 257, *range(505, 530), *range(600, 680), 1023, 4095, 4096, 4097, 65535, 65536, 65537]


def pattern(size: int) -> bytes:
    return bytes((i * 7 + (i >> 8)) & 255 for i in range(size))


def masked(data: bytes, key: bytes, phase: int) -> bytes:
    copy = bytearray(data)
    mask_into(copy, key, phase)
    return bytes(copy)


@pytest.mark.parametrize("phase", range(4))
def test_every_size_and_phase(phase: int) -> None:
    for size in SIZES:
        data = pattern(size)
        expected = xor(data, KEY, phase)
        assert masked(data, KEY, phase) == expected, size
        assert mask_moved(data, KEY, phase) == expected, size


def test_example_of_the_rfc() -> None:
    assert masked(b"Hello", bytes.fromhex("37fa213d"), 0) == bytes.fromhex("7f9f4d5158")


@pytest.mark.parametrize("gap", [1, 2, 3, 4, 6, 7, 8, 14, 15, 16, 17, 31, 32, 33, 63, 64, 100, 127, 128, 129, 1000])
def test_moving_down_over_itself(gap: int) -> None:
    for size in SIZES[::3]:
        data = pattern(size)
        assert mask_moved(data, KEY, 1, gap) == xor(data, KEY, 1), size


@pytest.mark.parametrize("offset", range(1, 33))
def test_any_alignment_and_nothing_beyond_the_ends(offset: int) -> None:
    for size in (1, 3, 7, 8, 15, 16, 33, 100, 513, 700):
        data = bytearray(pattern(offset + size + 40))
        before = bytes(data)
        mask_into(memoryview(data)[offset : offset + size], KEY, 0)
        assert data == before[:offset] + xor(before[offset : offset + size], KEY) + before[offset + size :]


@pytest.mark.parametrize("size", [5, 16, 100, 1000, 70000])
def test_twice_is_identity(size: int) -> None:
    for phase in range(4):
        assert masked(masked(pattern(size), KEY, phase), KEY, phase) == pattern(size)


def test_a_payload_may_be_masked_in_steps() -> None:
    data = pattern(1500)
    whole = xor(data, KEY)
    for cut in (1, 2, 3, 4, 17, 511, 513, 1001):
        assert masked(data[:cut], KEY, 0) + masked(data[cut:], KEY, cut) == whole


def test_zero_key_changes_nothing() -> None:
    for size in (0, 1, 100, 5000):
        assert masked(pattern(size), b"\0\0\0\0", 0) == pattern(size)
        assert mask_moved(pattern(size), b"\0\0\0\0", 0, 9) == pattern(size)
