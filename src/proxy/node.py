"""A worker under a Crossbar.io node: the program that the node starts in place of its own."""

from typing import ClassVar

__all__ = ["ProxyWorkerProcess"]


class ProxyWorkerProcess:
    """What a node's controller says of a worker process of this type in its log and its API.

    Crossbar.io's class of the same name has a base class there, which holds the process; mixed into that, this one
    takes its place.
    """

    TYPE: ClassVar[str] = "proxy"
    LOGNAME: ClassVar[str] = "Proxy"
