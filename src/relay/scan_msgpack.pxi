# scan_msgpack.pxi - walk one MessagePack value without building objects. Part of proxy._relay (see src/_relay.pyx).
#
# Every type of the MessagePack specification is taken, ext and timestamps too; 0xc1 ("never used") is refused.

cdef extern from *:
    """
    /* Octets of an item whose size its first octet tells; 0: a length follows, or it is a container, or 0xc1. */
    static const unsigned char scan_msgpack_leaf[256] = {
        [0x00 ... 0x80] = 1, [0x90] = 1, [0xe0 ... 0xff] = 1,
        [0xa0] = 1, [0xa1] = 2, [0xa2] = 3, [0xa3] = 4, [0xa4] = 5, [0xa5] = 6, [0xa6] = 7, [0xa7] = 8,
        [0xa8] = 9, [0xa9] = 10, [0xaa] = 11, [0xab] = 12, [0xac] = 13, [0xad] = 14, [0xae] = 15, [0xaf] = 16,
        [0xb0] = 17, [0xb1] = 18, [0xb2] = 19, [0xb3] = 20, [0xb4] = 21, [0xb5] = 22, [0xb6] = 23, [0xb7] = 24,
        [0xb8] = 25, [0xb9] = 26, [0xba] = 27, [0xbb] = 28, [0xbc] = 29, [0xbd] = 30, [0xbe] = 31, [0xbf] = 32,
        [0xc0] = 1, [0xc2] = 1, [0xc3] = 1, [0xca] = 5, [0xcb] = 9,
        [0xcc] = 2, [0xcd] = 3, [0xce] = 5, [0xcf] = 9, [0xd0] = 2, [0xd1] = 3, [0xd2] = 5, [0xd3] = 9,
        [0xd4] = 3, [0xd5] = 4, [0xd6] = 6, [0xd7] = 10, [0xd8] = 18,
    };
    """
    const uint8_t *scan_msgpack_leaf


cdef inline uint64_t scan_be(const uint8_t *p, size_t width) noexcept nogil:
    """The unsigned integer in ``width`` (1, 2, 4 or 8) octets at ``p``."""
    if width == 1:
        return p[0]
    if width == 2:
        return load_be16(p)
    return load_be32(p) if width == 4 else load_be64(p)


cdef inline int scan_msgpack_open(const uint8_t *p, size_t n, size_t *at, uint64_t *items) noexcept nogil:
    """Read the item at ``at[0]`` < n that is not in the table of leaves.

    Strings, binaries and exts are passed over whole; of a container only the header is, and ``items`` is the number of
    values in it (twice the pairs of a map).

    :return: ST_OK, or ST_TRUNCATED, ST_MALFORMED.
    """
    cdef size_t i = at[0]
    cdef uint8_t b = p[i]
    cdef size_t width
    cdef uint64_t length
    items[0] = 0
    if b < 0xa0:                              # fixmap, fixarray
        items[0] = <uint64_t>(b & 0x0f) << (b < 0x90)
        at[0] = i + 1
        return ST_OK
    if b >= 0xdc:                             # array 16, 32, map 16, 32
        width = 4 if b & 1 else 2
    elif b >= 0xd9:                           # str 8, 16, 32
        width = <size_t>1 << (b - 0xd9)
    elif b >= 0xc7:                           # ext 8, 16, 32
        width = <size_t>1 << (b - 0xc7)
    elif b >= 0xc4:                           # bin 8, 16, 32
        width = <size_t>1 << (b - 0xc4)
    else:                                     # 0xc1
        return ST_MALFORMED
    if n - i <= width:
        return ST_TRUNCATED
    length = scan_be(p + i + 1, width)
    i += 1 + width
    if b >= 0xdc:
        items[0] = length << (b >= 0xde)
    else:
        length += 0xc7 <= b <= 0xc9           # the type octet of an ext
        if length > n - i:
            return ST_TRUNCATED
        i += length
    at[0] = i
    return ST_OK


cdef ssize_t scan_msgpack(const uint8_t *p, size_t n) noexcept nogil:
    """Walk the one MessagePack value at ``p``.

    :param p: octets of the value.
    :param n: how many there are.
    :return: octets of the value; < 0: ST_MALFORMED, ST_TRUNCATED, ST_DEPTH.
    """
    cdef uint64_t stack[SCAN_DEPTH_MAX]       # values to come in each container around the innermost one
    cdef uint64_t left = 1                    # values to come in the innermost container, the present one included
    cdef uint64_t items
    cdef unsigned depth = 0
    cdef size_t i = 0
    cdef size_t k
    cdef int status
    while True:
        if i >= n:
            return ST_TRUNCATED
        k = scan_msgpack_leaf[p[i]]
        if scan_likely(k != 0):
            i += k
        else:
            status = scan_msgpack_open(p, n, &i, &items)
            if status < 0:
                return status
            if items != 0:
                if items > n - i:             # each takes an octet at least
                    return ST_TRUNCATED
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
