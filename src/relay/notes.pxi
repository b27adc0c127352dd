# notes.pxi - what a link remembers of single messages until their answers come. Part of proxy._relay (see
# src/_relay.pyx).
#
# Few links ever need one: only calls of and subscriptions to a router's meta API are noted, and what was refused. So
# the list is made with the first note, and short enough to be searched from end to end.

cdef int notes_find(const notes_t *notes, uint8_t kind, uint64_t id) noexcept nogil:
    """Index of the note of ``kind`` for request or subscription ``id``; -1: there is none (notes may be NULL)."""
    cdef uint32_t i
    if notes == NULL:
        return -1
    for i in range(notes.count):
        if notes.notes[i].id == id and notes.notes[i].kind == kind:
            return <int>i
    return -1


cdef int notes_grow(notes_t **notes) noexcept nogil:
    """Make room for one more note, and the list itself with the first one. ST_OK, ST_NOMEM, ST_TOO_BIG."""
    cdef uint32_t cap
    cdef note_t *grown
    if notes[0] == NULL:
        notes[0] = <notes_t *>mem_zalloc(sizeof(notes_t))
        if notes[0] == NULL:
            return ST_NOMEM
    if notes[0].count < notes[0].cap:
        return ST_OK
    if notes[0].count >= NOTES_MAX:
        return ST_TOO_BIG
    cap = notes[0].cap * 2 if notes[0].cap else 4
    grown = <note_t *>mem_realloc(notes[0].notes, cap * sizeof(note_t))
    if grown == NULL:
        return ST_NOMEM
    notes[0].notes = grown
    notes[0].cap = cap
    return ST_OK


cdef int notes_add(notes_t **notes, uint8_t kind, uint64_t id, uint16_t rule) noexcept nogil:
    """Note ``rule`` for ``id``; one note per kind and ID, the later rule holds.

    :param notes: the link's list, made when it is NULL.
    :return: ST_OK, ST_NOMEM, or ST_TOO_BIG: NOTES_MAX are there already.
    """
    cdef note_t *note
    cdef int st
    cdef int at = notes_find(notes[0], kind, id)
    if at >= 0:
        notes[0].notes[at].rule = rule
        return ST_OK
    st = notes_grow(notes)
    if st < 0:
        return st
    note = &notes[0].notes[notes[0].count]
    note.id = id
    note.other = 0
    note.rule = rule
    note.kind = kind
    notes[0].count += 1
    notes[0].dead += kind == NOTE_DEAD_CALL or kind == NOTE_DEAD_INVOCATION
    return ST_OK


cdef void notes_drop(notes_t *notes, int index) noexcept nogil:
    """Forget the note at ``index``; the last one takes its place."""
    cdef note_t *note = &notes.notes[index]
    notes.dead -= note.kind == NOTE_DEAD_CALL or note.kind == NOTE_DEAD_INVOCATION
    notes.count -= 1
    note[0] = notes.notes[notes.count]


cdef void notes_free(notes_t **notes) noexcept nogil:
    """Forget all of them."""
    if notes[0] == NULL:
        return
    mem_free(notes[0].notes)
    mem_free(notes[0])
    notes[0] = NULL
