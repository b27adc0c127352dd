# probe_loop.pxi - buffers, slots, rings and timers of a loop that is never run, for tests only. Part of proxy._relay.
#
# The parts need a loop for their pools and counters; here it stands still and its clock is moved by hand. What a timer
# does when it fires is the real thing: the connection ends and its EV_CLOSED lies in the event ring.

PROBE_LIMITS = {
    "headroom": BUF_HEADROOM, "scratch": SCRATCH_SIZE, "class_min": BUF_CLASS_MIN, "class_max": BUF_CLASS_MAX,
    "pool_bytes_max": POOL_BYTES_MAX, "tick_ms": TIMER_TICK_MS, "timer_slots": TIMER_SLOTS, "chunk_slots": CHUNK_SLOTS,
}


def probe_fail_allocation(long n):
    """Debug builds: let the n-th allocation of the data plane from now on fail, 0 being the next; < 0: none.

    :return: whether this build can do that.
    """
    mem_fail_after(n)
    return (<bytes>build_mode_name()) in (b"debug", b"asan")


cdef class ProbeLoop:
    """A private loop that stands still.

    :param now: where its clock stands at first, ms.
    """

    cdef relay_t *relay
    cdef loop_t *loop
    cdef params_t params

    def __cinit__(self, uint64_t now=0):
        self.relay = <relay_t *>mem_zalloc(sizeof(relay_t))
        self.loop = <loop_t *>mem_zalloc(sizeof(loop_t))
        if self.relay == NULL or self.loop == NULL:
            raise MemoryError
        self.relay.threads = 1
        self.relay.loops[0] = self.loop
        self.relay.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.relay.event_fd == -1 or loop_init(self.loop, self.relay, 0) < 0:
            raise MemoryError
        self.loop.now = now
        self.loop.timer_tick = now // TIMER_TICK_MS

    def __dealloc__(self):
        if self.loop != NULL:
            loop_close_all(self.loop)
            loop_free(self.loop)
            mem_free(self.loop)
        if self.relay != NULL:
            if self.relay.event_fd > 0:
                close(self.relay.event_fd)
            mem_free(self.relay)

    def stats(self):
        """Counters, by name; with the number of armed timers and of slots."""
        cdef dict counters = self.loop.stats
        counters["timers"] = self.loop.timer_count
        counters["slots"] = self.loop.chunk_count * CHUNK_SLOTS
        counters["load"] = atomic_load64(&self.loop.load)
        return counters

    # --- slots ---

    def take(self):
        """Number of a new connection without a socket."""
        cdef conn_t *c = pool_take(self.loop, 0)
        if c == NULL:
            raise MemoryError
        return conn_id(self.loop, c)

    def give(self, uint64_t number):
        """Release a connection of take()."""
        cdef conn_t *c = conn_find(self.loop, number)
        if c == NULL:
            raise KeyError(number)
        pool_give(self.loop, c)

    def has(self, uint64_t number):
        """Whether a living connection has this number."""
        return conn_find(self.loop, number) != NULL

    # --- timers ---

    def arm(self, uint64_t token, uint64_t due):
        """Number of a new connection with a deadline at ``due`` (ms; 0: none), to be known by ``token``."""
        cdef int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        cdef conn_t *c = pool_take(self.loop, fd) if fd != -1 else NULL
        if c == NULL:
            raise MemoryError
        c.side = SIDE_BACK
        c.phase = PHASE_JOIN
        c.owner = token
        c.params = &self.params
        c.deadline = due
        timer_arm(self.loop, c)
        return conn_id(self.loop, c)

    def move(self, uint64_t number, uint64_t due):
        """Give a connection of arm() another deadline (ms), earlier or later."""
        cdef conn_t *c = conn_find(self.loop, number)
        if c == NULL:
            raise KeyError(number)
        c.deadline = due
        timer_arm(self.loop, c)

    def clear(self, uint64_t number):
        """Take its deadline from a connection of arm(), as conn_deadline does."""
        cdef conn_t *c = conn_find(self.loop, number)
        if c == NULL:
            raise KeyError(number)
        conn_deadline(self.loop, c, 0)

    def drop(self, uint64_t number):
        """End a connection of arm()."""
        cdef conn_t *c = conn_find(self.loop, number)
        if c == NULL:
            raise KeyError(number)
        conn_destroy(self.loop, c)
        self.fired()

    def advance(self, uint64_t now):
        """Move the clock to ``now`` (ms) and work off the timers: tokens whose deadline passed, in that order."""
        self.loop.now = now
        loop_timers(self.loop)
        return self.fired()

    def wait(self):
        """Milliseconds that epoll_wait may sleep; -1: for ever."""
        return timer_wait(self.loop)

    cdef list fired(self):
        cdef entry_t e
        cdef list tokens = []
        while ring_pop(&self.loop.events, &e):
            tokens.append(e.owner)
        return tokens


cdef class ProbeBuffer:
    """A linear buffer whose memory comes from the loop's pool."""

    cdef ProbeLoop owner
    cdef buf_t buf

    def __init__(self, ProbeLoop owner not None):
        self.owner = owner

    def __dealloc__(self):
        if self.owner is not None:
            buf_free(self.owner.loop, &self.buf)

    def append(self, bytes data):
        """Copy ``data`` to the end."""
        if buf_append(self.owner.loop, &self.buf, <const uint8_t *><const char *>data, len(data)) < 0:
            raise MemoryError

    def reserve(self, size_t extra):
        """Make room for ``extra`` octets and write to all of it what nobody shall see."""
        if buf_reserve(self.owner.loop, &self.buf, extra) < 0:
            raise MemoryError
        memset(self.buf.base + self.buf.end, 0xEE, extra)

    def consume(self, size_t n):
        """Drop ``n`` octets from the front.

        :raise ValueError: there are not as many.
        """
        if n > buf_len(&self.buf):
            raise ValueError(n)
        buf_consume(self.owner.loop, &self.buf, n)

    def free(self):
        """Give the memory back."""
        buf_free(self.owner.loop, &self.buf)

    def spoil_front(self):
        """Write to all that lies in front of the data, as headers do."""
        if self.buf.base != NULL:
            memset(self.buf.base, 0xDD, self.buf.start)

    def content(self):
        """The octets held."""
        return (<char *>buf_ptr(&self.buf))[:buf_len(&self.buf)] if self.buf.base != NULL else b""

    @property
    def start(self):
        """Octets in front of the data."""
        return self.buf.start

    @property
    def room(self):
        """Octets behind the data."""
        return buf_room(&self.buf)

    @property
    def capacity(self):
        """Octets of memory."""
        return self.buf.cap


cdef class ProbeRing:
    """A ring of numbers.

    :param size: entries before the overflow list, a power of two.
    """

    cdef ring_t ring
    cdef readonly int wake_fd

    def __cinit__(self, uint32_t size):
        self.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.wake_fd == -1 or ring_init(&self.ring, size, self.wake_fd) < 0:
            raise MemoryError

    def __dealloc__(self):
        ring_free(&self.ring)
        if self.wake_fd > 0:
            close(self.wake_fd)

    def push(self, uint64_t first, uint64_t count=1, bytes data=b""):
        """Add ``count`` numbers from ``first`` on, each with a copy of ``data``, without the GIL."""
        cdef entry_t e
        cdef uint64_t i
        cdef const char *source = data
        cdef size_t n = len(data)
        cdef bint failed = False
        with nogil:
            for i in range(count):
                memset(&e, 0, sizeof(e))
                e.conn = first + i
                if n:
                    e.data = <uint8_t *>mem_alloc(n)
                    if e.data == NULL:
                        failed = True
                        break
                    memcpy(e.data, source, n)
                    e.length = n
                if ring_push(&self.ring, &e) < 0:
                    mem_free(e.data)
                    failed = True
                    break
        if failed:
            raise MemoryError

    def pop(self):
        """The oldest number and its data; None when empty."""
        cdef entry_t e
        if not ring_pop(&self.ring, &e):
            return None
        data = (<char *>e.data)[:e.length] if e.length else b""
        if e.data != NULL:
            mem_free(e.data)
        return e.conn, data

    @property
    def count(self):
        """Entries in the ring, without the overflow list."""
        return self.ring.count

    @property
    def overflow(self):
        """Entries in the overflow list."""
        return atomic_load64(&self.ring.overflow)
