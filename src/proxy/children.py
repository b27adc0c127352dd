"""Child processes of the quickstart: started, watched line by line, and always ended."""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

STOP_SECONDS = 12.0
"""From SIGTERM to SIGKILL: more than a worker's default ``shutdown_timeout``."""
_TAIL_LINES = 16
_LINE_OCTETS = 64 * 1024
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class ChildError(Exception):
    """A child ended, or did not get ready in time; the text holds what it said last."""


def _follow_parent() -> None:
    """In the child: end when the parent is killed without a chance to clean up (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """A process in a session of its own, so that Ctrl-C reaches it only through us, in order.

    :ivar tail: its last lines.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = process
        self._waiting: tuple[str, asyncio.Event] | None = None
        self._forward: Callable[[str, str], None] | None = None
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, stack: AsyncExitStack, name: str, argv: Sequence[str], cwd: Path | None = None) -> "Child":
        """Start a program; it is ended when ``stack`` is left.

        :param name: what messages call it.
        :raises ChildError: it cannot be executed.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.PIPE,  # never written: its end tells the child of ours
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=_LINE_OCTETS,
                start_new_session=True,
                preexec_fn=_follow_parent,
            )
        except OSError as error:
            raise ChildError(f"the {name} cannot be started: {argv[0]}: {error.strerror}") from None
        child = cls(name, process)
        stack.push_async_callback(child.stop)
        return child

    @property
    def status(self) -> int | None:
        """Exit status; negative: the signal that ended it; None while it runs."""
        return self._process.returncode

    async def wait_line(self, prefix: str, seconds: float) -> None:
        """Wait until the child prints a line that begins with ``prefix``."""
        seen = asyncio.Event()
        self._waiting = (prefix, seen)
        if any(line.startswith(prefix) for line in self.tail):
            seen.set()
        await self._wait(seen.wait(), f"print {prefix!r}", seconds)

    async def wait_until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until ``condition`` holds, asking ten times a second; ``what`` names it in the error."""

        async def poll() -> None:
            while not condition():  # noqa: ASYNC110  what is waited for is outside of this process
                await asyncio.sleep(0.1)

        await self._wait(poll(), what, seconds)

    def forward(self, show: Callable[[str, str], None]) -> None:
        """Hand every further line to ``show(name, line)``."""
        self._forward = show

    async def wait(self) -> None:
        """Wait until it has ended and said all it had to say."""
        await asyncio.shield(self._reader)
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after ``STOP_SECONDS``; then whatever is left of its group."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._reader.cancel()

    def tail_text(self) -> str:
        """The last lines, indented."""
        return "\n".join(f"    | {line}" for line in self.tail)

    async def _wait(self, goal: Coroutine[Any, Any, object], what: str, seconds: float) -> None:
        """Wait for ``goal``, the end of the child or the deadline, whichever comes first."""
        target = asyncio.create_task(goal)
        end = asyncio.create_task(self.wait())
        try:
            await asyncio.wait({target, end}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if target.done():
                target.result()
                return
            if end.done():
                raise ChildError(f"the {self.name} ended (status {self.status}); it said:\n" + self.tail_text())
            raise ChildError(f"the {self.name} did not {what} within {seconds:.0f} s; it said:\n" + self.tail_text())
        finally:
            target.cancel()
            end.cancel()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                octets = await self._process.stdout.readline()
            except ValueError:
                # A line longer than the limit: its beginning is dropped by the stream, go on with what follows.
                continue
            if not octets:
                return
            self._take(octets.decode(errors="replace").rstrip())

    def _take(self, line: str) -> None:
        self.tail.append(line)
        if self._waiting is not None and line.startswith(self._waiting[0]):
            self._waiting[1].set()
        if self._forward is not None:
            self._forward(self.name, line)
