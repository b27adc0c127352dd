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


cdef inline size_t refuse_comma(bint text, uint8_t *dst) noexcept nogil:
    """What parts two elements, if anything does."""
    if text:
        dst[0] = <uint8_t>b','
    return text


cdef size_t refuse_flag(uint8_t serializer, uint32_t type, bint is_set, uint8_t *dst) noexcept nogil:
    """Write Options or Details that hold what fields_request looked for, or nothing, at dst (room: 20 octets)."""
    cdef const char *key = b"acknowledge" if type == WAMP_PUBLISH else b"progress"
    cdef size_t k = strlen(key) if is_set else 0
    cdef bint text = serializer == SER_JSON
    cdef size_t n = 1
    dst[0] = <uint8_t>b'{'
    if serializer == SER_MSGPACK or serializer == SER_CBOR:
        dst[0] = <uint8_t>((0x80 if serializer == SER_MSGPACK else 0xa0) + is_set)
    if is_set:
        if serializer == SER_UBJSON:
            dst[n] = <uint8_t>b'U'
            n += 1
        if text:
            dst[n] = <uint8_t>b'"'
        else:
            dst[n] = <uint8_t>(k + (0xa0 if serializer == SER_MSGPACK else 0x60 if serializer == SER_CBOR else 0))
        memcpy(dst + n + 1, key, k)
        n += 1 + k
        if text:
            memcpy(dst + n, b'":true', 6)
            n += 6
        else:
            dst[n] = 0xc3 if serializer == SER_MSGPACK else 0xf5 if serializer == SER_CBOR else <uint8_t>b'T'
            n += 1
    if text or serializer == SER_UBJSON:
        dst[n] = <uint8_t>b'}'
        n += 1
    return n


cdef size_t refuse_ids(uint8_t serializer, uint32_t type, const fields_t *f, uint8_t *dst) noexcept nogil:
    """What a message is answered by, as a message of its type, at dst (room: 128 octets).

    The type, of an ERROR that of the request, the request, and where it matters Options or Details with ``progress`` or
    ``acknowledge``. Nothing else of the message goes up: it need not be anything that Python's decoders take, or take
    in reasonable time.
    """
    cdef bint text = serializer == SER_JSON
    cdef bint flagged = fields_is_flagged(type)
    cdef uint8_t count = <uint8_t>(2 + (type == WAMP_ERROR) + (type == WAMP_INVOCATION) + flagged)
    cdef size_t n = 1
    dst[0] = <uint8_t>b'['
    if serializer == SER_MSGPACK or serializer == SER_CBOR:
        dst[0] = <uint8_t>((0x90 if serializer == SER_MSGPACK else 0x80) + count)
    n += refuse_number(serializer, dst + n, type)
    if type == WAMP_ERROR:
        n += refuse_comma(text, dst + n) + refuse_number(serializer, dst + n + text, f.request_type)
    n += refuse_comma(text, dst + n) + refuse_number(serializer, dst + n + text, f.request)
    if type == WAMP_INVOCATION:                       # the registration, which does not matter
        n += refuse_comma(text, dst + n) + refuse_number(serializer, dst + n + text, 0)
    if flagged:
        n += refuse_comma(text, dst + n) + refuse_flag(serializer, type, f.progress, dst + n + text)
    if text or serializer == SER_UBJSON:
        dst[n] = <uint8_t>b']'
        n += 1
    return n


cdef void refuse_emit(
    loop_t *loop, conn_t *c, uint32_t type, const uint8_t *p, size_t n, int status, const char *why, size_t limit
) noexcept nogil:
    """Tell the control plane: type, size, reason, and what names the request (see EV_REFUSED).

    Of an EVENT it is the message without its payload, which may still be delivered.

    why: NULL with ST_TOO_BIG, where it is the limit, octets.
    """
    cdef uint8_t lead[13 + 255]
    cdef uint8_t ids[128]
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
        memset(&f, 0, sizeof(f))
        sink_reset(&loop.wrapped, JOIN_MESSAGE_MAX)
        if type == WAMP_EVENT and c.side == SIDE_BACK and fields_head(serializer, type, p, n, &loop.wrapped) > 0:
            head = sink_ptr(&loop.wrapped)            # it may be delivered without its payload
            size = loop.wrapped.len
        elif fields_request(serializer, type, p, n, &f) > 0:
            head = ids
            size = refuse_ids(serializer, type, &f, ids)
        else:                                         # it names no request, so that nobody can be told
            size = 0
    loop.stats.refused += 1
    c.flags |= FL_PAUSED | FL_REFUSED
    event_emit(loop, EV_REFUSED, c, status, head, size, lead, 13 + k)
