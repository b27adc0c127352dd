"""A worker's log, as the node reads it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proxy import nodelog
from proxy.nodelog import ANNOUNCEMENT, QUEUE_MAX, NodeLog, announce, level_name
from support.process import wait_until


class Pipe:
    """What a node has of a worker: the other end of its stderr."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()

    def read(self) -> list[dict[str, Any]]:
        """All records until the worker's end is closed."""
        self.close_worker()
        data = b""
        while piece := os.read(self.out, 1 << 16):
            data += piece
        *records, rest = data.split(b"\x1e")
        assert rest == b""
        return [json.loads(record.decode("ascii")) for record in records]

    def close_worker(self) -> None:
        """Close the worker's end."""
        if self.into >= 0:
            os.close(self.into)
            self.into = -1

    def close(self) -> None:
        """Close both ends."""
        self.close_worker()
        if self.out >= 0:
            os.close(self.out)
            self.out = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe."""
    made = Pipe()
    yield made
    made.close()


def record(text: str, level: int = logging.INFO, **keys: Any) -> logging.LogRecord:
    """A record of the log."""
    return logging.LogRecord("proxy.test", level, "", 0, text, (), keys.get("exc_info"))


def test_records(pipe: Pipe) -> None:
    handler = NodeLog(pipe.into)
    handler.emit(record("realm {x} für 50 % \u2028 of\nthe price"))
    handler.close()
    (found,) = pipe.read()
    # The node formats the text, with nothing for what is in braces.
    assert found["text"].format() == found["log_text"] == "realm {x} für 50 % \u2028 of\nthe price"
    assert (found["level"], found["namespace"]) == ("info", "proxy.test")
    assert isinstance(found["log_time"], float)


def test_text_that_cannot_be_encoded(pipe: Pipe) -> None:
    """A lone surrogate comes out of JSON, or of a path: the node could not publish it."""
    handler = NodeLog(pipe.into)
    handler.emit(record("half \ud83d of it"))
    handler.close()
    (found,) = pipe.read()
    assert found["text"] == found["log_text"] == "half \\ud83d of it"


def test_tracebacks_are_part_of_the_text(pipe: Pipe) -> None:
    handler = NodeLog(pipe.into)
    try:
        raise ValueError("{secret}")
    except ValueError as error:
        handler.emit(record("failed", logging.ERROR, exc_info=(ValueError, error, error.__traceback__)))
    handler.close()
    (found,) = pipe.read()
    assert found["text"].startswith("failed\nTraceback")
    assert found["text"].endswith("ValueError: {{secret}}")


@pytest.mark.parametrize(
    ("number", "name"),
    [(logging.CRITICAL, "critical"), (logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"),
     (logging.DEBUG, "debug"), (1, "debug"), (25, "info")],
)  # fmt: skip
def test_levels_have_the_nodes_names(number: int, name: str) -> None:
    assert level_name(number) == name


def test_an_endless_text_is_cut(pipe: Pipe) -> None:
    handler = NodeLog(pipe.into)
    reader: list[list[dict[str, Any]]] = []
    handler.emit(record("x" * 1_000_000))
    thread = threading.Thread(target=lambda: reader.append(_read_one(pipe)))
    thread.start()
    thread.join(10.0)
    handler.close()
    assert len(reader[0][0]["text"]) == nodelog.TEXT_MAX + 4


def _read_one(pipe: Pipe) -> list[dict[str, Any]]:
    data = b""
    while not data.endswith(b"\x1e"):
        data += os.read(pipe.out, 1 << 16)
    return [json.loads(data[:-1])]


def test_nothing_is_written_until_the_announcement_has_been_read(pipe: Pipe) -> None:
    """The node drops what it reads together with the announcement."""
    announce(pipe.into)
    handler = NodeLog(pipe.into)
    handler.emit(record("first"))
    threading.Event().wait(0.2)
    assert os.read(pipe.out, 1 << 16) == ANNOUNCEMENT
    assert _read_one(pipe)[0]["text"] == "first"
    handler.close()


def test_a_node_that_does_not_read_does_not_stop_the_worker(pipe: Pipe) -> None:
    """What does not fit is left out, and that is told once the node reads again."""
    fcntl.fcntl(pipe.into, fcntl.F_SETPIPE_SZ, 4096)
    handler = NodeLog(pipe.into)
    text = "x" * 10_000
    count = 3 * QUEUE_MAX // len(text)
    for _ in range(count):  # ends only if none of them waits
        handler.emit(record(text))
    records: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: records.extend(pipe_records(pipe)))
    reader.start()
    wait_until(lambda: not handler._queue, "what is queued has been read")
    handler.emit(record("after"))
    handler.close()
    pipe.close_worker()
    reader.join(10.0)
    assert records[-1]["text"] == "after"
    lost = int(records[-2]["text"].split(" ", 1)[0])
    assert records[-2]["level"] == "warn"
    assert len(records) - 2 + lost == count


def pipe_records(pipe: Pipe) -> Iterator[dict[str, Any]]:
    """Records until the end of the pipe."""
    data = b""
    while piece := os.read(pipe.out, 1 << 16):
        data += piece
    for item in data.split(b"\x1e")[:-1]:
        yield json.loads(item)


def test_a_node_that_is_gone_does_not_disturb_the_worker(pipe: Pipe) -> None:
    handler = NodeLog(pipe.into)
    os.close(pipe.out)
    pipe.out = -1
    for _ in range(100):
        handler.emit(record("anybody there?"))
    handler.close()
    assert not handler._thread.is_alive()


def test_the_end_does_not_wait_for_a_node_that_hangs(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodelog, "FLUSH_TIMEOUT", 0.05)
    fcntl.fcntl(pipe.into, fcntl.F_SETPIPE_SZ, 4096)
    handler = NodeLog(pipe.into)
    for _ in range(10):
        handler.emit(record("x" * 10_000))
    handler.close()
    os.close(pipe.out)  # ends its thread
    pipe.out = -1
    handler._thread.join(10.0)
    assert not handler._thread.is_alive()


def test_what_is_printed_to_stderr_becomes_records(caplog: pytest.LogCaptureFixture) -> None:
    stream = nodelog._Lines()
    print("a notice,\n\nof two lines", file=stream)
    stream.write("and")
    stream.flush()
    stream.write(" a third\n")
    assert [item.getMessage() for item in caplog.records] == ["a notice,", "of two lines", "and a third"]
