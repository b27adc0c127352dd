# bytes.pxd - declarations of bytes.h: integers in wire order at any alignment.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "relay/bytes.h" nogil:
    uint16_t load_be16(const uint8_t *p) noexcept
    uint32_t load_be24(const uint8_t *p) noexcept
    uint32_t load_be32(const uint8_t *p) noexcept
    uint64_t load_be64(const uint8_t *p) noexcept
    uint16_t load_le16(const uint8_t *p) noexcept
    uint32_t load_le32(const uint8_t *p) noexcept
    uint64_t load_le64(const uint8_t *p) noexcept
    void store_be16(uint8_t *p, uint16_t x) noexcept
    void store_be24(uint8_t *p, uint32_t x) noexcept
    void store_be32(uint8_t *p, uint32_t x) noexcept
    void store_be64(uint8_t *p, uint64_t x) noexcept
    void store_le32(uint8_t *p, uint32_t x) noexcept
    void store_le64(uint8_t *p, uint64_t x) noexcept
