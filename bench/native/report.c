#include "report.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

static unsigned hist_index(uint64_t v) {
    if (v < (1u << HIST_SUB_BITS)) return (unsigned)v;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - HIST_SUB_BITS;
    return ((shift + 1) << HIST_SUB_BITS) + (unsigned)((v >> shift) - (1u << HIST_SUB_BITS));
}

/* Middle of the bucket. */
static uint64_t hist_value(unsigned index) {
    unsigned group = index >> HIST_SUB_BITS, sub = index & ((1u << HIST_SUB_BITS) - 1);
    if (!group) return sub;
    uint64_t low = (uint64_t)(sub + (1u << HIST_SUB_BITS)) << (group - 1);
    return low + ((1ull << (group - 1)) >> 1);
}

void hist_add(hist_t *h, uint64_t ns) {
    h->bucket[hist_index(ns)]++;
    h->count++;
    h->sum += ns;
    if (ns > h->max) h->max = ns;
}

void hist_reset(hist_t *h) { memset(h, 0, sizeof *h); }

uint64_t hist_quantile(const hist_t *h, double q) {
    uint64_t rank = (uint64_t)(q * (double)h->count), seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen > rank) return hist_value(i);
    }
    return h->max;
}

void hist_print(const hist_t *h, FILE *out) {
    double mean = h->count ? (double)h->sum / (double)h->count : 0;
    fprintf(out, "{\"mean\": %.2f, \"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, \"p99_9\": %.2f, \"max\": %.2f}",
            mean / 1e3, (double)hist_quantile(h, .5) / 1e3, (double)hist_quantile(h, .9) / 1e3,
            (double)hist_quantile(h, .99) / 1e3, (double)hist_quantile(h, .999) / 1e3, (double)h->max / 1e3);
}

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) == -1) return 0;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void stat_ticks(pid_t pid, int64_t *user, int64_t *system) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    *user = *system = 0;
    FILE *f = fopen(path, "r");
    if (!f) return;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *rest = strrchr(text, ')'); /* the name may hold spaces and parentheses */
    long long u = 0, s = 0;
    if (rest && sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld", &u, &s) == 2)
        *user = u, *system = s;
}

static int64_t machine_ticks(void) {
    long long user = 0, nice = 0, system = 0, irq = 0, softirq = 0, steal = 0;
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return 0;
    int found = fscanf(f, "cpu %lld %lld %lld %*d %*d %lld %lld %lld", &user, &nice, &system, &irq, &softirq, &steal);
    fclose(f);
    return found == 6 ? user + nice + system + irq + softirq + steal : 0;
}

/* sign -1 at the start, +1 at the end: what stays is the difference. */
static void watch_sample(watch_t *w, int sign) {
    for (int i = 0; i < w->count; i++) {
        clockid_t clock;
        int64_t user, system;
        if (clock_getcpuclockid(w->pid[i], &clock)) die("a watched process is gone", NULL);
        w->cpu_ns[i] += sign * clock_ns(clock); /* the same as utime + stime, in ns instead of ticks */
        stat_ticks(w->pid[i], &user, &system);
        w->user_ticks[i] += sign * user;
        w->system_ticks[i] += sign * system;
    }
    w->own_ns += sign * clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    w->wall_ns += sign * (int64_t)now_ns();
    w->machine_ticks += sign * machine_ticks();
}

void watch_start(watch_t *w) {
    memset(w->cpu_ns, 0, sizeof w->cpu_ns);
    memset(w->user_ticks, 0, sizeof w->user_ticks);
    memset(w->system_ticks, 0, sizeof w->system_ticks);
    w->own_ns = w->wall_ns = w->machine_ticks = 0;
    watch_sample(w, -1);
}

void watch_stop(watch_t *w) { watch_sample(w, 1); }

void watch_print(const watch_t *w, FILE *out) {
    double tick_ms = 1000.0 / (double)sysconf(_SC_CLK_TCK);
    fputc('{', out);
    for (int i = 0; i < w->count; i++)
        fprintf(out, "%s\"%d\": {\"cpu_ns\": %lld, \"user_ms\": %.0f, \"system_ms\": %.0f}", i ? ", " : "",
                (int)w->pid[i], (long long)w->cpu_ns[i], (double)w->user_ticks[i] * tick_ms,
                (double)w->system_ticks[i] * tick_ms);
    fputc('}', out);
}
