# mask.pxd - declarations of mask.h: RFC 6455 5.3 masking.

from libc.stdint cimport uint8_t, uint32_t


cdef extern from "relay/mask.h" nogil:
    void mask_xor(uint8_t *p, size_t n, uint32_t key, unsigned int phase) noexcept
    void mask_copy(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key, unsigned int phase) noexcept
