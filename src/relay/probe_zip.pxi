# probe_zip.pxi - permessage-deflate for tests and benchmarks. Nothing of the proxy uses this. Part of proxy._relay.

cimport cython


cdef class probe_zips:
    """What the connections of one loop share."""

    cdef zips_t shared
    cdef uint64_t counted

    def __init__(self):
        self.shared.octets = &self.counted

    def __dealloc__(self):
        zips_free(&self.shared)
        relay_assert(self.counted == 0)

    @property
    def octets(self):
        """Memory of all streams: of the loop and of its connections."""
        return self.counted


@cython.no_gc_clear                # the loop's streams must not go before the connection's
cdef class probe_zip:
    """zip_inflate and zip_deflate of one connection. loop: what it shares with others; by default nobody else does.

    Raises ValueError for what zip_open refuses.
    """

    cdef readonly probe_zips loop
    cdef zip_t *zip
    cdef sink_t out

    def __init__(self, int inflate_bits=15, *, bint inflate_reset=False, int deflate_bits=15, bint deflate_reset=False,
                 int mem_level=8, probe_zips loop=None):
        self.loop = probe_zips() if loop is None else loop
        self.zip = zip_open(&self.loop.shared, inflate_bits, inflate_reset, deflate_bits, deflate_reset, mem_level)
        if self.zip == NULL:
            raise ValueError("zip_open")

    def __dealloc__(self):
        sink_free(&self.out)
        zip_close(self.zip)

    @property
    def octets(self):
        """Memory of all streams of the loop."""
        return self.loop.counted

    @property
    def held(self):
        """Octets of memory that the last message's output takes."""
        return self.out.cap

    def inflate(self, data, size_t limit=0):
        """One message (any buffer) of at most ``limit`` octets, inflated (0: any). ValueError with the status' name."""
        return self._run(data, limit, False)

    def deflate(self, data, size_t limit=0):
        """One message (any buffer), compressed. ValueError with the status' name."""
        return self._run(data, limit, True)

    def again(self, data, bint deflate, unsigned long repeat=1):
        """As inflate() or deflate(), ``repeat`` times without making objects; the size of the last output."""
        cdef Py_buffer view
        cdef int status = ST_OK
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        with nogil:
            while repeat and status > 0:
                status = self._one(<const uint8_t *>view.buf, <size_t>view.len, 0, deflate)
                repeat -= 1
        PyBuffer_Release(&view)
        if status < 0:
            raise ValueError(PROBE_STATUS[status])
        return self.out.len

    cdef int _one(self, const uint8_t *p, size_t n, size_t limit, bint deflate) noexcept nogil:
        sink_reset(&self.out, limit)
        return zip_deflate(self.zip, p, n, &self.out) if deflate else zip_inflate(self.zip, p, n, &self.out)

    def _run(self, data, size_t limit, bint deflate):
        cdef Py_buffer view
        cdef int status
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        with nogil:
            status = self._one(<const uint8_t *>view.buf, <size_t>view.len, limit, deflate)
        PyBuffer_Release(&view)
        if status < 0:
            raise ValueError(PROBE_STATUS[status])
        return (<char *>sink_ptr(&self.out))[:self.out.len] if self.out.len else b""
