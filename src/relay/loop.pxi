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
        if c.gen != gen or c.fd < 0 or buf_len(b) == 0 or c.flags & FL_STOPPED:
            return
        if c.phase == PHASE_LINKED:
            link_input(loop, c, b)
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


cdef void conn_read(loop_t *loop, conn_t *c) noexcept nogil:
    """Read and work off until the socket is drained, the connection stops, or its share of this turn is used up."""
    cdef size_t budget = READ_BUDGET
    cdef uint32_t gen = c.gen
    cdef buf_t *b
    cdef size_t room
    cdef ssize_t n
    cdef int err
    if c.rx.base != NULL and not c.flags & FL_STOPPED and c.phase != PHASE_CONNECT:
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
        loop.stats.recv_calls += 1
        n = recv(c.fd, b.base + b.end, room, MSG_DONTWAIT)
        if n <= 0:
            err = errno
            if n == -1 and err == EINTR:
                continue
            if n == -1 and err == EAGAIN:
                c.flags &= ~<uint32_t>FL_RD_READY
                return
            conn_lost(loop, c, CLOSED_PEER if n == 0 else CLOSED_RESET, 0 if n == 0 else err)
            return
        b.end += <uint32_t>n
        c.last_rx = loop.now
        budget -= <size_t>n if <size_t>n < budget else budget
        if <size_t>n < room and not c.flags & FL_EOF_HINT:
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
    if c.phase == PHASE_CONNECT:
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
    conn_read(loop, c)


cdef void conn_event(loop_t *loop, conn_t *c, uint32_t events) noexcept nogil:
    """One readiness event of a connection."""
    cdef int err
    if c.phase == PHASE_CONNECT:
        if not c.flags & FL_CONNECT_RETRY and events & (<uint32_t>EPOLLOUT | <uint32_t>EPOLLERR | <uint32_t>EPOLLHUP):
            conn_connected(loop, c)
        return
    if events & (<uint32_t>EPOLLRDHUP | <uint32_t>EPOLLHUP | <uint32_t>EPOLLERR):
        c.flags |= FL_EOF_HINT | FL_RD_READY
        if c.flags & FL_PAUSED:
            # Nothing will be read before the control plane has decided, and there is nobody left to decide for.
            err = conn_error(c) if events & <uint32_t>EPOLLERR else 0
            conn_lost(loop, c, CLOSED_RESET if err else CLOSED_PEER, err)
            return
    if events & <uint32_t>EPOLLIN:
        c.flags |= FL_RD_READY
    if events & <uint32_t>EPOLLOUT and c.flags & FL_WR_BLOCKED:
        if conn_flush(loop, c) < 0:
            conn_broken(loop, c)
            return
    conn_run(loop, c)


# --- accepting -------------------------------------------------------------------------------------------------------

cdef void conn_setup(conn_t *c, params_t *params) noexcept nogil:
    c.params = params
    c.codec.kind = params.kind
    c.codec.flags = params.codec_flags
    c.codec.max_frame = params.max_frame
    c.codec.max_message = params.max_message


cdef void loop_adopt(loop_t *loop, int fd, listener_t *listener) noexcept nogil:
    """Make an accepted socket a connection of this loop."""
    cdef conn_t *c = pool_take(loop, fd)
    if c == NULL:
        atomic_sub64(&listener.count, 1)
        close(fd)
        return
    c.side = SIDE_FRONT
    c.owner = listener.id
    c.listener = listener
    c.flags = FL_COUNTED
    c.phase = PHASE_SNIFF
    conn_setup(c, listener.params)
    if conn_watch(loop, c, EPOLL_CTL_ADD, 0) == -1:
        conn_destroy(loop, c)
        return
    conn_deadline(loop, c, c.params.handshake_ms)


cdef loop_t *loop_lightest(loop_t *loop) noexcept nogil:
    """The loop with the fewest connections; this one unless another is clearly lighter."""
    cdef relay_t *relay = loop.relay
    cdef loop_t *best = loop
    cdef loop_t *other
    cdef uint32_t i
    for i in range(relay.threads):
        other = <loop_t *>relay.loops[i]
        if atomic_load64(&other.load) < atomic_load64(&best.load):
            best = other
    return best


cdef void loop_listen_event(loop_t *loop, listener_t *listener, int state, int err) noexcept nogil:
    cdef entry_t e
    memset(&e, 0, sizeof(e))
    e.kind = EV_LISTEN
    e.owner = listener.id
    e.arg = state | (<int64_t>err << 8)
    ring_push(&loop.events, &e)


cdef int loop_watch_listener(loop_t *loop, uint32_t index, bint on) noexcept nogil:
    cdef epoll_event ev
    cdef listener_t *listener = &loop.relay.listeners[index]
    if on == loop.listening[index]:
        return 0
    loop.listening[index] = on
    ev.events = <uint32_t>EPOLLIN | EPOLLEXCLUSIVE
    ev.data.u64 = index
    return epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD if on else EPOLL_CTL_DEL, listener.fd, &ev)


cdef void loop_accept_pause(loop_t *loop, uint32_t index) noexcept nogil:
    """Leave the listener alone for a while, instead of being woken for what cannot be accepted."""
    loop_watch_listener(loop, index, False)
    loop.accept_at[index] = loop.now + ACCEPT_RETRY_MS
    if loop.accept_due == 0 or loop.accept_at[index] < loop.accept_due:
        loop.accept_due = loop.accept_at[index]


cdef void loop_accept_retry(loop_t *loop) noexcept nogil:
    cdef uint32_t i
    loop.accept_due = 0
    for i in range(LISTENERS_MAX):
        if loop.accept_at[i] == 0:
            continue
        if loop.accept_at[i] <= loop.now:
            loop.accept_at[i] = 0
            if loop_watch_listener(loop, i, True) == -1:
                loop.listening[i] = False
                loop.accept_at[i] = loop.now + ACCEPT_RETRY_MS
        if loop.accept_at[i] == 0:
            continue
        if loop.accept_due == 0 or loop.accept_at[i] < loop.accept_due:
            loop.accept_due = loop.accept_at[i]


cdef void loop_refuse(loop_t *loop, listener_t *listener, int fd) noexcept nogil:
    """max_connections is reached: RawSocket has an error octet for it (4), a WebSocket client is just cut off."""
    cdef uint8_t octets[RS_HEADER_LEN]
    cdef uint64_t last = atomic_load64(&listener.full_event_ms)
    atomic_sub64(&listener.count, 1)
    if listener.params.kind == CODEC_RS:
        rs_error_put(octets, 4)
        send(fd, octets, RS_HEADER_LEN, MSG_DONTWAIT | MSG_NOSIGNAL)
    close(fd)
    loop.stats.refused_full += 1
    if last == 0 or loop.now >= last + LISTEN_FULL_EVENT_MS:
        atomic_store64(&listener.full_event_ms, loop.now)
        loop_listen_event(loop, listener, LISTEN_FULL, 0)


cdef int loop_accept_one(loop_t *loop, uint32_t index) noexcept nogil:
    """> 0: there may be more; 0: none is waiting, or accepting is paused."""
    cdef listener_t *listener = &loop.relay.listeners[index]
    cdef loop_t *target
    cdef entry_t e
    cdef int err
    cdef int fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd == -1:
        err = errno
        if err == EAGAIN:
            return ST_MORE
        if err == EMFILE or err == ENFILE or err == ENOBUFS or err == ENOMEM:
            loop.stats.accept_errors += 1
            loop_accept_pause(loop, index)
            if not loop.accept_told[index]:
                loop.accept_told[index] = True
                loop_listen_event(loop, listener, LISTEN_PAUSED, err)
            return ST_MORE
        return ST_OK                                  # that connection is gone already (ECONNABORTED and the like)
    loop.stats.accepted += 1
    if loop.accept_told[index]:
        loop.accept_told[index] = False
        loop_listen_event(loop, listener, LISTEN_RESUMED, 0)
    if atomic_add64(&listener.count, 1) > listener.max_connections and listener.max_connections:
        loop_refuse(loop, listener, fd)
        return ST_OK
    target = loop_lightest(loop)
    if target != loop:
        memset(&e, 0, sizeof(e))
        e.kind = CMD_ADOPT
        e.owner = index
        e.arg = fd
        if ring_push(&target.commands, &e) > 0:
            return ST_OK
    loop_adopt(loop, fd, listener)
    return ST_OK


cdef void loop_accept(loop_t *loop, uint32_t index) noexcept nogil:
    cdef uint32_t i
    if not loop.listening[index]:
        return
    if atomic_load64(&loop.events.overflow):
        loop_accept_pause(loop, index)                # the control plane is behind: no new work for it
        return
    for i in range(ACCEPT_BURST):
        if loop_accept_one(loop, index) <= 0:
            return


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


cdef void loop_timers(loop_t *loop) noexcept nogil:
    """Work off all ticks that have passed."""
    cdef uint64_t now_tick = loop.now // TIMER_TICK_MS
    cdef uint64_t tick
    cdef uint32_t at
    cdef conn_t *c
    if loop.accept_due and loop.accept_due <= loop.now:
        loop_accept_retry(loop)
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
                loop_commands(loop)
            else:
                loop_accept(loop, slot)
            continue
        c = conn_at(loop, slot)
        if c.gen != gen or c.fd < 0:
            loop.stats.stale_events += 1
            continue
        conn_event(loop, c, events[i].events)


cdef void loop_run(loop_t *loop) noexcept nogil:
    """Turn until told to stop."""
    cdef epoll_event events[256]  # EPOLL_BATCH
    cdef int n
    loop_clock(loop)
    loop.timer_tick = loop.now // TIMER_TICK_MS
    while not atomic_load64(&loop.stop):
        n = epoll_wait(loop.epoll_fd, events, EPOLL_BATCH, 0 if loop.ready_first else timer_wait(loop))
        loop_clock(loop)
        loop.stats.wakeups += 1
        if n > 0:
            loop_events(loop, events, n)
        if loop.ready_first:
            loop_ready(loop)
            loop_ready(loop)
        loop_timers(loop)


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


cdef int loop_init(loop_t *loop, relay_t *relay, uint32_t index) noexcept nogil:
    """ST_OK; ST_NOMEM or ST_IO leave something that loop_free can take."""
    cdef epoll_event ev
    loop.index = index
    loop.relay = relay
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
        if e.kind == CMD_ADOPT:
            close(<int>e.arg)
        if e.data != NULL:
            mem_free(e.data)
    ring_free(&loop.commands)
    ring_free(&loop.events)
    buf_free(loop, &loop.scratch)
    buf_pool_free(loop)
    pool_free(loop)
    if loop.epoll_fd > 0:
        close(loop.epoll_fd)
    if loop.wake_fd > 0:
        close(loop.wake_fd)
