# sink.pxi - growing memory for one outgoing message, for the sans-IO writers. Part of proxy._relay.

cdef inline uint8_t *sink_ptr(const sink_t *s) noexcept nogil:
    """The data; there are BUF_HEADROOM free octets in front of it."""
    return s.base + BUF_HEADROOM


cdef inline void sink_reset(sink_t *s, size_t limit) noexcept nogil:
    """Begin a new message of at most `limit` octets (0: any)."""
    s.len = 0
    s.max = limit


cdef int sink_grow(sink_t *s, size_t n) noexcept nogil:
    """Make room for n more octets where sink_room saw that there is none."""
    cdef size_t need = BUF_HEADROOM + s.len + n
    cdef size_t cap = s.cap if s.cap else RX_MIN
    cdef uint8_t *base
    # One message of unusual size must not take twice its room, so it grows no further than it may get.
    cdef size_t most = BUF_HEADROOM + s.max if s.max else <size_t>0 - 1
    if s.max and s.len + n > s.max:
        return ST_TOO_BIG
    if need < n:
        return ST_NOMEM
    while cap < need:
        cap = cap * 2 if cap < most // 2 else most
    if cap == s.cap:
        return ST_OK
    base = <uint8_t *>mem_realloc(s.base, cap)
    if base == NULL:
        return ST_NOMEM
    s.base = base
    s.cap = cap
    return ST_OK


cdef inline int sink_room(sink_t *s, size_t n) noexcept nogil:
    """Make sure that n more octets fit at sink_ptr(s) + s.len. ST_OK, ST_TOO_BIG (over the limit) or ST_NOMEM."""
    if scan_likely(BUF_HEADROOM + s.len + n <= s.cap and (s.max == 0 or s.len + n <= s.max)):
        return ST_OK
    return sink_grow(s, n)


cdef inline int sink_put(sink_t *s, const uint8_t *p, size_t n) noexcept nogil:
    """Append n octets. ST_OK, ST_TOO_BIG or ST_NOMEM."""
    cdef int st = sink_room(s, n)
    if st > 0:
        memcpy(sink_ptr(s) + s.len, p, n)
        s.len += n
    return st


cdef void sink_free(sink_t *s) noexcept nogil:
    """Give the memory back."""
    if s.base != NULL:
        mem_free(s.base)
        s.base = NULL
    s.cap = 0
    s.len = 0


cdef inline void sink_trim(sink_t *s) noexcept nogil:
    """After a message: do not keep the memory that an unusually long one needed."""
    if s.cap > SINK_KEEP:
        sink_free(s)
