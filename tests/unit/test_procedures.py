"""Calls of management procedures: which methods can be called, with which arguments, and what a caller gets."""

import logging

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from proxy.errors import NoSuchObject
from proxy.management.procedures import Caller, CallError, call, procedure, procedures


class Base:
    @procedure
    def ping(self, details: Caller | None = None) -> str:
        return f"pong for {details.caller_authid}"

    @procedure
    def find(self, name: str, count: int = 1, details: Caller | None = None):
        raise NoSuchObject(f'no thing "{name}"')

    def hidden(self) -> None: ...


class Worker(Base):
    @procedure
    def later(self, value: object, details: Caller | None = None) -> "Deferred[object]":
        return succeed(value)

    @procedure
    def breaks(self, details: Caller | None = None):
        raise ZeroDivisionError("password: hunter2")

    @procedure
    def breaks_later(self, details: Caller | None = None) -> "Deferred[None]":
        return fail(NoSuchObject("gone meanwhile"))

    def find(self, name: str, count: int = 1, details: Caller | None = None):
        return [name] * count


def result(worker: object, name: str, *args: object, **kwargs: object):
    results: list[object] = []
    call(worker, name, args, kwargs, Caller(7, "joe", "ops")).addBoth(results.append)
    (value,) = results
    if isinstance(value, Failure):
        value.raiseException()
    return value


def refusal(worker: object, name: str, *args: object, **kwargs: object) -> tuple[str, str]:
    with pytest.raises(CallError) as caught:
        result(worker, name, *args, **kwargs)
    return caught.value.uri, caught.value.message


def test_marked_methods_are_procedures_those_of_base_classes_too():
    assert list(procedures(Worker)) == ["breaks", "breaks_later", "find", "later", "ping"]
    assert list(procedures(Base)) == ["find", "ping"]


def test_the_caller_is_known_and_results_may_come_later():
    assert result(Worker(), "ping") == "pong for joe"
    assert result(Worker(), "later", {"a": [1]}) == {"a": [1]}
    assert result(Worker(), "later", value=None) is None
    assert result(Worker(), "find", "x", count=2) == ["x", "x"], "an override need not be marked again"


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing a required argument: 'name'"),
        (("a", 1, 2), {}, "too many positional arguments"),
        (("a",), {"nme": 1}, "unexpected keyword argument 'nme'"),
        (("a",), {"details": 1}, "unexpected keyword argument 'details'"),
        ((1,), {}, "find: name: 1: "),
        (("a", "1"), {}, 'find: count: "1": '),
        (("a", True), {}, "find: count: true: "),
    ],
)
def test_arguments_that_do_not_fit_are_named(args, kwargs, text):
    uri, message = refusal(Worker(), "find", *args, **kwargs)
    assert uri == "crossbar.error.invalid_argument"
    assert text in message


def test_errors_keep_their_uri():
    assert refusal(Base(), "find", "x") == ("crossbar.error.no_such_object", 'no thing "x"')
    assert refusal(Worker(), "breaks_later") == ("crossbar.error.no_such_object", "gone meanwhile")


def test_a_bug_is_logged_and_the_caller_learns_nothing_of_it(caplog):
    with caplog.at_level(logging.ERROR):
        uri, message = refusal(Worker(), "breaks")
    assert uri == "wamp.error.runtime_error"
    assert "hunter2" not in message
    assert "ZeroDivisionError" in caplog.text
