/* One WAMP session of the load generator: connect, handshake, login, work of its role, GOODBYE. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "auth.h"
#include "requests.h"
#include "tls.h"

typedef enum {
    CLIENT_DOWN,
    CLIENT_CONNECTING,
    CLIENT_TLS,
    CLIENT_HANDSHAKE,
    CLIENT_HELLO,
    CLIENT_JOINED,
    CLIENT_LEAVING
} client_state_t;

/* Subscribers and callees make themselves known as soon as they have joined, and are ready when that is acknowledged;
 * who identifies itself asks the router for its session ID. */
typedef enum { ROLE_CALLER, ROLE_PUBLISHER, ROLE_SUBSCRIBER, ROLE_CALLEE, ROLE_IDENTIFIED } role_t;

typedef struct {
    int fd;
    client_state_t state;
    role_t role;
    const user_t *user; /* who it logs in as; NULL: nobody in particular */
    uint32_t events; /* what epoll was asked for */
    channel_t channel;
    tls_t *tls;                 /* NULL: none, or not yet */
    uint64_t opened_ns;         /* when connecting began */
    uint64_t secured_ns;        /* when the TLS handshake was done */
    uint64_t sid;               /* the session ID of its WELCOME */
    uint64_t group;             /* its subscription or registration */
    uint64_t requests;          /* calls or publications made; the request ID of the last one */
    uint64_t results;           /* results, events, invocations received, publications acknowledged; all in order */
    uint64_t *sent_ns;          /* ring of setup.inflight: when each open request was made */
    request_t *publish[2];      /* publishers with lists: without and with acknowledge */
    char accept[WS_ACCEPT_LEN]; /* the Sec-WebSocket-Accept to expect */
} client_t;

/* The same for all sessions. */
typedef struct {
    address_t target;
    framing_t framing;
    serializer_t ser;
    bool batched;
    deflate_t deflate;
    const char *path, *realm, *host;
    unsigned inflight;
    unsigned listed; /* session IDs in each list of a PUBLISH */
    size_t payload;
    bool document;
    bool handshakes; /* connections are there for the TLS handshake only, and left after it */
    bool spread; /* connect from changing loopback addresses, so that ports do not run out */
    int epoll;
    uint64_t random;
    uint64_t reads;          /* receives that brought something */
    uint64_t sent, received; /* octets on the wire */
    uint64_t deflated;       /* messages that came compressed */
    uint64_t replaced;       /* sessions that were told another ID than the router's */
    const client_t *source;  /* whose session ID EVENTs and INVOCATIONs must name */
    /* what happened to a session; `lost` comes after the session is closed */
    void (*on_joined)(client_t *c);
    void (*on_ready)(client_t *c);
    void (*on_result)(client_t *c, uint64_t latency_ns);
    void (*on_event)(client_t *c, uint64_t latency_ns);
    void (*on_invocation)(client_t *c, uint64_t latency_ns);
    void (*on_published)(client_t *c, uint64_t latency_ns);
    void (*on_left)(client_t *c);
    void (*on_lost)(client_t *c, const char *why);
} setup_t;

extern setup_t setup;

/* Serializes what all sessions have in common. Once, after setup is filled. */
void client_prepare(void);
/* Starts to connect. */
void client_open(client_t *c);
/* Each queues one message; client_flush sends. */
void client_call(client_t *c);
void client_publish(client_t *c, bool acknowledge);
void client_goodbye(client_t *c);
/* What this publisher names in each of its publications from now on. */
void client_list(client_t *c, publish_options_t *options);
/* Publications that one acknowledgement stands for. */
unsigned client_publish_batch(void);
void client_flush(client_t *c);
void client_close(client_t *c);
/* What epoll says about this session. */
void client_event(client_t *c, uint32_t events);

#endif
