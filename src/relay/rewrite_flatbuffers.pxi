# rewrite_flatbuffers.pxi - session IDs in FlatBuffers messages. Part of proxy._relay (see src/_relay.pyx).
#
# IDs of the header are 64-bit fields: they are changed in place in a copy. Arguments are CBOR in a vector: when they
# change, the new ones go behind the message and the field is made to point there; those before stay as dead octets.
# The result is verified like any message, so that one whose parts overlap cannot become another.

cdef extern from *:
    """
    /* By type: slots of the one ID, of a URI and of the Arguments; 0: it has none. forward_for is found by its kind. */
    typedef struct { unsigned char id, uri, args; } rewrite_flat_t;
    static const rewrite_flat_t rewrite_flat_slots[71] = {
        [36] = {10, 13, 3}, [48] = {13, 2, 3},      /* EVENT: publisher, topic; CALL: caller, procedure */
        [50] = {10, 0, 2}, [70] = {10, 0, 0},       /* RESULT, YIELD: callee */
        [68] = {14, 0, 0}, [32] = {0, 2, 0},        /* INVOCATION: caller; SUBSCRIBE: topic */
    };
    """
    ctypedef struct rewrite_flat_t:
        uint8_t id
        uint8_t uri
        uint8_t args
    const rewrite_flat_t *rewrite_flat_slots

cdef enum:
    REWRITE_FLAT_EXCLUDE = 12                 # slots of a PUBLISH
    REWRITE_FLAT_ELIGIBLE = 15
    REWRITE_FLAT_PROGRESS = 9                 # of RESULT and YIELD
    REWRITE_FLAT_SERIALIZER = 4               # slots from args to ppt_serializer
    REWRITE_FLAT_PPT_CBOR = 3


cdef int rewrite_flat_copy(rewrite_t *r) noexcept nogil:
    """Have a copy of the message to change. ST_OK or ST_NOMEM."""
    if r.copied:
        return ST_OK
    r.copied = r.n
    sink_reset(r.out, 0)
    return sink_put(r.out, r.p, r.n)


cdef int rewrite_flat_id(rewrite_t *r, size_t at) noexcept nogil:
    """Translate the ID at ``at``. ST_OK or ST_NOMEM."""
    cdef uint64_t before = load_le64(r.p + at)
    cdef uint64_t sid = before
    if before == 0:
        return ST_OK
    sid = sids_to_front(r.realm, before) if r.direction == DIR_TO_FRONT else sids_to_back(r.realm, before)
    if sid == before:
        return ST_OK
    if rewrite_flat_copy(r) < 0:
        return ST_NOMEM
    store_le64(sink_ptr(r.out) + at, sid)
    return ST_OK


cdef int rewrite_flat_list(rewrite_t *r, size_t at, bint are_principals) noexcept nogil:
    """Translate what is in the vector that the offset at ``at`` leads to: IDs, or Principal tables with an ID each."""
    cdef size_t width = 4 if are_principals else 8
    cdef uint32_t count = 0
    cdef uint32_t k
    cdef size_t item
    cdef scan_flat_t t
    cdef int st = scan_flat_vector(r.p, r.n, &at, width, &count)
    if st < 0:
        return st
    for k in range(count):
        item = at + width * k
        if are_principals:
            if scan_flat_follow(r.p, r.n, &item) < 0 or scan_flat_open(r.p, r.n, item, &t) < 0:
                return ST_MALFORMED
            st = scan_flat_find(r.p, &t, 0, 8, &item)
        if st > 0:
            st = rewrite_flat_id(r, item)
        if st < 0:
            return st
    return ST_OK


cdef int rewrite_flat_lists(rewrite_t *r, uint32_t type, const scan_flat_t *t) noexcept nogil:
    """Translate exclude, eligible and forward_for."""
    cdef const char *kinds = scan_flat_schema[type]
    cdef uint32_t slot = 0
    cdef size_t at = 0
    cdef int st
    while kinds[slot] != 0 and slot < t.slots:
        if kinds[slot] == SCAN_FLAT_PRINCIPALS or kinds[slot] == SCAN_FLAT_IDS:
            st = scan_flat_find(r.p, t, slot, 4, &at)
            if st > 0:
                st = rewrite_flat_list(r, at, kinds[slot] == SCAN_FLAT_PRINCIPALS)
            if st < 0:
                return st
        slot += 1
    return ST_OK


cdef int rewrite_flat_uri(rewrite_t *r, uint32_t type, const scan_flat_t *t) noexcept nogil:
    """Read the URI of a CALL or SUBSCRIBE, or the topic that an EVENT names, into ``r.rule`` and ``r.result``."""
    cdef const rewrite_procedure_t *procedure
    cdef uint32_t length = 0
    cdef size_t at = 0
    cdef int st = scan_flat_find(r.p, t, rewrite_flat_slots[type].uri, 4, &at)
    if st > 0:
        st = scan_flat_vector(r.p, r.n, &at, 1, &length)
    if st <= 0:
        return st if st < 0 else ST_OK
    if type != WAMP_CALL:
        r.rule = rewrite_topic(r.p + at, length)
        return ST_OK
    procedure = rewrite_procedure(r.p + at, length)
    if procedure != NULL:
        r.rule = procedure.call
        r.result = procedure.result
    return ST_OK


cdef int rewrite_flat_header(rewrite_t *r, uint32_t type) noexcept nogil:
    """What rewrite_header does, for FlatBuffers: IDs outside the payload, and what notes are made of."""
    cdef const char *kinds = scan_flat_schema[type]
    cdef scan_flat_t t
    cdef uint32_t code = 0
    cdef size_t at = 0
    cdef int st = scan_flat_message(r.p, r.n, &code, &t)
    if st < 0 or code != type:
        return ST_MALFORMED
    r.first = fields_flat_uint(r.p, &t, 1, 2 if type == WAMP_ERROR else 8)
    if kinds[2] == SCAN_FLAT_ID:
        r.second = fields_flat_uint(r.p, &t, 2, 8)
    if type == WAMP_UNSUBSCRIBED:
        r.subscription = r.second
    elif type == WAMP_RESULT or type == WAMP_YIELD:
        r.progress = fields_flat_uint(r.p, &t, REWRITE_FLAT_PROGRESS, 1) != 0
    if rewrite_flat_slots[type].uri:
        st = rewrite_flat_uri(r, type, &t)
    if st > 0 and rewrite_flat_slots[type].id:
        st = scan_flat_find(r.p, &t, rewrite_flat_slots[type].id, 8, &at)
        st = rewrite_flat_id(r, at) if st > 0 else ST_OK if st == ST_MORE else st
    return rewrite_flat_lists(r, type, &t) if st > 0 else st


cdef int rewrite_flat_append(rewrite_t *r, size_t field, const uint8_t *p, size_t n) noexcept nogil:
    """Put the vector of the octets p[0:n] behind the message and let the field at ``field`` point to it."""
    cdef uint8_t head[8]
    cdef size_t pad
    if rewrite_flat_copy(r) < 0:
        return ST_NOMEM
    pad = (0 - r.out.len) & 3
    if r.out.len + n > <size_t>0x7fffff00:    # offsets have 32 bits
        return ST_MALFORMED
    memset(head, 0, 4)
    store_le32(head + pad, <uint32_t>n)
    if sink_put(r.out, head, pad + 4) < 0 or sink_put(r.out, p, n) < 0:
        return ST_NOMEM
    store_le32(sink_ptr(r.out) + field, <uint32_t>(r.out.len - n - 4 - field))
    return ST_OK


cdef int rewrite_flat_cbor(rewrite_t *r, size_t field, bint is_kwargs) noexcept nogil:
    """Rewrite the Arguments or ArgumentsKw in the vector that the offset at ``field`` leads to, by ``r.rule``.

    Octets that are no CBOR are left alone.
    """
    cdef rewrite_t part
    cdef sink_t out
    cdef item_t item
    cdef uint64_t left = 1
    cdef uint32_t count = 0
    cdef size_t at = field
    cdef int st = scan_flat_vector(r.p, r.n, &at, 1, &count)
    if st < 0 or count == 0 or scan_cbor(r.p + at, count) != <ssize_t>count:
        return st if st < 0 else ST_OK
    memset(&out, 0, sizeof(out))
    part = r[0]
    part.p = r.p + at
    part.n = count
    part.at = 0
    part.copied = 0
    part.ser = SER_CBOR
    part.out = &out
    if not is_kwargs:
        st = rewrite_payload(&part, &left)
    elif fields_next(SER_CBOR, part.p, part.n, &part.at, &item) > 0 and item.kind == ITEM_MAP:
        st = rewrite_map(&part, &item, rewrite_named(r.rule))
    if st >= 0 and part.copied:
        st = sink_put(&out, part.p + part.copied, part.n - part.copied)
        if st > 0:
            st = rewrite_flat_append(r, field, sink_ptr(&out), out.len)
    sink_free(&out)
    return ST_OK if st == ST_MORE else st


cdef int rewrite_flat_payload(rewrite_t *r, uint32_t type) noexcept nogil:
    """Arguments and ArgumentsKw by ``r.rule``, where they are CBOR (which is the default in FlatBuffers)."""
    cdef uint32_t args = rewrite_flat_slots[type].args
    cdef scan_flat_t t
    cdef uint32_t code = 0
    cdef uint64_t serializer
    cdef size_t at = 0
    cdef int st
    if args == 0:
        return ST_OK
    if scan_flat_message(r.p, r.n, &code, &t) < 0:
        return ST_MALFORMED
    serializer = fields_flat_uint(r.p, &t, args + REWRITE_FLAT_SERIALIZER, 1)
    if serializer != 0 and serializer != REWRITE_FLAT_PPT_CBOR:
        return ST_OK
    st = scan_flat_find(r.p, &t, args, 4, &at)
    if st > 0:
        st = rewrite_flat_cbor(r, at, False)
    if st >= 0:
        st = scan_flat_find(r.p, &t, args + 1, 4, &at)
    if st > 0:
        st = rewrite_flat_cbor(r, at, True)
    return ST_OK if st == ST_MORE else st


cdef inline int rewrite_flat_verify(const rewrite_t *r, uint32_t type) noexcept nogil:
    """Is what became of the message still a message of its type? ST_OK or ST_MALFORMED."""
    cdef uint32_t code = 0
    if scan_flatbuffers(sink_ptr(r.out), r.out.len, &code) < 0 or code != type:
        return ST_MALFORMED
    return ST_OK
