#include "channel.h"

#include <string.h>

enum { JSON_SEPARATOR = 0x1e };

static buf_t plain;    /* a message to be compressed */
static buf_t packed;   /* a compressed message to be framed */
static buf_t expanded; /* a message that came compressed */

static const char malformed_batch[] = "a malformed batch";

/* --- writing -------------------------------------------------------------------------------------------------------
 */

/* Room for a frame of len octets; the payload is written by the caller and masked by payload_end. */
static uint32_t key;

static uint8_t *payload_begin(channel_t *c, frame_kind_t kind, bool compressed, size_t len) {
    uint8_t *dst = buf_reserve(&c->out, WIRE_HEADER_MAX + len);
    if (c->masks) key = (uint32_t)random_next(c->random);
    uint8_t flags = (c->ser == SER_JSON ? WIRE_TEXT : 0) | (compressed ? WIRE_COMPRESSED : 0);
    size_t at = wire_header(dst, c->framing, kind, flags, len, c->masks, key);
    c->out.end += at + len;
    return dst + at;
}

static void payload_end(channel_t *c, uint8_t *p, size_t len) {
    if (c->masks && c->framing == FRAMING_WEBSOCKET) wire_mask(p, len, key);
}

static void payload_put(channel_t *c, frame_kind_t kind, bool compressed, const uint8_t *p, size_t n) {
    uint8_t *dst = payload_begin(c, kind, compressed, n);
    if (n) memcpy(dst, p, n);
    payload_end(c, dst, n);
}

/* One message or one batch. */
static void data_put(channel_t *c, const uint8_t *p, size_t n) {
    if (!c->zip) {
        payload_put(c, FRAME_MESSAGE, false, p, n);
        return;
    }
    packed.start = packed.end = 0;
    zip_compress(c->zip, p, n, &packed);
    payload_put(c, FRAME_MESSAGE, true, buf_head(&packed), buf_len(&packed));
}

static void length_put(uint8_t *p, size_t n) {
    for (int i = 3; i >= 0; i--, n >>= 8) p[i] = (uint8_t)n;
}

uint8_t *channel_begin(channel_t *c, size_t len) {
    if (c->batched) {
        uint8_t *p = buf_reserve(&c->batch, len + 4);
        if (c->ser == SER_JSON) return p;
        length_put(p, len);
        return p + 4;
    }
    return c->zip ? buf_reserve(&plain, len) : payload_begin(c, FRAME_MESSAGE, false, len);
}

void channel_end(channel_t *c, uint8_t *p, size_t len) {
    if (c->batched) {
        if (c->ser == SER_JSON) p[len] = JSON_SEPARATOR;
        c->batch.end += len + (c->ser == SER_JSON ? 1 : 4);
    } else if (c->zip) {
        data_put(c, p, len);
    } else {
        payload_end(c, p, len);
    }
}

void channel_put(channel_t *c, const uint8_t *p, size_t n) {
    uint8_t *dst = channel_begin(c, n);
    memcpy(dst, p, n);
    channel_end(c, dst, n);
}

void channel_control(channel_t *c, frame_kind_t kind, const uint8_t *p, size_t n) {
    payload_put(c, kind, false, p, n);
}

void channel_flush(channel_t *c) {
    if (!buf_len(&c->batch)) return;
    data_put(c, buf_head(&c->batch), buf_len(&c->batch));
    c->batch.start = c->batch.end = 0;
}

/* --- reading -------------------------------------------------------------------------------------------------------
 */

static const char *json_batch_read(uint8_t *p, size_t n, channel_reader_t reader, void *owner) {
    while (n) {
        uint8_t *end = memchr(p, JSON_SEPARATOR, n);
        if (!end || end == p) return malformed_batch;
        const char *why = reader(owner, FRAME_MESSAGE, p, (size_t)(end - p));
        if (why) return why;
        n -= (size_t)(end - p) + 1;
        p = end + 1;
    }
    return NULL;
}

static const char *binary_batch_read(uint8_t *p, size_t n, channel_reader_t reader, void *owner) {
    while (n) {
        if (n < 4) return malformed_batch;
        size_t len = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (len > n - 4) return malformed_batch;
        const char *why = reader(owner, FRAME_MESSAGE, p + 4, len);
        if (why) return why;
        p += 4 + len;
        n -= 4 + len;
    }
    return NULL;
}

static const char *data_read(channel_t *c, frame_t *f, channel_reader_t reader, void *owner) {
    uint8_t *p = f->payload;
    size_t n = f->len;
    if (f->compressed) {
        if (!c->zip) return "a compressed message that was not negotiated";
        expanded.start = expanded.end = 0;
        if (!zip_expand(c->zip, p, n, &expanded)) return "a message that does not inflate";
        p = buf_head(&expanded);
        n = buf_len(&expanded);
        c->deflated++;
    }
    if (!c->batched) return reader(owner, FRAME_MESSAGE, p, n);
    if (!n) return malformed_batch;
    return c->ser == SER_JSON ? json_batch_read(p, n, reader, owner) : binary_batch_read(p, n, reader, owner);
}

const char *channel_read(channel_t *c, channel_reader_t reader, void *owner) {
    while (buf_len(&c->in)) {
        frame_t f;
        int found = wire_next(c->framing, buf_head(&c->in), buf_len(&c->in), &f);
        if (found < 0) return "an invalid frame";
        if (!found) {
            buf_reserve(&c->in, f.size - buf_len(&c->in));
            return NULL;
        }
        const char *why = f.kind == FRAME_MESSAGE ? data_read(c, &f, reader, owner)
                                                  : reader(owner, f.kind, f.payload, f.len);
        if (why) return why;
        buf_drop(&c->in, f.size);
    }
    return NULL;
}

void channel_free(channel_t *c) {
    buf_free(&c->in);
    buf_free(&c->out);
    buf_free(&c->batch);
    zip_close(c->zip);
    c->zip = NULL;
}

serializer_t subprotocol_parse(const char *name, size_t len, bool *batched) {
    static const char suffix[] = ".batched";
    size_t n = sizeof suffix - 1;
    *batched = len > n && !memcmp(name + len - n, suffix, n);
    return serializer_by_name(name, *batched ? len - n : len);
}
