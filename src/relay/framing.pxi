# framing.pxi - one reader and one writer of frames over both framings, sans-IO. Part of proxy._relay.
#
# The caller owns the octets; these functions own nothing and never allocate. What they must remember of a connection
# is in codec_t: a fragmented WebSocket message lies at the front of the caller's input until it is whole (asm_*).


cdef inline int frame_next(codec_t *c, uint8_t *buf, size_t avail, frame_t *f) noexcept nogil:
    """Take the next frame from buf[0:avail], the octets received and not consumed yet.

    ST_OK: f is filled; drop f.consumed octets from the front, then call again. Payloads are unmasked and borrowed.
    FRAME_NONE: nothing to do but that. A message made of fragments is contiguous. An interleaved control frame
    consumes nothing, it is remembered as spent.
    ST_MORE: f.need octets in all are needed before it makes sense to call again.
    < 0: ST_PROTOCOL, ST_UTF8, ST_TOO_BIG, ST_DATA_TYPE. The connection is done. Sizes are refused by the header.
    max_frame and max_message bound data frames; WebSocket control frames have the RFC's own limit of 125 octets.
    """
    if c.kind == CODEC_WS:
        return ws_next(c, buf, avail, f)
    return rs_next(c, buf, avail, f)


cdef inline int frame_head_len(const codec_t *c, size_t n) noexcept nogil:
    """Octets of header in front of n octets of outgoing payload."""
    if c.kind == CODEC_WS:
        return ws_head_len(c, n)
    return RS_HEADER_LEN


cdef inline int frame_head_put_fin(const codec_t *c, uint8_t *dst, size_t n, uint8_t kind_opcode, uint32_t key,
                                   bint fin) noexcept nogil:
    """As frame_head_put, with FIN given and OP_CONT allowed: one fragment of an outgoing WebSocket message."""
    if c.kind == CODEC_WS:
        return ws_head_put(c, dst, n, kind_opcode, key, fin)
    return rs_head_put(dst, n, kind_opcode, fin)


cdef inline int frame_head_put(const codec_t *c, uint8_t *dst, size_t n, uint8_t kind_opcode,
                               uint32_t key) noexcept nogil:
    """Write the header of an outgoing frame at dst (room: WS_HEADER_MAX) and return its length; no payload is touched.

    kind_opcode: OP_TEXT, OP_BINARY, OP_PING, OP_PONG, OP_CLOSE, mapped to RawSocket's types there. key is written with
    CF_MASK_OUT: the payload must then be masked with it (unless CF_APPLY_MASK is off). < 0: ST_PROTOCOL for OP_CLOSE in
    RawSocket or a control frame over 125 octets in WebSocket, ST_TOO_BIG for more than 2^24 octets in RawSocket.
    """
    return frame_head_put_fin(c, dst, n, kind_opcode, key, True)


cdef int frame_put(const codec_t *c, uint8_t *payload, size_t n, uint8_t kind_opcode, uint32_t key) noexcept nogil:
    """Make payload[0:n] a frame: header directly in front of it (room: WS_HEADER_MAX), masked in place where asked.

    Returns the header's length, or < 0 as frame_head_put, with nothing changed.
    """
    cdef int head = frame_head_put(c, payload - frame_head_len(c, n), n, kind_opcode, key)
    if head > 0 and c.kind == CODEC_WS and c.flags & CF_MASK_OUT and c.flags & CF_APPLY_MASK:
        mask_xor(payload, n, key, 0)
    return head
