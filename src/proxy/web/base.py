"""What every service on a path of a web transport has in common."""

from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred, succeed

from proxy.web.pages import ErrorPage

if TYPE_CHECKING:
    from proxy.entrances import Entrance
    from proxy.web.branch import Branch
    from proxy.web.site import WebSite

__all__ = ["WebService"]


class WebService:
    """A service on a path.

    A subclass sets :attr:`resource` at the latest when its start is done. Requests reach it from then on, until it is
    stopped; those that are under way at that time go on.

    :param site: of its transport.
    :param path: from the root, without slashes around it, ``a/b``; ``/`` is the root.
    :param config: its item of the configuration, checked.

    :ivar resource: what answers requests to the path and to all below it.
    :ivar branch: further services below the path; None: this one has all of it.
    :ivar entrance: what takes WebSocket opening handshakes on the path; None: they are requests like others.
    """

    TYPE: ClassVar[str]
    """As in the configuration."""
    TAKES_FORMS: ClassVar[bool] = False
    """Forms in the body of a request are taken apart before it comes, see ``Request.args`` of Twisted."""

    def __init__(self, site: "WebSite", path: str, config: Any) -> None:
        self.site = site
        self.path = path
        self.config = config
        self.resource: Any = ErrorPage(404)  # IResource
        self.branch: Branch | None = None
        self.entrance: Entrance | None = None

    @property
    def label(self) -> str:
        """For error texts and logs."""
        return f'web service "{self.path}" ({self.TYPE}) of {self.site.label}'

    def start(self) -> "Deferred[None]":
        """Get ready.

        :returns: fires when it can serve; fails with a ProxyError when it cannot, and then leaves nothing behind.
        """
        return succeed(None)

    def end_soon(self) -> None:
        """The transport is about to stop: requests that wait for something to happen are to be answered."""
        if self.branch is not None:
            self.branch.end_soon()

    def stop(self) -> "Deferred[None] | None":
        """Let go of what it holds. Called once, and not if the start has failed."""
        return None
