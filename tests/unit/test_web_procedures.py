"""Services on the paths of transports that run: starting, stopping and listing them through the management API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.errors import ProxyError
from proxy.management.procedures import Caller
from support.planes import Rig

TCP = {"type": "tcp", "interface": "127.0.0.1", "port": 0}
SERVICE = {"type": "json", "value": 1}
PATHS = {"/": {"type": "none"}, "j": SERVICE, "p": {"type": "path", "paths": {"/": {"type": "none"}}}}
WEB = {"type": "web", "endpoint": TCP, "paths": PATHS}
UNIVERSAL = {"type": "universal", "endpoint": TCP, "web": {"paths": PATHS}, "rawsocket": {}}
NAMES = ("starting", "started", "stopping", "stopped")


class Worker:
    """A controller with a web and a universal transport."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.controller = self.rig.controller
        for name, item in (("web1", WEB), ("uni1", UNIVERSAL)):
            self.result(self.controller.start_proxy_transport(name, item))

    def result(self, deferred: Any) -> Any:
        """What it fires with."""
        found: list[Any] = []
        failures: list[Any] = []
        deferred.addCallbacks(found.append, failures.append)
        if failures:
            failures[0].raiseException()
        (value,) = found
        return value

    def __call__(self, name: str, *arguments: Any) -> Any:
        self.rig.events.clear()
        found = getattr(self.controller, f"{name}")(*arguments, details=Caller(caller=17))
        return self.result(found) if hasattr(found, "addCallbacks") else found

    def fails(self, uri: str, name: str, *arguments: Any) -> str:
        """Assert that a call fails; its text."""
        with pytest.raises(ProxyError) as caught:
            self(name, *arguments)
        assert caught.value.uri == uri
        return caught.value.message

    @property
    def told(self) -> list[tuple[Any, ...]]:
        """Events of services since the last call."""
        return [event for event in self.rig.events if event[0].startswith("on_web_transport_service_")]


@pytest.fixture
def worker() -> Iterator[Worker]:
    """One whose transports are stopped in the end."""
    worker = Worker()
    yield worker
    for transport in list(worker.controller.transports.values()):
        transport.release()


@pytest.fixture(params=["web1", "uni1"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each kind of transport that has paths."""
    name: str = request.param
    return name


def test_the_paths_of_a_transport_are_those_that_it_was_started_with(worker: Worker, transport: str) -> None:
    assert worker("get_web_transport_services", transport) == ["/", "j", "p"]
    assert worker("get_web_transport_service", transport, "j") == {
        "transport_id": transport,
        "path": "j",
        "type": "json",
        "config": SERVICE,
    }


def test_a_service_is_started_and_stopped(worker: Worker, transport: str) -> None:
    shown = {"transport_id": transport, "path": "new", "config": SERVICE}
    assert worker("start_web_transport_service", transport, "new", SERVICE) == shown
    assert worker.told == [
        ("on_web_transport_service_starting", transport, "new"),
        ("on_web_transport_service_started", transport, "new", shown),
    ]
    assert worker("get_web_transport_services", transport) == ["/", "j", "new", "p"]
    gone = {"transport_id": transport, "path": "new"}
    assert worker("stop_web_transport_service", transport, "new") == gone
    assert worker.told == [
        ("on_web_transport_service_stopping", transport, "new"),
        ("on_web_transport_service_stopped", transport, "new", gone),
    ]
    assert worker("get_web_transport_services", transport) == ["/", "j", "p"]
    worker.fails("crossbar.error.not_running", "stop_web_transport_service", transport, "new")
    worker.fails("crossbar.error.not_running", "get_web_transport_service", transport, "new")


def test_a_node_may_order_what_its_configuration_has_once(worker: Worker, transport: str) -> None:
    ordered = {**SERVICE, "id": "webservice000"}
    assert worker("start_web_transport_service", transport, "j", ordered)["config"] == ordered
    assert [event[0].rpartition("_")[2] for event in worker.told] == ["starting", "started"]
    worker.fails("crossbar.error.already_running", "start_web_transport_service", transport, "j", ordered)


def test_another_service_on_a_path_is_refused(worker: Worker, transport: str) -> None:
    other = {"type": "json", "value": 2}
    text = worker.fails("crossbar.error.already_running", "start_web_transport_service", transport, "j", other)
    assert 'has a web service on path "j" already' in text
    assert not worker.told


def test_what_was_stopped_may_be_started_again(worker: Worker) -> None:
    worker("stop_web_transport_service", "web1", "j")
    worker("start_web_transport_service", "web1", "j", SERVICE)
    worker.fails("crossbar.error.already_running", "start_web_transport_service", "web1", "j", SERVICE)


def test_the_root_may_be_changed(worker: Worker) -> None:
    worker("stop_web_transport_service", "web1", "/")
    assert worker("get_web_transport_services", "web1") == ["j", "p"]
    worker("start_web_transport_service", "web1", "/", SERVICE)


def test_a_path_may_have_its_slash(worker: Worker) -> None:
    assert worker("start_web_transport_service", "web1", "/new", SERVICE)["path"] == "/new"
    assert "new" in worker("get_web_transport_services", "web1")


def test_services_below_a_path(worker: Worker) -> None:
    worker("start_web_transport_service", "web1", "p/deep", SERVICE)
    assert worker("get_web_transport_service", "web1", "p/deep")["config"] == SERVICE
    assert worker("get_web_transport_services", "web1") == ["/", "j", "p"]
    for path in ("j/deep", "q/deep"):
        worker.fails("crossbar.error.not_running", "start_web_transport_service", "web1", path, SERVICE)


@pytest.mark.parametrize("path", ["", "//", "a b", "a/", "/a/", "..", "a.b", "ä"])
def test_an_impossible_path_is_refused(worker: Worker, path: str) -> None:
    worker.fails("crossbar.error.invalid_argument", "start_web_transport_service", "web1", path, SERVICE)


def test_a_service_that_cannot_start_is_told_to_its_end(worker: Worker) -> None:
    bad = {"type": "static", "directory": "/nowhere/at/all"}
    text = worker.fails("crossbar.error.invalid_configuration", "start_web_transport_service", "web1", "s", bad)
    assert "expected a folder" in text
    assert [event[0].rpartition("_")[2] for event in worker.told] == ["starting", "stopped"]
    assert "s" not in worker("get_web_transport_services", "web1")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"type": "jsn"}, 'did you mean "json"'),
        ({"type": "wap"}, "not supported by this version"),
        ({"type": "redirect"}, "url: required key is missing"),
    ],
)
def test_a_bad_configuration_is_refused(worker: Worker, config: dict[str, Any], text: str) -> None:
    assert text in worker.fails(
        "crossbar.error.invalid_configuration", "start_web_transport_service", "web1", "x", config
    )
    assert not worker.told


@pytest.mark.parametrize("config", [None, "json", {}, [SERVICE]])
def test_a_service_without_a_type(worker: Worker, config: Any) -> None:
    worker.fails("crossbar.invalid_argument", "start_web_transport_service", "web1", "x", config)


def test_secrets_are_not_shown(worker: Worker) -> None:
    signed = {"type": "caller", "realm": "realm1", "role": "anonymous", "options": {"key": "kk", "secret": "hush"}}
    shown = worker("start_web_transport_service", "web1", "call", signed)
    assert "hush" not in str((shown, worker.told, worker("get_web_transport_service", "web1", "call")))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("start_web_transport_service", ("info", SERVICE)),
        ("stop_web_transport_service", ("info",)),
        ("get_web_transport_service", ("info",)),
        ("get_web_transport_services", ()),
    ],
)
@pytest.mark.parametrize(("transport", "text"), [("nope", 'no transport "nope"'), ("transport000", "rawsocket")])
def test_other_transports_have_no_paths(
    worker: Worker, name: str, arguments: tuple[Any, ...], transport: str, text: str
) -> None:
    assert text in worker.fails("crossbar.error.not_running", name, transport, *arguments)


def test_a_universal_transport_without_web_has_no_paths(worker: Worker) -> None:
    item = {"type": "universal", "endpoint": TCP, "rawsocket": {}}
    worker.result(worker.controller.start_proxy_transport("uni2", item))
    text = worker.fails("crossbar.error.not_running", "get_web_transport_services", "uni2")
    assert "universal, which has no paths" in text
