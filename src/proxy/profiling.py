"""Profilers that the management API starts: where the control plane spends its time.

The data threads run no Python. What they do shows in their counters, not here.
"""

import cProfile
import logging
import os
import pstats
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from proxy.errors import AlreadyRunning, CannotStart, NoSuchObject
from proxy.processinfo import timestamp

__all__ = ["CProfiler", "Profiler", "Profilers", "VmProfiler"]

log = logging.getLogger(__name__)

PROFILES_MAX: Final = 10
"""Profiles that are kept; the oldest goes first."""

ENTRIES_MAX: Final = 1_000
"""Entries of a profile: those that took the most time."""

VMPROF_PERIOD: Final = 0.01
"""Seconds between two samples."""


class Profiler(Protocol):
    """One way to profile this process.

    :ivar id: its name.
    :ivar config: what it works with, for people.
    """

    id: str
    config: dict[str, Any]

    def enable(self) -> None:
        """Begin. Raises whatever is in the way, and then has not begun."""

    def disable(self) -> "list[dict[str, Any]] | Deferred[list[dict[str, Any]]]":
        """End; returns the entries of the profile."""


class CProfiler:
    """Python's own profiler, for the thread that it is enabled in: that of the reactor."""

    id = "cprofile"

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"thread": "reactor"}
        self._profile: cProfile.Profile | None = None

    def enable(self) -> None:
        """See :class:`Profiler`."""
        profile = cProfile.Profile()
        profile.enable()
        self._profile = profile

    def disable(self) -> list[dict[str, Any]]:
        """See :class:`Profiler`."""
        assert self._profile is not None
        profile, self._profile = self._profile, None
        profile.disable()
        return _cprofile_entries(profile)


def _cprofile_entries(profile: cProfile.Profile) -> list[dict[str, Any]]:
    stats: Any = pstats.Stats(profile)
    rows = sorted(stats.stats.items(), key=lambda row: row[1][2], reverse=True)
    total = sum(row[1][2] for row in rows) or 1.0
    return [
        {
            "type": "py" if line else "native",
            "fun": function,
            "filename": filename,
            "dirname": os.path.dirname(filename),
            "basename": os.path.basename(filename),
            "line": line,
            "perc": round(100 * own / total, 1),
            "count": calls,
            "own": own,
            "cumulative": cumulative,
        }
        for (filename, line, function), (_, calls, own, cumulative, _) in rows[:ENTRIES_MAX]
    ]


class VmProfiler:
    """The sampling profiler vmprof, as Crossbar.io has it.

    :param module: the module ``vmprof``.
    :param reactor: whose thread pool reads the samples.
    """

    id = "vmprof"

    def __init__(self, module: Any, reactor: Any) -> None:
        self.config: dict[str, Any] = {"period": VMPROF_PERIOD}
        self._vmprof = module
        self._reactor = reactor
        self._path = ""
        self._file = -1

    def enable(self) -> None:
        """See :class:`Profiler`."""
        self._file, self._path = tempfile.mkstemp(".vmprof")
        try:
            self._vmprof.enable(self._file, period=VMPROF_PERIOD)
        except BaseException:
            self._clean_up()
            raise

    def disable(self) -> "Deferred[list[dict[str, Any]]]":
        """See :class:`Profiler`."""
        self._vmprof.disable()
        done: Deferred[Any] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._read)

        def clean_up(result: Any) -> Any:
            self._clean_up()
            return result

        return done.addBoth(clean_up)

    def _clean_up(self) -> None:
        os.close(self._file)
        os.unlink(self._path)

    def _read(self) -> list[dict[str, Any]]:
        tree = self._vmprof.read_profile(self._path).get_tree()
        entries: list[dict[str, Any]] = []
        total = float(tree.count) or 1.0
        waiting: list[tuple[Any, Any, int]] = [(None, tree, 0)]
        while waiting:
            parent, node, level = waiting.pop()
            entries.append(_vmprof_entry(parent, node, level, total))
            waiting.extend((node, child, level + 1) for child in reversed(list(node.children.values())))
        kept = sorted(range(len(entries)), key=lambda index: entries[index]["count"], reverse=True)[:ENTRIES_MAX]
        return [entries[index] for index in sorted(kept)]


def _vmprof_entry(parent: Any, node: Any, level: int, total: float) -> dict[str, Any]:
    kind, function, line, filename = [*node.name.split(":", 3), "", "", ""][:4]
    return {
        "type": kind if filename else "jit",
        "level": level,
        "parent": parent.name if parent is not None else None,
        "fun": function,
        "filename": filename,
        "dirname": os.path.dirname(filename),
        "basename": os.path.basename(filename),
        "line": line,
        "perc": round(100 * node.count / total, 1),
        "perc_of_parent": round(100 * node.count / parent.count, 1) if parent is not None and parent.count else 100.0,
        "count": node.count,
        "parent_count": parent.count if parent is not None else None,
    }


class Profilers:
    """The profilers of this process, and what they found. One runs at a time: they would measure each other.

    :param reactor: Twisted's reactor.
    :param found: by name; None: those that there are.
    """

    def __init__(self, reactor: Any, found: list[Profiler] | None = None) -> None:
        self._reactor = reactor
        self._found = found
        self._running: Profiler | None = None
        self._since: str | None = None
        self._count = 0
        self._profiles: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @cached_property
    def _known(self) -> dict[str, Profiler]:
        # Not before somebody asks: to look for vmprof is to load it.
        return {item.id: item for item in (_available(self._reactor) if self._found is None else self._found)}

    @property
    def default(self) -> str:
        """Name of the one to use where none is named: Crossbar.io's, if it is there."""
        return "vmprof" if "vmprof" in self._known else next(iter(self._known))

    def marshal(self) -> list[dict[str, Any]]:
        """All of them: id, config, state (``running`` or ``stopped``), and since when (or null)."""
        return [
            {
                "id": item.id,
                "config": item.config,
                "state": "running" if item is self._running else "stopped",
                "started": self._since if item is self._running else None,
            }
            for item in self._known.values()
        ]

    def start(self, name: str, runtime: float) -> "tuple[str, Deferred[list[dict[str, Any]]]]":
        """Profile for a while.

        :param runtime: seconds.
        :returns: ID of the profile, and what fires with its entries once it is there to :meth:`get`.
        :raises NoSuchObject: no profiler of this name.
        :raises AlreadyRunning: one is running.
        :raises CannotStart: something is in its way, another profiler, for example.
        """
        profiler = self._known.get(name)
        if profiler is None:
            raise NoSuchObject(f'no profiler "{name}": expected one of {", ".join(self._known)}')
        if self._running is not None:
            raise AlreadyRunning(f'profiler "{self._running.id}" is running')
        try:
            profiler.enable()
        except Exception as error:
            raise CannotStart(f'profiler "{name}" cannot be started: {error}') from error
        self._running = profiler
        self._since = timestamp()
        self._count += 1
        done: Deferred[list[dict[str, Any]]] = Deferred()
        profile_id = f"profile{self._count:03d}"
        profile = {"id": profile_id, "profiler": name, "runtime": runtime}
        self._reactor.callLater(runtime, self._finish, profiler, profile, done)
        return profile_id, done

    def _finish(self, profiler: Profiler, profile: dict[str, Any], done: "Deferred[list[dict[str, Any]]]") -> None:
        def ended(result: Any) -> Any:
            self._running = self._since = None
            if not isinstance(result, Failure):
                self._profiles[profile["id"]] = {**profile, "profile": result}
                while len(self._profiles) > PROFILES_MAX:
                    self._profiles.popitem(last=False)
            return result

        maybeDeferred(profiler.disable).addBoth(ended).addBoth(done.callback)

    def get(self, profile_id: str) -> dict[str, Any]:
        """A profile: id, profiler, runtime (seconds) and profile (its entries).

        :raises NoSuchObject: it was never made, is not finished, or is too old.
        """
        profile = self._profiles.get(profile_id)
        if profile is None:
            raise NoSuchObject(f'no profile "{profile_id}": the last {PROFILES_MAX} are kept once they are finished')
        return profile


def _available(reactor: Any) -> list[Profiler]:
    found: list[Profiler] = [CProfiler()]
    vmprof = _find_vmprof()
    if vmprof is not None:
        found.append(VmProfiler(vmprof, reactor))
    return found


def _find_vmprof() -> Any:
    try:
        load: Callable[[str], Any] = __import__
        return load("vmprof")
    except Exception as error:
        # It is a compiled module, and fails to load in more ways than by not being there.
        log.debug("no vmprof: %s", error)
        return None
