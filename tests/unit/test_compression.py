"""Which offers of permessage-deflate are taken and how they are answered (RFC 7692 sections 5 and 7.1)."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from autobahn.websocket.compress import (
    PerMessageDeflate,
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from autobahn.websocket.protocol import WebSocketProtocol
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from proxy.compression import Agreement, Settings, negotiate, stream_memory

PLENTY = 1 << 40
NAME = "permessage-deflate"
DEFAULT = Settings()


def offer(*parameters: str) -> str:
    """One offer."""
    return "; ".join((NAME, *parameters))


def answer(header: str, settings: Settings = DEFAULT, memory: int = PLENTY) -> str | None:
    """What is answered."""
    agreed = negotiate(header, settings, memory)
    return agreed and agreed.response


def agreement(header: str, **settings: Any) -> tuple[int, bool, int, bool]:
    """What is agreed: bits and reset for inflating, and for deflating."""
    agreed = negotiate(header, Settings(**settings), PLENTY)
    assert agreed is not None
    return agreed.inflate_bits, agreed.inflate_reset, agreed.deflate_bits, agreed.deflate_reset


def test_a_client_without_context_takeover_costs_no_memory() -> None:
    agreed = negotiate(offer("server_no_context_takeover", "client_no_context_takeover"), DEFAULT, 0)
    assert agreed is not None
    assert (agreed.inflate_reset, agreed.deflate_reset, agreed.memory) == (True, True, 0)


# --- one offer -----------------------------------------------------------------------------------------------------

ANSWERS = [
    # what real clients offer
    ("permessage-deflate", {}, NAME),
    ("permessage-deflate; client_max_window_bits", {}, NAME),
    ("permessage-deflate; client_no_context_takeover; client_max_window_bits", {}, NAME),
    (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        {},
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ),
    # the server's window
    (offer("server_max_window_bits=12"), {}, offer("server_max_window_bits=12")),
    (offer("server_max_window_bits=15"), {}, offer("server_max_window_bits=15")),
    (offer("server_max_window_bits=12"), {"max_window_bits": 10}, offer("server_max_window_bits=10")),
    (offer("server_max_window_bits=10"), {"max_window_bits": 12}, offer("server_max_window_bits=10")),
    (offer(), {"max_window_bits": 10}, offer("server_max_window_bits=10")),
    (offer("server_max_window_bits=9"), {}, offer("server_max_window_bits=9")),
    (offer("server_max_window_bits=8"), {}, None),
    # the client's window
    (offer("client_max_window_bits"), {"request_max_window_bits": 11}, offer("client_max_window_bits=11")),
    (offer("client_max_window_bits=10"), {"request_max_window_bits": 11}, offer("client_max_window_bits=10")),
    (offer("client_max_window_bits=13"), {"request_max_window_bits": 11}, offer("client_max_window_bits=11")),
    (offer("client_max_window_bits=8"), {"request_max_window_bits": 11}, offer("client_max_window_bits=8")),
    (offer("client_max_window_bits=8"), {}, NAME),
    (offer(), {"request_max_window_bits": 11}, None),
    (offer("server_max_window_bits=12"), {"request_max_window_bits": 15}, None),
    # context takeover
    (offer("server_no_context_takeover"), {}, offer("server_no_context_takeover")),
    (offer(), {"no_context_takeover": True}, offer("server_no_context_takeover")),
    (offer(), {"request_no_context_takeover": True}, offer("client_no_context_takeover")),
    (offer("client_no_context_takeover"), {"request_no_context_takeover": True}, offer("client_no_context_takeover")),
    (
        offer("client_max_window_bits", "server_max_window_bits=9", "server_no_context_takeover"),
        {"request_max_window_bits": 9, "request_no_context_takeover": True},
        offer(
            "server_no_context_takeover",
            "server_max_window_bits=9",
            "client_no_context_takeover",
            "client_max_window_bits=9",
        ),
    ),
    # how it may be written
    ("PerMessage-Deflate ;Server_Max_Window_Bits = 12", {}, offer("server_max_window_bits=12")),
    ('permessage-deflate;server_max_window_bits="12"', {}, offer("server_max_window_bits=12")),
    ('permessage-deflate;server_max_window_bits="1\\2"', {}, offer("server_max_window_bits=12")),
    ("  permessage-deflate\t", {}, NAME),
]


@pytest.mark.parametrize(("header", "settings", "expected"), ANSWERS)
def test_one_offer(header: str, settings: dict[str, Any], expected: str | None) -> None:
    assert answer(header, Settings(**settings)) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "permessage-deflat",
        "permessage-deflate2",
        "x-webkit-deflate-frame",
        offer("x"),
        offer("x=1"),
        offer("server_no_context_takeover=1"),
        offer('server_no_context_takeover=""'),
        offer("client_no_context_takeover=true"),
        offer("server_max_window_bits"),
        offer("server_max_window_bits="),
        offer("server_max_window_bits=7"),
        offer("server_max_window_bits=16"),
        offer("server_max_window_bits=09"),
        offer("server_max_window_bits=+9"),
        offer("server_max_window_bits=9.0"),
        offer("server_max_window_bits=\u0661\u0662"),
        offer("client_max_window_bits=7"),
        offer('client_max_window_bits=""'),
        offer("client_max_window_bits=010"),
        offer("client_max_window_bits", "client_max_window_bits"),
        offer("server_no_context_takeover", "Server_No_Context_Takeover"),
        offer("server_max_window_bits=10", "server_max_window_bits=11"),
        offer(""),
        "permessage-deflate;",
        "permessage-deflate;;client_max_window_bits",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate=1",
        'permessage-deflate; client_max_window_bits="10',
        'permessage-deflate; client_max_window_bits="10"0',
        'permessage-deflate; client_max_window_bits=10"',
        'permessage-deflate; "client_max_window_bits"',
        '"permessage-deflate"',
    ],
)
def test_what_is_declined(header: str) -> None:
    assert answer(header) is None
    assert answer(f"{header}, {offer('server_max_window_bits=11')}") in (None, offer("server_max_window_bits=11"))


# --- several of them -----------------------------------------------------------------------------------------------


def test_the_first_offer_that_can_be_taken() -> None:
    first, second = offer("server_max_window_bits=10"), offer("server_max_window_bits=11")
    for declined in (offer("unknown"), offer("server_max_window_bits=8"), "x-other; a=1", offer('x="a, b; c"'), ""):
        assert answer(f"{declined}, {first}, {second}") == first
    assert answer(f"{second},{first}") == second
    assert answer(f"{offer()}, {offer('client_max_window_bits')}", Settings(request_max_window_bits=9)) == offer(
        "client_max_window_bits=9"
    )


def test_a_comma_in_a_quoted_value_is_none_between_offers() -> None:
    assert answer('other; x=", permessage-deflate, "') is None
    assert answer('other; x="\\", permessage-deflate, "') is None
    assert answer('other; x="\\\\", permessage-deflate, ') == NAME


def test_a_quotation_without_an_end_takes_the_rest() -> None:
    assert answer(f'other; x="a, {NAME}') is None
    assert answer(f'{NAME}, other; x="a, b') == NAME


def test_hostile_headers_take_no_time() -> None:
    """Of a quadratic search each of these would take minutes."""
    size = 1 << 20
    for unit in ('"', '"\\', '\\"', ";", '";"', ","):
        assert answer(unit * size) is None
    assert answer(f"{NAME};" + "a;" * size) is None
    assert answer(f"{NAME}; x," * 10_000 + NAME) == NAME


# --- what is agreed ------------------------------------------------------------------------------------------------


def test_what_is_agreed() -> None:
    assert agreement(offer()) == (15, False, 15, False)
    assert agreement(offer("client_no_context_takeover", "client_max_window_bits=10")) == (15, False, 15, False)
    assert agreement(offer("server_no_context_takeover", "server_max_window_bits=9")) == (15, False, 9, True)
    assert agreement(offer("client_max_window_bits=8"), request_max_window_bits=12) == (9, False, 15, False)
    assert agreement(offer("client_max_window_bits"), request_max_window_bits=12, request_no_context_takeover=True) == (
        12,
        True,
        15,
        False,
    )
    agreed = negotiate(offer(), Settings(memory_level=3), PLENTY)
    assert agreed is not None
    assert agreed.mem_level == 3


BITS = ["", *(str(bits) for bits in range(9, 16))]


def every_offer() -> list[str]:
    """All that a client can offer."""
    server = ["", *(f"server_max_window_bits={bits}" for bits in range(9, 16))]
    client = ["", "client_max_window_bits", *(f"client_max_window_bits={bits}" for bits in (9, 12, 15))]
    reset = ["", "server_no_context_takeover"], ["", "client_no_context_takeover"]
    return [offer(*filter(None, parameters)) for parameters in product(server, client, *reset)]


SETTINGS = [
    Settings(*values) for values in product((False, True), (0, 9, 12, 15), (False, True), (9, 12, 15))
]


def accepted_by_autobahn(header: str, response: str) -> PerMessageDeflate:
    """What autobahn's client makes of the answer to its offer."""
    ((name, parameters),) = WebSocketProtocol._parseExtensionsHeader(None, response)
    assert name == NAME
    parsed = PerMessageDeflateResponse.parse(parameters)
    return PerMessageDeflate.create_from_response_accept(False, PerMessageDeflateResponseAccept(parsed))


def accepted_by_crossbar(header: str, settings: Settings) -> str | None:
    """What autobahn's server answers as Crossbar.io sets it up; None: declined. ValueError: the handshake fails."""
    ((_, parameters),) = WebSocketProtocol._parseExtensionsHeader(None, header)
    parsed = PerMessageDeflateOffer.parse(parameters)
    if settings.request_max_window_bits and not parsed.accept_max_window_bits:
        return None
    try:
        accept = PerMessageDeflateOfferAccept(
            parsed,
            request_max_window_bits=settings.request_max_window_bits,
            request_no_context_takeover=settings.request_no_context_takeover,
            no_context_takeover=settings.no_context_takeover or None,
            window_bits=settings.max_window_bits,
            mem_level=settings.memory_level,
        )
    except Exception as error:
        raise ValueError(str(error)) from error
    return str(accept.get_extension_string())


@pytest.mark.parametrize("settings", SETTINGS)
def test_both_ends_mean_the_same(settings: Settings) -> None:
    """Autobahn's client takes every answer and works with what we work with; or a smaller window of its own."""
    for header in every_offer():
        agreed = negotiate(header, settings, PLENTY)
        if agreed is None:
            assert settings.request_max_window_bits
            assert "client_max_window_bits" not in header
            continue
        client = accepted_by_autobahn(header, agreed.response)
        assert client.server_no_context_takeover == agreed.deflate_reset
        assert client.client_no_context_takeover == agreed.inflate_reset
        assert client.server_max_window_bits == agreed.deflate_bits
        assert client.client_max_window_bits == agreed.inflate_bits


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_same_offers_are_taken_as_by_crossbar(settings: Settings) -> None:
    """And where Crossbar.io fails, because the client asks for less than it is set to, the client gets that."""
    for header in every_offer():
        agreed = negotiate(header, settings, PLENTY)
        try:
            theirs = accepted_by_crossbar(header, settings)
        except ValueError:
            assert agreed is not None
            continue
        assert (agreed is None) == (theirs is None)


def websockets_client(header: str) -> tuple[ClientPerMessageDeflateFactory, list[tuple[str, str | None]]]:
    """A client of another implementation that makes this offer."""
    ((_, parameters),) = parse_extension(header)
    given = dict(parameters)
    client_bits = given.get("client_max_window_bits", "")
    factory = ClientPerMessageDeflateFactory(
        server_no_context_takeover="server_no_context_takeover" in given,
        client_no_context_takeover="client_no_context_takeover" in given,
        server_max_window_bits=int(given["server_max_window_bits"] or 0) if "server_max_window_bits" in given else None,
        client_max_window_bits=None if client_bits == "" else True if client_bits is None else int(client_bits),
    )
    return factory, factory.get_request_params()


def test_another_client_takes_the_answers() -> None:
    refused = []
    for header, settings in product(every_offer(), SETTINGS):
        factory, parameters = websockets_client(header)
        written = build_extension([(NAME, parameters)])
        agreed = negotiate(written, settings, PLENTY)
        if agreed is None:
            continue
        ((_, answered),) = parse_extension(agreed.response)
        try:
            factory.process_response_params(answered, [])
        except NegotiationError as error:
            refused.append((header, agreed.response, str(error)))
    assert refused == []


# --- memory --------------------------------------------------------------------------------------------------------


def test_memory_of_an_agreement() -> None:
    def memory(*values: Any) -> int:
        return Agreement("", *values).memory

    assert memory(15, False, 15, False, 8) == (268 + 44) * 1024
    assert memory(15, True, 15, False, 8) == stream_memory(15, 8) == 268 * 1024
    assert memory(15, False, 15, True, 8) == stream_memory(15) == 44 * 1024
    assert memory(15, True, 15, True, 8) == 0
    assert memory(9, False, 9, False, 1) < 32 * 1024


def test_an_offer_that_costs_less_may_follow() -> None:
    cheap = offer("server_no_context_takeover")
    memory = stream_memory(15)
    assert answer(f"{offer()}, {cheap}", DEFAULT, memory) == cheap
    assert answer(f"{offer()}, {cheap}", DEFAULT, memory - 1) is None
    assert answer(offer(), Settings(request_no_context_takeover=True, no_context_takeover=True), 0) is not None
