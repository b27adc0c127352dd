# linux.pxd - foreign declarations: the system calls, atomics and allocation that the data plane uses. No logic.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<errno.h>" nogil:
    int errno
    enum:
        EINTR, EAGAIN, EINPROGRESS, EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EALREADY, EISCONN, EPIPE
        ECONNRESET, ETIMEDOUT, EPROTO, EPERM

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    enum:
        AF_UNIX, AF_INET, AF_INET6, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_ERROR, SO_KEEPALIVE
        MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR
    int socket(int domain, int kind, int protocol)
    int connect(int fd, const sockaddr *addr, socklen_t n)
    int accept4(int fd, sockaddr *addr, socklen_t *n, int flags)
    int getpeername(int fd, sockaddr *addr, socklen_t *n)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *n)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
    int shutdown(int fd, int how)
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)
    ssize_t sendmsg(int fd, const msghdr *msg, int flags)

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char *text, void *out)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    uint32_t EPOLLET, EPOLLEXCLUSIVE
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int value, int flags)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *buf, size_t n, unsigned int flags)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buf, size_t n)
    ssize_t write(int fd, const void *buf, size_t n)
    int close(int fd)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC_COARSE
    int clock_gettime(int clock, timespec *ts)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *m, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *m)
    int pthread_mutex_lock(pthread_mutex_t *m)
    int pthread_mutex_unlock(pthread_mutex_t *m)

cdef extern from "<string.h>" nogil:
    void *memcpy(void *dst, const void *src, size_t n)
    void *memmove(void *dst, const void *src, size_t n)
    void *memset(void *dst, int value, size_t n)
    size_t strlen(const char *s)
    int strcmp(const char *a, const char *b)
    void *memchr(const void *p, int octet, size_t n)
    int memcmp(const void *a, const void *b, size_t n)
    void *memmem(const void *hay, size_t n, const void *needle, size_t k)

cdef extern from "relay/debug.h" nogil:
    bint scan_likely(bint condition)                   # as it is, but the compiler expects true
    void errno_set(int number)
    void relay_assert(bint condition)                  # aborts in debug builds, costs nothing in release
    void *mem_alloc(size_t n)                          # malloc; debug builds can fail the n-th call
    void *mem_zalloc(size_t n)
    void *mem_realloc(void *p, size_t n)
    void mem_free(void *p)
    void mem_poison(void *p, size_t n)                 # debug builds overwrite, release does nothing
    void mem_fail_after(long n)                        # debug builds: the n-th allocation from now fails; < 0: never
    uint64_t atomic_load64(const uint64_t *p)
    uint64_t atomic_add64(uint64_t *p, uint64_t n)     # returns the new value
    uint64_t atomic_sub64(uint64_t *p, uint64_t n)     # returns the new value
    void atomic_store64(uint64_t *p, uint64_t n)
    const char *build_mode_name()
