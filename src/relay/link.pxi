# link.pxi - a front and a back that relay to each other: the hot path. Part of proxy._relay (see src/_relay.pyx).
#
# Messages are re-framed where they lie. Frames that follow each other without a gap become one span, small gaps are
# closed by moving the payload, large payloads start a span of their own; everything one recv brought leaves with one
# sendmsg. Spans point into the input buffer, so they are sent (or copied to the peer's queue) before that buffer is
# touched again.

ctypedef struct spans_t:
    iovec iov[64]                  # SPAN_MAX
    uint8_t heads[64][16]          # headers that found no room in front of their payload
    uint32_t count
    size_t octets
    uint8_t *end                   # end of the last span when it lies in the input buffer, else NULL
    uint8_t *floor                 # first octet that may be overwritten


cdef inline void spans_open(spans_t *s, uint8_t *p, size_t n) noexcept nogil:
    s.iov[s.count].iov_base = p
    s.iov[s.count].iov_len = n
    s.count += 1


cdef int spans_add(loop_t *loop, conn_t *to, spans_t *s, uint8_t opcode, uint8_t *payload, size_t n) noexcept nogil:
    """Frame one message for `to` in place and add it. The caller made sure that two more spans fit."""
    cdef uint32_t key = conn_key(loop) if to.codec.flags & CF_MASK_OUT else 0
    cdef int h = frame_head_len(&to.codec, n)
    cdef uint8_t *want = payload - h
    if s.end != NULL and want > s.end and n <= SPAN_MERGE_MAX:
        memmove(s.end + h, payload, n)
        payload = s.end + h
        want = s.end
    if s.end != NULL and want == s.end:
        frame_head_put(&to.codec, want, n, opcode, key)
        s.iov[s.count - 1].iov_len += h + n
    elif want >= s.floor:
        frame_head_put(&to.codec, want, n, opcode, key)
        spans_open(s, want, h + n)
    else:
        frame_head_put(&to.codec, s.heads[s.count], n, opcode, key)
        spans_open(s, s.heads[s.count], h)
        spans_open(s, payload, n)
    if key and to.codec.flags & CF_APPLY_MASK:
        mask_xor(payload, n, key, 0)
    s.end = payload + n
    s.floor = s.end
    s.octets += h + n
    return ST_OK


cdef int spans_keep(loop_t *loop, conn_t *to, const spans_t *s, size_t sent) noexcept nogil:
    """Copy what the socket did not take to the queue."""
    cdef uint32_t i
    cdef size_t n
    if buf_reserve(loop, &to.tx, s.octets - sent) < 0:
        return ST_NOMEM
    for i in range(s.count):
        n = s.iov[i].iov_len
        if sent >= n:
            sent -= n
            continue
        buf_append(loop, &to.tx, <uint8_t *>s.iov[i].iov_base + sent, n - sent)
        sent = 0
    return ST_OK


cdef int link_pump(loop_t *loop, conn_t *c, conn_t *to, spans_t *s) noexcept nogil:
    """Send the spans of c to its peer, queue the rest, and stop reading c while the peer's queue is over high water.

    ST_OK; or ST_IO: `to` is gone.
    """
    cdef ssize_t n = 0
    if s.count == 0:
        return ST_OK
    if buf_len(&to.tx) == 0:
        n = conn_send(loop, to, s.iov, s.count)
        if n < 0:
            n = 0                                     # conn_run sees it fail again, and reads what `to` said last
            conn_ready(loop, to)
        elif n < <ssize_t>s.octets:
            conn_blocked(loop, to)
    if n < <ssize_t>s.octets:
        if spans_keep(loop, to, s, n) < 0:
            conn_lost(loop, to, CLOSED_NOMEM, 0)
            return ST_IO
        if buf_len(&to.tx) > to.params.high_water:
            c.flags |= FL_PRESSED
            loop.stats.presses += 1
    s.count = 0
    s.octets = 0
    s.end = NULL
    return ST_OK


cdef int link_message(loop_t *loop, conn_t *c, conn_t *to, spans_t *s, const frame_t *f) noexcept nogil:
    """Pass one message through the gate into the spans. > 0: relayed; 0: the control plane has the word."""
    cdef wamp_t w
    cdef int plan = PLAN_PASS
    cdef uint8_t direction
    if to != c:                                       # an echo speaks no WAMP
        direction = DIR_TO_BACK if c.side == SIDE_FRONT else DIR_TO_FRONT
        plan = wamp_plan(c.codec.serializer, direction, f.payload, f.length, &w)
    if plan == PLAN_PASS and to.codec.max_out and f.length > to.codec.max_out:
        plan = ST_TOO_BIG
    if plan == PLAN_PASS:
        if c.side == SIDE_FRONT:
            loop.stats.messages_to_back += 1
            loop.stats.octets_to_back += f.length
        else:
            loop.stats.messages_to_front += 1
            loop.stats.octets_to_front += f.length
        if to.params.auto_fragment and f.length > to.params.auto_fragment:
            if link_pump(loop, c, to, s) < 0:
                return ST_MORE
            if conn_put_message(loop, to, f.opcode, f.payload, f.length) < 0:
                conn_lost(loop, to, CLOSED_NOMEM, 0)  # a message is missing or cut: nothing may follow it
                return ST_MORE
            if buf_len(&to.tx) > to.params.high_water:
                c.flags |= FL_PRESSED
            return ST_OK
        return spans_add(loop, to, s, f.opcode, f.payload, f.length)
    if link_pump(loop, c, to, s) < 0:
        return ST_MORE
    if plan == PLAN_CONTROL:
        c.flags |= FL_PAUSED
        event_emit(loop, EV_CONTROL, c, w.type, f.payload, f.length, NULL, 0)
    else:
        violation_emit(loop, c, plan, NULL, 0)
    return ST_MORE


cdef void link_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """Relay all whole messages of b. Afterwards c may be gone, unlinked or stopped; b then holds what is left."""
    cdef spans_t s
    cdef frame_t f
    cdef conn_t *to = conn_peer(loop, c)
    cdef uint32_t gen = c.gen
    cdef int st = ST_OK
    s.count = 0
    s.octets = 0
    s.end = NULL
    s.floor = b.base
    while st > 0 and not c.flags & FL_STOPPED:
        st = frame_next(&c.codec, buf_ptr(b), buf_len(b), &f)
        if st <= 0:
            break
        buf_consume(loop, b, f.consumed)
        if f.kind == FRAME_MESSAGE:
            st = link_message(loop, c, to, &s, &f)
            if c.gen != gen or c.fd < 0 or c.phase != PHASE_LINKED:
                return
            if s.count > SPAN_MAX - 2 and link_pump(loop, c, to, &s) < 0:
                return
        elif f.kind != FRAME_NONE:
            if link_pump(loop, c, to, &s) < 0:
                return
            if control_input(loop, c, &f) <= 0:
                return
    if link_pump(loop, c, to, &s) < 0:
        return
    if st < 0:
        conn_fail(loop, c, st)
    elif c.fd >= 0 and st == ST_MORE and f.need:
        conn_need(loop, c, b, f.need)


cdef void link_join(loop_t *loop, conn_t *front, conn_t *back) noexcept nogil:
    """Begin to relay; front and back may be the same connection (echo)."""
    front.peer = back.slot + 1
    back.peer = front.slot + 1
    back.flags |= FL_LINKED_BACK
    front.phase = PHASE_LINKED
    back.phase = PHASE_LINKED
    front.flags &= ~<uint32_t>(FL_PAUSED | FL_PRESSED)
    back.flags &= ~<uint32_t>(FL_PAUSED | FL_PRESSED)
    front.codec.max_message = front.params.max_message
    conn_deadline(loop, front, 0)
    conn_deadline(loop, back, 0)
    loop.stats.links += 1
    conn_ready(loop, front)
    conn_ready(loop, back)


cdef void link_part(loop_t *loop, conn_t *front) noexcept nogil:
    """Stop relaying; both ends stay open, paused, in JOIN."""
    cdef conn_t *back = conn_peer(loop, front)
    if back == NULL or front.phase != PHASE_LINKED:
        return
    loop.stats.links -= 1
    front.peer = 0
    back.peer = 0
    front.phase = PHASE_JOIN
    back.phase = PHASE_JOIN
    front.flags = (front.flags | FL_PAUSED) & ~<uint32_t>FL_PRESSED
    back.flags = (back.flags | FL_PAUSED) & ~<uint32_t>FL_PRESSED
    conn_deadline(loop, front, ORPHAN_MS)
    conn_deadline(loop, back, ORPHAN_MS)
