"""What ctl prints: nothing that a terminal obeys, tables that line up, JSON that is JSON."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from proxy.ctl.output import Output, cleaned, to_json
from proxy.ctl.wording import address, age, duration, humane, serializers, state

HOSTILE = ["\x1b[31mred", "a\nb", "\x9b2J", "\u202eevil", "tab\t", "\x7f", "\u2028", "\U000e0041"]


def output(*, terminal: bool = False, width: int = 80) -> tuple[Output, io.StringIO]:
    """An output, and what it prints."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, color_system=None, legacy_windows=False)
    return Output(as_json=False, console=console), text


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_terminal_obeys(text: str) -> None:
    assert not [char for char in cleaned(text) if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")]
    assert json.loads(to_json(text)) == text


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_is_the_value_and_safe(value: object) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert not [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs")]


def test_octets_are_as_in_wamps_json() -> None:
    assert json.loads(to_json({"a": b"\x00\xff"})) == {"a": "\0AP8="}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_lines_up_over_its_pieces(terminal: bool) -> None:
    out, text = output(terminal=terminal)
    table = out.table("ID", "COUNT>")
    table.print([("transport1", 5), ("\x1b]0;x\x07", None)])
    table.print([("日本", 12345)])
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert lines[0].split() == ["ID", "COUNT"]
    assert len(lines) == 4
    assert lines[2].split() == ["\\u001b]0;x\\u0007", "-"]
    assert lines[3].split() == ["日本", "12345"]
    # a wide character takes two columns
    assert len(lines[0]) == len(lines[1]) == len(lines[2]) == len(lines[3]) + 2


def test_a_table_for_a_pipe_is_never_folded() -> None:
    out, text = output(width=20)
    out.table("ID", "ADDRESS").print([("a" * 100, "b" * 100)])
    assert text.getvalue().splitlines()[1] == "a" * 100 + "  " + "b" * 100


def test_a_table_on_a_narrow_terminal_leaves_out_what_may_be_left_out() -> None:
    row = ("transport1", "ws://127.0.0.1:8080", "anonymous", 5)
    for width, shown in ((60, [0, 1, 2, 3]), (40, [0, 1, 3]), (20, [0, 3]), (5, [0, 3])):
        out, text = output(terminal=True, width=width)
        out.table("ID", "ADDRESS?", "AUTH?", "COUNT>").print([row])
        assert text.getvalue().split() == [
            *(("ID", "ADDRESS", "AUTH", "COUNT")[index] for index in shown),
            *(str(row[index]) for index in shown),
        ]


def test_no_markup_is_read_from_data() -> None:
    out, text = output(terminal=True)
    out.table("ID").print([("[bold]x[/bold]",), (":smile:",)])
    out.line("[red]y")
    assert text.getvalue().split() == ["ID", "[bold]x[/bold]", ":smile:", "[red]y"]


def test_details_are_cleaned() -> None:
    out, text = output()
    out.details({"authid": "\x1b[2J", "config": {"b": [1, 2]}, "note": "\u202e"})
    assert "\x1b" not in text.getvalue()
    assert "\u202e" not in text.getvalue()


def test_pieces_are_one_list() -> None:
    out, text = output()
    out.pieces([{"a": 1}, {"a": 2}])
    out.pieces([{"a": 3}])
    out.end_of_pieces()
    assert json.loads(text.getvalue()) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_no_pieces_are_an_empty_list() -> None:
    out, text = output()
    out.pieces([])
    out.end_of_pieces()
    assert json.loads(text.getvalue()) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m0s"), (3_599, "59m59s"), (3_600, "1h0m"), (90_061, "1d1h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("since", "text"),
    [(None, None), (0, None), (990 * 10**9, "10s"), ("1970-01-01T00:16:30.000Z", "10s"), ("soon", "soon")],
)
def test_ages(since: object, text: str | None) -> None:
    assert age(since, 1000.0) == text


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"type": "websocket", "endpoint": {"type": "tcp", "port": 80}}, "ws://*:80"),
        ({"type": "rawsocket", "endpoint": {"type": "tcp", "interface": "::1", "port": 1}}, "rs://[::1]:1"),
        ({"type": "rawsocket", "endpoint": {"type": "unix", "path": "/run/x"}}, "rs://unix:/run/x"),
        ({"type": "websocket", "endpoint": 5}, "5"),
        ({"type": "websocket", "url": "ws://h:1/"}, "ws://h:1/"),
        ({"type": "websocket", "endpoint": {"type": "tcp", "port": 443, "tls": {"key": "k"}}}, "wss://*:443"),
        ({"type": "rawsocket", "endpoint": {"type": "tcp", "port": 1, "tls": {"key": "k"}}}, "rss://*:1"),
        ({"type": "web", "endpoint": {"type": "tcp", "port": 80, "tls": None}}, "http://*:80"),
        ({"type": "universal", "endpoint": {"type": "tcp", "port": 443, "tls": {"key": "k"}}}, "https://*:443"),
        ({}, ""),
    ],
)
def test_addresses_of_transports(config: dict[str, object], text: str) -> None:
    assert address(config) == text


def test_address_of_a_connection() -> None:
    item = {"type": "rawsocket", "endpoint": {"type": "tcp", "host": "router.example", "port": 9000}}
    assert address(item, is_client=True) == "rs://router.example:9000"
    secure = {**item, "endpoint": {**item["endpoint"], "tls": True}}
    assert address(secure, is_client=True) == "rss://router.example:9000"
    assert address({**secure, "endpoint": {**item["endpoint"], "tls": False}}, is_client=True).startswith("rs:")
    assert address({**item, "url": "rss://router.example:9000"}, is_client=True) == "rss://router.example:9000"


def test_an_object_in_words() -> None:
    thing = {"id": "a", "state": 3, "started": 1_000_000_000, "stopped": None, "joined": 1}
    shown = humane(thing)
    assert shown["state"] == "started"
    assert shown["started"] == "1970-01-01T00:00:01.000000Z"
    assert shown["stopped"] is None
    assert thing["state"] == 3, "the caller's object is left alone"
    assert state(99) == "99"


def test_serializers_of_a_session() -> None:
    assert serializers({"serializer": "cbor", "backend_serializer": "cbor"}) == "cbor"
    assert serializers({"serializer": "json", "backend_serializer": "cbor"}) == "json > cbor"
