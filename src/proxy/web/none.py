"""The service that is none: whatever is asked for is not there."""

from proxy.web.base import WebService

__all__ = ["NoneService"]


class NoneService(WebService):
    """Answers 404."""

    TYPE = "none"
