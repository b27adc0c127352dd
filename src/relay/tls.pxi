# tls.pxi - one connection's TLS records between OpenSSL and the socket. Part of proxy._relay.
#
# OpenSSL reads and writes through the BIO below, so that no call of it blocks, raises SIGPIPE or asks the kernel again
# after a short read. A record that the socket does not take stays in OpenSSL; its octets count as not sent, and stand
# at the front of the queue when it is tried again (SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER).

cdef extern from *:
    """
    /* TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2) */
    #define TLS_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!SHA1"
    """
    const char *TLS_CIPHERS


cdef int tls_bio_read(BIO *bio, char *p, int n) noexcept nogil:
    cdef conn_t *c = <conn_t *>BIO_get_data(bio)
    cdef ssize_t got
    BIO_clear_retry_flags(bio)
    if c.flags & FL_TLS_DRY or c.tls_left == 0:
        BIO_set_retry_read(bio)
        return -1
    if <uint32_t>n > c.tls_left:
        n = <int>c.tls_left
    got = recv(c.fd, p, n, MSG_DONTWAIT)
    while got == -1 and errno == EINTR:
        got = recv(c.fd, p, n, MSG_DONTWAIT)
    if got == -1 and errno == EAGAIN:
        c.flags |= FL_TLS_DRY
        BIO_set_retry_read(bio)
        return -1
    if got == -1:
        c.tls_errno = errno
    elif got == 0:
        c.flags |= FL_TLS_EOF
    elif got < n and not c.flags & FL_EOF_HINT:
        c.flags |= FL_TLS_DRY
    if got > 0:
        c.tls_left -= <uint32_t>got
    return <int>got


cdef int tls_bio_write(BIO *bio, const char *p, int n) noexcept nogil:
    cdef conn_t *c = <conn_t *>BIO_get_data(bio)
    cdef ssize_t put
    BIO_clear_retry_flags(bio)
    put = send(c.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
    while put == -1 and errno == EINTR:
        put = send(c.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
    if put == -1:
        if errno == EAGAIN or errno == ENOBUFS:
            BIO_set_retry_write(bio)
        else:
            c.tls_errno = errno
    return <int>put


cdef long tls_bio_ctrl(BIO *bio, int command, long number, void *p) noexcept nogil:
    return 1 if command == BIO_CTRL_FLUSH else 0


cdef BIO_METHOD *tls_bio_method() noexcept nogil:
    cdef BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "proxy")
    if m != NULL:
        BIO_meth_set_read(m, tls_bio_read)
        BIO_meth_set_write(m, tls_bio_write)
        BIO_meth_set_ctrl(m, tls_bio_ctrl)
    return m


cdef bint tls_expect(SSL *ssl, const params_t *params) noexcept nogil:
    """Say whom we want to talk to (SNI), and have the certificate checked for that name."""
    if params.server_name[0] == 0:
        return True
    if params.server_name_is_ip:                      # RFC 6066 section 3: no address in SNI
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), params.server_name) == 1
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
    return SSL_set_tlsext_host_name(ssl, params.server_name) == 1 and SSL_set1_host(ssl, params.server_name) == 1


cdef inline bint tls_may_resume(const tls_t *holder, const params_t *params) noexcept nogil:
    """Resuming checks no certificate: only who was checked for the same name is the one we want."""
    return holder.session != NULL and strcmp(holder.session_for.server_name, params.server_name) == 0


cdef int tls_open(loop_t *loop, conn_t *c) noexcept nogil:
    """Begin TLS on a connection. ST_OK, or ST_NOMEM: it cannot be had (no context any more, no memory)."""
    cdef tls_t *holder = c.params.tls
    cdef SSL_SESSION *session = NULL
    cdef BIO *bio
    pthread_mutex_lock(&holder.mutex)
    if holder.ctx != NULL:
        c.ssl = SSL_new(holder.ctx)
        if c.side == SIDE_BACK and tls_may_resume(holder, c.params) and SSL_SESSION_up_ref(holder.session):
            session = holder.session
    pthread_mutex_unlock(&holder.mutex)
    if c.ssl == NULL:
        if session != NULL:
            SSL_SESSION_free(session)
        return ST_NOMEM
    loop.stats.tls_open += 1
    bio = BIO_new(tls_globals.bio)
    if bio == NULL:
        if session != NULL:
            SSL_SESSION_free(session)
        return ST_NOMEM
    BIO_set_data(bio, c)
    BIO_set_init(bio, 1)
    SSL_set_bio(c.ssl, bio, bio)
    if session != NULL:
        SSL_set_session(c.ssl, session)
        SSL_SESSION_free(session)
    if c.side == SIDE_BACK:
        SSL_set_connect_state(c.ssl)
        return ST_OK if tls_expect(c.ssl, c.params) else ST_NOMEM
    SSL_set_accept_state(c.ssl)
    return ST_OK


cdef void tls_close(loop_t *loop, conn_t *c) noexcept nogil:
    if c.ssl != NULL:
        SSL_free(c.ssl)
        c.ssl = NULL
        loop.stats.tls_open -= 1


cdef void tls_note(conn_t *c) noexcept nogil:
    """Keep why OpenSSL gave up, for the end's report, and use it no more. Its texts live as long as the process."""
    cdef long verified = SSL_get_verify_result(c.ssl)
    cdef unsigned long code = ERR_peek_error()
    c.flags |= FL_TLS_DEAD
    if c.tls_why != NULL:
        return
    if ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED and ERR_GET_LIB(code) == ERR_LIB_SSL:
        c.flags |= FL_TLS_UNVERIFIED
        c.tls_why = X509_verify_cert_error_string(verified)
    elif c.flags & FL_TLS_EOF:
        c.tls_why = "the peer ended the connection without a word"
    elif c.tls_errno:
        c.tls_why = "connection reset"
    elif code:
        c.tls_why = ERR_reason_error_string(code)
    if c.tls_why == NULL:
        c.tls_why = "TLS error"


cdef ssize_t tls_recv(conn_t *c, uint8_t *p, size_t room) noexcept nogil:
    """As recv(): octets; 0: the peer has ended in order; -1: see errno, EAGAIN when there is nothing now.

    Fewer octets than `room` mean that the socket is drained, or FL_EOF_HINT is set.
    """
    cdef size_t total = 0
    cdef size_t n = 0
    cdef int st
    if c.flags & FL_TLS_DEAD:
        errno_set(c.tls_errno if c.tls_errno else ECONNRESET)
        return -1
    c.flags &= ~<uint32_t>FL_TLS_DRY
    c.tls_left = TLS_READ_MAX
    while total < room:
        ERR_clear_error()
        if SSL_read_ex(c.ssl, p + total, room - total, &n) == 1:
            total += n
            c.tls_left += <uint32_t>n + TLS_OVERHEAD
            continue
        st = SSL_get_error(c.ssl, 0)
        if st == SSL_ERROR_WANT_READ and c.flags & FL_TLS_DRY:
            break
        if st == SSL_ERROR_WANT_READ and c.tls_left:
            continue                                  # a record without data: a ticket, a key update
        if st == SSL_ERROR_WANT_READ or st == SSL_ERROR_WANT_WRITE:
            c.flags |= FL_TLS_MORE
            break
        if st != SSL_ERROR_ZERO_RETURN:
            tls_note(c)
        if total:
            c.flags |= FL_EOF_HINT                    # to be asked again, and then it is told
            break
        if st == SSL_ERROR_ZERO_RETURN:
            return 0
        errno_set(c.tls_errno if c.tls_errno else ECONNRESET if c.flags & FL_TLS_EOF else EPROTO)
        return -1
    if total:
        return <ssize_t>total
    errno_set(EAGAIN)
    return -1


cdef ssize_t tls_write(conn_t *c, const uint8_t *p, size_t n) noexcept nogil:
    """As send(): octets taken, fewer than n when the socket is full; -1: failed, see errno."""
    cdef size_t total = 0
    cdef size_t k = 0
    cdef int st
    if c.flags & (FL_TLS_DEAD | FL_TLS_MUTE):
        errno_set(EPIPE)
        return -1
    while total < n:
        ERR_clear_error()
        if SSL_write_ex(c.ssl, p + total, n - total, &k) == 1:
            total += k
            continue
        st = SSL_get_error(c.ssl, 0)
        if st == SSL_ERROR_WANT_WRITE or st == SSL_ERROR_WANT_READ:
            break
        if c.tls_errno:
            c.flags |= FL_TLS_MUTE                    # what the peer said before that can still be read
            errno_set(c.tls_errno)
            c.tls_errno = 0
            return -1
        tls_note(c)
        errno_set(EPIPE)
        return -1
    return <ssize_t>total


cdef ssize_t tls_send(loop_t *loop, conn_t *c, const iovec *iov, size_t count) noexcept nogil:
    """As sendmsg(), in records as full as can be: octets taken; -1: failed, see errno."""
    cdef size_t i = 0
    cdef size_t at = 0             # in piece i
    cdef size_t n, k
    cdef ssize_t put
    cdef ssize_t total = 0
    while i < count:
        n = iov[i].iov_len - at
        if n >= TLS_RECORD or i + 1 == count:         # no need to copy it
            n = n if i + 1 == count else n - n % TLS_RECORD
            put = tls_write(c, <const uint8_t *>iov[i].iov_base + at, n)
            at += n
        else:
            n = 0
            while i < count and n < TLS_RECORD:
                k = iov[i].iov_len - at
                if k > TLS_RECORD - n:
                    k = TLS_RECORD - n
                memcpy(loop.tls_stage + n, <const uint8_t *>iov[i].iov_base + at, k)
                n += k
                at += k
                if at == iov[i].iov_len:
                    i += 1
                    at = 0
            put = tls_write(c, loop.tls_stage, n)
        if i < count and at == iov[i].iov_len:
            i += 1
            at = 0
        if put < 0:
            return -1
        total += put
        if <size_t>put < n:
            break
    return total


cdef int tls_end(conn_t *c) noexcept nogil:
    """Say that nothing more will come (close_notify). ST_OK: said, or it cannot be; ST_MORE: the socket is full."""
    cdef int st
    if c.ssl == NULL or c.flags & (FL_TLS_DEAD | FL_TLS_MUTE):
        return ST_OK
    ERR_clear_error()
    st = SSL_shutdown(c.ssl)
    if st < 0 and SSL_get_error(c.ssl, st) == SSL_ERROR_WANT_WRITE:
        return ST_MORE
    return ST_OK


# --- what the control plane is told ----------------------------------------------------------------------------------

cdef bint intro_field(sink_t *s, const uint8_t *p, size_t n) noexcept nogil:
    """False: no memory."""
    cdef uint8_t length[2]
    if n > INTRO_FIELD_MAX:
        n = 0
    store_be16(length, <uint16_t>n)
    return sink_put(s, length, 2) > 0 and (n == 0 or sink_put(s, p, n) > 0)


cdef inline bint intro_text(sink_t *s, const char *text) noexcept nogil:
    return intro_field(s, <const uint8_t *>text, strlen(text) if text != NULL else 0)


cdef bint intro_certificate(sink_t *s, SSL *ssl) noexcept nogil:
    """As intro_field. A certificate that is too long for it counts as none."""
    cdef X509 *certificate = SSL_get_peer_certificate(ssl)
    cdef uint8_t *at
    cdef int n = 0
    cdef bint fits = True
    if certificate != NULL:
        n = i2d_X509(certificate, NULL)
        if 0 < n <= INTRO_CERTIFICATE_MAX:
            fits = sink_room(s, n + 2) > 0
            if fits:
                at = sink_ptr(s) + s.len
                store_be16(at, <uint16_t>n)
                at += 2
                i2d_X509(certificate, &at)
                s.len += n + 2
        else:
            n = 0
        X509_free(certificate)
    return fits if n > 0 else intro_field(s, NULL, 0)


cdef bint intro_tls(sink_t *s, conn_t *c) noexcept nogil:
    """The TLS block of an introduction; the fields are those of proxy.peers.TlsInfo. False: no memory."""
    cdef uint8_t octets[64]
    cdef const unsigned char *alpn = NULL
    cdef unsigned int n = 0
    cdef size_t k
    cdef bint st = intro_text(s, SSL_get_version(c.ssl))
    st = st and intro_text(s, SSL_get_cipher_name(c.ssl))
    st = st and intro_text(s, SSL_get_servername(c.ssl, TLSEXT_NAMETYPE_host_name))
    SSL_get0_alpn_selected(c.ssl, &alpn, &n)
    st = st and intro_field(s, alpn, n)
    # RFC 5929 section 3.1: the first Finished message, the client's in a full handshake, ours in a resumed one
    if SSL_session_reused(c.ssl):
        k = SSL_get_finished(c.ssl, octets, 64)
    else:
        k = SSL_get_peer_finished(c.ssl, octets, 64)
    st = st and intro_field(s, octets, k if k <= 64 else 0)
    k = 32
    if SSL_export_keying_material(c.ssl, octets, 32, "EXPORTER-Channel-Binding", 24, NULL, 0, 1) != 1:
        k = 0
    return st and intro_field(s, octets, k) and intro_certificate(s, c.ssl)
