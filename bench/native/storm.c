/* wamp-storm: many clients connect and log in at once. Each line on standard input begins a wave: all sessions that
 * are there are cut off, without a GOODBYE, and all clients connect anew. When a wave is over, that is when every
 * client has joined, was refused, or the time is up, its result is printed in one line of JSON. Then the sessions are
 * held. The end of standard input ends them with GOODBYE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client.h"
#include "options.h"
#include "report.h"

enum { BURST = 64, SLICES_MAX = 6000, LEAVE_MS = 20000 };

#define SLICE_NS 100000000ull

static struct {
    unsigned sessions;
    uint64_t timeout_ns;
    client_t *clients;
    unsigned wave, opened, joined, refused; /* of this wave */
    unsigned lost;                          /* joined sessions that ended though nobody asked for it */
    bool under_way, leaving;
    uint64_t begin_ns, last_ns; /* of this wave; when the last client joined */
    unsigned slice[SLICES_MAX]; /* logins in each tenth of a second */
    hist_t hist;
    watch_t watch;
    char first_error[256];
} storm = {.sessions = 1000, .timeout_ns = 60000000000ull};

static void error_note(const char *why) {
    if (!storm.first_error[0]) snprintf(storm.first_error, sizeof storm.first_error, "%s", why);
}

/* --- what happens to sessions --------------------------------------------------------------------------------------
 */

static void on_joined(client_t *c) {
    storm.last_ns = now_ns();
    uint64_t slice = (storm.last_ns - storm.begin_ns) / SLICE_NS;
    storm.slice[slice < SLICES_MAX ? slice : SLICES_MAX - 1]++;
    hist_add(&storm.hist, storm.last_ns - c->opened_ns);
    storm.joined++;
    c->requests = 1; /* until it leaves: tells a lost session from a refused login */
}

static void on_ready(client_t *c) { (void)c; }

static void on_left(client_t *c) { (void)c; }

static void on_lost(client_t *c, const char *why) {
    if (storm.leaving) return;
    error_note(why);
    if (c->requests)
        storm.lost++;
    else
        storm.refused++;
}

static void on_latency(client_t *c, uint64_t ns) { (void)c, (void)ns; }

/* --- waves ---------------------------------------------------------------------------------------------------------
 */

static void wave_begin(void) {
    for (unsigned i = 0; i < storm.sessions; i++) client_close(&storm.clients[i]);
    storm.wave++;
    storm.opened = storm.joined = storm.refused = storm.lost = 0;
    memset(storm.slice, 0, sizeof storm.slice);
    hist_reset(&storm.hist);
    storm.first_error[0] = 0;
    storm.under_way = true;
    watch_start(&storm.watch);
    storm.begin_ns = storm.last_ns = now_ns();
}

static void wave_print(void) {
    unsigned slices = (unsigned)((storm.last_ns - storm.begin_ns) / SLICE_NS) + 1;
    printf("{\"wave\": %u, \"sessions\": %u, \"joined\": %u, \"refused\": %u, \"lost\": %u, \"unfinished\": %u, ",
           storm.wave, storm.sessions, storm.joined, storm.refused, storm.lost,
           storm.sessions - storm.joined - storm.refused);
    printf("\"seconds\": %.6f, \"slice_seconds\": %.3f, \"slices\": [", (double)(storm.last_ns - storm.begin_ns) / 1e9,
           (double)SLICE_NS / 1e9);
    for (unsigned i = 0; i < slices && i < SLICES_MAX; i++) printf("%s%u", i ? ", " : "", storm.slice[i]);
    printf("], \"latency_us\": ");
    hist_print(&storm.hist, stdout);
    printf(", \"own_cpu_ns\": %lld, \"machine_busy_ns\": %.0f, \"cpu\": ", (long long)storm.watch.own_ns,
           (double)storm.watch.machine_ticks * 1e9 / (double)sysconf(_SC_CLK_TCK));
    watch_print(&storm.watch, stdout);
    printf(", \"first_error\": \"%s\"}\n", storm.first_error);
    fflush(stdout);
}

/* All at once, but without leaving those unanswered that are there already. */
static void wave_step(void) {
    for (unsigned i = 0; i < BURST && storm.opened < storm.sessions; i++) {
        client_t *c = &storm.clients[storm.opened++];
        client_open(c);
    }
    bool late = now_ns() - storm.begin_ns > storm.timeout_ns;
    if (!late && storm.joined + storm.refused < storm.sessions) return;
    storm.under_way = false;
    watch_stop(&storm.watch);
    wave_print();
}

static void leave_begin(void) {
    storm.leaving = true;
    for (unsigned i = 0; i < storm.sessions; i++) {
        client_t *c = &storm.clients[i];
        if (c->state == CLIENT_JOINED)
            client_goodbye(c), client_flush(c);
        else
            client_close(c);
    }
}

static bool all_down(void) {
    for (unsigned i = 0; i < storm.sessions; i++)
        if (storm.clients[i].state != CLIENT_DOWN) return false;
    return true;
}

/* A line: true. The end: sessions leave. */
static bool input_read(void) {
    char text[64];
    ssize_t n = read(STDIN_FILENO, text, sizeof text);
    if (n > 0) return true;
    epoll_ctl(setup.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    leave_begin();
    return false;
}

static void run(void) {
    struct epoll_event events[256];
    uint64_t leave_by = 0;
    for (;;) {
        if (storm.leaving) {
            if (!leave_by) leave_by = now_ns() + LEAVE_MS * 1000000ull;
            if (all_down() || now_ns() > leave_by) return;
        }
        bool opens = storm.under_way && storm.opened < storm.sessions;
        int n = epoll_wait(setup.epoll, events, 256, opens ? 0 : storm.under_way || storm.leaving ? 50 : -1);
        for (int i = 0; i < n; i++) {
            client_t *c = events[i].data.ptr;
            if (c) {
                if (c->state != CLIENT_DOWN) client_event(c, events[i].events);
            } else if (input_read()) {
                wave_begin();
                break; /* the events that were told belong to connections that are closed */
            }
        }
        if (storm.under_way && !storm.leaving) wave_step();
    }
}

static bool option_set(const char *name, const char *v) {
    if (!strcmp(name, "--sessions")) return (storm.sessions = (unsigned)atoi(v)) > 0;
    if (!strcmp(name, "--timeout")) return (storm.timeout_ns = (uint64_t)(atof(v) * 1e9)) > 0;
    if (!strcmp(name, "--cpu-of") && storm.watch.count < WATCH_MAX)
        return (storm.watch.pid[storm.watch.count++] = (pid_t)atoi(v)) > 0;
    return false;
}

int main(int argc, char **argv) {
    options_read(argc, argv, option_set,
                 "usage: wamp-storm " SESSION_USAGE "[--sessions N] [--timeout S] [--cpu-of PID]..");
    setup.spread = true;
    setup.on_joined = on_joined;
    setup.on_ready = on_ready;
    setup.on_result = setup.on_event = setup.on_invocation = setup.on_published = on_latency;
    setup.on_left = on_left;
    setup.on_lost = on_lost;
    storm.clients = calloc(storm.sessions, sizeof *storm.clients);
    if (!storm.clients) die("out of memory", NULL);
    client_prepare();
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(setup.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &ev);
    run();
    return 0;
}
