"""Connections: the routers that the proxy can join for its clients, and how they fared lately."""

import random
import time
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed

from proxy.addresses import Address, Resolver
from proxy.config import BackendUnix, ConnectionConfig
from proxy.lifecycle import Lifecycle, State
from proxy.plane import CODEC_RS, CODEC_WS, Plane, pack_address

__all__ = ["ANY", "ProxyConnection"]

# How long a connection that could not be dialled is left alone, seconds: doubled after each failure, reset by success.
PAUSE_FIRST: Final = 0.5
PAUSE_LIMIT: Final = 30.0
# Share of the pause that is drawn at random, so that the workers of a machine do not all come back at once.
PAUSE_JITTER: Final = 0.2

_jitter = random.Random()  # noqa: S311 - nobody gains by guessing it

# Key of a pause that concerns every serializer.
ANY: Final = 0


class ProxyConnection(Lifecycle):
    """One item of ``connections``.

    :param connection_id: its id.
    :param config: checked configuration.
    :param raw: the configuration as it was given, for the management API.
    :param clock: the reactor (IReactorTime), for monotonic time.

    :ivar asserts_identity: the router is told who the client is (anonymous-proxy); else only that a proxy joins.
    :ivar target: host, port and path for the WebSocket upgrade request; None for RawSocket.
    :ivar live: sessions that are joined; ``joined``: sessions joined ever; ``failures``: attempts that failed.
    """

    __slots__ = (
        "_clock",
        "_fixed",
        "_pauses",
        "_resolver",
        "asserts_identity",
        "config",
        "dial_ms",
        "failures",
        "goodbye_ms",
        "headers",
        "id",
        "join_ms",
        "joined",
        "kind",
        "live",
        "model",
        "params",
        "since",
        "target",
        "until",
    )

    def __init__(self, connection_id: str, config: ConnectionConfig, raw: Any, clock: Any) -> None:
        super().__init__(f'connection "{connection_id}"')
        self.id = connection_id
        self.config = raw
        self.model = config
        # The router believes whatever an asserting proxy says of its clients.
        self.asserts_identity = config.auth_mode == "anonymous-proxy"
        transport = config.transport
        self.kind = CODEC_RS if transport.type == "rawsocket" else CODEC_WS
        self.target = transport.target if self.kind == CODEC_WS else None
        self.headers = dict(transport.headers)
        self.dial_ms = config.timeouts.dial
        self.join_ms = config.timeouts.join
        self.goodbye_ms = config.timeouts.goodbye
        self.params = 0
        self.live = 0
        self.joined = 0
        self.failures = 0
        self.since: int | None = None
        self.until: int | None = None
        self._pauses: dict[int, _Pause] = {}
        self._clock = clock
        self._fixed: list[bytes] | None = None
        self._resolver: Resolver | None = None

    # --- life ---

    def start(self, plane: Plane, resolver: Resolver) -> None:
        """Put it into service. Nothing is dialled before the first login."""
        self.enter(State.STARTING)
        self.params = plane.add_params(**_params(self.kind, self.model))
        self._resolver = resolver
        self._fixed = _literal(self.model)
        self.enter(State.STARTED)
        self.since = time.time_ns()

    def stop(self) -> None:
        """Take it out of service: no new login uses it, sessions that are joined stay."""
        self.enter(State.STOPPING)
        self.enter(State.STOPPED)
        self.since = None
        self.until = time.time_ns()

    def marshal(self) -> dict[str, Any]:
        """What the management API shows: id, config, started and stopped (ns since the epoch), state."""
        return {
            "id": self.id,
            "config": self.config,
            "started": self.since,
            "stopped": self.until,
            "state": int(self.state),
        }

    # --- addresses ---

    def resolve(self) -> "Deferred[list[bytes]]":
        """Addresses to dial, in the order to try them, as ``struct sockaddr_*`` octets; errback if there are none."""
        if self._fixed is not None:
            return succeed(self._fixed)
        assert self._resolver is not None, "resolve() before start()"
        return self._resolver.resolve(self.model.transport.endpoint).addCallback(_pack_all)

    # --- health ---

    def is_down(self, serializer: int) -> bool:
        """Whether it failed lately, for everybody or for this serializer, and is left alone for now."""
        if not self._pauses:
            return False
        now = self._clock.seconds()
        return any(pause.until > now for key in (ANY, serializer) if (pause := self._pauses.get(key)) is not None)

    def mark_down(self, serializer: int = ANY) -> None:
        """A login failed here: leave it alone for a while, longer each time.

        Logins that were under way together fail together; they count as one failure.

        :param serializer: the one that it seems to refuse; :data:`ANY` when it cannot be reached at all.
        """
        self.failures += 1
        now = self._clock.seconds()
        pause = self._pauses.setdefault(serializer, _Pause())
        if pause.until <= now:
            pause.seconds = min(PAUSE_LIMIT, pause.seconds * 2 or PAUSE_FIRST)
            pause.until = now + pause.seconds * _jitter.uniform(1 - PAUSE_JITTER, 1 + PAUSE_JITTER)

    def mark_up(self, serializer: int) -> None:
        """A login with this serializer succeeded."""
        if self._pauses:
            self._pauses.pop(ANY, None)
            self._pauses.pop(serializer, None)


class _Pause:
    """How long a connection is left alone: until when (monotonic seconds), and the length of the pause."""

    __slots__ = ("seconds", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.seconds = 0.0


def _literal(config: ConnectionConfig) -> list[bytes] | None:
    """The packed address of an endpoint that needs no resolver; None for a host name."""
    endpoint = config.transport.endpoint
    if isinstance(endpoint, BackendUnix):
        return [pack_address(Address(path=endpoint.path))]
    try:
        return [pack_address(Address(endpoint.host.removeprefix("[").removesuffix("]"), endpoint.port))]
    except ValueError:
        return None


def _pack_all(addresses: list[Address]) -> list[bytes]:
    return [pack_address(address) for address in addresses]


def _params(kind: int, config: ConnectionConfig) -> dict[str, Any]:
    """Keywords of add_params() for connections to this router."""
    options = config.transport.options
    tcp = not isinstance(config.transport.endpoint, BackendUnix)
    params: dict[str, Any] = {
        "kind": kind,
        "client": True,
        "max_message": options.max_message_size,
        "close_ms": config.timeouts.goodbye,
        "nodelay": tcp and options.tcp_nodelay,
        "keepalive": tcp,
    }
    if kind == CODEC_RS:
        # No pings: a router that runs on Twisted takes a RawSocket PING for an overlong message and drops the session.
        return params
    return params | {
        "mask_out": True,
        "max_frame": options.max_frame_size,
        "auto_fragment": options.auto_fragment_size,
        "validate_utf8": options.validate_utf8,
        "fail_by_drop": options.fail_by_drop,
        "echo_close": options.echo_close_codereason,
        "ping_interval_ms": round((options.auto_ping_interval or 0) * 1000),
        "ping_timeout_ms": round((options.auto_ping_timeout or 0) * 1000),
        "ping_size": options.auto_ping_size,
        "ping_restart_on_traffic": options.auto_ping_restart_on_any_traffic,
    }
