"""Commands that look: transports, connections, routes, sessions, stats."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, FirstError, gatherResults

from proxy.ctl.errors import Refused
from proxy.ctl.output import Output
from proxy.ctl.wording import address, age, auth_methods, duration, humane, serializers, state

if TYPE_CHECKING:
    from proxy.ctl.client import Client

__all__ = ["connections", "routes", "session", "sessions", "stats", "transports"]

# Sessions that are asked for at a time.
PAGE: Final = 500
# Types of transports that log clients in.
_WAMP: Final = ("websocket", "rawsocket")
# Objects that are asked for at a time.
BATCH: Final = 100
_NO_SUCH_PROCEDURE: Final = "wamp.error.no_such_procedure"
_NO_SUCH_OBJECT: Final = "crossbar.error.no_such_object"


async def transports(client: "Client", output: Output, transport_id: str | None) -> None:
    """All transports, or one of them."""
    if transport_id is not None:
        _one(output, await client.call("get_proxy_transport", transport_id))
        return
    found = await _all(await client.call("get_proxy_transports"), lambda item: client.call("get_proxy_transport", item))
    if output.as_json:
        output.json(found)
        return
    counters = await _counters(client, "transports")
    output.table("ID", "TYPE?", "ADDRESS", "AUTH?", "STATE", "SESSIONS>", "SINCE>").print(
        [
            (
                item["id"],
                item["type"],
                counters.get(item["id"], {}).get("address") or address(item["config"]),
                auth_methods(item["config"], "anonymous" if item["type"] in _WAMP else ""),
                _state(item, counters),
                counters.get(item["id"], {}).get("sessions"),
                age(item["listening_since"]),
            )
            for item in found
        ]
    )


async def connections(client: "Client", output: Output, connection_id: str | None) -> None:
    """All connections, or one of them."""
    if connection_id is not None:
        _one(output, await client.call("get_proxy_connection", connection_id))
        return
    ids = await client.call("get_proxy_connections")
    found = await _all(ids, lambda item: client.call("get_proxy_connection", item))
    if output.as_json:
        output.json(found)
        return
    counters = await _counters(client, "connections")
    output.table("ID", "ADDRESS", "AUTH?", "STATE", "SESSIONS>", "JOINED?>", "FAILED>", "SINCE>").print(
        [
            (
                item["id"],
                address(item["config"].get("transport", {}), is_client=True),
                auth_methods(item["config"], "anonymous-proxy"),
                _state(item, counters),
                *(counters.get(item["id"], {}).get(name) for name in ("sessions", "joined", "failures")),
                age(item["started"]),
            )
            for item in found
        ]
    )


async def routes(client: "Client", output: Output, realm: str | None) -> None:
    """The routes of all realms, or of one."""
    realms = await client.call("get_proxy_routes") if realm is None else [realm]
    by_realm = await _all(
        realms, lambda item: client.call("list_proxy_realm_routes", item), must_exist=realm is not None
    )
    found = [route for group in by_realm for route in group]
    if output.as_json:
        output.json(found)
        return
    output.table("REALM", "ROUTE", "ROLE", "CONNECTIONS", "STATE", "SINCE>").print(
        [
            (route["realm"], route["id"], role, _names(ids), state(route["state"]), age(route["started"]))
            for route in found
            for role, ids in route["config"].items()
        ]
    )


async def session(client: "Client", output: Output, session_id: int) -> None:
    """One session."""
    _one(output, await client.call("get_proxy_session", session_id))


async def sessions(client: "Client", output: Output, filters: Mapping[str, str], limit: int | None) -> None:
    """The sessions that match, page by page.

    :param limit: print so many at most; None: all.
    """
    table = output.table(
        "SESSION>", "REALM", "AUTHID", "ROLE", "TRANSPORT?", "CONNECTION?", "PEER?", "SERIALIZER?", "JOINED>"
    )  # fmt: skip
    left = limit
    after = None
    shown = total = 0
    while True:
        size = PAGE if left is None else min(PAGE, left)
        page = await client.call("get_proxy_sessions", **filters, limit=size, after=after)
        found = page["sessions"]
        total = page["total"] if after is None else total
        if output.as_json:
            output.pieces(found)
        else:
            table.print([_session_row(item) for item in found])
        shown += len(found)
        left = None if left is None else left - len(found)
        after = page["next"]
        if after is None or left == 0:
            break
    if output.as_json:
        output.end_of_pieces()
    elif shown < total and left == 0:
        output.line(f"{shown} of {total} sessions", "dim")


def _session_row(item: Mapping[str, Any]) -> Sequence[object]:
    names = ("session", "realm", "authid", "authrole", "transport", "connection", "peer")
    return (*(item.get(name) for name in names), serializers(item), age(item.get("joined")))


async def stats(client: "Client", output: Output) -> None:
    """All counters."""
    found = await client.call("get_proxy_stats")
    if output.as_json:
        output.json(found)
        return
    output.line(f"worker {found['worker']}: up {duration(found['uptime'])}, {_count(found['sessions'], 'session')}")
    for kind in ("transports", "connections"):
        _counter_table(output, kind, [((name,), item) for name, item in found[kind].items()], ("ID",))
    by_realm = found["routes"].items()
    rows = [((realm, route), item) for realm, group in by_realm for route, item in group.items()]
    _counter_table(output, "routes", rows, ("REALM", "ROUTE"))
    retired = [((item["id"],), {key: item[key] for key in item if key != "id"}) for item in found.get("retired", ())]
    if retired:
        _counter_table(output, "stopped transports whose sessions stay", retired, ("ID",))
    _thread_table(output, found["threads"])


def _counter_table(
    output: Output, title: str, rows: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]], heads: tuple[str, ...]
) -> None:
    """A row per object, a column per counter."""
    output.line("")
    output.heading(f"{title}" if rows else f"{title}: none")
    if rows:
        flat = [(names, dict(_flat(item))) for names, item in rows]
        columns = list(dict.fromkeys(name for _, item in flat for name in item))
        values = [(*names, *(_cell(item.get(name)) for name in columns)) for names, item in flat]
        output.table(*heads, *(_column(name, [item.get(name) for _, item in flat]) for name in columns)).print(values)


def _thread_table(output: Output, threads: Sequence[Mapping[str, Any]]) -> None:
    """A row per counter, a column per thread, for there are many counters and few threads."""
    output.line("")
    output.heading("data threads")
    flat = [dict(_flat(item)) for item in threads]
    names = [name for name in dict.fromkeys(name for item in flat for name in item) if name != "thread"]
    columns = (f"{item.get('thread', index)}>" for index, item in enumerate(flat))
    output.table("COUNTER", *columns).print([(name, *(_cell(item.get(name)) for item in flat)) for name in names])


def _flat(item: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    """The counters of an object; those of one within it have its name before theirs."""
    for name, value in item.items():
        if name == "state":
            yield name, state(value)
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return _names(value) if isinstance(value, (list, tuple)) else value


def _column(name: str, values: Sequence[object]) -> str:
    """The heading of a counter; texts are aligned to the left, and an address is the first thing to be left out."""
    head = name.upper().replace("_", " ") + ("?" if name == "address" else "")
    return head if any(isinstance(value, str) for value in values) else f"{head}>"


def _one(output: Output, item: Mapping[str, Any]) -> None:
    if output.as_json:
        output.json(item)
    else:
        output.details(humane(item))


async def _all(ids: Sequence[str], fetch: Callable[[str], Awaitable[Any]], *, must_exist: bool = False) -> list[Any]:
    """What goes by these ids. One that was stopped meanwhile is left out, unless it must exist."""

    async def one(item: str) -> Any:
        try:
            return await fetch(item)
        except Refused as error:
            if error.uri == _NO_SUCH_OBJECT and not must_exist:
                return None
            raise

    found: list[Any] = []
    for start in range(0, len(ids), BATCH):
        waiting = [Deferred.fromCoroutine(one(item)) for item in ids[start : start + BATCH]]
        try:
            found += await gatherResults(waiting, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
    return [item for item in found if item is not None]


async def _counters(client: "Client", kind: str) -> Mapping[str, Mapping[str, Any]]:
    """Counters of the objects of a kind, by id; none from a worker that counts nothing, as Crossbar.io's own."""
    try:
        found = await client.call("get_proxy_stats")
    except Refused as error:
        if error.uri != _NO_SUCH_PROCEDURE:
            raise
        return {}
    counters: Mapping[str, Mapping[str, Any]] = found[kind]
    return counters


def _state(item: Mapping[str, Any], counters: Mapping[str, Mapping[str, Any]]) -> str:
    """The state of an object, or why a started one is of no use at present."""
    counted = counters.get(item["id"], {})
    if counted.get("is_draining"):
        return "draining"
    return "down" if counted.get("is_down") else state(item["state"])


def _names(ids: object) -> str:
    return ", ".join(str(item) for item in ids) if isinstance(ids, (list, tuple)) else str(ids)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
