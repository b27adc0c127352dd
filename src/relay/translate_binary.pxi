# translate_binary.pxi - reads a MessagePack or CBOR value and writes it in another serializer. Part of proxy._relay
# (see src/_relay.pyx).
#
# MessagePack: every type but ext (timestamps too) has a form elsewhere. CBOR: of the tags, 55799 ("this is CBOR") is
# dropped, and bignums (2, 3) are the integers that they stand for when these have 64 bits; undefined becomes null.

cdef int translate_msgpack_number(translate_t *t, uint8_t b, const uint8_t *p) noexcept nogil:
    """Write the number with first octet `b`, 0xca to 0xd3, whose value is at `p`."""
    if b == 0xca:
        return translate_float32(t, load_be32(p))
    if b == 0xcb:
        return translate_float64(t, load_be64(p))
    if b <= 0xcf:
        return translate_unsigned(t, scan_be(p, <size_t>1 << (b - 0xcc)))
    if b == 0xd0:
        return translate_signed(t, <int8_t>p[0])
    if b == 0xd1:
        return translate_signed(t, <int16_t>load_be16(p))
    if b == 0xd2:
        return translate_signed(t, <int32_t>load_be32(p))
    return translate_signed(t, <int64_t>load_be64(p))


cdef int translate_msgpack_long(translate_t *t, size_t *at) noexcept nogil:
    """Write the item at ``at[0]`` < n, with first octet 0xc0 to 0xdf: of a container, its beginning."""
    cdef const uint8_t *p = t.p
    cdef size_t i = at[0]
    cdef uint8_t b = p[i]
    cdef size_t width
    cdef uint64_t length
    if b == 0xc0 or b == 0xc2 or b == 0xc3:
        at[0] = i + 1
        return translate_simple(t, TRANSLATE_NULL if b == 0xc0 else b - <unsigned>0xc2)
    if b == 0xc1:
        return ST_MALFORMED
    if 0xca <= b <= 0xd3:
        width = scan_msgpack_leaf[b]
        if t.n - i < width:
            return ST_MALFORMED
        at[0] = i + width
        return translate_msgpack_number(t, b, p + i + 1)
    if 0xc7 <= b <= 0xc9 or 0xd4 <= b <= 0xd8:
        return translate_refuse(t, b"a MessagePack extension value")
    if b >= 0xdc:                             # array 16, 32, map 16, 32
        width = 4 if b & 1 else 2
    else:                                     # bin 8, 16, 32; str 8, 16, 32
        width = <size_t>1 << (b - (0xd9 if b >= 0xd9 else 0xc4))
    if t.n - i <= width:
        return ST_MALFORMED
    length = scan_be(p + i + 1, width)
    i += 1 + width
    at[0] = i
    if b >= 0xdc:
        return translate_open(t, b >= 0xde, length << (b >= 0xde))
    if length > t.n - i:
        return ST_MALFORMED
    at[0] = i + length
    if b >= 0xd9:
        return translate_text(t, p + i, length)
    return translate_bytes(t, p + i, length)


cdef inline int translate_msgpack_item(translate_t *t, size_t *at) noexcept nogil:
    """Write the item at ``at[0]`` < n: of a container, its beginning. ``at[0]`` gets the index after what was read."""
    cdef size_t i = at[0]
    cdef uint8_t b = t.p[i]
    cdef size_t length
    at[0] = i + 1
    if b < 0x80:
        return translate_unsigned(t, b)
    if b < 0xa0:                              # fixmap, fixarray
        return translate_open(t, b < 0x90, <uint64_t>(b & 15) << (b < 0x90))
    if b < 0xc0:                              # fixstr
        length = b & 31
        if t.n - i <= length:
            return ST_MALFORMED
        at[0] = i + 1 + length
        return translate_text(t, t.p + i + 1, length)
    if b >= 0xe0:
        return translate_negative(t, <uint64_t>0xff - b)
    at[0] = i
    return translate_msgpack_long(t, at)


cdef inline int translate_complete(translate_t *t) noexcept nogil:
    """An item is complete: count it, and close the containers of stated length that end with it."""
    cdef int status
    t.level.left -= 1
    while t.level.left == 0 and t.depth != 0:
        status = translate_close(t)
        if status < 0:
            return status
        t.level.left -= 1
    return ST_OK


cdef int translate_from_msgpack(translate_t *t) noexcept nogil:
    """Write the one MessagePack value in the whole of t.p[0:t.n]."""
    cdef size_t i = 0
    cdef unsigned depth
    cdef int status
    while t.level.left != 0:
        if i >= t.n:
            return ST_MALFORMED
        depth = t.depth
        status = translate_msgpack_item(t, &i)
        if status < 0:
            return status
        if t.depth == depth:
            status = translate_complete(t)
        elif t.level.left > t.n - i:          # each takes an octet at least
            return ST_MALFORMED
        elif t.level.left == 0:
            status = translate_close(t)
            if status > 0:
                status = translate_complete(t)
        if status < 0:
            return status
    return ST_OK if i == t.n else ST_MALFORMED


cdef int translate_cbor_pieces(translate_t *t, size_t *at, uint64_t *length) noexcept nogil:
    """Check the pieces of a string of indefinite length whose first octet is at ``at[0]``, and add up their lengths
    (RFC 8949 section 3.2.3); ``at[0]`` gets the index after it. Each piece of a text is a text of its own."""
    cdef uint8_t major = t.p[at[0]] >> 5
    cdef uint64_t piece = 0
    cdef int status
    length[0] = 0
    at[0] += 1
    while True:
        if at[0] >= t.n:
            return ST_MALFORMED
        if t.p[at[0]] == CBOR_BREAK:
            at[0] += 1
            return ST_OK
        if t.p[at[0]] >> 5 != major or scan_cbor_argument(t.p, t.n, at, &piece) < 0 or piece > t.n - at[0]:
            return ST_MALFORMED
        if major == CBOR_TEXT and not utf8_is_valid(t.p + at[0], piece):
            return translate_refuse(t, b"text that is not valid UTF-8")
        at[0] += piece
        length[0] += piece


cdef int translate_cbor_chunked(translate_t *t, size_t *at) noexcept nogil:
    """Write the string of indefinite length at ``at[0]`` < n."""
    cdef const uint8_t *p = t.p
    cdef size_t i = at[0] + 1
    cdef uint8_t major = p[at[0]] >> 5
    cdef uint64_t length = 0
    cdef uint64_t piece = 0
    cdef bint is_first = True
    cdef int status = translate_cbor_pieces(t, at, &length)
    if status > 0:
        status = translate_begin(t, major == CBOR_TEXT)
    if status < 0:
        return status
    if t.target == SER_JSON and major == CBOR_BYTES:
        return translate_json_bytes(t, NULL, length, p + i)
    if t.target == SER_JSON:
        status = translate_quote(t)
    else:
        translate_to(t, translate_head(t.target, translate_at(t), major, length))
    while status > 0 and p[i] != CBOR_BREAK:
        scan_cbor_argument(p, t.n, &i, &piece)
        if t.target != SER_JSON:
            status = sink_put(t.out, p + i, piece)
        elif is_first and piece != 0 and p[i] == 0 and not translate_is_key(t):
            return translate_refuse(t, b"text that begins with U+0000, which in JSON is binary data")
        else:
            status = translate_json_body(t, p + i, piece)
        is_first = is_first and piece == 0
        i += piece
    if status > 0 and t.target == SER_JSON:
        status = translate_quote(t)
    return status


cdef int translate_cbor_bignum(translate_t *t, size_t *at, bint is_negative) noexcept nogil:
    """Write the integer in the octets of the byte string at ``at[0]`` (RFC 8949 section 3.4.3)."""
    cdef const uint8_t *p = t.p
    cdef size_t i = at[0]
    cdef uint64_t length = 0
    cdef uint64_t value = 0
    cdef uint64_t octet
    cdef bint is_chunked
    cdef int status = ST_OK
    if i >= t.n or p[i] >> 5 != CBOR_BYTES:
        return translate_refuse(t, b"a CBOR tag")
    is_chunked = p[i] == 0x5f
    if is_chunked:
        status = translate_cbor_pieces(t, at, &length)
        i += 1
    if status < 0:
        return status
    while not is_chunked or p[i] != CBOR_BREAK:
        if scan_cbor_argument(p, t.n, &i, &length) < 0 or length > t.n - i:
            return ST_MALFORMED
        for octet in range(length):
            if value >> 56:
                return translate_refuse(t, b"an integer of more than 64 bits")
            value = value << 8 | p[i + octet]
        i += length
        if not is_chunked:
            at[0] = i
            break
    return translate_negative(t, value) if is_negative else translate_unsigned(t, value)


cdef int translate_cbor_simple(translate_t *t, size_t *at) noexcept nogil:
    """Write the float or simple value at ``at[0]`` < n, major type 7 (RFC 8949 section 3.3)."""
    cdef uint8_t b = t.p[at[0]]
    cdef uint64_t value = 0
    if scan_cbor_argument(t.p, t.n, at, &value) < 0:
        return ST_MALFORMED
    if b == 0xfb:
        return translate_float64(t, value)
    if b == 0xfa:
        return translate_float32(t, <uint32_t>value)
    if b == 0xf9:
        return translate_float32(t, translate_widen_half(<uint32_t>value))
    if b == 0xf7:
        return translate_simple(t, TRANSLATE_NULL)
    if 0xf4 <= b <= 0xf6:
        return translate_simple(t, b - <unsigned>0xf4)
    return translate_refuse(t, b"a CBOR simple value")


cdef int translate_cbor_tagged(translate_t *t, size_t *at) noexcept nogil:
    """Pass over the tags at ``at[0]`` < n that say nothing, or write the bignum; ST_MORE: the item follows."""
    cdef uint64_t tag = 0
    if scan_cbor_argument(t.p, t.n, at, &tag) < 0:
        return ST_MALFORMED
    if tag == 55799:
        return ST_MORE if at[0] < t.n else ST_MALFORMED
    if tag == 2 or tag == 3:
        return translate_cbor_bignum(t, at, tag == 3)
    return translate_refuse(t, b"a CBOR tag")


cdef inline int translate_cbor_item(translate_t *t, size_t *at) noexcept nogil:
    """Write the item at ``at[0]`` < n, no break: of a container, its beginning. ``at[0]`` gets the index after what was
    read. ST_MORE: that was a tag without meaning."""
    cdef const uint8_t *p = t.p
    cdef size_t i = at[0]
    cdef uint8_t b = p[i]
    cdef uint8_t major = b >> 5
    cdef uint64_t value
    if major > CBOR_MAP:
        return translate_cbor_tagged(t, at) if major == CBOR_TAG else translate_cbor_simple(t, at)
    if scan_likely((b & 31) < 24):
        value = b & 31
        i += 1
    elif (b & 31) != 31:
        value = 0
        if scan_cbor_argument(p, t.n, &i, &value) < 0:
            return ST_MALFORMED
    elif major >= CBOR_ARRAY:
        at[0] = i + 1
        return translate_open(t, major == CBOR_MAP, TRANSLATE_ANY)
    elif major >= CBOR_BYTES:
        return translate_cbor_chunked(t, at)
    else:
        return ST_MALFORMED
    at[0] = i
    if major == 0:
        return translate_unsigned(t, value)
    if major == 1:
        return translate_negative(t, value)
    if value > t.n - i:                       # octets, or items of an octet at least, which keeps 2 * value small
        return ST_MALFORMED
    if major >= CBOR_ARRAY:
        return translate_open(t, major == CBOR_MAP, value << (major - CBOR_ARRAY))
    at[0] = i + value
    if major == CBOR_TEXT:
        return translate_text(t, p + i, value)
    return translate_bytes(t, p + i, value)


cdef int translate_cbor_break(translate_t *t) noexcept nogil:
    """Close the innermost container at a break."""
    cdef int status
    if t.level.left < TRANSLATE_ANY / 2 or (t.level.is_map and t.level.items & 1):
        return ST_MALFORMED                   # its length was stated, or a key waits for its value
    status = translate_close(t)
    return status if status < 0 else translate_complete(t)


cdef int translate_from_cbor(translate_t *t) noexcept nogil:
    """Write the one CBOR data item in the whole of t.p[0:t.n]."""
    cdef size_t i = 0
    cdef unsigned depth
    cdef bint is_tagged = False
    cdef int status
    while t.level.left != 0:
        if i >= t.n:
            return ST_MALFORMED
        if t.p[i] == CBOR_BREAK:
            i += 1
            status = translate_cbor_break(t) if not is_tagged else ST_MALFORMED
            if status < 0:
                return status
            continue
        depth = t.depth
        status = translate_cbor_item(t, &i)
        if status < 0:
            return status
        is_tagged = status == ST_MORE
        if is_tagged:
            continue
        if t.depth == depth:
            status = translate_complete(t)
        elif t.level.left == 0:
            status = translate_close(t)
            if status > 0:
                status = translate_complete(t)
        if status < 0:
            return status
    return ST_OK if i == t.n else ST_MALFORMED
