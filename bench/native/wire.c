#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void die(const char *text, const char *detail) {
    fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, text, detail ? ": " : "", detail ? detail : "");
    exit(2);
}

/* --- buffers -------------------------------------------------------------------------------------------------------
 */

uint8_t *buf_reserve(buf_t *b, size_t n) {
    if (b->cap - b->end >= n) return b->data + b->end;
    size_t used = buf_len(b);
    if (b->cap - used < n) {
        size_t cap = b->cap ? b->cap : 4096;
        while (cap - used < n) cap *= 2;
        uint8_t *data = malloc(cap);
        if (!data) die("out of memory", NULL);
        if (used) memcpy(data, buf_head(b), used);
        free(b->data);
        b->data = data;
        b->cap = cap;
    } else {
        memmove(b->data, buf_head(b), used);
    }
    b->start = 0;
    b->end = used;
    return b->data + used;
}

void buf_drop(buf_t *b, size_t n) {
    b->start += n;
    if (b->start == b->end) b->start = b->end = 0;
}

void buf_free(buf_t *b) {
    free(b->data);
    *b = (buf_t){0};
}

/* --- frames --------------------------------------------------------------------------------------------------------
 */

static inline uint64_t load_be(const uint8_t *p, int octets) {
    uint64_t v = 0;
    for (int i = 0; i < octets; i++) v = v << 8 | p[i];
    return v;
}

static inline void store_be(uint8_t *p, int octets, uint64_t v) {
    for (int i = octets - 1; i >= 0; i--, v >>= 8) p[i] = (uint8_t)v;
}

void wire_mask(uint8_t *p, size_t n, uint32_t key) {
    uint64_t wide = (uint64_t)key << 32 | key;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) { /* four words a turn: the compiler makes vector code of it */
        uint64_t w[4];
        memcpy(w, p + i, 32);
        for (int k = 0; k < 4; k++) w[k] ^= wide;
        memcpy(p + i, w, 32);
    }
    const uint8_t *k = (const uint8_t *)&key;
    for (; i < n; i++) p[i] ^= k[i & 3];
}

static int rawsocket_next(uint8_t *p, size_t n, frame_t *f) {
    f->size = 4;
    if (n < 4) return 0;
    if (p[0] > 2) return -1;
    static const frame_kind_t kinds[] = {FRAME_MESSAGE, FRAME_PING, FRAME_PONG};
    f->kind = kinds[p[0]];
    f->compressed = false;
    f->len = load_be(p + 1, 3);
    f->payload = p + 4;
    f->size = 4 + f->len;
    return n >= f->size;
}

static int websocket_next(uint8_t *p, size_t n, frame_t *f) {
    f->size = 2;
    if (n < 2) return 0;
    bool masked = p[1] & 0x80;
    uint64_t len = p[1] & 0x7f;
    int wide = len == 126 ? 2 : len == 127 ? 8 : 0;
    size_t head = 2 + (size_t)wide + (masked ? 4 : 0);
    f->size = head;
    if (n < head) return 0;
    if (wide) len = load_be(p + 2, wide);
    f->compressed = false;
    switch (p[0]) { /* FIN set: these tools neither send nor expect fragments */
    case 0xc1:
    case 0xc2: f->compressed = true; /* fall through */
    case 0x81:
    case 0x82: f->kind = FRAME_MESSAGE; break;
    case 0x88: f->kind = FRAME_CLOSE; break;
    case 0x89: f->kind = FRAME_PING; break;
    case 0x8a: f->kind = FRAME_PONG; break;
    default: return -1;
    }
    if (len > (64u << 20)) return -1;
    f->len = len;
    f->payload = p + head;
    f->size = head + len;
    if (n < f->size) return 0;
    if (masked) {
        uint32_t key;
        memcpy(&key, p + head - 4, 4);
        wire_mask(f->payload, len, key);
    }
    return 1;
}

int wire_next(framing_t framing, uint8_t *p, size_t n, frame_t *f) {
    return framing == FRAMING_RAWSOCKET ? rawsocket_next(p, n, f) : websocket_next(p, n, f);
}

size_t wire_header(uint8_t *dst, framing_t framing, frame_kind_t kind, uint8_t flags, size_t len, bool masked,
                   uint32_t key) {
    if (framing == FRAMING_RAWSOCKET) {
        dst[0] = kind == FRAME_MESSAGE ? 0 : kind == FRAME_PING ? 1 : 2;
        store_be(dst + 1, 3, len);
        return 4;
    }
    static const uint8_t opcodes[] = {0x82, 0x89, 0x8a, 0x88};
    dst[0] = kind == FRAME_MESSAGE && flags & WIRE_TEXT ? 0x81 : opcodes[kind];
    if (flags & WIRE_COMPRESSED) dst[0] |= 0x40;
    size_t at = 2;
    if (len < 126) {
        dst[1] = (uint8_t)len;
    } else if (len < 65536) {
        dst[1] = 126;
        store_be(dst + 2, 2, len);
        at = 4;
    } else {
        dst[1] = 127;
        store_be(dst + 2, 8, len);
        at = 10;
    }
    if (masked) {
        dst[1] |= 0x80;
        memcpy(dst + at, &key, 4);
        at += 4;
    }
    return at;
}

/* --- WebSocket opening handshake -----------------------------------------------------------------------------------
 */

static inline uint32_t rotl(uint32_t v, int n) { return v << n | v >> (32 - n); }

static void sha1_block(uint32_t h[5], const uint8_t *p) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++) w[i] = (uint32_t)load_be(p + 4 * i, 4);
    for (int i = 16; i < 80; i++) w[i] = rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                     : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                     : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                              : (b ^ c ^ d) + 0xca62c1d6;
        uint32_t next = rotl(a, 5) + f + e + w[i];
        e = d;
        d = c;
        c = rotl(b, 30);
        b = a;
        a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

size_t base64(const uint8_t *p, size_t n, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        out[at++] = digits[v >> 18];
        out[at++] = digits[v >> 12 & 63];
        out[at++] = left > 1 ? digits[v >> 6 & 63] : '=';
        out[at++] = left > 2 ? digits[v & 63] : '=';
    }
    return at;
}

void ws_accept(const char *key, size_t len, char out[WS_ACCEPT_LEN]) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t text[128] = {0}; /* key and GUID, the end bit and the length: one or two blocks */
    if (len > 64) len = 64;
    memcpy(text, key, len);
    memcpy(text + len, guid, sizeof guid - 1);
    size_t total = len + sizeof guid - 1;
    size_t blocks = total + 9 <= 64 ? 1 : 2;
    text[total] = 0x80;
    store_be(text + 64 * blocks - 8, 8, total * 8);
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    for (size_t i = 0; i < blocks; i++) sha1_block(h, text + 64 * i);
    uint8_t digest[20];
    for (int i = 0; i < 5; i++) store_be(digest + 4 * i, 4, h[i]);
    base64(digest, sizeof digest, out);
}

size_t http_head_len(const uint8_t *p, size_t n) {
    const uint8_t *end = memmem(p, n, "\r\n\r\n", 4);
    return end ? (size_t)(end - p) + 4 : 0;
}

const char *http_header(const char *head, size_t n, const char *name, size_t *len) {
    size_t name_len = strlen(name);
    const char *end = head + n;
    for (const char *line = head; line < end;) {
        const char *eol = memchr(line, '\r', (size_t)(end - line));
        if (!eol) break;
        if ((size_t)(eol - line) > name_len && line[name_len] == ':' && !strncasecmp(line, name, name_len)) {
            const char *value = line + name_len + 1;
            while (value < eol && *value == ' ') value++;
            while (eol > value && eol[-1] == ' ') eol--;
            *len = (size_t)(eol - value);
            return value;
        }
        line = eol + 2;
    }
    return NULL;
}

/* --- addresses and the rest ----------------------------------------------------------------------------------------
 */

bool address_parse(const char *text, address_t *a) {
    memset(a, 0, sizeof *a);
    if (!strncmp(text, "unix:", 5)) {
        struct sockaddr_un *un = (struct sockaddr_un *)&a->addr;
        if (strlen(text + 5) == 0 || strlen(text + 5) >= sizeof un->sun_path) return false;
        un->sun_family = AF_UNIX;
        strcpy(un->sun_path, text + 5);
        a->len = sizeof *un;
        a->family = AF_UNIX;
        return true;
    }
    if (strncmp(text, "tcp:", 4)) return false;
    char host[64];
    const char *colon = strrchr(text + 4, ':');
    if (!colon || (size_t)(colon - text - 4) >= sizeof host) return false;
    memcpy(host, text + 4, (size_t)(colon - text - 4));
    host[colon - text - 4] = 0;
    char *end;
    long port = strtol(colon + 1, &end, 10);
    struct sockaddr_in *in = (struct sockaddr_in *)&a->addr;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    a->len = sizeof *in;
    a->family = AF_INET;
    return *end == 0 && port > 0 && port < 65536 && inet_pton(AF_INET, host, &in->sin_addr) == 1;
}

int address_listen(const address_t *a) {
    int fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd == -1) return -1;
    if (a->family == AF_UNIX) {
        const char *path = ((const struct sockaddr_un *)&a->addr)->sun_path;
        struct stat st;
        if (!stat(path, &st) && S_ISSOCK(st.st_mode)) unlink(path);
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    }
    if (bind(fd, (const struct sockaddr *)&a->addr, a->len) == -1 || listen(fd, 4096) == -1) {
        close(fd);
        return -1;
    }
    return fd;
}

void socket_tune(int fd, int family) {
    int on = 1;
    if (family == AF_INET) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t random_next(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dULL;
}

uint64_t random_seed(void) {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = now_ns();
    return seed | 1;
}

void raise_fd_limit(void) {
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
}
