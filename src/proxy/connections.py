"""Connections: the routers that the proxy can join for its clients, and how they fared lately."""

import logging
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed

from proxy.addresses import Address
from proxy.auth.asserted import AssertedIdentity, SignedIdentity
from proxy.auth.credential import Accounts
from proxy.auth.relaying import RelayedLogin
from proxy.auth.routers import Client, LoginError, RouterLogin
from proxy.config import BackendUnix, ConnectionConfig, checked
from proxy.config.redaction import redacted
from proxy.lifecycle import Managed
from proxy.messages import SER_CBOR, SER_JSON, SER_MSGPACK, SERIALIZERS
from proxy.plane import CODEC_RS, CODEC_WS, pack_address
from proxy.refusals import Tally
from proxy.tls.client import ClientTls
from proxy.turns import Turns

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["ANY", "ProxyConnection"]

log = logging.getLogger(__name__)

# How long a connection that could not be dialled is left alone, seconds: doubled after each failure, reset by success.
PAUSE_FIRST: Final = 0.5
PAUSE_LIMIT: Final = 30.0
# Share of the pause that is drawn at random, so that the workers of a machine do not all come back at once.
PAUSE_JITTER: Final = 0.2

# How often it is looked whether a stopped connection's TLS is still needed, seconds.
TLS_NEEDED_PERIOD: Final = 1.0

_jitter = random.Random()  # noqa: S311 - nobody gains by guessing it

# Key of a pause that concerns every serializer.
ANY: Final = 0

# The serializers that the data plane translates between, the one that costs a router least first.
TRANSLATED: Final = (SER_CBOR, SER_JSON, SER_MSGPACK)


class ProxyConnection(Managed):
    """One item of ``connections``.

    :param controller: the worker that it belongs to.
    :param connection_id: its id.
    :param config: the item; a mapping is checked here.
    :raises ConfigError: it cannot be used.

    :ivar config: the item as it was given; ``model``: the same, checked.
    :ivar target: host, port and path for the WebSocket upgrade request; None for RawSocket.
    :ivar tls: what is asked of the router's certificate; None: plain, or not started.
    :ivar live: sessions that are joined; ``joined``: sessions joined ever; ``failures``: attempts that failed.
    :ivar refused: messages of this router that could not be passed on to their client.
    :ivar turns: of the logins: so many at a time.
    :ivar is_draining: no new login uses it, because its sessions are being sent away.
    :ivar successor: what took its place when the configuration was changed: logins that are under way go on.
    """

    __slots__ = (
        "_fixed",
        "_login",
        "_pauses",
        "_preferred",
        "_taken",
        "_ways",
        "config",
        "dial_ms",
        "failures",
        "goodbye_ms",
        "headers",
        "id",
        "is_draining",
        "join_ms",
        "joined",
        "kind",
        "live",
        "model",
        "params",
        "refused",
        "target",
        "tls",
        "turns",
    )

    KIND = "connection"

    def __init__(
        self, controller: "ProxyController", connection_id: str, config: ConnectionConfig | Mapping[str, Any]
    ) -> None:
        super().__init__(controller, f'connection "{connection_id}"')
        self.id = connection_id
        self.model: ConnectionConfig
        self.model, self.config = checked(ConnectionConfig, config, controller.cbdir)
        # How to log in there; what needs the node's key is put in when the connection starts.
        self._login: Callable[[Client], RouterLogin] = _login(self.model)
        transport = self.model.transport
        self.kind = CODEC_RS if transport.type == "rawsocket" else CODEC_WS
        self.target = transport.target if self.kind == CODEC_WS else None
        self.headers = dict(transport.headers)
        self.dial_ms = self.model.timeouts.dial
        self.join_ms = self.model.timeouts.join
        self.goodbye_ms = self.model.timeouts.goodbye
        self.turns = Turns(self.model.limits.max_joins, controller.reactor, self.model.timeouts.turn / 1000)
        self.params = 0
        self.tls: ClientTls | None = None
        self.live = 0
        self.joined = 0
        self.failures = 0
        self.is_draining = False
        self.refused = Tally(f"connection {connection_id}", controller.reactor)
        self._taken = None if transport.serializers is None else _numbers(*transport.serializers)
        self._preferred = _numbers(*(name for name in (transport.serializer,) if name is not None))
        self._ways: dict[int, tuple[int, ...]] = {}
        self._pauses: dict[int, _Pause] = {}
        self._fixed: list[bytes] | None = None

    # --- life ---

    def _start(self) -> "Deferred[None]":
        """Nothing is dialled before the first login."""
        if self.model.auth_mode == "cryptosign-proxy":
            self._login = partial(SignedIdentity, key=self.controller.require_node_key())
        params = _params(self.kind, self.model)
        transport = self.model.transport
        if transport.endpoint.tls is not None:
            self.tls = self.controller.tls_contexts.dial(transport.endpoint.tls, f"connection {self.id}")
            params |= {"tls": self.tls.number, "server_name": transport.server_name}
            if not transport.endpoint.tls.verify:
                log.warning("connection %s: verify is off: anybody in between can pass for the router", self.id)
        try:
            self.params = self.controller.plane.add_params(**params)
        except Exception:
            self._close_tls()
            raise
        self._fixed = _literal(self.model)
        return succeed(None)

    def _stop(self) -> "Deferred[None]":
        self._close_tls()
        return succeed(None)

    def _close_tls(self) -> None:
        """Let go of TLS, once no login that is under way can dial any more."""
        if self.tls is None:
            return
        if self.turns.taken:
            self.controller.reactor.callLater(TLS_NEEDED_PERIOD, self._close_tls)
            return
        tls, self.tls = self.tls, None
        tls.close()

    def marshal(self) -> dict[str, Any]:
        """What the management API shows: id, config, started and stopped (ns since the epoch), state."""
        return {
            "id": self.id,
            "config": redacted(self.config),
            "started": self.started,
            "stopped": self.stopped,
            "state": int(self.state),
        }

    @property
    def takes_logins(self) -> bool:
        """Whether new logins may use it."""
        if self.successor is not None:
            return self.latest.takes_logins
        return self.is_started and not self.is_draining

    # --- logins ---

    @property
    def relays(self) -> bool:
        """Whether the router decides itself who a client is."""
        return self.model.auth_mode == "passthrough"

    def permits(self, realm: str, authrole: str) -> bool:
        """Whether the proxy may ask for this there."""
        return self.model.permit.allows(realm, authrole)

    def login(self, client: Client) -> RouterLogin:
        """How to log in there for a client.

        :raises LoginError: not at all, and why.
        """
        accept = client.accept
        if not self.permits(accept.realm, accept.authrole):
            raise LoginError(f'does not permit realm "{accept.realm}" with role "{accept.authrole}"')
        return self._login(client)

    # --- addresses ---

    def resolve(self) -> "Deferred[list[bytes]]":
        """Addresses to dial, in the order to try them, as ``struct sockaddr_*`` octets; errback if there are none."""
        if self._fixed is not None:
            return succeed(self._fixed)
        return self.controller.resolver.resolve(self.model.transport.endpoint).addCallback(_pack_all)

    # --- serializers ---

    def ways(self, serializer: int) -> tuple[int, ...]:
        """The serializers to join this router with for a client, the best one first; none: it cannot be joined for it.

        The client's own comes first, so that nothing needs to be translated. The others are those that the
        configuration names, or else all that can be translated; nothing translates to or from UBJSON and FlatBuffers.

        :param serializer: the client's.
        """
        ways = self._ways.get(serializer)
        if ways is None:
            known = TRANSLATED if self._taken is None else self._taken
            others = [way for way in (*self._preferred, *known) if way in TRANSLATED and way in known]
            own = [serializer] if self._taken is None or serializer in self._taken else []
            both = (*own, *others) if serializer in TRANSLATED else own
            ways = self._ways[serializer] = tuple(dict.fromkeys(both))
        return ways

    def open_ways(self, serializer: int) -> tuple[int, ...]:
        """Those of :meth:`ways` that did not fail lately; all of them if all did."""
        ways = self.ways(serializer)
        if not self._pauses:
            return ways
        now = self.controller.reactor.seconds()
        return tuple(way for way in ways if not self._is_paused(way, now)) or ways

    # --- health ---

    def is_down(self, serializer: int) -> bool:
        """Whether it is left alone for now: it failed lately, for everybody or in every way that is left for a client.

        :param serializer: the client's.
        """
        ways = self.ways(serializer)
        if not self._pauses or not ways:
            return not ways
        now = self.controller.reactor.seconds()
        return self._is_paused(ANY, now) or all(self._is_paused(way, now) for way in ways)

    @property
    def is_unreachable(self) -> bool:
        """Whether it is left alone for now because it could not be reached at all."""
        return bool(self._pauses) and self._is_paused(ANY, self.controller.reactor.seconds())

    def _is_paused(self, key: int, now: float) -> bool:
        pause = self._pauses.get(key)
        return pause is not None and pause.until > now

    def mark_down(self, serializer: int = ANY) -> bool:
        """A login failed here: leave it alone for a while, longer each time.

        Logins that were under way together fail together; they count as one failure.

        :param serializer: the one that it seems to refuse; :data:`ANY` when it cannot be reached at all.
        :returns: whether that is worth a line in the log: once for each pause, but of a serializer that is refused
            only the first time, which is how it will stay.
        """
        self.failures += 1
        now = self.controller.reactor.seconds()
        is_first = serializer not in self._pauses
        pause = self._pauses.setdefault(serializer, _Pause())
        if pause.until > now:
            return False
        pause.seconds = min(PAUSE_LIMIT, pause.seconds * 2 or PAUSE_FIRST)
        pause.until = now + pause.seconds * _jitter.uniform(1 - PAUSE_JITTER, 1 + PAUSE_JITTER)
        return is_first or serializer == ANY

    def mark_up(self, serializer: int) -> None:
        """A login with this serializer, spoken to the router, succeeded."""
        if self._pauses:
            self._pauses.pop(ANY, None)
            self._pauses.pop(serializer, None)


def _login(config: ConnectionConfig) -> Callable[[Client], RouterLogin]:
    """How to log in at a router, by its configuration."""
    if config.auth is None or config.auth_mode in ("anonymous-proxy", "cryptosign-proxy"):
        return AssertedIdentity
    return RelayedLogin if config.auth_mode == "passthrough" else Accounts(config.auth).login


class _Pause:
    """How long a connection is left alone: until when (monotonic seconds), and the length of the pause."""

    __slots__ = ("seconds", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.seconds = 0.0


def _numbers(*names: str) -> tuple[int, ...]:
    """Serializers by the names of the configuration. To a router no batches are sent: ``json.batched`` is ``json``."""
    bare = (name.removesuffix(".batched") for name in names)
    return tuple(SERIALIZERS[name] for name in bare if name in SERIALIZERS)


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
        "max_out": config.limits.max_message_out,
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
