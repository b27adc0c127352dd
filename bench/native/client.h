/* One WAMP session of the load generator: connect, handshake, HELLO, calls, GOODBYE. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "codec.h"
#include "wire.h"

typedef enum {
    CLIENT_DOWN,
    CLIENT_CONNECTING,
    CLIENT_HANDSHAKE,
    CLIENT_HELLO,
    CLIENT_JOINED,
    CLIENT_LEAVING
} client_state_t;

typedef struct {
    int fd;
    client_state_t state;
    uint32_t events; /* what epoll was asked for */
    buf_t in, out;
    uint64_t opened_ns;         /* when connecting began */
    uint64_t requests;          /* calls made; the request id of the last one */
    uint64_t results;           /* results received; they come in the order of the calls */
    uint64_t *sent_ns;          /* ring of setup.inflight: when each open call was made */
    char accept[WS_ACCEPT_LEN]; /* the Sec-WebSocket-Accept to expect */
} client_t;

/* The same for all sessions. */
typedef struct {
    address_t target;
    framing_t framing;
    serializer_t ser;
    const char *path, *realm, *host;
    unsigned inflight;
    size_t payload;
    bool spread; /* connect from changing loopback addresses, so that ports do not run out */
    int epoll;
    uint64_t random;
    uint64_t reads; /* receives that brought something */
    /* what happened to a session; `lost` comes after the session is closed */
    void (*on_joined)(client_t *c);
    void (*on_result)(client_t *c, uint64_t latency_ns);
    void (*on_left)(client_t *c);
    void (*on_lost)(client_t *c, const char *why);
} setup_t;

extern setup_t setup;

/* Serializes what all calls have in common. Once, after setup is filled. */
void client_prepare(void);
/* Starts to connect. */
void client_open(client_t *c);
/* Queues one call; client_flush sends. */
void client_call(client_t *c);
void client_goodbye(client_t *c);
void client_flush(client_t *c);
void client_close(client_t *c);
/* What epoll says about this session. */
void client_event(client_t *c, uint32_t events);

#endif
