/* WAMP messages over one connection, for both ends: frames, masking, batches, compression. Sockets are the caller's. */
#ifndef BENCH_CHANNEL_H
#define BENCH_CHANNEL_H

#include "codec.h"
#include "deflate.h"
#include "wire.h"

typedef struct {
    framing_t framing;
    serializer_t ser;
    bool batched;      /* wamp.2.*.batched: many messages in one WebSocket message */
    bool masks;        /* this end is a WebSocket client */
    zip_t *zip;        /* permessage-deflate; NULL when it was not negotiated */
    uint64_t *random;  /* where masking keys come from */
    buf_t in, out;     /* octets received and not yet read; octets to send */
    buf_t batch;       /* messages that wait for channel_flush */
    uint64_t deflated; /* messages that came compressed */
} channel_t;

/* Queues a message: the caller writes its len octets to the place returned, then calls channel_end, before anything
 * else is done with the channel. */
uint8_t *channel_begin(channel_t *c, size_t len);
void channel_end(channel_t *c, uint8_t *p, size_t len);
/* The same for a message that is there already. */
void channel_put(channel_t *c, const uint8_t *p, size_t n);
/* Queues a Ping, Pong or Close. */
void channel_control(channel_t *c, frame_kind_t kind, const uint8_t *p, size_t n);
/* Moves the batch to the octets to send; to be called before these are sent. */
void channel_flush(channel_t *c);

/* Takes one WAMP message or control frame. NULL: go on; any text ends the reading. */
typedef const char *(*channel_reader_t)(void *owner, frame_kind_t kind, uint8_t *p, size_t n);
/* Hands all that is complete to the reader; returns NULL, the reader's text, or what is wrong with the octets. */
const char *channel_read(channel_t *c, channel_reader_t reader, void *owner);

void channel_free(channel_t *c);

/* "cbor", "json.batched": the subprotocol without "wamp.2."; SER_NONE when it is not known. */
serializer_t subprotocol_parse(const char *name, size_t len, bool *batched);

#endif
