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


cdef int link_flush(loop_t *loop, conn_t *c, conn_t *to, spans_t *s) noexcept nogil:
    """Let everything that was relayed so far leave: the batch that is open, the spans. As link_pump."""
    if loop.batch.len:
        loop.stats.batches += 1
        if conn_put_packed(loop, to, conn_opcode(to), sink_ptr(&loop.batch), loop.batch.len) < 0:
            loop.batch.len = 0
            conn_lost(loop, to, CLOSED_NOMEM, 0)
            return ST_IO
        loop.batch.len = 0
        sink_trim(&loop.batch)
        link_press(loop, c, to)
    return link_pump(loop, c, to, s)


cdef inline void link_press(loop_t *loop, conn_t *c, conn_t *to) noexcept nogil:
    """Stop reading c while its peer's queue is over high water."""
    if buf_len(&to.tx) > to.params.high_water:
        c.flags |= FL_PRESSED
        loop.stats.presses += 1


cdef inline void link_count(loop_t *loop, const conn_t *c, size_t n) noexcept nogil:
    if c.side == SIDE_FRONT:
        loop.stats.messages_to_back += 1
        loop.stats.octets_to_back += n
    else:
        loop.stats.messages_to_front += 1
        loop.stats.octets_to_front += n


cdef inline size_t link_batch_room(const conn_t *to) noexcept nogil:
    """Octets of a batch before what the last message in it adds."""
    cdef size_t room = conn_message_room(to)
    return room if room and room < BATCH_MAX else BATCH_MAX


cdef int link_put(
    loop_t *loop, conn_t *c, conn_t *to, spans_t *s, uint8_t opcode, const uint8_t *p, size_t n
) noexcept nogil:
    """Relay a message that cannot leave from where it lies: as part of a batch, or by way of the peer's queue.

    > 0: done; ST_MORE: `to` is gone.
    """
    link_count(loop, c, n)
    if to.codec.flags & CF_BATCHED:
        if loop.batch.len and loop.batch.len + n > link_batch_room(to) and link_flush(loop, c, to, s) < 0:
            return ST_MORE
        loop.stats.batched_messages += 1
        if batch_put(&to.codec, &loop.batch, p, n) < 0:
            conn_lost(loop, to, CLOSED_NOMEM, 0)      # a message is missing: nothing may follow it
            return ST_MORE
        return ST_OK
    if link_pump(loop, c, to, s) < 0:
        return ST_MORE
    if conn_put_message(loop, to, opcode, p, n) < 0:
        conn_lost(loop, to, CLOSED_NOMEM, 0)
        return ST_MORE
    link_press(loop, c, to)
    return ST_OK


cdef bint link_is_dead(conn_t *front, uint8_t serializer, uint32_t type, const uint8_t *p, size_t n) noexcept nogil:
    """Does this answer belong to a request that has failed already? Its last answer ends that."""
    cdef fields_t f
    cdef bint to_front = type == WAMP_RESULT or type == WAMP_ERROR    # RESULT, ERROR of a CALL
    cdef int index
    memset(&f, 0, sizeof(f))
    if type != WAMP_ERROR and type != WAMP_RESULT and type != WAMP_YIELD:
        return False
    if fields_request(serializer, type, p, n, &f) < 0:
        return False
    if type == WAMP_ERROR and f.request_type != WAMP_CALL:            # ERROR of an INVOCATION, if it is one at all
        to_front = False
        if f.request_type != WAMP_INVOCATION:
            return False
    index = notes_find(front.notes, NOTE_DEAD_CALL if to_front else NOTE_DEAD_INVOCATION, f.request)
    if index < 0:
        return False
    if type == WAMP_ERROR or not f.progress:
        notes_drop(front.notes, index)
    return True


cdef inline bint link_rewrites(const conn_t *c, const conn_t *front, uint8_t direction, uint32_t type) noexcept nogil:
    """May this message hold session IDs that are not the same on both sides, or tell where such will be?"""
    if c.realm == NULL or not rewrite_concerns(direction, type):
        return False
    # In this order: a session is counted in `mapped` before it leaves `joining`.
    if atomic_load64(&c.realm.joining) or atomic_load64(&c.realm.mapped):
        return True
    # Subscriptions outlive the time when there is nothing to map.
    return WAMP_SUBSCRIBE <= type <= WAMP_UNSUBSCRIBED or front.notes != NULL


cdef int link_await(loop_t *loop, conn_t *c, const uint8_t *p, size_t n) noexcept nogil:
    """Keep a message until the session that it names is known, or SID_WAIT_MS have passed."""
    if not c.flags & FL_AWAITED:
        if buf_append(loop, &c.hold, p, n) < 0:
            return ST_NOMEM
        c.flags |= FL_AWAITED
        c.wait_until = loop.now + SID_WAIT_MS
        loop.stats.waits += 1
    conn_deadline(loop, c, TIMER_TICK_MS)
    return ST_MORE


cdef void link_forget(conn_t *front, uint32_t type, const uint8_t *p, size_t n) noexcept nogil:
    """A request does not reach the router: nothing will answer what the rewriter noted of it."""
    cdef uint8_t kind = NOTE_UNSUBSCRIBE
    cdef fields_t f
    cdef int index
    memset(&f, 0, sizeof(f))
    if type == WAMP_CALL:
        kind = NOTE_CALL
    elif type == WAMP_SUBSCRIBE:
        kind = NOTE_SUBSCRIBE
    elif type != WAMP_UNSUBSCRIBE:
        return
    if fields_request(front.codec.serializer, type, p, n, &f) < 0:
        return
    index = notes_find(front.notes, kind, f.request)
    if index >= 0:
        notes_drop(front.notes, index)


cdef int link_cook(
    loop_t *loop, conn_t *c, conn_t *to, spans_t *s, uint32_t type, const uint8_t *p, size_t n, bint may_wait
) noexcept nogil:
    """Relay a message that must be looked at: session IDs, the other serializer, the other side's limit.

    > 0: done, it may have been dropped; ST_MORE: it waits, the control plane has the word, or `to` is gone.
    """
    cdef conn_t *front = c if c.side == SIDE_FRONT else to
    cdef uint8_t direction = DIR_TO_BACK if c.side == SIDE_FRONT else DIR_TO_FRONT
    cdef uint8_t serializer = c.codec.serializer
    cdef size_t limit = conn_message_room(to)
    cdef const char *why = NULL
    cdef int st = ST_OK
    if front.notes != NULL and front.notes.dead and link_is_dead(front, serializer, type, p, n):
        loop.stats.swallowed += 1
        return ST_OK
    if link_rewrites(c, front, direction, type):
        sink_reset(&loop.rewritten, 0)
        st = rewrite(serializer, direction, type, p, n, c.realm, &front.notes, may_wait, &loop.rewritten)
        if st == ST_WAIT:
            return link_await(loop, c, p, n)
        if st > 0:
            loop.stats.rewritten += 1
            p = sink_ptr(&loop.rewritten)
            n = loop.rewritten.len
        elif st < 0 and direction == DIR_TO_BACK:     # to_front it goes on as it is: only what it tells is lost
            return link_refuse(loop, c, to, s, type, p, n, ST_BUSY, "too many requests of this kind are pending")
    if serializer != to.codec.serializer:
        sink_reset(&loop.translated, limit)
        st = translate(serializer, to.codec.serializer, p, n, &loop.translated, &why)
        if st < 0:
            if st == ST_TOO_BIG:
                return link_refuse(loop, c, to, s, type, p, n, ST_TOO_BIG, NULL)
            return link_refuse(loop, c, to, s, type, p, n, ST_UNTRANSLATABLE, why)
        loop.stats.translated += 1
        p = sink_ptr(&loop.translated)
        n = loop.translated.len
    elif limit and n > limit:
        return link_refuse(loop, c, to, s, type, p, n, ST_TOO_BIG, NULL)
    st = link_put(loop, c, to, s, conn_opcode(to), p, n)
    sink_trim(&loop.rewritten)
    sink_trim(&loop.translated)
    return st


cdef int link_refuse(
    loop_t *loop, conn_t *c, conn_t *to, spans_t *s, uint32_t type, const uint8_t *p, size_t n, int status,
    const char *why
) noexcept nogil:
    """Have the control plane answer for a message that cannot be relayed."""
    if c.side == SIDE_FRONT and c.notes != NULL:
        link_forget(c, type, p, n)
    if link_flush(loop, c, to, s) >= 0:
        refuse_emit(loop, c, type, p, n, status, why, conn_message_room(to))
    sink_trim(&loop.rewritten)
    sink_trim(&loop.translated)
    return ST_MORE


cdef inline bint link_is_plain(
    const conn_t *c, const conn_t *to, uint8_t direction, const wamp_t *w, const frame_t *f
) noexcept nogil:
    """May the message be relayed as it is, from where it lies?"""
    cdef const conn_t *front = c if c.side == SIDE_FRONT else to
    if c.flags & FL_COOKED or (to.codec.max_out and f.length > to.codec.max_out):
        return False
    if front.notes != NULL and front.notes.dead:
        return False
    return not link_rewrites(c, front, direction, w.type)


cdef inline int link_plain(loop_t *loop, conn_t *c, conn_t *to, spans_t *s, const frame_t *f) noexcept nogil:
    """Relay a message untouched. > 0: done; ST_MORE: `to` is gone."""
    if to.params.auto_fragment and f.length > to.params.auto_fragment:
        return link_put(loop, c, to, s, f.opcode, f.payload, f.length)
    link_count(loop, c, f.length)
    return spans_add(loop, to, s, f.opcode, f.payload, f.length)


cdef int link_message(loop_t *loop, conn_t *c, conn_t *to, spans_t *s, const frame_t *f) noexcept nogil:
    """Pass one message through the gate and relay it. > 0: go on; ST_MORE: it waits, or is the control plane's."""
    cdef wamp_t w
    cdef uint8_t direction = DIR_TO_BACK if c.side == SIDE_FRONT else DIR_TO_FRONT
    cdef int plan
    if to != c:
        plan = wamp_plan(c.codec.serializer, direction, f.payload, f.length, &w)
        if plan != PLAN_PASS:
            return link_stop(loop, c, to, s, f, plan, w.type)
        if not scan_likely(link_is_plain(c, to, direction, &w, f)):
            return link_cook(loop, c, to, s, w.type, f.payload, f.length, True)
    elif c.flags & FL_COOKED:                         # an echo speaks no WAMP
        return link_put(loop, c, to, s, f.opcode, f.payload, f.length)
    return link_plain(loop, c, to, s, f)              # one call only, so that it stands here


cdef int link_stop(
    loop_t *loop, conn_t *c, conn_t *to, spans_t *s, const frame_t *f, int plan, uint32_t type
) noexcept nogil:
    """The gate does not let a message pass: the control plane has the word."""
    if link_flush(loop, c, to, s) < 0:
        return ST_MORE
    if plan == PLAN_CONTROL:
        c.flags |= FL_PAUSED
        event_emit(loop, EV_CONTROL, c, type, f.payload, f.length, NULL, 0)
    else:
        violation_emit(loop, c, plan, NULL, 0)
    return ST_MORE


cdef inline void link_open(loop_t *loop, spans_t *s, uint8_t *floor) noexcept nogil:
    """Nothing is on its way yet."""
    s.count = 0
    s.octets = 0
    s.end = NULL
    s.floor = floor
    sink_reset(&loop.batch, 0)


cdef void link_retry(loop_t *loop, conn_t *c, bint may_wait) noexcept nogil:
    """Look again at the message that waits for a session to be known; without may_wait it goes on in any case."""
    cdef spans_t s
    cdef wamp_t w
    cdef uint32_t gen = c.gen
    cdef conn_t *to = conn_peer(loop, c)
    if to == NULL or c.phase != PHASE_LINKED:
        return
    link_open(loop, &s, NULL)
    wamp_type(c.codec.serializer, buf_ptr(&c.hold), buf_len(&c.hold), &w)
    c.deadline = 0
    link_cook(loop, c, to, &s, w.type, buf_ptr(&c.hold), buf_len(&c.hold), may_wait)
    if c.gen != gen or c.fd < 0 or (c.phase == PHASE_LINKED and c.deadline and not c.flags & FL_NO_READ):
        return                                        # it is gone, or waits for more
    c.flags &= ~<uint32_t>FL_AWAITED
    c.wait_until = 0
    if c.phase == PHASE_LINKED:
        link_flush(loop, c, to, &s)
    if c.gen == gen and c.fd >= 0:
        buf_free(loop, &c.hold)
        conn_ready(loop, c)


cdef void link_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """Relay all whole messages of b. Afterwards c may be gone, unlinked or stopped; b then holds what is left."""
    cdef spans_t s
    cdef frame_t f
    cdef conn_t *to = conn_peer(loop, c)
    cdef uint32_t gen = c.gen
    cdef int st = ST_OK
    link_open(loop, &s, b.base)
    f.need = 0
    while st > 0 and not c.flags & FL_STOPPED:
        st = intake_next(loop, c, b, &f)
        if st <= 0:
            break
        if f.kind == FRAME_MESSAGE:
            st = link_message(loop, c, to, &s, &f)
            if c.gen != gen or c.fd < 0 or c.phase != PHASE_LINKED:
                return
            if s.count > SPAN_MAX - 2 and link_pump(loop, c, to, &s) < 0:
                return
        elif f.kind != FRAME_NONE:
            if link_flush(loop, c, to, &s) < 0:
                return
            if control_input(loop, c, &f) <= 0:
                return
    if link_flush(loop, c, to, &s) < 0:
        return
    sink_trim(&loop.inflated)
    if st < 0:
        conn_fail(loop, c, st)
    elif c.fd >= 0 and st == ST_MORE and f.need:
        conn_need(loop, c, b, f.need)


cdef inline uint32_t link_cooked(const conn_t *c, const conn_t *to) noexcept nogil:
    """FL_COOKED where what c sends cannot be re-framed in place: it was inflated, or leaves in another form."""
    if c.codec.flags & CF_DEFLATE or to.codec.flags & (CF_BATCHED | CF_DEFLATE):
        return FL_COOKED
    return FL_COOKED if c.codec.serializer != to.codec.serializer else 0


cdef void link_join(loop_t *loop, conn_t *front, conn_t *back) noexcept nogil:
    """Begin to relay; front and back may be the same connection (echo)."""
    front.peer = back.slot + 1
    back.peer = front.slot + 1
    back.flags |= FL_LINKED_BACK
    front.phase = PHASE_LINKED
    back.phase = PHASE_LINKED
    front.flags &= ~<uint32_t>(FL_PAUSED | FL_REFUSED | FL_PRESSED | FL_COOKED)
    back.flags &= ~<uint32_t>(FL_PAUSED | FL_REFUSED | FL_PRESSED | FL_COOKED)
    front.flags |= link_cooked(front, back)
    back.flags |= link_cooked(back, front)
    front.realm = back.realm
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
    if back.flags & FL_AWAITED:
        link_retry(loop, back, False)                 # what came before the end still belongs to the session
        if front.phase != PHASE_LINKED:
            return
    loop.stats.links -= 1
    if front.notes != NULL:
        notes_free(&front.notes)
    front.peer = 0
    back.peer = 0
    front.phase = PHASE_JOIN
    back.phase = PHASE_JOIN
    front.flags = (front.flags | FL_PAUSED) & ~<uint32_t>FL_PRESSED
    back.flags = (back.flags | FL_PAUSED) & ~<uint32_t>FL_PRESSED
    conn_deadline(loop, front, ORPHAN_MS)
    conn_deadline(loop, back, ORPHAN_MS)
