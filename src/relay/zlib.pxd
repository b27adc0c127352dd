# zlib.pxd - what deflate.pxi uses of zlib (1.2.11 or later; zlib-ng in its compatible form will do).

from libc.stdint cimport uint8_t

cdef extern from "<zlib.h>" nogil:
    ctypedef struct z_stream:
        uint8_t *next_in
        unsigned int avail_in
        uint8_t *next_out
        unsigned int avail_out
        void *(*zalloc)(void *opaque, unsigned int items, unsigned int size) noexcept nogil
        void (*zfree)(void *opaque, void *p) noexcept nogil
        void *opaque
        int data_type              # after inflate(): 128 for "between two blocks" + unused bits of the last octet + ..
    enum:
        Z_OK
        Z_STREAM_END
        Z_BUF_ERROR
        Z_MEM_ERROR
        Z_SYNC_FLUSH
        Z_DEFLATED
        Z_DEFAULT_STRATEGY
    int inflateInit2(z_stream *s, int window_bits)
    int inflate(z_stream *s, int flush)
    int inflateReset(z_stream *s)
    int inflateResetKeep(z_stream *s)                  # as inflateReset, but the window stays
    int inflateEnd(z_stream *s)
    int deflateInit2(z_stream *s, int level, int method, int window_bits, int mem_level, int strategy)
    int deflate(z_stream *s, int flush)
    int deflateReset(z_stream *s)
    int deflateEnd(z_stream *s)
