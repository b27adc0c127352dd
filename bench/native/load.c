/* wamp-load: makes WAMP sessions and work for what is measured, and prints a line when the measured time begins, then
 * the result, both in JSON. calls   N sessions with M echo calls in flight each; every result is checked against its
 * call logins  N at a time: connect, handshake, HELLO, WELCOME, GOODBYE, close, and again idle    N joined sessions
 * that do nothing until standard input ends */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client.h"
#include "report.h"

typedef enum { MODE_CALLS, MODE_LOGINS, MODE_IDLE } load_mode_t;
typedef enum { PHASE_OPENING, PHASE_WARMUP, PHASE_MEASURE, PHASE_DRAIN, PHASE_DONE } phase_t;

enum { RAMP = 32, ERRORS_MAX = 1000 };

static struct {
    load_mode_t mode;
    unsigned sessions;
    uint64_t warmup_ns, duration_ns, open_timeout_ns, drain_timeout_ns;
    phase_t phase;
    uint64_t deadline_ns;
    client_t *clients;
    unsigned opened, joined; /* sessions begun, sessions joined at this moment */
    uint64_t done;           /* calls or logins within the measured time */
    uint64_t reads;
    uint64_t errors;
    char first_error[128];
    hist_t hist;
    watch_t watch;
} load = {.sessions = 10,
          .warmup_ns = 300000000,
          .duration_ns = 2000000000,
          .open_timeout_ns = 60000000000,
          .drain_timeout_ns = 2000000000};

static bool is_working(void) { return load.phase == PHASE_WARMUP || load.phase == PHASE_MEASURE; }

static void error_note(const char *why) {
    if (!load.errors++) snprintf(load.first_error, sizeof load.first_error, "%s", why);
}

static void open_next(void) {
    if (load.opened < load.sessions) client_open(&load.clients[load.opened++]);
}

static void record(uint64_t ns) {
    if (load.phase != PHASE_MEASURE) return;
    load.done++;
    hist_add(&load.hist, ns);
}

/* --- what happens to sessions ----------------------------------------------------------------------------------------
 */

static void on_joined(client_t *c) {
    load.joined++;
    if (load.mode == MODE_LOGINS) {
        record(now_ns() - c->opened_ns);
        client_goodbye(c);
        return;
    }
    if (load.phase == PHASE_OPENING) open_next();
}

static void on_result(client_t *c, uint64_t ns) {
    record(ns);
    if (is_working()) client_call(c);
}

static void on_left(client_t *c) {
    load.joined--;
    if (load.mode == MODE_LOGINS && is_working()) client_open(c);
}

static void on_lost(client_t *c, const char *why) {
    bool ending = load.phase >= PHASE_DRAIN && !c->requests;
    if (!ending) error_note(why);
    if (load.mode == MODE_LOGINS && is_working() && load.errors < ERRORS_MAX) client_open(c);
}

/* --- phases ----------------------------------------------------------------------------------------------------------
 */

static void phase_enter(phase_t phase, uint64_t ns) {
    load.phase = phase;
    load.deadline_ns = now_ns() + ns;
}

static void work_start(void) {
    phase_enter(PHASE_WARMUP, load.warmup_ns);
    for (unsigned i = 0; i < load.sessions && load.mode != MODE_IDLE; i++) {
        client_t *c = &load.clients[i];
        if (load.mode == MODE_LOGINS) {
            client_open(c);
            continue;
        }
        for (unsigned k = 0; k < setup.inflight; k++) client_call(c);
        client_flush(c);
    }
}

static void measure_start(void) {
    hist_reset(&load.hist);
    load.done = 0;
    load.reads = setup.reads;
    printf("{\"event\": \"measuring\", \"sessions\": %u}\n", load.joined);
    fflush(stdout);
    phase_enter(PHASE_MEASURE, load.duration_ns);
    watch_start(&load.watch);
}

static void drain_start(void) {
    watch_stop(&load.watch);
    load.reads = setup.reads - load.reads;
    phase_enter(PHASE_DRAIN, load.drain_timeout_ns);
    for (unsigned i = 0; i < load.sessions; i++) {
        client_t *c = &load.clients[i];
        if (c->state != CLIENT_JOINED) continue;
        c->requests = 0; /* results of open calls are not waited for */
        client_goodbye(c);
        client_flush(c);
    }
}

static bool all_down(void) {
    for (unsigned i = 0; i < load.sessions; i++)
        if (load.clients[i].state != CLIENT_DOWN) return false;
    return true;
}

/* Moves on when the phase is over. */
static void phase_step(bool released) {
    bool late = now_ns() >= load.deadline_ns;
    switch (load.phase) {
    case PHASE_OPENING:
        if (load.mode == MODE_LOGINS || load.joined == load.sessions) {
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
        if (late || released) drain_start();
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
    for (unsigned i = 0; i < RAMP && load.mode != MODE_LOGINS; i++) open_next();
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
        if (released) epoll_ctl(setup.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    }
}

/* --- options and result ----------------------------------------------------------------------------------------------
 */

static void print_result(void) {
    static const char *const modes[] = {"calls", "logins", "idle"};
    double seconds = (double)load.watch.wall_ns / 1e9;
    printf("{\"mode\": \"%s\", \"transport\": \"%s\", \"serializer\": \"%s\", \"sessions\": %u, \"inflight\": %u, ",
           modes[load.mode], setup.framing == FRAMING_WEBSOCKET ? "websocket" : "rawsocket", serializer_name(setup.ser),
           load.sessions, setup.inflight);
    printf(
        "\"payload\": %zu, \"seconds\": %.6f, \"count\": %lu, \"per_second\": %.1f, \"reads\": %lu, \"latency_us\": ",
        setup.payload, seconds, load.done, seconds > 0 ? (double)load.done / seconds : 0.0, load.reads);
    hist_print(&load.hist, stdout);
    printf(", \"own_cpu_ns\": %lld, \"machine_busy_ns\": %.0f, \"cpu\": ", (long long)load.watch.own_ns,
           (double)load.watch.machine_ticks * 1e9 / (double)sysconf(_SC_CLK_TCK));
    watch_print(&load.watch, stdout);
    printf(", \"errors\": %lu, \"first_error\": \"%s\"}\n", load.errors, load.first_error);
}

static uint64_t seconds_ns(const char *text) { return (uint64_t)(atof(text) * 1e9); }

static bool mode_parse(const char *v) {
    load.mode = !strcmp(v, "calls") ? MODE_CALLS : !strcmp(v, "logins") ? MODE_LOGINS : MODE_IDLE;
    return load.mode != MODE_IDLE || !strcmp(v, "idle");
}

/* false: the option or its value is not known. */
static bool option_set(const char *name, const char *v) {
    if (!strcmp(name, "--mode")) return mode_parse(v);
    if (!strcmp(name, "--target")) return setup.host = v, address_parse(v, &setup.target);
    if (!strcmp(name, "--path")) return setup.path = v, true;
    if (!strcmp(name, "--realm")) return setup.realm = v, strlen(v) < 256;
    if (!strcmp(name, "--sessions")) return (load.sessions = (unsigned)atoi(v)) > 0;
    if (!strcmp(name, "--inflight")) return (setup.inflight = (unsigned)atoi(v)) > 0;
    if (!strcmp(name, "--payload")) return setup.payload = (size_t)atoll(v), true;
    if (!strcmp(name, "--warmup")) return load.warmup_ns = seconds_ns(v), true;
    if (!strcmp(name, "--duration")) return (load.duration_ns = seconds_ns(v)) > 0;
    if (!strcmp(name, "--open-timeout")) return (load.open_timeout_ns = seconds_ns(v)) > 0;
    if (!strcmp(name, "--serializer")) return (setup.ser = serializer_by_name(v, strlen(v))) != SER_NONE;
    if (!strcmp(name, "--transport")) {
        setup.framing = !strcmp(v, "rawsocket") ? FRAMING_RAWSOCKET : FRAMING_WEBSOCKET;
        return setup.framing == FRAMING_RAWSOCKET || !strcmp(v, "websocket");
    }
    if (!strcmp(name, "--cpu-of") && load.watch.count < WATCH_MAX)
        return (load.watch.pid[load.watch.count++] = (pid_t)atoi(v)) > 0;
    return false;
}

static void options_read(int argc, char **argv) {
    setup.framing = FRAMING_WEBSOCKET;
    setup.ser = SER_CBOR;
    setup.path = "/";
    setup.realm = "realm1";
    setup.inflight = 1;
    setup.payload = 64;
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !option_set(argv[i], argv[i + 1])) die("unknown option or bad value", argv[i]);
    if (!setup.target.len)
        die("usage: wamp-load --target tcp:IPV4:PORT|unix:PATH [--mode calls|logins|idle] [--transport "
            "websocket|rawsocket] "
            "[--serializer cbor|msgpack|json] [--path P] [--realm R] [--sessions N] [--inflight M] [--payload OCTETS] "
            "[--warmup S] [--duration S] [--open-timeout S] [--cpu-of PID]..",
            NULL);
    setup.host = setup.target.family == AF_INET ? setup.host + 4 : "localhost"; /* "tcp:" is not part of Host */
}

int main(int argc, char **argv) {
    options_read(argc, argv);
    raise_fd_limit();
    setup.epoll = epoll_create1(EPOLL_CLOEXEC);
    setup.random = random_seed();
    setup.spread = load.mode == MODE_LOGINS;
    setup.on_joined = on_joined;
    setup.on_result = on_result;
    setup.on_left = on_left;
    setup.on_lost = on_lost;
    client_prepare();
    load.clients = calloc(load.sessions, sizeof *load.clients);
    uint64_t *rings = calloc((size_t)load.sessions * setup.inflight, sizeof *rings);
    if (!load.clients || !rings) die("out of memory", NULL);
    for (unsigned i = 0; i < load.sessions; i++) load.clients[i].sent_ns = rings + (size_t)i * setup.inflight;
    if (load.mode == MODE_IDLE) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
        epoll_ctl(setup.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &ev);
    }
    run();
    print_result();
    return load.errors ? 1 : 0;
}
