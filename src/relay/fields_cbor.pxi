# fields_cbor.pxi - the field cursor over CBOR. Part of proxy._relay (see src/_relay.pyx).
#
# What a cursor of one serializer offers is told in fields.pxi.

cdef int fields_cbor_other(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read an item that is neither integer, text nor a container of definite length."""
    cdef uint8_t b = p[at[0]]
    cdef uint64_t items = 0
    if b == 0x7f:
        item.kind = ITEM_TEXT
        item.spelled = True
        item.text = at[0] + 1
        if scan_cbor_chunks(p, n, at) < 0:
            return ST_MALFORMED
        item.length = at[0] - 1 - item.text
        return ST_OK
    if b == 0x9f or b == 0xbf:
        item.kind = ITEM_ARRAY if b == 0x9f else ITEM_MAP
        item.value = ITEM_OPEN
        at[0] += 1
        return ST_OK
    if b >> 5 == CBOR_TAG:
        item.kind = ITEM_WRAPPED
        item.value = 1
    elif scan_cbor_leaf[b]:
        if scan_cbor_leaf[b] > n - at[0]:
            return ST_MALFORMED
        item.kind = ITEM_TRUE if b == 0xf5 else ITEM_OTHER
        at[0] += scan_cbor_leaf[b]
        return ST_OK
    if b == CBOR_BREAK:
        return ST_MALFORMED
    return ST_OK if scan_cbor_open(p, n, at, &items) > 0 else ST_MALFORMED


cdef inline int fields_cbor_next(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read the item at ``at``: see fields_next."""
    cdef size_t i = at[0]
    cdef uint8_t major
    cdef uint64_t value
    if i >= n:
        return ST_MALFORMED
    item.start = i
    item.spelled = False
    item.kind = ITEM_OTHER
    major = p[i] >> 5
    if (p[i] & 0x1f) > 27 or (major != 0 and (major < CBOR_TEXT or major > CBOR_MAP)):
        if fields_cbor_other(p, n, at, item) < 0:
            return ST_MALFORMED
        item.end = at[0]
        return ST_OK
    if scan_cbor_argument(p, n, at, &value) < 0:
        return ST_MALFORMED
    item.value = value
    if major == 0:
        item.kind = ITEM_UINT
    elif major == CBOR_TEXT:
        item.kind = ITEM_TEXT
        item.text = at[0]
        item.length = value
        if value > n - at[0]:
            return ST_MALFORMED
        at[0] += value
    else:
        item.kind = ITEM_ARRAY if major == CBOR_ARRAY else ITEM_MAP
        if value == ITEM_OPEN:                # more than there can be, and not what it would be taken for
            return ST_MALFORMED
    item.end = at[0]
    return ST_OK


cdef inline int fields_cbor_more(const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """In a container of indefinite length: see fields_more."""
    if at[0] >= n:
        return ST_MALFORMED
    if p[at[0]] != CBOR_BREAK:
        return ST_OK
    at[0] += 1
    return ST_MORE


cdef size_t fields_cbor_spell(const uint8_t *p, const item_t *item, uint8_t *room, size_t size) noexcept nogil:
    """Put the chunks of a text together: see fields_text."""
    cdef size_t i = item.text
    cdef size_t end = item.text + item.length
    cdef size_t k = 0
    cdef uint64_t length = 0
    while i < end and k < size:
        if scan_cbor_argument(p, end, &i, &length) < 0 or length > end - i:
            break
        if length > size - k:
            length = size - k
        memcpy(room + k, p + i, length)
        k += length
        i += length
    return k


cdef inline size_t fields_cbor_put(uint8_t *q, uint64_t value) noexcept nogil:
    """Write an integer in its shortest form, at most FIELDS_UINT_MAX octets; how many."""
    if value < 24:
        q[0] = <uint8_t>value
        return 1
    if value < 0x100:
        q[0] = 0x18
        q[1] = <uint8_t>value
        return 2
    if value < 0x10000:
        q[0] = 0x19
        store_be16(q + 1, <uint16_t>value)
        return 3
    if value < <uint64_t>0x100000000:
        q[0] = 0x1a
        store_be32(q + 1, <uint32_t>value)
        return 5
    q[0] = 0x1b
    store_be64(q + 1, value)
    return 9
