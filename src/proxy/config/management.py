"""The key ``management``: where a worker that runs without a node offers its management API."""

import os
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, model_validator

from proxy.config.connections import BackendTransport
from proxy.config.credentials import ascii_authid, private_key
from proxy.config.fields import ENV_PATTERN, StrictModel, Text, UnixPath, integer, problem
from proxy.config.unix_files import FileMode

__all__ = [
    "ManagementAnonymous",
    "ManagementAuth",
    "ManagementConfig",
    "ManagementCryptosign",
    "ManagementScram",
    "ManagementTicket",
    "ManagementTransport",
    "ManagementWampCra",
]

REALM_DEFAULT: Final = "crossbar"


def _from_environment(value: str) -> str:
    """What an environment variable holds, where the value names one: ``${NAME}`` or ``$NAME``."""
    match = ENV_PATTERN.fullmatch(value)
    if match is None:
        return value
    name = match[1] or match[2]
    if not os.environ.get(name):
        raise problem("environment variable {name} is not set, or empty", name=name)
    return os.environ[name]


def _seconds(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.1 <= value <= 3600:
        raise problem("expected a number from 0.1 to 3600 (seconds)")
    return value


def _factor(low: float, high: float) -> BeforeValidator:
    def check(value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise problem(f"expected a number from {low} to {high}")
        return value

    return BeforeValidator(check)


Secret = Annotated[Text, AfterValidator(_from_environment)]
"""Text, or ``${NAME}`` of an environment variable that holds it. Never shown."""

_Seconds = Annotated[float, BeforeValidator(_seconds)]


class ManagementTransport(BackendTransport):
    """How to reach the router of a management realm: the keys of a connection's ``transport``, and when to try again.

    :ivar max_retries: attempts in a row that may fail before it is given up; -1: any number.
    :ivar initial_retry_delay: before the second attempt, seconds.
    :ivar max_retry_delay: the longest delay, seconds.
    :ivar retry_delay_growth: factor from one delay to the next.
    :ivar retry_delay_jitter: standard deviation of a delay, as a part of it.
    """

    max_retries: Annotated[int, integer(-1, 1_000_000)] = -1
    initial_retry_delay: _Seconds = 1.5
    max_retry_delay: _Seconds = 60.0
    retry_delay_growth: Annotated[float, _factor(1, 10)] = 1.5
    retry_delay_jitter: Annotated[float, _factor(0, 1)] = 0.1


class ManagementAnonymous(StrictModel):
    """Anonymous login, at which a router may be asked for an identity.

    :ivar authid: None: the router's choice.
    :ivar authrole: likewise.
    :ivar authextra: what the router's authentication wants to know besides.
    """

    authid: Text | None = None
    authrole: Text | None = None
    authextra: dict[StrictStr, Any] = Field(default_factory=dict, repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords for autobahn's authenticator of this method."""
        return {key: value for key, value in self.model_dump().items() if value not in (None, {})}


class ManagementTicket(ManagementAnonymous):
    """WAMP-Ticket."""

    authid: Text
    ticket: Secret = Field(repr=False)


class ManagementWampCra(ManagementAnonymous):
    """WAMP-CRA; the router says what the secret is salted with."""

    authid: Text
    secret: Secret = Field(repr=False)


class ManagementScram(ManagementAnonymous):
    """WAMP-SCRAM; the router says how the key is derived."""

    authid: Annotated[Text, AfterValidator(ascii_authid)]
    password: Secret = Field(repr=False)


class ManagementCryptosign(ManagementAnonymous):
    """WAMP-Cryptosign; the public key is enough of an identity for some routers."""

    privkey: Annotated[Secret, AfterValidator(private_key)] = Field(repr=False)


class ManagementAuth(StrictModel):
    """How to log in: methods by name, of which the router takes one. Without any: anonymous."""

    anonymous: ManagementAnonymous | None = None
    ticket: ManagementTicket | None = None
    wampcra: ManagementWampCra | None = None
    scram: ManagementScram | None = None
    cryptosign: ManagementCryptosign | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_is_meant(cls, data: Any) -> Any:
        """``anonymous`` has nothing that must be said: in YAML it is natural to leave the value out."""
        if isinstance(data, dict) and data.get("anonymous", ...) is None:
            return {**data, "anonymous": {}}
        return data

    @model_validator(mode="after")
    def _one_identity(self) -> "ManagementAuth":
        """HELLO has room for one identity, whatever the methods."""
        methods = self.methods
        for key in ("authid", "authrole"):
            if len({getattr(method, key) for method in methods.values()}) > 1:
                raise problem(f"expected the same {key} in all of {', '.join(methods)}")
        return self

    @property
    def methods(self) -> dict[str, ManagementAnonymous]:
        """What was given, by name of the method."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in found.items() if value is not None} or {
            "anonymous": ManagementAnonymous()
        }


class ManagementConfig(StrictModel):
    """Either a Unix socket with a management realm of the worker's own, or a router whose management realm is joined.

    :ivar path: of the Unix socket; absolute once loaded from a file.
    :ivar mode: of its file. Who may write may do everything.
    :ivar transport: of the router.
    :ivar realm: there.
    :ivar auth: how to log in there; None: anonymous.
    """

    path: UnixPath | None = None
    mode: FileMode = 0o600
    transport: ManagementTransport | None = None
    realm: Text = REALM_DEFAULT
    auth: ManagementAuth | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "ManagementConfig":
        given = self.model_fields_set
        if (self.path is None) == (self.transport is None):
            raise problem("expected either path (a Unix socket) or transport (the way to a router)")
        beside = ("realm", "auth") if self.path is not None else ("mode",)
        for key in beside:
            if key in given:
                raise problem(f"expected nothing here: it goes with {'transport' if self.path else 'path'}", key)
        return self
