# loop.pxi - one data thread: epoll, reading, accepting, timers. Part of proxy._relay (see src/_relay.pyx).
#
# One turn: wait; commands; events; connections in the ready list; timers. epoll_data carries slot and generation: one
# event of a batch may close connections that a later event of the same batch names; such events are counted and
# dropped.

cdef enum:
    TAG_WAKE = 0xFFFFFFFF          # epoll_data with generation 0: the command eventfd, or below, a listener's index


cdef void loop_clock(loop_t *loop) noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts)
    loop.now = <uint64_t>ts.tv_sec * 1000 + <uint64_t>ts.tv_nsec // 1000000


# --- reading ---------------------------------------------------------------------------------------------------------

cdef void conn_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """Work off what b holds, phase by phase, until something is missing or the connection stops, ends or is gone."""
    cdef uint32_t gen = c.gen
    cdef int st = ST_OK
    while st > 0:
        if c.gen != gen or c.fd < 0 or c.flags & FL_STOPPED or (buf_len(b) == 0 and c.codec.batch_left == 0):
            return
        if c.phase == PHASE_LINKED:
            link_input(loop, c, b)
            return
        if c.phase == PHASE_TUNNEL:
            tunnel_input(loop, c, b)
            return
        if c.phase == PHASE_JOIN:
            st = join_input(loop, c, b)
        elif c.phase == PHASE_SNIFF:
            st = sniff_input(loop, c, b)
        elif c.phase == PHASE_RS_HELLO:
            st = rs_hello_input(loop, c, b)
        elif c.phase == PHASE_HEAD:
            st = head_input(loop, c, b)
        else:
            st = closing_input(loop, c, b)


cdef void conn_keep(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """After input: an unfinished rest stays with the connection; an empty buffer does not."""
    cdef size_t n = buf_len(b)
    cdef uint8_t *base
    if c.codec.batch_left == 0:
        buf_free(loop, &c.plain)
    if b == &c.rx:
        if n == 0:
            buf_free(loop, b)
        return
    if n == 0:
        return
    if n >= STEAL_MIN:
        base = buf_take(loop, buf_class(SCRATCH_SIZE))
        if base != NULL:
            c.rx = b[0]
            b.base = base
            return
    elif buf_append(loop, &c.rx, buf_ptr(b), n) > 0:
        return
    conn_latch(c, CLOSED_NOMEM, 0)
    conn_destroy(loop, c)


cdef buf_t *conn_room(loop_t *loop, conn_t *c) noexcept nogil:
    """Where the next octets go: the loop's scratch, or behind an unfinished frame. NULL: no memory."""
    cdef size_t have
    cdef size_t want
    if c.rx.base == NULL:
        loop.scratch.start = BUF_HEADROOM
        loop.scratch.end = BUF_HEADROOM
        return &loop.scratch
    have = buf_len(&c.rx)
    if buf_room(&c.rx) and have + buf_room(&c.rx) >= c.need:
        return &c.rx
    # Grow towards what the frame's header claims, but never more than double what has really arrived.
    want = c.need - have if c.need > have else RX_MIN
    if want > have and have >= RX_MIN:
        want = have
    elif want > RX_MIN and have < RX_MIN:
        want = RX_MIN
    if buf_reserve(loop, &c.rx, want) < 0:
        return NULL
    return &c.rx


cdef inline void conn_dry(loop_t *loop, conn_t *c) noexcept nogil:
    """Nothing more can be read before epoll says so, except where TLS has not worked off what it got."""
    if scan_likely(not c.flags & FL_TLS_MORE):
        c.flags &= ~<uint32_t>FL_RD_READY
        return
    c.flags &= ~<uint32_t>FL_TLS_MORE
    conn_ready(loop, c)


cdef void conn_read(loop_t *loop, conn_t *c) noexcept nogil:
    """Read and work off until the socket is drained, the connection stops, or its share of this turn is used up."""
    cdef size_t budget = READ_BUDGET
    cdef uint32_t gen = c.gen
    cdef buf_t *b
    cdef size_t room
    cdef ssize_t n
    cdef int err
    if (c.rx.base != NULL or c.codec.batch_left) and not c.flags & FL_STOPPED and c.phase != PHASE_CONNECT:
        conn_input(loop, c, &c.rx)
        if c.gen != gen or c.fd < 0:
            return
        conn_keep(loop, c, &c.rx)
    while c.flags & FL_RD_READY and not c.flags & FL_STOPPED:
        if budget == 0:
            conn_ready(loop, c)
            return
        b = conn_room(loop, c)
        if b == NULL:
            conn_lost(loop, c, CLOSED_NOMEM, 0)
            return
        room = buf_room(b)
        n = conn_recv(loop, c, b.base + b.end, room)
        if n <= 0:
            err = errno
            if n == -1 and err == EINTR:
                continue
            if n == -1 and err == EAGAIN:
                conn_dry(loop, c)
                return
            if n == 0 and c.phase == PHASE_TUNNEL:
                tunnel_ended(loop, c)
                return
            conn_lost(loop, c, CLOSED_PEER if n == 0 else CLOSED_RESET, 0 if n == 0 else err)
            return
        b.end += <uint32_t>n
        c.last_rx = loop.now
        budget -= <size_t>n if <size_t>n < budget else budget
        if c.flags & FL_TLS_MORE:
            c.flags &= ~<uint32_t>FL_TLS_MORE
            budget = 0                                # there may be more, but it has had its share
        elif <size_t>n < room and not c.flags & FL_EOF_HINT:
            c.flags &= ~<uint32_t>FL_RD_READY
        conn_input(loop, c, b)
        if c.gen != gen or c.fd < 0:
            return
        conn_keep(loop, c, b)
        if c.gen != gen or c.fd < 0:
            return


cdef void conn_broken(loop_t *loop, conn_t *c) noexcept nogil:
    """A send failed. What the peer said before it ended still counts: its GOODBYE or ABORT is the true reason."""
    cdef uint32_t gen = c.gen
    cdef int i
    if c.phase == PHASE_TUNNEL and c.side == SIDE_BACK:
        tunnel_hung(loop, c)
        return
    if c.phase == PHASE_JOIN or c.phase == PHASE_LINKED:
        conn_latch(c, CLOSED_RESET, c.err)
        buf_free(loop, &c.tx)
        c.flags |= FL_RD_READY | FL_EOF_HINT
        for i in range(BROKEN_READS_MAX):
            if c.flags & FL_STOPPED:
                break
            conn_read(loop, c)
            if c.gen != gen or c.fd < 0:
                return
    conn_lost(loop, c, CLOSED_RESET, c.err)


cdef void conn_run(loop_t *loop, conn_t *c) noexcept nogil:
    """Whatever there is to do for a connection: flush, finish closing, read."""
    cdef uint32_t gen = c.gen
    if c.phase < PHASE_SNIFF:
        conn_begin(loop, c)
        return
    if buf_len(&c.tx) and not c.flags & FL_WR_BLOCKED:
        if conn_flush(loop, c) < 0:
            conn_broken(loop, c)
            return
    if c.phase == PHASE_CLOSING and buf_len(&c.tx) == 0:
        if not c.flags & FL_CLOSE_SENT or c.flags & FL_CLOSE_SEEN:
            conn_shut(loop, c)
            if c.gen != gen or c.fd < 0:
                return
    if c.flags & FL_ENDING and buf_len(&c.tx) == 0:
        tunnel_shut(loop, c)
        if c.gen != gen or c.fd < 0:
            return
    conn_read(loop, c)


cdef inline bint conn_is_patient(const conn_t *c, uint32_t events) noexcept nogil:
    """Does the end of a paused connection wait until the control plane has answered?

    An HTTP client may end its side after the request and still read the answer. A router that is linked in a moment may
    have said why it ends. Behind a message that was refused others may wait, and the GOODBYE.
    """
    if c.phase <= PHASE_WAIT:
        return not events & (<uint32_t>EPOLLHUP | <uint32_t>EPOLLERR)
    if c.phase == PHASE_LINKED and c.flags & FL_REFUSED:
        return not events & <uint32_t>EPOLLERR
    if c.side != SIDE_BACK or c.phase != PHASE_JOIN or c.flags & FL_LINKED_BACK:
        return False
    return not events & <uint32_t>EPOLLERR


cdef void conn_event(loop_t *loop, conn_t *c, uint32_t events) noexcept nogil:
    """One readiness event of a connection."""
    cdef int err
    if c.phase == PHASE_CONNECT:
        if not c.flags & FL_CONNECT_RETRY and events & (<uint32_t>EPOLLOUT | <uint32_t>EPOLLERR | <uint32_t>EPOLLHUP):
            conn_connected(loop, c)
        return
    if events & (<uint32_t>EPOLLRDHUP | <uint32_t>EPOLLHUP | <uint32_t>EPOLLERR):
        c.flags |= FL_EOF_HINT | FL_RD_READY
        if c.flags & FL_PAUSED and not conn_is_patient(c, events):
            # Nothing will be read before the control plane has decided, and there is nobody left to decide for.
            err = conn_error(c) if events & <uint32_t>EPOLLERR else 0
            conn_lost(loop, c, CLOSED_RESET if err else CLOSED_PEER, err)
            return
    if events & <uint32_t>EPOLLIN:
        c.flags |= FL_RD_READY
    if events & <uint32_t>EPOLLHUP and c.phase == PHASE_TUNNEL and c.side == SIDE_BACK:
        c.flags |= FL_HUNG
    if c.phase == PHASE_TUNNEL and c.flags & FL_NO_READ and events & (<uint32_t>EPOLLHUP | <uint32_t>EPOLLERR):
        conn_lost(loop, c, CLOSED_PEER, 0)            # it had said no more already, and now it takes no more
        return
    if events & <uint32_t>EPOLLOUT and c.flags & FL_WR_BLOCKED:
        if c.phase < PHASE_SNIFF:
            conn_unblock(loop, c)
            c.flags |= FL_RD_READY
            conn_begin(loop, c)
            return
        if c.ssl != NULL:
            c.flags |= FL_RD_READY                    # it may be TLS itself that wanted to write before it reads on
        if conn_flush(loop, c) < 0:
            conn_broken(loop, c)
            return
    conn_run(loop, c)


# --- turns -----------------------------------------------------------------------------------------------------------

cdef void loop_ready(loop_t *loop) noexcept nogil:
    """Run the connections that were ready when this pass began; those that become ready meanwhile wait for the next."""
    cdef uint32_t at = loop.ready_first
    cdef conn_t *c
    loop.ready_first = 0
    loop.ready_last = 0
    while at:
        c = conn_at(loop, at - 1)
        at = c.ready_next
        c.ready_next = 0
        c.flags &= ~<uint32_t>FL_READY
        if c.fd == -2:
            pool_give(loop, c)
        else:
            conn_run(loop, c)


cdef inline bint conn_is_late(const conn_t *c, uint32_t events) noexcept nogil:
    """May an event wait? All may but those of sessions that go on.

    When thousands come or go at once, each of them takes system calls, and whoever has a session would wait for all.
    """
    cdef uint32_t ends = <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLHUP | <uint32_t>EPOLLERR
    return c.phase != PHASE_LINKED or events & ends


cdef bint loop_put_off(loop_t *loop, conn_t *c, uint32_t events) noexcept nogil:
    """Put a connection into the late list, if it may wait and this turn has seen enough of its kind."""
    if c.late_events:
        c.late_events |= events
        return True
    if c.flags & FL_READY or not conn_is_late(c, events):
        return False
    if loop.late_budget and not loop.late_first:
        loop.late_budget -= 1
        return False
    c.flags |= FL_READY
    c.late_events = events
    c.ready_next = 0
    if loop.late_last:
        conn_at(loop, loop.late_last - 1).ready_next = c.slot + 1
    else:
        loop.late_first = c.slot + 1
    loop.late_last = c.slot + 1
    return True


cdef void loop_late(loop_t *loop, uint32_t burst) noexcept nogil:
    """Look at some of the connections that have to wait, in the order they came."""
    cdef conn_t *c
    cdef uint32_t events
    while loop.late_first and burst:
        c = conn_at(loop, loop.late_first - 1)
        loop.late_first = c.ready_next
        if loop.late_first == 0:
            loop.late_last = 0
        events = c.late_events
        c.late_events = 0
        c.ready_next = 0
        c.flags &= ~<uint32_t>FL_READY
        if c.fd == -2:
            pool_give(loop, c)
            continue
        burst -= 1
        conn_event(loop, c, events)


cdef void conn_timer(loop_t *loop, conn_t *c) noexcept nogil:
    """The connection's timer fired: see which deadline it was, if any."""
    cdef uint32_t gen = c.gen
    if c.deadline and c.deadline <= loop.now and c.flags & FL_AWAITED and c.phase == PHASE_LINKED:
        link_retry(loop, c, loop.now < c.wait_until)
    elif c.deadline and c.deadline <= loop.now:
        c.deadline = 0
        if c.phase == PHASE_HEAD and not c.flags & FL_PAUSED and c.side == SIDE_FRONT:
            c.flags |= FL_PAUSED | FL_NO_READ
            conn_deadline(loop, c, c.params.close_ms if c.params.close_ms else ORPHAN_MS)
            event_note(loop, EV_VIOLATION, c, ST_DEADLINE)
        else:
            conn_latch(c, CLOSED_DEADLINE, 0)
            conn_destroy(loop, c)
    elif c.stall_at and c.stall_at <= loop.now:
        conn_latch(c, CLOSED_STALL, 0)
        conn_destroy(loop, c)
    elif c.ping_at and c.ping_at <= loop.now:
        if c.flags & FL_CONNECT_RETRY:
            conn_connect(loop, c)
        else:
            conn_ping(loop, c)
    if c.gen == gen and c.fd >= 0:
        timer_arm(loop, c)


cdef void loop_timers(loop_t *loop) noexcept nogil:
    """Work off all ticks that have passed."""
    cdef uint64_t now_tick = loop.now // TIMER_TICK_MS
    cdef uint64_t tick
    cdef uint32_t at
    cdef conn_t *c
    if loop.accept_due and loop.accept_due <= loop.now:
        listen_retry(loop)
    if loop.timer_count == 0 or (loop.timer_hint and loop.timer_hint > now_tick):
        loop.timer_tick = now_tick
        return
    tick = loop.timer_tick
    if now_tick > tick + TIMER_SLOTS:
        tick = now_tick - TIMER_SLOTS
    while tick < now_tick:
        tick += 1
        loop.timer_tick = tick
        while True:
            at = loop.timers[tick % TIMER_SLOTS]
            while at and conn_at(loop, at - 1).due > loop.now:
                at = conn_at(loop, at - 1).timer_next  # a later turn of the wheel
            if at == 0:
                break
            c = conn_at(loop, at - 1)
            timer_clear(loop, c)
            conn_timer(loop, c)
    timer_hint_find(loop)


cdef void loop_events(loop_t *loop, const epoll_event *events, int n) noexcept nogil:
    cdef int i
    cdef uint32_t slot, gen
    cdef uint64_t count
    cdef conn_t *c
    for i in range(n):
        slot = <uint32_t>events[i].data.u64
        gen = <uint32_t>(events[i].data.u64 >> 32)
        if gen == 0:
            if slot == TAG_WAKE:
                read(loop.wake_fd, &count, sizeof(count))
                if not loop.has_commands:
                    loop.has_commands = loop_commands(loop)
            else:
                listen_accept(loop, slot)
            continue
        c = conn_at(loop, slot)
        if c.gen != gen or c.fd < 0:
            loop.stats.stale_events += 1
            continue
        if not loop_put_off(loop, c, events[i].events):
            conn_event(loop, c, events[i].events)


cdef inline bint loop_is_busy(const loop_t *loop) noexcept nogil:
    """Is there more to do, whatever epoll says?"""
    return loop.ready_first or loop.late_first or loop.has_commands


cdef void loop_run(loop_t *loop) noexcept nogil:
    """Turn until told to stop."""
    cdef epoll_event events[256]  # EPOLL_BATCH
    cdef int n
    loop_clock(loop)
    loop.timer_tick = loop.now // TIMER_TICK_MS
    while not atomic_load64(&loop.stop):
        n = epoll_wait(loop.epoll_fd, events, EPOLL_BATCH, 0 if loop_is_busy(loop) else timer_wait(loop))
        loop_clock(loop)
        loop.stats.wakeups += 1
        loop.late_budget = LATE_BURST
        if loop.has_commands:
            loop.has_commands = loop_commands(loop)
        if n > 0:
            loop_events(loop, events, n)
        if loop.late_first and loop.late_budget:
            loop_late(loop, loop.late_budget)
        if loop.ready_first:
            loop_ready(loop)
            loop_ready(loop)
        loop_timers(loop)
        if loop.index == 0 and loop.now >= loop.sweep_at:
            sids_sweep(&loop.relay.sids, loop.now)
            loop.sweep_at = loop.now + SID_SWEEP_MS


cdef void loop_close_all(loop_t *loop) noexcept nogil:
    """End every connection at once."""
    cdef uint32_t slot
    cdef conn_t *c
    for slot in range(loop.chunk_count * CHUNK_SLOTS):
        c = conn_at(loop, slot)
        if c.fd >= 0:
            conn_latch(c, CLOSED_LOCAL, 0)
            conn_destroy(loop, c)
    loop_ready(loop)
    while loop.late_first:
        loop_late(loop, LATE_BURST)


cdef int loop_init(loop_t *loop, relay_t *relay, uint32_t index) noexcept nogil:
    """ST_OK; ST_NOMEM or ST_IO leave something that loop_free can take."""
    cdef epoll_event ev
    loop.index = index
    loop.relay = relay
    loop.zips.octets = &loop.stats.zip_octets
    loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    loop.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if loop.epoll_fd == -1 or loop.wake_fd == -1:
        return ST_IO
    ev.events = EPOLLIN
    ev.data.u64 = TAG_WAKE
    if epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, loop.wake_fd, &ev) == -1:
        return ST_IO
    if ring_init(&loop.commands, COMMAND_RING_SIZE, loop.wake_fd) < 0:
        return ST_NOMEM
    if ring_init(&loop.events, EVENT_RING_SIZE, relay.event_fd) < 0:
        return ST_NOMEM
    return buf_reserve(loop, &loop.scratch, SCRATCH_SIZE - BUF_HEADROOM)


cdef void loop_free(loop_t *loop) noexcept nogil:
    cdef entry_t e
    while loop.commands.entries != NULL and ring_pop(&loop.commands, &e):
        if e.kind == CMD_ADOPT or e.kind == CMD_TUNNEL:
            close(<int>e.arg)
        if e.data != NULL:
            mem_free(e.data)
    ring_free(&loop.commands)
    ring_free(&loop.events)
    buf_free(loop, &loop.scratch)
    sink_free(&loop.inflated)
    sink_free(&loop.rewritten)
    sink_free(&loop.translated)
    sink_free(&loop.batch)
    sink_free(&loop.wrapped)
    sink_free(&loop.deflated)
    sink_free(&loop.intro)
    buf_pool_free(loop)
    pool_free(loop)
    zips_free(&loop.zips)
    if loop.epoll_fd > 0:
        close(loop.epoll_fd)
    if loop.wake_fd > 0:
        close(loop.wake_fd)
