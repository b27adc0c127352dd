# fields_ubjson.pxi - the field cursor over UBJSON. Part of proxy._relay (see src/_relay.pyx).
#
# What a cursor of one serializer offers is told in fields.pxi. A key has no marker in front of it, so that there is one
# function more. Containers with a type ("$") are passed over whole: decoders make other things of them than the lists
# and dictionaries that WAMP wants where session IDs are.

cdef inline size_t fields_ubjson_skip(const uint8_t *p, size_t n, size_t at) noexcept nogil:
    """Behind the no-ops at ``at``."""
    while at < n and p[at] == b'N':
        at += 1
    return at


cdef inline int fields_ubjson_text(const uint8_t *p, size_t n, size_t at, item_t *item) noexcept nogil:
    """Read length and octets at ``at`` into the item: text, length, end, kind; ST_OK or ST_MALFORMED."""
    cdef uint64_t length = 0
    if scan_ubjson_length(p, n, &at, &length) < 0 or length > n - at:
        return ST_MALFORMED
    item.kind = ITEM_TEXT
    item.text = at
    item.length = length
    item.end = at + length
    return ST_OK


cdef inline int fields_ubjson_open(const uint8_t *p, size_t n, size_t at, item_t *item) noexcept nogil:
    """Read what follows the bracket in front of ``at`` into the item: kind, value, end; ST_OK or ST_MALFORMED."""
    cdef ssize_t length
    if at < n and p[at] == b'$':
        length = scan_ubjson(p + item.start, n - item.start)
        if length < 0:
            return ST_MALFORMED
        item.end = item.start + <size_t>length
        return ST_OK
    item.kind = ITEM_MAP if p[item.start] == b'{' else ITEM_ARRAY
    item.value = ITEM_OPEN
    if at < n and p[at] == b'#':
        at += 1
        if scan_ubjson_length(p, n, &at, &item.value) < 0:
            return ST_MALFORMED
    item.end = at
    return ST_OK


cdef inline int fields_ubjson_next(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read the item at ``at``: see fields_next."""
    cdef size_t i = fields_ubjson_skip(p, n, at[0])
    cdef size_t width
    cdef uint8_t marker
    cdef int st = ST_OK
    if i >= n:
        return ST_MALFORMED
    marker = p[i]
    width = scan_ubjson_leaf[marker]
    if width > n - i:
        return ST_MALFORMED
    item.start = i
    item.spelled = False
    item.kind = ITEM_OTHER
    item.end = i + width
    if scan_ubjson_is_integer(marker):
        width -= 1
        item.value = scan_le(p + i + 1, width)
        if not scan_ubjson_is_signed(marker) or item.value >> (8 * width - 1) == 0:
            item.kind = ITEM_UINT
    elif marker == b'S' or marker == b'H':
        st = fields_ubjson_text(p, n, i + 1, item)
        if marker == b'H':
            item.kind = ITEM_OTHER
    elif marker == b'T':
        item.kind = ITEM_TRUE
    elif marker == b'C':
        item.kind = ITEM_TEXT
        item.text = i + 1
        item.length = 1
    elif marker == b'[' or marker == b'{':
        st = fields_ubjson_open(p, n, i + 1, item)
    elif width == 0:
        return ST_MALFORMED
    at[0] = item.end
    return st


cdef inline int fields_ubjson_key(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read the key at ``at``: see fields_key."""
    item.start = fields_ubjson_skip(p, n, at[0])
    item.spelled = False
    if fields_ubjson_text(p, n, item.start, item) < 0:
        return ST_MALFORMED
    at[0] = item.end
    return ST_OK


cdef inline int fields_ubjson_more(const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """In a container that ends by a bracket: see fields_more."""
    at[0] = fields_ubjson_skip(p, n, at[0])
    if at[0] >= n:
        return ST_MALFORMED
    if p[at[0]] != b']' and p[at[0]] != b'}':
        return ST_OK
    at[0] += 1
    return ST_MORE


cdef inline size_t fields_ubjson_put(uint8_t *q, uint64_t value) noexcept nogil:
    """Write an integer in its shortest form, at most FIELDS_UINT_MAX octets; how many."""
    if value < 0x100:
        q[0] = b'U'
        q[1] = <uint8_t>value
        return 2
    if value < 0x10000:
        q[0] = b'u'
        q[1] = <uint8_t>value
        q[2] = <uint8_t>(value >> 8)
        return 3
    if value < <uint64_t>0x100000000:
        q[0] = b'm'
        store_le32(q + 1, <uint32_t>value)
        return 5
    q[0] = b'M'
    store_le64(q + 1, value)
    return 9
