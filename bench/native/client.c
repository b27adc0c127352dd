#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { RECV_ROOM = 256 * 1024, SPREAD = 64 };

setup_t setup;

/* CALL = head, request, tail; RESULT ends with echo */
static struct {
    uint8_t head[16];
    uint8_t *tail;
    size_t head_len, tail_len;
    span_t echo;
} call;

static void lost(client_t *c, const char *why) {
    client_close(c);
    setup.on_lost(c, why);
}

/* --- sending -------------------------------------------------------------------------------------------------------
 */

/* Queues a frame of len octets; the caller fills the payload in place and calls frame_end with what this returns. */
static uint8_t *frame_begin(client_t *c, frame_kind_t kind, size_t len, uint32_t *key) {
    uint8_t *dst = buf_reserve(&c->out, WIRE_HEADER_MAX + len);
    *key = (uint32_t)random_next(&setup.random);
    size_t at = wire_header(dst, setup.framing, kind, setup.ser == SER_JSON, len, true, *key);
    c->out.end += at + len;
    return dst + at;
}

static void frame_end(uint8_t *payload, size_t len, uint32_t key) {
    if (setup.framing == FRAMING_WEBSOCKET) wire_mask(payload, len, key);
}

static void frame_queue(client_t *c, frame_kind_t kind, const uint8_t *p, size_t len) {
    uint32_t key;
    uint8_t *payload = frame_begin(c, kind, len, &key);
    memcpy(payload, p, len);
    frame_end(payload, len, key);
}

void client_call(client_t *c) {
    uint8_t request[24];
    writer_t w = {setup.ser, request, setup.ser == SER_JSON};
    put_uint(&w, ++c->requests);
    size_t request_len = (size_t)(w.p - request), len = call.head_len + request_len + call.tail_len;
    uint32_t key;
    uint8_t *p = frame_begin(c, FRAME_MESSAGE, len, &key);
    memcpy(p, call.head, call.head_len);
    memcpy(p + call.head_len, request, request_len);
    memcpy(p + call.head_len + request_len, call.tail, call.tail_len);
    frame_end(p, len, key);
    c->sent_ns[c->requests % setup.inflight] = now_ns();
}

static void put_client_role(writer_t *w, const char *role) {
    put_key(w, role);
    put_map(w, 1);
    put_key(w, "features");
    put_map(w, 0);
    put_end(w, '}');
    put_end(w, '}');
}

static void hello_queue(client_t *c) {
    uint8_t text[1024];
    writer_t w = {setup.ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_HELLO);
    put_text(&w, setup.realm);
    put_map(&w, 2);
    put_key(&w, "agent");
    put_text(&w, "wamp-load");
    put_key(&w, "roles");
    put_map(&w, 4);
    put_client_role(&w, "caller");
    put_client_role(&w, "callee");
    put_client_role(&w, "publisher");
    put_client_role(&w, "subscriber");
    put_end(&w, '}');
    put_end(&w, '}');
    put_end(&w, ']');
    frame_queue(c, FRAME_MESSAGE, text, (size_t)(w.p - text));
    c->state = CLIENT_HELLO;
}

void client_goodbye(client_t *c) {
    uint8_t text[64];
    writer_t w = {setup.ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_GOODBYE);
    put_map(&w, 0);
    put_end(&w, '}');
    put_text(&w, "wamp.close.close_realm");
    put_end(&w, ']');
    frame_queue(c, FRAME_MESSAGE, text, (size_t)(w.p - text));
    c->state = CLIENT_LEAVING;
}

void client_prepare(void) {
    writer_t w = {setup.ser, call.head, false};
    put_array(&w, 5);
    put_uint(&w, WAMP_CALL);
    call.head_len = (size_t)(w.p - call.head);
    call.tail = malloc(setup.payload + 128);
    if (!call.tail) die("out of memory", NULL);
    w = (writer_t){setup.ser, call.tail, setup.ser == SER_JSON};
    put_map(&w, 0);
    put_end(&w, '}');
    put_text(&w, "bench.echo");
    const uint8_t *echo = w.p;
    put_array(&w, 1);
    if (setup.ser == SER_JSON) { /* JSON has no octet strings: the same number of characters */
        *w.p++ = '"';
        memset(w.p, 'x', setup.payload);
        w.p += setup.payload;
        *w.p++ = '"';
        put_end(&w, ']');
        put_end(&w, ']');
    } else {
        put_bin_header(&w, setup.payload);
        for (size_t i = 0; i < setup.payload; i++) *w.p++ = (uint8_t)random_next(&setup.random);
    }
    call.tail_len = (size_t)(w.p - call.tail);
    call.echo = (span_t){echo, (size_t)(w.p - echo)};
}

/* --- connecting ----------------------------------------------------------------------------------------------------
 */

static void events_set(client_t *c) {
    uint32_t events = EPOLLIN | (c->state == CLIENT_CONNECTING || buf_len(&c->out) ? EPOLLOUT : 0);
    if (events == c->events) return;
    struct epoll_event ev = {.events = events, .data.ptr = c};
    epoll_ctl(setup.epoll, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &ev);
    c->events = events;
}

static void source_choose(int fd) {
    static unsigned turn;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn++ % SPREAD)};
    int on = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&in, sizeof in) == -1) die("cannot bind a loopback address", strerror(errno));
}

static void handshake_queue(client_t *c) {
    uint8_t *dst = buf_reserve(&c->out, 1024);
    c->state = CLIENT_HANDSHAKE;
    if (setup.framing == FRAMING_RAWSOCKET) {
        dst[0] = 0x7f, dst[1] = (uint8_t)(0xf0 | setup.ser), dst[2] = dst[3] = 0;
        c->out.end += 4;
        return;
    }
    uint64_t nonce[2] = {random_next(&setup.random), random_next(&setup.random)};
    char key[24];
    base64((const uint8_t *)nonce, sizeof nonce, key);
    ws_accept(key, sizeof key, c->accept);
    c->out.end += (size_t)snprintf((char *)dst, 1024,
                                   "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                   "Sec-WebSocket-Key: %.*s\r\nSec-WebSocket-Version: 13\r\n"
                                   "Sec-WebSocket-Protocol: wamp.2.%s\r\n\r\n",
                                   setup.path, setup.host, (int)sizeof key, key, serializer_name(setup.ser));
}

void client_open(client_t *c) {
    c->opened_ns = now_ns();
    c->requests = c->results = 0;
    c->events = 0;
    c->fd = socket(setup.target.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd == -1) die("socket", strerror(errno));
    c->state = CLIENT_CONNECTING;
    if (setup.spread && setup.target.family == AF_INET) source_choose(c->fd);
    if (connect(c->fd, (struct sockaddr *)&setup.target.addr, setup.target.len) == -1 && errno != EINPROGRESS) {
        lost(c, errno == EAGAIN ? "connect: backlog of the Unix socket is full" : strerror(errno));
        return;
    }
    socket_tune(c->fd, setup.target.family);
    events_set(c);
}

void client_close(client_t *c) {
    if (c->state != CLIENT_DOWN) close(c->fd);
    c->state = CLIENT_DOWN;
    c->events = 0;
    buf_free(&c->in);
    buf_free(&c->out);
}

void client_flush(client_t *c) {
    while (c->state != CLIENT_DOWN && buf_len(&c->out)) {
        ssize_t n = send(c->fd, buf_head(&c->out), buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == -1) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) break;
            lost(c, strerror(errno));
            return;
        }
        buf_drop(&c->out, (size_t)n);
    }
    if (c->state != CLIENT_DOWN) events_set(c);
}

/* --- receiving: NULL when all is well, else what is wrong, or `left` -------------------------------------------------
 */

static const char left[] = "left"; /* the session ended as asked: the connection may be closed */

static const char *on_result(client_t *c, const message_t *m) {
    if (c->state == CLIENT_LEAVING) return NULL;
    if (m->found < 3 || span_uint(setup.ser, m->item[1]) != c->results + 1) return "a RESULT out of order";
    if (m->tail.len != call.echo.len || memcmp(m->tail.p, call.echo.p, call.echo.len))
        return "a RESULT that is not the echo of its CALL";
    c->results++;
    setup.on_result(c, now_ns() - c->sent_ns[c->results % setup.inflight]);
    return NULL;
}

/* "NAME reason" out of a small message; valid until the next call. */
static const char *refusal(const char *name, const uint8_t *p, size_t n, unsigned reason) {
    static char text[100];
    message_t m;
    bool found = message_read(setup.ser, p, n, reason + 1, &m) && m.found > reason;
    int at = snprintf(text, sizeof text, "%s ", name);
    size_t header = setup.ser == SER_JSON || !found || m.item[reason].len < 25 ? 1 : 2;
    for (size_t i = header; found && i < m.item[reason].len && at < (int)sizeof text - 1; i++) {
        uint8_t c = m.item[reason].p[i]; /* printable octets only: the result is JSON */
        if (c > ' ' && c < 0x7f && c != '"' && c != '\\') text[at++] = (char)c;
    }
    text[at] = 0;
    return text;
}

static const char *on_message(client_t *c, const uint8_t *p, size_t n) {
    message_t m;
    if (!message_read(setup.ser, p, n, 3, &m) || !m.found) return "an unreadable message";
    switch (span_uint(setup.ser, m.item[0])) {
    case WAMP_RESULT: return on_result(c, &m);
    case WAMP_WELCOME:
        if (c->state != CLIENT_HELLO) return "a WELCOME out of place";
        c->state = CLIENT_JOINED;
        setup.on_joined(c);
        return NULL;
    case WAMP_GOODBYE:
        if (c->state != CLIENT_LEAVING) return "a GOODBYE nobody asked for";
        return left;
    case WAMP_ABORT: return refusal("ABORT", p, n, 2);
    case WAMP_ERROR: return refusal("ERROR", p, n, 4);
    default: return "a message of an unexpected type";
    }
}

static const char *on_frame(client_t *c, const frame_t *f) {
    switch (f->kind) {
    case FRAME_MESSAGE: return on_message(c, f->payload, f->len);
    case FRAME_PING: return frame_queue(c, FRAME_PONG, f->payload, f->len), NULL;
    case FRAME_CLOSE: return "a WebSocket Close";
    default: return NULL;
    }
}

/* 1 when the handshake is done, 0 when octets are missing, -1 when it was refused. */
static int handshake_read(client_t *c) {
    const uint8_t *p = buf_head(&c->in);
    size_t have = buf_len(&c->in);
    if (setup.framing == FRAMING_RAWSOCKET) {
        if (have < 4) return 0;
        if (p[0] != 0x7f || (p[1] & 15) != setup.ser) return -1;
        buf_drop(&c->in, 4);
        return 1;
    }
    size_t n = http_head_len(p, have), len;
    if (!n) return 0;
    if (n < 13 || memcmp(p, "HTTP/1.1 101 ", 13)) return -1;
    const char *accept = http_header((const char *)p, n, "sec-websocket-accept", &len);
    if (!accept || len != WS_ACCEPT_LEN || memcmp(accept, c->accept, len)) return -1;
    buf_drop(&c->in, n);
    return 1;
}

static const char *client_process(client_t *c) {
    if (c->state == CLIENT_HANDSHAKE) {
        int done = handshake_read(c);
        if (done <= 0) return done ? "the handshake was refused" : NULL;
        hello_queue(c);
    }
    while (buf_len(&c->in)) {
        frame_t f;
        int found = wire_next(setup.framing, buf_head(&c->in), buf_len(&c->in), &f);
        if (found < 0) return "an invalid frame";
        if (!found) {
            buf_reserve(&c->in, f.size - buf_len(&c->in));
            break;
        }
        const char *why = on_frame(c, &f);
        if (why) return why;
        buf_drop(&c->in, f.size);
    }
    return NULL;
}

static void client_receive(client_t *c) {
    static uint8_t scratch[RECV_ROOM];
    ssize_t n = recv(c->fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n == -1) {
        if (errno != EAGAIN && errno != EINTR) lost(c, strerror(errno));
        return;
    }
    if (n == 0) {
        lost(c, "the peer closed the connection");
        return;
    }
    setup.reads++;
    memcpy(buf_reserve(&c->in, (size_t)n), scratch, (size_t)n);
    c->in.end += (size_t)n;
    const char *why = client_process(c);
    if (why == left) {
        client_close(c);
        setup.on_left(c);
    } else if (why) {
        lost(c, why);
    }
}

void client_event(client_t *c, uint32_t events) {
    if (c->state == CLIENT_CONNECTING) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error) {
            lost(c, strerror(error));
            return;
        }
        if (!(events & EPOLLOUT)) return;
        handshake_queue(c);
    } else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        client_receive(c);
    }
    client_flush(c);
}
