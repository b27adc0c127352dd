"""Stores as the reactor's thread uses them: what may wait for a disk is done in a thread of the store's own."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from proxy.config.cookies import CookieConfig, DatabaseStore, FileStore
from proxy.cookies.file import FileBackend
from proxy.cookies.memory import MemoryBackend
from proxy.cookies.records import Backend, Job, Record, StoreError
from proxy.cookies.sqlite import SqliteBackend, database_file
from proxy.errors import CannotStart

__all__ = ["LogoutListener", "Store", "Stores"]

log = logging.getLogger(__name__)

T = TypeVar("T")

JOBS_MAX: Final = 20_000
"""Jobs that wait for the thread; more of them fail at once."""
BATCH_MAX: Final = 256
"""Jobs that are done in one go, which is written to the disk once."""
POLL_SECONDS: Final = 0.5
"""How often a store that others use is looked at for their logouts."""
SWEEP_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0
"""How long the end of the process waits for what is still to be written."""
UNDELETED_MAX: Final = 10_000
"""Cookies that were logged out and could not be deleted: so many are remembered."""


class LogoutListener(Protocol):
    """Is told of logouts."""

    @property
    def is_in_use(self) -> bool:
        """Whether there is anybody whom a logout could concern."""

    def on_logout(self, key: str) -> None:
        """A cookie was logged out: all that came with it is over."""


class Stores:
    """The stores of a worker: transports that name the same one share it.

    :param reactor: Twisted's.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._stores: dict[tuple[str, str], Store] = {}
        # Those that nobody uses any more, until they have let go of their files.
        self._ending: dict[tuple[str, str], Deferred[None]] = {}
        self._options: dict[tuple[str, str], object] = {}

    def get(self, config: CookieConfig, transport_id: str) -> "Store":
        """The store of a transport; one of the type ``memory`` is its own. To be started, and to be let go of.

        :param transport_id: of the transport; the one that takes its place has the same.
        """
        place, backend = _make(config, transport_id)
        options = (config.store, config.max_cookies)
        store = self._stores.get(place)
        if store is None:
            before = self._ending.get(place, succeed(None))
            store = self._stores[place] = Store(self._reactor, backend, before, lambda end: self._drop(place, end))
            self._options[place] = options
        elif options != self._options[place]:
            text = "transport %s: the store of its cookies, %s, has the options of the transport that opened it"
            log.warning(text, transport_id, place[1])
        return store

    def _drop(self, place: tuple[str, str], end: "Deferred[None]") -> None:
        del self._stores[place], self._options[place]
        self._ending[place] = end

        def ended(_: None) -> None:
            if self._ending.get(place) is end:
                del self._ending[place]

        end.addCallback(ended)


def _make(config: CookieConfig, transport_id: str) -> tuple[tuple[str, str], Backend]:
    store, most = config.store, config.max_cookies
    if isinstance(store, FileStore):
        path = os.path.realpath(store.filename)
        return ("file", path), FileBackend(path, most, store.purge_on_startup)
    if isinstance(store, DatabaseStore):
        path = os.path.realpath(database_file(store.path))
        return ("database", path), SqliteBackend(path, most, store.maxsize, store.sync, store.purge_on_startup)
    return ("memory", transport_id), MemoryBackend(most)


class Store:
    """What is known of cookies, by their keys.

    :param reactor: Twisted's.
    :param backend: what keeps it.
    :param before: fires when it may be opened.
    :param closed: called when nobody uses it any more, with what fires once it is closed.
    """

    def __init__(
        self,
        reactor: Any,
        backend: Backend,
        before: "Deferred[None]",
        closed: "Callable[[Deferred[None]], object]",
    ) -> None:
        self._reactor = reactor
        self._backend = backend
        self._before = before
        self._closed = closed
        self._users: list[LogoutListener] = []
        self._worker: _Direct | _Thread = _Direct(backend) if backend.is_quick else _Thread(reactor, backend)
        self._is_opening = self._has_begun = self._is_ready = False
        self._waiting: list[Deferred[None]] = []
        self._error: StoreError | None = None
        # Logged out, and not deleted yet.
        self._undeleted: dict[str, None] = {}
        self._poll: Any = None  # IDelayedCall
        self._sweep: Any = None

    # --- life ---

    def start(self, user: LogoutListener) -> "Deferred[None]":
        """Get ready.

        :param user: is told of logouts until it lets go.
        :returns: fails with CannotStart where the store cannot be used.
        """
        self._users.append(user)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._is_ready:
            self._answer_all()
        elif not self._is_opening:
            self._is_opening = True
            self._before.addCallback(self._open)
        return waiting

    def _open(self, _: None) -> None:
        if not self._users:
            return  # nobody wants it any more
        self._has_begun = True
        self._worker.open().addCallbacks(self._has_opened, self._cannot_open)

    def _has_opened(self, _: None) -> None:
        if self._users:
            self._sweep = self._reactor.callLater(SWEEP_SECONDS, self._sweep_now)
            self._poll_later()
        self._answer_all()

    def _cannot_open(self, failure: Failure) -> None:
        self._error = cast("StoreError", failure.value)
        self._answer_all()

    def _answer_all(self) -> None:
        self._is_ready = True
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if self._error is None:
                one.callback(None)
            else:
                one.errback(CannotStart(str(self._error)))

    def stop(self, user: LogoutListener) -> None:
        """Let go of it. Idempotent. What is to be written still is."""
        if user not in self._users:
            return
        self._users.remove(user)
        if not self._users:
            for timer in (self._poll, self._sweep):
                if timer is not None and timer.active():
                    timer.cancel()
            self._closed(self._worker.close() if self._has_begun else self._before)

    # --- records ---

    def find(self, key: str) -> "Deferred[Record | None]":
        """The login that a cookie stands for; None: it stands for none. Fails with StoreError."""
        now = int(time.time())

        def found(record: Record | None) -> Record | None:
            return None if key in self._undeleted else record

        return self._do(False, lambda backend: backend.find(key, now)).addCallback(found)

    def put(self, key: str, record: Record) -> "Deferred[None]":
        """Have a cookie stand for a login. Fails with StoreError."""
        now = int(time.time())
        return self._do(True, lambda backend: backend.put(key, record, now))

    def settle(self, key: str, record: Record) -> "Deferred[None]":
        """Forget a cookie that stands for somebody else. Fails with StoreError."""
        return self._do(True, lambda backend: backend.settle(key, record))

    def delete(self, key: str) -> "Deferred[None]":
        """Forget a cookie; sessions that came with it stay. Fails with StoreError."""
        return self._do(True, lambda backend: backend.delete(key))

    def log_out(self, key: str) -> "Deferred[None]":
        """Forget a cookie, and end all that came with it, at once here, and soon in other processes.

        :returns: fires when it is done for good; never fails: what cannot be deleted is tried again, and until then it
            is known here that it is over.
        """
        if len(self._undeleted) >= UNDELETED_MAX:
            self._undeleted.pop(next(iter(self._undeleted)))
        self._undeleted[key] = None
        for user in list(self._users):
            user.on_logout(key)
        return self._delete_logged_out(key)

    def _delete_logged_out(self, key: str) -> "Deferred[None]":
        now = int(time.time())

        def deleted(_: None) -> None:
            self._undeleted.pop(key, None)

        def not_deleted(failure: Failure) -> None:
            log.error("a cookie that was logged out cannot be deleted, trying again: %s", failure.getErrorMessage())

        return self._do(True, lambda backend: backend.log_out(key, now)).addCallbacks(deleted, not_deleted)

    def _do(self, writes: bool, action: Callable[[Backend], T]) -> "Deferred[T]":
        return self._worker.do((writes, action))

    # --- what is done from time to time ---

    def _poll_later(self) -> None:
        if self._backend.is_shared and self._users:
            self._poll = self._reactor.callLater(POLL_SECONDS, self._poll_now)

    def _poll_now(self) -> None:
        if not any(user.is_in_use for user in self._users):
            self._poll_later()
            return

        def told(keys: list[str]) -> None:
            for key in keys:
                for user in list(self._users):
                    user.on_logout(key)

        done = self._do(False, lambda backend: backend.news())
        done.addCallbacks(told, self._log_failure).addBoth(lambda _: self._poll_later())

    def _sweep_now(self) -> None:
        now = int(time.time())
        for key in list(self._undeleted):
            self._delete_logged_out(key)

        def done(_: None) -> None:
            if self._users:
                self._sweep = self._reactor.callLater(SWEEP_SECONDS, self._sweep_now)

        self._do(True, lambda backend: backend.sweep(now)).addErrback(self._log_failure).addCallback(done)

    def _log_failure(self, failure: Failure) -> None:
        failure.trap(StoreError)
        log.error("%s", failure.getErrorMessage())


class _Direct:
    """Does jobs at once, for backends that never wait.

    :param backend: whose jobs.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def open(self) -> "Deferred[None]":
        self._backend.open()
        return succeed(None)

    def close(self) -> "Deferred[None]":
        self._backend.close()
        return succeed(None)

    def do(self, job: Job) -> "Deferred[Any]":
        """Fires with the result, or fails with StoreError."""
        (result,) = self._backend.run([job])
        return fail(result) if isinstance(result, StoreError) else succeed(result)


class _Thread:
    """Does jobs in a thread, in their order, many at a time.

    :param reactor: Twisted's, in whose thread the results are told.
    :param backend: whose jobs.
    """

    def __init__(self, reactor: Any, backend: Backend) -> None:
        self._reactor = reactor
        self._backend = backend
        self._jobs: deque[tuple[Job, Deferred[Any]]] = deque()
        self._wake = threading.Condition()
        self._is_running = self._is_ending = False
        self._waiting: list[Deferred[None]] = []
        self._trigger: Any = None
        self._thread: threading.Thread | None = None

    def open(self) -> "Deferred[None]":
        opened: Deferred[None] = Deferred()
        # What was written shortly before the end of the worker is to be on the disk.
        self._trigger = self._reactor.addSystemEventTrigger("during", "shutdown", self._finish)
        self._is_running = True
        self._thread = threading.Thread(target=self._run, args=(opened,), name="cookies", daemon=True)
        self._thread.start()
        return opened

    def _finish(self) -> None:
        """The process ends, and sessions have ended: nobody waits for the reactor, which would not wait for us."""
        self.close()
        if self._thread is not None:
            self._thread.join(END_SECONDS)
            if self._thread.is_alive():
                log.error("the store of cookies takes too long: what is not written yet is lost")

    def close(self) -> "Deferred[None]":
        """End it once all that waits is done; fires then. Idempotent."""
        with self._wake:
            self._is_ending = True
            self._wake.notify()
        if not self._is_running:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def do(self, job: Job) -> "Deferred[Any]":
        """Fires with the result, or fails with StoreError."""
        done: Deferred[Any] = Deferred()
        with self._wake:
            if self._is_ending or len(self._jobs) >= JOBS_MAX:
                text = "is closed" if self._is_ending else "has too much to do"
                return fail(StoreError(f"the store of cookies {text}"))
            self._jobs.append((job, done))
            self._wake.notify()
        return done

    # --- in the thread ---

    def _run(self, opened: "Deferred[None]") -> None:
        try:
            self._backend.open()
        except Exception as error:
            self._tell([(opened, error if isinstance(error, StoreError) else StoreError(str(error)))])
            self._refuse_all()
        else:
            self._tell([(opened, None)])
            while batch := self._next():
                self._tell(list(zip([done for _, done in batch], self._do_all(batch), strict=True)))
        try:
            self._backend.close()
        except Exception:
            log.exception("error while the store of cookies was closed")
        self._reactor.callFromThread(self._has_ended)

    def _next(self) -> list[tuple[Job, "Deferred[Any]"]]:
        with self._wake:
            while not self._jobs and not self._is_ending:
                self._wake.wait()
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), BATCH_MAX))]

    def _do_all(self, batch: list[tuple[Job, "Deferred[Any]"]]) -> list[Any]:
        try:
            return self._backend.run([job for job, _ in batch])
        except Exception as error:
            log.exception("error in the store of cookies")
            return [StoreError(f"error in the store of cookies: {type(error).__name__}")] * len(batch)

    def _refuse_all(self) -> None:
        with self._wake:
            self._is_ending = True
            batch = [(done, StoreError("the store of cookies cannot be used")) for _, done in self._jobs]
            self._jobs.clear()
        self._tell(batch)

    def _tell(self, results: list[tuple["Deferred[Any]", Any]]) -> None:
        self._reactor.callFromThread(_deliver, results)

    # --- in the reactor ---

    def _has_ended(self) -> None:
        if self._trigger is not None:
            try:
                self._reactor.removeSystemEventTrigger(self._trigger)
            except (ValueError, KeyError, TypeError):
                pass  # the shutdown has begun
            self._trigger = None
        self._is_running = False
        for waiting in self._waiting:
            waiting.callback(None)


def _deliver(results: list[tuple["Deferred[Any]", Any]]) -> None:
    for done, result in results:
        try:
            if isinstance(result, StoreError):
                done.errback(result)
            else:
                done.callback(result)
        except Exception:
            log.exception("error after a job of the store of cookies")
