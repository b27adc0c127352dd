"""Function authenticators: Python code of the operator's, which runs in the worker."""

import copy
import importlib
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from autobahn.wamp.exception import ApplicationError
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail, inlineCallbacks
from twisted.python.failure import Failure

from proxy.auth.authenticators import AT_WORK_MAX, asked, denied, details_for, judged, unavailable
from proxy.auth.base import Attempt, failed
from proxy.auth.principals import Found
from proxy.config.auth import Function
from proxy.config.redaction import HIDDEN, without_credentials
from proxy.errors import CannotStart, InvalidConfiguration

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["CREATE_SECONDS", "FunctionSource"]

log = logging.getLogger(__name__)

CREATE_SECONDS: Final = 30.0
"""For ``create`` to come up with the authenticator."""

# Places that errors came from, of which the log has a full report already. A client could fill the log with more.
_REPORTED_MAX: Final = 64

_SECRET_MIN: Final = 4  # characters


class FunctionSource:
    """Asks a Python function about principals. It is called in the reactor's thread, as all Twisted code is.

    :param item: which function makes it, and of what.
    :param controller: the worker's, which those are given that ask for it.
    """

    provider = "function"

    def __init__(self, item: Function, controller: "ProxyController") -> None:
        self.default_role = item.default_role
        self._item = item
        self._controller = controller
        self._label = f'authenticator of "{item.create}"'
        self._authenticator: Callable[..., Any] | None = None
        self._turns = DeferredSemaphore(AT_WORK_MAX)
        self._reported: set[tuple[str, str, int]] = set()

    # --- life ---

    def start(self) -> "Deferred[None]":
        """Import the function and have it make the authenticator: once, for all clients of the transport.

        :returns: fails with InvalidConfiguration where there is no such function, with CannotStart where it fails.
        """
        try:
            create = _imported(self._item.create)
        except (InvalidConfiguration, CannotStart) as error:
            return fail(error)
        controller = self._controller if self._item.expose_controller else None
        # What the function does with its config is no change of the configuration.
        made = asked(create, copy.deepcopy(self._item.config), controller)
        made.addTimeout(CREATE_SECONDS, self._controller.reactor, self._too_late)
        return made.addCallbacks(self._made, self._not_made)

    def _made(self, authenticator: Any) -> None:
        if not callable(authenticator):
            what = type(authenticator).__name__
            raise InvalidConfiguration(f'"{self._item.create}" made no authenticator: expected a function, got {what}')
        self._authenticator = authenticator

    def _too_late(self, _: Any, seconds: float) -> Any:
        raise CannotStart(f'"{self._item.create}" made no authenticator within {seconds:g} s')

    def _not_made(self, failure: Failure) -> None:
        if isinstance(failure.value, CannotStart):
            failure.raiseException()
        log.error('error in "%s"\n%s', self._item.create, _report(failure, _secrets(self._item.config)))
        raise CannotStart(f'"{self._item.create}" failed with {type(failure.value).__name__}; the log has more')

    def close(self) -> None:
        """See :class:`Source`. Those that ask it already get their answers."""

    # --- questions ---

    def find(self, attempt: Attempt, authmethod: str, authid: str | None, more: Mapping[str, Any]) -> "Deferred[Found]":
        """See :class:`Source`."""
        return self._turns.run(self._ask, attempt, authmethod, authid, more)

    @inlineCallbacks
    def _ask(self, attempt: Attempt, authmethod: str, authid: str | None, more: Mapping[str, Any]) -> Any:
        if self._authenticator is None:
            return unavailable(f"{self._label} is not started")
        try:
            # It may do what it likes with them; the attempt stays as it is.
            details = copy.deepcopy(details_for(attempt, authmethod, more))
        except RecursionError:
            return failed(f"{self._label} is not asked: HELLO.Details.authextra is nested too deeply")
        asking = asked(self._authenticator, attempt.realm, authid, details)
        try:
            answer = yield asking.addErrback(self._failed, more)
        except ApplicationError as error:
            return denied(error, self._label)
        except _FailedError as error:
            return failed(f"{self._label} failed with {error}")
        return judged(authmethod, answer, self._label)

    def _failed(self, failure: Failure, more: Mapping[str, Any]) -> Any:
        """Log what went wrong in the authenticator: with all of it the first time, then with a line for each login."""
        if failure.check(ApplicationError, CancelledError):
            return failure
        kind = type(failure.value).__name__
        frames = traceback.extract_tb(failure.getTracebackObject())
        place = (kind, frames[-1].filename, frames[-1].lineno or 0) if frames else (kind, "", 0)
        if place not in self._reported and len(self._reported) < _REPORTED_MAX:
            self._reported.add(place)
            secrets = [*_secrets(self._item.config), *_strings(more)]
            log.error("error in the %s\n%s", self._label, _report(failure, secrets))
        raise _FailedError(kind)


class _FailedError(Exception):
    """The authenticator raised what it should not have, and that is in the log."""


def _imported(name: str) -> Callable[..., Any]:
    """The function of this name.

    :raises InvalidConfiguration: there is no such module or function.
    :raises CannotStart: the module fails.
    """
    module_name, _, function_name = name.rpartition(".")
    importlib.invalidate_caches()  # it may have been put there a moment ago
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise InvalidConfiguration(f'"{name}": there is no module "{error.name}"') from None
        raise InvalidConfiguration(f'"{name}": module "{module_name}" needs "{error.name}", which is missing') from None
    except (Exception, SystemExit) as error:
        log.error('error in module "%s"\n%s', module_name, _report(Failure(error), []))
        kind = type(error).__name__
        raise CannotStart(f'"{name}": module "{module_name}" fails with {kind}; the log has more') from None
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        found = "no" if function is None else f"a {type(function).__name__}, not a function,"
        raise InvalidConfiguration(f'"{name}": module "{module_name}" has {found} "{function_name}"')
    return cast(Callable[..., Any], function)


def _strings(value: Any) -> list[str]:
    """All texts in a value."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for item in items for text in _strings(item)]


def _secrets(config: Mapping[str, Any]) -> list[str]:
    """The texts of a function's config: any of them may be secret, but for those that are in every other line."""
    return [text for text in _strings(config) if len(text) >= _SECRET_MIN]


def _report(failure: Failure, secrets: list[str]) -> str:
    """A traceback for the log, without what may be secret in the errors' own texts."""
    error = failure.value
    assert error is not None
    hidden = {form for secret in secrets if secret for form in (secret, repr(secret)[1:-1])}
    parts = traceback.TracebackException(type(error), error, failure.getTracebackObject()).format()
    # Where it was, and the source code there, is no secret. Without its first line nobody takes it for the proxy's own.
    shown = (part for part in parts if not part.startswith("Traceback "))
    return "".join(part if part.startswith("  File ") else _without(part, hidden) for part in shown)


def _without(text: str, hidden: set[str]) -> str:
    text = without_credentials(text)
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
