/* wamp-load: makes WAMP sessions and work for what is measured, and prints a line when the measured time begins, then
 * the result, both in JSON. What is counted, and checked, in each mode:
 *   calls        N sessions with M echo calls in flight each; every result against its call
 *   events       one more session publishes, M in flight; each of N subscribers gets every event, with its publisher
 *   invocations  one more session calls, M in flight; each of N callees is invoked for every call, with its caller
 *   publishes    N sessions publish, M in flight each, with lists of session IDs that the router checks
 *   logins       N at a time: connect, handshake, HELLO, WELCOME, GOODBYE, close, and again
 *   handshakes   N at a time: connect, TLS handshake, close_notify, the peer's end, and again
 *   identify     N sessions ask the router for their session ID; counted is whether that is what they were told
 *   idle         N joined sessions that do nothing until standard input ends */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client.h"
#include "options.h"
#include "report.h"

typedef enum {
    MODE_CALLS,
    MODE_EVENTS,
    MODE_INVOCATIONS,
    MODE_PUBLISHES,
    MODE_LOGINS,
    MODE_HANDSHAKES,
    MODE_IDENTIFY,
    MODE_IDLE,
} load_mode_t;

static const char *const mode_names[] = {"calls",  "events",     "invocations", "publishes",
                                         "logins", "handshakes", "identify",    "idle"};
static const role_t mode_roles[] = {ROLE_CALLER, ROLE_SUBSCRIBER, ROLE_CALLEE,     ROLE_PUBLISHER,
                                    ROLE_CALLER, ROLE_CALLER,     ROLE_IDENTIFIED, ROLE_CALLER};

typedef enum { PHASE_OPENING, PHASE_WARMUP, PHASE_MEASURE, PHASE_SETTLE, PHASE_DRAIN, PHASE_DONE } phase_t;

enum { RAMP = 32, ERRORS_MAX = 1000 };

static struct {
    load_mode_t mode;
    unsigned sessions;
    uint64_t warmup_ns, duration_ns, open_timeout_ns, drain_timeout_ns;
    phase_t phase;
    uint64_t deadline_ns;
    client_t *clients;
    client_t *source;               /* the last of them in events and invocations: publisher or caller; else NULL */
    unsigned total;                 /* clients: sessions, and the source */
    unsigned opened, joined, ready; /* sessions begun; joined at this moment; that were ready for work */
    unsigned behind;                /* events: subscribers that have not got publication `whole` + 1 */
    uint64_t whole;                 /* events: publications that every subscriber has got */
    uint64_t done;                  /* what is counted, within the measured time */
    uint64_t reads, sent, received, deflated;
    uint64_t handshakes, resumed; /* of TLS */
    uint64_t errors;
    char first_error[256];
    hist_t hist;
    watch_t watch;
} load = {.sessions = 10,
          .warmup_ns = 300000000,
          .duration_ns = 2000000000,
          .open_timeout_ns = 60000000000,
          .drain_timeout_ns = 2000000000};

/* Sessions come and go, so that there are none to wait for at first. */
static bool is_coming_and_going(void) { return load.mode == MODE_LOGINS || load.mode == MODE_HANDSHAKES; }

static bool is_working(void) { return load.phase == PHASE_WARMUP || load.phase == PHASE_MEASURE; }

static void error_note(const char *why) {
    if (!load.errors++) snprintf(load.first_error, sizeof load.first_error, "%s", why);
}

static void open_next(void) {
    if (load.opened < load.total) client_open(&load.clients[load.opened++]);
}

static void record(uint64_t ns, unsigned count) {
    if (load.phase != PHASE_MEASURE) return;
    load.done += count;
    hist_add(&load.hist, ns);
}

/* --- what happens to sessions ----------------------------------------------------------------------------------------
 */

static void on_joined(client_t *c) {
    load.joined++;
    if (load.mode == MODE_LOGINS) {
        record(now_ns() - c->opened_ns, 1);
        client_goodbye(c);
        return;
    }
    if (load.phase == PHASE_OPENING) open_next();
}

static void on_ready(client_t *c) {
    (void)c;
    load.ready++;
}

static void on_result(client_t *c, uint64_t ns) {
    if (load.mode == MODE_CALLS) record(ns, 1);
    if (is_working()) client_call(c);
}

static void on_invocation(client_t *c, uint64_t ns) {
    (void)c;
    record(ns, 1);
}

/* Publication `whole` + 1 is done when the last subscriber has it; events of later ones may be there already. */
static void on_event(client_t *c, uint64_t ns) {
    record(ns, 1);
    if (c->results != load.whole + 1 || --load.behind) return;
    do {
        load.whole++;
        if (is_working()) client_publish(load.source, false);
        for (unsigned i = 0; i < load.sessions; i++) load.behind += load.clients[i].results <= load.whole;
    } while (!load.behind);
}

/* One acknowledgement stands for a batch. */
static void publish_batch(client_t *c) {
    unsigned count = client_publish_batch();
    for (unsigned k = 1; k <= count; k++) client_publish(c, k == count);
}

static void on_published(client_t *c, uint64_t ns) {
    record(ns, client_publish_batch());
    if (is_working()) publish_batch(c);
}

static void on_left(client_t *c) {
    if (load.mode == MODE_HANDSHAKES)
        record(c->secured_ns - c->opened_ns, 1);
    else
        load.joined--;
    if (is_coming_and_going() && is_working()) client_open(c);
}

static void on_lost(client_t *c, const char *why) {
    bool ending = load.phase >= PHASE_DRAIN && !c->requests;
    if (!ending) error_note(why);
    if (is_coming_and_going() && is_working() && load.errors < ERRORS_MAX) client_open(c);
}

/* --- phases ----------------------------------------------------------------------------------------------------------
 */

static void phase_enter(phase_t phase, uint64_t ns) {
    load.phase = phase;
    load.deadline_ns = now_ns() + ns;
}

/* Session i names those that come after it: all of them are joined, none is its own. */
static void lists_fill(unsigned i, publish_options_t *options) {
    options->listed = setup.listed;
    for (unsigned k = 0; k < setup.listed; k++) {
        options->exclude[k] = load.clients[(i + 1 + k) % load.sessions].sid;
        options->eligible[k] = load.clients[(i + 1 + setup.listed + k) % load.sessions].sid;
    }
}

static void work_begin(client_t *c) {
    switch (c->role) {
    case ROLE_CALLER:
        for (unsigned k = 0; k < setup.inflight; k++) client_call(c);
        break;
    case ROLE_PUBLISHER:
        if (load.mode == MODE_EVENTS) {
            for (unsigned k = 0; k < setup.inflight; k++) client_publish(c, false);
            break;
        }
        publish_options_t options;
        lists_fill((unsigned)(c - load.clients), &options);
        client_list(c, &options);
        for (unsigned k = 0; k < (setup.inflight > 1 ? 2 : 1); k++) publish_batch(c);
        break;
    default: break; /* subscribers and callees wait */
    }
    client_flush(c);
}

static void work_start(void) {
    phase_enter(PHASE_WARMUP, load.warmup_ns);
    load.behind = load.sessions;
    for (unsigned i = 0; i < load.total && load.mode != MODE_IDLE; i++) {
        if (is_coming_and_going())
            client_open(&load.clients[i]);
        else
            work_begin(&load.clients[i]);
    }
}

/* sign -1 at the start of the measured time, +1 at its end: what stays is the difference. */
static void totals_take(int sign) {
    load.reads += (uint64_t)sign * setup.reads;
    load.sent += (uint64_t)sign * (setup.sent + tls_setup.sent);
    load.received += (uint64_t)sign * (setup.received + tls_setup.received);
    load.handshakes += (uint64_t)sign * (tls_setup.full + tls_setup.resumed);
    load.resumed += (uint64_t)sign * tls_setup.resumed;
    load.deflated += (uint64_t)sign * setup.deflated;
}

static void measure_start(void) {
    hist_reset(&load.hist);
    load.done = 0;
    totals_take(-1);
    printf("{\"event\": \"measuring\", \"sessions\": %u}\n", load.joined);
    fflush(stdout);
    phase_enter(PHASE_MEASURE, load.duration_ns);
    watch_start(&load.watch);
}

static void measure_stop(void) {
    watch_stop(&load.watch);
    totals_take(1);
    if (setup.deflate && load.done && !load.deflated) error_note("nothing came compressed");
    if (load.mode == MODE_HANDSHAKES && !load.done) error_note("no handshake was done, or no end of a connection came");
    /* those that were under way when the first ticket came are behind the warm-up */
    if (is_coming_and_going() && tls_setup.resumes && load.resumed != load.handshakes)
        error_note("a full handshake where it was to be resumed");
    phase_enter(PHASE_SETTLE, load.drain_timeout_ns);
}

/* Whether all sessions may leave. What they publish names other sessions, which must be there when it arrives. */
static bool all_settled(void) {
    for (unsigned i = 0; i < load.total && load.mode == MODE_PUBLISHES; i++) {
        const client_t *c = &load.clients[i];
        if (c->state == CLIENT_JOINED && c->results != c->requests) return false;
    }
    return true;
}

static void drain_start(void) {
    phase_enter(PHASE_DRAIN, load.drain_timeout_ns);
    for (unsigned i = 0; i < load.total; i++) {
        client_t *c = &load.clients[i];
        if (c->state != CLIENT_JOINED) continue;
        c->requests = 0; /* results of open calls are not waited for */
        client_goodbye(c);
        client_flush(c);
    }
}

static bool all_down(void) {
    for (unsigned i = 0; i < load.total; i++)
        if (load.clients[i].state != CLIENT_DOWN) return false;
    return true;
}

/* Moves on when the phase is over. */
static void phase_step(bool released) {
    bool late = now_ns() >= load.deadline_ns;
    switch (load.phase) {
    case PHASE_OPENING:
        if (is_coming_and_going() || load.ready == load.total) {
            work_start();
        } else if (late || load.errors) {
            error_note("sessions did not open in time");
            load.phase = PHASE_DONE;
        }
        break;
    case PHASE_WARMUP:
        if (late) measure_start();
        break;
    case PHASE_MEASURE:
        if (late || released) measure_stop();
        break;
    case PHASE_SETTLE:
        if (late || all_settled()) drain_start();
        break;
    case PHASE_DRAIN:
        if (late || all_down()) load.phase = PHASE_DONE;
        break;
    default: break;
    }
}

static int wait_ms(void) {
    uint64_t now = now_ns();
    if (now >= load.deadline_ns) return 0;
    uint64_t ms = (load.deadline_ns - now + 999999) / 1000000;
    return ms > 1000 ? 1000 : (int)ms;
}

/* Standard input is registered without a client: its end releases an idle run. */
static bool input_ended(void) {
    char text[64];
    return read(STDIN_FILENO, text, sizeof text) <= 0;
}

static void run(void) {
    struct epoll_event events[256];
    phase_enter(PHASE_OPENING, load.open_timeout_ns);
    for (unsigned i = 0; i < RAMP && !is_coming_and_going(); i++) open_next();
    bool released = false;
    while (load.phase != PHASE_DONE) {
        phase_step(released);
        int n = epoll_wait(setup.epoll, events, 256, load.phase == PHASE_DONE ? 0 : wait_ms());
        for (int i = 0; i < n; i++) {
            client_t *c = events[i].data.ptr;
            if (!c)
                released = released || input_ended();
            else if (c->state != CLIENT_DOWN)
                client_event(c, events[i].events);
        }
        if (load.source) client_flush(load.source); /* others made it publish or call */
        if (released) epoll_ctl(setup.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    }
}

/* --- options and result ----------------------------------------------------------------------------------------------
 */

static void print_result(void) {
    double seconds = (double)load.watch.wall_ns / 1e9;
    printf("{\"mode\": \"%s\", \"transport\": \"%s\", \"serializer\": \"%s%s\", \"sessions\": %u, \"inflight\": %u, ",
           mode_names[load.mode], setup.framing == FRAMING_WEBSOCKET ? "websocket" : "rawsocket",
           serializer_name(setup.ser), setup.batched ? ".batched" : "", load.sessions, setup.inflight);
    printf(
        "\"payload\": %zu, \"seconds\": %.6f, \"count\": %lu, \"per_second\": %.1f, \"reads\": %lu, \"latency_us\": ",
        setup.payload, seconds, load.done, seconds > 0 ? (double)load.done / seconds : 0.0, load.reads);
    hist_print(&load.hist, stdout);
    printf(", \"octets_sent\": %lu, \"octets_received\": %lu, \"came_compressed\": %lu", load.sent, load.received,
           load.deflated);
    printf(", \"session_ids_replaced\": %lu", setup.replaced);
    printf(", \"tls\": \"%s\", \"tls_handshakes\": %lu, \"tls_resumed\": %lu", tls_agreed(), load.handshakes,
           load.resumed);
    printf(", \"own_cpu_ns\": %lld, \"machine_busy_ns\": %.0f, \"cpu\": ", (long long)load.watch.own_ns,
           (double)load.watch.machine_ticks * 1e9 / (double)sysconf(_SC_CLK_TCK));
    watch_print(&load.watch, stdout);
    printf(", \"errors\": %lu, \"first_error\": \"%s\"}\n", load.errors, load.first_error);
}

static uint64_t seconds_ns(const char *text) { return (uint64_t)(atof(text) * 1e9); }

static bool mode_parse(const char *v) {
    for (int i = MODE_CALLS; i <= MODE_IDLE; i++)
        if (!strcmp(v, mode_names[i])) return load.mode = (load_mode_t)i, true;
    return false;
}

/* false: the option or its value is not known. */
static bool option_set(const char *name, const char *v) {
    if (!strcmp(name, "--mode")) return mode_parse(v);
    if (!strcmp(name, "--sessions")) return (load.sessions = (unsigned)atoi(v)) > 0;
    if (!strcmp(name, "--inflight")) return (setup.inflight = (unsigned)atoi(v)) > 0;
    if (!strcmp(name, "--payload")) return setup.payload = (size_t)atoll(v), true;
    if (!strcmp(name, "--warmup")) return load.warmup_ns = seconds_ns(v), true;
    if (!strcmp(name, "--duration")) return (load.duration_ns = seconds_ns(v)) > 0;
    if (!strcmp(name, "--open-timeout")) return (load.open_timeout_ns = seconds_ns(v)) > 0;
    if (!strcmp(name, "--listed")) return (setup.listed = (unsigned)atoi(v)) <= LISTED_MAX;
    if (!strcmp(name, "--document")) return setup.document = true, (setup.payload = (size_t)atoll(v)) > 0;
    if (!strcmp(name, "--cpu-of") && load.watch.count < WATCH_MAX)
        return (load.watch.pid[load.watch.count++] = (pid_t)atoi(v)) > 0;
    return false;
}

static const char usage[] = "usage: wamp-load " SESSION_USAGE
                            "[--mode calls|events|invocations|publishes|logins|handshakes|identify|idle] "
                            "[--sessions N] [--inflight M] [--payload OCTETS | --document OCTETS] [--listed IDS] "
                            "[--warmup S] [--duration S] [--open-timeout S] [--cpu-of PID]..";

/* All sessions, and in some modes the one more that they work for. */
static void clients_make(void) {
    bool has_source = load.mode == MODE_EVENTS || load.mode == MODE_INVOCATIONS;
    load.total = load.sessions + has_source;
    load.clients = calloc(load.total, sizeof *load.clients);
    uint64_t *rings = calloc((size_t)load.total * setup.inflight, sizeof *rings);
    if (!load.clients || !rings) die("out of memory", NULL);
    for (unsigned i = 0; i < load.total; i++) {
        load.clients[i].sent_ns = rings + (size_t)i * setup.inflight;
        load.clients[i].role = mode_roles[load.mode];
    }
    if (!has_source) return;
    setup.source = load.source = &load.clients[load.sessions];
    load.source->role = load.mode == MODE_EVENTS ? ROLE_PUBLISHER : ROLE_CALLER;
}

int main(int argc, char **argv) {
    options_read(argc, argv, option_set, usage);
    setup.spread = is_coming_and_going();
    setup.handshakes = load.mode == MODE_HANDSHAKES;
    if (setup.handshakes && !tls_setup.ca) die("--mode handshakes needs --tls", NULL);
    setup.on_joined = on_joined;
    setup.on_ready = on_ready;
    setup.on_result = on_result;
    setup.on_event = on_event;
    setup.on_invocation = on_invocation;
    setup.on_published = on_published;
    setup.on_left = on_left;
    setup.on_lost = on_lost;
    clients_make();
    client_prepare();
    if (load.mode == MODE_IDLE) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
        epoll_ctl(setup.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &ev);
    }
    run();
    print_result();
    return load.errors ? 1 : 0;
}
