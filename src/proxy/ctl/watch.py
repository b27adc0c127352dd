"""``watch``: the worker's events, as they happen."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from twisted.internet.defer import Deferred

from proxy.ctl.output import Output, cleaned, to_json
from proxy.ctl.wording import state, time_of_day

if TYPE_CHECKING:
    from proxy.ctl.client import Client

__all__ = ["summary", "watch"]

# What is too much for a line, or is the time of the line itself; --json has it.
_LONG: Final = ("config", "created_at", "listening_since", "when")
_TIMES: Final = ("started", "stopped")
# Characters of a value that is not a plain one.
_VALUE_MAX: Final = 100


async def watch(client: "Client", output: Output, count: int | None) -> None:
    """Print every event.

    :param count: end after so many; None: never.
    :raises Unreachable: the worker has ended.
    """
    done: Deferred[None] = Deferred()
    seen = 0

    def on_event(topic: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        nonlocal seen
        if done.called:
            return
        now = time.time()
        if output.as_json:
            output.json({"time": now, "topic": topic, "args": list(args), "kwargs": dict(kwargs)}, indent=None)
        else:
            output.line(f"{time_of_day(now)}  {topic.removeprefix('on_')}  {summary(args, kwargs)}".rstrip())
        seen += 1
        if seen == count:
            done.callback(None)

    await client.subscribe(on_event)
    click.echo(f"watching worker {cleaned(client.worker)}; Ctrl-C ends", err=True)
    await client.until(done)


def summary(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The arguments of an event in a line: ``id=ws1 type=websocket state=started``."""
    fields: list[str] = []
    for item in (*args, kwargs):
        if isinstance(item, Mapping):
            fields += [f"{key}={_value(key, value)}" for key, value in _dense(item).items() if key not in _LONG]
        else:
            fields.append(_value("", item))
    return " ".join(fields)


def _dense(item: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to say: no nulls, nothing that is empty, no times."""
    inner = {key: _dense(value) if isinstance(value, Mapping) else value for key, value in item.items()}
    return {
        key: value
        for key, value in inner.items()
        if value not in (None, {}, [], "") and not (key in _TIMES and isinstance(value, int))
    }


def _value(key: str, value: Any) -> str:
    if key == "state":
        return state(value)
    if isinstance(value, str) and value and not any(char.isspace() or char in '="' for char in value):
        return value
    text = to_json(value, indent=None)
    return text if len(text) <= _VALUE_MAX else text[: _VALUE_MAX - 3] + "..."
