/* wamp-router: a stand-in router for measuring what stands in front of it. It welcomes everybody, answers a CALL with
 * its own arguments or with those that the callees yield, delivers what is published, and is fast: one receive and one
 * send for all the frames a peer has waiting. WebSocket or RawSocket is told apart by the first octet. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "realm.h"

enum {
    RECV_ROOM = 256 * 1024,     /* octets asked for in one receive */
    OUT_HIGH = 8 * 1024 * 1024, /* octets waiting to be sent at which a peer is no longer read */
    HTTP_HEAD_MAX = 16 * 1024
};

static int epoll;
static unsigned spoken = 1u << SER_JSON | 1u << SER_MSGPACK | 1u << SER_CBOR; /* serializers, one bit each */
static const char *first_error = "";

/* --- sending -------------------------------------------------------------------------------------------------------
 */

static bool events_set(peer_t *c) {
    size_t waiting = buf_len(&c->channel.out);
    uint32_t events = (waiting ? EPOLLOUT : 0) | (waiting < OUT_HIGH ? EPOLLIN : 0);
    if (events == c->events) return true;
    c->events = events;
    struct epoll_event ev = {.events = events, .data.ptr = c};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &ev) == 0;
}

static bool peer_flush(peer_t *c) {
    buf_t *out = &c->channel.out;
    channel_flush(&c->channel);
    while (buf_len(out)) {
        ssize_t n = send(c->fd, buf_head(out), buf_len(out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == -1) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return false;
            break;
        }
        buf_drop(out, (size_t)n);
    }
    if (c->state == PEER_CLOSING && !buf_len(out)) return false;
    if (c->state == PEER_REFUSED && !buf_len(out)) shutdown(c->fd, SHUT_WR); /* what still comes is read and dropped */
    return events_set(c);
}

/* Ends the session of a peer that did what it must not: an ABORT, so that the run sees why. */
static void peer_refuse(peer_t *c, const char *why) {
    if (!realm.errors++) first_error = why;
    uint8_t text[256];
    writer_t w = {c->channel.ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_ABORT);
    put_map(&w, 1);
    put_key(&w, "message");
    put_text(&w, why);
    put_end(&w, '}');
    put_text(&w, "bench.error.refused");
    put_end(&w, ']');
    channel_put(&c->channel, text, (size_t)(w.p - text));
    c->state = PEER_REFUSED;
    realm_leave(c);
}

/* --- handshakes: 1 done, 0 more octets are needed, -1 refused -----------------------------------------------------
 */

static int rawsocket_accept(peer_t *c) {
    channel_t *ch = &c->channel;
    if (buf_len(&ch->in) < 4) return 0;
    const uint8_t *p = buf_head(&ch->in);
    unsigned ser = p[1] & 15;
    bool known = ser <= SER_CBOR && spoken & 1u << ser;
    if (p[2] || p[3]) return -1;
    ch->framing = FRAMING_RAWSOCKET;
    ch->ser = (serializer_t)ser;
    uint8_t *reply = buf_reserve(&ch->out, 4); /* error 1: this serializer is not spoken */
    reply[0] = 0x7f, reply[1] = known ? (uint8_t)(0xf0 | ser) : 0x10, reply[2] = reply[3] = 0;
    ch->out.end += 4;
    buf_drop(&ch->in, 4);
    if (!known) c->state = PEER_CLOSING;
    return known;
}

/* The first subprotocol of the client's list that is one of ours. */
static span_t subprotocol_choose(channel_t *c, const char *list, size_t n) {
    for (size_t i = 0; list && i < n;) {
        size_t end = i;
        while (end < n && list[end] != ',' && list[end] != ' ') end++;
        if (end - i > 7 && !memcmp(list + i, "wamp.2.", 7)) {
            c->ser = subprotocol_parse(list + i + 7, end - i - 7, &c->batched);
            if (c->ser && spoken & 1u << c->ser) return (span_t){(const uint8_t *)list + i, end - i};
        }
        i = end + 1;
    }
    return (span_t){0};
}

static int websocket_accept(peer_t *c) {
    channel_t *ch = &c->channel;
    size_t n = http_head_len(buf_head(&ch->in), buf_len(&ch->in)), key_len, list_len, offer_len = 0;
    if (!n) return buf_len(&ch->in) < HTTP_HEAD_MAX ? 0 : -1;
    const char *head = (const char *)buf_head(&ch->in);
    const char *key = http_header(head, n, "sec-websocket-key", &key_len);
    const char *list = http_header(head, n, "sec-websocket-protocol", &list_len);
    const char *offer = http_header(head, n, "sec-websocket-extensions", &offer_len);
    span_t chosen = subprotocol_choose(ch, list, list_len);
    ch->framing = FRAMING_WEBSOCKET;
    if (!key || !chosen.len) {
        static const char refusal[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        memcpy(buf_reserve(&ch->out, sizeof refusal), refusal, sizeof refusal - 1);
        ch->out.end += sizeof refusal - 1;
        buf_drop(&ch->in, buf_len(&ch->in));
        c->state = PEER_CLOSING;
        return 0;
    }
    deflate_t mode = deflate_named(offer, offer_len);
    if (mode) ch->zip = zip_open(mode);
    char accept[WS_ACCEPT_LEN];
    ws_accept(key, key_len, accept);
    char *reply = (char *)buf_reserve(&ch->out, 512);
    ch->out.end += (size_t)snprintf(reply, 512,
                                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                    "Connection: Upgrade\r\nSec-WebSocket-Accept: %.*s\r\n%s%s%s"
                                    "Sec-WebSocket-Protocol: %.*s\r\n\r\n",
                                    WS_ACCEPT_LEN, accept, mode ? "Sec-WebSocket-Extensions: " : "",
                                    mode ? deflate_offer(mode) : "", mode ? "\r\n" : "",
                                    chosen.len < 64 ? (int)chosen.len : 0, (const char *)chosen.p);
    buf_drop(&ch->in, n);
    return 1;
}

/* --- peers ---------------------------------------------------------------------------------------------------------
 */

static void peer_close(peer_t *c) {
    realm_leave(c);
    close(c->fd);
    channel_free(&c->channel);
    if (c->dirty)
        for (size_t i = 0; i < realm.dirty_count; i++)
            if (realm.dirty[i] == c) realm.dirty[i] = NULL;
    free(c);
}

static const char closing[] = "closing"; /* the peer sent a Close: nothing of it is read any more */

static const char *on_input(void *owner, frame_kind_t kind, uint8_t *p, size_t n) {
    peer_t *c = owner;
    if (kind == FRAME_MESSAGE) return realm_message(c, p, n);
    if (kind == FRAME_PING) channel_control(&c->channel, FRAME_PONG, p, n);
    if (kind != FRAME_CLOSE) return NULL;
    channel_control(&c->channel, FRAME_CLOSE, p, n);
    return closing;
}

/* Everything that is complete in the input buffer. */
static bool peer_process(peer_t *c) {
    channel_t *ch = &c->channel;
    if (c->state == PEER_SNIFF) {
        int done = *buf_head(&ch->in) == 0x7f ? rawsocket_accept(c) : websocket_accept(c);
        if (done <= 0) return done == 0;
        c->state = PEER_OPEN;
    }
    if (c->state == PEER_OPEN) {
        const char *why = channel_read(ch, on_input, c);
        if (!why) return true;
        if (why == closing)
            c->state = PEER_CLOSING;
        else if (c->joined)
            peer_refuse(c, why);
        else
            return false;
    }
    buf_drop(&ch->in, buf_len(&ch->in));
    return true;
}

static bool peer_receive(peer_t *c) {
    /* a peer without a partial frame keeps no buffer: thousands of idle ones stay cheap */
    static uint8_t scratch[RECV_ROOM];
    buf_t *in = &c->channel.in;
    ssize_t n = recv(c->fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n == -1) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    memcpy(buf_reserve(in, (size_t)n), scratch, (size_t)n);
    in->end += (size_t)n;
    if (!peer_process(c)) return false;
    if (!buf_len(in) && in->cap > 4096) buf_free(in);
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
    c->channel.random = &realm.random;
    c->events = EPOLLIN;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == -1) peer_close(c);
}

static void peer_event(peer_t *c, uint32_t events) {
    if (c->state == PEER_LISTENER) {
        peer_accept(c);
        return;
    }
    bool alive = !(events & EPOLLIN) || peer_receive(c);
    if (alive && (events & EPOLLERR)) alive = false;
    if (alive && !(events & EPOLLIN) && (events & EPOLLHUP)) alive = false;
    bool sends = buf_len(&c->channel.out) || buf_len(&c->channel.batch);
    if (alive && (sends || (events & EPOLLOUT))) alive = peer_flush(c);
    if (!alive) peer_close(c);
}

/* Sends what peers got while others were read: EVENTs, INVOCATIONs, RESULTs. */
static void dirty_flush(void) {
    for (size_t i = 0; i < realm.dirty_count; i++) {
        peer_t *c = realm.dirty[i];
        if (!c) continue; /* gone meanwhile */
        c->dirty = false;
        if (!peer_flush(c)) peer_close(c);
    }
    realm.dirty_count = 0;
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
    epoll_ctl(epoll, EPOLL_CTL_ADD, l->fd, &ev);
}

static int signals_open(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
    return fd;
}

static void run(void) {
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (!events[i].data.ptr) return; /* SIGTERM, SIGINT */
            peer_event(events[i].data.ptr, events[i].events);
        }
        dirty_flush();
    }
}

/* Which ones are spoken: "cbor,json". */
static bool serializers_set(const char *list) {
    spoken = 0;
    for (size_t n; *list; list += n + (list[n] == ',')) {
        n = strcspn(list, ",");
        serializer_t ser = serializer_by_name(list, n);
        if (!ser) return false;
        spoken |= 1u << ser;
    }
    return spoken != 0;
}

/* One line when it ends: what happened here. */
static void counts_print(void) {
    printf("{\"sessions\": %lu, \"joined\": %lu, \"calls\": %lu, \"invocations\": %lu, \"publications\": %lu, ",
           realm.sessions, realm.joined, realm.calls, realm.invocations, realm.publications);
    printf("\"events\": %lu, \"session_ids_listed\": %lu, \"errors\": %lu, \"first_error\": \"%s\"}\n",
           realm.events, realm.listed, realm.errors, first_error);
}

int main(int argc, char **argv) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    realm.random = random_seed();
    raise_fd_limit();
    int listeners = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--listen")) {
            listener_add(argv[i + 1]);
            listeners++;
        } else if (!strcmp(argv[i], "--authmethod") && strlen(argv[i + 1]) < 64) {
            realm.authmethod = argv[i + 1];
        } else if (strcmp(argv[i], "--serializers") || !serializers_set(argv[i + 1])) {
            die("unknown option or bad value", argv[i]);
        }
    }
    if (!listeners)
        die("usage: wamp-router --listen tcp:IPV4:PORT|unix:PATH [--listen ..] [--authmethod NAME] "
            "[--serializers cbor,msgpack,json]",
            NULL);
    signals_open();
    puts("wamp-router ready");
    fflush(stdout);
    run();
    counts_print();
    return 0;
}
