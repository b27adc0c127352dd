"""Service credentials: the proxy logs in at the router with an account of its own."""

from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from proxy.auth.derived import Derived
from proxy.auth.proofs import PROOFS, Proof
from proxy.auth.routers import Answer, Client, LoginError, RouterLogin
from proxy.config.credentials import Account, BackendAuth
from proxy.forwarding import backend_hello, front_welcome
from proxy.messages import Welcome, shorten

__all__ = ["Accounts", "CredentialLogin", "ServiceCredential"]


class _Account:
    """An account, and what it costs work to know: the same for all its logins.

    :param config: the methods.
    """

    def __init__(self, config: Account) -> None:
        self._methods: list[tuple[type[Proof], dict[str, Any]]] = []
        for name, method in config.methods.items():
            arguments = method.model_dump(exclude={"type"})
            self._methods.append((PROOFS[name], {**arguments, "derived": Derived()}))
        values = list(config.methods.values())
        self.authid = next((value.authid for value in values if value.authid is not None), None)
        self.authrole = next((value.authrole for value in values if value.authrole is not None), None)
        self.is_anonymous = list(config.methods) == ["anonymous"]

    def proofs(self) -> dict[str, Proof]:
        """For one login, by name of the method."""
        return {kind.name: kind(**arguments) for kind, arguments in self._methods}


class Accounts:
    """All accounts of one connection.

    :param config: ``auth`` of the connection.
    """

    def __init__(self, config: BackendAuth) -> None:
        self._default = _Account(config) if config.methods else None
        self._others = {
            (realm, role): _Account(account)
            for realm, roles in config.credentials.items()
            for role, account in roles.items()
        }

    def login(self, client: Client) -> RouterLogin:
        """One client's login.

        :raises LoginError: there is no account for its realm and role.
        """
        accept = client.accept
        account = self._others.get((accept.realm, accept.authrole), self._default)
        if account is None:
            raise LoginError(f'has no account for realm "{accept.realm}" and role "{accept.authrole}"')
        return (ServiceCredential if account.is_anonymous else CredentialLogin)(client, account)


class ServiceCredential(RouterLogin):
    """With an account that needs no proof. See :class:`RouterLogin`.

    :param account: which one.
    """

    def __init__(self, client: Client, account: _Account) -> None:
        super().__init__(client)
        self._account = account
        self._proofs = account.proofs()
        self._used: Proof | None = None

    @property
    def _authextra(self) -> dict[str, Any]:
        return {key: value for proof in self._proofs.values() for key, value in proof.authextra.items()}

    def hello(self) -> list[Any]:
        """See :class:`RouterLogin`."""
        return backend_hello(
            self.client,
            authmethods=list(self._proofs),
            authid=self._account.authid,
            authrole=self._account.authrole,
            authextra=self._authextra,
        )

    def welcome(self, welcome: Welcome, front_sid: int) -> dict[str, Any]:
        """See :class:`RouterLogin`."""
        own_keys = {*self._authextra, "scram_server_signature"}
        return front_welcome(welcome, self.client.accept, False, front_sid, own_keys)


class CredentialLogin(ServiceCredential):
    """With an account that the proxy has to prove. See :class:`RouterLogin`."""

    PROVES: ClassVar[bool] = True

    def challenge(self, authmethod: str, extra: dict[str, Any]) -> "Answer | Deferred[Answer]":
        """See :class:`RouterLogin`."""
        proof = self._proofs.get(authmethod)
        if proof is None:
            offered = " or ".join(self._proofs)
            raise LoginError(f"the router asks the proxy for {shorten(authmethod)}, expected {offered}")
        self._used = proof
        signature = proof.answer(extra)
        if isinstance(signature, str):
            return signature, {}
        return signature.addCallback(lambda text: (text, {}))

    def verify(self, welcome: Welcome) -> None:
        """See :class:`RouterLogin`.

        A router that has asked nothing would only have to leave its own proof out: where every method on offer demands
        one, it is missing.
        """
        if self._used is None and all(proof.IS_MUTUAL for proof in self._proofs.values()):
            raise LoginError(f"{' or '.join(self._proofs)}: the router let the proxy in without any proof")
        if self._used is not None:
            authextra = welcome.details.get("authextra")
            self._used.verify(authextra if isinstance(authextra, dict) else None)
