#include "requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- payloads ------------------------------------------------------------------------------------------------------
 */

enum { RECORD_ROOM = 512 };

/* Never a whole number: whether a translator writes 15.0 or 15 is its own business. */
static double fraction(uint64_t v) { return (double)v / 64 + 1.0 / 128; }

/* About 150 octets of JSON: what an application says, with enough that differs. */
static void put_record(writer_t *w, uint64_t *random) {
    static const char *const rooms[] = {"kitchen", "cellar", "workshop", "corridor", "garden", "attic"};
    uint64_t r = random_next(random);
    char name[32];
    snprintf(name, sizeof name, "sensor-%04u", (unsigned)(r % 10000));
    put_map(w, 7);
    put_key(w, "id");
    put_uint(w, r >> 11);
    put_key(w, "name");
    put_text(w, name);
    put_key(w, "temperature");
    put_double(w, 15 + fraction(r >> 8 & 1023));
    put_key(w, "online");
    put_true(w);
    put_key(w, "fault");
    put_null(w);
    put_key(w, "position");
    put_array(w, 2);
    put_double(w, fraction(r >> 20 & 8191));
    put_double(w, fraction(r >> 40 & 8191));
    put_end(w, ']');
    put_key(w, "tags");
    put_array(w, 2);
    put_text(w, rooms[r >> 32 & 3]);
    put_text(w, rooms[2 + (r >> 34 & 3)]);
    put_end(w, ']');
    put_end(w, '}');
}

/* Octets that a record has in JSON, whatever it is written in. */
static size_t record_octets(uint64_t random) {
    uint8_t text[RECORD_ROOM];
    writer_t w = {SER_JSON, text, false};
    put_record(&w, &random);
    return (size_t)(w.p - text);
}

static span_t document_make(serializer_t ser, size_t octets, uint64_t *random) {
    unsigned records = 0;
    uint64_t ahead = *random;
    for (size_t n = 0; n < octets || !records; records++) {
        n += record_octets(ahead) + 1;
        random_next(&ahead);
    }
    uint8_t *text = malloc((size_t)records * RECORD_ROOM + 16);
    if (!text) die("out of memory", NULL);
    writer_t w = {ser, text, ser == SER_JSON};
    put_array(&w, records);
    for (unsigned i = 0; i < records; i++) put_record(&w, random);
    put_end(&w, ']');
    put_end(&w, ']');
    return (span_t){text, (size_t)(w.p - text)};
}

static span_t octets_make(serializer_t ser, size_t octets, uint64_t *random) {
    uint8_t *text = malloc(octets + 16);
    if (!text) die("out of memory", NULL);
    writer_t w = {ser, text, ser == SER_JSON};
    put_array(&w, 1);
    if (ser == SER_JSON) { /* JSON has no octet strings: the same number of characters */
        *w.p++ = '"';
        memset(w.p, 'x', octets);
        w.p += octets;
        *w.p++ = '"';
        put_end(&w, ']');
        put_end(&w, ']');
    } else {
        put_bin_header(&w, octets);
        for (size_t i = 0; i < octets; i++) *w.p++ = (uint8_t)random_next(random);
    }
    return (span_t){text, (size_t)(w.p - text)};
}

void payload_make(payload_t *p, serializer_t ser, size_t octets, bool document, uint64_t *random) {
    p->count = document ? DOCUMENTS : 1;
    for (unsigned i = 0; i < p->count; i++)
        p->echo[i] = document ? document_make(ser, octets, random) : octets_make(ser, octets, random);
}

bool payload_is(const payload_t *p, uint64_t turn, span_t rest) {
    span_t wanted = p->echo[turn % p->count];
    return rest.len == wanted.len && !memcmp(rest.p, wanted.p, wanted.len);
}

/* --- requests ------------------------------------------------------------------------------------------------------
 */

static void put_ids(writer_t *w, const char *key, const uint64_t *id, unsigned count) {
    put_key(w, key);
    put_array(w, count);
    for (unsigned i = 0; i < count; i++) put_uint(w, id[i]);
    put_end(w, ']');
}

void request_make(request_t *r, serializer_t ser, unsigned type, const char *uri, const publish_options_t *options) {
    r->ser = ser;
    writer_t w = {ser, r->head, false};
    put_array(&w, uri ? 5 : 4);
    put_uint(&w, type);
    r->head_len = (size_t)(w.p - r->head);
    w = (writer_t){ser, r->middle, ser == SER_JSON};
    bool lists = options && options->listed, acknowledge = options && options->acknowledge;
    put_map(&w, (lists ? 2 : 0) + acknowledge);
    if (acknowledge) {
        put_key(&w, "acknowledge");
        put_true(&w);
    }
    if (lists) {
        put_ids(&w, "exclude", options->exclude, options->listed);
        put_ids(&w, "eligible", options->eligible, options->listed);
    }
    put_end(&w, '}');
    if (uri) put_text(&w, uri);
    r->middle_len = (size_t)(w.p - r->middle);
}

void request_put(channel_t *c, const request_t *r, const payload_t *payload, uint64_t id, uint64_t turn) {
    uint8_t request[24];
    writer_t w = {r->ser, request, r->ser == SER_JSON};
    put_uint(&w, id);
    span_t echo = payload->echo[turn % payload->count];
    size_t request_len = (size_t)(w.p - request), len = r->head_len + request_len + r->middle_len + echo.len;
    uint8_t *start = channel_begin(c, len), *p = start;
    memcpy(p, r->head, r->head_len);
    memcpy(p += r->head_len, request, request_len);
    memcpy(p += request_len, r->middle, r->middle_len);
    memcpy(p += r->middle_len, echo.p, echo.len);
    channel_end(c, start, len);
}
