"""The manhole: a Python prompt inside of a running process, over SSH, for those who debug it.

Whoever is let in can do all that the process can. So it listens on the loopback interface or a Unix socket only, and
nobody gets in but the users whom the configuration names, by their passwords.
"""

import hmac
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StrictStr, field_validator
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.config import TcpEndpoint, UnixEndpoint, checked
from proxy.config.fields import StrictModel, Text, problem
from proxy.config.redaction import redacted
from proxy.errors import CannotListen, CannotStart, FeatureUnavailable
from proxy.listeners import open_listener, release_unix, unix_identity
from proxy.processinfo import timestamp

__all__ = ["Manhole", "ManholeConfig", "require_conch"]

log = logging.getLogger(__name__)

HOST_KEY: Final = "ssh_host_ed25519_key"
"""File of the host key in the node's folder; made where there is none."""
HOST_KEYS: Final = (HOST_KEY, "ssh_host_rsa_key")

CONNECTIONS_MAX: Final = 10
LOGIN_SECONDS: Final = 60
LOGIN_ATTEMPTS: Final = 5

_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}


class ManholeUser(StrictModel):
    """Somebody who is let in."""

    user: Text
    password: Annotated[StrictStr, Field(min_length=1, repr=False)]


class ManholeConfig(StrictModel):
    """Configuration of a manhole, with the keys that Crossbar.io has.

    :ivar endpoint: of TCP only the loopback interface, which is the default.
    """

    endpoint: Annotated[TcpEndpoint | UnixEndpoint, Field(discriminator="type")]
    users: Annotated[tuple[ManholeUser, ...], Field(min_length=1)]

    @field_validator("endpoint", mode="after")
    @classmethod
    def _nobody_from_afar(cls, endpoint: TcpEndpoint | UnixEndpoint) -> TcpEndpoint | UnixEndpoint:
        for key in ("tls", "proxy_protocol", "forwarded", "mode", "owner", "group"):
            if key in endpoint.model_fields_set:
                raise problem("expected nothing here: a manhole has no use for it", key)
        if isinstance(endpoint, UnixEndpoint):
            return endpoint
        interface = endpoint.interface
        if interface is None or interface == "localhost":
            return endpoint.model_copy(update={"interface": _LOOPBACK[endpoint.version]})
        if not _is_loopback(interface):
            raise problem(
                "expected an address of the loopback interface, like 127.0.0.1: a manhole is not for the network "
                "(tunnel it through SSH instead)",
                "interface",
            )
        return endpoint


def _is_loopback(interface: str) -> bool:
    try:
        return ip_address(interface.strip("[]")).is_loopback
    except ValueError:
        return False


def require_conch() -> None:
    """See that SSH can be spoken.

    :raises FeatureUnavailable: packages are missing; the text names the one, and how to get all.
    """
    try:
        import twisted.conch.manhole_ssh
        import twisted.conch.ssh.keys  # noqa: F401
    except ImportError as error:
        raise FeatureUnavailable(f'the manhole needs packages of the extra "manhole": {error}') from error


class Manhole:
    """One manhole.

    :param reactor: Twisted's reactor.
    :param config: as :class:`ManholeConfig`.
    :param folder: the node's: relative paths start here, and the host key lies here.
    :param namespace: what the prompt knows by name.
    :raises FeatureUnavailable: SSH cannot be spoken.
    :raises InvalidConfiguration: the configuration cannot be used.

    :ivar status: ``starting``, ``started`` or ``stopping``.
    """

    def __init__(self, reactor: Any, config: Any, folder: Path, namespace: Mapping[str, Any]) -> None:
        require_conch()
        self._reactor = reactor
        self._model, given = checked(ManholeConfig, config, folder)
        self._config = redacted(given)
        self._folder = folder
        self._namespace = namespace
        self._port: Any = None
        self._factory: Any = None
        self._created = time.time()
        self._started: float | None = None
        self.status = "starting"

    def marshal(self) -> dict[str, Any]:
        """What the management API shows of it: created, status, started, uptime (seconds), config without passwords."""
        started = self._started
        return {
            "created": timestamp(self._created),
            "status": self.status,
            "started": timestamp(started) if started is not None else None,
            "uptime": max(0.0, time.time() - started) if started is not None else None,
            "config": self._config,
        }

    def start(self) -> None:
        """Listen.

        :raises CannotListen: the address cannot be listened on.
        :raises CannotStart: the host key cannot be read or made.
        """
        passwords = {item.user: item.password for item in self._model.users}
        keys = [_load_key(path) for name in HOST_KEYS if (path := self._folder / name).exists()]
        self._factory = _ssh_factory(self._reactor, keys or [_make_key(self._folder)], passwords, self._namespace)
        endpoint = self._model.endpoint
        if isinstance(endpoint, UnixEndpoint):
            self._port = self._listen_unix(endpoint)
        else:
            with open_listener(endpoint) as listener:
                self._port = self._reactor.adoptStreamPort(listener.fileno(), listener.family, self._factory)
        self.status = "started"
        self._started = time.time()
        where = _name_of(endpoint, self._port)
        log.warning("a manhole is open on %s: its users can do all that this process can", where)

    def _listen_unix(self, endpoint: UnixEndpoint) -> Any:
        """Listen on a Unix socket that is for this user only. One that Twisted adopts it would open to the world."""
        path = endpoint.path
        with open_listener(endpoint):  # which says what is wrong with the path, and removes a stale file
            release_unix(path, unix_identity(path))
        with _private_files():
            try:
                return self._reactor.listenUNIX(path, self._factory, endpoint.backlog, mode=0o600)
            except CannotListenError as error:
                raise CannotListen(f"cannot listen on unix socket {path!r}: {error.socketError}") from error

    def stop(self) -> "Deferred[None]":
        """Stop listening, and end the connections that there are.

        :returns: fires when nothing is accepted any more.
        """
        self.status = "stopping"
        done: Deferred[Any] = maybeDeferred(self._port.stopListening)
        self._factory.drop_all()
        return done.addErrback(lambda failure: log.warning("closing the manhole: %s", failure.getErrorMessage()))


def _name_of(endpoint: TcpEndpoint | UnixEndpoint, port: Any) -> str:
    if isinstance(endpoint, UnixEndpoint):
        return f"unix:{endpoint.path}"
    return f"{endpoint.interface}, port {port.getHost().port}"


@contextmanager
def _private_files() -> Iterator[None]:
    """Files made meanwhile, Unix sockets too, are for this user only, from their first moment on."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


# --- host keys ---


def _load_key(path: Path) -> Any:
    from twisted.conch.ssh.keys import Key

    try:
        if path.stat().st_mode & 0o077:
            raise CannotStart(f"host key {path.name}: expected a file that only its owner can read (chmod 600)")
        return Key.fromFile(str(path))
    except CannotStart:
        raise
    except Exception as error:
        # Of the many things that may be wrong with it the text must not quote any.
        raise CannotStart(f"host key {path.name} cannot be read: {type(error).__name__}") from error


def _make_key(folder: Path) -> Any:
    """A new host key, stored for the next time. Another process may do the same just now: the first one's counts."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from twisted.conch.ssh.keys import Key

    path = folder / HOST_KEY
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{HOST_KEY}.") as file:  # of mode 0600
            file.write(Key(Ed25519PrivateKey.generate()).toString("openssh"))
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(file.name, path)
            except FileExistsError:
                pass
    except OSError as error:
        raise CannotStart(f"host key {HOST_KEY} cannot be made in {folder}: {error.strerror}") from error
    return _load_key(path)


# --- SSH ---


@implementer(ICredentialsChecker)
class _Passwords:
    """Checks names and passwords."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = {name.encode(): password.encode() for name, password in passwords.items()}

    def requestAvatarId(self, credentials: Any) -> bytes:
        """See ICredentialsChecker."""
        name: bytes = credentials.username
        password: bytes = credentials.password
        # Names that are not known take as long as those that are.
        if hmac.compare_digest(self._passwords.get(name, b"\0"), password) and name in self._passwords:
            log.warning("manhole: %s is in", name.decode(errors="replace"))
            return name
        log.warning("manhole: a login is refused")
        raise UnauthorizedLogin


def _ssh_factory(reactor: Any, keys: list[Any], passwords: Mapping[str, str], namespace: Mapping[str, Any]) -> Any:
    """What makes the SSH connections."""
    from twisted.conch.insults.insults import ServerProtocol
    from twisted.conch.manhole import Manhole as Prompt
    from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm, TerminalSession
    from twisted.conch.ssh.connection import SSHConnection
    from twisted.conch.ssh.transport import SSHServerTransport
    from twisted.conch.ssh.userauth import SSHUserAuthServer

    connections: set[Any] = set()

    class Session(TerminalSession):
        def windowChanged(self, newWindowSize: Any) -> None:
            """The prompt does not care, and what it is by default is an exception."""

    class Login(SSHUserAuthServer):
        loginTimeout = LOGIN_SECONDS
        attemptsBeforeDisconnect = LOGIN_ATTEMPTS

    class Connection(SSHServerTransport):
        transport: Any

        def connectionMade(self) -> None:
            super().connectionMade()  # type: ignore[no-untyped-call]
            # Login has a deadline of its own, which begins with the login: later than the connection.
            self.timer = reactor.callLater(LOGIN_SECONDS, self.login_timeout)
            connections.add(self)

        def login_timeout(self) -> None:
            if not hasattr(self, "avatar"):
                self.transport.abortConnection()

        def connectionLost(self, reason: Failure | None = None) -> None:
            if self.timer.active():
                self.timer.cancel()
            connections.discard(self)
            super().connectionLost(reason)

    class Factory(ConchFactory):
        protocol = Connection
        services = {b"ssh-userauth": Login, b"ssh-connection": SSHConnection}
        noisy = False
        privateKeys = {key.sshType(): key for key in keys}
        publicKeys = {key.sshType(): key.public() for key in keys}

        def buildProtocol(self, addr: Any) -> Any:
            return super().buildProtocol(addr) if len(connections) < CONNECTIONS_MAX else None

        def drop_all(self) -> None:
            for connection in list(connections):
                connection.transport.abortConnection()

    realm: Any = TerminalRealm()
    realm.sessionFactory = Session
    realm.chainedProtocolFactory = lambda: ServerProtocol(Prompt, dict(namespace))
    portal: Any = Portal(realm)
    portal.registerChecker(_Passwords(passwords))
    return Factory(portal)  # type: ignore[no-untyped-call]
