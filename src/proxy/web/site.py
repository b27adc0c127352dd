"""The web of a transport: Twisted Web behind tunnels of the data plane, and the services on its paths."""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.web.server import Site

from proxy import __version__
from proxy.config import checked
from proxy.config.redaction import without_credentials
from proxy.config.web import WebOptions, WebServiceConfig
from proxy.errors import InvalidArgument, NotRunning
from proxy.forwarded import client_peer
from proxy.handshake import HttpError
from proxy.peers import Peer, TlsInfo
from proxy.web.base import WebService
from proxy.web.branch import ROOT, Branch
from proxy.web.channel import WebChannel
from proxy.web.pages import ErrorPage
from proxy.web.requests import ProxyRequest
from proxy.web.tunnel import SecureTunnelEnd, TunnelEnd, open_pair, twisted_address
from proxy.web.websocket import LaterRequest

if TYPE_CHECKING:
    from proxy.entrances import Entrance
    from proxy.transports import ProxyTransport

__all__ = ["ProxySite", "WebSite"]

log = logging.getLogger("proxy.web")
access = logging.getLogger("proxy.web.access")

CLIENT_SECONDS: Final = 60
"""``client_timeout``, where none is given."""

STOP_SECONDS: Final = 5.0
"""How long answers that are under way may take when the transport is stopped."""

_NAME: Final = re.compile(r"[a-z0-9A-Z_\-]+")
_SLASH: Final = re.compile(rb"%2f", re.IGNORECASE)
_TWISTED_PAGES: Final = ("twisted.web.resource", "twisted.web.pages")
_UNTOLD: Final = TlsInfo("", "", "", "", b"", b"", b"")


class WebSite:
    """What a ``web`` or ``universal`` transport has on its paths.

    :param transport: the listening transport.
    :param paths: items of the configuration by path, checked.
    :param options: of the configuration, checked.

    :ivar branch: the services on the first component of a path.
    :ivar http: Twisted's site.
    """

    def __init__(self, transport: "ProxyTransport", paths: Mapping[str, Any], options: WebOptions) -> None:
        self.transport = transport
        self.controller = transport.controller
        self.plane: Any = transport.plane
        self.reactor: Any = self.controller.reactor
        self.options = options
        self.branch = Branch(self)
        self.http = ProxySite(self)
        self._paths = dict(paths)
        # Came with the transport. A node orders to start each of them once more, after the transport.
        self._not_ordered: set[str] = set()
        self._is_stopping = False

    @property
    def label(self) -> str:
        """For error texts and logs."""
        return self.transport.label

    # --- life ---

    def start(self) -> "Deferred[None]":
        """Start the services; fails with a ProxyError if one of them cannot be, and leaves none."""
        return self.branch.start_all(self._paths).addCallback(self._has_started)

    def _has_started(self, _: Any) -> None:
        self._not_ordered = set(self._paths)

    def stop(self) -> "Deferred[None]":
        """Close all tunnels, after the answers that are under way if these do not take long, and stop the services.

        :returns: fires when all is closed.
        """
        self._is_stopping = True
        self.branch.end_soon()
        return self.http.close_all().addCallback(lambda _: self.branch.stop_all())

    # --- services ---

    def services(self) -> dict[str, WebService]:
        """Those in service, by path, as ``paths`` of the configuration names them."""
        return dict(self.branch.services)

    def service(self, path: str) -> WebService:
        """The one on a path.

        :param path: ``/``, ``a``, or ``a/b`` where a service of type path is on ``a``.
        :raises InvalidArgument: no such path is possible.
        :raises NotRunning: there is none.
        """
        branch, name = self._locate(path)
        service = branch.services.get(name)
        if service is None:
            raise NotRunning(f'{self.label} has no web service on path "{path}"')
        return service

    def start_service(self, path: str, config: Any) -> "Deferred[WebService]":
        """Start a service while the transport runs.

        :param path: as for :meth:`service`.
        :param config: its item of the configuration.
        :returns: fires with it; fails with a ProxyError.
        :raises InvalidConfiguration: the item cannot be used.
        :raises AlreadyRunning: there is a service on the path. The very one that the transport came with may be
            ordered once.
        """
        branch, name = self._locate(path)
        model, _ = checked(WebServiceConfig, config, self.controller.cbdir)
        service = branch.services.get(name)
        is_first_order = service is not None and service.path in self._not_ordered
        if service is not None and is_first_order and _without_id(service.config) == _without_id(model):
            self._not_ordered.discard(service.path)
            return succeed(service)
        return branch.start(name, model)

    def stop_service(self, path: str) -> "Deferred[WebService]":
        """Stop a service; requests that are under way go on.

        :param path: as for :meth:`service`.
        :raises NotRunning: there is none.
        """
        branch, name = self._locate(path)
        stopped = branch.stop(name)
        self._not_ordered.discard(branch.full_path(name))
        return stopped

    def _locate(self, path: str) -> tuple[Branch, str]:
        """The branch that a path is on, and its name there."""
        if path == ROOT:
            return self.branch, ROOT
        components = path.removeprefix("/").split("/")
        if not all(_NAME.fullmatch(component) for component in components):
            raise InvalidArgument(f'path: "{path[:80]}": expected letters, digits, _ and -, or "/" for the root')
        branch = self.branch
        for index, component in enumerate(components[:-1]):
            service = branch.services.get(component)
            if service is None or service.branch is None:
                above = "/".join(components[: index + 1])
                raise NotRunning(f'{self.label} has no web service of type path on "{above}"')
            branch = service.branch
        return branch, components[-1]

    # --- requests ---

    def websocket_at(self, path: str) -> "Entrance | None":
        """What takes WebSocket opening handshakes on a path.

        :param path: of the request, percent-decoded but for encoded slashes, with its slash in front.
        :returns: None: nothing; the request is for :meth:`tunnel`.
        """
        service = self.branch.find(path.split("/")[1:])
        return None if service is None else service.entrance

    def tunnel(self, conn: int, peer: Peer, head: bytes) -> None:
        """Serve a client whose connection waits in the data plane.

        :param conn: its number.
        :param peer: who it is, by the PROXY protocol where that is spoken.
        :param head: the head of its first request.
        :raises OSError: out of descriptors; the connection still waits.
        """
        if self._is_stopping:
            self.plane.reply(conn, HttpError(503, "this is about to be stopped").to_bytes())
            return
        ours, theirs = open_pair()
        self.plane.tunnel(conn, theirs.detach())
        channel = self.http.buildProtocol(twisted_address(peer))
        end_class = SecureTunnelEnd if peer.is_secure else TunnelEnd
        stall = self.transport.model.limits.stall_timeout / 1000
        end = end_class(ours, channel, self.reactor, peer, self.http.host, stall)
        end.open()
        try:
            channel.dataReceived(head)
        except Exception:
            log.exception("error while a request of %s was handled", peer.text)
            end.abortConnection()


def _without_id(config: Any) -> Any:
    return config.model_copy(update={"id": None})


class ProxySite(Site):
    """Twisted's site, with our channel and request.

    :param web: whose.

    :ivar channels: the connections that are there.
    :ivar seconds: how long a client may take for what it has to send.
    :ivar server: the header Server; ``hsts``: Strict-Transport-Security, empty: there is none.
    """

    noisy = False

    def __init__(self, web: WebSite) -> None:
        options = web.options
        self.seconds: int = options.client_timeout or CLIENT_SECONDS
        super().__init__(
            web.branch.resource, ProxyRequest, timeout=self.seconds, reactor=web.reactor, parsePOSTFormSubmission=False
        )
        self.web = web
        self.options = options
        self.displayTracebacks = options.display_tracebacks
        self.channels: set[WebChannel] = set()
        self.server = (f"wamp-proxy/{__version__}" if options.show_server_version else "wamp-proxy").encode("ascii")
        self.hsts = b"max-age=%d" % options.hsts_max_age if options.hsts else b""
        self._drained: Deferred[None] | None = None
        self._deadline: Any = None  # IDelayedCall
        self._host: Any = None  # IAddress

    def startFactory(self) -> None:
        """Nothing: Twisted's log file is not used."""

    def stopFactory(self) -> None:
        """Likewise."""

    # --- connections ---

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A channel for a client."""
        channel: Any = WebChannel(self)
        channel.factory = self
        channel.site = self
        channel.requestFactory = self.requestFactory
        channel.timeOut = self.timeOut
        channel.callLater = self.reactor.callLater
        return channel

    @property
    def host(self) -> Any:
        """The address that clients connect to."""
        if self._host is None:
            self._host = _address(self.web.transport.address)
        return self._host

    def channel_lost(self, channel: WebChannel) -> None:
        """A client has gone."""
        self.channels.discard(channel)
        if not self.channels:
            self._is_drained()

    def close_all(self) -> "Deferred[None]":
        """Close all connections: after the answers that are under way, but soon."""
        done: Deferred[None] = Deferred()
        self._drained = done
        for channel in list(self.channels):
            channel.finish_up()
        if self.channels:
            self._deadline = self.web.reactor.callLater(STOP_SECONDS, self._abort_all)
        else:
            self._is_drained()
        return done

    def _abort_all(self) -> None:
        self._deadline = None
        for channel in list(self.channels):
            transport: Any = channel.transport
            transport.abortConnection()

    def _is_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is None:
            return
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
        drained.callback(None)

    # --- requests ---

    def getResourceFor(self, request: Any) -> Any:
        """What answers a request; Twisted's own error pages give way to ours."""
        entrance = self.web.transport.websocket_at(_decoded(request.path))
        if entrance is not None:  # the path is not the services', whichever request of its connection this is
            return LaterRequest(entrance)
        found: Any = super().getResourceFor(request)
        if type(found).__module__ in _TWISTED_PAGES:
            status = getattr(found, "code", None) or getattr(found, "_code", None)
            if isinstance(status, int):
                return ErrorPage(status)
        return found

    def status_line(self, status: int) -> bytes:
        """The first line of an answer."""
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode("ascii")

    def peer_of(self, transport: Any) -> Peer:
        """Who is at the other end of a connection, by its transport."""
        peer = getattr(transport, "peer", None)
        if isinstance(peer, Peer):
            return peer
        address = transport.getPeer()
        tls = _UNTOLD if ISSLTransport.providedBy(transport) else None
        if isinstance(address, IPv4Address | IPv6Address):
            return Peer(address.host, address.port, tls=tls)
        return Peer(tls=tls)

    def forwarded_peer(self, peer: Peer, headers: Mapping[str, str]) -> Peer:
        """Who is behind the proxies in front that are listed.

        :raises HttpError: 400, the headers contradict each other.
        """
        forwarders = getattr(self.web.transport.model.endpoint, "forwarded", None)
        return peer if forwarders is None else client_peer(peer, headers, forwarders)

    def takes_forms(self, path: bytes) -> bool:
        """Whether the service on a path wants forms taken apart."""
        service = self.web.branch.find(_decoded(path.partition(b"?")[0]).split("/")[1:])
        return service is not None and service.TAKES_FORMS

    def log(self, request: Any) -> None:
        """A request is answered: one line in the combined log format, if that is wanted."""
        if self.options.access_log:
            access.info("%s", _access_line(request))


def _decoded(path: bytes) -> str:
    """A slash that is encoded stays so, see :func:`proxy.handshake.peek_request`."""
    return unquote_to_bytes(_SLASH.sub(b"%252F", path)).decode("utf-8", "replace")


def _address(url: str) -> Any:
    parts = urlsplit(url)
    if not parts.hostname or parts.hostname == "unix":
        return UNIXAddress(parts.path or None)
    if ":" in parts.hostname:
        return IPv6Address("TCP", parts.hostname, parts.port or 0)
    return IPv4Address("TCP", parts.hostname, parts.port or 0)


def _access_line(request: ProxyRequest) -> str:
    time = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
    # Only texts with a URL in them are looked through for credentials.
    target = without_credentials("http://x" + _shown(request.uri)).removeprefix("http://x")
    line = f"{_shown(request.method)} {target} {_shown(request.clientproto)}"
    referrer = without_credentials(_shown(request.getHeader(b"referer") or b"-"))
    agent = _shown(request.getHeader(b"user-agent") or b"-")
    host = request.peer.host or "unix"
    return f'{host} - - [{time}] "{line}" {request.code} {request.sentLength or "-"} "{referrer}" "{agent}"'


def _shown(octets: bytes) -> str:
    """As ASCII without control characters and quotes: nothing that a client sends may look like another line."""
    text = octets.decode("latin-1").encode("unicode_escape").decode("ascii")
    return text.replace('"', '\\"')
