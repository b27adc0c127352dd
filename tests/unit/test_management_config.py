"""The key ``management``: what it may be, and what is said of what it may not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError, check, load
from proxy.config.management import ManagementConfig
from proxy.config.redaction import redacted

TRANSPORT = {"type": "websocket", "url": "ws://router.example:8080/ws"}


def write(folder: Path, management: Any) -> Path:
    path = folder / "proxy.json"
    path.write_text(json.dumps({"type": "proxy", "management": management}))
    return path


def loaded(folder: Path, management: Any) -> ManagementConfig:
    found = load(write(folder, management)).config.management
    assert found is not None
    return found


def errors(folder: Path, management: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, management))
    return str(caught.value)


def test_there_is_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert load(write(tmp_path, None)).config.management is None
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps({"type": "proxy"}))
    assert load(path).config.management is None


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    assert loaded(tmp_path, {"path": "m.sock"}).path == str(tmp_path / "m.sock")
    assert loaded(tmp_path, {"path": "$RUNTIME_DIRECTORY/m.sock"}).path == str(tmp_path / "run" / "m.sock")
    assert loaded(tmp_path, {"path": "/run/m.sock"}).mode == 0o600


@pytest.mark.parametrize(
    ("given", "mode"), [("0660", 0o660), ("660", 0o660), ("0o640", 0o640), (0o666, 0o666), ("0600", 0o600)]
)
def test_modes(given: object, mode: int, tmp_path: Path) -> None:
    assert loaded(tmp_path, {"path": "m.sock", "mode": given}).mode == mode


@pytest.mark.parametrize(
    "given",
    ["rw-rw----", "0770", "0060", "0400", "1660", "06600", "", 660, 600, 440, -1, 0, True, 1.5, [], None, "٦٦٠"],
)
def test_modes_that_are_none(given: object, tmp_path: Path) -> None:
    text = errors(tmp_path, {"path": "m.sock", "mode": given})
    assert "management.mode" in text
    assert 'octal, like "0660"' in text


def test_a_router(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"transport": TRANSPORT})
    assert config.realm == "crossbar"
    assert config.auth is None
    assert config.transport is not None
    assert (config.transport.endpoint.host, config.transport.endpoint.port) == ("router.example", 8080)
    assert config.transport.max_retries == -1
    config = loaded(tmp_path, {"transport": TRANSPORT, "realm": "com.example.ops", "auth": {"anonymous": None}})
    assert config.realm == "com.example.ops"
    assert list(config.auth.methods) == ["anonymous"]
    assert check(write(tmp_path, {"transport": {**TRANSPORT, "max_retries": 3, "retry_delay_growth": 2}}))[1:] == []


@pytest.mark.parametrize(
    ("management", "place", "expected"),
    [
        ({}, "management", "either path"),
        ([], "management", "mapping"),
        ("m.sock", "management", "mapping"),
        ({"path": "m.sock", "transport": TRANSPORT}, "management", "either path"),
        ({"path": "m.sock", "realm": "crossbar"}, "management.realm", "goes with transport"),
        ({"path": "m.sock", "auth": {}}, "management.auth", "goes with transport"),
        ({"transport": TRANSPORT, "mode": "0600"}, "management.mode", "goes with path"),
        ({"path": ""}, "management.path", "path of a Unix socket"),
        ({"path": "x" * 200}, "management.path", "at most 107 octets"),
        ({"socket": "m.sock"}, "management.socket", "unknown key"),
        ({"transport": {}}, "management.transport.url", "required key is missing"),
        ({"transport": {"url": "wss://unix:/a"}}, "management.transport.endpoint.tls.hostname", "Unix socket has none"),
        ({"transport": TRANSPORT, "realm": ""}, "management.realm", "not empty"),
        ({"transport": {**TRANSPORT, "max_retry_delay": 0}}, "management.transport.max_retry_delay", "0.1 to 3600"),
        ({"transport": {**TRANSPORT, "retry_delay_growth": 0.5}}, "management.transport.retry_delay_growth", "1 to 10"),
        ({"transport": TRANSPORT, "auth": {"password": {}}}, "management.auth.password", "unknown key"),
        ({"transport": TRANSPORT, "auth": {"ticket": {"ticket": "x"}}}, "management.auth.ticket.authid", "missing"),
        ({"transport": TRANSPORT, "auth": {"wampcra": {"authid": "a"}}}, "management.auth.wampcra.secret", "missing"),
        ({"transport": TRANSPORT, "auth": {"anonymous": {"key": 1}}}, "management.auth.anonymous.key", "unknown key"),
        (
            {"transport": TRANSPORT, "auth": {"scram": {"authid": "jürgen", "password": "x"}}},
            "management.auth.scram.authid",
            "printable ASCII",
        ),
        (
            {
                "transport": TRANSPORT,
                "auth": {"ticket": {"authid": "a", "ticket": "x"}, "wampcra": {"authid": "b", "secret": "y"}},
            },
            "management.auth",
            "the same authid in all of ticket, wampcra",
        ),
    ],
)
def test_what_it_may_not_be(management: Any, place: str, expected: str, tmp_path: Path) -> None:
    text = errors(tmp_path, management)
    assert place in text
    assert expected in text


# --- secrets ---

SECRETS = {
    "ticket": {"authid": "a", "ticket": "hush"},
    "wampcra": {"authid": "a", "secret": "hush"},
    "scram": {"authid": "a", "password": "hush"},
    "cryptosign": {"authid": "a", "privkey": "5f" * 32},
}


@pytest.mark.parametrize("method", sorted(SECRETS))
def test_secrets_may_come_from_the_environment(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = list(SECRETS[method])[1]
    for reference in ("${MY_SECRET}", "$MY_SECRET"):
        monkeypatch.delenv("MY_SECRET", raising=False)
        management = {"transport": TRANSPORT, "auth": {method: {"authid": "a", key: reference}}}
        text = errors(tmp_path, management)
        assert f"management.auth.{method}.{key}" in text
        assert "MY_SECRET is not set" in text
        monkeypatch.setenv("MY_SECRET", SECRETS[method][key])
        auth = loaded(tmp_path, management).auth
        assert auth is not None
        assert auth.methods[method].arguments[key] == SECRETS[method][key]


@pytest.mark.parametrize("method", sorted(SECRETS))
def test_secrets_are_never_shown(method: str, tmp_path: Path) -> None:
    key, secret = list(SECRETS[method].items())[1]
    management = {"transport": TRANSPORT, "auth": {method: SECRETS[method]}}
    assert secret not in repr(loaded(tmp_path, management))
    assert secret not in json.dumps(redacted(management))
    management["auth"] = {method: {**SECRETS[method], key: [secret]}}
    assert secret not in errors(tmp_path, management)
    management["auth"] = {method: {**SECRETS[method], key: f"{secret}\0"}, "other": 1}
    assert secret not in errors(tmp_path, management)


def test_a_private_key_has_its_length(tmp_path: Path) -> None:
    text = errors(tmp_path, {"transport": TRANSPORT, "auth": {"cryptosign": {"privkey": "5f" * 31}}})
    assert "64 hexadecimal digits" in text
    assert "5f5f" not in text
