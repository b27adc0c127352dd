# tunnel.pxi - a client and a socket of the control plane that relay raw octets to each other, for whatever is not WAMP.
# Part of proxy._relay (see src/_relay.pyx).
#
# Each end that says no more is passed on as such: the other's queue is flushed, then its end is shut down. When both
# have ended, or one is gone, both are closed. What the control plane said before it closed its end is sent first.

cdef void tunnel_input(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """Send what b holds to the other end, or queue it there."""
    cdef conn_t *to = conn_peer(loop, c)
    cdef ssize_t n = 0
    cdef iovec iov
    if to == NULL or to.flags & FL_HUNG:
        buf_consume(loop, b, buf_len(b))              # nobody is there to read it
        return
    if buf_len(&to.tx) == 0:
        iov.iov_base = buf_ptr(b)
        iov.iov_len = buf_len(b)
        n = conn_send(loop, to, &iov, 1)
        if n < 0:
            if to.side == SIDE_BACK:
                tunnel_hung(loop, to)
            else:
                conn_lost(loop, to, CLOSED_RESET, to.err)
            return
        if <size_t>n < buf_len(b):
            conn_blocked(loop, to)
    if <size_t>n < buf_len(b) and buf_append(loop, &to.tx, buf_ptr(b) + n, buf_len(b) - n) < 0:
        conn_lost(loop, to, CLOSED_NOMEM, 0)
        return
    if c.side == SIDE_FRONT:
        loop.stats.octets_to_back += buf_len(b)
    else:
        loop.stats.octets_to_front += buf_len(b)
    buf_consume(loop, b, buf_len(b))
    link_press(loop, c, to)


cdef void tunnel_hung(loop_t *loop, conn_t *c) noexcept nogil:
    """The control plane's socket takes no more. What was written to it before still has to be read and sent."""
    if c.flags & FL_NO_READ:
        conn_lost(loop, c, CLOSED_PEER, 0)
        return
    buf_free(loop, &c.tx)
    c.stall_at = 0
    c.flags &= ~<uint32_t>(FL_WR_BLOCKED | FL_ENDING)
    c.flags |= FL_HUNG | FL_RD_READY | FL_EOF_HINT
    conn_ready(loop, c)


cdef void tunnel_ended(loop_t *loop, conn_t *c) noexcept nogil:
    """The peer of c says no more."""
    cdef conn_t *to = conn_peer(loop, c)
    c.flags |= FL_NO_READ
    if to == NULL or to.flags & FL_NO_READ or c.flags & FL_HUNG:
        conn_latch(c, CLOSED_PEER, 0)
        conn_report(loop, c, NULL, 0)                 # parts them, and so closes the other one
        conn_close(loop, c, 0, NULL, 0)
        return
    to.flags |= FL_ENDING
    conn_ready(loop, to)


cdef void tunnel_shut(loop_t *loop, conn_t *c) noexcept nogil:
    """All is sent that the other end had: pass on that it has ended."""
    if tls_end(c) == ST_MORE:
        conn_blocked(loop, c)
        return
    c.flags &= ~<uint32_t>FL_ENDING
    if shutdown(c.fd, SHUT_WR) == -1:
        conn_lost(loop, c, CLOSED_RESET, errno)
