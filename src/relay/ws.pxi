# ws.pxi - WebSocket frames (RFC 6455 section 5), sans-IO. Part of proxy._relay (see src/_relay.pyx).
#
# A fragmented message is put together inside the input itself: its payload so far is kept at the front (asm_len
# octets), headers and interleaved control frames that are done with lie behind it (asm_gap octets), and each further
# fragment is unmasked while it is moved down over that gap. No second buffer, every octet is moved once.


cdef inline uint8_t ws_opcode(const codec_t *c) noexcept nogil:
    """The data opcode that goes with the connection's serializer."""
    return OP_TEXT if c.serializer == SER_JSON else OP_BINARY


cdef inline int ws_check(const codec_t *c, unsigned int b0, unsigned int b1) noexcept nogil:
    """Refuse whatever the first two octets alone show to be wrong (RFC 6455 5.1, 5.2, 5.4, 5.5)."""
    cdef unsigned int op = b0 & 15
    if c.flags & CF_CLIENT:
        if b1 & 0x80:
            return ST_PROTOCOL
    elif c.flags & CF_REQUIRE_MASK and not b1 & 0x80:
        return ST_PROTOCOL
    if op & 8:
        if op > OP_PONG or not b0 & 0x80 or (b1 & 0x7F) > CONTROL_PAYLOAD_MAX:
            return ST_PROTOCOL
    elif op == OP_CONT:
        if c.asm_op == 0:
            return ST_PROTOCOL
    elif op > OP_BINARY or c.asm_op:
        return ST_PROTOCOL
    elif op != ws_opcode(c) and not c.flags & CF_ANY_OPCODE:
        return ST_DATA_TYPE
    return ST_OK


cdef inline int ws_length(const uint8_t *p, size_t avail, uint64_t *length, size_t *head) noexcept nogil:
    """Payload length of the header at p and its octets without the key; ST_MORE: *head octets are needed to tell."""
    cdef uint64_t n = p[1] & 0x7F
    head[0] = 2
    if n == 126:
        head[0] = 4
        if avail < 4:
            return ST_MORE
        n = load_be16(p + 2)
        if n < 126:                                          # 5.2: the minimal number of octets must be used
            return ST_PROTOCOL
    elif n == 127:
        head[0] = 10
        if avail < 10:
            return ST_MORE
        n = load_be64(p + 2)
        if n < 65536 or n >> 63:
            return ST_PROTOCOL
    length[0] = n
    return ST_OK


cdef inline uint64_t ws_packed_max(uint64_t n) noexcept nogil:
    """The most octets that a compressor of the usual kind (zlib, with any settings) makes of a message of n octets."""
    return n + (n >> 3) + (n >> 6) + 64 if n else 0


cdef bint ws_may_be_longer(const codec_t *c, uint64_t n) noexcept nogil:
    """True for a compressed message: what it holds may not be more than max_message, how it comes may be longer."""
    return c.asm_op & OP_RSV1 != 0 and n <= ws_packed_max(c.max_message)


cdef inline bint ws_is_too_big(const codec_t *c, uint64_t n) noexcept nogil:
    """True if a data frame of n octets breaks a limit. asm_len is real memory and n < 2^63: the sum does not wrap."""
    if n > c.max_frame and c.max_frame:
        return True
    return c.asm_len + n > c.max_message and c.max_message != 0 and not ws_may_be_longer(c, c.asm_len + n)


cdef inline int ws_message(codec_t *c, uint8_t *payload, size_t n, uint8_t opcode, frame_t *f) noexcept nogil:
    """A whole message: what can only be said of all of it."""
    if opcode == OP_TEXT and c.flags & CF_VALIDATE_UTF8 and not utf8_is_valid(payload, n):
        return ST_UTF8
    f.kind = FRAME_MESSAGE
    f.opcode = opcode
    f.compressed = False
    f.payload = payload
    f.length = n
    return ST_OK


cdef bint ws_is_packed(unsigned int opcode) noexcept nogil:
    """True if the first frame of a compressed message may begin with this opcode and these reserved bits."""
    return opcode == OP_RSV1 | OP_TEXT or opcode == OP_RSV1 | OP_BINARY


cdef int ws_control(codec_t *c, uint8_t *p, size_t head, size_t n, frame_t *f) noexcept nogil:
    """A control frame, unmasked; inside a fragmented message it becomes part of the gap."""
    f.opcode = p[0] & 15
    if f.opcode == OP_PING:
        f.kind = FRAME_PING
    elif f.opcode == OP_PONG:
        f.kind = FRAME_PONG
    else:
        f.kind = FRAME_CLOSE
    f.payload = p + head
    f.length = n
    if c.asm_op:
        c.asm_gap += head + n
        f.consumed = 0
    else:
        f.consumed = head + n
    return ST_OK


cdef int ws_fragment(codec_t *c, uint8_t *buf, uint8_t *p, size_t head, size_t n, uint32_t key,
                     frame_t *f) noexcept nogil:
    """A data frame of a fragmented message. key is 0 where there is nothing to unmask."""
    cdef uint8_t opcode = c.asm_op
    cdef size_t total = c.asm_len + n
    cdef unsigned int b0 = p[0]                              # read now: the move below may go over the header
    f.kind = FRAME_NONE
    f.opcode = 0
    f.payload = NULL
    f.length = 0
    f.consumed = 0
    if b0 & 15:                                              # the first one: its payload stays, its header goes
        if key:
            mask_xor(p + head, n, key, 0)
        c.asm_op = b0 & 15
        c.asm_len = n
        c.asm_gap = 0
        f.consumed = head
        return ST_OK
    mask_copy(buf + c.asm_len, p + head, n, key, 0)
    if not b0 & 0x80:
        c.asm_len = total
        c.asm_gap += head
        return ST_OK
    f.consumed = total + c.asm_gap + head
    c.asm_op = 0
    c.asm_len = 0
    c.asm_gap = 0
    if opcode & OP_RSV1:
        ws_message(c, buf, total, OP_BINARY, f)              # so that it is not taken for text yet
        f.opcode = opcode & 15
        f.compressed = True
        return ST_OK
    return ws_message(c, buf, total, opcode, f)


cdef int ws_close_gap(codec_t *c, uint8_t *buf, frame_t *f) noexcept nogil:
    """Give the spent octets back, or empty fragments and pings could make the input grow without end."""
    memmove(buf + c.asm_gap, buf, c.asm_len)
    f.kind = FRAME_NONE
    f.opcode = 0
    f.payload = NULL
    f.length = 0
    f.consumed = c.asm_gap
    c.asm_gap = 0
    return ST_OK


cdef int ws_packed(codec_t *c, uint8_t *buf, size_t avail, frame_t *f) noexcept nogil:
    """A frame with reserved bits: the first one of a compressed message (RFC 7692 6: RSV1), or a violation.

    It is read like any other, with RSV1 taken off, under the limit for compressed messages and never as text: so
    compression costs nothing where there is none. No message is being put together, so the frame begins at buf.
    """
    cdef codec_t as_it_was = c[0]
    cdef int status
    if not c.flags & CF_DEFLATE or not ws_is_packed(buf[0] & 0x7F):
        return ST_PROTOCOL
    buf[0] ^= OP_RSV1
    c.flags &= ~<uint16_t>CF_VALIDATE_UTF8
    c.max_message = ws_packed_max(c.max_message)
    status = ws_next(c, buf, avail, f)
    c.flags = as_it_was.flags
    c.max_message = as_it_was.max_message
    if status == ST_MORE:
        buf[0] ^= OP_RSV1                                    # it is read once more when there is more of it
    elif status > 0 and f.kind == FRAME_MESSAGE:
        f.compressed = True
    elif status > 0:
        c.asm_op |= OP_RSV1
    return status


cdef int ws_next(codec_t *c, uint8_t *buf, size_t avail, frame_t *f) noexcept nogil:
    """frame_next of WebSocket; see framing.pxi."""
    cdef size_t base = c.asm_len + c.asm_gap
    cdef uint8_t *p = buf + base
    cdef size_t head = 2
    cdef uint64_t n = 0
    cdef uint32_t key = 0
    cdef int status
    if c.asm_gap >= ASM_GAP_MAX and c.asm_gap >= c.asm_len:  # moves at most as many octets as were received for it
        return ws_close_gap(c, buf, f)
    f.need = base + 2
    if avail < base + 2:
        return ST_MORE
    if p[0] & 0x70:                                          # RSV: no other extension is ever negotiated
        return ws_packed(c, buf, avail, f) if base == 0 else ST_PROTOCOL
    status = ws_check(c, p[0], p[1])
    if status < 0:
        return status
    status = ws_length(p, avail - base, &n, &head)
    if status <= 0:
        f.need = base + head
        return status
    if not p[0] & 8 and ws_is_too_big(c, n):
        return ST_TOO_BIG
    if n > ((<size_t>0 - 1) >> 1) - avail:                   # cannot be held; also keeps the next sums from wrapping
        return ST_TOO_BIG
    if p[1] & 0x80:
        head += 4
    f.need = base + head + <size_t>n
    if avail < f.need:
        return ST_MORE
    if p[1] & 0x80 and c.flags & CF_APPLY_MASK:
        key = load_le32(p + head - 4)
    if not p[0] & 8 and (c.asm_op or not p[0] & 0x80):
        return ws_fragment(c, buf, p, head, <size_t>n, key, f)
    if key:                                                  # a client end gets none: no pass over the payload
        mask_xor(p + head, <size_t>n, key, 0)
    if p[0] & 8:
        return ws_control(c, p, head, <size_t>n, f)
    f.consumed = f.need
    return ws_message(c, p + head, <size_t>n, p[0] & 15, f)


cdef inline int ws_head_len(const codec_t *c, size_t n) noexcept nogil:
    """Octets of the header of an outgoing frame with n octets of payload."""
    cdef int mask = 4 if c.flags & CF_MASK_OUT else 0
    if n < 126:
        return 2 + mask
    return (4 if n < 65536 else 10) + mask


cdef int ws_head_put(const codec_t *c, uint8_t *dst, size_t n, uint8_t opcode, uint32_t key, bint fin) noexcept nogil:
    """Write a header at dst; its length, or ST_PROTOCOL for a frame that RFC 6455 does not know.

    opcode: OP_RSV1 is added for the first frame of a compressed message.
    """
    cdef uint8_t mask = 0x80 if c.flags & CF_MASK_OUT else 0
    cdef int head = 2
    if opcode & 8:
        if opcode > OP_PONG or n > CONTROL_PAYLOAD_MAX or not fin:
            return ST_PROTOCOL
    elif opcode > OP_BINARY and not (c.flags & CF_DEFLATE and ws_is_packed(opcode)):
        return ST_PROTOCOL
    dst[0] = opcode | (0x80 if fin else 0)
    if n < 126:
        dst[1] = mask | <uint8_t>n
    elif n < 65536:
        dst[1] = mask | 126
        store_be16(dst + 2, <uint16_t>n)
        head = 4
    else:
        dst[1] = mask | 127
        store_be64(dst + 2, n)
        head = 10
    if mask:
        store_le32(dst + head, key)
        head += 4
    return head


cdef inline bint ws_is_close_code(unsigned int code) noexcept nogil:
    """True if a peer may send this code: RFC 6455 7.4.1, the IANA registry (1012-1014), 7.4.2 (3000-4999)."""
    if code >= 3000:
        return code <= 4999
    return 1000 <= code <= 1003 or 1007 <= code <= 1014


cdef int ws_close_parse(const uint8_t *payload, size_t n, uint16_t *code, const uint8_t **reason,
                        size_t *reason_len) noexcept nogil:
    """Code and reason of a close frame (RFC 6455 5.5.1, 7.1.5); 1005 if it has none. The reason is borrowed."""
    code[0] = 1005
    reason[0] = payload
    reason_len[0] = 0
    if n == 0:
        return ST_OK
    if n == 1 or not ws_is_close_code(load_be16(payload)):
        return ST_PROTOCOL
    if not utf8_is_valid(payload + 2, n - 2):
        return ST_UTF8
    code[0] = load_be16(payload)
    reason[0] = payload + 2
    reason_len[0] = n - 2
    return ST_OK


cdef uint16_t ws_close_code(int status) noexcept nogil:
    """The close code that tells the peer why (RFC 6455 7.4.1): of framing, of the gate (1002), of our own (1011)."""
    if status == ST_UTF8:
        return 1007
    if status == ST_TOO_BIG:
        return 1009
    if status == ST_DATA_TYPE:
        return 1003
    if status == ST_PROTOCOL or ST_FORBIDDEN <= status <= ST_MALFORMED:
        return 1002
    return 1011
