"""Commands that change: start, stop, drain, kill, reload, shutdown, call."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from twisted.internet.defer import Deferred

from proxy.config.findings import ConfigError
from proxy.config.loading import read_item as read_file
from proxy.ctl.errors import Ended
from proxy.ctl.output import Output, cleaned
from proxy.ctl.wording import address, duration

if TYPE_CHECKING:
    from proxy.ctl.client import Client

__all__ = [
    "call",
    "cancel_drain",
    "drain",
    "kill",
    "read_item",
    "reload",
    "reload_tls",
    "shutdown",
    "start",
    "stop",
]

_PROCEDURES: Final = {"transport": "transport", "connection": "connection", "route": "realm_route"}
_SESSIONS: Final = {
    "keep": "its sessions stay",
    "drain": "its sessions are sent away bit by bit",
    "close": "its sessions are told goodbye",
}


def read_item(file: str) -> Any:
    """An item of a configuration, from a JSON or YAML file; ``-`` is stdin.

    :raises click.BadParameter: it cannot be read.
    """
    try:
        return read_file("/dev/stdin" if file == "-" else file)
    except ConfigError as error:
        text = "; ".join(str(item).removeprefix("error: ") for item in error.findings)
        raise click.BadParameter(cleaned(text), param_hint="FILE") from None


async def start(client: "Client", output: Output, kind: str, name: str, config: Any) -> None:
    """Start an object.

    :param kind: ``transport``, ``connection`` or ``route``.
    :param name: its id; of a route, the realm.
    """
    thing = await client.call(f"start_proxy_{_PROCEDURES[kind]}", name, config)
    if output.as_json:
        output.json(thing)
    else:
        output.line(f"{_label(kind, thing)} is started{_where(kind, thing)}")


async def stop(client: "Client", output: Output, kind: str, names: Sequence[str], **options: Any) -> None:
    """Stop an object.

    :param names: its id; of a route, realm and id.
    :param options: of the procedure. What is its default is not sent.
    """
    given = {name: value for name, value in options.items() if value not in (False, "keep")}
    thing = await client.call(f"stop_proxy_{_PROCEDURES[kind]}", *names, **given)
    if output.as_json:
        output.json(thing)
    else:
        output.line(f"{_label(kind, thing)} is stopped; {_SESSIONS[options['sessions']]}")


def _label(kind: str, thing: Mapping[str, Any]) -> str:
    of_realm = f' of realm "{thing["realm"]}"' if kind == "route" else ""
    return f'{kind} "{thing["id"]}"{of_realm}'


def _where(kind: str, thing: Mapping[str, Any]) -> str:
    config = thing["config"]
    if kind == "transport":
        return f": {address(config)}"
    if kind == "connection":
        return f": {address(config.get('transport', {}), is_client=True)}"
    return ": " + ", ".join(config)


# --- drain ---


async def drain(client: "Client", output: Output, kind: str, name: str, options: Mapping[str, Any], wait: bool) -> None:
    """Send the sessions of an object away.

    :param options: of the procedure.
    :param wait: until it is done, and show how far it is.
    :raises Ended: somebody called it off.
    """
    watcher = _Drain(output, name)
    if wait:
        await client.subscribe(watcher.on_event, f"on_proxy_{kind}_draining")
        await client.subscribe(watcher.on_event, f"on_proxy_{kind}_drained")
    begun = await client.call(f"drain_proxy_{kind}", name, **options)
    if not wait:
        if output.as_json:
            output.json(begun)
        else:
            output.line(f'{kind} "{name}": {_plan(begun)}')
            if kind == "connection":
                output.line("it takes no logins until the drain is called off (--cancel)")
        return
    with watcher:
        watcher.begin(begun)
        done = await client.until(watcher.done)
    if output.as_json:
        output.json(done)
    else:
        output.line(f'{kind} "{name}": {_outcome(done)}')
    if done.get("cancelled"):
        raise Ended(f'the drain of {kind} "{name}" was called off: {done["left"]} of {done["total"]} sessions are left')


async def cancel_drain(client: "Client", output: Output, kind: str, name: str) -> None:
    """Call a drain off."""
    answer = await client.call(f"drain_proxy_{kind}", name, cancel=True)
    if output.as_json:
        output.json(answer)
    else:
        output.line(f'{kind} "{name}": the drain is called off')


def _plan(begun: Mapping[str, Any]) -> str:
    total, rate = begun["total"], begun["rate"]
    if not total:
        return "draining; there is no session"
    return f"draining {_count(total, 'session')}, {rate:g} per second, about {duration(max(1, total / rate))}"


def _outcome(done: Mapping[str, Any]) -> str:
    left = f", {done['left']} left" if done.get("left") else ""
    return f"drained: {done['ended']} of {_count(done['total'], 'session')} ended{left}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


class _Drain:
    """What is heard of a drain.

    :ivar done: fires with its last event.
    """

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self._name = name
        self._is_begun = False
        self._last: Mapping[str, Any] | None = None
        self._progress: Progress | None = None
        self._task: Any = None
        self.done: Deferred[Mapping[str, Any]] = Deferred()

    def __enter__(self) -> "_Drain":
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_event(self, topic: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """An event of some drain."""
        event = args[0]
        if event["id"] != self._name:
            return
        if topic.endswith("_draining"):
            self._last = None  # what was heard before was of an earlier drain
            self._show(event)
        elif self._is_begun:
            self._finish(event)
        else:
            self._last = event

    def begin(self, begun: Mapping[str, Any]) -> None:
        """The worker has said that it drains; its first events may have come before."""
        self._is_begun = True
        if self._output.is_live and begun["total"]:
            text = TextColumn("draining {task.description}")
            self._progress = Progress(
                text, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rest]} left"),
                console=self._output.console, auto_refresh=False, transient=True,
            )  # fmt: skip
            rest = duration(begun["total"] / begun["rate"])
            self._task = self._progress.add_task(self._name, total=begun["total"], rest=rest)
            self._progress.start()
        if self._last is not None:
            self._finish(self._last)

    def _show(self, event: Mapping[str, Any]) -> None:
        if self._progress is not None:
            rest = duration(event["remaining"] / event["rate"]) if event["rate"] else "?"
            self._progress.update(self._task, completed=event["ended"], rest=rest, refresh=True)
        elif not self._output.as_json and not self._output.is_live:
            self._output.line(f"{event['ended']} of {_count(event['total'], 'session')} ended")

    def _finish(self, event: Mapping[str, Any]) -> None:
        if not self.done.called:
            self.done.callback(event)


# --- the rest ---


async def kill(client: "Client", output: Output, session_id: int, reason: str, message: str | None) -> None:
    """End a session."""
    ended = await client.call("kill_proxy_session", session_id, reason=reason, message=message)
    if output.as_json:
        output.json(ended)
    else:
        who = f"{ended['authid']} ({ended['authrole']}, realm {ended['realm']})"
        output.line(f"session {ended['session']} of {who} is told goodbye: {reason}")


async def reload(client: "Client", output: Output) -> None:
    """Apply the configuration file."""
    changes = await client.call("reload_config")
    if output.as_json:
        output.json(changes)
        return
    for text in changes.get("warnings", ()):
        click.echo(cleaned(text), err=True)
    lines = [f"{verb} {item}" for verb in ("stopped", "started") for item in _changed(changes[verb])]
    for line in lines:
        output.line(line)
    kept = ", ".join(_count(number, kind.removesuffix("s")) for kind, number in changes["kept"].items())
    output.line(f"the configuration is applied{'' if lines else ', nothing has changed'}; kept: {kept}")


async def reload_tls(client: "Client", output: Output) -> None:
    """Put replaced keys and certificates into use.

    :raises Ended: some cannot be used.
    """
    report = await client.call("reload_tls")
    if output.as_json:
        output.json(report)
    else:
        for owner in report["replaced"]:
            output.line(f"{owner} uses new certificates")
        if not report["replaced"] and not report["failed"]:
            output.line(f"no certificate has changed; kept: {_count(len(report['kept']), 'set')}")
    if report["failed"]:
        raise Ended("; ".join(f"{owner} goes on with what it has: {why}" for owner, why in report["failed"].items()))


def _changed(changes: Mapping[str, Any]) -> list[str]:
    things = [f'{kind[:-1]} "{item}"' for kind in ("connections", "transports") for item in changes[kind]]
    routes = changes["routes"].items()
    return [*things, *(f'route "{route}" of realm "{realm}"' for realm, ids in routes for route in _ids(ids))]


def _ids(ids: Any) -> list[Any]:
    return list(ids) if isinstance(ids, (list, tuple, dict)) else [ids]


async def shutdown(client: "Client", output: Output, wait: bool) -> None:
    """End the worker."""
    await client.call("shutdown")
    if wait:
        await client.ended
    if output.as_json:
        output.json({"worker": client.worker, "ended": wait})
    else:
        output.line(f'worker "{client.worker}" {"has ended" if wait else "ends"}')


async def call(
    client: "Client", output: Output, procedure: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Call any procedure; the result is printed as JSON."""
    uri = procedure if "." in procedure else client.prefix + procedure
    output.json(await client.call_uri(uri, args, kwargs))
