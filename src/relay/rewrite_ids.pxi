# rewrite_ids.pxi - find session IDs in dictionaries, lists and arguments, and write what the other side calls them.
# Part of proxy._relay (see src/_relay.pyx).
#
# The message is passed once, from front to back; whatever stands between two IDs that change is copied as it is.
# Containers keep their heads, because an ID is replaced by one ID. Of duplicate keys each is looked at: decoders do not
# agree which one counts.

cdef enum:
    # keys of a dictionary with details of a session, a subscription, a registration or an event of a history
    REWRITE_DETAILS = KEY_SESSION | KEY_SESSION_ID | KEY_CREATOR | KEY_PUBLISHER | KEY_CALLER | KEY_CALLEE | KEY_LIST
    # keyword arguments of the meta API
    REWRITE_NAMED = KEY_SESSION | KEY_SESSION_ID | KEY_CALLEE_ID | KEY_SUBSCRIBER_ID


cdef int rewrite_splice(rewrite_t *r, const item_t *item, uint64_t sid) noexcept nogil:
    """Write everything up to the ID in ``item``, then ``sid`` in its place. ST_OK or ST_NOMEM."""
    cdef size_t n = item.start - r.copied
    cdef uint8_t *q
    if r.copied == 0:
        sink_reset(r.out, 0)
    if sink_room(r.out, n + FIELDS_UINT_MAX) < 0:
        return ST_NOMEM
    q = sink_ptr(r.out) + r.out.len
    memcpy(q, r.p + r.copied, n)
    r.out.len += n + fields_put(r.ser, q + n, sid)
    r.copied = item.end
    return ST_OK


cdef inline int rewrite_id(rewrite_t *r, const item_t *item) noexcept nogil:
    """Translate one ID. ST_OK, ST_NOMEM, or ST_WAIT: not known yet."""
    cdef sids_t *sids = <sids_t *>r.realm.sids
    cdef sid_table_t *tables = &sids.to_back[0]
    cdef uint64_t sid
    if r.direction == DIR_TO_FRONT:
        tables = &sids.to_front[0]
    if not sids_ask(tables, r.realm, item.value, &sid) and r.waits:
        return ST_WAIT
    return rewrite_splice(r, item, sid) if sid != item.value else ST_OK


cdef inline uint32_t rewrite_key_at(rewrite_t *r) noexcept nogil:
    """Pass over the key at the cursor and go to its value; KEY_*. UINT32_MAX: malformed."""
    cdef uint8_t room[FIELDS_TEXT_MAX]
    cdef const uint8_t *text
    cdef size_t length
    cdef uint32_t key = 0
    cdef item_t item
    if fields_key(r.ser, r.p, r.n, &r.at, &item) < 0:
        return <uint32_t>-1
    if scan_likely(item.kind == ITEM_TEXT):
        text = fields_text(r.ser, r.p, &item, room, &length)
        key = rewrite_key(text, length)
    elif fields_pass(r.ser, r.p, r.n, &r.at, &item) < 0:
        return <uint32_t>-1
    return key if fields_value(r.ser, r.p, r.n, &r.at) > 0 else <uint32_t>-1


cdef int rewrite_list(rewrite_t *r, const item_t *item, bint ids, uint32_t keys) noexcept nogil:
    """Go through the list whose head was just read.

    :param ids: numbers in it are session IDs.
    :param keys: KEY_* to look at in dictionaries in it.
    """
    cdef uint64_t left = item.value
    cdef item_t element
    cdef int st
    while True:
        st = fields_more(r.ser, r.p, r.n, &r.at, &left)
        if st <= 0:
            return ST_OK if st == ST_MORE else st
        st = fields_next(r.ser, r.p, r.n, &r.at, &element)
        if st < 0:
            return st
        if element.kind == ITEM_UINT:
            if ids:
                st = rewrite_id(r, &element)
        elif element.kind == ITEM_MAP and keys:
            st = rewrite_map(r, &element, keys)
        else:
            st = fields_pass(r.ser, r.p, r.n, &r.at, &element)
        if st < 0:
            return st


cdef int rewrite_rest(rewrite_t *r, uint32_t key, const item_t *item) noexcept nogil:
    """The value of a key that is not simply an ID: a list, a dictionary, or something to be remembered."""
    cdef uint8_t room[FIELDS_TEXT_MAX]
    cdef const uint8_t *text
    cdef size_t length
    if item.kind == ITEM_ARRAY:
        if key & KEY_LIST:
            return rewrite_list(r, item, True, 0)
        if key == KEY_FORWARD_FOR:
            return rewrite_list(r, item, False, KEY_SESSION)
    elif item.kind == ITEM_MAP:
        if key == KEY_PUBLISH_OPTIONS:
            return rewrite_map(r, item, KEY_LIST | KEY_FORWARD_FOR)
        if key == KEY_DETAILS:
            return rewrite_map(r, item, REWRITE_DETAILS)
    elif item.kind == ITEM_TEXT and key == KEY_TOPIC:
        text = fields_text(r.ser, r.p, item, room, &length)
        r.rule = rewrite_topic(text, length)
    elif key == KEY_PROGRESS:
        r.progress = item.kind == ITEM_TRUE
    elif item.kind == ITEM_UINT:
        if key == KEY_SUBSCRIPTION:
            r.subscription = item.value
        elif key & KEY_LIST:                  # some take a single ID for a list of one
            return rewrite_id(r, item)
    return fields_pass(r.ser, r.p, r.n, &r.at, item)


cdef int rewrite_map(rewrite_t *r, const item_t *item, uint32_t keys) noexcept nogil:
    """Go through the dictionary whose head was just read.

    :param keys: KEY_* to look at; everything under another key is passed over.
    """
    cdef uint64_t left = item.value
    cdef uint32_t key
    cdef item_t value
    cdef int st
    while True:
        st = fields_more(r.ser, r.p, r.n, &r.at, &left)
        if st <= 0:
            return ST_OK if st == ST_MORE else st
        key = rewrite_key_at(r)
        if key == <uint32_t>-1:
            return ST_MALFORMED
        st = fields_next(r.ser, r.p, r.n, &r.at, &value)
        if st < 0:
            return st
        key &= keys
        if key == 0:
            st = fields_pass(r.ser, r.p, r.n, &r.at, &value)
        elif key & KEY_ONE and value.kind == ITEM_UINT:
            st = rewrite_id(r, &value)
        else:
            st = rewrite_rest(r, key, &value)
        if st < 0:
            return st


cdef int rewrite_argument(rewrite_t *r, unsigned where, const item_t *item) noexcept nogil:
    """One positional argument of which WHERE_* is known; ``item`` was just read."""
    if item.kind == ITEM_UINT and where == WHERE_ID:
        return rewrite_id(r, item)
    if item.kind == ITEM_MAP and where == WHERE_OPTIONS:
        return rewrite_map(r, item, KEY_LIST | KEY_FORWARD_FOR)
    if item.kind == ITEM_MAP and where != WHERE_NONE:
        return rewrite_map(r, item, REWRITE_DETAILS | KEY_DETAILS)
    if item.kind == ITEM_ARRAY and where == WHERE_LIST:
        return rewrite_list(r, item, True, REWRITE_DETAILS | KEY_DETAILS)
    return fields_pass(r.ser, r.p, r.n, &r.at, item)


cdef inline uint32_t rewrite_named(unsigned rule) noexcept nogil:
    """KEY_* of the keyword arguments to look at."""
    return KEY_PUBLISH_OPTIONS if rule == RULE_TESTAMENT else REWRITE_NAMED


cdef int rewrite_arguments(rewrite_t *r, uint64_t left) noexcept nogil:
    """Positional arguments by ``r.rule``; the cursor is behind the head of their list, ``left`` are in it."""
    cdef unsigned rule = r.rule & <unsigned>~RULE_WAITS
    cdef item_t item
    cdef int st
    while True:
        st = fields_more(r.ser, r.p, r.n, &r.at, &left)
        if st <= 0:
            return ST_OK if st == ST_MORE else st
        if fields_next(r.ser, r.p, r.n, &r.at, &item) < 0:
            return ST_MALFORMED
        st = rewrite_argument(r, rule & 7, &item)
        if st < 0:
            return st
        rule >>= 3


cdef int rewrite_payload(rewrite_t *r, uint64_t *left) noexcept nogil:
    """Arguments and ArgumentsKw by ``r.rule``; the cursor is before the element with the Arguments.

    An argument that is not what the rule expects is left alone, a payload in one piece (passthru mode) too.
    """
    cdef item_t item
    cdef int st = fields_more(r.ser, r.p, r.n, &r.at, left)
    if st <= 0:
        return st
    if fields_next(r.ser, r.p, r.n, &r.at, &item) < 0:
        return ST_MALFORMED
    if item.kind == ITEM_ARRAY:
        st = rewrite_arguments(r, item.value)
    else:
        st = fields_pass(r.ser, r.p, r.n, &r.at, &item)
    if st < 0:
        return st
    st = fields_more(r.ser, r.p, r.n, &r.at, left)
    if st <= 0:
        return st
    if fields_next(r.ser, r.p, r.n, &r.at, &item) < 0:
        return ST_MALFORMED
    if item.kind != ITEM_MAP:
        return ST_OK
    return rewrite_map(r, &item, rewrite_named(r.rule))
