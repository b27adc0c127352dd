"""Cookies that end with the worker."""

import heapq
from collections.abc import Sequence
from typing import Any

from proxy.cookies.records import Job, Record, StoreError

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """See :class:`proxy.cookies.records.Backend`.

    :param max_cookies: most of them that are kept.
    """

    is_shared = False
    is_quick = True

    def __init__(self, max_cookies: int) -> None:
        self._max = max_cookies
        self.records: dict[str, Record] = {}
        # By when they expire. What has been deleted or replaced since is skipped when its turn comes.
        self._queue: list[tuple[int, str]] = []

    def open(self) -> None:
        """See Backend."""

    def close(self) -> None:
        """See Backend."""

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """See Backend."""
        return [self._run(job) for job in jobs]

    def _run(self, job: Job) -> Any:
        try:
            return job[1](self)
        except StoreError as error:
            return error

    def find(self, key: str, now: int) -> Record | None:
        """See Backend."""
        record = self.records.get(key)
        return record if record is not None and record.expires > now else None

    def put(self, key: str, record: Record, now: int) -> None:
        """See Backend."""
        if record.expires <= now:
            return
        if key not in self.records and len(self.records) >= self._max:
            self._drop_first()
        self.records[key] = record
        heapq.heappush(self._queue, (record.expires, key))
        if len(self._queue) > 2 * len(self.records) + 1000:
            self._queue = sorted((record.expires, key) for key, record in self.records.items())

    def _drop_first(self) -> None:
        while len(self.records) >= self._max:
            expires, key = heapq.heappop(self._queue)
            if self._is_of(key, expires):
                del self.records[key]

    def _is_of(self, key: str, expires: int) -> bool:
        record = self.records.get(key)
        return record is not None and record.expires == expires

    def settle(self, key: str, record: Record) -> None:
        """See Backend."""
        there = self.records.get(key)
        if there is not None and not there.is_of(record):
            self.delete(key)

    def delete(self, key: str) -> None:
        """See Backend."""
        self.records.pop(key, None)

    def log_out(self, key: str, now: int) -> None:
        """See Backend."""
        self.delete(key)

    def news(self) -> list[str]:
        """See Backend."""
        return []

    def sweep(self, now: int) -> None:
        """See Backend."""
        queue = self._queue
        while queue and queue[0][0] <= now:
            expires, key = heapq.heappop(queue)
            if self._is_of(key, expires):
                del self.records[key]
