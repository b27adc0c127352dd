"""Services on further paths below a path."""

from typing import Any

from twisted.internet.defer import Deferred

from proxy.web.base import WebService
from proxy.web.branch import Branch

__all__ = ["PathService"]


class PathService(WebService):
    """A branch of its own."""

    TYPE = "path"
    branch: Branch

    def __init__(self, site: Any, path: str, config: Any) -> None:
        super().__init__(site, path, config)
        self.branch = Branch(site, "" if path == "/" else path)
        self.resource = self.branch.resource

    def start(self) -> "Deferred[None]":
        """Start the services below."""
        started: Deferred[None] = self.branch.start_all(self.config.paths)
        return started

    def stop(self) -> "Deferred[None]":
        """Stop them."""
        return self.branch.stop_all()
