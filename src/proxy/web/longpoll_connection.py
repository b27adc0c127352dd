"""One client of HTTP long-poll, between its requests and the data plane, without sockets (WAMP specification, advanced
profile, "HTTP Longpoll Transport").

What comes for the client waits here until it asks for it. When too much waits, nothing more is read from the data
plane, which then treats the client as it treats every slow reader. What the client sends waits in its requests while
the data plane takes no more.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred

from proxy.web.longpoll_frames import Batches, FrameError, frame

__all__ = ["SENDS_MAX", "Bounds", "Content", "DataPlaneEnd", "LongPollConnection", "LongPollError"]

SENDS_MAX: Final = 1024
"""Requests of a client that wait until what they send can be taken. Each has an HTTP connection of its own meanwhile,
and its body is where Twisted keeps that. Browsers have six connections, other programs as many as they like.
"""

GONE: Final = 410
BAD_REQUEST: Final = 400
UNAVAILABLE: Final = 503


class LongPollError(Exception):
    """A request that fails.

    :ivar status: HTTP status.
    :ivar reason: for people, one line.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Content(Interface):
    """The body of a request."""

    def read(self) -> bytes:
        """All of it."""


class DataPlaneEnd(Interface):
    """The connection to the data plane, as a client has one."""

    @property
    def is_full(self) -> bool:
        """Whether what has been written must leave before there is more; on_writable() follows."""

    def write(self, data: bytes) -> None: ...
    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None: ...
    def close(self) -> None:
        """Flush and close; nothing comes after it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long things wait, and how many of them.

    :ivar request_timeout: a request for messages, seconds.
    :ivar session_timeout: the session, for its client's next request, seconds.
    :ivar queue_octets: messages for the client, octets; one message more may be there, and what one read brings.
    :ivar queue_messages: likewise, number.
    """

    request_timeout: float
    session_timeout: float
    queue_octets: int
    queue_messages: int


class LongPollConnection:
    """One client.

    :param clock: Twisted's reactor.
    :param batches: takes its requests' bodies apart.
    :param bounds: see there.
    :param forget: called once, when no request can be served any more: with the reason, for people.
    """

    def __init__(self, clock: Any, batches: Batches, bounds: Bounds, forget: Callable[[str], None]) -> None:
        self._clock = clock
        self._batches = batches
        self._bounds = bounds
        self._forget = forget
        self._end: DataPlaneEnd | None = None
        self._queue: deque[bytes] = deque()
        self._octets = 0
        self._is_paused = False
        self._sends: deque[tuple[Content, Deferred[None]]] = deque()
        self._poll: Deferred[bytes] | None = None
        self._poll_timer: Any = None
        self._seen = clock.seconds()
        self._idle_timer: Any = clock.callLater(bounds.session_timeout, self._check_idle)
        # Why nothing comes any more, or goes; what is in the queue is still there for the client.
        self._ended = ""

    @property
    def is_polled(self) -> bool:
        """Whether a request waits for messages."""
        return self._poll is not None

    # --- the data plane's side ---

    def attach(self, end: DataPlaneEnd) -> None:
        """The connection to the data plane is there."""
        self._end = end

    def on_messages(self, messages: list[bytes]) -> None:
        """Messages for the client."""
        if self._ended:
            return
        self._queue.extend(messages)
        self._octets += sum(map(len, messages))
        self._answer_poll()
        self._regulate()

    def on_writable(self) -> None:
        """What has been written has left."""
        self._pump()

    def on_lost(self, reason: str) -> None:
        """The data plane has closed the connection: the session is over. What it said before is still delivered."""
        if self._ended:
            return
        self._ended = reason
        self._fail_sends()
        if not self._queue:
            self._finish()

    # --- the client's side ---

    def receive(self) -> "Deferred[bytes]":
        """A request for messages. Another one that is waiting is answered at once, with nothing.

        :returns: fires with the body of the response, empty if there was nothing in time; fails with LongPollError once
            the session is over. Cancel it when the client is gone.
        """
        self._touch()
        self._release_poll()
        poll: Deferred[bytes] = Deferred(self._cancel_poll)
        self._poll = poll
        self._poll_timer = self._clock.callLater(self._bounds.request_timeout, self._release_poll)
        self._answer_poll()
        self._regulate()
        return poll

    def send(self, content: Content) -> "Deferred[None]":
        """A request with messages. Its body is read when there is room for it.

        :returns: fires when they are on their way; fails with LongPollError. Cancel it when the client is gone.
        :raises LongPollError: too many requests wait, or the session is over.
        """
        self._touch()
        if self._ended:
            raise LongPollError(GONE, self._ended)
        if len(self._sends) >= SENDS_MAX:
            raise LongPollError(UNAVAILABLE, f"{SENDS_MAX} requests of this client are waiting already")
        done: Deferred[None] = Deferred(self._cancel_send)
        self._sends.append((content, done))
        self._pump()
        return done

    def close(self, reason: str, *, is_wish: bool = False) -> None:
        """End the session, whatever waits. No error if it is over.

        :param reason: for people.
        :param is_wish: it is the client's: its request for messages has not failed then, it has nothing in it.
        """
        if is_wish:
            self._release_poll()
        self._queue.clear()
        self._octets = 0
        if not self._ended:
            self._ended = reason
            if self._end is not None:
                self._end.close()
            self._fail_sends()
        self._finish()

    # --- requests for messages ---

    def _answer_poll(self) -> None:
        poll = self._poll
        if poll is None or not self._queue:
            return
        self._drop_poll()
        count = len(self._queue) if self._batches.batched else 1
        messages = [self._queue.popleft() for _ in range(count)]
        self._octets -= sum(map(len, messages))
        if self._ended and not self._queue:
            self._finish()
        poll.callback(self._batches.join(messages))

    def _release_poll(self) -> None:
        """Answer the request that waits, if any: there is nothing for it."""
        poll = self._poll
        if poll is not None:
            self._drop_poll()
            poll.callback(b"")

    def _drop_poll(self) -> None:
        self._touch()
        self._poll = None
        timer, self._poll_timer = self._poll_timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _cancel_poll(self, poll: "Deferred[bytes]") -> None:
        if self._poll is poll:
            self._drop_poll()

    def _regulate(self) -> None:
        """Stop reading from the data plane while too much waits here."""
        if self._ended or self._end is None:
            return
        count, octets = len(self._queue), self._octets
        bounds = self._bounds
        if not self._is_paused and (count >= bounds.queue_messages or octets >= bounds.queue_octets):
            self._is_paused = True
            self._end.pause()
        elif self._is_paused and count <= bounds.queue_messages // 2 and octets <= bounds.queue_octets // 2:
            self._is_paused = False
            self._end.resume()

    # --- requests with messages ---

    def _pump(self) -> None:
        while self._sends and not self._ended and self._end is not None and not self._end.is_full:
            content, done = self._sends.popleft()
            try:
                messages = self._batches.split(content.read())
            except FrameError as error:
                done.errback(LongPollError(BAD_REQUEST, str(error)))
                continue
            self._end.write(b"".join(map(frame, messages)))
            done.callback(None)

    def _cancel_send(self, done: "Deferred[None]") -> None:
        self._sends = deque(waiting for waiting in self._sends if waiting[1] is not done)

    def _fail_sends(self) -> None:
        while self._sends:
            self._sends.popleft()[1].errback(LongPollError(GONE, self._ended))

    # --- its end ---

    def _touch(self) -> None:
        self._seen = self._clock.seconds()

    def _check_idle(self) -> None:
        limit = self._bounds.session_timeout
        left = limit if self._poll is not None else self._seen + limit - self._clock.seconds()
        if left > 0:
            self._idle_timer = self._clock.callLater(left, self._check_idle)
        else:
            self._idle_timer = None
            self.close(self._ended or f"the client did not ask for messages for {limit:g} s")

    def _finish(self) -> None:
        """Nothing is left that a request could get."""
        forget, self._forget = self._forget, _ignore
        timer, self._idle_timer = self._idle_timer, None
        if timer is not None:
            timer.cancel()
        forget(self._ended)
        poll = self._poll
        if poll is not None:
            self._drop_poll()
            poll.errback(LongPollError(GONE, self._ended))


def _ignore(reason: str) -> None:
    """There is nobody any more who would like to know."""
