/* debug.h - assertions, allocation and atomics. What a debug build checks or breaks costs nothing in release. */
#ifndef RELAY_DEBUG_H
#define RELAY_DEBUG_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PROXY_BUILD_MODE
#define PROXY_BUILD_MODE "release"
#endif

static inline const char *build_mode_name(void) { return PROXY_BUILD_MODE; }

/* Assigning to errno in Cython would make a variable of that name. */
static inline void errno_set(int number) { errno = number; }

#define scan_likely(x) __builtin_expect(!!(x), 1)

#ifdef PROXY_DEBUG
#define relay_assert(condition)                                                                                  \
    do {                                                                                                         \
        if (!(condition)) {                                                                                      \
            fprintf(stderr, "relay: assertion failed: %s (%s:%d)\n", #condition, __FILE__, __LINE__);            \
            abort();                                                                                             \
        }                                                                                                        \
    } while (0)

/* One counter for all threads: tests set it, the allocation that brings it to zero fails. */
static long mem_countdown = -1;

static inline int mem_must_fail(void) {
    long left = __atomic_load_n(&mem_countdown, __ATOMIC_RELAXED);
    if (left < 0) return 0;
    return __atomic_fetch_sub(&mem_countdown, 1, __ATOMIC_RELAXED) == 0;
}
static inline void mem_fail_after(long n) { __atomic_store_n(&mem_countdown, n, __ATOMIC_RELAXED); }
static inline void mem_poison(void *p, size_t n) { memset(p, 0xA5, n); }
#else
#define relay_assert(condition) ((void)0)
static inline int mem_must_fail(void) { return 0; }
static inline void mem_fail_after(long n) { (void)n; }
static inline void mem_poison(void *p, size_t n) { (void)p; (void)n; }
#endif

static inline void *mem_alloc(size_t n) { return mem_must_fail() ? NULL : malloc(n ? n : 1); }
static inline void *mem_zalloc(size_t n) { return mem_must_fail() ? NULL : calloc(1, n ? n : 1); }
static inline void *mem_realloc(void *p, size_t n) { return mem_must_fail() ? NULL : realloc(p, n ? n : 1); }
static inline void mem_free(void *p) { free(p); }

static inline uint64_t atomic_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void atomic_store64(uint64_t *p, uint64_t n) { __atomic_store_n(p, n, __ATOMIC_RELEASE); }
static inline uint64_t atomic_add64(uint64_t *p, uint64_t n) { return __atomic_add_fetch(p, n, __ATOMIC_ACQ_REL); }
static inline uint64_t atomic_sub64(uint64_t *p, uint64_t n) { return __atomic_sub_fetch(p, n, __ATOMIC_ACQ_REL); }

#endif
