# fields_flatbuffers.pxi - single fields of a FlatBuffers message that the gate has passed. Part of proxy._relay (see
# src/_relay.pyx).
#
# Fields are found by their number in the schema (scan_flatbuffers.pxi), not by a cursor.

cdef inline uint64_t fields_flat_uint(const uint8_t *p, const scan_flat_t *t, uint32_t slot,
                                      size_t width) noexcept nogil:
    """The integer of ``width`` (1, 2, 4 or 8) octets in ``slot``; 0, which is the default, when it is absent."""
    cdef size_t at = 0
    return scan_le(p + at, width) if scan_flat_find(p, t, slot, width, &at) > 0 and at > 0 else 0


cdef int fields_flat_request(const uint8_t *p, size_t n, fields_t *f) noexcept nogil:
    """What fields_request does, for FlatBuffers. The CALL and INVOCATION of its schema are never progressive."""
    cdef scan_flat_t t
    cdef uint32_t code = 0
    f.request = 0
    f.request_type = 0
    f.progress = False
    if scan_flat_message(p, n, &code, &t) < 0:
        return ST_MALFORMED
    if code == WAMP_ERROR:
        f.request_type = <uint32_t>fields_flat_uint(p, &t, 1, 2)
        f.request = fields_flat_uint(p, &t, 2, 8)
    elif code == WAMP_WELCOME:
        f.request = fields_flat_uint(p, &t, 0, 8)
    elif code < 8:
        return ST_MALFORMED                   # HELLO and the like have none
    else:
        f.request = fields_flat_uint(p, &t, 1, 8)
        if code == WAMP_RESULT or code == WAMP_YIELD:
            f.progress = fields_flat_uint(p, &t, 9, 1) != 0
    return ST_OK
