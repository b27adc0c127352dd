/* mask.h - RFC 6455 5.3: XOR with a repeating key of 4 octets, in place or while moving towards lower addresses.
 *
 * `key` holds the 4 octets of the wire loaded little-endian (load_le32); `phase` is the index of the first octet in the
 * frame's payload, modulo 4, for a payload that is treated in several steps.
 *
 * Every size class first loads its last piece, then works upwards and stores the last piece at the end. So the two
 * last pieces may overlap (no octet loop for the remainder), although an octet must not be XORed twice in place, and
 * although dst may overlap src from below.
 */
#ifndef PROXY_RELAY_MASK_H
#define PROXY_RELAY_MASK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "relay/bytes.h"

typedef uint8_t mask_v16 __attribute__((vector_size(16)));
typedef uint8_t mask_v32 __attribute__((vector_size(32)));

/* From this size on the wider registers pay for the call and the test of the CPU. */
#define MASK_WIDE_MIN 512

/* The key as it lies in memory, turned so that its first octet belongs to index `phase`. */
static inline uint32_t mask_turn(uint32_t key, size_t phase)
{
    unsigned bits = 8u * (unsigned)(phase & 3);
    return BYTES_LE32(key >> bits | key << (-bits & 31));
}

static inline mask_v16 mask_fill16(uint32_t k)
{
    uint32_t words[4] = {k, k, k, k};
    mask_v16 v;
    memcpy(&v, words, sizeof v);
    return v;
}

/* n < 16 */
static inline void mask_tiny(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key, size_t phase)
{
    uint32_t first = mask_turn(key, phase);
    if (n >= 8) {
        uint32_t last = mask_turn(key, phase + n);
        uint64_t a, b;
        memcpy(&a, src, 8);
        memcpy(&b, src + n - 8, 8);
        a ^= (uint64_t)first << 32 | first;
        b ^= (uint64_t)last << 32 | last;
        memcpy(dst, &a, 8);
        memcpy(dst + n - 8, &b, 8);
    } else if (n >= 4) {
        uint32_t last = mask_turn(key, phase + n);
        uint32_t a, b;
        memcpy(&a, src, 4);
        memcpy(&b, src + n - 4, 4);
        a ^= first;
        b ^= last;
        memcpy(dst, &a, 4);
        memcpy(dst + n - 4, &b, 4);
    } else if (n) {                             /* octets 0, n / 2 and n - 1 are all of 1, 2 or 3 */
        uint8_t k[4], a, b, c;
        memcpy(k, &first, 4);
        a = src[0] ^ k[0];
        b = src[n >> 1] ^ k[n >> 1];
        c = src[n - 1] ^ k[n - 1];
        dst[0] = a;
        dst[n >> 1] = b;
        dst[n - 1] = c;
    }
}

#if defined(__x86_64__)
/* n >= 32. Compiled for AVX2 whatever the baseline; only called where the CPU has it. */
__attribute__((target("avx2"), noinline, unused))
static void mask_wide(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key, size_t phase)
{
    uint32_t k = mask_turn(key, phase), t = mask_turn(key, phase + n);
    uint32_t words[8] = {k, k, k, k, k, k, k, k}, last_words[8] = {t, t, t, t, t, t, t, t};
    mask_v32 kv, tv, tail, a, b, c, d;
    size_t i = 0, end = n - 32;
    memcpy(&kv, words, 32);
    memcpy(&tv, last_words, 32);
    memcpy(&tail, src + end, 32);
    for (; i + 96 < end; i += 128) {
        memcpy(&a, src + i, 32);
        memcpy(&b, src + i + 32, 32);
        memcpy(&c, src + i + 64, 32);
        memcpy(&d, src + i + 96, 32);
        a ^= kv;
        b ^= kv;
        c ^= kv;
        d ^= kv;
        memcpy(dst + i, &a, 32);
        memcpy(dst + i + 32, &b, 32);
        memcpy(dst + i + 64, &c, 32);
        memcpy(dst + i + 96, &d, 32);
    }
    for (; i < end; i += 32) {
        memcpy(&a, src + i, 32);
        a ^= kv;
        memcpy(dst + i, &a, 32);
    }
    tail ^= tv;
    memcpy(dst + end, &tail, 32);
}
#endif

/* Copy n octets from src to dst, XORed with the key. dst <= src, or both do not overlap. */
static inline void mask_copy(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key, unsigned phase)
{
    mask_v16 k, t, tail, a;
    size_t i, end;
    if (n < 16) {
        mask_tiny(dst, src, n, key, phase);
        return;
    }
#if defined(__x86_64__)
    if (n >= MASK_WIDE_MIN && __builtin_cpu_supports("avx2")) {
        mask_wide(dst, src, n, key, phase);
        return;
    }
#endif
    k = mask_fill16(mask_turn(key, phase));
    t = mask_fill16(mask_turn(key, phase + n));
    end = n - 16;
    memcpy(&tail, src + end, 16);
    for (i = 0; i < end; i += 16) {
        memcpy(&a, src + i, 16);
        a ^= k;
        memcpy(dst + i, &a, 16);
    }
    tail ^= t;
    memcpy(dst + end, &tail, 16);
}

/* XOR n octets with the key in place; doing it twice with the same phase restores them. */
static inline void mask_xor(uint8_t *p, size_t n, uint32_t key, unsigned phase)
{
    mask_copy(p, p, n, key, phase);
}

#endif
