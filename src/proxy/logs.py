"""What the logs of both kinds of worker have in common: Python's logging, with Twisted's messages in it."""

import logging
from typing import Any

from twisted.logger import STDLibLogObserver, globalLogBeginner

__all__ = ["log_twisted", "set_level"]


def set_level(number: int) -> None:
    """Log from a level on.

    :param number: one of :mod:`logging`.
    """
    logging.getLogger().setLevel(number)
    # Twisted tells of every port and factory at its "info", which is our "debug".
    logging.getLogger("twisted").setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))


def log_twisted() -> None:
    """Have Twisted log through Python's logging."""
    # What the standard library would look up for each record and nobody reads.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    observer: Any = STDLibLogObserver("twisted")
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
