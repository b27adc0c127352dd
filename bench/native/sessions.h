/* The session IDs that are joined, and whose they are. */
#ifndef BENCH_SESSIONS_H
#define BENCH_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

struct peer;

/* sid is not 0 and not there yet. */
void sessions_add(uint64_t sid, struct peer *owner);
void sessions_remove(uint64_t sid);
/* NULL: no session of this realm has that ID. */
struct peer *sessions_find(uint64_t sid);

#endif
