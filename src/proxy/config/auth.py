"""Authentication of clients: the ``auth`` item of a listening transport (keys and defaults as in Crossbar.io)."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictStr, model_validator

from proxy.config.fields import Model, Secret, Text, integer, one_of, problem, unsupported

__all__ = [
    "AUTHENTICATOR_ROLE",
    "BUILTIN_AUTH",
    "AnonymousStatic",
    "AuthConfig",
    "CookieAuth",
    "CryptosignPrincipal",
    "CryptosignStatic",
    "Dynamic",
    "Function",
    "PassThroughAuth",
    "PassThroughRule",
    "ScramPrincipal",
    "ScramStatic",
    "TicketPrincipal",
    "TicketStatic",
    "TlsPrincipal",
    "TlsStatic",
    "WampCraStatic",
    "WampCraUser",
    "is_relayable",
]

_FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_PROCEDURE = re.compile(r"[^\s.#]+(?:\.[^\s.#]+)*")
_PUBLIC_KEY = re.compile(r"(?:0x)?([0-9A-Fa-f]{64})")
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){19}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")


def _pattern(pattern: re.Pattern[str], text: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise problem(f"expected {text}")
        return value

    return AfterValidator(check)


def _public_key(value: str) -> str:
    match = _PUBLIC_KEY.fullmatch(value)
    if match is None:
        raise problem("expected the 32 octets of an Ed25519 public key as 64 hexadecimal digits")
    return match[1].lower()


def _hexadecimal(octets: int) -> AfterValidator:
    def check(value: str) -> str:
        if not _HEX.fullmatch(value) or (octets and len(value) != 2 * octets):
            raise problem(f"expected {octets or 'some'} octets as {2 * octets or 'pairs of'} hexadecimal digits")
        return value.lower()

    return AfterValidator(check)


_Procedure = Annotated[Text, _pattern(_PROCEDURE, "the URI of a procedure")]


class _Principal(Model):
    """What all principals may have.

    :ivar role: authrole, which chooses the route; None: the method's ``default-role``.
    :ivar realm: given to the client whatever it asked for; None: the one it asked for.
    :ivar authid: likewise; None: the name of the principal.
    :ivar extra: goes to the router as the client's authextra; None: what the client sent.
    """

    role: Text | None = None
    realm: Text | None = None
    authid: Text | None = None
    extra: dict[StrictStr, Any] | None = Field(default=None, repr=False)


class _Method(Model):
    default_role: Text | None = Field(default=None, alias="default-role")


class _Static(_Method):
    type: Literal["static"]


AUTHENTICATOR_ROLE = "authenticator"
"""Role of the route to an authenticator where ``authenticator-role`` is missing. (Crossbar.io has none then.)"""


class Dynamic(_Method):
    """Any method: a procedure decides, which is called over a session of the proxy's own.

    :ivar authenticator: URI of the procedure.
    :ivar authenticator_realm: where it is registered; None: the realm that the client asks for.
    :ivar authenticator_role: role of the route to it; None: :data:`AUTHENTICATOR_ROLE`.
    """

    type: Literal["dynamic"]
    authenticator: _Procedure
    authenticator_realm: Text | None = Field(default=None, alias="authenticator-realm")
    authenticator_role: Text | None = Field(default=None, alias="authenticator-role")


class Function(_Method):
    """Any method but ``anonymous``: a Python function of the worker decides.

    :ivar create: name of a function, with its module, that makes the authenticator.
    :ivar config: its first argument.
    :ivar expose_controller: whether its second argument is the worker's controller; else None.
    """

    type: Literal["function"]
    create: Annotated[StrictStr, _pattern(_FUNCTION, "the name of a function with its module, like package.create")]
    config: dict[StrictStr, Any] = Field(default_factory=dict, repr=False)
    expose_controller: StrictBool | None = None


class AnonymousStatic(Model):
    """Anonymous logins with a fixed role.

    :ivar realm: realm given to every client, whatever it asked for; None: the one it asked for.
    :ivar role: authrole, which chooses the route.
    :ivar authid: authid for every client; None: a random one each.
    """

    type: Literal["static"]
    realm: Text | None = None
    role: Text = "anonymous"
    authid: Text | None = None


class TicketPrincipal(_Principal):
    """``ticket``: the secret itself, or ``${NAME}`` of an environment variable that holds it."""

    ticket: Secret = Field(repr=False)


class TicketStatic(_Static):
    """``principals`` by authid."""

    principals: dict[StrictStr, TicketPrincipal]


class WampCraUser(_Principal):
    """A user of WAMP-CRA; salted if ``salt``, ``iterations`` and ``keylen`` are given.

    :ivar secret: as it is typed, or ``${NAME}`` of an environment variable; never the derived key.
    :ivar salt: for PBKDF2, as text.
    :ivar iterations: of PBKDF2.
    :ivar keylen: octets of the derived key.
    """

    secret: Secret = Field(repr=False)
    salt: Text | None = Field(default=None, repr=False)
    iterations: Annotated[int, integer(1, 10_000_000)] | None = None
    keylen: Annotated[int, integer(1, 1024, "octets")] | None = None

    @model_validator(mode="after")
    def _salted_or_not(self) -> "WampCraUser":
        given = [key for key in ("salt", "iterations", "keylen") if getattr(self, key) is not None]
        if given and len(given) < 3:
            missing = next(key for key in ("salt", "iterations", "keylen") if key not in given)
            raise problem(f"expected salt, iterations and keylen together: {missing} is missing", missing)
        return self


class WampCraStatic(_Static):
    """``users`` by authid."""

    users: dict[StrictStr, WampCraUser]


class ScramPrincipal(_Principal):
    """What a server needs to know of a principal; the password is not among it.

    :ivar kdf: key derivation function.
    :ivar iterations: of it; ``memory``: KiB, of argon2id-13 only.
    :ivar salt, stored_key, server_key: in hexadecimal digits; the keys are of 32 octets.
    """

    kdf: Annotated[Literal["argon2id-13", "pbkdf2"], one_of("argon2id-13", "pbkdf2")]
    iterations: Annotated[int, integer(1, 10_000_000)]
    memory: Annotated[int, integer(1, 4_194_304, "KiB")] | None = None
    salt: Annotated[StrictStr, _hexadecimal(0)] = Field(repr=False)
    stored_key: Annotated[StrictStr, _hexadecimal(32)] = Field(alias="stored-key", repr=False)
    server_key: Annotated[StrictStr, _hexadecimal(32)] = Field(alias="server-key", repr=False)

    @model_validator(mode="after")
    def _memory_for_argon2(self) -> "ScramPrincipal":
        if self.kdf == "argon2id-13" and self.memory is None:
            raise problem("expected an integer from 1 to 4194304 (KiB): required key is missing", "memory")
        return self


class ScramStatic(_Static):
    """``principals`` by authid."""

    principals: dict[StrictStr, ScramPrincipal]


class CryptosignPrincipal(_Principal):
    """``authorized_keys``: public keys in hexadecimal digits, any of which will do."""

    authorized_keys: tuple[Annotated[StrictStr, AfterValidator(_public_key)], ...]


class CryptosignStatic(_Static):
    """``principals`` by authid."""

    principals: dict[StrictStr, CryptosignPrincipal]
    trustroots: Annotated[None, unsupported("expected principals with authorized_keys")] = None


def _fingerprint(value: str) -> str:
    if not _FINGERPRINT.fullmatch(value):
        raise problem("expected the SHA-1 of a certificate: 20 octets in hexadecimal digits, with colons or without")
    return value.replace(":", "").upper()


class TlsPrincipal(_Principal):
    """``certificate-sha1``: fingerprint of the client's certificate."""

    certificate_sha1: Annotated[StrictStr, AfterValidator(_fingerprint)] = Field(alias="certificate-sha1")


class TlsStatic(_Static):
    """``principals`` by authid. A client need not name its own: the certificate does."""

    principals: dict[StrictStr, TlsPrincipal] = Field(default_factory=dict)


class CookieAuth(Model):
    """Whoever logged in before, with a cookie of this transport's, need not do it again."""

    type: Any = None


# Methods by which a router believes the connection that HELLO comes over; and that is the proxy's, not the client's.
_OF_THE_CONNECTION = frozenset({"tls", "cookie", "trusted"})


def is_relayable(authmethod: str) -> bool:
    """Whether a client's authmethod may be named to a router.

    Those of proxies (``anonymous-proxy``, ``cryptosign-proxy``) make a router believe whatever HELLO says, so that they
    are not the client's to use; neither are those that are about the connection.
    """
    name = authmethod.strip().lower()
    return not name.replace("_", "-").endswith("-proxy") and name not in _OF_THE_CONNECTION


def _relayable(value: str) -> str:
    if not is_relayable(value):
        raise problem("expected another authmethod: this one is about the connection, which is the proxy's own")
    return value


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise problem("expected at least one authmethod")
    return value


_LeftToRouter = Annotated[tuple[Annotated[Text, AfterValidator(_relayable)], ...], AfterValidator(_not_empty)]


class PassThroughRule(Model):
    """Which routers decide about some of the clients: all that is given must fit.

    :ivar realm: pattern of the realm asked for; ``*`` and ``?`` stand for any characters and any one.
    :ivar authid: likewise, of the authid announced.
    :ivar authmethods: one of them is announced.
    :ivar role: the role of the routes that lead to the routers.
    """

    realm: Text | None = None
    authid: Text | None = None
    authmethods: _LeftToRouter | None = None
    role: Text


class PassThroughAuth(Model):
    """The router decides: HELLO, CHALLENGE and AUTHENTICATE are relayed. Not known to Crossbar.io.

    :ivar realm: where a client names none; None: it must.
    :ivar role: the role of the routes that lead to the routers, for clients that no rule is for.
    :ivar rules: the first that fits a client says which role instead.
    :ivar authmethods: those that are left to the router; None: all that this transport does not have itself.
    """

    type: Any = None
    realm: Text | None = None
    role: Text = "passthrough"
    rules: tuple[PassThroughRule, ...] = ()
    authmethods: _LeftToRouter | None = None


_ROUTERS_ONLY = unsupported("proxies log in at routers so, clients log in otherwise")

_ByType = Field(discriminator="type")


class AuthConfig(Model):
    """Authentication methods of a listening transport, by name."""

    anonymous: Annotated[AnonymousStatic | Dynamic, _ByType] | None = None
    ticket: Annotated[TicketStatic | Dynamic | Function, _ByType] | None = None
    wampcra: Annotated[WampCraStatic | Dynamic | Function, _ByType] | None = None
    scram: Annotated[ScramStatic | Dynamic | Function, _ByType] | None = None
    cryptosign: Annotated[CryptosignStatic | Dynamic | Function, _ByType] | None = None
    tls: Annotated[TlsStatic | Dynamic | Function, _ByType] | None = None
    cookie: CookieAuth | None = None
    passthrough: PassThroughAuth | None = None
    cryptosign_proxy: Annotated[None, _ROUTERS_ONLY] = Field(default=None, alias="cryptosign-proxy")
    anonymous_proxy: Annotated[None, _ROUTERS_ONLY] = Field(default=None, alias="anonymous-proxy")

    @property
    def has_method(self) -> bool:
        """Whether anybody can log in."""
        return any(getattr(self, name) is not None for name in type(self).model_fields if name != "cookie")


BUILTIN_AUTH = AuthConfig(anonymous=AnonymousStatic(type="static"))
"""What a transport without ``auth`` does: anonymous, role "anonymous", the realm that the client asked for."""
