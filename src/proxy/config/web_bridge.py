"""Options of the HTTP bridge: the web services ``publisher``, ``caller`` and ``webhook``."""

import re
from typing import Annotated, Final, TypeAlias

from pydantic import Field, StrictBool, StrictStr, model_validator

from proxy.config.fields import Model, NoEffect, Secret, Text, checked, integer, problem
from proxy.config.networks import NetworkNames

__all__ = ["BridgeOptions", "SignedOptions", "WebhookOptions"]

_LOOSE_URI: Final = re.compile(r"([^\s.#]+\.)*[^\s.#]+")


def _check_topic(value: str) -> None:
    if not _LOOSE_URI.fullmatch(value):
        raise ValueError("expected a URI like com.example.topic")


_BodyLimit: TypeAlias = Annotated[int, integer(0, 1 << 20, "octets, 0: max_body_size of the transport")]


class BridgeOptions(Model):
    """What all services of the HTTP bridge have.

    :ivar require_tls: refuse requests that do not come over TLS.
    :ivar require_ip: networks that requests may come from, ``unix`` stands for Unix sockets; empty: any.
    :ivar post_body_limit: octets of a request's body.
    :ivar timeout: from the request to the router's answer, ms.
    :ivar max_requests: that wait for the router at a time; further ones are refused.
    """

    debug: Annotated[StrictBool, NoEffect("accepted, has no effect: see --log-level")] = False
    require_tls: StrictBool = False
    require_ip: NetworkNames = ()
    post_body_limit: _BodyLimit = 0
    timeout: Annotated[int, integer(1, 86_400_000, "ms")] = 300_000
    max_requests: Annotated[int, integer(1, 1_000_000)] = 1000


class SignedOptions(BridgeOptions):
    """Who may use the HTTP bridge.

    :ivar key: of whoever signs requests; ``secret``: what they are signed with. None: nobody needs to.
    :ivar timestamp_delta_limit: how far the clock of whoever signs may be off, seconds; 0: not looked at.
    :ivar refuse_replays: take each signed request once.
    """

    key: Text | None = Field(default=None, repr=False)
    secret: Secret | None = Field(default=None, repr=False)
    timestamp_delta_limit: Annotated[int, integer(0, 86_400, "seconds, 0: any")] = 300
    refuse_replays: StrictBool = True

    @model_validator(mode="after")
    def _secret_with_key(self) -> "SignedOptions":
        if (self.key is None) != (self.secret is None):
            raise problem("expected both key and secret, or none of them", "key" if self.key is None else "secret")
        return self


class WebhookOptions(BridgeOptions):
    """What becomes of a request.

    :ivar topic: it is published to. Crossbar.io starts without one, and then fails at each request.
    :ivar success_response: body of the answer, ``error_response`` likewise.
    :ivar github_secret: GitHub signs with it; None: nothing is signed.
    """

    topic: Annotated[Text, checked(_check_topic)]
    success_response: StrictStr = "OK"
    error_response: StrictStr = "NOT OK"
    github_secret: Secret | None = Field(default=None, repr=False)
