# probe_translate.pxi - the translation for tests and benchmarks. Nothing of the proxy uses these. Part of proxy._relay.

_translate_statuses = {
    ST_UNTRANSLATABLE: "ST_UNTRANSLATABLE", ST_TOO_BIG: "ST_TOO_BIG", ST_DEPTH: "ST_DEPTH",
    ST_MALFORMED: "ST_MALFORMED", ST_NOMEM: "ST_NOMEM",
}


def probe_translate(int source, int target, data, size_t limit=0, unsigned long repeat=1):
    """The one value ``data`` (any buffer) of one serializer in another one.

    :param limit: octets that the result may have; 0: any number.
    :param repeat: how often to do it, for benchmarks.
    :raise ValueError: "<name of the status>: <what went wrong>".
    """
    cdef Py_buffer view
    cdef sink_t sink
    cdef const char *why = NULL
    cdef unsigned long i
    cdef int status = 0
    memset(&sink, 0, sizeof(sink))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        for i in range(repeat):
            sink_reset(&sink, limit)
            status = translate(
                <uint8_t>source, <uint8_t>target, <const uint8_t *>view.buf, <size_t>view.len, &sink, &why
            )
    PyBuffer_Release(&view)
    try:
        if status < 0:
            raise ValueError(f"{_translate_statuses[status]}: {why.decode()}")
        return (<char *>sink_ptr(&sink))[:sink.len]
    finally:
        sink_free(&sink)
