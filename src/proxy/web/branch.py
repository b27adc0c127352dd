"""Services on paths below one another: which one has a request, and starting and stopping them."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from proxy.errors import AlreadyRunning, CannotStart, NotRunning, ProxyError
from proxy.web.base import WebService
from proxy.web.pages import ErrorPage
from proxy.web.services import create

if TYPE_CHECKING:
    from collections.abc import Generator

    from proxy.web.site import WebSite

__all__ = ["ROOT", "Branch"]

log = logging.getLogger("proxy.web")

ROOT: Final = "/"
"""The service that has everything that no other one of its branch has."""


class Branch:
    """The services directly below a path.

    :param site: of the transport.
    :param path: from the root, without slashes around it; empty: it is the root.

    :ivar services: those in service, by the next component of the path.
    :ivar resource: hands requests to them.
    """

    def __init__(self, site: "WebSite", path: str = "") -> None:
        self.site = site
        self.path = path
        self.services: dict[str, WebService] = {}
        self.resource: Any = _BranchResource(self)  # IResource
        self._changing: set[str] = set()
        # Nothing is started any more; starts and stops that are under way, until nobody waits for them.
        self._is_ending = False
        self._settled: list[Deferred[None]] = []

    def full_path(self, name: str) -> str:
        """From the root, of the service ``name`` of this branch."""
        if name == ROOT:
            return self.path or ROOT
        return f"{self.path}/{name}" if self.path else name

    def find(self, components: Sequence[str]) -> WebService | None:
        """The service that has a path below this branch; None: nobody has."""
        service = self.services.get(components[0]) if components and components[0] != ROOT else None
        rest = components[1:]
        if service is None:
            service, rest = self.services.get(ROOT), components
        below = None if service is None else service.branch
        return service if below is None else below.find(rest)

    # --- start and stop ---

    @inlineCallbacks
    def start_all(self, paths: Mapping[str, Any]) -> "Generator[Deferred[Any], Any, None]":
        """Start services one after the other. Fails with a ProxyError if one of them cannot be, and leaves none.

        :param paths: their items of the configuration, by name.
        """
        try:
            for name in sorted(paths):
                yield self.start(name, paths[name])
        except Exception:
            yield self.stop_all()
            raise

    def start(self, name: str, config: Any) -> "Deferred[WebService]":
        """Start a service.

        :param name: the next component of the path, or :data:`ROOT`.
        :param config: its item of the configuration, checked.
        :returns: fires with it; fails with a ProxyError.
        :raises AlreadyRunning: there is one, or it is about to start or to stop.
        """
        path = self.full_path(name)
        if self._is_ending:
            _too_late()
        if name in self.services or name in self._changing:
            raise AlreadyRunning(f'{self.site.label} has a web service on path "{path}" already')
        self._changing.add(name)
        made: Deferred[WebService] = maybeDeferred(create, self.site, path, config)
        made.addCallback(_start)
        return made.addBoth(self._started, name, config)

    def _started(self, result: WebService | Failure, name: str, config: Any) -> "WebService | Deferred[WebService]":
        if isinstance(result, WebService) and self._is_ending:
            return maybeDeferred(result.stop).addBoth(self._stopped, name, result).addCallback(_too_late)
        self._has_settled(name)
        if isinstance(result, WebService):
            self.services[name] = result
            return result
        what = f'web service "{self.full_path(name)}" ({config.type})'
        error = result.value
        if isinstance(error, ProxyError):
            raise type(error)(f"{what}: {error.message}", **error.details) from error
        log.error("error while starting %s\n%s", what, result.getTraceback())
        raise CannotStart(f"{what}: internal error; the worker's log says more") from error

    def stop(self, name: str) -> "Deferred[WebService]":
        """Stop a service: requests find it no more.

        :returns: fires with it when it has let go of everything.
        :raises NotRunning: there is none.
        """
        service = self.services.get(name)
        if service is None or name in self._changing:
            raise NotRunning(f'{self.site.label} has no web service on path "{self.full_path(name)}"')
        self._changing.add(name)
        del self.services[name]
        return maybeDeferred(service.stop).addBoth(self._stopped, name, service)

    def _stopped(self, result: Any, name: str, service: WebService) -> WebService:
        self._has_settled(name)
        if isinstance(result, Failure):
            log.error("error while stopping %s\n%s", service.label, result.getTraceback())
        return service

    def end_soon(self) -> None:
        """See :meth:`WebService.end_soon`, for all services."""
        for service in list(self.services.values()):
            service.end_soon()

    def stop_all(self) -> "Deferred[Any]":
        """Stop all services, for good; fires when they have let go of everything.

        A service that is being started is stopped once it is, and its start fails.
        """
        self._is_ending = True
        for name in list(self.services):
            self.stop(name)
        settled: Deferred[None] = Deferred()
        self._settled.append(settled)
        self._tell_if_settled()
        return settled

    def _has_settled(self, name: str) -> None:
        self._changing.discard(name)
        self._tell_if_settled()

    def _tell_if_settled(self) -> None:
        if self._changing:
            return
        settled, self._settled = self._settled, []
        for waiting in settled:
            waiting.callback(None)


def _start(service: WebService) -> "Deferred[WebService]":
    return maybeDeferred(service.start).addCallback(lambda _: service)


def _too_late(_: Any = None) -> NoReturn:
    raise CannotStart("what it is on is about to be stopped")


@implementer(IResource)
class _BranchResource(Resource):
    """Hands a request on by the next component of its path."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self._branch = branch

    @property
    def _root(self) -> Any:
        service = self._branch.services.get(ROOT)
        return ErrorPage(404) if service is None else service.resource

    def getChildWithDefault(self, path: bytes, request: Any) -> Any:
        """The service on the path; else the one of the root, which has the component before it as well."""
        name = path.decode("utf-8", "replace")
        service = self._branch.services.get(name) if name != ROOT else None
        if service is not None:
            return service.resource
        request.postpath.insert(0, request.prepath.pop())
        return self._root

    def render(self, request: Any) -> Any:
        """A request for the branch itself, without a slash behind it."""
        return self._root.render(request)
