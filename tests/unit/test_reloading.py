"""A changed configuration file: what is started and stopped, what is left alone, and nothing by halves."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxy.addresses import Address, ResolveError
from proxy.config import ConfigError, load
from proxy.controller import ProxyController
from proxy.errors import AlreadyRunning, CannotListen, CannotStart, FeatureUnavailable, NotRunning
from proxy.messages import SER_CBOR, decode, encode
from proxy.plane import CLOSED_REFUSED, EV_CLOSED, EV_LISTEN, EV_MESSAGE, EV_OPEN, LISTEN_CLOSED, pack_address
from proxy.reloading import WAITING_MAX, Source
from support.endpoints import free_port
from support.planes import HELLO, INTRO, WELCOME_DETAILS, FakePlane

Item = dict[str, Any]
NOTHING: Item = {"connections": [], "routes": {}, "transports": []}


class OpenPlane(FakePlane):
    """A data plane that keeps the listening sockets open until it is told to leave them.

    :ivar holds: it does not leave them at once, but when let_go() is called.
    :ivar room: how many more listeners it takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sockets: dict[int, int] = {}
        self.holds = False
        self.room = 100
        self.held: list[int] = []

    def listen(self, fd: int, number: int, params: int, max_connections: int) -> None:
        if not self.room:
            raise RuntimeError("listen: too many listeners are open already")
        self.room -= 1
        self.sockets[number] = fd

    def unlisten(self, number: int) -> None:
        self.held.append(number)
        if not self.holds:
            self.let_go()

    def let_go(self) -> None:
        """Leave the listeners that it was told to leave."""
        numbers, self.held = self.held, []
        for number in numbers:
            os.close(self.sockets.pop(number))
            self.owners[number].on_event(EV_LISTEN, 0, LISTEN_CLOSED, b"")


class Names:
    """A resolver whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[Deferred[list[Address]]] = []

    def resolve(self, endpoint: object) -> "Deferred[list[Address]]":
        self.asked.append(Deferred())
        return self.asked[-1]


class Worker:
    """A worker with a configuration file, over a data plane that does nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "proxy.json"
        self.plane = OpenPlane()
        self.clock = Clock()
        self.controller = ProxyController(None, self.clock, plane=self.plane, worker_id="worker001", node_id="node7")
        self.controller.source = Source(self.path)
        self.controller.carriers.append(self)
        self.events: list[tuple[str, Any]] = []

    def publish_event(self, topic: str, args: tuple[Any, ...], exclude: int | None, acknowledge: bool) -> None:
        """A carrier: keep the events."""
        self.events.append((topic.removeprefix("crossbar.worker.worker001."), args[0]))

    def save(self, item: Item, **keys: Any) -> None:
        self.path.write_text(json.dumps({"type": "proxy", **item, **keys}))

    def boot(self, item: Item, **keys: Any) -> None:
        self.save(item, **keys)
        now(self.controller.boot(load(self.path).config))
        self.events.clear()

    def reload(self, item: Item | None = None, **keys: Any) -> Item:
        if item is not None:
            self.save(item, **keys)
        return now(self.controller.reload_config())

    @property
    def steps(self) -> list[str]:
        """What became of transports, connections and routes since the last look, in order."""
        events, self.events = self.events, []
        names = [(name.removeprefix("on_proxy_"), shown["id"]) for name, shown in events if "reloaded" not in name]
        return [f"{name} {thing}" for name, thing in names if name.endswith(("_started", "_stopped"))]

    def state(self) -> Any:
        """All that is in service, by identity."""
        controller = self.controller
        routes = [id(route) for realm in controller.routes.realms() for route in controller.routes.of_realm(realm)]
        connections = {name: id(thing) for name, thing in controller.connections.items()}
        transports = {name: (id(thing), thing.is_listening) for name, thing in controller.transports.items()}
        return connections, routes, transports, sorted(self.plane.sockets)

    def file_of(self, transport_id: str) -> tuple[int, int]:
        """What tells one listening socket from another."""
        with self.controller.transports[transport_id].share() as sock:
            status = os.fstat(sock.fileno())
            return status.st_dev, status.st_ino

    def close(self) -> None:
        for descriptor in self.plane.sockets.values():
            os.close(descriptor)


@pytest.fixture
def worker(tmp_path: Path):
    descriptors = len(os.listdir("/proc/self/fd"))
    worker = Worker(tmp_path)
    yield worker
    worker.close()
    # fewer where garbage of earlier tests was collected meanwhile
    assert len(os.listdir("/proc/self/fd")) <= descriptors, "a descriptor is left open"


def now(done: "Deferred[Any]") -> Any:
    """The result of a Deferred that has fired; its error is raised."""
    results: list[Any] = []
    done.addBoth(results.append)
    assert results, "has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def router(path: str = "/run/router.sock", **keys: Any) -> Item:
    return {"transport": {"type": "rawsocket", "endpoint": {"type": "unix", "path": path}}, **keys}


def tcp(name: str, port: int = 0, interface: str | None = "127.0.0.1", **keys: Any) -> Item:
    endpoint = {"type": "tcp", "port": port, **({} if interface is None else {"interface": interface})}
    return {"type": "rawsocket", "id": name, "endpoint": endpoint, **keys}


def unix(name: str, path: Path, **keys: Any) -> Item:
    return {"type": "rawsocket", "id": name, "endpoint": {"type": "unix", "path": str(path)}, **keys}


def item(*transports: Item, **keys: Any) -> Item:
    """Two connections, a route for each of two realms, and transports."""
    return {
        "connections": {"one": router(), "two": router("/run/other.sock")},
        "routes": {"realm1": {"anonymous": ["one", "two"]}, "realm2": {"anonymous": "two"}},
        "transports": list(transports or [tcp("front1"), tcp("front2")]),
        **keys,
    }


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


# --- what is no change ---


def test_the_same_file_changes_nothing(worker: Worker) -> None:
    worker.boot(item())
    before = worker.state()
    result = worker.reload()
    assert result == {
        "started": NOTHING,
        "stopped": NOTHING,
        "kept": {"connections": 2, "routes": 2, "transports": 2},
        "warnings": [],
    }
    assert worker.state() == before
    assert [name for name, _ in worker.events] == ["on_proxy_config_reloaded"]
    event = worker.events[0][1]
    assert event.pop("when").endswith("Z")
    assert event == {"started": NOTHING, "stopped": NOTHING, "kept": result["kept"], "who": None}


def test_another_order_and_defaults_spelled_out_are_no_change(worker: Worker) -> None:
    worker.boot(item())
    before = worker.state()
    same = item(tcp("front2", max_connections=50_000, auth=None), {**tcp("front1"), "options": {}})
    same["connections"] = {"two": router("/run/other.sock", auth=None), "one": router(timeouts={"dial": 3000})}
    default = worker.controller.connections["one"].model.timeouts.dial
    same["connections"]["one"]["timeouts"]["dial"] = default
    same["routes"] = {"realm2": {"anonymous": ["two"]}, "realm1": {"anonymous": ["one", "two", "one"]}}
    worker.reload(same)
    assert worker.state() == before
    assert worker.steps == []


# --- what is one ---


def change_route(config: Item) -> None:
    config["routes"]["realm1"] = {"anonymous": "one"}


def add_role(config: Item) -> None:
    config["routes"]["realm2"]["admin"] = "one"


def add_realm(config: Item) -> None:
    config["routes"]["realm3"] = {"anonymous": "one"}


def drop_realm(config: Item) -> None:
    config["routes"]["realm2"] = {}


def change_connection(config: Item) -> None:
    config["connections"]["two"]["timeouts"] = {"join": 4321}


def add_connection(config: Item) -> None:
    config["connections"]["three"] = router()
    config["routes"]["realm2"] = {"anonymous": ["two", "three"]}


def drop_connection(config: Item) -> None:
    del config["connections"]["one"]
    config["routes"]["realm1"] = {"anonymous": "two"}


def change_transport(config: Item) -> None:
    config["transports"][0]["max_connections"] = 7


def add_transport(config: Item) -> None:
    config["transports"].append(tcp("front3"))


def drop_transport(config: Item) -> None:
    del config["transports"][0]


def rename_transport(config: Item) -> None:
    config["transports"][0]["id"] = "front9"


@pytest.mark.parametrize(
    ("edit", "steps"),
    [
        (change_route, ["route_started route002", "route_stopped route000"]),
        (add_role, ["route_started route002", "route_stopped route001"]),
        (add_realm, ["route_started route002"]),
        (drop_realm, ["route_stopped route001"]),
        (change_connection, ["connection_stopped two", "connection_started two"]),
        (add_connection, ["connection_started three", "route_started route002", "route_stopped route001"]),
        (drop_connection, ["route_started route002", "route_stopped route000", "connection_stopped one"]),
        (change_transport, ["transport_stopped front1", "transport_started front1"]),
        (add_transport, ["transport_started front3"]),
        (drop_transport, ["transport_stopped front1"]),
        (rename_transport, ["transport_started front9", "transport_stopped front1"]),
    ],
)
def test_only_what_has_changed_is_touched(edit: Callable[[Item], None], steps: list[str], worker: Worker) -> None:
    worker.boot(item())
    changed = item()
    edit(changed)
    result = worker.reload(changed)
    for side in ("started", "stopped"):
        told = [f"connection_{side} {name}" for name in result[side]["connections"]]
        told += [f"route_{side} {name}" for names in result[side]["routes"].values() for name in names]
        told += [f"transport_{side} {name}" for name in result[side]["transports"]]
        assert sorted(told) == sorted(step for step in steps if f"_{side} " in step)
    assert worker.steps == steps
    before = worker.state()
    assert worker.reload()["started"] == NOTHING
    assert worker.state() == before


def test_everything_can_go_and_come_back(worker: Worker) -> None:
    worker.boot(item())
    assert worker.reload({})["kept"] == {"connections": 0, "routes": 0, "transports": 0}
    assert worker.plane.sockets == {}
    worker.reload(item())
    assert worker.controller.get_proxy_transports() == ["front1", "front2"]
    assert worker.controller.has_role("realm1", "anonymous")


def test_logins_find_a_route_at_every_moment(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.boot(item())
    changed = item()
    change_route(changed)
    change_connection(changed)
    seen = []
    publish = worker.controller.publish_event

    def look(*arguments: Any, **keywords: Any) -> None:
        seen.append(worker.controller.has_role("realm1", "anonymous"))
        publish(*arguments, **keywords)

    monkeypatch.setattr(worker.controller, "publish_event", look)
    worker.reload(changed)
    assert seen
    assert all(seen)


def test_a_changed_shutdown_timeout_counts_from_now_on(worker: Worker) -> None:
    worker.boot(item(), shutdown_timeout=3000)
    worker.reload(item(), shutdown_timeout=9000)
    assert worker.controller.shutdown_timeout == 9


@pytest.mark.parametrize(
    ("key", "value"), [("id", "worker002"), ("management", {"path": "/run/wamp-proxy.sock"})]
)
def test_what_cannot_be_changed_is_told(key: str, value: Any, worker: Worker) -> None:
    worker.boot(item())
    assert worker.reload(item(), **{key: value})["warnings"] == [
        f"warning: {key}: changed, takes effect when the worker is started again"
    ]
    assert worker.controller.worker_id == "worker001"


# --- listening sockets ---


@pytest.mark.parametrize("name", ["front1", "front9"])
def test_a_changed_transport_goes_on_with_its_socket(name: str, worker: Worker) -> None:
    port = free_port()
    worker.boot(item(tcp("front1", port)))
    before = worker.file_of("front1")
    worker.reload(item(tcp(name, port, max_connections=3)))
    assert worker.file_of(name) == before
    assert len(worker.plane.sockets) == 1
    assert answers(port)


def test_any_port_stays_the_same_one(worker: Worker) -> None:
    worker.boot(item(tcp("front1"), tcp("front2")))
    before = worker.controller.transports["front1"].address
    worker.reload(item(tcp("front1", max_connections=3), tcp("front3")))
    assert worker.controller.transports["front1"].address == before
    assert worker.controller.transports["front3"].address != before


def test_a_socket_changes_its_options(worker: Worker) -> None:
    port = free_port()
    worker.boot(item(tcp("front1", port)))
    changed = tcp("front1", port)
    changed["endpoint"] |= {"shared": True, "user_timeout": 5000, "backlog": 7}
    worker.reload(item(changed))
    with worker.controller.transports["front1"].share() as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


@pytest.mark.parametrize(("before", "after"), [("127.0.0.1", None), (None, "127.0.0.1"), ("127.0.0.2", "0.0.0.0")])
def test_one_interface_and_all_of_them_replace_each_other(
    before: str | None, after: str | None, worker: Worker
) -> None:
    port = free_port()
    worker.boot(item(tcp("front1", port, before)))
    worker.reload(item(tcp("front1", port, after)))
    assert answers(port)
    assert worker.controller.transports["front1"].address.endswith(f"{after or '0.0.0.0'}:{port}")
    with worker.controller.transports["front1"].share() as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


def test_two_transports_change_places(worker: Worker) -> None:
    ports = free_port(), free_port()
    worker.boot(item(tcp("front1", ports[0]), tcp("front2", ports[1])))
    files = worker.file_of("front1"), worker.file_of("front2")
    worker.reload(item(tcp("front1", ports[1]), tcp("front2", ports[0])))
    assert (worker.file_of("front2"), worker.file_of("front1")) == files
    assert answers(ports[0])
    assert answers(ports[1])


def test_a_unix_socket_keeps_its_file(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    worker.boot(item(unix("front1", path)))
    before = path.stat().st_ino
    for name in ("front1", "front2"):
        worker.reload(item(unix(name, path, max_connections=len(name) + ord(name[-1]))))
        assert path.stat().st_ino == before
    now(worker.controller.stop_proxy_transport("front2"))
    assert not path.exists()


def test_a_unix_socket_whose_file_was_removed_gets_another_one(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    worker.boot(item(unix("front1", path)))
    path.unlink()
    worker.reload(item(unix("front1", path, max_connections=5)))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("name", ["front1", "front9"])
def test_a_client_that_came_in_between_is_not_forgotten(name: str, worker: Worker, tmp_path: Path) -> None:
    """Once the predecessor has left its socket, whoever waits there is woken."""
    worker.boot(item(unix("front1", tmp_path / "front.sock")))
    worker.plane.holds = True
    worker.save(item(unix(name, tmp_path / "front.sock", max_connections=3)))
    worker.controller.reload_config()
    (number,) = [number for number in worker.plane.sockets if number not in worker.plane.held]
    with socket.socket(fileno=os.dup(worker.plane.sockets[number])) as listener:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        worker.plane.let_go()
        listener.accept()[0].close()


def test_a_client_that_has_not_said_anything_yet_may_go_on(worker: Worker) -> None:
    """It came by the transport that was replaced, and its first octets come after that."""
    worker.boot(item(tcp("front1", limits={"handshake_timeout": 3000})))
    (number,) = worker.plane.sockets
    worker.reload(item(tcp("front1", max_connections=3)))
    old = worker.plane.owners[number]
    old.on_event(EV_OPEN, 77, 3, INTRO)
    assert ("abort", 77) not in worker.plane.take()
    old.on_event(EV_CLOSED, 77, 1, b"")
    worker.clock.advance(2.9)
    assert number in worker.plane.owners
    worker.clock.advance(0.1)
    assert number not in worker.plane.owners


def test_a_client_that_has_not_said_anything_does_not_hold_up_the_end(worker: Worker) -> None:
    worker.boot(item(tcp("front1")))
    worker.plane.holds = True
    worker.save(item(tcp("front1", max_connections=3)))
    reloaded = worker.controller.reload_config()
    worker.plane.let_go()
    now(reloaded)
    assert len(worker.plane.owners) == 2
    ended = worker.controller.shut_down(5)
    worker.plane.let_go()
    assert now(ended) is True
    assert worker.clock.getDelayedCalls() == []


def test_an_address_is_open_while_its_transport_is_replaced(worker: Worker) -> None:
    port = free_port()
    worker.boot(item(tcp("front1", port)))
    worker.plane.holds = True
    worker.save(item(tcp("front1", port, max_connections=3)))
    results: list[Item] = []
    worker.controller.reload_config().addCallback(results.append)
    assert not results
    assert len(worker.plane.sockets) == 2, "the successor listens before the predecessor is gone"
    assert worker.controller.transports["front1"].state.name == "STOPPING"
    worker.plane.let_go()
    assert results[0]["started"]["transports"] == ["front1"]
    assert answers(port)


# --- failures ---


def broken(config: Item) -> Item:
    config["connections"]["two"]["transport"]["type"] = "pigeon"
    return config


def dangling(config: Item) -> Item:
    config["routes"]["realm1"] = {"anonymous": "nobody"}
    return config


@pytest.mark.parametrize("edit", [broken, dangling])
def test_a_file_with_an_error_changes_nothing(
    edit: Callable[[Item], Item], worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.boot(item())
    before = worker.state()
    with pytest.raises(ConfigError) as caught:
        worker.reload(edit(item(tcp("front7"))))
    assert caught.value.uri == "crossbar.error.invalid_configuration"
    assert worker.state() == before
    assert worker.events == []
    assert str(caught.value.findings[0]) in caplog.text
    assert "nothing is changed" in caplog.text


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_a_file_that_cannot_be_read_changes_nothing(content: bytes | None, worker: Worker) -> None:
    worker.boot(item())
    before = worker.state()
    worker.path.unlink()
    if content is not None:
        worker.path.write_bytes(content)
    with pytest.raises(ConfigError):
        worker.reload()
    assert worker.state() == before


def test_a_pipe_is_not_waited_for(worker: Worker) -> None:
    worker.boot(item())
    worker.path.unlink()
    os.mkfifo(worker.path)
    with pytest.raises(ConfigError, match="regular file"):
        worker.reload()


def test_an_address_in_use_changes_nothing(worker: Worker, tmp_path: Path) -> None:
    path, port = tmp_path / "front.sock", free_port()
    worker.boot(item(tcp("front1", port), unix("front2", path)))
    before = worker.state()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        changed = item(
            tcp("front1", port, max_connections=3),
            unix("front2", path, max_connections=3),
            unix("front3", tmp_path / "new.sock"),
            tcp("front4", taken.getsockname()[1]),
        )
        change_route(changed)
        change_connection(changed)
        with pytest.raises(CannotListen, match=r"front4.*in use"):
            worker.reload(changed)
    assert worker.state() == before
    assert worker.events == []
    assert path.exists()
    assert not (tmp_path / "new.sock").exists()
    assert answers(port)
    worker.reload(item(tcp("front1", port), unix("front2", path)))
    assert worker.state() == before


def test_a_data_plane_without_room_changes_nothing(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    worker.boot(item(unix("front1", path)))
    before = worker.state()
    worker.plane.room = 1
    with pytest.raises(CannotListen, match="too many listeners"):
        worker.reload(item(unix("front1", path, max_connections=3), tcp("front2")))
    assert worker.state() == before
    assert path.exists()
    now(worker.controller.stop_proxy_transport("front1"))
    assert not path.exists()


def test_stopped_transports_that_take_up_the_room_are_named(worker: Worker) -> None:
    worker.boot(item(tcp("front1")))
    (number,) = worker.plane.sockets
    worker.plane.owners[number].on_event(EV_OPEN, 77, SER_CBOR, INTRO)
    worker.reload(item())
    worker.reload(item(tcp("front2")))
    worker.plane.room = 0
    with pytest.raises(CannotListen, match="1 stopped transports whose sessions stay"):
        worker.reload(item())


@pytest.mark.parametrize("step", ["start_proxy_realm_route", "stop_proxy_realm_route", "start_proxy_connection"])
def test_a_failure_half_way_is_taken_back(step: str, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.boot(item())
    shown = {name: thing.model for name, thing in worker.controller.connections.items()}
    changed = item(tcp("front1", max_connections=3), tcp("front3"))
    change_connection(changed)
    changed["connections"]["zzz"] = router()
    changed["routes"] |= {"realm1": {"anonymous": "zzz"}, "realm2": {"anonymous": "one"}}
    method, calls = getattr(worker.controller, step), []

    def second_fails(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return fail(CannotStart("no")) if len(calls) == 2 else method(*arguments, **keywords)

    monkeypatch.setattr(worker.controller, step, second_fails)
    with pytest.raises(CannotStart, match="no"):
        worker.reload(changed)
    assert {name: thing.model for name, thing in worker.controller.connections.items()} == shown
    routes = [route for realm in ("realm1", "realm2") for route in worker.controller.routes.of_realm(realm)]
    assert [route.roles for route in routes] == [{"anonymous": ("one", "two")}, {"anonymous": ("two",)}]
    assert sorted(worker.controller.transports) == ["front1", "front2"]
    assert len(worker.plane.sockets) == 2
    monkeypatch.undo()
    worker.reload(changed)
    assert worker.controller.get_proxy_connections() == ["one", "two", "zzz"]
    worker.reload({})
    assert worker.controller.get_proxy_routes() == []
    assert worker.controller.get_proxy_connections() == []


def test_nobody_gets_in_by_a_transport_that_was_given_up(worker: Worker) -> None:
    worker.boot(item(tcp("front1")))
    worker.plane.room = 1
    worker.plane.holds = True
    with pytest.raises(CannotListen):
        worker.reload(item(tcp("front2"), tcp("front3")))
    (number,) = worker.plane.held
    worker.plane.owners[number].on_event(EV_OPEN, 77, 3, INTRO)
    assert ("abort", 77) in worker.plane.take()
    worker.plane.let_go()
    assert number not in worker.plane.owners


def test_an_interface_without_an_address_changes_nothing(worker: Worker) -> None:
    worker.boot(item())
    before = worker.state()
    worker.controller.resolver = names = Names()  # type: ignore[assignment]
    worker.save(item(tcp("front1", interface="nowhere"), tcp("front3")))
    done = worker.controller.reload_config()
    names.asked[0].errback(ResolveError("nowhere has no address"))
    with pytest.raises(CannotListen, match="nowhere has no address"):
        now(done)
    assert worker.state() == before


def test_a_boot_that_fails_starts_nothing(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotListen, match="in use"):
        worker.boot(item(tcp("front1"), tcp("front2", taken.getsockname()[1])))
    assert worker.state() == ({}, [], {}, [])


# --- beside the management API ---


def test_what_the_management_api_started_stays(worker: Worker) -> None:
    worker.boot(item())
    now(worker.controller.start_proxy_connection("mine", router()))
    now(worker.controller.start_proxy_realm_route("realm1", {"admin": "mine"}))
    now(worker.controller.start_proxy_transport("front8", tcp("front8")))
    for config in (item(tcp("front1", max_connections=3)), {}):
        worker.reload(config)
        assert worker.controller.get_proxy_connections()[:1] == ["mine"]
        assert worker.controller.has_role("realm1", "admin")
        assert "front8" in worker.controller.transports


def test_what_the_management_api_stopped_comes_back(worker: Worker) -> None:
    worker.boot(item())
    now(worker.controller.stop_proxy_transport("front1"))
    now(worker.controller.stop_proxy_realm_route("realm1", "route000"))
    now(worker.controller.stop_proxy_connection("one"))
    worker.reload()
    assert worker.steps[-3:] == ["connection_started one", "route_started route002", "transport_started front1"]


def test_what_the_management_api_put_in_place_of_an_object_is_its_own(worker: Worker) -> None:
    """A file that does not name it any more has no say in it."""
    worker.boot(item())
    now(worker.controller.stop_proxy_transport("front1"))
    now(worker.controller.start_proxy_transport("front1", tcp("front1", max_connections=3)))
    worker.reload(item(tcp("front2")))
    assert worker.controller.get_proxy_transports() == ["front1", "front2"]


def test_what_the_file_comes_to_name_becomes_its_own(worker: Worker) -> None:
    worker.boot(item())
    now(worker.controller.start_proxy_transport("front3", tcp("front3")))
    now(worker.controller.start_proxy_realm_route("realm3", {"anonymous": "one"}))
    more = item(tcp("front1"), tcp("front2"), tcp("front3"))
    add_realm(more)
    before = worker.state()
    worker.reload(more)
    assert worker.state() == before
    worker.reload(item())
    assert worker.controller.get_proxy_transports() == ["front1", "front2"]
    assert worker.controller.get_proxy_routes() == ["realm1", "realm2"]


def test_the_file_wins_where_both_want_an_address(worker: Worker) -> None:
    port = free_port()
    worker.boot(item())
    now(worker.controller.start_proxy_transport("front8", tcp("front8", port)))
    result = worker.reload(item(tcp("front1"), tcp("front2"), tcp("front3", port)))
    assert result["started"]["transports"] == ["front3"]
    assert result["stopped"]["transports"] == ["front8"]
    assert "front8" in result["warnings"][0]
    assert answers(port)


def test_a_transport_in_the_way_that_is_about_to_stop_changes_nothing(worker: Worker) -> None:
    worker.boot(item(tcp("front1")))
    port = free_port()
    now(worker.controller.start_proxy_transport("extra", tcp("extra", port)))
    worker.plane.holds = True
    worker.controller.stop_proxy_transport("extra")
    before = worker.state()
    changed = item(tcp("front1"), tcp("front2", port))
    changed["connections"]["three"] = router("/run/third.sock")
    with pytest.raises(CannotListen):
        worker.reload(changed)
    assert worker.state() == before
    worker.plane.let_go()
    assert worker.reload()["started"] == {"connections": ["three"], "routes": {}, "transports": ["front2"]}


def test_a_connection_that_another_route_needs_stays(worker: Worker) -> None:
    worker.boot(item())
    route = now(worker.controller.start_proxy_realm_route("realm5", {"anonymous": "one"}))
    changed = item()
    drop_connection(changed)
    result = worker.reload(changed)
    assert "one" in worker.controller.connections
    assert route["id"] in result["warnings"][0]
    now(worker.controller.stop_proxy_realm_route("realm5", route["id"]))
    assert worker.reload()["stopped"]["connections"] == ["one"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_connection_that_is_out_of_service_stays_so(worker: Worker, fails: bool) -> None:
    worker.boot(item())
    worker.controller.drain_proxy_connection("one")
    changed = item()
    changed["connections"]["one"] = router("/run/elsewhere.sock")
    if fails:
        changed["routes"]["realm9"] = {"anonymous": "one"}
        worker.controller.start_proxy_realm_route = lambda *_, **__: fail(CannotStart("for the test"))
        with pytest.raises(CannotStart):
            worker.reload(changed)
    else:
        assert worker.reload(changed)["started"]["connections"] == ["one"]
    assert not worker.controller.connections["one"].takes_logins
    worker.controller.drain_proxy_connection("one", cancel=True)
    assert worker.controller.connections["one"].takes_logins


def test_an_object_in_between_refuses_the_reload(worker: Worker) -> None:
    worker.boot(item())
    worker.plane.holds = True
    stopped = worker.controller.stop_proxy_transport("front1")
    with pytest.raises(AlreadyRunning, match=r"front1.*stopping"):
        worker.reload()
    worker.plane.let_go()
    now(stopped)
    worker.plane.holds = False
    assert worker.reload()["started"]["transports"] == ["front1"]


# --- one after the other ---


def test_reloads_wait_for_each_other(worker: Worker) -> None:
    port = free_port()
    worker.boot(item(tcp("front1", port)))
    worker.plane.holds = True
    worker.save(item(tcp("front1", port, max_connections=3)))
    first = worker.controller.reload_config()
    worker.save(item(tcp("front1", port, max_connections=4)))
    second = worker.controller.reload_config()
    assert worker.controller.has_reload_waiting
    worker.plane.let_go()
    assert now(first)["started"]["transports"] == ["front1"]
    worker.plane.let_go()
    assert now(second)["started"]["transports"] == ["front1"]
    assert worker.controller.transports["front1"].model.max_connections == 4


def test_reloads_that_wait_are_bounded(worker: Worker) -> None:
    worker.boot(item(tcp("front1")))
    worker.plane.holds = True
    worker.save(item(tcp("front1", max_connections=3)))
    waiting = [worker.controller.reload_config() for _ in range(WAITING_MAX + 1)]
    with pytest.raises(AlreadyRunning, match=str(WAITING_MAX)):
        worker.controller.reload_config()
    worker.plane.let_go()
    assert [now(done)["started"]["transports"] for done in waiting] == [["front1"]] + [[]] * WAITING_MAX


def test_a_reload_waits_for_the_boot(worker: Worker) -> None:
    worker.controller.resolver = names = Names()  # type: ignore[assignment]
    worker.save(item(tcp("front1", interface="localhost")))
    booted = worker.controller.boot(load(worker.path).config)
    worker.save(item(tcp("front2")))
    done = worker.controller.reload_config()
    assert not worker.controller.transports
    names.asked[0].callback([Address("127.0.0.1")])
    now(booted)
    assert now(done)["stopped"]["transports"] == ["front1"]
    assert worker.controller.get_proxy_transports() == ["front2"]


# --- the end ---


def test_sessions_belong_to_the_transport_that_took_the_place_of_theirs(worker: Worker) -> None:
    """Another one that gets the old name later has nothing to do with them."""
    controller, port = worker.controller, free_port()
    worker.boot(item(tcp("front1", port)))
    (number,) = worker.plane.sockets
    old = worker.plane.owners[number]
    old.on_event(EV_OPEN, 77, SER_CBOR, INTRO)
    old.on_event(EV_MESSAGE, 77, 1, encode(SER_CBOR, HELLO))
    (dial,) = [call for call in worker.plane.take() if call[0] == "dial"]
    welcome = encode(SER_CBOR, [2, 4242, WELCOME_DETAILS])
    worker.plane.owners[dial[2]].on_event(EV_MESSAGE, 1077, 2, welcome)
    worker.reload(item(tcp("front9", port)))
    now(controller.start_proxy_transport("front1", tcp("front1")))
    assert controller.get_proxy_session(4242)["transport"] == "front9"
    assert controller.get_proxy_sessions(transport="front1")["total"] == 0
    assert controller.get_proxy_sessions(transport="front9")["total"] == 1
    now(controller.stop_proxy_transport("front1", sessions="close"))
    assert controller.get_proxy_sessions()["total"] == 1
    now(controller.stop_proxy_transport("front9", sessions="close"))
    assert controller.get_proxy_sessions()["total"] == 0


def test_the_end_of_the_worker_ends_a_reload(worker: Worker) -> None:
    port = free_port()
    worker.boot(item(tcp("front1", port)))
    worker.plane.holds = True
    worker.save(item(tcp("front1", port, max_connections=3), tcp("front2")))
    done = worker.controller.reload_config()
    ended = worker.controller.shut_down(5)
    while worker.plane.held:
        worker.plane.let_go()
    with pytest.raises(NotRunning, match="shutting down"):
        now(done)
    assert now(ended) is True
    assert worker.plane.sockets == {}


def test_who_came_while_a_transport_is_replaced_hears_of_the_end(worker: Worker) -> None:
    """The successor has clients already, and has not started yet when the shutdown begins."""
    worker.boot(item(tcp("front1")))
    (first,) = worker.plane.sockets
    worker.plane.holds = True
    worker.save(item(tcp("front1", max_connections=3)))
    reloaded = worker.controller.reload_config()
    (second,) = worker.plane.sockets.keys() - {first}
    successor = worker.plane.owners[second]
    successor.on_event(EV_OPEN, 77, SER_CBOR, INTRO)
    ended = worker.controller.shut_down(5)
    worker.plane.let_go()
    worker.plane.let_go()
    assert ("close", 77, 1001) in worker.plane.take()
    successor.on_event(EV_CLOSED, 77, 1, b"")
    assert now(ended) is True
    with pytest.raises(NotRunning):
        now(reloaded)


def test_the_end_of_the_worker_comes_before_a_reload_begins(worker: Worker) -> None:
    worker.boot(item())
    worker.controller.shut_down(5)
    with pytest.raises(NotRunning, match="shutting down"):
        worker.reload()


def test_a_worker_without_a_file(worker: Worker) -> None:
    worker.controller.source = None
    with pytest.raises(FeatureUnavailable, match="no configuration file"):
        now(worker.controller.reload_config())


def test_who_asked_is_told_and_gets_no_event_of_transports(worker: Worker) -> None:
    from proxy.management.procedures import Caller, call

    worker.boot(item())
    excluded = []
    publish = worker.publish_event
    worker.publish_event = lambda *a: (excluded.append((a[0], a[2])), publish(*a))  # type: ignore[method-assign]
    changed = item(tcp("front1", max_connections=3), tcp("front2"))
    change_connection(changed)
    worker.save(changed)
    now(call(worker.controller, "reload_config", [], {}, Caller(caller=4711)))
    assert worker.events[-1][1]["who"] == 4711
    assert all((exclude == 4711) == ("_transport_" in topic) for topic, exclude in excluded)


def test_supervisors_are_told(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("proxy.reloading.notify", told.append)
    worker.boot(item())
    worker.reload()
    worker.path.write_text("{")
    with pytest.raises(ConfigError):
        worker.reload()
    assert [text.partition("\n")[0] for text in told] == ["RELOADING=1", "READY=1"] * 2
    assert "MONOTONIC_USEC=" in told[0]


def test_a_name_in_front_is_looked_up_and_goes_on_with_its_socket(worker: Worker) -> None:
    port = free_port()
    worker.boot(item(tcp("front1", port)))
    before = worker.file_of("front1")
    worker.controller.resolver = names = Names()  # type: ignore[assignment]
    worker.save(item(tcp("front1", port, "localhost")))
    done = worker.controller.reload_config()
    names.asked[0].callback([Address("127.0.0.1")])
    assert now(done)["started"]["transports"] == ["front1"]
    assert worker.file_of("front1") == before


def test_a_transport_that_is_stopped_while_a_name_is_looked_up(worker: Worker) -> None:
    """The reload does not say that it kept what is not there any more; the next one brings it back."""
    worker.boot(item(tcp("front1")))
    worker.controller.resolver = names = Names()  # type: ignore[assignment]
    worker.save(item(tcp("front1"), tcp("front2", 0, "localhost")))
    done = worker.controller.reload_config()
    now(worker.controller.stop_proxy_transport("front1"))
    names.asked[0].callback([Address("127.0.0.1")])
    with pytest.raises(AlreadyRunning, match="front1"):
        now(done)
    assert not worker.controller.transports
    done = worker.controller.reload_config()
    names.asked[1].callback([Address("127.0.0.1")])
    assert now(done)["started"]["transports"] == ["front1", "front2"]


def test_a_transport_that_failed_listens_again(worker: Worker) -> None:
    worker.boot(item())
    front = worker.controller.transports["front1"]
    worker.plane.unlisten(front.number)  # its socket is lost
    assert front.state.name == "FAILED"
    assert worker.reload()["started"]["transports"] == ["front1"]
    assert worker.controller.transports["front1"].is_started


def test_the_file_wins_where_both_want_an_id(worker: Worker) -> None:
    worker.boot(item())
    now(worker.controller.start_proxy_transport("front3", tcp("front3")))
    now(worker.controller.start_proxy_connection("three", router("/run/theirs.sock")))
    changed = item(tcp("front1"), tcp("front2"), tcp("front3", max_connections=3))
    changed["connections"]["three"] = router()
    result = worker.reload(changed)
    assert result["started"] == {"connections": ["three"], "routes": {}, "transports": ["front3"]}
    assert worker.controller.transports["front3"].model.max_connections == 3


def test_transports_without_ids_may_change_places(worker: Worker) -> None:
    """They are named after their places; what is removed is the one whose address is gone."""
    ports = free_port(), free_port(), free_port()
    fronts = [{key: value for key, value in tcp("", port).items() if key != "id"} for port in ports]
    worker.boot(item(*fronts))
    worker.reload(item(*fronts[1:]))
    assert [answers(port) for port in ports] == [False, True, True]
    assert len(worker.plane.sockets) == 2


def test_objects_that_were_replaced_are_not_kept(worker: Worker) -> None:
    """However often it happens, and even while somebody holds the first one."""
    worker.boot(item(tcp("front1")))
    first = worker.controller.connections["two"], worker.controller.transports["front1"]
    for turn in range(1100):
        changed = item(tcp("front1", max_connections=turn + 2))
        changed["connections"]["two"]["timeouts"] = {"join": 1000 + turn}
        worker.plane.room = 100
        worker.reload(changed)
        assert all(thing.latest.is_started for thing in first) or turn % 100
    assert [thing.takes_logins for thing in first] == [True, True]
    assert [thing.successor for thing in first] == [
        worker.controller.connections["two"],
        worker.controller.transports["front1"],
    ]


# --- logins that wait for their turn at a router ---


def logins(worker: Worker, count: int) -> None:
    """Clients connect and log in at once, the first one's number is 1."""
    front = worker.plane.owners[worker.controller.transports["front1"].number]
    worker.plane.take()
    for conn in range(1, 1 + count):
        front.on_event(EV_OPEN, conn, SER_CBOR, INTRO)
        front.on_event(EV_MESSAGE, conn, 1, encode(SER_CBOR, HELLO))


def dials(worker: Worker) -> list[tuple[int, int, bytes]]:
    """Client, token and address of what was dialled since the last look."""
    return [(call[1], call[2], call[5]) for call in worker.plane.take() if call[0] == "dial"]


def one_at_a_time(path: str = "/run/router.sock", **keys: Any) -> Item:
    """As of item(), with one connection, which takes one login at a time."""
    connections = {"one": router(path, limits={"max_joins": 1}, **keys)}
    return item(tcp("front1"), connections=connections, routes={"realm1": {"anonymous": "one"}})


def test_logins_that_wait_for_a_connection_go_on_by_the_one_that_takes_its_place(worker: Worker) -> None:
    worker.boot(one_at_a_time())
    logins(worker, 3)
    ((_, token, address),) = dials(worker)
    worker.reload(one_at_a_time(path="/run/new.sock"))
    worker.plane.owners[token].on_event(EV_MESSAGE, 9, 2, encode(SER_CBOR, [2, 4242, dict(WELCOME_DETAILS)]))
    ((conn, token, new),) = dials(worker)
    assert (conn, new) == (2, pack_address(Address(path="/run/new.sock")))
    assert new != address
    connection = worker.controller.connections["one"]
    assert (connection.turns.taken, connection.turns.waiting) == (1, 1)
    worker.plane.owners[token].on_event(EV_MESSAGE, 9, 2, encode(SER_CBOR, [2, 4243, dict(WELCOME_DETAILS)]))
    assert connection.live == 1
    assert [conn for conn, _, _ in dials(worker)] == [3]


def test_what_a_connection_does_not_permit_any_more_is_not_asked_for_those_who_waited(worker: Worker) -> None:
    worker.boot(one_at_a_time())
    logins(worker, 2)
    ((_, token, _),) = dials(worker)
    changed = one_at_a_time(permit={"realms": ["realm2"]})
    worker.reload(changed | {"routes": {"realm2": {"anonymous": "one"}}})
    worker.plane.owners[token].on_event(EV_CLOSED, 9, CLOSED_REFUSED, b"")
    assert dials(worker) == []


def test_those_who_waited_to_have_their_login_relayed_do_not_come_by_the_proxys_word(worker: Worker) -> None:
    auth = {"passthrough": {"role": "anonymous"}}
    before = one_at_a_time(auth={"passthrough": {}})
    worker.boot({**before, "transports": [tcp("front1", auth=auth)]})
    logins(worker, 2)
    ((_, token, _),) = dials(worker)
    worker.reload({**one_at_a_time(), "transports": [tcp("front1", auth=auth)]})
    worker.plane.owners[token].on_event(EV_CLOSED, 9, CLOSED_REFUSED, b"")
    assert dials(worker) == []


def test_those_who_waited_for_a_connection_that_is_not_in_their_route_any_more_are_not_told_to_it(
    worker: Worker,
) -> None:
    """The route that took its place is found by those who come again, or by who had it among theirs before."""
    limits = {"limits": {"max_joins": 1}}
    connections = {"one": router(**limits), "two": router("/run/two.sock", **limits)}

    def routed(ids: Any) -> Item:
        return item(tcp("front1"), connections=connections, routes={"realm1": {"anonymous": ids, "other": "one"}})

    worker.boot(routed(["one", "two"]))
    logins(worker, 4)
    (_, one, _), (_, two, _) = dials(worker)
    worker.reload(routed("two"))
    worker.plane.owners[one].on_event(EV_CLOSED, 9, CLOSED_REFUSED, b"")
    assert dials(worker) == [], "the first and the third wait for the other one"
    for sid in range(3):
        worker.plane.owners[two].on_event(EV_MESSAGE, 9, 2, encode(SER_CBOR, [2, 1 + sid, dict(WELCOME_DETAILS)]))
        ((_, two, address),) = dials(worker)
        assert address == pack_address(Address(path="/run/two.sock"))

    worker.reload(routed("one"))
    front = worker.plane.owners[worker.controller.transports["front1"].number]
    front.on_event(EV_OPEN, 7, SER_CBOR, INTRO)
    front.on_event(EV_MESSAGE, 7, 1, encode(SER_CBOR, HELLO))
    assert len(dials(worker)) == 1
    front.on_event(EV_OPEN, 8, SER_CBOR, INTRO)
    front.on_event(EV_MESSAGE, 8, 1, encode(SER_CBOR, HELLO))
    worker.reload(routed("two"))
    assert worker.controller.connections["one"].turns.waiting == 1
    front.on_event(EV_CLOSED, 7, CLOSED_REFUSED, b"")
    (abort,) = [call for call in worker.plane.take() if call[:2] == ("send", 8)]
    code, details, reason = decode(SER_CBOR, abort[2])
    assert (code, reason) == (3, "wamp.error.network_failure")
    assert 'connection "one" is not in the route any more' in details["message"]


# --- endpoints that Twisted opens ---


class Other:
    """What lets clients in for Twisted (proxy.other_endpoints.OtherListener)."""

    address = "tcp4:127.0.0.1:8080"

    def __init__(self, gate: Any) -> None:
        self.gate = gate
        self.is_stopped = False

    def stop(self) -> "Deferred[None]":
        self.is_stopped = True
        return succeed(None)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[Other]:
    """All that were opened."""
    opened: list[Other] = []

    def open_endpoint(gate: Any, endpoint: Any) -> "Deferred[Any]":
        opened.append(Other(gate))
        return succeed(opened[-1])

    monkeypatch.setattr("proxy.other_endpoints.open_endpoint", open_endpoint)
    return opened


def twisted(name: str, server_string: str = "tcp:8080", **keys: Any) -> Item:
    return {
        "type": "rawsocket",
        "id": name,
        "endpoint": {"type": "twisted", "server_string": server_string},
        **keys,
    }


def test_what_twisted_listens_on_changes_hands(worker: Worker, others: list[Other]) -> None:
    worker.boot(item(twisted("front1"), tcp("front2")))
    before = worker.controller.transports["front1"]
    worker.reload(item(twisted("front1", max_connections=7), tcp("front2")))
    after = worker.controller.transports["front1"]
    assert after is not before
    (other,) = others
    assert not other.is_stopped
    assert other.gate.number == after.number != before.number
    assert other.gate.model.max_connections == 7
    worker.controller.stop_proxy_transport("front1")
    assert other.is_stopped


def test_what_twisted_listens_on_is_given_back_when_a_reload_fails(
    worker: Worker, others: list[Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.boot(item(twisted("front1"), tcp("front2")))
    before = worker.controller.transports["front1"]

    def fail(*_: Any, **__: Any) -> Any:
        raise CannotStart("it cannot")

    monkeypatch.setattr(ProxyController, "start_proxy_connection", fail)
    changed = {"one": router("/run/new.sock"), "two": router("/run/other.sock")}
    with pytest.raises(CannotStart):
        worker.reload(item(twisted("front1", max_connections=7), connections=changed))
    (other,) = others
    assert not other.is_stopped
    assert other.gate.number == before.number
    assert worker.controller.transports["front1"] is before
    assert before.is_listening


def test_what_twisted_listens_on_is_left_when_the_file_names_it_no_more(worker: Worker, others: list[Other]) -> None:
    worker.boot(item(twisted("front1"), tcp("front2")))
    worker.reload(item(twisted("front1", "tcp:8081"), tcp("front2")))
    assert [other.is_stopped for other in others] == [True, False]
