#include "codec.h"

#include <stdio.h>
#include <string.h>

static const char *const names[] = {"", "json", "msgpack", "cbor"};

serializer_t serializer_by_name(const char *name, size_t len) {
    for (int i = SER_JSON; i <= SER_CBOR; i++)
        if (strlen(names[i]) == len && !memcmp(names[i], name, len)) return (serializer_t)i;
    return SER_NONE;
}

const char *serializer_name(serializer_t ser) { return names[ser]; }

static inline uint64_t load_be(const uint8_t *p, unsigned octets) {
    uint64_t v = 0;
    for (unsigned i = 0; i < octets; i++) v = v << 8 | p[i];
    return v;
}

/* --- walking: each skip_* returns the end of the value at p, NULL when it is cut short or not understood
 * ---------------- */

/* CBOR head: argument into *v, returns the octet behind it. Indefinite lengths are refused. */
static const uint8_t *cbor_head(const uint8_t *p, const uint8_t *end, uint64_t *v) {
    if (p >= end) return NULL;
    unsigned info = *p++ & 0x1f;
    if (info < 24) {
        *v = info;
        return p;
    }
    if (info > 27) return NULL;
    unsigned octets = 1u << (info - 24);
    if ((size_t)(end - p) < octets) return NULL;
    *v = load_be(p, octets);
    return p + octets;
}

static const uint8_t *skip_cbor(const uint8_t *p, const uint8_t *end) {
    uint64_t v, left = 1;
    while (left--) { /* values still to come; a container only adds to them */
        if (p >= end) return NULL;
        unsigned major = *p >> 5;
        p = cbor_head(p, end, &v);
        if (!p) return NULL;
        if (major == 2 || major == 3) {
            if ((uint64_t)(end - p) < v) return NULL;
            p += v;
        } else if (major == 4 || major == 5) {
            if (v > (uint64_t)(end - p)) return NULL;
            left += major == 4 ? v : 2 * v;
        } else if (major == 6) {
            left++;
        }
    }
    return p;
}

/* Length of a MessagePack header, and what follows it: octets to jump over, values to walk. */
static const uint8_t *msgpack_head(const uint8_t *p, const uint8_t *end, uint64_t *octets, uint64_t *values) {
    if (p >= end) return NULL;
    uint8_t c = *p++;
    *octets = *values = 0;
    if (c < 0x80 || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3) return p;
    if (c < 0x90) return *values = 2u * (c & 15), p;
    if (c < 0xa0) return *values = c & 15, p;
    if (c < 0xc0) return *octets = c & 31, p;
    static const uint8_t sized[32] = {/* width of the length that follows 0xc0 + i */
                                      0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 0, 0, 0, 0, 0, 0,
                                      0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
    static const uint8_t fixed[32] = {0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 4, 8, 1, 2, 4, 8,
                                      1, 2, 4, 8, 2, 3, 5, 9, 17, 0, 0, 0, 0, 0, 0, 0};
    unsigned i = c - 0xc0u, width = sized[i];
    if (c == 0xc1 || (size_t)(end - p) < width) return NULL;
    uint64_t len = load_be(p, width);
    p += width;
    if (c >= 0xde)
        *values = 2 * len;
    else if (c >= 0xdc)
        *values = len;
    else
        *octets = width ? len + (c >= 0xc7 && c <= 0xc9) : fixed[i]; /* ext: one octet of type more */
    return p;
}

static const uint8_t *skip_msgpack(const uint8_t *p, const uint8_t *end) {
    uint64_t octets, values, left = 1;
    while (left--) {
        p = msgpack_head(p, end, &octets, &values);
        if (!p || (uint64_t)(end - p) < octets || values / 2 > (uint64_t)(end - p)) return NULL;
        p += octets;
        left += values;
    }
    return p;
}

static const uint8_t *skip_space(const uint8_t *p, const uint8_t *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

static const uint8_t *skip_string(const uint8_t *p, const uint8_t *end) {
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

static const uint8_t *skip_json(const uint8_t *p, const uint8_t *end) {
    unsigned depth = 0;
    p = skip_space(p, end);
    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
            if (!p) return NULL;
            if (!depth) return p;
            continue;
        }
        if (*p == '[' || *p == '{') {
            depth++;
        } else if (*p == ']' || *p == '}') {
            if (!depth) return p;
            if (!--depth) return p + 1;
        } else if (*p == ',' && !depth) {
            return p;
        }
        p++;
    }
    return NULL;
}

static const uint8_t *value_end(serializer_t ser, const uint8_t *p, const uint8_t *end) {
    return ser == SER_CBOR ? skip_cbor(p, end) : ser == SER_MSGPACK ? skip_msgpack(p, end) : skip_json(p, end);
}

static const uint8_t *array_open(serializer_t ser, const uint8_t *p, const uint8_t *end, unsigned *count) {
    uint64_t n = 0, octets;
    if (p >= end) return NULL;
    if (ser == SER_JSON) {
        p = skip_space(p, end);
        *count = 0;
        return p < end && *p == '[' ? p + 1 : NULL;
    }
    if (ser == SER_CBOR) {
        if (*p >> 5 != 4) return NULL;
        p = cbor_head(p, end, &n);
    } else {
        if (*p >> 4 != 9 && *p != 0xdc && *p != 0xdd) return NULL;
        p = msgpack_head(p, end, &octets, &n);
    }
    *count = (unsigned)n;
    return p;
}

bool message_read(serializer_t ser, const uint8_t *p, size_t n, unsigned want, message_t *m) {
    const uint8_t *end = p + n;
    p = array_open(ser, p, end, &m->count);
    if (!p) return false;
    for (m->found = 0; m->found < want; m->found++) {
        if (ser == SER_JSON) {
            p = skip_space(p, end);
            if (p < end && *p == ']') break;
            if (m->found) {
                if (p >= end || *p != ',') return false;
                p = skip_space(p + 1, end);
            }
        } else if (m->found == m->count) {
            break;
        }
        const uint8_t *next = value_end(ser, p, end);
        if (!next) return false;
        m->item[m->found] = (span_t){p, (size_t)(next - p)};
        p = next;
    }
    if (ser == SER_JSON) {
        p = skip_space(p, end);
        m->count = m->found + (p < end && *p == ',');
    }
    m->tail = (span_t){p, (size_t)(end - p)};
    return true;
}

uint64_t span_uint(serializer_t ser, span_t s) {
    uint64_t v = 0;
    if (!s.len) return UINT64_MAX;
    if (ser == SER_CBOR) return *s.p >> 5 == 0 && cbor_head(s.p, s.p + s.len, &v) ? v : UINT64_MAX;
    if (ser == SER_MSGPACK) {
        if (*s.p < 0x80) return *s.p;
        return *s.p >= 0xcc && *s.p <= 0xcf ? load_be(s.p + 1, (unsigned)s.len - 1) : UINT64_MAX;
    }
    for (size_t i = 0; i < s.len && s.p[i] >= '0' && s.p[i] <= '9'; i++) v = v * 10 + (s.p[i] - '0');
    return *s.p >= '0' && *s.p <= '9' ? v : UINT64_MAX;
}

bool span_is_true(serializer_t ser, span_t s) {
    if (ser == SER_JSON) return s.len == 4 && !memcmp(s.p, "true", 4);
    return s.len == 1 && *s.p == (ser == SER_CBOR ? 0xf5 : 0xc3);
}

/* Octets of the header of a text; 0: it is none. */
static size_t text_header(serializer_t ser, span_t s) {
    if (!s.len) return 0;
    uint8_t c = *s.p;
    if (ser == SER_JSON) return c == '"' ? 1 : 0;
    if (ser == SER_CBOR) return c >> 5 != 3 ? 0 : (c & 31) < 24 ? 1 : (c & 31) < 28 ? 1u + (1u << (c & 3)) : 0;
    return c >> 5 == 5 ? 1 : c >= 0xd9 && c <= 0xdb ? 1u + (1u << (c - 0xd9)) : 0;
}

bool span_text(serializer_t ser, span_t s, char *text, size_t cap) {
    size_t header = text_header(ser, s), n = 0;
    if (!header || s.len < header) return false;
    const uint8_t *end = s.p + s.len - (ser == SER_JSON);
    for (const uint8_t *p = s.p + header; p < end; p++) {
        if (n + 1 >= cap) return false;
        if (ser == SER_JSON && *p == '\\') { /* \" \\ \/ are all that such texts need */
            if (++p >= end || !strchr("\"\\/", *p)) return false;
        }
        text[n++] = (char)*p;
    }
    text[n] = 0;
    return true;
}

bool walk_open(walk_t *w, serializer_t ser, span_t s) {
    uint64_t octets;
    *w = (walk_t){ser, s.p, s.p + s.len, 0, false};
    if (!s.len) return false;
    if (ser == SER_JSON) return *w->p++ == '[' || s.p[0] == '{';
    if (ser == SER_CBOR) {
        unsigned major = *s.p >> 5;
        w->p = cbor_head(w->p, w->end, &w->left);
        if (major == 5) w->left *= 2;
        return w->p && (major == 4 || major == 5);
    }
    bool is_container = (*s.p >= 0x80 && *s.p < 0xa0) || *s.p >= 0xdc;
    w->p = msgpack_head(w->p, w->end, &octets, &w->left);
    return w->p && is_container && *s.p < 0xe0;
}

bool walk_next(walk_t *w, span_t *item) {
    if (w->ser == SER_JSON) {
        w->p = skip_space(w->p, w->end);
        if (w->p == w->end || *w->p == ']' || *w->p == '}') return false;
        if (w->begun) w->p = skip_space(w->p + 1, w->end); /* ',' or ':' */
        w->begun = true;
    } else if (!w->left--) {
        return false;
    }
    const uint8_t *next = value_end(w->ser, w->p, w->end);
    if (!next) return false;
    *item = (span_t){w->p, (size_t)(next - w->p)};
    w->p = next;
    return true;
}

bool map_find(serializer_t ser, span_t map, const char *key, span_t *value) {
    walk_t w;
    span_t found;
    size_t n = strlen(key), quotes = ser == SER_JSON;
    if (!walk_open(&w, ser, map)) return false;
    while (walk_next(&w, &found) && walk_next(&w, value))
        if (found.len == n + 1 + quotes && !memcmp(found.p + 1, key, n)) return true;
    return false;
}

/* --- writing ---------------------------------------------------------------------------------------------------------
 */

static void put_be(writer_t *w, uint64_t v, int octets) {
    for (int shift = 8 * (octets - 1); shift >= 0; shift -= 8) *w->p++ = (uint8_t)(v >> shift);
}

static void json_lead(writer_t *w) {
    if (w->comma) *w->p++ = ',';
    w->comma = true;
}

static void cbor_put_head(writer_t *w, uint8_t major, uint64_t v) {
    uint8_t first = (uint8_t)(major << 5);
    if (v < 24) {
        *w->p++ = first | (uint8_t)v;
        return;
    }
    int code = v < 0x100 ? 0 : v < 0x10000 ? 1 : v < 0x100000000 ? 2 : 3;
    *w->p++ = first | (uint8_t)(24 + code);
    put_be(w, v, 1 << code);
}

/* MessagePack: `fix` while n < limit, else the 16-bit form (bench messages are never larger). */
static void msgpack_put_head(writer_t *w, uint8_t fix, unsigned limit, uint8_t wide, unsigned n) {
    if (n < limit) {
        *w->p++ = fix | (uint8_t)n;
    } else {
        *w->p++ = wide;
        put_be(w, n, 2);
    }
}

static void put_open(writer_t *w, unsigned n, char bracket, uint8_t major, uint8_t fix, uint8_t wide) {
    if (w->ser == SER_CBOR) {
        cbor_put_head(w, major, n);
    } else if (w->ser == SER_MSGPACK) {
        msgpack_put_head(w, fix, 16, wide, n);
    } else {
        json_lead(w);
        *w->p++ = (uint8_t)bracket;
        w->comma = false;
    }
}

void put_array(writer_t *w, unsigned items) { put_open(w, items, '[', 4, 0x90, 0xdc); }
void put_map(writer_t *w, unsigned pairs) { put_open(w, pairs, '{', 5, 0x80, 0xde); }

void put_end(writer_t *w, char bracket) {
    if (w->ser != SER_JSON) return;
    *w->p++ = (uint8_t)bracket;
    w->comma = true;
}

void put_text(writer_t *w, const char *text) {
    size_t n = strlen(text);
    if (w->ser == SER_CBOR) {
        cbor_put_head(w, 3, n);
    } else if (w->ser == SER_MSGPACK) {
        msgpack_put_head(w, 0xa0, 32, 0xda, (unsigned)n);
    } else {
        json_lead(w);
        *w->p++ = '"';
    }
    memcpy(w->p, text, n);
    w->p += n;
    if (w->ser == SER_JSON) *w->p++ = '"';
}

void put_key(writer_t *w, const char *text) {
    put_text(w, text);
    if (w->ser == SER_JSON) {
        *w->p++ = ':';
        w->comma = false;
    }
}

void put_uint(writer_t *w, uint64_t v) {
    if (w->ser == SER_CBOR) {
        cbor_put_head(w, 0, v);
    } else if (w->ser == SER_MSGPACK) {
        if (v < 0x80) {
            *w->p++ = (uint8_t)v;
            return;
        }
        int code = v < 0x100 ? 0 : v < 0x10000 ? 1 : v < 0x100000000 ? 2 : 3;
        *w->p++ = (uint8_t)(0xcc + code);
        put_be(w, v, 1 << code);
    } else {
        char digits[20];
        int n = 0;
        json_lead(w);
        do digits[n++] = (char)('0' + v % 10);
        while (v /= 10);
        while (n) *w->p++ = (uint8_t)digits[--n];
    }
}

void put_true(writer_t *w) {
    if (w->ser == SER_JSON)
        put_raw(w, (span_t){(const uint8_t *)"true", 4});
    else
        *w->p++ = w->ser == SER_CBOR ? 0xf5 : 0xc3;
}

void put_null(writer_t *w) {
    if (w->ser == SER_JSON)
        put_raw(w, (span_t){(const uint8_t *)"null", 4});
    else
        *w->p++ = w->ser == SER_CBOR ? 0xf6 : 0xc0;
}

void put_double(writer_t *w, double v) {
    if (w->ser == SER_JSON) {
        char text[32];
        int n = snprintf(text, sizeof text, "%.10g", v);
        put_raw(w, (span_t){(const uint8_t *)text, (size_t)n});
        return;
    }
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    *w->p++ = w->ser == SER_CBOR ? 0xfb : 0xcb;
    put_be(w, bits, 8);
}

void put_raw(writer_t *w, span_t s) {
    if (w->ser == SER_JSON) json_lead(w);
    memcpy(w->p, s.p, s.len);
    w->p += s.len;
}

void put_bin_header(writer_t *w, size_t n) {
    if (w->ser == SER_CBOR) {
        cbor_put_head(w, 2, n);
        return;
    }
    int code = n < 0x100 ? 0 : n < 0x10000 ? 1 : 2;
    *w->p++ = (uint8_t)(0xc4 + code);
    put_be(w, n, 1 << code);
}
