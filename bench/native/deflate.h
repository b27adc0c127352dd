/* permessage-deflate (RFC 7692) for one connection, over zlib. */
#ifndef BENCH_DEFLATE_H
#define BENCH_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/* TAKEOVER: a message may refer to the ones before it; FRESH: every message stands alone, in both directions. */
typedef enum { DEFLATE_OFF, DEFLATE_TAKEOVER, DEFLATE_FRESH } deflate_t;

typedef struct zip zip_t;

zip_t *zip_open(deflate_t mode);
void zip_close(zip_t *z);
/* Appends the compressed message p[0:n] to out. */
void zip_compress(zip_t *z, const uint8_t *p, size_t n, buf_t *out);
/* Appends the message that p[0:n] holds to out; false when it is malformed or larger than 64 MiB. */
bool zip_expand(zip_t *z, const uint8_t *p, size_t n, buf_t *out);

/* What a client offers in Sec-WebSocket-Extensions. */
const char *deflate_offer(deflate_t mode);
/* What that header of len octets asks for, or grants; NULL (absent) is DEFLATE_OFF. */
deflate_t deflate_named(const char *value, size_t len);

#endif
