"""Servers behind web services: where they are, and TLS towards them (Crossbar.io's connecting endpoints)."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, ValidationInfo, model_validator

from proxy.config.fields import PEM_MARK, Model, Text, UnixPath, integer, one_of, problem, seconds

__all__ = [
    "ConnectingEndpoint",
    "ConnectingTcp",
    "ConnectingTls",
    "ConnectingTlsSwitch",
    "ConnectingTwisted",
    "ConnectingUnix",
    "LocalPath",
]


def _local_path(value: str, info: ValidationInfo) -> str:
    """A path of the file system, environment variables expanded, absolute against the configuration file's folder."""
    path = os.path.expandvars(value)
    folder: Path | None = (info.context or {}).get("folder")
    if not value or "\0" in path or PEM_MARK in path:  # no later error may repeat a private key
        raise problem("expected a path of the file system")
    return os.path.normpath(folder / path) if folder is not None else path


LocalPath: TypeAlias = Annotated[StrictStr, AfterValidator(_local_path)]


class ConnectingTls(Model):
    """TLS towards a server behind. The server is always checked, unless ``verify`` is false.

    :ivar hostname: that its certificate must name, and that it is asked for (SNI); None: the endpoint's host.
    :ivar ca_certificates: PEM files of those who may have signed it; None: the system's.
    :ivar certificate: of the client's own, PEM file; ``key`` belongs to it.
    """

    hostname: Text | None = None
    ca_certificates: tuple[LocalPath, ...] | None = None
    certificate: LocalPath | None = None
    key: LocalPath | None = None
    verify: StrictBool = True

    @model_validator(mode="after")
    def _key_with_certificate(self) -> "ConnectingTls":
        if (self.certificate is None) != (self.key is None):
            raise problem("expected both certificate and key, or none of them", "certificate")
        return self


def _tls_switch(value: Any) -> Any:
    """``true`` is TLS with the defaults, ``false`` is none."""
    return ({} if value else None) if isinstance(value, bool) else value


ConnectingTlsSwitch: TypeAlias = Annotated[ConnectingTls | None, BeforeValidator(_tls_switch)]
"""``true``, ``false``, or how."""


class ConnectingTcp(Model):
    """A server's TCP address; ``timeout`` for connecting, seconds."""

    type: Literal["tcp"] = "tcp"
    host: Text
    port: Annotated[int, integer(1, 65535)]
    version: Annotated[Literal[4, 6], one_of(4, 6)] | None = None
    timeout: Annotated[float, seconds(600)] | None = None
    tls: ConnectingTlsSwitch = None


class ConnectingUnix(Model):
    """A server's Unix socket; ``timeout`` as for TCP."""

    type: Literal["unix"] = "unix"
    path: UnixPath
    timeout: Annotated[float, seconds(600)] | None = None


class ConnectingTwisted(Model):
    """A server as one of Twisted's endpoint descriptions has it; ``timeout`` for connecting, seconds."""

    type: Literal["twisted"] = "twisted"
    client_string: Text
    timeout: Annotated[float, seconds(600)] | None = None


ConnectingEndpoint: TypeAlias = Annotated[
    ConnectingTcp | ConnectingUnix | ConnectingTwisted, Field(discriminator="type")
]
