# scan_flatbuffers.pxi - verify one WAMP message in FlatBuffers and read its type. Part of proxy._relay (see
# src/_relay.pyx).
#
# A FlatBuffers message is a table at the end of an offset: root table {msg_type, msg}, msg a table by type. autobahn's
# encoding is the reference. It writes the WAMP message code into msg_type (its schema would have the number of the
# union's member there), but 37 for EVENT_RECEIVED.
#
# Every offset that is followed here or by a decoder of this schema leads into the message, so that whoever reads a
# field of it later cannot leave it. Fields of newer schemas (slots after the known ones) are passed over. Whether
# structures overlap is not checked: reading them is harmless, and who changes octets verifies again.

cdef extern from *:
    """
    /* By msg_type: the kind of each field, in the order of the schema's slots.
     *   1 2 4 8  integer of that many octets, or bool       s  string         S  vector of strings
     *   b        vector of octets (or of 8-bit integers)    q  vector of 64-bit integers
     *   P        vector of Principal tables                 t  a table (or vector) that autobahn does not look into
     */
    static const char *const scan_flat_schema[71] = {
        [1] = "8tsbsst18s",                             /* HELLO */
        [2] = "8tsss1st11s",                            /* WELCOME */
        [3] = "8ss", [4] = "81t", [5] = "8st",          /* ABORT, CHALLENGE, AUTHENTICATE */
        [6] = "8ss1",                                   /* GOODBYE */
        [8] = "828sbbb111sP",                           /* ERROR */
        [16] = "88sbbb111s11qSSqSS1sP", [17] = "888",   /* PUBLISH, PUBLISHED */
        [32] = "88s11", [33] = "888",                   /* SUBSCRIBE, SUBSCRIBED */
        [34] = "888", [35] = "888s",                    /* UNSUBSCRIBE, UNSUBSCRIBED */
        [36] = "888bbb111s8sss1s1P", [37] = "88P",      /* EVENT, EVENT_RECEIVED */
        [48] = "88sbbb111s41s8ssP", [49] = "881P",      /* CALL, CANCEL */
        [50] = "88bbb111s18ssP",                        /* RESULT */
        [64] = "88s1121", [65] = "888",                 /* REGISTER, REGISTERED */
        [66] = "888", [67] = "888s",                    /* UNREGISTER, UNREGISTERED */
        [68] = "888bbb111ss41s8ssP", [69] = "881sP",    /* INVOCATION, INTERRUPT */
        [70] = "88bbb111s18ssP",                        /* YIELD */
    };
    #define SCAN_FLAT_PRINCIPAL "8ss"                   /* session, authid, authrole */
    #define SCAN_FLAT_ID '8'
    #define SCAN_FLAT_IDS 'q'
    #define SCAN_FLAT_PRINCIPALS 'P'
    """
    const char *const *scan_flat_schema
    const char *SCAN_FLAT_PRINCIPAL
    const char SCAN_FLAT_ID
    const char SCAN_FLAT_IDS
    const char SCAN_FLAT_PRINCIPALS

cdef enum:
    SCAN_FLAT_DIGIT = 48                      # ASCII 0
    SCAN_FLAT_TYPE_MAX = 70                   # YIELD
    SCAN_FLAT_EVENT_RECEIVED = 37             # what stands for 337 in an octet

# A table whose vtable and extent were checked. Offsets are from the start of the message.
ctypedef struct scan_flat_t:
    size_t at
    size_t vtable
    uint32_t size                             # octets of the table
    uint32_t slots                            # fields that the vtable knows


cdef int scan_flat_open(const uint8_t *p, size_t n, size_t at, scan_flat_t *t) noexcept nogil:
    """Check the table at ``at``: its vtable and its own octets lie inside; ST_OK, ST_TRUNCATED or ST_MALFORMED."""
    cdef int64_t vtable
    cdef uint32_t length
    if n < 8 or at > n - 4:
        return ST_TRUNCATED
    vtable = <int64_t>at - <int32_t>load_le32(p + at)
    if vtable < 0 or vtable > <int64_t>n - 4:
        return ST_TRUNCATED
    length = load_le16(p + vtable)
    t.at = at
    t.vtable = <size_t>vtable
    t.size = load_le16(p + vtable + 2)
    if length < 4 or length & 1 != 0 or t.size < 4:
        return ST_MALFORMED
    t.slots = (length - 4) >> 1
    return ST_OK if length <= n - t.vtable and t.size <= n - at else ST_TRUNCATED


cdef inline int scan_flat_find(const uint8_t *p, const scan_flat_t *t, uint32_t slot, size_t width,
                               size_t *at) noexcept nogil:
    """Look for the field in ``slot``, of ``width`` octets; ST_OK with its place, ST_MORE: absent, ST_MALFORMED."""
    cdef uint32_t offset
    if slot >= t.slots:
        return ST_MORE
    offset = load_le16(p + t.vtable + 4 + 2 * slot)
    if offset == 0:
        return ST_MORE
    if offset < 4 or offset + width > t.size:
        return ST_MALFORMED
    at[0] = t.at + offset
    return ST_OK


cdef inline int scan_flat_follow(const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """Follow the offset at ``at[0]`` <= n - 4 to what has four octets at least; ST_OK, ST_TRUNCATED, ST_MALFORMED."""
    cdef uint32_t offset = load_le32(p + at[0])
    if offset < 4:
        return ST_MALFORMED
    if offset > n - 4 - at[0]:
        return ST_TRUNCATED
    at[0] += offset
    return ST_OK


cdef inline int scan_flat_vector(const uint8_t *p, size_t n, size_t *at, size_t width, uint32_t *count) noexcept nogil:
    """Follow the offset at ``at[0]`` to a vector of items of ``width`` octets, or a string: first item and count."""
    cdef int status = scan_flat_follow(p, n, at)
    if status < 0:
        return status
    count[0] = load_le32(p + at[0])
    at[0] += 4
    return ST_OK if count[0] <= (n - at[0]) / width else ST_TRUNCATED


cdef int scan_flat_strings(const uint8_t *p, size_t n, size_t at, bint are_principals) noexcept nogil:
    """Check the vector that the offset at ``at`` leads to: of strings, or of Principal tables; ST_OK, or ST_*."""
    cdef uint32_t count = 0
    cdef uint32_t length = 0
    cdef uint32_t k
    cdef size_t item
    cdef scan_flat_t t
    cdef int status = scan_flat_vector(p, n, &at, 4, &count)
    if status < 0:
        return status
    for k in range(count):
        item = at + 4 * <size_t>k
        if are_principals:
            status = scan_flat_follow(p, n, &item)
            if status > 0:
                status = scan_flat_open(p, n, item, &t)
            if status > 0:
                status = scan_flat_fields(p, n, &t, SCAN_FLAT_PRINCIPAL)
        else:
            status = scan_flat_vector(p, n, &item, 1, &length)
        if status < 0:
            return status
    return ST_OK


cdef int scan_flat_fields(const uint8_t *p, size_t n, const scan_flat_t *t, const char *kinds) noexcept nogil:
    """Check the fields of a table, and what they lead to; ST_OK, ST_TRUNCATED or ST_MALFORMED."""
    cdef uint32_t slot = 0
    cdef uint32_t count = 0
    cdef size_t at = 0
    cdef size_t width
    cdef uint8_t kind = <uint8_t>kinds[0]
    cdef int status
    while kind != 0 and slot < t.slots:
        width = <size_t>kind - SCAN_FLAT_DIGIT if kind <= SCAN_FLAT_DIGIT + 8 else 4
        status = scan_flat_find(p, t, slot, width, &at)
        if status > 0 and kind > SCAN_FLAT_DIGIT + 8:
            if kind == b's' or kind == b'b':
                status = scan_flat_vector(p, n, &at, 1, &count)
            elif kind == b'q':
                status = scan_flat_vector(p, n, &at, 8, &count)
            elif kind == b't':
                status = scan_flat_follow(p, n, &at)
            else:
                status = scan_flat_strings(p, n, at, kind == SCAN_FLAT_PRINCIPALS)
        if status < 0:
            return status
        slot += 1
        kind = <uint8_t>kinds[slot]
    return ST_OK


cdef int scan_flat_message(const uint8_t *p, size_t n, uint32_t *code, scan_flat_t *t) noexcept nogil:
    """Open the message: the root table, the type that it names, and the table that holds the message.

    :param code: gets the octet that names the type.
    :param t: gets the message's table, not its fields checked.
    :return: ST_OK; ST_TRUNCATED, ST_MALFORMED.
    """
    cdef scan_flat_t root
    cdef size_t at = 0
    cdef int status
    if n < 8:
        return ST_TRUNCATED
    status = scan_flat_follow(p, n, &at)
    if status > 0:
        status = scan_flat_open(p, n, at, &root)
    if status < 0:
        return status
    status = scan_flat_find(p, &root, 0, 1, &at)
    if status <= 0:
        return ST_MALFORMED                   # absent: the default, which is no type
    code[0] = p[at]
    status = scan_flat_find(p, &root, 1, 4, &at)
    if status <= 0:
        return ST_MALFORMED
    status = scan_flat_follow(p, n, &at)
    return scan_flat_open(p, n, at, t) if status > 0 else status


cdef ssize_t scan_flatbuffers(const uint8_t *p, size_t n, uint32_t *type) noexcept nogil:
    """Verify the one WAMP message in FlatBuffers at ``p``.

    :param p: octets of the message.
    :param n: how many there are.
    :param type: gets the WAMP message code.
    :return: n (what follows the message cannot be told from it); < 0: ST_MALFORMED, ST_TRUNCATED.
    """
    cdef scan_flat_t t
    cdef uint32_t code = 0
    cdef int status = scan_flat_message(p, n, &code, &t)
    if status < 0:
        return status
    type[0] = 337 if code == SCAN_FLAT_EVENT_RECEIVED else code
    if code > SCAN_FLAT_TYPE_MAX or scan_flat_schema[code] == NULL:
        return ST_MALFORMED
    status = scan_flat_fields(p, n, &t, scan_flat_schema[code])
    return <ssize_t>n if status > 0 else status
