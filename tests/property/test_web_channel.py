"""HTTP of web transports: whatever comes, in whatever pieces, is answered or waited for, and nothing goes wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.web import Web

DATE = re.compile(rb"Date: [^\r]*\r\n")
GOOD = [
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /nope?x=%zz HTTP/1.1\r\nhost: a\r\nx: y\r\n folded\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET http://a/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
]
BAD = [
    b"\r\n",
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9999\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"x" * 400,
    b"\0\xff" * 20,
]
requests = st.lists(st.one_of(st.sampled_from(GOOD), st.sampled_from(BAD), st.binary(max_size=40)), max_size=6)
cuts = st.lists(st.integers(1, 60), max_size=12)


@pytest.fixture(scope="module")
def web() -> Web:
    """A site with small bounds."""
    options = {"max_body_size": 500, "max_head_size": 300, "max_headers": 8}
    return Web({"/": {"type": "json", "value": [1, 2]}}, options)


def answers(web: Web, pieces: list[bytes]) -> tuple[bytes, bool]:
    """What comes back, without dates, and whether the connection was closed."""
    channel, transport = web.connect()
    for piece in pieces:
        if transport.disconnecting:
            break
        channel.dataReceived(piece)
    found = DATE.sub(b"", transport.value()), transport.disconnecting or transport.is_half_closed
    channel.connectionLost()
    return found


def cut(data: bytes, lengths: list[int]) -> list[bytes]:
    """The same in pieces."""
    pieces = []
    for length in lengths:
        pieces.append(data[:length])
        data = data[length:]
    return [piece for piece in [*pieces, data] if piece]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests, cuts)
def test_answers_do_not_depend_on_how_the_octets_come(web: Any, items: list[bytes], lengths: list[int]) -> None:
    data = b"".join(items)
    assert answers(web, cut(data, lengths)) == answers(web, [data] if data else [])
    assert not web.site.http.channels
    assert not [call for call in web.clock.getDelayedCalls() if call.active()]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests)
def test_every_answer_is_http(web: Any, items: list[bytes]) -> None:
    found, _ = answers(web, [item for item in items if item])
    assert not found or re.match(rb"HTTP/1\.[01] [1-5]\d\d ", found)
    assert found.count(b"HTTP/1.1 400 ") + found.count(b"HTTP/1.1 413 ") + found.count(b"HTTP/1.1 431 ") <= 1
