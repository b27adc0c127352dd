"""How many data threads a worker gets."""

import logging
import os
from typing import Any

from proxy.plane import THREADS_MAX

__all__ = ["thread_count"]

log = logging.getLogger(__name__)


def thread_count(wanted: Any = None) -> int:
    """The number of data threads.

    :param wanted: a number; the ComponentConfig of a node's worker, where ``options.extra`` may say ``threads``; None:
        one thread for each core that this process may use.
    """
    if wanted is not None and not isinstance(wanted, int):
        options = getattr(getattr(wanted, "extra", None), "extra", None)
        wanted = options.get("threads") if isinstance(options, dict) else None
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            wanted = None
    count = wanted or len(os.sched_getaffinity(0))
    if wanted is not None and wanted > THREADS_MAX:
        log.warning("%d data threads are wanted, %d are the most", wanted, THREADS_MAX)
    return min(count, THREADS_MAX)
