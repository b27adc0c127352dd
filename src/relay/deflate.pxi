# deflate.pxi - permessage-deflate (RFC 7692) of single messages, sans-IO. Part of proxy._relay (see src/_relay.pyx).
#
# A message is a raw DEFLATE stream that was flushed with an empty stored block, whose last four octets are not sent.
# With context takeover a stream goes on from message to message, so it is the connection's own. Without it, nothing of
# a stream outlives a message: one per loop (and, of writers, per size) serves all connections.
# A connection's streams are made when they are first needed: one that never gets a long message costs no compressor.

cdef extern from *:
    """
    /* What RFC 7692 7.2.1 takes off every message and 7.2.2 puts back: the end of an empty stored block. */
    static const unsigned char zip_tail[4] = {0x00, 0x00, 0xff, 0xff};
    """
    const uint8_t *zip_tail

cdef enum:
    ZIP_TAIL_LEN = 4
    ZIP_PREFIX = 16                # in front of each piece of memory: its size. Keeps the alignment of malloc
    ZIP_BITS_MIN = 9               # windows of 256 octets are not possible with zlib's raw DEFLATE
    ZIP_BITS_MAX = 15
    ZIP_LEVELS = 9                 # mem_level: 1 .. 9
    ZIP_BETWEEN = 128              # of data_type: between two blocks
    ZIP_UNUSED_BITS = 7            # of data_type


# --- memory ----------------------------------------------------------------------------------------------------------

cdef void *zip_alloc(void *opaque, unsigned int items, unsigned int size) noexcept nogil:
    """zlib's allocator. opaque: the counter of octets, or NULL."""
    cdef size_t n = <size_t>items * size + ZIP_PREFIX
    cdef uint8_t *p = <uint8_t *>mem_alloc(n)
    if p == NULL:
        return NULL
    (<size_t *>p)[0] = n
    if opaque != NULL:
        (<uint64_t *>opaque)[0] += n
    return p + ZIP_PREFIX


cdef void zip_free(void *opaque, void *p) noexcept nogil:
    """The other half of zip_alloc."""
    cdef uint8_t *base = <uint8_t *>p - ZIP_PREFIX
    if opaque != NULL:
        (<uint64_t *>opaque)[0] -= (<size_t *>base)[0]
    mem_free(base)


cdef void zip_prepare(z_stream *s, uint64_t *octets) noexcept nogil:
    memset(s, 0, sizeof(z_stream))
    s.zalloc = zip_alloc
    s.zfree = zip_free
    s.opaque = octets


# --- streams ---------------------------------------------------------------------------------------------------------

cdef int zip_start(z_stream *s, int bits, int mem_level) noexcept nogil:
    """Begin to compress; Z_OK or an error of zlib."""
    return deflateInit2(s, ZIP_LEVEL, Z_DEFLATED, -bits, mem_level, Z_DEFAULT_STRATEGY)


cdef z_stream *zip_shared(zips_t *shared, z_stream **slot, int deflate_bits, int mem_level) noexcept nogil:
    """A stream that all connections of the loop use, in its initial state; made on first use. deflate_bits 0: a reader.

    NULL: no memory.
    """
    cdef z_stream *s = slot[0]
    cdef int rc
    if s != NULL:
        rc = deflateReset(s) if deflate_bits else inflateReset(s)
        relay_assert(rc == Z_OK)
        return s
    s = <z_stream *>zip_alloc(shared.octets, 1, sizeof(z_stream))
    if s == NULL:
        return NULL
    zip_prepare(s, shared.octets)
    if deflate_bits:
        rc = zip_start(s, deflate_bits, mem_level)
    else:
        rc = inflateInit2(s, -ZIP_BITS_MAX)                  # reads what was written with any smaller window, too
    if rc != Z_OK:
        zip_free(shared.octets, s)
        return NULL
    slot[0] = s
    return s


cdef z_stream *zip_reader(zip_t *z) noexcept nogil:
    """The stream for the next message from the peer. NULL: no memory."""
    if z.inflate_reset:
        return zip_shared(z.shared, &z.shared.reader, 0, 0)
    if not z.reading:
        zip_prepare(&z.reader, z.shared.octets)
        if inflateInit2(&z.reader, -<int>z.inflate_bits) != Z_OK:
            return NULL
        z.reading = True
    return &z.reader


cdef z_stream *zip_writer(zip_t *z) noexcept nogil:
    """The stream for the next message to the peer. NULL: no memory."""
    cdef size_t at = <size_t>(z.deflate_bits - ZIP_BITS_MIN) * ZIP_LEVELS + z.mem_level - 1
    if z.deflate_reset:
        return zip_shared(z.shared, &z.shared.writers[at], z.deflate_bits, z.mem_level)
    if not z.writing:
        zip_prepare(&z.writer, z.shared.octets)
        if zip_start(&z.writer, z.deflate_bits, z.mem_level) != Z_OK:
            return NULL
        z.writing = True
    return &z.writer


cdef zip_t *zip_open(zips_t *shared, int inflate_bits, bint inflate_reset, int deflate_bits, bint deflate_reset,
                     int mem_level) noexcept nogil:
    """What a connection needs to read and write compressed messages. shared: of its loop, outlives it.

    *_bits: window sizes, 9 to 15; *_reset: no context takeover; mem_level: of the compressor, 1 to 9 (RFC 7692 7.1).
    NULL: no memory, or a value out of its range.
    """
    cdef zip_t *z
    if not ZIP_BITS_MIN <= inflate_bits <= ZIP_BITS_MAX or not ZIP_BITS_MIN <= deflate_bits <= ZIP_BITS_MAX:
        return NULL
    if not 1 <= mem_level <= ZIP_LEVELS:
        return NULL
    z = <zip_t *>zip_alloc(shared.octets, 1, sizeof(zip_t))
    if z == NULL:
        return NULL
    memset(z, 0, sizeof(zip_t))
    z.shared = shared
    z.inflate_bits = <uint8_t>inflate_bits
    z.inflate_reset = inflate_reset
    z.deflate_bits = <uint8_t>deflate_bits
    z.deflate_reset = deflate_reset
    z.mem_level = <uint8_t>mem_level
    return z


cdef void zip_close(zip_t *z) noexcept nogil:
    """Give everything of a connection back. NULL: nothing to do."""
    if z == NULL:
        return
    if z.reading:
        inflateEnd(&z.reader)
    if z.writing:
        deflateEnd(&z.writer)
    zip_free(z.shared.octets, z)


cdef void zips_free(zips_t *shared) noexcept nogil:
    """Give back what the connections of a loop shared; all of them must be closed."""
    if shared.reader != NULL:
        inflateEnd(shared.reader)
        zip_free(shared.octets, shared.reader)
        shared.reader = NULL
    for i in range((ZIP_BITS_MAX - ZIP_BITS_MIN + 1) * ZIP_LEVELS):
        if shared.writers[i] != NULL:
            deflateEnd(shared.writers[i])
            zip_free(shared.octets, shared.writers[i])
            shared.writers[i] = NULL


# --- messages --------------------------------------------------------------------------------------------------------

cdef inline int zip_room(z_stream *s, sink_t *out) noexcept nogil:
    """Let a stream write to the rest of out, which grows where there is none. ST_OK, ST_TOO_BIG (no room) or ST_NOMEM.
    """
    cdef int st = sink_room(out, 1)
    cdef size_t room = 0
    if st == ST_NOMEM:
        return st
    if st > 0:
        room = out.cap - BUF_HEADROOM - out.len
        if out.max and room > out.max - out.len:
            room = out.max - out.len
        if room > <size_t>0x7FFFFFFF:
            room = 0x7FFFFFFF
    s.next_out = sink_ptr(out) + out.len
    s.avail_out = <unsigned int>room
    return st


cdef int zip_feed(z_stream *s, const uint8_t *p, size_t n, sink_t *out) noexcept nogil:
    """Inflate p[0:n], which is a part of a message, to the end of out.

    When out is full the stream goes on as long as it writes nothing: what fits exactly is taken.
    """
    cdef int rc, st
    cdef unsigned int room
    s.next_in = <uint8_t *>p
    s.avail_in = <unsigned int>n
    while True:
        st = zip_room(s, out)
        if st == ST_NOMEM:
            return st
        room = s.avail_out
        rc = inflate(s, Z_SYNC_FLUSH)
        out.len += room - s.avail_out
        if rc == Z_STREAM_END:                               # BFINAL (7.2.3.4): the window is kept all the same
            if inflateResetKeep(s) != Z_OK:
                return ST_PROTOCOL
            s.data_type = ZIP_BETWEEN                        # inflate() does not say it of the end of a stream
            if s.avail_in == 0:
                return ST_OK
        elif rc == Z_MEM_ERROR:
            return ST_NOMEM
        elif rc != Z_OK and rc != Z_BUF_ERROR:
            return ST_PROTOCOL
        elif s.avail_out:
            return ST_OK                                     # so all of the input was taken
        elif st == ST_TOO_BIG:
            return ST_OK if s.avail_in == 0 else ST_TOO_BIG


cdef int zip_inflate(zip_t *z, const uint8_t *p, size_t n, sink_t *out) noexcept nogil:
    """Inflate the message p[0:n] to the end of out (RFC 7692 7.2.2).

    ST_OK. ST_TOO_BIG: it holds more than fits into out.max octets; inflating stopped there. ST_PROTOCOL: not DEFLATE,
    or cut short. ST_NOMEM. After a failure the connection is done: the stream cannot go on.
    """
    cdef z_stream *s
    cdef int st
    if n == 0:                                               # not quite by the RFC (7.2.3.6: one octet), but clear
        return ST_OK
    if n > <size_t>0xFFFFFFFF:
        return ST_TOO_BIG
    s = zip_reader(z)
    if s == NULL:
        return ST_NOMEM
    st = zip_feed(s, p, n, out)
    if st > 0:
        st = zip_feed(s, zip_tail, ZIP_TAIL_LEN, out)
    if st > 0 and s.data_type & (ZIP_BETWEEN | ZIP_UNUSED_BITS) != ZIP_BETWEEN:
        st = ST_PROTOCOL
    return st


cdef int zip_deflate(zip_t *z, const uint8_t *p, size_t n, sink_t *out) noexcept nogil:
    """Append the message p[0:n], compressed, to out (RFC 7692 7.2.1).

    ST_OK. ST_NOMEM, or ST_TOO_BIG where out.max was given: nothing was appended, and the message may be sent as it is.
    """
    cdef size_t start = out.len
    cdef unsigned int room
    cdef z_stream *s
    cdef int st
    if n == 0:                                               # 7.2.3.6; zlib would write nothing at all
        return sink_put(out, zip_tail, 1)
    if n > <size_t>0xFFFFFFFF:
        return ST_TOO_BIG
    s = zip_writer(z)
    if s == NULL:
        return ST_NOMEM
    s.next_in = <uint8_t *>p
    s.avail_in = <unsigned int>n
    while True:
        st = zip_room(s, out)
        if st < 0:
            break
        room = s.avail_out
        deflate(s, Z_SYNC_FLUSH)
        out.len += room - s.avail_out
        if s.avail_out:                                      # all is written, the flush included
            out.len -= ZIP_TAIL_LEN
            return ST_OK
    out.len = start
    deflateReset(s)                                          # the peer must not be referred to what it never got
    return st
