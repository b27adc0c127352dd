#include "deflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { WINDOW_BITS = 15, MEMORY_LEVEL = 8, EXPANDED_MAX = 64 << 20, STEP = 16 * 1024 };

struct zip {
    z_stream out, in;
    bool fresh;
};

static const uint8_t tail[4] = {0, 0, 0xff, 0xff}; /* ends every flushed message; does not travel (7.2.1) */

zip_t *zip_open(deflate_t mode) {
    zip_t *z = calloc(1, sizeof *z);
    if (!z) die("out of memory", NULL);
    z->fresh = mode == DEFLATE_FRESH;
    if (deflateInit2(&z->out, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) ||
        inflateInit2(&z->in, -WINDOW_BITS))
        die("zlib does not start", NULL);
    return z;
}

void zip_close(zip_t *z) {
    if (!z) return;
    deflateEnd(&z->out);
    inflateEnd(&z->in);
    free(z);
}

void zip_compress(zip_t *z, const uint8_t *p, size_t n, buf_t *out) {
    z->out.next_in = (uint8_t *)p;
    z->out.avail_in = (unsigned)n;
    do {
        z->out.next_out = buf_reserve(out, STEP);
        z->out.avail_out = STEP;
        deflate(&z->out, Z_SYNC_FLUSH);
        out->end += STEP - z->out.avail_out;
    } while (!z->out.avail_out);
    out->end -= sizeof tail;
    if (z->fresh) deflateReset(&z->out);
}

/* Until the input is used up and nothing more comes out. */
static bool expand(z_stream *s, const uint8_t *p, size_t n, buf_t *out) {
    s->next_in = (uint8_t *)p;
    s->avail_in = (unsigned)n;
    do {
        s->next_out = buf_reserve(out, STEP);
        s->avail_out = STEP;
        int status = inflate(s, Z_SYNC_FLUSH);
        out->end += STEP - s->avail_out;
        if (status != Z_OK && status != Z_BUF_ERROR) return false;
        if (buf_len(out) > EXPANDED_MAX) return false;
    } while (s->avail_in || !s->avail_out);
    return true;
}

bool zip_expand(zip_t *z, const uint8_t *p, size_t n, buf_t *out) {
    if (!expand(&z->in, p, n, out) || !expand(&z->in, tail, sizeof tail, out)) return false;
    if (z->fresh) inflateReset(&z->in);
    return true;
}

const char *deflate_offer(deflate_t mode) {
    return mode == DEFLATE_FRESH ? "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
                                 : "permessage-deflate";
}

deflate_t deflate_named(const char *value, size_t len) {
    static const char name[] = "permessage-deflate", fresh[] = "server_no_context_takeover";
    if (!value || !memmem(value, len, name, sizeof name - 1)) return DEFLATE_OFF;
    return memmem(value, len, fresh, sizeof fresh - 1) ? DEFLATE_FRESH : DEFLATE_TAKEOVER;
}
