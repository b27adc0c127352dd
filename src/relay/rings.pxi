# rings.pxi - bounded rings between the planes. Part of proxy._relay (see src/_relay.pyx).
#
# Both directions use one structure under one mutex; it is held for a copy of an entry, never across a system call.
# The hot path of relayed messages never comes here. When the ring is full, entries go to a list behind it, so that
# nothing is dropped and nobody blocks; the list is bounded by the number of connections, because every event but the
# last one of a connection stops reading from it until the control plane answers, and while the list is not empty its
# loop does not accept.

cdef int ring_init(ring_t *r, uint32_t size, int wake_fd) noexcept nogil:
    memset(r, 0, sizeof(ring_t))
    r.entries = <entry_t *>mem_zalloc(size * sizeof(entry_t))
    if r.entries == NULL:
        return ST_NOMEM
    r.size = size
    r.wake_fd = wake_fd
    pthread_mutex_init(&r.mutex, NULL)
    return ST_OK


cdef int ring_push(ring_t *r, const entry_t *e) noexcept nogil:
    """Add an entry, waking the consumer when it may sleep. ST_OK, or ST_NOMEM (full and no memory for the list)."""
    cdef entry_node_t *node
    cdef bint wake
    cdef uint64_t one = 1
    pthread_mutex_lock(&r.mutex)
    wake = r.count == 0 and not r.held
    if r.count < r.size and r.over_first == NULL:
        r.entries[(r.head + r.count) & (r.size - 1)] = e[0]
        r.count += 1
    else:
        node = <entry_node_t *>mem_alloc(sizeof(entry_node_t))
        if node == NULL:
            pthread_mutex_unlock(&r.mutex)
            return ST_NOMEM
        node.entry = e[0]
        node.next = NULL
        if r.over_last == NULL:
            r.over_first = node
        else:
            r.over_last.next = node
        r.over_last = node
        atomic_add64(&r.overflow, 1)
    pthread_mutex_unlock(&r.mutex)
    if wake:
        write(r.wake_fd, &one, sizeof(one))
    return ST_OK


cdef bint ring_pop(ring_t *r, entry_t *e) noexcept nogil:
    """Take the oldest entry; the caller owns its data. False when empty."""
    cdef entry_node_t *node = NULL
    pthread_mutex_lock(&r.mutex)
    if r.count == 0:
        pthread_mutex_unlock(&r.mutex)
        return False
    e[0] = r.entries[r.head]
    r.head = (r.head + 1) & (r.size - 1)
    r.count -= 1
    if r.over_first != NULL:
        node = r.over_first
        r.over_first = node.next
        if r.over_first == NULL:
            r.over_last = NULL
        r.entries[(r.head + r.count) & (r.size - 1)] = node.entry
        r.count += 1
        atomic_sub64(&r.overflow, 1)
    pthread_mutex_unlock(&r.mutex)
    if node != NULL:
        mem_free(node)
    return True


cdef void ring_hold(ring_t *r) noexcept nogil:
    """From now on the consumer is not woken, until ring_let_go: one wake-up for several entries."""
    pthread_mutex_lock(&r.mutex)
    r.held = True
    pthread_mutex_unlock(&r.mutex)


cdef void ring_let_go(ring_t *r) noexcept nogil:
    """Wake the consumer for what was added meanwhile, and from now on for each."""
    cdef bint wake
    pthread_mutex_lock(&r.mutex)
    r.held = False
    wake = r.count > 0
    pthread_mutex_unlock(&r.mutex)
    if wake:
        ring_wake(r)


cdef void ring_wake(ring_t *r) noexcept nogil:
    """Wake the consumer although nothing was added."""
    cdef uint64_t one = 1
    write(r.wake_fd, &one, sizeof(one))


cdef void ring_free(ring_t *r) noexcept nogil:
    """Drop everything that nobody took."""
    cdef entry_t e
    if r.entries == NULL:
        return
    while ring_pop(r, &e):
        if e.data != NULL:
            mem_free(e.data)
    mem_free(r.entries)
    r.entries = NULL
    pthread_mutex_destroy(&r.mutex)
