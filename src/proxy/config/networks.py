"""Networks of those in front of the proxy who may say for whom they connect: ``proxy_protocol`` and ``forwarded``."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, StrictStr

from proxy.config.fields import StrictModel, one_of, problem

__all__ = ["NOBODY", "UNIX", "Forwarded", "Forwarders", "NetworkNames", "Networks", "networks_of", "read_address"]

UNIX: Final = "unix"
"""Stands for all who connect over a Unix socket."""

NETWORKS_MAX: Final = 256
_MAPPED: Final = 96  # bits in front of the IPv4 address in ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2)
_WANTED: Final = 'expected an IP address, a network like 10.0.0.0/8 or 2001:db8::/32, or "unix"'


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address from its text, as IPv4 where it is an IPv4 address written as an IPv6 one.

    :returns: None: it is none, or one with a scope, which means something on one machine only.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return None if address.scope_id else address.ipv4_mapped or address


def _read_network(text: str) -> IPv4Network | IPv6Network:
    """:raises ValueError: with what was expected."""
    try:
        network = ip_network(text)
    except ValueError as error:
        hint = " (bits behind the prefix are set)" if "host bits" in str(error) else ""
        raise ValueError(f"{_WANTED}{hint}") from None
    if isinstance(network, IPv4Network):
        return network
    if "%" in text:
        raise ValueError(f"{_WANTED}, without a scope")
    mapped = network.network_address.ipv4_mapped
    if mapped is not None and network.prefixlen >= _MAPPED:
        return IPv4Network((mapped, network.prefixlen - _MAPPED))
    return network


class Networks:
    """A set of networks.

    :param names: of networks, addresses, and ``unix``.
    :raises ValueError: one of them is none of these; with what was expected.
    """

    __slots__ = ("_by_version", "_has_unix")

    def __init__(self, names: Iterable[str]) -> None:
        self._has_unix = False
        self._by_version: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for name in names:
            if name == UNIX:
                self._has_unix = True
                continue
            network = _read_network(name)
            first, last = int(network.network_address), int(network.broadcast_address)
            self._by_version[network.version].append((first, last))

    def __contains__(self, host: str) -> bool:
        """Whether one of the networks holds this address; an empty one stands for a Unix socket."""
        if not host:
            return self._has_unix
        address = read_address(host)
        if address is None:
            return False
        number = int(address)
        return any(first <= number <= last for first, last in self._by_version[address.version])


@lru_cache(maxsize=256)
def networks_of(names: tuple[str, ...]) -> Networks:
    """The set that these names of a checked configuration stand for."""
    return Networks(names)


def _network_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """All names, in their plain form, each one once."""
    if len(names) > NETWORKS_MAX:
        raise problem(f"expected at most {NETWORKS_MAX} networks")
    plain: dict[str, None] = {}
    for index, name in enumerate(names):
        if name == UNIX:
            plain[name] = None
            continue
        try:
            plain[str(_read_network(name))] = None
        except ValueError as error:
            raise problem("{text}", str(index), text=str(error)) from None
    return tuple(plain)


NetworkNames = Annotated[tuple[StrictStr, ...], AfterValidator(_network_names)]
"""Names of networks, for :func:`networks_of` and :func:`proxy.plane.pack_networks`."""


class Forwarders(StrictModel):
    """Who may say in an HTTP header for whom it connects, and in which one.

    :ivar networks: of the proxies that are believed; empty: nobody.
    :ivar header: ``auto``: X-Forwarded-For or Forwarded, whichever there is; where there are both they must agree.
    """

    networks: NetworkNames = ()
    header: Annotated[
        Literal["auto", "x-forwarded-for", "forwarded"], one_of("auto", "x-forwarded-for", "forwarded")
    ] = "auto"

    @property
    def trusted(self) -> Networks:
        """The networks as a set."""
        return networks_of(self.networks)


NOBODY: Final = Forwarders()
"""Nobody is believed: the default of ``forwarded``."""


def _as_forwarders(value: Any) -> Any:
    return {"networks": value} if isinstance(value, list | tuple) else value


Forwarded: TypeAlias = Annotated[Forwarders, BeforeValidator(_as_forwarders)]
"""``["10.0.0.0/8"]``, or ``{"networks": ["10.0.0.0/8"], "header": "forwarded"}``."""
