"""Child process: autobahn-python logs in over TLS once, with asyncio or Twisted.

The job is JSON in the first argument: ``url``, ``kind``, ``host``, ``port``, ``ca``, ``certificate`` and ``key`` (of
the client, may be null), ``realm``, ``method``, ``authid``, ``privkey``, ``binding``, ``framework`` (``asyncio`` or
``twisted``). The answer is a line of JSON: ``joined`` (of WELCOME), ``sum`` (of a call that the session made to itself)
and ``channel_id`` (hexadecimal digits), or ``refused`` and ``message`` (of ABORT).
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

import txaio

STEP = 15.0
PROCEDURE = "com.example.tls.add"


def make_session(base: Any, job: dict[str, Any], done: Any) -> Any:
    """A session that logs in, calls itself, says what it saw, and leaves."""
    from autobahn.wamp.auth import create_authenticator

    class Client(base):  # type: ignore[misc]
        """See above."""

        def onConnect(self) -> None:
            if job["method"] == "tls":
                self.join(job["realm"], ["tls"], job["authid"])
            else:
                super().onConnect()

        def onJoin(self, details: Any) -> Any:
            return txaio.as_future(self._look_around, details)

        def _look_around(self, details: Any) -> Any:
            names = ("session", "realm", "authid", "authrole", "authmethod", "authprovider")
            answer = {"joined": {name: getattr(details, name) for name in names}}
            channel = self._transport.transport_details.channel_id or {}
            answer["channel_id"] = {name: value.hex() for name, value in channel.items()}
            registered = self.register(lambda a, b: a + b, PROCEDURE)

            def call(_: Any) -> Any:
                return self.call(PROCEDURE, 2, 3)

            def finish(result: int) -> None:
                done({**answer, "sum": result})
                self.leave()

            return chain(registered, call, finish)

        def onLeave(self, details: Any) -> None:
            done({"refused": details.reason, "message": details.message})
            self.disconnect()

    from autobahn.wamp import ComponentConfig

    session = Client(ComponentConfig(realm=job["realm"]))
    if job["method"] == "cryptosign":
        extra = {"channel_binding": job["binding"]} if job["binding"] else {}
        session.add_authenticator(
            create_authenticator("cryptosign", authid=job["authid"], privkey=job["privkey"], authextra=extra)
        )
    elif job["method"] != "tls":
        session.add_authenticator(create_authenticator("anonymous"))
    return session


def chain(future: Any, *steps: Any) -> Any:
    """Each step with the result of the one before."""
    for step in steps:
        result = txaio.create_future()

        def passed_on(value: Any, step: Any = step, result: Any = result) -> None:
            inner = txaio.as_future(step, value)
            txaio.add_callbacks(
                inner, lambda found: txaio.resolve(result, found), lambda fail: txaio.reject(result, fail)
            )

        txaio.add_callbacks(future, passed_on, lambda fail, result=result: txaio.reject(result, fail))
        future = result
    return future


def over_asyncio(job: dict[str, Any]) -> None:
    """Log in with asyncio."""
    txaio.use_asyncio()
    from autobahn.asyncio.rawsocket import WampRawSocketClientFactory
    from autobahn.asyncio.wamp import Session
    from autobahn.asyncio.websocket import WampWebSocketClientFactory
    from autobahn.wamp.serializer import CBORSerializer

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        txaio.config.loop = loop
        answer: asyncio.Future[Any] = loop.create_future()
        session = make_session(Session, job, lambda found: answer.done() or answer.set_result(found))
        context = ssl.create_default_context(cafile=job["ca"])
        if job["certificate"]:
            context.load_cert_chain(job["certificate"], job["key"])
        if job["kind"] == "websocket":
            factory: Any = WampWebSocketClientFactory(
                lambda: session, url=job["url"], serializers=[CBORSerializer()], loop=loop
            )
        else:
            factory = WampRawSocketClientFactory(lambda: session, serializer=CBORSerializer())
        await loop.create_connection(factory, job["host"], job["port"], ssl=context, server_hostname="localhost")
        return await asyncio.wait_for(answer, STEP)

    print(json.dumps(asyncio.run(main())), flush=True)


def over_twisted(job: dict[str, Any]) -> None:
    """Log in with Twisted."""
    txaio.use_twisted()
    from autobahn.twisted.rawsocket import WampRawSocketClientFactory
    from autobahn.twisted.wamp import Session
    from autobahn.twisted.websocket import WampWebSocketClientFactory
    from autobahn.wamp.serializer import CBORSerializer
    from twisted.internet import reactor
    from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
    from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS

    net: Any = reactor
    found: list[Any] = []

    def done(answer: Any) -> None:
        if not found:
            found.append(answer)
            net.callLater(0.2, net.stop)

    session = make_session(Session, job, done)
    with open(job["ca"], "rb") as file:
        root = Certificate.loadPEM(file.read())
    own = None
    if job["certificate"]:
        with open(job["certificate"], "rb") as file, open(job["key"], "rb") as key:
            own = PrivateCertificate.loadPEM(file.read() + key.read())
    options = optionsForClientTLS("localhost", trustRoot=root, clientCertificate=own)
    if job["kind"] == "websocket":
        factory: Any = WampWebSocketClientFactory(lambda: session, url=job["url"], serializers=[CBORSerializer()])
    else:
        factory = WampRawSocketClientFactory(lambda: session, serializer=CBORSerializer())
    endpoint = wrapClientTLS(options, HostnameEndpoint(net, job["host"], job["port"]))
    endpoint.connect(factory).addErrback(lambda failure: done({"error": failure.getErrorMessage()}))
    net.callLater(STEP, lambda: done({"error": "no answer in time"}))
    net.run()
    print(json.dumps(found[0]), flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    (over_twisted if given["framework"] == "twisted" else over_asyncio)(given)
