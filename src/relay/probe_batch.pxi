# probe_batch.pxi - batches for tests and benchmarks. Nothing of the proxy uses this. Part of proxy._relay.


cdef class probe_batch:
    """One connection's batches. serializer: SER_*."""

    cdef codec_t codec

    def __init__(self, int serializer):
        self.codec.kind = CODEC_WS
        self.codec.serializer = <uint8_t>serializer
        self.codec.flags = CF_BATCHED

    @property
    def separator(self):
        """The octet after each JSON message of ours."""
        return batch_separator(&self.codec)

    def take(self, bytes data):
        """The messages of a batch. Raises ValueError with the name of the status and the messages before it."""
        cdef frame_t f
        cdef size_t start = 0
        cdef size_t n = len(data)
        cdef list found = []
        cdef int status
        cdef uint8_t *buf = <uint8_t *>mem_alloc(n)
        if buf == NULL:
            raise MemoryError
        memset(&f, 0, sizeof(f))
        memcpy(buf, <const char *>data, n)
        try:
            status = batch_open(&self.codec, buf, n)
            while status > 0 and self.codec.batch_left:
                status = batch_next(&self.codec, buf + start, &f)
                if status > 0:
                    found.append((<char *>f.payload)[:f.length])
                    start += f.consumed
            if status <= 0:
                self.codec.batch_left = 0
                raise ValueError(PROBE_STATUS[status], found)
            if start != n:
                raise ValueError("consumed", start)
        finally:
            mem_free(buf)
        return found

    def walk(self, const unsigned char[::1] data):
        """Number of messages in a good batch; makes no objects."""
        cdef frame_t f
        cdef size_t start = 0, count = 0
        cdef int status = batch_open(&self.codec, &data[0], data.shape[0])
        memset(&f, 0, sizeof(f))
        while status > 0 and self.codec.batch_left:
            status = batch_next(&self.codec, <uint8_t *>&data[0] + start, &f)
            start += f.consumed
            count += 1
        if status <= 0:
            raise ValueError(PROBE_STATUS[status])
        return count

    def put(self, list messages, size_t limit=0):
        """One batch of these messages. Raises ValueError with the name of the status and the octets before it."""
        cdef sink_t out
        cdef int status = ST_OK
        cdef bytes message
        memset(&out, 0, sizeof(out))
        sink_reset(&out, limit)
        for message in messages:
            status = batch_put(&self.codec, &out, <const uint8_t *><const char *>message, len(message))
            if status < 0:
                break
        data = (<char *>sink_ptr(&out))[:out.len] if out.len else b""
        sink_free(&out)
        if status < 0:
            raise ValueError(PROBE_STATUS[status], data)
        return data
