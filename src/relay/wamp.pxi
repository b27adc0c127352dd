# wamp.pxi - the WAMP gate: which messages may pass between a client and the router connection that was joined in its
# name. Part of proxy._relay (see src/_relay.pyx).
#
# The router trusts that connection, so a message that the router could take for a HELLO, an ABORT or an AUTHENTICATE
# must not slip through dressed as a CALL. Three things make sure of it:
#   1. The message type is read conservatively: only spellings that every decoder reads alike count. All others are
#      refused as ambiguous, even where most decoders would read a type that may pass.
#   2. The message must be exactly one well-formed value: nothing after it could be read as a second message.
#   3. Only the types in a table pass.

cdef extern from *:
    """
    #define WAMP_TABLE_SIZE 71      /* one more than the largest code below the extension range */
    #define WAMP_EVENT_RECEIVED 337 /* the one type of the extension range that is in use */

    /* By direction and message type: PLAN_PASS 1, PLAN_CONTROL 2, 0 forbidden. */
    static const unsigned char wamp_table[2][WAMP_TABLE_SIZE] = {
        {   /* client to router */
            [6] = 2,                                /* GOODBYE */
            [8] = 1,                                /* ERROR */
            [16] = 1, [32] = 1, [34] = 1,           /* PUBLISH, SUBSCRIBE, UNSUBSCRIBE */
            [48] = 1, [49] = 1,                     /* CALL, CANCEL */
            [64] = 1, [66] = 1, [70] = 1,           /* REGISTER, UNREGISTER, YIELD */
        },
        {   /* router to client */
            [3] = 2, [6] = 2,                       /* ABORT, GOODBYE */
            [8] = 1,                                /* ERROR */
            [17] = 1, [33] = 1, [35] = 1, [36] = 1, /* PUBLISHED, SUBSCRIBED, UNSUBSCRIBED, EVENT */
            [50] = 1,                               /* RESULT */
            [65] = 1, [67] = 1, [68] = 1, [69] = 1, /* REGISTERED, UNREGISTERED, INVOCATION, INTERRUPT */
        },
    };
    """
    enum:
        WAMP_TABLE_SIZE
        WAMP_EVENT_RECEIVED
    const uint8_t (*wamp_table)[71]


cdef inline int wamp_head_json(const uint8_t *p, size_t n, wamp_t *w) noexcept nogil:
    """Read ``[`` and the message type of a JSON text.

    The type is 1 to 4 digits without leading zero, then a comma or the closing bracket, white space around it at will.
    Sign, fraction, exponent and quotes are refused, and so is every octet by which a decoder could take the text for
    something else than UTF-8 without BOM: up to the type there are only brackets, digits and white space.

    :return: ST_OK, or ST_TRUNCATED, ST_MALFORMED, ST_AMBIGUOUS.
    """
    cdef size_t i = scan_json_space(p, n, 0)
    cdef size_t first
    cdef uint32_t code = 0
    w.elements = 0
    if i >= n:
        return ST_TRUNCATED
    if p[i] != b'[':
        # BOM or NUL: some decoders would go on and find an array
        return ST_AMBIGUOUS if p[i] == 0 or p[i] >= 0xef else ST_MALFORMED
    i = scan_json_space(p, n, i + 1)
    first = i
    while i < n and b'0' <= p[i] <= b'9':
        if i - first == 4:
            return ST_AMBIGUOUS
        code = code * 10 + (p[i] - <uint8_t>b'0')
        i += 1
    if i == first:
        if i >= n:
            return ST_TRUNCATED
        return ST_MALFORMED if p[i] == b']' else ST_AMBIGUOUS
    if p[first] == b'0' and i - first > 1:
        return ST_AMBIGUOUS
    i = scan_json_space(p, n, i)
    if i >= n:
        return ST_TRUNCATED
    w.type = code
    return ST_OK if p[i] == b',' or p[i] == b']' else ST_AMBIGUOUS


cdef inline int wamp_head_msgpack(const uint8_t *p, size_t n, wamp_t *w) noexcept nogil:
    """Read array header and message type of a MessagePack message: both in the shortest form there is for them, the
    type as positive fixint, uint 8 or uint 16.

    :return: ST_OK, or ST_TRUNCATED, ST_MALFORMED, ST_AMBIGUOUS.
    """
    cdef size_t i = 1
    cdef size_t wide = 0                      # octets of the type after its first one
    if n == 0:
        return ST_TRUNCATED
    if scan_likely(0x90 <= p[0] <= 0x9f):
        w.elements = p[0] & 0x0f
    elif p[0] == 0xdc or p[0] == 0xdd:
        i = 3 if p[0] == 0xdc else 5
        if n < i:
            return ST_TRUNCATED
        w.elements = <uint32_t>scan_be(p + 1, i - 1)
        if w.elements < 16 or (i == 5 and w.elements < 65536):
            return ST_AMBIGUOUS
    else:
        return ST_MALFORMED
    if w.elements == 0:
        return ST_MALFORMED
    if n <= i:
        return ST_TRUNCATED
    if scan_likely(p[i] < 0x80):
        w.type = p[i]
        return ST_OK
    if p[i] != 0xcc and p[i] != 0xcd:
        return ST_AMBIGUOUS
    wide = p[i] - 0xcb
    if n - i <= wide:
        return ST_TRUNCATED
    w.type = <uint32_t>scan_be(p + i + 1, wide)
    return ST_OK if w.type >= (128 if wide == 1 else 256) else ST_AMBIGUOUS


cdef inline int wamp_head_cbor(const uint8_t *p, size_t n, wamp_t *w) noexcept nogil:
    """Read array header and message type of a CBOR message: definite length and unsigned integer, both in their
    shortest form (RFC 8949 section 4.2.1), neither tagged.

    :return: ST_OK, or ST_TRUNCATED, ST_MALFORMED, ST_AMBIGUOUS.
    """
    cdef size_t i = 0
    cdef uint64_t count = 0
    cdef uint64_t code = 0
    cdef int status
    if n == 0:
        return ST_TRUNCATED
    if p[0] >> 5 != CBOR_ARRAY:
        return ST_AMBIGUOUS if p[0] >> 5 == CBOR_TAG else ST_MALFORMED
    if p[0] > 0x9a:                           # indefinite, or more elements than fit into a message
        return ST_AMBIGUOUS
    status = scan_cbor_argument(p, n, &i, &count)
    if status < 0:
        return status
    if not wamp_is_shortest(i, count):
        return ST_AMBIGUOUS
    w.elements = <uint32_t>count
    if count == 0:
        return ST_MALFORMED
    if n <= i:
        return ST_TRUNCATED
    if scan_likely(p[i] < 0x18):
        w.type = p[i]
        return ST_OK
    if p[i] > 0x19:                           # wider than any type, or no unsigned integer
        return ST_AMBIGUOUS
    count = i
    status = scan_cbor_argument(p, n, &i, &code)
    if status < 0:
        return status
    w.type = <uint32_t>code
    return ST_OK if wamp_is_shortest(i - count, code) else ST_AMBIGUOUS


cdef inline int wamp_head_ubjson(const uint8_t *p, size_t n, wamp_t *w) noexcept nogil:
    """Read ``[`` and message type of a UBJSON message: the array without type and count, the type as uint8 or, from
    256 on, uint16 in little-endian, as autobahn writes them. Elements are not stated.

    An octet has no order, so that a decoder of big-endian UBJSON reads the types below 256 alike; 337 begins with a
    marker that it does not know.

    :return: ST_OK, or ST_TRUNCATED, ST_MALFORMED, ST_AMBIGUOUS.
    """
    w.elements = 0
    if n == 0:
        return ST_TRUNCATED
    if p[0] != b'[':
        return ST_AMBIGUOUS if p[0] == b'N' else ST_MALFORMED
    if n < 2:
        return ST_TRUNCATED
    if scan_likely(p[1] == b'U'):
        if n < 3:
            return ST_TRUNCATED
        w.type = p[2]
        return ST_OK
    if p[1] != b'u':
        return ST_MALFORMED if p[1] == b']' else ST_AMBIGUOUS
    if n < 4:
        return ST_TRUNCATED
    w.type = load_le16(p + 2)
    return ST_OK if w.type > 255 else ST_AMBIGUOUS


cdef inline bint wamp_is_shortest(size_t length, uint64_t value) noexcept nogil:
    """Are ``length`` (1, 2, 3 or 5) octets the shortest CBOR head for ``value``?"""
    return value >= (0 if length == 1 else 24 if length == 2 else 256 if length == 3 else 65536)


cdef inline int wamp_type(uint8_t serializer, const uint8_t *p, size_t n, wamp_t *w) noexcept nogil:
    """Read the type of the one WAMP message at ``p`` and make sure that it is one whole, well-formed value.

    :param serializer: SER_*.
    :param p: octets of the message.
    :param n: how many there are.
    :param w: gets the type, and the number of elements where the encoding states it.
    :return: ST_OK; < 0: ST_AMBIGUOUS, ST_MALFORMED, ST_TRUNCATED, ST_TRAILING, ST_DEPTH.
    """
    cdef int status
    cdef ssize_t length
    if serializer == SER_CBOR:
        status = wamp_head_cbor(p, n, w)
        if status < 0:
            return status
        length = scan_cbor(p, n)
    elif serializer == SER_MSGPACK:
        status = wamp_head_msgpack(p, n, w)
        if status < 0:
            return status
        length = scan_msgpack(p, n)
    elif serializer == SER_JSON:
        status = wamp_head_json(p, n, w)
        if status < 0:
            return status
        length = scan_json(p, n)
        if length > 0:
            length = <ssize_t>scan_json_space(p, n, <size_t>length)
    elif serializer == SER_UBJSON:
        status = wamp_head_ubjson(p, n, w)
        if status < 0:
            return status
        length = scan_ubjson(p, n)
    elif serializer == SER_FLATBUFFERS:
        w.elements = 0
        length = scan_flatbuffers(p, n, &w.type)
    else:
        return ST_MALFORMED
    if length < 0:
        return <int>length
    return ST_OK if <size_t>length == n else ST_TRAILING


cdef int wamp_plan(uint8_t serializer, uint8_t direction, const uint8_t *p, size_t n, wamp_t *w) noexcept nogil:
    """Decide what becomes of one WAMP message between linked connections.

    :param serializer: SER_*.
    :param direction: DIR_TO_BACK or DIR_TO_FRONT.
    :param p: octets of the message.
    :param n: how many there are.
    :param w: gets the type (also with ST_FORBIDDEN), and the number of elements where the encoding states it.
    :return: PLAN_PASS or PLAN_CONTROL; < 0: ST_AMBIGUOUS, ST_MALFORMED, ST_TRUNCATED, ST_TRAILING, ST_DEPTH,
        ST_FORBIDDEN.
    """
    cdef int plan
    cdef int status = wamp_type(serializer, p, n, w)
    if status < 0:
        return status
    if scan_likely(w.type < WAMP_TABLE_SIZE):
        plan = wamp_table[direction == DIR_TO_FRONT][w.type]
        return plan if plan != 0 else ST_FORBIDDEN
    return PLAN_PASS if w.type == WAMP_EVENT_RECEIVED and direction == DIR_TO_BACK else ST_FORBIDDEN
