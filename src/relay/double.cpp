/* double.cpp - decimal text of doubles, by the C++ library: C has no shortest form, and its strtod() obeys the locale.
 *
 * The one C++ file of the extension. It allocates nothing and throws nothing, and is built without exceptions.
 */
#include "relay/double.h"

#include <charconv>
#include <cmath>
#include <cstddef>
#include <system_error>

namespace {

/* Between these, as JavaScript and Python write them, fixed notation reads better than an exponent. */
constexpr double FIXED_MIN = 1e-4;
constexpr double FIXED_MAX = 1e16;

/* Numbers with up to this many decimals are written without the library's help, which takes several times as long. */
constexpr int DECIMALS_MAX = 4;
constexpr double POWERS[DECIMALS_MAX + 1] = {1, 10, 100, 1000, 10000};
constexpr double SHORT_MAX = 1e11;

/* An exponent is read up to here; the digits of no message make good for more. */
constexpr long EXPONENT_MAX = 1000000000000L;

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Write a value that has few decimals; 0: it has not.
 *
 * When an integer of at most 15 digits, divided by a power of ten, is the value, then both are exact and the division
 * is rounded to nearest: the text of that fraction reads as the value. No shorter one does, because different decimals
 * of up to 15 digits are different doubles, and all with fewer decimals have been tried.
 */
std::size_t short_text(double value, char *to)
{
    double size = std::fabs(value);
    char *p = to;
    if (!(size >= FIXED_MIN && size < SHORT_MAX))
        return 0;
    for (int decimals = 0; decimals <= DECIMALS_MAX; decimals++) {
        long long digits = static_cast<long long>(size * POWERS[decimals] + 0.5);
        if (static_cast<double>(digits) / POWERS[decimals] != size)
            continue;
        long long power = static_cast<long long>(POWERS[decimals]);
        if (std::signbit(value))
            *p++ = '-';
        p = std::to_chars(p, p + DOUBLE_TEXT_MAX / 2, digits / power).ptr;
        *p++ = '.';
        for (digits %= power; power > 10; power /= 10)
            *p++ = static_cast<char>('0' + digits / (power / 10) % 10);
        *p++ = static_cast<char>('0' + digits % 10);
        return static_cast<std::size_t>(p - to);
    }
    return 0;
}

/* Is the number, whose absolute value is no double, too large rather than too small? Only the place of its first
 * digit that is not 0 counts. */
bool is_large(const char *p, const char *end)
{
    long place = 0;                 /* digits between the first one that is not 0 and the point; < 0: behind it */
    long exponent = 0;
    bool is_behind = false, has_begun = false;
    for (; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            is_behind = true;
        } else if (is_digit(*p)) {
            has_begun = has_begun || *p != '0';
            if (has_begun && !is_behind)
                place++;
            else if (!has_begun && is_behind)
                place--;
        }
    }
    if (p < end) {
        bool is_negative = ++p < end && *p == '-';
        for (; p < end; p++)
            if (is_digit(*p) && exponent < EXPONENT_MAX)
                exponent = exponent * 10 + (*p - '0');
        if (is_negative)
            exponent = -exponent;
    }
    return place + exponent > 0;
}

}  // namespace

size_t double_to_text(double value, char *to) noexcept
{
    double size = std::fabs(value);
    std::size_t length = short_text(value, to);
    if (length != 0)
        return length;
    bool is_fixed = size == 0 || (size >= FIXED_MIN && size < FIXED_MAX);
    char *end = to + DOUBLE_TEXT_MAX - 2;
    std::to_chars_result done =
        std::to_chars(to, end, value, is_fixed ? std::chars_format::fixed : std::chars_format::scientific);
    if (done.ec != std::errc())
        return 0;                   /* cannot be: the longest text has 24 octets */
    if (is_fixed) {
        for (const char *p = to; p < done.ptr; p++)
            if (*p == '.')
                return static_cast<size_t>(done.ptr - to);
        *done.ptr++ = '.';
        *done.ptr++ = '0';
    }
    return static_cast<size_t>(done.ptr - to);
}

int double_from_text(const char *from, size_t n, double *value) noexcept
{
    const char *end = from + n;
    std::from_chars_result done = std::from_chars(from, end, *value);
    if (done.ec == std::errc())
        return done.ptr == end && std::isfinite(*value);
    if (done.ec != std::errc::result_out_of_range || is_large(from, end))
        return 0;
    *value = n != 0 && *from == '-' ? -0.0 : 0.0;
    return 1;
}
