# probe_wamp.pxi - scanners and gate for tests and benchmarks. Nothing of the proxy uses these. Part of proxy._relay.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer


def probe_scan(int serializer, data):
    """Walk the one value at the start of ``data`` (any buffer): its length in octets, or ST_* < 0.

    :raise ValueError: unknown serializer.
    """
    cdef Py_buffer view
    cdef ssize_t length = 0
    cdef uint32_t type = 0
    if not SER_JSON <= serializer <= SER_FLATBUFFERS:
        raise ValueError(f"serializer {serializer}: expected {SER_JSON} to {SER_FLATBUFFERS}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    if serializer == SER_JSON:
        length = scan_json(<const uint8_t *>view.buf, <size_t>view.len)
    elif serializer == SER_MSGPACK:
        length = scan_msgpack(<const uint8_t *>view.buf, <size_t>view.len)
    elif serializer == SER_CBOR:
        length = scan_cbor(<const uint8_t *>view.buf, <size_t>view.len)
    elif serializer == SER_UBJSON:
        length = scan_ubjson(<const uint8_t *>view.buf, <size_t>view.len)
    else:
        length = scan_flatbuffers(<const uint8_t *>view.buf, <size_t>view.len, &type)
    PyBuffer_Release(&view)
    return length


def probe_wamp_plan(int serializer, int direction, data, unsigned long repeat=1):
    """Put ``data`` (any buffer) through the gate ``repeat`` times: (PLAN_* or ST_* < 0, message type, elements)."""
    cdef Py_buffer view
    cdef wamp_t w = wamp_t(type=0, elements=0)
    cdef unsigned long i
    cdef int status = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        for i in range(repeat):
            status = wamp_plan(<uint8_t>serializer, <uint8_t>direction, <const uint8_t *>view.buf, <size_t>view.len, &w)
    PyBuffer_Release(&view)
    return status, w.type, w.elements


def probe_wamp_type(int serializer, data):
    """Read the type of the message ``data`` (any buffer): (ST_OK or ST_* < 0, message type, elements)."""
    cdef Py_buffer view
    cdef wamp_t w = wamp_t(type=0, elements=0)
    cdef int status
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    status = wamp_type(<uint8_t>serializer, <const uint8_t *>view.buf, <size_t>view.len, &w)
    PyBuffer_Release(&view)
    return status, w.type, w.elements
