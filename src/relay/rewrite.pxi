# rewrite.pxi - session IDs on their way between a client and its router (DESIGN.md, "Session IDs"). Part of
# proxy._relay (see src/_relay.pyx).
#
# Header level: the Options or Details of a message, by keys that depend on its type. That is all for nearly every
# message; its payload is never looked at. Payload level: arguments of calls to the router's meta API, their results and
# its events. What a CALL says about its RESULT and a SUBSCRIBE about its EVENTs goes into the link's notes. A
# subscription by prefix or wildcard needs no note: its events name their topic.

cdef int rewrite_uri(rewrite_t *r, uint32_t type) noexcept nogil:
    """Read the URI of a CALL or SUBSCRIBE at the cursor into ``r.rule`` and ``r.result``. ST_OK or ST_MALFORMED."""
    cdef uint8_t room[FIELDS_TEXT_MAX]
    cdef const uint8_t *text
    cdef const rewrite_procedure_t *procedure
    cdef size_t length
    cdef item_t item
    if fields_next(r.ser, r.p, r.n, &r.at, &item) < 0:
        return ST_MALFORMED
    if item.kind != ITEM_TEXT:
        return fields_pass(r.ser, r.p, r.n, &r.at, &item)
    text = fields_text(r.ser, r.p, &item, room, &length)
    if type == WAMP_SUBSCRIBE:
        r.rule = rewrite_topic(text, length)
        return ST_OK
    procedure = rewrite_procedure(text, length)
    if procedure != NULL:
        r.rule = procedure.call
        r.result = procedure.result
    return ST_OK


cdef inline int rewrite_header(rewrite_t *r, uint32_t type, const fields_layout_t *layout,
                               uint64_t *left) noexcept nogil:
    """Pass everything before the payload, and look at what is in it.

    :param left: elements of the message to come.
    :return: ST_OK: the payload may follow; ST_MORE: the message ended; < 0: as rewrite.
    """
    cdef uint32_t index = 0
    cdef uint32_t last = 3 if type == WAMP_CALL or type == WAMP_SUBSCRIBE else layout.options or 2
    cdef item_t item
    cdef int st
    while index <= last:
        st = fields_more(r.ser, r.p, r.n, &r.at, left)
        if st <= 0:
            return st
        if index == layout.uri and index == last and index != layout.options:
            st = rewrite_uri(r, type)
        else:
            st = fields_next(r.ser, r.p, r.n, &r.at, &item)
            if st > 0 and index == layout.options and item.kind == ITEM_MAP:
                st = rewrite_map(r, &item, rewrite_keys[r.direction == DIR_TO_FRONT][type])
            elif st > 0:
                if item.kind == ITEM_UINT and index == 1:
                    r.first = item.value
                elif item.kind == ITEM_UINT and index == 2:
                    r.second = item.value
                st = fields_pass(r.ser, r.p, r.n, &r.at, &item)
        if st < 0:
            return st
        index += 1
    return ST_OK


cdef inline void rewrite_find_rule(rewrite_t *r, uint32_t type, const notes_t *notes) noexcept nogil:
    """Let a note say where IDs are in the payload of an EVENT or RESULT."""
    cdef int at = -1
    if type == WAMP_EVENT and r.rule == RULE_NONE:
        at = notes_find(notes, NOTE_SUBSCRIPTION, r.first)
    elif type == WAMP_RESULT:
        at = notes_find(notes, NOTE_CALL, r.first)
    if at >= 0:
        r.rule = notes.notes[at].rule


cdef void rewrite_drop_note(notes_t *notes, uint8_t kind, uint64_t id) noexcept nogil:
    cdef int at = notes_find(notes, kind, id)
    if at >= 0:
        notes_drop(notes, at)


cdef void rewrite_subscribed(notes_t *notes, uint64_t request, uint64_t subscription) noexcept nogil:
    """A noted SUBSCRIBE was answered: its rule is the subscription's from now on. The same subscription may be there
    already, because a client that subscribes twice gets the same one."""
    cdef int at = notes_find(notes, NOTE_SUBSCRIBE, request)
    cdef int old = notes_find(notes, NOTE_SUBSCRIPTION, subscription)
    if at < 0:
        return
    if old >= 0:
        notes.notes[old].rule = notes.notes[at].rule
        notes_drop(notes, at)
        return
    notes.notes[at].kind = NOTE_SUBSCRIPTION
    notes.notes[at].id = subscription


cdef void rewrite_unsubscribed(rewrite_t *r, notes_t *notes) noexcept nogil:
    """The subscription that an UNSUBSCRIBE named is over, or one that the router revoked (request 0)."""
    cdef int at
    if r.first == 0:
        rewrite_drop_note(notes, NOTE_SUBSCRIPTION, r.subscription)
        return
    at = notes_find(notes, NOTE_UNSUBSCRIBE, r.first)
    if at >= 0:
        rewrite_drop_note(notes, NOTE_SUBSCRIPTION, notes.notes[at].other)
        rewrite_drop_note(notes, NOTE_UNSUBSCRIBE, r.first)


cdef int rewrite_note_request(rewrite_t *r, uint32_t type, notes_t **notes) noexcept nogil:
    """Note what the answer to a client's request will need. ST_OK, ST_NOMEM, ST_TOO_BIG."""
    cdef int st = ST_OK
    if type == WAMP_CALL and r.result != RULE_NONE:
        return notes_add(notes, NOTE_CALL, r.first, r.result)
    if type == WAMP_SUBSCRIBE and r.rule != RULE_NONE:
        return notes_add(notes, NOTE_SUBSCRIBE, r.first, r.rule)
    if type == WAMP_UNSUBSCRIBE and notes_find(notes[0], NOTE_SUBSCRIPTION, r.second) >= 0:
        st = notes_add(notes, NOTE_UNSUBSCRIBE, r.first, RULE_NONE)
        if st > 0:
            notes[0].notes[notes_find(notes[0], NOTE_UNSUBSCRIBE, r.first)].other = r.second
    return st


cdef void rewrite_note_answer(rewrite_t *r, uint32_t type, notes_t *notes) noexcept nogil:
    """Follow in the notes what the router answered."""
    if type == WAMP_RESULT and not r.progress:
        rewrite_drop_note(notes, NOTE_CALL, r.first)
    elif type == WAMP_SUBSCRIBED:
        rewrite_subscribed(notes, r.first, r.second)
    elif type == WAMP_UNSUBSCRIBED:
        rewrite_unsubscribed(r, notes)
    elif type == WAMP_ERROR:
        if r.first == WAMP_CALL:
            rewrite_drop_note(notes, NOTE_CALL, r.second)
        elif r.first == WAMP_SUBSCRIBE:
            rewrite_drop_note(notes, NOTE_SUBSCRIBE, r.second)
        elif r.first == WAMP_UNSUBSCRIBE:
            rewrite_drop_note(notes, NOTE_UNSUBSCRIBE, r.second)


cdef inline int rewrite_message(rewrite_t *r, uint32_t type, const notes_t *notes, bint may_wait) noexcept nogil:
    """Header, then payload where a rule asks for it. > 0 or ST_MORE: done; < 0: ST_MALFORMED, ST_NOMEM, ST_WAIT."""
    cdef const fields_layout_t *layout = fields_layout(type)
    cdef uint64_t left = 0
    cdef int st
    if r.ser == SER_FLATBUFFERS:
        st = rewrite_flat_header(r, type)
    else:
        st = fields_enter(r.ser, r.p, r.n, &r.at, &left)
        if st > 0:
            st = rewrite_header(r, type, layout, &left)
    if st <= 0:
        return st
    if r.direction == DIR_TO_FRONT and notes != NULL and notes.count:
        rewrite_find_rule(r, type, notes)
    if scan_likely(r.rule == RULE_NONE) or type == WAMP_SUBSCRIBE:
        return ST_OK
    r.waits = may_wait and r.rule & RULE_WAITS and atomic_load64(&r.realm.joining) != 0
    return rewrite_flat_payload(r, type) if r.ser == SER_FLATBUFFERS else rewrite_payload(r, &left)


cdef int rewrite(uint8_t ser, uint8_t direction, uint32_t type, const uint8_t *p, size_t n, realm_t *realm,
                 notes_t **notes, bint may_wait, sink_t *out) noexcept nogil:
    """Write a message as the other side must read it: with its names for sessions. Everything else stays as it is.

    :param ser: SER_* of the message, which the gate has passed.
    :param direction: DIR_TO_BACK: front_sids become back_sids; DIR_TO_FRONT: the other way round.
    :param type: its type; rewrite_concerns() need not be true of it.
    :param realm: where the client joined. IDs that its map does not have pass as they are.
    :param notes: the link's; made when needed.
    :param may_wait: let ST_WAIT be the answer.
    :param out: gets the message if it changes; it is reset here and has no limit.
    :return: ST_OK: take what is in ``out``; ST_MORE: nothing changes, take ``p``; ST_WAIT: it is the on_join event of
        a session that is not in the map, while there are sessions whose WELCOME is awaited: nothing happened, ask
        again; ST_NOMEM; ST_TOO_BIG: NOTES_MAX answers are awaited already, and this needs one more.
    """
    cdef rewrite_t r
    cdef int st
    if not rewrite_concerns(direction, type):
        return ST_MORE
    memset(&r, 0, sizeof(r))
    r.p = p
    r.n = n
    r.out = out
    r.realm = realm
    r.ser = ser
    r.direction = direction
    st = rewrite_message(&r, type, notes[0], may_wait)
    if st >= 0 and ser == SER_FLATBUFFERS and r.copied:
        st = rewrite_flat_verify(&r, type)
    if st == ST_MALFORMED or st == ST_TRUNCATED:
        return ST_MORE                        # not for us to judge
    if st >= 0 and direction == DIR_TO_BACK:
        st = rewrite_note_request(&r, type, notes)
    elif st >= 0 and notes[0] != NULL and notes[0].count:
        rewrite_note_answer(&r, type, notes[0])
    if st < 0 or r.copied == 0:
        return st if st < 0 else ST_MORE
    return sink_put(out, p + r.copied, n - r.copied)
