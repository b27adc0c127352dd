/* wamp-router: a stand-in router for measuring what stands in front of it. It welcomes everybody, answers every CALL
 * with its own arguments, acknowledges subscriptions and registrations, swallows publications, and is fast: one receive
 * and one send for all the frames a peer has waiting. WebSocket or RawSocket is told apart by the first octet. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "codec.h"
#include "wire.h"

enum {
    RECV_ROOM = 256 * 1024,     /* octets asked for in one receive */
    OUT_HIGH = 8 * 1024 * 1024, /* octets waiting to be sent at which a peer is no longer read */
    HTTP_HEAD_MAX = 16 * 1024,
    REALM_MAX = 256
};

typedef enum { PEER_LISTENER, PEER_SNIFF, PEER_OPEN, PEER_CLOSING } state_t;

typedef struct {
    int fd, family;
    state_t state;
    framing_t framing;
    serializer_t ser;
    bool joined;
    uint32_t events; /* what epoll was asked for */
    buf_t in, out;
} peer_t;

static struct {
    int epoll;
    const char *authmethod;
    uint64_t random;
    uint64_t sessions, joined, calls, publications, errors;
} self;

/* --- sending -------------------------------------------------------------------------------------------------------
 */

/* Queues one frame whose payload is head followed by tail. */
static void frame_queue(peer_t *c, frame_kind_t kind, span_t head, span_t tail) {
    size_t len = head.len + tail.len;
    uint8_t *dst = buf_reserve(&c->out, WIRE_HEADER_MAX + len);
    size_t at = wire_header(dst, c->framing, kind, c->ser == SER_JSON, len, false, 0);
    memcpy(dst + at, head.p, head.len);
    if (tail.len) memcpy(dst + at + head.len, tail.p, tail.len);
    c->out.end += at + len;
}

static void message_queue(peer_t *c, uint8_t *start, writer_t *w) {
    frame_queue(c, FRAME_MESSAGE, (span_t){start, (size_t)(w->p - start)}, (span_t){0});
}

static bool events_set(peer_t *c) {
    uint32_t events = (buf_len(&c->out) ? EPOLLOUT : 0) | (buf_len(&c->out) < OUT_HIGH ? EPOLLIN : 0);
    if (events == c->events) return true;
    c->events = events;
    struct epoll_event ev = {.events = events, .data.ptr = c};
    return epoll_ctl(self.epoll, EPOLL_CTL_MOD, c->fd, &ev) == 0;
}

static bool peer_flush(peer_t *c) {
    while (buf_len(&c->out)) {
        ssize_t n = send(c->fd, buf_head(&c->out), buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == -1) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return false;
            break;
        }
        buf_drop(&c->out, (size_t)n);
    }
    if (c->state == PEER_CLOSING && !buf_len(&c->out)) return false;
    return events_set(c);
}

/* --- WAMP ------------------------------------------------------------------------------------------------------------
 */

static void put_role(writer_t *w, const char *role) {
    put_key(w, role);
    put_map(w, 1);
    put_key(w, "features");
    put_map(w, 0);
    put_end(w, '}');
    put_end(w, '}');
}

static void put_pair(writer_t *w, const char *key, const char *value) {
    put_key(w, key);
    put_text(w, value);
}

static bool on_hello(peer_t *c, const message_t *m) {
    if (c->joined || m->found < 2 || m->item[1].len > REALM_MAX) return false;
    uint8_t text[1024];
    writer_t w = {c->ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_WELCOME);
    put_uint(&w, (random_next(&self.random) >> 11) | 1);
    put_map(&w, 6);
    put_key(&w, "realm");
    put_raw(&w, m->item[1]);
    put_pair(&w, "authid", "bench");
    put_pair(&w, "authrole", "anonymous");
    put_pair(&w, "authmethod", self.authmethod);
    put_pair(&w, "authprovider", "static");
    put_key(&w, "roles");
    put_map(&w, 2);
    put_role(&w, "broker");
    put_role(&w, "dealer");
    put_end(&w, '}');
    put_end(&w, '}');
    put_end(&w, ']');
    message_queue(c, text, &w);
    c->joined = true;
    self.sessions++;
    self.joined++;
    return true;
}

static bool on_goodbye(peer_t *c) {
    uint8_t text[64];
    writer_t w = {c->ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_GOODBYE);
    put_map(&w, 0);
    put_end(&w, '}');
    put_text(&w, "wamp.close.goodbye_and_out");
    put_end(&w, ']');
    message_queue(c, text, &w);
    c->joined = false;
    self.joined--;
    return true;
}

/* [CALL, request, options, procedure, args..] -> [RESULT, request, {}, args..] */
static bool on_call(peer_t *c, const message_t *m) {
    if (m->found < 4 || m->item[1].len > 20) return false;
    uint8_t text[64];
    writer_t w = {c->ser, text, false};
    put_array(&w, 3 + m->count - m->found);
    put_uint(&w, WAMP_RESULT);
    put_raw(&w, m->item[1]);
    put_map(&w, 0);
    put_end(&w, '}');
    frame_queue(c, FRAME_MESSAGE, (span_t){text, (size_t)(w.p - text)}, m->tail);
    self.calls++;
    return true;
}

/* [answer, request] or [answer, request, id] */
static bool acknowledge(peer_t *c, const message_t *m, unsigned answer, bool with_id) {
    if (m->found < 2 || m->item[1].len > 20) return false;
    uint8_t text[64];
    writer_t w = {c->ser, text, false};
    put_array(&w, with_id ? 3 : 2);
    put_uint(&w, answer);
    put_raw(&w, m->item[1]);
    if (with_id) put_uint(&w, 1 + random_next(&self.random) % 1000000);
    put_end(&w, ']');
    message_queue(c, text, &w);
    return true;
}

static bool on_message(peer_t *c, const uint8_t *p, size_t n) {
    message_t m;
    if (!message_read(c->ser, p, n, 4, &m) || !m.found) return false;
    uint64_t type = span_uint(c->ser, m.item[0]);
    if (type == WAMP_HELLO) return on_hello(c, &m);
    if (type == WAMP_ABORT) return false;
    if (!c->joined) return false;
    switch (type) {
    case WAMP_CALL: return on_call(c, &m);
    case WAMP_PUBLISH: return self.publications++, true;
    case WAMP_SUBSCRIBE: return acknowledge(c, &m, WAMP_SUBSCRIBED, true);
    case WAMP_REGISTER: return acknowledge(c, &m, WAMP_REGISTERED, true);
    case WAMP_UNSUBSCRIBE: return acknowledge(c, &m, WAMP_UNSUBSCRIBED, false);
    case WAMP_UNREGISTER: return acknowledge(c, &m, WAMP_UNREGISTERED, false);
    case WAMP_GOODBYE: return on_goodbye(c);
    default: return false;
    }
}

/* --- handshakes: 1 done, 0 more octets are needed, -1 refused
 * --------------------------------------------------------- */

static int rawsocket_accept(peer_t *c) {
    if (buf_len(&c->in) < 4) return 0;
    const uint8_t *p = buf_head(&c->in);
    unsigned ser = p[1] & 15;
    if (ser < SER_JSON || ser > SER_CBOR || p[2] || p[3]) return -1;
    c->framing = FRAMING_RAWSOCKET;
    c->ser = (serializer_t)ser;
    uint8_t *reply = buf_reserve(&c->out, 4);
    reply[0] = 0x7f, reply[1] = (uint8_t)(0xf0 | ser), reply[2] = reply[3] = 0;
    c->out.end += 4;
    buf_drop(&c->in, 4);
    return 1;
}

/* The first subprotocol of the client's list that is one of ours. */
static serializer_t subprotocol_choose(const char *list, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && list[end] != ',' && list[end] != ' ') end++;
        if (end - i > 7 && !memcmp(list + i, "wamp.2.", 7)) {
            serializer_t ser = serializer_by_name(list + i + 7, end - i - 7);
            if (ser) return ser;
        }
        i = end + 1;
    }
    return SER_NONE;
}

static int websocket_accept(peer_t *c) {
    size_t n = http_head_len(buf_head(&c->in), buf_len(&c->in)), key_len, list_len;
    if (!n) return buf_len(&c->in) < HTTP_HEAD_MAX ? 0 : -1;
    const char *head = (const char *)buf_head(&c->in);
    const char *key = http_header(head, n, "sec-websocket-key", &key_len);
    const char *list = http_header(head, n, "sec-websocket-protocol", &list_len);
    c->framing = FRAMING_WEBSOCKET;
    c->ser = list ? subprotocol_choose(list, list_len) : SER_NONE;
    if (!key || !c->ser) return -1;
    char accept[WS_ACCEPT_LEN];
    ws_accept(key, key_len, accept);
    char *reply = (char *)buf_reserve(&c->out, 512);
    c->out.end += (size_t)snprintf(reply, 512,
                                   "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                   "Sec-WebSocket-Accept: %.*s\r\nSec-WebSocket-Protocol: wamp.2.%s\r\n\r\n",
                                   WS_ACCEPT_LEN, accept, serializer_name(c->ser));
    buf_drop(&c->in, n);
    return 1;
}

/* --- peers ---------------------------------------------------------------------------------------------------------
 */

static void peer_close(peer_t *c) {
    if (c->joined) self.joined--;
    close(c->fd);
    buf_free(&c->in);
    buf_free(&c->out);
    free(c);
}

static bool on_frame(peer_t *c, const frame_t *f) {
    span_t payload = {f->payload, f->len};
    switch (f->kind) {
    case FRAME_MESSAGE: return on_message(c, f->payload, f->len);
    case FRAME_PING: return frame_queue(c, FRAME_PONG, payload, (span_t){0}), true;
    case FRAME_CLOSE:
        frame_queue(c, FRAME_CLOSE, payload, (span_t){0});
        c->state = PEER_CLOSING;
        return true;
    default: return true;
    }
}

/* Everything that is complete in the input buffer. */
static bool peer_process(peer_t *c) {
    if (c->state == PEER_SNIFF) {
        int done = *buf_head(&c->in) == 0x7f ? rawsocket_accept(c) : websocket_accept(c);
        if (done <= 0) return done == 0;
        c->state = PEER_OPEN;
    }
    frame_t f;
    while (c->state == PEER_OPEN && buf_len(&c->in)) {
        int found = wire_next(c->framing, buf_head(&c->in), buf_len(&c->in), &f);
        if (found == 0) {
            buf_reserve(&c->in, f.size - buf_len(&c->in));
            break;
        }
        if (found < 0 || !on_frame(c, &f)) return self.errors++, false;
        buf_drop(&c->in, f.size);
    }
    return true;
}

static bool peer_receive(peer_t *c) {
    static uint8_t
        scratch[RECV_ROOM]; /* a peer without a partial frame keeps no buffer: thousands of idle ones stay cheap */
    ssize_t n = recv(c->fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n == -1) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    memcpy(buf_reserve(&c->in, (size_t)n), scratch, (size_t)n);
    c->in.end += (size_t)n;
    if (!peer_process(c)) return false;
    if (!buf_len(&c->in) && c->in.cap > 4096) buf_free(&c->in);
    return true;
}

static void peer_accept(const peer_t *listener) {
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -1) return;
    socket_tune(fd, listener->family);
    peer_t *c = calloc(1, sizeof *c);
    if (!c) die("out of memory", NULL);
    c->fd = fd;
    c->state = PEER_SNIFF;
    c->events = EPOLLIN;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &ev) == -1) peer_close(c);
}

static void peer_event(peer_t *c, uint32_t events) {
    if (c->state == PEER_LISTENER) {
        peer_accept(c);
        return;
    }
    bool alive = !(events & EPOLLIN) || peer_receive(c);
    if (alive && (events & EPOLLERR)) alive = false;
    if (alive && !(events & EPOLLIN) && (events & EPOLLHUP)) alive = false;
    if (alive && (buf_len(&c->out) || (events & EPOLLOUT))) alive = peer_flush(c);
    if (!alive) peer_close(c);
}

static void listener_add(const char *text) {
    address_t a;
    if (!address_parse(text, &a)) die("--listen wants tcp:IPV4:PORT or unix:PATH, not", text);
    peer_t *l = calloc(1, sizeof *l);
    l->fd = address_listen(&a);
    if (l->fd == -1) die(strerror(errno), text);
    l->family = a.family;
    l->state = PEER_LISTENER;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = l};
    epoll_ctl(self.epoll, EPOLL_CTL_ADD, l->fd, &ev);
}

static int signals_open(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &ev);
    return fd;
}

static void run(void) {
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(self.epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (!events[i].data.ptr) return; /* SIGTERM, SIGINT */
            peer_event(events[i].data.ptr, events[i].events);
        }
    }
}

int main(int argc, char **argv) {
    self.epoll = epoll_create1(EPOLL_CLOEXEC);
    self.random = random_seed();
    self.authmethod = "anonymous";
    raise_fd_limit();
    int listeners = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--listen")) {
            listener_add(argv[i + 1]);
            listeners++;
        } else if (!strcmp(argv[i], "--authmethod") && strlen(argv[i + 1]) < 64) {
            self.authmethod = argv[i + 1];
        } else {
            die("unknown option", argv[i]);
        }
    }
    if (!listeners) die("usage: wamp-router --listen tcp:IPV4:PORT|unix:PATH [--listen ..] [--authmethod NAME]", NULL);
    signals_open();
    puts("wamp-router ready");
    fflush(stdout);
    run();
    printf("{\"sessions\": %lu, \"joined\": %lu, \"calls\": %lu, \"publications\": %lu, \"errors\": %lu}\n",
           self.sessions, self.joined, self.calls, self.publications, self.errors);
    return 0;
}
