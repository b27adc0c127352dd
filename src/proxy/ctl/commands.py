"""The commands of ``wamp-proxy ctl`` and their options. What they do is in the modules beside this one."""

import json
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from proxy.ctl.running import Settings

__all__ = ["ctl"]

ENVIRONMENT: Final = "WAMP_PROXY_SOCKET"
TIMEOUT: Final = 10.0
SESSIONS: Final = ("keep", "drain", "close")
CLOSED: Final = "wamp.close.system_shutdown"
KILLED: Final = "wamp.close.killed"

_EPILOG: Final = """
The socket is the one that the worker's configuration names: management: {path: ...}.

\b
Exit codes:
  0    well done
  1    the worker refused; the error's URI and message are on stderr
  2    the command line, or a file that it names, cannot be used
  3    the socket cannot be reached or does not answer, or the worker ended
  4    there is no such object
  130  Ctrl-C; 143: SIGTERM
"""


class _Number(click.FloatRange):
    """A range that NaN is out of: it compares as neither too small nor too large."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


_ITEM: Final = click.Path(exists=True, dir_okay=False, allow_dash=True)
_kind = click.argument("kind", metavar="{transport|connection}", type=click.Choice(["transport", "connection"]))
_at_stop = click.option(
    "--sessions", type=click.Choice(SESSIONS), default="keep", show_default=True,
    help="What becomes of the sessions that are there: they stay, are sent away bit by bit, or all at once.",
)  # fmt: skip


def _connection_options(*, hidden: bool) -> list[Callable[[Any], Any]]:
    """The options that say who is talked to. Commands take them, too, behind their names."""
    socket = partial(click.option, "--socket", metavar="PATH", hidden=hidden)
    return [
        socket(help="The worker's management socket.") if hidden
        else socket(help="The worker's management socket.", envvar=ENVIRONMENT, show_envvar=True),
        click.option("--worker", metavar="ID", hidden=hidden, help="Which proxy worker, where there are several."),
        click.option(
            "--timeout", metavar="SECONDS", type=_Number(0.05, 86_400), hidden=hidden,
            help=f"How long to wait for the connection, and for each answer. Default: {TIMEOUT:g}.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts."),
    ]  # fmt: skip


def _with_options(function: Callable[..., Any], *, hidden: bool) -> Callable[..., Any]:
    for option in reversed(_connection_options(hidden=hidden)):
        function = option(function)
    return function


def _command(group: click.Group, name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command whose function gets the settings first."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def invoke(**arguments: Any) -> None:
            function(_settings(click.get_current_context(), arguments), **arguments)

        return group.command(name)(_with_options(invoke, hidden=True))

    return decorate


def _settings(context: click.Context, arguments: dict[str, Any]) -> "Settings":
    """The settings, of the options before and behind the command's name; takes them out of ``arguments``."""
    from proxy.ctl.running import Settings

    given: dict[str, Any] = context.find_object(dict) or {}
    found = {name: arguments.pop(name) for name in ("socket", "worker", "timeout", "as_json")}
    found = {name: value if value not in (None, False) else given.get(name) for name, value in found.items()}
    if not found["socket"]:
        raise click.UsageError(
            f"which socket? Give --socket PATH, or set ${ENVIRONMENT}: it is what the worker's configuration has in "
            "management: {path: ...}"
        )
    return Settings(found["socket"], found["worker"], found["timeout"] or TIMEOUT, bool(found["as_json"]))


def _run(settings: "Settings", command: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    from proxy.ctl.running import run

    run(settings, lambda client, output: command(client, output, *args, **kwargs))


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@partial(_with_options, hidden=False)
def ctl(**options: Any) -> None:
    """Look into a running worker, and change it, over its management socket."""
    click.get_current_context().obj = options


# --- looking ---


@_command(ctl, "transports")
@click.argument("transport_id", metavar="[ID]", required=False)
def _transports(settings: "Settings", transport_id: str | None) -> None:
    """List the transports, or show one in full."""
    from proxy.ctl import show

    _run(settings, show.transports, transport_id)


@_command(ctl, "connections")
@click.argument("connection_id", metavar="[ID]", required=False)
def _connections(settings: "Settings", connection_id: str | None) -> None:
    """List the connections to routers, or show one in full."""
    from proxy.ctl import show

    _run(settings, show.connections, connection_id)


@_command(ctl, "routes")
@click.argument("realm", metavar="[REALM]", required=False)
def _routes(settings: "Settings", realm: str | None) -> None:
    """List the routes, of all realms or of one."""
    from proxy.ctl import show

    _run(settings, show.routes, realm)


@_command(ctl, "sessions")
@click.argument("session_id", metavar="[ID]", type=click.IntRange(min=1), required=False)
@click.option("--realm", metavar="REALM", help="Only those of this realm.")
@click.option("--role", metavar="ROLE", help="Only those with this authrole.")
@click.option("--authid", metavar="AUTHID", help="Only those with this authid.")
@click.option("--transport", metavar="ID", help="Only those that came through this transport.")
@click.option("--connection", metavar="ID", help="Only those whose router this connection leads to.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most so many. Default: all.")
def _sessions(settings: "Settings", session_id: int | None, limit: int | None, **filters: str | None) -> None:
    """List the joined sessions, or show one in full."""
    from proxy.ctl import show

    given = {name: value for name, value in filters.items() if value is not None}
    if session_id is not None and (given or limit):
        raise click.UsageError("an ID names one session: no filter goes with it")
    if session_id is not None:
        _run(settings, show.session, session_id)
    else:
        _run(settings, show.sessions, given, limit)


@_command(ctl, "stats")
def _stats(settings: "Settings") -> None:
    """Show all counters: of objects and data threads."""
    from proxy.ctl import show

    _run(settings, show.stats)


@_command(ctl, "watch")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after so many events.")
def _watch(settings: "Settings", count: int | None) -> None:
    """Print the worker's events as they happen.

    Each is a line, or with --json a JSON object in a line.
    Ctrl-C ends it, with exit code 130; so does the end of the worker, with exit code 3.
    """
    from proxy.ctl import watch

    _run(settings, watch.watch, count)


# --- changing ---


@ctl.group("start")
def _start() -> None:
    """Start a transport, connection or route."""


def _start_command(kind: str, metavar: str, text: str) -> None:
    def start(settings: "Settings", name: str, file: str) -> None:
        from proxy.ctl import change

        _run(settings, change.start, kind, name, change.read_item(file))

    start.__doc__ = f"""Start a {kind}. FILE holds its configuration, {text}, in JSON or YAML; - is stdin."""
    decorated = click.argument("file", metavar="FILE", type=_ITEM)(start)
    _command(_start, kind)(click.argument("name", metavar=metavar)(decorated))


_start_command("transport", "ID", "an item of the worker's transports")
_start_command("connection", "ID", "an item of the worker's connections")
_start_command("route", "REALM", "a mapping of roles to connections, as for a realm of the worker's routes")


@ctl.group("stop")
def _stop() -> None:
    """Stop a transport, connection or route."""


@_command(_stop, "transport")
@click.argument("transport_id", metavar="ID")
@_at_stop
def _stop_transport(settings: "Settings", transport_id: str, sessions: str) -> None:
    """Stop listening on a transport."""
    from proxy.ctl import change

    _run(settings, change.stop, "transport", [transport_id], sessions=sessions)


@_command(_stop, "connection")
@click.argument("connection_id", metavar="ID")
@click.option("--force", is_flag=True, help="Even while routes name it.")
@_at_stop
def _stop_connection(settings: "Settings", connection_id: str, force: bool, sessions: str) -> None:
    """Take a connection out of service."""
    from proxy.ctl import change

    _run(settings, change.stop, "connection", [connection_id], force=force, sessions=sessions)


@_command(_stop, "route")
@click.argument("realm", metavar="REALM")
@click.argument("route_id", metavar="ID")
@_at_stop
def _stop_route(settings: "Settings", realm: str, route_id: str, sessions: str) -> None:
    """Take a route of a realm out of service. Its ID is in the list of routes."""
    from proxy.ctl import change

    _run(settings, change.stop, "route", [realm, route_id], sessions=sessions)


@_command(ctl, "drain")
@_kind
@click.argument("name", metavar="ID")
@click.option("--rate", metavar="N", type=_Number(0, min_open=True), help="Sessions per second.")
@click.option("--jitter", metavar="SHARE", type=_Number(0, 1), help="Share of the pauses left to chance.")
@click.option("--reason", metavar="URI", help=f"Reason of the GOODBYE. Default: {CLOSED}.")
@click.option("--message", metavar="TEXT", help="Text of the GOODBYE.")
@click.option("--cancel", is_flag=True, help="Call off the drain that is under way.")
@click.option("--wait", is_flag=True, help="Show the progress, and return when it is done.")
def _drain(settings: "Settings", kind: str, name: str, cancel: bool, wait: bool, **options: Any) -> None:
    """Send the sessions of an object away, bit by bit.

    They are told GOODBYE, and clients join again: elsewhere, if the connection is drained, which takes no logins
    meanwhile. With --wait the exit code is 1 if somebody else called it off; Ctrl-C ends the waiting, not the drain.
    """
    from proxy.ctl import change

    given = {key: value for key, value in options.items() if value is not None}
    if cancel and (given or wait):
        raise click.UsageError("--cancel goes with no other option of the drain")
    if cancel:
        _run(settings, change.cancel_drain, kind, name)
    else:
        _run(settings, change.drain, kind, name, given, wait)


@_command(ctl, "kill")
@click.argument("session_id", metavar="SESSION", type=click.IntRange(min=1))
@click.option("--reason", metavar="URI", default=KILLED, show_default=True, help="Reason of the GOODBYE.")
@click.option("--message", metavar="TEXT", help="Text of the GOODBYE.")
def _kill(settings: "Settings", session_id: int, reason: str, message: str | None) -> None:
    """End a session."""
    from proxy.ctl import change

    _run(settings, change.kill, session_id, reason, message)


@_command(ctl, "reload")
def _reload(settings: "Settings") -> None:
    """Apply the changed configuration file. If it cannot be used, nothing changes."""
    from proxy.ctl import change

    _run(settings, change.reload)


@_command(ctl, "reload-tls")
def _reload_tls(settings: "Settings") -> None:
    """Put keys and certificates into use whose files have changed.

    The worker looks at the files every few seconds in any case. Connections stay. The exit code is 1 if some cannot be
    used: then what was in use stays so.
    """
    from proxy.ctl import change

    _run(settings, change.reload_tls)


@_command(ctl, "shutdown")
@click.option("--wait", is_flag=True, help="Return when the worker has ended.")
def _shutdown(settings: "Settings", wait: bool) -> None:
    """End the worker in order."""
    from proxy.ctl import change

    _run(settings, change.shutdown, wait)


@_command(ctl, "call")
@click.argument("procedure", metavar="PROCEDURE")
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1)
@click.option("-k", "--kwarg", "keywords", metavar="NAME=VALUE", multiple=True, help="A keyword argument, any number.")
def _call(settings: "Settings", procedure: str, arguments: tuple[str, ...], keywords: tuple[str, ...]) -> None:
    """Call any procedure, and print its result as JSON.

    PROCEDURE is the last part of the URI of one of the worker's, or a whole URI. Arguments are JSON; what is none is
    taken as a string: ws1 is "ws1".
    """
    from proxy.ctl import change

    named = {}
    for keyword in keywords:
        name, sign, value = keyword.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{keyword!r}: expected NAME=VALUE", param_hint="--kwarg")
        named[name] = _argument(value)
    _run(settings, change.call, procedure, [_argument(text) for text in arguments], named)


def _argument(text: str) -> Any:
    """An argument from the command line.

    :raises click.BadParameter: it begins as JSON and is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] in ("{", "[", '"'):
            raise click.BadParameter(f"{text!r}: expected JSON: {error}", param_hint="ARGUMENT") from None
        return text
