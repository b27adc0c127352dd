/* TLS of the load generator's sessions, over OpenSSL. What was asked for is checked: a handshake that ends with another
 * version, cipher, key exchange or certificate, or that is full where it was to be resumed, is an error. */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct tls tls_t;

/* The same for all sessions. */
typedef struct {
    const char *ca;      /* file that the servers' certificates go back to; NULL: no TLS */
    const char *version; /* "1.3" or "1.2" */
    const char *cipher;  /* OpenSSL's name; NULL: whichever both like best */
    const char *group;   /* of the key exchange, OpenSSL's name; "": whichever both like best */
    const char *alpn;    /* protocol to offer; "": none */
    bool resumes;        /* offers the latest ticket, which must be taken; else every handshake is a full one */
    uint64_t full, resumed; /* handshakes done */
    uint64_t sent, received; /* octets on the wire */
} tls_setup_t;

extern tls_setup_t tls_setup;

/* Once, before the first tls_open. Ends the program when what is asked for does not exist. */
void tls_prepare(void);
/* The client's end of a connected socket that does not block. The socket stays the caller's. */
tls_t *tls_open(int fd);
void tls_free(tls_t *t);

/* Goes on with the handshake. 1: done and as it was asked for; 0: it waits for the socket; -1: tls_error says why not.
 */
int tls_handshake(tls_t *t);
/* Octets that were read or written; 0: the socket has no more, or takes no more; -1: the peer ended the stream, or
 * tls_error says what is wrong. */
ssize_t tls_read(tls_t *t, uint8_t *p, size_t n);
ssize_t tls_write(tls_t *t, const uint8_t *p, size_t n);
/* Tells the peer that nothing more comes (close_notify). */
void tls_end(tls_t *t);
/* Whether the last verb waits for room in the socket. */
bool tls_wants_room(const tls_t *t);
/* NULL: the peer ended the stream with close_notify. Valid until the next error. */
const char *tls_error(const tls_t *t);

/* What the last handshake came to: "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519 EC-256"; "" before any. */
const char *tls_agreed(void);

#endif
