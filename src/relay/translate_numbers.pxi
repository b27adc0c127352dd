# translate_numbers.pxi - integers, floating point numbers, true, false and null of translated messages. Part of
# proxy._relay (see src/_relay.pyx).
#
# An integer stays an integer and a floating point number stays one, whatever its value: 5.0 becomes no 5. Integers are
# exact from -2^63 to 2^64 - 1 and written in the shortest form. Floating point numbers keep their value and, between
# binary serializers, their width: MessagePack has no half precision, which becomes single. They pass through no
# floating point register there, so that a NaN keeps its bits.

cdef extern from *:
    """
    static const char translate_pairs[201] =
        "00010203040506070809" "10111213141516171819" "20212223242526272829" "30313233343536373839"
        "40414243444546474849" "50515253545556575859" "60616263646566676869" "70717273747576777879"
        "80818283848586878889" "90919293949596979899";

    /* Write x in decimal at `to` (room for 20 octets); the place after it. */
    static inline unsigned char *translate_decimal(unsigned char *to, uint64_t x) {
        unsigned char text[20];
        unsigned at = 20;
        while (x >= 100) {
            unsigned pair = (unsigned) (x % 100) * 2;
            x /= 100;
            at -= 2;
            memcpy(text + at, translate_pairs + pair, 2);
        }
        if (x >= 10) {
            at -= 2;
            memcpy(text + at, translate_pairs + (unsigned) x * 2, 2);
        } else {
            text[--at] = (unsigned char) ('0' + x);
        }
        memcpy(to, text + at, 20 - at);
        return to + (20 - at);
    }

    static inline double translate_double(uint64_t bits) {
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }

    static inline double translate_single(uint32_t bits) {
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }

    static inline uint64_t translate_bits(double value) {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        return bits;
    }

    /* The single precision number (IEEE 754 bits) that is equal to one of half precision. */
    static inline uint32_t translate_widen_half(uint32_t half) {
        uint32_t sign = (half & 0x8000) << 16, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
        unsigned shift;
        if (exponent == 0x1f)                   /* infinity, NaN */
            return sign | 0x7f800000 | fraction << 13;
        if (exponent != 0)
            return sign | (exponent + 112) << 23 | fraction << 13;
        if (fraction == 0)
            return sign;
        shift = (unsigned) __builtin_clz(fraction) - 21;   /* subnormal: fraction * 2^-24 */
        return sign | (113 - shift) << 23 | (fraction << shift & 0x3ff) << 13;
    }
    """
    uint8_t *translate_decimal(uint8_t *to, uint64_t x) noexcept nogil
    double translate_double(uint64_t bits) noexcept nogil
    double translate_single(uint32_t bits) noexcept nogil
    uint64_t translate_bits(double value) noexcept nogil
    uint32_t translate_widen_half(uint32_t half) noexcept nogil

cdef enum:
    TRANSLATE_FALSE = 0                       # in the order of their codes in CBOR
    TRANSLATE_TRUE = 1
    TRANSLATE_NULL = 2


cdef int translate_simple(translate_t *t, unsigned which) noexcept nogil:
    """Write TRANSLATE_FALSE, TRANSLATE_TRUE or TRANSLATE_NULL."""
    cdef int status = translate_begin(t, False)
    cdef uint8_t *q = translate_at(t)
    if status < 0:
        return status
    if t.target == SER_CBOR:
        q[0] = <uint8_t>(0xf4 + which)
        t.out.len += 1
    elif t.target == SER_MSGPACK:
        q[0] = 0xc0 if which == TRANSLATE_NULL else <uint8_t>(0xc2 + which)
        t.out.len += 1
    elif which == TRANSLATE_FALSE:
        memcpy(q, b"false", 5)
        t.out.len += 5
    elif which == TRANSLATE_TRUE:
        memcpy(q, b"true", 4)
        t.out.len += 4
    else:
        memcpy(q, b"null", 4)
        t.out.len += 4
    return ST_OK


cdef inline uint8_t *translate_json_integer(translate_t *t, uint8_t *q, bint is_negative, uint64_t size) noexcept nogil:
    """Write a JSON integer, as the name of a member in quotes; the place after it."""
    cdef bint is_key = translate_is_key(t)
    if is_key:
        q[0] = b'"'
        q += 1
    if is_negative:
        q[0] = b'-'
        q += 1
    q = translate_decimal(q, size)
    if is_key:
        q[0] = b'"'
        q += 1
    return q


cdef int translate_unsigned(translate_t *t, uint64_t value) noexcept nogil:
    """Write an integer that is not negative."""
    cdef int status = translate_begin(t, True)
    cdef uint8_t *q
    if status < 0:
        return status
    q = translate_at(t)
    if t.target == SER_CBOR:
        q = translate_cbor_head(q, 0, value)
    elif t.target == SER_JSON:
        q = translate_json_integer(t, q, False, value)
    elif value < 0x80:
        q[0] = <uint8_t>value
        q += 1
    elif value < 0x100:
        q[0] = 0xcc
        q[1] = <uint8_t>value
        q += 2
    elif value < 0x10000:
        q[0] = 0xcd
        store_be16(q + 1, <uint16_t>value)
        q += 3
    elif value >> 32 == 0:
        q[0] = 0xce
        store_be32(q + 1, <uint32_t>value)
        q += 5
    else:
        q[0] = 0xcf
        store_be64(q + 1, value)
        q += 9
    translate_to(t, q)
    return ST_OK


cdef int translate_negative(translate_t *t, uint64_t rest) noexcept nogil:
    """Write the integer -1 - rest."""
    cdef int status
    cdef uint8_t *q
    if rest >> 63:
        return translate_refuse(t, b"an integer of more than 64 bits")
    status = translate_begin(t, True)
    if status < 0:
        return status
    q = translate_at(t)
    if t.target == SER_CBOR:
        q = translate_cbor_head(q, 1, rest)
    elif t.target == SER_JSON:
        q = translate_json_integer(t, q, True, rest + 1)
    elif rest < 0x20:
        q[0] = <uint8_t>~rest
        q += 1
    elif rest < 0x80:
        q[0] = 0xd0
        q[1] = <uint8_t>~rest
        q += 2
    elif rest < 0x8000:
        q[0] = 0xd1
        store_be16(q + 1, <uint16_t>~rest)
        q += 3
    elif rest >> 31 == 0:
        q[0] = 0xd2
        store_be32(q + 1, <uint32_t>~rest)
        q += 5
    else:
        q[0] = 0xd3
        store_be64(q + 1, ~rest)
        q += 9
    translate_to(t, q)
    return ST_OK


cdef inline int translate_signed(translate_t *t, int64_t value) noexcept nogil:
    """Write an integer."""
    if value < 0:
        return translate_negative(t, ~<uint64_t>value)
    return translate_unsigned(t, <uint64_t>value)


cdef int translate_json_float(translate_t *t, double value) noexcept nogil:
    """Write a floating point number whose item has begun as JSON."""
    if value - value != 0:                    # NaN for both kinds that JSON does not know
        return translate_refuse(t, b"a number that is not finite")
    t.out.len += double_to_text(value, <char *>translate_at(t))
    return ST_OK


cdef int translate_float64(translate_t *t, uint64_t bits) noexcept nogil:
    """Write a number of double precision (IEEE 754 bits)."""
    cdef int status = translate_begin(t, False)
    cdef uint8_t *q
    if status < 0:
        return status
    if t.target == SER_JSON:
        return translate_json_float(t, translate_double(bits))
    q = translate_at(t)
    q[0] = 0xfb if t.target == SER_CBOR else 0xcb
    store_be64(q + 1, bits)
    t.out.len += 9
    return ST_OK


cdef int translate_float32(translate_t *t, uint32_t bits) noexcept nogil:
    """Write a number of single precision (IEEE 754 bits)."""
    cdef int status = translate_begin(t, False)
    cdef uint8_t *q
    if status < 0:
        return status
    if t.target == SER_JSON:
        return translate_json_float(t, translate_single(bits))
    q = translate_at(t)
    q[0] = 0xfa if t.target == SER_CBOR else 0xca
    store_be32(q + 1, bits)
    t.out.len += 5
    return ST_OK


cdef size_t translate_digits(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    """Index of the first octet at or after ``i`` that is no digit, or n."""
    while i < n and b'0' <= p[i] <= b'9':
        i += 1
    return i


cdef ssize_t translate_fraction(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    """Index after the fraction and exponent that begin at ``i`` (RFC 8259 section 6), or -1: there is none."""
    cdef size_t first
    if i < n and p[i] == b'.':
        first = i + 1
        i = translate_digits(p, n, first)
        if i == first:
            return -1
    if i < n and (p[i] == b'e' or p[i] == b'E'):
        i += 1
        if i < n and (p[i] == b'+' or p[i] == b'-'):
            i += 1
        first = i
        i = translate_digits(p, n, first)
        if i == first:
            return -1
    return <ssize_t>i


cdef int translate_number_text(translate_t *t, size_t *at) noexcept nogil:
    """Read the JSON number at ``at[0]`` < n, which is a digit or a minus sign (RFC 8259 section 6)."""
    cdef const uint8_t *p = t.p
    cdef size_t n = t.n
    cdef bint is_negative = p[at[0]] == b'-'
    cdef size_t first = at[0] + is_negative
    cdef size_t i = first
    cdef uint64_t value = 0
    cdef uint64_t before = 0
    cdef double number = 0
    cdef ssize_t after
    while i < n and b'0' <= p[i] <= b'9':
        before = value                        # without the last digit; wrong beyond 20 digits, which are too many
        value = value * 10 + (p[i] - <uint8_t>b'0')
        i += 1
    if i == first or (p[first] == b'0' and i - first > 1):
        return translate_refuse(t, b"a number that is not valid JSON")
    if scan_likely(i == n or not scan_json_class[p[i]] & SCAN_JSON_SCALAR):
        at[0] = i
        if i - first > 20 or (i - first == 20 and (before > TRANSLATE_NEVER / 10 or value < before)):
            return translate_refuse(t, b"an integer of more than 64 bits")
        if not is_negative or value == 0:
            return translate_unsigned(t, value)
        return translate_negative(t, value - 1)
    after = translate_fraction(p, n, i)
    if after < 0 or (<size_t>after < n and scan_json_class[p[after]] & SCAN_JSON_SCALAR):
        return translate_refuse(t, b"a number that is not valid JSON")
    if double_from_text(<const char *>(p + at[0]), <size_t>after - at[0], &number) == 0:
        return translate_refuse(t, b"a number beyond the range of double precision")
    at[0] = <size_t>after
    return translate_float64(t, translate_bits(number))
