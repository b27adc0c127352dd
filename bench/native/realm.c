#include "realm.h"

#include <stdlib.h>
#include <string.h>

#include "sessions.h"

enum {
    REALM_URI_MAX = 256,
    AUTHID_MAX = 128,   /* octets of an authid as it is serialized */
    URI_MAX = 128,      /* octets of a topic or procedure as it is serialized */
    URIS_MAX = 64,      /* topics and procedures there are */
    MEMBERS_MAX = 1024, /* sessions of one topic or procedure */
    LISTED_MAX = 64,    /* session IDs in one exclude or eligible list */
    CALLS_RING = 1024,  /* INVOCATIONs that one callee may have open */
    ID_MAX = 20         /* octets of a serialized ID */
};

realm_t realm = {.authmethod = "anonymous"};

/* A topic with its subscribers, or a procedure with its callees. URIs are compared as they are serialized: sessions of
 * different serializers do not hear of each other, there is nothing that would translate here. */
typedef struct {
    uint8_t uri[URI_MAX];
    size_t uri_len;
    serializer_t ser;
    uint64_t id;
    peer_t *member[MEMBERS_MAX];
    unsigned count;
} group_t;

typedef struct {
    group_t *group[URIS_MAX];
    unsigned count;
} groups_t;

static groups_t topics, procedures;

/* A CALL that callees work on. */
typedef struct {
    peer_t *caller; /* NULL: gone meanwhile */
    uint8_t request[ID_MAX];
    size_t request_len;
    unsigned left; /* YIELDs to come; 0: the entry is free */
} call_t;

static call_t *calls;
static uint32_t calls_cap;   /* entry 0 stands for none */
static uint64_t publication; /* the ID of the last one */

/* --- writing -------------------------------------------------------------------------------------------------------
 */

/* Queues a message made of head and tail. */
static void queue(peer_t *c, span_t head, span_t tail) {
    size_t len = head.len + tail.len;
    uint8_t *dst = channel_begin(&c->channel, len);
    memcpy(dst, head.p, head.len);
    if (tail.len) memcpy(dst + head.len, tail.p, tail.len);
    channel_end(&c->channel, dst, len);
}

static void queue_written(peer_t *c, const uint8_t *start, const writer_t *w) {
    queue(c, (span_t){start, (size_t)(w->p - start)}, (span_t){0});
}

/* Another peer than the one that is read has octets to send. */
static void mark_dirty(peer_t *c) {
    if (c->dirty) return;
    if (realm.dirty_count == realm.dirty_cap) {
        realm.dirty_cap = realm.dirty_cap ? 2 * realm.dirty_cap : 64;
        realm.dirty = realloc(realm.dirty, realm.dirty_cap * sizeof *realm.dirty);
        if (!realm.dirty) die("out of memory", NULL);
    }
    realm.dirty[realm.dirty_count++] = c;
    c->dirty = true;
}

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

/* {key: id} */
static void put_id_map(writer_t *w, const char *key, uint64_t id) {
    put_map(w, 1);
    put_key(w, key);
    put_uint(w, id);
    put_end(w, '}');
}

/* --- sessions ------------------------------------------------------------------------------------------------------
 */

/* Uniform in 1..2^53, as the specification wants IDs of global scope. */
static uint64_t global_id(void) { return (random_next(&realm.random) >> 11) + 1; }

/* The authid that a proxy asserts for its client, as it is serialized. */
static bool asserted_authid(serializer_t ser, span_t details, span_t *authid) {
    span_t authextra;
    return map_find(ser, details, "authextra", &authextra) && map_find(ser, authextra, "proxy_authid", authid) &&
           authid->len <= AUTHID_MAX;
}

static const char *on_hello(peer_t *c, const message_t *m) {
    span_t authid;
    if (c->joined) return "a second HELLO";
    if (m->found < 3 || m->item[1].len > REALM_URI_MAX) return "a HELLO without a realm";
    do c->sid = global_id();
    while (sessions_find(c->sid));
    sessions_add(c->sid, c);
    uint8_t text[1024];
    writer_t w = {c->channel.ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_WELCOME);
    put_uint(&w, c->sid);
    put_map(&w, 6);
    put_key(&w, "realm");
    put_raw(&w, m->item[1]);
    put_key(&w, "authid");
    if (asserted_authid(w.ser, m->item[2], &authid))
        put_raw(&w, authid);
    else
        put_text(&w, "bench");
    put_pair(&w, "authrole", "anonymous");
    put_pair(&w, "authmethod", realm.authmethod);
    put_pair(&w, "authprovider", "static");
    put_key(&w, "roles");
    put_map(&w, 2);
    put_role(&w, "broker");
    put_role(&w, "dealer");
    put_end(&w, '}');
    put_end(&w, '}');
    put_end(&w, ']');
    queue_written(c, text, &w);
    c->joined = true;
    realm.sessions++;
    realm.joined++;
    return NULL;
}

static void group_leave(groups_t *all, const peer_t *c) {
    for (unsigned i = 0; i < all->count; i++) {
        group_t *g = all->group[i];
        for (unsigned k = g->count; k-- > 0;)
            if (g->member[k] == c) g->member[k] = g->member[--g->count];
    }
}

void realm_leave(peer_t *c) {
    if (!c->joined) return;
    c->joined = false;
    realm.joined--;
    sessions_remove(c->sid);
    if (c->subscribed) group_leave(&topics, c);
    if (c->calls) group_leave(&procedures, c);
    for (uint32_t i = 0; c->calls && i < CALLS_RING; i++) /* what it will not answer any more */
        if (c->calls[i]) calls[c->calls[i]].left--;
    for (uint32_t i = 0; i < calls_cap; i++)
        if (calls[i].caller == c) calls[i].caller = NULL;
    free(c->calls);
    c->calls = NULL;
    c->subscribed = false;
    c->invocations = 0;
}

static const char *on_goodbye(peer_t *c) {
    uint8_t text[64];
    writer_t w = {c->channel.ser, text, false};
    put_array(&w, 3);
    put_uint(&w, WAMP_GOODBYE);
    put_map(&w, 0);
    put_end(&w, '}');
    put_text(&w, "wamp.close.goodbye_and_out");
    put_end(&w, ']');
    queue_written(c, text, &w);
    realm_leave(c);
    return NULL;
}

/* [answer, request] or [answer, request, id] */
static void acknowledge(peer_t *c, span_t request, unsigned answer, uint64_t id) {
    uint8_t text[64];
    writer_t w = {c->channel.ser, text, false};
    put_array(&w, id ? 3 : 2);
    put_uint(&w, answer);
    put_raw(&w, request);
    if (id) put_uint(&w, id);
    put_end(&w, ']');
    queue_written(c, text, &w);
}

/* --- topics and procedures -----------------------------------------------------------------------------------------
 */

static group_t *group_find(const groups_t *all, serializer_t ser, span_t uri) {
    for (unsigned i = 0; i < all->count; i++) {
        group_t *g = all->group[i];
        if (g->ser == ser && g->uri_len == uri.len && !memcmp(g->uri, uri.p, uri.len)) return g;
    }
    return NULL;
}

/* [SUBSCRIBE or REGISTER, request, options, uri] */
static const char *on_enrol(peer_t *c, groups_t *all, const message_t *m, unsigned answer) {
    if (m->found < 4 || m->item[1].len > ID_MAX || m->item[3].len > URI_MAX) return "a SUBSCRIBE or REGISTER cut short";
    group_t *g = group_find(all, c->channel.ser, m->item[3]);
    if (!g) {
        if (all->count == URIS_MAX) return "more topics or procedures than a stand-in keeps";
        g = calloc(1, sizeof *g);
        if (!g) die("out of memory", NULL);
        memcpy(g->uri, m->item[3].p, m->item[3].len);
        g->uri_len = m->item[3].len;
        g->ser = c->channel.ser;
        g->id = 100000 + random_next(&realm.random) % 900000; /* all of one width: ways are compared */
        all->group[all->count++] = g;
    }
    if (g->count == MEMBERS_MAX) return "more subscribers or callees than a stand-in keeps";
    g->member[g->count++] = c;
    acknowledge(c, m->item[1], answer, g->id);
    return NULL;
}

/* [UNSUBSCRIBE or UNREGISTER, request, id] */
static const char *on_withdraw(peer_t *c, groups_t *all, const message_t *m, unsigned answer) {
    if (m->found < 3 || m->item[1].len > ID_MAX) return "an UNSUBSCRIBE or UNREGISTER cut short";
    uint64_t id = span_uint(c->channel.ser, m->item[2]);
    for (unsigned i = 0; i < all->count; i++) {
        group_t *g = all->group[i];
        for (unsigned k = 0; g->id == id && k < g->count; k++)
            if (g->member[k] == c) g->member[k--] = g->member[--g->count];
    }
    acknowledge(c, m->item[1], answer, 0);
    return NULL;
}

/* --- PUBLISH -------------------------------------------------------------------------------------------------------
 */

typedef struct {
    uint64_t id[LISTED_MAX];
    unsigned count;
    bool given;
} listed_t;

static bool is_listed(const listed_t *l, uint64_t sid) {
    for (unsigned i = 0; i < l->count; i++)
        if (l->id[i] == sid) return true;
    return false;
}

/* A list of session IDs among the options. Each must be one of ours: this is where a wrong ID is found out. */
static const char *listed_read(serializer_t ser, span_t options, const char *key, listed_t *l) {
    span_t list, item;
    walk_t w;
    l->count = 0;
    l->given = map_find(ser, options, key, &list);
    if (!l->given) return NULL;
    if (!walk_open(&w, ser, list)) return "a list of session IDs that is none";
    while (walk_next(&w, &item)) {
        uint64_t sid = span_uint(ser, item);
        if (!sessions_find(sid)) return "a PUBLISH that lists an unknown session ID";
        if (l->count == LISTED_MAX) return "a PUBLISH that lists too many session IDs";
        l->id[l->count++] = sid;
    }
    realm.listed += l->count;
    return NULL;
}

static void deliver(const peer_t *c, const message_t *m, const listed_t *exclude, const listed_t *eligible) {
    const group_t *g = group_find(&topics, c->channel.ser, m->item[3]);
    if (!g) return;
    uint8_t text[128];
    writer_t w = {c->channel.ser, text, false};
    put_array(&w, 4 + m->count - m->found);
    put_uint(&w, WAMP_EVENT);
    put_uint(&w, g->id);
    put_uint(&w, publication);
    put_id_map(&w, "publisher", c->sid);
    span_t head = {text, (size_t)(w.p - text)};
    for (unsigned i = 0; i < g->count; i++) {
        peer_t *to = g->member[i];
        if (to == c || is_listed(exclude, to->sid)) continue;
        if (eligible->given && !is_listed(eligible, to->sid)) continue;
        queue(to, head, m->tail);
        mark_dirty(to);
        realm.events++;
    }
}

/* [PUBLISH, request, options, topic, args..] */
static const char *on_publish(peer_t *c, const message_t *m) {
    static listed_t exclude, eligible;
    serializer_t ser = c->channel.ser;
    if (m->found < 4 || m->item[1].len > ID_MAX) return "a PUBLISH cut short";
    const char *why = listed_read(ser, m->item[2], "exclude", &exclude);
    if (!why) why = listed_read(ser, m->item[2], "eligible", &eligible);
    if (why) return why;
    span_t flag;
    if (!publication) publication = global_id() >> 1; /* counts up from there: subscribers see whether one is missing */
    publication++;
    realm.publications++;
    deliver(c, m, &exclude, &eligible);
    if (map_find(ser, m->item[2], "acknowledge", &flag) && span_is_true(ser, flag))
        acknowledge(c, m->item[1], WAMP_PUBLISHED, publication);
    return NULL;
}

/* --- CALL ----------------------------------------------------------------------------------------------------------
 */

static uint32_t call_open(peer_t *c, span_t request, unsigned callees) {
    uint32_t i = 1;
    while (i < calls_cap && calls[i].left) i++;
    if (i >= calls_cap) {
        uint32_t cap = calls_cap ? 2 * calls_cap : 256;
        calls = realloc(calls, cap * sizeof *calls);
        if (!calls) die("out of memory", NULL);
        memset(calls + calls_cap, 0, (cap - calls_cap) * sizeof *calls);
        i = calls_cap ? calls_cap : 1;
        calls_cap = cap;
    }
    calls[i] = (call_t){.caller = c, .request_len = request.len, .left = callees};
    memcpy(calls[i].request, request.p, request.len);
    return i;
}

/* All callees of the procedure get an INVOCATION that names the caller; the call ends with the last YIELD. */
static const char *invoke(peer_t *c, const message_t *m, const group_t *g) {
    uint32_t call = call_open(c, m->item[1], g->count);
    for (unsigned i = 0; i < g->count; i++) {
        peer_t *to = g->member[i];
        uint32_t *entry = &to->calls[++to->invocations % CALLS_RING];
        if (*entry) return "more open INVOCATIONs than a stand-in keeps";
        *entry = call;
        uint8_t text[128];
        writer_t w = {c->channel.ser, text, false};
        put_array(&w, 4 + m->count - m->found);
        put_uint(&w, WAMP_INVOCATION);
        put_uint(&w, to->invocations);
        put_uint(&w, g->id);
        put_id_map(&w, "caller", c->sid);
        queue(to, (span_t){text, (size_t)(w.p - text)}, m->tail);
        mark_dirty(to);
        realm.invocations++;
    }
    return NULL;
}

/* [RESULT, request, {}, args..] */
static void answer(peer_t *c, span_t request, const message_t *m) {
    uint8_t text[64];
    writer_t w = {c->channel.ser, text, false};
    put_array(&w, 3 + m->count - m->found);
    put_uint(&w, WAMP_RESULT);
    put_raw(&w, request);
    put_map(&w, 0);
    put_end(&w, '}');
    queue(c, (span_t){text, (size_t)(w.p - text)}, m->tail);
}

/* The session ID as this router knows it: what a proxy told the client may be another one. */
static void answer_session_id(peer_t *c, span_t request) {
    uint8_t text[96];
    writer_t w = {c->channel.ser, text, false};
    put_array(&w, 4);
    put_uint(&w, WAMP_RESULT);
    put_raw(&w, request);
    put_map(&w, 0);
    put_end(&w, '}');
    put_array(&w, 1);
    put_uint(&w, c->sid);
    put_end(&w, ']');
    put_end(&w, ']');
    queue_written(c, text, &w);
}

static bool is_text(serializer_t ser, span_t s, const char *text) {
    size_t n = strlen(text); /* shorter than 24 octets: a header of one */
    return s.len == n + 1 + (ser == SER_JSON) && !memcmp(s.p + 1, text, n);
}

/* [CALL, request, options, procedure, args..]: what nobody registered is answered with its own arguments */
static const char *on_call(peer_t *c, const message_t *m) {
    if (m->found < 4 || m->item[1].len > ID_MAX) return "a CALL cut short";
    realm.calls++;
    const group_t *g = procedures.count ? group_find(&procedures, c->channel.ser, m->item[3]) : NULL;
    if (g && g->count) return invoke(c, m, g);
    if (is_text(c->channel.ser, m->item[3], "bench.session_id")) return answer_session_id(c, m->item[1]), NULL;
    answer(c, m->item[1], m);
    return NULL;
}

/* [YIELD, request, options, args..] */
static const char *on_yield(peer_t *c, const uint8_t *p, size_t n) {
    message_t m;
    if (!message_read(c->channel.ser, p, n, 3, &m) || m.found < 3) return "a YIELD cut short";
    uint64_t request = span_uint(c->channel.ser, m.item[1]);
    uint32_t *entry = c->calls && request <= c->invocations ? &c->calls[request % CALLS_RING] : NULL;
    if (!entry || !*entry) return "a YIELD that nobody waits for";
    call_t *call = &calls[*entry];
    *entry = 0;
    if (--call->left || !call->caller) return NULL;
    answer(call->caller, (span_t){call->request, call->request_len}, &m);
    mark_dirty(call->caller);
    call->caller = NULL;
    return NULL;
}

/* --- all -----------------------------------------------------------------------------------------------------------
 */

const char *realm_message(peer_t *c, const uint8_t *p, size_t n) {
    message_t m;
    if (!message_read(c->channel.ser, p, n, 4, &m) || !m.found) return "an unreadable message";
    uint64_t type = span_uint(c->channel.ser, m.item[0]);
    if (type == WAMP_HELLO) return on_hello(c, &m);
    if (type == WAMP_ABORT) return realm_leave(c), "an ABORT"; /* nobody is answered, nothing is counted */
    if (!c->joined) return "a message before HELLO";
    switch (type) {
    case WAMP_CALL: return on_call(c, &m);
    case WAMP_YIELD: return on_yield(c, p, n);
    case WAMP_PUBLISH: return on_publish(c, &m);
    case WAMP_SUBSCRIBE: c->subscribed = true; return on_enrol(c, &topics, &m, WAMP_SUBSCRIBED);
    case WAMP_REGISTER:
        if (!c->calls) c->calls = calloc(CALLS_RING, sizeof *c->calls);
        if (!c->calls) die("out of memory", NULL);
        return on_enrol(c, &procedures, &m, WAMP_REGISTERED);
    case WAMP_UNSUBSCRIBE: return on_withdraw(c, &topics, &m, WAMP_UNSUBSCRIBED);
    case WAMP_UNREGISTER: return on_withdraw(c, &procedures, &m, WAMP_UNREGISTERED);
    case WAMP_GOODBYE: return on_goodbye(c);
    default: return "a message of an unexpected type";
    }
}
