"""The client's address as proxies in front tell it: X-Forwarded-For and Forwarded (RFC 7239).

Each proxy adds, at the end, whom it got the request from. What it got along with the request is the word of somebody
else. So the list is read from its end: as long as an address is that of a listed proxy, what stands in front of it was
written by that proxy. The first address that is not listed is the client's; everything further left is its own claim.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from proxy.config.networks import Forwarders, Networks, read_address
from proxy.handshake import HttpError
from proxy.peers import Peer

__all__ = ["client_peer"]

_X_FORWARDED_FOR: Final = "x-forwarded-for"
_FORWARDED: Final = "forwarded"
_PORT_MAX: Final = 65535

# RFC 7239 section 4, with the white space that RFC 9110 allows around the separators.
_NAME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
# Values that are no tokens are written without quotes often enough, IPv6 addresses and ports among them.
_PAIR: Final = re.compile(rf"[ \t]*({_NAME})=({_QUOTED}|[^\s,;\"]*)[ \t]*")
_EMPTY: Final = re.compile(r"[ \t]*")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ADDRESS: Final = re.compile(r"\[([^\]]*)\](?::([0-9]{1,5}))?|([^:]*)(?::([0-9]{1,5}))?")


def client_peer(peer: Peer, headers: Mapping[str, str], forwarders: Forwarders) -> Peer:
    """The client behind the proxies that a request has come through.

    :param peer: who has connected (as the PROXY protocol has it, where that is spoken).
    :param headers: of the request, by lower-case name; repeated ones joined by a comma.
    :param forwarders: of the endpoint.
    :returns: ``peer``, where it is not a listed proxy, or does not tell an address.
    :raises HttpError: 400: the Forwarded header is malformed, or the two headers contradict each other, so that one of
        them is not the listed proxy's word.
    """
    if not forwarders.networks:
        return peer
    trusted = forwarders.trusted
    if peer.host not in trusted:
        return peer
    wanted = (_X_FORWARDED_FOR, _FORWARDED) if forwarders.header == "auto" else (forwarders.header,)
    told = [found for name in wanted if (found := _told(name, headers.get(name, ""), peer, trusted)) is not None]
    if not told:
        return peer
    if len({found.host for found in told}) > 1:
        text = "the headers X-Forwarded-For and Forwarded contradict each other"
        raise HttpError(400, text)
    return max(told, key=lambda found: found.port)


def _told(name: str, value: str, peer: Peer, trusted: Networks) -> Peer | None:
    """What one header says; None: there is none."""
    hops = _elements(value) if name == _X_FORWARDED_FOR else _forwarded_for(value)
    if not hops:
        return None
    for hop in reversed(hops):
        found = _read_hop(hop)
        if found is None:
            break  # "unknown", or hidden on purpose: nobody can say what stands in front of it
        peer = peer.with_address(*found)
        if peer.host not in trusted:
            break
    return peer


def _elements(value: str) -> list[str]:
    """Members of a list (RFC 9110 section 5.6.1: empty ones do not count)."""
    return [element for part in value.split(",") if (element := part.strip())]


def _forwarded_for(value: str) -> list[str]:
    """The ``for`` of each element of a Forwarded header; ``unknown`` where it has none."""
    hops: list[str] = []
    for pairs in _forwarded_elements(value):
        if "for" in pairs:
            hops.append(pairs["for"])
        elif pairs:
            hops.append("unknown")
    return hops


def _forwarded_elements(value: str) -> Iterator[dict[str, str]]:
    """Parameters of each element, by lower-case name.

    A quote that is not closed would swallow what the next proxy adds, so nothing malformed is passed over.
    """
    pairs: dict[str, str] = {}
    at = 0
    while True:
        match = _PAIR.match(value, at)
        if match is not None:
            name = match[1].lower()
            if name in pairs:
                raise HttpError(400, "malformed Forwarded header: a parameter appears twice")
            pairs[name] = _ESCAPED.sub(r"\1", match[2][1:-1]) if match[2].startswith('"') else match[2]
        else:
            match = _EMPTY.match(value, at)
            assert match is not None, "it matches nothing, too"
        at = match.end()
        if at == len(value):
            yield pairs
            return
        if value[at] == ",":
            yield pairs
            pairs = {}
        elif value[at] != ";":
            raise HttpError(400, "malformed Forwarded header, expected for=ADDRESS, as in RFC 7239")
        at += 1


def _read_hop(text: str) -> tuple[str, int] | None:
    """Address and port (0: not told) of ``192.0.2.1``, ``192.0.2.1:80``, ``[2001:db8::1]:80`` or ``2001:db8::1``."""
    text = text.strip('"')
    address = read_address(text)
    if address is not None:
        return str(address), 0
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    address = read_address(match[1] if match[1] is not None else match[3])
    port = int(match[2] or match[4] or 0)
    if address is None or port > _PORT_MAX or (match[1] is None and address.version == 6):
        return None
    return str(address), port
