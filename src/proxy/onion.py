"""Onion services: Tor, on this machine, is told to pass on who comes from its network to a port of the loopback."""

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.python.failure import Failure

from proxy.addresses import is_literal
from proxy.config.other_endpoints import OnionEndpoint, TorControl, TorControlUnix
from proxy.errors import CannotListen
from proxy.other_endpoints import OtherListener, error_text, listen_with, stop_port

if TYPE_CHECKING:
    from proxy.transports import ProxyTransport

__all__ = ["open_onion"]

TOR_SECONDS: Final = 30.0
"""How long Tor may take to take a command, its greeting and login included."""

RETRY_SECONDS: Final = (1.0, 60.0)
"""First and longest pause before Tor is asked again, once it has left."""

KEY_OCTETS_MAX: Final = 4096
_KEY: Final = re.compile(r"ED25519-V3:[A-Za-z0-9+/]{80,100}={0,2}")
_NEW_KEY: Final = "NEW:ED25519-V3"
_ANSWER: Final = re.compile(r"(ServiceID|PrivateKey)=(\S+)")
_SERVICE: Final = re.compile(r"[a-z2-7]{56}")

log = logging.getLogger(__name__)


def open_onion(transport: "ProxyTransport", endpoint: OnionEndpoint) -> "Deferred[OtherListener]":
    """Set up an onion service that leads to a transport.

    :param transport: whose clients those will be who come.
    :param endpoint: of the transport.
    :returns: fires once Tor knows the service. Until it can be found in Tor's network, half a minute may pass. Fails
        with CannotListen: txtorcon is not installed, Tor cannot be reached or refuses, or the key file is no good.
    """
    try:
        from txtorcon import TorProtocolFactory
    except ImportError:
        text = "onion endpoints need the package txtorcon (pip install wamp-proxy[onion])"
        return fail(CannotListen(f"transport {transport.id}: {text}"))
    return ensureDeferred(_OnionListener(transport, endpoint, TorProtocolFactory()).open())


class _OnionListener(OtherListener):
    """An onion service. It lives as long as the control connection to Tor; where that is lost, it is set up again."""

    def __init__(self, transport: "ProxyTransport", endpoint: OnionEndpoint, factory: Any) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._factory = factory
        self._reactor = transport.controller.reactor
        self._port: Any = None  # IListeningPort
        self._tor: Any = None  # TorControlProtocol
        self._service = ""
        self._pause = RETRY_SECONDS[0]
        self._retry: Any = None  # IDelayedCall
        self._attempt: Deferred[None] | None = None
        self._is_stopped = False

    async def open(self) -> OtherListener:
        """Listen on the loopback and have Tor lead there."""
        key = _read_key(self._endpoint.private_key_file)
        server = TCP4ServerEndpoint(self._reactor, 0, interface="127.0.0.1")
        self._port = await listen_with(self._transport, server, "tcp4 interface 127.0.0.1, any port")
        try:
            await self._set_up(key)
        except BaseException as error:
            await self.stop()
            if not isinstance(error, Exception) or isinstance(error, CannotListen):
                raise
            raise CannotListen(self._refusal(error)) from error
        return self

    def _refusal(self, error: BaseException | None) -> str:
        where = _control_text(self._endpoint.tor_control_endpoint)
        return f"transport {self._transport.id}: Tor at {where} sets up no onion service: {error_text(error)}"

    async def _set_up(self, key: str | None) -> None:
        """One conversation with Tor."""
        control = _control_endpoint(self._reactor, self._endpoint.tor_control_endpoint)
        self._tor = await self._in_time(control.connect(self._factory))
        await self._in_time(self._tor.post_bootstrap)
        command = f"ADD_ONION {key or _NEW_KEY} Port={self._endpoint.port},127.0.0.1:{self._port.getHost().port}"
        answer = dict(_ANSWER.findall(await self._in_time(self._tor.queue_command(command))))
        self._service = answer.get("ServiceID", "")
        if not _SERVICE.fullmatch(self._service):
            raise RuntimeError("it does not tell the name of the service")
        if key is None:
            _write_key(self._endpoint.private_key_file, answer.get("PrivateKey", ""))
        self.address = f"onion:{self._service}.onion:{self._endpoint.port}"
        self._pause = RETRY_SECONDS[0]
        self._tor.when_disconnected().addBoth(self._on_lost)

    def _in_time(self, deferred: "Deferred[Any]") -> "Deferred[Any]":
        return deferred.addTimeout(TOR_SECONDS, self._reactor)

    # --- Tor goes and comes back ---

    def _on_lost(self, _: object) -> None:
        self._tor = None
        if not self._is_stopped:
            text = "the control connection to Tor is lost, and %s with it; it is set up again as soon as Tor is back"
            log.warning(text, self.address)
            self._try_later()

    def _try_later(self) -> None:
        self._retry = self._reactor.callLater(self._pause, self._try_again)
        self._pause = min(2 * self._pause, RETRY_SECONDS[1])

    def _try_again(self) -> None:
        self._retry = None
        self._attempt = ensureDeferred(self._set_up_again())
        self._attempt.addErrback(self._failed_again)

    async def _set_up_again(self) -> None:
        await self._set_up(_read_key(self._endpoint.private_key_file))
        log.warning("%s is set up again", self.address)

    def _failed_again(self, failure: Failure) -> None:
        if self._is_stopped:
            return
        self._hang_up()
        log.warning("%s; it is tried again in %g s", self._refusal(failure.value), self._pause)
        self._try_later()

    # --- the end ---

    def stop(self) -> "Deferred[None]":
        """See :class:`OtherListener`."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self._is_stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._attempt is not None:
            self._attempt.cancel()
        port, self._port = self._port, None
        if port is not None:
            await stop_port(port)
        self._hang_up()

    def _hang_up(self) -> None:
        """End the control connection, and with it the service, which Tor keeps no longer."""
        tor, self._tor = self._tor, None
        if tor is not None and tor.transport is not None:
            tor.transport.abortConnection()


def _control_endpoint(reactor: Any, control: TorControl) -> Any:
    """IStreamClientEndpoint of Tor's control port."""
    if isinstance(control, TorControlUnix):
        return UNIXClientEndpoint(reactor, control.path, timeout=control.timeout)
    if not is_literal(control.host):
        return HostnameEndpoint(reactor, control.host, control.port, timeout=control.timeout)
    kind = TCP6ClientEndpoint if control.version == 6 else TCP4ClientEndpoint
    return kind(reactor, control.host, control.port, timeout=control.timeout)


def _control_text(control: TorControl) -> str:
    return f"unix:{control.path}" if isinstance(control, TorControlUnix) else f"{control.host}:{control.port}"


def _read_key(path: str) -> str | None:
    """The key of an onion service.

    :returns: None: there is no such file yet.
    :raises CannotListen: it cannot be read, or is no key.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(KEY_OCTETS_MAX).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotListen(f"cannot read the key of the onion service, {path!r}: {error.strerror}") from error
    if not _KEY.fullmatch(text):
        raise CannotListen(f"expected the key of an onion service in {path!r}: ED25519-V3: and 64 octets in Base64")
    return text


def _write_key(path: str, key: str) -> None:
    """Keep a new key, for its owner alone.

    :raises CannotListen: it cannot be kept, so that the service would have another address at the next start.
    """
    if not _KEY.fullmatch(key):
        raise CannotListen("Tor does not tell the key of the onion service that it has made")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(key + "\n")
                file.flush()
                os.fsync(descriptor)
        except OSError:
            os.unlink(path)  # half a key would be in the way of each start from now on
            raise
    except OSError as error:
        raise CannotListen(f"cannot keep the key of the onion service in {path!r}: {error.strerror}") from error
