# translate_text.pxi - texts and binary data of translated messages, from and to raw octets. Part of proxy._relay (see
# src/_relay.pyx).
#
# In JSON, binary data is a string of U+0000 and Base64 (WAMP spec, section "Binary conversion of JSON Strings"). So a
# text that begins with U+0000 has no form there, except as the name of a member: names are texts everywhere.

cdef extern from *:
    """
    #if defined(__SSE2__)
    /* Copy 16 octets, of which the first n <= 16 matter: 1 when these are ASCII. */
    static inline int translate_short_ascii(unsigned char *to, const unsigned char *from, size_t n) {
        __m128i x = _mm_loadu_si128((const __m128i *) from);
        _mm_storeu_si128((__m128i *) to, x);
        return ((unsigned) _mm_movemask_epi8(x) & ((1u << n) - 1)) == 0;
    }

    /* The same: 1 when they are ASCII that stands for itself in a JSON string. */
    static inline int translate_short_plain(unsigned char *to, const unsigned char *from, size_t n) {
        unsigned stops = scan_json_stops(from);
        return translate_short_ascii(to, from, n) && (stops & ((1u << n) - 1)) == 0;
    }

    /* Octets before the closing quote among the 16 at p, when they are ASCII without escapes; else 16 or more. */
    static inline size_t translate_short_quoted(const unsigned char *p) {
        __m128i x = _mm_loadu_si128((const __m128i *) p);
        unsigned stops = scan_json_stops(p) | (unsigned) _mm_movemask_epi8(x);
        size_t n = stops != 0 ? (size_t) __builtin_ctz(stops) : 16;
        return n < 16 && p[n] == '"' ? n : 16;
    }
    #else
    static inline int translate_short_ascii(unsigned char *to, const unsigned char *from, size_t n) {
        return 0;
    }
    static inline int translate_short_plain(unsigned char *to, const unsigned char *from, size_t n) {
        return 0;
    }
    static inline size_t translate_short_quoted(const unsigned char *p) {
        return 16;
    }
    #endif

    static const char translate_base64[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /* Values of the digits; the top bit is set in those of all other octets. */
    static const uint32_t translate_base64_value[256] = {
    #define TRANSLATE_NONE4 1u << 31, 1u << 31, 1u << 31, 1u << 31
    #define TRANSLATE_NONE16 TRANSLATE_NONE4, TRANSLATE_NONE4, TRANSLATE_NONE4, TRANSLATE_NONE4
        TRANSLATE_NONE16, TRANSLATE_NONE16,
        TRANSLATE_NONE4, TRANSLATE_NONE4, 1u << 31, 1u << 31, 1u << 31, 62, 1u << 31, 1u << 31, 1u << 31, 63,
        52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 1u << 31, 1u << 31, TRANSLATE_NONE4,
        1u << 31, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 1u << 31, TRANSLATE_NONE4,
        1u << 31, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
        41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 1u << 31, TRANSLATE_NONE4,
        TRANSLATE_NONE16, TRANSLATE_NONE16, TRANSLATE_NONE16, TRANSLATE_NONE16,
        TRANSLATE_NONE16, TRANSLATE_NONE16, TRANSLATE_NONE16, TRANSLATE_NONE16,
    };

    /* Write n octets as Base64 with padding. `from` may lie in the last n octets of the text. */
    static inline void translate_to_base64(unsigned char *to, const unsigned char *from, size_t n) {
        uint32_t x;
        for (; n >= 3; n -= 3, from += 3, to += 4) {
            x = (uint32_t) from[0] << 16 | (uint32_t) from[1] << 8 | from[2];
            to[0] = (unsigned char) translate_base64[x >> 18];
            to[1] = (unsigned char) translate_base64[x >> 12 & 63];
            to[2] = (unsigned char) translate_base64[x >> 6 & 63];
            to[3] = (unsigned char) translate_base64[x & 63];
        }
        if (n != 0) {
            x = (uint32_t) from[0] << 16 | (n == 2 ? (uint32_t) from[1] << 8 : 0);
            to[0] = (unsigned char) translate_base64[x >> 18];
            to[1] = (unsigned char) translate_base64[x >> 12 & 63];
            to[2] = (unsigned char) (n == 2 ? translate_base64[x >> 6 & 63] : '=');
            to[3] = '=';
        }
    }

    /* Octets in n octets of Base64, by its length and padding; SIZE_MAX: that is none. */
    static inline size_t translate_base64_length(const unsigned char *p, size_t n) {
        if (n % 4 != 0)
            return SIZE_MAX;
        return n / 4 * 3 - (n != 0 && p[n - 1] == '=') - (n != 0 && p[n - 1] == '=' && p[n - 2] == '=');
    }

    /* Read Base64 into the `length` octets that it stands for; `to` may overlap `from` when it is not behind it.
     * Return 1; 0: a foreign digit, or bits that stand for nothing are set. */
    static inline int translate_from_base64(unsigned char *to, const unsigned char *from, size_t length) {
        const uint32_t *value = translate_base64_value;
        uint32_t x, all = 0;
        for (; length >= 3; length -= 3, from += 4, to += 3) {
            x = value[from[0]] << 18 | value[from[1]] << 12 | value[from[2]] << 6 | value[from[3]];
            all |= value[from[0]] | value[from[1]] | value[from[2]] | value[from[3]];
            to[0] = (unsigned char) (x >> 16);
            to[1] = (unsigned char) (x >> 8);
            to[2] = (unsigned char) x;
        }
        if (length == 2) {
            x = value[from[0]] << 10 | value[from[1]] << 4 | value[from[2]] >> 2;
            all |= value[from[0]] | value[from[1]] | value[from[2]] | (value[from[2]] & 3) << 30;
            to[0] = (unsigned char) (x >> 8);
            to[1] = (unsigned char) x;
        } else if (length == 1) {
            x = value[from[0]] << 2 | value[from[1]] >> 4;
            all |= value[from[0]] | value[from[1]] | (value[from[1]] & 15) << 28;
            to[0] = (unsigned char) x;
        }
        return all >> 28 == 0;
    }
    """
    int translate_short_ascii(uint8_t *to, const uint8_t *from_, size_t n) noexcept nogil
    int translate_short_plain(uint8_t *to, const uint8_t *from_, size_t n) noexcept nogil
    size_t translate_short_quoted(const uint8_t *p) noexcept nogil
    void translate_to_base64(uint8_t *to, const uint8_t *from_, size_t n) noexcept nogil
    size_t translate_base64_length(const uint8_t *p, size_t n) noexcept nogil
    int translate_from_base64(uint8_t *to, const uint8_t *from_, size_t length) noexcept nogil
    const size_t SIZE_MAX


cdef size_t translate_escape(uint8_t *q, uint8_t c) noexcept nogil:
    """Write the shortest JSON escape of a character that needs one; its length, at most 6."""
    cdef uint8_t letter = 0
    if c == b'"' or c == b'\\':
        letter = c
    elif c == b'\n':
        letter = b'n'
    elif c == b'\r':
        letter = b'r'
    elif c == b'\t':
        letter = b't'
    elif c == b'\b':
        letter = b'b'
    elif c == b'\f':
        letter = b'f'
    q[0] = b'\\'
    if letter != 0:
        q[1] = letter
        return 2
    memcpy(q + 1, b"u00", 3)
    q[4] = 0x30 + (c >> 4)                    # below 0x20
    q[5] = (c & 15) + (0x30 if (c & 15) < 10 else 0x61 - 10)
    return 6


cdef int translate_json_body(translate_t *t, const uint8_t *p, size_t n) noexcept nogil:
    """Append UTF-8 as the inside of a JSON string."""
    cdef size_t i = 0
    cdef size_t stop
    cdef int status
    if not utf8_is_valid(p, n):
        return translate_refuse(t, b"text that is not valid UTF-8")
    while True:
        stop = scan_json_plain(p, n, i)
        status = sink_put(t.out, p + i, stop - i)
        if status < 0 or stop == n:
            return status
        status = sink_room(t.out, 6)
        if status < 0:
            return status
        t.out.len += translate_escape(translate_at(t), p[stop])
        i = stop + 1


cdef int translate_quote(translate_t *t) noexcept nogil:
    """Append the quote that begins or ends a JSON string."""
    cdef int status = sink_room(t.out, 1)
    if status > 0:
        translate_at(t)[0] = b'"'
        t.out.len += 1
    return status


cdef int translate_json_text(translate_t *t, const uint8_t *p, size_t n) noexcept nogil:
    """Write a text, whose item has begun, as JSON string."""
    cdef int status
    if n != 0 and p[0] == 0 and not translate_is_key(t):
        return translate_refuse(t, b"text that begins with U+0000, which in JSON is binary data")
    status = translate_quote(t)
    if status > 0:
        status = translate_json_body(t, p, n)
    if status > 0:
        status = translate_quote(t)
    return status


cdef int translate_binary_text(translate_t *t, const uint8_t *p, size_t n) noexcept nogil:
    """Write a text, whose item has begun, in a binary target."""
    if not utf8_is_valid(p, n):
        return translate_refuse(t, b"text that is not valid UTF-8")
    translate_to(t, translate_head(t.target, translate_at(t), CBOR_TEXT, n))
    return sink_put(t.out, p, n)


cdef inline int translate_text(translate_t *t, const uint8_t *p, size_t n) noexcept nogil:
    """Write a text: n octets of UTF-8 at p, all within the message."""
    cdef int status = translate_begin(t, True)
    cdef uint8_t *q
    if status < 0:
        return status
    if scan_likely(n <= 16 and <size_t>(t.p + t.n - p) >= 16):
        q = translate_at(t)
        if t.target == SER_JSON:
            q[0] = b'"'
            if scan_likely(translate_short_plain(q + 1, p, n)):
                q[n + 1] = b'"'
                t.out.len += n + 2
                return ST_OK
        else:
            q = translate_head(t.target, q, CBOR_TEXT, n)
            if scan_likely(translate_short_ascii(q, p, n)):
                translate_to(t, q + n)
                return ST_OK
    if t.target == SER_JSON:
        return translate_json_text(t, p, n)
    return translate_binary_text(t, p, n)


cdef int translate_json_bytes(translate_t *t, const uint8_t *p, size_t n, const uint8_t *chunks) noexcept nogil:
    """Write binary data, whose item has begun, as JSON string.

    :param p: the data, or NULL: it stands in pieces, the first of them at `chunks` (CBOR, already checked).
    """
    cdef size_t length = (n + 2) // 3 * 4
    cdef uint64_t piece = 0
    cdef size_t i = 0
    cdef uint8_t *data
    cdef int status = sink_room(t.out, length + 8)
    if status < 0:
        return status
    memcpy(translate_at(t), b'"\\u0000', 7)
    t.out.len += 7
    if p == NULL:                             # put together where its text will end, so that it can be read from there
        data = translate_at(t) + length - n
        p = data
        while chunks[i] != CBOR_BREAK:
            scan_cbor_argument(chunks, SIZE_MAX, &i, &piece)
            memcpy(data, chunks + i, piece)
            data += piece
            i += piece
    translate_to_base64(translate_at(t), p, n)
    t.out.len += length
    return translate_quote(t)


cdef int translate_bytes(translate_t *t, const uint8_t *p, size_t n) noexcept nogil:
    """Write binary data: n octets at p."""
    cdef int status = translate_begin(t, False)
    if status < 0:
        return status
    if t.target == SER_JSON:
        return translate_json_bytes(t, p, n, NULL)
    translate_to(t, translate_head(t.target, translate_at(t), CBOR_BYTES, n))
    return sink_put(t.out, p, n)
