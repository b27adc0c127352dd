# intake.pxi - from what a connection sent to single messages: frames, compressed ones, batches.
# Part of proxy._relay (see src/_relay.pyx).
#
# A batch is taken apart where it lies: codec.batch_left octets at the start of the input are its rest. One that came
# compressed is inflated first and lies in c.plain, so that pausing in the middle of it loses nothing.

cdef int intake_batch(loop_t *loop, conn_t *c, buf_t *b, frame_t *f) noexcept nogil:
    """The next message of the batch that is being taken apart."""
    cdef buf_t *source = b if c.plain.base == NULL else &c.plain
    cdef int st = batch_next(&c.codec, buf_ptr(source), f)
    if st < 0:
        return st
    buf_consume(loop, source, f.consumed)
    if c.codec.batch_left == 0 and source == b:
        buf_consume(loop, b, c.codec.batch_gap)
        c.codec.batch_gap = 0
    return ST_OK


cdef int intake_inflate(loop_t *loop, conn_t *c, frame_t *f) noexcept nogil:
    """Replace a compressed payload by what it holds, in loop.inflated. Refused at max_message while inflating."""
    cdef int st
    sink_reset(&loop.inflated, c.codec.max_message)
    st = zip_inflate(c.zip, f.payload, f.length, &loop.inflated)
    if st < 0:
        return st
    loop.stats.inflated += 1
    loop.stats.inflated_octets_in += f.length
    loop.stats.inflated_octets_out += loop.inflated.len
    if sink_room(&loop.inflated, 0) < 0:              # an empty message has its place, too
        return ST_NOMEM
    f.payload = sink_ptr(&loop.inflated)
    f.length = loop.inflated.len
    if f.opcode == OP_TEXT and c.codec.flags & CF_VALIDATE_UTF8 and not utf8_is_valid(f.payload, f.length):
        return ST_UTF8
    return ST_OK


cdef int intake_unpack(loop_t *loop, conn_t *c, buf_t *b, frame_t *f) noexcept nogil:
    """intake_next of a connection with batches or compression."""
    cdef size_t lead
    cdef int st
    if c.codec.batch_left:
        return intake_batch(loop, c, b, f)
    buf_free(loop, &c.plain)
    st = frame_next(&c.codec, buf_ptr(b), buf_len(b), f)
    if st <= 0:
        return st
    if f.kind != FRAME_MESSAGE:
        buf_consume(loop, b, f.consumed)
        return ST_OK
    lead = f.payload - buf_ptr(b)
    if f.compressed:
        buf_consume(loop, b, f.consumed)
        st = intake_inflate(loop, c, f)
        if st < 0 or not c.codec.flags & CF_BATCHED:
            return st
        st = batch_open(&c.codec, f.payload, f.length)
        if st > 0 and buf_append(loop, &c.plain, f.payload, f.length) < 0:
            c.codec.batch_left = 0
            st = ST_NOMEM
    elif not c.codec.flags & CF_BATCHED:
        buf_consume(loop, b, f.consumed)
        return ST_OK
    else:
        st = batch_open(&c.codec, f.payload, f.length)
        if st > 0:
            c.codec.batch_gap = <uint32_t>(f.consumed - lead - f.length)
            buf_consume(loop, b, lead)
    if st < 0:
        return st
    return intake_batch(loop, c, b, f)


cdef inline int intake_next(loop_t *loop, conn_t *c, buf_t *b, frame_t *f) noexcept nogil:
    """As frame_next, for a connection: f is the next message, control frame or nothing (FRAME_NONE).

    What it took of the input is dropped already. Payloads are borrowed: valid until the next call, or until b is
    touched.
    """
    cdef int st
    if scan_likely(not c.codec.flags & (CF_BATCHED | CF_DEFLATE)):
        st = frame_next(&c.codec, buf_ptr(b), buf_len(b), f)
        if st > 0:
            buf_consume(loop, b, f.consumed)
        return st
    return intake_unpack(loop, c, b, f)


cdef void intake_drop(loop_t *loop, conn_t *c, buf_t *b) noexcept nogil:
    """Nobody wants the rest of a batch any more."""
    cdef size_t n = <size_t>c.codec.batch_left + c.codec.batch_gap
    if c.codec.batch_left and c.plain.base == NULL:
        buf_consume(loop, b, n if n < buf_len(b) else buf_len(b))
    buf_free(loop, &c.plain)
    c.codec.batch_left = 0
    c.codec.batch_gap = 0
