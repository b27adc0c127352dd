"""The data plane: sockets, frames and the WAMP gate, compiled and without the GIL.

Only :mod:`proxy.plane` imports this module. A connection is named by an integer that is never used twice (loop, slot
and generation). Commands never block and never raise for a connection that is already gone: its ``EV_CLOSED`` is on
its way.
"""

from collections.abc import Iterable, Sequence
from typing import Any

# --- events: tuples (kind, conn, owner, arg, data) ---------------------------------------------------------------
# owner: for frontend connections the listener_id given to listen(), for backend connections the token given to dial().

EV_HEAD: int
"""An HTTP head is complete, reading is paused. Frontend: data = introduction, head up to and including the empty line.
Backend: data = one octet 0, head of the response. Answer with upgrade(), tunnel() or reply() (frontend), upgrade() or
abort() (backend).

An introduction says who a client is: one octet (length of the sockaddr), sockaddr, length of the TLS block (two octets,
big-endian), TLS block. The sockaddr is the one that a PROXY protocol header named, if there was one. The block is empty
where there is no TLS, else these fields, each behind its length (two octets): protocol version, cipher, server name
(SNI), ALPN protocol, first Finished message (RFC 5929 section 3), 32 octets of exported keying material (RFC 9266),
the client's certificate in DER."""
EV_OPEN: int
"""A frontend RawSocket handshake is done. arg = serializer, data = introduction, see EV_HEAD. Nothing to answer:
EV_MESSAGE follows."""
EV_RAW: int
"""A client's first octet was the params' ``raw_first``; nothing was consumed, reading is paused. data = introduction.
Answer with tunnel() or abort()."""
EV_MESSAGE: int
"""A whole WAMP message in the JOIN phase; reading is paused until next(), link() or close(). arg = message type as the
gate read it (-1: unreadable, see EV_VIOLATION), data = the message's octets."""
EV_CONTROL: int
"""Linked: a message that is the control plane's business (GOODBYE; ABORT from the router). All messages before it are
already relayed; reading from this side is paused, the other side goes on. arg = message type, data = octets."""
EV_VIOLATION: int
"""The gate refused a message (JOIN or linked); it was not relayed and reading from this side is paused for good.
arg = negative status (ST_*). Answer with send() of an ABORT and close(). While an HTTP head is gathered: ST_TOO_BIG
(over max_head) or ST_DEADLINE (handshake_ms passed); answer with reply()."""
EV_CLOSED: int
"""The connection is gone, its number will never be seen again. arg = reason (CLOSED_*) | errno << 8 | WebSocket close
code << 24, data = text of the peer's close reason or b"". A backend connection that was not linked yet is closed with
its frontend without a word from the control plane. A linked one is kept, unlinked, until close() or abort()."""
EV_REFUSED: int
"""Linked: a message that the other side cannot take. It was not relayed; its sender is not read from until next(), the
other direction goes on. arg = status: ST_TOO_BIG (over the receiver's limit), ST_UNTRANSLATABLE (nothing that the other
serializer can express), ST_BUSY (too many requests of the session meta API are pending). data = WAMP message type
(uint32, big-endian), octets of the message (uint64), length of a text (uint8), the text (why; may be empty), and then
what names the request, in the sender's serializer: [type, request], of an ERROR [8, request type, request], of PUBLISH,
CALL, RESULT, INVOCATION and YIELD also Options or Details (in their place) with ``acknowledge`` or ``progress``, where
that is true, and nothing else; empty where the request is no number. Of an EVENT it is all but Args and Kwargs, in
FlatBuffers the whole message."""
EV_LISTEN: int
"""State of a listener (conn = 0): arg = LISTEN_* | errno << 8."""

CLOSED_PEER: int        # orderly end by the peer: EOF or WebSocket close handshake
CLOSED_LOCAL: int       # as asked by close(), abort() or reply()
CLOSED_RESET: int       # a system call failed, see errno
CLOSED_DEADLINE: int    # the phase's deadline passed
CLOSED_STALL: int       # the peer did not read for stall_timeout with data queued
CLOSED_PING: int        # the peer did not answer a ping in time
CLOSED_PROTOCOL: int    # the peer broke framing or handshake (the right close code or error octets were sent)
CLOSED_TOO_BIG: int     # an incoming message over our limit, or one from the control plane over the peer's
CLOSED_REFUSED: int     # dial: connect failed, see errno; HANDSHAKE_DROPPED + n: refused with RawSocket error octet n
CLOSED_NOMEM: int
CLOSED_FRONT_GONE: int  # backend only: its frontend ended before the link
CLOSED_TLS: int         # TLS handshake or record failed; data says why
HANDSHAKE_DROPPED: int  # "errno" of a router that ended during the handshake

LISTEN_PAUSED: int      # accept() fails for want of descriptors or memory; retried
LISTEN_RESUMED: int
LISTEN_FULL: int        # max_connections reached: connections are aborted (at most one event per 10 s)
LISTEN_CLOSED: int      # unlisten() is done: no thread will accept on it again; the descriptor is closed

CODEC_WS: int
CODEC_RS: int
SER_JSON: int
SER_MSGPACK: int
SER_CBOR: int
SER_UBJSON: int
SER_FLATBUFFERS: int
NOTE_DEAD_CALL: int
"""swallow(): RESULT and ERROR of a CALL, to the client."""
NOTE_DEAD_INVOCATION: int
"""swallow(): YIELD and ERROR of an INVOCATION, to the router."""
REALMS_MAX: int
"""Realms that add_realm() gives numbers to."""

class Relay:
    """N data threads and everything they own.

    :param threads: number of loops; ``run(i)`` must then be called once for each i in its own thread.
    """

    event_fd: int
    """eventfd, readable whenever drain() may have something."""
    threads: int

    def __init__(self, threads: int) -> None: ...
    def run(self, index: int) -> None:
        """Run loop ``index`` without the GIL until stop()."""
    def stop(self) -> None:
        """Ask every loop to close what it has at once and to return from run()."""
    def drain(self, limit: int = 1024) -> list[tuple[int, int, int, int, bytes]]:
        """Clear event_fd and take up to ``limit`` events, in order per connection."""
    def add_params(
        self,
        *,
        kind: int,
        client: bool = False,
        serializers: int = 0,
        max_message: int = 16777216,
        max_frame: int = 0,
        max_out: int = 0,
        max_head: int = 16384,
        require_mask: bool = True,
        mask_out: bool = False,
        apply_mask: bool = True,
        validate_utf8: bool = True,
        any_opcode: bool = False,
        auto_fragment: int = 0,
        fail_by_drop: bool = False,
        echo_close: bool = False,
        high_water: int = 262144,
        low_water: int = 65536,
        handshake_ms: int = 10000,
        hello_ms: int = 10000,
        close_ms: int = 2000,
        stall_ms: int = 30000,
        ping_interval_ms: int = 0,
        ping_timeout_ms: int = 0,
        ping_size: int = 12,
        ping_restart_on_traffic: bool = False,
        nodelay: bool = False,
        keepalive: bool = False,
        tls: int = 0,
        server_name: str = "",
        rawsocket: int = 0,
        raw_first: int = -1,
        proxy_from: bytes = b"",
    ) -> int:
        """Register what a transport's or backend's connections share; returns its number for listen() and dial().

        kind CODEC_WS or CODEC_RS (what a listener expects, what a backend speaks); client for backends; serializers:
        bit set ``1 << SER_*`` that a RawSocket listener takes; sizes in octets, times in milliseconds (0: no deadline).
        handshake_ms: accept to end of HTTP head or RawSocket handshake, and dial to the same; hello_ms: how long
        a JOIN phase message may be awaited (first HELLO; from link(): none); close_ms: flush and close handshake.
        RawSocket: max_message is what we announce, rounded up to the next power of two. max_out: the longest message
        that a WebSocket peer takes (0: any); a RawSocket peer announces it.

        tls: a number from add_tls(), 0: plain. server_name: of a backend, asked for with SNI, and what its certificate
        must name (host name or address; empty: anything it names will do). rawsocket: with CODEC_WS, the params of
        connections that begin with RawSocket's first octet (0: they are refused). raw_first: the first octet of those
        that are EV_RAW (-1: none). proxy_from: pack_networks() of those from where each connection must begin with a
        PROXY protocol header, version 1 or 2; those from elsewhere must not.

        :raises ValueError: an option cannot be used.
        """
    def add_tls(
        self,
        *,
        server: bool,
        certificates: Sequence[tuple[bytes, bytes, Sequence[str]]] = (),
        ca: bytes = b"",
        crl: bytes = b"",
        default_ca: bool = False,
        verify: int = 0,
        ciphers: str = "",
        ciphersuites: str = "",
        min_version: int = 0x0303,
        alpn: Sequence[bytes] = (),
    ) -> int:
        """Certificates and rules for TLS handshakes; returns a number for add_params().

        certificates: chain and key, PEM, and the host names that it is for (``*.example.com`` for all of one label);
        the first one also serves who names none of them. ca, crl: PEM, whose certificates to believe, and which of them
        not any more; default_ca: the system's as well. verify: 0 no certificate is looked at, 1 one that is shown must
        be good, 2 one must be shown. ciphers: OpenSSL's list for TLS 1.2, ciphersuites: for 1.3 (empty: good ones).
        min_version: 0x0303 (1.2) or 0x0304. alpn: protocols of a server; a client that offers none of them is refused.

        :raises ValueError: something cannot be used; the text begins with the option's name and holds no octet of it.
        """
    def replace_tls(self, number: int, **options: Any) -> None:
        """Handshakes from now on begin with these options (as add_tls()); live connections keep what they have.

        :raises ValueError: something cannot be used, and nothing has changed.
        """
    def drop_tls(self, number: int) -> None:
        """No handshake begins with it any more."""
    def hold(self) -> None:
        """Gather commands: no loop is woken for them before let_go(). One that is awake may still do them."""
    def let_go(self) -> None:
        """Wake the loops that have commands to do."""
    def listen(self, fd: int, listener_id: int, params: int, max_connections: int) -> None:
        """Give a listening, non-blocking socket to all loops. The relay owns ``fd`` from now on.

        Any descriptor that is never readable, as that of an eventfd, makes a listener for adopt() alone.
        """
    def unlisten(self, listener_id: int) -> None:
        """Stop accepting; live connections stay. Ends with EV_LISTEN LISTEN_CLOSED."""
    def upgrade(
        self,
        conn: int,
        response: bytes,
        serializer: int,
        *,
        batched: bool = False,
        inflate_bits: int = 0,
        inflate_reset: bool = False,
        deflate_bits: int = 0,
        deflate_reset: bool = False,
        mem_level: int = 8,
        params: int = 0,
    ) -> None:
        """HTTP handshake done: frontend sends ``response`` (the 101 head), then both speak WebSocket frames; JOIN.

        Frontends only: ``batched``, each WebSocket message is a batch of WAMP messages; permessage-deflate (RFC 7692)
        with windows of ``inflate_bits`` (client to us) and ``deflate_bits`` (us to the client), 9 to 15, both 0: not
        negotiated; ``*_reset``: without context takeover in that direction; ``mem_level``: zlib's, 1 to 9.
        ``params``: go on with these instead of the listener's, so that each path can have its own (0: the same).

        :raises ValueError: bits or mem_level out of range.
        """
    def tunnel(self, conn: int, fd: int) -> None:
        """After EV_HEAD or EV_RAW: relay raw octets between the client and ``fd``, both ways, ends included.

        ``fd``: one end of a socket pair, non-blocking; the relay owns it from now on, even when the client is gone. An
        HTTP head that was told is the caller's to write into the pair. The next event is EV_CLOSED.
        """
    def adopt(self, fd: int, listener_id: int, address: bytes = b"") -> None:
        """Take a connected, non-blocking socket for a client's connection of a listener; the relay owns it from now on.

        address: the sockaddr that stands for its peer's, see pack_sockaddr().

        :raises ValueError: there is no such listener. The socket is still the caller's, here and below.
        :raises RuntimeError: it has as many connections as it may have.
        """
    def reply(self, conn: int, response: bytes) -> None:
        """Send ``response`` (an HTTP error, complete) and close."""
    def send(self, conn: int, message: bytes) -> None:
        """Frame and queue one WAMP message (JOIN, linked or unlinked)."""
    def next(self, conn: int, timeout_ms: int = -1) -> None:
        """JOIN: read one more message; timeout_ms until it must be whole (-1: the params' hello_ms, 0: none)."""
    def dial(
        self,
        front: int,
        token: int,
        params: int,
        serializer: int,
        sockaddr: bytes,
        request: bytes,
        hello: bytes,
        timeout_ms: int,
        join_ms: int,
        realm: int = 0,
        front_sid: int = 0,
    ) -> None:
        """Open a backend connection for ``front`` on its loop; at most one at a time.

        sockaddr: a ``struct sockaddr_*`` as octets, see pack_sockaddr(). request: WebSocket upgrade request (empty for
        RawSocket). hello: the WAMP message sent when the handshake is done, then JOIN. timeout_ms: until connected
        and shaken hands; join_ms: from then until the first message. A failure is EV_CLOSED with owner = token;
        ``front`` stays as it is, so that the next address may be dialled. front = 0: for nobody, on the first loop.

        realm: a number from add_realm(); session IDs of others in it are rewritten once linked (0: never). front_sid:
        the session ID that the client is told, 1 to 2^53 (0: the router's own). When the router's WELCOME comes, its
        ID is mapped to front_sid before EV_MESSAGE tells of it; the same front_sid with another router follows it.

        :raises ValueError: an unknown realm, a front_sid without one or out of range, a sockaddr that is none.
        """
    def undial(self, front: int) -> None:
        """Close the frontend's backend connection if it is not linked yet; its EV_CLOSED (CLOSED_LOCAL) follows."""
    def link(self, front: int, back: int, welcome: bytes) -> None:
        """Send ``welcome`` (if any) to the frontend, then relay between the two; ends their JOIN pause.

        Their serializers may differ where both are JSON, MessagePack or CBOR: messages are translated.
        """
    def link_self(self, conn: int) -> None:
        """Echo: relay a connection's messages to itself, without the gate (``websocket.testee``)."""
    def unlink(self, front: int) -> None:
        """Back to JOIN on both sides, both paused; queued data still leaves. Then close() or next() each of them."""
    def add_realm(self) -> int:
        """A number (1 to 65536) for a realm, never given back.

        :raises RuntimeError: there are no more.
        :raises MemoryError: no memory for it.
        """
    def release_sid(self, realm: int, front_sid: int) -> None:
        """The session of this front_sid is over. Its IDs are known for a minute more: others still hear of its end."""
    def swallow(self, front: int, kind: int, request: int) -> None:
        """Linked: drop what is still said about a request that has failed, until its last answer (NOTE_DEAD_*).

        :raises ValueError: another kind.
        """
    def close(self, conn: int, code: int = 1000, reason: bytes = b"") -> None:
        """Flush, WebSocket close handshake with ``code`` where that is spoken, close; bounded by close_ms."""
    def abort(self, conn: int) -> None:
        """Close at once, queued data is lost."""
    def stats(self, index: int) -> dict[str, int]:
        """Counters of one loop by name: connections, links, buffers, buffered_octets, messages and octets each way,
        accepted, closed, wakeups, recv_calls, send_calls, stale_events, violations, presses and more."""
    def release(self) -> None:
        """Free everything; only after every run() returned. Idempotent."""

def pack_sockaddr(address: str, port: int) -> bytes:
    """sockaddr octets of an IPv4 or IPv6 literal (scope allowed) and port; ValueError otherwise."""
def pack_unix(path: str) -> bytes:
    """sockaddr octets of a Unix socket path (a leading NUL: abstract); ValueError if too long."""
def pack_networks(names: Iterable[str]) -> bytes:
    """Networks for add_params(proxy_from=): ``10.0.0.0/8``, ``2001:db8::/32``, an address, or ``unix``; ValueError."""
def unpack_sockaddr(data: bytes) -> tuple[str, int] | str:
    """(address, port) of an IPv4 or IPv6 sockaddr, a path (may be empty) for Unix."""

ST_PROTOCOL: int
ST_UTF8: int
ST_TOO_BIG: int
ST_DATA_TYPE: int
ST_MALFORMED: int
ST_TRUNCATED: int
ST_TRAILING: int
ST_DEPTH: int
ST_AMBIGUOUS: int
ST_FORBIDDEN: int
ST_DEADLINE: int
ST_BUSY: int
ST_UNTRANSLATABLE: int

build_mode: str
"""release, debug, asan or trace."""
