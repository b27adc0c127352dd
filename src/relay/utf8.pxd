# utf8.pxd - declarations of utf8.h: strict UTF-8 validation.

from libc.stdint cimport uint8_t


cdef extern from "relay/utf8.h" nogil:
    bint utf8_is_valid(const uint8_t *p, size_t n) noexcept
