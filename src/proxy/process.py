"""What every native process of a node offers: a place on the management realm, and events to those who listen.

Names are those of Crossbar.io's classes, which a node knows.
"""

import argparse
import logging
import socket
from pathlib import Path
from typing import Any, ClassVar

from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig
from twisted.python.failure import Failure

from proxy.management.procedures import Caller
from proxy.management.session import Carrier

__all__ = ["NativeProcess"]

log = logging.getLogger(__name__)

_NO_EXTRA = argparse.Namespace()


class NativeProcess(ApplicationSession):
    """A process of a node, and its session on the node's management realm.

    Without a node it is not joined to anything, and other carriers bring the calls.

    :param config: as a node's worker has it: ``realm``, and ``extra`` with ``node``, ``worker`` and ``cbdir``.
    :param reactor: Twisted's reactor; None: the one that is installed.
    :param personality: the node's; nothing here depends on it.
    :param worker_id: id of the worker, where ``config`` names none.
    :param node_id: id of the node, likewise; default: the host's name.

    :ivar cbdir: the node's folder; relative paths start here.
    :ivar uri_prefix: of all procedures and topics.
    :ivar carriers: the ways on which the management API travels at present.
    """

    WORKER_TYPE: ClassVar[str] = "native"

    def __init__(
        self,
        config: ComponentConfig | None = None,
        reactor: Any = None,
        personality: Any = None,
        *,
        worker_id: str | None = None,
        node_id: str | None = None,
    ) -> None:
        super().__init__(config)
        if reactor is None:
            from twisted.internet import reactor
        extra = config.extra if config is not None and config.extra is not None else _NO_EXTRA
        self.reactor = reactor
        self.personality = personality
        self.worker_id: str = getattr(extra, "worker", None) or worker_id or "worker001"
        self.node_id: str = getattr(extra, "node", None) or node_id or socket.gethostname().lower()
        self.cbdir = Path(getattr(extra, "cbdir", None) or Path.cwd())
        self.uri_prefix = f"crossbar.worker.{self.worker_id}"
        self.carriers: list[Carrier] = []

    def publish_event(self, name: str, *args: Any, exclude: Caller | None = None, acknowledge: bool = False) -> None:
        """Publish an event to whoever listens, on every carrier.

        :param name: last part of the topic.
        :param args: positional arguments of the event.
        :param exclude: a caller that does not get it.
        :param acknowledge: ask the router for an acknowledgement; a failure is logged.
        """
        topic = f"{self.uri_prefix}.{name}"
        for carrier in list(self.carriers):
            is_here = exclude is not None and exclude.carrier in (None, carrier)
            carrier.publish_event(topic, args, exclude.caller if exclude is not None and is_here else None, acknowledge)

    def onUserError(self, fail: Failure, msg: str) -> None:
        """What autobahn does not know where to put. Errors of procedures are the caller's and need no log."""
        if isinstance(fail.value, ApplicationError):
            log.debug("%s: %s", msg, fail.value)
        else:
            log.error("%s\n%s", msg, fail.getTraceback())
