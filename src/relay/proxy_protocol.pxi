# proxy_protocol.pxi - who a client is according to the balancer in front: the PROXY protocol, versions 1 and 2
# (HAProxy's specification of 2020/03/05). Part of proxy._relay (see src/_relay.pyx).

cdef extern from *:
    """
    #define PROXY_SIGNATURE "\\r\\n\\r\\n\\0\\r\\nQUIT\\n"
    """
    const char *PROXY_SIGNATURE    # of version 2: 12 octets


cdef int proxy_number(const uint8_t **p, const uint8_t *end, uint32_t top, uint32_t *value) noexcept nogil:
    """A decimal number without sign or leading zeros, and the blank or end behind it."""
    cdef const uint8_t *q = p[0]
    cdef uint32_t n = 0
    while q < end and 0x30 <= q[0] <= 0x39 and n <= top:
        n = n * 10 + q[0] - 0x30
        q += 1
    if q == p[0] or n > top or (q - p[0] > 1 and p[0][0] == 0x30):
        return ST_PROTOCOL
    if q < end:
        if q[0] != 0x20 or q + 1 == end:
            return ST_PROTOCOL
        q += 1
    p[0] = q
    value[0] = n
    return ST_OK


cdef int proxy_word(const uint8_t **p, const uint8_t *end, char *out, size_t room) noexcept nogil:
    """The text up to the next blank."""
    cdef const uint8_t *q = <const uint8_t *>memchr(p[0], 0x20, end - p[0])
    cdef size_t n
    if q == NULL:
        return ST_PROTOCOL
    n = q - p[0]
    if n == 0 or n >= room:
        return ST_PROTOCOL
    memcpy(out, p[0], n)
    out[n] = 0
    p[0] = q + 1
    return ST_OK


cdef size_t proxy_address(int family, const uint8_t *octets, uint16_t port, uint8_t *out) noexcept nogil:
    """The sockaddr of an address; its length."""
    cdef size_t n = 16 if family == AF_INET else 28
    cdef unsigned short tag = <unsigned short>family
    memset(out, 0, n)
    memcpy(out, &tag, 2)
    store_be16(out + 2, port)
    if family == AF_INET:
        memcpy(out + 4, octets, 4)
    else:
        memcpy(out + 8, octets, 16)
    return n


cdef int proxy_parse_text(const uint8_t *p, size_t n, uint8_t *out, size_t *out_len, size_t *taken) noexcept nogil:
    """Version 1: a line of text, at most 107 octets."""
    cdef const uint8_t *end = <const uint8_t *>memmem(p, n if n < 107 else 107, <const char *>"\r\n", 2)
    cdef char word[64]
    cdef uint8_t source[16]
    cdef uint8_t target[16]
    cdef uint32_t port = 0
    cdef uint32_t other = 0
    cdef int family
    if end == NULL:
        return ST_MORE if n < 107 else ST_PROTOCOL
    taken[0] = end - p + 2
    p += 6
    if end - p >= 7 and memcmp(p, <const char *>"UNKNOWN", 7) == 0 and (end - p == 7 or p[7] == 0x20):
        return ST_OK                                  # the balancer does not know either
    if proxy_word(&p, end, word, sizeof(word)) < 0:
        return ST_PROTOCOL
    if memcmp(word, <const char *>"TCP4", 5) == 0:
        family = AF_INET
    elif memcmp(word, <const char *>"TCP6", 5) == 0:
        family = AF_INET6
    else:
        return ST_PROTOCOL
    if proxy_word(&p, end, word, sizeof(word)) < 0 or inet_pton(family, word, source) != 1:
        return ST_PROTOCOL
    if proxy_word(&p, end, word, sizeof(word)) < 0 or inet_pton(family, word, target) != 1:
        return ST_PROTOCOL
    if proxy_number(&p, end, 65535, &port) < 0 or p == end or proxy_number(&p, end, 65535, &other) < 0 or p != end:
        return ST_PROTOCOL
    out_len[0] = proxy_address(family, source, <uint16_t>port, out)
    return ST_OK


cdef int proxy_parse_binary(const uint8_t *p, size_t n, uint8_t *out, size_t *out_len, size_t *taken) noexcept nogil:
    """Version 2: 16 octets and what they announce."""
    cdef size_t length
    if n < 16:
        return ST_MORE
    length = load_be16(p + 14)
    if p[12] >> 4 != 2 or (p[12] & 15) > 1 or 16 + length > PROXY_HEADER_MAX:
        return ST_PROTOCOL
    if n < 16 + length:
        return ST_MORE
    taken[0] = 16 + length
    if (p[12] & 15) == 0:
        return ST_OK                                  # LOCAL: the balancer itself, to see whether we live
    if p[13] == 0x11:
        if length < 12:
            return ST_PROTOCOL
        out_len[0] = proxy_address(AF_INET, p + 16, load_be16(p + 24), out)
    elif p[13] == 0x21:
        if length < 36:
            return ST_PROTOCOL
        out_len[0] = proxy_address(AF_INET6, p + 16, load_be16(p + 48), out)
    elif p[13] == 0x31:
        if length < 216:
            return ST_PROTOCOL
    elif p[13] >> 4 > 3 or (p[13] & 15) > 2:
        return ST_PROTOCOL
    return ST_OK                                      # of other kinds the address is not for us to use


cdef int proxy_parse(const uint8_t *p, size_t n, uint8_t *out, size_t *out_len, size_t *taken) noexcept nogil:
    """Read a header from its start.

    ST_OK: it takes `taken` octets; `out` (28 octets) holds a sockaddr of out_len octets, 0: the connection's own
    address is the client's. ST_MORE: it is not whole. ST_PROTOCOL: it is none.
    """
    cdef size_t k = n if n < 12 else 12
    out_len[0] = 0
    if n and memcmp(p, PROXY_SIGNATURE, k) == 0:
        return ST_MORE if n < 12 else proxy_parse_binary(p, n, out, out_len, taken)
    k = n if n < 6 else 6
    if memcmp(p, <const char *>"PROXY ", k) == 0:
        return ST_MORE if n < 6 else proxy_parse_text(p, n, out, out_len, taken)
    return ST_PROTOCOL


cdef bint network_has(const network_t *network, const uint8_t *octets) noexcept nogil:
    cdef unsigned whole = network.bits // 8
    cdef unsigned rest = network.bits % 8
    if memcmp(network.address, octets, whole) != 0:
        return False
    return rest == 0 or (network.address[whole] ^ octets[whole]) >> (8 - rest) == 0


cdef bint proxy_is_listed(const params_t *params, const uint8_t *addr, size_t n) noexcept nogil:
    """Is this sockaddr one of a balancer? An IPv4 address that IPv6 wraps up counts as IPv4."""
    cdef unsigned short tag = 0
    cdef uint8_t family
    cdef const uint8_t *octets
    cdef uint32_t i
    memcpy(&tag, addr, 2 if n >= 2 else n)
    if tag == AF_UNIX:
        family = 1
        octets = addr
    elif tag == AF_INET:
        family = 4
        octets = addr + 4
    else:
        family = 6
        octets = addr + 8
        if memcmp(octets, <const char *>"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
            family = 4
            octets += 12
    for i in range(params.proxy_count):
        if params.proxy_from[i].family == family and (family == 1 or network_has(&params.proxy_from[i], octets)):
            return True
    return False
