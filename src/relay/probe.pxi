# probe.pxi - Python wrappers over the sans-IO parts, for tests and micro-benchmarks only. Part of proxy._relay.
#
# Names instead of numbers wherever a test reads better with them. Buffers have the exact size of their content, so that
# a sanitizer sees an access of even one octet past the end.

PROBE_STATUS = {
    ST_OK: "ST_OK", ST_MORE: "ST_MORE", ST_PROTOCOL: "ST_PROTOCOL", ST_UTF8: "ST_UTF8", ST_TOO_BIG: "ST_TOO_BIG",
    ST_DATA_TYPE: "ST_DATA_TYPE", ST_MALFORMED: "ST_MALFORMED", ST_TRUNCATED: "ST_TRUNCATED",
    ST_TRAILING: "ST_TRAILING", ST_DEPTH: "ST_DEPTH", ST_AMBIGUOUS: "ST_AMBIGUOUS", ST_FORBIDDEN: "ST_FORBIDDEN",
    ST_NOMEM: "ST_NOMEM", ST_IO: "ST_IO", ST_EOF: "ST_EOF",
    ST_DEADLINE: "ST_DEADLINE", ST_UNTRANSLATABLE: "ST_UNTRANSLATABLE", ST_WAIT: "ST_WAIT",
}
PROBE_KINDS = {FRAME_MESSAGE: "message", FRAME_PING: "ping", FRAME_PONG: "pong", FRAME_CLOSE: "close"}
PROBE_SERIALIZERS = {"json": SER_JSON, "msgpack": SER_MSGPACK, "cbor": SER_CBOR, "": SER_NONE}


class FrameError(Exception):
    """A frame was refused.

    status: name of the ST_* value; close_code: what WebSocket tells the peer; frames: those found before it.
    """

    def __init__(self, int status, frames=()):
        self.status = PROBE_STATUS[status]
        self.close_code = ws_close_code(status)
        self.frames = frames
        super().__init__(self.status, self.close_code)


cdef class FrameCodec:
    """frame_next and frame_put over a buffer of its own.

    kind: "websocket" or "rawsocket"; client: this is the client end; serializer: "json", "msgpack", "cbor" or "" (any
    opcode); sizes in octets, 0 for no limit. deflate: permessage-deflate was negotiated; a message whose opcode has
    OP_RSV1 (64) added is compressed, and its payload is not looked at. Of the masking options only ``mask_out`` depends
    on the end by default.
    """

    cdef codec_t codec
    cdef uint8_t *buf
    cdef size_t size
    cdef readonly size_t need            # octets in all that the last feed() left wanting

    def __init__(self, str kind="websocket", *, bint client=False, str serializer="cbor", bint require_mask=True,
                 mask_out=None, bint apply_mask=True, bint validate_utf8=True, bint any_opcode=False,
                 bint deflate=False, uint64_t max_frame=0, uint64_t max_message=0):
        self.codec.kind = {"websocket": CODEC_WS, "rawsocket": CODEC_RS}[kind]
        self.codec.serializer = PROBE_SERIALIZERS[serializer]
        self.codec.max_frame = max_frame
        self.codec.max_message = max_message
        if client:
            self.codec.flags |= CF_CLIENT
        elif require_mask:
            self.codec.flags |= CF_REQUIRE_MASK
        if client if mask_out is None else mask_out:
            self.codec.flags |= CF_MASK_OUT
        if apply_mask:
            self.codec.flags |= CF_APPLY_MASK
        if validate_utf8:
            self.codec.flags |= CF_VALIDATE_UTF8
        if any_opcode or not serializer:
            self.codec.flags |= CF_ANY_OPCODE
        if deflate:
            self.codec.flags |= CF_DEFLATE

    def __dealloc__(self):
        mem_free(self.buf)

    @property
    def pending(self):
        """Octets that are held: of an unfinished frame, and of a message whose fragments are being put together."""
        return self.size

    cdef int resize(self, size_t size) except -1:
        cdef uint8_t *buf = <uint8_t *>mem_realloc(self.buf, size or 1)
        if buf == NULL:
            raise MemoryError
        self.buf = buf
        self.size = size
        return 0

    def feed(self, bytes data):
        """Append received octets; all frames that are whole now, as (kind, opcode, payload). Raises FrameError."""
        cdef frame_t f
        cdef size_t start = 0
        cdef int status
        cdef list found = []
        memset(&f, 0, sizeof(f))
        self.resize(self.size + <size_t>len(data))
        memcpy(self.buf + self.size - len(data), <const char *>data, len(data))
        while True:
            status = frame_next(&self.codec, self.buf + start, self.size - start, &f)
            if status <= 0:
                break
            if f.kind != FRAME_NONE:
                opcode = f.opcode | (OP_RSV1 if f.kind == FRAME_MESSAGE and f.compressed else 0)
                found.append((PROBE_KINDS[f.kind], opcode, (<char *>f.payload)[:f.length]))
            start += f.consumed
        if status < 0:
            raise FrameError(status, found)
        self.need = f.need
        memmove(self.buf, self.buf + start, self.size - start)
        self.resize(self.size - start)
        return found

    def walk(self, unsigned char[::1] data):
        """Number of frames in data, which is unmasked in place and must end with a whole frame; makes no objects."""
        cdef frame_t f
        cdef size_t start = 0, size = data.shape[0], count = 0
        cdef int status = ST_OK
        while start < size and status > 0:
            status = frame_next(&self.codec, <uint8_t *>&data[0] + start, size - start, &f)
            start += f.consumed
            count += 1
        if status <= 0:
            raise FrameError(status)
        return count

    def put(self, bytes payload, int opcode, *, bytes key=b"\0\0\0\0", bint fin=True):
        """One outgoing frame. Raises FrameError."""
        cdef size_t n = len(payload)
        cdef uint32_t k = load_le32(<const uint8_t *><const char *>key)
        cdef int head
        cdef uint8_t *buf = <uint8_t *>mem_alloc(WS_HEADER_MAX + n)
        if buf == NULL:
            raise MemoryError
        try:
            memcpy(buf + WS_HEADER_MAX, <const char *>payload, n)
            if fin:
                head = frame_put(&self.codec, buf + WS_HEADER_MAX, n, opcode, k)
            else:
                head = frame_head_len(&self.codec, n)
                head = frame_head_put_fin(&self.codec, buf + WS_HEADER_MAX - head, n, opcode, k, False)
                if head > 0 and self.codec.flags & CF_MASK_OUT and self.codec.flags & CF_APPLY_MASK:
                    mask_xor(buf + WS_HEADER_MAX, n, k, 0)
            if head < 0:
                raise FrameError(head)
            return (<char *>buf + WS_HEADER_MAX - head)[:head + n]
        finally:
            mem_free(buf)


def ws_close_read(bytes payload):
    """(code, reason) of a close frame's payload. Raises FrameError."""
    cdef uint16_t code = 0
    cdef const uint8_t *reason = NULL
    cdef size_t size = 0
    cdef int status = ws_close_parse(<const uint8_t *><const char *>payload, len(payload), &code, &reason, &size)
    if status < 0:
        raise FrameError(status)
    return code, (<const char *>reason)[:size]


def ws_close_codes():
    """The close code of every status, by name."""
    return {name: ws_close_code(status) for status, name in PROBE_STATUS.items()}


def rs_hello_read(bytes data, int serializers):
    """Server end: (status, serializer, max_out, error) of a handshake of 4 octets; serializers is a set of bits."""
    cdef uint8_t serializer = 0, error = 0
    cdef uint32_t max_out = 0
    cdef int status = rs_hello_parse(<const uint8_t *><const char *>data, serializers, &serializer, &max_out, &error)
    return PROBE_STATUS[status], serializer, max_out, error


def rs_reply_read(bytes data, int serializer):
    """Client end: (status, max_out, error) of a reply of 4 octets."""
    cdef uint8_t error = 0
    cdef uint32_t max_out = 0
    cdef int status = rs_reply_parse(<const uint8_t *><const char *>data, serializer, &max_out, &error)
    return PROBE_STATUS[status], max_out, error


def rs_hello_write(int serializer, uint32_t max_in):
    """A handshake, or its positive reply."""
    cdef uint8_t out[RS_HEADER_LEN]
    rs_hello_put(out, serializer, max_in)
    return (<char *>out)[:RS_HEADER_LEN]


def rs_error_write(int error):
    """A negative reply."""
    cdef uint8_t out[RS_HEADER_LEN]
    rs_error_put(out, error)
    return (<char *>out)[:RS_HEADER_LEN]


def mask_into(unsigned char[::1] data, bytes key, unsigned int phase=0):
    """mask_xor of data in place; key: 4 octets."""
    if data.shape[0]:
        mask_xor(&data[0], data.shape[0], load_le32(<const uint8_t *><const char *>key), phase)


def mask_moved(bytes data, bytes key, unsigned int phase=0, size_t gap=0):
    """mask_copy of data to ``gap`` octets before its own place."""
    cdef size_t n = len(data)
    cdef uint8_t *buf = <uint8_t *>mem_alloc(gap + n or 1)
    if buf == NULL:
        raise MemoryError
    try:
        memset(buf, 0, gap)
        memcpy(buf + gap, <const char *>data, n)
        mask_copy(buf, buf + gap, n, load_le32(<const uint8_t *><const char *>key), phase)
        return (<char *>buf)[:n]
    finally:
        mem_free(buf)


def utf8_valid(bytes data):
    """utf8_is_valid of data."""
    return bool(utf8_is_valid(<const uint8_t *><const char *>data, len(data)))
