"""Function authenticators: how they are made at the start of a transport, asked, and what their mistakes lead to."""

import logging
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp.exception import ApplicationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxy.auth import Authentication, function
from proxy.auth.base import Attempt, Deny
from proxy.auth.function import FunctionSource
from proxy.config import AuthConfig, WorkerConfig
from proxy.config.auth import Function
from proxy.controller import ProxyController
from proxy.errors import CannotStart, InvalidConfiguration, ProxyError
from proxy.lifecycle import State
from support.endpoints import free_port
from support.planes import FakePlane

FAILED = ("wamp.error.authentication_failed", "authentication failed")
DETAILS = {"authid": "joe", "authextra": {"nested": {"list": [1]}}}


class Module:
    """A module of the operator's, with one function that makes authenticators.

    :ivar made: arguments of each call of ``create``.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.made: list[tuple[Any, ...]] = []

    def write(self, source: str) -> None:
        (self.folder / f"{self.name}.py").write_text(textwrap.dedent(source))

    def has(self, create: Any) -> None:
        """Let it have ``create(config, controller)``, whose calls are written down."""
        self.write("")
        module = __import__(self.name)

        def recorded(*args: Any) -> Any:
            self.made.append(args)
            return create(*args)

        module.create = recorded

    @property
    def create(self) -> str:
        """Name of its function."""
        return f"{self.name}.create"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"operators_{tmp_path.name.replace('-', '_')}"
    yield Module(tmp_path, name)
    sys.modules.pop(name, None)


@pytest.fixture
def controller() -> ProxyController:
    return ProxyController(None, Clock(), plane=FakePlane(), worker_id="worker001", node_id="node7")  # type: ignore[arg-type]


def value_of(deferred: Any) -> Any:
    """What a Deferred has fired with; a failure is raised."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def attempt() -> Attempt:
    return Attempt("realm1", DETAILS, {"peer": "tcp4:192.0.2.7:4711"}, 4242)


@pytest.fixture
def make(module: Module, controller: ProxyController) -> Callable[..., FunctionSource]:
    def make_source(authenticator: Any, **keys: Any) -> FunctionSource:
        """A started source with this authenticator."""
        module.has(lambda config, controller: authenticator)
        source = FunctionSource(Function(type="function", create=module.create, **keys), controller)
        assert value_of(source.start()) is None
        return source

    return make_source


def ask(source: FunctionSource, method: str = "ticket", **more: Any) -> Any:
    return value_of(source.find(attempt(), method, "joe", more))


def raising(error: BaseException) -> Callable[..., Any]:
    def authenticate(realm: str | None, authid: str | None, details: dict[str, Any]) -> Any:
        raise error

    return authenticate


# --- how it is made ---


def test_it_is_made_once_of_its_config(module: Module, controller: ProxyController) -> None:
    def create(config: dict[str, Any], _: Any) -> Any:
        config["users"].clear()
        return lambda *args: "user"

    module.has(create)
    item = Function(type="function", create=module.create, config={"users": ["joe"]})
    source = FunctionSource(item, controller)
    value_of(source.start())
    for _ in range(3):
        assert ask(source, ticket="x") == {"role": "user"}
    assert module.made == [({"users": []}, None)]
    assert item.config == {"users": ["joe"]}, "the configuration is not the function's to change"


def test_two_transports_with_one_function_have_two_authenticators(module: Module, controller: ProxyController) -> None:
    module.has(lambda config, controller: lambda *args: config["role"])
    sources = [
        FunctionSource(Function(type="function", create=module.create, config={"role": role}), controller)
        for role in ("one", "two")
    ]
    for source in sources:
        value_of(source.start())
    assert [ask(source) for source in sources] == [{"role": "one"}, {"role": "two"}]


@pytest.mark.parametrize(("exposes", "is_given"), [(None, False), (False, False), (True, True)])
def test_the_controller_is_for_those_who_ask_for_it(
    make: Callable[..., FunctionSource],
    module: Module,
    controller: ProxyController,
    exposes: bool | None,
    is_given: bool,
) -> None:
    make(lambda *args: "user", expose_controller=exposes)
    assert module.made[0][1] is (controller if is_given else None)


def test_create_may_take_its_time(module: Module, controller: ProxyController) -> None:
    making: Deferred[Any] = Deferred()
    module.has(lambda *args: making)
    source = FunctionSource(Function(type="function", create=module.create), controller)
    started = source.start()
    assert not started.called
    making.callback(lambda *args: "user")
    assert value_of(started) is None
    assert ask(source) == {"role": "user"}
    assert not controller.reactor.getDelayedCalls(), "nothing is left of the deadline"


def test_create_may_be_a_coroutine(module: Module, controller: ProxyController) -> None:
    making: Deferred[Any] = Deferred()

    async def create(config: dict[str, Any], controller: Any) -> Any:
        role = await making
        return lambda *args: role

    module.has(create)
    source = FunctionSource(Function(type="function", create=module.create), controller)
    started = source.start()
    making.callback("user")
    value_of(started)
    assert ask(source) == {"role": "user"}


def test_create_has_a_deadline(module: Module, controller: ProxyController) -> None:
    module.has(lambda *args: Deferred())
    started = FunctionSource(Function(type="function", create=module.create), controller).start()
    controller.reactor.advance(function.CREATE_SECONDS)
    with pytest.raises(CannotStart, match=r"create.* made no authenticator within 30 s"):
        value_of(started)


@pytest.mark.parametrize("made", [None, "user", {"role": "user"}])
def test_create_must_make_a_function(module: Module, controller: ProxyController, made: Any) -> None:
    module.has(lambda *args: made)
    source = FunctionSource(Function(type="function", create=module.create), controller)
    with pytest.raises(InvalidConfiguration, match=f"expected a function, got {type(made).__name__}"):
        value_of(source.start())


@pytest.mark.parametrize(
    ("source", "name", "error", "text"),
    [
        (None, "create", InvalidConfiguration, 'there is no module "{module}"'),
        (None, "sub.create", InvalidConfiguration, 'there is no module "{module}"'),
        ("import no_such_module_at_all", "create", InvalidConfiguration, 'needs "no_such_module_at_all"'),
        ("", "create", InvalidConfiguration, 'has no "create"'),
        ("create = 17", "create", InvalidConfiguration, 'has a int, not a function, "create"'),
        ("1 / 0", "create", CannotStart, "fails with ZeroDivisionError"),
        ("def create(:", "create", CannotStart, "fails with SyntaxError"),
        ("import sys; sys.exit(3)", "create", CannotStart, "fails with SystemExit"),
        ("def create(config): pass", "create", CannotStart, "failed with TypeError"),
        ("def create(config, controller): raise OSError", "create", CannotStart, "failed with OSError"),
    ],
)
def test_functions_that_cannot_be_had(
    module: Module, controller: ProxyController, source: str | None, name: str, error: type[ProxyError], text: str
) -> None:
    if source is not None:
        module.write(source)
    item = Function(type="function", create=f"{module.name}.{name}", config={"password": "a secret"})
    with pytest.raises(error) as caught:
        value_of(FunctionSource(item, controller).start())
    assert text.format(module=module.name) in caught.value.message
    assert module.name in caught.value.message


def test_what_create_says_of_its_secrets_is_not_in_the_log(
    module: Module, controller: ProxyController, caplog: pytest.LogCaptureFixture
) -> None:
    def create(config: dict[str, Any], controller: Any) -> Any:
        elsewhere = "redis://jane:hidden@cache/0"
        raise OSError(f"cannot reach {config['url']} or {elsewhere} with {config['options'][0]['pin']!r}")

    module.has(create)
    config = {"url": "postgres://joe:pw@db/users", "options": [{"pin": "it's 4711"}]}
    source = FunctionSource(Function(type="function", create=module.create, config=config), controller)
    with pytest.raises(CannotStart) as caught:
        value_of(source.start())
    assert "4711" not in caught.value.message
    assert "OSError: cannot reach" in caplog.text
    assert "in create" in caplog.text, "the operator sees where it was"
    assert "4711" not in caplog.text
    assert "pw@db" not in caplog.text
    assert "//***@cache/0" in caplog.text


# --- how it is asked ---


def test_its_arguments_are_its_own(make: Callable[..., FunctionSource]) -> None:
    seen: list[Any] = []

    def authenticate(realm: str | None, authid: str | None, details: dict[str, Any]) -> str:
        seen.extend([realm, authid, details])
        details["authextra"]["nested"]["list"].append(2)
        details["transport"].clear()
        return "user"

    source = make(authenticate)
    asked = attempt()
    value_of(source.find(asked, "ticket", "joe", {"ticket": "a ticket"}))
    assert seen[:2] == ["realm1", "joe"]
    assert (seen[2]["ticket"], seen[2]["session"], seen[2]["authmethod"]) == ("a ticket", 4242, "ticket")
    assert asked.details["authextra"] == {"nested": {"list": [1]}}
    assert asked.transport_details == {"peer": "tcp4:192.0.2.7:4711"}


def test_authextra_that_is_too_deep_to_be_copied(make: Callable[..., FunctionSource]) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    found = make(lambda *args: "user").find(Attempt("realm1", {"authextra": {"a": deep}}, {}), "ticket", "joe", {})
    refusal = value_of(found)
    assert (refusal.reason, refusal.message) == FAILED


def test_it_may_answer_at_once_or_later(make: Callable[..., FunctionSource]) -> None:
    later: Deferred[Any] = Deferred()

    async def coroutine(realm: str | None, authid: str | None, details: dict[str, Any]) -> Any:
        return {"role": await later, "authid": authid}

    found: list[Any] = []
    make(coroutine).find(attempt(), "ticket", "joe", {}).addBoth(found.append)
    assert not found
    later.callback("user")
    assert found == [{"role": "user", "authid": "joe"}]
    other: Deferred[Any] = Deferred()
    make(lambda *args: other).find(attempt(), "ticket", "joe", {}).addBoth(found.append)
    other.callback("user")
    assert found[1] == {"role": "user"}
    assert ask(make(lambda *args: None)) is None


@pytest.mark.parametrize("answer", [17, b"user", ["user"], {"role": 7}, object()])
def test_answers_that_say_nothing(make: Callable[..., FunctionSource], answer: Any) -> None:
    found = ask(make(lambda *args: answer))
    assert (type(found), found.reason, found.message) == (Deny, *FAILED)


def test_an_error_of_its_own_reaches_the_client(make: Callable[..., FunctionSource]) -> None:
    found = ask(make(raising(ApplicationError("com.example.error.locked", "ask Jane"))))
    assert (found.reason, found.message) == ("com.example.error.locked", "ask Jane")
    found = ask(make(raising(ApplicationError("com.example.error.locked", "no user \ud800"))))
    assert found.message == "no user ?", "an ABORT can hold it"


@pytest.mark.parametrize("uri", ["", "no uri", "com..example", "com.example#1", "x" * 5000])
def test_an_error_whose_uri_is_none_is_not_passed_on(make: Callable[..., FunctionSource], uri: str) -> None:
    found = ask(make(raising(ApplicationError(uri, "text"))))
    assert (found.reason, found.message) == FAILED


class _Locked(Exception):
    pass


@pytest.mark.parametrize("error", [_Locked("because"), KeyError("joe"), SystemExit(3)])
def test_other_exceptions_are_failures_and_in_the_log_once(
    make: Callable[..., FunctionSource], caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    source = make(raising(error))
    for _ in range(3):
        found = ask(source)
        assert (type(found), found.reason, found.message) == (Deny, *FAILED)
        assert type(error).__name__ in found.cause
    reports = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(reports) == 1
    assert "in authenticate" in reports[0].getMessage()


def test_the_log_has_no_secret_of_the_client(
    make: Callable[..., FunctionSource], caplog: pytest.LogCaptureFixture
) -> None:
    def authenticate(realm: str | None, authid: str | None, details: dict[str, Any]) -> Any:
        try:
            return {}[details["ticket"]]
        except KeyError as error:
            raise ValueError(f"no {details['ticket']}") from error

    found = ask(make(authenticate), ticket="it's \n s3cr3t")
    assert (found.reason, found.message) == FAILED
    assert "ValueError: no ***" in caplog.text
    assert "s3cr3t" not in caplog.text + found.cause


def test_who_asks_may_leave(make: Callable[..., FunctionSource], caplog: pytest.LogCaptureFixture) -> None:
    given_up: list[Any] = []
    found = make(lambda *args: Deferred(given_up.append)).find(attempt(), "ticket", "joe", {})
    found.cancel()
    with pytest.raises(CancelledError):
        value_of(found)
    assert len(given_up) == 1
    assert not caplog.records


def test_no_more_than_a_bound_are_asked_at_a_time(
    make: Callable[..., FunctionSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function, "AT_WORK_MAX", 2)
    answers: list[Deferred[Any]] = []

    def authenticate(*args: Any) -> Any:
        answers.append(Deferred())
        return answers[-1]

    source = make(authenticate)
    found = [source.find(attempt(), "ticket", "joe", {}) for _ in range(3)]
    assert len(answers) == 2
    answers[0].callback("user")
    assert value_of(found[0]) == {"role": "user"}
    assert len(answers) == 3


# --- transports ---


def transport_item(create: str, port: int) -> dict[str, Any]:
    return {
        "type": "rawsocket",
        "id": "front",
        "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": port},
        "auth": {"ticket": {"type": "function", "create": create}},
    }


def test_a_transport_listens_once_its_authenticators_are_made(module: Module, controller: ProxyController) -> None:
    making: Deferred[Any] = Deferred()
    module.has(lambda *args: making)
    started = controller.start_proxy_transport("front", transport_item(module.create, free_port()))
    assert isinstance(controller.plane, FakePlane)
    assert not controller.plane.calls
    making.callback(lambda *args: "user")
    assert value_of(started)["listening_since"] is not None
    assert [name for name, *_ in controller.plane.calls] == ["listen"]


def test_a_transport_without_its_authenticator_does_not_start(module: Module, controller: ProxyController) -> None:
    port = free_port()
    with pytest.raises(InvalidConfiguration) as caught:
        value_of(controller.start_proxy_transport("front", transport_item(module.create, port)))
    assert "transport front: auth.ticket: " in caught.value.message
    assert module.name in caught.value.message
    assert "front" not in controller.transports or controller.transports["front"].state is State.FAILED
    module.has(lambda *args: lambda *args: "user")
    value_of(controller.start_proxy_transport("front", transport_item(module.create, port)))


def test_a_worker_does_not_boot_without_its_authenticators(module: Module, controller: ProxyController) -> None:
    config = {"connections": {}, "routes": {}, "transports": [transport_item(module.create, free_port())]}
    with pytest.raises(InvalidConfiguration, match=r"auth\.ticket"):
        value_of(controller.boot(WorkerConfig.model_validate(config)))


def test_all_methods_of_a_transport_are_made_ready(module: Module, controller: ProxyController) -> None:
    module.has(lambda *args: lambda *args: "user")
    item = {"type": "function", "create": module.create}
    auth = AuthConfig.model_validate({"ticket": item, "wampcra": item, "anonymous": {"type": "static"}})
    authentication = Authentication(auth, controller)
    assert not module.made
    value_of(authentication.start())
    assert len(module.made) == 2
    authentication.close()
    authentication.close()
