"""The script that is run against Crossbar.io's own proxy worker and ours: every procedure, in chapters.

A chapter is run by a worker of its own, so that what one leaves behind is not what the next one finds.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import raw
from support.endpoints import Endpoint, free_port
from support.raw import HandshakeRefused, PeerClosed
from support.routers import REALM

WELCOME = 2


@dataclass
class Subject:
    """A worker that the script is run against.

    :ivar worker_id: its ID in the node.
    :ivar directory: for the sockets of this chapter.
    :ivar router: where its connections lead to.
    :ivar options: what the node starts it with.
    """

    worker_id: str
    directory: Path
    router: Endpoint
    options: dict[str, Any]
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Of its procedures and topics."""
        return f"crossbar.worker.{self.worker_id}"

    def path(self, name: str) -> str:
        """Path of something in its folder."""
        return str(self.directory / name)

    def port(self, name: str) -> int:
        """A TCP port, the same one for the same name."""
        return self.ports.setdefault(name, free_port())

    def connection(self, **keys: Any) -> dict[str, Any]:
        """An item of ``connections`` that leads to the router."""
        transport = {
            "type": "rawsocket",
            "endpoint": {"type": "unix", "path": self.router.path},
            "url": "ws://localhost",
            "serializer": "cbor",
        }
        return {"transport": transport, "auth": {"anonymous-proxy": {"type": "static"}}, **keys}

    def dead(self) -> dict[str, Any]:
        """An item of ``connections`` that leads to where nobody listens."""
        item = self.connection()
        item["transport"]["endpoint"]["path"] = self.path("nobody.sock")
        return item

    def rawsocket(self, name: str, role: str = "anonymous", **keys: Any) -> dict[str, Any]:
        """A listening RawSocket transport on a Unix socket."""
        return {
            "type": "rawsocket",
            "endpoint": {"type": "unix", "path": self.path(name)},
            "auth": {"anonymous": {"type": "static", "role": role}},
            **keys,
        }

    def websocket(self, name: str, **keys: Any) -> dict[str, Any]:
        """A listening WebSocket transport on a TCP port."""
        endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": self.port(name)}
        return {"type": "websocket", "endpoint": endpoint, **keys}

    def web(self, name: str) -> dict[str, Any]:
        """A listening web transport on a TCP port."""
        endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": self.port(name)}
        paths = {"/": {"type": "json", "value": 1}, "info": {"type": "json", "value": 2}}
        return {"type": "web", "endpoint": endpoint, "paths": paths}

    def front(self, name: str) -> Endpoint:
        """Where a transport made by :meth:`rawsocket` listens."""
        return Endpoint("rawsocket", path=self.path(name))


@dataclass(frozen=True)
class Call:
    """A call of a procedure of the worker that takes progressive results; a name with a dot is one of the node."""

    procedure: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One step.

    :ivar name: unique in its chapter.
    :ivar calls: made at once, before the first one has ended.
    :ivar wait: last part of a topic that an event is waited for with.
    :ivar is_shape: of results and events only the types are compared.
    :ivar is_outline: of the result only the names of its keys are compared.
    :ivar act: done instead of a call; what it returns is compared.
    :ivar signal: sent to the worker's process instead of a call.
    :ivar is_end: the worker ends with it.
    """

    name: str
    calls: tuple[Call, ...] = ()
    wait: str | None = None
    is_shape: bool = False
    is_outline: bool = False
    act: Callable[[], Any] | None = None
    signal: int | None = None
    is_end: bool = False


def call(name: str, procedure: str, *args: Any, wait: str | None = None, shape: bool = False, **kwargs: Any) -> Step:
    """A step of one call."""
    return Step(name, (Call(procedure, args, kwargs),), wait, shape)


def login(name: str, endpoint: Endpoint) -> Step:
    """A step in which two clients log in, one after the other: what became of them, sorted.

    They are two because connections take turns, sorted because stock Crossbar.io keeps them in no order.
    """
    return Step(name, act=lambda: sorted(attempt(endpoint) for _ in range(2)))


def attempt(endpoint: Endpoint) -> str:
    """What becomes of a client that logs in."""
    try:
        peer = raw.dial(endpoint)
    except (OSError, HandshakeRefused, PeerClosed) as error:
        return f"not connected: {type(error).__name__}"
    try:
        peer.send(raw.hello(REALM))
        message = peer.recv()
        return "joined" if message[0] == WELCOME else f"refused: {message[2]}"
    except PeerClosed as closed:
        return f"closed: {closed.how}"
    finally:
        peer.close()


def process(at: Subject) -> list[Step]:
    """What every process of a node offers."""
    return [
        call("node id", "get_node_id"),
        call("another node id", "set_node_id", "node2"),
        call("node id now", "get_node_id"),
        call("count of CPUs", "get_cpu_count"),
        call("count of cores", "get_cpu_count", logical=False),
        call("count of cores by position", "get_cpu_count", False),
        call("CPUs", "get_cpus"),
        call("affinity", "get_cpu_affinity"),
        call("relative affinity", "set_cpu_affinity", [0]),
        call("CPUs as they were at first", "get_cpus"),
        call("affinity now", "get_cpu_affinity"),
        call("absolute affinity", "set_cpu_affinity", [0, 1], relative=False),
        call("no such relative CPU", "set_cpu_affinity", [4096]),
        call("no such absolute CPU", "set_cpu_affinity", [4096], relative=False),
        call("affinity of another kind", "set_cpu_affinity", "all"),
        call("process info", "get_process_info", shape=True),
        call("process stats", "get_process_stats", shape=True),
        call("process monitor", "get_process_monitor", shape=True),
        call("monitoring off before it is on", "set_process_stats_monitoring", 0),
        call("monitoring on", "set_process_stats_monitoring", 3600.0, wait="on_process_stats", shape=True),
        call("monitoring off", "set_process_stats_monitoring", 0, shape=True),
        call("garbage collection", "trigger_gc", shape=True),
        call("now", "utcnow"),
        call("started", "started"),
        call("uptime", "uptime", shape=True),
    ]


def manhole(at: Subject) -> list[Step]:
    """The manhole."""
    endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": at.port("manhole")}
    config = {"endpoint": endpoint, "users": [{"user": "somebody", "password": "secret"}]}
    busy = {"type": "tcp", "interface": "127.0.0.1", "port": at.port("busy")}
    return [
        call("no manhole", "get_manhole"),
        call("nothing to stop", "stop_manhole"),
        call("configuration of another kind", "start_manhole", {"endpoint": endpoint, "user": []}),
        call("start", "start_manhole", config),
        call("start again", "start_manhole", config),
        call("the manhole", "get_manhole"),
        call("stop", "stop_manhole"),
        call("no manhole any more", "get_manhole"),
        call("somebody else is there", "start_proxy_transport", "tra1", at.websocket("busy")),
        call("an address in use", "start_manhole", {**config, "endpoint": busy}),
        call("no manhole after that", "get_manhole"),
    ]


def python(at: Subject) -> list[Step]:
    """Module search paths and profilers."""
    folder = at.path("modules")
    Path(folder).mkdir(exist_ok=True)
    return [
        call("search path", "get_pythonpath", shape=True),
        call("a folder more", "add_pythonpath", [folder], shape=True),
        call("a folder more at the end", "add_pythonpath", [folder], prepend=False, shape=True),
        call("a file for a folder", "add_pythonpath", [folder, at.path("nothing")]),
        call("folders of another kind", "add_pythonpath", 5),
        call("profilers", "get_profilers"),
        call("a profiler that does not exist", "start_profiler", "nonesuch"),
        call("a profile that does not exist", "get_profile", "nonesuch"),
        call("the default profiler", "start_profiler"),
    ]


def connections(at: Subject) -> list[Step]:
    """Connections."""
    item = at.connection()
    extra = at.connection(realm=REALM, url="ws://localhost", debug=True)
    return [
        call("none", "get_proxy_connections"),
        call("get none", "get_proxy_connection", "cnc1"),
        call("stop none", "stop_proxy_connection", "cnc1"),
        call("start", "start_proxy_connection", "cnc1", item),
        call("start by name", "start_proxy_connection", connection_id="cnc0", config=extra),
        call("start again", "start_proxy_connection", "cnc1", item),
        call("all", "get_proxy_connections"),
        call("get", "get_proxy_connection", "cnc1"),
        call("get the other", "get_proxy_connection", "cnc0"),
        call("stop", "stop_proxy_connection", "cnc1"),
        call("stop again", "stop_proxy_connection", "cnc1"),
        call("the rest", "get_proxy_connections"),
        call("start anew", "start_proxy_connection", "cnc1", item),
        Step("start two at once", (Call("start_proxy_connection", ("cnc2", item)),) * 2),
        Step("stop two at once", (Call("stop_proxy_connection", ("cnc2",)),) * 2),
        Step(
            "start, get and stop at once",
            (
                Call("start_proxy_connection", ("cnc3", item)),
                Call("get_proxy_connection", ("cnc3",)),
                Call("get_proxy_connections"),
                Call("stop_proxy_connection", ("cnc3",)),
            ),
        ),
        call("what is left of that", "get_proxy_connections"),
        call("without a transport", "start_proxy_connection", "cnc4", {"auth": {}}),
        call("an unknown kind of transport", "start_proxy_connection", "cnc5", {"transport": {"type": "pigeon"}}),
        call("not a mapping", "start_proxy_connection", "cnc6", 17),
        call("what is left of these", "get_proxy_connections"),
    ]


def routes(at: Subject) -> list[Step]:
    """Routes."""
    return [
        call("none", "get_proxy_routes"),
        call("list none", "list_proxy_realm_routes", REALM),
        call("get none", "get_proxy_realm_route", REALM, "route000"),
        call("stop none", "stop_proxy_realm_route", REALM, "route000"),
        call("start to nowhere", "start_proxy_realm_route", REALM, {"anonymous": "cnc1"}),
        call("still none", "get_proxy_routes"),
        call("a connection", "start_proxy_connection", "cnc1", at.connection()),
        call("another connection", "start_proxy_connection", "cnc2", at.connection()),
        call("start", "start_proxy_realm_route", REALM, {"anonymous": "cnc1", "user": "cnc2"}),
        call("start by name", "start_proxy_realm_route", realm_name="another", config={"user": "cnc1"}),
        call("partly to nowhere", "start_proxy_realm_route", REALM, {"anonymous": "cnc1", "user": "cnc3"}),
        call("realms", "get_proxy_routes"),
        call("list", "list_proxy_realm_routes", REALM),
        call("get", "get_proxy_realm_route", REALM, "route000"),
        call("get another", "get_proxy_realm_route", REALM, "route001"),
        call("the same role again", "start_proxy_realm_route", REALM, {"user": "cnc1"}),
        call("list both", "list_proxy_realm_routes", REALM),
        call("stop", "stop_proxy_realm_route", REALM, "route000"),
        call("stop again", "stop_proxy_realm_route", REALM, "route000"),
        call("list the rest", "list_proxy_realm_routes", REALM),
        call("stop the last one", "stop_proxy_realm_route", REALM, "route002"),
        call("realms now", "get_proxy_routes"),
        call("list of a realm that was", "list_proxy_realm_routes", REALM),
        Step("start two at once", (Call("start_proxy_realm_route", (REALM, {"user": "cnc1"})),) * 2),
        Step("stop two at once", (Call("stop_proxy_realm_route", (REALM, "route003")),) * 2),
        call("to a list of connections", "start_proxy_realm_route", "listed", {"user": ["cnc1", "cnc2"]}),
        call("without a role", "start_proxy_realm_route", "empty", {}),
        call("not a mapping", "start_proxy_realm_route", "strange", "cnc1"),
        call("to something strange", "start_proxy_realm_route", "strange", {"user": 17}),
        call("realms at last", "get_proxy_routes"),
        call("a connection in use", "stop_proxy_connection", "cnc1"),
        call("connections left", "get_proxy_connections"),
    ]


def transports(at: Subject) -> list[Step]:
    """Listening transports."""
    busy = at.websocket("busy")
    strange = at.rawsocket("strange.sock", pigeons=2)
    return [
        call("none", "get_proxy_transports"),
        call("get none", "get_proxy_transport", "tra1"),
        call("stop none", "stop_proxy_transport", "tra1"),
        call("start RawSocket", "start_proxy_transport", "tra1", at.rawsocket("tra1.sock")),
        call("start WebSocket", "start_proxy_transport", transport_id="tra0", config=busy),
        call("start again", "start_proxy_transport", "tra1", at.rawsocket("tra1.sock")),
        call("all", "get_proxy_transports"),
        call("get", "get_proxy_transport", "tra1"),
        call("get the other", "get_proxy_transport", "tra0"),
        call("an address in use", "start_proxy_transport", "tra2", busy),
        call("without an endpoint", "start_proxy_transport", "tra2", {"type": "rawsocket"}),
        call("an unknown type", "start_proxy_transport", "tra2", {"type": "pigeon"}),
        call("without a type", "start_proxy_transport", "tra2", {}),
        call("not a mapping", "start_proxy_transport", "tra2", 17),
        call("no such folder", "start_proxy_transport", "tra2", at.rawsocket("nowhere/tra2.sock")),
        call("nothing more", "get_proxy_transports"),
        call("an unknown key", "start_proxy_transport", "tra2", strange),
        Step("start two at once", (Call("start_proxy_transport", ("tra3", at.rawsocket("tra3.sock"))),) * 2),
        call("stop", "stop_proxy_transport", "tra1"),
        login("nobody listens", at.front("tra1.sock")),
        call("stop again", "stop_proxy_transport", "tra1"),
        call("the rest", "get_proxy_transports"),
    ]


def web(at: Subject) -> list[Step]:
    """Services of web transports."""
    service = {"type": "json", "value": [1, 2]}
    return [
        call("start nowhere", "start_web_transport_service", "web1", "extra", service),
        call("stop nowhere", "stop_web_transport_service", "web1", "extra"),
        call("get nowhere", "get_web_transport_service", "web1", "extra"),
        call("all nowhere", "get_web_transport_services", "web1"),
        call("start without a type", "start_web_transport_service", "web1", "extra", {}),
        call("start not a mapping", "start_web_transport_service", "web1", "extra", 17),
        call("a transport that is not for the web", "start_proxy_transport", "tra1", at.rawsocket("tra1.sock")),
        call("start there", "start_web_transport_service", "tra1", "extra", service),
        call("stop there", "stop_web_transport_service", "tra1", "extra"),
        call("get there", "get_web_transport_service", "tra1", "extra"),
        call("all there", "get_web_transport_services", "tra1"),
        call("a web transport", "start_proxy_transport", "web1", at.web("web1")),
        call("start", "start_web_transport_service", "web1", "extra", service),
        call("start again", "start_web_transport_service", "web1", "extra", service),
        call("start something unknown", "start_web_transport_service", "web1", "strange", {"type": "pigeon"}),
        call("get", "get_web_transport_service", "web1", "extra"),
        call("all", "get_web_transport_services", "web1"),
        call("stop", "stop_web_transport_service", "web1", "extra"),
        call("stop again", "stop_web_transport_service", "web1", "extra"),
    ]


def effects(at: Subject) -> list[Step]:
    """What starts and stops mean to clients."""
    front = at.front("front.sock")
    return [
        call("a connection", "start_proxy_connection", "good", at.connection()),
        call("a connection to nowhere", "start_proxy_connection", "dead", at.dead()),
        call("a transport", "start_proxy_transport", "tra1", at.rawsocket("front.sock")),
        login("no route", front),
        call("a route", "start_proxy_realm_route", REALM, {"anonymous": "good"}),
        login("a route is there", front),
        call("a route to nowhere", "start_proxy_realm_route", REALM, {"anonymous": "dead"}),
        call("the good route goes", "stop_proxy_realm_route", REALM, "route000"),
        login("only the bad route is there", front),
        call("a good route again", "start_proxy_realm_route", REALM, {"anonymous": "good"}),
        call("the bad route goes", "stop_proxy_realm_route", REALM, "route001"),
        login("only the good route is there", front),
        call("the connection goes", "stop_proxy_connection", "good"),
        login("its connection is gone", front),
    ]


def misuse(at: Subject) -> list[Step]:
    """Calls with arguments that the procedure does not have."""
    return [
        call("too few", "get_proxy_connection"),
        call("too many", "get_proxy_connections", 1),
        call("an unknown name", "get_proxy_transport", transport="tra1"),
        call("a number for a name", "get_proxy_transport", 5),
        call("a list for a name", "get_proxy_connection", ["cnc1"]),
        call("a mapping for a name", "start_proxy_connection", {"a": 1}, {}),
        call("text for a flag", "get_cpu_count", "yes"),
        call("text for a number", "set_process_stats_monitoring", "often"),
        call("no such procedure", "get_proxy_nonesuch"),
    ]


def beyond(at: Subject) -> list[Step]:
    """What Crossbar.io does not have."""
    return [
        call("sessions", "get_proxy_sessions"),
        call("a session", "get_proxy_session", 1),
        call("end a session", "kill_proxy_session", 1),
        call("drain a transport", "drain_proxy_transport", "tra1"),
        call("drain a connection", "drain_proxy_connection", "cnc1"),
        Step("stats", (Call("get_proxy_stats"),), is_outline=True),
        call("reload", "reload_config"),
        call("reload certificates", "reload_tls"),
    ]


def end(at: Subject) -> list[Step]:
    """The node starts and ends the worker."""
    again = Call("crossbar.start_worker", (at.worker_id, "proxy", at.options))
    return [
        call("known to the node", "crossbar.get_worker", at.worker_id),
        Step("start a second time", (again,)),
        Step("shutdown", (Call("shutdown"),), "on_shutdown_requested", is_end=True),
        Step("start after that", (again,), "on_worker_ready"),
        call("nothing is left of what was", "get_proxy_transports"),
        Step("stop by the node", (Call("crossbar.stop_worker", (at.worker_id,)),), is_end=True),
        Step("start once more", (again,), "on_worker_ready"),
        Step("stop by somebody", signal=signal.SIGTERM, is_end=True),
        Step("start a last time", (again,), "on_worker_ready"),
        Step("kill by the node", (Call("crossbar.stop_worker", (at.worker_id,), {"kill": True}),), is_end=True),
    ]


CHAPTERS: dict[str, Callable[[Subject], list[Step]]] = {
    "process": process,
    "manhole": manhole,
    "python": python,
    "connections": connections,
    "routes": routes,
    "transports": transports,
    "web": web,
    "effects": effects,
    "misuse": misuse,
    "beyond": beyond,
    "end": end,
}
