"""How many data threads a worker gets."""

import logging
import os

from proxy.plane import THREADS_MAX

__all__ = ["thread_count"]

log = logging.getLogger(__name__)


def thread_count(wanted: int | None = None) -> int:
    """The number of data threads.

    :param wanted: None: one thread for each core that this process may use.
    """
    count = wanted or len(os.sched_getaffinity(0))
    if wanted is not None and wanted > THREADS_MAX:
        log.warning("%d data threads are wanted, %d are the most", wanted, THREADS_MAX)
    return min(count, THREADS_MAX)
