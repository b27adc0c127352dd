# commands.pxi - what the control plane may ask of a loop. Part of proxy._relay (see src/_relay.pyx).
#
# A command for a connection that is gone, or that is in a phase the command does not fit, does nothing: the event
# that tells of the change is already on its way.

cdef void command_dial(loop_t *loop, const entry_t *cmd) noexcept nogil:
    """Make the socket of a backend connection and start to connect it."""
    cdef conn_t *front = conn_find(loop, cmd.conn)
    cdef params_t *params = <params_t *>cmd.params
    cdef conn_t *c = NULL
    cdef int err = 0
    cdef int fd = -1
    if front != NULL and front.side != SIDE_FRONT:
        front = NULL
    if cmd.conn == 0 or (front != NULL and front.peer == 0 and front.phase == PHASE_JOIN):
        fd = socket((<const sockaddr *>cmd.data).sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        err = errno if fd == -1 else 0
    if fd != -1:
        c = pool_take(loop, fd)
    if c == NULL:
        command_dial_failed(loop, cmd, fd, err)
        return
    loop.stats.dialled += 1
    c.side = SIDE_BACK
    c.owner = cmd.owner
    c.phase = PHASE_CONNECT
    conn_setup(c, params)
    c.codec.serializer = <uint8_t>cmd.arg
    c.join_ms = <uint32_t>(cmd.arg2 >> 32)
    c.realm = <realm_t *>cmd.realm
    c.front_sid = cmd.front_sid
    if c.realm != NULL and c.front_sid:
        c.flags |= FL_JOINING
        atomic_add64(&c.realm.joining, 1)
    if front != NULL:
        c.peer = front.slot + 1
        front.peer = c.slot + 1
    command_dial_options(c, (<const sockaddr *>cmd.data).sa_family)
    if (
        buf_append(loop, &c.rx, cmd.data, cmd.length - cmd.length2 - cmd.length3) < 0
        or (cmd.length2 and buf_append(loop, &c.tx, cmd.data2, cmd.length2) < 0)
        or (cmd.length3 and buf_append(loop, &c.hold, cmd.data3, cmd.length3) < 0)
        or conn_watch(loop, c, EPOLL_CTL_ADD, 0) == -1
    ):
        conn_latch(c, CLOSED_NOMEM, 0)
        conn_destroy(loop, c)
        return
    conn_deadline(loop, c, <uint32_t>cmd.arg2)
    conn_connect(loop, c)


cdef void command_dial_options(conn_t *c, int family) noexcept nogil:
    cdef int one = 1
    if family == AF_UNIX:
        return
    if c.params.nodelay:
        setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    if c.params.keepalive:
        setsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one))
        one = 60
        setsockopt(c.fd, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof(one))
        one = 10
        setsockopt(c.fd, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof(one))
        one = 6
        setsockopt(c.fd, IPPROTO_TCP, TCP_KEEPCNT, &one, sizeof(one))


cdef void command_dial_failed(loop_t *loop, const entry_t *cmd, int fd, int err) noexcept nogil:
    """No connection came of it: say so under its token."""
    cdef entry_t e
    cdef int reason = CLOSED_FRONT_GONE
    if fd != -1:
        close(fd)
        reason = CLOSED_NOMEM
    elif err:
        reason = CLOSED_REFUSED
    memset(&e, 0, sizeof(e))
    e.kind = EV_CLOSED
    e.owner = cmd.owner
    e.arg = reason | (<int64_t>err << 8)
    ring_push(&loop.events, &e)


cdef void command_listen(loop_t *loop, uint32_t index) noexcept nogil:
    cdef listener_t *listener = &loop.relay.listeners[index]
    if listen_watch(loop, index, True) == -1:
        listen_event(loop, listener, LISTEN_PAUSED, errno)
        loop.listening[index] = False
        listen_pause(loop, index)


cdef void command_unlisten(loop_t *loop, uint32_t index) noexcept nogil:
    """Leave a listener; the last loop to do so closes it."""
    cdef listener_t *listener = &loop.relay.listeners[index]
    listen_watch(loop, index, False)
    loop.accept_at[index] = 0
    loop.accept_told[index] = False
    if atomic_sub64(&listener.loops, 1) == 0:
        close(listener.fd)
        listen_event(loop, listener, LISTEN_CLOSED, 0)
        listener.fd = -1                              # last: from now on listen() may give the entry to another


cdef int command_upgrade_extras(loop_t *loop, conn_t *c, uint64_t arg) noexcept nogil:
    """Batches and compression, as upgrade() packed them into octets of arg above the serializer's."""
    cdef int inflate_bits = <int>(arg >> 16 & 0xFF)
    cdef int deflate_bits = <int>(arg >> 32 & 0xFF)
    if arg >> 8 & 1:
        c.codec.flags |= CF_BATCHED
    if inflate_bits == 0:
        return ST_OK
    c.zip = zip_open(
        &loop.zips, inflate_bits, arg >> 24 & 1, deflate_bits, arg >> 40 & 1, <int>(arg >> 48 & 0xFF)
    )
    if c.zip == NULL:
        return ST_NOMEM
    c.codec.flags |= CF_DEFLATE
    return ST_OK


cdef inline bint command_may_link(const conn_t *front, const conn_t *back) noexcept nogil:
    """Can each read what the other says, itself or translated?"""
    if front.codec.serializer == back.codec.serializer:
        return True
    return front.codec.serializer <= SER_CBOR and SER_NONE < back.codec.serializer <= SER_CBOR


cdef void command_upgrade(loop_t *loop, conn_t *c, const entry_t *cmd) noexcept nogil:
    if c.phase != PHASE_WAIT:
        return
    if cmd.length and conn_queue(loop, c, cmd.data, cmd.length) < 0:
        conn_lost(loop, c, CLOSED_NOMEM, 0)
        return
    if cmd.params != NULL:
        conn_setup(c, <params_t *>cmd.params)
    if c.side == SIDE_FRONT:
        c.codec.serializer = <uint8_t>cmd.arg
        if command_upgrade_extras(loop, c, <uint64_t>cmd.arg) < 0:
            conn_lost(loop, c, CLOSED_NOMEM, 0)
            return
    conn_begin_join(loop, c, c.params.hello_ms if c.side == SIDE_FRONT else c.join_ms)
    if c.codec.serializer == SER_NONE:
        c.flags |= FL_PAUSED                          # an echo has no JOIN messages: wait for link_self


cdef void command_tunnel(loop_t *loop, const entry_t *cmd) noexcept nogil:
    """Join a client with a socket of the control plane; the descriptor is ours in any case."""
    cdef conn_t *front = conn_find(loop, cmd.conn)
    cdef conn_t *c
    if front == NULL or front.side != SIDE_FRONT or front.phase != PHASE_WAIT or front.peer:
        close(<int>cmd.arg)
        return
    c = pool_take(loop, <int>cmd.arg)
    if c == NULL:
        close(<int>cmd.arg)
        conn_lost(loop, front, CLOSED_NOMEM, 0)
        return
    c.side = SIDE_BACK
    c.flags = FL_SILENT
    c.phase = PHASE_TUNNEL
    conn_setup(c, front.params)
    c.peer = front.slot + 1
    front.peer = c.slot + 1
    if conn_watch(loop, c, EPOLL_CTL_ADD, 0) == -1:
        conn_lost(loop, front, CLOSED_NOMEM, 0)
        return
    loop.stats.tunnels += 1
    front.phase = PHASE_TUNNEL
    front.flags &= ~<uint32_t>FL_PAUSED
    front.flags |= FL_RD_READY
    conn_deadline(loop, front, 0)
    conn_ready(loop, front)


cdef void command_link(loop_t *loop, conn_t *front, const entry_t *cmd) noexcept nogil:
    cdef conn_t *back = conn_find(loop, cmd.owner)
    if front.phase != PHASE_JOIN or front.side != SIDE_FRONT or front.codec.serializer == SER_NONE:
        return
    if back != NULL and ((front.peer and front.peer != back.slot + 1) or (back.peer and back.peer != front.slot + 1)):
        return                                        # one of them belongs to somebody else
    if back != NULL and (back.side != SIDE_BACK or not command_may_link(front, back)):
        return                                        # the gate would read other messages than the receiver does
    # Sent even when the router is lost by now: the control plane takes the session for established and will end it.
    if cmd.length and conn_put_message(loop, front, conn_opcode(front), cmd.data, cmd.length) < 0:
        conn_lost(loop, front, CLOSED_NOMEM, 0)
        return
    if back != NULL and back.phase == PHASE_JOIN:
        link_join(loop, front, back)


cdef void command_restrain(loop_t *loop, conn_t *c) noexcept nogil:
    """A message of c was refused and answered. Such answers, to c or to its peer, must not pile up: while they are not
    fetched, c is not read from.
    """
    cdef conn_t *peer = conn_peer(loop, c)
    if buf_len(&c.tx) > c.params.high_water:
        c.flags |= FL_FLOODED
    if peer != NULL and peer != c and buf_len(&peer.tx) > peer.params.high_water:
        c.flags |= FL_PRESSED
        loop.stats.presses += 1


cdef void command_next(loop_t *loop, conn_t *c, int64_t ms) noexcept nogil:
    if c.phase < PHASE_JOIN or c.phase > PHASE_LINKED or c.flags & FL_NO_READ:
        return
    c.flags &= ~<uint32_t>(FL_PAUSED | FL_REFUSED)
    if c.phase == PHASE_JOIN:
        conn_deadline(loop, c, c.params.hello_ms if ms < 0 else <uint32_t>ms)
    else:
        command_restrain(loop, c)
    conn_ready(loop, c)
    if c.flags & FL_EOF_HINT:
        c.flags |= FL_RD_READY


cdef void command_conn(loop_t *loop, conn_t *c, const entry_t *cmd) noexcept nogil:
    """A command for one living connection."""
    if cmd.kind == CMD_UPGRADE:
        command_upgrade(loop, c, cmd)
    elif cmd.kind == CMD_REPLY:
        if c.side == SIDE_FRONT and c.phase < PHASE_JOIN:  # later, HTTP would land among frames
            conn_queue(loop, c, cmd.data, cmd.length)
            conn_close(loop, c, 0, NULL, 0)
    elif cmd.kind == CMD_SEND:
        if c.phase == PHASE_JOIN or c.phase == PHASE_LINKED:
            if conn_put_message(loop, c, conn_opcode(c), cmd.data, cmd.length) < 0:
                conn_lost(loop, c, CLOSED_NOMEM, 0)
            elif c.phase == PHASE_JOIN and buf_len(&c.tx) > c.params.high_water:
                c.flags |= FL_FLOODED                 # it asks and does not read: answers must not pile up
    elif cmd.kind == CMD_NEXT:
        command_next(loop, c, cmd.arg)
    elif cmd.kind == CMD_UNDIAL:
        if c.side == SIDE_FRONT and c.peer and c.phase != PHASE_LINKED:
            conn_latch(conn_peer(loop, c), CLOSED_LOCAL, 0)
            conn_destroy(loop, conn_peer(loop, c))
    elif cmd.kind == CMD_LINK:
        command_link(loop, c, cmd)
    elif cmd.kind == CMD_LINK_SELF:
        if c.phase == PHASE_JOIN and c.peer == 0 and (c.side == SIDE_FRONT or c.codec.serializer == SER_NONE):
            link_join(loop, c, c)
    elif cmd.kind == CMD_UNLINK:
        link_part(loop, c)
    elif cmd.kind == CMD_SWALLOW:
        if c.side == SIDE_FRONT and c.phase == PHASE_LINKED:
            notes_add(&c.notes, <uint8_t>cmd.arg, cmd.owner, 0)
    elif cmd.kind == CMD_CLOSE:
        conn_close(loop, c, <uint16_t>cmd.arg, cmd.data, cmd.length)
    elif cmd.kind == CMD_ABORT:
        conn_latch(c, CLOSED_LOCAL, 0)
        conn_destroy(loop, c)


cdef bint loop_commands(loop_t *loop) noexcept nogil:
    """Do what the control plane asked for, or some of it. Is there more?"""
    cdef entry_t cmd
    cdef conn_t *c
    cdef int i
    for i in range(COMMAND_BURST):
        if not ring_pop(&loop.commands, &cmd):
            return False
        if cmd.kind == CMD_LISTEN:
            command_listen(loop, <uint32_t>cmd.owner)
        elif cmd.kind == CMD_UNLISTEN:
            command_unlisten(loop, <uint32_t>cmd.owner)
        elif cmd.kind == CMD_ADOPT:
            atomic_sub64(&loop.load, 1)               # counted when it was handed over
            listen_adopt(loop, <int>cmd.arg, &loop.relay.listeners[<uint32_t>cmd.owner], cmd.data, cmd.length)
        elif cmd.kind == CMD_TUNNEL:
            command_tunnel(loop, &cmd)
        elif cmd.kind == CMD_DIAL:
            command_dial(loop, &cmd)
        else:
            c = conn_find(loop, cmd.conn)
            if c != NULL:
                command_conn(loop, c, &cmd)
        if cmd.data != NULL:
            mem_free(cmd.data)
    return True
