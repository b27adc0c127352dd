"""How many may log in: at a time, of one address at a time, and how often one address may fail."""

import ipaddress
from collections import OrderedDict
from typing import Any, Final

from proxy.auth.base import AUTHENTICATION_FAILED, NO_SUCH_REALM, UNAVAILABLE, Deny
from proxy.config import Limits
from proxy.turns import Turns

__all__ = ["LoginLimits", "address_of"]

# Addresses that failed lately, at most: those that failed longest ago are forgotten first.
ADDRESSES_MAX: Final = 65_536

# Of IPv6 a whole network counts as one address: that is what one customer is given.
_IPV6_NETWORK: Final = 64

# How long a login waits for its turn, seconds.
PATIENCE: Final = 120.0

_DENIED: Final = "wamp.error.authentication_denied"

# Refusals that say nothing of who the client is.
_HARMLESS: Final = frozenset({"wamp.error.no_auth_method", NO_SUCH_REALM, UNAVAILABLE})


def address_of(peer: str) -> str | None:
    """What of a peer counts as its address: IPv4 whole, of IPv6 the network.

    :param peer: as :func:`proxy.plane.peer_text` has it.
    :returns: None for a Unix socket: whoever may open it is trusted as far as that goes.
    """
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0]
    if kind == "tcp4":
        return host
    if kind != "tcp6":
        return None
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _IPV6_NETWORK), strict=False))


class LoginLimits:
    """The limits on logins of one transport.

    :param limits: of its configuration.
    :param reactor: whose clock counts.

    :ivar turns: for what takes work: an authenticator, a router.
    """

    def __init__(self, limits: Limits, reactor: Any) -> None:
        self._reactor = reactor
        self._at_a_time = limits.max_logins_per_address
        self._failures = limits.max_failures_per_address
        self._window = limits.failure_window / 1000
        self.turns = Turns(limits.max_logins, reactor, PATIENCE)
        self._under_way: dict[str, int] = {}
        # Failures by address, and when they are forgotten. All are forgotten equally long after the first of them.
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def enter(self, peer: str) -> Deny | None:
        """Somebody wants to log in.

        :returns: a refusal; None: it may, and :meth:`leave` is to be called at the end of it.
        """
        if not self._at_a_time and not self._failures:
            return None
        address = address_of(peer)
        if address is None:
            return None
        if self._failures and self._failures_of(address) >= self._failures:
            return _blocked(address)
        if self._at_a_time:
            count = self._under_way.get(address, 0)
            if count >= self._at_a_time:
                return Deny(UNAVAILABLE, "too many logins at a time", f"too many logins at a time from {address}")
            self._under_way[address] = count + 1
        return None

    def blocked(self, peer: str) -> Deny | None:
        """Somebody has an answer to a CHALLENGE. Others may have failed since it was asked.

        :returns: a refusal; None: it is to be looked at.
        """
        address = address_of(peer) if self._failures else None
        if address is None or self._failures_of(address) < self._failures:
            return None
        return _blocked(address)

    def leave(self, peer: str) -> None:
        """A login that entered is over, whatever came of it."""
        address = address_of(peer) if self._at_a_time else None
        if address is None:
            return
        count = self._under_way.pop(address, 0) - 1
        if count > 0:
            self._under_way[address] = count

    def failed(self, peer: str, reason: str = AUTHENTICATION_FAILED) -> None:
        """A client was refused.

        :param reason: with which URI.
        """
        if not self._failures or reason in _HARMLESS:
            return
        address = address_of(peer)
        if address is None:
            return
        count = self._failures_of(address)
        if count:
            self._failed[address] = count + 1, self._failed[address][1]
            return
        self._failed[address] = 1, self._reactor.seconds() + self._window
        if len(self._failed) > ADDRESSES_MAX:
            self._failed.popitem(last=False)

    def _failures_of(self, address: str) -> int:
        now = self._reactor.seconds()
        while self._failed and next(iter(self._failed.values()))[1] <= now:
            self._failed.popitem(last=False)
        return self._failed.get(address, (0, 0.0))[0]


def _blocked(address: str) -> Deny:
    return Deny(_DENIED, "too many failed logins, try again later", f"too many failed logins from {address}")
