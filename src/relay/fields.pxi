# fields.pxi - single fields of a message that the gate has passed, read without building objects. Part of
# proxy._relay (see src/_relay.pyx).
#
# A cursor is an index into the message. Each serializer whose messages are arrays brings, in a part of its own
# (fields_<serializer>.pxi), what the functions here choose from:
#   next   read the item at the cursor. A scalar or text is passed over, of a container only the head is.
#   more   inside a container: go to its next element (in a map: to its next key), or behind its end.
#   value  inside a map, behind a key: go to its value.
#   spell  write a text that is not as it stands in the message (escapes, chunks).
#   put    write an integer in its shortest form.
#   key    inside a map: read the key at the cursor; only where a key is not spelled like any text (UBJSON).
# FlatBuffers knows neither arrays nor keys: it has functions of its own (fields_flatbuffers.pxi).

cdef extern from *:
    """
    /* Index of the Options or Details, of the URI and of the Arguments in a message of the type; 0: it has none. */
    typedef struct { unsigned char options, uri, payload; } fields_layout_t;
    static const fields_layout_t fields_layouts[71] = {
        [8] = {3, 4, 5},                                              /* ERROR */
        [16] = {2, 3, 4},                                             /* PUBLISH */
        [32] = {2, 3, 0}, [34] = {3, 0, 0}, [35] = {2, 0, 0},         /* SUBSCRIBE, UNSUBSCRIBE, UNSUBSCRIBED */
        [36] = {3, 0, 4},                                             /* EVENT */
        [48] = {2, 3, 4}, [49] = {2, 0, 0}, [50] = {2, 0, 3},         /* CALL, CANCEL, RESULT */
        [64] = {2, 3, 0}, [66] = {3, 0, 0},                           /* REGISTER, UNREGISTER */
        [68] = {3, 0, 4}, [69] = {2, 0, 0}, [70] = {2, 0, 3},         /* INVOCATION, INTERRUPT, YIELD */
    };
    static const fields_layout_t fields_no_layout = {0, 0, 0};
    #define fields_layout(type) ((type) < 71 ? &fields_layouts[type] : &fields_no_layout)
    """
    ctypedef struct fields_layout_t:
        uint8_t options
        uint8_t uri
        uint8_t payload
    const fields_layout_t *fields_layout(uint32_t type) noexcept nogil


cdef inline int fields_next(uint8_t ser, const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read the item at ``at``; ``at`` goes behind it, or behind the head of a container or tag.

    :return: ST_OK or ST_MALFORMED.
    """
    if ser == SER_CBOR:
        return fields_cbor_next(p, n, at, item)
    if ser == SER_MSGPACK:
        return fields_msgpack_next(p, n, at, item)
    if ser == SER_JSON:
        return fields_json_next(p, n, at, item)
    return fields_ubjson_next(p, n, at, item) if ser == SER_UBJSON else ST_MALFORMED


cdef inline int fields_key(uint8_t ser, const uint8_t *p, size_t n, size_t *at, item_t *item) noexcept nogil:
    """Read the key at ``at``; ``at`` goes behind it, or behind the head of a container. ST_OK or ST_MALFORMED."""
    return fields_ubjson_key(p, n, at, item) if ser == SER_UBJSON else fields_next(ser, p, n, at, item)


cdef inline int fields_more(uint8_t ser, const uint8_t *p, size_t n, size_t *at, uint64_t *left) noexcept nogil:
    """Inside a container: go to its next element or key, or behind it.

    :param left: elements or pairs to come; starts as the ``value`` of the container's item.
    :return: ST_OK: there is one; ST_MORE: it was the last; ST_MALFORMED.
    """
    if left[0] != ITEM_OPEN:
        if left[0] == 0:
            return ST_MORE
        left[0] -= 1
        return ST_OK
    if ser == SER_UBJSON:
        return fields_ubjson_more(p, n, at)
    return fields_json_more(p, n, at) if ser == SER_JSON else fields_cbor_more(p, n, at)


cdef inline int fields_value(uint8_t ser, const uint8_t *p, size_t n, size_t *at) noexcept nogil:
    """Behind a key: go to its value. ST_OK or ST_MALFORMED."""
    return fields_json_value(p, n, at) if ser == SER_JSON else ST_OK


cdef inline int fields_pass(uint8_t ser, const uint8_t *p, size_t n, size_t *at, const item_t *item) noexcept nogil:
    """Go behind the item that was just read, whatever is in it. ST_OK or ST_MALFORMED."""
    cdef ssize_t length
    if item.kind < ITEM_ARRAY or item.value == 0:
        return ST_OK
    if ser == SER_CBOR:
        length = scan_cbor(p + item.start, n - item.start)
    elif ser == SER_MSGPACK:
        length = scan_msgpack(p + item.start, n - item.start)
    elif ser == SER_UBJSON:
        length = scan_ubjson(p + item.start, n - item.start)
    else:
        length = scan_json(p + item.start, n - item.start)
    if length < 0:
        return ST_MALFORMED
    at[0] = item.start + <size_t>length
    return ST_OK


cdef inline const uint8_t *fields_text(uint8_t ser, const uint8_t *p, const item_t *item, uint8_t *room,
                                       size_t *length) noexcept nogil:
    """What an ITEM_TEXT says.

    :param room: FIELDS_TEXT_MAX octets for a text that must be spelled out; a longer one is cut.
    :param length: gets the octets of the text.
    """
    if scan_likely(not item.spelled):
        length[0] = item.length
        return p + item.text
    if ser == SER_JSON:
        length[0] = fields_json_spell(p, item, room, FIELDS_TEXT_MAX)
    else:
        length[0] = fields_cbor_spell(p, item, room, FIELDS_TEXT_MAX)
    return room


cdef inline size_t fields_put(uint8_t ser, uint8_t *q, uint64_t value) noexcept nogil:
    """Write an integer in its shortest form, at most FIELDS_UINT_MAX octets; how many."""
    if ser == SER_CBOR:
        return fields_cbor_put(q, value)
    if ser == SER_UBJSON:
        return fields_ubjson_put(q, value)
    return fields_msgpack_put(q, value) if ser == SER_MSGPACK else fields_json_put(q, value)


cdef inline int fields_enter(uint8_t ser, const uint8_t *p, size_t n, size_t *at, uint64_t *left) noexcept nogil:
    """Go into the array that the message is. ST_OK or ST_MALFORMED."""
    cdef item_t item
    at[0] = scan_json_space(p, n, 0) if ser == SER_JSON else 0
    if fields_next(ser, p, n, at, &item) < 0 or item.kind != ITEM_ARRAY:
        return ST_MALFORMED
    left[0] = item.value
    return ST_OK


cdef inline bint fields_is_flagged(uint32_t type) noexcept nogil:
    """Does fields_request look for an attribute in the Options or Details of this type?"""
    return (
        type == WAMP_PUBLISH or type == WAMP_CALL or type == WAMP_RESULT or type == WAMP_INVOCATION
        or type == WAMP_YIELD
    )


cdef inline bint fields_is_key(uint32_t type, const uint8_t *text, size_t n) noexcept nogil:
    """Is this the attribute that fields_request looks for?"""
    if type == WAMP_PUBLISH:
        return n == 11 and memcmp(text, b"acknowledge", 11) == 0
    return n == 8 and memcmp(text, b"progress", 8) == 0


cdef int fields_progress(uint8_t ser, uint32_t type, const uint8_t *p, size_t n, size_t *at, const item_t *map,
                         bint *progress) noexcept nogil:
    """Look for ``progress`` (PUBLISH: ``acknowledge``) in the Options or Details whose head was just read; the last one
    counts. ST_OK or ST_MALFORMED."""
    cdef uint8_t room[FIELDS_TEXT_MAX]
    cdef const uint8_t *text = p
    cdef size_t length = 0
    cdef uint64_t left = map.value
    cdef item_t item
    cdef int st
    while True:
        st = fields_more(ser, p, n, at, &left)
        if st <= 0:
            return ST_OK if st == ST_MORE else st
        if fields_key(ser, p, n, at, &item) < 0 or fields_pass(ser, p, n, at, &item) < 0:
            return ST_MALFORMED
        length = 0
        if item.kind == ITEM_TEXT:
            text = fields_text(ser, p, &item, room, &length)
        if fields_value(ser, p, n, at) < 0 or fields_next(ser, p, n, at, &item) < 0:
            return ST_MALFORMED
        if fields_is_key(type, text, length):
            progress[0] = item.kind == ITEM_TRUE
        if fields_pass(ser, p, n, at, &item) < 0:
            return ST_MALFORMED


cdef int fields_request(uint8_t ser, uint32_t type, const uint8_t *p, size_t n, fields_t *f) noexcept nogil:
    """Read what answers and notes are matched by.

    :param type: the message's type, as the gate read it.
    :param f: gets the request ID (ERROR: REQUEST.Request; WELCOME: the session ID; EVENT, INVOCATION: the subscription
        or request in the same place), of an ERROR the type of the request, and whether a CALL, RESULT, INVOCATION or
        YIELD is progressive, a PUBLISH acknowledged.
    :return: ST_OK; ST_MALFORMED: not there, or no number.
    """
    cdef uint32_t index = 1
    cdef uint32_t request = 2 if type == WAMP_ERROR else 1
    cdef uint32_t last = fields_layout(type).options if fields_is_flagged(type) else request
    cdef size_t at = 0
    cdef uint64_t left
    cdef item_t item
    if ser == SER_FLATBUFFERS:
        return fields_flat_request(p, n, f)
    f.request = 0
    f.request_type = 0
    f.progress = False
    if fields_enter(ser, p, n, &at, &left) < 0 or fields_more(ser, p, n, &at, &left) <= 0:
        return ST_MALFORMED
    if fields_next(ser, p, n, &at, &item) < 0:
        return ST_MALFORMED
    while index <= last:
        if fields_more(ser, p, n, &at, &left) <= 0:
            return ST_OK if index > request else ST_MALFORMED
        if fields_next(ser, p, n, &at, &item) < 0:
            return ST_MALFORMED
        if index <= request:
            if item.kind != ITEM_UINT or (index < request and item.value > 0xffff):
                return ST_MALFORMED
            f.request_type = <uint32_t>f.request
            f.request = item.value
        elif index == last and item.kind == ITEM_MAP:
            return fields_progress(ser, type, p, n, &at, &item, &f.progress)
        elif fields_pass(ser, p, n, &at, &item) < 0:
            return ST_MALFORMED
        index += 1
    return ST_OK


cdef int fields_head(uint8_t ser, uint32_t type, const uint8_t *p, size_t n, sink_t *out) noexcept nogil:
    """Write a message without its Arguments and ArgumentsKw: an array of the elements before them, octets as they are.

    :param type: the message's type, as the gate read it.
    :param out: reset by the caller, with the limit that holds.
    :return: ST_OK; ST_MALFORMED, ST_TOO_BIG (over the limit), ST_NOMEM.
    """
    cdef uint32_t most = fields_layout(type).payload or 15   # of those without payload none has more than five
    cdef uint32_t count = 0
    cdef size_t at = 0
    cdef size_t first
    cdef size_t end
    cdef uint64_t left
    cdef uint8_t head
    cdef item_t item
    cdef int st
    if ser == SER_FLATBUFFERS:
        return sink_put(out, p, n)            # it cannot be cut
    if fields_enter(ser, p, n, &at, &left) < 0:
        return ST_MALFORMED
    first = end = at
    while count < most:
        st = fields_more(ser, p, n, &at, &left)
        if st < 0:
            return ST_MALFORMED
        if st == ST_MORE:
            break
        if count == 0:
            first = at
        if fields_next(ser, p, n, &at, &item) < 0 or fields_pass(ser, p, n, &at, &item) < 0:
            return ST_MALFORMED
        end = at
        count += 1
    head = 0x5b if ser == SER_JSON or ser == SER_UBJSON else 0x90 + count if ser == SER_MSGPACK else 0x80 + count
    st = sink_put(out, &head, 1)
    if st > 0:
        st = sink_put(out, p + first, end - first)
    if st > 0 and head == 0x5b:
        head = b']'
        st = sink_put(out, &head, 1)
    return st
