# buf.pxi - linear buffers with headroom, and the loop's pool of them. Part of proxy._relay (see src/_relay.pyx).
#
# A buffer is empty (all-zero) or owns `base`. Data is base[start:end]. Consuming moves `start`; room at the end is
# made by sliding the data down to BUF_HEADROOM or by growing to the next size class. Sizes are powers of two, so
# freed buffers fit each other's needs and the pool needs no search.

cdef inline size_t buf_len(const buf_t *b) noexcept nogil:
    return b.end - b.start


cdef inline uint8_t *buf_ptr(const buf_t *b) noexcept nogil:
    return b.base + b.start


cdef inline size_t buf_room(const buf_t *b) noexcept nogil:
    return b.cap - b.end


cdef inline uint32_t buf_class(size_t n) noexcept nogil:
    """Exponent of the smallest power of two that holds n octets, at least BUF_CLASS_MIN."""
    cdef uint32_t k = BUF_CLASS_MIN
    while (<size_t>1 << k) < n:
        k += 1
    return k


cdef uint8_t *buf_take(loop_t *loop, uint32_t k) noexcept nogil:
    """Memory of class k from the pool or the system; NULL when there is none."""
    cdef free_buf_t *b
    cdef uint8_t *base
    if k <= BUF_CLASS_MAX and loop.free_bufs[k] != NULL:
        b = loop.free_bufs[k]
        loop.free_bufs[k] = b.next
        loop.stats.pooled_octets -= <uint64_t>1 << k
        base = <uint8_t *>b
    else:
        base = <uint8_t *>mem_alloc(<size_t>1 << k)
        if base == NULL:
            return NULL
    loop.stats.buffers += 1
    loop.stats.buffered_octets += <uint64_t>1 << k
    return base


cdef void buf_give(loop_t *loop, uint8_t *base, uint32_t cap) noexcept nogil:
    """Return memory of `cap` octets (a power of two) to the pool, or to the system when the pool is full."""
    cdef uint32_t k = buf_class(cap)
    cdef free_buf_t *b
    loop.stats.buffers -= 1
    loop.stats.buffered_octets -= cap
    mem_poison(base, cap)
    if k > BUF_CLASS_MAX or loop.stats.pooled_octets + cap > POOL_BYTES_MAX:
        mem_free(base)
        return
    b = <free_buf_t *>base
    b.next = loop.free_bufs[k]
    loop.free_bufs[k] = b
    loop.stats.pooled_octets += cap


cdef inline void buf_free(loop_t *loop, buf_t *b) noexcept nogil:
    if b.base != NULL:
        buf_give(loop, b.base, b.cap)
        b.base = NULL
        b.cap = 0
        b.start = 0
        b.end = 0


cdef int buf_reserve(loop_t *loop, buf_t *b, size_t extra) noexcept nogil:
    """Make room for `extra` octets after the data, keeping BUF_HEADROOM in front of it. ST_OK or ST_NOMEM."""
    cdef size_t n = buf_len(b)
    cdef uint32_t k
    cdef uint8_t *base
    if b.base != NULL and buf_room(b) >= extra:
        return ST_OK
    if b.base != NULL and b.cap >= BUF_HEADROOM + n + extra and b.start > BUF_HEADROOM:
        memmove(b.base + BUF_HEADROOM, buf_ptr(b), n)
        b.start = BUF_HEADROOM
        b.end = <uint32_t>(BUF_HEADROOM + n)
        return ST_OK
    k = buf_class(BUF_HEADROOM + n + extra)
    if k > 31:
        return ST_NOMEM
    base = buf_take(loop, k)
    if base == NULL:
        return ST_NOMEM
    if n:
        memcpy(base + BUF_HEADROOM, buf_ptr(b), n)
    buf_free(loop, b)
    b.base = base
    b.cap = <uint32_t>1 << k
    b.start = BUF_HEADROOM
    b.end = <uint32_t>(BUF_HEADROOM + n)
    return ST_OK


cdef int buf_append(loop_t *loop, buf_t *b, const uint8_t *p, size_t n) noexcept nogil:
    """Copy n octets to the end. ST_OK or ST_NOMEM (then nothing is changed)."""
    if buf_reserve(loop, b, n) < 0:
        return ST_NOMEM
    memcpy(b.base + b.end, p, n)
    b.end += <uint32_t>n
    return ST_OK


cdef inline void buf_consume(loop_t *loop, buf_t *b, size_t n) noexcept nogil:
    """Drop n octets from the front. Memory stays until buf_free, because spans may still point into it."""
    relay_assert(n <= buf_len(b))
    b.start += <uint32_t>n


cdef void buf_pool_free(loop_t *loop) noexcept nogil:
    """Give all pooled memory back to the system."""
    cdef free_buf_t *b
    cdef uint32_t k
    for k in range(BUF_CLASS_MAX + 1):
        while loop.free_bufs[k] != NULL:
            b = loop.free_bufs[k]
            loop.free_bufs[k] = b.next
            mem_free(b)
    loop.stats.pooled_octets = 0
