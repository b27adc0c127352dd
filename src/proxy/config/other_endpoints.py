"""Endpoints that Twisted opens: anything that it has a server string for, and Tor's onion services."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, ValidationInfo

from proxy.config.fields import Model, Text, UnixPath, integer, one_of, problem, seconds, unsupported
from proxy.config.networks import NOBODY, Forwarded, NetworkNames

__all__ = ["OnionEndpoint", "TorControl", "TorControlTcp", "TorControlUnix", "TwistedEndpoint"]

_TIMEOUT_MAX_SECONDS = 600


def _server_string(value: str) -> str:
    kind, colon, rest = value.partition(":")
    if not kind.strip() or not colon or not rest or "\0" in value:
        raise problem("expected a server string of Twisted, like tcp:8080:interface=127.0.0.1")
    return value


def _no_version_2(value: Any) -> Any:
    if type(value) is int and value == 2:
        raise problem("expected 3: version 2 is dead, no Tor since 0.4.6 (2021) has it")
    return value


def _file_path(value: str, info: ValidationInfo) -> str:
    """Make the path absolute, against the folder of the configuration file."""
    folder: Path | None = (info.context or {}).get("folder")
    if not value or "\0" in value:
        raise problem("expected the path of a file")
    return str(folder / value) if folder is not None else value


class TwistedEndpoint(Model):
    """Whatever Twisted listens on for a server string: ``tcp:``, ``ssl:``, ``unix:``, ``systemd:``, those of plugins.

    :ivar server_string: see Twisted's ``serverFromString()``.
    :ivar proxy_protocol: networks from which a PROXY protocol header is required.
    :ivar forwarded: who is believed about X-Forwarded-For and Forwarded.
    """

    type: Literal["twisted"] = "twisted"
    server_string: Annotated[StrictStr, AfterValidator(_server_string)]
    proxy_protocol: NetworkNames = ()
    forwarded: Forwarded = NOBODY


class TorControlTcp(Model):
    """Tor's control port. ``timeout``: seconds for connecting."""

    type: Literal["tcp"]
    host: Text
    port: Annotated[int, integer(1, 65535)]
    version: Annotated[Literal[4, 6], one_of(4, 6)] = 4
    timeout: Annotated[float, seconds(_TIMEOUT_MAX_SECONDS)] = 10
    tls: Annotated[None, unsupported("Tor's control port speaks no TLS")] = None


class TorControlUnix(Model):
    """Tor's control socket. ``timeout``: seconds for connecting."""

    type: Literal["unix"]
    path: UnixPath
    timeout: Annotated[float, seconds(_TIMEOUT_MAX_SECONDS)] = 10


TorControl: TypeAlias = Annotated[TorControlTcp | TorControlUnix, Field(discriminator="type")]


class OnionEndpoint(Model):
    """An onion service of a Tor that runs on this machine.

    :ivar port: of the onion service.
    :ivar private_key_file: its key, which is its address; made at the first start.
    :ivar tor_control_endpoint: where Tor is told to set it up.
    :ivar proxy_protocol: networks from which a PROXY protocol header is required (Tor can send one, for circuits).
    :ivar forwarded: who is believed about X-Forwarded-For and Forwarded.
    """

    type: Literal["onion"] = "onion"
    port: Annotated[int, integer(1, 65535)]
    private_key_file: Annotated[StrictStr, AfterValidator(_file_path)]
    tor_control_endpoint: TorControl
    version: Annotated[Literal[3], one_of(3), BeforeValidator(_no_version_2)] = 3
    proxy_protocol: NetworkNames = ()
    forwarded: Forwarded = NOBODY
