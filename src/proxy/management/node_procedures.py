"""What a node would answer about its workers, for a worker that runs without one.

Tools written for a node find the worker's ID with ``crossbar.get_workers`` and go on from there.
"""

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from proxy import __version__
from proxy.errors import ProxyError
from proxy.management.procedures import Caller, procedure

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["NodeProcedures"]

PREFIX: Final = "crossbar"


class NoSuchWorker(ProxyError):
    """There is no other worker than this one."""

    uri: ClassVar[str] = "crossbar.error.no_such_worker"


class NodeProcedures:
    """Procedures of a node that has one worker, in whose process they run.

    :param controller: the worker.
    """

    def __init__(self, controller: "ProxyController") -> None:
        self._controller = controller
        self._created = _process_created()
        self._started = datetime.now(UTC)
        self._began = time.monotonic()

    @procedure
    def get_status(self, details: Caller | None = None) -> dict[str, Any]:
        """What runs here. Shape as a node's; ``ethadr`` is always null."""
        return {
            "title": f"{self._controller.WORKER_TITLE} {__version__}",
            "started": _iso(self._started),
            "controller_pid": os.getpid(),
            "running_workers": 1,
            "workers_by_type": {self._controller.WORKER_TYPE: 1},
            "directory": str(self._controller.cbdir),
            "ethadr": None,
            "pubkey": self._controller.public_key,
        }

    @procedure
    def get_workers(self, filter_types: list[str] | None = None, details: Caller | None = None) -> list[str]:
        """IDs of the workers: this one, unless ``filter_types`` leaves it out."""
        is_meant = not filter_types or self._controller.WORKER_TYPE in filter_types
        return [self._controller.worker_id] if is_meant else []

    @procedure
    def get_worker(
        self, worker_id: str, include_stats: bool = False, details: Caller | None = None
    ) -> dict[str, Any]:
        """This worker: id, pid, type, status, created and started (ISO 8601), startup_time and uptime (seconds).

        :param include_stats: add ``stats``, which without a node's traffic is empty.
        :raises NoSuchWorker: another ID.
        """
        if worker_id != self._controller.worker_id:
            raise NoSuchWorker(f'no worker "{worker_id}"')
        worker = {
            "id": worker_id,
            "pid": os.getpid(),
            "type": self._controller.WORKER_TYPE,
            "status": "stopping" if self._controller.is_stopping else "started",
            "created": _iso(self._created),
            "started": _iso(self._started),
            "startup_time": max(0.0, (self._started - self._created).total_seconds()),
            "uptime": time.monotonic() - self._began,
        }
        return {**worker, "stats": {}} if include_stats else worker


def _process_created() -> datetime:
    import psutil

    return datetime.fromtimestamp(psutil.Process().create_time(), UTC)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
