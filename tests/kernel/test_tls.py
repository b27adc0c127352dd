"""TLS of the data plane: handshakes, records of every size, ends, and what the control plane is told of it all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kernel.harness import (
    GOODBYE,
    HELLO,
    REQUEST,
    WELCOME,
    End,
    Gone,
    Listener,
    Plane,
    Router,
    Session,
    call,
    call_of,
    result,
)
from proxy import _relay as R
from proxy.peers import read_intro
from support.certificates import Authority, Pair

NAME = "router.example.com"
SIZES = [20, 126, 4096, 16383, 16384, 16385, 65536, 131072, 1 << 20, 1 << 24]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("server")


def item(pair: Pair, *names: str) -> tuple[bytes, bytes, list[str]]:
    """What add_tls() takes for one certificate."""
    return pair.chain.read_bytes(), pair.key.read_bytes(), list(names)


def add_server(plane: Plane, *items: tuple[bytes, bytes, list[str]], **options: Any) -> int:
    return plane.relay.add_tls(server=True, certificates=list(items), **options)


def context(authority: Authority, **options: Any) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(authority.certificate))
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, value in options.items():
        setattr(made, name, value)
    return made


def join(plane: Plane, listener: Listener, tls: ssl.SSLContext, **wrap: Any) -> tuple[End, int, bytes]:
    """A RawSocket client over TLS: its end, its number, its introduction."""
    sock = socket.create_connection(listener.address, 10)
    wrapped = tls.wrap_socket(sock, **{"server_hostname": "localhost", **wrap})
    end = End(wrapped, "rs", client=True)
    plane.ends.append(end)
    end.write(bytes([0x7F, 0xF0 | R.SER_CBOR, 0, 0]))
    assert end.read(4)[:1] == b"\x7f"
    event = plane.wait(R.EV_OPEN, owner=listener.number)
    return end, event.conn, event.data


def link(plane: Plane, client: End, conn: int, router: Router | None = None, **params: Any) -> Session:
    """Join a router for a client and link them."""
    client.send(HELLO)
    assert plane.wait(R.EV_MESSAGE, conn=conn).data == HELLO
    end, back, token = plane.back(conn, router or plane.router(), **params)
    plane.relay.link(conn, back, WELCOME)
    assert client.recv() == WELCOME
    return Session(client, end, conn, back, token)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_what_is_told_of_a_client(plane: Plane, authority: Authority, server: Pair, version: str) -> None:
    chosen = ssl.TLSVersion[version]
    tls = context(authority, minimum_version=chosen, maximum_version=chosen)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    mine = authority.issue("client", client=True)
    tls.load_cert_chain(mine.chain, mine.key)
    number = add_server(plane, item(server), ca=authority.certificate.read_bytes(), verify=2, alpn=[b"http/1.1"])
    client, _, data = join(plane, plane.listen(tls=number), tls)
    peer, rest = read_intro(data)
    assert rest == b""
    assert peer.is_secure
    assert (peer.host, peer.port) == client.sock.getsockname()
    assert peer.tls is not None
    sock: Any = client.sock
    assert peer.tls.protocol == sock.version()
    assert peer.tls.cipher == sock.cipher()[0]
    assert peer.tls.server_name == "localhost"
    assert peer.tls.alpn == "http/1.1"
    assert peer.tls.certificate == mine.der
    assert len(peer.tls.exporter) == 32
    if version == "TLSv1_2":
        assert peer.tls.finished == sock.get_channel_binding("tls-unique")
    else:
        assert len(peer.tls.finished) in (32, 48)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_messages_of_every_size(plane: Plane, authority: Authority, server: Pair, version: str) -> None:
    chosen = ssl.TLSVersion[version]
    tls = context(authority, minimum_version=chosen, maximum_version=chosen)
    client, conn, _ = join(plane, plane.listen(tls=add_server(plane, item(server))), tls)
    session = link(plane, client, conn)
    for request, size in enumerate(SIZES):
        message = call_of(size, request)
        writer = threading.Thread(target=client.write, args=(client.frame(message),))
        writer.start()
        assert hashlib.sha256(session.router.recv()).digest() == hashlib.sha256(message).digest()
        writer.join()
        answer = result(size - 18, request)
        writer = threading.Thread(target=session.router.send, args=(answer,))
        writer.start()
        assert hashlib.sha256(client.recv()).digest() == hashlib.sha256(answer).digest()
        writer.join()


def test_many_messages_in_one_record_and_one_in_many(plane: Plane, authority: Authority, server: Pair) -> None:
    client, conn, _ = join(plane, plane.listen(tls=add_server(plane, item(server))), context(authority))
    session = link(plane, client, conn)
    client.write(b"".join(client.frame(call(i, i)) for i in range(50)))
    assert [session.router.recv() for _ in range(50)] == [call(i, i) for i in range(50)]
    for octet in client.frame(call(20)):
        client.write(bytes([octet]))
    assert session.router.recv() == call(20)


def test_a_slow_reader_gets_all_of_it(plane: Plane, authority: Authority, server: Pair) -> None:
    """Records that the socket does not take are tried again, at the same octets."""
    client, conn, _ = join(plane, plane.listen(tls=add_server(plane, item(server))), context(authority))
    session = link(plane, client, conn)
    answers = [result(os.urandom(1)[0] * 300, i) for i in range(400)]
    writer = threading.Thread(target=lambda: [session.router.send(answer) for answer in answers])
    writer.start()
    time.sleep(0.5)
    for answer in answers:
        assert client.recv() == answer
    writer.join()


def test_a_router_behind_tls(plane: Plane, authority: Authority, server: Pair) -> None:
    front = plane.session()
    number = plane.relay.add_tls(server=False, ca=authority.certificate.read_bytes(), verify=2)
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inner.load_cert_chain(server.chain, server.key)
    listener = plane.listen()
    resumed = []
    for _ in range(3):
        client, conn = plane.join(listener)
        client.send(HELLO)
        plane.wait(R.EV_MESSAGE, conn=conn)
        router = plane.router()
        token = plane.dial(conn, router, tls=number, server_name="localhost")
        sock: Any = inner.wrap_socket(router.sock.accept()[0], server_side=True)
        end = End(sock, "rs", client=False)
        plane.ends.append(end)
        assert end.read(4)[:1] == b"\x7f"
        end.write(bytes([0x7F, 0xF0 | R.SER_CBOR, 0, 0]))
        assert end.recv() == HELLO
        end.send(WELCOME)
        back = plane.wait(R.EV_MESSAGE, owner=token).conn
        plane.relay.link(conn, back, WELCOME)
        assert client.recv() == WELCOME
        end.send(result(70000))
        assert client.recv() == result(70000)
        resumed.append(sock.session_reused)
    assert not resumed[0]
    assert all(resumed[1:])
    front.client.send(call())
    assert front.router.recv() == call()


@pytest.mark.parametrize(
    ("name", "trusts", "why"),
    [
        ("localhost", False, "certificate verify failed: unable to get local issuer"),
        ("elsewhere.example.com", True, "certificate verify failed: hostname mismatch"),
        ("10.1.2.3", True, "certificate verify failed: IP address mismatch"),
    ],
)
def test_a_router_that_is_another(
    plane: Plane, authority: Authority, server: Pair, tmp_path: Path, name: str, trusts: bool, why: str
) -> None:
    ca = authority if trusts else Authority(tmp_path, "stranger")
    number = plane.relay.add_tls(server=False, ca=ca.certificate.read_bytes(), verify=2)
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inner.load_cert_chain(server.chain, server.key)
    client, conn = plane.join(plane.listen())
    client.send(HELLO)
    plane.wait(R.EV_MESSAGE, conn=conn)
    router = plane.router()
    token = plane.dial(conn, router, tls=number, server_name=name)
    with pytest.raises(ssl.SSLError):
        inner.wrap_socket(router.sock.accept()[0], server_side=True)
    event = plane.wait(R.EV_CLOSED, owner=token)
    assert event.reason == "CLOSED_TLS"
    assert event.data.decode().lower().startswith(why.lower()[:40])


def test_names_choose_certificates(plane: Plane, authority: Authority, server: Pair) -> None:
    one = authority.issue("one", ["one.example.com"])
    wild = authority.issue("wild", ["*.example.com"])
    number = add_server(
        plane, item(server, "localhost"), item(wild, "*.example.com"), item(one, "one.example.com")
    )
    listener = plane.listen(tls=number)
    for name, pair in [("localhost", server), ("ONE.example.com", one), ("two.example.com", wild)]:
        client, _, data = join(plane, listener, context(authority), server_hostname=name)
        sock: Any = client.sock
        assert sock.getpeercert(binary_form=True) == pair.der
        tls = read_intro(data)[0].tls
        assert tls is not None
        assert tls.server_name.lower() == name.lower()
    tls_context = context(authority, check_hostname=False)
    client, _, _ = join(plane, listener, tls_context, server_hostname="a.b.example.com")
    assert client.sock.getpeercert(binary_form=True) == server.der  # type: ignore[attr-defined]


def test_replaced_while_clients_are_there(plane: Plane, authority: Authority, server: Pair) -> None:
    number = add_server(plane, item(server))
    listener = plane.listen(tls=number)
    first, conn, _ = join(plane, listener, context(authority))
    session = link(plane, first, conn)
    other = authority.issue("other")
    plane.relay.replace_tls(number, server=True, certificates=[item(other)])
    second, _, _ = join(plane, listener, context(authority))
    assert second.sock.getpeercert(binary_form=True) == other.der  # type: ignore[attr-defined]
    first.send(call())
    assert session.router.recv() == call()
    with pytest.raises(ValueError, match=r"^key: "):
        plane.relay.replace_tls(number, server=True, certificates=[(item(other)[0], item(server)[1], [])])
    third, _, _ = join(plane, listener, context(authority))
    assert third.sock.getpeercert(binary_form=True) == other.der  # type: ignore[attr-defined]
    plane.relay.drop_tls(number)
    with pytest.raises((OSError, Gone)):
        join(plane, listener, context(authority))


def test_sessions_resume(plane: Plane, authority: Authority, server: Pair) -> None:
    tls = context(authority)
    listener = plane.listen(tls=add_server(plane, item(server)))
    client, _, _ = join(plane, listener, tls)
    sock: Any = client.sock
    again, _, data = join(plane, listener, tls, session=sock.session)
    assert again.sock.session_reused  # type: ignore[attr-defined]
    assert plane.relay.stats(0)["tls_resumed"] == 1
    info = read_intro(data)[0].tls
    assert info is not None
    assert info.finished


def all_gone(plane: Plane) -> None:
    """No TLS is left. An end is told a moment before all of it is given back."""
    end = time.monotonic() + 10
    while plane.relay.stats(0)["tls_open"] and time.monotonic() < end:
        time.sleep(0.005)
    assert plane.relay.stats(0)["tls_open"] == 0


# --- ends ---------------------------------------------------------------------------------------------------------


def test_close_notify_both_ways(plane: Plane, authority: Authority, server: Pair) -> None:
    listener = plane.listen(tls=add_server(plane, item(server)))
    client, conn, _ = join(plane, listener, context(authority))
    link(plane, client, conn)
    plane.relay.close(conn)
    assert client.sock.recv(10) == b""  # an end without close_notify raises SSLEOFError
    assert plane.closed(conn).reason == "CLOSED_LOCAL"
    client, conn, _ = join(plane, listener, context(authority))
    client.sock.unwrap()  # type: ignore[attr-defined]  # returns once ours has come
    assert plane.closed(conn).reason == "CLOSED_PEER"


def test_cut_off_without_close_notify(plane: Plane, authority: Authority, server: Pair) -> None:
    client, conn, _ = join(plane, plane.listen(tls=add_server(plane, item(server))), context(authority))
    session = link(plane, client, conn)
    raw = socket.socket(fileno=client.sock.detach())
    raw.close()
    assert plane.closed(conn).reason == "CLOSED_RESET"
    plane.relay.close(session.back)
    assert session.router.read_end() == "eof"


def test_broken_record(plane: Plane, authority: Authority, server: Pair) -> None:
    client, conn, _ = join(plane, plane.listen(tls=add_server(plane, item(server))), context(authority))
    link(plane, client, conn)
    raw = socket.socket(fileno=client.sock.detach())
    raw.sendall(bytes([23, 3, 3, 0, 40]) + os.urandom(40))
    event = plane.closed(conn)
    assert event.reason == "CLOSED_TLS"
    assert b"bad record mac" in event.data
    raw.close()


@pytest.mark.parametrize(
    "octets", [b"\x16\x03\x01\xff\xff" + b"x" * 300, b"\0" * 100, b"\x80\x2e\x01\x00\x02" + b"a" * 60]
)
def test_garbage_instead_of_a_handshake(plane: Plane, authority: Authority, server: Pair, octets: bytes) -> None:
    listener = plane.listen(tls=add_server(plane, item(server)))
    end = plane.connect(listener)
    end.write(octets)
    end.read_end()
    assert plane.relay.stats(0)["tls_failed"] == 1
    client, _, _ = join(plane, listener, context(authority))
    assert client


def test_plain_http_is_told_so(plane: Plane, authority: Authority, server: Pair) -> None:
    end = plane.connect(plane.listen("ws", tls=add_server(plane, item(server))))
    end.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = end.read_head()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]) == len(end.read(40))
    assert end.read_end() == "eof"


def test_half_a_handshake_ends_at_the_deadline(plane: Plane, authority: Authority, server: Pair) -> None:
    listener = plane.listen(tls=add_server(plane, item(server)), handshake_ms=300)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    hello = outgoing.read()
    for octets in (b"", hello[:10], hello):
        end = plane.connect(listener)
        end.write(octets)
        end.read_end()
    all_gone(plane)


def test_nothing_is_left(plane: Plane, authority: Authority, server: Pair) -> None:
    listener = plane.listen(tls=add_server(plane, item(server)))
    for _ in range(20):
        client, conn, _ = join(plane, listener, context(authority))
        client.close()
        plane.closed(conn)
    all_gone(plane)
    assert plane.relay.stats(0)["tls_handshakes"] == 20


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_key_updates_are_records_without_data(plane: Plane, authority: Authority, server: Pair) -> None:
    """They are worked off a few at a time, answered, and others are not disturbed (RFC 8446 section 4.6.3)."""
    listener = plane.listen(tls=add_server(plane, item(server)))
    client, conn, _ = join(plane, listener, context(authority))
    session = link(plane, client, conn)
    address = "{}:{}".format(*listener.address)
    command = ["openssl", "s_client", "-connect", address, "-tls1_3"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    end = time.monotonic() + 10
    while plane.relay.stats(0)["tls_handshakes"] < 2 and time.monotonic() < end:
        time.sleep(0.02)
    for _ in range(50):
        process.stdin.write(b"K\n")
        process.stdin.flush()
        client.send(call())
        assert session.router.recv() == call()
        time.sleep(0.02)  # it takes what it reads at once for one command
    process.stdin.write(bytes([0x7F, 0xF0 | R.SER_CBOR, 0, 0, 10]))
    process.stdin.flush()
    number = plane.wait(R.EV_OPEN, owner=listener.number).conn
    process.kill()
    process.wait()
    process.stdin.close()
    plane.closed(number)


# --- what must not happen -----------------------------------------------------------------------------------------


def test_a_session_is_resumed_for_the_same_name_only(plane: Plane, authority: Authority, server: Pair) -> None:
    """A ticket from a router that was checked for one name does not spare it the check for another."""
    number = plane.relay.add_tls(server=False, ca=authority.certificate.read_bytes(), verify=2)
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inner.load_cert_chain(server.chain, server.key)
    listener = plane.listen()
    for name in ("localhost", "elsewhere.example.com"):
        client, conn = plane.join(listener)
        client.send(HELLO)
        plane.wait(R.EV_MESSAGE, conn=conn)
        router = plane.router()
        token = plane.dial(conn, router, tls=number, server_name=name)
        sock = router.sock.accept()[0]
        sock.settimeout(10)
        if name == "localhost":
            end = End(inner.wrap_socket(sock, server_side=True), "rs", client=False)
            plane.ends.append(end)
            end.read(4)
            end.write(bytes([0x7F, 0xF0 | R.SER_CBOR, 0, 0]))
            end.recv()
            end.send(WELCOME)
            plane.wait(R.EV_MESSAGE, owner=token)
        else:
            with pytest.raises(ssl.SSLError):
                inner.wrap_socket(sock, server_side=True)
            assert plane.wait(R.EV_CLOSED, owner=token).data == b"certificate verify failed: hostname mismatch"


@pytest.mark.parametrize("size", [62000, 64000])
def test_a_certificate_of_any_size_is_told_whole_or_not_at_all(
    plane: Plane, authority: Authority, server: Pair, tmp_path: Path, size: int
) -> None:
    """Its octets never stand where the HTTP head is expected."""
    key = ec.generate_private_key(ec.SECP256R1())
    fill = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(size))
    builder = authority._leaf(key, "huge", (), True, -1, 30).add_extension(fill, critical=False)
    made = builder.sign(authority._key, hashes.SHA256())
    both = tmp_path / "huge.pem"
    pem = serialization.PrivateFormat.TraditionalOpenSSL
    both.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption())
    )
    tls = context(authority)
    tls.load_cert_chain(both)
    number = add_server(plane, item(server), ca=authority.certificate.read_bytes(), verify=1)
    listener = plane.listen("ws", tls=number)
    sock = tls.wrap_socket(socket.create_connection(listener.address, 10), server_hostname="localhost")
    end = End(sock, "ws", client=True)
    plane.ends.append(end)
    end.write(REQUEST)
    event = plane.wait(R.EV_HEAD, owner=listener.number)
    peer, head = read_intro(event.data)
    assert head == REQUEST
    assert peer.tls is not None
    assert peer.tls.certificate in (made.public_bytes(serialization.Encoding.DER), b"")
    assert bool(peer.tls.certificate) == (size < 63000)


@pytest.mark.parametrize("option", ["ca", "crl", "chain"])
def test_what_follows_a_good_certificate_must_be_good(
    plane: Plane, authority: Authority, server: Pair, option: str
) -> None:
    """Part of a file is not taken for all of it."""
    good = authority.revoke() if option == "crl" else authority.certificate
    octets = good.read_bytes()
    broken = octets + octets.replace(b"M", b"N", 20).replace(b"A", b"!", 2)
    options: dict[str, Any] = {"server": True, "certificates": [item(server)]}
    if option == "chain":
        options["certificates"] = [(server.certificate.read_bytes() + broken, server.key.read_bytes(), [])]
    else:
        options[option] = broken
    with pytest.raises(ValueError, match=f"^{option if option != 'chain' else 'certificate'}: "):
        plane.relay.add_tls(**options)
    plane.relay.add_tls(server=True, certificates=[item(server)], ca=octets if option == "ca" else b"")


@pytest.mark.parametrize("kind", ["rs", "tls"])
def test_goodbye_right_before_the_connection_breaks(
    plane: Plane, authority: Authority, server: Pair, kind: str
) -> None:
    """What the peer said is still read where our own sending finds the connection broken, with TLS as without."""
    options = {"tls": add_server(plane, item(server))} if kind == "tls" else {}
    listener = plane.listen(**options)
    for _ in range(15):
        if kind == "tls":
            client, conn, _ = join(plane, listener, context(authority))
        else:
            client, conn = plane.join(listener)
        session = link(plane, client, conn)
        writer = threading.Thread(target=flood_from, args=(session.router,))
        writer.start()
        while plane.stats("buffered_octets") < 300_000:
            time.sleep(0.002)
        client.write(client.frame(GOODBYE))
        client.close()
        assert plane.wait(R.EV_CONTROL, conn=conn).data == GOODBYE
        plane.relay.abort(conn)
        plane.relay.abort(session.back)
        session.router.close()
        writer.join()


def flood_from(router: End) -> None:
    """Send until nobody listens any more."""
    with contextlib.suppress(OSError, Gone):
        for _ in range(100):
            router.send(result(100_000))


def test_key_updates_do_not_keep_others_waiting(plane: Plane, authority: Authority, server: Pair) -> None:
    """A peer that sends nothing but key updates, as fast as the socket takes them, has its share and no more."""
    listener = plane.listen(tls=add_server(plane, item(server)), handshake_ms=0)
    client, conn, _ = join(plane, listener, context(authority))
    session = link(plane, client, conn)
    flood = KeyUpdates(listener.address, 100_000)
    plane.settle(tls_handshakes=2)
    before = plane.stats("recv_calls")
    sender = threading.Thread(target=flood.send)
    sender.start()
    client.send(call())
    assert session.router.recv() == call()
    sender.join()
    flood.close()
    plane.settle(tls_open=1)
    assert flood.sent
    assert plane.stats("recv_calls") - before > flood.sent // 32768  # no read takes more than its share


class KeyUpdates:
    """A TLS 1.3 client that has many key updates ready to be sent, by way of OpenSSL's own library.

    :param count: how many, of 27 octets each.
    """

    def __init__(self, address: tuple[str, int], count: int) -> None:
        import ctypes
        from ctypes import c_char_p, c_int, c_long, c_void_p

        crypto, tls = ctypes.CDLL("libcrypto.so.3"), ctypes.CDLL("libssl.so.3")

        def of(library: Any, name: str, result: Any, *kinds: Any) -> Any:
            found = getattr(library, name)
            found.restype, found.argtypes = result, kinds
            return found

        made = of(tls, "SSL_CTX_new", c_void_p, c_void_p)(of(tls, "TLS_client_method", c_void_p)())
        ssl_ = of(tls, "SSL_new", c_void_p, c_void_p)(made)
        method = of(crypto, "BIO_s_mem", c_void_p)()
        new = of(crypto, "BIO_new", c_void_p, c_void_p)
        incoming, outgoing = new(method), new(method)
        of(tls, "SSL_set_bio", None, c_void_p, c_void_p, c_void_p)(ssl_, incoming, outgoing)
        of(tls, "SSL_set_connect_state", None, c_void_p)(ssl_)
        handshake = of(tls, "SSL_do_handshake", c_int, c_void_p)
        update = of(tls, "SSL_key_update", c_int, c_void_p, c_int)
        write = of(crypto, "BIO_write", c_int, c_void_p, c_char_p, c_int)
        pending = of(crypto, "BIO_ctrl", c_long, c_void_p, c_int, c_long, c_void_p)
        read = of(crypto, "BIO_read", c_int, c_void_p, c_char_p, c_int)

        def taken() -> bytes:
            size = pending(outgoing, 10, 0, None)
            room = ctypes.create_string_buffer(size + 1)
            read(outgoing, room, size)
            return room.raw[:size]

        self.sock = socket.create_connection(address, 10)
        while handshake(ssl_) != 1:
            self.sock.sendall(taken())
            octets = self.sock.recv(65536)
            write(incoming, octets, len(octets))
        self.sock.sendall(taken())
        for _ in range(count):
            assert update(ssl_, 0) == 1
            assert handshake(ssl_) == 1
        self.octets = taken()
        self.sent = 0
        of(tls, "SSL_free", None, c_void_p)(ssl_)
        of(tls, "SSL_CTX_free", None, c_void_p)(made)

    def send(self) -> None:
        """All of them."""
        with contextlib.suppress(OSError):
            self.sock.sendall(self.octets)
            self.sent = len(self.octets)

    def close(self) -> None:
        """End once all is read."""
        self.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass
        self.sock.close()
