# tls_context.pxi - what handshakes begin with: certificates, versions, ciphers, names. Part of proxy._relay.
#
# An SSL_CTX is never changed once it is in use. A new one takes its place (tls_t); connections keep the one they have.
# Made on the control plane's thread, from PEM in memory; the callbacks below run on the data threads.

ctypedef struct sni_entry_t:
    char name[256]                 # lower case; "*.example.com" stands for one label more
    SSL_CTX *ctx

# Hangs at the default context of a server and owns those of the other certificates.
ctypedef struct sni_t:
    uint32_t count
    sni_entry_t *entries

# What one context is made of. Pointers are borrowed.
ctypedef struct tls_options_t:
    bint server
    const uint8_t *chain           # PEM: the certificate, then those up to the CA
    size_t chain_len
    const uint8_t *key             # PEM
    size_t key_len
    const uint8_t *ca              # PEM
    size_t ca_len
    const uint8_t *crl             # PEM
    size_t crl_len
    bint default_ca
    int verify                     # 0: none, 1: a certificate that is shown, 2: one must be shown
    const char *ciphers            # TLS 1.2; empty: ours
    const char *ciphersuites       # TLS 1.3; empty: OpenSSL's
    int min_version
    const uint8_t *alpn            # each with its length in front
    size_t alpn_len

# Of the process; made before the first relay.
ctypedef struct tls_globals_t:
    BIO_METHOD *bio
    int sni_index                  # ex_data of SSL_CTX: sni_t
    int holder_index               # ex_data of SSL_CTX: tls_t
    int alpn_index                 # ex_data of SSL_CTX: octets of sni_alpn_t

ctypedef struct alpn_t:
    uint32_t length
    uint8_t octets[256]

cdef tls_globals_t tls_globals


cdef int tls_no_password(char *out, int size, int writing, void *arg) noexcept nogil:
    """A key that is encrypted cannot be used: nobody is there to be asked."""
    return -1


cdef void tls_sni_free(
    void *parent, void *data, CRYPTO_EX_DATA *ad, int index, long argl, void *argp
) noexcept nogil:
    """The default context is gone: so are the names and what they lead to."""
    cdef sni_t *sni = <sni_t *>data
    cdef uint32_t i
    if sni == NULL:
        return
    for i in range(sni.count):
        SSL_CTX_free(sni.entries[i].ctx)
    mem_free(sni.entries)
    mem_free(sni)


cdef void tls_data_free(
    void *parent, void *data, CRYPTO_EX_DATA *ad, int index, long argl, void *argp
) noexcept nogil:
    if data != NULL:
        mem_free(data)


cdef inline uint8_t ascii_lower(uint8_t c) noexcept nogil:
    return c | 0x20 if 0x41 <= c <= 0x5A else c


cdef bint tls_name_fits(const char *pattern, const char *name) noexcept nogil:
    """Is this the name, whatever its case? A leading "*" stands for one label (RFC 6125 section 6.4.3)."""
    cdef const uint8_t *p = <const uint8_t *>pattern
    cdef const uint8_t *q = <const uint8_t *>name
    if p[0] == 0x2A:                                  # *
        p += 1
        if q[0] == 0x2E or q[0] == 0:
            return False
        while q[0] and q[0] != 0x2E:
            q += 1
    while p[0] and p[0] == ascii_lower(q[0]):
        p += 1
        q += 1
    return p[0] == 0 and q[0] == 0


cdef int tls_choose_name(SSL *ssl, int *alert, void *arg) noexcept nogil:
    """The client has named the host that it wants (RFC 6066 section 3): take that one's certificate, if any."""
    cdef const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
    cdef sni_t *sni = <sni_t *>SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tls_globals.sni_index)
    cdef uint32_t i
    cdef int wild
    if name == NULL or sni == NULL:
        return SSL_TLSEXT_ERR_NOACK
    for wild in range(2):                             # the exact name first, wherever it stands
        for i in range(sni.count):
            if (sni.entries[i].name[0] == 0x2A) == wild and tls_name_fits(sni.entries[i].name, name):
                SSL_set_SSL_CTX(ssl, sni.entries[i].ctx)
                return SSL_TLSEXT_ERR_OK
    return SSL_TLSEXT_ERR_OK


cdef int tls_choose_protocol(
    SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *theirs, unsigned int theirs_n, void *arg
) noexcept nogil:
    """ALPN (RFC 7301). Whoever speaks nothing that we do is told so, instead of being misunderstood."""
    cdef const alpn_t *ours = <const alpn_t *>SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tls_globals.alpn_index)
    if ours == NULL:
        return SSL_TLSEXT_ERR_NOACK
    if SSL_select_next_proto(
        <unsigned char **>out, n, ours.octets, ours.length, theirs, theirs_n
    ) != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL
    return SSL_TLSEXT_ERR_OK


cdef int tls_keep_session(SSL *ssl, SSL_SESSION *session) noexcept nogil:
    """A router gave a ticket: the next connection to it will resume, which spares both the certificates."""
    cdef tls_t *holder = <tls_t *>SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tls_globals.holder_index)
    cdef SSL_SESSION *before
    if holder == NULL:
        return 0
    pthread_mutex_lock(&holder.mutex)
    if holder.ctx == SSL_get_SSL_CTX(ssl):
        before = holder.session
        holder.session = session
        holder.session_for = (<conn_t *>BIO_get_data(SSL_get_rbio(ssl))).params
    else:
        before = session                              # replaced meanwhile: it was checked by other rules
    pthread_mutex_unlock(&holder.mutex)
    if before != NULL:
        SSL_SESSION_free(before)
    return 1


cdef bint tls_pem_ended() noexcept nogil:
    """Did reading stop where the text ends, and not at something broken? Then the queue is as it was."""
    cdef unsigned long code = ERR_peek_last_error()
    if ERR_GET_LIB(code) != ERR_LIB_PEM or ERR_GET_REASON(code) != PEM_R_NO_START_LINE:
        return False
    ERR_clear_error()
    return True


cdef const char *tls_use_chain(SSL_CTX *ctx, const tls_options_t *o) noexcept nogil:
    """The certificate with its chain, and the key. NULL, or what cannot be used; the reason is in OpenSSL's queue."""
    cdef BIO *bio = BIO_new_mem_buf(o.chain, <int>o.chain_len)
    cdef X509 *certificate = NULL
    cdef EVP_PKEY *key = NULL
    cdef uint32_t n = 0
    cdef int st = 1
    if bio == NULL:
        return "certificate"
    while st == 1:
        certificate = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)
        if certificate == NULL:
            break
        if n == 0:
            st = SSL_CTX_use_certificate(ctx, certificate)
            X509_free(certificate)
        else:
            st = SSL_CTX_add0_chain_cert(ctx, certificate)
            if st != 1:
                X509_free(certificate)
        n += 1
    BIO_free(bio)
    if n == 0 or st != 1 or not tls_pem_ended():
        return "certificate"
    bio = BIO_new_mem_buf(o.key, <int>o.key_len)
    if bio == NULL:
        return "key"
    key = PEM_read_bio_PrivateKey(bio, NULL, tls_no_password, NULL)
    BIO_free(bio)
    if key == NULL:
        return "key"
    st = SSL_CTX_use_PrivateKey(ctx, key)
    EVP_PKEY_free(key)
    if st != 1 or SSL_CTX_check_private_key(ctx) != 1:
        return "key"
    return NULL


cdef extern from * nogil:
    """
    #include <stdlib.h>
    #include <unistd.h>
    /* Debian and Alpine; Fedora and RHEL; openSUSE; RHEL again, where the one before is only a link */
    static const char *const tls_bundles[] = {
        "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", NULL
    };
    static int tls_is_there(const char *path) { return access(path, R_OK) == 0; }
    """
    const char *tls_bundles[5]
    bint tls_is_there(const char *path)
    const char *getenv(const char *name)


cdef int tls_trust_system(SSL_CTX *ctx) noexcept nogil:
    """Believe whom the system believes. 1, or 0: OpenSSL cannot.

    An OpenSSL that was built elsewhere, as that inside a wheel, looks where that system has its authorities; where
    there is nothing at all, and nobody has said where to look, it is those of the usual distributions.
    """
    cdef int i = 0
    if SSL_CTX_set_default_verify_paths(ctx) != 1:
        return 0
    if getenv(X509_get_default_cert_file_env()) != NULL or getenv(X509_get_default_cert_dir_env()) != NULL:
        return 1
    if tls_is_there(X509_get_default_cert_file()) or tls_is_there(X509_get_default_cert_dir()):
        return 1
    while tls_bundles[i] != NULL:
        if tls_is_there(tls_bundles[i]):
            return SSL_CTX_load_verify_locations(ctx, tls_bundles[i], NULL)
        i += 1
    return 1


cdef const char *tls_trust(SSL_CTX *ctx, const tls_options_t *o) noexcept nogil:
    """Whom to believe. As tls_use_chain."""
    cdef X509_STORE *store = SSL_CTX_get_cert_store(ctx)
    cdef BIO *bio
    cdef X509 *certificate
    cdef X509_CRL *crl
    cdef uint32_t n = 0
    if o.default_ca and tls_trust_system(ctx) != 1:
        return "ca"
    if o.ca_len:
        bio = BIO_new_mem_buf(o.ca, <int>o.ca_len)
        if bio == NULL:
            return "ca"
        certificate = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)
        while certificate != NULL:
            X509_STORE_add_cert(store, certificate)
            if o.server:
                SSL_CTX_add_client_CA(ctx, certificate)
            X509_free(certificate)
            n += 1
            certificate = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)
        BIO_free(bio)
        if n == 0 or not tls_pem_ended():
            return "ca"
    if o.crl_len:
        n = 0
        bio = BIO_new_mem_buf(o.crl, <int>o.crl_len)
        if bio == NULL:
            return "crl"
        crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)
        while crl != NULL:
            X509_STORE_add_crl(store, crl)
            X509_CRL_free(crl)
            n += 1
            crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)
        BIO_free(bio)
        if n == 0 or not tls_pem_ended():
            return "crl"
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK)
    return NULL


cdef const char *tls_alpn(SSL_CTX *ctx, const tls_options_t *o) noexcept nogil:
    cdef alpn_t *alpn
    if o.alpn_len == 0 or not o.server:
        return NULL
    alpn = <alpn_t *>mem_zalloc(sizeof(alpn_t))
    if alpn == NULL:
        return "alpn"
    alpn.length = <uint32_t>o.alpn_len
    memcpy(alpn.octets, o.alpn, o.alpn_len)
    if SSL_CTX_set_ex_data(ctx, tls_globals.alpn_index, alpn) != 1:
        mem_free(alpn)
        return "alpn"
    SSL_CTX_set_alpn_select_cb(ctx, tls_choose_protocol, NULL)
    return NULL


cdef void tls_set_up(SSL_CTX *ctx, const tls_options_t *o) noexcept nogil:
    """What is the same for all contexts."""
    cdef int verify = SSL_VERIFY_NONE
    SSL_CTX_set_options(
        ctx,
        SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA
    )
    SSL_CTX_set_mode(
        ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS
    )
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY)      # or one peer could keep the thread busy without any data
    SSL_CTX_set_read_ahead(ctx, 1)                    # header and body of a record with one recv
    if o.verify:
        verify = SSL_VERIFY_PEER
        if o.verify > 1 and o.server:
            verify |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    SSL_CTX_set_verify(ctx, verify, NULL)
    if o.server:
        # Tickets only: they keep their state at the client, so that nothing grows here.
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF)
        SSL_CTX_set_session_id_context(ctx, <const unsigned char *>b"wamp-proxy", 10)
        SSL_CTX_set_tlsext_servername_callback(ctx, tls_choose_name)
    else:
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL)
        SSL_CTX_sess_set_new_cb(ctx, tls_keep_session)


cdef SSL_CTX *tls_context_make(const tls_options_t *o, const char **what) noexcept nogil:
    """A context, or NULL: `what` says which option cannot be used, OpenSSL's queue why."""
    cdef SSL_CTX *ctx
    ERR_clear_error()
    what[0] = "tls"
    ctx = SSL_CTX_new(TLS_server_method() if o.server else TLS_client_method())
    if ctx == NULL:
        return NULL
    tls_set_up(ctx, o)
    what[0] = NULL
    if SSL_CTX_set_min_proto_version(ctx, o.min_version) != 1:
        what[0] = "min_version"
    elif SSL_CTX_set_cipher_list(ctx, o.ciphers if o.ciphers[0] else <const char *>TLS_CIPHERS) != 1:
        what[0] = "ciphers"
    elif o.ciphersuites[0] and SSL_CTX_set_ciphersuites(ctx, o.ciphersuites) != 1:
        what[0] = "ciphersuites"
    if what[0] == NULL and o.chain_len:
        what[0] = tls_use_chain(ctx, o)
    if what[0] == NULL:
        what[0] = tls_trust(ctx, o)
    if what[0] == NULL:
        what[0] = tls_alpn(ctx, o)
    if what[0] != NULL:
        SSL_CTX_free(ctx)
        return NULL
    return ctx


cdef int tls_init() noexcept nogil:
    """Once for the process."""
    if tls_globals.bio != NULL:
        return ST_OK
    tls_globals.sni_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, tls_sni_free)
    tls_globals.holder_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL)
    tls_globals.alpn_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, tls_data_free)
    if tls_globals.sni_index < 0 or tls_globals.holder_index < 0 or tls_globals.alpn_index < 0:
        return ST_NOMEM
    tls_globals.bio = tls_bio_method()
    return ST_OK if tls_globals.bio != NULL else ST_NOMEM


cdef void tls_install(tls_t *holder, SSL_CTX *ctx) noexcept nogil:
    """From now on handshakes begin with ctx, which the holder owns; NULL: with none."""
    cdef SSL_CTX *before
    cdef SSL_SESSION *session
    if ctx != NULL:
        SSL_CTX_set_ex_data(ctx, tls_globals.holder_index, holder)
    pthread_mutex_lock(&holder.mutex)
    before = holder.ctx
    holder.ctx = ctx
    session = holder.session
    holder.session = NULL
    pthread_mutex_unlock(&holder.mutex)
    if session != NULL:
        SSL_SESSION_free(session)
    if before != NULL:
        SSL_CTX_free(before)
