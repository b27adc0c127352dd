# scan_ubjson.pxi - walk one UBJSON value without building objects. Part of proxy._relay (see src/_relay.pyx).
#
# The dialect is the one that autobahn speaks: Binary JData, draft 4, without its arrays of more than one dimension and
# its tables. That is UBJSON, draft 12, in little-endian and with the markers u, m, M, h and B added.
#
# Refused, although some decoder takes it:
#   - "#[" (dimensions) and "${" (a table's schema; in UBJSON: a container of objects): decoders differ in what follows.
#     WAMP values are neither, and decoders that allocate what a header claims are attacked through them.
#   - "#" and 0 in an array without "$", and in an object: some decoders pass over the marker behind it, others do not.
#   - more values of no size (Z, T, F after "$") than the whole message has octets: a few octets would unfold into any
#     number of values.
# Big-endian UBJSON is not taken: lengths of more than one octet would be read otherwise than the receiver reads them.

cdef extern from *:
    """
    /* Octets of a value behind its marker, plus 1; 0: a length follows, it is a container, or no marker of a value. */
    static const unsigned char scan_ubjson_leaf[256] = {
        ['Z'] = 1, ['T'] = 1, ['F'] = 1,
        ['i'] = 2, ['U'] = 2, ['B'] = 2, ['C'] = 2,
        ['I'] = 3, ['u'] = 3, ['h'] = 3,
        ['l'] = 5, ['m'] = 5, ['d'] = 5,
        ['L'] = 9, ['M'] = 9, ['D'] = 9,
    };

    #define SCAN_UBJSON_OPEN 0xffffffffffffffffULL  /* values to come in a container that ends by a bracket */
    """
    const uint8_t *scan_ubjson_leaf
    const uint64_t SCAN_UBJSON_OPEN

# A container around the present value.
ctypedef struct scan_ubjson_t:
    uint64_t left                  # values to come, the present one included; SCAN_UBJSON_OPEN
    uint8_t type                   # marker of all its values; 0: each has its own
    uint8_t end                    # the bracket that ends it, if it is open
    bint is_object


cdef inline uint64_t scan_le(const uint8_t *p, size_t width) noexcept nogil:
    """The unsigned integer in ``width`` (1, 2, 4 or 8) little-endian octets at ``p``."""
    if width == 1:
        return p[0]
    if width == 2:
        return load_le16(p)
    return load_le32(p) if width == 4 else load_le64(p)


cdef inline bint scan_ubjson_is_signed(uint8_t marker) noexcept nogil:
    """Is it the marker of a signed integer?"""
    return marker == b'i' or marker == b'I' or marker == b'l' or marker == b'L'


cdef inline bint scan_ubjson_is_integer(uint8_t marker) noexcept nogil:
    """Is it the marker of an integer?"""
    return (marker == b'U' or marker == b'u' or marker == b'm' or marker == b'M' or marker == b'B'
            or scan_ubjson_is_signed(marker))


cdef inline int scan_ubjson_length(const uint8_t *p, size_t n, size_t *at, uint64_t *length) noexcept nogil:
    """Read marker and value of the integer at ``at[0]``, a length or count; ST_OK, ST_TRUNCATED or ST_MALFORMED."""
    cdef size_t i = at[0]
    cdef size_t width
    if i >= n:
        return ST_TRUNCATED
    if not scan_ubjson_is_integer(p[i]):
        return ST_MALFORMED
    width = <size_t>scan_ubjson_leaf[p[i]] - 1
    if n - i <= width:
        return ST_TRUNCATED
    length[0] = scan_le(p + i + 1, width)
    if scan_ubjson_is_signed(p[i]) and length[0] >> (8 * width - 1) != 0:
        return ST_MALFORMED                   # negative
    at[0] = i + 1 + width
    return ST_OK


cdef inline int scan_ubjson_string(const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """Pass over length and octets of the string at ``at[0]``; ST_OK, ST_TRUNCATED or ST_MALFORMED."""
    cdef uint64_t length = 0
    cdef int status = scan_ubjson_length(p, n, at, &length)
    if status < 0:
        return status
    if length > n - at[0]:
        return ST_TRUNCATED
    at[0] += length
    return ST_OK


cdef int scan_ubjson_open(const uint8_t *p, size_t n, size_t *at, uint64_t *unsized, scan_ubjson_t *c) noexcept nogil:
    """Read what follows the ``[`` or ``{`` in front of ``at[0]``: type and count, if it has them.

    :param unsized: values of no size that the message may still have.
    :param c: its is_object is set; gets the rest. left is 0 when all of the container was passed over.
    :return: ST_OK; ST_TRUNCATED, ST_MALFORMED, ST_AMBIGUOUS.
    """
    cdef size_t i = at[0]
    cdef size_t width
    cdef int status
    c.type = 0
    c.left = SCAN_UBJSON_OPEN
    if i >= n:
        return ST_TRUNCATED
    if p[i] == b'$':
        if n - i < 3:
            return ST_TRUNCATED
        c.type = p[i + 1]
        if c.type == b'{':
            return ST_AMBIGUOUS
        if scan_ubjson_leaf[c.type] == 0 and c.type != b'S' and c.type != b'H' and c.type != b'[':
            return ST_MALFORMED
        i += 2
        if p[i] != b'#':
            return ST_MALFORMED
    elif p[i] != b'#':
        return ST_OK
    i += 1
    if i < n and p[i] == b'[':
        return ST_AMBIGUOUS
    status = scan_ubjson_length(p, n, &i, &c.left)
    if status < 0:
        return status
    at[0] = i
    if c.is_object or c.type == 0:
        if c.left == 0:
            return ST_AMBIGUOUS
    elif scan_ubjson_leaf[c.type] != 0:
        width = <size_t>scan_ubjson_leaf[c.type] - 1
        if width == 0:
            if c.left > unsized[0]:
                return ST_MALFORMED
            unsized[0] -= c.left
        elif c.left > (n - i) / width:
            return ST_TRUNCATED
        at[0] += width * c.left
        c.left = 0
    return ST_OK if c.left <= n - at[0] else ST_TRUNCATED     # each value or key takes an octet at least


cdef ssize_t scan_ubjson(const uint8_t *p, size_t n) noexcept nogil:
    """Walk the one UBJSON value at ``p``.

    :param p: octets of the value.
    :param n: how many there are.
    :return: octets of the value; < 0: ST_MALFORMED, ST_TRUNCATED, ST_DEPTH, ST_AMBIGUOUS (see above).
    """
    cdef scan_ubjson_t stack[SCAN_DEPTH_MAX + 1]
    cdef scan_ubjson_t *c = stack             # innermost container; the first one stands for what is around the value
    cdef uint64_t unsized = n
    cdef size_t i = 0
    cdef uint8_t marker
    cdef int status = ST_OK
    c.left = 1
    c.type = 0
    c.is_object = False
    while True:
        if i >= n:
            return ST_TRUNCATED
        marker = p[i]
        if c.left == SCAN_UBJSON_OPEN and marker == c.end:
            i += 1
            c -= 1
        elif marker == b'N' and c != stack and (c.is_object or c.type == 0):
            i += 1                            # a no-op, where a marker or a key could be
            continue
        else:
            if c.is_object:
                status = scan_ubjson_string(p, n, &i)
                if status < 0:
                    return status
                if i >= n and scan_ubjson_leaf[c.type] != 1:
                    return ST_TRUNCATED
            if c.type == 0:
                marker = p[i]
                i += 1
            else:
                marker = c.type
            if scan_likely(scan_ubjson_leaf[marker] != 0):
                i += <size_t>scan_ubjson_leaf[marker] - 1
            elif marker == b'S' or marker == b'H':
                status = scan_ubjson_string(p, n, &i)
                if status < 0:
                    return status
            elif marker == b'[' or marker == b'{':
                if c == &stack[SCAN_DEPTH_MAX]:
                    return ST_DEPTH
                c += 1
                c.is_object = marker == b'{'
                c.end = marker + 2            # of both brackets in ASCII
                status = scan_ubjson_open(p, n, &i, &unsized, c)
                if status < 0:
                    return status
                if c.left != 0:
                    continue
                c -= 1
            else:
                return ST_MALFORMED
        while c.left != SCAN_UBJSON_OPEN:     # a value is complete, and maybe with it the containers around it
            c.left -= 1
            if c.left != 0:
                break
            if c == stack:
                return <ssize_t>i if i <= n else ST_TRUNCATED
            c -= 1
