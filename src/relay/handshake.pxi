# handshake.pxi - from the first octet to the JOIN phase, both ends: first octet, RawSocket handshake, HTTP
# head, and the JOIN phase's one message at a time. Part of proxy._relay (see src/_relay.pyx).

cdef void conn_greet(loop_t *loop, conn_t *c) noexcept nogil:
    """A backend connection can be talked on: say the first word."""
    cdef uint8_t hello[RS_HEADER_LEN]
    if c.codec.kind == CODEC_RS:
        c.phase = PHASE_RS_HELLO
        rs_hello_put(hello, c.codec.serializer, <uint32_t>c.codec.max_message)
        if conn_queue(loop, c, hello, RS_HEADER_LEN) < 0:
            conn_lost(loop, c, CLOSED_NOMEM, 0)
            return
    else:
        c.phase = PHASE_HEAD                          # the request waits in tx
    conn_ready(loop, c)


cdef void conn_begin_join(loop_t *loop, conn_t *c, uint32_t ms) noexcept nogil:
    """Framing is agreed: messages may come, one at a time."""
    c.phase = PHASE_JOIN
    c.flags &= ~<uint32_t>FL_PAUSED
    if c.params.ping_interval_ms and c.codec.kind == CODEC_WS:
        c.ping_at = loop.now + c.params.ping_interval_ms
    conn_deadline(loop, c, ms)
    if c.side == SIDE_FRONT and c.codec.serializer != SER_NONE:
        # Nobody knows yet who this is, and the control plane decodes no more than this of a stranger.
        if c.codec.max_message == 0 or c.codec.max_message > JOIN_MESSAGE_MAX:
            c.codec.max_message = JOIN_MESSAGE_MAX
    if buf_len(&c.hold):
        if conn_put_message(loop, c, conn_opcode(c), buf_ptr(&c.hold), buf_len(&c.hold)) < 0:
            conn_deadline(loop, c, 1)                 # the reason is latched
        buf_free(loop, &c.hold)
    conn_ready(loop, c)


cdef size_t conn_peer_address(conn_t *c, uint8_t *dst) noexcept nogil:
    """The peer's sockaddr into dst (128 octets); its length, 0 when it has none."""
    cdef socklen_t n = sizeof(sockaddr_storage)
    if c.address != NULL:
        memcpy(dst, c.address + 1, c.address[0])
        return c.address[0]
    if getpeername(c.fd, <sockaddr *>dst, &n) == -1 or n > sizeof(sockaddr_storage):
        return 0
    return n


cdef void intro_make(loop_t *loop, conn_t *c) noexcept nogil:
    """Put into loop.intro who the client is: its address, and what came of TLS."""
    cdef uint8_t octets[130]
    cdef size_t at
    octets[0] = <uint8_t>conn_peer_address(c, octets + 1)
    at = 1 + octets[0]
    sink_reset(&loop.intro, 0)
    sink_put(&loop.intro, octets, at)
    sink_put(&loop.intro, octets, 2)                  # the length of what follows, known afterwards
    if loop.intro.len != at + 2 or (c.ssl != NULL and not intro_tls(&loop.intro, c)):
        loop.intro.len = 0                            # no memory; half of it would be taken for something else
        return
    store_be16(sink_ptr(&loop.intro) + at, <uint16_t>(loop.intro.len - at - 2))


cdef void intro_emit(loop_t *loop, uint8_t kind, conn_t *c, int64_t arg, const uint8_t *p, size_t n) noexcept nogil:
    """The first event of a client's connection."""
    intro_make(loop, c)
    if loop.intro.len < 3:
        event_lost(loop, c)
        return
    event_emit(loop, kind, c, arg, p, n, sink_ptr(&loop.intro), loop.intro.len)
    sink_trim(&loop.intro)


cdef int rs_hello_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """Four octets of RawSocket handshake, server or client end. > 0: go on with what follows."""
    cdef uint8_t octets[RS_HEADER_LEN]
    cdef uint8_t error = 0
    cdef uint32_t max_in
    if buf_len(b) < RS_HEADER_LEN:
        return ST_MORE
    if c.side == SIDE_BACK:
        if rs_reply_parse(buf_ptr(b), c.codec.serializer, &c.codec.max_out, &error) < 0:
            conn_latch(c, CLOSED_REFUSED, HANDSHAKE_DROPPED + error)
            conn_destroy(loop, c)
            return ST_MORE
        buf_consume(loop, b, RS_HEADER_LEN)
        conn_begin_join(loop, c, c.join_ms)
        return ST_OK
    if rs_hello_parse(buf_ptr(b), c.params.serializers, &c.codec.serializer, &c.codec.max_out, &error) < 0:
        conn_latch(c, CLOSED_PROTOCOL, 0)
        if error == 0:
            conn_destroy(loop, c)
            return ST_MORE
        rs_error_put(octets, error)
        conn_queue(loop, c, octets, RS_HEADER_LEN)
        conn_close(loop, c, 0, NULL, 0)
        return ST_MORE
    buf_consume(loop, b, RS_HEADER_LEN)
    max_in = <uint32_t>c.codec.max_message
    rs_hello_put(octets, c.codec.serializer, max_in)
    if conn_queue(loop, c, octets, RS_HEADER_LEN) < 0:
        conn_lost(loop, c, CLOSED_NOMEM, 0)
        return ST_MORE
    conn_begin_join(loop, c, c.params.hello_ms)
    intro_emit(loop, EV_OPEN, c, c.codec.serializer, NULL, 0)
    return ST_OK


cdef int head_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """Gather an HTTP head and give it up when its empty line is there, or refuse it when it grows too long."""
    cdef uint8_t none = 0
    cdef const uint8_t *end
    cdef size_t n = 0
    if buf_len(b) == 0:
        return ST_MORE
    end = <const uint8_t *>memmem(buf_ptr(b), buf_len(b), <const char *>"\r\n\r\n", 4)
    if end != NULL:
        n = <size_t>(end - buf_ptr(b)) + 4
    if n > c.params.max_head or (end == NULL and buf_len(b) > c.params.max_head):
        if c.side == SIDE_BACK:
            conn_latch(c, CLOSED_PROTOCOL, 0)
            conn_destroy(loop, c)
            return ST_MORE
        c.flags |= FL_PAUSED | FL_NO_READ
        conn_deadline(loop, c, ORPHAN_MS)
        event_note(loop, EV_VIOLATION, c, ST_TOO_BIG)
        return ST_MORE
    if end == NULL:
        return ST_MORE
    c.phase = PHASE_WAIT
    c.flags |= FL_PAUSED
    conn_deadline(loop, c, ORPHAN_MS)
    if c.side == SIDE_FRONT:
        intro_emit(loop, EV_HEAD, c, 0, buf_ptr(b), n)
    else:
        event_emit(loop, EV_HEAD, c, 0, buf_ptr(b), n, &none, 1)
    buf_consume(loop, b, n)
    return ST_OK


cdef int sniff_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """The first octet must fit the transport: 0x7F is RawSocket, `raw_first` the control plane's, the rest HTTP."""
    cdef uint8_t first = buf_ptr(b)[0]
    cdef bint rawsocket = first == 0x7F
    if first == c.params.raw_first:
        c.phase = PHASE_WAIT
        c.flags |= FL_PAUSED
        conn_deadline(loop, c, ORPHAN_MS)
        intro_emit(loop, EV_RAW, c, 0, NULL, 0)
        return ST_MORE
    if rawsocket and c.params.rawsocket != NULL:
        conn_setup(c, c.params.rawsocket)
    if rawsocket != (c.params.kind == CODEC_RS):
        conn_latch(c, CLOSED_PROTOCOL, 0)
        conn_destroy(loop, c)
        return ST_MORE
    c.phase = PHASE_RS_HELLO if rawsocket else PHASE_HEAD
    return ST_OK


cdef int control_input(loop_t *loop, conn_t *c, const frame_t *f) noexcept nogil:
    """A ping, pong or close frame. > 0: go on; 0: the connection is ending or gone."""
    cdef uint16_t code = 0
    cdef const uint8_t *reason = NULL
    cdef size_t n = 0
    cdef int st
    if f.kind == FRAME_PING:
        if c.codec.max_out and f.length > c.codec.max_out:
            return ST_OK                              # it cannot take the answer that it asks for
        if conn_put(loop, c, OP_PONG, f.payload, f.length, True) < 0:
            conn_lost(loop, c, CLOSED_NOMEM, 0)
            return ST_MORE
        if buf_len(&c.tx) > c.params.high_water:
            c.flags |= FL_FLOODED                     # it pings and does not read: pongs must not pile up
        return ST_OK
    if f.kind == FRAME_PONG:
        conn_pong(loop, c, f.payload, f.length)
        return ST_OK
    st = ws_close_parse(f.payload, f.length, &code, &reason, &n)
    if st < 0:
        conn_fail(loop, c, st)
        return ST_MORE
    c.flags |= FL_CLOSE_SEEN
    c.close_code = code
    conn_latch(c, CLOSED_PEER, 0)
    conn_report(loop, c, reason, n)
    if c.params.echo_close:
        conn_close(loop, c, code, reason, n)
    else:
        conn_close(loop, c, 1000 if code != 1005 else 1005, NULL, 0)
    return ST_MORE


cdef void violation_emit(loop_t *loop, conn_t *c, int status, const uint8_t *p, size_t n) noexcept nogil:
    """Stop reading for good and let the control plane say goodbye on both sides."""
    c.flags |= FL_PAUSED | FL_NO_READ
    loop.stats.violations += 1
    conn_deadline(loop, c, ORPHAN_MS)
    event_emit(loop, EV_VIOLATION, c, status, p, n, NULL, 0)


cdef int join_map(conn_t *c, const uint8_t *p, size_t n) noexcept nogil:
    """The router's WELCOME: from now on its ID of the session stands for the one that the client is told.

    Done here, not by the control plane, so that it is known as early as can be: the router may tell others of the
    session at the same time.
    """
    cdef fields_t f
    cdef int st = ST_OK
    memset(&f, 0, sizeof(f))
    if fields_request(c.codec.serializer, WAMP_WELCOME, p, n, &f) > 0 and 1 <= f.request <= SID_MAX:
        st = sids_put(c.realm, c.front_sid, f.request)
    conn_joined(c)
    return st


cdef int join_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """One frame in the JOIN phase; a whole message goes up and pauses reading. > 0: go on with what follows."""
    cdef frame_t f
    cdef wamp_t w
    cdef int st = intake_next(loop, c, b, &f)
    if st == ST_MORE:
        conn_need(loop, c, b, f.need)
        return ST_MORE
    if st < 0:
        conn_fail(loop, c, st)
        return ST_MORE
    if f.kind == FRAME_NONE:
        return ST_OK
    if f.kind != FRAME_MESSAGE:
        return control_input(loop, c, &f)
    st = wamp_type(c.codec.serializer, f.payload, f.length, &w)
    if st < 0:
        violation_emit(loop, c, st, NULL, 0)
        return ST_MORE
    if c.flags & FL_JOINING and w.type == WAMP_WELCOME:
        st = join_map(c, f.payload, f.length)
        if st < 0:
            conn_lost(loop, c, CLOSED_NOMEM, 0)
            return ST_MORE
    c.flags |= FL_PAUSED
    conn_deadline(loop, c, 0)
    event_emit(loop, EV_MESSAGE, c, w.type, f.payload, f.length, NULL, 0)
    return ST_MORE


cdef int closing_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """We are ending: only the peer's close frame still matters."""
    cdef frame_t f
    cdef int st
    if c.phase == PHASE_LINGER or c.codec.kind != CODEC_WS or not c.flags & FL_CLOSE_SENT or c.flags & FL_CLOSE_SEEN:
        buf_consume(loop, b, buf_len(b))
        return ST_MORE
    if c.codec.batch_left:
        intake_drop(loop, c, b)
    st = frame_next(&c.codec, buf_ptr(b), buf_len(b), &f)
    if st == ST_MORE:
        conn_need(loop, c, b, f.need)
        return ST_MORE
    if st > 0:
        buf_consume(loop, b, f.consumed)
        if f.kind != FRAME_CLOSE:
            return ST_OK
    c.flags |= FL_CLOSE_SEEN
    buf_consume(loop, b, buf_len(b))
    conn_ready(loop, c)
    return ST_MORE
