# rawsocket.pxi - WAMP RawSocket handshake and frames, sans-IO. Part of proxy._relay (see src/_relay.pyx).
#
# WAMP specification, Advanced Profile, "RawSocket Transport". Handshake, 4 octets each way: 0x7F, LLLL SSSS, 0, 0.
# Frame: RRRR XTTT, 24 bits of length; X is the 25th bit of the length, only ever used for exactly 2^24.

cdef enum:
    RS_MAGIC = 0x7F
    RS_EXPONENT_MIN = 9            # LLLL = 0 means 2^9 octets
    RS_ERROR_NONE = 0              # not RawSocket at all: nothing to answer
    RS_ERROR_SERIALIZER = 1
    RS_ERROR_RESERVED = 3
    RS_TYPE_MESSAGE = 0
    RS_TYPE_PING = 1
    RS_TYPE_PONG = 2


cdef inline uint8_t rs_size_code(uint32_t max_in) noexcept nogil:
    """LLLL: the smallest for which 2^(9+LLLL) >= max_in. 0 (no limit) and all above 2^24 give 15."""
    cdef uint8_t code = 0
    if max_in == 0 or max_in > RS_LENGTH_MAX:
        return 15
    while (<uint32_t>1 << (RS_EXPONENT_MIN + code)) < max_in:
        code += 1
    return code


cdef inline uint32_t rs_size(uint8_t code) noexcept nogil:
    """Octets that LLLL stands for."""
    return <uint32_t>1 << (RS_EXPONENT_MIN + code)


cdef int rs_hello_parse(const uint8_t *p, uint32_t serializers, uint8_t *serializer, uint32_t *max_out,
                        uint8_t *error) noexcept nogil:
    """Server end: read a client's handshake. serializers: bits 1 << SER_*; *error: EEEE to answer with, 0 for none."""
    error[0] = RS_ERROR_NONE
    if p[0] != RS_MAGIC:
        return ST_PROTOCOL
    if p[2] | p[3]:
        error[0] = RS_ERROR_RESERVED
        return ST_PROTOCOL
    serializer[0] = p[1] & 15
    if serializer[0] == SER_NONE or not serializers >> serializer[0] & 1:
        error[0] = RS_ERROR_SERIALIZER
        return ST_PROTOCOL
    max_out[0] = rs_size(p[1] >> 4)
    return ST_OK


cdef int rs_reply_parse(const uint8_t *p, uint8_t serializer, uint32_t *max_out, uint8_t *error) noexcept nogil:
    """Client end: read the router's reply to a handshake for ``serializer``. *error: EEEE as the router gave it.

    A reply that names another serializer or uses reserved octets counts as the error of the same meaning.
    """
    error[0] = RS_ERROR_NONE
    if p[0] != RS_MAGIC:
        return ST_PROTOCOL
    if p[1] & 15 == 0:
        error[0] = p[1] >> 4
        return ST_PROTOCOL
    if p[1] & 15 != serializer:
        error[0] = RS_ERROR_SERIALIZER
        return ST_PROTOCOL
    if p[2] | p[3]:
        error[0] = RS_ERROR_RESERVED
        return ST_PROTOCOL
    max_out[0] = rs_size(p[1] >> 4)
    return ST_OK


cdef void rs_hello_put(uint8_t *dst, uint8_t serializer, uint32_t max_in) noexcept nogil:
    """Write a handshake or its positive reply; max_in, rounded up to the next 2^(9+L), is the longest we take."""
    dst[0] = RS_MAGIC
    dst[1] = rs_size_code(max_in) << 4 | (serializer & 15)
    dst[2] = 0
    dst[3] = 0


cdef void rs_error_put(uint8_t *dst, uint8_t error) noexcept nogil:
    """Write a negative reply with EEEE = error."""
    dst[0] = RS_MAGIC
    dst[1] = (error & 15) << 4
    dst[2] = 0
    dst[3] = 0


cdef int rs_next(codec_t *c, uint8_t *buf, size_t avail, frame_t *f) noexcept nogil:
    """frame_next of RawSocket; see framing.pxi."""
    cdef size_t n
    cdef unsigned int kind
    f.need = RS_HEADER_LEN
    if avail < 1:
        return ST_MORE
    kind = buf[0] & 7
    if buf[0] & 0xF0 or kind > RS_TYPE_PONG:
        return ST_PROTOCOL
    if avail < RS_HEADER_LEN:
        return ST_MORE
    n = load_be24(buf + 1)
    if buf[0] & 8:
        if n:
            return ST_PROTOCOL
        n = RS_LENGTH_MAX
    if (n > c.max_frame and c.max_frame) or (n > c.max_message and c.max_message):
        return ST_TOO_BIG
    f.need = RS_HEADER_LEN + n
    if avail < f.need:
        return ST_MORE
    f.consumed = f.need
    f.payload = buf + RS_HEADER_LEN
    f.length = n
    if kind == RS_TYPE_MESSAGE:
        return ws_message(c, f.payload, n, ws_opcode(c), f)
    f.kind = FRAME_PING if kind == RS_TYPE_PING else FRAME_PONG
    f.opcode = OP_PING if kind == RS_TYPE_PING else OP_PONG
    return ST_OK


cdef int rs_head_put(uint8_t *dst, size_t n, uint8_t opcode, bint fin) noexcept nogil:
    """Write a header at dst; its length, ST_PROTOCOL for what RawSocket lacks, ST_TOO_BIG above 2^24 octets."""
    cdef uint8_t kind = RS_TYPE_MESSAGE
    if opcode == OP_PING:
        kind = RS_TYPE_PING
    elif opcode == OP_PONG:
        kind = RS_TYPE_PONG
    elif opcode != OP_TEXT and opcode != OP_BINARY:
        return ST_PROTOCOL
    if not fin:
        return ST_PROTOCOL
    if n >= RS_LENGTH_MAX:
        if n > RS_LENGTH_MAX:
            return ST_TOO_BIG
        kind |= 8
    store_be32(dst, <uint32_t>kind << 24 | <uint32_t>(n & 0xFFFFFF))
    return RS_HEADER_LEN
