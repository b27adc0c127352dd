/* Messages that the load generator repeats: they differ in the request ID and in which payload they carry. */
#ifndef BENCH_REQUESTS_H
#define BENCH_REQUESTS_H

#include "channel.h"

enum { DOCUMENTS = 64, LISTED_MAX = 64 };

/* What is carried, and must come back octet for octet. Documents take turns: together they are larger than a
 * compression window, so that no message is the repetition of one before it. */
typedef struct {
    unsigned count;
    span_t echo[DOCUMENTS]; /* the end of a message: Args, in JSON with the comma before and the bracket behind */
} payload_t;

/* Octets without meaning, or (document) records of mixed types, at least so many octets of them in JSON. */
void payload_make(payload_t *p, serializer_t ser, size_t octets, bool document, uint64_t *random);

/* head, request ID, middle, payload */
typedef struct {
    serializer_t ser;
    uint8_t head[16];
    size_t head_len;
    uint8_t middle[192 + 2 * 18 * LISTED_MAX]; /* an ID has 17 octets at most, in JSON with its comma */
    size_t middle_len;
} request_t;

typedef struct {
    bool acknowledge;
    unsigned listed; /* IDs in each of the lists; 0: no lists */
    uint64_t exclude[LISTED_MAX], eligible[LISTED_MAX];
} publish_options_t;

/* uri, options: NULL for none. */
void request_make(request_t *r, serializer_t ser, unsigned type, const char *uri, const publish_options_t *options);
/* Queues one. id: its request ID; turn: which payload. */
void request_put(channel_t *c, const request_t *r, const payload_t *payload, uint64_t id, uint64_t turn);
/* Whether the rest of a message is the payload of that turn. */
bool payload_is(const payload_t *p, uint64_t turn, span_t rest);

#endif
