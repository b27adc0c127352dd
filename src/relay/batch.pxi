# batch.pxi - several WAMP messages in one WebSocket message, sans-IO. Part of proxy._relay (see src/_relay.pyx).
#
# WAMP specification, "WebSocket Transport", batched subprotocols. JSON: each message is followed by one octet, by the
# specification 0x1e; autobahn writes and wants 0x18. Neither can stand inside well-formed JSON, so a message is never
# cut in two, and one that holds the wrong one of them does not pass the gate. All others: each message has its length
# in front, 32 bits, big-endian. No batch is empty, and neither is a message in it.

cdef enum:
    BATCH_RS = 0x1e                # JSON: "record separator"
    BATCH_CAN = 0x18               # JSON: autobahn's separator ("cancel"), octal 30, as the specification writes 0x1e
    BATCH_PREFIX = 4               # octets of length in front of a message


cdef inline uint8_t batch_separator(const codec_t *c) noexcept nogil:
    """The octet after each JSON message."""
    return BATCH_CAN if c.flags & CF_BATCH_CAN else BATCH_RS


cdef inline size_t batch_extra(const codec_t *c) noexcept nogil:
    """Octets that a message takes in a batch besides its own."""
    return 1 if c.serializer == SER_JSON else BATCH_PREFIX


cdef int batch_open(codec_t *c, const uint8_t *p, size_t n) noexcept nogil:
    """Begin to take a batch apart: the whole WebSocket message p[0:n].

    The kind of separator of a JSON batch is remembered: the peer understands that one. ST_OK: call batch_next while
    c.batch_left is not 0. ST_PROTOCOL: empty, or without its end. ST_TOO_BIG: cannot be counted.
    """
    if n > <size_t>0xFFFFFFFF:
        return ST_TOO_BIG
    if c.serializer != SER_JSON:
        if n <= BATCH_PREFIX:
            return ST_PROTOCOL
    elif n < 2:
        return ST_PROTOCOL
    elif p[n - 1] == BATCH_CAN:
        c.flags |= CF_BATCH_CAN
    elif p[n - 1] == BATCH_RS:
        c.flags &= ~<uint16_t>CF_BATCH_CAN
    else:
        return ST_PROTOCOL
    c.batch_left = <uint32_t>n
    return ST_OK


cdef int batch_next(codec_t *c, uint8_t *p, frame_t *f) noexcept nogil:
    """Take the next message of a batch, whose rest are the c.batch_left octets at p; not to be called without any.

    ST_OK: f is one message, its payload borrowed; drop f.consumed octets (c.batch_left has been reduced by them).
    ST_PROTOCOL: an empty message, or one that is longer than its batch.
    """
    cdef size_t left = c.batch_left
    cdef size_t head = 0
    cdef size_t n
    cdef const uint8_t *end
    if c.serializer == SER_JSON:
        end = <const uint8_t *>memchr(p, batch_separator(c), left)
        if end == NULL:                                      # cannot be: batch_open looked at the last octet
            return ST_PROTOCOL
        n = end - p
        f.consumed = n + 1
    else:
        if left < BATCH_PREFIX:
            return ST_PROTOCOL
        head = BATCH_PREFIX
        n = load_be32(p)
        if n > left - head:
            return ST_PROTOCOL
        f.consumed = head + n
    if n == 0:
        return ST_PROTOCOL
    f.kind = FRAME_MESSAGE
    f.opcode = ws_opcode(c)
    f.compressed = False
    f.payload = p + head
    f.length = n
    c.batch_left = <uint32_t>(left - f.consumed)
    return ST_OK


cdef int batch_put(const codec_t *c, sink_t *out, const uint8_t *p, size_t n) noexcept nogil:
    """Append the message p[0:n] to a batch. ST_OK; ST_TOO_BIG or ST_NOMEM: nothing was appended."""
    cdef uint8_t *at
    cdef int st
    if n > <size_t>0xFFFFFFFF:
        return ST_TOO_BIG
    st = sink_room(out, n + BATCH_PREFIX)
    if st < 0:
        return st
    at = sink_ptr(out) + out.len
    if c.serializer == SER_JSON:
        memcpy(at, p, n)
        at[n] = batch_separator(c)
        out.len += n + 1
    else:
        store_be32(at, <uint32_t>n)
        memcpy(at + BATCH_PREFIX, p, n)
        out.len += n + BATCH_PREFIX
    return ST_OK
