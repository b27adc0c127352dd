# translate.pxi - one WAMP message in another serializer: JSON, MessagePack, CBOR. Part of proxy._relay (see
# src/_relay.pyx).
#
# A reader per serializer (translate_json.pxi, translate_binary.pxi) walks over the message once and hands each value to
# the writers (translate_numbers.pxi, translate_text.pxi), which know the target; translate_levels.pxi keeps what is
# open. Nothing is built in between, nothing is looked up by name: attributes nobody knows yet, their order and
# duplicate keys pass like all others. docs/translation.md has the rules for each kind of value.

cdef int translate(
    uint8_t source, uint8_t target, const uint8_t *p, size_t n, sink_t *out, const char **why
) noexcept nogil:
    """Append the one value in the whole of p[0:n] to `out` in another serializer.

    :param source: SER_JSON, SER_MSGPACK or SER_CBOR, the serializer of p; the gate has found p well-formed.
    :param target: another one of these.
    :param out: after sink_reset; holds a part of the value when this fails.
    :param why: gets what went wrong, as a noun phrase in English.
    :return: ST_OK; < 0: ST_UNTRANSLATABLE (the target has no form for a value), ST_TOO_BIG (over the limit of `out`),
        ST_DEPTH (more than SCAN_DEPTH_MAX levels), ST_MALFORMED (not one well-formed value of the source), ST_NOMEM.
    """
    cdef translate_t t
    cdef size_t limit = out.max
    cdef int status = ST_MALFORMED
    t.p = p
    t.n = n
    t.out = out
    t.why = b"a value that is not well-formed"
    t.target = target
    t.depth = 0
    t.late_depth = 0
    t.moves = TRANSLATE_MOVES * <uint64_t>n + 4096
    t.level = &t.levels[0]
    t.level.items = 0
    t.level.left = 1
    t.level.limit = TRANSLATE_NEVER
    t.level.width = 0
    t.level.is_map = False
    out.max = limit + TRANSLATE_SLACK if limit != 0 else 0
    if <uint64_t>n >> 32 != 0:                   # lengths of MessagePack end there
        status = ST_TOO_BIG
    elif source == SER_JSON and (target == SER_MSGPACK or target == SER_CBOR):
        status = translate_from_json(&t)
    elif source == SER_MSGPACK and (target == SER_JSON or target == SER_CBOR):
        status = translate_from_msgpack(&t)
    elif source == SER_CBOR and (target == SER_JSON or target == SER_MSGPACK):
        status = translate_from_cbor(&t)
    if status > 0:
        status = translate_finish(&t)
    out.max = limit
    if status > 0 and limit != 0 and out.len > limit:
        status = ST_TOO_BIG
    if status == ST_TOO_BIG:
        t.why = b"a message that is too long"
    elif status == ST_DEPTH:
        t.why = b"a value that is nested too deeply"
    elif status == ST_NOMEM:
        t.why = b"a message for which there is no memory"
    why[0] = t.why
    return status
