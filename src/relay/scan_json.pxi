# scan_json.pxi - walk one JSON text without building objects. Part of proxy._relay (see src/_relay.pyx).
#
# Structure and strings are read by RFC 8259 to the letter: they decide where a value ends, and two decoders must never
# disagree on that. Scalars are read leniently (any run of letters, digits, sign and point), because real encoders emit
# NaN and Infinity and because no reading of a scalar moves the end of the value around it. UTF-8 is not checked here.

cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif

    #define SCAN_JSON_SPACE 1
    #define SCAN_JSON_SCALAR 2
    #define SCAN_JSON_HEX 4

    /* Octets by role: white space between tokens, octets of a bare scalar, hexadecimal digits of an escape. */
    static const unsigned char scan_json_class[256] = {
        [' '] = 1, ['\\t'] = 1, ['\\n'] = 1, ['\\r'] = 1,
        ['+'] = 2, ['-'] = 2, ['.'] = 2,
        ['0' ... '9'] = 6, ['A' ... 'F'] = 6, ['G' ... 'Z'] = 2, ['a' ... 'f'] = 6, ['g' ... 'z'] = 2,
    };

    #if defined(__SSE2__)
    /* Bit set of the octets among the 16 at p that end a plain run: quote, backslash, control characters. */
    static inline unsigned scan_json_stops(const unsigned char *p) {
        __m128i x = _mm_loadu_si128((const __m128i *) p);
        __m128i hit = _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('"')), _mm_cmpeq_epi8(x, _mm_set1_epi8('\\\\')));
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x));
        return (unsigned) _mm_movemask_epi8(hit);
    }
    #endif

    /* Index of the first quote, backslash or control character in p[i:n]; n when there is none. i <= n. */
    static inline size_t scan_json_plain(const unsigned char *p, size_t n, size_t i) {
    #if defined(__SSE2__)
        unsigned stops;
        while (n - i >= 16) {
            stops = scan_json_stops(p + i);
            if (stops != 0)
                return i + (size_t) __builtin_ctz(stops);
            i += 16;
        }
        if (n >= 16) {
            /* the last octets, read together with some before them, so that nothing beyond the end is touched */
            stops = scan_json_stops(p + n - 16) >> (16 - (n - i));
            return stops != 0 ? i + (size_t) __builtin_ctz(stops) : n;
        }
    #endif
        while (i < n && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\\\')
            i++;
        return i;
    }
    """
    enum:
        SCAN_JSON_SPACE
        SCAN_JSON_SCALAR
        SCAN_JSON_HEX
    const uint8_t *scan_json_class
    size_t scan_json_plain(const uint8_t *p, size_t n, size_t i) noexcept nogil


cdef inline size_t scan_json_space(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    """Index of the first octet at or after ``i`` that is not white space, or n."""
    while i < n and scan_json_class[p[i]] & SCAN_JSON_SPACE:
        i += 1
    return i


cdef ssize_t scan_json_escape(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    """Index after the escape whose backslash is at ``i``, or ST_* (RFC 8259 section 7).

    Unknown escapes are refused: a decoder that takes ``\\u"`` for four digits sees another end of the string.
    """
    cdef size_t last
    i += 1
    if i >= n:
        return ST_TRUNCATED
    if p[i] in (b'"', b'\\', b'/', b'b', b'f', b'n', b'r', b't'):
        return <ssize_t>(i + 1)
    if p[i] != b'u':
        return ST_MALFORMED
    last = i + 4
    while i < last:
        i += 1
        if i >= n:
            return ST_TRUNCATED
        if not scan_json_class[p[i]] & SCAN_JSON_HEX:
            return ST_MALFORMED
    return <ssize_t>(i + 1)


cdef inline ssize_t scan_json_string(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    """Index after the string whose opening quote is at ``i``, or ST_*. Raw control characters are refused (RFC 8259
    section 7): NUL ends a string for some decoders, 0x18 and 0x1e end a message in a batch."""
    cdef ssize_t after
    i += 1
    while True:
        i = scan_json_plain(p, n, i)
        if i >= n:
            return ST_TRUNCATED
        if scan_likely(p[i] == b'"'):
            return <ssize_t>(i + 1)
        if p[i] != b'\\':
            return ST_MALFORMED
        after = scan_json_escape(p, n, i)
        if after < 0:
            return after
        i = <size_t>after


cdef inline ssize_t scan_json_leaf(const uint8_t *p, size_t n, size_t i, bint is_key) noexcept nogil:
    """Index after the string (for a key: after its colon) or bare scalar at ``i`` < n, or ST_*."""
    cdef ssize_t after
    cdef size_t start = i
    if p[i] == b'"':
        after = scan_json_string(p, n, i)
        if after < 0 or not is_key:
            return after
        i = scan_json_space(p, n, <size_t>after)
        if i >= n:
            return ST_TRUNCATED
        return <ssize_t>(i + 1) if p[i] == b':' else ST_MALFORMED
    if is_key:
        return ST_MALFORMED
    while i < n and scan_json_class[p[i]] & SCAN_JSON_SCALAR:
        i += 1
    return <ssize_t>i if i > start else ST_MALFORMED


cdef ssize_t scan_json(const uint8_t *p, size_t n) noexcept nogil:
    """Walk the one JSON value at ``p``.

    :param p: octets of the text.
    :param n: how many there are.
    :return: octets of the value, white space before it included; < 0: ST_MALFORMED, ST_TRUNCATED, ST_DEPTH. A bare
        scalar ends where the input ends.
    """
    cdef uint8_t stack[SCAN_DEPTH_MAX]        # the closing bracket of each open container
    cdef unsigned depth = 0
    cdef bint is_key = False                  # a member's name comes next
    cdef ssize_t after
    cdef size_t i = 0
    cdef uint8_t c
    while True:
        i = scan_json_space(p, n, i)
        if i >= n:
            return ST_TRUNCATED
        c = p[i]
        if (c == b'[' or c == b'{') and not is_key:
            if depth == SCAN_DEPTH_MAX:
                return ST_DEPTH
            stack[depth] = c + 2              # ']' is '[' + 2, '}' is '{' + 2
            depth += 1
            i = scan_json_space(p, n, i + 1)
            if i >= n or p[i] != stack[depth - 1]:
                is_key = c == b'{'
                continue
        else:
            after = scan_json_leaf(p, n, i, is_key)
            if after < 0:
                return after
            i = <size_t>after
            if is_key:
                is_key = False
                continue
        while True:                           # a value is complete: close what it completes
            if depth == 0:
                return <ssize_t>i
            i = scan_json_space(p, n, i)
            if i >= n:
                return ST_TRUNCATED
            c = p[i]
            i += 1
            if c == b',':
                is_key = stack[depth - 1] == b'}'
                break
            if c != stack[depth - 1]:
                return ST_MALFORMED
            depth -= 1
