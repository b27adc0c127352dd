#include "sessions.h"

#include <stdlib.h>

#include "wire.h"

/* Open addressing with linear probing, at most half full; removal moves later entries up, so that there are no marks
 * of what was removed: logins come and go by the ten thousands. */
static struct {
    struct {
        uint64_t sid;
        struct peer *owner;
    } *slot;
    uint64_t mask, count;
} table;

static uint64_t home(uint64_t sid) { return (sid * 0x9e3779b97f4a7c15u >> 20) & table.mask; }

static uint64_t place(uint64_t sid) {
    uint64_t i = home(sid);
    while (table.slot[i].sid && table.slot[i].sid != sid) i = (i + 1) & table.mask;
    return i;
}

static void insert(uint64_t sid, struct peer *owner) {
    uint64_t i = place(sid);
    table.slot[i].sid = sid;
    table.slot[i].owner = owner;
}

static void grow(void) {
    uint64_t old = table.slot ? table.mask + 1 : 0, cap = old ? 2 * old : 1024;
    void *before = table.slot;
    __typeof__(table.slot) from = table.slot;
    table.slot = calloc(cap, sizeof *table.slot);
    if (!table.slot) die("out of memory", NULL);
    table.mask = cap - 1;
    for (uint64_t i = 0; i < old; i++)
        if (from[i].sid) insert(from[i].sid, from[i].owner);
    free(before);
}

void sessions_add(uint64_t sid, struct peer *owner) {
    if (!table.slot || 2 * (table.count + 1) > table.mask + 1) grow();
    insert(sid, owner);
    table.count++;
}

void sessions_remove(uint64_t sid) {
    if (!table.slot) return;
    uint64_t hole = place(sid);
    if (table.slot[hole].sid != sid) return;
    table.count--;
    for (uint64_t i = (hole + 1) & table.mask; table.slot[i].sid; i = (i + 1) & table.mask) {
        uint64_t wanted = home(table.slot[i].sid);
        if (((i - wanted) & table.mask) < ((i - hole) & table.mask)) continue; /* it is nearer to its home than that */
        table.slot[hole] = table.slot[i];
        hole = i;
    }
    table.slot[hole].sid = 0;
}

struct peer *sessions_find(uint64_t sid) {
    if (!table.slot || !sid) return NULL;
    uint64_t i = place(sid);
    return table.slot[i].sid == sid ? table.slot[i].owner : NULL;
}
