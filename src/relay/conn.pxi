# conn.pxi - one endpoint: its socket, buffers, deadlines and end. Part of proxy._relay (see src/_relay.pyx).
#
# Sockets are edge-triggered: FL_RD_READY remembers that there may be something to read until a short read says
# otherwise, so pausing and resuming cost no system call. EPOLLOUT is armed only while a send was cut short.
#
# Ending: conn_close (flush, close handshake, bounded) or conn_destroy (at once). Whoever finds the first reason
# latches it with conn_latch; the control plane is told exactly once, by conn_report.

cdef void event_emit(
    loop_t *loop, uint8_t kind, conn_t *c, int64_t arg, const uint8_t *data, size_t n, const uint8_t *lead, size_t k
) noexcept nogil:
    """Tell the control plane. data (n octets) is copied behind lead (k octets)."""
    cdef entry_t e
    memset(&e, 0, sizeof(e))
    e.kind = kind
    if c != NULL:
        e.conn = conn_id(loop, c)
        e.owner = c.owner
        c.flags |= FL_KNOWN
    e.arg = arg
    if n + k:
        e.data = <uint8_t *>mem_alloc(n + k)
        if e.data != NULL:
            if k:
                memcpy(e.data, lead, k)
            if n:
                memcpy(e.data + k, data, n)
            e.length = n + k
        elif kind != EV_CLOSED:                       # an end is told even without its text
            event_lost(loop, c)
            return
    if ring_push(&loop.events, &e) < 0:
        mem_free(e.data)
        if kind != EV_CLOSED:
            event_lost(loop, c)


cdef void event_lost(loop_t *loop, conn_t *c) noexcept nogil:
    """No memory for an event: nobody will answer it, so the connection cannot go on."""
    if c == NULL:
        return
    conn_latch(c, CLOSED_NOMEM, 0)
    c.flags |= FL_PAUSED | FL_NO_READ
    c.deadline = loop.now + 1
    timer_arm(loop, c)


cdef inline void event_note(loop_t *loop, uint8_t kind, conn_t *c, int64_t arg) noexcept nogil:
    event_emit(loop, kind, c, arg, NULL, 0, NULL, 0)


cdef inline void conn_latch(conn_t *c, uint8_t reason, int err) noexcept nogil:
    """Keep the first reason and errno of a connection's end."""
    if c.reason == CLOSED_NONE:
        c.reason = reason
        c.err = err


cdef inline void conn_ready(loop_t *loop, conn_t *c) noexcept nogil:
    """Have conn_run look at the connection again in this turn of the loop."""
    if c.flags & FL_READY:
        return
    c.flags |= FL_READY
    c.ready_next = 0
    if loop.ready_last:
        conn_at(loop, loop.ready_last - 1).ready_next = c.slot + 1
    else:
        loop.ready_first = c.slot + 1
    loop.ready_last = c.slot + 1


cdef void conn_deadline(loop_t *loop, conn_t *c, uint32_t ms) noexcept nogil:
    """Set the phase's deadline; 0: none."""
    c.deadline = loop.now + ms if ms else 0
    if timer_earliest(c):
        timer_arm(loop, c)                            # without a deadline, for a ping that may have been set just now
    else:
        timer_clear(loop, c)


cdef uint32_t conn_key(loop_t *loop) noexcept nogil:
    """A masking key from the kernel's generator (RFC 6455 5.3 wants it unpredictable), drawn in batches."""
    cdef uint32_t key
    cdef ssize_t n
    if loop.key_pos == 0 or loop.key_pos + 4 > KEY_POOL:
        n = getrandom(loop.keys, KEY_POOL, 0)
        while n != KEY_POOL:                          # a signal may cut it short
            if n == -1 and errno != EINTR:
                return 0
            n = getrandom(loop.keys, KEY_POOL, 0)
        loop.key_pos = 0
    memcpy(&key, loop.keys + loop.key_pos, 4)
    loop.key_pos += 4
    return key


cdef inline uint8_t conn_opcode(const conn_t *c) noexcept nogil:
    return OP_TEXT if c.codec.serializer == SER_JSON else OP_BINARY


cdef inline void conn_need(loop_t *loop, conn_t *c, buf_t *b, size_t need) noexcept nogil:
    """The first frame of b wants `need` octets in all: remember it for the size of the next receive."""
    c.need = need


cdef inline size_t conn_message_room(const conn_t *c) noexcept nogil:
    """Octets of one WAMP message that the peer takes; 0: any. In a batch there is less room for it."""
    if c.codec.max_out == 0 or not c.codec.flags & CF_BATCHED:
        return c.codec.max_out
    return c.codec.max_out - batch_extra(&c.codec)


cdef void conn_setup(conn_t *c, params_t *params) noexcept nogil:
    c.params = params
    c.codec.kind = params.kind
    c.codec.flags = params.codec_flags
    c.codec.max_frame = params.max_frame
    c.codec.max_message = params.max_message
    c.codec.max_out = params.max_out


# --- sending ---------------------------------------------------------------------------------------------------------

cdef int conn_watch(loop_t *loop, conn_t *c, int op, uint32_t extra) noexcept nogil:
    cdef epoll_event ev
    ev.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLRDHUP | EPOLLET | extra
    ev.data.u64 = (<uint64_t>c.gen << 32) | c.slot
    return epoll_ctl(loop.epoll_fd, op, c.fd, &ev)


cdef void conn_blocked(loop_t *loop, conn_t *c) noexcept nogil:
    """A send was cut short: be told when there is room, and expect the peer to read within stall_ms."""
    if not c.flags & FL_WR_BLOCKED:
        c.flags |= FL_WR_BLOCKED
        if conn_watch(loop, c, EPOLL_CTL_MOD, EPOLLOUT) == -1:
            conn_latch(c, CLOSED_RESET, errno)
    if c.params.stall_ms and c.stall_at == 0:
        c.stall_at = loop.now + c.params.stall_ms
        timer_arm(loop, c)


cdef inline ssize_t conn_recv(loop_t *loop, conn_t *c, uint8_t *p, size_t room) noexcept nogil:
    """As recv(), decrypted where there is TLS."""
    cdef ssize_t n
    loop.stats.recv_calls += 1
    if scan_likely(c.ssl == NULL):
        return recv(c.fd, p, room, MSG_DONTWAIT)
    n = tls_recv(c, p, room)
    if n == -1 and errno != EAGAIN:
        # An end without close_notify is a lost connection; anything else is TLS that cannot go on.
        n = errno
        if c.flags & FL_TLS_DEAD and not c.flags & FL_TLS_EOF and c.tls_errno == 0:
            conn_latch(c, CLOSED_TLS, 0)
        errno_set(<int>n)
        n = -1
    return n


cdef ssize_t conn_send(loop_t *loop, conn_t *c, const iovec *iov, size_t count) noexcept nogil:
    """One send of `count` pieces: octets taken by the kernel, 0 when it takes none now, ST_IO: it failed."""
    cdef ssize_t n
    cdef int err
    cdef msghdr msg
    while True:
        loop.stats.send_calls += 1
        if c.ssl != NULL:
            n = tls_send(loop, c, iov, count)
        elif count == 1:
            n = send(c.fd, iov.iov_base, iov.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            memset(&msg, 0, sizeof(msg))
            msg.msg_iov = <iovec *>iov
            msg.msg_iovlen = count
            n = sendmsg(c.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n != -1:
            return n
        err = errno
        if err == EINTR:
            continue
        if err == EAGAIN or err == ENOBUFS:
            return 0
        if c.reason == CLOSED_NONE:
            c.err = err                               # for conn_lost, which knows what it means in this phase
        return ST_IO


cdef int conn_flush(loop_t *loop, conn_t *c) noexcept nogil:
    """Send what is queued. ST_OK: nothing is left; ST_MORE: the socket is full; ST_IO: failed (latched)."""
    cdef ssize_t n
    cdef iovec iov
    while buf_len(&c.tx):
        iov.iov_base = buf_ptr(&c.tx)
        iov.iov_len = buf_len(&c.tx)
        n = conn_send(loop, c, &iov, 1)
        if n < 0:
            return ST_IO
        if n > 0:
            buf_consume(loop, &c.tx, n)
            c.stall_at = 0
        if n < <ssize_t>iov.iov_len:
            conn_blocked(loop, c)
            conn_relieve(loop, c)
            return ST_MORE
    buf_free(loop, &c.tx)
    c.stall_at = 0
    if c.flags & FL_WR_BLOCKED:
        c.flags &= ~<uint32_t>FL_WR_BLOCKED
        if conn_watch(loop, c, EPOLL_CTL_MOD, 0) == -1:
            conn_latch(c, CLOSED_RESET, errno)
            return ST_IO
    conn_relieve(loop, c)
    return ST_OK


cdef void conn_relieve(loop_t *loop, conn_t *c) noexcept nogil:
    """The queue of c has shrunk: let those read on that were stopped because of it (the peer, and c for its pongs)."""
    cdef conn_t *peer
    if buf_len(&c.tx) > c.params.low_water:
        return
    if c.flags & FL_FLOODED:
        c.flags &= ~<uint32_t>FL_FLOODED
        conn_ready(loop, c)
    peer = conn_peer(loop, c)
    if peer != NULL and peer.flags & FL_PRESSED:
        # Its own queue does not matter here: if each direction waited for the other, both could wait for ever.
        peer.flags &= ~<uint32_t>FL_PRESSED
        conn_ready(loop, peer)


cdef int conn_queue(loop_t *loop, conn_t *c, const uint8_t *p, size_t n) noexcept nogil:
    """Queue raw octets; they leave in this turn of the loop."""
    if buf_append(loop, &c.tx, p, n) < 0:
        conn_latch(c, CLOSED_NOMEM, 0)
        return ST_NOMEM
    conn_ready(loop, c)
    return ST_OK


cdef int conn_put(loop_t *loop, conn_t *c, uint8_t opcode, const uint8_t *p, size_t n, bint fin) noexcept nogil:
    """Frame n octets and queue them. ST_OK; < 0: no memory, or more than the peer takes; the reason is latched."""
    cdef int h
    cdef uint32_t key = conn_key(loop) if c.codec.flags & CF_MASK_OUT else 0
    cdef uint8_t *dst
    if c.codec.max_out and n > c.codec.max_out and not opcode & OP_RSV1:  # DEFLATE may add a few octets
        conn_latch(c, CLOSED_TOO_BIG, 0)
        return ST_TOO_BIG
    if buf_reserve(loop, &c.tx, n + WS_HEADER_MAX) < 0:
        conn_latch(c, CLOSED_NOMEM, 0)
        return ST_NOMEM
    dst = c.tx.base + c.tx.end
    h = frame_head_put_fin(&c.codec, dst, n, opcode, key, fin)
    if h < 0:
        return h
    if n:
        memcpy(dst + h, p, n)
        if key and c.codec.flags & CF_APPLY_MASK:
            mask_xor(dst + h, n, key, 0)
    c.tx.end += <uint32_t>(h + n)
    conn_ready(loop, c)
    return ST_OK


cdef int conn_put_whole(loop_t *loop, conn_t *c, uint8_t opcode, const uint8_t *p, size_t n) noexcept nogil:
    """Frame what is a message to the framing, in fragments where auto_fragment_size asks for them (RFC 6455 5.4)."""
    cdef size_t at = 0
    cdef size_t step = c.params.auto_fragment
    cdef int st
    if step == 0 or n <= step or c.codec.kind != CODEC_WS:
        return conn_put(loop, c, opcode, p, n, True)
    while at < n:
        if step > n - at:
            step = n - at
        st = conn_put(loop, c, opcode if at == 0 else OP_CONT, p + at, step, at + step == n)
        if st < 0:
            return st
        at += step
    return ST_OK


cdef int conn_put_packed(loop_t *loop, conn_t *c, uint8_t opcode, const uint8_t *p, size_t n) noexcept nogil:
    """Compress a message where that was negotiated and gains something, frame it and queue it."""
    cdef int st
    if c.zip == NULL or n < DEFLATE_MIN or (c.codec.max_out and n > c.codec.max_out):
        return conn_put_whole(loop, c, opcode, p, n)
    sink_reset(&loop.deflated, c.codec.max_out)
    if zip_deflate(c.zip, p, n, &loop.deflated) < 0:  # no memory for the stream, or it gets longer than the peer takes
        return conn_put_whole(loop, c, opcode, p, n)  # it may go as it is
    loop.stats.deflated += 1
    loop.stats.deflated_octets_in += n
    loop.stats.deflated_octets_out += loop.deflated.len
    st = conn_put_whole(loop, c, opcode | OP_RSV1, sink_ptr(&loop.deflated), loop.deflated.len)
    sink_trim(&loop.deflated)
    return st


cdef int conn_put_message(loop_t *loop, conn_t *c, uint8_t opcode, const uint8_t *p, size_t n) noexcept nogil:
    """Queue one WAMP message in the way that was agreed: as a batch of one, compressed, in fragments."""
    cdef int st
    if c.codec.max_out and n > conn_message_room(c):
        conn_latch(c, CLOSED_TOO_BIG, 0)
        return ST_TOO_BIG
    if not c.codec.flags & CF_BATCHED:
        return conn_put_packed(loop, c, opcode, p, n)
    sink_reset(&loop.wrapped, 0)
    if batch_put(&c.codec, &loop.wrapped, p, n) < 0:
        conn_latch(c, CLOSED_NOMEM, 0)
        return ST_NOMEM
    st = conn_put_packed(loop, c, opcode, sink_ptr(&loop.wrapped), loop.wrapped.len)
    sink_trim(&loop.wrapped)
    return st


cdef void conn_put_close(loop_t *loop, conn_t *c, uint16_t code, const uint8_t *reason, size_t n) noexcept nogil:
    """Queue a WebSocket close frame, once. Code 0 or 1005: an empty one (RFC 6455 7.1.5)."""
    cdef uint8_t body[CONTROL_PAYLOAD_MAX]
    if c.codec.kind != CODEC_WS or c.flags & FL_CLOSE_SENT:
        return
    c.flags |= FL_CLOSE_SENT
    if code == 0 or code == 1005:
        conn_put(loop, c, OP_CLOSE, NULL, 0, True)
        return
    if n > CONTROL_PAYLOAD_MAX - 2:
        n = CONTROL_PAYLOAD_MAX - 2
        while n and (reason[n] & 0xC0) == 0x80:      # do not cut a character in two
            n -= 1
    store_be16(body, code)
    if n:
        memcpy(body + 2, reason, n)
    conn_put(loop, c, OP_CLOSE, body, n + 2, True)


# --- the end ---------------------------------------------------------------------------------------------------------

cdef void conn_report(loop_t *loop, conn_t *c, const uint8_t *text, size_t n) noexcept nogil:
    """Tell the control plane, once, that the connection is over. What is left of it is this plane's own business."""
    if c.flags & FL_REPORTED:
        return
    if c.reason == CLOSED_NONE:
        c.reason = CLOSED_PEER
    conn_part(loop, c)
    if c.reason == CLOSED_TLS and n == 0:
        conn_report_tls(loop, c)
    elif not c.flags & FL_SILENT and (c.flags & FL_KNOWN or c.side == SIDE_BACK):
        event_emit(
            loop, EV_CLOSED, c, c.reason | (<int64_t>c.err << 8) | (<int64_t>c.close_code << 24), text, n, NULL, 0
        )
    c.flags |= FL_REPORTED


cdef void conn_report_tls(loop_t *loop, conn_t *c) noexcept nogil:
    """As conn_report, with what OpenSSL says."""
    cdef const char *lead = "certificate verify failed: " if c.flags & FL_TLS_UNVERIFIED else ""
    cdef const char *why = c.tls_why if c.tls_why != NULL else <const char *>"TLS error"
    if c.flags & FL_KNOWN or c.side == SIDE_BACK:
        event_emit(
            loop, EV_CLOSED, c, c.reason | (<int64_t>c.err << 8), <const uint8_t *>why, strlen(why),
            <const uint8_t *>lead, strlen(lead)
        )


cdef void conn_part(loop_t *loop, conn_t *c) noexcept nogil:
    """Take a connection out of its pair. A linked peer waits for the control plane, one that never was is closed."""
    cdef conn_t *peer = conn_peer(loop, c)
    if peer == NULL:
        return
    if c.phase == PHASE_LINKED:
        loop.stats.links -= 1
    c.peer = 0
    if peer == c:
        return
    peer.peer = 0
    peer.flags &= ~<uint32_t>(FL_PRESSED | FL_AWAITED)
    if peer.phase == PHASE_LINKED:
        buf_free(loop, &peer.hold)
        if peer.notes != NULL:
            notes_free(&peer.notes)
    if peer.phase == PHASE_LINKED:
        peer.phase = PHASE_JOIN
        peer.flags |= FL_PAUSED
        conn_deadline(loop, peer, ORPHAN_MS)
    elif peer.phase == PHASE_TUNNEL:
        conn_close(loop, peer, 0, NULL, 0)            # what is queued still leaves
    elif peer.side == SIDE_BACK and not peer.flags & FL_LINKED_BACK:
        conn_latch(peer, CLOSED_FRONT_GONE, 0)
        conn_destroy(loop, peer)


cdef inline void conn_joined(conn_t *c) noexcept nogil:
    """The router has answered HELLO or never will: whether the session has an ID is known."""
    if c.flags & FL_JOINING:
        c.flags &= ~<uint32_t>FL_JOINING
        atomic_sub64(&c.realm.joining, 1)


cdef void conn_destroy(loop_t *loop, conn_t *c) noexcept nogil:
    """Close the socket and release the slot."""
    conn_report(loop, c, NULL, 0)
    timer_clear(loop, c)
    buf_free(loop, &c.rx)
    buf_free(loop, &c.tx)
    buf_free(loop, &c.hold)
    buf_free(loop, &c.plain)
    if c.zip != NULL:
        zip_close(c.zip)
        c.zip = NULL
    if c.notes != NULL:
        notes_free(&c.notes)
    conn_joined(c)
    if c.ssl != NULL:
        if c.reason == CLOSED_PEER:
            tls_end(c)                                # its end is answered; if the socket is full, so be it
        tls_close(loop, c)
    if c.address != NULL:
        mem_free(c.address)
        c.address = NULL
    if c.flags & FL_COUNTED:
        atomic_sub64(&c.listener.count, 1)
    close(c.fd)
    loop.stats.closed += 1
    if c.flags & FL_READY:
        c.fd = -2                                     # released when its list comes to it
        c.phase = PHASE_FREE
        return
    pool_give(loop, c)


cdef int conn_error(conn_t *c) noexcept nogil:
    """What the socket failed with, an errno; 0: it did not."""
    cdef int err = 0
    cdef socklen_t n = sizeof(err)
    if getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &err, &n) == -1:
        return errno
    return err


cdef void conn_shut(loop_t *loop, conn_t *c) noexcept nogil:
    """All is flushed: end our side, then read until the peer ends its own, so that no reset destroys our last words."""
    if c.phase == PHASE_LINGER:
        return
    if tls_end(c) == ST_MORE:
        conn_blocked(loop, c)
        return
    if shutdown(c.fd, SHUT_WR) == -1:
        conn_destroy(loop, c)
        return
    c.phase = PHASE_LINGER
    buf_free(loop, &c.rx)
    c.flags &= ~<uint32_t>FL_STOPPED
    conn_ready(loop, c)


cdef void conn_close(loop_t *loop, conn_t *c, uint16_t code, const uint8_t *reason, size_t n) noexcept nogil:
    """Begin an orderly end: flush, close frame with `code` in WebSocket, then shut down; bounded by close_ms."""
    if c.phase >= PHASE_CLOSING or c.phase == PHASE_FREE:
        return
    conn_latch(c, CLOSED_LOCAL, 0)
    if c.phase < PHASE_SNIFF:
        conn_destroy(loop, c)
        return
    conn_part(loop, c)
    if PHASE_JOIN <= c.phase <= PHASE_LINKED:
        conn_put_close(loop, c, code, reason, n)
    c.phase = PHASE_CLOSING
    c.ping_at = 0
    c.flags &= ~<uint32_t>FL_STOPPED
    conn_deadline(loop, c, c.params.close_ms if c.params.close_ms else ORPHAN_MS)
    conn_ready(loop, c)


cdef void conn_fail(loop_t *loop, conn_t *c, int status) noexcept nogil:
    """The peer broke the protocol: tell it how where WebSocket allows it, tell the control plane now, and end."""
    cdef uint8_t reason = CLOSED_TOO_BIG if status == ST_TOO_BIG else CLOSED_PROTOCOL
    conn_latch(c, CLOSED_NOMEM if status == ST_NOMEM else reason, 0)
    if c.phase < PHASE_JOIN or c.codec.kind != CODEC_WS or c.params.fail_by_drop or status == ST_NOMEM:
        conn_destroy(loop, c)
        return
    conn_report(loop, c, NULL, 0)
    conn_close(loop, c, ws_close_code(status), NULL, 0)
    buf_free(loop, &c.rx)
    c.flags |= FL_CLOSE_SEEN                          # do not parse its octets again: what follows is not to be trusted


cdef void conn_lost(loop_t *loop, conn_t *c, uint8_t reason, int err) noexcept nogil:
    """The peer ended or the socket failed. What is queued for a peer that only ended its own side still leaves."""
    if c.side == SIDE_BACK and c.phase < PHASE_WAIT and reason != CLOSED_NOMEM:
        conn_latch(c, CLOSED_REFUSED, err if c.phase == PHASE_CONNECT else HANDSHAKE_DROPPED)
    conn_latch(c, reason, err)
    if reason == CLOSED_PEER and buf_len(&c.tx) and PHASE_WAIT <= c.phase <= PHASE_CLOSING:
        conn_report(loop, c, NULL, 0)
        c.flags |= FL_CLOSE_SEEN
        conn_close(loop, c, 1000, NULL, 0)
        c.flags |= FL_NO_READ                         # it would only see the end again; conn_shut looks once more
        return
    conn_destroy(loop, c)


# --- deadlines -------------------------------------------------------------------------------------------------------

cdef void conn_ping(loop_t *loop, conn_t *c) noexcept nogil:
    """A ping is due, or its pong is overdue (auto_ping_*)."""
    cdef uint8_t body[CONTROL_PAYLOAD_MAX]
    cdef uint32_t n = c.params.ping_size
    cdef uint32_t i
    cdef uint32_t key
    cdef uint32_t wait = c.params.ping_timeout_ms if c.params.ping_timeout_ms else c.params.ping_interval_ms
    if c.params.ping_restart:
        if c.flags & FL_PING_OUT and c.last_rx + wait >= c.ping_at:
            c.flags &= ~<uint32_t>FL_PING_OUT         # whatever came since the ping is as good as the pong
        if c.last_rx + c.params.ping_interval_ms > loop.now:
            c.ping_at = c.last_rx + c.params.ping_interval_ms
            return
    if c.flags & FL_STOPPED:
        # We do not read from it, so its pong may lie in the socket: ask again later instead of blaming it.
        c.flags &= ~<uint32_t>FL_PING_OUT
        c.ping_at = loop.now + c.params.ping_interval_ms
        return
    if c.flags & FL_PING_OUT and c.params.ping_timeout_ms:
        conn_latch(c, CLOSED_PING, 0)
        conn_destroy(loop, c)
        return
    for i in range(n):
        body[i] = 0
    key = conn_key(loop)
    memcpy(body, &key, 4)
    key = conn_key(loop)
    memcpy(body + 4, &key, 4)
    memcpy(&c.ping_key, body, 8)
    if conn_put(loop, c, OP_PING, body, n, True) < 0:
        conn_lost(loop, c, CLOSED_NOMEM, 0)
        return
    c.flags |= FL_PING_OUT
    c.ping_at = loop.now + wait


cdef void conn_pong(loop_t *loop, conn_t *c, const uint8_t *p, size_t n) noexcept nogil:
    """A pong came; only the one that answers our ping counts (unsolicited ones are legal, RFC 6455 5.5.3)."""
    if not c.flags & FL_PING_OUT or n != c.params.ping_size or memcmp(p, &c.ping_key, 8) != 0:
        return
    c.flags &= ~<uint32_t>FL_PING_OUT
    c.ping_at = loop.now + c.params.ping_interval_ms
    timer_arm(loop, c)                                # that may be before the pong would have been overdue
