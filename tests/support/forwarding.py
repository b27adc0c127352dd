"""A proxy in front of a router that shows whom the proxy takes for the client."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from support import raw
from support.certificates import Certificates, certificates
from support.endpoints import Endpoint
from support.proxies import Config, ProxyProcess
from support.raw import Peer
from support.stub import StubRouter


class Stage:
    """A stub router that is told who the clients are, and a proxy that listens in several ways.

    :param folder: for sockets and certificates.
    :param listeners: by name, more keys of the endpoint, and ``kind`` and ``unix``; ``tls`` may be True.
    """

    def __init__(self, folder: Path, listeners: dict[str, dict[str, Any]], **keys: Any) -> None:
        self.stub = StubRouter(Endpoint("rawsocket", path=str(folder / "stub.sock")))
        self.certificates: Certificates = certificates(folder / "tls")
        config = Config(folder)
        item = {"transport": self.stub.endpoint.as_backend(), "auth": {"anonymous-proxy": {"type": "static"}}}
        config.backend("stub", item)
        self.fronts: dict[str, Endpoint] = {}
        for name, options in listeners.items():
            options = dict(options)
            kind, unix = options.pop("kind", "websocket"), options.pop("unix", False)
            if options.get("tls") is True:
                options["tls"] = self.certificates.server.tls
            self.fronts[name] = config.listen(kind, name, unix=unix, **keys)
            config.transports[-1]["endpoint"].update(options)
            if kind == "universal":
                self._make_universal(config.transports[-1])
        self.proxy = ProxyProcess(config)

    @staticmethod
    def _make_universal(item: dict[str, Any]) -> None:
        """Turn the keys of a WebSocket transport into those of a universal one, with a page that is logged."""
        auth = item.pop("auth")
        del item["serializers"]
        item["websocket"] = {"ws": {"type": "websocket", "auth": auth}}
        item["rawsocket"] = {"auth": auth}
        item["web"] = {"paths": {"/": {"type": "json", "value": "a page"}}, "options": {"access_log": True}}

    def page(self, name: str, before: bytes = b"", **headers: str) -> int:
        """Ask a universal transport for its page.

        :param before: what is sent in front of the request.
        :returns: the status of the answer.
        """
        sock = self.fronts[name].connect()
        more = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
        sock.sendall(before + f"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n".encode())
        wire = raw.Wire(sock)
        answer = wire.read_all()
        wire.close()
        return int(answer.split()[1])

    def secured(self, plain: socket.socket, name: str = "localhost") -> ssl.SSLSocket:
        """A client's TLS on a connected socket."""
        context = ssl.create_default_context(cafile=str(self.certificates.ca))
        return context.wrap_socket(plain, server_hostname=name)

    def seen(self, client: Peer) -> dict[str, Any]:
        """Transport details of a client, as the router gets them; it is joined then."""
        client.send(raw.hello())
        router, hello = self.stub.accept_session()
        client.recv_type(raw.WELCOME)
        details: dict[str, Any] = hello[2]["authextra"]["proxy_authextra"]["transport"]
        client.close()
        router.recv_end()
        return details

    def close(self) -> None:
        """Assert that nothing is left, and end everything."""
        self.proxy.check_idle()
        self.proxy.stop()
        self.stub.close()
