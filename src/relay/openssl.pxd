# openssl.pxd - the part of OpenSSL (1.1.1 and newer) that the data plane uses. No logic.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct X509_CRL:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509_VERIFY_PARAM:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct CRYPTO_EX_DATA:
        pass
    enum:
        SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN, SSL_ERROR_SYSCALL
        SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, SSL_MODE_RELEASE_BUFFERS
        SSL_MODE_AUTO_RETRY
        SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_FAIL_IF_NO_PEER_CERT
        SSL_SESS_CACHE_OFF, SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_INTERNAL
        SSL_TLSEXT_ERR_OK, SSL_TLSEXT_ERR_NOACK, SSL_TLSEXT_ERR_ALERT_FATAL
        TLSEXT_NAMETYPE_host_name
        SSL_R_HTTP_REQUEST, SSL_R_CERTIFICATE_VERIFY_FAILED
        OPENSSL_NPN_NEGOTIATED
        BIO_TYPE_SOURCE_SINK, BIO_CTRL_FLUSH
        X509_V_OK, X509_V_FLAG_CRL_CHECK
        ERR_LIB_SSL, ERR_LIB_PEM
    uint64_t SSL_OP_NO_COMPRESSION, SSL_OP_NO_RENEGOTIATION, SSL_OP_CIPHER_SERVER_PREFERENCE
    uint64_t SSL_OP_PRIORITIZE_CHACHA, SSL_OP_NO_TICKET

    const SSL_METHOD *TLS_server_method()
    const SSL_METHOD *TLS_client_method()
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method)
    void SSL_CTX_free(SSL_CTX *ctx)
    int SSL_CTX_up_ref(SSL_CTX *ctx)
    uint64_t SSL_CTX_set_options(SSL_CTX *ctx, uint64_t options)
    long SSL_CTX_set_mode(SSL_CTX *ctx, long mode)
    long SSL_CTX_clear_mode(SSL_CTX *ctx, long mode)
    int SSL_CTX_set_min_proto_version(SSL_CTX *ctx, int version)
    int SSL_CTX_set_cipher_list(SSL_CTX *ctx, const char *text)
    int SSL_CTX_set_ciphersuites(SSL_CTX *ctx, const char *text)
    void SSL_CTX_set_read_ahead(SSL_CTX *ctx, int on)
    long SSL_CTX_set_session_cache_mode(SSL_CTX *ctx, long mode)
    int SSL_CTX_set_session_id_context(SSL_CTX *ctx, const unsigned char *text, unsigned int n)
    void SSL_CTX_sess_set_new_cb(SSL_CTX *ctx, int (*callback)(SSL *ssl, SSL_SESSION *session) noexcept nogil)
    int SSL_CTX_use_certificate(SSL_CTX *ctx, X509 *certificate)
    int SSL_CTX_add0_chain_cert(SSL_CTX *ctx, X509 *certificate)
    int SSL_CTX_use_PrivateKey(SSL_CTX *ctx, EVP_PKEY *key)
    int SSL_CTX_check_private_key(const SSL_CTX *ctx)
    int SSL_CTX_add_client_CA(SSL_CTX *ctx, X509 *certificate)
    X509_STORE *SSL_CTX_get_cert_store(const SSL_CTX *ctx)
    int SSL_CTX_set_default_verify_paths(SSL_CTX *ctx)
    int SSL_CTX_load_verify_locations(SSL_CTX *ctx, const char *file, const char *folder)
    void SSL_CTX_set_verify(SSL_CTX *ctx, int mode, void *callback)
    int SSL_CTX_get_ex_new_index(
        long argl, void *argp, void *new_func, void *dup_func,
        void (*free_func)(void *, void *, CRYPTO_EX_DATA *, int, long, void *) noexcept nogil
    )
    int SSL_CTX_set_ex_data(SSL_CTX *ctx, int index, void *data)
    void *SSL_CTX_get_ex_data(const SSL_CTX *ctx, int index)
    long SSL_CTX_set_tlsext_servername_callback(SSL_CTX *ctx, int (*callback)(SSL *, int *, void *) noexcept nogil)
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX *ctx,
        int (*callback)(
            SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *
        ) noexcept nogil,
        void *arg
    )
    int SSL_select_next_proto(
        unsigned char **out, unsigned char *n, const unsigned char *ours, unsigned int ours_n,
        const unsigned char *theirs, unsigned int theirs_n
    )

    SSL *SSL_new(SSL_CTX *ctx)
    void SSL_free(SSL *ssl)
    SSL_CTX *SSL_get_SSL_CTX(const SSL *ssl)
    SSL_CTX *SSL_set_SSL_CTX(SSL *ssl, SSL_CTX *ctx)
    void SSL_set_bio(SSL *ssl, BIO *rbio, BIO *wbio)
    BIO *SSL_get_rbio(const SSL *ssl)
    void SSL_set_accept_state(SSL *ssl)
    void SSL_set_connect_state(SSL *ssl)
    int SSL_do_handshake(SSL *ssl)
    int SSL_read_ex(SSL *ssl, void *p, size_t n, size_t *taken)
    int SSL_write_ex(SSL *ssl, const void *p, size_t n, size_t *taken)
    int SSL_shutdown(SSL *ssl)
    int SSL_get_error(const SSL *ssl, int status)
    int SSL_session_reused(const SSL *ssl)
    int SSL_set_session(SSL *ssl, SSL_SESSION *session)
    int SSL_SESSION_up_ref(SSL_SESSION *session)
    void SSL_SESSION_free(SSL_SESSION *session)
    long SSL_set_tlsext_host_name(SSL *ssl, const char *name)
    int SSL_set1_host(SSL *ssl, const char *name)
    void SSL_set_hostflags(SSL *ssl, unsigned int flags)
    X509_VERIFY_PARAM *SSL_get0_param(SSL *ssl)
    long SSL_get_verify_result(const SSL *ssl)
    const char *SSL_get_version(const SSL *ssl)
    const char *SSL_get_cipher_name(const SSL *ssl)
    const char *SSL_get_servername(const SSL *ssl, int kind)
    void SSL_get0_alpn_selected(const SSL *ssl, const unsigned char **p, unsigned int *n)
    size_t SSL_get_finished(const SSL *ssl, void *p, size_t n)
    size_t SSL_get_peer_finished(const SSL *ssl, void *p, size_t n)
    int SSL_export_keying_material(
        SSL *ssl, unsigned char *out, size_t n, const char *label, size_t label_n, const unsigned char *context,
        size_t context_n, int use_context
    )
    X509 *SSL_get_peer_certificate(const SSL *ssl)

cdef extern from "<openssl/bio.h>" nogil:
    BIO_METHOD *BIO_meth_new(int kind, const char *name)
    int BIO_get_new_index()
    int BIO_meth_set_write(BIO_METHOD *m, int (*call)(BIO *, const char *, int) noexcept nogil)
    int BIO_meth_set_read(BIO_METHOD *m, int (*call)(BIO *, char *, int) noexcept nogil)
    int BIO_meth_set_ctrl(BIO_METHOD *m, long (*call)(BIO *, int, long, void *) noexcept nogil)
    BIO *BIO_new(const BIO_METHOD *m)
    BIO *BIO_new_mem_buf(const void *p, int n)
    int BIO_free(BIO *bio)
    void BIO_set_data(BIO *bio, void *data)
    void *BIO_get_data(BIO *bio)
    void BIO_set_init(BIO *bio, int on)
    void BIO_clear_retry_flags(BIO *bio)
    void BIO_set_retry_read(BIO *bio)
    void BIO_set_retry_write(BIO *bio)

cdef extern from "<openssl/x509.h>" nogil:
    const char *X509_get_default_cert_dir()
    const char *X509_get_default_cert_dir_env()
    const char *X509_get_default_cert_file()
    const char *X509_get_default_cert_file_env()
    void X509_free(X509 *certificate)
    void X509_CRL_free(X509_CRL *crl)
    int i2d_X509(X509 *certificate, unsigned char **out)
    const char *X509_verify_cert_error_string(long code)
    int X509_STORE_add_cert(X509_STORE *store, X509 *certificate)
    int X509_STORE_add_crl(X509_STORE *store, X509_CRL *crl)
    int X509_STORE_set_flags(X509_STORE *store, unsigned long flags)
    int X509_VERIFY_PARAM_set1_ip_asc(X509_VERIFY_PARAM *param, const char *address)
    void EVP_PKEY_free(EVP_PKEY *key)

cdef extern from "<openssl/pem.h>" nogil:
    enum:
        PEM_R_NO_START_LINE
    X509 *PEM_read_bio_X509(BIO *bio, X509 **out, int (*password)(char *, int, int, void *) noexcept nogil, void *arg)
    X509_CRL *PEM_read_bio_X509_CRL(BIO *bio, X509_CRL **out, void *password, void *arg)
    EVP_PKEY *PEM_read_bio_PrivateKey(
        BIO *bio, EVP_PKEY **out, int (*password)(char *, int, int, void *) noexcept nogil, void *arg
    )

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_peek_error()
    unsigned long ERR_peek_last_error()
    int ERR_GET_REASON(unsigned long code)
    int ERR_GET_LIB(unsigned long code)
    const char *ERR_reason_error_string(unsigned long code)

cdef extern from "<openssl/x509v3.h>" nogil:
    enum:
        X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
