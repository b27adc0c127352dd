# translate_levels.pxi - what is open in a translated message: separators, counts and lengths. Part of proxy._relay (see
# src/_relay.pyx).
#
# Output has definite lengths and shortest heads. Where the source does not state how many items a container has (JSON,
# indefinite CBOR), a head of one octet is left free and written when the container closes; a container that turns out
# to be longer has its items moved up, once per width, when the first item comes that does not fit. So that no message
# makes us move more than a few times its own length, the moving is paid from an allowance (TRANSLATE_MOVES). When that
# is used up, a head that must be widened is noted, all of those are widened together when the message is complete
# (translate_finish), and containers that are opened from then on have the widest head there is at once: the only
# heads that are not the shortest. The outermost array, which the gate judges, is never one of them.

cdef extern from *:
    """
    #define TRANSLATE_ANY (UINT64_MAX / 2)      /* items to come: as many as there are */
    #define TRANSLATE_NEVER UINT64_MAX
    """
    const uint64_t TRANSLATE_ANY
    const uint64_t TRANSLATE_NEVER


cdef int translate_refuse(translate_t *t, const char *why) noexcept nogil:
    """The target has no form for a value; `why` names it."""
    t.why = why
    return ST_UNTRANSLATABLE


cdef inline uint8_t *translate_at(translate_t *t) noexcept nogil:
    """Where the next octet is written."""
    return sink_ptr(t.out) + t.out.len


cdef inline void translate_to(translate_t *t, const uint8_t *at) noexcept nogil:
    """Octets were written up to `at`."""
    t.out.len = <size_t>(at - sink_ptr(t.out))


cdef inline uint8_t *translate_cbor_head(uint8_t *q, uint8_t major, uint64_t value) noexcept nogil:
    """Write the initial octet and the shortest argument (RFC 8949 section 3.1); the place after them."""
    major <<= 5
    if scan_likely(value < 24):
        q[0] = major | <uint8_t>value
        return q + 1
    if value < 0x100:
        q[0] = major | 24
        q[1] = <uint8_t>value
        return q + 2
    if value < 0x10000:
        q[0] = major | 25
        store_be16(q + 1, <uint16_t>value)
        return q + 3
    if value >> 32 == 0:
        q[0] = major | 26
        store_be32(q + 1, <uint32_t>value)
        return q + 5
    q[0] = major | 27
    store_be64(q + 1, value)
    return q + 9


cdef inline uint8_t *translate_msgpack_head(uint8_t *q, uint8_t major, uint64_t value) noexcept nogil:
    """Write the shortest MessagePack head for a length or count below 2^32; `major` as in CBOR, CBOR_BYTES to CBOR_MAP;
    the place after it."""
    cdef uint8_t fix = 0xa0 if major == CBOR_TEXT else 0x90 if major == CBOR_ARRAY else 0x80
    cdef uint8_t wide = 0xda if major == CBOR_TEXT else 0xdc if major == CBOR_ARRAY else 0xde
    if major == CBOR_BYTES:
        wide = 0xc5
    elif scan_likely(value < (32 if major == CBOR_TEXT else 16)):
        q[0] = fix | <uint8_t>value
        return q + 1
    if value < 0x100 and major <= CBOR_TEXT:
        q[0] = wide - 1
        q[1] = <uint8_t>value
        return q + 2
    if value < 0x10000:
        q[0] = wide
        store_be16(q + 1, <uint16_t>value)
        return q + 3
    q[0] = wide + 1
    store_be32(q + 1, <uint32_t>value)
    return q + 5


cdef inline uint8_t *translate_head(uint8_t target, uint8_t *q, uint8_t major, uint64_t value) noexcept nogil:
    """Write the shortest head of a string or container in a binary target; the place after it."""
    if target == SER_CBOR:
        return translate_cbor_head(q, major, value)
    return translate_msgpack_head(q, major, value)


cdef void translate_wide_head(uint8_t target, uint8_t *q, bint is_map, uint64_t count) noexcept nogil:
    """Write the head of a container in five octets, shortest or not."""
    if target == SER_CBOR:
        q[0] = 0xba if is_map else 0x9a
    else:
        q[0] = 0xdf if is_map else 0xdd
    store_be32(q + 1, <uint32_t>count)


cdef inline unsigned translate_width(uint8_t target, uint64_t count) noexcept nogil:
    """Octets of the shortest head of a container."""
    if count < (24 if target == SER_CBOR else 16):
        return 1
    if count < 0x100 and target == SER_CBOR:
        return 2
    return 3 if count < 0x10000 else 5


cdef inline uint64_t translate_limit(const translate_t *t, const level_t *level) noexcept nogil:
    """The largest number of items that fits into the head of a container."""
    if level.width == 5:
        return TRANSLATE_NEVER
    if level.width == 1:
        return <uint64_t>(23 if t.target == SER_CBOR else 15) << level.is_map
    return <uint64_t>(0xff if level.width == 2 else 0xffff) << level.is_map


cdef int translate_widen(translate_t *t) noexcept nogil:
    """The head of the innermost container is too short for one more item: widen it, or note that it must be. There is
    room for TRANSLATE_ROOM more octets."""
    cdef level_t *level = t.level
    cdef uint8_t width = <uint8_t>translate_width(t.target, (level.items >> level.is_map) + 1)
    cdef size_t start = level.head + level.width
    cdef size_t length = t.out.len - start
    cdef uint8_t *q = sink_ptr(t.out) + start
    cdef unsigned i
    if t.late_depth == 0 and length > t.moves:
        t.late_depth = t.depth
        for i in range(t.depth + 1):
            t.late[i].width = 0
    if t.late_depth != 0:
        level.limit = TRANSLATE_NEVER         # what is open now was opened before, so it has a place in late
        t.late[t.depth].head = level.head
        t.late[t.depth].width = level.width
        t.late[t.depth].is_map = level.is_map
        return ST_OK
    t.moves -= length
    memmove(q + width - level.width, q, length)
    t.out.len += width - level.width
    level.width = width
    level.limit = translate_limit(t, level)
    return sink_room(t.out, TRANSLATE_ROOM)


cdef inline int translate_begin(translate_t *t, bint may_be_key) noexcept nogil:
    """Begin an item: afterwards there is room for TRANSLATE_ROOM octets less the separator that JSON wants.

    :param may_be_key: JSON has a form for this value as a member's name.
    """
    cdef level_t *level = t.level
    cdef int status = sink_room(t.out, TRANSLATE_ROOM)
    if status < 0:
        return status
    if t.target == SER_JSON:
        if level.is_map and (level.items & 1) == 0 and not may_be_key:
            return translate_refuse(t, b"a map key that is neither text nor an integer")
        if level.items != 0:
            translate_at(t)[0] = b':' if level.is_map and level.items & 1 else b','
            t.out.len += 1
    elif level.items == level.limit:
        status = translate_widen(t)
        if status < 0:
            return status
    level.items += 1
    return ST_OK


cdef inline bint translate_is_key(const translate_t *t) noexcept nogil:
    """Is the item that has begun the key of a map?"""
    return t.level.is_map and (t.level.items & 1) != 0


cdef int translate_open(translate_t *t, bint is_map, uint64_t items) noexcept nogil:
    """Begin a container.

    :param items: number of items in it (twice the pairs of a map), or TRANSLATE_ANY.
    """
    cdef level_t *level
    cdef uint8_t *q
    cdef int status = translate_begin(t, False)
    if status < 0:
        return status
    if t.depth == SCAN_DEPTH_MAX:
        return ST_DEPTH
    t.depth += 1
    t.level += 1
    level = t.level
    level.items = 0
    level.left = items
    level.limit = TRANSLATE_NEVER
    level.width = 0
    level.is_map = is_map
    q = translate_at(t)
    if t.target == SER_JSON:
        q[0] = b'{' if is_map else b'['
        t.out.len += 1
    elif items != TRANSLATE_ANY:
        translate_to(t, translate_head(t.target, q, CBOR_MAP if is_map else CBOR_ARRAY, items >> is_map))
    else:
        level.head = t.out.len
        level.width = 1 if t.late_depth == 0 else 5
        level.limit = translate_limit(t, level)
        t.out.len += level.width
    return ST_OK


cdef void translate_patch(translate_t *t) noexcept nogil:
    """Write the head of the innermost container, whose count is known now."""
    cdef level_t *level = t.level
    cdef uint64_t count = level.items >> level.is_map
    cdef uint8_t *q = sink_ptr(t.out) + level.head
    if level.width == 5:
        translate_wide_head(t.target, q, level.is_map, count)
    elif translate_width(t.target, count) == level.width:
        translate_head(t.target, q, CBOR_MAP if level.is_map else CBOR_ARRAY, count)
    else:
        t.late[t.depth].count = count         # noted by translate_widen


cdef inline int translate_close(translate_t *t) noexcept nogil:
    """End the innermost container."""
    cdef int status
    if t.target == SER_JSON:
        status = sink_room(t.out, 1)
        if status < 0:
            return status
        translate_at(t)[0] = b'}' if t.level.is_map else b']'
        t.out.len += 1
    elif t.level.width != 0:
        translate_patch(t)
    t.depth -= 1
    t.level -= 1
    return ST_OK


cdef int translate_finish(translate_t *t) noexcept nogil:
    """Widen the heads that were noted, in one pass from the end of the output to its start."""
    cdef size_t more = 0
    cdef size_t end = t.out.len
    cdef size_t start
    cdef late_t *late
    cdef uint8_t *base
    cdef unsigned i
    cdef int status
    for i in range(1, t.late_depth + 1):
        late = &t.late[i]
        if late.width != 0:
            more += translate_width(t.target, late.count) - late.width
    if more == 0:
        return ST_OK
    status = sink_room(t.out, more)
    if status < 0:
        return status
    base = sink_ptr(t.out)
    t.out.len += more
    i = t.late_depth                          # deeper ones stand further back: a head inside another one's items
    while more != 0:
        late = &t.late[i]
        i -= 1
        if late.width == 0:
            continue
        start = late.head + late.width
        memmove(base + start + more, base + start, end - start)
        end = late.head
        more -= translate_width(t.target, late.count) - late.width
        translate_head(t.target, base + late.head + more, CBOR_MAP if late.is_map else CBOR_ARRAY, late.count)
    return ST_OK
