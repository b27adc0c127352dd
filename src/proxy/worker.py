"""What every native worker of a node offers: joining the management realm, being ready, and shutting down."""

import logging
import os
import signal
from typing import Any, ClassVar

from autobahn.util import utcnow
from autobahn.wamp.types import ComponentConfig, PublishOptions, SessionDetails
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.error import ReactorNotRunning

from proxy.management.procedures import Caller, procedure
from proxy.management.session import SessionCarrier
from proxy.process import NativeProcess

__all__ = ["WorkerController"]

log = logging.getLogger(__name__)


class WorkerController(NativeProcess):
    """A worker that a node started, or that runs alone.

    Parameters as :class:`NativeProcess`.
    """

    WORKER_TYPE: ClassVar[str] = "native"
    WORKER_TITLE: ClassVar[str] = "Native worker"

    def __init__(
        self, config: ComponentConfig | None = None, reactor: Any = None, personality: Any = None, **names: Any
    ) -> None:
        super().__init__(config, reactor, personality, **names)
        self._own_carrier: SessionCarrier | None = None
        self._is_shutdown_requested = False

    # --- the session on the node's management realm ---

    def onConnect(self) -> None:
        """The way to the node is open: join its management realm."""
        self.join(self.config.realm)

    @inlineCallbacks
    def onJoin(self, details: SessionDetails) -> Any:
        """Offer the procedures, and tell the node that the worker is ready."""
        carrier = SessionCarrier(self, self, self.uri_prefix)
        yield carrier.register()
        self.carriers.append(carrier)
        self._own_carrier = carrier
        signal.signal(signal.SIGTERM, self._on_sigterm)
        public_key = yield self.call("crossbar.get_public_key")
        self.on_node_key(public_key)
        log.info("%s %s is ready on node %s", self.WORKER_TITLE, self.worker_id, self.node_id)
        yield self.publish_ready()

    def on_node_key(self, public_key: str) -> None:
        """The node told its public key (hex)."""

    @inlineCallbacks
    def publish_ready(self) -> Any:
        """Publish on_worker_ready: the node's start_worker returns with it, and configures the worker."""
        ready = {"type": self.WORKER_TYPE, "id": self.worker_id, "pid": os.getpid()}
        yield self.publish(f"{self.uri_prefix}.on_worker_ready", ready, options=PublishOptions(acknowledge=True))

    def onLeave(self, details: Any) -> None:
        """The node let the worker go."""
        self._forget_carrier()
        self.disconnect()

    def onDisconnect(self) -> None:
        """Without its node a worker has nobody to answer to: it ends."""
        self._forget_carrier()
        try:
            self.reactor.stop()
        except ReactorNotRunning:
            pass

    def _forget_carrier(self) -> None:
        carrier, self._own_carrier = self._own_carrier, None
        if carrier is not None:
            self.carriers.remove(carrier)

    def _on_sigterm(self, number: int, frame: object) -> None:
        self.reactor.callFromThread(self.shutdown)

    # --- the end ---

    def before_end(self) -> "Deferred[Any]":
        """What is to be done before the worker leaves its node. Fires when it is done; never fails."""
        return succeed(None)

    def end(self) -> None:
        """Do what is to be done, and leave the node; the process ends with that."""
        self.before_end().addBoth(lambda _: self.leave() if self.is_attached() else self.onDisconnect())

    # --- procedures ---

    @procedure
    def shutdown(self, details: Caller | None = None) -> None:
        """End the worker in order. A second call does nothing.

        Publishes on_shutdown_requested {who, when}, and returns before anything ends.
        """
        if self._is_shutdown_requested:
            return
        self._is_shutdown_requested = True
        who = details.caller if details is not None else None
        event = {"who": who, "when": utcnow()}
        self.publish_event("on_shutdown_requested", event, exclude=details, acknowledge=True)
        # The answer to this call, and the event, are to leave before the session does.
        self.reactor.callLater(0, self.end)

    @procedure
    def set_node_id(self, node_id: str, details: Caller | None = None) -> None:
        """Change the ID of the node that the worker says it belongs to."""
        self.node_id = node_id

    @procedure
    def get_node_id(self, details: Caller | None = None) -> str:
        """The ID of the node."""
        return self.node_id
