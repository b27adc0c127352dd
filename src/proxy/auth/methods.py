"""The authentication methods of a listening transport, and which of them has the say."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import inlineCallbacks

from proxy.auth.anonymous import Anonymous
from proxy.auth.base import Attempt, Deny, Method, Outcome, PassThrough
from proxy.auth.cookie import Cookie
from proxy.auth.cryptosign import Cryptosign
from proxy.auth.decoys import Decoys, decoy_key
from proxy.auth.passthrough import Relayed
from proxy.auth.scram import Scram
from proxy.auth.sources import Source, StaticSource, make_source
from proxy.auth.ticket import Ticket
from proxy.auth.tls import Tls
from proxy.auth.wampcra import WampCra
from proxy.config.auth import BUILTIN_AUTH, AuthConfig
from proxy.errors import ProxyError
from proxy.messages import shorten

if TYPE_CHECKING:
    from proxy.controller import ProxyController
    from proxy.cookies import CookieTracker

__all__ = ["METHODS", "Authentication"]

METHODS: Final = ("anonymous", "ticket", "wampcra", "scram", "cryptosign", "tls", "cookie")
"""Those that this worker decides itself, by their name in HELLO, in WELCOME and in the configuration."""

_SHOWN_MAX: Final = 8


class Authentication:
    """What decides on the clients of one transport.

    :param config: the transport's ``auth`` item; None (it has none): everybody is ``anonymous``.
    :param controller: the worker's; None: nothing here needs it.
    :param cookies: the transport's; None: it has none, and nobody can log in by one.
    """

    def __init__(
        self,
        config: AuthConfig | None,
        controller: "ProxyController | None" = None,
        cookies: "CookieTracker | None" = None,
    ) -> None:
        config = BUILTIN_AUTH if config is None else config
        key = decoy_key()
        self._sources: dict[str, Source] = {
            name: make_source(item, controller)
            for name in METHODS
            if name != "cookie" and (item := getattr(config, name)) is not None
        }
        self._methods: dict[str, Method] = {name: _make(name, source, key) for name, source in self._sources.items()}
        self._cookie = None if config.cookie is None or cookies is None else Cookie(cookies)
        self._relayed = None if config.passthrough is None else Relayed(config.passthrough, self._methods)

    @inlineCallbacks
    def start(self) -> Any:
        """Make ready what takes its time. Before that, :meth:`hello` is not to be called.

        :returns: fails with a :class:`proxy.errors.ProxyError` where something cannot be had; all is closed again then.
        """
        for name, source in self._sources.items():
            try:
                yield source.start()
            except ProxyError as error:
                self.close()
                raise type(error)(f"auth.{name}: {error.message}", **error.details) from error

    def close(self) -> None:
        """Let go of what it holds. Idempotent."""
        for source in self._sources.values():
            source.close()

    def hello(self, attempt: Attempt) -> Outcome:
        """Decide a HELLO: the first method in the client's order that can be used has the say.

        Methods that nobody here knows are skipped, which is how the specification means the list. A client that names
        no method asks for ``anonymous``.

        :param attempt: the HELLO, its details checked by :func:`proxy.messages.check_hello`.
        """
        offered: list[str] = attempt.details.get("authmethods") or ["anonymous"]
        # Each one once: a client could have the cookies' store asked ten thousand times by a single HELLO.
        return self._try(iter(dict.fromkeys(offered)), attempt, offered)

    def _try(self, names: Iterator[str], attempt: Attempt, offered: list[str]) -> Outcome:
        """Go on with the next of the client's methods."""
        for name in names:
            if name == "cookie" and self._cookie is not None:
                found = self._cookie.hello(attempt)
                if found is not None:
                    return found.addCallback(lambda accept: accept or self._try(names, attempt, offered))
                continue
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
        possible = [*self._methods, *(["one that a router decides"] if self._relayed is not None else [])]
        expected = " or ".join(possible) or "none"
        return f"none of the client's authmethods ({shown}{more}) is possible here, expected {expected}"


def _make(name: str, source: Source, key: bytes) -> Method:
    """A method over the principals of its item.

    :param key: of :func:`decoy_key`.
    """
    if name in _OVER_SOURCES:
        return _OVER_SOURCES[name](source)
    samples = source.principals if isinstance(source, StaticSource) else {}
    return _WITH_DECOYS[name](source, Decoys(key, name, samples))


_OVER_SOURCES: Final[Mapping[str, Callable[[Source], Method]]] = {
    "anonymous": Anonymous,
    "ticket": Ticket,
    "cryptosign": Cryptosign,
    "tls": Tls,
}
_WITH_DECOYS: Final[Mapping[str, Callable[[Source, Decoys], Method]]] = {"wampcra": WampCra, "scram": Scram}
