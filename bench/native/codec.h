/* WAMP messages in JSON, MessagePack and CBOR, as little as the bench tools need: find the first items of a message
 * without decoding it, and write small ones. */
#ifndef BENCH_CODEC_H
#define BENCH_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { SER_NONE = 0, SER_JSON = 1, SER_MSGPACK = 2, SER_CBOR = 3 } serializer_t; /* RawSocket's numbers */

enum {
    WAMP_HELLO = 1,
    WAMP_WELCOME = 2,
    WAMP_ABORT = 3,
    WAMP_CHALLENGE = 4,
    WAMP_AUTHENTICATE = 5,
    WAMP_GOODBYE = 6,
    WAMP_ERROR = 8,
    WAMP_PUBLISH = 16,
    WAMP_PUBLISHED = 17,
    WAMP_SUBSCRIBE = 32,
    WAMP_SUBSCRIBED = 33,
    WAMP_UNSUBSCRIBE = 34,
    WAMP_UNSUBSCRIBED = 35,
    WAMP_EVENT = 36,
    WAMP_CALL = 48,
    WAMP_RESULT = 50,
    WAMP_REGISTER = 64,
    WAMP_REGISTERED = 65,
    WAMP_UNREGISTER = 66,
    WAMP_UNREGISTERED = 67,
    WAMP_INVOCATION = 68,
    WAMP_YIELD = 70
};

/* "cbor", "msgpack", "json"; SER_NONE for any other text of len octets. */
serializer_t serializer_by_name(const char *name, size_t len);
const char *serializer_name(serializer_t ser);

typedef struct {
    const uint8_t *p;
    size_t len;
} span_t;

typedef struct {
    span_t item[5]; /* the first items, each with its own header */
    unsigned found; /* how many of them are filled */
    unsigned count; /* items of the whole array; JSON: only whether there are more than found */
    span_t tail;    /* what follows the last item found, to the end; JSON: from its comma to the closing bracket */
} message_t;

/* Reads the array at p[0:n] up to and including its first `want` items (at most 5, less if it is shorter). */
bool message_read(serializer_t ser, const uint8_t *p, size_t n, unsigned want, message_t *m);
/* The unsigned integer in s, or UINT64_MAX when it is none. */
uint64_t span_uint(serializer_t ser, span_t s);
bool span_is_true(serializer_t ser, span_t s);
/* A text of ASCII characters, with a terminating NUL. false: it is none, or does not fit into cap octets. */
bool span_text(serializer_t ser, span_t s, char *text, size_t cap);

/* Going through an array, or through a map as key, value, key, value. */
typedef struct {
    serializer_t ser;
    const uint8_t *p, *end;
    uint64_t left; /* items to come; JSON: not known */
    bool begun;
} walk_t;

/* false: s is neither an array nor a map. */
bool walk_open(walk_t *w, serializer_t ser, span_t s);
/* The next item; false at the end, or where the octets are not understood. */
bool walk_next(walk_t *w, span_t *item);
/* The value of a key (without escapes, shorter than 24 octets) in a map; false when it is absent. */
bool map_find(serializer_t ser, span_t map, const char *key, span_t *value);

/* --- writing: the caller provides the room --------------------------------------------------------------------------
 */

typedef struct {
    serializer_t ser;
    uint8_t *p; /* where the next octet goes */
    bool comma; /* JSON: a comma is due before the next value */
} writer_t;

void put_array(writer_t *w, unsigned items);
void put_map(writer_t *w, unsigned pairs);
void put_end(writer_t *w, char bracket); /* JSON: ']' or '}'; otherwise nothing */
void put_key(writer_t *w, const char *text);
void put_uint(writer_t *w, uint64_t v);
void put_text(writer_t *w, const char *text);
void put_true(writer_t *w);
void put_null(writer_t *w);
/* v has at most ten decimal digits, so that its shortest form in JSON is the same wherever it is written. */
void put_double(writer_t *w, double v);
void put_raw(writer_t *w, span_t s); /* one value, already serialized */
/* Header of a binary value of n octets that the caller appends. Not for JSON. */
void put_bin_header(writer_t *w, size_t n);

#endif
