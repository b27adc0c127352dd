"""How the proxy logs in at a router: the ``auth`` item of a connection, and what the connection permits."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, StrictStr, model_validator

from proxy.config.fields import Model, Secret, Text, problem
from proxy.config.findings import Finding, Place, finding

__all__ = [
    "Account",
    "AccountMethod",
    "AuthMode",
    "BackendAnonymous",
    "BackendAuth",
    "BackendCryptosign",
    "BackendScram",
    "BackendTicket",
    "BackendWampCra",
    "Permit",
    "ascii_authid",
    "private_key",
]

_PRIVATE_KEY = re.compile(r"[0-9A-Fa-f]{64}")

AuthMode: TypeAlias = Literal["cryptosign-proxy", "anonymous-proxy", "passthrough", "credential"]


def private_key(value: str) -> str:
    """Check for an Ed25519 key in hexadecimal digits."""
    if not _PRIVATE_KEY.fullmatch(value):
        raise problem("expected the 32 octets of an Ed25519 private key as 64 hexadecimal digits")
    return value


def ascii_authid(value: str) -> str:
    """Other characters would have to be prepared by RFC 4013, and routers sign ASCII only."""
    if value.isascii() and value.isprintable() and not set(value) & {",", "="}:
        return value
    raise problem("expected printable ASCII without , and =")


class AccountMethod(Model):
    """What a method of an account may have.

    :ivar authid: of the account; None: the router's choice.
    :ivar authrole: likewise.
    :ivar authextra: what the router's authentication wants to know besides.
    """

    type: Any = None
    authid: Text | None = None
    authrole: Text | None = None
    authextra: dict[StrictStr, Any] = Field(default_factory=dict, repr=False)


class BackendAnonymous(AccountMethod):
    """The proxy joins as an ordinary anonymous client; the router decides on authid and role."""


class BackendTicket(AccountMethod):
    """WAMP-Ticket."""

    authid: Text
    ticket: Secret = Field(repr=False)


class BackendWampCra(AccountMethod):
    """WAMP-CRA; the router says what the secret is salted with."""

    authid: Text
    secret: Secret = Field(repr=False)


class BackendScram(AccountMethod):
    """WAMP-SCRAM; the router says how the key is derived."""

    authid: Annotated[Text, AfterValidator(ascii_authid)]
    password: Secret = Field(repr=False)


class BackendCryptosign(AccountMethod):
    """WAMP-Cryptosign; the public key is enough of an identity for some routers."""

    privkey: Annotated[Secret, AfterValidator(private_key)] = Field(repr=False)


_ACCOUNT_METHODS = ("anonymous", "ticket", "wampcra", "scram", "cryptosign")
_BARE_METHODS = ("anonymous-proxy", "cryptosign-proxy", "anonymous", "passthrough")


class Account(Model):
    """An account of the proxy's own: methods by name, of which the router picks one."""

    anonymous: BackendAnonymous | None = None
    ticket: BackendTicket | None = None
    wampcra: BackendWampCra | None = None
    scram: BackendScram | None = None
    cryptosign: BackendCryptosign | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_is_meant(cls, data: Any) -> Any:
        """A method is chosen by its key: in YAML it is natural to leave the value out."""
        if not isinstance(data, Mapping):
            return data
        return {key: {} if value is None and key in _BARE_METHODS else value for key, value in data.items()}

    @model_validator(mode="after")
    def _one_identity(self) -> "Account":
        """HELLO has room for one identity, whatever the methods."""
        for key in ("authid", "authrole"):
            # A method without one goes with any.
            if len({value for item in self.methods.values() if (value := getattr(item, key)) is not None}) > 1:
                raise problem(f"expected the same {key} in all of {', '.join(self.methods)}")
        return self

    @property
    def methods(self) -> dict[str, AccountMethod]:
        """What was given, by name of the method, in the order in which the router is told."""
        found = {name: getattr(self, name) for name in reversed(_ACCOUNT_METHODS)}
        return {name: value for name, value in found.items() if value is not None}


class _RoleAccount(Account):
    """The account for one realm and role."""

    @model_validator(mode="after")
    def _any(self) -> "_RoleAccount":
        if not self.methods:
            raise problem(f"expected one of {', '.join(_ACCOUNT_METHODS)}")
        return self


class BackendAuth(Account):
    """How the proxy joins the router; the values of ``*-proxy`` are ignored, as in Crossbar.io, and so is the order.

    :ivar credentials: by realm and role of the routes: accounts that take the place of the one beside it.
    """

    cryptosign_proxy: Any = Field(default=None, alias="cryptosign-proxy")
    anonymous_proxy: Any = Field(default=None, alias="anonymous-proxy")
    passthrough: Any = None
    credentials: dict[Text, dict[Text, _RoleAccount]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _any(self) -> "BackendAuth":
        if self.passthrough is not None and len(self.given) > 1:
            others = ", ".join(name for name in self.given if name != "passthrough")
            raise problem(f"expected nothing beside it (got {others}): the router decides on logins", "passthrough")
        if not self.given:
            raise problem(
                "expected anonymous-proxy (Crossbar.io over a Unix socket), cryptosign-proxy (Crossbar.io), "
                f"passthrough, or an account at the router: one of {', '.join(_ACCOUNT_METHODS)}"
            )
        return self

    @property
    def given(self) -> list[str]:
        """Keys that were given, the one that goes first first."""
        proxied = {"cryptosign-proxy": self.cryptosign_proxy, "anonymous-proxy": self.anonymous_proxy}
        names = [name for name, value in (*proxied.items(), ("passthrough", self.passthrough)) if value is not None]
        return [*names, *self.methods, *(["credentials"] if any(self.credentials.values()) else [])]

    @property
    def mode(self) -> AuthMode:
        """How the proxy joins this router."""
        first: Any = self.given[0]
        mode: AuthMode = first if first in ("cryptosign-proxy", "anonymous-proxy", "passthrough") else "credential"
        return mode

    def account(self, realm: str, authrole: str) -> Account | None:
        """The account for logins to a realm, with a role of its routes; None: there is none."""
        return self.credentials.get(realm, {}).get(authrole) or (self if self.methods else None)

    def findings(self, place: Place) -> Iterator[Finding]:
        """Warn about keys that another one leaves without effect."""
        if self.mode == "credential":
            return
        for name in self.given[1:]:
            yield finding((*place, name), {}, f"has no effect: {self.given[0]} goes first", "warning")


def _some(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise problem("expected at least one pattern: to permit nothing, leave the connection out")
    return patterns


_Patterns: TypeAlias = Annotated[tuple[Text, ...], AfterValidator(_some)]


class Permit(Model):
    """What the proxy may ask for at a router, whatever routes, principals and authenticators say.

    :ivar realms: patterns (``*``, ``?``, ``[..]``, as of file names) of realms; None: all.
    :ivar roles: likewise of the roles that lead there.
    """

    realms: _Patterns | None = None
    roles: _Patterns | None = None

    def allows(self, realm: str, authrole: str) -> bool:
        """Whether a login to this realm with this role is permitted."""
        return _fits(self.realms, realm) and _fits(self.roles, authrole)


def _fits(patterns: tuple[str, ...] | None, name: str) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
