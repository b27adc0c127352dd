/* bytes.h - integers in wire order (big-endian; _le: little-endian), from and to addresses of any alignment.
 *
 * memcpy of a constant size is how C spells an unaligned load or store; compilers turn each of these into one or two
 * instructions.
 */
#ifndef PROXY_RELAY_BYTES_H
#define PROXY_RELAY_BYTES_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BYTES_BE16(x) (x)
#define BYTES_BE32(x) (x)
#define BYTES_BE64(x) (x)
#define BYTES_LE16(x) __builtin_bswap16(x)
#define BYTES_LE32(x) __builtin_bswap32(x)
#define BYTES_LE64(x) __builtin_bswap64(x)
#else
#define BYTES_BE16(x) __builtin_bswap16(x)
#define BYTES_BE32(x) __builtin_bswap32(x)
#define BYTES_BE64(x) __builtin_bswap64(x)
#define BYTES_LE16(x) (x)
#define BYTES_LE32(x) (x)
#define BYTES_LE64(x) (x)
#endif

static inline uint16_t load_be16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return BYTES_BE16(x);
}

static inline uint32_t load_be24(const uint8_t *p)
{
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

static inline uint32_t load_be32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return BYTES_BE32(x);
}

static inline uint64_t load_be64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return BYTES_BE64(x);
}

static inline uint16_t load_le16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return BYTES_LE16(x);
}

static inline uint32_t load_le32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return BYTES_LE32(x);
}

static inline uint64_t load_le64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return BYTES_LE64(x);
}

static inline void store_be16(uint8_t *p, uint16_t x)
{
    x = BYTES_BE16(x);
    memcpy(p, &x, sizeof x);
}

static inline void store_be24(uint8_t *p, uint32_t x)
{
    p[0] = (uint8_t)(x >> 16);
    p[1] = (uint8_t)(x >> 8);
    p[2] = (uint8_t)x;
}

static inline void store_be32(uint8_t *p, uint32_t x)
{
    x = BYTES_BE32(x);
    memcpy(p, &x, sizeof x);
}

static inline void store_be64(uint8_t *p, uint64_t x)
{
    x = BYTES_BE64(x);
    memcpy(p, &x, sizeof x);
}

static inline void store_le32(uint8_t *p, uint32_t x)
{
    x = BYTES_LE32(x);
    memcpy(p, &x, sizeof x);
}

static inline void store_le64(uint8_t *p, uint64_t x)
{
    x = BYTES_LE64(x);
    memcpy(p, &x, sizeof x);
}

#endif
