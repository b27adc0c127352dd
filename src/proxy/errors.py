"""Errors that the management API and the command line can name: one class per WAMP error URI.

Crossbar.io's callers compare error URIs literally, so every failure that reaches a caller is one of these classes.
"""

from typing import Any, ClassVar


class ProxyError(Exception):
    """A failure with a WAMP error URI.

    :ivar uri: the URI that a caller over WAMP gets.
    :ivar message: one line for people. Never holds a secret.
    :ivar details: more of it for programs: keyword arguments of the WAMP error. Hold no secret either.
    """

    uri: ClassVar[str] = "wamp.error.runtime_error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidConfiguration(ProxyError):
    """A configuration item that cannot be used."""

    uri = "crossbar.error.invalid_configuration"


class InvalidArgument(ProxyError):
    """An argument of a management procedure that cannot be used."""

    uri = "crossbar.error.invalid_argument"


class NoSuchObject(ProxyError):
    """Nothing goes by the given ID."""

    uri = "crossbar.error.no_such_object"


class AlreadyRunning(ProxyError):
    """The ID is taken by something that runs."""

    uri = "crossbar.error.already_running"


class NotRunning(ProxyError):
    """The thing named is not running."""

    uri = "crossbar.error.not_running"


class CannotStart(ProxyError):
    """Something that was asked to start failed to do so."""

    uri = "crossbar.error.cannot_start"


class CannotListen(ProxyError):
    """A transport cannot listen on its address (in use, not permitted, no such interface)."""

    uri = "crossbar.error.cannot_listen"


class FeatureUnavailable(ProxyError):
    """This platform or build does not have the feature."""

    uri = "crossbar.error.feature_unavailable"


class OperationFailed(ProxyError):
    """The operating system refuses what was asked for."""

    uri = "crossbar.error.runtime_error"


class AlreadyStarted(ProxyError):
    """The service is started, starting, or about to stop."""

    uri = "crossbar.error.already_started"


class NotStarted(ProxyError):
    """The service is not started."""

    uri = "crossbar.error.not_started"


class InvalidService(ProxyError):
    """The configuration of a web service names no type. The URI is Crossbar.io's, which has no ``error`` in it."""

    uri = "crossbar.invalid_argument"


class InUse(ProxyError):
    """Something else needs what was to be stopped."""

    uri = "crossbar.error.object_in_use"


class ClassImportFailed(ProxyError):
    """A class that the configuration names cannot be imported or used."""

    uri = "crossbar.error.class_import_failed"
