/* What the load generator measures with: a latency histogram and the CPU clocks of other processes. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* Buckets grow with the value: 64 to each power of two, so that a percentile is off by at most 1.6 %. */
enum { HIST_SUB_BITS = 6, HIST_BUCKETS = (64 - HIST_SUB_BITS + 1) << HIST_SUB_BITS };

typedef struct {
    uint64_t count, sum, max;
    uint64_t bucket[HIST_BUCKETS];
} hist_t;

void hist_add(hist_t *h, uint64_t ns);
void hist_reset(hist_t *h);
/* The value (ns) below which the share q (0..1) of all lies. */
uint64_t hist_quantile(const hist_t *h, double q);
/* {"mean": .., "p50": .., "p90": .., "p99": .., "p99_9": .., "max": ..} in microseconds. */
void hist_print(const hist_t *h, FILE *out);

enum { WATCH_MAX = 16 };

/* CPU time (all threads, ns) that watched processes and this one spent between watch_start and watch_stop. */
typedef struct {
    int count;
    pid_t pid[WATCH_MAX];
    int64_t cpu_ns[WATCH_MAX];
    int64_t user_ticks[WATCH_MAX], system_ticks[WATCH_MAX];
    int64_t own_ns, wall_ns;
    int64_t machine_ticks; /* all that ran on this machine, stolen time included */
} watch_t;

void watch_start(watch_t *w);
void watch_stop(watch_t *w);
/* {"PID": {"cpu_ns": .., "user_ms": .., "system_ms": ..}, ..} */
void watch_print(const watch_t *w, FILE *out);

#endif
