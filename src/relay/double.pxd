# double.pxd - declarations of double.h: doubles as decimal text and back.


cdef extern from "relay/double.h" nogil:
    size_t double_to_text(double value, char *to) noexcept
    int double_from_text(const char *from_, size_t n, double *value) noexcept
