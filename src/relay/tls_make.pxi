# tls_make.pxi - Relay's add_tls() and add_params() options about TLS and addresses, taken from Python objects.
# Part of proxy._relay (see src/_relay.pyx). Runs on the control plane's thread, with the GIL.

_TLS_DEFAULTS = {
    "server": False, "certificates": (), "ca": b"", "crl": b"", "default_ca": False, "verify": 0, "ciphers": "",
    "ciphersuites": "", "min_version": 0x0303, "alpn": (),
}


def _tls_reason(const char *what):
    """Why OpenSSL refused, for people; the name of the option first. Never holds an octet of what it was given."""
    cdef unsigned long code = ERR_peek_error()
    cdef const char *text = ERR_reason_error_string(code) if code else NULL
    name = (<bytes>what).decode()
    ERR_clear_error()
    if text == NULL:
        return f"{name}: nothing that can be used was found in it"
    return f"{name}: {(<bytes>text).decode('utf-8', 'replace')}"


cdef SSL_CTX *_tls_context(dict options, tuple certificate) except NULL:
    cdef tls_options_t o
    cdef const char *what = NULL
    cdef SSL_CTX *ctx
    cdef bytes chain = b"", key = b"", ca = options["ca"], crl = options["crl"]
    cdef bytes ciphers = options["ciphers"].encode(), suites = options["ciphersuites"].encode()
    cdef bytes alpn = b"".join(bytes((len(name),)) + name for name in options["alpn"])
    if len(alpn) > 255 or not all(0 < len(name) for name in options["alpn"]):
        raise ValueError("alpn: expected names of protocols, 255 octets in all")
    if certificate is not None:
        chain, key = certificate[0], certificate[1]
    memset(&o, 0, sizeof(o))
    o.server = options["server"]
    o.chain = <const uint8_t *>PyBytes_AS_STRING(chain)
    o.chain_len = len(chain)
    o.key = <const uint8_t *>PyBytes_AS_STRING(key)
    o.key_len = len(key)
    o.ca = <const uint8_t *>PyBytes_AS_STRING(ca)
    o.ca_len = len(ca)
    o.crl = <const uint8_t *>PyBytes_AS_STRING(crl)
    o.crl_len = len(crl)
    o.default_ca = options["default_ca"]
    o.verify = options["verify"]
    o.ciphers = PyBytes_AS_STRING(ciphers)
    o.ciphersuites = PyBytes_AS_STRING(suites)
    o.min_version = options["min_version"]
    o.alpn = <const uint8_t *>PyBytes_AS_STRING(alpn)
    o.alpn_len = len(alpn)
    ctx = tls_context_make(&o, &what)
    if ctx == NULL:
        raise ValueError(_tls_reason(what))
    return ctx


cdef int _tls_names(SSL_CTX *ctx, dict options, list others) except -1:
    """Hang the certificates of other names at the default one's context."""
    cdef sni_t *sni
    cdef uint32_t n = 0
    cdef SSL_CTX *one
    found = [[name.lower().encode("idna" if not name.isascii() else "ascii") for name in item[2]] for item in others]
    cdef size_t count = sum(map(len, found))
    if count == 0:
        return 0
    if not all(0 < len(name) < 256 for names in found for name in names):
        raise ValueError("certificates: names of 1 to 255 octets are expected")
    sni = <sni_t *>mem_zalloc(sizeof(sni_t))
    if sni == NULL:
        raise MemoryError("tls")
    sni.entries = <sni_entry_t *>mem_zalloc(count * sizeof(sni_entry_t))
    if sni.entries == NULL:
        mem_free(sni)
        raise MemoryError("tls")
    if SSL_CTX_set_ex_data(ctx, tls_globals.sni_index, sni) != 1:
        mem_free(sni.entries)
        mem_free(sni)
        raise MemoryError("tls")
    for names, item in zip(found, others):            # whatever fails from here on is freed with ctx
        one = _tls_context(options, item) if names else NULL
        for k, name in enumerate(names):
            if k:
                SSL_CTX_up_ref(one)
            sni.entries[n].ctx = one
            memcpy(sni.entries[n].name, PyBytes_AS_STRING(name), len(name))
            n += 1
            sni.count = n
    return 0


cdef SSL_CTX *_tls_make(dict options) except NULL:
    """A context with all certificates.

    :raise ValueError: something cannot be used; the text begins with the name of the option.
    """
    cdef SSL_CTX *ctx
    unknown = options.keys() - _TLS_DEFAULTS.keys()
    if unknown:
        raise TypeError(f"add_tls: unknown options {', '.join(sorted(unknown))}")
    certificates = list(options["certificates"])
    if options["server"] and not certificates:
        raise ValueError("certificates: at least one is expected")
    ctx = _tls_context(options, certificates[0] if certificates else None)
    try:
        # the default one's names too: an exact name of it goes before another one's wildcard
        _tls_names(ctx, options, certificates if len(certificates) > 1 else [])
    except BaseException:
        SSL_CTX_free(ctx)
        raise
    return ctx


cdef int _params_begin(params_t *p, str server_name, params_t *rawsocket, int raw_first, bytes proxy_from) except -1:
    """What happens to a connection before its first message.

    :raise ValueError: an option cannot be used.
    """
    cdef bytes name = server_name.encode("idna") if not server_name.isascii() else server_name.encode()
    cdef Py_ssize_t size = sizeof(network_t)
    if len(name) > 255 or b"\0" in name:
        raise ValueError(f"server_name: {server_name!r}, expected a host name or address of at most 255 characters")
    if not -1 <= raw_first <= 255:
        raise ValueError(f"raw_first: {raw_first}, expected an octet or -1")
    if len(proxy_from) % size or len(proxy_from) // size > NETWORKS_MAX:
        raise ValueError(f"proxy_from: expected what pack_networks() returned, at most {NETWORKS_MAX} networks")
    memcpy(p.server_name, PyBytes_AS_STRING(name), len(name))
    p.server_name_is_ip = ":" in server_name or server_name.replace(".", "").isdecimal()
    p.rawsocket = rawsocket
    p.raw_first = raw_first
    if proxy_from:
        p.proxy_from = <network_t *>mem_alloc(len(proxy_from))
        if p.proxy_from == NULL:
            raise MemoryError("params")
        memcpy(p.proxy_from, PyBytes_AS_STRING(proxy_from), len(proxy_from))
        p.proxy_count = <uint32_t>(len(proxy_from) // size)
    return 0


cdef int _tls_ready() except -1:
    if tls_init() < 0:
        raise MemoryError("OpenSSL")
    return 0


cdef tls_t *_tls_holder() except NULL:
    cdef tls_t *holder = <tls_t *>mem_zalloc(sizeof(tls_t))
    if holder == NULL:
        raise MemoryError("tls")
    pthread_mutex_init(&holder.mutex, NULL)
    return holder


cdef void _tls_drop(tls_t *holder):
    tls_install(holder, NULL)
    pthread_mutex_destroy(&holder.mutex)
    mem_free(holder)


cdef void _params_free(params_t *p):
    if p.proxy_from != NULL:
        mem_free(p.proxy_from)
    mem_free(p)


def pack_networks(names):
    """Networks as add_params(proxy_from=) wants them: ``10.0.0.0/8``, ``2001:db8::/32``, an address, or ``unix``.

    :raise ValueError: one of them is no network; the text names it.
    """
    packed = b""
    for name in names:
        if name == "unix":
            packed += bytes((1, 0)) + bytes(16)
            continue
        try:
            network = _ipaddress.ip_network(name)
        except ValueError as error:
            raise ValueError(f"{name!r}: expected an IP network, an address, or unix ({error})") from None
        packed += bytes((network.version, network.prefixlen)) + network.network_address.packed.ljust(16, b"\0")
    return packed
