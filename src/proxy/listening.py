"""Where a transport listens: taking an address, handing it over to another transport, and giving it up."""

import errno
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from proxy.addresses import Address, is_literal
from proxy.config import (
    BackendTcp,
    ConfigError,
    Endpoint,
    OnionEndpoint,
    TcpEndpoint,
    TransportConfig,
    TwistedEndpoint,
    UnixEndpoint,
    checked,
)
from proxy.errors import CannotListen, ProxyError
from proxy.lifecycle import Managed, State
from proxy.listeners import adopt_listener, is_at, open_listener, release_unix, stir_listener, unix_identity
from proxy.plane import LISTEN_CLOSED, LISTEN_FULL, LISTEN_PAUSED, LISTEN_RESUMED, Plane

if TYPE_CHECKING:
    from proxy.controller import ProxyController
    from proxy.other_endpoints import OtherListener

__all__ = ["ListeningTransport", "utc_now"]

log = logging.getLogger("proxy.transports")

_PAUSED_TEXT: Final = {
    0: "out of memory",
    errno.EMFILE: "out of file descriptors (limit of this process)",
    errno.ENFILE: "out of file descriptors (limit of the system)",
}
_OTHER: Final = (TwistedEndpoint, OnionEndpoint)
# By type of the transport: how its address begins, for people, without TLS and with it.
_SCHEMES: Final = {
    "websocket": ("ws", "wss"),
    "websocket.testee": ("ws", "wss"),
    "rawsocket": ("rs", "rss"),
    "web": ("http", "https"),
    "universal": ("http", "https"),
    "mqtt": ("mqtt", "mqtts"),
}


class _Gate:
    """What an endpoint of Twisted's has for its transport: that one which has the address now.

    :param transport: it.
    """

    def __init__(self, transport: "ListeningTransport") -> None:
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class ListeningTransport(Managed):
    """A transport, as far as its address is concerned.

    :param controller: the worker that it belongs to.
    :param transport_id: its id.
    :param config: the item; a mapping is checked here.
    :raises ConfigError: it cannot be used.

    :ivar config: the item as it was given.
    :ivar number: under which the data plane knows the listener; 0: it does not yet.
    :ivar params: number of the parameters of accepted connections in the data plane.
    :ivar predecessor: whose socket it is a second descriptor of.
    """

    KIND = "transport"
    EXCLUDES_CALLER = True

    def __init__(
        self, controller: "ProxyController", transport_id: str, config: TransportConfig | Mapping[str, Any]
    ) -> None:
        super().__init__(controller, f'transport "{transport_id}"')
        self.plane: Plane = controller.plane
        self.id = transport_id
        self.model: Any
        self.model, self.config = checked(TransportConfig, config, controller.cbdir)
        self.listening_since: str | None = None
        self.address = ""
        self.number = 0
        self.params = 0
        self.predecessor: Any = None  # ProxyTransport
        self._identity: tuple[int, int] | None = None
        self._unlistened: Deferred[None] | None = None
        self._endpoint: Endpoint = self.model.endpoint
        # Open, and not yet the data plane's.
        self._listener: socket.socket | None = None
        # The data plane's; it may be closed at any time once that was told to leave it.
        self._descriptor = -1
        # What lets clients in where that is not a socket of the data plane's, and what it has for this transport.
        self._other: OtherListener | None = None
        self._gate: Any = None
        # Who goes on with the socket.
        self._heir: Any = None  # ProxyTransport
        self._is_given_up = False

    # --- what the rest of the transport does ---

    def get_ready(self) -> "Deferred[None]":
        """The first step of a start, but for the address. Fails with a ProxyError."""
        raise NotImplementedError

    def close_helpers(self) -> None:
        """Undo :meth:`get_ready`. Idempotent."""
        raise NotImplementedError

    def listener_params(self) -> dict[str, Any]:
        """Keywords of add_params() for accepted connections. Asked for once it is ready."""
        raise NotImplementedError

    def on_event(self, kind: int, conn: int, arg: int, data: bytes) -> None:
        """An event of a client's connection or of the listener, see :class:`proxy.plane.Owner`."""
        raise NotImplementedError

    def on_crash(self, conn: int) -> None:
        """See :class:`proxy.plane.Owner`."""
        raise NotImplementedError

    def turn_all_away(self) -> None:
        """Nobody gets anywhere who came in."""
        raise NotImplementedError

    def on_unlistened(self) -> None:
        """Nobody is accepted any more."""
        raise NotImplementedError

    # --- life ---

    @property
    def is_listening(self) -> bool:
        """Whether clients are accepted."""
        return self.listening_since is not None

    def _start(self) -> "Deferred[None]":
        """Listen, at an address that is looked up first where the interface is given by name.

        :raises CannotListen: the address is in use, not permitted, or there are too many listeners already.
        """
        if self.is_listening:
            self._adopt()
            return succeed(None)
        return self.look_up().addCallback(self._open_and_listen).addErrback(self._not_started)

    def _not_started(self, failure: Failure) -> Failure:
        self.close_helpers()
        return failure

    def look_up(self) -> "Deferred[None]":
        """The first step of a start: get ready, and look the interface up where it is given by name.

        :returns: fails with CannotListen where it has no address, with InvalidConfiguration or CannotStart where an
            authenticator, the store of the cookies, or a certificate cannot be had.
        """
        return self.get_ready().addErrback(self._not_ready).addCallback(lambda _: self._look_up_interface())

    def _not_ready(self, failure: Failure) -> None:
        failure.trap(ProxyError)
        error = failure.value
        assert isinstance(error, ProxyError)
        if isinstance(error, ConfigError):
            raise error  # it says in which item
        raise type(error)(f"transport {self.id}: {error.message}", **error.details)

    def _open_and_listen(self, _: None) -> None:
        self.open()
        self.listen()

    def _adopt(self) -> None:
        """Give a socket that was another transport's the options of this one."""
        if self.predecessor is None or isinstance(self._endpoint, _OTHER):
            self.predecessor = None
            return
        endpoint = self._endpoint
        assert isinstance(endpoint, TcpEndpoint | UnixEndpoint)
        try:
            with self.share() as listener:
                adopt_listener(listener, endpoint, nodelay=self._nodelay)
        except OSError as error:
            log.warning("transport %s keeps the socket options of its predecessor: %s", self.id, error)
        self.predecessor = None

    @property
    def _nodelay(self) -> bool:
        options = getattr(self.model, "options", None)
        return getattr(options, "tcp_nodelay", True)

    def _look_up_interface(self) -> "Deferred[None]":
        endpoint = self.model.endpoint
        if isinstance(endpoint, _OTHER):
            return self._open_other(endpoint)
        if isinstance(endpoint, UnixEndpoint) or not endpoint.interface or is_literal(endpoint.interface):
            return succeed(None)
        name = BackendTcp(type="tcp", host=endpoint.interface, port=1, version=endpoint.version)
        found = self.controller.resolver.resolve(name)
        return found.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, addresses: list[Address]) -> None:
        assert isinstance(self.model.endpoint, TcpEndpoint)
        self._endpoint = self.model.endpoint.model_copy(update={"interface": addresses[0].host})

    def _unresolved(self, failure: Failure) -> None:
        raise CannotListen(f"transport {self.id}: {failure.getErrorMessage()}")

    def open(self, leaving: Iterable[Self] = ()) -> None:
        """The second step: take the address. Who connects from now on waits until :meth:`listen`.

        :param leaving: transports that are stopped after this one listens. Where one of them has the very address, its
            socket goes on in this transport, so that no client finds the address deserted.
        :raises CannotListen: the address is in use or not permitted.
        """
        others = [other for other in leaving if other.is_listening]
        self.predecessor = next((other for other in others if self.succeeds(other)), None)
        if isinstance(self._endpoint, _OTHER):
            self._take_other()
            return
        if self.predecessor is not None:
            self._listener = self.predecessor.share()
        else:
            self._listener = self._open_beside(others)
            if isinstance(self._endpoint, UnixEndpoint):
                self._identity = unix_identity(self._endpoint.path)
        self.address = self._url(self._listener.getsockname())

    def _open_beside(self, others: list[Self]) -> socket.socket:
        assert isinstance(self._endpoint, TcpEndpoint | UnixEndpoint)
        shares = [other.share() for other in others if not isinstance(other._endpoint, _OTHER)]
        try:
            return open_listener(self._endpoint, nodelay=self._nodelay, beside=shares)
        except CannotListen as error:
            raise CannotListen(f"transport {self.id}: {error.message}") from error
        finally:
            for share in shares:
                share.close()

    def share(self) -> socket.socket:
        """One more descriptor of the listening socket. The caller owns it."""
        return socket.socket(fileno=os.dup(self._descriptor))

    def succeeds(self, other: Self) -> bool:
        """Whether this transport is to be where another one listens. Call after :meth:`look_up`."""
        endpoint = self._endpoint
        if not other.is_listening:
            return False
        if isinstance(endpoint, _OTHER) or isinstance(other._endpoint, _OTHER):
            return _is_same_place(endpoint, other._endpoint)
        if isinstance(endpoint, UnixEndpoint):
            if unix_identity(endpoint.path) != other._identity:
                return False  # its file is gone: nobody would find it
        elif not endpoint.port and endpoint.portrange is None and self.id != other.id:
            return False  # any port is not the port of somebody else
        with other.share() as listener:
            return is_at(listener, endpoint)

    def listen(self) -> None:
        """The last step: accept clients.

        :raises CannotListen: there are too many listeners already.
        """
        # Where Twisted has the socket, it is a listener that nobody connects to, but by way of adopt().
        is_other = self._listener is None
        descriptor = self._listener.fileno() if self._listener is not None else _no_socket()
        self.number = self.plane.add_owner(self)
        try:
            self.params = self.plane.add_params(**self.listener_params())
            self.plane.listen(descriptor, self.number, self.params, self.model.max_connections)
        except Exception as error:
            if is_other:
                os.close(descriptor)
            self.give_up()
            self.plane.drop_owner(self.number)
            self.number = 0
            staying = sum(1 for other in self.controller.retired if other.sessions)
            hint = f" ({staying} stopped transports whose sessions stay count, too)" if staying else ""
            raise CannotListen(f"transport {self.id}: {error}{hint}") from error
        if self._listener is not None:
            self._listener.detach()
            self._listener = None
        self._descriptor = descriptor
        self.listening_since = utc_now()
        if self.predecessor is not None:
            self.predecessor._heir = self
            self._swap_other(self.predecessor)
            # From now on the socket's file is removed by this transport.
            self._identity, self.predecessor._identity = self.predecessor._identity, None

    def give_up(self) -> None:
        """Undo what was done of a start. Nobody gets anywhere who came in meanwhile."""
        self._is_given_up = True
        self.close_helpers()
        if self.predecessor is not None:
            self.predecessor._heir = None
            if self.is_listening:
                self._identity, self.predecessor._identity = None, self._identity
                self.predecessor._swap_other(self)
            self.predecessor = None
        self.release()
        self._stop_other()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self.is_listening:
            self._unlistened = Deferred()
            self.plane.unlisten(self.number)
        self.turn_all_away()

    def _stop(self) -> "Deferred[None]":
        """Stop listening; sessions that are there stay. Fires once nothing is accepted any more."""
        self.release()
        if not self.is_listening:
            return succeed(None)  # it failed before
        return self._stop_other().addCallback(self._unlisten)

    def _unlisten(self, _: None) -> "Deferred[None]":
        self._unlistened = Deferred()
        self.plane.unlisten(self.number)
        return self._unlistened

    def release(self) -> None:
        """Remove the file of a Unix socket, if it is ours."""
        if isinstance(self.model.endpoint, UnixEndpoint):
            release_unix(self.model.endpoint.path, self._identity)
            self._identity = None

    # --- endpoints that Twisted opens ---

    def _open_other(self, endpoint: TwistedEndpoint | OnionEndpoint) -> "Deferred[None]":
        """Have Twisted listen, unless another transport does so, which this one may be about to replace."""
        if self._who_has_the_place() is not None:
            return succeed(None)
        from proxy.other_endpoints import open_endpoint

        self._gate = _Gate(self)

        def opened(listener: "OtherListener") -> None:
            self._other = listener
            if self._is_given_up:
                self._stop_other()

        return open_endpoint(self._gate, endpoint).addCallback(opened)

    def _who_has_the_place(self) -> "ListeningTransport | None":
        others = (other for other in self.controller.all_transports() if other is not self and other.is_listening)
        return next((other for other in others if _is_same_place(self._endpoint, other._endpoint)), None)

    def _take_other(self) -> None:
        """See that there is something that lets clients in.

        :raises CannotListen: another transport has it, and goes on.
        """
        if self._other is not None:
            self.predecessor = None
        listener = self._other if self.predecessor is None else self.predecessor._other
        if listener is None:
            holder = self._who_has_the_place()
            name = "another transport" if holder is None else f'transport "{holder.id}"'
            raise CannotListen(f"transport {self.id}: {name} listens there")
        kind, _, rest = listener.address.partition(":")
        host, _, port = rest.rpartition(":")
        self.address = self._url((host, port) if kind in ("tcp4", "tcp6", "onion") else rest)

    def _swap_other(self, other: "ListeningTransport") -> None:
        """What lets clients in changes hands."""
        if other._other is not None:
            self._other, other._other = other._other, None
            self._gate, other._gate = other._gate, None
            self._gate.transport = self

    def _stop_other(self) -> "Deferred[None]":
        other, self._other = self._other, None
        return succeed(None) if other is None else other.stop()

    # --- events of the listener ---

    def on_listen(self, what: int, error: int) -> None:
        """An event of the listener: LISTEN_*, and the errno where there is one."""
        if what == LISTEN_PAUSED:
            why = _PAUSED_TEXT.get(error) or os.strerror(error)
            log.error("%s: accepting is paused on transport %s (%s)", why, self.id, self.address)
        elif what == LISTEN_RESUMED:
            log.warning("accepting goes on, on transport %s (%s)", self.id, self.address)
        elif what == LISTEN_FULL:
            log.warning(
                "max_connections (%d) reached: connections are refused on transport %s (%s)",
                self.model.max_connections,
                self.id,
                self.address,
            )
        elif what == LISTEN_CLOSED:
            self._has_unlistened()

    def _has_unlistened(self) -> None:
        self.listening_since = None
        heir, self._heir = self._heir, None
        if heir is not None and heir.is_listening and not isinstance(heir._endpoint, _OTHER):
            with heir.share() as listener:
                stir_listener(listener)
        unlistened, self._unlistened = self._unlistened, None
        if unlistened is None:
            log.error("transport %s (%s) does not listen any more", self.id, self.address)
            self.enter(State.FAILED)
        else:
            unlistened.callback(None)
        self.on_unlistened()

    def _url(self, name: Any) -> str:
        """Where it listens, for people: ``ws://127.0.0.1:8080`` or ``rs://unix:/run/proxy.sock``."""
        scheme = _SCHEMES[self.model.type][self._endpoint_tls is not None]
        if not isinstance(name, tuple):
            return f"{scheme}://unix:{name}"
        host, port = name[:2]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def _endpoint_tls(self) -> Any:
        return getattr(self._endpoint, "tls", None)


def _is_same_place(one: Endpoint, other: Endpoint) -> bool:
    """Whether two endpoints of Twisted cannot both be open."""
    if isinstance(one, TwistedEndpoint) and isinstance(other, TwistedEndpoint):
        return one.server_string == other.server_string
    if isinstance(one, OnionEndpoint) and isinstance(other, OnionEndpoint):
        return (one.port, one.private_key_file) == (other.port, other.private_key_file)
    return False


def _no_socket() -> int:
    """A descriptor on which nobody ever connects."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def utc_now() -> str:
    """The time as the management API shows it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
