/* How the sessions of a load generator prove who they are: what HELLO announces, and the answer to a CHALLENGE. */
#ifndef BENCH_AUTH_H
#define BENCH_AUTH_H

#include "codec.h"

typedef enum { AUTH_ANONYMOUS, AUTH_TICKET, AUTH_WAMPCRA, AUTH_CRYPTOSIGN } authmethod_t;

enum { SIGNATURE_MAX = 256, SECRET_MAX = 96 };

/* One of those that may log in. The secret of user7 is "SECRET-user7", which is its ticket and its key for WAMP-CRA;
 * the SHA-256 of that is its Ed25519 seed. */
typedef struct {
    char authid[24];
    char secret[SECRET_MAX];
    char pubkey[65];
    void *key; /* EVP_PKEY; cryptosign only */
} user_t;

/* "ticket"; false when it is not known. */
bool authmethod_parse(const char *name, authmethod_t *method);
/* Makes user0, user1 and so on. Once, before the first session is opened. */
void auth_prepare(authmethod_t method, unsigned users, const char *secret);
/* They take turns. NULL: sessions are anonymous. */
const user_t *auth_next(void);

/* HELLO.Details: pairs that a user adds, and these pairs. */
unsigned auth_pairs(const user_t *user);
void auth_announce(writer_t *w, const user_t *user);
/* The signature that answers [CHALLENGE, method, extra], as a text. NULL, or what is wrong with the CHALLENGE. */
const char *auth_answer(const user_t *user, serializer_t ser, const message_t *m, char signature[SIGNATURE_MAX]);
/* Whether WELCOME.Details are this user's. */
bool auth_is_welcome(const user_t *user, serializer_t ser, span_t details);

#endif
