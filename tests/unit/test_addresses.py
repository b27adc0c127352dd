"""Addresses of backends: literals, names, the cache, deadlines."""

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from proxy import addresses
from proxy.addresses import Address, ResolveError, Resolver
from proxy.config import BackendTcp, BackendUnix


class Reactor(Clock):
    """A clock, and a name resolver that answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = self
        self.asked: list[tuple[Any, str, Any]] = []

    def resolveHostName(self, receiver: Any, name: str, port: int, types: Any, semantics: str) -> object:
        assert (port, semantics) == (0, "TCP")
        self.asked.append((receiver, name, types))
        receiver.resolutionBegan(None)
        return None

    def answer(self, *found: str, index: int = -1) -> None:
        receiver = self.asked[index][0]
        for host in found:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, 0))
        receiver.resolutionComplete()


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def resolver(reactor: Reactor) -> Resolver:
    return Resolver(reactor)


def tcp(host: str, port: int = 8080, **more: Any) -> BackendTcp:
    return BackendTcp(type="tcp", host=host, port=port, **more)


class Outcome:
    """What a Deferred came to."""

    def __init__(self, deferred: Deferred[list[Address]]) -> None:
        self.addresses: list[Address] | None = None
        self.error: Exception | None = None
        deferred.addCallbacks(self._good, self._bad)

    def _good(self, found: list[Address]) -> None:
        self.addresses = found

    def _bad(self, failure: Any) -> None:
        self.error = failure.value

    @property
    def hosts(self) -> list[str]:
        assert self.addresses is not None, self.error
        return [address.host for address in self.addresses]


def test_unix_paths_need_no_lookup(resolver: Resolver, reactor: Reactor) -> None:
    outcome = Outcome(resolver.resolve(BackendUnix(type="unix", path="/run/router.sock")))
    assert outcome.addresses == [Address(path="/run/router.sock")]
    assert outcome.addresses[0].is_unix
    assert str(outcome.addresses[0]) == "unix:/run/router.sock"
    assert not reactor.asked


@pytest.mark.parametrize(
    ("host", "version", "expected", "text"),
    [
        ("127.0.0.1", 4, "127.0.0.1", "127.0.0.1:8080"),
        ("127.0.0.1", None, "127.0.0.1", "127.0.0.1:8080"),
        ("::1", 6, "::1", "[::1]:8080"),
        ("[::1]", None, "::1", "[::1]:8080"),
        ("fe80::1%eth0", None, "fe80::1%eth0", "[fe80::1%eth0]:8080"),
    ],
)
def test_literals_need_no_lookup(
    resolver: Resolver, reactor: Reactor, host: str, version: int | None, expected: str, text: str
) -> None:
    outcome = Outcome(resolver.resolve(tcp(host, version=version)))
    assert outcome.addresses == [Address(expected, 8080)]
    assert not outcome.addresses[0].is_unix
    assert str(outcome.addresses[0]) == text
    assert not reactor.asked


@pytest.mark.parametrize(("host", "version"), [("127.0.0.1", 6), ("::1", 4)])
def test_a_literal_of_the_other_version_is_an_error(resolver: Resolver, host: str, version: int) -> None:
    assert "version" in str(Outcome(resolver.resolve(tcp(host, version=version))).error)


def test_a_name_is_looked_up_once_for_all_and_kept_for_a_while(resolver: Resolver, reactor: Reactor) -> None:
    outcomes = [Outcome(resolver.resolve(tcp("Router.Example", port))) for port in (1, 2)]
    assert [outcome.addresses for outcome in outcomes] == [None, None]
    reactor.answer("10.0.0.2", "fd00::2", "10.0.0.2")
    assert outcomes[0].addresses == [Address("10.0.0.2", 1), Address("fd00::2", 1)]
    assert outcomes[1].addresses == [Address("10.0.0.2", 2), Address("fd00::2", 2)]
    assert Outcome(resolver.resolve(tcp("router.example", 3))).addresses == [
        Address("10.0.0.2", 3),
        Address("fd00::2", 3),
    ]
    assert len(reactor.asked) == 1
    reactor.advance(addresses.TTL_SECONDS)
    late = Outcome(resolver.resolve(tcp("router.example")))
    assert len(reactor.asked) == 2
    reactor.answer("10.0.0.3")
    assert late.hosts == ["10.0.0.3"]
    assert not reactor.getDelayedCalls()


def test_a_caller_cannot_change_what_the_next_one_gets(resolver: Resolver, reactor: Reactor) -> None:
    first = Outcome(resolver.resolve(tcp("router")))
    reactor.answer("10.0.0.2")
    assert first.addresses is not None
    first.addresses.clear()
    assert Outcome(resolver.resolve(tcp("router"))).hosts == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("version", "types"), [(4, {IPv4Address}), (6, {IPv6Address}), (None, {IPv4Address, IPv6Address})]
)
def test_the_ip_version_limits_the_question(
    resolver: Resolver, reactor: Reactor, version: int | None, types: set[type]
) -> None:
    resolver.resolve(tcp("router", version=version))
    assert set(reactor.asked[0][2]) == types


def test_versions_do_not_share_answers(resolver: Resolver, reactor: Reactor) -> None:
    four, six = Outcome(resolver.resolve(tcp("router", version=4))), Outcome(resolver.resolve(tcp("router", version=6)))
    reactor.answer("10.0.0.2", index=0)
    reactor.answer("fd00::2", index=1)
    assert (four.hosts, six.hosts) == (["10.0.0.2"], ["fd00::2"])


def test_scopes_are_kept_and_strange_addresses_are_not(resolver: Resolver, reactor: Reactor) -> None:
    outcome = Outcome(resolver.resolve(tcp("router")))
    receiver = reactor.asked[0][0]
    receiver.addressResolved(IPv6Address("TCP", "fe80::1", 0, 0, 3))
    receiver.addressResolved(UNIXAddress(b"/x"))
    receiver.resolutionComplete()
    assert outcome.hosts == ["fe80::1%3"]


def test_a_name_without_address_is_an_error_and_asked_again_soon(resolver: Resolver, reactor: Reactor) -> None:
    outcome = Outcome(resolver.resolve(tcp("nowhere", version=4)))
    reactor.answer()
    assert isinstance(outcome.error, ResolveError)
    assert str(outcome.error) == "'nowhere' has no IPv4 address"
    assert isinstance(Outcome(resolver.resolve(tcp("nowhere", version=4))).error, ResolveError)
    assert len(reactor.asked) == 1
    reactor.advance(addresses.FAILURE_TTL_SECONDS)
    again = Outcome(resolver.resolve(tcp("nowhere", version=4)))
    reactor.answer("10.0.0.9")
    assert again.hosts == ["10.0.0.9"]


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "ü" * 64])
def test_what_cannot_be_a_name_is_an_error_at_once(resolver: Resolver, reactor: Reactor, host: str) -> None:
    assert "is not a host name" in str(Outcome(resolver.resolve(tcp(host))).error)
    assert not reactor.asked


def test_a_lookup_that_hangs_ends_at_the_deadline_and_is_not_started_twice(
    resolver: Resolver, reactor: Reactor
) -> None:
    first = Outcome(resolver.resolve(tcp("slow")))
    reactor.advance(3)
    second = Outcome(resolver.resolve(tcp("slow", timeout=1)))
    reactor.advance(1)
    assert "no answer within 1 s" in str(second.error)
    assert first.error is None
    reactor.advance(1)
    assert "no answer within 5 s for the address of 'slow'" in str(first.error)
    assert len(reactor.asked) == 1
    third = Outcome(resolver.resolve(tcp("slow")))
    reactor.answer("10.0.0.4")
    assert third.hosts == ["10.0.0.4"]
    assert Outcome(resolver.resolve(tcp("slow"))).hosts == ["10.0.0.4"]


def test_a_lookup_that_never_ends_is_replaced_at_last(resolver: Resolver, reactor: Reactor) -> None:
    Outcome(resolver.resolve(tcp("dead")))
    reactor.advance(addresses.LOOKUP_SECONDS_MAX)
    outcome = Outcome(resolver.resolve(tcp("dead")))
    assert len(reactor.asked) == 2
    reactor.answer("10.0.0.5", index=0)  # the old one, after all
    assert outcome.addresses is None
    reactor.answer("10.0.0.6", index=1)
    assert outcome.hosts == ["10.0.0.6"]


def test_cancelling_leaves_the_others_alone(resolver: Resolver, reactor: Reactor) -> None:
    deferred = resolver.resolve(tcp("router"))
    cancelled, other = Outcome(deferred), Outcome(resolver.resolve(tcp("router")))
    deferred.cancel()
    assert isinstance(cancelled.error, CancelledError)
    reactor.answer("10.0.0.2")
    assert other.hosts == ["10.0.0.2"]
    assert not reactor.getDelayedCalls()


def test_one_answer_may_cancel_another_question(resolver: Resolver, reactor: Reactor) -> None:
    first, second = resolver.resolve(tcp("router")), resolver.resolve(tcp("router"))
    outcome = Outcome(second)
    first.addCallback(lambda _: second.cancel())
    reactor.answer("10.0.0.2")
    assert isinstance(outcome.error, CancelledError)


def test_the_cache_is_bounded(resolver: Resolver, reactor: Reactor) -> None:
    for number in range(addresses.CACHE_MAX + 1):
        resolver.resolve(tcp(f"router{number}"))
        reactor.answer("10.0.0.2")
    asked = len(reactor.asked)
    resolver.resolve(tcp(f"router{addresses.CACHE_MAX}"))
    assert len(reactor.asked) == asked
    resolver.resolve(tcp("router0"))
    assert len(reactor.asked) == asked + 1


def test_a_resolver_that_answers_at_once(reactor: Reactor) -> None:
    class Immediate(Reactor):
        def resolveHostName(self, receiver: Any, name: str, port: int, types: Any, semantics: str) -> object:
            super().resolveHostName(receiver, name, port, types, semantics)
            self.answer("10.0.0.7")
            return None

    immediate = Immediate()
    assert Outcome(Resolver(immediate).resolve(tcp("router"))).hosts == ["10.0.0.7"]
    assert not immediate.getDelayedCalls()
