"""Limits on logins by address: at a time, and on failures."""

import pytest
from twisted.internet.task import Clock

from proxy import login_limits
from proxy.config import Limits
from proxy.login_limits import LoginLimits, address_of

PEER = "tcp4:192.0.2.7:4711"
FAILED = "wamp.error.authentication_failed"


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("tcp4:192.0.2.7:4711", "192.0.2.7"),
        ("tcp6:2001:db8:1:2:3:4:5:6:4711", "2001:db8:1:2::/64"),
        ("tcp6:::1:80", "::/64"),
        ("tcp6:::ffff:192.0.2.7:80", "192.0.2.7"),
        ("tcp6:fe80::1%eth0:80", "fe80::/64"),
        ("unix", None),
        ("unix:/run/x.sock", None),
    ],
)
def test_what_counts_as_one_address(peer, address):
    assert address_of(peer) == address


def test_without_limits_everybody_may(clock):
    limits = LoginLimits(Limits(), clock)
    for _ in range(1000):
        assert limits.enter(PEER) is None
        limits.failed(PEER)
    assert limits.blocked(PEER) is None


def test_failures_of_an_address_block_it_until_the_window_is_over(clock):
    limits = LoginLimits(Limits(max_failures_per_address=3, failure_window=5000), clock)
    for _ in range(3):
        assert limits.enter(PEER) is None
        limits.failed(PEER, FAILED)
        clock.advance(1)
    refusal = limits.enter("tcp4:192.0.2.7:9")
    assert refusal.reason == "wamp.error.authentication_denied"
    assert limits.blocked(PEER) == refusal
    assert limits.enter("tcp4:192.0.2.8:4711") is None
    assert limits.enter("unix") is None
    clock.advance(1.9)
    assert limits.enter(PEER) is not None
    clock.advance(0.1)
    assert limits.enter(PEER) is None


@pytest.mark.parametrize("reason", ["wamp.error.no_auth_method", "wamp.error.no_such_realm", "wamp.error.unavailable"])
def test_what_says_nothing_of_the_client_is_no_failure(clock, reason):
    limits = LoginLimits(Limits(max_failures_per_address=1), clock)
    limits.failed(PEER, reason)
    assert limits.enter(PEER) is None


def test_logins_of_an_address_at_a_time(clock):
    limits = LoginLimits(Limits(max_logins_per_address=2), clock)
    assert limits.enter(PEER) is None
    assert limits.enter(PEER) is None
    assert limits.enter(PEER).reason == "wamp.error.unavailable"
    assert limits.enter("tcp4:192.0.2.8:1") is None
    limits.leave(PEER)
    assert limits.enter(PEER) is None
    for _ in range(2):
        limits.leave(PEER)
    limits.leave("tcp4:192.0.2.8:1")
    assert not limits._under_way


def test_failures_of_many_addresses_take_bounded_memory(clock, monkeypatch):
    monkeypatch.setattr(login_limits, "ADDRESSES_MAX", 10)
    limits = LoginLimits(Limits(max_failures_per_address=1), clock)
    for number in range(30):
        limits.failed(f"tcp4:10.0.0.{number}:1")
    assert len(limits._failed) == 10
    assert limits.enter("tcp4:10.0.0.29:1") is not None
