# fields_json.pxi - the field cursor over JSON. Part of proxy._relay (see src/_relay.pyx).
#
# What a cursor of one serializer offers is told in fields.pxi. The gate has found the text well-formed before; this
# part relies on it for meaning, never for memory safety.

cdef inline int fields_json_scalar(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read a number or literal. Only digits without a leading zero are an ITEM_UINT."""
    cdef size_t i = at[0]
    cdef uint64_t value = 0
    while i < n and b'0' <= p[i] <= b'9' and value <= 1844674407370955161ULL:
        value = value * 10 + (p[i] - <uint8_t>b'0')   # may wrap with the last digit: caught below
        i += 1
    item.kind = ITEM_OTHER
    if i > at[0] and (i == n or not scan_json_class[p[i]] & SCAN_JSON_SCALAR):
        if (p[at[0]] != b'0' or i - at[0] == 1) and (i - at[0] < 20 or value >= 10000000000000000000ULL):
            item.kind = ITEM_UINT
            item.value = value
    while i < n and scan_json_class[p[i]] & SCAN_JSON_SCALAR:
        i += 1
    if i - at[0] == 4 and memcmp(p + at[0], b"true", 4) == 0:
        item.kind = ITEM_TRUE
    if i == at[0]:
        return ST_MALFORMED
    at[0] = i
    return ST_OK


cdef inline int fields_json_next(const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read the item at ``at``: see fields_next."""
    cdef size_t i = at[0]
    cdef size_t end
    cdef ssize_t after
    if i >= n:
        return ST_MALFORMED
    item.start = i
    if p[i] == b'"':
        item.kind = ITEM_TEXT
        item.text = i + 1
        end = scan_json_plain(p, n, i + 1)
        item.spelled = end >= n or p[end] != b'"'
        if item.spelled:
            after = scan_json_string(p, n, i)
            if after < 0:
                return ST_MALFORMED
            end = <size_t>after - 1
        item.length = end - item.text
        at[0] = end + 1
    elif p[i] == b'[' or p[i] == b'{':
        item.kind = ITEM_ARRAY if p[i] == b'[' else ITEM_MAP
        item.value = ITEM_OPEN
        at[0] = i + 1
    elif fields_json_scalar(p, n, at, item) < 0:
        return ST_MALFORMED
    item.end = at[0]
    return ST_OK


cdef inline int fields_json_more(const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """Go to the next element or key, or behind the closing bracket: see fields_more."""
    cdef size_t i = scan_json_space(p, n, at[0])
    if i < n and p[i] == b',':
        i = scan_json_space(p, n, i + 1)
    if i >= n:
        return ST_MALFORMED
    if p[i] == b']' or p[i] == b'}':
        at[0] = i + 1
        return ST_MORE
    at[0] = i
    return ST_OK


cdef inline int fields_json_value(const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """Go from the end of a key to its value: see fields_value."""
    cdef size_t i = scan_json_space(p, n, at[0])
    if i >= n or p[i] != b':':
        return ST_MALFORMED
    at[0] = scan_json_space(p, n, i + 1)
    return ST_OK


cdef inline int fields_json_hex(const uint8_t *p) noexcept nogil:
    """Value of four hexadecimal digits."""
    cdef int value = 0
    cdef int i
    for i in range(4):
        value = value * 16 + ((p[i] & 15) + 9 * (p[i] >> 6))
    return value


cdef size_t fields_json_spell(const uint8_t *p, const item_t *item, uint8_t *room, size_t size) noexcept nogil:
    """Write a text without its escapes: see fields_text. What is not ASCII is not told apart."""
    cdef size_t i = item.text
    cdef size_t end = item.text + item.length
    cdef size_t k = 0
    cdef int code
    while i < end and k < size:
        code = p[i]
        i += 1
        if code == b'\\':
            code = p[i]                       # the scanner has seen what follows, four digits behind an u included
            i += 1
            if code == b'u':
                code = fields_json_hex(p + i)
                i += 4
            elif code in (b'b', b'f', b'n', b'r', b't'):
                code = 0
        room[k] = <uint8_t>code if code < 0x80 else 0xff
        k += 1
    return k


cdef extern from *:
    """
    /* Write the decimal digits of an integer, at most 20; how many. Two at a time: half as many divisions. */
    static inline size_t fields_json_put(unsigned char *q, uint64_t value) {
        static const char pairs[201] =
            "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
            "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
        unsigned char digits[20];
        size_t k = 20;
        while (value >= 100) {
            k -= 2;
            memcpy(digits + k, pairs + 2 * (value % 100), 2);
            value /= 100;
        }
        if (value >= 10) {
            k -= 2;
            memcpy(digits + k, pairs + 2 * value, 2);
        } else
            digits[--k] = (unsigned char) ('0' + value);
        memcpy(q, digits + k, 20 - k);
        return 20 - k;
    }
    """
    size_t fields_json_put(uint8_t *q, uint64_t value) noexcept nogil
