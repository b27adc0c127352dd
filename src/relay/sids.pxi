# sids.pxi - the worker's map between front_sids and back_sids. Part of proxy._relay (see src/_relay.pyx).
#
# All data threads ask it and the control plane changes it, so it is cut into shards with a lock each; a lock is held
# for a few steps along a chain. The tables grow by linear hashing: each insertion splits at most one bucket, so that no
# message ever waits for a table to be copied.
#
# An ended session's IDs linger, because events that name it (its own on_leave) are still under way. So does the
# back_sid that a session had before it was linked to another router session.

cdef inline uint64_t sids_hash(uint32_t realm, uint64_t sid) noexcept nogil:
    """Spread keys evenly: routers may count their IDs up. The top bits choose the shard, the low ones the bucket."""
    cdef uint64_t x = sid ^ (<uint64_t>realm << 53)
    x ^= x >> 33
    x *= 0xff51afd7ed558ccdULL
    x ^= x >> 33
    x *= 0xc4ceb9fe1a85ec53ULL
    return x ^ (x >> 33)


cdef inline sid_t **sids_bucket(const sid_table_t *t, uint64_t hashed) noexcept nogil:
    """The chain for a hash. A bucket that was not split off yet is still part of the one at half the size."""
    cdef uint32_t i = <uint32_t>hashed & t.mask
    if i >= t.buckets:
        i &= t.mask >> 1
    return &t.segments[i // SID_SEGMENT][i % SID_SEGMENT]


cdef inline sid_t *sids_find(const sid_table_t *t, uint64_t hashed, uint32_t realm, uint64_t key) noexcept nogil:
    """The entry, or NULL; the table is locked."""
    cdef sid_t *e
    if t.buckets == 0:
        return NULL
    e = sids_bucket(t, hashed)[0]
    while e != NULL and (e.key != key or e.realm != realm):
        e = e.next
    return e


cdef int sids_segment(sid_table_t *t, uint32_t index) noexcept nogil:
    """Allocate segment ``index``, the next one. ST_OK or ST_NOMEM."""
    cdef uint32_t capacity = t.capacity
    cdef sid_t ***segments
    if index >= capacity:
        capacity = capacity * 2 if capacity else 4
        segments = <sid_t ***>mem_realloc(t.segments, capacity * sizeof(sid_t **))
        if segments == NULL:
            return ST_NOMEM
        t.segments = segments
        t.capacity = capacity
    t.segments[index] = <sid_t **>mem_zalloc(SID_SEGMENT * sizeof(sid_t *))
    return ST_OK if t.segments[index] != NULL else ST_NOMEM


cdef void sids_split(sid_table_t *t) noexcept nogil:
    """Add a bucket and move to it what belongs there. Without memory the chains just get longer."""
    cdef uint32_t new = t.buckets
    cdef sid_t **source
    cdef sid_t **target
    cdef sid_t *e
    if new % SID_SEGMENT == 0 and sids_segment(t, new // SID_SEGMENT) < 0:
        return
    source = sids_bucket(t, new)              # still without the new bucket: where its entries are now
    t.buckets = new + 1
    target = sids_bucket(t, new)
    while source[0] != NULL:
        e = source[0]
        if sids_bucket(t, sids_hash(e.realm, e.key)) == target:
            source[0] = e.next
            e.next = target[0]
            target[0] = e
        else:
            source = &e.next
    if t.buckets > t.mask:
        t.mask = t.mask * 2 + 1


cdef int sids_open(sid_table_t *t) noexcept nogil:
    """Give a locked table its first buckets if it has none. ST_OK or ST_NOMEM."""
    if t.buckets:
        return ST_OK
    if sids_segment(t, 0) < 0:
        return ST_NOMEM
    t.buckets = SID_SEGMENT
    t.mask = 2 * SID_SEGMENT - 1
    return ST_OK


cdef void sids_insert(sid_table_t *t, uint64_t hashed, sid_t *e) noexcept nogil:
    """Put an entry that is not there yet into a locked, opened table."""
    cdef sid_t **bucket = sids_bucket(t, hashed)
    e.next = bucket[0]
    bucket[0] = e
    t.count += 1
    if t.count > t.buckets:
        sids_split(t)


cdef bint sids_remove(sid_table_t *t, realm_t *realm, uint64_t key, uint64_t value, uint64_t until) noexcept nogil:
    """Remove the entry if it is still the one that lingers until then. The table is not locked."""
    cdef uint64_t hashed = sids_hash(realm.index, key)
    cdef sid_t **link
    cdef sid_t *e
    pthread_mutex_lock(&t.mutex)
    e = sids_find(t, hashed, realm.index, key)
    if e != NULL and e.value == value and e.until == until:
        link = sids_bucket(t, hashed)
        while link[0] != e:
            link = &link[0].next
        link[0] = e.next
        t.count -= 1
    else:
        e = NULL
    pthread_mutex_unlock(&t.mutex)
    if e == NULL:
        return False
    mem_free(e)
    return True


cdef inline sid_table_t *sids_shard(sid_table_t *tables, uint64_t hashed) noexcept nogil:
    """Which of the SID_SHARDS tables a hash belongs to."""
    return &tables[hashed >> 58]


cdef inline bint sids_ask(sid_table_t *tables, realm_t *realm, uint64_t key, uint64_t *value) noexcept nogil:
    """Whether the map has ``key``; value gets what it maps to, else the key itself."""
    cdef uint64_t hashed = sids_hash(realm.index, key)
    cdef sid_table_t *t = sids_shard(tables, hashed)
    cdef sid_t *e
    pthread_mutex_lock(&t.mutex)
    e = sids_find(t, hashed, realm.index, key)
    value[0] = e.value if e != NULL else key
    pthread_mutex_unlock(&t.mutex)
    return e != NULL


cdef inline uint64_t sids_to_front(realm_t *realm, uint64_t back_sid) noexcept nogil:
    """What clients call the router's session ``back_sid``; an ID that is not in the map is returned as it is."""
    cdef uint64_t value
    sids_ask((<sids_t *>realm.sids).to_front, realm, back_sid, &value)
    return value


cdef inline uint64_t sids_to_back(realm_t *realm, uint64_t front_sid) noexcept nogil:
    """What routers call the session ``front_sid``; an ID that is not in the map is returned as it is."""
    cdef uint64_t value
    sids_ask((<sids_t *>realm.sids).to_back, realm, front_sid, &value)
    return value


cdef inline bint sids_is_known(realm_t *realm, uint64_t back_sid) noexcept nogil:
    """Whether the map has the router's session ``back_sid``."""
    cdef uint64_t value
    return sids_ask((<sids_t *>realm.sids).to_front, realm, back_sid, &value)


cdef void sids_forget(sids_t *sids, const sid_gone_t *gone) noexcept nogil:
    """Remove an ended session's entries, unless they name another one by now."""
    cdef realm_t *realm = gone.realm
    sids_remove(sids_shard(sids.to_back, sids_hash(realm.index, gone.front_sid)), realm, gone.front_sid, gone.back_sid,
                gone.until)
    if sids_remove(sids_shard(sids.to_front, sids_hash(realm.index, gone.back_sid)), realm, gone.back_sid,
                   gone.front_sid, gone.until):
        atomic_sub64(&realm.mapped, 1)


cdef bint sids_gone_room(sids_t *sids) noexcept nogil:
    """Make room in the ring of ended sessions if it may grow; it is locked."""
    cdef uint32_t size = sids.gone_size * 2 if sids.gone_size else 64
    cdef sid_gone_t *gone
    cdef uint32_t i
    if sids.gone_count < sids.gone_size:
        return True
    if sids.gone_size >= SID_LINGERERS_MAX:
        return False
    gone = <sid_gone_t *>mem_alloc(size * sizeof(sid_gone_t))
    if gone == NULL:
        return False
    for i in range(sids.gone_count):
        gone[i] = sids.gone[(sids.gone_head + i) & (sids.gone_size - 1)]
    mem_free(sids.gone)
    sids.gone = gone
    sids.gone_size = size
    sids.gone_head = 0
    return True


cdef void sids_linger(sids_t *sids, const sid_gone_t *gone) noexcept nogil:
    """Have an ended session forgotten later. When too many are known already, the oldest is forgotten now."""
    cdef sid_gone_t first = gone[0]
    cdef bint full
    pthread_mutex_lock(&sids.mutex)
    full = not sids_gone_room(sids)
    if full and sids.gone_count:
        first = sids.gone[sids.gone_head]
        sids.gone_head = (sids.gone_head + 1) & (sids.gone_size - 1)
        sids.gone_count -= 1
    if sids.gone_count < sids.gone_size:
        sids.gone[(sids.gone_head + sids.gone_count) & (sids.gone_size - 1)] = gone[0]
        sids.gone_count += 1
    pthread_mutex_unlock(&sids.mutex)
    if full:
        sids_forget(sids, &first)


cdef inline void sids_tell_time(sids_t *sids, uint64_t now_ms) noexcept nogil:
    """Remember the time for sids_put. Threads that race may set it back by a moment, which does no harm."""
    if now_ms > atomic_load64(&sids.now):
        atomic_store64(&sids.now, now_ms)


cdef bint sids_mark(sid_table_t *tables, realm_t *realm, uint64_t key, uint64_t value, uint64_t until) noexcept nogil:
    """Let the living entry key -> value linger; whether there was one."""
    cdef uint64_t hashed = sids_hash(realm.index, key)
    cdef sid_table_t *t = sids_shard(tables, hashed)
    cdef sid_t *e
    cdef bint found
    pthread_mutex_lock(&t.mutex)
    e = sids_find(t, hashed, realm.index, key)
    found = e != NULL and e.value == value and e.until == 0
    if found:
        e.until = until
    pthread_mutex_unlock(&t.mutex)
    return found


cdef uint64_t sids_set(sid_table_t *t, uint64_t hashed, realm_t *realm, uint64_t key, uint64_t value,
                       sid_t **spare) noexcept nogil:
    """Make key -> value a living entry of a locked, opened table.

    :param spare: memory for it, set to NULL when it is used.
    :return: what the key mapped to before; ``value`` when it is new.
    """
    cdef uint64_t before = value
    cdef sid_t *e = sids_find(t, hashed, realm.index, key)
    if e == NULL:
        e = spare[0]
        spare[0] = NULL
        e.key = key
        e.realm = realm.index
        sids_insert(t, hashed, e)
    else:
        before = e.value
    e.value = value
    e.until = 0
    return before


cdef int sids_set_both(realm_t *realm, uint64_t front_sid, uint64_t back_sid, sid_t **spare,
                       uint64_t *before) noexcept nogil:
    """Map both directions, both locked together, so that put and drop of one session do not mix.

    :param spare: two pieces of memory; those used are set to NULL.
    :param before: gets the back_sid that the session had.
    """
    cdef sids_t *sids = <sids_t *>realm.sids
    cdef uint64_t by_front = sids_hash(realm.index, front_sid)
    cdef uint64_t by_back = sids_hash(realm.index, back_sid)
    cdef sid_table_t *back = sids_shard(sids.to_back, by_front)
    cdef sid_table_t *front = sids_shard(sids.to_front, by_back)
    cdef int st = ST_NOMEM
    pthread_mutex_lock(&back.mutex)
    pthread_mutex_lock(&front.mutex)
    if sids_open(back) > 0 and sids_open(front) > 0:
        st = ST_OK
        before[0] = sids_set(back, by_front, realm, front_sid, back_sid, &spare[0])
        sids_set(front, by_back, realm, back_sid, front_sid, &spare[1])
        if spare[1] == NULL:
            atomic_add64(&realm.mapped, 1)
    pthread_mutex_unlock(&front.mutex)
    pthread_mutex_unlock(&back.mutex)
    return st


cdef int sids_put(realm_t *realm, uint64_t front_sid, uint64_t back_sid) noexcept nogil:
    """Map a session that has joined its router; again with another back_sid: it was linked anew, the map follows.

    The old back_sid then stays known for SID_LINGER_MS, counted from the latest time that drop or sweep was told.

    :return: ST_OK, or ST_NOMEM: nothing was changed.
    """
    cdef sids_t *sids = <sids_t *>realm.sids
    cdef sid_gone_t gone
    cdef sid_t *spare[2]
    cdef int st = ST_NOMEM
    gone.realm = realm
    gone.front_sid = front_sid
    gone.back_sid = back_sid
    spare[0] = <sid_t *>mem_alloc(sizeof(sid_t))
    spare[1] = <sid_t *>mem_alloc(sizeof(sid_t))
    if spare[0] != NULL and spare[1] != NULL:
        st = sids_set_both(realm, front_sid, back_sid, spare, &gone.back_sid)
    mem_free(spare[0])
    mem_free(spare[1])
    if st > 0 and gone.back_sid != back_sid:
        gone.until = atomic_load64(&sids.now) + SID_LINGER_MS
        if sids_mark(sids.to_front, realm, gone.back_sid, front_sid, gone.until):
            sids_linger(sids, &gone)
    return st


cdef void sids_drop(realm_t *realm, uint64_t front_sid, uint64_t now_ms) noexcept nogil:
    """The session has ended: its IDs stay known for SID_LINGER_MS more. An unknown one is ignored."""
    cdef sids_t *sids = <sids_t *>realm.sids
    cdef uint64_t hashed = sids_hash(realm.index, front_sid)
    cdef sid_table_t *t = sids_shard(sids.to_back, hashed)
    cdef sid_gone_t gone
    cdef sid_t *e
    sids_tell_time(sids, now_ms)
    gone.realm = realm
    gone.front_sid = front_sid
    gone.until = now_ms + SID_LINGER_MS
    pthread_mutex_lock(&t.mutex)
    e = sids_find(t, hashed, realm.index, front_sid)
    if e != NULL and e.until:
        e = NULL                              # again
    if e != NULL:
        e.until = gone.until
        gone.back_sid = e.value
        sids_mark(sids.to_front, realm, gone.back_sid, front_sid, gone.until)
    pthread_mutex_unlock(&t.mutex)
    if e != NULL:
        sids_linger(sids, &gone)


cdef bint sids_sweep(sids_t *sids, uint64_t now_ms) noexcept nogil:
    """Forget ended sessions whose time is over, SID_SWEEP_MAX at most; whether there are more."""
    cdef sid_gone_t gone
    cdef uint32_t i
    cdef bint due
    sids_tell_time(sids, now_ms)
    for i in range(SID_SWEEP_MAX):
        pthread_mutex_lock(&sids.mutex)
        due = sids.gone_count != 0 and sids.gone[sids.gone_head].until <= now_ms
        if due:
            gone = sids.gone[sids.gone_head]
            sids.gone_head = (sids.gone_head + 1) & (sids.gone_size - 1)
            sids.gone_count -= 1
        pthread_mutex_unlock(&sids.mutex)
        if not due:
            return False
        sids_forget(sids, &gone)
    return True


cdef realm_t *sids_realm(sids_t *sids, uint32_t number) noexcept nogil:
    """The realm with a number that sids_add_realm gave; NULL: there is none."""
    if number < 1 or number > atomic_load64(&sids.realms):
        return NULL
    number -= 1
    return &sids.chunks[number // REALM_CHUNK][number % REALM_CHUNK]


cdef int sids_add_realm(sids_t *sids) noexcept nogil:
    """A number for one more realm, 1 to REALMS_MAX; ST_TOO_BIG: there are no more, ST_NOMEM."""
    cdef uint32_t index
    cdef realm_t *realm
    cdef int st = ST_TOO_BIG
    pthread_mutex_lock(&sids.mutex)
    index = <uint32_t>atomic_load64(&sids.realms)
    if index < REALMS_MAX:
        st = ST_NOMEM
        if index % REALM_CHUNK == 0 and sids.chunks[index // REALM_CHUNK] == NULL:
            sids.chunks[index // REALM_CHUNK] = <realm_t *>mem_zalloc(REALM_CHUNK * sizeof(realm_t))
        if sids.chunks[index // REALM_CHUNK] != NULL:
            realm = &sids.chunks[index // REALM_CHUNK][index % REALM_CHUNK]
            realm.index = index
            realm.sids = sids
            st = <int>index + 1
            atomic_store64(&sids.realms, index + 1)
    pthread_mutex_unlock(&sids.mutex)
    return st


cdef void sids_init(sids_t *sids) noexcept nogil:
    """Make an all-zero map usable. It must not move from now on."""
    cdef int i
    for i in range(SID_SHARDS):
        pthread_mutex_init(&sids.to_front[i].mutex, NULL)
        pthread_mutex_init(&sids.to_back[i].mutex, NULL)
    pthread_mutex_init(&sids.mutex, NULL)
    sids.ready = True


cdef void sids_free_table(sid_table_t *t) noexcept nogil:
    cdef uint32_t i
    cdef sid_t **bucket
    cdef sid_t *e
    for i in range(t.buckets):
        bucket = &t.segments[i // SID_SEGMENT][i % SID_SEGMENT]
        while bucket[0] != NULL:
            e = bucket[0]
            bucket[0] = e.next
            mem_free(e)
        if (i + 1) % SID_SEGMENT == 0 or i + 1 == t.buckets:
            mem_free(t.segments[i // SID_SEGMENT])
    mem_free(t.segments)
    pthread_mutex_destroy(&t.mutex)


cdef void sids_free(sids_t *sids) noexcept nogil:
    """Give everything back, the realms too; nothing when the map was never made."""
    cdef int i
    if not sids.ready:
        return
    for i in range(SID_SHARDS):
        sids_free_table(&sids.to_front[i])
        sids_free_table(&sids.to_back[i])
    for i in range(REALMS_MAX // REALM_CHUNK):
        mem_free(sids.chunks[i])
    mem_free(sids.gone)
    pthread_mutex_destroy(&sids.mutex)
    memset(sids, 0, sizeof(sids_t))


cdef uint64_t sids_count(const sids_t *sids) noexcept nogil:
    """Sessions in the map, those that have ended and are still known included. Read without locks: for statistics."""
    cdef uint64_t count = 0
    cdef int i
    for i in range(SID_SHARDS):
        count += sids.to_back[i].count
    return count
