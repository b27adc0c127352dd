"""What can end a command of ``wamp-proxy ctl`` early, each with its exit code."""

from typing import Final

__all__ = ["CtlError", "Ended", "NoSuchWorker", "Refused", "Unreachable", "Unusable"]

_MISSING: Final = ("crossbar.error.no_such_object", "crossbar.error.no_such_worker")


class CtlError(Exception):
    """A command cannot do what it was asked for.

    :ivar message: for people; it may have several lines.
    :ivar exit_code: of the command.
    """

    exit_code: int = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unusable(CtlError):
    """An argument that only turns out to be unusable once it is looked into: a file, or a worker that is not named."""

    exit_code = 2


class Unreachable(CtlError):
    """There is no worker at the socket, or it does not answer (any more)."""

    exit_code = 3


class NoSuchWorker(CtlError):
    """Nothing at the socket goes by the worker's id."""

    exit_code = 4


class Ended(CtlError):
    """What was waited for ended without coming to its end."""


class Refused(CtlError):
    """The worker answered with an error.

    :param uri: error URI.
    :param message: the worker's text.
    """

    def __init__(self, uri: str, message: str) -> None:
        super().__init__(f"{uri}: {message}" if message else uri)
        self.uri = uri
        self.exit_code = 4 if uri in _MISSING else 1
