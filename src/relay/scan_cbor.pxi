# scan_cbor.pxi - walk one CBOR data item without building objects. Part of proxy._relay (see src/_relay.pyx).
#
# What is well-formed by RFC 8949 (section 3 and appendix C) is taken: tags, floats, simple values, indefinite lengths,
# over-wide arguments. Reserved initial octets, stray breaks and two-octet simple values below 32 are refused.

cdef extern from *:
    """
    /* Octets of an item whose size its first octet tells; 0: a length follows, it contains others, or is refused. */
    static const unsigned char scan_cbor_leaf[256] = {
        [0x00 ... 0x17] = 1, [0x18] = 2, [0x19] = 3, [0x1a] = 5, [0x1b] = 9,
        [0x20 ... 0x37] = 1, [0x38] = 2, [0x39] = 3, [0x3a] = 5, [0x3b] = 9,
    #define SCAN_CBOR_STRINGS(b) \\
        [(b) + 0] = 1, [(b) + 1] = 2, [(b) + 2] = 3, [(b) + 3] = 4, [(b) + 4] = 5, [(b) + 5] = 6, [(b) + 6] = 7, \\
        [(b) + 7] = 8, [(b) + 8] = 9, [(b) + 9] = 10, [(b) + 10] = 11, [(b) + 11] = 12, [(b) + 12] = 13, \\
        [(b) + 13] = 14, [(b) + 14] = 15, [(b) + 15] = 16, [(b) + 16] = 17, [(b) + 17] = 18, [(b) + 18] = 19, \\
        [(b) + 19] = 20, [(b) + 20] = 21, [(b) + 21] = 22, [(b) + 22] = 23, [(b) + 23] = 24
        SCAN_CBOR_STRINGS(0x40),
        SCAN_CBOR_STRINGS(0x60),
    #undef SCAN_CBOR_STRINGS
        [0x80] = 1, [0xa0] = 1,
        [0xe0 ... 0xf7] = 1, [0xf9] = 3, [0xfa] = 5, [0xfb] = 9,
    };
    """
    const uint8_t *scan_cbor_leaf

cdef enum:
    CBOR_BYTES = 2                            # major types, RFC 8949 section 3.1
    CBOR_TEXT = 3
    CBOR_ARRAY = 4
    CBOR_MAP = 5
    CBOR_TAG = 6
    CBOR_BREAK = 0xff

# Values to come in a container of indefinite length: so many that counting down never meets 0. The top bit is set; bit
# 62 is set in an array and clear in a map; in a map, bit 0 tells whether a key waits for its value.
cdef extern from *:
    """
    #define SCAN_CBOR_OPEN_ARRAY 0xe000000000000000ULL
    #define SCAN_CBOR_OPEN_MAP 0xa000000000000000ULL
    #define scan_cbor_is_open(left) (((left) >> 63) != 0)
    #define scan_cbor_is_odd_map(left) (((left) >> 62) == 2 && ((left) & 1) != 0)
    """
    const uint64_t SCAN_CBOR_OPEN_ARRAY
    const uint64_t SCAN_CBOR_OPEN_MAP
    bint scan_cbor_is_open(uint64_t left) noexcept nogil
    bint scan_cbor_is_odd_map(uint64_t left) noexcept nogil


cdef inline int scan_cbor_argument(const uint8_t *p, size_t n, size_t *at, uint64_t *value) noexcept nogil:
    """Read initial octet and argument of the item at ``at[0]`` < n (RFC 8949 section 3); ST_OK, or ST_*."""
    cdef size_t i = at[0]
    cdef unsigned info = p[i] & 0x1f
    cdef size_t width
    if info < 24:
        value[0] = info
        at[0] = i + 1
        return ST_OK
    if info > 27:
        return ST_MALFORMED
    width = <size_t>1 << (info - 24)
    if n - i <= width:
        return ST_TRUNCATED
    value[0] = scan_be(p + i + 1, width)
    at[0] = i + 1 + width
    return ST_OK


cdef int scan_cbor_chunks(const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """Pass over the string of indefinite length at ``at[0]``: chunks of definite length and the same major type, then a
    break (RFC 8949 section 3.2.3); ST_OK, or ST_*."""
    cdef uint8_t major = p[at[0]] >> 5
    cdef uint64_t length = 0
    cdef int status
    at[0] += 1
    while True:
        if at[0] >= n:
            return ST_TRUNCATED
        if p[at[0]] == CBOR_BREAK:
            at[0] += 1
            return ST_OK
        if p[at[0]] >> 5 != major:
            return ST_MALFORMED
        status = scan_cbor_argument(p, n, at, &length)
        if status < 0:
            return status
        if length > n - at[0]:
            return ST_TRUNCATED
        at[0] += length


cdef inline int scan_cbor_open(const uint8_t *p, size_t n, size_t *at, uint64_t *items) noexcept nogil:
    """Read the item at ``at[0]`` < n that is neither in the table of leaves nor a break.

    Strings and simple values are passed over whole; of a container or tag only the header is, and ``items`` is the
    number of items in it (twice the pairs of a map; SCAN_CBOR_OPEN_* for indefinite lengths).

    :return: ST_OK, or ST_TRUNCATED, ST_MALFORMED.
    """
    cdef uint8_t b = p[at[0]]
    cdef uint8_t major = b >> 5
    cdef uint64_t value = 0
    cdef int status
    items[0] = 0
    if (b & 0x1f) == 0x1f:
        if major == CBOR_BYTES or major == CBOR_TEXT:
            return scan_cbor_chunks(p, n, at)
        if major != CBOR_ARRAY and major != CBOR_MAP:
            return ST_MALFORMED
        items[0] = SCAN_CBOR_OPEN_ARRAY if major == CBOR_ARRAY else SCAN_CBOR_OPEN_MAP
        at[0] += 1
        return ST_OK
    status = scan_cbor_argument(p, n, at, &value)
    if status < 0:
        return status
    if major == CBOR_ARRAY or major == CBOR_MAP:
        if value > n - at[0]:                 # each takes an octet at least; keeps the doubling from overflowing
            return ST_TRUNCATED
        items[0] = value << (major - CBOR_ARRAY)
    elif major == CBOR_TAG:
        items[0] = 1
    elif major == CBOR_BYTES or major == CBOR_TEXT:
        if value > n - at[0]:
            return ST_TRUNCATED
        at[0] += value
    elif value < 32:                          # the only other one that is no leaf: a simple value in two octets
        return ST_MALFORMED
    return ST_OK


cdef ssize_t scan_cbor(const uint8_t *p, size_t n) noexcept nogil:
    """Walk the one CBOR data item at ``p``.

    :param p: octets of the item.
    :param n: how many there are.
    :return: octets of the item; < 0: ST_MALFORMED, ST_TRUNCATED, ST_DEPTH (tags count as one level each).
    """
    cdef uint64_t stack[SCAN_DEPTH_MAX]       # items to come in each container around the innermost one
    cdef uint64_t left = 1                    # items to come in the innermost container, the present one included
    cdef uint64_t items = 0
    cdef unsigned depth = 0
    cdef size_t i = 0
    cdef size_t k
    cdef int status
    while True:
        if i >= n:
            return ST_TRUNCATED
        k = scan_cbor_leaf[p[i]]
        if scan_likely(k != 0):
            i += k
        elif p[i] == CBOR_BREAK:
            if not scan_cbor_is_open(left) or scan_cbor_is_odd_map(left):
                return ST_MALFORMED
            i += 1
            left = 1                          # the container itself is complete now
        else:
            status = scan_cbor_open(p, n, &i, &items)
            if status < 0:
                return status
            if items != 0:
                if depth == SCAN_DEPTH_MAX:
                    return ST_DEPTH
                stack[depth] = left
                depth += 1
                left = items
                continue
        left -= 1
        while left == 0:
            if depth == 0:
                return <ssize_t>i if i <= n else ST_TRUNCATED
            depth -= 1
            left = stack[depth] - 1
