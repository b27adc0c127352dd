#include "auth.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

enum { CHALLENGE_MAX = 1024, ED25519_OCTETS = 32, ED25519_SIGNATURE = 64 };

static const char *const method_names[] = {"anonymous", "ticket", "wampcra", "cryptosign"};

static struct {
    authmethod_t method;
    user_t *users;
    unsigned count, turn;
} auth;

bool authmethod_parse(const char *name, authmethod_t *method) {
    for (int i = AUTH_ANONYMOUS; i <= AUTH_CRYPTOSIGN; i++)
        if (!strcmp(name, method_names[i])) return *method = (authmethod_t)i, true;
    return false;
}

static void hex_write(char *out, const uint8_t *p, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = 0;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Exactly n octets. */
static bool hex_read(const char *text, uint8_t *p, size_t n) {
    if (strlen(text) != 2 * n) return false;
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        p[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static void key_make(user_t *user) {
    uint8_t seed[SHA256_DIGEST_LENGTH], pubkey[ED25519_OCTETS];
    size_t n = sizeof pubkey;
    SHA256((const uint8_t *)user->secret, strlen(user->secret), seed);
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    if (!key || EVP_PKEY_get_raw_public_key(key, pubkey, &n) != 1) die("cannot make an Ed25519 key", NULL);
    user->key = key;
    hex_write(user->pubkey, pubkey, n);
}

void auth_prepare(authmethod_t method, unsigned users, const char *secret) {
    auth.method = method;
    if (method == AUTH_ANONYMOUS) return;
    auth.count = users;
    auth.users = calloc(users, sizeof *auth.users);
    if (!auth.users) die("out of memory", NULL);
    for (unsigned i = 0; i < users; i++) {
        user_t *user = &auth.users[i];
        snprintf(user->authid, sizeof user->authid, "user%u", i);
        if (snprintf(user->secret, sizeof user->secret, "%s-%s", secret, user->authid) >= SECRET_MAX)
            die("--secret is too long", NULL);
        if (method == AUTH_CRYPTOSIGN) key_make(user);
    }
}

const user_t *auth_next(void) { return auth.count ? &auth.users[auth.turn++ % auth.count] : NULL; }

/* --- messages ------------------------------------------------------------------------------------------------------
 */

unsigned auth_pairs(const user_t *user) { return !user ? 0 : user->key ? 3 : 2; }

void auth_announce(writer_t *w, const user_t *user) {
    if (!user) return;
    put_key(w, "authmethods");
    put_array(w, 1);
    put_text(w, method_names[auth.method]);
    put_end(w, ']');
    put_key(w, "authid");
    put_text(w, user->authid);
    if (!user->key) return;
    put_key(w, "authextra");
    put_map(w, 1);
    put_key(w, "pubkey");
    put_text(w, user->pubkey);
    put_end(w, '}');
}

static const char *sign_cra(const user_t *user, const char *challenge, char *signature) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    unsigned n = sizeof digest;
    if (!HMAC(EVP_sha256(), user->secret, (int)strlen(user->secret), (const uint8_t *)challenge, strlen(challenge),
              digest, &n))
        return "HMAC failed";
    signature[base64(digest, n, signature)] = 0;
    return NULL;
}

/* Signature and challenge, in hexadecimal digits. */
static const char *sign_ed25519(const user_t *user, const char *challenge, char *signature) {
    uint8_t raw[ED25519_SIGNATURE + ED25519_OCTETS];
    size_t n = ED25519_SIGNATURE;
    if (!hex_read(challenge, raw + n, ED25519_OCTETS)) return "a challenge that is not 32 octets";
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool signs = context && EVP_DigestSignInit(context, NULL, NULL, NULL, user->key) == 1 &&
                 EVP_DigestSign(context, raw, &n, raw + ED25519_SIGNATURE, ED25519_OCTETS) == 1;
    EVP_MD_CTX_free(context);
    if (!signs || n != ED25519_SIGNATURE) return "signing failed";
    hex_write(signature, raw, sizeof raw);
    return NULL;
}

const char *auth_answer(const user_t *user, serializer_t ser, const message_t *m, char signature[SIGNATURE_MAX]) {
    char text[CHALLENGE_MAX];
    span_t value;
    if (!user) return "a CHALLENGE to an anonymous session";
    if (m->found < 3 || !span_text(ser, m->item[1], text, sizeof text)) return "a CHALLENGE cut short";
    if (strcmp(text, method_names[auth.method])) return "a CHALLENGE of another method than was offered";
    if (auth.method == AUTH_TICKET) {
        strcpy(signature, user->secret);
        return NULL;
    }
    if (!map_find(ser, m->item[2], "challenge", &value) || !span_text(ser, value, text, sizeof text))
        return "a CHALLENGE without challenge";
    return auth.method == AUTH_WAMPCRA ? sign_cra(user, text, signature) : sign_ed25519(user, text, signature);
}

bool auth_is_welcome(const user_t *user, serializer_t ser, span_t details) {
    char text[64];
    span_t value;
    return !user || (map_find(ser, details, "authid", &value) && span_text(ser, value, text, sizeof text) &&
                     !strcmp(text, user->authid));
}
