/* What the stand-in router knows of WAMP: its one realm, with sessions, topics and procedures. */
#ifndef BENCH_REALM_H
#define BENCH_REALM_H

#include "channel.h"

typedef enum { PEER_LISTENER, PEER_SNIFF, PEER_OPEN, PEER_CLOSING, PEER_REFUSED } state_t;

typedef struct peer {
    int fd, family;
    state_t state;
    bool joined, dirty;   /* dirty: stands in realm.dirty */
    uint32_t events;      /* what epoll was asked for */
    uint64_t sid;         /* the session ID that this router drew */
    uint64_t invocations; /* request id of the last INVOCATION */
    uint32_t *calls;      /* ring by request: which call an INVOCATION belongs to, 0 none; NULL before the first */
    bool subscribed;
    channel_t channel;
} peer_t;

typedef struct {
    const char *authmethod;
    uint64_t random;
    peer_t **dirty; /* peers that got octets to send while another one was read */
    size_t dirty_count, dirty_cap;
    uint64_t sessions, joined, calls, invocations, publications, events, listed, errors;
} realm_t;

extern realm_t realm;

/* One WAMP message of a peer. NULL, or what is wrong with it. */
const char *realm_message(peer_t *c, const uint8_t *p, size_t n);
/* The peer is gone, with all that the realm knew of it. */
void realm_leave(peer_t *c);

#endif
