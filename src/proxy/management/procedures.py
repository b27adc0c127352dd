"""Management procedures: which methods of a worker can be called over WAMP, and how a call reaches them."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from proxy.config.findings import render_value
from proxy.errors import InvalidArgument, ProxyError

__all__ = ["CallError", "Caller", "Procedure", "call", "procedure", "procedures"]

log = logging.getLogger(__name__)

_MARK: Final = "_is_management_procedure"
_DETAILS: Final = "details"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Names are those of autobahn's CallDetails.

    :ivar caller: the caller's session ID, None if it is not disclosed.
    :ivar caller_authid: its authid, None likewise.
    :ivar caller_authrole: its authrole, None likewise.
    :ivar procedure: URI that was called.
    :ivar progress: sends a progressive result; None: the caller takes none.
    :ivar carrier: on which way the call came; session IDs of different ways say nothing about each other.
    """

    caller: int | None = None
    caller_authid: str | None = None
    caller_authrole: str | None = None
    procedure: str | None = None
    progress: Callable[..., Any] | None = None
    carrier: object = None


class CallError(Exception):
    """What a caller gets instead of a result.

    :ivar uri: error URI.
    :ivar message: one line for people, without secrets.
    :ivar details: keyword arguments of the error, for programs.
    """

    def __init__(self, uri: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.uri = uri
        self.message = message
        self.details = dict(details or {})


def procedure(function: F) -> F:
    """Mark a method as a management procedure of its own name.

    Its last parameter is ``details: Caller | None = None``; the others are what the caller gives, by position or by
    name, checked against their annotations.
    """
    setattr(function, _MARK, True)
    return function


class Procedure:
    """One management procedure.

    :param name: of the method, and last part of the URI.
    :param function: the method, not bound.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.doc = inspect.getdoc(function) or ""
        parameters = list(inspect.signature(function).parameters.values())[1:]
        self.signature = inspect.Signature([item for item in parameters if item.name != _DETAILS])
        hints = get_type_hints(function)
        strict = ConfigDict(strict=True)
        self._adapters: dict[str, TypeAdapter[Any]] = {
            item.name: TypeAdapter(hints.get(item.name, Any), config=strict)
            for item in self.signature.parameters.values()
        }

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name.

        :raises InvalidArgument: too many, too few, an unknown name, or a value of the wrong type.
        """
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidArgument(f"{self.name}{self.signature_text}: {error}") from None
        for name, value in bound.items():
            try:
                self._adapters[name].validate_python(value)
            except ValidationError as error:
                shown = render_value(value, (name,))
                expected = error.errors(include_url=False, include_input=False)[0]["msg"]
                raise InvalidArgument(f"{self.name}: {name}: {shown}: {expected}") from None
        return bound

    @property
    def signature_text(self) -> str:
        """Names of the parameters, for people: ``(transport_id, config)``."""
        return f"({', '.join(self.signature.parameters)})"


_known: dict[type, dict[str, Procedure]] = {}


def procedures(worker_class: type) -> dict[str, Procedure]:
    """All procedures of a class, by name, sorted. A method that overrides one need not be marked again."""
    found = _known.get(worker_class)
    if found is None:
        found = _known[worker_class] = _find(worker_class)
    return found


def _find(worker_class: type) -> dict[str, Procedure]:
    names = {name for base in worker_class.__mro__ for name, value in vars(base).items() if hasattr(value, _MARK)}
    return {name: Procedure(name, getattr(worker_class, name)) for name in sorted(names)}


def call(worker: object, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], caller: Caller) -> "Deferred[Any]":
    """Call a procedure.

    :param worker: whose.
    :param name: last part of its URI.
    :returns: fires with the result; fails with CallError.
    """
    done: Deferred[Any] = maybeDeferred(_call, worker, name, args, kwargs, caller)
    return done.addErrback(_fail, name)


def _call(worker: object, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], caller: Caller) -> Any:
    found = procedures(type(worker))[name]
    return getattr(worker, name)(**found.bind(args, kwargs), details=caller)


def _fail(failure: Failure, name: str) -> None:
    error = failure.value
    if isinstance(error, ProxyError):
        raise CallError(error.uri, error.message, error.details) from error
    log.error("error in the management procedure %s\n%s", name, failure.getTraceback())
    raise CallError(ProxyError.uri, f"internal error in {name}; the worker's log says more")
