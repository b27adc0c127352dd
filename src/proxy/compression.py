"""permessage-deflate: which of a client's offers is taken, how, and what it may cost (RFC 7692).

Bits are the size of a sliding window as a power of two, in octets. The client's window is the one that we inflate with,
the server's is the one that we compress with.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Agreement", "Settings", "negotiate", "stream_memory"]

_NAME: Final = "permessage-deflate"
_BITS_MIN: Final = 9  # zlib has no raw DEFLATE with a window of 256 octets
_BITS_MAX: Final = 15
_STATE: Final = 12 * 1024  # octets of one stream besides its window and tables, rounded up

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
# A quotation without an end takes the rest with it, or every quote would be looked for again.
_ELEMENT: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_EXTENSION: Final = re.compile(rf"[ \t]*({_WORD})[ \t]*")
_PARAMETER: Final = re.compile(rf";[ \t]*({_WORD})[ \t]*(?:=[ \t]*({_WORD}|{_QUOTED})[ \t]*)?")
_BITS: Final = re.compile(r"[89]|1[0-5]")  # 7.1.2.1: without leading zeros

_Offer = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a transport wants of compression, by Crossbar.io's names.

    :ivar request_no_context_takeover: let clients start anew with every message: inflating costs no memory then.
    :ivar request_max_window_bits: the window that clients may use at most, 9 to 15; clients that cannot restrict
        theirs get no compression. 0: leave it to them (15).
    :ivar no_context_takeover: start anew with every message ourselves, even if the client does not ask for it.
    :ivar max_window_bits: the window that we use at most, 9 to 15.
    :ivar memory_level: of our compressor, 1 (slow, small) to 9.
    """

    request_no_context_takeover: bool = False
    request_max_window_bits: int = 0
    no_context_takeover: bool = False
    max_window_bits: int = _BITS_MAX
    memory_level: int = 8


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was agreed with one client.

    :ivar response: value of the Sec-WebSocket-Extensions header of the answer.
    :ivar inflate_bits: window for what the client sends.
    :ivar inflate_reset: the client starts anew with every message.
    :ivar deflate_bits: window for what we send.
    :ivar deflate_reset: we start anew with every message.
    :ivar mem_level: of our compressor.
    """

    response: str
    inflate_bits: int
    inflate_reset: bool
    deflate_bits: int
    deflate_reset: bool
    mem_level: int

    @property
    def memory(self) -> int:
        """The most octets that the connection's streams take, see :func:`stream_memory`."""
        inflate = 0 if self.inflate_reset else stream_memory(self.inflate_bits)
        return inflate + (0 if self.deflate_reset else stream_memory(self.deflate_bits, self.mem_level))

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of the data plane's ``upgrade()``."""
        return {
            "inflate_bits": self.inflate_bits,
            "inflate_reset": self.inflate_reset,
            "deflate_bits": self.deflate_bits,
            "deflate_reset": self.deflate_reset,
            "mem_level": self.mem_level,
        }


def stream_memory(bits: int, mem_level: int = 0) -> int:
    """The most octets of memory that one stream of a connection takes.

    A stream without context takeover takes none: all connections of a data thread share it.

    :param bits: its window, 9 to 15.
    :param mem_level: of a compressor, 1 to 9; 0 for a stream that inflates.
    """
    if mem_level == 0:
        return (1 << bits) + _STATE
    return (1 << (bits + 2)) + (1 << (mem_level + 9)) + _STATE


def negotiate(header: str, settings: Settings, memory: int) -> Agreement | None:
    """Take the first of a client's offers that can be taken (RFC 7692 sections 5 and 7.1).

    An offer that is malformed or holds anything the RFC does not know is declined, as are other extensions; nothing of
    the kind ends the handshake.

    :param header: the Sec-WebSocket-Extensions header.
    :param settings: of the transport.
    :param memory: octets that are left for compression; an offer that could cost more is declined, too.
    :returns: None: no compression.
    """
    for offer in _offers(header):
        agreement = _accept(offer, settings)
        if agreement is not None and agreement.memory <= memory:
            return agreement
    return None


def _offers(header: str) -> Iterator[_Offer]:
    """The well-formed offers of permessage-deflate."""
    for element in _ELEMENT.findall(header):
        name = _EXTENSION.match(element)
        if name is not None and name[1].lower() == _NAME:
            parameters = _parameters(element, name.end())
            if parameters is not None and _is_valid(parameters):
                yield parameters


def _parameters(element: str, at: int) -> _Offer | None:
    """Parameters from ``at`` on, by lower-case name; None if they are malformed or one is there twice."""
    parameters: _Offer = {}
    while at < len(element):
        match = _PARAMETER.match(element, at)
        if match is None:
            return None
        name, value = match[1].lower(), match[2]
        if name in parameters:
            return None
        if value is not None and value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters[name] = value
        at = match.end()
    return parameters


def _is_valid(offer: _Offer) -> bool:
    """Whether all parameters are ones of the RFC, with values that it allows (7.1.1, 7.1.2)."""
    for name, value in offer.items():
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return False
        elif name == "server_max_window_bits":
            if value is None or not _BITS.fullmatch(value):
                return False
        elif name == "client_max_window_bits":
            if value is not None and not _BITS.fullmatch(value):
                return False
        else:
            return False
    return True


def _accept(offer: _Offer, settings: Settings) -> Agreement | None:
    """The answer to a valid offer; None to decline it.

    That a client offers client_no_context_takeover is only a hint (7.1.1.2), and autobahn gives it always. One that
    offers both ends' has no context takeover at all, and may break off when it is not told so (gorilla/websocket).
    """
    wanted = int(offer.get("server_max_window_bits") or _BITS_MAX)
    if wanted < _BITS_MIN:
        return None
    hint = offer.get("client_max_window_bits", "")
    if settings.request_max_window_bits and hint == "":
        return None  # 7.1.2.2: it must not be asked for what it did not offer
    deflate_bits = min(wanted, settings.max_window_bits)
    deflate_reset = settings.no_context_takeover or "server_no_context_takeover" in offer
    both = {"client_no_context_takeover", "server_no_context_takeover"}
    inflate_reset = settings.request_no_context_takeover or both <= offer.keys()
    inflate_bits = _BITS_MAX
    answer = [_NAME]
    if deflate_reset:
        answer.append("server_no_context_takeover")
    if deflate_bits < _BITS_MAX or "server_max_window_bits" in offer:
        answer.append(f"server_max_window_bits={deflate_bits}")
    if inflate_reset:
        answer.append("client_no_context_takeover")
    if settings.request_max_window_bits:
        limit = min(settings.request_max_window_bits, int(hint or _BITS_MAX))
        answer.append(f"client_max_window_bits={limit}")
        inflate_bits = max(limit, _BITS_MIN)  # clients whose zlib has no 8 use 9 instead
    return Agreement(
        response="; ".join(answer),
        inflate_bits=inflate_bits,
        inflate_reset=inflate_reset,
        deflate_bits=deflate_bits,
        deflate_reset=deflate_reset,
        mem_level=settings.memory_level,
    )
