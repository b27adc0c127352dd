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

static payload_t payload;
static request_t call, yield, publish[2]; /* publish: without and with acknowledge */
static uint64_t first_publication;        /* the ID of the first EVENT: they count up from there */

static const char procedure[] = "bench.echo", work[] = "bench.work", topic[] = "bench.topic";

static const char ended[] = "the peer closed the connection";

/* Closing frees the text of a TLS error. */
static void lost(client_t *c, const char *why) {
    static char text[200];
    snprintf(text, sizeof text, "%s", why);
    client_close(c);
    setup.on_lost(c, text);
}

/* --- sending -------------------------------------------------------------------------------------------------------
 */

void client_call(client_t *c) {
    c->requests++;
    request_put(&c->channel, &call, &payload, c->requests, c->requests);
    c->sent_ns[c->requests % setup.inflight] = now_ns();
}

unsigned client_publish_batch(void) { return setup.inflight > 1 ? setup.inflight / 2 : 1; }

void client_publish(client_t *c, bool acknowledge) {
    c->requests++;
    const request_t *r = c->publish[acknowledge] ? c->publish[acknowledge] : &publish[acknowledge];
    request_put(&c->channel, r, &payload, c->requests, c->requests);
    c->sent_ns[c->requests % setup.inflight] = now_ns();
}

void client_list(client_t *c, publish_options_t *options) {
    for (int i = 0; i < 2; i++) {
        if (!c->publish[i]) c->publish[i] = malloc(sizeof *c->publish[i]);
        if (!c->publish[i]) die("out of memory", NULL);
        options->acknowledge = i;
        request_make(c->publish[i], setup.ser, WAMP_PUBLISH, topic, options);
    }
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
    put_map(&w, 2 + auth_pairs(c->user));
    put_key(&w, "agent");
    put_text(&w, "wamp-load");
    put_key(&w, "roles");
    put_map(&w, 4);
    put_client_role(&w, "caller");
    put_client_role(&w, "callee");
    put_client_role(&w, "publisher");
    put_client_role(&w, "subscriber");
    put_end(&w, '}');
    auth_announce(&w, c->user);
    put_end(&w, '}');
    put_end(&w, ']');
    channel_put(&c->channel, text, (size_t)(w.p - text));
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
    channel_put(&c->channel, text, (size_t)(w.p - text));
    c->state = CLIENT_LEAVING;
}

/* [SUBSCRIBE, REGISTER or CALL, 1, {}, uri] */
static void enrol_queue(client_t *c, unsigned type, const char *uri) {
    uint8_t text[128];
    writer_t w = {setup.ser, text, false};
    put_array(&w, 4);
    put_uint(&w, type);
    put_uint(&w, 1);
    put_map(&w, 0);
    put_end(&w, '}');
    put_text(&w, uri);
    put_end(&w, ']');
    channel_put(&c->channel, text, (size_t)(w.p - text));
}

void client_prepare(void) {
    bool callees = setup.source && setup.source->role == ROLE_CALLER;
    publish_options_t acknowledged = {.acknowledge = true};
    payload_make(&payload, setup.ser, setup.payload, setup.document, &setup.random);
    request_make(&call, setup.ser, WAMP_CALL, callees ? work : procedure, NULL);
    request_make(&yield, setup.ser, WAMP_YIELD, NULL, NULL);
    request_make(&publish[0], setup.ser, WAMP_PUBLISH, topic, NULL);
    request_make(&publish[1], setup.ser, WAMP_PUBLISH, topic, &acknowledged);
}

/* --- connecting ----------------------------------------------------------------------------------------------------
 */

static void events_set(client_t *c) {
    bool waits = c->state == CLIENT_CONNECTING || buf_len(&c->channel.out) || (c->tls && tls_wants_room(c->tls));
    uint32_t events = EPOLLIN | (waits ? EPOLLOUT : 0);
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
    buf_t *out = &c->channel.out;
    uint8_t *dst = buf_reserve(out, 1024);
    c->state = CLIENT_HANDSHAKE;
    if (setup.framing == FRAMING_RAWSOCKET) {
        dst[0] = 0x7f, dst[1] = (uint8_t)(0xf0 | setup.ser), dst[2] = dst[3] = 0;
        out->end += 4;
        return;
    }
    uint64_t nonce[2] = {random_next(&setup.random), random_next(&setup.random)};
    char key[24];
    base64((const uint8_t *)nonce, sizeof nonce, key);
    ws_accept(key, sizeof key, c->accept);
    int n = snprintf((char *)dst, 1024,
                     "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: %.*s\r\nSec-WebSocket-Version: 13\r\n",
                     setup.path, setup.host, (int)sizeof key, key);
    if (setup.deflate)
        n += snprintf((char *)dst + n, 1024 - (size_t)n, "Sec-WebSocket-Extensions: %s\r\n",
                      deflate_offer(setup.deflate));
    n += snprintf((char *)dst + n, 1024 - (size_t)n, "Sec-WebSocket-Protocol: wamp.2.%s%s\r\n\r\n",
                  serializer_name(setup.ser), setup.batched ? ".batched" : "");
    out->end += (size_t)n;
}

void client_open(client_t *c) {
    c->opened_ns = now_ns();
    c->user = auth_next();
    c->requests = c->results = 0;
    c->events = 0;
    c->channel.framing = setup.framing;
    c->channel.ser = setup.ser;
    c->channel.batched = setup.batched;
    c->channel.masks = true;
    c->channel.random = &setup.random;
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
    if (c->tls) tls_end(c->tls);
    tls_free(c->tls);
    c->tls = NULL;
    if (c->state != CLIENT_DOWN) close(c->fd);
    c->state = CLIENT_DOWN;
    c->events = 0;
    channel_free(&c->channel);
}

/* Octets sent or received; 0: none, the socket is to be waited for; -1 with *why. */
static ssize_t octets_send(client_t *c, const uint8_t *p, size_t n, const char **why) {
    ssize_t done = c->tls ? tls_write(c->tls, p, n) : send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done == -1 && !c->tls && (errno == EAGAIN || errno == EINTR)) return 0; /* epoll asks again */
    if (done == -1) *why = c->tls ? tls_error(c->tls) : strerror(errno);
    if (done == -1 && !*why) *why = ended;
    if (done > 0 && !c->tls) setup.sent += (uint64_t)done;
    return done;
}

static ssize_t octets_receive(client_t *c, uint8_t *p, size_t n, const char **why) {
    ssize_t done = c->tls ? tls_read(c->tls, p, n) : recv(c->fd, p, n, MSG_DONTWAIT);
    if (done == -1 && !c->tls && (errno == EAGAIN || errno == EINTR)) return 0;
    if (done == -1) *why = c->tls ? tls_error(c->tls) : strerror(errno);
    if (done == 0 && !c->tls) done = -1, *why = NULL;
    if (done == -1 && !*why) *why = ended;
    if (done > 0 && !c->tls) setup.received += (uint64_t)done;
    return done;
}

void client_flush(client_t *c) {
    buf_t *out = &c->channel.out;
    const char *why = NULL;
    if (c->state != CLIENT_DOWN) channel_flush(&c->channel);
    while (c->state != CLIENT_DOWN && buf_len(out)) {
        ssize_t n = octets_send(c, buf_head(out), buf_len(out), &why);
        if (n == 0) break;
        if (n == -1) {
            lost(c, why);
            return;
        }
        buf_drop(out, (size_t)n);
    }
    if (c->state != CLIENT_DOWN) events_set(c);
}

/* The TLS handshake goes on; what comes after it begins. */
static void secure(client_t *c) {
    int done = tls_handshake(c->tls);
    if (done == -1) {
        const char *why = tls_error(c->tls);
        lost(c, why ? why : ended);
    } else if (done && setup.handshakes) {
        c->secured_ns = now_ns();
        c->state = CLIENT_LEAVING;
        tls_end(c->tls);
        shutdown(c->fd, SHUT_WR); /* the peer answers with its end once it has seen the whole handshake */
    } else if (done) {
        handshake_queue(c);
    }
}

/* --- receiving: NULL when all is well, else what is wrong, or `left` -------------------------------------------------
 */

static const char left[] = "left"; /* the session ended as asked: the connection may be closed */

/* [RESULT, 1, {}, [session ID]] */
static const char *on_identified(client_t *c, const uint8_t *p, size_t n) {
    message_t m;
    walk_t w;
    span_t id;
    if (!message_read(setup.ser, p, n, 4, &m) || m.found < 4 || !walk_open(&w, setup.ser, m.item[3]) ||
        !walk_next(&w, &id) || span_uint(setup.ser, id) == UINT64_MAX)
        return "a RESULT without a session ID";
    setup.replaced += span_uint(setup.ser, id) != c->sid;
    setup.on_ready(c);
    return NULL;
}

/* When the request that is answered now was made. */
static uint64_t latency(const client_t *c, uint64_t request) {
    return now_ns() - c->sent_ns[request % setup.inflight];
}

static const char *on_result(client_t *c, const message_t *m) {
    if (c->state == CLIENT_LEAVING) return NULL;
    if (m->found < 3 || span_uint(setup.ser, m->item[1]) != c->results + 1) return "a RESULT out of order";
    if (!payload_is(&payload, c->results + 1, m->tail)) return "a RESULT that is not the echo of its CALL";
    c->results++;
    setup.on_result(c, latency(c, c->results));
    return NULL;
}

/* [SUBSCRIBED or REGISTERED, request, id] */
static const char *on_enrolled(client_t *c, const message_t *m) {
    if (c->state == CLIENT_LEAVING) return NULL;
    if (m->found < 3 || span_uint(setup.ser, m->item[1]) != 1 || c->group) return "an acknowledgement nobody asked for";
    c->group = span_uint(setup.ser, m->item[2]);
    setup.on_ready(c);
    return NULL;
}

/* Whether the details name the session that it came from, as that session knows itself. */
static bool names_source(span_t details, const char *key) {
    span_t value;
    return map_find(setup.ser, details, key, &value) && span_uint(setup.ser, value) == setup.source->sid;
}

/* [EVENT, subscription, publication, details, args..] */
static const char *on_event(client_t *c, const uint8_t *p, size_t n) {
    message_t m;
    if (c->state == CLIENT_LEAVING) return NULL;
    if (!message_read(setup.ser, p, n, 4, &m) || m.found < 4) return "an EVENT cut short";
    if (c->role != ROLE_SUBSCRIBER || span_uint(setup.ser, m.item[1]) != c->group)
        return "an EVENT of another subscription";
    if (!first_publication) first_publication = span_uint(setup.ser, m.item[2]);
    if (span_uint(setup.ser, m.item[2]) != first_publication + c->results) return "an EVENT out of order";
    if (!names_source(m.item[3], "publisher")) return "an EVENT whose publisher is not the session ID that published";
    c->results++;
    if (!payload_is(&payload, c->results, m.tail)) return "an EVENT with another payload than was published";
    setup.on_event(c, latency(setup.source, c->results));
    return NULL;
}

/* [INVOCATION, request, registration, details, args..] -> [YIELD, request, {}, args..] */
static const char *on_invocation(client_t *c, const uint8_t *p, size_t n) {
    message_t m;
    if (c->state == CLIENT_LEAVING) return NULL;
    if (!message_read(setup.ser, p, n, 4, &m) || m.found < 4) return "an INVOCATION cut short";
    if (c->role != ROLE_CALLEE || span_uint(setup.ser, m.item[2]) != c->group)
        return "an INVOCATION of another registration";
    if (span_uint(setup.ser, m.item[1]) != c->results + 1) return "an INVOCATION out of order";
    if (!names_source(m.item[3], "caller")) return "an INVOCATION whose caller is not the session ID that called";
    c->results++;
    if (!payload_is(&payload, c->results, m.tail)) return "an INVOCATION with other arguments than were given";
    request_put(&c->channel, &yield, &payload, c->results, c->results);
    setup.on_invocation(c, latency(setup.source, c->results));
    return NULL;
}

/* [PUBLISHED, request, publication] */
static const char *on_published(client_t *c, const message_t *m) {
    if (c->state == CLIENT_LEAVING) return NULL;
    c->results += client_publish_batch();
    if (m->found < 3 || span_uint(setup.ser, m->item[1]) != c->results) return "a PUBLISHED out of order";
    setup.on_published(c, latency(c, c->results));
    return NULL;
}

/* [CHALLENGE, method, extra] -> [AUTHENTICATE, signature, {}] */
static const char *on_challenge(client_t *c, const message_t *m) {
    uint8_t text[SIGNATURE_MAX + 32];
    char signature[SIGNATURE_MAX];
    if (c->state != CLIENT_HELLO) return "a CHALLENGE out of place";
    const char *why = auth_answer(c->user, setup.ser, m, signature);
    if (why) return why;
    writer_t w = {setup.ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_AUTHENTICATE);
    put_text(&w, signature);
    put_map(&w, 0);
    put_end(&w, '}');
    put_end(&w, ']');
    channel_put(&c->channel, text, (size_t)(w.p - text));
    return NULL;
}

static const char *on_welcome(client_t *c, const message_t *m) {
    if (c->state != CLIENT_HELLO || m->found < 3) return "a WELCOME out of place";
    if (!auth_is_welcome(c->user, setup.ser, m->item[2])) return "a WELCOME for somebody else";
    c->state = CLIENT_JOINED;
    c->sid = span_uint(setup.ser, m->item[1]);
    c->group = 0;
    setup.on_joined(c);
    if (c->state != CLIENT_JOINED) return NULL;
    if (c->role == ROLE_SUBSCRIBER)
        enrol_queue(c, WAMP_SUBSCRIBE, topic);
    else if (c->role == ROLE_CALLEE)
        enrol_queue(c, WAMP_REGISTER, work);
    else if (c->role == ROLE_IDENTIFIED)
        enrol_queue(c, WAMP_CALL, "bench.session_id");
    else
        setup.on_ready(c);
    return NULL;
}

/* Appends the printable octets of a string (the result is JSON), without its header. */
static size_t text_add(char *text, size_t at, size_t cap, span_t s) {
    size_t header = setup.ser == SER_JSON || s.len < 25 ? 1 : 2;
    for (size_t i = header; i < s.len && at < cap - 1; i++) {
        uint8_t octet = s.p[i];
        if (octet >= ' ' && octet < 0x7f && octet != '"' && octet != '\\') text[at++] = (char)octet;
    }
    text[at] = 0;
    return at;
}

/* "NAME reason message" out of a small message; valid until the next call. */
static const char *refusal(const char *name, const uint8_t *p, size_t n, unsigned details, unsigned reason) {
    static char text[200];
    message_t m;
    span_t message;
    size_t at = (size_t)snprintf(text, sizeof text, "%s ", name);
    if (!message_read(setup.ser, p, n, reason + 1, &m) || m.found <= reason) return text;
    at = text_add(text, at, sizeof text, m.item[reason]);
    if (!map_find(setup.ser, m.item[details], "message", &message)) return text;
    at += (size_t)snprintf(text + at, sizeof text - at, " ");
    if (at < sizeof text) text_add(text, at, sizeof text, message);
    return text;
}

static const char *on_message(client_t *c, const uint8_t *p, size_t n) {
    message_t m;
    if (!message_read(setup.ser, p, n, 3, &m) || !m.found) return "an unreadable message";
    switch (span_uint(setup.ser, m.item[0])) {
    case WAMP_RESULT: return c->role == ROLE_IDENTIFIED ? on_identified(c, p, n) : on_result(c, &m);
    case WAMP_EVENT: return on_event(c, p, n);
    case WAMP_INVOCATION: return on_invocation(c, p, n);
    case WAMP_PUBLISHED: return on_published(c, &m);
    case WAMP_SUBSCRIBED:
    case WAMP_REGISTERED: return on_enrolled(c, &m);
    case WAMP_WELCOME: return on_welcome(c, &m);
    case WAMP_CHALLENGE: return on_challenge(c, &m);
    case WAMP_GOODBYE:
        if (c->state != CLIENT_LEAVING) return "a GOODBYE nobody asked for";
        return left;
    case WAMP_ABORT: return refusal("ABORT", p, n, 1, 2);
    case WAMP_ERROR: return refusal("ERROR", p, n, 3, 4);
    default: return "a message of an unexpected type";
    }
}

static const char *on_input(void *owner, frame_kind_t kind, uint8_t *p, size_t n) {
    client_t *c = owner;
    switch (kind) {
    case FRAME_MESSAGE: return on_message(c, p, n);
    case FRAME_PING: return channel_control(&c->channel, FRAME_PONG, p, n), NULL;
    case FRAME_CLOSE: return "a WebSocket Close";
    default: return NULL;
    }
}

static bool subprotocol_agrees(const char *value, size_t len) {
    bool batched;
    if (!value || len < 7 || memcmp(value, "wamp.2.", 7)) return false;
    return subprotocol_parse(value + 7, len - 7, &batched) == setup.ser && batched == setup.batched;
}

/* NULL while octets are missing, `done`, or what is wrong. */
static const char done[] = "done";

static const char *handshake_read(client_t *c) {
    buf_t *in = &c->channel.in;
    const uint8_t *p = buf_head(in);
    if (setup.framing == FRAMING_RAWSOCKET) {
        if (buf_len(in) < 4) return NULL;
        if (p[0] != 0x7f || (p[1] & 15) != setup.ser) return "the handshake was refused";
        buf_drop(in, 4);
        return done;
    }
    size_t n = http_head_len(p, buf_len(in)), len;
    if (!n) return NULL;
    if (n < 13 || memcmp(p, "HTTP/1.1 101 ", 13)) return "the handshake was refused";
    const char *value = http_header((const char *)p, n, "sec-websocket-accept", &len);
    if (!value || len != WS_ACCEPT_LEN || memcmp(value, c->accept, len)) return "a wrong Sec-WebSocket-Accept";
    value = http_header((const char *)p, n, "sec-websocket-protocol", &len);
    if (!subprotocol_agrees(value, len)) return "another subprotocol than was asked for";
    value = http_header((const char *)p, n, "sec-websocket-extensions", &len);
    if (deflate_named(value, len) != setup.deflate) return "another compression than was asked for";
    if (setup.deflate) c->channel.zip = zip_open(setup.deflate);
    buf_drop(in, n);
    return done;
}

static const char *client_process(client_t *c) {
    if (c->state == CLIENT_HANDSHAKE) {
        const char *why = handshake_read(c);
        if (why != done) return why;
        hello_queue(c);
    }
    uint64_t before = c->channel.deflated;
    const char *why = channel_read(&c->channel, on_input, c);
    setup.deflated += c->channel.deflated - before;
    return why;
}

/* What has come, as far as there is room for it. Returns whether there may be more. */
static bool client_receive(client_t *c) {
    static uint8_t scratch[RECV_ROOM];
    const char *why = NULL;
    ssize_t n = octets_receive(c, scratch, sizeof scratch, &why);
    if (n == 0) return false;
    if (n > 0) {
        setup.reads++;
        if (setup.handshakes) return true; /* whatever it says to somebody who asked for nothing */
        memcpy(buf_reserve(&c->channel.in, (size_t)n), scratch, (size_t)n);
        c->channel.in.end += (size_t)n;
        why = client_process(c);
    } else if (setup.handshakes && why == ended) {
        why = left;
    }
    if (why == left) {
        client_close(c);
        setup.on_left(c);
    } else if (why) {
        lost(c, why);
    }
    return !why && c->tls && n == sizeof scratch; /* epoll does not know what OpenSSL holds */
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
        if (tls_setup.ca) {
            c->tls = tls_open(c->fd);
            c->state = CLIENT_TLS;
            secure(c);
        } else {
            handshake_queue(c);
        }
    } else if (c->state == CLIENT_TLS) {
        secure(c);
    } else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        while (client_receive(c)) continue;
    }
    client_flush(c);
}
