"""The frontend's authentication: choice of the method, and WAMP-Anonymous."""

import copy

import pytest

from proxy.auth import Accept, Attempt, Authentication, Deny
from proxy.auth.anonymous import random_authid
from proxy.config import AnonymousStatic, AuthConfig


def config(**item: object) -> AuthConfig:
    return AuthConfig(anonymous=AnonymousStatic(type="static", **item))


def accepted(auth: AuthConfig | None, realm: str | None = "realm1", **details: object) -> Accept:
    result = Authentication(auth).hello(Attempt(realm, details, {}))
    assert isinstance(result, Accept)
    return result


def test_without_configuration_everybody_is_anonymous() -> None:
    result = accepted(None, authid="root", authrole="admin", authmethods=["anonymous"])
    assert (result.realm, result.authrole, result.authmethod, result.authprovider) == (
        "realm1", "anonymous", "anonymous", "static",
    )  # fmt: skip
    assert result.authid not in ("", "root")


def test_configured_role_and_authid() -> None:
    result = accepted(config(role="public", authid="guest"), authid="root")
    assert (result.authrole, result.authid) == ("public", "guest")


def test_configured_realm_goes_before_the_one_asked_for() -> None:
    assert accepted(config(realm="fixed"), "realm1").realm == "fixed"
    assert accepted(config(realm="fixed"), None).realm == "fixed"


def test_no_realm_at_all_is_refused() -> None:
    result = Authentication(config()).hello(Attempt(None, {}, {}))
    assert isinstance(result, Deny)
    assert result.reason == "wamp.error.no_such_realm"


@pytest.mark.parametrize("methods", [None, [], ["anonymous"], ["x_unknown", "ticket", "anonymous"]])
def test_methods_that_are_unknown_or_not_configured_are_skipped(methods: list[str] | None) -> None:
    assert accepted(config(), authmethods=methods).authmethod == "anonymous"


@pytest.mark.parametrize(
    "methods", [["ticket"], ["wampcra", "x_unknown"], ["__class__", "model_config", "anonymous_proxy"]]
)
def test_no_method_fits(methods: list[str]) -> None:
    result = Authentication(config()).hello(Attempt("realm1", {"authmethods": methods}, {}))
    assert isinstance(result, Deny)
    assert result.reason == "wamp.error.no_auth_method"
    assert methods[0] in result.message
    assert "expected anonymous" in result.message


def test_a_transport_without_any_method_lets_nobody_in() -> None:
    assert isinstance(Authentication(AuthConfig()).hello(Attempt("realm1", {}, {})), Deny)


def test_the_refusal_stays_short_whatever_the_client_offers() -> None:
    result = Authentication(config()).hello(Attempt("realm1", {"authmethods": ["x" * 10_000] * 10_000}, {}))
    assert isinstance(result, Deny)
    assert len(result.message) < 1000


def test_authextra_is_passed_on_without_reserved_keys_and_nothing_is_changed() -> None:
    extra = {"app": {"a": [1]}, "transport": {"peer": "forged"}, "proxy_authrole": "trusted", "x_cb_node": "n", b"k": 1}
    details = {"authextra": extra, "roles": {"caller": {}}}
    before = copy.deepcopy(details)
    auth = config()
    result = accepted(auth, **details)
    assert result.authextra == {"app": {"a": [1]}}
    result.authextra["transport"] = {"peer": "real"}
    assert details == before
    assert accepted(auth, **details).authextra == {"app": {"a": [1]}}
    assert auth == config()


@pytest.mark.parametrize("extra", [None, {}])
def test_without_authextra_each_session_gets_a_dict_of_its_own(extra: dict[str, object] | None) -> None:
    one, two = accepted(None, authextra=extra), accepted(None, authextra=extra)
    assert one.authextra == two.authextra == {}
    assert one.authextra is not two.authextra


def test_authids_are_different_and_look_like_serial_numbers() -> None:
    ids = {random_authid() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(text) == 29 and text.replace("-", "").isalnum() and text.isupper() for text in ids)
