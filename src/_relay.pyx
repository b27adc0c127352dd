# cython: language_level=3
"""The data plane of wamp-proxy: compile root of ``proxy._relay``.

The parts below are one extension, included in layers: a part uses only what stands above it. They hold the logic and
never touch a Python object; this file holds the list of parts and :class:`Relay`, the door between the planes.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from relay.bytes cimport *
from relay.double cimport *
from relay.linux cimport *
from relay.mask cimport *
from relay.openssl cimport *
from relay.utf8 cimport *
from relay.zlib cimport *

include "relay/consts.pxi"
include "relay/types.pxi"
include "relay/buf.pxi"
include "relay/pool.pxi"
include "relay/rings.pxi"
include "relay/timers.pxi"
include "relay/sink.pxi"
include "relay/ws.pxi"
include "relay/rawsocket.pxi"
include "relay/framing.pxi"
include "relay/batch.pxi"
include "relay/deflate.pxi"
include "relay/scan_json.pxi"
include "relay/scan_msgpack.pxi"
include "relay/scan_cbor.pxi"
include "relay/scan_ubjson.pxi"
include "relay/scan_flatbuffers.pxi"
include "relay/wamp.pxi"
include "relay/notes.pxi"
include "relay/sids.pxi"
include "relay/fields_json.pxi"
include "relay/fields_msgpack.pxi"
include "relay/fields_cbor.pxi"
include "relay/fields_ubjson.pxi"
include "relay/fields_flatbuffers.pxi"
include "relay/fields.pxi"
include "relay/rewrite_rules.pxi"
include "relay/rewrite_ids.pxi"
include "relay/rewrite_flatbuffers.pxi"
include "relay/rewrite.pxi"
include "relay/translate_levels.pxi"
include "relay/translate_numbers.pxi"
include "relay/translate_text.pxi"
include "relay/translate_json.pxi"
include "relay/translate_binary.pxi"
include "relay/translate.pxi"
include "relay/tls.pxi"
include "relay/tls_context.pxi"
include "relay/proxy_protocol.pxi"
include "relay/conn.pxi"
include "relay/intake.pxi"
include "relay/handshake.pxi"
include "relay/beginning.pxi"
include "relay/refuse.pxi"
include "relay/link.pxi"
include "relay/tunnel.pxi"
include "relay/listen.pxi"
include "relay/commands.pxi"
include "relay/loop.pxi"
include "relay/probe.pxi"
include "relay/probe_wamp.pxi"
include "relay/probe_rewrite.pxi"
include "relay/probe_batch.pxi"
include "relay/probe_zip.pxi"
include "relay/probe_translate.pxi"
include "relay/probe_loop.pxi"
include "relay/exports.pxi"

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

include "relay/tls_make.pxi"


cdef class Relay:
    """N data threads and everything they own. The contract is in proxy/_relay.pyi.

    :param threads: number of loops, 1 to 64; ``run(i)`` must then be called once for each ``i`` in a thread of its own.
    :raise ValueError: threads out of range.
    :raise MemoryError, OSError: a loop could not be made.
    """

    cdef relay_t *relay
    cdef list all_params
    cdef list all_tls
    cdef readonly int event_fd
    cdef readonly int threads
    cdef uint64_t running          # bit set of the loops that run

    def __cinit__(self, int threads):
        cdef loop_t *loop
        cdef int st
        self.event_fd = -1
        self.all_params = []
        self.all_tls = []
        _tls_ready()
        if not 1 <= threads <= LOOPS_MAX:
            raise ValueError(f"threads: {threads}, expected 1 to {LOOPS_MAX}")
        self.relay = <relay_t *>mem_zalloc(sizeof(relay_t))
        if self.relay == NULL:
            raise MemoryError("relay")
        for i in range(LISTENERS_MAX):
            self.relay.listeners[i].fd = -1
        sids_init(&self.relay.sids)
        self.relay.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.relay.event_fd == -1:
            raise OSError(errno, "eventfd")
        self.event_fd = self.relay.event_fd
        self.threads = threads
        for i in range(threads):
            loop = <loop_t *>mem_zalloc(sizeof(loop_t))
            if loop == NULL:
                raise MemoryError("loop")
            self.relay.loops[i] = loop
            self.relay.threads = i + 1
            st = loop_init(loop, self.relay, i)
            if st == ST_IO:
                raise OSError(errno, "loop")
            if st < 0:
                raise MemoryError("loop")

    def __dealloc__(self):
        self._free()

    cdef void _free(self):
        """Give everything back; the loops must not run."""
        cdef uint32_t i
        if self.relay == NULL:
            return
        for i in range(self.relay.threads):
            loop_free(<loop_t *>self.relay.loops[i])
            mem_free(self.relay.loops[i])
        for i in range(LISTENERS_MAX):
            if self.relay.listeners[i].fd != -1:
                close(self.relay.listeners[i].fd)
        if self.relay.event_fd != -1:
            close(self.relay.event_fd)
        for number in self.all_params or ():
            _params_free(<params_t *><size_t>number)
        for number in self.all_tls or ():
            _tls_drop(<tls_t *><size_t>number)
        sids_free(&self.relay.sids)
        mem_free(self.relay)
        self.relay = NULL
        self.event_fd = -1

    cdef loop_t *_loop(self, uint64_t conn) except NULL:
        """The loop a connection lives on."""
        cdef uint64_t index = conn >> 56
        if self.relay == NULL:
            raise RuntimeError("the relay was released")
        if index >= self.relay.threads:
            raise ValueError(f"connection {conn}: no such loop")
        return <loop_t *>self.relay.loops[index]

    cdef int _push(self, loop_t *loop, entry_t *e, bytes data) except -1:
        """Queue a command with a copy of ``data``."""
        cdef size_t n = PyBytes_GET_SIZE(data)
        if n:
            e.data = <uint8_t *>mem_alloc(n)
            if e.data == NULL:
                raise MemoryError("command")
            memcpy(e.data, PyBytes_AS_STRING(data), n)
            e.length = n
        if ring_push(&loop.commands, e) < 0:
            mem_free(e.data)
            raise MemoryError("command")
        return 0

    cdef int _command(self, uint8_t kind, uint64_t conn, uint64_t owner, int64_t arg, bytes data) except -1:
        cdef entry_t e
        memset(&e, 0, sizeof(e))
        e.kind = kind
        e.conn = conn
        e.owner = owner
        e.arg = arg
        return self._push(self._loop(conn), &e, data)

    cdef params_t *_params(self, uint64_t number) except NULL:
        if not 1 <= number <= <uint64_t>len(self.all_params):
            raise ValueError(f"params: {number}, expected a number that add_params() returned")
        return <params_t *><size_t>self.all_params[number - 1]

    def run(self, int index):
        """Run loop ``index`` without the GIL until stop()."""
        if self.relay == NULL or not 0 <= index < self.threads:
            raise ValueError(f"index: {index}, expected 0 to {self.threads - 1}")
        cdef loop_t *loop = <loop_t *>self.relay.loops[index]
        cdef uint64_t bit = <uint64_t>1 << index
        if self.running & bit:
            raise RuntimeError(f"run: loop {index} runs already")
        self.running |= bit
        with nogil:
            loop_run(loop)
            loop_close_all(loop)
        self.running &= ~bit

    def stop(self):
        """Ask every loop to close what it has at once and to return from run()."""
        cdef uint32_t i
        if self.relay == NULL:
            return
        for i in range(self.relay.threads):
            atomic_store64(&(<loop_t *>self.relay.loops[i]).stop, 1)
            ring_wake(&(<loop_t *>self.relay.loops[i]).commands)

    def release(self):
        """Free everything; only after every run() returned. Idempotent.

        :raise RuntimeError: a loop still runs.
        """
        if self.running:
            raise RuntimeError(f"release: {bin(self.running).count("1")} loop(s) still run; stop() and join them")
        self._free()

    def hold(self):
        """Gather commands: no loop is woken for them before let_go(). One that is awake may still do them."""
        cdef uint32_t i
        if self.relay == NULL:
            return
        for i in range(self.relay.threads):
            ring_hold(&(<loop_t *>self.relay.loops[i]).commands)

    def let_go(self):
        """Wake the loops that have commands to do."""
        cdef uint32_t i
        if self.relay == NULL:
            return
        for i in range(self.relay.threads):
            ring_let_go(&(<loop_t *>self.relay.loops[i]).commands)

    def drain(self, int limit=1024):
        """Clear event_fd and take up to ``limit`` events, in order per connection: (kind, conn, owner, arg, data)."""
        cdef uint64_t count
        cdef uint32_t i
        cdef list events = []
        cdef bint more = False
        if self.relay == NULL:
            return events
        read(self.relay.event_fd, &count, sizeof(count))
        for i in range(self.relay.threads):
            more = self._drain_loop(<loop_t *>self.relay.loops[i], events, limit) or more
        if more:
            count = 1
            write(self.relay.event_fd, &count, sizeof(count))
        return events

    cdef bint _drain_loop(self, loop_t *loop, list events, int limit) except -1:
        """Take events of one loop; True: its share of the limit is used up."""
        cdef entry_t e
        cdef int left = limit // self.threads + 1
        while left and ring_pop(&loop.events, &e):
            left -= 1
            data = PyBytes_FromStringAndSize(<char *>e.data, e.length) if e.length else b""
            if e.data != NULL:
                mem_free(e.data)
            events.append((e.kind, e.conn, e.owner, e.arg, data))
        return left == 0

    def add_params(
        self, *, int kind, bint client=False, uint32_t serializers=0, uint64_t max_message=RS_LENGTH_MAX,
        uint64_t max_frame=0, uint32_t max_out=0, uint32_t max_head=HEAD_MAX, bint require_mask=True,
        bint mask_out=False, bint apply_mask=True, bint validate_utf8=True, bint any_opcode=False,
        uint64_t auto_fragment=0, bint fail_by_drop=False, bint echo_close=False,
        uint32_t high_water=262144, uint32_t low_water=65536, uint32_t handshake_ms=10000,
        uint32_t hello_ms=10000, uint32_t close_ms=2000, uint32_t stall_ms=30000,
        uint32_t ping_interval_ms=0, uint32_t ping_timeout_ms=0, uint32_t ping_size=12,
        bint ping_restart_on_traffic=False, bint nodelay=False, bint keepalive=False, uint64_t tls=0,
        str server_name="", uint64_t rawsocket=0, int raw_first=-1, bytes proxy_from=b"",
    ):
        """Register what the connections of a transport or backend share; returns its number (see proxy/_relay.pyi)."""
        if self.relay == NULL:
            raise RuntimeError("the relay was released")
        if kind not in (CODEC_WS, CODEC_RS):
            raise ValueError(f"kind: {kind}, expected CODEC_WS or CODEC_RS")
        if low_water >= high_water:
            raise ValueError(f"low_water: {low_water}, expected less than high_water ({high_water})")
        if not 8 <= ping_size <= CONTROL_PAYLOAD_MAX:
            raise ValueError(f"ping_size: {ping_size}, expected 8 to {CONTROL_PAYLOAD_MAX}")
        if kind == CODEC_RS and not 1 <= max_message <= RS_LENGTH_MAX:
            raise ValueError(f"max_message: {max_message}, expected 1 to {RS_LENGTH_MAX} for RawSocket")
        cdef tls_t *holder = self._tls(tls) if tls else NULL
        cdef params_t *other = self._params(rawsocket) if rawsocket else NULL
        cdef params_t *p = <params_t *>mem_zalloc(sizeof(params_t))
        if p == NULL:
            raise MemoryError("params")
        try:
            _params_begin(p, server_name, other, raw_first, proxy_from)
        except BaseException:
            mem_free(p)
            raise
        p.tls = holder
        p.kind = kind
        p.codec_flags = (
            CF_CLIENT * client | CF_REQUIRE_MASK * (require_mask and not client)
            | CF_MASK_OUT * (kind == CODEC_WS and (mask_out or client))  # RawSocket knows no masks
            | CF_APPLY_MASK * apply_mask | CF_VALIDATE_UTF8 * validate_utf8 | CF_ANY_OPCODE * any_opcode
        )
        p.serializers = serializers
        p.max_message = max_message
        if kind == CODEC_RS:
            p.max_message = 512
            while p.max_message < max_message:
                p.max_message *= 2
        p.max_frame = max_frame
        p.max_out = max_out if kind == CODEC_WS else 0  # RawSocket peers say it themselves
        p.max_head = max_head
        p.auto_fragment = auto_fragment if kind == CODEC_WS else 0
        p.fail_by_drop = fail_by_drop
        p.echo_close = echo_close
        p.high_water = high_water
        p.low_water = low_water
        p.handshake_ms = handshake_ms
        p.hello_ms = hello_ms
        p.close_ms = close_ms
        p.stall_ms = stall_ms
        p.ping_interval_ms = ping_interval_ms
        p.ping_timeout_ms = ping_timeout_ms
        p.ping_size = ping_size
        p.ping_restart = ping_restart_on_traffic
        p.nodelay = nodelay
        p.keepalive = keepalive
        self.all_params.append(<size_t>p)
        return len(self.all_params)

    cdef tls_t *_tls(self, uint64_t number) except NULL:
        if not 1 <= number <= <uint64_t>len(self.all_tls):
            raise ValueError(f"tls: {number}, expected a number that add_tls() returned")
        return <tls_t *><size_t>self.all_tls[number - 1]

    def add_tls(self, **options):
        """Certificates and rules for TLS handshakes; returns a number for add_params() (see proxy/_relay.pyi)."""
        if self.relay == NULL:
            raise RuntimeError("the relay was released")
        cdef SSL_CTX *ctx = _tls_make(_TLS_DEFAULTS | options)
        cdef tls_t *holder = _tls_holder()
        tls_install(holder, ctx)
        self.all_tls.append(<size_t>holder)
        return len(self.all_tls)

    def replace_tls(self, uint64_t number, **options):
        """Handshakes from now on begin with these options; connections keep what they have."""
        cdef tls_t *holder = self._tls(number)
        tls_install(holder, _tls_make(_TLS_DEFAULTS | options))

    def drop_tls(self, uint64_t number):
        """No handshake will begin with it any more; its keys are forgotten with the last connection."""
        tls_install(self._tls(number), NULL)

    def listen(self, int fd, uint64_t listener_id, uint64_t params, uint64_t max_connections):
        """Give a listening, non-blocking socket to all loops; the relay owns ``fd`` from now on."""
        cdef uint32_t i, k
        cdef listener_t *listener
        cdef entry_t e
        cdef params_t *p = self._params(params)
        if self.relay == NULL:
            raise RuntimeError("the relay was released")
        for i in range(LISTENERS_MAX):
            listener = &self.relay.listeners[i]
            if listener.fd == -1 and atomic_load64(&listener.count) == 0:
                break
        else:
            raise RuntimeError(f"listen: {LISTENERS_MAX} listeners are open already")
        listener.fd = fd
        listener.closing = False
        listener.id = listener_id
        listener.params = p
        listener.max_connections = max_connections
        listener.full_event_ms = 0
        atomic_store64(&listener.loops, self.relay.threads)
        for k in range(self.relay.threads):
            memset(&e, 0, sizeof(e))
            e.kind = CMD_LISTEN
            e.owner = i
            self._push(<loop_t *>self.relay.loops[k], &e, b"")

    def unlisten(self, uint64_t listener_id):
        """Stop accepting; live connections stay. Ends with EV_LISTEN LISTEN_CLOSED."""
        cdef uint32_t i, k
        cdef entry_t e
        if self.relay == NULL:
            raise RuntimeError("the relay was released")
        for i in range(LISTENERS_MAX):
            if self.relay.listeners[i].fd == -1 or self.relay.listeners[i].id != listener_id:
                continue
            if self.relay.listeners[i].closing:
                break                                 # each loop must leave it once, not twice
            self.relay.listeners[i].closing = True
            for k in range(self.relay.threads):
                memset(&e, 0, sizeof(e))
                e.kind = CMD_UNLISTEN
                e.owner = i
                self._push(<loop_t *>self.relay.loops[k], &e, b"")
            return
        raise ValueError(f"unlisten: no listener {listener_id}")

    def upgrade(
        self, uint64_t conn, bytes response, int serializer, *, bint batched=False, int inflate_bits=0,
        bint inflate_reset=False, int deflate_bits=0, bint deflate_reset=False, int mem_level=8, uint64_t params=0,
    ):
        """HTTP handshake done: send ``response``, then speak WebSocket frames (see proxy/_relay.pyi)."""
        cdef int64_t arg = serializer & 0xFF
        if inflate_bits or deflate_bits:
            for name, bits in (("inflate_bits", inflate_bits), ("deflate_bits", deflate_bits)):
                if not 9 <= bits <= 15:
                    raise ValueError(f"{name}: {bits}, expected 9 to 15")
            if not 1 <= mem_level <= 9:
                raise ValueError(f"mem_level: {mem_level}, expected 1 to 9")
        arg |= (<int64_t>batched << 8) | (<int64_t>inflate_bits << 16) | (<int64_t>inflate_reset << 24)
        arg |= (<int64_t>deflate_bits << 32) | (<int64_t>deflate_reset << 40) | (<int64_t>mem_level << 48)
        cdef entry_t e
        memset(&e, 0, sizeof(e))
        e.kind = CMD_UPGRADE
        e.conn = conn
        e.arg = arg
        e.params = self._params(params) if params else NULL
        self._push(self._loop(conn), &e, response)

    def tunnel(self, uint64_t conn, int fd):
        """Relay raw octets between a client whose head is with the control plane and ``fd``, which is given away."""
        self._command(CMD_TUNNEL, conn, 0, fd, b"")

    def adopt(self, int fd, uint64_t listener_id, bytes address=b""):
        """Take a connected socket for a client's connection of a listener (see proxy/_relay.pyi)."""
        cdef uint32_t i
        cdef listener_t *listener
        cdef loop_t *loop
        cdef entry_t e
        if self.relay == NULL:
            raise RuntimeError("the relay was released")
        if len(address) > 128 or len(address) == 1:
            raise ValueError("address: expected what pack_sockaddr() or pack_unix() returned")
        for i in range(LISTENERS_MAX):
            listener = &self.relay.listeners[i]
            if listener.fd != -1 and listener.id == listener_id and not listener.closing:
                break
        else:
            raise ValueError(f"adopt: no listener {listener_id}")
        if atomic_add64(&listener.count, 1) > listener.max_connections and listener.max_connections:
            atomic_sub64(&listener.count, 1)
            raise RuntimeError(f"adopt: {listener.max_connections} connections are open already")
        memset(&e, 0, sizeof(e))
        e.kind = CMD_ADOPT
        e.owner = i
        e.arg = fd
        loop = listen_lightest(<loop_t *>self.relay.loops[0])
        atomic_add64(&loop.load, 1)
        try:
            self._push(loop, &e, address)
        except BaseException:
            atomic_sub64(&loop.load, 1)
            atomic_sub64(&listener.count, 1)
            raise

    def reply(self, uint64_t conn, bytes response):
        """Send a whole HTTP response and close."""
        self._command(CMD_REPLY, conn, 0, 0, response)

    def send(self, uint64_t conn, bytes message):
        """Frame and queue one WAMP message."""
        self._command(CMD_SEND, conn, 0, 0, message)

    def next(self, uint64_t conn, int64_t timeout_ms=-1):
        """JOIN: read one more message."""
        self._command(CMD_NEXT, conn, 0, timeout_ms, b"")

    def dial(
        self, uint64_t front, uint64_t token, uint64_t params, int serializer, bytes sockaddr, bytes request,
        bytes hello, uint32_t timeout_ms, uint32_t join_ms, uint32_t realm=0, uint64_t front_sid=0,
    ):
        """Open a backend connection for ``front`` (0: for nobody, on the first loop)."""
        cdef loop_t *loop = self._loop(front)
        cdef entry_t e
        cdef size_t a = PyBytes_GET_SIZE(sockaddr)
        cdef size_t b = PyBytes_GET_SIZE(request)
        if a < 3:
            raise ValueError("sockaddr: too short, expected what pack_sockaddr() or pack_unix() returned")
        if front_sid > SID_MAX:
            raise ValueError(f"front_sid: {front_sid}, expected 0 to {SID_MAX}")
        memset(&e, 0, sizeof(e))
        if realm:
            e.realm = sids_realm(&self.relay.sids, realm)
            if e.realm == NULL:
                raise ValueError(f"realm: {realm}, expected 0 or a number that add_realm() returned")
        elif front_sid:
            raise ValueError("realm: 0, expected a number that add_realm() returned: front_sid is given")
        e.front_sid = front_sid
        e.kind = CMD_DIAL
        e.conn = front
        e.owner = token
        e.arg = serializer
        e.arg2 = (<uint64_t>join_ms << 32) | timeout_ms
        e.params = self._params(params)
        e.length = a + b + PyBytes_GET_SIZE(hello)
        e.data = <uint8_t *>mem_alloc(e.length)
        if e.data == NULL:
            raise MemoryError("dial")
        e.data2 = e.data + a
        e.length2 = b
        e.data3 = e.data2 + b
        e.length3 = PyBytes_GET_SIZE(hello)
        memcpy(e.data, PyBytes_AS_STRING(sockaddr), a)
        memcpy(e.data2, PyBytes_AS_STRING(request), b)
        memcpy(e.data3, PyBytes_AS_STRING(hello), e.length3)
        if ring_push(&loop.commands, &e) < 0:
            mem_free(e.data)
            raise MemoryError("dial")

    def undial(self, uint64_t front):
        """Close the frontend's backend connection if it is not linked yet."""
        self._command(CMD_UNDIAL, front, 0, 0, b"")

    def link(self, uint64_t front, uint64_t back, bytes welcome):
        """Send ``welcome`` (if any) to the frontend, then relay between the two."""
        self._command(CMD_LINK, front, back, 0, welcome)

    def link_self(self, uint64_t conn):
        """Echo: relay a connection's messages to itself, without the gate."""
        self._command(CMD_LINK_SELF, conn, 0, 0, b"")

    def unlink(self, uint64_t front):
        """Back to JOIN on both sides, both paused."""
        self._command(CMD_UNLINK, front, 0, 0, b"")

    def add_realm(self):
        """A number for a realm, for dial(); never given back.

        :raise RuntimeError: there are REALMS_MAX already.
        :raise MemoryError: no memory for it.
        """
        if self.relay == NULL:
            raise RuntimeError("the relay was released")
        cdef int number = sids_add_realm(&self.relay.sids)
        if number == ST_NOMEM:
            raise MemoryError("realm")
        if number <= 0:
            raise RuntimeError(f"add_realm: there are {REALMS_MAX} realms already")
        return number

    def release_sid(self, uint32_t realm, uint64_t front_sid):
        """A session with a front_sid of its own is over; its IDs are still known for a while."""
        cdef timespec ts
        if self.relay == NULL:
            return
        cdef realm_t *found = sids_realm(&self.relay.sids, realm)
        if found != NULL:
            clock_gettime(CLOCK_MONOTONIC_COARSE, &ts)
            sids_drop(found, front_sid, <uint64_t>ts.tv_sec * 1000 + <uint64_t>ts.tv_nsec // 1000000)

    def swallow(self, uint64_t front, int kind, uint64_t request):
        """Drop what is still said about a request that has failed, until its last answer."""
        if kind not in (NOTE_DEAD_CALL, NOTE_DEAD_INVOCATION):
            raise ValueError(f"kind: {kind}, expected NOTE_DEAD_CALL or NOTE_DEAD_INVOCATION")
        self._command(CMD_SWALLOW, front, request, kind, b"")

    def close(self, uint64_t conn, int code=1000, bytes reason=b""):
        """Flush, close handshake, close; bounded by close_ms."""
        self._command(CMD_CLOSE, conn, 0, code, reason)

    def abort(self, uint64_t conn):
        """Close at once, queued data is lost."""
        self._command(CMD_ABORT, conn, 0, 0, b"")

    def stats(self, int index):
        """Counters of one loop, by name."""
        if self.relay == NULL or not 0 <= index < self.threads:
            raise ValueError(f"index: {index}, expected 0 to {self.threads - 1}")
        cdef loop_t *loop = <loop_t *>self.relay.loops[index]
        cdef dict counters = loop.stats
        counters["event_ring"] = loop.events.count
        counters["command_ring"] = loop.commands.count
        counters["event_overflow"] = atomic_load64(&loop.events.overflow)
        counters["timers"] = loop.timer_count
        counters["session_ids"] = sids_count(&self.relay.sids)
        counters["slots"] = loop.chunk_count * CHUNK_SLOTS
        return counters
