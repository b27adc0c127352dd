"""The web service ``caller``: a call for each HTTP request."""

from typing import Any, ClassVar

from proxy.service_requests import Reply
from proxy.web.bridge import Answer, Send
from proxy.web.bridge_values import write_json
from proxy.web.signed import SignedService, arguments_of, uri_of

__all__ = ["CallerService"]


class CallerService(SignedService):
    """Calls ``procedure`` with ``args`` and ``kwargs`` of the JSON object that comes, and answers with the result."""

    TYPE: ClassVar[str] = "caller"

    def read_object(self, said: dict[str, Any]) -> Send:
        """See :class:`SignedService`."""
        procedure = uri_of(said, "procedure")
        args, kwargs = arguments_of(said)
        return lambda requests: requests.call(procedure, args, kwargs)

    def succeeded(self, reply: Reply) -> Answer:
        """See :class:`BridgeService`. A procedure that returns nothing is answered as if it had returned null."""
        result: dict[str, Any] = {}
        if reply.args or not reply.kwargs:
            result["args"] = reply.args or [None]
        if reply.kwargs:
            result["kwargs"] = reply.kwargs
        return Answer(200, write_json(result))
