#include "tls.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "wire.h"

/* One receive for many records, as one receive brings many frames without TLS. */
enum { READ_AHEAD = 64 * 1024 };

struct tls {
    SSL *ssl;
    bool wants_room;
    bool offered;                   /* a ticket */
    bool ended;                     /* by close_notify */
    uint64_t sent, received;        /* octets on the wire that are counted already */
    char error[160];
};

tls_setup_t tls_setup = {.version = "1.3", .group = "X25519", .alpn = "http/1.1"};

static const char server_name[] = "localhost";

static SSL_CTX *context;
static SSL_SESSION *ticket; /* the latest one */
static X509 *trusted;       /* the server's certificate, verified when it was first seen */
static char agreed[128];

/* --- what all sessions have in common --------------------------------------------------------------------------------
 */

/* Building and checking the chain is no part of what is measured, and the server's certificate is the same each time.
 * That the server has its key is proved in each full handshake. */
static int certificate_check(X509_STORE_CTX *store, void *arg) {
    (void)arg;
    X509 *shown = X509_STORE_CTX_get0_cert(store);
    if (trusted && shown && !X509_cmp(trusted, shown)) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    if (X509_verify_cert(store) != 1) return 0;
    X509_free(trusted);
    X509_up_ref(shown);
    trusted = shown;
    return 1;
}

/* A copy of our own: how its connection ends later may mark OpenSSL's as not resumable. */
static int ticket_keep(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    SSL_SESSION_free(ticket);
    ticket = SSL_SESSION_dup(session);
    return 0;
}

static void versions_set(void) {
    int version = !strcmp(tls_setup.version, "1.2") ? TLS1_2_VERSION : TLS1_3_VERSION;
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    if (!tls_setup.cipher) return;
    bool known = version == TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(context, tls_setup.cipher)
                                           : SSL_CTX_set_cipher_list(context, tls_setup.cipher);
    if (!known) die("unknown cipher of this TLS version", tls_setup.cipher);
}

static void protocol_set(void) {
    unsigned char list[257];
    size_t n = strlen(tls_setup.alpn);
    if (n > 255) die("a protocol's name has 255 octets at most", NULL);
    list[0] = (unsigned char)n;
    memcpy(list + 1, tls_setup.alpn, n);
    if (n && SSL_CTX_set_alpn_protos(context, list, (unsigned)n + 1)) die("out of memory", NULL);
}

/* In TLS 1.2 the curve of an ECDSA key must be one of them, too. */
static void groups_set(void) {
    char list[128];
    snprintf(list, sizeof list, "%s%s", tls_setup.group, strcmp(tls_setup.version, "1.2") ? "" : ":P-256");
    if (*tls_setup.group && !SSL_CTX_set1_groups_list(context, list)) die("unknown group", tls_setup.group);
}

void tls_prepare(void) {
    if (!tls_setup.ca) return;
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    context = SSL_CTX_new(TLS_client_method());
    if (!context) die("OpenSSL cannot be set up", NULL);
    versions_set();
    groups_set();
    if (!SSL_CTX_load_verify_file(context, tls_setup.ca)) die("cannot read certificates", tls_setup.ca);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(context, certificate_check, NULL);
    protocol_set();
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF); /* WAMP says whether a session is over */
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
    if (!tls_setup.resumes) return;
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, ticket_keep);
}

/* --- one session -----------------------------------------------------------------------------------------------------
 */

tls_t *tls_open(int fd) {
    tls_t *t = calloc(1, sizeof *t);
    if (!t || !(t->ssl = SSL_new(context)) || !SSL_set_fd(t->ssl, fd)) die("out of memory", NULL);
    SSL_set_connect_state(t->ssl);
    SSL_set_tlsext_host_name(t->ssl, server_name);
    SSL_set1_host(t->ssl, server_name);
    SSL_SESSION *copy = ticket ? SSL_SESSION_dup(ticket) : NULL;
    t->offered = copy && SSL_set_session(t->ssl, copy);
    SSL_SESSION_free(copy);
    return t;
}

void tls_free(tls_t *t) {
    if (!t) return;
    SSL_free(t->ssl);
    free(t);
}

static void octets_count(tls_t *t) {
    uint64_t sent = BIO_number_written(SSL_get_wbio(t->ssl)), received = BIO_number_read(SSL_get_rbio(t->ssl));
    tls_setup.sent += sent - t->sent;
    tls_setup.received += received - t->received;
    t->sent = sent;
    t->received = received;
}

static int fail(tls_t *t, const char *why) {
    if (!t->error[0]) snprintf(t->error, sizeof t->error, "TLS: %s", why);
    return -1;
}

/* What a verb that brought `result` came to: 0 to wait, -1. */
static int outcome(tls_t *t, int result) {
    int error = errno, kind = SSL_get_error(t->ssl, result);
    octets_count(t);
    t->wants_room = kind == SSL_ERROR_WANT_WRITE;
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) return 0;
    if (kind == SSL_ERROR_ZERO_RETURN) return t->ended = true, -1;
    long verified = SSL_get_verify_result(t->ssl);
    unsigned long reason = ERR_peek_last_error();
    ERR_clear_error();
    if (!SSL_is_init_finished(t->ssl) && verified != X509_V_OK)
        return fail(t, X509_verify_cert_error_string(verified));
    const char *text = reason ? ERR_reason_error_string(reason) : NULL;
    if (kind == SSL_ERROR_SSL) return fail(t, text ? text : "it failed");
    return fail(t, error ? strerror(error) : "the peer closed the connection");
}

static void agreed_note(SSL *ssl) {
    EVP_PKEY *key = NULL;
    char name[32] = "?";
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (certificate) key = X509_get0_pubkey(certificate);
    const char *group = SSL_group_to_name(ssl, (int)SSL_get_negotiated_group(ssl));
    if (key) snprintf(name, sizeof name, "%s-%d", EVP_PKEY_get0_type_name(key), EVP_PKEY_get_bits(key));
    snprintf(agreed, sizeof agreed, "%s %s %s %s", SSL_get_version(ssl), SSL_get_cipher_name(ssl),
             group ? group : "?", name);
}

/* NULL when the handshake came to what was asked for. Nothing else was offered of versions and, in TLS 1.3, groups. */
static const char *handshake_fault(tls_t *t) {
    bool resumed = SSL_session_reused(t->ssl);
    if (tls_setup.cipher && strcmp(SSL_get_cipher_name(t->ssl), tls_setup.cipher))
        return "another cipher than was asked for";
    if (t->offered && !resumed) return "a full handshake where it was to be resumed";
    if (resumed)
        tls_setup.resumed++;
    else
        tls_setup.full++;
    return NULL;
}

int tls_handshake(tls_t *t) {
    errno = 0;
    int result = SSL_do_handshake(t->ssl);
    if (result != 1) return outcome(t, result);
    octets_count(t);
    t->wants_room = false;
    const char *why = handshake_fault(t);
    if (why) return fail(t, why);
    if (!agreed[0]) agreed_note(t->ssl);
    return 1;
}

ssize_t tls_read(tls_t *t, uint8_t *p, size_t n) {
    size_t total = 0;
    while (total < n) { /* a record at a time */
        errno = 0;
        int result = SSL_read(t->ssl, p + total, (int)(n - total));
        if (result <= 0) {
            int why = outcome(t, result);
            return total ? (ssize_t)total : why; /* what is wrong is said again by the next read */
        }
        total += (size_t)result;
        /* what came is read; whether there is more, epoll says */
        if (!SSL_has_pending(t->ssl)) break;
    }
    octets_count(t);
    return (ssize_t)total;
}

ssize_t tls_write(tls_t *t, const uint8_t *p, size_t n) {
    errno = 0;
    int result = SSL_write(t->ssl, p, n > INT32_MAX ? INT32_MAX : (int)n);
    if (result <= 0) return outcome(t, result);
    octets_count(t);
    t->wants_room = false;
    return result;
}

void tls_end(tls_t *t) {
    if (t->error[0] || SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN || !SSL_is_init_finished(t->ssl)) return;
    SSL_shutdown(t->ssl);
    ERR_clear_error();
    octets_count(t);
}

bool tls_wants_room(const tls_t *t) { return t->wants_room; }

const char *tls_error(const tls_t *t) { return t->ended ? NULL : t->error; }

const char *tls_agreed(void) { return agreed; }
