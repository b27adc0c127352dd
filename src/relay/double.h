/* double.h - doubles as decimal text and back, shortest form and exact, whatever the locale. See double.cpp. */
#ifndef PROXY_RELAY_DOUBLE_H
#define PROXY_RELAY_DOUBLE_H

#include <stddef.h>

#define DOUBLE_TEXT_MAX 32

#define DOUBLE_HIDDEN __attribute__((visibility("hidden")))

#ifdef __cplusplus
extern "C" {
#define DOUBLE_NOEXCEPT noexcept
#else
#define DOUBLE_NOEXCEPT
#endif

/* Write a finite value as JSON number at `to` (room for DOUBLE_TEXT_MAX octets) and return its length. The text has
 * the fewest digits that read back as the same value, and a fraction or an exponent: it never reads as an integer. */
DOUBLE_HIDDEN size_t double_to_text(double value, char *to) DOUBLE_NOEXCEPT;

/* Read the JSON number in the n octets at `from`, rounded to nearest; what is too small is zero.
 * Return 1; 0: beyond the range of a double, or no number. */
DOUBLE_HIDDEN int double_from_text(const char *from, size_t n, double *value) DOUBLE_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
