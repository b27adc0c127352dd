# translate_json.pxi - reads a JSON text and writes it in a binary serializer. Part of proxy._relay (see
# src/_relay.pyx).
#
# The gate walked over the text and left its scalars to us: numbers are those of RFC 8259, bare words are true, false
# and null, texts are UTF-8. A number without fraction and exponent is an integer.

cdef int translate_hex4(const uint8_t *p) noexcept nogil:
    """The number that four hexadecimal digits stand for, or -1."""
    cdef int value = 0
    cdef unsigned i
    cdef uint8_t c
    for i in range(4):
        c = p[i]
        if not scan_json_class[c] & SCAN_JSON_HEX:
            return -1
        value = value << 4 | ((c & 15) + (9 if c >= 0x40 else 0))
    return value


cdef size_t translate_utf8(uint8_t *q, uint32_t code) noexcept nogil:
    """Write one character, no surrogate, as UTF-8; its length."""
    if code < 0x80:
        q[0] = <uint8_t>code
        return 1
    if code < 0x800:
        q[0] = <uint8_t>(0xc0 | code >> 6)
        q[1] = <uint8_t>(0x80 | (code & 0x3f))
        return 2
    if code < 0x10000:
        q[0] = <uint8_t>(0xe0 | code >> 12)
        q[1] = <uint8_t>(0x80 | (code >> 6 & 0x3f))
        q[2] = <uint8_t>(0x80 | (code & 0x3f))
        return 3
    q[0] = <uint8_t>(0xf0 | code >> 18)
    q[1] = <uint8_t>(0x80 | (code >> 12 & 0x3f))
    q[2] = <uint8_t>(0x80 | (code >> 6 & 0x3f))
    q[3] = <uint8_t>(0x80 | (code & 0x3f))
    return 4


cdef int translate_unescape_code(translate_t *t, size_t *at, uint8_t *q, size_t *length) noexcept nogil:
    """Read the escape ``\\uXXXX``, or two that make a surrogate pair, whose backslash is at ``at[0]``.

    :param q: gets the character in UTF-8; room for 4 octets.
    :param length: gets its length.
    """
    cdef const uint8_t *p = t.p
    cdef size_t i = at[0]
    cdef int high
    cdef int low
    if t.n - i < 6:
        return ST_MALFORMED
    high = translate_hex4(p + i + 2)
    if high < 0:
        return ST_MALFORMED
    i += 6
    if high & 0xf800 == 0xd800:
        low = -1
        if t.n - i >= 6 and p[i] == b'\\' and p[i + 1] == b'u':
            low = translate_hex4(p + i + 2)
        if high >= 0xdc00 or low & 0xfc00 != 0xdc00 or low < 0:
            return translate_refuse(t, b"text with a lone surrogate")
        i += 6
        high = 0x10000 + ((high & 0x3ff) << 10 | (low & 0x3ff))
    length[0] = translate_utf8(q, <uint32_t>high)
    at[0] = i
    return ST_OK


cdef int translate_unescape_one(translate_t *t, size_t *at, uint8_t *q, size_t *length) noexcept nogil:
    """Read the escape whose backslash is at ``at[0]`` (RFC 8259 section 7); see translate_unescape_code."""
    cdef uint8_t c
    if t.n - at[0] < 2:
        return ST_MALFORMED
    c = t.p[at[0] + 1]
    if c == b'u':
        return translate_unescape_code(t, at, q, length)
    if c == b'n':
        c = 0x0a
    elif c == b't':
        c = 0x09
    elif c == b'r':
        c = 0x0d
    elif c == b'b':
        c = 0x08
    elif c == b'f':
        c = 0x0c
    elif c != b'"' and c != b'\\' and c != b'/':
        return ST_MALFORMED
    q[0] = c
    length[0] = 1
    at[0] += 2
    return ST_OK


cdef int translate_unescape(translate_t *t, size_t *at) noexcept nogil:
    """Append the inside of a JSON string as UTF-8.

    :param at: index after the opening quote, or of any place inside; gets the index after the closing quote.
    """
    cdef const uint8_t *p = t.p
    cdef size_t n = t.n
    cdef size_t i = at[0]
    cdef size_t stop
    cdef size_t length = 0
    cdef int status
    while True:
        stop = scan_json_plain(p, n, i)
        if stop != i:
            if not utf8_is_valid(p + i, stop - i):
                return translate_refuse(t, b"text that is not valid UTF-8")
            status = sink_put(t.out, p + i, stop - i)
            if status < 0:
                return status
            i = stop
        while i < n and p[i] == b'\\':
            status = sink_room(t.out, 4)
            if status > 0:
                status = translate_unescape_one(t, &i, translate_at(t), &length)
            if status < 0:
                return status
            t.out.len += length
        if i >= n:
            return ST_MALFORMED
        if p[i] == b'"':
            at[0] = i + 1
            return ST_OK
        if p[i] < 0x20:
            return ST_MALFORMED


cdef int translate_base64_text(translate_t *t, const uint8_t *p, size_t n) noexcept nogil:
    """Write the binary data, whose item has begun, that n octets of Base64 at p stand for."""
    cdef size_t length = translate_base64_length(p, n)
    cdef int status
    if length != SIZE_MAX:
        translate_to(t, translate_head(t.target, translate_at(t), CBOR_BYTES, length))
        status = sink_room(t.out, length)
        if status < 0:
            return status
        if translate_from_base64(translate_at(t), p, length):
            t.out.len += length
            return ST_OK
    return translate_refuse(t, b"binary data that is not valid Base64")


cdef int translate_escaped_string(translate_t *t, size_t *at, bint is_binary) noexcept nogil:
    """Write the string, with escapes, whose item has begun and whose inside begins at ``at[0]``.

    It is put where it will be if its head is of the widest kind, and moved down when its length is known.
    """
    cdef size_t start = t.out.len
    cdef size_t length
    cdef uint8_t *q
    cdef uint8_t *body
    cdef int status
    t.out.len += 5                            # there is room for this: translate_begin
    status = translate_unescape(t, at)
    if status < 0:
        return status
    length = t.out.len - start - 5
    t.out.len = start
    q = translate_at(t)
    if not is_binary:
        body = translate_head(t.target, q, CBOR_TEXT, length)
        memmove(body, q + 5, length)
        translate_to(t, body + length)
        return ST_OK
    return translate_base64_text(t, q + 5, length)


cdef int translate_long_string(translate_t *t, size_t *at, bint is_key) noexcept nogil:
    """Write the string, whose item has begun and whose inside begins at ``at[0]``; see translate_string."""
    cdef const uint8_t *p = t.p
    cdef size_t n = t.n
    cdef size_t first = at[0]
    cdef size_t stop
    cdef bint is_binary = not is_key and n - first >= 6 and memcmp(p + first, b"\\u0000", 6) == 0
    if is_binary:
        first += 6
    stop = scan_json_plain(p, n, first)
    if stop >= n:
        return ST_MALFORMED
    if p[stop] == b'"':
        at[0] = stop + 1
        if is_binary:
            return translate_base64_text(t, p + first, stop - first)
        return translate_binary_text(t, p + first, stop - first)
    at[0] = first
    return translate_escaped_string(t, at, is_binary)


cdef inline int translate_string(translate_t *t, size_t *at) noexcept nogil:
    """Write the string whose opening quote is at ``at[0]``, which gets the index after it: a text, or binary data."""
    cdef size_t i = at[0] + 1
    cdef size_t length
    cdef uint8_t *q
    cdef int status = translate_begin(t, True)
    if status < 0:
        return status
    if scan_likely(t.n - i >= 16):
        length = translate_short_quoted(t.p + i)
        if scan_likely(length < 16):
            q = translate_head(t.target, translate_at(t), CBOR_TEXT, length)
            memcpy(q, t.p + i, 16)
            translate_to(t, q + length)
            at[0] = i + length + 1
            return ST_OK
    at[0] = i
    return translate_long_string(t, at, translate_is_key(t))


cdef int translate_word(translate_t *t, size_t *at) noexcept nogil:
    """Write true, false or null, at ``at[0]`` < n."""
    cdef const uint8_t *p = t.p + at[0]
    cdef size_t i = at[0]
    cdef size_t length
    while i < t.n and scan_json_class[t.p[i]] & SCAN_JSON_SCALAR:
        i += 1
    length = i - at[0]
    at[0] = i
    if length == 4 and memcmp(p, b"true", 4) == 0:
        return translate_simple(t, TRANSLATE_TRUE)
    if length == 4 and memcmp(p, b"null", 4) == 0:
        return translate_simple(t, TRANSLATE_NULL)
    if length == 5 and memcmp(p, b"false", 5) == 0:
        return translate_simple(t, TRANSLATE_FALSE)
    if length == 0:
        return ST_MALFORMED
    return translate_refuse(t, b"a bare word other than true, false and null")


cdef inline int translate_json_value(translate_t *t, size_t *at) noexcept nogil:
    """Write the string or bare scalar at ``at[0]`` < n, a name of a member with the colon after it.

    :return: ST_OK: a value is complete; ST_MORE: a name, its value comes next; < 0: ST_*.
    """
    cdef bint is_name = t.level.is_map and (t.level.items & 1) == 0
    cdef uint8_t c = t.p[at[0]]
    cdef int status
    if c == b'"':
        status = translate_string(t, at)
        if status < 0 or not is_name:
            return status
        at[0] = scan_json_space(t.p, t.n, at[0])
        if at[0] >= t.n or t.p[at[0]] != b':':
            return ST_MALFORMED
        at[0] += 1
        return ST_MORE
    if is_name:
        return ST_MALFORMED
    if b'0' <= c <= b'9' or c == b'-':
        return translate_number_text(t, at)
    return translate_word(t, at)


cdef int translate_from_json(translate_t *t) noexcept nogil:
    """Write the one JSON value in the whole of t.p[0:t.n]."""
    cdef const uint8_t *p = t.p
    cdef size_t n = t.n
    cdef size_t i = 0
    cdef int status
    cdef uint8_t c
    while True:
        i = scan_json_space(p, n, i)
        if i >= n:
            return ST_MALFORMED
        c = p[i]
        if c == b'[' or c == b'{':
            if t.level.is_map and (t.level.items & 1) == 0:
                return ST_MALFORMED           # in place of a name
            status = translate_open(t, c == b'{', TRANSLATE_ANY)
            if status < 0:
                return status
            i = scan_json_space(p, n, i + 1)
            if i >= n:
                return ST_MALFORMED
            if p[i] != c + 2:                 # ']' is '[' + 2, '}' is '{' + 2
                continue
        else:
            status = translate_json_value(t, &i)
            if status < 0:
                return status
            if status == ST_MORE:
                continue
        while True:                           # a value is complete: close what it completes
            i = scan_json_space(p, n, i)
            if t.depth == 0:
                return ST_OK if i == n else ST_MALFORMED
            if i >= n:
                return ST_MALFORMED
            c = p[i]
            i += 1
            if c == b',':
                break
            if c != (0x7d if t.level.is_map else 0x5d):  # '}', ']'
                return ST_MALFORMED
            status = translate_close(t)
            if status < 0:
                return status
