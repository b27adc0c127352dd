/* wamp-probe: a few joined sessions that call at an even, moderate rate, to see what they feel of something else that
 * goes on. Each line on standard input ends a period: its result is printed in one line of JSON. A call's latency
 * counts from when it was due, so that a period in which nothing moves is seen as long as it was. Ends with standard
 * input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client.h"
#include "options.h"
#include "report.h"

enum { OPEN_MAX_CALLS = 4096, OPEN_SECONDS = 60 };

static struct {
    unsigned sessions, rate; /* calls per second, of all together */
    client_t *clients;
    unsigned ready, turn;
    uint64_t due_ns, period_ns; /* the next call; when this period began */
    uint64_t skipped;           /* calls that were due while a session had all open that it may have */
    int timer;
    hist_t hist;
    const char *error;
} probe = {.sessions = 10, .rate = 500};

/* What epoll tells about besides sessions. */
static char input_tag, timer_tag;

static void on_joined(client_t *c) { (void)c; }
static void on_ready(client_t *c) { (void)c, probe.ready++; }
static void on_result(client_t *c, uint64_t ns) { (void)c, hist_add(&probe.hist, ns); }
static void on_other(client_t *c, uint64_t ns) { (void)c, (void)ns; }
static void on_lost(client_t *c, const char *why) {
    (void)c;
    if (!probe.error) probe.error = why;
}

static void period_print(void) {
    uint64_t now = now_ns();
    printf("{\"seconds\": %.3f, \"calls\": %lu, \"skipped\": %lu, \"latency_us\": ",
           (double)(now - probe.period_ns) / 1e9, probe.hist.count, probe.skipped);
    hist_print(&probe.hist, stdout);
    puts("}");
    fflush(stdout);
    hist_reset(&probe.hist);
    probe.skipped = 0;
    probe.period_ns = now;
}

static void call(client_t *c) {
    if (c->requests - c->results >= setup.inflight) {
        probe.skipped++;
        return;
    }
    client_call(c);
    c->sent_ns[c->requests % setup.inflight] = probe.due_ns;
    client_flush(c);
}

static void timer_read(void) {
    uint64_t count;
    if (read(probe.timer, &count, sizeof count) != sizeof count) return;
    for (uint64_t now = now_ns(); probe.due_ns <= now; probe.due_ns += 1000000000u / probe.rate) {
        client_t *c = &probe.clients[probe.turn++ % probe.sessions];
        if (c->state == CLIENT_JOINED) call(c);
    }
}

static void timer_start(void) {
    long ns = 1000000000l / probe.rate;
    struct itimerspec every = {.it_value.tv_nsec = ns, .it_interval.tv_nsec = ns};
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &timer_tag};
    probe.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(probe.timer, 0, &every, NULL);
    epoll_ctl(setup.epoll, EPOLL_CTL_ADD, probe.timer, &ev);
    probe.period_ns = now_ns();
    probe.due_ns = probe.period_ns + (uint64_t)ns;
    printf("{\"event\": \"ready\", \"sessions\": %u}\n", probe.ready);
    fflush(stdout);
}

static void run(void) {
    struct epoll_event events[64];
    bool calls = false;
    uint64_t open_by = now_ns() + OPEN_SECONDS * 1000000000ull;
    while (!probe.error) {
        if (!calls && probe.ready == probe.sessions) calls = true, timer_start();
        if (!calls && now_ns() > open_by) probe.error = "sessions did not open in time";
        int n = epoll_wait(setup.epoll, events, 64, 1000);
        for (int i = 0; i < n; i++) {
            void *it = events[i].data.ptr;
            char text[64];
            if (it == &timer_tag) {
                timer_read();
            } else if (it == &input_tag) {
                if (read(STDIN_FILENO, text, sizeof text) <= 0) return;
                period_print();
            } else if (((client_t *)it)->state != CLIENT_DOWN) {
                client_event(it, events[i].events);
            }
        }
    }
    printf("{\"error\": \"%s\"}\n", probe.error);
}

static bool option_set(const char *name, const char *v) {
    if (!strcmp(name, "--sessions")) return (probe.sessions = (unsigned)atoi(v)) > 0;
    if (!strcmp(name, "--rate")) return (probe.rate = (unsigned)atoi(v)) > 0;
    return false;
}

int main(int argc, char **argv) {
    options_read(argc, argv, option_set, "usage: wamp-probe " SESSION_USAGE "[--sessions N] [--rate CALLS_PER_SECOND]");
    setup.inflight = OPEN_MAX_CALLS;
    setup.on_joined = on_joined;
    setup.on_ready = on_ready;
    setup.on_result = on_result;
    setup.on_event = setup.on_invocation = setup.on_published = on_other;
    setup.on_left = on_joined;
    setup.on_lost = on_lost;
    probe.clients = calloc(probe.sessions, sizeof *probe.clients);
    uint64_t *rings = calloc((size_t)probe.sessions * OPEN_MAX_CALLS, sizeof *rings);
    if (!probe.clients || !rings) die("out of memory", NULL);
    client_prepare();
    for (unsigned i = 0; i < probe.sessions; i++) {
        probe.clients[i].sent_ns = rings + (size_t)i * OPEN_MAX_CALLS;
        client_open(&probe.clients[i]);
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &input_tag};
    epoll_ctl(setup.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &ev);
    run();
    return probe.error ? 1 : 0;
}
