"""From a backend's endpoint to the addresses to dial, without ever blocking the reactor."""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from proxy.config import BackendTcp, BackendUnix
from proxy.errors import ProxyError

__all__ = ["Address", "ResolveError", "Resolver", "is_literal"]

DEADLINE_SECONDS: Final = 5.0
TTL_SECONDS: Final = 30.0
"""How long an answer is used: short enough to follow a router that moves, long enough for many logins to ask once."""

FAILURE_TTL_SECONDS: Final = 1.0
"""How long a failure is: a rush of logins must not queue one lookup each."""

CACHE_MAX: Final = 256
"""Names remembered; the one used longest ago goes first."""

LOOKUP_SECONDS_MAX: Final = 60.0
"""A lookup that has not ended by then is given up for dead: Twisted's resolver reports some failures to nobody."""

_FAMILIES: Final[dict[int | None, tuple[type[IPv4Address] | type[IPv6Address], ...]]] = {
    4: (IPv4Address,),
    6: (IPv6Address,),
    None: (IPv4Address, IPv6Address),
}

_Key = tuple[str, int | None]  # host name, IP version


class ResolveError(ProxyError):
    """An endpoint has no address that could be dialled."""

    uri = "wamp.error.network_failure"


@dataclass(frozen=True, slots=True)
class Address:
    """One address to dial: an IP literal and a port, or the path of a Unix socket.

    :ivar host: IPv4 or IPv6 literal, the latter with its scope where it has one (``fe80::1%2``).
    :ivar path: None for TCP. A leading NUL means a name in Linux's abstract namespace.
    """

    host: str = ""
    port: int = 0
    path: str | None = None

    @property
    def is_unix(self) -> bool:
        """Whether this is the path of a Unix socket."""
        return self.path is not None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Resolver:
    """Addresses of backend endpoints.

    Literals and Unix paths are answered at once. Names go to the reactor's resolver; all that ask for one name while a
    lookup is under way share it, and its answer is kept for a while.

    :param reactor: Twisted's reactor (``nameResolver``, ``callLater``, ``seconds``).
    :param deadline: seconds after which a caller gets an error; an endpoint's own ``timeout`` may shorten it.
    :param ttl: seconds for which an answer is used.
    """

    def __init__(self, reactor: Any, *, deadline: float = DEADLINE_SECONDS, ttl: float = TTL_SECONDS) -> None:
        self._reactor = reactor
        self._deadline = deadline
        self._ttl = ttl
        self._cache: OrderedDict[_Key, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._lookups: dict[_Key, _Lookup] = {}

    def resolve(self, endpoint: BackendTcp | BackendUnix) -> Deferred[list[Address]]:
        """The addresses of an endpoint, in the order in which to try them; at least one.

        :param endpoint: of a connection's backend transport.
        :returns: may have fired already. Fails with :class:`ResolveError`. May be cancelled; a lookup that others wait
            for goes on.
        """
        if isinstance(endpoint, BackendUnix):
            return succeed([Address(path=endpoint.path)])
        literal = _literal(endpoint.host)
        if literal is not None:
            return _from_literal(literal, endpoint)
        key = (endpoint.host.lower(), endpoint.version)
        hosts = self._cached(key)
        if hosts is not None:
            return _from_hosts(hosts, endpoint)
        try:
            endpoint.host.encode("idna")
        except UnicodeError:  # the reactor's resolver would fail without telling anybody
            return fail(ResolveError(f"{endpoint.host!r} is not a host name"))
        return self._look_up(key, endpoint)

    def _cached(self, key: _Key) -> tuple[str, ...] | None:
        entry = self._cache.get(key)
        if entry is None:
            return None
        if entry[0] <= self._reactor.seconds():
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        return entry[1]

    def _look_up(self, key: _Key, endpoint: BackendTcp) -> Deferred[list[Address]]:
        lookup = self._lookups.get(key)
        is_new = lookup is None or lookup.started + LOOKUP_SECONDS_MAX <= self._reactor.seconds()
        if lookup is None or is_new:
            lookup = self._lookups[key] = _Lookup(self, key, self._reactor.seconds())
        seconds = min(self._deadline, endpoint.timeout or self._deadline)
        deferred = lookup.wait(self._reactor, endpoint, seconds)
        if is_new:
            self._reactor.nameResolver.resolveHostName(lookup, key[0], 0, _FAMILIES[endpoint.version], "TCP")
        return deferred

    def _finished(self, lookup: "_Lookup") -> None:
        if self._lookups.get(lookup.key) is not lookup:
            return  # given up for dead, and asked for again since
        del self._lookups[lookup.key]
        expires = self._reactor.seconds() + (self._ttl if lookup.hosts else FAILURE_TTL_SECONDS)
        self._cache[lookup.key] = (expires, tuple(lookup.hosts))
        self._cache.move_to_end(lookup.key)
        while len(self._cache) > CACHE_MAX:
            self._cache.popitem(last=False)


@implementer(IResolutionReceiver)
class _Lookup:
    """One question to the reactor's resolver, and all who wait for its answer."""

    def __init__(self, resolver: Resolver, key: _Key, started: float) -> None:
        self.key = key
        self.started = started
        self.hosts: list[str] = []
        self._resolver = resolver
        self._waiters: dict[Deferred[list[Address]], tuple[BackendTcp, DelayedCall]] = {}

    def wait(self, reactor: Any, endpoint: BackendTcp, seconds: float) -> Deferred[list[Address]]:
        """The answer for ``endpoint``, or an error after so many seconds."""
        deferred: Deferred[list[Address]] = Deferred(self._cancelled)
        self._waiters[deferred] = (endpoint, reactor.callLater(seconds, self._expired, deferred, seconds))
        return deferred

    def _cancelled(self, deferred: Deferred[list[Address]]) -> None:
        waiter = self._waiters.pop(deferred, None)
        if waiter is not None:
            waiter[1].cancel()

    def _expired(self, deferred: Deferred[list[Address]], seconds: float) -> None:
        del self._waiters[deferred]
        deferred.errback(ResolveError(f"no answer within {seconds:g} s for the address of {self.key[0]!r}"))

    # IResolutionReceiver

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """The lookup is under way."""

    def addressResolved(self, address: IAddress) -> None:
        """One more address."""
        if isinstance(address, IPv6Address) and address.scopeID:
            host = f"{address.host.partition('%')[0]}%{address.scopeID}"
        elif isinstance(address, IPv4Address | IPv6Address):
            host = address.host
        else:
            return
        if host not in self.hosts:
            self.hosts.append(host)

    def resolutionComplete(self) -> None:
        """There are no more addresses."""
        self._resolver._finished(self)
        for deferred in list(self._waiters):
            waiter = self._waiters.pop(deferred, None)  # may be gone: an earlier one's callback can cancel it
            if waiter is not None:
                endpoint, deadline = waiter
                deadline.cancel()
                _from_hosts(self.hosts, endpoint).chainDeferred(deferred)


def is_literal(host: str) -> bool:
    """Whether this is an IP address (maybe in brackets, maybe with a scope), which needs no lookup."""
    return _literal(host) is not None


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _from_literal(
    literal: ipaddress.IPv4Address | ipaddress.IPv6Address, endpoint: BackendTcp
) -> Deferred[list[Address]]:
    if endpoint.version not in (None, literal.version):
        text = f"{endpoint.host} is not an IPv{endpoint.version} address, which the endpoint's version asks for"
        return fail(ResolveError(text))
    return succeed([Address(str(literal), endpoint.port)])


def _from_hosts(hosts: list[str] | tuple[str, ...], endpoint: BackendTcp) -> Deferred[list[Address]]:
    if not hosts:
        kind = "IP" if endpoint.version is None else f"IPv{endpoint.version}"
        return fail(ResolveError(f"{endpoint.host!r} has no {kind} address"))
    return succeed([Address(host, endpoint.port) for host in hosts])
