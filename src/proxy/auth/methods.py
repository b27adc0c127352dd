"""The authentication methods of a listening transport, and which of them has the say."""

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed

from proxy.auth.anonymous import StaticAnonymous
from proxy.auth.base import Attempt, Deny, Method, Outcome, PassThrough
from proxy.auth.passthrough import Relayed
from proxy.auth.ticket import StaticTicket
from proxy.config.auth import BUILTIN_AUTH, AnonymousStatic, AuthConfig, TicketStatic
from proxy.messages import shorten

if TYPE_CHECKING:
    from proxy.controller import ProxyController

__all__ = ["METHODS", "Authentication"]

METHODS: Final = ("anonymous", "ticket", "wampcra", "scram", "cryptosign", "tls", "cookie")
"""Those that this worker decides itself, by their name in HELLO, in WELCOME and in the configuration."""

_SHOWN_MAX: Final = 8


class Authentication:
    """What decides on the clients of one transport.

    :param config: the transport's ``auth`` item; None (it has none): everybody is ``anonymous``.
    :param controller: the worker's; None: nothing here needs it.
    """

    def __init__(self, config: AuthConfig | None, controller: "ProxyController | None" = None) -> None:
        config = BUILTIN_AUTH if config is None else config
        self._methods: dict[str, Method] = {
            name: _make(name, item, controller)
            for name in METHODS
            if (item := getattr(config, name)) is not None
        }
        self._relayed = None if config.passthrough is None else Relayed(config.passthrough)

    def start(self) -> "Deferred[None]":
        """Make ready what takes its time. Before that, :meth:`hello` is not to be called.

        :returns: fails with a :class:`proxy.errors.ProxyError` where something cannot be had.
        """
        return succeed(None)

    def close(self) -> None:
        """Let go of what it holds. Idempotent."""

    def hello(self, attempt: Attempt) -> Outcome:
        """Decide a HELLO: the first method in the client's order that can be used has the say.

        Methods that nobody here knows are skipped, which is how the specification means the list. A client that names
        no method asks for ``anonymous``.

        :param attempt: the HELLO, its details checked by :func:`proxy.messages.check_hello`.
        """
        offered: list[str] = attempt.details.get("authmethods") or ["anonymous"]
        for name in offered:
            method = self._methods.get(name)
            outcome: Outcome | None
            if method is not None:
                outcome = method.hello(attempt)
            else:
                outcome = self._pass_through(name, attempt)
            if outcome is not None:
                return outcome
        return Deny("wamp.error.no_auth_method", self._no_method(offered))

    def _pass_through(self, name: str, attempt: Attempt) -> PassThrough | Deny | None:
        return self._relayed.hello(name, attempt) if self._relayed is not None else None

    def _no_method(self, offered: list[str]) -> str:
        shown = ", ".join(shorten(name) for name in offered[:_SHOWN_MAX])
        more = ", ..." if len(offered) > _SHOWN_MAX else ""
        expected = " or ".join(self._methods) or "none"
        return f"none of the client's authmethods ({shown}{more}) is possible here, expected {expected}"


def _make(name: str, item: Any, controller: "ProxyController | None") -> Method:
    if isinstance(item, AnonymousStatic):
        return StaticAnonymous(item)
    if isinstance(item, TicketStatic):
        return StaticTicket(item)
    raise NotImplementedError(name)
