"""What is known to differ between Crossbar.io's own proxy worker and ours, and why.

By chapter and step of the script; of each path that differs what is there with the stock worker, and what with ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CRASH = "wamp.error.runtime_error"
UNKNOWN = "wamp.error.no_such_procedure"
BAD_ARGUMENT = "crossbar.error.invalid_argument"
BAD_CONFIGURATION = "crossbar.error.invalid_configuration"
NO_OBJECT = "crossbar.error.no_such_object"
IN_USE = "crossbar.error.object_in_use"

CREATED, STARTING, STARTED, STOPPING, STOPPED = (f"state {number}" for number in (1, 2, 3, 5, 6))
SOMETIME = "0000-00-00T00:00:00.000Z"

Paths = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Difference:
    """A known difference.

    :ivar why: what the stock worker does, and why ours does not.
    :ivar paths: path in the entry -> (stock, ours), as :func:`comparison.recording.differences` has them.
    """

    why: str
    paths: Paths = field(default_factory=dict)


# --- what recurs ---

MOMENT = "the events of a transport show it as it was before it was started; ours as it is at that moment"
MUTATED = "the stock worker writes a port into the configuration of Unix sockets"
CHECKED = "the stock worker checks no connection; ours says what is wrong when it is started"
PLAIN = "the stock worker takes what it is given, and shows where its code failed on it; ours checks every argument"
UNSTOPPABLE = "the stock worker cannot stop a transport: the procedure fails always, and tells nobody"
LINGERING = "the connections of a stopped route go on taking logins as long as another route is for the same role"
ORPHANED = "a connection that routes still name is stopped, and its routes go on using it; ours refuses that"
RACE = "the stock worker has what is not started yet, and fails on assertions when it is stopped then"
HIDDEN = "the stock worker shows the passwords in a configuration; ours never shows a secret"
PROFILERS = "the stock worker has no profiler without vmprof; ours always has Python's own"


def moment() -> Paths:
    """A transport is started."""
    return {
        "observer.0.args.0.state": (1, 2),
        "observer.1.args.0.listening_since": (None, SOMETIME),
        "observer.1.args.0.state": (1, 3),
    }


def unix(name: str, *paths: str) -> Paths:
    """The configuration of a transport on a Unix socket."""
    endpoint = {"type": "unix", "path": f"<folder>/{name}"}
    both = ({**endpoint, "port": "<port>"}, endpoint)
    return {f"{path}.config.endpoint": both for path in paths or ("outcomes.0.result", "observer.1.args.0")}


def both(observer: Paths) -> Paths:
    """An event that the caller gets, too."""
    return observer | {path.replace("observer", "caller", 1): values for path, values in observer.items()}


def error(stock: str, ours: str) -> Paths:
    """Another error."""
    return {"outcomes.0.error": (stock, ours)}


def outcome(stock: Any, ours: Any, number: int = 0) -> Paths:
    """An error on one side only."""
    return {f"outcomes.{number}": (stock, ours)}


def result(value: Any) -> dict[str, Any]:
    """A result where the other side has an error."""
    return {"result": value}


def steps(kind: str, *states: str) -> list[str]:
    """Events of an object, by its states."""
    names = {CREATED: "starting", STARTING: "starting", STARTED: "started", STOPPING: "stopping", STOPPED: "stopped"}
    return [f"on_proxy_{kind}_{names[state]} {state}" for state in states]


def events(kind: str, stock: tuple[str, ...], ours: tuple[str, ...]) -> Paths:
    """Other events of a connection or a route."""
    return both({"observer": (steps(kind, *stock), steps(kind, *ours))})


FAILED_START = (
    ["on_proxy_transport_starting state 1", "on_proxy_transport_stopped state 1"],
    steps("transport", STARTING, STOPPING, STOPPED),
)

NO_CONNECTION = Difference(
    CHECKED, outcome(result(STARTED), BAD_CONFIGURATION) | events("connection", (STARTING, STARTED), ())
)
BAD_CALL = Difference(PLAIN, error(CRASH, BAD_ARGUMENT))
USED_CONNECTION = Difference(ORPHANED, outcome(result(STOPPED), IN_USE) | events("connection", (STOPPING, STOPPED), ()))
ONCE = Difference(RACE, {"outcomes.1.error": (CRASH, NO_OBJECT), "outcomes.1.args": ([], ["str"])})
HIDDEN_PASSWORD = ("secret", "***")


def hidden(*paths: str) -> Paths:
    """The configuration of a manhole."""
    return {f"{path}.config.users.0.password": HIDDEN_PASSWORD for path in paths}


def beyond(ours: Any) -> Difference:
    """A procedure that Crossbar.io does not have."""
    why = "the stock worker lists no session, counts nothing, drains nothing and reads no certificate again"
    return Difference(why, error(UNKNOWN, ours) if isinstance(ours, str) else outcome(UNKNOWN, ours))


# --- by chapter ---

PROCESS = {
    "no such relative CPU": BAD_CALL,
    "affinity of another kind": BAD_CALL,
    "garbage collection": Difference(
        "the stock worker leaves out who asked for it",
        {f"observer.0.args.0.requester.auth_{name}": ("NoneType", "str") for name in ("id", "role")},
    ),
}

MANHOLE = {
    "start": Difference(
        HIDDEN,
        hidden("outcomes.0.result", "outcomes.0.progress.0", "observer.0.args.0", "observer.1.args.0"),
    ),
    "the manhole": Difference(HIDDEN, hidden("outcomes.0.result")),
    "somebody else is there": Difference(MOMENT, moment()),
    "an address in use": Difference(HIDDEN, hidden("outcomes.0.progress.0", "observer.0.args.0")),
}

_PROFILE = {"id": "profile001", "who": "<caller>", "profiler": "cprofile", "runtime": 10, "async": True}

PYTHON = {
    "folders of another kind": BAD_CALL,
    "profilers": Difference(PROFILERS, {"outcomes.0.result": ([], ["state stopped"])}),
    "the default profiler": Difference(
        PROFILERS, outcome(CRASH, result(_PROFILE)) | both({"observer": ([], [f"on_profile_started {_PROFILE}"])})
    ),
    "a profiler that does not exist": Difference(PROFILERS, error(CRASH, NO_OBJECT)),
}

CONNECTIONS = {
    "stop two at once": ONCE,
    "start, get and stop at once": Difference(
        RACE,
        {"outcomes.1.result.started": (None, "<ns>"), "outcomes.1.result.state": (2, 3)}
        | outcome(CRASH, result(STOPPED), 3)
        | events("connection", (STARTING, STARTED), (STARTING, STARTED, STOPPING, STOPPED)),
    ),
    "what is left of that": Difference(RACE, {"outcomes.0.result": (["cnc0", "cnc1", "cnc3"], ["cnc0", "cnc1"])}),
    "without a transport": NO_CONNECTION,
    "an unknown kind of transport": NO_CONNECTION,
    "not a mapping": NO_CONNECTION,
    "what is left of these": Difference(
        CHECKED, {"outcomes.0.result": (["cnc0", "cnc1", "cnc3", "cnc4", "cnc5", "cnc6"], ["cnc0", "cnc1"])}
    ),
}

UNCHECKED = "in the stock worker a route may have no role, and not several connections; its types are not checked"

ROUTES = {
    "get": Difference(
        "the stock worker gives an object that cannot be sent",
        outcome("wamp.error.invalid_payload", result(STARTED)),
    ),
    "start two at once": Difference(
        "the stock worker has two half-started routes for a while; ours starts one after the other",
        both(
            {
                "observer.1.event": ("on_proxy_route_starting", "on_proxy_route_started"),
                "observer.1.args.0.id": ("route004", "route003"),
                "observer.1.args.0.started": (None, "<ns>"),
                "observer.1.args.0.state": (2, 3),
                "observer.2.event": ("on_proxy_route_started", "on_proxy_route_starting"),
                "observer.2.args.0.id": ("route003", "route004"),
                "observer.2.args.0.started": ("<ns>", None),
                "observer.2.args.0.state": (3, 2),
            }
        ),
    ),
    "stop two at once": ONCE,
    "to a list of connections": Difference(
        UNCHECKED, outcome(CRASH, result(STARTED)) | events("route", (), (STARTING, STARTED))
    ),
    "without a role": Difference(
        UNCHECKED, outcome(result(STARTED), BAD_CONFIGURATION) | events("route", (STARTING, STARTED), ())
    ),
    "not a mapping": Difference(UNCHECKED, error(CRASH, BAD_CONFIGURATION)),
    "to something strange": Difference(UNCHECKED, error(NO_OBJECT, BAD_CONFIGURATION)),
    "realms at last": Difference(UNCHECKED, {"outcomes.0.result.1": ("empty", "listed")}),
    "a connection in use": USED_CONNECTION,
    "connections left": Difference(ORPHANED, {"outcomes.0.result": (["cnc2"], ["cnc1", "cnc2"])}),
}

TRANSPORTS = {
    "stop none": Difference(UNSTOPPABLE, error(CRASH, NO_OBJECT)),
    "start RawSocket": Difference(f"{MOMENT}; {MUTATED}", moment() | unix("tra1.sock")),
    "start WebSocket": Difference(MOMENT, moment()),
    "get": Difference(MUTATED, unix("tra1.sock", "outcomes.0.result")),
    "an address in use": Difference(MOMENT, {"observer": FAILED_START}),
    "without a type": Difference(PLAIN, error(CRASH, BAD_CONFIGURATION)),
    "not a mapping": Difference(PLAIN, error(CRASH, BAD_CONFIGURATION)),
    "no such folder": Difference(MOMENT, {"observer": FAILED_START}),
    "an unknown key": Difference(
        "ours warns in its log of keys that it does not know, as it does for the rest of the configuration",
        outcome(BAD_CONFIGURATION, result(STARTED)) | {"observer": ([], steps("transport", STARTING, STARTED))},
    ),
    "start two at once": Difference(f"{MOMENT}; {MUTATED}", moment() | unix("tra3.sock")),
    "stop": Difference(
        UNSTOPPABLE, outcome(CRASH, result(STOPPED)) | {"observer": ([], steps("transport", STOPPING, STOPPED))}
    ),
    "nobody listens": Difference(
        UNSTOPPABLE,
        {
            f"outcomes.0.{number}": ("refused: wamp.error.no_such_realm", "not connected: FileNotFoundError")
            for number in range(2)
        },
    ),
    "stop again": Difference(UNSTOPPABLE, error(CRASH, NO_OBJECT)),
    "the rest": Difference(UNSTOPPABLE, {"outcomes.0.result.1": ("tra1", "tra2")}),
}

_SERVICE = {"transport_id": "web1", "path": "extra"}

WEB = {
    "a transport that is not for the web": Difference(f"{MOMENT}; {MUTATED}", moment() | unix("tra1.sock")),
    "a web transport": Difference(MOMENT, moment()),
    "start something unknown": Difference(
        "the stock worker looks at the type after it has said that it starts the service",
        error(CRASH, BAD_CONFIGURATION) | {"observer": (["on_web_transport_service_starting web1"], [])},
    ),
    "get": Difference(
        "the stock worker shows the transport instead of the service",
        {"outcomes.0.result": (STARTED, {**_SERVICE, "type": "json", "config": {"type": "json", "value": [1, 2]}})},
    ),
    "all": Difference(
        "the stock worker shows the paths that were configured at the start of the transport",
        {"outcomes.0.result": (["/", "info"], ["/", "extra", "info"])},
    ),
}

_JOINED, _FAILED = "joined", "refused: wamp.error.authentication_failed"
_UNREACHABLE = "refused: wamp.error.network_failure"

EFFECTS = {
    "a transport": Difference(f"{MOMENT}; {MUTATED}", moment() | unix("front.sock")),
    "only the bad route is there": Difference(
        f"{LINGERING}; nor does a client learn what was the matter",
        {"outcomes.0.0": (_JOINED, _UNREACHABLE), "outcomes.0.1": (_FAILED, _UNREACHABLE)},
    ),
    "only the good route is there": Difference(LINGERING, {"outcomes.0.1": (_FAILED, _JOINED)}),
    "the connection goes": USED_CONNECTION,
    "its connection is gone": Difference(ORPHANED, {"outcomes.0.1": (_FAILED, _JOINED)}),
}

MISUSE = {
    "too few": BAD_CALL,
    "too many": BAD_CALL,
    "an unknown name": BAD_CALL,
    "a number for a name": Difference(PLAIN, error(NO_OBJECT, BAD_ARGUMENT)),
    "a list for a name": BAD_CALL,
    "a mapping for a name": BAD_CALL,
    "text for a flag": Difference(PLAIN, outcome(result(2), BAD_ARGUMENT)),
    "text for a number": BAD_CALL,
}

_STATS = ["connections", "retired", "routes", "sessions", "threads", "transports", "uptime", "worker"]

BEYOND = {
    "sessions": beyond(result({"sessions": [], "total": 0, "next": None})),
    "a session": beyond(NO_OBJECT),
    "end a session": beyond(NO_OBJECT),
    "drain a transport": beyond(NO_OBJECT),
    "drain a connection": beyond(NO_OBJECT),
    "stats": beyond(result(_STATS)),
    "reload": beyond("crossbar.error.feature_unavailable"),
    "reload certificates": beyond(result({"replaced": [], "kept": [], "failed": {}})),
}

DIFFERENCES: dict[str, dict[str, Difference]] = {
    "process": PROCESS,
    "manhole": MANHOLE,
    "python": PYTHON,
    "connections": CONNECTIONS,
    "routes": ROUTES,
    "transports": TRANSPORTS,
    "web": WEB,
    "effects": EFFECTS,
    "misuse": MISUSE,
    "beyond": BEYOND,
}
"""Of chapters that are not here nothing differs."""
