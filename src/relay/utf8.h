/* utf8.h - strict UTF-8 (RFC 3629): no surrogates, no overlong forms, nothing above U+10FFFF.
 *
 * JSON on the wire is mostly ASCII, so runs of it are skipped by registers; everything else is checked one sequence
 * at a time against the ranges of the Unicode standard's table of well-formed sequences (table 3-7).
 */
#ifndef PROXY_RELAY_UTF8_H
#define PROXY_RELAY_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define UTF8_HIGH_BITS UINT64_C(0x8080808080808080)

static inline int utf8_is_ascii64(const uint8_t *p)
{
#if defined(__SSE2__)
    __m128i a = _mm_loadu_si128((const __m128i *)p), b = _mm_loadu_si128((const __m128i *)(p + 16));
    __m128i c = _mm_loadu_si128((const __m128i *)(p + 32)), d = _mm_loadu_si128((const __m128i *)(p + 48));
    return _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d))) == 0;
#else
    uint64_t w[8];
    memcpy(w, p, sizeof w);
    return ((w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]) & UTF8_HIGH_BITS) == 0;
#endif
}

/* First place at or after p that is no ASCII, or an earlier one within 7 octets of it; end if there is none. */
static inline const uint8_t *utf8_skip_ascii(const uint8_t *p, const uint8_t *end)
{
    uint64_t w;
    while (end - p >= 64 && utf8_is_ascii64(p))
        p += 64;
    while (end - p >= 8) {
        memcpy(&w, p, 8);
        if (w & UTF8_HIGH_BITS)
            return p;
        p += 8;
    }
    return p;
}

static inline int utf8_is_tail(uint8_t x)
{
    return (x & 0xC0) == 0x80;
}

/* Octets of the well-formed sequence at p, whose first octet is not ASCII; 0 if it is not well-formed. */
static inline size_t utf8_sequence(const uint8_t *p, size_t n)
{
    uint8_t lead = p[0];
    if (lead < 0xE0)                            /* 80..C1: a stray tail, or overlong */
        return n >= 2 && lead >= 0xC2 && utf8_is_tail(p[1]) ? 2 : 0;
    if (lead < 0xF0) {                          /* E0: not overlong; ED: no surrogates */
        if (n < 3 || !utf8_is_tail(p[1]) || !utf8_is_tail(p[2]))
            return 0;
        if ((lead == 0xE0 && p[1] < 0xA0) || (lead == 0xED && p[1] > 0x9F))
            return 0;
        return 3;
    }
    if (lead > 0xF4 || n < 4 || !utf8_is_tail(p[1]) || !utf8_is_tail(p[2]) || !utf8_is_tail(p[3]))
        return 0;
    if ((lead == 0xF0 && p[1] < 0x90) || (lead == 0xF4 && p[1] > 0x8F))
        return 0;                               /* F0: not overlong; F4: not above U+10FFFF */
    return 4;
}

/* 1 if the n octets at p are valid UTF-8 as a whole (none are), else 0. */
static inline int utf8_is_valid(const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    size_t step;
    for (;;) {
        p = utf8_skip_ascii(p, end);
        while (p < end && *p < 0x80)
            p++;
        if (p == end)
            return 1;
        do {                                    /* scripts that are not Latin come in runs */
            step = utf8_sequence(p, (size_t)(end - p));
            if (step == 0)
                return 0;
            p += step;
        } while (p < end && *p >= 0x80);
    }
}

#endif
