# beginning.pxi - what comes before the first octet that a client or router says: connect, PROXY protocol header, TLS
# handshake. Part of proxy._relay (see src/_relay.pyx).

cdef int conn_set_address(conn_t *c, const uint8_t *p, size_t n) noexcept nogil:
    """From now on this is the client's address. ST_OK, ST_NOMEM."""
    cdef uint8_t *address
    if n > 128:
        return ST_NOMEM
    address = <uint8_t *>mem_alloc(1 + n)
    if address == NULL:
        return ST_NOMEM
    address[0] = <uint8_t>n
    memcpy(address + 1, p, n)
    if c.address != NULL:
        mem_free(c.address)
    c.address = address
    return ST_OK


cdef bint proxy_is_expected(conn_t *c) noexcept nogil:
    cdef uint8_t addr[128]
    cdef size_t n = conn_peer_address(c, addr)
    return proxy_is_listed(c.params, addr, n)


cdef void proxy_read(loop_t *loop, conn_t *c) noexcept nogil:
    """Take the header from the socket, and nothing of what follows: that may be TLS."""
    cdef uint8_t octets[4096]      # PROXY_HEADER_MAX
    cdef uint8_t addr[28]
    cdef size_t addr_len = 0
    cdef size_t taken = 0
    cdef int st
    cdef ssize_t n = recv(c.fd, octets, PROXY_HEADER_MAX, MSG_DONTWAIT | MSG_PEEK)
    loop.stats.recv_calls += 1
    while n == -1 and errno == EINTR:                 # there may be something, and no edge will tell of it again
        n = recv(c.fd, octets, PROXY_HEADER_MAX, MSG_DONTWAIT | MSG_PEEK)
    if n <= 0:
        st = errno
        c.flags &= ~<uint32_t>FL_RD_READY
        if n == -1 and st == EAGAIN:
            return
        conn_lost(loop, c, CLOSED_PEER if n == 0 else CLOSED_RESET, 0 if n == 0 else st)
        return
    st = proxy_parse(octets, n, addr, &addr_len, &taken)
    if st == ST_MORE:
        c.flags &= ~<uint32_t>FL_RD_READY
        if c.flags & FL_EOF_HINT:
            conn_lost(loop, c, CLOSED_PEER, 0)
        return
    if st < 0 or recv(c.fd, octets, taken, MSG_DONTWAIT) != <ssize_t>taken:
        loop.stats.proxy_refused += 1
        conn_latch(c, CLOSED_PROTOCOL, 0)
        conn_destroy(loop, c)
        return
    loop.stats.proxy_headers += 1
    if addr_len and conn_set_address(c, addr, addr_len) < 0:
        conn_lost(loop, c, CLOSED_NOMEM, 0)
        return
    if c.params.tls != NULL:
        tls_begin(loop, c)
    else:
        c.phase = PHASE_SNIFF
        conn_ready(loop, c)


cdef void tls_begin(loop_t *loop, conn_t *c) noexcept nogil:
    c.phase = PHASE_TLS
    if tls_open(loop, c) < 0:
        loop.stats.tls_failed += 1
        conn_lost(loop, c, CLOSED_NOMEM, 0)
        return
    tls_handshake(loop, c)


cdef void tls_refuse(loop_t *loop, conn_t *c) noexcept nogil:
    """The handshake has failed. OpenSSL's alert is sent by now; whoever speaks plain HTTP is told so in HTTP."""
    cdef unsigned long code = ERR_peek_error()
    cdef bint is_http = ERR_GET_LIB(code) == ERR_LIB_SSL and ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST
    loop.stats.tls_failed += 1
    tls_note(c)
    conn_latch(c, CLOSED_TLS, c.tls_errno)
    if c.side == SIDE_BACK or c.flags & FL_TLS_EOF or c.tls_errno:
        conn_destroy(loop, c)
        return
    conn_report(loop, c, NULL, 0)
    tls_close(loop, c)
    c.phase = PHASE_CLOSING                           # the alert must not be lost in a reset
    conn_deadline(loop, c, c.params.close_ms if c.params.close_ms else ORPHAN_MS)
    if is_http and c.params.kind == CODEC_WS:
        conn_queue(loop, c, <const uint8_t *>TLS_NEEDED, strlen(TLS_NEEDED))
    c.flags |= FL_RD_READY
    conn_ready(loop, c)


cdef void tls_handshake(loop_t *loop, conn_t *c) noexcept nogil:
    """Go on with the handshake as far as the socket lets it."""
    cdef int st
    c.flags &= ~<uint32_t>FL_TLS_DRY
    c.tls_left = TLS_READ_MAX
    ERR_clear_error()
    st = SSL_do_handshake(c.ssl)
    if st == 1:
        loop.stats.tls_handshakes += 1
        if SSL_session_reused(c.ssl):
            loop.stats.tls_resumed += 1
        if c.side == SIDE_BACK:
            conn_greet(loop, c)
        else:
            c.phase = PHASE_SNIFF
        c.flags |= FL_RD_READY                        # the first words may have come with the handshake's last
        conn_ready(loop, c)
        return
    st = SSL_get_error(c.ssl, st)
    if st == SSL_ERROR_WANT_READ:
        if c.flags & FL_TLS_DRY:
            c.flags &= ~<uint32_t>FL_RD_READY
        else:
            conn_ready(loop, c)
    elif st == SSL_ERROR_WANT_WRITE:
        c.flags |= FL_WR_BLOCKED
        if conn_watch(loop, c, EPOLL_CTL_MOD, EPOLLOUT) == -1:
            conn_lost(loop, c, CLOSED_RESET, errno)
    else:
        tls_refuse(loop, c)


cdef void conn_connect(loop_t *loop, conn_t *c) noexcept nogil:
    """Start or repeat connect(); the address waits in rx. Ends in conn_connected, a wait for EPOLLOUT, or conn_lost."""
    cdef int err
    c.flags &= ~<uint32_t>FL_CONNECT_RETRY
    c.ping_at = 0
    if connect(c.fd, <const sockaddr *>buf_ptr(&c.rx), <socklen_t>buf_len(&c.rx)) == 0:
        conn_connected(loop, c)
        return
    err = errno
    if err == EINPROGRESS or err == EINTR:
        c.flags |= FL_WR_BLOCKED
        if conn_watch(loop, c, EPOLL_CTL_MOD, EPOLLOUT) == -1:
            conn_lost(loop, c, CLOSED_RESET, errno)
    elif err == EAGAIN:
        # Unix socket with a full backlog: nothing will signal room, so ask again until the deadline.
        c.flags |= FL_CONNECT_RETRY
        c.ping_at = loop.now + CONNECT_RETRY_MS
        timer_arm(loop, c)
    else:
        conn_lost(loop, c, CLOSED_REFUSED, err)


cdef void conn_connected(loop_t *loop, conn_t *c) noexcept nogil:
    """connect() is decided: begin the handshake of a backend connection."""
    cdef int err = conn_error(c)
    if err:
        conn_lost(loop, c, CLOSED_REFUSED, err)
        return
    buf_free(loop, &c.rx)
    conn_unblock(loop, c)
    if c.params.tls == NULL:
        conn_greet(loop, c)
    else:
        tls_begin(loop, c)


cdef void conn_unblock(loop_t *loop, conn_t *c) noexcept nogil:
    if c.flags & FL_WR_BLOCKED:
        c.flags &= ~<uint32_t>FL_WR_BLOCKED
        conn_watch(loop, c, EPOLL_CTL_MOD, 0)


cdef void conn_begin(loop_t *loop, conn_t *c) noexcept nogil:
    """Whatever there is to do before the first octet."""
    if c.flags & FL_WR_BLOCKED or not c.flags & FL_RD_READY:
        return
    if c.phase == PHASE_PROXY:
        proxy_read(loop, c)
    elif c.phase == PHASE_TLS:
        tls_handshake(loop, c)


cdef extern from *:
    """
    #define TLS_NEEDED \
        "HTTP/1.1 400 Bad Request\\r\\nContent-Type: text/plain; charset=utf-8\\r\\nContent-Length: 40\\r\\n" \
        "Connection: close\\r\\n\\r\\nThis port speaks TLS: use https or wss.\\n"
    """
    const char *TLS_NEEDED
