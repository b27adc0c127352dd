# probe_rewrite.pxi - session-ID map, notes, field reader and rewriter for tests and benchmarks. Nothing of the proxy
# uses these. Part of proxy._relay.

PROBE_SIDS = {
    "linger_ms": SID_LINGER_MS, "lingerers_max": SID_LINGERERS_MAX, "sweep_max": SID_SWEEP_MAX,
    "realms_max": REALMS_MAX, "notes_max": NOTES_MAX, "segment": SID_SEGMENT, "shards": SID_SHARDS,
}
PROBE_NOTES = {
    "call": NOTE_CALL, "subscribe": NOTE_SUBSCRIBE, "subscription": NOTE_SUBSCRIPTION, "dead_call": NOTE_DEAD_CALL,
    "dead_invocation": NOTE_DEAD_INVOCATION, "unsubscribe": NOTE_UNSUBSCRIBE,
}


cdef int probe_status(int status) except? -100:
    """The status itself, raised as an exception where it is a failure."""
    if status < 0:
        raise ValueError(PROBE_STATUS.get(status, str(status)))
    return status


cdef class probe_sids:
    """A session-ID map of its own."""

    cdef sids_t *sids

    def __cinit__(self):
        self.sids = <sids_t *>mem_zalloc(sizeof(sids_t))
        if self.sids == NULL:
            raise MemoryError("sids")
        sids_init(self.sids)

    def __dealloc__(self):
        if self.sids != NULL:
            sids_free(self.sids)
            mem_free(self.sids)

    cdef realm_t *realm(self, uint32_t number) except NULL:
        cdef realm_t *realm = sids_realm(self.sids, number)
        if realm == NULL:
            raise ValueError(f"realm {number}: expected a number that add_realm() returned")
        return realm

    def add_realm(self):
        """A number for one more realm."""
        return probe_status(sids_add_realm(self.sids))

    def address(self, uint32_t realm):
        """Where a realm is: it must never move."""
        return <size_t>self.realm(realm)

    def put(self, uint32_t realm, uint64_t front_sid, uint64_t back_sid):
        """sids_put; the GIL is released, so that threads meet in the map."""
        cdef realm_t *r = self.realm(realm)
        cdef int st
        with nogil:
            st = sids_put(r, front_sid, back_sid)
        probe_status(st)

    def drop(self, uint32_t realm, uint64_t front_sid, uint64_t now_ms):
        """sids_drop, likewise."""
        cdef realm_t *r = self.realm(realm)
        with nogil:
            sids_drop(r, front_sid, now_ms)

    def sweep(self, uint64_t now_ms):
        """sids_sweep, likewise; whether there is more to do."""
        cdef bint more
        with nogil:
            more = sids_sweep(self.sids, now_ms)
        return bool(more)

    def to_front(self, uint32_t realm, uint64_t back_sid, unsigned long repeat=1):
        """sids_to_front, ``repeat`` times."""
        cdef realm_t *r = self.realm(realm)
        cdef uint64_t sid = back_sid
        cdef unsigned long i
        with nogil:
            for i in range(repeat):
                sid = sids_to_front(r, back_sid)
        return sid

    def to_back(self, uint32_t realm, uint64_t front_sid):
        """sids_to_back."""
        return sids_to_back(self.realm(realm), front_sid)

    def is_known(self, uint32_t realm, uint64_t back_sid):
        """sids_is_known."""
        return bool(sids_is_known(self.realm(realm), back_sid))

    def mapped(self, uint32_t realm):
        """back_sids that are known, those of ended sessions included."""
        return atomic_load64(&self.realm(realm).mapped)

    def set_joining(self, uint32_t realm, uint64_t count):
        """How many sessions of the realm wait for their WELCOME."""
        atomic_store64(&self.realm(realm).joining, count)

    def census(self):
        """(entries by back_sid, entries by front_sid, ended sessions that are known, most entries in one shard)."""
        cdef int i
        front = [self.sids.to_front[i].count for i in range(SID_SHARDS)]
        back = [self.sids.to_back[i].count for i in range(SID_SHARDS)]
        return sum(front), sum(back), self.sids.gone_count, max(front + back)

    def longest_chain(self):
        """Entries in the fullest bucket."""
        cdef sid_t *e
        cdef uint32_t b
        cdef int i, n, longest = 0
        for i in range(SID_SHARDS):
            for b in range(self.sids.to_front[i].buckets):
                n = 0
                e = self.sids.to_front[i].segments[b // SID_SEGMENT][b % SID_SEGMENT]
                while e != NULL:
                    n += 1
                    e = e.next
                longest = max(longest, n)
        return longest


cdef class probe_notes:
    """What one link remembers."""

    cdef notes_t *notes

    def __dealloc__(self):
        notes_free(&self.notes)

    def add(self, str kind, uint64_t id, uint16_t rule=0):
        """notes_add."""
        probe_status(notes_add(&self.notes, PROBE_NOTES[kind], id, rule))

    def find(self, str kind, uint64_t id):
        """notes_find: an index, or -1."""
        return notes_find(self.notes, PROBE_NOTES[kind], id)

    def drop(self, str kind, uint64_t id):
        """notes_drop of the note that notes_find finds.

        :raise KeyError: there is none.
        """
        cdef int at = notes_find(self.notes, PROBE_NOTES[kind], id)
        if at < 0:
            raise KeyError(kind, id)
        notes_drop(self.notes, at)

    def clear(self):
        """notes_free."""
        notes_free(&self.notes)

    def dead(self):
        """Notes of requests that were answered with an error of ours."""
        return self.notes.dead if self.notes != NULL else 0

    def all(self):
        """The notes, sorted: (kind, ID)."""
        cdef uint32_t i
        names = {number: name for name, number in PROBE_NOTES.items()}
        if self.notes == NULL:
            return []
        return sorted((names[self.notes.notes[i].kind], self.notes.notes[i].id) for i in range(self.notes.count))


def probe_fields_request(int serializer, uint32_t type, data):
    """fields_request of ``data`` (any buffer): (request, type of the request, progress).

    :raise ValueError: with the name of the status.
    """
    cdef Py_buffer view
    cdef fields_t f
    cdef int status
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    status = fields_request(<uint8_t>serializer, type, <const uint8_t *>view.buf, <size_t>view.len, &f)
    PyBuffer_Release(&view)
    probe_status(status)
    return f.request, f.request_type, bool(f.progress)


def probe_fields_head(int serializer, uint32_t type, data, size_t limit=0):
    """fields_head of ``data`` (any buffer), at most ``limit`` octets (0: any).

    :raise ValueError: with the name of the status.
    """
    cdef Py_buffer view
    cdef sink_t out
    cdef int status
    memset(&out, 0, sizeof(out))
    sink_reset(&out, limit)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    status = fields_head(<uint8_t>serializer, type, <const uint8_t *>view.buf, <size_t>view.len, &out)
    PyBuffer_Release(&view)
    try:
        probe_status(status)
        return (<char *>sink_ptr(&out))[:out.len]
    finally:
        sink_free(&out)


def probe_rewrite_concerns(int direction, uint32_t type):
    """rewrite_concerns."""
    return bool(rewrite_concerns(<uint8_t>direction, type))


def probe_rewrite(
    int serializer, int direction, uint32_t type, data, probe_sids sids not None, uint32_t realm,
    probe_notes notes=None, bint may_wait=False, unsigned long repeat=1,
):
    """Rewrite ``data`` (any buffer), ``repeat`` times: the changed message; None: nothing changes.

    :raise ValueError: with the name of the status.
    """
    cdef Py_buffer view
    cdef sink_t out
    cdef realm_t *r = sids.realm(realm)
    cdef unsigned long i
    cdef int status = 0
    if notes is None:
        notes = probe_notes()
    memset(&out, 0, sizeof(out))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        for i in range(repeat):
            status = rewrite(<uint8_t>serializer, <uint8_t>direction, type, <const uint8_t *>view.buf,
                             <size_t>view.len, r, &notes.notes, may_wait, &out)
    PyBuffer_Release(&view)
    try:
        return (<char *>sink_ptr(&out))[:out.len] if probe_status(status) > 0 else None
    finally:
        sink_free(&out)
