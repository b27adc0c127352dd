# listen.pxi - accepting: listeners shared by all loops, hand-over, pauses. Part of proxy._relay (see src/_relay.pyx).
#
# Every loop waits for every listener (EPOLLEXCLUSIVE wakes one of them) and gives what it accepts to the loop with the
# fewest connections. A listener that cannot be served now is left out of epoll for a while instead of waking us for
# nothing.

cdef void listen_adopt(loop_t *loop, int fd, listener_t *listener, const uint8_t *address, size_t n) noexcept nogil:
    """Make an accepted socket a connection of this loop; the address (n octets) stands for its peer's, if given."""
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
    if n and conn_set_address(c, address, n) < 0:
        conn_destroy(loop, c)
        return
    if c.params.proxy_count and proxy_is_expected(c):
        c.phase = PHASE_PROXY
    elif c.params.tls != NULL:
        c.phase = PHASE_TLS
        if tls_open(loop, c) < 0:
            loop.stats.tls_failed += 1
            conn_destroy(loop, c)
            return
    if conn_watch(loop, c, EPOLL_CTL_ADD, 0) == -1:
        conn_destroy(loop, c)
        return
    conn_deadline(loop, c, c.params.handshake_ms)


cdef loop_t *listen_lightest(loop_t *loop) noexcept nogil:
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


cdef void listen_event(loop_t *loop, listener_t *listener, int state, int err) noexcept nogil:
    cdef entry_t e
    memset(&e, 0, sizeof(e))
    e.kind = EV_LISTEN
    e.owner = listener.id
    e.arg = state | (<int64_t>err << 8)
    ring_push(&loop.events, &e)


cdef int listen_watch(loop_t *loop, uint32_t index, bint on) noexcept nogil:
    cdef epoll_event ev
    cdef listener_t *listener = &loop.relay.listeners[index]
    if on == loop.listening[index]:
        return 0
    loop.listening[index] = on
    ev.events = <uint32_t>EPOLLIN | EPOLLEXCLUSIVE
    ev.data.u64 = index
    return epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD if on else EPOLL_CTL_DEL, listener.fd, &ev)


cdef void listen_pause(loop_t *loop, uint32_t index) noexcept nogil:
    """Leave the listener alone for a while, instead of being woken for what cannot be accepted."""
    listen_watch(loop, index, False)
    loop.accept_at[index] = loop.now + ACCEPT_RETRY_MS
    if loop.accept_due == 0 or loop.accept_at[index] < loop.accept_due:
        loop.accept_due = loop.accept_at[index]


cdef void listen_retry(loop_t *loop) noexcept nogil:
    cdef uint32_t i
    loop.accept_due = 0
    for i in range(LISTENERS_MAX):
        if loop.accept_at[i] == 0:
            continue
        if loop.accept_at[i] <= loop.now:
            loop.accept_at[i] = 0
            if listen_watch(loop, i, True) == -1:
                loop.listening[i] = False
                loop.accept_at[i] = loop.now + ACCEPT_RETRY_MS
        if loop.accept_at[i] == 0:
            continue
        if loop.accept_due == 0 or loop.accept_at[i] < loop.accept_due:
            loop.accept_due = loop.accept_at[i]


cdef void listen_refuse(loop_t *loop, listener_t *listener, int fd) noexcept nogil:
    """max_connections is reached: RawSocket has an error octet for it (4), a WebSocket client is just cut off."""
    cdef uint8_t octets[RS_HEADER_LEN]
    cdef uint64_t last = atomic_load64(&listener.full_event_ms)
    atomic_sub64(&listener.count, 1)
    if listener.params.kind == CODEC_RS and listener.params.tls == NULL:
        rs_error_put(octets, 4)
        send(fd, octets, RS_HEADER_LEN, MSG_DONTWAIT | MSG_NOSIGNAL)
    close(fd)
    loop.stats.refused_full += 1
    if last == 0 or loop.now >= last + LISTEN_FULL_EVENT_MS:
        atomic_store64(&listener.full_event_ms, loop.now)
        listen_event(loop, listener, LISTEN_FULL, 0)


cdef int listen_accept_one(loop_t *loop, uint32_t index) noexcept nogil:
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
        if err != EINTR and err != ECONNABORTED and err != EPROTO and err != EPERM:
            loop.stats.accept_errors += 1
            listen_pause(loop, index)
            if not loop.accept_told[index]:
                loop.accept_told[index] = True
                listen_event(loop, listener, LISTEN_PAUSED, err)
            return ST_MORE
        return ST_OK                                  # that connection is gone already, or a firewall forbids it
    loop.stats.accepted += 1
    if loop.accept_told[index]:
        loop.accept_told[index] = False
        listen_event(loop, listener, LISTEN_RESUMED, 0)
    if atomic_add64(&listener.count, 1) > listener.max_connections and listener.max_connections:
        listen_refuse(loop, listener, fd)
        return ST_OK
    target = listen_lightest(loop)
    if target != loop:
        memset(&e, 0, sizeof(e))
        e.kind = CMD_ADOPT
        e.owner = index
        e.arg = fd
        if ring_push(&target.commands, &e) > 0:
            atomic_add64(&target.load, 1)             # counts already, so that a burst spreads
            return ST_OK
    listen_adopt(loop, fd, listener, NULL, 0)
    return ST_OK


cdef void listen_accept(loop_t *loop, uint32_t index) noexcept nogil:
    cdef uint32_t i
    if not loop.listening[index]:
        return
    if atomic_load64(&loop.events.overflow):
        listen_pause(loop, index)                # the control plane is behind: no new work for it
        return
    for i in range(ACCEPT_BURST):
        if listen_accept_one(loop, index) <= 0:
            return
