/* What the load generator and the stand-in router share: growing buffers, WebSocket and RawSocket frames, the pieces of
 * the WebSocket opening handshake, and addresses. Bench tools only: no limits, no fragmentation. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* --- buffers: octets data[start:end] are waiting, data[end:cap] is room --------------------------------------------
 */

typedef struct {
    uint8_t *data;
    size_t start, end, cap;
} buf_t;

static inline size_t buf_len(const buf_t *b) { return b->end - b->start; }
static inline uint8_t *buf_head(const buf_t *b) { return b->data + b->start; }

/* At least n octets of room behind the waiting ones; returns where to write (the caller advances b->end). */
uint8_t *buf_reserve(buf_t *b, size_t n);
/* Forgets n waiting octets. */
void buf_drop(buf_t *b, size_t n);
void buf_free(buf_t *b);

/* --- frames ---------------------------------------------------------------------------------------------------------
 */

typedef enum { FRAMING_WEBSOCKET, FRAMING_RAWSOCKET } framing_t;
typedef enum { FRAME_MESSAGE, FRAME_PING, FRAME_PONG, FRAME_CLOSE } frame_kind_t;

typedef struct {
    frame_kind_t kind;
    bool compressed;  /* RSV1: permessage-deflate */
    uint8_t *payload; /* unmasked in place */
    size_t len;
    size_t size; /* octets of header and payload; when wire_next returns 0: octets needed at least */
} frame_t;

enum { WIRE_HEADER_MAX = 14 };

/* The frame at p[0:n]. 1: f is filled; 0: more octets are needed, see f->size; -1: not a frame these tools understand.
 */
int wire_next(framing_t framing, uint8_t *p, size_t n, frame_t *f);

enum { WIRE_TEXT = 1, WIRE_COMPRESSED = 2 }; /* a WebSocket text message (JSON); RSV1 */

/* Writes the header of a frame with len octets of payload, returns its length. masked: key goes into the header; the
 * payload is masked by the caller with wire_mask. */
size_t wire_header(uint8_t *dst, framing_t framing, frame_kind_t kind, uint8_t flags, size_t len, bool masked,
                   uint32_t key);

/* XORs p[0:n] with key, given as its four wire octets loaded in native order. */
void wire_mask(uint8_t *p, size_t n, uint32_t key);

/* --- WebSocket opening handshake
 * -------------------------------------------------------------------------------------- */

enum { WS_ACCEPT_LEN = 28 };

/* Sec-WebSocket-Accept for a Sec-WebSocket-Key of len octets (RFC 6455 4.2.2), without a terminating NUL. */
void ws_accept(const char *key, size_t len, char out[WS_ACCEPT_LEN]);
/* Base64 without a terminating NUL; returns the length. */
size_t base64(const uint8_t *p, size_t n, char *out);
/* Length of the HTTP head at p up to and including the empty line, 0 while there is none. */
size_t http_head_len(const uint8_t *p, size_t n);
/* Value of a header (name in lower case, without colon) in a head of n octets; NULL when it is absent. */
const char *http_header(const char *head, size_t n, const char *name, size_t *len);

/* --- addresses
 * --------------------------------------------------------------------------------------------------------- */

typedef struct {
    struct sockaddr_storage addr;
    socklen_t len;
    int family;
} address_t;

/* "tcp:127.0.0.1:8080" (IPv4 only) or "unix:/path"; false when the text is neither. */
bool address_parse(const char *text, address_t *a);
/* A non-blocking socket that listens on a; a stale Unix socket is removed first. -1 with errno on failure. */
int address_listen(const address_t *a);
/* TCP_NODELAY; a no-op for Unix sockets. */
void socket_tune(int fd, int family);

uint64_t now_ns(void);
/* xorshift64*: good enough for masking keys and payload octets. */
uint64_t random_next(uint64_t *state);
uint64_t random_seed(void);
/* Raises the limit of open descriptors as far as it goes. */
void raise_fd_limit(void);
/* Prints "program: text" and exits with 2. */
void die(const char *text, const char *detail);

#endif
