# refuse.pxi - a message that the other side cannot take: over its limit, or nothing its serializer can express. Part of
# proxy._relay (see src/_relay.pyx).
#
# It is not relayed; the control plane gets its head and answers the request that it belongs to. Its sender is not read
# from meanwhile, so that such messages cannot pile up.

cdef size_t refuse_number(uint8_t serializer, uint8_t *dst, uint64_t value) noexcept nogil:
    """Write an integer at dst (room: 20 octets) and return its length."""
    cdef uint8_t digits[20]
    cdef size_t n = 0
    cdef size_t i
    if serializer == SER_JSON:
        while n == 0 or value:
            digits[n] = <uint8_t>(48 + value % 10)          # '0'
            value //= 10
            n += 1
        for i in range(n):
            dst[i] = digits[n - 1 - i]
        return n
    dst[0] = 0xcf if serializer == SER_MSGPACK else 0x1b if serializer == SER_CBOR else <uint8_t>b'M'
    if serializer == SER_UBJSON:
        store_le64(dst + 1, value)
    else:
        store_be64(dst + 1, value)
    return 9


cdef size_t refuse_ids(uint8_t serializer, uint32_t type, const fields_t *f, uint8_t *dst) noexcept nogil:
    """What is needed to answer a message, at dst (room: 64 octets): type, of an ERROR the request's, request."""
    cdef bint three = type == WAMP_ERROR
    cdef bint text = serializer == SER_JSON
    cdef size_t n = 1
    dst[0] = <uint8_t>b'['
    if serializer == SER_MSGPACK:
        dst[0] = 0x93 if three else 0x92
    elif serializer == SER_CBOR:
        dst[0] = 0x83 if three else 0x82
    n += refuse_number(serializer, dst + n, type)
    if text:
        dst[n] = <uint8_t>b','
        n += 1
    if three:
        n += refuse_number(serializer, dst + n, f.request_type)
        if text:
            dst[n] = <uint8_t>b','
            n += 1
    n += refuse_number(serializer, dst + n, f.request)
    if text or serializer == SER_UBJSON:
        dst[n] = <uint8_t>b']'
        n += 1
    return n


cdef void refuse_emit(
    loop_t *loop, conn_t *c, uint32_t type, const uint8_t *p, size_t n, int status, const char *why, size_t limit
) noexcept nogil:
    """Tell the control plane: type, size, reason, and the message without its payload (see EV_REFUSED).

    why: NULL with ST_TOO_BIG, where it is the limit, octets.
    """
    cdef uint8_t lead[13 + 255]
    cdef uint8_t ids[64]
    cdef fields_t f
    cdef const uint8_t *head = p
    cdef size_t size = n
    cdef size_t k = strlen(why) if why != NULL else 0
    cdef uint8_t serializer = c.codec.serializer
    store_be32(lead, type)
    store_be64(lead + 4, n)
    if k > 255:
        k = 255
    if k:
        memcpy(lead + 13, why, k)
    elif status == ST_TOO_BIG:
        memcpy(lead + 13, <const char *>"at most ", 8)
        k = 8 + refuse_number(SER_JSON, lead + 21, limit)
        memcpy(lead + 13 + k, <const char *>" octets", 7)
        k += 7
    lead[12] = <uint8_t>k
    if serializer != SER_FLATBUFFERS:
        sink_reset(&loop.wrapped, JOIN_MESSAGE_MAX)
        if fields_head(serializer, type, p, n, &loop.wrapped) > 0:
            head = sink_ptr(&loop.wrapped)
            size = loop.wrapped.len
        else:
            memset(&f, 0, sizeof(f))
            fields_request(serializer, type, p, n, &f)
            head = ids
            size = refuse_ids(serializer, type, &f, ids)
    loop.stats.refused += 1
    c.flags |= FL_PAUSED | FL_REFUSED
    event_emit(loop, EV_REFUSED, c, status, head, size, lead, 13 + k)
