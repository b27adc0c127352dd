# pool.pxi - slots for connections, their numbers and generations, free list and census.
# Part of proxy._relay (see src/_relay.pyx).
#
# A connection's public number is loop << 56 | slot << 32 | generation. The generation of a slot counts up at every
# release, so a number is never used twice (2^32 lives of one slot aside) and a late command or event finds nobody.

cdef inline uint64_t conn_id(const loop_t *loop, const conn_t *c) noexcept nogil:
    return (<uint64_t>loop.index << 56) | (<uint64_t>c.slot << 32) | c.gen


cdef inline conn_t *conn_at(loop_t *loop, uint32_t slot) noexcept nogil:
    return &loop.chunks[slot // CHUNK_SLOTS].conns[slot % CHUNK_SLOTS]


cdef inline conn_t *conn_peer(loop_t *loop, const conn_t *c) noexcept nogil:
    """The other end, or NULL."""
    if c.peer == 0:
        return NULL
    return conn_at(loop, c.peer - 1)


cdef conn_t *conn_find(loop_t *loop, uint64_t number) noexcept nogil:
    """The living connection of this number, or NULL. Those whose end was told already count as gone."""
    cdef uint32_t slot = <uint32_t>((number >> 32) & 0xFFFFFF)
    cdef conn_t *c
    if number >> 56 != loop.index or slot >= loop.chunk_count * CHUNK_SLOTS:
        return NULL
    c = conn_at(loop, slot)
    if c.fd < 0 or c.gen != <uint32_t>number or c.flags & FL_REPORTED:
        return NULL
    return c


cdef int pool_grow(loop_t *loop) noexcept nogil:
    """Add one chunk of free slots."""
    cdef chunk_t *chunk
    cdef uint32_t i
    cdef uint32_t base = loop.chunk_count * CHUNK_SLOTS
    if loop.chunk_count >= CHUNKS_MAX:
        return ST_NOMEM
    chunk = <chunk_t *>mem_zalloc(sizeof(chunk_t))
    if chunk == NULL:
        return ST_NOMEM
    loop.chunks[loop.chunk_count] = chunk
    loop.chunk_count += 1
    for i in range(CHUNK_SLOTS):
        chunk.conns[i].fd = -1
        chunk.conns[i].slot = base + i
        chunk.conns[i].gen = 1
        chunk.conns[i].ready_next = base + i + 2 if i + 1 < CHUNK_SLOTS else loop.free_slot
    loop.free_slot = base + 1
    return ST_OK


cdef conn_t *pool_take(loop_t *loop, int fd) noexcept nogil:
    """A zeroed connection for `fd`, or NULL when memory or slots are out."""
    cdef conn_t *c
    cdef uint32_t slot, gen
    if loop.free_slot == 0 and pool_grow(loop) < 0:
        return NULL
    c = conn_at(loop, loop.free_slot - 1)
    loop.free_slot = c.ready_next
    slot = c.slot
    gen = c.gen
    memset(c, 0, sizeof(conn_t))
    c.slot = slot
    c.gen = gen
    c.fd = fd
    loop.stats.connections += 1
    atomic_add64(&loop.load, 1)
    return c


cdef void pool_give(loop_t *loop, conn_t *c) noexcept nogil:
    """Release a slot; its number is dead from now on."""
    cdef uint32_t slot = c.slot
    cdef uint32_t gen = c.gen + 1
    relay_assert(c.rx.base == NULL and c.tx.base == NULL and c.hold.base == NULL and c.due == 0)
    relay_assert(c.plain.base == NULL and c.zip == NULL and c.notes == NULL)
    mem_poison(c, sizeof(conn_t))
    c.fd = -1
    c.slot = slot
    c.gen = gen if gen != 0 else 1
    c.flags = 0
    c.phase = PHASE_FREE
    c.ready_next = loop.free_slot
    loop.free_slot = slot + 1
    loop.stats.connections -= 1
    atomic_sub64(&loop.load, 1)


cdef void pool_free(loop_t *loop) noexcept nogil:
    cdef uint32_t i
    for i in range(loop.chunk_count):
        mem_free(loop.chunks[i])
        loop.chunks[i] = NULL
    loop.chunk_count = 0
    loop.free_slot = 0
