/* faults.c - a library to preload that makes system calls fail or fall short, as the kernel may at any time.
 *
 * It touches threads that call epoll_wait only: these are the data threads. What it holds back on purpose it announces
 * later, as the kernel would: before the next epoll_wait it re-arms the edge of every descriptor that was cut short.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 4096
#define PIECES 64

static struct {
    int epfd; /* 0: not watched */
    struct epoll_event event;
    int held; /* an edge is owed */
} watched[FDS];

static uint32_t seed;      /* 0: no faults */
static uint64_t counts[8]; /* what was done: see faults_count */
static __thread int is_data_thread;
static __thread uint32_t state;
static __thread int peeked_fd = -1; /* what was seen with MSG_PEEK is there: the kernel gives it without fail */
static __thread ssize_t peeked;

enum { SHORT_RECV, SHORT_SEND, INTERRUPTED, AGAIN, ACCEPT, WAIT, CONNECT };

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A new run of luck for all data threads to come; 0 ends all faults. */
void faults_seed(uint32_t n) { __atomic_store_n(&seed, n, __ATOMIC_SEQ_CST); }

/* How often a kind of fault was made. */
uint64_t faults_count(int kind) { return __atomic_load_n(&counts[kind], __ATOMIC_SEQ_CST); }

static uint32_t draw(uint32_t below) {
    if (state == 0) state = seed * 2654435761u + 1;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

static int strikes(int kind, uint32_t one_in) {
    if (!is_data_thread || !__atomic_load_n(&seed, __ATOMIC_SEQ_CST) || draw(one_in)) return 0;
    __atomic_add_fetch(&counts[kind], 1, __ATOMIC_SEQ_CST);
    return 1;
}

static void hold(int fd) {
    if (fd >= 0 && fd < FDS) watched[fd].held = 1;
}

static int refuse(int fd) {
    if (strikes(INTERRUPTED, 12)) {
        errno = EINTR;
        return 1;
    }
    if (strikes(AGAIN, 12)) {
        hold(fd);
        errno = EAGAIN;
        return 1;
    }
    return 0;
}

/* A length that falls short: often by much, sometimes by little. */
static size_t cut(size_t n) {
    if (n < 2) return n;
    switch (draw(3)) {
    case 0: return 1 + draw(n < 16 ? n - 1 : 15);
    case 1: return n - 1;
    default: return 1 + draw(n - 1);
    }
}

ssize_t recv(int fd, void *buf, size_t n, int flags) {
    REAL(recv);
    int seen = fd == peeked_fd && (ssize_t)n <= peeked;
    ssize_t got;
    peeked_fd = -1;
    if (seen && !(flags & MSG_PEEK)) return real(fd, buf, n, flags);
    if (is_data_thread && refuse(fd)) return -1;
    if (flags & MSG_PEEK) {
        peeked = real(fd, buf, n, flags);
        peeked_fd = fd;
        return peeked;
    }
    if (n > 1 && strikes(SHORT_RECV, 3)) {
        n = cut(n);
        got = real(fd, buf, n, flags);
        /* The caller asked for more and will think that the socket is drained. */
        hold(fd);
        return got;
    }
    return real(fd, buf, n, flags);
}

ssize_t send(int fd, const void *buf, size_t n, int flags) {
    REAL(send);
    if (is_data_thread && refuse(fd)) return -1;
    if (n > 1 && strikes(SHORT_SEND, 4)) {
        n = cut(n);
        hold(fd);
    }
    return real(fd, buf, n, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags) {
    REAL(sendmsg);
    struct iovec iov[PIECES];
    struct msghdr less;
    size_t i, total = 0, left;
    if (is_data_thread && refuse(fd)) return -1;
    if (msg->msg_iovlen > PIECES || !strikes(SHORT_SEND, 4)) return real(fd, msg, flags);
    for (i = 0; i < msg->msg_iovlen; i++) total += msg->msg_iov[i].iov_len;
    left = cut(total);
    less = *msg;
    less.msg_iov = iov;
    less.msg_iovlen = 0;
    for (i = 0; left; i++) {
        iov[i] = msg->msg_iov[i];
        if (iov[i].iov_len > left) iov[i].iov_len = left;
        left -= iov[i].iov_len;
        less.msg_iovlen++;
    }
    hold(fd);
    return real(fd, &less, flags);
}

int accept4(int fd, struct sockaddr *addr, socklen_t *n, int flags) {
    REAL(accept4);
    if (strikes(ACCEPT, 12)) {
        errno = draw(4) ? ECONNABORTED : EMFILE;
        return -1;
    }
    return real(fd, addr, n, flags);
}

int connect(int fd, const struct sockaddr *addr, socklen_t n) {
    REAL(connect);
    if (strikes(CONNECT, 3)) {
        errno = EAGAIN;
        return -1;
    }
    return real(fd, addr, n);
}

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FDS) memset(&watched[fd], 0, sizeof(watched[fd]));
    return real(fd);
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event) {
    REAL(epoll_ctl);
    int rc = real(epfd, op, fd, event);
    if (rc == 0 && fd >= 0 && fd < FDS) {
        if (op == EPOLL_CTL_DEL || !(event->events & EPOLLET)) {
            memset(&watched[fd], 0, sizeof(watched[fd]));
        } else {
            watched[fd].epfd = epfd;
            watched[fd].event = *event;
        }
    }
    return rc;
}

int epoll_wait(int epfd, struct epoll_event *events, int size, int timeout) {
    REAL(epoll_wait);
    int fd;
    is_data_thread = 1;
    if (!__atomic_load_n(&seed, __ATOMIC_SEQ_CST)) return real(epfd, events, size, timeout);
    for (fd = 0; fd < FDS; fd++) {
        if (watched[fd].held && watched[fd].epfd == epfd) {
            watched[fd].held = 0;
            epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &watched[fd].event);
        }
    }
    if (strikes(WAIT, 10)) {
        errno = EINTR;
        return -1;
    }
    return real(epfd, events, 1 + (int)draw((uint32_t)size), timeout);
}
