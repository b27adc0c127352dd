"""A proxy with one session that is looked at after each test: what happens to others must not reach it."""

from __future__ import annotations

from support import raw
from support.process import wait_until
from support.proxies import ProxyProcess
from support.raw import Peer
from support.stub import StubRouter


class Witnessed:
    """Base of such a stage.

    :ivar proxy: the proxy; ``stub``: the router that its sessions are with.
    :ivar witness: both ends of the session, made by the subclass.
    """

    proxy: ProxyProcess
    stub: StubRouter
    witness: tuple[Peer, Peer]

    def check(self, client: Peer, router: Peer) -> None:
        """One message each way."""
        client.send([raw.PUBLISH, 1, {}, "com.example"])
        assert router.recv() == [raw.PUBLISH, 1, {}, "com.example"]
        router.send([raw.EVENT, 1, 2, {}])
        assert client.recv() == [raw.EVENT, 1, 2, {}]

    def check_alone(self) -> None:
        """Only the witness is left, and it is well."""
        wait_until(lambda: self.proxy.census.surplus()["socket"] <= 2, "all but the witness is closed", 8.0)
        self.check(*self.witness)

    def close(self) -> None:
        """The witness has seen nothing, and the proxy holds nothing else."""
        self.check(*self.witness)
        for peer in self.witness:
            peer.close()
        self.proxy.check_idle()
        self.proxy.stop()
        self.stub.close()
