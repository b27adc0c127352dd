"""Nobody learns from the proxy who there is: what a stranger is asked and told is what a principal is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.attacks import CHALLENGED, FAILED, Stage, prover_of, stages
from support.principals import PRINCIPALS
from support.raw import AUTHENTICATE


@pytest.fixture(scope="module")
def make_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Stage]]:
    """Start one more proxy of the same configuration."""
    with stages(tmp_path_factory.mktemp("strangers")) as make:
        yield make


@pytest.fixture(scope="module")
def stage(make_stage: Callable[[], Stage]) -> Stage:
    """The first of them."""
    return make_stage()


def _shape(value: Any) -> Any:
    """What a value looks like, without what it is."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    return type(value).__name__


def _trace(stage: Stage, what: str, authid: str) -> list[Any]:
    """What somebody sees who tries to guess."""
    prover = prover_of(what, right=False)
    prover.authid = authid
    peer = stage.dial("rawsocket", "json")
    _, extra = stage.ask(peer, what, prover=prover)
    if isinstance(extra.get("challenge"), str) and extra["challenge"].startswith("{"):
        extra = {**extra, "challenge": json.loads(extra["challenge"])}
    peer.send([AUTHENTICATE, "AAAA", {}])
    return [extra, peer.recv_end()[0]]


def _lasting(extra: dict[str, Any]) -> dict[str, Any]:
    """What of a challenge is the same each time."""
    return {key: value for key, value in extra.items() if key not in ("challenge", "nonce")}


@pytest.mark.parametrize("what", CHALLENGED)
def test_nobody_learns_who_there_is(what: str, stage: Stage) -> None:
    """Messages, rounds and keys are those of a principal that exists, and a made-up challenge is as stable."""
    method = PRINCIPALS[what].method
    known = [_trace(stage, name, item.authid) for name, item in PRINCIPALS.items() if item.method == method]
    for authid in ("nobody", "somebody", "é" * 50, "a", "b", "c", "d"):
        extra, messages = _trace(stage, what, authid)
        assert _shape(extra) in [_shape(one) for one, _ in known]
        assert all(messages == others for _, others in known)
        assert _lasting(_trace(stage, what, authid)[0]) == _lasting(extra)
        if "salt" in extra:
            assert len(extra["salt"]) in [len(one["salt"]) for one, _ in known if "salt" in one]
    assert messages[0][2] == FAILED
    assert messages[0][1] == {"message": "authentication failed"}


@pytest.mark.parametrize("what", ["wampcra", "scram-argon2id"])
def test_nobody_learns_it_from_a_restart(what: str, stage: Stage, make_stage: Callable[[], Stage]) -> None:
    """Another process with the same configuration asks nobody something else than before."""
    authids = ("nobody", "somebody", "a", "b")
    before = [_lasting(_trace(stage, what, authid)[0]) for authid in authids]
    again = make_stage()
    assert [_lasting(_trace(again, what, authid)[0]) for authid in authids] == before
    again.proxy.stop()
