"""Running a chapter against a worker, and what of it can be compared with another worker's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from comparison.script import CHAPTERS, Call, Step, Subject
from support.nodes import CALLER, CallFailed, Event, Node, NodeSession
from support.process import wait_until

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
_NS_MIN, _NS_MAX = 10**18, 3 * 10**18
# Values that are another at each run, by the key that they stand under.
_VARYING = frozenset({"uptime", "startup_time"})
BOOT = "the node starts the worker"
_NODE_TOPICS = ("crossbar.on_proxy_starting", "crossbar.on_proxy_started", "crossbar.on_stop_requested")


@dataclass
class Entry:
    """What a step did, without what is another at each run.

    :ivar outcomes: of its calls, in the order in which they were made.
    :ivar observer: events that a session got which had nothing to do with the calls.
    :ivar caller: events that the session got which called.
    """

    outcomes: list[Any] = field(default_factory=list)
    observer: list[Any] = field(default_factory=list)
    caller: list[Any] = field(default_factory=list)


class Mask:
    """Replaces what is another at each run.

    :param subject: the worker.
    :param pid: its process.
    :param sessions: name of each session, by its ID.
    """

    def __init__(self, subject: Subject, pid: int, sessions: dict[int, str]) -> None:
        self._texts = {str(subject.directory): "<folder>", subject.worker_id: "<worker>"}
        self._numbers = {pid: "<pid>", **{number: f"<{name}>" for number, name in sessions.items()}}
        self._numbers.update({port: f"<port {name}>" for name, port in subject.ports.items()})

    def __call__(self, value: Any, key: str = "") -> Any:
        """A copy with names in place of such values."""
        if isinstance(value, dict):
            return {name: self(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self(item, key) for item in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bool) or value is None:
            return value
        if key in _VARYING:
            return f"<{type(value).__name__}>"
        if isinstance(value, int) and _NS_MIN < value < _NS_MAX:
            return "<ns>"
        return self._numbers.get(value, "<port>" if key == "port" else value)

    def _text(self, value: str) -> str:
        for text, name in self._texts.items():
            value = value.replace(text, name)
        return _TIMESTAMP.sub(lambda found: re.sub(r"\d", "0", found[0]), value)


def shape(value: Any) -> Any:
    """The types of a value: a mapping of types for a mapping, of a list those of its items, each once."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        found: list[Any] = []
        for item in map(shape, value):
            if item not in found:
                found.append(item)
        return found
    return type(value).__name__


class Recorder:
    """Runs steps against a worker.

    :param node: it has the worker, which is started here.
    :param subject: the worker.
    """

    def __init__(self, node: Node, subject: Subject) -> None:
        self.node = node
        self.subject = subject
        subject.directory.mkdir(parents=True)
        self._sessions = {node.caller.session: "caller", node.watcher.session: "observer"}
        self._pid = 0
        self._fences = 0

    def run(self, chapter: str) -> dict[str, Entry]:
        """Run a chapter: what each step did, by its name; first of all the node starts the worker (BOOT)."""
        steps = CHAPTERS[chapter](self.subject)
        start = Call("crossbar.start_worker", (self.subject.worker_id, "proxy", self.subject.options))
        entries = {BOOT: self._record(Step(BOOT, (start,), "on_worker_ready"))}
        try:
            for step in steps:
                assert step.name not in entries, step.name
                entries[step.name] = self._record(step)
        finally:
            self._end()
        return entries

    def _end(self) -> None:
        if not self._is_gone():
            self.node.call("crossbar.stop_worker", self.subject.worker_id, kill=True)

    def _record(self, step: Step) -> Entry:
        caller, observer = self.node.caller, self.node.watcher
        marks = caller.mark(), observer.mark()
        begun = caller.begin(*((self._uri(call), call.args, call.kwargs) for call in step.calls))
        outcomes = [_outcome(caller, number) for number in begun]
        if step.act is not None:
            outcomes.append(step.act())
        if step.signal is not None:
            os.kill(self._pid, step.signal)
        if step.wait is not None:
            observer.wait_event(f"{self.subject.prefix}.{step.wait}", marks[1])
        if step.is_end:
            wait_until(self._is_gone, "the worker has ended")
        self._remember_pid(outcomes)
        self._settle(is_there=not step.is_end)
        mask = Mask(self.subject, self._pid, self._sessions)
        shown = [_shown(outcome, mask, step) for outcome in outcomes]
        return Entry(shown, self._events(observer, marks[1], mask, step), self._events(caller, marks[0], mask, step))

    def _settle(self, *, is_there: bool) -> None:
        """Wait until both sessions have all that was published before now, by the worker, too, if it is there."""
        if is_there:
            self.node.call(f"{self.subject.prefix}.get_node_id")
        self._fences += 1
        topic = f"crossbar.worker.{CALLER}.fence.{self.subject.worker_id}.{self._fences}"
        self.node.caller.publish(topic)
        for session in (self.node.caller, self.node.watcher):
            session.wait_event(topic)

    def _uri(self, call: Call) -> str:
        return call.procedure if "." in call.procedure else f"{self.subject.prefix}.{call.procedure}"

    def _remember_pid(self, outcomes: list[Any]) -> None:
        for outcome in outcomes:
            found = outcome.get("result") if isinstance(outcome, dict) else None
            if isinstance(found, dict) and "pid" in found:
                self._pid = found["pid"]

    def _is_gone(self) -> bool:
        return self.subject.worker_id not in self.node.call("crossbar.get_workers")

    def _events(self, session: NodeSession, mark: int, mask: Mask, step: Step) -> list[Any]:
        told = [_told(event, self.subject, mask, step) for event in session.since(mark, "crossbar.")
                if self._is_ours(event)]  # fmt: skip
        return _once(told, step.wait) if step.wait is not None else told

    def _is_ours(self, event: Event) -> bool:
        if event.topic in _NODE_TOPICS:
            return bool(event.args[0]["id"] == self.subject.worker_id)
        return event.topic.startswith(f"{self.subject.prefix}.")


def _outcome(session: NodeSession, number: int) -> Any:
    progress: list[Any] = []
    try:
        found = {"result": session.end(number, received=progress)}
    except CallFailed as error:
        found = {"error": error.uri, "args": list(error.args), "kwargs": error.kwargs}
    return found | ({"progress": progress} if progress else {})


def _shown(outcome: Any, mask: Mask, step: Step) -> Any:
    if not isinstance(outcome, dict):
        return outcome
    progress = {"progress": mask(outcome["progress"])} if "progress" in outcome else {}
    if "error" in outcome:
        # What an error says is for people; which values it has is for programs.
        told = {"error": outcome["error"], "args": shape(outcome["args"]), "kwargs": shape(outcome["kwargs"])}
        return told | progress
    value = outcome["result"]
    if step.is_outline:
        return {"result": sorted(value)}
    return {"result": shape(value) if step.is_shape else mask(value)} | progress


def _told(event: Event, subject: Subject, mask: Mask, step: Step) -> Any:
    args = shape(event.args) if step.is_shape else mask(event.args)
    told: dict[str, Any] = {"event": event.topic.removeprefix(f"{subject.prefix}."), "args": args}
    return told | ({"kwargs": event.kwargs} if event.kwargs else {})


def _once(events: list[Any], name: str) -> list[Any]:
    """The events without repetitions of one that comes again and again."""
    kept: list[Any] = []
    for event in events:
        if event["event"] != name or event not in kept:
            kept.append(event)
    return kept


def differences(stock: Entry, ours: Entry) -> dict[str, tuple[Any, Any]]:
    """Where two entries differ: path -> what is there in the first and in the second one, made :func:`brief`."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in ("outcomes", "observer", "caller"):
        _compare(name, getattr(stock, name), getattr(ours, name), found)
    return found


def _compare(path: str, one: Any, other: Any, found: dict[str, tuple[Any, Any]]) -> None:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            _compare(f"{path}.{index}", left, right, found)
    elif isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            _compare(f"{path}.{key}", one[key], other[key], found)
    elif type(one) is not type(other) or one != other:
        found[path] = (brief(one), brief(other))


def brief(value: Any) -> Any:
    """Of an error its URI, of an event its name and the state of its object, of a marshalled object its state."""
    if isinstance(value, list):
        return [brief(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "error" in value:
        return value["error"]
    if "event" in value:
        return " ".join([value["event"], *(str(brief(item)) for item in value["args"][:1])])
    if "result" in value:
        return {"result": brief(value["result"])}
    return f"state {value['state']}" if "state" in value else value
