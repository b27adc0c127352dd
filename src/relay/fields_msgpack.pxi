# fields_msgpack.pxi - the field cursor over MessagePack. Part of proxy._relay (see src/_relay.pyx).
#
# What a cursor of one serializer offers is told in fields.pxi.

cdef inline int fields_msgpack_wide(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read an item whose first octet is 0xc0 to 0xdf."""
    cdef uint8_t b = p[at[0]]
    cdef size_t i = at[0] + 1
    cdef size_t width
    cdef uint64_t items
    if b >= 0xd9:                             # str 8, 16, 32, array 16, 32, map 16, 32
        width = <size_t>1 << (b - 0xd9) if b <= 0xdb else 4 if b & 1 else 2
        if n - i < width:
            return ST_MALFORMED
        item.value = scan_be(p + i, width)
        i += width
        item.kind = ITEM_TEXT if b <= 0xdb else ITEM_ARRAY if b <= 0xdd else ITEM_MAP
        if b <= 0xdb:
            item.text = i
            item.length = item.value
            if item.length > n - i:
                return ST_MALFORMED
            i += item.length
        at[0] = i
        return ST_OK
    if 0xcc <= b <= 0xd3:                     # uint and int 8, 16, 32, 64
        width = <size_t>1 << (b & 3)
        if n - i < width:
            return ST_MALFORMED
        item.value = scan_be(p + i, width)
        if b <= 0xcf or p[i] < 0x80:
            item.kind = ITEM_UINT
        at[0] = i + width
        return ST_OK
    if b == 0xc3:
        item.kind = ITEM_TRUE
    if scan_msgpack_leaf[b]:
        if scan_msgpack_leaf[b] > n - at[0]:
            return ST_MALFORMED
        at[0] += scan_msgpack_leaf[b]
        return ST_OK
    return ST_OK if scan_msgpack_open(p, n, at, &items) > 0 else ST_MALFORMED


cdef inline int fields_msgpack_next(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read the item at ``at``: see fields_next."""
    cdef size_t i = at[0]
    cdef uint8_t b
    if i >= n:
        return ST_MALFORMED
    b = p[i]
    item.start = i
    item.spelled = False
    item.kind = ITEM_OTHER
    at[0] = i + 1
    if b < 0x80:
        item.kind = ITEM_UINT
        item.value = b
    elif b < 0xa0:
        item.kind = ITEM_MAP if b < 0x90 else ITEM_ARRAY
        item.value = b & 15
    elif b < 0xc0:
        item.kind = ITEM_TEXT
        item.text = i + 1
        item.length = b & 31
        if item.length > n - item.text:
            return ST_MALFORMED
        at[0] += item.length
    elif b < 0xe0:
        at[0] = i
        if fields_msgpack_wide(p, n, at, item) < 0:
            return ST_MALFORMED
    item.end = at[0]
    return ST_OK


cdef inline size_t fields_msgpack_put(uint8_t *q, uint64_t value) noexcept nogil:
    """Write an integer in its shortest form, at most FIELDS_UINT_MAX octets; how many."""
    if value < 0x80:
        q[0] = <uint8_t>value
        return 1
    if value < 0x100:
        q[0] = 0xcc
        q[1] = <uint8_t>value
        return 2
    if value < 0x10000:
        q[0] = 0xcd
        store_be16(q + 1, <uint16_t>value)
        return 3
    if value < <uint64_t>0x100000000:
        q[0] = 0xce
        store_be32(q + 1, <uint32_t>value)
        return 5
    q[0] = 0xcf
    store_be64(q + 1, value)
    return 9
